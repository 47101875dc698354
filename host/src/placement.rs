//! Whether the log is still the one that was applied: the entry at this node's position must still stand there.
//!
//! A log can lose its newest entries, be made anew, or let go of its oldest before this node has read them. It may
//! then go on growing, so that positions alone look as they should; what its clock said when it took the entry, and
//! the entry's checksum, do not.

use crate::db::Placement;
use crate::log::{Error, Log, Shard};
use antiphon_core::codec;

/// Compares the entry at `position` with the one that was applied there; gives what is wrong with the log, in words
/// that follow "shard 1 of the log".
///
/// Asked after a read, it vouches for what was read: a log that loses entries in between has another one here.
///
/// # Errors
/// When the log can't be read.
pub async fn compare(log: &dyn Log, shard: Shard, position: Placement) -> Result<Option<String>, Error> {
    if crate::flaw!(PlacementUnchecked) {
        return Ok(None);
    }
    if position.seq == 0 {
        let first = log.bounds(shard).await?.first;
        return Ok((first > 1).then(|| format!("begins at entry {first}, and nothing of it was applied here")));
    }
    let there = log.read(shard, position.seq - 1, 1).await?.into_iter().next();
    Ok(match there {
        None => Some(format!(
            "ends at entry {}, and {} was applied here; its tail is lost",
            log.bounds(shard).await?.last,
            position.seq
        )),
        Some(there) if there.seq != position.seq => {
            Some(format!("begins at entry {}, and only {} was applied here", there.seq, position.seq))
        }
        Some(there) if (there.time, codec::checksum(&there.frame)) != (position.time, position.checksum) => {
            Some(format!("has another entry at position {} than was applied here", position.seq))
        }
        Some(_) => None,
    })
}
