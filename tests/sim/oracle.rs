//! The serial fold, written a second time from the rules alone: maps, no SQLite, nothing of the product's apply.
//!
//! It reads decoded entries one after the other and holds L, who has said how much, and every clash there was.

use crate::rule::{Rule, Rules, rules_of};
use crate::schema::{Key, NONE, Row, Rows, Shape, TABLES, render, unrender};
use antiphon_core::entry::{Body, Changes, Chunk, Entry, InForce, Origin, Policy};
use antiphon_core::resolve::{Cause, Clash as Question, Side, Stamp as Stamped, Verdict};
use antiphon_core::schema::{Column, Table};
use antiphon_core::value::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A clash: position, key, and whether over a UNIQUE value.
pub(crate) type Clash = (u64, Key, bool);

/// One change of a unit.
struct Change {
    key: Key,
    image: Option<Row>,
    /// Columns that the origin did not have: they keep what L has.
    lacks: Vec<usize>,
    /// Columns that are not shown to a resolver: those that the origin did not have when the unit ended.
    hidden: Vec<usize>,
    seen: u64,
    /// The row it was made upon, if its node noted that.
    base: Option<Option<Row>>,
    clock: u64,
}

/// What was decided on, as the first shard has it: policies by version.
#[derive(Clone, Debug)]
pub(crate) struct Decisions(BTreeMap<u64, Vec<Policy>>);

impl Decisions {
    /// None but those of the genesis, which no shard has to be told.
    pub(crate) fn new() -> Self {
        Self(BTreeMap::from([(0, Vec::new())]))
    }

    pub(crate) fn newest(&self) -> u64 {
        *self.0.last_key_value().unwrap().0
    }

    /// What a version says of each table, if it is not the genesis's.
    pub(crate) fn rules(&self, version: u64) -> Option<Rules> {
        (version > 0).then(|| self.0.get(&version).map(|policies| rules_of(policies))).flatten()
    }

    /// What later versions than this one say of each table.
    pub(crate) fn after(&self, version: u64) -> impl Iterator<Item = Rules> {
        self.0.range(version + 1..).map(|(_, policies)| rules_of(policies))
    }
}

/// Who changed a row last, where and when, and where anyone else did.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    at: u64,
    by: Origin,
    other: u64,
    clock: u64,
}

/// One shard's log, folded up to a position.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fold {
    pub(crate) position: u64,
    pub(crate) rows: Rows,
    pub(crate) clashes: BTreeSet<Clash>,
    /// Clashes over a UNIQUE value, with the key that lost its row.
    pub(crate) evicted: Vec<(Clash, Key)>,
    /// What is or would be a clash, depending on a row that a node with a pending change to it may not know.
    pub(crate) doubtful: Vec<Clash>,
    received: BTreeMap<Origin, u64>,
    /// Pieces of open units, with the first one's number.
    staged: BTreeMap<Origin, (u64, Vec<Changes>)>,
    /// Rows whose last change came without some column, which kept what stood there.
    completed: BTreeSet<Key>,
    /// Who changed a key, where, and whether that left no row.
    writers: BTreeMap<Key, Vec<(u64, Origin, bool)>>,
    pub(crate) rules: Rules,
    /// The version of the policies that these are of.
    pub(crate) version: u64,
    /// Where each table got stamps last, or lost them.
    since: [u64; TABLES.len()],
    stamps: BTreeMap<Key, Stamp>,
}

