//! The application's SQLite file, as the host sees it.
//!
//! [`Database`] is a plain synchronous object with `&mut self`; [`Db`] is the handle that the daemon's tasks
//! share. Everything the host must not forget lives in tables of its own beside the application's, and is
//! written in the same transaction as the rows it speaks of. What is held in memory can be read again from
//! there at any time, and is, after any error.

mod anew;
mod apply;
mod attachment;
mod capture;
mod catalog;
mod clash;
mod compare;
mod conflicts;
mod defaults;
mod drain;
mod expired;
mod foresight;
mod founding;
mod handle;
mod harmonylite;
mod identity;
mod imaged;
mod inspect;
mod keyed;
mod ledger;
mod life;
mod look;
mod merge;
mod obstacle;
mod outbox;
mod overlay;
mod oversize;
mod own;
mod pattern;
mod plain;
mod policy;
mod prune;
mod recent;
mod reconcile;
mod refusal;
mod resolved;
mod restore;
mod revert;
mod rows;
mod ruling;
mod samples;
mod seal;
mod shadows;
mod shortfall;
mod slices;
mod stamp;
mod stray;
mod switch;
mod trial;
mod turns;
mod underlay;
mod unique;
mod unit;
mod unwatched;
mod values;
mod verify;
mod vitals;

pub use apply::{Applied, Stop};
pub use attachment::Detached;
pub(crate) use catalog::tables;
pub use catalog::{Filter, Refused};
pub use compare::Difference;
pub(crate) use conflicts::purge;
pub use conflicts::{Conflicts, Record};
pub use drain::{Copying, assemble, copy};
pub use founding::Standing;
pub use handle::Db;
pub use harmonylite::{Adopted, Adoption};
pub use imaged::Fold;
pub use inspect::{Look, Mark, NodeState, Waiting};
pub use look::look;
pub use obstacle::{Obstacle, ObstacleKind};
pub use outbox::Unsent;
pub use oversize::Oversized;
pub use pattern::Pattern;
pub(crate) use policy::Policy;
pub use policy::{Find, Found, Make, Policies};
pub(crate) use prune::measure_outbox;
pub use prune::{Due, Measured, Pruned};
pub use reconcile::{Reattached, Reconciled};
pub use restore::Restored;
pub use revert::{Reversion, Reverted, revert};
pub use stray::{GivenUp, Owed, Stray, Verdict, give_up};
pub use switch::{Known, Notice};
pub use trial::Alone;
pub(crate) use values::{Bound, owned};
pub use verify::{Compared, Comparison, Differing, changed_columns, compare_files};
pub use vitals::{Clashed, Costs, Figures};

use crate::log;
use antiphon_core::codec::{self, Encoder};
use antiphon_core::entry::{ClusterId, Origin};
use antiphon_core::hash::{Hash, PluginError};
use attachment::Attachments;
use catalog::Tracked;
use ledger::Ledger;
use overlay::Overlay;
use recent::Recent;
use rusqlite::{Connection, OpenFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What can go wrong with the application's file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite refused.
    #[error("cannot {doing}")]
    Sqlite {
        /// What was attempted.
        doing: &'static str,
        /// SQLite's reason.
        #[source]
        source: rusqlite::Error,
    },
    /// The system refused.
    #[error("cannot {doing}")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a sound database.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// A component failed; nothing was applied.
    #[error("a component failed")]
    Plugin(#[from] PluginError),
    /// A resolver failed, and its clashes are to be tried one by one before anything is applied.
    #[error("a resolver gave no verdict on some of the clashes it was asked about")]
    Undecided,
    /// An entry could not be made.
    #[error("cannot encode a batch")]
    Encode(#[source] codec::Error),
    /// What our own tables say contradicts itself.
    #[error("the host's own tables are inconsistent: {0}")]
    Inconsistent(String),
    /// The file's content is no longer the one that was opened.
    #[error("the database was replaced by another while it was replicated: {0}")]
    Replaced(String),
    /// The thread that owns the database is gone.
    #[error("the database is closed")]
    Closed,
}

impl Error {
    /// Whether it lies in the file that was read, and not in the machine that reads it.
    #[must_use]
    pub fn is_of_file(&self) -> bool {
        use rusqlite::ErrorCode::{ConstraintViolation, DatabaseCorrupt, NotADatabase, TypeMismatch, Unknown};
        match self {
            Self::Damaged(_) | Self::Inconsistent(_) => true,
            // Without a code: the value is none of the type that is read.
            Self::Sqlite { source, .. } => source.sqlite_error_code().is_none_or(|code| {
                matches!(code, ConstraintViolation | DatabaseCorrupt | NotADatabase | TypeMismatch | Unknown)
            }),
            _ => false,
        }
    }

    /// Whether the same call can succeed later without anyone's doing.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let Self::Sqlite { source, .. } = self else { return false };
        matches!(
            source.sqlite_error_code(),
            Some(
                rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked | rusqlite::ErrorCode::DiskFull
            )
        )
    }
}

/// Names what was attempted when SQLite refuses.
trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, Error>;
}

