//! A server's SFTP, lent to the storage `sftp`: one authenticated channel at a time.
//!
//! SSH ends here, as TLS does elsewhere: keys, passwords and the comparison of the server's key stay in the host, and a
//! component writes and reads what goes through the channel.
//!
//! | module | noun |
//! |---|---|
//! | `place` | where the folder is, and what it takes to get there |
//! | `known` | files of known hosts: whether a server's key is the one it should have |
//! | `login` | the ways to log in, one after the other |

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use antiphon_core::store::{ErrorKind, StoreError};
use antiphon_plugin::{Conversation, Server};
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use russh::client::{self, Handle, Msg};
use russh::keys::{Algorithm, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, Preferred, SshId};
use tokio::net::TcpStream;
use tokio::time::timeout;

mod known;
mod login;
mod place;

pub(super) use place::{Place, Words};

/// How long it may take until the server has taken the connection.
const DIAL: Duration = Duration::from_secs(10);
/// How long it may take from there until the channel is open.
const LOG_IN: Duration = Duration::from_secs(15);
/// How long nothing may come, or go, while something should.
const SILENCE: Duration = Duration::from_secs(20);
/// What may lie here unread, in messages of at most 32 KiB. The window bounds their bytes.
const MESSAGES_MAX: usize = 512;
/// What of the server's complaints is kept.
const COMPLAINT_BYTES_MAX: usize = 300;

/// A server that we can log in to.
pub(super) struct SshServer(pub(super) Place);

/// Looks at the server's key.
struct Gate {
    place: Place,
    known: known::Known,
    /// Why the server is not the one, for it can't be said any other way.
    refusal: Arc<Mutex<Option<StoreError>>>,
}

impl client::Handler for Gate {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let judged = self.known.judge(&self.place, shown, crate::clock::unix_ms() / 1000);
        let known = judged.is_ok();
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = judged.err();
        Ok(known)
    }
}

impl SshServer {
    fn failed(&self, what: &str, why: &dyn std::fmt::Display) -> StoreError {
        StoreError::new(ErrorKind::Temporary, format!("cannot {what} `{}`: {why}", self.0.address()))
    }

    async fn dial(&self) -> Result<TcpStream, StoreError> {
        let place = &self.0;
        let away = |why: &dyn std::fmt::Display| {
            self.failed("reach the SSH server at", why)
                .hint("see that the server runs, and that `url` names its host and port")
        };
        let stream = match timeout(DIAL, TcpStream::connect((place.host.as_str(), place.port))).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(away(&error)),
            Err(_) => return Err(away(&format!("no answer after {} s", DIAL.as_secs()))),
        };
        stream.set_nodelay(true).map_err(|error| away(&error))?;
        Ok(stream)
    }

    async fn enter(&self, stream: TcpStream) -> Result<Talk, StoreError> {
        let place = &self.0;
        let known = known::Known::read(place)?;
        let refusal = Arc::default();
        let gate = Gate { place: place.clone(), refusal: Arc::clone(&refusal), known };
        let config = config(&gate);
        let entered = client::connect_stream(Arc::new(config), stream, gate).await;
        let refused = refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(refused) = refused {
            return Err(refused);
        }
        let mut handle = entered.map_err(|error| self.failed("speak SSH with", &error))?;
        login::log_in(&mut handle, place).await?;
        let closed = |error: russh::Error| self.failed("open a channel to", &error);
        let mut channel = handle.channel_open_session().await.map_err(closed)?;
        channel.request_subsystem(true, "sftp").await.map_err(closed)?;
        loop {
            match channel.wait().await {
                Some(ChannelMsg::Success) => break,
                Some(ChannelMsg::WindowAdjusted { .. }) => {}
                Some(_) | None => {
                    let why = format!("the server `{}` lets `{}` in and has no SFTP", place.address(), place.user);
                    return Err(StoreError::new(ErrorKind::Permanent, why)
                        .hint("its `sshd_config` needs a line such as `Subsystem sftp internal-sftp`"));
                }
            }
        }
        Ok(Talk { address: place.address(), _handle: handle, channel, left: Bytes::new(), complaint: Vec::new() })
    }
}