impl Fold {
    pub(crate) fn new(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// A change to this key took effect.
    fn stamp(&mut self, key: &Key, by: Origin, clock: u64) {
        if self.rules[key.0] == Rule::Plain {
            return;
        }
        let before = self.stamps.get(key);
        let other = before.map_or(0, |before| if before.by == by { before.other } else { before.at });
        self.stamps.insert(key.clone(), Stamp { at: self.position, by, other, clock });
    }

    /// What becomes of a change under its table's rule; nothing if what stands stays.
    fn ruled(&mut self, origin: Origin, change: &Change) -> Option<Option<Row>> {
        let rule = self.rules[change.key.0];
        let stamp = self.stamps.get(&change.key);
        let last = stamp.map_or(0, |stamp| if stamp.by == origin { stamp.other } else { stamp.at });
        if rule == Rule::Plain {
            return Some(change.image.clone());
        }
        let current = self.rows.get(&change.key);
        let is_concurrent = if last > 0 {
            last > change.seen
        } else {
            // Nothing is known of what was before the policy but the row.
            let based = change.base.as_ref().filter(|_| change.seen < self.since[change.key.0]);
            based.is_some_and(|base| match (base, current) {
                (Some(base), Some(current)) => {
                    (0..base.len()).any(|column| !change.lacks.contains(&column) && base[column] != current[column])
                }
                (base, current) => base.is_some() || current.is_some(),
            })
        };
        if !is_concurrent {
            return Some(change.image.clone());
        }
        if current != change.image.as_ref() {
            self.clashes.insert((self.position, change.key.clone(), false));
        }
        // What it was made upon is not known, so there is nothing to ask.
        let Some(base) = &change.base else { return Some(change.image.clone()) };
        let shape = &TABLES[change.key.0];
        let shown: Vec<usize> = (0..shape.columns.len()).filter(|column| !change.hidden.contains(column)).collect();
        let values = |row: &Row| -> Vec<Value> { shown.iter().map(|&column| unrender(&row[column])).collect() };
        let nodes = [stamp.map_or(origin.node, |stamp| stamp.by.node).to_string(), origin.node.to_string()];
        let columns = shown.iter().map(|&column| Column {
            name: shape.columns[column].to_owned(),
            pk_position: u16::from(shape.key.iter().any(|(key, _)| *key == column)),
            ..Column::default()
        });
        let table = Table { name: shape.name.to_owned(), columns: columns.collect(), ..Table::default() };
        let mut twin = rule.twin();
        twin.configure(&nodes, &[table]).unwrap();
        let side =
            |node, clock, seq, row: Option<&Row>| Side { stamp: Stamped { node, clock, seq }, row: row.map(values) };
        let question = Question {
            table: 0,
            key: Vec::new(),
            cause: Cause::SameKey,
            base: base.as_ref().map(values),
            current: side(0, stamp.map_or(0, |stamp| stamp.clock), stamp.map_or(0, |stamp| stamp.at), current),
            incoming: side(1, change.clock, self.position, change.image.as_ref()),
        };
        let Ok(mut verdicts) = twin.resolve(&[question]) else {
            // Parked: what stands stays, no stamp moves, and a record says so, even of rows that are alike.
            self.clashes.insert((self.position, change.key.clone(), false));
            return None;
        };
        match verdicts.remove(0) {
            Verdict::Keep => None,
            Verdict::Take => Some(change.image.clone()),
            Verdict::Remove => Some(None),
            Verdict::Merge(merged) => {
                let mut row = current.or(change.image.as_ref()).unwrap().clone();
                for (column, value) in shown.iter().zip(merged) {
                    row[*column] = render(&value);
                }
                Some(Some(row))
            }
        }
    }

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
    pub(crate) fn entry(&mut self, entry: &Entry, is_first: bool, decisions: &mut Decisions) -> Result<(), String> {
        self.position += 1;
        match &entry.body {
            Body::Genesis(_) => return Ok(()),
            Body::Decided(decision) => {
                if is_first && decision.version == decisions.newest() + 1 {
                    decisions.0.insert(decision.version, decision.policies.clone());
                }
                return Ok(());
            }
            Body::InForce(InForce { decision, .. }) => {
                let Some(decided) = decisions.0.get(&decision.version) else {
                    return Err(format!("version {} of the policies was never decided on", decision.version));
                };
                if decision.version > self.version && *decided == decision.policies {
                    self.version = decision.version;
                    self.switch(rules_of(decided));
                }
                return Ok(());
            }
            _ => {}
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
            self.unit(entry.origin, entry.clock, &pieces);
        }
        Ok(())
    }

    /// Other policies hold from here on. With a table's first policy its rows get stamps, with its last one they lose
    /// them; what was noted of clashes by then is forgotten likewise.
    fn switch(&mut self, rules: Rules) {
        for (table, (rule, was)) in rules.into_iter().zip(self.rules).enumerate() {
            if (rule == Rule::Plain) != (was == Rule::Plain) {
                self.since[table] = self.position;
                self.stamps.retain(|key, _| key.0 != table);
                self.writers.retain(|key, _| key.0 != table);
            }
        }
        self.rules = rules;
    }

    fn unit(&mut self, origin: Origin, clock: u64, pieces: &[Changes]) {
        let mut changes = coalesce(pieces, clock);
        let seq = self.position;
        for change in &mut changes {
            let (Some(image), Some(row)) = (&mut change.image, self.rows.get(&change.key)) else { continue };
            for column in &change.lacks {
                image[*column].clone_from(&row[*column]);
            }
        }
        for change in changes.iter().filter(|change| self.rules[change.key.0] == Rule::Plain) {
            let writers = self.writers.entry(change.key.clone()).or_default();
            let mut unseen =
                writers.iter().rev().filter(|(position, writer, _)| *writer != origin && *position > change.seen);
            // Where both deleted it, or the row stands as it comes, nobody was overruled.
            let stands = change.image.is_some() && self.rows.get(&change.key) == change.image.as_ref();
            if unseen.next().is_some_and(|(_, _, gone)| !gone || change.image.is_some()) {
                let clash = (seq, change.key.clone(), false);
                if stands || self.completed.contains(&change.key) {
                    self.doubtful.push(clash.clone());
                }
                if !stands {
                    self.clashes.insert(clash);
                }
            }
        }
        for change in &changes {
            if change.lacks.is_empty() || change.image.is_none() {
                self.completed.remove(&change.key);
            } else {
                self.completed.insert(change.key.clone());
            }
        }
        // All are decided upon L as it was before the unit.
        let ruled: Vec<Option<Option<Row>>> = changes.iter().map(|change| self.ruled(origin, change)).collect();
        let mut ruled = ruled.into_iter();
        changes.retain_mut(|change| {
            let image = ruled.next().unwrap();
            let stays = image.is_none();
            change.image = image.flatten();
            !stays
        });
        for change in &changes {
            self.rows.remove(&change.key);
            self.writers.entry(change.key.clone()).or_default().push((seq, origin, change.image.is_none()));
        }
        for change in changes {
            let Some(image) = change.image else {
                self.stamp(&change.key, origin, change.clock);
                continue;
            };
            let shape = &TABLES[change.key.0];
            let slots = shape.slots(&image);
            let holds = |(key, row): &(&Key, &Row)| {
                key.0 == change.key.0 && **key != change.key && shape.slots(row).iter().any(|slot| slots.contains(slot))
            };
            let losers: Vec<Key> = self.rows.iter().filter(holds).map(|(key, _)| key.clone()).collect();
            for loser in losers {
                self.rows.remove(&loser);
                self.stamp(&loser, origin, clock);
                self.clashes.insert((seq, change.key.clone(), true));
                self.evicted.push(((seq, change.key.clone(), true), loser));
            }
            self.stamp(&change.key, origin, change.clock);
            self.rows.insert(change.key, image);
        }
    }
}

/// Each key of a unit once: its first `seen`, its last image.
fn coalesce(pieces: &[Changes], unit_clock: u64) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    let mut hidden = BTreeMap::new();
    for piece in pieces {
        for (key, image, seen, made) in made_of(piece) {
            let (base, clock) = made.map_or((None, unit_clock), |(base, clock)| (Some(base), clock));
            let chunk = piece.chunks.iter().find(|chunk| chunk.table == TABLES[key.0].name);
            let has = |name: &str| chunk.is_some_and(|chunk| chunk.columns.iter().any(|column| column == name));
            let columns = TABLES[key.0].columns.iter().enumerate();
            let lacks: Vec<usize> = columns.filter(|(_, name)| !has(name)).map(|(position, _)| position).collect();
            hidden.insert(key.0, lacks.clone());
            match changes.iter_mut().find(|change| change.key == key) {
                Some(earlier) => (earlier.image, earlier.lacks, earlier.clock) = (image, lacks, clock),
                None => changes.push(Change { key, image, lacks, hidden: Vec::new(), seen, base, clock }),
            }
        }
    }
    for change in &mut changes {
        change.hidden = hidden.get(&change.key.0).cloned().unwrap_or_default();
    }
    changes
}