impl<T> Doing<T> for rusqlite::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Sqlite { doing, source })
    }
}

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file, or a `file:` URI.
    pub path: PathBuf,
    /// The node's number; 0 = a random one, made once and kept in the file.
    pub node: u64,
    /// Which tables are replicated.
    pub filter: Filter,
    /// Most changes taken in one seal, and applied in one transaction.
    pub changes_max: usize,
    /// Most changes of one unit that are applied in one transaction; a larger unit is applied in slices.
    pub atomic_max: usize,
    /// Compress batches.
    pub compress: bool,
    /// Note what is written here, for the others.
    pub publish: bool,
    /// Apply what others wrote.
    pub replicate: bool,
    /// Where clashes are kept that a resolver failed at; nowhere if nowhere.
    pub replays: Option<PathBuf>,
}

/// Most bytes of rows taken in one seal: what one transaction holds in memory.
const SEAL_BYTES_MAX: usize = 4 << 20;
/// Most bytes of one row that is sent: with its neighbours in one seal it fits an entry.
const ROW_BYTES_MAX: usize = 128 << 20;
/// How long SQLite itself waits for a lock before it says busy; the caller then tries again.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it looks meanwhile. SQLite's own pauses grow to 100 ms, and an application that commits row after row
/// leaves the lock free for microseconds: whoever looks that seldom never gets it.
const BUSY_POLL: Duration = Duration::from_millis(1);
/// How often an opening is tried again, [`BUSY_TIMEOUT`] each, while the application holds the lock.
const OPEN_TRIES: u32 = 30;
const STATEMENTS_CACHED: usize = 512;

/// The application's file, opened for capture and apply.
pub struct Database {
    conn: Connection,
    options: Options,
    hasher: Box<dyn Hash>,
    policies: Policies,
    /// Which of them the log has decided on.
    rulings: ruling::Rulings,
    waiting: switch::Waiting,
    encoder: Encoder,
    origin: Origin,
    cluster: Option<Cluster>,
    tables: Vec<Tracked>,
    refused: Vec<Refused>,
    schema_version: i64,
    data_version: i64,
    ledger: Ledger,
    overlay: Overlay,
    recent: Recent,
    /// What is known of units that are applied in slices, by shard.
    surveys: BTreeMap<log::Shard, slices::Survey>,
    /// Statements that tell which tables have marks.
    marked: Vec<String>,
    /// What is known of clashes that a resolver failed over, by shard.
    trials: BTreeMap<log::Shard, trial::Trial>,
    /// What the log says of policies beyond the places where shards have stopped.
    foresights: BTreeMap<log::Shard, foresight::Foresight>,
    samples: samples::Samples,
    turns: turns::Turns,
    attachments: Attachments,
    /// Most bytes of a row that is sent.
    row_bytes_max: usize,
    /// Columns that only the log has, where L is built aside, and what they are called there.
    spares: BTreeMap<(String, String), String>,
    /// The application writes here; a database that only follows the log has no triggers, and needs none.
    captures: bool,
    /// Nothing of it is at the moment: see [`unwatched`].
    unwatched: bool,
    /// Numbers that the log is known to have: see [`Database::number_above`].
    numbered: BTreeMap<log::Shard, u64>,
    /// Where the file stood after our last transaction; it never goes back.
    known_reached: Arc<AtomicU64>,
    checked_version: i64,
    /// What is in memory may be of a transaction that did not take place, for it could not be read again.
    stale: bool,
    /// How it was found out that the file holds another database now; from then on nothing is done with it.
    replaced: Option<String>,
    /// Its text is kept in UTF-16, where bytes that are no UTF-8 can't be written as they are.
    wide: bool,
    /// Tables that may have rows without a whole key; unknown until all were looked at.
    keyless: Option<BTreeSet<String>>,
    /// What others are to send again, for no log has it any more.
    owed: Owed,
    /// Shards that are read again up to a loss, and when this node stood there before it went back.
    unread: BTreeMap<log::Shard, u64>,
    /// What the last seal took.
    costs: Costs,
}

