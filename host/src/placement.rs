//! Whether the log is still the one that was applied: the entry at this node's position must still stand there.
//!
//! A log can lose its newest entries, be made anew, or let go of its oldest before this node has read them. It may
//! then go on growing, so that positions alone look as they should; what its clock said when it took the entry, and
//! the entry's checksum, do not.

use crate::log::{Error, Log, Placed, Placement, Shard};
use antiphon_core::entry::Origin;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// How often a log is asked again that ends before what it has shown.
const AGAIN: Duration = Duration::from_millis(50);

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
    let there = log.stands(shard, position.seq).await?;
    judge(log, shard, position, surely(log, shard, position.seq, there).await?).await
}

/// What stands at a position, where at first this did. That nothing does any more has to be so for a while.
async fn surely(
    log: &dyn Log,
    shard: Shard,
    at: u64,
    mut there: Option<Placement>,
) -> Result<Option<Placement>, Error> {
    let begun = Instant::now();
    while there.is_none() && begun.elapsed() < log.patience() {
        tokio::time::sleep(AGAIN).await;
        there = log.stands(shard, at).await?;
    }
    Ok(there)
}

/// The last number of an origin in a shard that is this one at least, if the log says so within a while; else what it says.
///
/// # Errors
/// When the log can't be asked.
pub async fn last_number(log: &dyn Log, shard: Shard, origin: Origin, sent: u64, mut last: u64) -> Result<u64, Error> {
    let begun = Instant::now();
    while last < sent && begun.elapsed() < log.patience() {
        tokio::time::sleep(AGAIN).await;
        last = log.last_number(shard, origin).await?;
    }
    Ok(if last < sent { log.highest_number(shard, origin).await? } else { last })
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
    // What comes after a place that was not there at first is read the next time.
    let (there, entries) = log.read_on(shard, position.seq, bytes_max).await?;
    let there = surely(log, shard, position.seq, there).await?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Memory;
    use std::sync::Arc;

    const ME: Origin = Origin { node: 7, incarnation: 1 };

    /// A log of three entries, and where the last one stands.
    async fn log() -> (Arc<Memory>, Placement) {
        let log = Arc::new(Memory::new());
        log.append(1, ME, 1, &[vec![1], vec![2], vec![3]]).await.unwrap();
        let last = log.stands(1, 3).await.unwrap().unwrap();
        (log, last)
    }

    /// All is there again after some looks.
    fn catches_up(log: &Arc<Memory>) {
        let log = Arc::clone(log);
        tokio::spawn(async move {
            tokio::time::sleep(3 * AGAIN).await;
            log.lag(0, Duration::from_secs(60));
        });
    }

    #[tokio::test(start_paused = true)]
    async fn f02_a_copy_that_is_behind_for_a_moment_has_lost_nothing() {
        let (log, last) = log().await;
        for what in ["compared", "read", "numbers"] {
            log.lag(1, Duration::from_secs(60));
            catches_up(&log);
            match what {
                "compared" => assert_eq!(compare(&*log, 1, last).await.unwrap(), None),
                "read" => assert!(read(&*log, 1, last, 1_000).await.unwrap().unwrap().is_empty()),
                _ => assert_eq!(last_number(&*log, 1, ME, 3, 2).await.unwrap(), 3),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn f02_what_stays_away_is_lost() {
        let (log, last) = log().await;
        let tail = Loss::Tail { last: 2, applied: 3 };
        for patience in [Duration::ZERO, Duration::from_secs(5)] {
            log.lag(1, patience);
            let begun = Instant::now();
            assert_eq!(compare(&*log, 1, last).await.unwrap(), Some(tail));
            assert_eq!(read(&*log, 1, last, 1_000).await.unwrap().unwrap_err(), tail);
            assert_eq!(last_number(&*log, 1, ME, 3, 2).await.unwrap(), 2);
            assert!(begun.elapsed() >= 3 * patience);
        }
    }
}
