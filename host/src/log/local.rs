//! The embedded log: a directory that the nodes of one machine share.
//!
//! A SQLite file of its own does what a log needs: locks between processes, atomic appends, durable commits.
//! One row holds one frame; a shard is one table, so its positions are dense.

use super::{Announced, Appended, Bounds, Claim, Error, Lease, Log, Member, Placed, Shard};
use crate::watch::{Bell, Watch};
use antiphon_core::entry::Origin;
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for another process's append.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// A missed file event costs this much.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Between two tries to open the file.
const OPEN_PAUSE: Duration = Duration::from_millis(5);
pub(super) const FILE: &str = "log.db";
pub(super) const FORMAT: u32 = 1;
/// Entries that are removed in one step.
const REMOVED_MAX: u64 = 1_000;
/// Pages that are given back to the disk in one step.
const FREED_MAX: i64 = 1_000;
/// Where each process that runs holds a lock on the file of its origin.
const CLAIMS: &str = "claims";

/// The embedded log.
#[derive(Debug)]
pub struct Local {
    /// Appends wait for the disk; reads must not wait for them.
    writer: Arc<Mutex<Connection>>,
    reader: Arc<Mutex<Connection>>,
    watch: Watch,
    bell: Bell,
    directory: PathBuf,
}

impl Local {
    /// Opens the log in this directory, and makes it if there is none.
    ///
    /// # Errors
    /// When the directory or its file can't be made, read or written.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let file = directory.join(FILE);
        let broken = |error: &dyn std::fmt::Display| Error::Broken(format!("`{}`: {error}", file.display()));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| Error::Unreachable(format!("`{}`: {error}", directory.display())))?;
        let (writer, reader, format) = patiently(|| {
            let mut writer = connect(&file)?;
            create(&mut writer)?;
            let format: u32 = writer.query_row("SELECT value FROM meta WHERE name = 'format'", [], |row| row.get(0))?;
            Ok((writer, connect(&file)?, format))
        })
        .map_err(|error| named(classify(&error), &file))?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))
            .map_err(|error| Error::Unreachable(format!("`{}`: {error}", file.display())))?;
        if format != FORMAT {
            return Err(broken(&format_args!("it has format {format}, and this build reads format {FORMAT}")));
        }
        let bell = Bell::new(&file)
            .map_err(|error| Error::Unreachable(format!("the bell beside `{}`: {error}", file.display())))?;
        let watch = Watch::new(&file);
        Ok(Self {
            writer: Arc::new(Mutex::new(writer)),
            reader: Arc::new(Mutex::new(reader)),
            watch,
            bell,
            directory: directory.to_owned(),
        })
    }

    /// Where the log of a directory lies.
    #[must_use]
    pub fn file(directory: &Path) -> PathBuf {
        directory.join(FILE)
    }
}

/// The same error, of this file.
fn named(error: Error, file: &Path) -> Error {
    match error {
        Error::Unreachable(text) => Error::Unreachable(format!("`{}`: {text}", file.display())),
        Error::Broken(text) => Error::Broken(format!("`{}`: {text}", file.display())),
    }
}

/// Opens again while another process holds the file. SQLite's own waiting does not cover the turn to WAL, nor a
/// last connection that is just closing.
fn patiently<T>(open: impl Fn() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let begun = Instant::now();
    loop {
        match open() {
            Err(error) if begun.elapsed() < BUSY_TIMEOUT && is_busy(&error) => {
                std::thread::sleep(OPEN_PAUSE);
            }
            opened => return opened,
        }
    }
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open(file)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    // Takes effect in a file that is still empty: room that is free can be given back.
    conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    // What was acknowledged survives a power loss.
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "wal_autocheckpoint", 4000)?;
    Ok(conn)
}

fn create(conn: &mut Connection) -> rusqlite::Result<()> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value);
         CREATE TABLE IF NOT EXISTS fence (shard, node, incarnation, number, PRIMARY KEY (shard, node, incarnation));
         CREATE TABLE IF NOT EXISTS member (node, incarnation, time, said, PRIMARY KEY (node, incarnation));
         CREATE TABLE IF NOT EXISTS lease (name TEXT PRIMARY KEY, term, node, incarnation, ttl_ms);",
    )?;
    transaction.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?1)", [FORMAT])?;
    transaction.commit()
}

/// Runs `work` where blocking is allowed: a commit waits for the disk.
async fn blocking<T: Send + 'static>(
    conn: &Arc<Mutex<Connection>>,
    work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let conn = Arc::clone(conn);
    let done = tokio::task::spawn_blocking(move || {
        work(&mut conn.lock().unwrap_or_else(PoisonError::into_inner)).map_err(|error| classify(&error))
    });
    done.await.unwrap_or_else(|error| Err(Error::Broken(error.to_string())))
}

