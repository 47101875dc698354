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
//! | `habits` | when they are made, how they are packed, and which stay |
//! | `leader` | which node makes those that nobody asked for |
//! | `keeper` | the task of a node that makes snapshots |
//! | `survey` | which there are, for those who watch over them |
//! | `rescue` | a snapshot for a node that can't go on from the log alone |

mod drained;
mod habits;
mod keeper;
mod leader;
mod marks;
mod pieces;
mod repo;
mod rescue;
mod saved;
mod shelf;
mod survey;

pub(crate) use keeper::LiveParts;
pub use keeper::{Keeper, Made, places};
pub use marks::{Grace, Listed, Marks, Note, Pruned, kept};
pub use repo::Repo;
pub use rescue::{Image, Rescue};
pub use saved::{Checked, Level, check, restore};
pub use shelf::Shelf;
pub use survey::{Shot, Survey};

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