/// The cluster this database belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cluster {
    id: ClusterId,
    shards: u32,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("path", &self.options.path)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Opens an existing database and the host's tables in it.
    ///
    /// # Errors
    /// When the file can't be opened, is not a sound database, or a component refuses its tables.
    pub fn open(options: Options, hasher: Box<dyn Hash>, policies: Policies) -> Result<Self, Error> {
        let mut database = Self::unread(options, hasher, policies)?;
        let mut tries = 1;
        // A start must not need a quiet moment of the application's.
        while let Err(error) = database.transaction(|db| {
            own::create(&db.conn)?;
            fault!("created");
            identity::identify(&db.conn, db.options.node)?;
            fault!("identified");
            Ok(())
        }) {
            if !error.is_transient() || tries >= OPEN_TRIES {
                return Err(error);
            }
            tracing::info!("the application holds the database's write lock; waiting for it");
            tries += 1;
        }
        database.reload()?;
        Ok(database)
    }

    /// The same with nothing read yet: whoever goes on does that.
    fn unread(options: Options, hasher: Box<dyn Hash>, policies: Policies) -> Result<Self, Error> {
        let conn = connect(&options.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let encoder = Encoder::new(options.compress.then_some(COMPRESSION_LEVEL));
        let captures = options.publish;
        let wide = merge::Encoding::of(&conn)? != merge::Encoding::Utf8;
        Ok(Self {
            conn,
            options,
            hasher,
            policies,
            rulings: ruling::Rulings::default(),
            waiting: switch::Waiting::default(),
            encoder,
            origin: Origin::default(),
            cluster: None,
            tables: Vec::new(),
            refused: Vec::new(),
            schema_version: -1,
            data_version: -1,
            ledger: Ledger::default(),
            overlay: Overlay::default(),
            recent: Recent::default(),
            surveys: BTreeMap::new(),
            marked: Vec::new(),
            trials: BTreeMap::new(),
            foresights: BTreeMap::new(),
            samples: samples::Samples::default(),
            turns: turns::Turns::default(),
            attachments: Attachments::default(),
            row_bytes_max: ROW_BYTES_MAX,
            spares: BTreeMap::new(),
            captures,
            unwatched: false,
            numbered: BTreeMap::new(),
            known_reached: Arc::default(),
            checked_version: -1,
            stale: false,
            replaced: None,
            wide,
            keyless: None,
            owed: Owed::new(),
            unread: BTreeMap::new(),
            costs: Costs::default(),
        })
    }

    /// This node, in this life.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.options.path
    }

    /// Tables that can't be replicated, and why.
    #[must_use]
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// Names of the tables that are replicated.
    pub fn table_names(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().map(|tracked| tracked.table.name.as_str())
    }

    /// A number made of each replicated table's columns and keys.
    #[must_use]
    pub fn schemas(&self) -> BTreeMap<String, u64> {
        self.tables.iter().map(|tracked| (tracked.table.name.clone(), tracked.table.digest())).collect()
    }

    /// Forgets what is in memory and reads it again from the file: after any error, and at the start.
    fn reload(&mut self) -> Result<(), Error> {
        self.stale = true;
        self.surveys.clear();
        fault!("reload");
        let (origin, cluster) = identity::identity(&self.conn)?;
        let ledger = Ledger::read(&self.conn)?;
        if ledger.reached() < self.reached() {
            let why = "it stands before where it stood a moment ago".to_owned();
            self.replaced = Some(why.clone());
            return Err(Error::Replaced(why));
        }
        (self.origin, self.cluster, self.ledger) = (origin, cluster, ledger);
        self.rulings = ruling::Rulings::read(&self.conn)?;
        self.unwatched = unwatched::is_noted(&self.conn)?;
        self.known_reached.store(self.ledger.reached(), Ordering::Relaxed);
        for (&shard, &number) in &self.numbered {
            self.ledger.number_above(shard, number);
        }
        for shard in (1..=self.shards()).filter(|_| !crate::flaw!(RollbackRemembered)) {
            self.recent.rewind(shard, self.ledger.position(shard).seq);
        }
        self.read_owed()?;
        self.attachments.read(&self.conn)?;
        self.read_schema()?;
        self.overlay.refill(&self.conn, &self.ledger, self.origin, &self.tables, &self.attachments)?;
        self.stale = false;
        Ok(())
    }

    /// Makes up for what a failed disk did not let happen after an error: the transaction's end, and reading again
    /// what is in memory. Until it could, memory speaks of numbers and positions that the file does not have.
    fn refresh(&mut self) -> Result<(), Error> {
        if !self.conn.is_autocommit() {
            self.stale = true;
            self.conn.execute_batch("ROLLBACK").doing("roll a transaction back")?;
        }
        if let Some(why) = &self.replaced {
            return Err(Error::Replaced(why.clone()));
        }
        if self.stale && !crate::flaw!(StaleAfterError) {
            self.reload()?;
        }
        Ok(())
    }

    /// Runs `work` in one write transaction: all of it is kept, or none, in memory as in the file.
    fn transaction<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.refresh()?;
        fault!("begin");
        self.conn.execute_batch("BEGIN IMMEDIATE").doing("begin a transaction")?;
        let begun = std::time::Instant::now();
        let done = self.is_still_ours().and_then(|()| work(self)).and_then(|value| {
            fault!("commit");
            self.conn.execute_batch("COMMIT").doing("commit a transaction")?;
            self.known_reached.fetch_max(self.ledger.reached(), Ordering::Relaxed);
            fault!("committed");
            Ok(value)
        });
        self.turns.note(begun);
        if done.is_err() {
            // A failed COMMIT may have rolled back by itself; then there is nothing left to roll back. What can't be
            // done now is done before the next call.
            self.stale = true;
            if let Err(error) = self.refresh() {
                tracing::debug!(error = %error, "memory is read again later");
            }
        }
        done
    }

    /// Whether another connection has committed since the last call.
    ///
    /// # Errors
    /// When SQLite can't tell.
    pub fn has_changed(&mut self) -> Result<bool, Error> {
        let version =
            self.conn.query_row("PRAGMA main.data_version", [], |row| row.get(0)).doing("look for changes")?;
        Ok(std::mem::replace(&mut self.data_version, version) != version)
    }

    /// The shard an entry's tables may be looked for in: 1 to this.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.cluster.map_or(1, |cluster| cluster.shards)
    }

    /// The cluster this database belongs to, if it has joined one.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster.map(|cluster| cluster.id)
    }

    /// Whether a transaction is open: between two calls none may be, for it would keep the WAL from ending.
    ///
    /// # Errors
    /// When SQLite can't tell.
    #[cfg(feature = "testing")]
    pub fn is_reading(&self) -> Result<bool, Error> {
        let state = self.conn.transaction_state(Some(rusqlite::MAIN_DB)).doing("look for a transaction")?;
        Ok(state != rusqlite::TransactionState::None)
    }

    /// Forgets what is pending up to a number: a planted bug, and nothing else calls it.
    pub(crate) fn forget_pending(&mut self, number: u64) -> Result<(), Error> {
        for tracked in &self.tables {
            self.overlay.table(tracked.id).pending.retain(|pending| *pending > number);
        }
        Ok(())
    }

    /// Where this node stands in a shard: the last entry applied.
    #[must_use]
    pub fn position(&self, shard: log::Shard) -> log::Placement {
        self.ledger.position(shard)
    }

    /// The last entry of a shard of which anything has been applied: past the position while a unit is applied in slices.
    #[must_use]
    pub fn anchor(&self, shard: log::Shard) -> log::Placement {
        self.ledger.cursor(shard).map_or_else(|| self.ledger.position(shard), |cursor| cursor.at)
    }
}