fn is_busy(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
}

/// A disk that fails or is full can be mended while the node waits; only a damaged file does not get better.
pub(super) fn classify(error: &rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{
        CannotOpen, DiskFull, FileLockingProtocolFailed, OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure,
    };
    let passes = matches!(
        error.sqlite_error_code(),
        Some(
            CannotOpen
                | DiskFull
                | FileLockingProtocolFailed
                | OutOfMemory
                | PermissionDenied
                | ReadOnly
                | SystemIoFailure
        )
    );
    if passes || is_busy(error) { Error::Unreachable(error.to_string()) } else { Error::Broken(error.to_string()) }
}

fn create_shard(conn: &Connection, shard: Shard) -> rusqlite::Result<()> {
    conn.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS shard_{shard} (seq INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, frame BLOB NOT NULL)"
    ))
}

/// A shard nobody appended to has no table yet.
pub(super) fn exists(conn: &Connection, shard: Shard) -> rusqlite::Result<bool> {
    has_table(conn, &format!("shard_{shard}"))
}

fn has_table(conn: &Connection, name: &str) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = ?1")?.exists([name])
}

pub(super) fn read(conn: &Connection, shard: Shard, after: u64, bytes_max: usize) -> rusqlite::Result<Vec<Placed>> {
    if !exists(conn, shard)? {
        return Ok(Vec::new());
    }
    let mut statement =
        conn.prepare_cached(&format!("SELECT seq, time, frame FROM shard_{shard} WHERE seq > ?1 ORDER BY seq"))?;
    let mut rows = statement.query([after.cast_signed()])?;
    let mut read = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let frame: Vec<u8> = row.get(2)?;
        bytes += frame.len();
        let (seq, time): (i64, i64) = (row.get(0)?, row.get(1)?);
        read.push(Placed::whole(seq.cast_unsigned(), time.cast_unsigned(), frame));
        if bytes >= bytes_max {
            break;
        }
    }
    Ok(read)
}

/// What members said last. Words that this build can't read come from another one, and still tell who and when.
pub(super) fn members(conn: &Connection) -> rusqlite::Result<Vec<Announced>> {
    // A log that an earlier version made.
    if !has_table(conn, "member")? {
        return Ok(Vec::new());
    }
    conn.prepare_cached("SELECT node, incarnation, time, said FROM member ORDER BY 1, 2")?
        .query_map([], |row| {
            let (node, incarnation): (i64, i64) = (row.get(0)?, row.get(1)?);
            let (node, incarnation) = (node.cast_unsigned(), incarnation.cast_unsigned());
            let said: String = row.get(3)?;
            let said: Member = serde_json::from_str(&said).unwrap_or_default();
            let member = Member { node, incarnation, ..said };
            Ok(Announced { member, time: row.get::<_, i64>(2)?.cast_unsigned() })
        })?
        .collect()
}

