//! Who changed a row last, and when: what policies besides the default one tell concurrent changes by.
//!
//! A stamp is part of L: durable, moved by every change that took effect, deletions too, and the same on all nodes.

use super::catalog::Tracked;
use super::own::ours;
use super::values::{origin, unsigned};
use super::{Doing as _, Error};
use antiphon_core::entry::Origin;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _};

/// The stamp of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamped {
    /// Position of the last change.
    pub(super) seq: u64,
    /// Who made it.
    pub(super) origin: Origin,
    /// Position of the last change by anyone else; 0 = there was none.
    pub(super) other: u64,
    /// When the last change was made.
    pub(super) clock: u64,
}

impl Stamped {
    /// The stamp after a change at `seq`.
    pub(super) fn moved(before: Option<Self>, seq: u64, origin: Origin, clock: u64) -> Self {
        let other = match before {
            None => 0,
            Some(before) if before.origin == origin => before.other,
            Some(before) => before.seq,
        };
        Self { seq, origin, other, clock }
    }

    /// Where anyone but `origin` made the last change; 0 = nobody did. What is at or below the floor is forgotten by all
    /// nodes at once, and so is what is from before a policy.
    pub(super) fn last_by_another(before: Option<Self>, origin: Origin) -> u64 {
        match before {
            None => 0,
            Some(before) if before.origin == origin => {
                if crate::flaw!(OneStamp) {
                    0
                } else {
                    before.other
                }
            }
            Some(before) => before.seq,
        }
    }
}

/// Stamps of one table.
pub(super) struct Stamps<'a> {
    conn: &'a Connection,
    tracked: &'a Tracked,
    get: Option<CachedStatement<'a>>,
    set: Option<CachedStatement<'a>>,
}

impl<'a> Stamps<'a> {
    pub(super) fn new(conn: &'a Connection, tracked: &'a Tracked) -> Self {
        Self { conn, tracked, get: None, set: None }
    }

    pub(super) fn get(&mut self, key: &[u8]) -> Result<Option<Stamped>, Error> {
        const READING: &str = "read a stamp";
        let statement = match &mut self.get {
            Some(statement) => statement,
            none => {
                let sql = concat!(
                    "SELECT seq, node, incarnation, other, clock FROM ",
                    ours!("stamp"),
                    " WHERE tbl = ?1 AND key = ?2"
                );
                none.insert(self.conn.prepare_cached(sql).doing(READING)?)
            }
        };
        let stamp = |row: &rusqlite::Row<'_>| {
            Ok(Stamped {
                seq: unsigned(row, 0)?,
                origin: origin(row, 1)?,
                other: unsigned(row, 3)?,
                clock: unsigned(row, 4)?,
            })
        };
        statement.query_row((&self.tracked.table.name, key), stamp).optional().doing(READING)
    }

    pub(super) fn set(&mut self, key: &[u8], stamp: &Stamped) -> Result<(), Error> {
        const WRITING: &str = "write a stamp";
        let statement = match &mut self.set {
            Some(statement) => statement,
            none => {
                let sql = concat!(
                    "INSERT INTO ",
                    ours!("stamp"),
                    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                     ON CONFLICT (tbl, key) DO UPDATE
                     SET seq = ?3, node = ?4, incarnation = ?5, other = ?6, clock = ?7"
                );
                none.insert(self.conn.prepare_cached(sql).doing(WRITING)?)
            }
        };
        statement
            .execute((
                &self.tracked.table.name,
                key,
                stamp.seq.cast_signed(),
                stamp.origin.node.cast_signed(),
                stamp.origin.incarnation.cast_signed(),
                stamp.other.cast_signed(),
                stamp.clock.cast_signed(),
            ))
            .doing(WRITING)?;
        Ok(())
    }
}
