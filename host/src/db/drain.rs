//! A copy of the file becomes L: what the log says up to some place, without what only this node has. Nobody who writes
//! to the file waits for it.
//!
//! A copy holds L with this node's own changes on top. Those that are in the outbox are pending in the copy as they are
//! here. Those that were only marked are sealed in the copy, under numbers that no batch will ever have: so they are
//! pending, too, and what the log says of their rows meanwhile stands behind them, be it by the batches that were sealed
//! here since. Once the log has given back all that was sealed here after the copy was made, nothing is on top any
//! more but what has another row behind it. Those marks are forgotten, and what stands behind them comes out.

use super::own::{self, ours};
use super::{Database, Doing as _, Error, Options, Policies, connect};
use crate::log::Shard;
use antiphon_core::capture::PREFIX;
use antiphon_core::hash::{Hash, PackedKeys, PluginError};
use antiphon_core::schema::{Table, quote};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use std::path::Path;
use std::time::Duration;

/// Numbers from here on are those of no batch.
const UNREAL: u64 = 1 << 62;
/// How long a copy waits for a lock before it looks again.
const LOCKED: Duration = Duration::from_millis(5);
/// What of the host's own tables is part of L, and goes with its rows.
pub(super) const LOGGED: [&str; 10] =
    ["position", "received", "staged", "stamp", "conflict", "route", "decided", "in_force", "inherited", "anew"];

/// All marks of a copy are sealed for no log, so where they would go is all the same.
struct Anywhere;

impl Hash for Anywhere {
    fn configure(&mut self, _: &[Table]) -> Result<(), PluginError> {
        Ok(())
    }

    fn hash(&mut self, _: u32, keys: &PackedKeys) -> Result<Vec<u64>, PluginError> {
        Ok(vec![0; keys.len()])
    }
}

/// Copies a database as it stands at one moment. Where it is in WAL mode, nobody waits for that.
///
/// # Errors
/// When one of the two files can't be opened, read or written.
pub fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    const COPYING: &str = "copy the database";
    let source = connect(from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut target = connect(to, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    // Nobody needs it after a power cut, and a log on the same disk would wait for all of it to be written.
    target.pragma_update(None, "synchronous", "OFF").doing(COPYING)?;
    let backup = Backup::new(&source, &mut target).doing(COPYING)?;
    // In one step: in several, each commit of the application's would begin it anew.
    loop {
        match backup.step(-1).doing(COPYING)? {
            StepResult::Done => return Ok(()),
            _ => std::thread::sleep(LOCKED),
        }
    }
}

/// What a copy of a database's file is opened with, wherever that is done: it may take as long as a seal of all marks.
pub struct Copying {
    options: Options,
    policies: Policies,
}

impl std::fmt::Debug for Copying {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copying").field("path", &self.options.path).finish_non_exhaustive()
    }
}

impl Copying {
    /// Opens a copy, and puts all that is only marked there on top of what the log will say. The inner error says why it
    /// can't become L.
    ///
    /// # Errors
    /// When SQLite refuses; the copy is of no use then.
    pub fn open(self, path: &Path) -> Result<Result<Database, String>, Error> {
        let options = Options { path: path.to_owned(), ..self.options };
        let mut copy = Database::open(options, Box::new(Anywhere), self.policies)?;
        copy.conn.pragma_update(None, "synchronous", "OFF").doing("set how commits are synced")?;
        for shard in 1..=copy.shards() {
            copy.number_above(shard, UNREAL);
        }
        if copy.has_open_unit() {
            // What follows of it would be sealed here as another unit.
            return Ok(Err("a large transaction is being sealed".to_owned()));
        }
        loop {
            if let Some(why) = copy.is_undrainable()? {
                return Ok(Err(why));
            }
            // Applying would do it, too; but what can't be sealed is to show before anything is applied.
            if !copy.seal()? {
                break;
            }
        }
        Ok(copy.is_undrainable()?.map_or(Ok(copy), Err))
    }
}

impl Database {
    /// The last numbers that this node has sealed, shard by shard.
    #[must_use]
    pub fn last_numbers(&self) -> Vec<(Shard, u64)> {
        (1..=self.shards()).map(|shard| (shard, self.ledger.next_number(shard, self.origin) - 1)).collect()
    }

    /// Why no copy of this database can become L now, if so: rows of it are in no batch, and will be in none soon.
    ///
    /// # Errors
    /// When SQLite can't tell.
    pub fn is_undrainable(&self) -> Result<Option<String>, Error> {
        const LOOKING: &str = "look for rows that are not sent";
        let exists = |table: &str| {
            let sql = format!("SELECT EXISTS (SELECT 1 FROM {table})");
            self.conn.query_row(&sql, [], |row| row.get::<_, bool>(0)).doing(LOOKING)
        };
        Ok(if self.cluster.is_none() {
            Some("it belongs to no cluster yet".to_owned())
        } else if !self.options.publish {
            Some("`publish` is off, so what is written here is in no log".to_owned())
        } else if self.ledger.has_unread() {
            Some("changes of other nodes were passed over here".to_owned())
        } else if exists(ours!("scan"))? {
            Some("rows that were there before are still being marked".to_owned())
        } else if self.attachments.are_compared() {
            Some("a table is still to be compared with the log".to_owned())
        } else if let Some(tracked) = self.tables.iter().find(|tracked| !tracked.captured) {
            Some(format!("table `{}` is not captured yet", tracked.table.name))
        } else if exists(ours!("oversized"))? {
            Some("a row is too large to be sent; see `antiphon status`".to_owned())
        } else {
            None
        })
    }

