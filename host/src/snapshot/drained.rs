//! A copy of a running node's file that becomes L: what a snapshot is made from.
//!
//! Nobody who writes to the file waits for it: the copy is one read, and everything else happens to the copy.

use super::unwritten;
use crate::apart::apart;
use crate::aside::foresee;
use crate::db::{self, Copying, Database, Db, Stop};
use crate::failure::{Failure, Kind};
use crate::join::unreachable_log;
use crate::log::{Log, Shard};
use crate::placement;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bytes of entries read at once.
const READ_BYTES_MAX: usize = 4 << 20;
/// How long the log may take to give back what the node had only marked.
const PATIENCE: Duration = Duration::from_secs(60);
/// With more keys on their way a copy of the file is put off, for it keeps them in memory once more;
const PENDING_MAX: usize = 200_000;
/// but not for longer than that.
const PUT_OFF_MAX: Duration = Duration::from_secs(600);
/// Most seals in one go, while the application writes on.
const SEALS_MAX: u32 = 1_000;

/// A node whose file is copied.
pub(super) struct Live {
    pub(super) db: Db,
    pub(super) log: Arc<dyn Log>,
    /// Who sends what is sealed.
    pub(super) moved: Arc<Notify>,
}

impl Live {
    /// Copies the file, and reads the log into the copy until nothing is in it that the log does not have.
    pub(super) async fn drain(&self, path: &Path, copy: &Path) -> Result<Database, Failure> {
        // A transaction that is sealed by half can't be gone on with in a copy.
        self.seal().await?;
        let copying = self.db.call(|db| Ok(db.copying())).await.map_err(|error| failed(&error))?;
        let (from, to) = (path.to_owned(), copy.to_owned());
        let opened = apart(move || open(&from, copying, &to)).await?;
        fault!("snapshot-copied");
        let mut copy = opened?;
        let sealed = self.seal().await?;
        let begun = Instant::now();
        let shards = copy.shards();
        loop {
            for shard in 1..=shards {
                copy = self.read_on(copy, shard).await?;
            }
            if copy.has_drained(&sealed) {
                break;
            }
            if begun.elapsed() > PATIENCE {
                return Err(Failure::new(Kind::Busy, "what was written here is not in the log yet, after 60 s")
                    .hint("see with `antiphon status` what keeps it; a snapshot holds only what the log has"));
            }
            let position = copy.position(1).seq;
            let _ = tokio::time::timeout(Duration::from_millis(200), self.log.changed(1, position)).await;
        }
        fault!("snapshot-drained");
        apart(move || copy.end_draining().map(|()| copy)).await?.map_err(|error| failed(&error))
    }

    /// Waits for the log to give back most of a mass that was written here, as long as anything moves.
    pub(super) async fn wait_for_most(&self) -> Result<(), Failure> {
        self.seal().await?;
        let begun = Instant::now();
        let (mut last, mut since) = (None, begun);
        while begun.elapsed() < PUT_OFF_MAX {
            let looked = self.db.call(|db| Ok((db.pending_len(), db.positions()))).await;
            let standing = looked.map_err(|error| failed(&error))?;
            if standing.0 <= PENDING_MAX {
                break;
            }
            if last.is_none() {
                tracing::info!(pending = standing.0, "a snapshot waits until most of what was written is in the log");
            }
            if last.as_ref() != Some(&standing) {
                (last, since) = (Some(standing), Instant::now());
            } else if since.elapsed() > PATIENCE {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Seals what was marked by now; gives the last numbers after it.
    pub(super) async fn seal(&self) -> Result<Vec<(Shard, u64)>, Failure> {
        let mut seals = 0;
        while self.db.call(Database::seal).await.map_err(|error| failed(&error))? {
            seals += 1;
            if seals > SEALS_MAX {
                return Err(Failure::new(Kind::Busy, "the application writes faster than it can be sent"));
            }
        }
        self.moved.notify_one();
        self.db.call(|db| Ok(db.last_numbers())).await.map_err(|error| failed(&error))
    }

    /// Applies to the copy what there is of a shard.
    async fn read_on(&self, mut copy: Database, shard: Shard) -> Result<Database, Failure> {
        loop {
            let position = copy.position(shard);
            let entries = if copy.anchor(shard) == position {
                let read = placement::read(&*self.log, shard, position, READ_BYTES_MAX).await;
                let lost = |loss| Failure::new(Kind::Data, format!("shard {shard} of the log {loss}"));
                read.map_err(unreachable_log)?.map_err(lost)?
            } else {
                // Of a large unit a part was applied.
                self.log.read(shard, position.seq, READ_BYTES_MAX).await.map_err(unreachable_log)?
            };
            if entries.is_empty() {
                return Ok(copy);
            }
            let applied = apart(move || copy.apply(shard, &entries).map(|applied| (copy, applied.stop))).await?;
            let stop;
            (copy, stop) = applied.map_err(|error| failed(&error))?;
            match stop {
                None | Some(Stop::Full | Stop::Unsealed) => {}
                Some(Stop::Blocked(why)) => {
                    if !foresee(&mut copy, &*self.log, shard).await.map_err(unreachable_log)? {
                        return Err(Failure::new(Kind::Busy, format!("the log can't be applied to a copy: {why}"))
                            .hint("see with `antiphon status` what this node waits for"));
                    }
                }
                Some(Stop::Gap { expected, .. }) => {
                    return Err(Failure::new(Kind::Data, format!("the log lacks entry {expected} of shard {shard}")));
                }
            }
        }
    }
}

fn open(from: &Path, copying: Copying, to: &Path) -> Result<Database, Failure> {
    db::copy(from, to).map_err(|error| match error {
        db::Error::Io { source, .. } => unwritten(to, &source),
        error => failed(&error),
    })?;
    copying
        .open(to)
        .map_err(|error| failed(&error))?
        .map_err(|why| Failure::new(Kind::Busy, format!("no snapshot can be made now: {why}")))
}

pub(super) fn failed(error: &db::Error) -> Failure {
    let kind = if error.is_transient() { Kind::Busy } else { Kind::General };
    let failure = Failure::caused(kind, "cannot copy the database for a snapshot", error);
    match error {
        db::Error::Sqlite { source, .. } if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) => {
            failure.hint(
                "make room where the folder `.antiphon` beside the database lies; the application is not affected",
            )
        }
        _ => failure,
    }
}
