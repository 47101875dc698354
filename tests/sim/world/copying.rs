//! Copies of a node's file become L while the history goes on: what snapshots are made from.

use super::{STEPS_MAX, World};
use crate::oracle::{Decisions, Fold};
use crate::plan::Step;
use crate::schema::{Rows, rows_of};
use antiphon::db::{Database, Stop};
use antiphon::log::Log as _;
use antiphon_core::entry::Origin;
use antiphon_harness::dump_of;
use futures::executor::block_on;
use rusqlite::Connection;

/// What of the host's own tables belongs to L.
const LOGGED: [&str; 5] = ["received", "staged", "stamp", "route", "in_force"];

/// A copy that waits for the log to give back what its node had only marked.
pub(super) struct Copy {
    pub(super) db: Database,
    /// A database in memory is there as long as somebody has it open.
    conn: Connection,
    origin: Origin,
    /// How far its node had sealed some time after the copy was made.
    sealed: Option<Vec<(u32, u64)>>,
    /// Which tables and columns the file had.
    has: (bool, bool),
    steps: u32,
}

impl World<'_> {
    /// A copy is made, or goes on.
    pub(super) fn copy(&mut self, step: &Step) -> Result<(), String> {
        let node = step.node;
        if self.has_lost && !self.has_begun_again || self.stranded[node].iter().any(Option::is_some) {
            self.copies[node] = None;
            return Ok(());
        }
        let said = match self.copies[node].take() {
            None => self.begin_copy(node)?,
            Some(copy) => self.go_on_copying(node, copy)?,
        };
        self.note(step, &format!("copy: {said}"));
        Ok(())
    }

    pub(super) fn begin_copy(&mut self, index: usize) -> Result<String, String> {
        let (node, witness) = (&self.nodes[index], &self.witnesses[index]);
        let (path, conn) = node.copy();
        let opened = node.with(|db| db.copying()).open(&path).map_err(|error| format!("{error:?}"))?;
        Ok(match opened {
            Err(why) => why,
            Ok(db) => {
                self.coverage.see("copy");
                let has = (witness.has_late, witness.is_wide);
                self.copies[index] = Some(Copy { origin: db.origin(), db, conn, sealed: None, has, steps: 0 });
                "made".to_owned()
            }
        })
    }

    pub(super) fn go_on_copying(&mut self, node: usize, mut copy: Copy) -> Result<String, String> {
        copy.steps += 1;
        if self.nodes[node].with(|db| db.origin()) != copy.origin {
            return Ok("its node is another by now".to_owned());
        }
        if copy.sealed.is_none() {
            let mut steps = 0;
            while block_on(self.nodes[node].db.call(Database::seal)).map_err(|error| format!("{error:?}"))? {
                steps += 1;
                if steps > STEPS_MAX {
                    return Err(format!("node {} never stops sealing", node + 1));
                }
            }
            copy.sealed = Some(self.nodes[node].with(|db| db.last_numbers()));
        }
        let shards = u32::try_from(self.entries.len()).unwrap();
        for shard in 1..=shards {
            if let Some(why) = Self::read_on(&mut copy.db, &self.log, shard)? {
                // As a snapshot does, which is begun anew later.
                return Ok(why);
            }
        }
        if !copy.sealed.as_ref().is_some_and(|sealed| copy.db.has_drained(sealed)) {
            self.copies[node] = Some(copy);
            return Ok("waits".to_owned());
        }
        copy.db.end_draining().map_err(|error| format!("a copy does not become L: {error}"))?;
        self.coverage.see("copy becomes L");
        if copy.steps > 1 {
            self.coverage.see("copy that waited");
        }
        self.is_logged(node, &copy)?;
        self.keep(node, copy);
        Ok("is L".to_owned())
    }

    /// Applies what there is of a shard; gives what stands in the way.
    fn read_on(db: &mut Database, log: &antiphon::log::Memory, shard: u32) -> Result<Option<String>, String> {
        for _ in 0..STEPS_MAX {
            let entries =
                block_on(log.read(shard, db.position(shard).seq, usize::MAX)).map_err(|error| error.to_string())?;
            if entries.is_empty() {
                return Ok(None);
            }
            let applied = db.apply(shard, &entries).map_err(|error| format!("a copy fails: {error:?}"))?;
            match applied.stop {
                None | Some(Stop::Full | Stop::Unsealed) => {}
                Some(Stop::Blocked(why)) => return Ok(Some(format!("blocked: {why}"))),
                Some(Stop::Gap { expected, .. }) => return Err(format!("a copy misses entry {expected}")),
            }
        }
        Err("a copy never stops applying".to_owned())
    }

    /// A copy that became L has the rows that a serial fold up to its place has, and no others.
    fn is_logged(&self, node: usize, copy: &Copy) -> Result<(), String> {
        let mut decisions = Decisions::new();
        let mut wanted = Rows::new();
        let mut at_the_end = true;
        for (shard, position) in copy.db.positions() {
            let entries = &self.entries[shard as usize - 1];
            let mut fold = Fold::new(self.rules);
            // What was appended since the last look is not decoded yet.
            let Some(entries) = entries.get(..usize::try_from(position).unwrap()) else { return Ok(()) };
            for entry in entries {
                fold.entry(entry, shard == 1, &mut decisions)?;
            }
            wanted.extend(fold.rows);
            at_the_end &= self.nodes[node].with(move |db| db.position(shard)) == copy.db.position(shard);
        }
        let found = rows_of(&copy.conn, copy.has.0);
        for key in wanted.keys().chain(found.keys()) {
            let (wanted, found) = (wanted.get(key), found.get(key));
            if wanted != found {
                return Err(format!("a copy has {found:?} for {key:?}, and the log says {wanted:?}"));
            }
        }
        if at_the_end && self.nodes[node].with(|db| db.pending_len()) == 0 {
            for table in LOGGED {
                let of = |conn: &Connection| dump_of(conn, &format!("__antiphon___{table}"));
                let (there, here) = (of(&copy.conn), of(&self.nodes[node].app));
                if there != here {
                    return Err(format!("a copy has {there:?} in `{table}`, and its node {here:?}"));
                }
            }
        }
        Ok(())
    }

    /// At rest a copy has nothing left to wait for; one that could not go on is made anew.
    pub(super) fn finish_copies(&mut self) -> Result<(), String> {
        for node in 0..self.nodes.len() {
            let Some(copy) = self.copies[node].take().filter(|_| !self.has_lost || self.has_begun_again) else {
                continue;
            };
            let mut said = self.go_on_copying(node, copy)?;
            if said != "is L" {
                said = self.begin_copy(node)?;
                if let Some(copy) = self.copies[node].take() {
                    said = self.go_on_copying(node, copy)?;
                }
            }
            if said != "is L" {
                return Err(format!("a copy of node {} does not become L: {said}", node + 1));
            }
        }
        Ok(())
    }
}
