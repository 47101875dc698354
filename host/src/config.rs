//! The configuration: what may be said, what it means, and where it comes from.
//!
//! The doc comments of the types are the reference; `antiphon config example` prints them. A setting comes from a
//! flag, else from the environment, else from the file, else from its default. Names and types are checked before
//! anything is read out, so that a slip of the pen is refused with the name it probably meant.
//!
//! | module | noun |
//! |---|---|
//! | `section` | the declaration of a table, from which all else follows |
//! | `general`, `nats`, `snapshot`, `observe`, `plugins` | the tables |
//! | `secret`, `size` | values that don't show; amounts of bytes |
//! | `expand` | secrets that stand in a file or a variable |
//! | `sources` | file, environment and flags |
//! | `keys` | names and types: found, refused, guessed |
//! | `check` | values that make no sense |
//! | `example`, `reference` | the commented file; the page of the guide |

use std::ffi::OsString;
use std::path::{Path, PathBuf};

mod check;
pub mod example;
mod expand;
mod general;
mod keys;
mod nats;
mod observe;
mod plugins;
#[cfg(test)]
mod reference;
mod secret;
mod section;
mod size;
mod snapshot;
mod sources;

pub use expand::expand;
pub use general::{Capture, Log, ReplicationLog};
pub use nats::Nats;
pub use observe::{Alerts, HealthCheck, Logging, Prometheus};
pub use plugins::{Conflict, ConflictTable, Grants, HASHERS, Hash, Plugin, PluginLimits, Plugins, RESOLVERS};
pub(crate) use secret::speaks_of_a_secret;
pub use secret::{Secret, Settings, Url};
pub use section::{Key, Kind, Section};
pub use size::Size;
pub use snapshot::{Snapshot, SnapshotFile, SnapshotKeep, SnapshotNats, SnapshotS3, SnapshotSftp, SnapshotWebdav};
pub use sources::{DEV, Environment, Overrides, Sources};

use crate::failure::Failure;
use section::section;

section! {
    /// The configuration of one node: one application's database.
    Config at "" {
        /// The application's database. Required. HarmonyLite falls back to a file in the temporary folder; here there
        /// is no default, so that nobody replicates an empty file by mistake.
        db_path: PathBuf = PathBuf::new(),
        /// The number of this node, different on every node. 0: a random number, made once and kept in the database.
        node_id: u64 = 0,
        /// Send this node's changes to the others. `false`: what is written here is not even noted, and the next change of
        /// the same row that comes from another node replaces it.
        publish: bool = true,
        /// Take the others' changes. `false`: they are passed over. When it is turned on again, the rows become the
        /// cluster's before anything else happens.
        replicate: bool = true,
        /// Most changes taken in one seal. More are taken in further seals, with a pause for the application between.
        /// HarmonyLite's default is 512.
        scan_max_changes: u32 = 16384,
        /// Most changes of one unit, which is one large transaction or several that were sealed together, that are
        /// applied in one transaction of this node. A larger one is applied in slices, so that the application's own
        /// writes need not wait: who reads meanwhile sees a part of it.
        atomic_max: u32 = 100_000,
        /// Milliseconds between two removals of changes that are no longer needed.
        cleanup_interval: u64 = 5000,
        /// Milliseconds for which a batch stays in the database's outbox once the log has it. It is what this node
        /// could send again if the log were lost.
        outbox_keep: u64 = 86_400_000,
        /// Most bytes of such batches; more are removed before their time, the oldest first. A batch that the log does
        /// not have stays whatever these two say.
        outbox_keep_bytes: u64 = 1_073_741_824,
        /// Milliseconds without a change after which the program ends. 0: never.
        sleep_timeout: u64 = 0,
        /// Milliseconds between two looks at the database, should the system's notification be missed.
        /// 0: adapts by itself.
        polling_interval: u64 = 0,
        /// A file that tells other tools how far each shard was applied. It is written, never read: the truth is kept
        /// in the database. Empty: `seq-map.cbor` in `<db_path>.antiphon`.
        seq_map_path: PathBuf = PathBuf::new(),
    }
    tables {
        /// How changes are kept in the log on their way to the other nodes.
        replication_log: ReplicationLog,
        /// Which tables are replicated.
        capture: Capture,
        /// The embedded log.
        log: Log,
        /// The component that spreads rows over shards.
        hash: Hash,
        /// The components that decide clashes.
        conflict: Conflict,
        /// Components by a name of your own.
        plugin: Plugins,
        /// Snapshots.
        snapshot: Snapshot,
        /// The servers that carry the log between machines.
        nats: Nats,
        /// What is written to stderr.
        logging: Logging,
        /// Metrics for Prometheus.
        prometheus: Prometheus,
        /// Whether this node is well.
        health_check: HealthCheck,
        /// Who is told when something is wrong.
        alerts: Alerts,
    }
}

