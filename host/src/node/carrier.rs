//! What carries the log from node to node.

use super::failing::lost_log;
use crate::failure::Failure;
use crate::life;
use crate::log::{Connection, JetStream, Local, Log, Login, Names, Settings};
use crate::place::Place;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What carries the log.
#[derive(Clone, Debug)]
pub enum Carrier {
    /// A directory that the nodes of one machine share.
    Embedded(PathBuf),
    /// NATS servers.
    Nats(Box<Nats>),
}

/// The NATS servers, and how to use them.
#[derive(Clone)]
pub struct Nats {
    /// Addresses, with what secrets they hold.
    pub urls: Vec<String>,
    /// The same without secrets.
    pub shown: String,
    /// What the connection is called.
    pub name: String,
    /// How to log in.
    pub login: Login,
    /// Between two tries to connect.
    pub pause: Duration,
    /// Tries that fail before a start says that it waits.
    pub tries: u32,
    /// What streams are called.
    pub names: Names,
    /// How many servers keep a copy.
    pub replicas: usize,
    /// Change streams that are there and have other settings.
    pub update_existing: bool,
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(directory) => {
                write!(f, "{}", directory.canonicalize().unwrap_or_else(|_| directory.clone()).display())
            }
            Self::Nats(nats) => f.write_str(&nats.shown),
        }
    }
}

impl Carrier {
    /// Opens the log.
    pub(super) async fn open(&self, place: &Place) -> Result<Arc<dyn Log>, Failure> {
        match self {
            Self::Embedded(directory) => {
                let log = Local::open(directory).map_err(|error| lost_log("cannot open the log", &error))?;
                Ok(Arc::new(log))
            }
            Self::Nats(nats) => {
                let connection = Connection::open(&nats.urls, &nats.name, nats.login.clone(), nats.pause).await?;
                connection.wait(&nats.shown, nats.tries, nats.pause).await;
                let (device, inode) = place.file();
                let settings = Settings {
                    names: nats.names.clone(),
                    replicas: nats.replicas,
                    update_existing: nats.update_existing,
                    place: format!("{} {device} {inode}", life::boot()),
                };
                Ok(Arc::new(JetStream::new(&connection, settings)))
            }
        }
    }
}
