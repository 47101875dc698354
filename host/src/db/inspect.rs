//! A database looked into: nothing is written, no lock is kept, and the host may run meanwhile.
//!
//! What is looked for may be missing, for the file need not have been replicated ever. Columns of the host's own tables
//! are read by name, so that a file of another version is read as far as it is known.

use super::look::{look, wal_mode_at_rest};
use super::own::ours;
use super::values::unsigned;
use super::values::values;
use super::{Doing as _, Error, Filter, Refused, catalog};
use crate::log::Shard;
use antiphon_core::capture::{PREFIX, op};
use antiphon_core::entry::{ClusterId, Origin};
use antiphon_core::schema::{Table, quote};
use antiphon_core::value::{Row, Value};
use rusqlite::{Connection, OptionalExtension as _};
use std::path::{Path, PathBuf};

/// A database opened for reading alone.
#[derive(Debug)]
pub struct Look {
    conn: Connection,
    path: PathBuf,
    /// Read as a file that nobody changes, for nobody had it open.
    at_rest: bool,
}

/// Who a database's node is, and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// The node, in this life.
    pub origin: Origin,
    /// The cluster it belongs to, and the number of its shards.
    pub cluster: Option<(ClusterId, u32)>,
    /// The last entry applied of each shard.
    pub positions: Vec<(Shard, u64)>,
    /// Batches of the outbox that were not read back from the log.
    pub unconfirmed: u64,
    /// Keys marked and in no batch yet.
    pub marks: u64,
    /// Tables whose rows are still to be marked, or to be compared with the log.
    pub scans: u64,
}

/// A batch of the outbox that this node has not read back from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its shard.
    pub shard: Shard,
    /// Its number there.
    pub number: u64,
    /// The bytes that are appended.
    pub frame: Vec<u8>,
}

/// A mark: a key that changed and is in no batch yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The table.
    pub table: String,
    /// What happened, as a word.
    pub event: &'static str,
    /// Names of the key's columns.
    pub columns: Vec<String>,
    /// The key.
    pub key: Row,
}