/// A level that keeps up with SQLite and leaves little on the table.
const COMPRESSION_LEVEL: i32 = 3;

/// Opens the file the way every connection of the host's does.
pub(crate) fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, Error> {
    let flags = flags | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags).doing("open the database")?;
    conn.busy_handler(Some(wait_for_lock)).doing("set the time to wait for a lock")?;
    #[cfg(feature = "testing")]
    crate::clock::testing::tell(&conn).doing("set the time")?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    // The application's triggers and foreign-key actions ran where the row was written; their effects arrive
    // as rows of their own and must not happen twice. Both are settings of this connection alone.
    use rusqlite::config::DbConfig;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, crate::flaw!(TriggersWhileApplying))
        .doing("turn triggers off")?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false).doing("turn foreign keys off")?;
    // A statement is planned once, by its words: a plan that goes by values is made anew at each use of them.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).doing("have statements planned once")?;
    conn.pragma_update(None, "synchronous", "NORMAL").doing("set how commits are synced")?;
    conn.pragma_update(None, "trusted_schema", "OFF").doing("distrust the schema")?;
    conn.pragma_update(None, "cell_size_check", "ON").doing("check cells")?;
    Ok(conn)
}

/// Opens a file that somebody else may have made, to read it.
///
/// # Errors
/// When SQLite refuses.
pub(crate) fn distrusting(path: &Path) -> Result<Connection, Error> {
    use rusqlite::config::DbConfig;
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).doing("distrust the file")?;
    // Pages are read and not mapped: what is cut off while it is read is an error then, and no signal.
    conn.pragma_update(None, "mmap_size", 0).doing("distrust the file")?;
    Ok(conn)
}

