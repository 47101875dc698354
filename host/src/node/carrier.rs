//! What carries the log from node to node.

use super::opened::closed_log;
use crate::failure::{Failure, Kind};
use crate::life;
use crate::log::{
    self, Connection, Durability, JetStream, Limit, Local, Log, Login, Look, Names, Settings, durability,
};
use crate::place::Place;
use crate::server::Managed;
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
    /// How much a shard may hold.
    pub limit: Limit,
    /// Pages on which servers tell about themselves.
    pub monitors: Vec<String>,
    /// Refuse servers that acknowledge before they sync.
    pub strict_durability: bool,
    /// The server that this node starts; none: others run them.
    pub managed: Option<Managed>,
}

/// Why a server of one's own can't be asked.
pub(crate) const NEVER_STARTED: &str = "this node's NATS server was never started: it runs while `antiphon run` does";

impl Nats {
    /// Where the servers are; nothing if one of one's own was never started.
    pub(crate) fn addresses(&self) -> Option<Vec<String>> {
        match self.managed.as_ref().map(Managed::address) {
            None => Some(self.urls.clone()),
            Some(address) => address.map(|address| vec![address]),
        }
    }

    fn settings(&self, place: String) -> Settings {
        let Self { names, replicas, update_existing, limit, .. } = self;
        Settings { names: names.clone(), replicas: *replicas, update_existing: *update_existing, limit: *limit, place }
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
        let urls = nats.addresses().ok_or_else(|| unreachable(&NEVER_STARTED))?;
        let open = Connection::open(&urls, &nats.name, nats.login.clone(), nats.pause);
        let connection = runtime.block_on(open).map_err(|failure| unreachable(&failure))?;
        let connected = async {
            // The pause is no promise: whoever looks wants to know now.
            tokio::time::timeout(PATIENCE, connection.wait(u32::MAX)).await
        };
        if runtime.block_on(connected).is_err() {
            let why = runtime.block_on(async { tokio::time::timeout(PATIENCE, connection.refusal()).await });
            let why = why.ok().flatten().unwrap_or_else(|| "it does not answer".to_owned());
            return Err(unreachable(&format_args!("no NATS server at {}: {why}", nats.shown)));
        }
        let log = {
            // The client starts tasks of its own at once.
            let _inside = runtime.enter();
            JetStream::new(&connection, nats.settings(String::new()))
        };
        Ok(Some(Look::on_nats(log, runtime)))
    }

    /// Opens the log. From then on it is also known where a server of one's own listens.
    pub(crate) async fn open(&mut self, place: &Place) -> Result<Arc<dyn Log>, Failure> {
        match self {
            Self::Embedded(directory) => {
                let log = Local::open(directory).map_err(|error| closed_log(&error))?;
                Ok(Arc::new(log))
            }
            Self::Nats(nats) => {
                let server = nats.managed.as_ref().map(Managed::start).transpose()?;
                if let Some(server) = &server {
                    nats.urls = vec![server.url.clone()];
                    nats.shown = format!("{} (started here)", server.url);
                    if nats.monitors.is_empty() {
                        nats.monitors.extend(server.monitor.clone());
                    }
                }
                let connection = Connection::open(&nats.urls, &nats.name, nats.login.clone(), nats.pause).await?;
                connection.wait(nats.tries).await;
                if nats.strict_durability {
                    strict(&durability::ask(&nats.monitors).await)?;
                }
                connection.watch(nats.monitors.clone());
                let (device, inode) = place.file();
                let place = format!("{} {device} {inode}", life::boot());
                Ok(Arc::new(JetStream::new(&connection, nats.settings(place)).kept_by(server)))
            }
        }
    }
}

/// Only servers that are known to sync may carry the log.
fn strict(found: &Durability) -> Result<(), Failure> {
    let refused = Failure::new(Kind::Config, format!("`strict_durability` is on, and {found}"));
    match found {
        Durability::Synced => Ok(()),
        Durability::Late { .. } => {
            Err(refused.hint(format!("add `{}` to the server's configuration, and start it again", durability::REMEDY)))
        }
        Durability::Unasked => Err(refused
            .hint("name their monitoring pages: `nats_monitor = [\"http://host:8222\"]` under `[nats]`, one a server")),
        Durability::Unknown { .. } => {
            Err(refused.hint("start the server with `http_port: 8222` in its configuration, reachable from here"))
        }
    }
}
