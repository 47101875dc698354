//! Rows that no entry can carry: they stay on this node, protected as if they were on their way, until they are smaller.

use super::overlay::{OVERSIZED, TableId, store_shadow};
use super::own::ours;
use super::shadows::Shadow;
use super::unique::key_values;
use super::{Database, Doing as _, Error};
use antiphon_core::codec::{decode_row, encode_row};
use antiphon_core::value::{Row, Value};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _};

/// A row that was changed here and is too large to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oversized {
    /// Its table.
    pub table: String,
    /// Its key's values, in key order.
    pub key: Row,
    /// How large it is.
    pub bytes: u64,
}

/// Such a row, as a seal comes upon it.
pub(super) struct Oversize {
    pub(super) key: Box<[u8]>,
    pub(super) bytes: usize,
    /// The row as it was before, for a table whose policy asks for it.
    pub(super) base: Option<Row>,
}

impl Database {
    /// Rows that were changed here and are too large to be sent; each is, once it is smaller or gone.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn oversized(&self) -> Result<Vec<Oversized>, Error> {
        const READING: &str = "read which rows are too large";
        let mut statement = self
            .conn
            .prepare_cached(concat!("SELECT tbl, key, bytes FROM ", ours!("oversized"), " ORDER BY tbl, key"))
            .doing(READING)?;
        let mut rows = statement.query([]).doing(READING)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().doing(READING)? {
            let key: Vec<u8> = row.get(1).doing(READING)?;
            let bytes: i64 = row.get(2).doing(READING)?;
            let table = row.get(0).doing(READING)?;
            found.push(Oversized { table, key: key_values(&key)?, bytes: bytes.cast_unsigned() });
        }
        Ok(found)
    }

    /// Sends no rows larger than this. It takes effect at the next seal, and ends with this object.
    pub fn limit_rows(&mut self, bytes: usize) {
        self.row_bytes_max = bytes;
    }

    /// Keeps rows back, in the transaction at hand.
    pub(super) fn hold_back(&mut self, id: TableId, table: &str, rows: Vec<Oversize>) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let seen = self.positions().into_iter().map(|(_, seq)| seq).min().unwrap_or(0);
        let Self { conn, overlay, tables, row_bytes_max, .. } = self;
        let Some(tracked) = tables.iter().find(|tracked| tracked.id == id) else { return Ok(()) };
        let overlay = overlay.table(id);
        for Oversize { key, bytes, base } in rows {
            if overlay.pending.get(&key) != Some(&OVERSIZED) {
                let shown = key_values(&key)?.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
                tracing::error!(
                    table,
                    key = shown,
                    bytes,
                    bytes_max = row_bytes_max,
                    "a row is too large to be sent and stays on this node until it is smaller or gone; all others go on"
                );
            }
            if tracked.table.resolved && !overlay.shadows.contains(&key) {
                let image = base.as_ref().map(|row| row.iter().cloned().map(Some).collect());
                let shadow = Shadow { image, seen };
                store_shadow(conn, tracked, &key, &shadow)?;
                overlay.shadows.insert(key.clone(), shadow);
            }
            conn.prepare_cached(concat!(
                "INSERT INTO ",
                ours!("oversized"),
                " VALUES (?1, ?2, ?3, ?4) ON CONFLICT (tbl, key) DO UPDATE SET bytes = ?3"
            ))
            .and_then(|mut statement| {
                let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
                statement.execute((table, &*key, bytes, base.as_deref().map(encode_row)))
            })
            .doing("hold a row back that is too large")?;
            overlay.pending.insert(key, OVERSIZED);
        }
        Ok(())
    }

    /// Rows that can be sent again, or are gone.
    pub(super) fn release(&mut self, id: TableId, table: &str, keys: &[Box<[u8]>]) -> Result<(), Error> {
        for key in keys {
            self.overlay.table(id).pending.remove(key);
            self.conn
                .prepare_cached(concat!("DELETE FROM ", ours!("oversized"), " WHERE tbl = ?1 AND key = ?2"))
                .and_then(|mut statement| statement.execute((table, &**key)))
                .doing("release a row that was too large")?;
        }
        Ok(())
    }
}

/// What a row was before it became too large.
pub(super) fn oversized_base(conn: &Connection, table: &str, key: &[u8]) -> Result<Option<Row>, Error> {
    let base: Option<Option<Vec<u8>>> = conn
        .prepare_cached(concat!("SELECT base FROM ", ours!("oversized"), " WHERE tbl = ?1 AND key = ?2"))
        .and_then(|mut statement| statement.query_row((table, key), |row| row.get(0)).optional())
        .doing("read what a row was")?;
    let damaged = |_| Error::Inconsistent("what a row was before cannot be read".to_owned());
    base.flatten().map(|base| decode_row(&base).map_err(damaged)).transpose()
}

/// About how many bytes the values of a row take in an entry, from column `first` on.
pub(super) fn row_bytes(row: &rusqlite::Row<'_>, first: usize, count: usize) -> rusqlite::Result<usize> {
    (first..first + count).try_fold(0, |bytes, column| {
        Ok(bytes
            + match row.get_ref(column)? {
                ValueRef::Null => 1,
                ValueRef::Integer(_) | ValueRef::Real(_) => 9,
                ValueRef::Text(value) | ValueRef::Blob(value) => value.len() + 5,
            })
    })
}
