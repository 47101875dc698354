//! Snapshots: how a running node makes them, where they lie, and how a database comes back from one.
//!
//! | module | noun |
//! |---|---|
//! | `repo` | the snapshots of one cluster in a store |
//! | `pieces` | a file in a store: cut into objects, and put together again |
//! | `saved` | one snapshot: what was written of it, and what can be read |
//! | `drained` | a copy of a running node's file that became L |
//! | `shelf` | the store that a running node has open, and another after a reload |
//! | `marks` | what was said of snapshots after they were made, and what goes for it |
//! | `aged` | those that lie in a cheaper class of storage |
//! | `habits` | when they are made, how they are packed, and which stay |
//! | `drill` | one that is put together on trial |
//! | `calendar` | times at which the user wants one |
//! | `rhythm` | what makes them due, and whether they came in time |
//! | `leader` | which node makes those that nobody asked for |
//! | `copied` | all that is kept, copied into another store |
//! | `cut` | how much of the log is superfluous, and its end |
//! | `history` | what comes after a snapshot, shard by shard |
//! | `increment` | a snapshot that holds no rows: a name for what changed |
//! | `applying` | what comes after a snapshot becomes part of it |
//! | `archive` | the log in a store, in segments |
//! | `segment` | one stretch of it, stored and read |
//! | `merge` | segments that become one |
//! | `expired` | what of the archive nobody needs any more |
//! | `archiver` | from the log into the archive |
//! | `archivist` | the task of a node that archives |
//! | `job` | a snapshot that is ready to be stored, on the disk |
//! | `keeper` | the task of a node that makes snapshots |
//! | `travel` | a point in time: a snapshot, and what came after it |
//! | `ways` | what leads up to snapshots without rows of their own |
//! | `output` | a database that was brought back gets its name |
//! | `scratch` | room on the disk for making one |
//! | `slot` | how many are made at once on a machine |
//! | `survey` | which there are, for those who watch over them |
//! | `rescue` | a snapshot for a node that can't go on from the log alone |

mod aged;
mod applying;
mod archive;
mod archiver;
mod archivist;
mod calendar;
mod copied;
mod cut;
mod drained;
mod drill;
mod expired;
mod full;
mod habits;
mod history;
mod increment;
mod job;
mod keeper;
mod leader;
mod marks;
mod merge;
mod output;
mod pieces;
mod repo;
mod rescue;
mod rhythm;
mod saved;
mod scratch;
mod segment;
mod shelf;
mod slot;
mod survey;
mod term;
mod tidying;
mod travel;
mod watch;
mod ways;

pub use archive::{Altered, Archived, Reachable, Window, windows};
pub(crate) use archivist::{Archivist, Signals};
pub use calendar::Calendar;
pub use copied::{Copied, copy};
pub use cut::forgettable;
pub use habits::{packing, spans};
pub(crate) use keeper::LiveParts;
pub use keeper::{Keeper, Made, places};
pub use marks::{Grace, Listed, Marks, Note, Pruned, kept};
pub use merge::Merged;
pub use output::{Output, only, others_with_rows, rows_of};
pub use repo::Repo;
pub(crate) use rescue::{Fetched, genesis_of, nothing_leads_to};
pub use rescue::{Image, Rescue};
pub use rhythm::{Rhythm, Run, rhythms};
pub use saved::{Checked, Level, check, repair_index};
pub use scratch::Scratch;
pub use shelf::Shelf;
pub use survey::{Shot, Stretch, Survey};
pub use travel::{Arrived, Plan, Travel, Wanted, cluster_of, is_sound};
pub use ways::Ways;

use crate::failure::{Failure, Kind};
use antiphon_core::store::StoreError;
use std::path::Path;

/// The end of something that a store did not do.
fn stored(attempted: impl std::fmt::Display, error: &StoreError) -> Failure {
    crate::storage::failure(error).context(attempted)
}

/// The end of something that a file in our own folders did not allow.
fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::caused(Kind::General, format!("cannot write `{}`", path.display()), error)
        .hint("see that the disk has room for another copy of the database")
}