impl Look {
    /// Opens an existing database.
    ///
    /// # Errors
    /// When it can't be opened or is no database.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let at_rest = wal_mode_at_rest(path);
        let conn = look(path).doing("open the database")?;
        conn.pragma_update(None, "trusted_schema", "OFF").doing("distrust the schema")?;
        // A file that is no database fails at the first statement, not at the opening.
        conn.query_row("PRAGMA main.schema_version", [], |row| row.get::<_, i64>(0)).doing("read the database")?;
        Ok(Self { conn, path: path.to_owned(), at_rest })
    }

    /// The connection: it can't write.
    pub(crate) fn conn(&self) -> &Connection {
        &self.conn
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file came into use while it was read as one that nobody has open: what was read may be torn then.
    #[must_use]
    pub fn was_disturbed(&self) -> bool {
        self.at_rest && !wal_mode_at_rest(&self.path)
    }

    /// Whether one of the host's own tables is there, by the end of its name.
    ///
    /// # Errors
    /// When the schema can't be read.
    pub fn has(&self, ours: &str) -> Result<bool, Error> {
        has(&self.conn, &format!("__antiphon___{ours}"))
    }

    /// Tables that can be replicated, and those that can't.
    ///
    /// # Errors
    /// When the schema can't be read.
    pub fn tables(&self, filter: &Filter) -> Result<(Vec<Table>, Vec<Refused>), Error> {
        catalog::read(&self.conn, filter)
    }

    /// Who this node is; `None` if no host ever ran here.
    ///
    /// # Errors
    /// When the host's tables can't be read.
    pub fn node(&self) -> Result<Option<NodeState>, Error> {
        const READING: &str = "read where the node stands";
        if !self.has("meta")? {
            return Ok(None);
        }
        let meta = |name: &str| -> Result<Option<Value>, Error> {
            self.conn
                .prepare_cached(concat!("SELECT value FROM ", ours!("meta"), " WHERE name = ?1"))
                .and_then(|mut statement| {
                    statement.query_row([name], |row| values(row, 0, 1)).optional().map(|row| row?.pop())
                })
                .doing(READING)
        };
        let number = |value: Option<Value>| match value {
            Some(Value::Integer(number)) => Some(number.cast_unsigned()),
            _ => None,
        };
        let Some(node) = number(meta("node")?) else { return Ok(None) };
        let origin = Origin { node, incarnation: number(meta("incarnation")?).unwrap_or(0) };
        let cluster = match (meta("cluster")?, number(meta("shards")?)) {
            (Some(Value::Blob(id)), Some(shards)) => {
                id.try_into().ok().zip(u32::try_from(shards).ok()).filter(|(_, shards)| *shards > 0)
            }
            _ => None,
        };
        let mut positions: Vec<(Shard, u64)> = if self.has("position")? {
            self.conn
                .prepare(concat!("SELECT shard, seq FROM ", ours!("position"), " ORDER BY shard"))
                .and_then(|mut statement| {
                    statement.query_map([], |row| Ok((row.get(0)?, unsigned(row, 1)?)))?.collect()
                })
                .doing(READING)?
        } else {
            Vec::new()
        };
        for shard in 1..=cluster.map_or(0, |(_, shards)| shards) {
            if !positions.iter().any(|(known, _)| *known == shard) {
                positions.push((shard, 0));
            }
        }
        positions.sort_unstable();
        let unconfirmed = self.count("global_change_log", "WHERE state = 0")?;
        let scans = self.count("scan", "")? + self.count("known", "WHERE state IN ('rebuilt', 'returned')")?;
        let mut marks = 0;
        for log in self.change_logs()? {
            marks += self
                .conn
                .query_row(&format!("SELECT count(*) FROM main.{}", quote(&log)), [], |row| unsigned(row, 0))
                .doing(READING)?;
        }
        Ok(Some(NodeState { origin, cluster, positions, unconfirmed, marks, scans }))
    }

    fn count(&self, ours: &str, filter: &str) -> Result<u64, Error> {
        if !self.has(ours)? {
            return Ok(0);
        }
        let sql = format!("SELECT count(*) FROM main.{} {filter}", quote(&format!("__antiphon___{ours}")));
        self.conn.query_row(&sql, [], |row| unsigned(row, 0)).doing("count what waits")
    }

    /// Change logs, the outbox not among them.
    fn change_logs(&self) -> Result<Vec<String>, Error> {
        self.conn
            .prepare(
                "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name LIKE '\\_\\_antiphon\\_\\_%\\_change\\_log' ESCAPE '\\'
                 AND name <> '__antiphon___global_change_log' ORDER BY name",
            )
            .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
            .doing("list the change logs")
    }

    /// Batches of the outbox that were not read back from the log, oldest first.
    ///
    /// # Errors
    /// When the outbox can't be read, or `each` fails.
    pub fn waiting<E: From<Error>>(&self, mut each: impl FnMut(Waiting) -> Result<(), E>) -> Result<(), E> {
        const READING: &str = "read the outbox";
        if !self.has("global_change_log")? {
            return Ok(());
        }
        let mut statement = self
            .conn
            .prepare(concat!(
                "SELECT shard, number, batch FROM ",
                ours!("global_change_log"),
                " WHERE state = 0 ORDER BY shard, number"
            ))
            .doing(READING)?;
        let mut rows = statement.query([]).doing(READING)?;
        while let Some(row) = rows.next().doing(READING)? {
            let waiting = Waiting {
                shard: row.get(0).doing(READING)?,
                number: unsigned(row, 1).doing(READING)?,
                frame: row.get(2).doing(READING)?,
            };
            each(waiting)?;
        }
        Ok(())
    }

    /// Marks that are in no batch yet, oldest first, table by table.
    ///
    /// # Errors
    /// When a change log can't be read, or `each` fails.
    pub fn marks<E: From<Error>>(&self, mut each: impl FnMut(Mark) -> Result<(), E>) -> Result<(), E> {
        const READING: &str = "read the marks";
        for log in self.change_logs()? {
            let table = log.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix("_change_log")).unwrap_or(&log);
            let table = table.to_owned();
            let mut statement =
                self.conn.prepare(&format!("SELECT * FROM main.{} ORDER BY id", quote(&log))).doing(READING)?;
            let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
            let keys: Vec<usize> =
                (0..columns.len()).filter(|at| columns.get(*at).is_some_and(|name| name.starts_with("val_"))).collect();
            let op = columns.iter().position(|name| name == "op");
            let names: Vec<String> =
                keys.iter().filter_map(|at| Some(columns.get(*at)?.strip_prefix("val_")?.to_owned())).collect();
            let mut rows = statement.query([]).doing(READING)?;
            while let Some(row) = rows.next().doing(READING)? {
                let all = values(row, 0, columns.len()).doing(READING)?;
                let event = match op.and_then(|at| all.get(at)) {
                    Some(Value::Integer(op::INSERT)) => "insert",
                    Some(Value::Integer(op::UPDATE)) => "update",
                    Some(Value::Integer(op::DELETE)) => "delete",
                    // Where a policy asks for it, the row as it was is kept by such a mark before the change.
                    _ if columns.iter().any(|name| name == "created_at") => "before",
                    _ => "maybe-delete",
                };
                let key = keys.iter().filter_map(|at| all.get(*at).cloned()).collect();
                each(Mark { table: table.clone(), event, columns: names.clone(), key })?;
            }
        }
        Ok(())
    }

    /// Rows of a table with a NULL in their key.
    ///
    /// # Errors
    /// When the table can't be read.
    pub fn keyless(&self, table: &Table) -> Result<u64, Error> {
        if !catalog::has_null_keys(&self.conn, table)? {
            return Ok(0);
        }
        let key = table.key_columns().into_iter().filter_map(|position| table.columns.get(position));
        let terms = key.map(|column| format!("{} IS NULL", quote(&column.name))).collect::<Vec<_>>().join(" OR ");
        self.conn
            .query_row(&format!("SELECT count(*) FROM main.{} WHERE {terms}", quote(&table.name)), [], |row| {
                unsigned(row, 0)
            })
            .doing("count rows without a key")
    }

    /// Names of tables whose triggers are not all in place, to the letter.
    ///
    /// # Errors
    /// When the schema can't be read.
    pub fn uncaptured(&self, tables: &[Table]) -> Result<Vec<String>, Error> {
        catalog::uncaptured(&self.conn, tables)
    }
}

fn has(conn: &Connection, table: &str) -> Result<bool, Error> {
    conn.prepare_cached("SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ?1")
        .and_then(|mut statement| statement.exists([table]))
        .doing("read the schema")
}
