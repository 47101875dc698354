//! What a node is made from.

use super::carrier::Carrier;
use crate::alarm::Ceiling;
use crate::anew::Leave;
use crate::db::{Filter, Options, Policies};
use crate::housekeeping::Keep;
use crate::reload::Reload;
use crate::seq_map::SeqMap;
use crate::snapshot::Shelf;
use crate::vitals::Lookout;
use antiphon_core::entry::Genesis;
use antiphon_core::hash::Hash;
use antiphon_plugin::PluginHost;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a node is made from.
pub struct Parts {
    /// The application's database.
    pub database: PathBuf,
    /// This node's number; 0 = one drawn once and kept in the file.
    pub node: u64,
    /// What carries the log.
    pub log: Carrier,
    /// Which tables are replicated.
    pub filter: Filter,
    /// Most changes in one transaction of ours.
    pub changes_max: usize,
    /// Most changes of one unit that are applied in one transaction.
    pub atomic_max: usize,
    /// Compress batches.
    pub compress: bool,
    /// Note what is written here, for the others.
    pub publish: bool,
    /// Apply what others wrote.
    pub replicate: bool,
    /// How long nothing happens before the program ends; zero: it does not.
    pub sleep_timeout: Duration,
    /// How much may wait for the log.
    pub outbox: Ceiling,
    /// How long a missed file event may go unnoticed.
    pub poll_interval: Duration,
    /// For how long batches are kept that the log has.
    pub keep: Keep,
    /// Where other tools read how far each shard was applied.
    pub seq_map: SeqMap,
    /// What this node would agree to.
    pub agreed: Genesis,
    /// Where a key goes.
    pub hasher: Box<dyn Hash>,
    /// Who wins a clash, table by table.
    pub policies: Policies,
    /// Looks into the configuration again, if there is one.
    pub reload: Option<Reload>,
    /// Where snapshots go, if any are made.
    pub shelf: Option<Shelf>,
    /// Where components come to life, to be asked what they cost.
    pub plugins: Option<PluginHost>,
    /// When a log that holds nothing is begun again.
    pub leave: Leave,
    /// Where it is shown how the node is, if anybody wants to know.
    pub lookout: Option<Lookout>,
}

impl Parts {
    /// How the database at `path` is opened, whose host keeps its own files in `state`.
    pub(crate) fn options(&self, path: &Path, state: &Path) -> Options {
        Options {
            path: path.to_owned(),
            node: self.node,
            filter: self.filter.clone(),
            changes_max: self.changes_max,
            atomic_max: self.atomic_max,
            compress: self.compress,
            publish: self.publish,
            replicate: self.replicate,
            replays: Some(state.join(crate::replay::FOLDER)),
        }
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("database", &self.database).field("log", &self.log).finish_non_exhaustive()
    }
}
