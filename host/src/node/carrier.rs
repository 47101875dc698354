//! What carries the log from node to node.

use super::opened::closed_log;
use crate::failure::Failure;
use crate::life;
use crate::log::{self, Connection, JetStream, Local, Log, Login, Look, Names, Settings};
use crate::place::Place;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a look from outside waits for a server.
const PATIENCE: Duration = Duration::from_secs(3);

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

impl Nats {
    fn settings(&self, place: String) -> Settings {
        let Self { names, replicas, update_existing, .. } = self;
        Settings { names: names.clone(), replicas: *replicas, update_existing: *update_existing, place }
    }
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
    /// The directory of the embedded log, if it is that.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Embedded(directory) => Some(directory),
            Self::Nats(_) => None,
        }
    }

    /// The log, to be looked at from outside; `None` if there is none.
    pub(crate) fn look(&self) -> Result<Option<Look>, log::Error> {
        let nats = match self {
            Self::Embedded(directory) => return Look::open(directory),
            Self::Nats(nats) => nats,
        };
        let unreachable = |why: &dyn fmt::Display| log::Error::Unreachable(why.to_string());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| unreachable(&error))?;
        let open = Connection::open(&nats.urls, &nats.name, nats.login.clone(), nats.pause);
        let connection = runtime.block_on(open).map_err(|failure| unreachable(&failure))?;
        let connected = async {
            // The pause is no promise: whoever looks wants to know now.
            tokio::time::timeout(PATIENCE, connection.wait(&nats.shown, u32::MAX, nats.pause)).await
        };
        runtime.block_on(connected).map_err(|_| unreachable(&"no NATS server answers"))?;
        let log = {
            // The client starts tasks of its own at once.
            let _inside = runtime.enter();
            JetStream::new(&connection, nats.settings(String::new()))
        };
        Ok(Some(Look::on_nats(log, runtime)))
    }

    /// Opens the log.
    pub(crate) async fn open(&self, place: &Place) -> Result<Arc<dyn Log>, Failure> {
        match self {
            Self::Embedded(directory) => {
                let log = Local::open(directory).map_err(|error| closed_log(&error))?;
                Ok(Arc::new(log))
            }
            Self::Nats(nats) => {
                let connection = Connection::open(&nats.urls, &nats.name, nats.login.clone(), nats.pause).await?;
                connection.wait(&nats.shown, nats.tries, nats.pause).await;
                let (device, inode) = place.file();
                let place = format!("{} {device} {inode}", life::boot());
                Ok(Arc::new(JetStream::new(&connection, nats.settings(place))))
            }
        }
    }
}