    /// Which tables are replicated, in words that are the same for the same patterns; empty if all are.
    #[must_use]
    pub fn scope(&self) -> String {
        self.options.filter.words()
    }

    /// What a copy of this database's file is opened with.
    #[must_use]
    pub fn copying(&self) -> Copying {
        Copying { options: Options { node: 0, replays: None, ..self.options.clone() }, policies: self.policies.again() }
    }

    /// Whether a copy has read all that was sealed up to these numbers.
    #[must_use]
    pub fn has_drained(&self, sealed: &[(Shard, u64)]) -> bool {
        let is_back = |&(shard, number): &(Shard, u64)| {
            crate::flaw!(CopyEndsEarly) || self.ledger.done(shard, self.origin) >= number
        };
        !self.ledger.is_slicing() && sealed.iter().all(is_back)
    }

    /// Nothing of a copy waits for the log any more: what stands behind a row comes out. It is L then.
    ///
    /// # Errors
    /// When SQLite refuses, or rows are left that no log has; the copy is of no use then.
    pub fn end_draining(&mut self) -> Result<(), Error> {
        self.captures = false;
        self.numbered.clear();
        self.transaction(|db| {
            let emptied = db.conn.execute(concat!("DELETE FROM ", ours!("global_change_log")), []);
            emptied.doing("empty the outbox").map(|_| ())
        })?;
        self.reload()?;
        let shards = self.shards();
        self.transaction(|db| (1..=shards).try_for_each(|shard| db.retry_hidden(shard)))?;
        let shadows: i64 = self
            .conn
            .query_row(concat!("SELECT count(*) FROM ", ours!("shadow")), [], |row| row.get(0))
            .doing("look for shadows")?;
        if shadows > 0 || self.overlay.pending_len() > 0 {
            return Err(Error::Inconsistent("rows are left in a copy that no log has".to_owned()));
        }
        Ok(())
    }

    /// Writes the rows of L into one file, and into another where they stand in the log and what goes with them.
    ///
    /// Rowids stay as they are, also in tables without a key, which `VACUUM` alone would number anew.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn export(self, image: &Path, state: &Path) -> Result<(), Error> {
        const EXPORTING: &str = "write the image of a snapshot";
        let Self { conn, .. } = self;
        // Made here, for SQLite makes files that everybody may read.
        drop(connect(state, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?);
        conn.execute("ATTACH ?1 AS state", [state.to_string_lossy()]).doing(EXPORTING)?;
        for table in LOGGED {
            let table = quote(&format!("{PREFIX}_{table}"));
            conn.execute_batch(&format!("CREATE TABLE state.{table} AS SELECT * FROM main.{table}"))
                .doing(EXPORTING)?;
        }
        conn.execute_batch("DETACH state").doing(EXPORTING)?;
        for (kind, name) in own::objects(&conn, PREFIX)? {
            conn.execute_batch(&format!("DROP {kind} main.{}", quote(&name))).doing(EXPORTING)?;
        }
        conn.execute("VACUUM INTO ?1", [image.to_string_lossy()]).doing(EXPORTING)?;
        Ok(())
    }
}

/// Puts back into the image of a snapshot what goes with its rows: L, as it was when the snapshot was made.
///
/// # Errors
/// When one of the files can't be read or written.
pub fn assemble(image: &Path, state: &Path) -> Result<(), Error> {
    const ASSEMBLING: &str = "put a snapshot together";
    let conn = connect(image, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Whoever can write to the storage may have made it: nothing may stand where the host's own tables are to be.
    refuse(&conn, "SELECT type, name FROM main.sqlite_schema WHERE substr(name, 1, length(?1)) = ?1 COLLATE NOCASE")?;
    conn.pragma_update(None, "journal_mode", "WAL").doing(ASSEMBLING)?;
    conn.pragma_update(None, "synchronous", "OFF").doing(ASSEMBLING)?;
    own::create(&conn)?;
    conn.execute("ATTACH ?1 AS state", [state.to_string_lossy()]).doing(ASSEMBLING)?;
    refuse(&conn, "SELECT type, name FROM state.sqlite_schema WHERE type != 'table' AND ?1 != ''")?;
    let filled = LOGGED.iter().try_for_each(|table| fill(&conn, table));
    conn.execute_batch("DETACH state").doing(ASSEMBLING)?;
    filled
}

/// That there is nothing of a kind that nobody puts into a snapshot.
fn refuse(conn: &Connection, sql: &str) -> Result<(), Error> {
    let found: Option<(String, String)> = conn
        .query_row(sql, [PREFIX], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .doing("look what a snapshot holds")?;
    let what = |(kind, name)| Err(Error::Damaged(format!("it holds the {kind} `{name}`, which no snapshot does")));
    found.map_or(Ok(()), what)
}

fn fill(conn: &Connection, table: &str) -> Result<(), Error> {
    const FILLING: &str = "put a snapshot together";
    let name = format!("{PREFIX}_{table}");
    // By name: an earlier build may have had its columns in another order, and fewer of them.
    let names: Vec<String> = conn
        .prepare("SELECT name FROM pragma_table_info(?1, 'state')")
        .and_then(|mut statement| statement.query_map([&name], |row| row.get(0))?.collect())
        .doing(FILLING)?;
    if names.is_empty() {
        return Ok(());
    }
    let (names, name) = (names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", "), quote(&name));
    conn.execute_batch(&format!("INSERT INTO main.{name} ({names}) SELECT {names} FROM state.{name}")).doing(FILLING)
}