fn lease(conn: &Connection, name: &str) -> rusqlite::Result<Lease> {
    let found = conn
        .prepare_cached("SELECT term, node, incarnation, ttl_ms FROM lease WHERE name = ?1")?
        .query_row([name], |row| {
            let node: Option<i64> = row.get(1)?;
            let incarnation: Option<i64> = row.get(2)?;
            Ok(Lease {
                term: row.get::<_, i64>(0)?.cast_unsigned(),
                holder: node.zip(incarnation).map(|(node, life)| (node.cast_unsigned(), life.cast_unsigned())),
                ttl_ms: row.get::<_, i64>(3)?.cast_unsigned(),
            })
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

fn insert(conn: &Connection, shard: Shard, frames: &[Vec<u8>]) -> rusqlite::Result<u64> {
    let time = crate::clock::unix_ns().cast_signed();
    let mut statement = conn.prepare_cached(&format!("INSERT INTO shard_{shard} (time, frame) VALUES (?1, ?2)"))?;
    for frame in frames {
        statement.execute((time, frame))?;
    }
    Ok(conn.last_insert_rowid().cast_unsigned())
}

pub(super) fn bounds(conn: &Connection, shard: Shard) -> rusqlite::Result<Bounds> {
    if !exists(conn, shard)? {
        return Ok(Bounds { first: 1, last: 0 });
    }
    let mut statement = conn.prepare_cached(&format!(
        "SELECT (SELECT min(seq) FROM shard_{shard}), (SELECT seq FROM sqlite_sequence WHERE name = 'shard_{shard}')"
    ))?;
    let (first, last): (Option<i64>, Option<i64>) = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let last = last.unwrap_or(0).cast_unsigned();
    Ok(Bounds { first: first.map_or(last + 1, i64::cast_unsigned), last })
}

/// Removes some of the oldest entries up to a position, and never the newest; says whether there may be more.
fn remove(conn: &mut Connection, shard: Shard, up_to: u64) -> rusqlite::Result<bool> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let Bounds { first, last } = bounds(&transaction, shard)?;
    let up_to = up_to.min(last.saturating_sub(1));
    if up_to < first {
        return Ok(false);
    }
    let step = up_to.min(first.saturating_add(REMOVED_MAX - 1));
    transaction.prepare_cached(&format!("DELETE FROM shard_{shard} WHERE seq <= ?1"))?.execute([step.cast_signed()])?;
    transaction.commit()?;
    Ok(step < up_to)
}

/// Gives some of the room that is free back to the disk; says whether there may be more.
fn shrink(conn: &mut Connection) -> rusqlite::Result<bool> {
    let free: i64 = conn.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
    // A file that an earlier version made keeps its room, and uses it again.
    let gives: u32 = conn.query_row("PRAGMA auto_vacuum", [], |row| row.get(0))?;
    if free == 0 || gives == 0 {
        return Ok(false);
    }
    // Each page is a step of its own.
    let mut statement = conn.prepare(&format!("PRAGMA incremental_vacuum({FREED_MAX})"))?;
    let mut pages = statement.query([])?;
    while pages.next()?.is_some() {}
    Ok(free > FREED_MAX)
}

#[async_trait]
impl Log for Local {
    async fn append(&self, shard: Shard, origin: Origin, first: u64, frames: &[Vec<u8>]) -> Result<Appended, Error> {
        let frames = frames.to_vec();
        blocking(&self.writer, move |conn| {
            let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let whose = (shard, origin.node.cast_signed(), origin.incarnation.cast_signed());
            let last: Option<i64> = transaction
                .prepare_cached("SELECT number FROM fence WHERE shard = ?1 AND node = ?2 AND incarnation = ?3")?
                .query_row(whose, |row| row.get(0))
                .optional()?;
            let last = last.unwrap_or(0).cast_unsigned();
            if last + 1 != first {
                return Ok(Appended::Fenced { last });
            }
            create_shard(&transaction, shard)?;
            let at = insert(&transaction, shard, &frames)?;
            let number = last + frames.len() as u64;
            transaction
                .prepare_cached(
                    "INSERT INTO fence VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (shard, node, incarnation) DO UPDATE SET number = ?4",
                )?
                .execute((whose.0, whose.1, whose.2, number.cast_signed()))?;
            transaction.commit()?;
            Ok(Appended::At(at))
        })
        .await
        .inspect(|_| self.bell.ring())
    }

    async fn begin(&self, shard: Shard, frame: &[u8]) -> Result<bool, Error> {
        let frame = frame.to_vec();
        blocking(&self.writer, move |conn| {
            let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if bounds(&transaction, shard)?.last > 0 {
                return Ok(false);
            }
            create_shard(&transaction, shard)?;
            insert(&transaction, shard, std::slice::from_ref(&frame))?;
            transaction.commit()?;
            Ok(true)
        })
        .await
        .inspect(|_| self.bell.ring())
    }

    async fn begin_again(
        &self,
        shard: Shard,
        at: u64,
        frame: &[u8],
        numbers: &[(Origin, u64)],
    ) -> Result<Option<u64>, Error> {
        let (frame, numbers) = (frame.to_vec(), numbers.to_vec());
        blocking(&self.writer, move |conn| {
            let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            create_shard(&transaction, shard)?;
            let Bounds { first, last } = bounds(&transaction, shard)?;
            if first <= last {
                return Ok(None);
            }
            let at = at.max(last + 1);
            let name = format!("shard_{shard}");
            transaction.execute("DELETE FROM sqlite_sequence WHERE name = ?1", [&name])?;
            transaction.execute("INSERT INTO sqlite_sequence VALUES (?1, ?2)", (&name, (at - 1).cast_signed()))?;
            insert(&transaction, shard, std::slice::from_ref(&frame))?;
            transaction.execute("DELETE FROM fence WHERE shard = ?1", [shard])?;
            let mut fence = transaction.prepare("INSERT INTO fence VALUES (?1, ?2, ?3, ?4)")?;
            for (origin, number) in numbers {
                let (node, incarnation) = (origin.node.cast_signed(), origin.incarnation.cast_signed());
                fence.execute((shard, node, incarnation, number.cast_signed()))?;
            }
            drop(fence);
            transaction.commit()?;
            Ok(Some(at))
        })
        .await
        .inspect(|_| self.bell.ring())
    }

    async fn clear(&self, shard: Shard) -> Result<(), Error> {
        blocking(&self.writer, move |conn| {
            if exists(conn, shard)? {
                conn.execute(&format!("DELETE FROM shard_{shard}"), [])?;
            }
            Ok(())
        })
        .await?;
        while blocking(&self.writer, shrink).await? {}
        Ok(())
    }

    async fn read(&self, shard: Shard, after: u64, bytes_max: usize) -> Result<Vec<Placed>, Error> {
        blocking(&self.reader, move |conn| read(conn, shard, after, bytes_max)).await
    }

    async fn bounds(&self, shard: Shard) -> Result<Bounds, Error> {
        blocking(&self.reader, move |conn| bounds(conn, shard)).await
    }

    async fn truncate(&self, shard: Shard, up_to: u64) -> Result<(), Error> {
        // In steps, for whoever appends waits for each of them.
        while blocking(&self.writer, move |conn| remove(conn, shard, up_to)).await? {}
        while blocking(&self.writer, shrink).await? {}
        Ok(())
    }

    async fn claim(&self, origin: Origin) -> Result<Option<Claim>, Error> {
        let directory = self.directory.join(CLAIMS);
        let file = directory.join(format!("{}-{}", origin.node, origin.incarnation));
        let open = || {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
            std::fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&file)
        };
        let cannot = |error: std::io::Error| Error::Unreachable(format!("`{}`: {error}", file.display()));
        let file = open().map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Claim::held(file))),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(cannot(error)),
        }
    }

    async fn changed(&self, shard: Shard, after: u64) {
        // An error is for the read that follows to report.
        let look = || async move { self.bounds(shard).await.map_or(true, |bounds| bounds.last > after) };
        self.watch.until(POLL_INTERVAL, look).await;
    }

    async fn announce(&self, member: &Member) -> Result<(), Error> {
        let (node, incarnation) = (member.node.cast_signed(), member.incarnation.cast_signed());
        let said = serde_json::to_string(member).map_err(|error| Error::Broken(error.to_string()))?;
        blocking(&self.writer, move |conn| {
            conn.prepare_cached(
                "INSERT INTO member VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (node, incarnation) DO UPDATE SET time = ?3, said = ?4",
            )?
            .execute((node, incarnation, crate::clock::unix_ns().cast_signed(), said))?;
            Ok(())
        })
        .await
    }

    async fn members(&self) -> Result<Vec<Announced>, Error> {
        blocking(&self.reader, |conn| members(conn)).await
    }

    async fn lease(&self, name: &str) -> Result<Lease, Error> {
        let name = name.to_owned();
        blocking(&self.reader, move |conn| lease(conn, &name)).await
    }

    async fn set_lease(&self, name: &str, wanted: Lease, over: u64) -> Result<(bool, Lease), Error> {
        let name = name.to_owned();
        blocking(&self.writer, move |conn| {
            let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let standing = lease(&transaction, &name)?;
            if standing.term != over {
                return Ok((false, standing));
            }
            let new = Lease { term: over + 1, ..wanted };
            let (node, incarnation) = new.holder.map_or((None, None), |(node, incarnation)| {
                (Some(node.cast_signed()), Some(incarnation.cast_signed()))
            });
            transaction
                .prepare_cached(
                    "INSERT INTO lease VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (name) DO UPDATE SET term = ?2, node = ?3, incarnation = ?4, ttl_ms = ?5",
                )?
                .execute((&name, new.term.cast_signed(), node, incarnation, new.ttl_ms.cast_signed()))?;
            transaction.commit()?;
            Ok((true, new))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is forgotten takes no room on the disk.
    #[tokio::test]
    async fn a_log_that_is_cut_becomes_smaller() {
        let folder = tempfile::tempdir().unwrap();
        let log = Local::open(folder.path()).unwrap();
        let size = || {
            let conn = connect(&Local::file(folder.path())).unwrap();
            conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
            std::fs::metadata(Local::file(folder.path())).unwrap().len()
        };
        let origin = Origin { node: 1, incarnation: 1 };
        log.append(1, origin, 1, &vec![vec![7; 10_000]; 1_500]).await.unwrap();
        let full = size();
        log.truncate(1, 1_490).await.unwrap();
        assert_eq!(log.bounds(1).await.unwrap(), Bounds { first: 1_491, last: 1_500 });
        assert!(size() < full / 20, "{} of {full}", size());
    }

    /// Nodes are started together: whoever comes first makes the log, and nobody is turned away.
    #[test]
    fn many_open_a_new_log_at_once() {
        for _ in 0..30 {
            let folder = tempfile::tempdir().unwrap();
            std::thread::scope(|scope| {
                let openers: Vec<_> = (0..8).map(|_| scope.spawn(|| Local::open(folder.path()).map(drop))).collect();
                for opener in openers {
                    opener.join().unwrap().unwrap();
                }
            });
        }
    }
}