/// All tables, in the order of the example.
pub const SECTIONS: &[Section] = &[
    Config::SECTION,
    ReplicationLog::SECTION,
    Capture::SECTION,
    Log::SECTION,
    Hash::SECTION,
    Conflict::SECTION,
    ConflictTable::SECTION,
    Plugin::SECTION,
    PluginLimits::SECTION,
    Grants::SECTION,
    Snapshot::SECTION,
    SnapshotKeep::SECTION,
    SnapshotNats::SECTION,
    SnapshotS3::SECTION,
    SnapshotWebdav::SECTION,
    SnapshotSftp::SECTION,
    SnapshotFile::SECTION,
    Nats::SECTION,
    Logging::SECTION,
    Prometheus::SECTION,
    HealthCheck::SECTION,
    Alerts::SECTION,
];

/// A configuration that was read, and what its user should know about it.
#[derive(Debug)]
pub struct Loaded {
    /// The settings in effect.
    pub config: Config,
    /// Where they came from.
    pub sources: Sources,
}

impl Config {
    /// Reads the configuration from all its sources and checks it.
    ///
    /// # Errors
    /// The first thing that is wrong, where it is, and what may have been meant.
    pub fn load(sources: Sources) -> Result<Loaded, Failure> {
        let (config, leaves) = Self::read(sources.clone())?;
        check::all(&config, sources.file.as_deref(), &leaves)?;
        Ok(Loaded { config, sources })
    }

    /// The database alone, for a command that needs nothing else: the other settings may be those of a node that this
    /// version can't run.
    ///
    /// # Errors
    /// As [`Config::load`], but only names, types and the database itself are looked at.
    pub fn database(sources: Sources) -> Result<PathBuf, Failure> {
        let file = sources.file.clone();
        let (config, leaves) = Self::read(sources)?;
        check::only_database(&config, file.as_deref(), &leaves)?;
        Ok(config.db_path)
    }

    /// What is written, names and types checked and nothing else: for a command that asks what is there, and not
    /// whether a node could run with it.
    ///
    /// # Errors
    /// When a name or a type is wrong.
    pub fn unjudged(sources: Sources) -> Result<Self, Failure> {
        Ok(Self::read(sources)?.0)
    }

    fn read(Sources { file, environment, overrides }: Sources) -> Result<(Self, Vec<keys::Leaf>), Failure> {
        let source = sources::Given::read(file.as_deref(), &environment)?;
        let leaves = keys::check(&source)?;
        let mut config: Self = source.extract()?;
        overrides.apply(&mut config);
        config.starts_server(&leaves);
        config.settle();
        Ok((config, leaves))
    }

    /// The start without a file: the defaults and the environment, for the database at `path`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn for_database(path: &Path) -> Result<Loaded, Failure> {
        let overrides = Overrides { db_path: Some(path.to_owned()), ..Overrides::default() };
        Self::load(Sources { file: None, environment: Environment::of_process(), overrides })
    }

    /// Our own folder beside the database: `app.db` has `app.db.antiphon`.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        let mut name = OsString::from(&self.db_path);
        name.push(".antiphon");
        PathBuf::from(name)
    }

    /// A section that speaks of NATS and names no servers asks for one. `urls` alone, empty, says nothing.
    fn starts_server(&mut self, leaves: &[keys::Leaf]) {
        let mut said = leaves.iter().filter_map(|leaf| leaf.pattern.strip_prefix("nats.")).filter(|key| *key != "urls");
        if self.nats.urls.is_empty() && leaves.iter().all(|leaf| leaf.pattern != "nats.start_server") {
            self.nats.start_server |= said.next().is_some();
        }
    }

    /// Fills in what follows from other settings.
    fn settle(&mut self) {
        if self.snapshot.store.is_empty() {
            self.snapshot.store = if self.nats.urls.is_empty() { "file" } else { "nats" }.to_owned();
        }
        if self.db_path.as_os_str().is_empty() {
            return; // `check` refuses it with a better sentence
        }
        if self.log.path.as_os_str().is_empty() {
            self.log.path = self.state_dir().join("log");
        }
        if self.snapshot.file.path.as_os_str().is_empty() {
            self.snapshot.file.path = self.log.path.join("snapshots");
        }
        if self.seq_map_path.as_os_str().is_empty() {
            self.seq_map_path = self.state_dir().join("seq-map.cbor");
        }
        for bind in [&mut self.prometheus.bind, &mut self.health_check.bind, &mut self.nats.bind_address] {
            if bind.starts_with(':') {
                bind.insert_str(0, "127.0.0.1");
            }
        }
    }
}

#[cfg(test)]
mod tests;
