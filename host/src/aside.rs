//! L of some tables, built aside from the log up to where this node stands.

use crate::db::{Database, Stop};
use crate::log::{self, Log, Placed, Shard};
use crate::publish::Error;

/// Bytes of entries read in one step.
const READ_BYTES_MAX: usize = 4 << 20;

/// How far L of a shard has been built.
pub(crate) enum Read {
    /// Up to the position that was asked for.
    All,
    /// A part of it; the next step goes on.
    Some,
    /// It can't be built, and why.
    Stuck(String),
}

/// Applies the next entries of a shard to a database made by [`Database::aside`], up to a position.
pub(crate) async fn read(aside: &mut Database, log: &dyn Log, shard: Shard, position: u64) -> Result<Read, Error> {
    let after = aside.position(shard).seq;
    if after >= position {
        return Ok(Read::All);
    }
    let mut entries: Vec<Placed> = log.read(shard, after, READ_BYTES_MAX).await?;
    entries.retain(|placed| placed.seq <= position);
    let Some(last) = entries.last().map(|placed| placed.seq) else {
        return Err(log::Error::Broken(format!("shard {shard} lacks entry {}", after + 1)).into());
    };
    aside.widen(&entries)?;
    while aside.position(shard).seq < last {
        match aside.apply(shard, &entries)?.stop {
            None | Some(Stop::Full | Stop::Unsealed) => {}
            Some(Stop::Blocked(why)) => {
                if !foresee(aside, log, shard).await? {
                    return Ok(Read::Stuck(why.to_string()));
                }
            }
            Some(Stop::Gap { expected, .. }) => {
                return Ok(Read::Stuck(format!("the log lacks entry {expected} of shard {shard}")));
            }
        }
    }
    Ok(if last < position { Read::Some } else { Read::All })
}

/// Where a resolver gives no verdict: reads what is further on for other policies. Says whether there are any.
pub(crate) async fn foresee(aside: &mut Database, log: &dyn Log, shard: Shard) -> Result<bool, log::Error> {
    while let Some(after) = aside.foresees_after(shard) {
        let entries = log.read(shard, after, READ_BYTES_MAX).await?;
        if entries.is_empty() {
            return Ok(false);
        }
        if aside.foresee(shard, &entries) {
            return Ok(true);
        }
    }
    Ok(false)
}
