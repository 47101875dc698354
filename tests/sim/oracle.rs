//! The serial fold, written a second time from the rules alone: maps, no SQLite, nothing of the product's apply.
//!
//! It reads decoded entries one after the other and holds L, who has said how much, and every clash there was.

use crate::schema::{Key, NONE, Row, Rows, Shape, TABLES, render};
use antiphon_core::entry::{Body, Changes, Entry, Origin};
use std::collections::{BTreeMap, BTreeSet};

/// A clash: position, key, and whether over a UNIQUE value.
pub(crate) type Clash = (u64, Key, bool);

/// One change of a unit.
struct Change {
    key: Key,
    image: Option<Row>,
    /// Columns that the origin did not have: they keep what L has.
    lacks: Vec<usize>,
    seen: u64,
}

/// One shard's log, folded up to a position.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fold {
    pub(crate) position: u64,
    pub(crate) rows: Rows,
    pub(crate) clashes: BTreeSet<Clash>,
    /// Clashes over a UNIQUE value, with the key that lost its row.
    pub(crate) evicted: Vec<(Clash, Key)>,
    /// What would be clashes, were the rows not equal.
    pub(crate) standing: Vec<Clash>,
    received: BTreeMap<Origin, u64>,
    /// Pieces of open units, with the first one's number.
    staged: BTreeMap<Origin, (u64, Vec<Changes>)>,
    /// Who changed a key, where, and whether that left no row.
    writers: BTreeMap<Key, Vec<(u64, Origin, bool)>>,
}

impl Fold {
    /// The last number of this origin that has taken effect.
    pub(crate) fn done(&self, origin: Origin) -> u64 {
        match self.staged.get(&origin) {
            Some((first, _)) => first - 1,
            None => self.received.get(&origin).copied().unwrap_or(0),
        }
    }

    pub(crate) fn has_staged(&self) -> bool {
        !self.staged.is_empty()
    }

    /// Folds the next entry.
    pub(crate) fn entry(&mut self, entry: &Entry) -> Result<(), String> {
        self.position += 1;
        if matches!(entry.body, Body::Genesis(_)) {
            return Ok(());
        }
        let received = self.received.entry(entry.origin).or_default();
        if entry.number <= *received {
            return Ok(());
        }
        if entry.number != *received + 1 {
            return Err(format!("the log has number {} of node {} after {received}", entry.number, entry.origin.node));
        }
        *received = entry.number;
        let Body::Changes(changes) = &entry.body else { return Ok(()) };
        let (_, staged) = self.staged.entry(entry.origin).or_insert((entry.number, Vec::new()));
        staged.push(changes.clone());
        if !changes.more {
            let (_, pieces) = self.staged.remove(&entry.origin).unwrap();
            self.unit(entry.origin, &pieces);
        }
        Ok(())
    }

    fn unit(&mut self, origin: Origin, pieces: &[Changes]) {
        let mut changes = coalesce(pieces);
        let seq = self.position;
        for change in &mut changes {
            let (Some(image), Some(row)) = (&mut change.image, self.rows.get(&change.key)) else { continue };
            for column in &change.lacks {
                image[*column].clone_from(&row[*column]);
            }
        }
        for change in &changes {
            let writers = self.writers.entry(change.key.clone()).or_default();
            let mut unseen =
                writers.iter().rev().filter(|(position, writer, _)| *writer != origin && *position > change.seen);
            // Where both deleted it, or the row stands as it comes, nobody was overruled.
            let stands = change.image.is_some() && self.rows.get(&change.key) == change.image.as_ref();
            if unseen.next().is_some_and(|(_, _, gone)| !gone || change.image.is_some()) {
                if stands {
                    self.standing.push((seq, change.key.clone(), false));
                } else {
                    self.clashes.insert((seq, change.key.clone(), false));
                }
            }
        }
        for change in &changes {
            self.rows.remove(&change.key);
            self.writers.entry(change.key.clone()).or_default().push((seq, origin, change.image.is_none()));
        }
        for change in changes {
            let Some(image) = change.image else { continue };
            let shape = &TABLES[change.key.0];
            let slots = shape.slots(&image);
            let holds = |(key, row): &(&Key, &Row)| {
                key.0 == change.key.0 && **key != change.key && shape.slots(row).iter().any(|slot| slots.contains(slot))
            };
            let losers: Vec<Key> = self.rows.iter().filter(holds).map(|(key, _)| key.clone()).collect();
            for loser in losers {
                self.rows.remove(&loser);
                self.clashes.insert((seq, change.key.clone(), true));
                self.evicted.push(((seq, change.key.clone(), true), loser));
            }
            self.rows.insert(change.key, image);
        }
    }
}

/// Each key of a unit once: its first `seen`, its last image.
fn coalesce(pieces: &[Changes]) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    for piece in pieces {
        for (key, image, seen) in changes_of(piece) {
            let chunk = piece.chunks.iter().find(|chunk| chunk.table == TABLES[key.0].name);
            let has = |name: &str| chunk.is_some_and(|chunk| chunk.columns.iter().any(|column| column == name));
            let columns = TABLES[key.0].columns.iter().enumerate();
            let lacks = columns.filter(|(_, name)| !has(name)).map(|(position, _)| position).collect();
            match changes.iter_mut().find(|change| change.key == key) {
                Some(earlier) => (earlier.image, earlier.lacks) = (image, lacks),
                None => changes.push(Change { key, image, lacks, seen }),
            }
        }
    }
    changes
}

/// Key, image and `seen` of everything in one entry.
pub(crate) fn changes_of(changes: &Changes) -> Vec<(Key, Option<Row>, u64)> {
    let mut found = Vec::new();
    for chunk in &changes.chunks {
        let table = Shape::position(&chunk.table).expect("an entry names a table that nobody has");
        let shape = &TABLES[table];
        let seen = |index: usize| {
            chunk.seen.iter().find(|(change, _)| *change == index).map_or(changes.seen, |(_, seen)| *seen)
        };
        for (index, values) in chunk.written.iter().enumerate() {
            let value = |name: &&str| {
                let at = chunk.columns.iter().position(|column| column == name);
                at.map_or(NONE.to_owned(), |at| render(&values[at]))
            };
            let row: Row = shape.columns.iter().map(value).collect();
            found.push(((table, shape.key_of(&row)), Some(row), seen(index)));
        }
        let written = chunk.written.len();
        for (index, values) in chunk.gone.iter().enumerate() {
            found.push(((table, shape.fold_key(values)), None, seen(written + index)));
        }
    }
    found
}
