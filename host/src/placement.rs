//! Whether the log is still the one that was applied: the entry at this node's position must still stand there.
//!
//! A log can lose its newest entries, be made anew, or let go of its oldest before this node has read them. It may
//! then go on growing, so that positions alone look as they should; what its clock said when it took the entry, and
//! the entry's checksum, do not.

use crate::log::{Error, Log, Placed, Placement, Shard};
use std::fmt;

/// How a log is no longer the one that was applied. Its words follow "shard 1 of the log".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It begins later than this node has come.
    Rolled {
        /// Its first entry.
        first: u64,
        /// The last that was applied here; 0 if none was.
        applied: u64,
    },
    /// It ends before what was applied.
    Tail {
        /// Its last entry.
        last: u64,
        /// The last that was applied here.
        applied: u64,
    },
    /// Another entry stands where the last was applied.
    Other {
        /// The position.
        position: u64,
    },
    /// Entries are missing in its midst.
    Gap {
        /// The one that should have come.
        expected: u64,
        /// The one that did.
        found: u64,
    },
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rolled { first, applied: 0 } => {
                write!(f, "begins at entry {first}, and nothing of it was applied here")
            }
            Self::Rolled { first, applied } => {
                write!(f, "begins at entry {first}, and only {applied} was applied here")
            }
            Self::Tail { last, applied } => {
                write!(f, "ends at entry {last}, and {applied} was applied here; its tail is lost")
            }
            Self::Other { position } => write!(f, "has another entry at position {position} than was applied here"),
            Self::Gap { expected, found } => write!(
                f,
                "goes on at entry {found} where {expected} should come; entries were rolled out before this node read them"
            ),
        }
    }
}

/// Compares the entry at `position` with the one that was applied there; gives what is wrong with the log.
///
/// # Errors
/// When the log can't be read.
pub async fn compare(log: &dyn Log, shard: Shard, position: Placement) -> Result<Option<Loss>, Error> {
    if crate::flaw!(PlacementUnchecked) {
        return Ok(None);
    }
    if position.seq == 0 {
        let first = log.bounds(shard).await?.first;
        return Ok((first > 1).then_some(Loss::Rolled { first, applied: 0 }));
    }
    judge(log, shard, position, log.stands(shard, position.seq).await?).await
}

/// Reads what comes after `position`, and says whether it comes after what was applied there: a log that loses entries
/// in between has another one there.
///
/// # Errors
/// When the log can't be read.
pub async fn read(
    log: &dyn Log,
    shard: Shard,
    position: Placement,
    bytes_max: usize,
) -> Result<Result<Vec<Placed>, Loss>, Error> {
    if position.seq == 0 || crate::flaw!(PlacementUnchecked) {
        let entries = log.read(shard, position.seq, bytes_max).await?;
        return Ok(compare(log, shard, position).await?.map_or(Ok(entries), Err));
    }
    let (there, entries) = log.read_on(shard, position.seq, bytes_max).await?;
    Ok(judge(log, shard, position, there).await?.map_or(Ok(entries), Err))
}

/// What is wrong with a log in which `there` stands at a position, or after it.
async fn judge(
    log: &dyn Log,
    shard: Shard,
    position: Placement,
    there: Option<Placement>,
) -> Result<Option<Loss>, Error> {
    Ok(match there {
        None => Some(Loss::Tail { last: log.bounds(shard).await?.last, applied: position.seq }),
        Some(there) if there.seq != position.seq => Some(Loss::Rolled { first: there.seq, applied: position.seq }),
        Some(there) if there != position => Some(Loss::Other { position: position.seq }),
        Some(_) => None,
    })
}
