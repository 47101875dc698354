//! One authenticated channel to a server's SFTP, lent to a plugin; never a key, a password or the connection.

use antiphon_core::store::{ErrorKind, StoreError};
use async_trait::async_trait;
use wasmtime::Result;
use wasmtime::component::Resource;

use super::Lent;
use super::bucket::told;
use crate::bindings::objects;
use crate::bindings::ssh_channel::{Host, HostChannel};

/// The most bytes that a plugin is given at once, whatever it asks for.
const READ_BYTES_MAX: usize = 1 << 20;

/// The most channels that an instance may have open. Each is a connection.
const CHANNELS_MAX: usize = 4;

/// A server that the host can log in to. It is asked on threads of the plugins.
#[async_trait]
pub trait Server: Send + Sync {
    /// Dials, compares the server's key, logs in, and opens a channel to SFTP.
    async fn open(&self) -> Result<Box<dyn Conversation>, StoreError>;
}

/// An open channel. It is closed when it is dropped.
#[async_trait]
pub trait Conversation: Send {
    /// Sends all of it.
    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), StoreError>;

    /// Waits for bytes and gives those at hand, `limit` at most. None: the other side has closed.
    async fn read(&mut self, limit: usize) -> Result<Vec<u8>, StoreError>;
}

/// What stands for an open channel in a plugin's table.
#[expect(unreachable_pub, reason = "what is generated names it as if it were seen outside")]
pub struct Channel(Option<Box<dyn Conversation>>);

fn closed() -> objects::Error {
    told(StoreError::new(ErrorKind::Permanent, "the channel is closed"))
}

impl Host for Lent {}

impl HostChannel for Lent {
    async fn open(&mut self) -> Result<Result<Resource<Channel>, objects::Error>> {
        let Some(server) = self.server.clone() else {
            return Ok(Err(told(StoreError::new(ErrorKind::Permanent, "no server is lent"))));
        };
        if self.channels >= CHANNELS_MAX {
            let why = format!("{CHANNELS_MAX} channels are open already");
            return Ok(Err(told(StoreError::new(ErrorKind::Permanent, why))));
        }
        match server.open().await {
            Ok(conversation) => {
                let channel = self.table.push(Channel(Some(conversation)))?;
                self.channels += 1;
                Ok(Ok(channel))
            }
            Err(error) => Ok(Err(self.tell(error))),
        }
    }

    async fn write(&mut self, channel: Resource<Channel>, bytes: Vec<u8>) -> Result<Result<(), objects::Error>> {
        let Some(open) = &mut self.table.get_mut(&channel)?.0 else { return Ok(Err(closed())) };
        let written = open.write(bytes).await;
        Ok(written.map_err(|error| self.tell(error)))
    }

    async fn read(&mut self, channel: Resource<Channel>, limit: u32) -> Result<Result<Vec<u8>, objects::Error>> {
        let Some(open) = &mut self.table.get_mut(&channel)?.0 else { return Ok(Err(closed())) };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(READ_BYTES_MAX);
        let read = open.read(limit).await;
        Ok(read.map_err(|error| self.tell(error)))
    }

    async fn close(&mut self, channel: Resource<Channel>) -> Result<()> {
        self.table.get_mut(&channel)?.0 = None;
        Ok(())
    }

    async fn drop(&mut self, channel: Resource<Channel>) -> Result<()> {
        self.table.delete(channel)?;
        self.channels = self.channels.saturating_sub(1);
        Ok(())
    }
}