/// Has a database keep a `-wal` beside it, or none; says whether it did. What was committed and lay beside it is in the file
/// then.
///
/// # Errors
/// When SQLite refuses: it does while anybody has the database open in the other way.
pub(crate) fn set_journal(path: &Path, wal: bool) -> Result<bool, Error> {
    const SETTING: &str = "set how the database is journaled";
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.query_row("SELECT count(*) FROM main.sqlite_schema", [], |_| Ok(())).doing(SETTING)?;
    let ask = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, String>(0)).doing(SETTING);
    let (before, wanted) = (ask("PRAGMA main.journal_mode")?, if wal { "wal" } else { "delete" });
    if ask(&format!("PRAGMA main.journal_mode = {wanted}"))? != wanted {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        return Err(Error::Sqlite { doing: SETTING, source: rusqlite::Error::SqliteFailure(busy, None) });
    }
    Ok(before == "wal")
}

/// Waits a little for another connection's lock; `false` once it has been long enough.
fn wait_for_lock(times: i32) -> bool {
    std::thread::sleep(BUSY_POLL);
    BUSY_POLL.saturating_mul(times.unsigned_abs()) < BUSY_TIMEOUT
}

/// Asks SQLite whether the file is sound, before anything of it is captured or applied.
///
/// # Errors
/// [`Error::Damaged`] with SQLite's first complaint.
pub fn check(path: &Path) -> Result<(), Error> {
    // A file that is bad enough fails at the first statement, whatever that is.
    let answer = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).and_then(|conn| {
        conn.query_row("PRAGMA main.quick_check(1)", [], |row| row.get(0)).doing("check the database")
    });
    let answer: String = answer.map_err(|error| match &error {
        Error::Sqlite { source, .. } => match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseCorrupt) => Error::Damaged(source.to_string()),
            Some(rusqlite::ErrorCode::NotADatabase) => Error::Damaged("it is not a SQLite database".to_owned()),
            _ => error,
        },
        _ => error,
    })?;
    if answer == "ok" { Ok(()) } else { Err(Error::Damaged(answer)) }
}