fn config(gate: &Gate) -> client::Config {
    let mut preferred = Preferred::DEFAULT;
    preferred.key = Cow::Owned(gate.known.order(&gate.place, &preferred.key));
    if gate.known.has_authority(&gate.place) {
        // A server that has a certificate shows its key alone unless asked.
        let algorithms = preferred.key.iter().filter(|algorithm| !matches!(algorithm, Algorithm::Rsa { hash: None }));
        preferred.host_key_certificates = Cow::Owned(algorithms.cloned().collect());
    }
    client::Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-antiphon_", env!("CARGO_PKG_VERSION")))),
        channel_buffer_size: MESSAGES_MAX,
        keepalive_interval: Some(Duration::from_secs(15)),
        preferred,
        ..client::Config::default()
    }
}

#[async_trait]
impl Server for SshServer {
    async fn open(&self) -> Result<Box<dyn Conversation>, StoreError> {
        let stream = self.dial().await?;
        // A large future, and made rarely.
        match timeout(LOG_IN, Box::pin(self.enter(stream))).await {
            Ok(talk) => Ok(Box::new(talk?)),
            Err(_) => {
                Err(self.failed("log in at", &format!("the server was not done with it after {} s", LOG_IN.as_secs())))
            }
        }
    }
}

/// An open channel.
struct Talk {
    address: String,
    /// The connection ends with this.
    _handle: Handle<Gate>,
    channel: Channel<Msg>,
    /// What came and was not asked for yet.
    left: Bytes,
    /// What the server says besides, which is why, if it ends.
    complaint: Vec<u8>,
}

impl Talk {
    /// The next bytes; none if the server has closed.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.channel.wait().await? {
                ChannelMsg::Data { data } if !data.is_empty() => return Some(data),
                ChannelMsg::ExtendedData { data, .. } => {
                    let room = COMPLAINT_BYTES_MAX.saturating_sub(self.complaint.len());
                    self.complaint.extend(data.iter().take(room));
                }
                ChannelMsg::Eof | ChannelMsg::Close => return None,
                _ => {}
            }
        }
    }

    fn broken(&self, why: &dyn std::fmt::Display) -> StoreError {
        let mut why = format!("lost the connection to `{}`: {why}", self.address);
        let complaint = String::from_utf8_lossy(&self.complaint);
        if !complaint.trim().is_empty() {
            why.push_str(&format!(" ({})", complaint.trim()));
        }
        StoreError::new(ErrorKind::Temporary, why)
    }
}

#[async_trait]
impl Conversation for Talk {
    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), StoreError> {
        let bytes = Bytes::from(bytes);
        let mut at = 0;
        // In parts, so that it is silence that is measured and not length.
        while at < bytes.len() {
            let end = bytes.len().min(at + (256 << 10));
            let sent = timeout(SILENCE, self.channel.data_bytes(bytes.slice(at..end))).await;
            match sent {
                Ok(sent) => sent.map_err(|error| self.broken(&error))?,
                Err(_) => {
                    return Err(self.broken(&format!("for {} s it took nothing", SILENCE.as_secs())));
                }
            }
            at = end;
        }
        Ok(())
    }

    async fn read(&mut self, limit: usize) -> Result<Vec<u8>, StoreError> {
        if self.left.is_empty() {
            match timeout(SILENCE, self.next()).await {
                Ok(Some(data)) => self.left = data,
                Ok(None) if self.complaint.is_empty() => return Ok(Vec::new()),
                Ok(None) => return Err(self.broken(&"it ended")),
                Err(_) => return Err(self.broken(&format!("for {} s nothing came", SILENCE.as_secs()))),
            }
        }
        let mut read = Vec::with_capacity(limit.min(256 << 10));
        loop {
            let take = self.left.split_to(self.left.len().min(limit - read.len()));
            read.extend_from_slice(&take);
            if read.len() >= limit || !self.left.is_empty() {
                return Ok(read);
            }
            // What is there already comes along.
            match self.next().now_or_never() {
                Some(Some(data)) => self.left = data,
                // That it has closed shows at the next read, for it stays so.
                Some(None) | None => return Ok(read),
            }
        }
    }
}
