//! Bringing a table back into step with the log: what differs from L and is not on its way becomes a change.
//!
//! Needed where a change was made while no trigger saw it: a trigger was dropped, a table was rebuilt, another program
//! wrote with triggers off. L is built aside up to this node's own positions; if it stood further, rows of others that
//! are merely not applied here yet would look like changes of ours.

use super::merge::{Encoding, KeyOrder, Pair, Side, merge};
use super::rows::whole;
use super::{Database, Doing as _, Error};
use antiphon_core::value::Row;
use rustc_hash::FxHashSet;

/// Marks made in one transaction: the application's writes wait for it.
const MARKS_MAX: usize = 10_000;

/// How a table differed from what the log says, leaving out keys that are marked or pending already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// The table.
    pub table: String,
    /// Rows that only this node has: they become insertions.
    pub only_here: u64,
    /// Rows that the log has and this node lacks: they become deletions.
    pub only_logged: u64,
    /// Rows with other values: they become updates.
    pub changed: u64,
    /// Rows that differ, and are on their way already.
    pub on_their_way: u64,
}

impl Reconciled {
    /// How many keys were marked, or would be.
    #[must_use]
    pub fn marked(&self) -> u64 {
        self.only_here + self.only_logged + self.changed
    }
}

impl Database {
    /// Compares a table with the log's, and with `mark` marks the keys under which they differ, so that they become
    /// changes of this node, deletions included. Keys that are marked, pending or shadowed are left out: what becomes
    /// of them is settled already.
    ///
    /// `logged` is L, built aside up to exactly the positions of this database. With `mark`, the table's triggers must
    /// be in place, so that whatever the application writes meanwhile is marked by them.
    ///
    /// # Errors
    /// When SQLite refuses; some keys may be marked then, which does no harm: a mark sends the row as it is.
    pub fn reconcile(&mut self, logged: &Self, table: &str, mark: bool) -> Result<Reconciled, Error> {
        self.check_same_place(logged)?;
        let missing = |which: &str| Error::Inconsistent(format!("there is no replicated table `{table}` {which}"));
        let tracked =
            self.tracked(table).and_then(|index| self.tables.get(index)).cloned().ok_or_else(|| missing("here"))?;
        let theirs = logged
            .tracked(table)
            .and_then(|index| logged.tables.get(index))
            .ok_or_else(|| missing("in what the log says"))?;
        if mark && !tracked.captured {
            return Err(Error::Inconsistent(format!("the triggers of `{table}` are not in place")));
        }
        let overlay = self.overlay.table(tracked.id);
        let on_their_way: FxHashSet<Box<[u8]>> =
            overlay.pending.keys().chain(overlay.shadows.keys()).cloned().collect();
        let mut found = Reconciled { table: tracked.table.name.clone(), ..Reconciled::default() };
        let mut marks: Vec<Row> = Vec::new();
        self.conn.execute_batch("BEGIN").doing("begin a transaction")?;
        // Marks and rows as of one moment: a row whose mark we don't see yet is one whose change we don't see.
        let compared = self.marked(&tracked).and_then(|marked| {
            let settled = |key: &Row| {
                let mut canonical = Vec::new();
                tracked.encoder.write(&mut canonical, key.iter());
                marked.contains(&canonical) || on_their_way.contains(canonical.as_slice())
            };
            let here_columns: Vec<usize> = (0..tracked.table.columns.len()).collect();
            let there_columns: Vec<usize> =
                tracked.table.columns.iter().filter_map(|column| theirs.table.column(&column.name)).collect();
            if here_columns.len() != there_columns.len() {
                return Err(Error::Inconsistent(format!("the columns of `{table}` changed meanwhile")));
            }
            let here = Side { conn: &self.conn, table: &tracked.table, columns: &here_columns };
            let there = Side { conn: &logged.conn, table: &theirs.table, columns: &there_columns };
            let order = KeyOrder::new(&tracked.table, Encoding::of(&self.conn)?);
            merge(here, there, &order, |Pair { key, here, there }| {
                if here == there {
                    return Ok(());
                }
                if settled(&key) {
                    found.on_their_way += 1;
                    return Ok(());
                }
                *match (here.is_some(), there.is_some()) {
                    (true, false) => &mut found.only_here,
                    (false, _) => &mut found.only_logged,
                    (true, true) => &mut found.changed,
                } += 1;
                if mark {
                    marks.push(key);
                }
                Ok(())
            })
        });
        self.conn.execute_batch("COMMIT").doing("end a transaction")?;
        compared?;
        for piece in marks.chunks(MARKS_MAX) {
            self.transaction(|db| {
                for key in piece {
                    // What a change is made upon counts only where a policy asks for it.
                    let base = if tracked.table.resolved { whole(&logged.conn, theirs, key)? } else { None };
                    db.mark(&tracked, key, base.as_ref())?;
                }
                Ok(())
            })?;
        }
        Ok(found)
    }

    /// Whether L stands where this database does, in every shard.
    fn check_same_place(&self, logged: &Self) -> Result<(), Error> {
        for shard in 1..=self.shards() {
            let (here, there) = (self.position(shard), logged.position(shard));
            if here != there {
                return Err(Error::Inconsistent(format!(
                    "shard {shard} was built up to {}, and this node stands at {}",
                    there.seq, here.seq
                )));
            }
        }
        Ok(())
    }
}