/// What a change was made upon, and when.
pub(crate) type Made = (Option<Row>, u64);

/// Key, image and `seen` of everything in one entry, and what it was made upon.
pub(crate) fn made_of(changes: &Changes) -> Vec<(Key, Option<Row>, u64, Option<Made>)> {
    let made = changes.chunks.iter().flat_map(|chunk| {
        let shape = &TABLES[Shape::position(&chunk.table).unwrap()];
        (0..chunk.len()).map(move |change| {
            let made = chunk.made.get(change)?;
            Some((made.base.as_ref().map(|base| row_of(shape, chunk, base)), made.clock))
        })
    });
    changes_of(changes).into_iter().zip(made).map(|((key, image, seen), made)| (key, image, seen, made)).collect()
}

/// The values of a chunk's row in the order of the model's columns.
fn row_of(shape: &Shape, chunk: &Chunk, values: &[Value]) -> Row {
    let value = |name: &&str| {
        let at = chunk.columns.iter().position(|column| column == name);
        at.map_or(NONE.to_owned(), |at| render(&values[at]))
    };
    shape.columns.iter().map(value).collect()
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
            let row = row_of(shape, chunk, values);
            found.push(((table, shape.key_of(&row)), Some(row), seen(index)));
        }
        let written = chunk.written.len();
        for (index, values) in chunk.gone.iter().enumerate() {
            found.push(((table, shape.fold_key(values)), None, seen(written + index)));
        }
    }
    found
}
