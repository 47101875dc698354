//! What must hold: at every moment on one node, and at rest between all of them.
//!
//! A [`Witness`] stands beside each node. It sees what the application committed and what the log holds, and
//! knows from these alone what the node's tables must show: the log's rows, overlaid with its own newest.

use crate::oracle::{Clash, Decisions, Fold, made_of};
use crate::rule::{Rule, Rules};
use crate::schema::{Key, LATE, Row, Rows, STOCK, Shape, TABLES, rows_of};
use antiphon::db::Database;
use antiphon::log::{Announced, Member};
use antiphon_core::codec::{decode, decode_row};
use antiphon_core::entry::{Body, Entry, Origin};
use antiphon_core::value::Value;
use antiphon_harness::Node;
use rusqlite::Connection;
use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet};

/// The newest image that this node gave a key, and the batch that carries it.
struct Mine {
    image: Option<Row>,
    shard: u32,
    number: u64,
    /// The position at which the key became pending.
    since: u64,
    /// Its table had no policy then: nobody noted what the change was made upon.
    baseless: bool,
}

/// What is known of one node.
pub(crate) struct Witness {
    pub(crate) rows: Rows,
    pub(crate) has_late: bool,
    /// The column has been added that was not there at first.
    pub(crate) is_wide: bool,
    pub(crate) folds: Vec<Fold>,
    /// Committed and in no batch yet.
    dirty: BTreeMap<Key, Option<Row>>,
    /// Of what is in no batch yet, the row before.
    before: BTreeMap<Key, Option<Row>>,
    /// Keys of units that are still open, by shard.
    open: BTreeMap<u32, BTreeSet<Key>>,
    /// Tables whose rows are noted as they were before they change, now and at the look before.
    notes: [bool; TABLES.len()],
    noted: [bool; TABLES.len()],
    pub(crate) decisions: Decisions,
    /// Whether any table has a policy, or may get one.
    counts: bool,
    /// In a batch that has not come back yet.
    pending: BTreeMap<Key, Mine>,
    /// Those of them that T has no row of, for a later one had its UNIQUE value when their log was gone back with.
    taken: BTreeSet<Key>,
    /// Rows of L that T may lack, for a pending row held their UNIQUE value.
    hidden: BTreeSet<Key>,
    /// Of what is in no batch yet, keys that were hidden before.
    was_hidden: BTreeSet<Key>,
    /// Clashes that hang on L's row of a key that was pending here when they took place: of such a key this
    /// node may not know L's row, so that it may miss the clash, or see one where the rows are equal.
    unsure: BTreeSet<(usize, Clash)>,
    /// Units that are applied in slices.
    slicing: Vec<Slicing>,
    /// The last row of the outbox that was looked at.
    outbox: i64,
    pub(crate) origin: Origin,
}

/// What a look at a node saw that is worth counting.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) hidden: bool,
    pub(crate) pieces: bool,
    pub(crate) staged: bool,
    pub(crate) shadows: bool,
    pub(crate) sliced: bool,
    pub(crate) displaced: bool,
}

/// A unit that a node applies in slices, and how far it has come.
#[derive(Clone)]
struct Slicing {
    shard: usize,
    by: Origin,
    number: u64,
    /// The log's rows once it is done.
    after: Fold,
    /// Keys of the unit, and those whose change is in the slices that are done.
    unit: BTreeSet<Key>,
    done: BTreeSet<Key>,
}

impl Slicing {
    /// Whether the node may show this row of a key that the unit changes, or takes a UNIQUE value from. Rows of such
    /// tables make room for one another, so that until the unit ends they may be missing.
    fn allows(&self, before: &Fold, key: &Key, shown: Option<&Row>) -> bool {
        let (before, after) = (before.rows.get(key), self.after.rows.get(key));
        if TABLES[key.0].uniques.is_empty() {
            return shown == if self.done.contains(key) { after } else { before };
        }
        shown.is_none() || shown == before || shown == after || after.is_none() && self.done.contains(key)
    }

    fn touches(&self, before: &Fold, key: &Key) -> bool {
        self.unit.contains(key) || before.rows.get(key) != self.after.rows.get(key)
    }
}

type Checked<T> = Result<T, String>;

/// A UNIQUE value: its table, its index, and what is compared.
type Slot = (usize, (usize, Vec<String>));

impl Witness {
    pub(crate) fn new(node: &Node, shards: usize, rules: Rules, counts: bool) -> Self {
        Self {
            rows: Rows::new(),
            has_late: false,
            is_wide: false,
            folds: vec![Fold::new(rules); shards],
            dirty: BTreeMap::new(),
            before: BTreeMap::new(),
            open: BTreeMap::new(),
            notes: rules.map(|rule| rule != Rule::Plain),
            noted: rules.map(|rule| rule != Rule::Plain),
            decisions: Decisions::new(),
            counts,
            pending: BTreeMap::new(),
            taken: BTreeSet::new(),
            hidden: BTreeSet::new(),
            was_hidden: BTreeSet::new(),
            unsure: BTreeSet::new(),
            slicing: Vec::new(),
            outbox: 0,
            origin: node.with(|db| db.origin()),
        }
    }

    /// The application has committed, or tried to: what differs is what it wrote. Gives whether anything does.
    pub(crate) fn committed(&mut self, node: &Node) -> bool {
        let rows = rows_of(&node.app, self.has_late);
        let updated = updated(&node.app);
        let keys: BTreeSet<&Key> = rows.keys().chain(self.rows.keys()).collect();
        let mut wrote = false;
        for key in keys {
            let (old, new) = (self.rows.get(key), rows.get(key));
            // A row that is left as it was has been written all the same: `n = n + 1` where n is NULL.
            if old == new && (new.is_none() || !updated.contains(key)) {
                continue;
            }
            wrote = true;
            if self.hidden.remove(key) {
                self.was_hidden.insert(key.clone());
            }
            if new.is_none() && !is_captured(&node.app, key.0) {
                // A row that came and went before anyone listened.
                self.dirty.remove(key);
                self.before.remove(key);
            } else {
                self.before.entry(key.clone()).or_insert_with(|| old.cloned());
                self.dirty.insert(key.clone(), new.cloned());
                if self.notes[key.0] && self.before[key].is_none() && new.is_none() {
                    // It came and went between two seals: nobody has to hear of it, and a batch may still say so.
                    self.before.remove(key);
                    self.dirty.remove(key);
                    if self.was_hidden.remove(key) {
                        self.hidden.insert(key.clone());
                    }
                }
            }
        }
        self.rows = rows;
        wrote
    }

    /// Looks at what the node has sealed: before it goes back, for then some of it is written anew.
    pub(crate) fn look_before(&mut self, node: &Node) -> Checked<()> {
        self.look_at_outbox(&node.app, &mut Seen::default())
    }

    /// Clashes that this node may not have seen as they are.
    pub(crate) fn unsure(&self) -> BTreeSet<(usize, Clash)> {
        self.unsure.clone()
    }

    /// The node has gone back, or on, to where `image` stands; what it had sealed and `image` lacks is on its way.
    pub(crate) fn go_back_to(
        &mut self,
        node: &Node,
        image: &Database,
        log: &[Vec<Entry>],
        rules: Rules,
        unsure: BTreeSet<(usize, Clash)>,
    ) -> Checked<()> {
        self.decisions = Decisions::new();
        for (shard, position) in image.positions() {
            let mut fold = Fold::new(rules);
            for entry in &log[shard as usize - 1][..at(position)] {
                fold.entry(entry, shard == 1, &mut self.decisions)?;
            }
            self.folds[shard as usize - 1] = fold;
        }
        self.unsure.extend(unsure);
        self.slicing.clear();
        self.was_hidden.clear();
        self.pending.clear();
        let mut statement = node
            .app
            .prepare("SELECT id, shard, number, batch FROM __antiphon___global_change_log ORDER BY shard, number")
            .unwrap();
        let mut batches = statement.query([]).unwrap();
        while let Some(batch) = batches.next().unwrap() {
            self.outbox = self.outbox.max(batch.get(0).unwrap());
            let (shard, number): (u32, i64) = (batch.get(1).unwrap(), batch.get(2).unwrap());
            let (number, fold) = (number.cast_unsigned(), &self.folds[shard as usize - 1]);
            let entry = decode(&batch.get::<_, Vec<u8>>(3).unwrap()).map_err(|error| error.to_string())?;
            let Body::Changes(changes) = entry.body else { continue };
            if number <= fold.done(self.origin) {
                continue;
            }
            for (key, image, seen, made) in made_of(&changes) {
                let known = self.pending.get(&key);
                let since = known.map_or(seen.min(fold.position), |mine| mine.since);
                let baseless = made.is_none() || known.is_some_and(|mine| mine.baseless);
                self.pending.insert(key, Mine { image, shard, number, since, baseless });
            }
        }
        Ok(())
    }

    /// Looks at the node after any step.
    pub(crate) fn observe(&mut self, node: &Node, log: &[Vec<Entry>]) -> Checked<Seen> {
        let mut seen = Seen::default();
        self.noted = self.notes;
        let moved = self.follow(node, log)?;
        self.notes = self.notes_now();
        self.look_at_outbox(&node.app, &mut seen)?;
        let folds = &self.folds;
        let origin = self.origin;
        self.pending.retain(|_, mine| mine.number > folds[mine.shard as usize - 1].done(origin));
        self.rows = rows_of(&node.app, self.has_late);
        let slicing = self.slicing(node, log)?;
        // What came back in a slice waits no longer.
        for slicing in slicing.iter().filter(|slicing| slicing.by == origin) {
            self.pending.retain(|key, mine| {
                slicing.shard != mine.shard as usize - 1 || mine.number > slicing.number || !slicing.done.contains(key)
            });
        }
        self.compare(moved, &slicing, &mut seen)?;
        let expected = self.pending.len();
        seen.sliced = !slicing.is_empty();
        self.slicing = slicing;
        seen.displaced = count(&node.app, "SELECT count(*) FROM __antiphon___displaced") > 0;
        let pending = node.with(|db| db.pending_len());
        if pending != expected {
            return Err(format!("{pending} keys are pending, and {expected} should be"));
        }
        self.is_covered(node)?;
        seen.staged = self.folds.iter().any(Fold::has_staged);
        seen.shadows = count(&node.app, "SELECT count(*) FROM __antiphon___shadow") > 0;
        Ok(seen)
    }

    /// Where a policy has to know L's rows, they are known behind every row that is on its way.
    fn is_covered(&self, node: &Node) -> Checked<()> {
        for (table, key) in node.with(|db| db.uncovered()).map_err(|error| error.to_string())? {
            let Some(table) = Shape::position(&table) else { continue };
            let key = (table, TABLES[table].fold_key(&key));
            let rule = self.pending.get(&key).map(|mine| self.folds[mine.shard as usize - 1].rules[table]);
            if rule.is_some_and(|rule| rule != Rule::Plain) {
                return Err(format!("{key:?} is on its way, and what the log says of it is not known"));
            }
        }
        Ok(())
    }

    /// Folds what the node says it has applied; gives whether that is more than before.
    fn follow(&mut self, node: &Node, log: &[Vec<Entry>]) -> Checked<bool> {
        let mut moved = false;
        for (shard, position) in node.with(|db| db.positions()) {
            let stored = count(
                &node.app,
                &format!("SELECT coalesce(max(seq), 0) FROM __antiphon___position WHERE shard = {shard}"),
            );
            if stored != position {
                return Err(format!("position {position} of shard {shard} is {stored} in the file"));
            }
            let fold = &mut self.folds[shard as usize - 1];
            if position < fold.position {
                return Err(format!("the position in shard {shard} went back from {} to {position}", fold.position));
            }
            if position == fold.position {
                continue;
            }
            let entries = &log[shard as usize - 1][at(fold.position)..at(position)];
            // Where a log begins again nothing is applied: what is hidden comes out at the next entry.
            moved |= entries.iter().any(|entry| !matches!(entry.body, Body::Anew(_)));
            let known = (fold.evicted.len(), fold.doubtful.len());
            for entry in entries {
                fold.entry(entry, shard == 1, &mut self.decisions)?;
            }
            let evicted = fold.evicted[known.0..].iter().map(|(clash, loser)| (clash, loser));
            let doubtful = fold.doubtful[known.1..].iter().map(|clash| (clash, &clash.1));
            for (clash, _) in evicted
                .chain(doubtful)
                .filter(|(_, key)| self.pending.contains_key(key) || self.dirty.contains_key(key))
            {
                self.unsure.insert((shard as usize, clash.clone()));
            }
        }
        Ok(moved)
    }

    /// Tables that have a policy in some shard, or will.
    fn notes_now(&self) -> [bool; TABLES.len()] {
        let least = self.folds.iter().map(|fold| fold.version).min().unwrap();
        let coming = self.decisions.after(least);
        let all: Vec<Rules> = self.folds.iter().map(|fold| fold.rules).chain(coming).collect();
        std::array::from_fn(|table| all.iter().any(|rules| rules[table] != Rule::Plain))
    }

    /// Units of which the file says that a part has been applied.
    fn slicing(&self, node: &Node, log: &[Vec<Entry>]) -> Checked<Vec<Slicing>> {
        let mut statement = node
            .app
            .prepare_cached("SELECT shard, node, incarnation, number, piece, done FROM __antiphon___slice")
            .unwrap();
        let mut found = statement.query([]).unwrap();
        let mut all = Vec::new();
        while let Some(row) = found.next().unwrap() {
            let number = |column: usize| row.get::<_, i64>(column).unwrap().cast_unsigned();
            let shard = at(number(0)) - 1;
            let by = Origin { node: number(1), incarnation: number(2) };
            let (last, piece, done) = (number(3), number(4), at(number(5)));
            let before = &self.folds[shard];
            let first = before.done(by) + 1;
            let closing = log[shard].get(at(before.position));
            let Some(closing) = closing.filter(|closing| (closing.origin, closing.number) == (by, last)) else {
                // The log lost it, and the node stays where it is.
                let known = |known: &&Slicing| (known.shard, known.by, known.number) == (shard, by, last);
                let lost = "a unit is applied in slices that is not next in the log";
                all.push(self.slicing.iter().find(known).ok_or(lost)?.clone());
                continue;
            };
            let mut after = before.clone();
            after.entry(closing, shard == 0, &mut self.decisions.clone())?;
            let mut slicing = Slicing { shard, by, number: last, after, unit: BTreeSet::new(), done: BTreeSet::new() };
            for entry in &log[shard][..=at(before.position)] {
                let Body::Changes(changes) = &entry.body else { continue };
                if entry.origin != by || entry.number < first {
                    continue;
                }
                for (index, (key, ..)) in made_of(changes).into_iter().enumerate() {
                    if entry.number < piece || entry.number == piece && index < done {
                        slicing.done.insert(key.clone());
                    }
                    slicing.unit.insert(key);
                }
            }
            all.push(slicing);
        }
        Ok(all)
    }

    /// Every committed row is in the next batch as it was committed, and nothing else is.
    fn look_at_outbox(&mut self, app: &Connection, seen: &mut Seen) -> Checked<()> {
        let mut statement = app
            .prepare_cached(
                "SELECT id, shard, number, batch, at_seq FROM __antiphon___global_change_log WHERE id > ?1 ORDER BY id",
            )
            .unwrap();
        let mut batches = statement.query([self.outbox]).unwrap();
        let mut sealed = false;
        let mut closed = false;
        while let Some(batch) = batches.next().unwrap() {
            sealed = true;
            self.outbox = batch.get(0).unwrap();
            let (shard, number): (u32, i64) = (batch.get(1).unwrap(), batch.get(2).unwrap());
            let entry = decode(&batch.get::<_, Vec<u8>>(3).unwrap()).map_err(|error| error.to_string())?;
            let Body::Changes(changes) = entry.body else { continue };
            seen.pieces |= changes.more;
            closed = !changes.more;
            for (key, image, seen, made) in made_of(&changes) {
                let position = batch.get::<_, i64>(4).unwrap().cast_unsigned();
                // Behind a pending row, the log's row of a key was never shown here: what it was written upon is older.
                let clean = if self.was_hidden.contains(&key) { seen } else { position };
                let since = self.pending.get(&key).map_or(clean, |mine| mine.since);
                let before = self.before.remove(&key);
                // Within a unit, what a key was first made upon counts.
                let first = self.open.entry(shard).or_default().insert(key.clone());
                let baseless = made.is_none();
                if baseless && self.notes[key.0] && self.noted[key.0] {
                    return Err(format!("batch {number} does not say what {key:?} was made upon"));
                }
                let was_baseless = self.pending.get(&key).is_some_and(|mine| mine.baseless);
                if let Some((base, _)) = made.filter(|_| first && self.dirty.contains_key(&key)) {
                    // Of rows that went before there was a policy, nobody kept from where on they were on their way.
                    let loose = was_baseless || self.was_hidden.contains(&key);
                    Self::is_made_upon(&key, before.flatten().as_ref(), base.as_ref(), since, seen, loose)?;
                }
                self.was_hidden.remove(&key);
                match self.dirty.remove(&key) {
                    Some(written) if written == image => {}
                    Some(written) => {
                        return Err(format!("batch {number} has {image:?} for {key:?}, and {written:?} was committed"));
                    }
                    // Marked twice, as by a scan over rows that triggers had marked; or inserted and deleted since.
                    None if self.pending.get(&key).is_some_and(|mine| mine.image == image) => {}
                    None if image.is_none() && !self.rows.contains_key(&key) => {}
                    None => return Err(format!("batch {number} has {image:?} for {key:?}, which nobody here wrote")),
                }
                self.pending.insert(
                    key,
                    Mine { image, shard, number: number.cast_unsigned(), since, baseless: baseless || was_baseless },
                );
            }
            if closed {
                self.open.remove(&shard);
            }
        }
        let waiting =
            |(table, _): &Key| is_captured(app, *table) && count(app, "SELECT count(*) FROM __antiphon___scan") == 0;
        if closed && self.dirty.keys().any(waiting) {
            return Err(format!("a unit was closed, and committed rows still wait: {:?}", self.dirty));
        }
        if (sealed || !self.dirty.is_empty()) && self.is_sealed(app) && !self.dirty.is_empty() {
            return Err(format!("committed, and neither marked nor in a batch: {:?}", self.dirty));
        }
        Ok(())
    }

    /// Whether this is a history with policies.
    pub(crate) fn counts(&self) -> bool {
        self.counts
    }

    /// A change says truly which row it was made upon, and up to where its node had seen the log.
    fn is_made_upon(
        key: &Key,
        before: Option<&Row>,
        base: Option<&Row>,
        since: u64,
        seen: u64,
        hidden: bool,
    ) -> Checked<()> {
        if before != base {
            return Err(format!("{key:?} was {before:?} when it was changed, and its batch says {base:?}"));
        }
        if seen != since && !hidden {
            return Err(format!("{key:?} was changed upon position {since}, and its batch says {seen}"));
        }
        Ok(())
    }

    /// Whether nothing is left to seal.
    fn is_sealed(&self, app: &Connection) -> bool {
        let tables = (0..TABLES.len()).filter(|table| self.has_late || *table != LATE);
        let mut unsealed = tables.map(|table| {
            !is_captured(app, table)
                || count(app, &format!("SELECT count(*) FROM __antiphon__{}_change_log", TABLES[table].name)) > 0
        });
        !unsealed.any(|unsealed| unsealed) && count(app, "SELECT count(*) FROM __antiphon___scan") == 0
    }

    /// Keys with a row on its way whose UNIQUE value a later one of this node's has: what stood between the two is on its
    /// way again, or was lost with the log. Until the later one is back, T has no room for the other.
    fn taken(&self) -> BTreeSet<Key> {
        let mut latest: BTreeMap<Slot, (u64, &Key)> = BTreeMap::new();
        let pending = self.pending.iter().map(|(key, mine)| (key, &mine.image, mine.number));
        let dirty = self.dirty.iter().map(|(key, image)| (key, image, u64::MAX));
        let mut taken = BTreeSet::new();
        for (key, image, number) in pending.filter(|(key, ..)| !self.dirty.contains_key(*key)).chain(dirty) {
            for slot in image.iter().flat_map(|row| TABLES[key.0].slots(row)) {
                match latest.entry((key.0, slot)) {
                    Place::Vacant(free) => {
                        free.insert((number, key));
                    }
                    Place::Occupied(mut held) => {
                        let (before, holder) = *held.get();
                        taken.insert(if before < number { holder.clone() } else { key.clone() });
                        if before < number {
                            held.insert((number, key));
                        }
                    }
                }
            }
        }
        taken
    }

    /// T is L, overlaid with what this node wrote and has not seen come back.
    fn compare(&mut self, moved: bool, slicing: &[Slicing], seen: &mut Seen) -> Checked<()> {
        let mut own: BTreeMap<&Key, &Option<Row>> = self.pending.iter().map(|(key, mine)| (key, &mine.image)).collect();
        own.extend(&self.dirty);
        let mut held: BTreeSet<(usize, (usize, Vec<String>))> = BTreeSet::new();
        // What had no room has none before it comes back, whatever becomes of the other.
        let mut taken = self.taken();
        taken.extend(self.taken.iter().filter(|key| own.contains_key(*key) && !self.dirty.contains_key(*key)).cloned());
        taken.retain(|key| !self.rows.contains_key(key));
        for (key, image) in &own {
            if self.rows.get(*key) != image.as_ref() && !taken.contains(*key) {
                return Err(format!("{key:?} is {:?}, and {image:?} was written here last", self.rows.get(*key)));
            }
            held.extend(image.iter().flat_map(|row| TABLES[key.0].slots(row)).map(|slot| (key.0, slot)));
        }
        let mut hidden = BTreeSet::new();
        let mut moving = BTreeSet::new();
        for slicing in slicing {
            let before = &self.folds[slicing.shard];
            let keys = before.rows.keys().chain(slicing.after.rows.keys()).chain(&slicing.unit);
            for key in keys.filter(|key| slicing.touches(before, key)) {
                moving.insert(key.clone());
                let shown = self.rows.get(key);
                if own.contains_key(key) {
                    continue;
                }
                if !slicing.allows(before, key, shown) {
                    let (old, new) = (before.rows.get(key), slicing.after.rows.get(key));
                    return Err(format!("{key:?} is {shown:?} between slices, and goes from {old:?} to {new:?}"));
                }
                if shown.is_none() && (before.rows.contains_key(key) || slicing.after.rows.contains_key(key)) {
                    hidden.insert(key.clone());
                }
            }
        }
        for (key, row) in self.folds.iter().flat_map(|fold| &fold.rows).filter(|(key, _)| !own.contains_key(*key)) {
            if moving.contains(key) {
                continue;
            }
            let blocked = TABLES[key.0].slots(row).into_iter().any(|slot| held.contains(&(key.0, slot)));
            match self.rows.get(key) {
                Some(shown) if shown == row => {}
                // Room is looked for when entries are applied, not between.
                None if blocked || !moved && self.hidden.contains(key) => {
                    hidden.insert(key.clone());
                }
                shown => return Err(format!("{key:?} is {shown:?}, and the log says {row:?}")),
            }
        }
        for (key, row) in self.rows.iter().filter(|(key, _)| !own.contains_key(*key) && !moving.contains(*key)) {
            if !self.folds.iter().any(|fold| fold.rows.contains_key(key)) {
                return Err(format!("{key:?} is {row:?}, and the log has no such row"));
            }
        }
        seen.hidden = !hidden.is_empty();
        self.hidden = hidden;
        self.taken = taken;
        Ok(())
    }

    /// Whether everything committed has come back and everything there is has been applied.
    pub(crate) fn is_at_rest(&self, node: &Node, log: &[Vec<Entry>]) -> bool {
        let applied = self.folds.iter().zip(log).all(|(fold, log)| at(fold.position) == log.len());
        applied
            && self.folds.iter().all(|fold| fold.version == self.decisions.newest())
            && self.pending.is_empty()
            && self.dirty.is_empty()
            && self.is_sealed(&node.app)
            && count(&node.app, "SELECT count(*) FROM __antiphon___global_change_log WHERE state = 0") == 0
    }
}

/// Resolvers were asked and answered the same everywhere, as far as samples tell.
fn same_answers(nodes: &[Node]) -> Checked<()> {
    let said: Vec<Announced> = nodes
        .iter()
        .map(|node| {
            let (origin, samples) = node.with(|db| (db.origin(), db.samples()));
            let Origin { node, incarnation } = origin;
            Announced { member: Member { node, incarnation, samples, ..Member::default() }, time: 0 }
        })
        .collect();
    for node in nodes {
        let said = said.clone();
        if let Some(difference) = node.with(move |db| db.compare_samples(&said)).first() {
            return Err(format!("an answer differs: {difference:?}"));
        }
    }
    Ok(())
}

/// What must hold when nothing moves any more.
pub(crate) fn at_rest(
    nodes: &[Node],
    witnesses: &[Witness],
    sound: &[usize],
    (has_rolled, has_begun_again): (bool, bool),
    log: &[Vec<Entry>],
) -> Checked<()> {
    same_answers(nodes)?;
    for (node, witness) in sound.iter().map(|&node| (&nodes[node], &witnesses[node])) {
        let who = witness.origin.node;
        let rows: Rows = witness.folds.iter().flat_map(|fold| fold.rows.clone()).collect();
        if witness.rows != rows {
            return Err(format!("node {who} differs from the log at rest: {:?} and {rows:?}", witness.rows));
        }
        let first = &witnesses[sound[0]];
        if witness.rows != first.rows {
            return Err(format!("node {who} has {:?}, and the first node {:?}", witness.rows, first.rows));
        }
        for (what, sql) in [
            ("shadows", "SELECT count(*) FROM __antiphon___shadow"),
            ("staged pieces", "SELECT count(*) FROM __antiphon___staged"),
            ("effects of a user's trigger that took place twice", "SELECT count(*) FROM audit WHERE n <> 1"),
        ] {
            let found = count(&node.app, sql);
            // A node that stopped for want of its log leaves its unit open.
            let excused = what == "staged pieces" && sound.len() < nodes.len();
            if found > 0 && !excused {
                return Err(format!("node {who} has {found} {what} at rest"));
            }
        }
        let integrity: String = node.app.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        if integrity != "ok" {
            return Err(format!("node {who}: {integrity}"));
        }
        is_in_log(node, witness, log, has_begun_again)?;
        same_clashes(node, witness, has_rolled)?;
    }
    Ok(())
}

/// Every batch that was sealed is in the log, once and as it was sealed.
///
/// What a node made upon entries that were lost says so when it is sent again, and others may know it as it was before.
fn is_in_log(node: &Node, witness: &Witness, log: &[Vec<Entry>], has_begun_again: bool) -> Checked<()> {
    let mut statement = node.app.prepare("SELECT shard, number, batch FROM __antiphon___global_change_log").unwrap();
    let mut batches = statement.query([]).unwrap();
    while let Some(batch) = batches.next().unwrap() {
        let (shard, number): (u32, i64) = (batch.get(0).unwrap(), batch.get(1).unwrap());
        let sealed = decode(&batch.get::<_, Vec<u8>>(2).unwrap()).map_err(|error| error.to_string())?;
        let log = &log[shard as usize - 1];
        let is_there = |logged: &Entry| sightless(logged.clone()) == sightless(sealed.clone());
        if !(log.contains(&sealed) || has_begun_again && log.iter().any(is_there)) {
            return Err(format!("batch {number} of node {} is not in shard {shard} of the log", witness.origin.node));
        }
    }
    Ok(())
}

/// An entry without what its origin had seen.
fn sightless(mut entry: Entry) -> Entry {
    if let Body::Changes(changes) = &mut entry.body {
        changes.seen = 0;
        changes.chunks.iter_mut().for_each(|chunk| chunk.seen.clear());
    }
    entry
}

/// Every clash that the log holds left its record, and no other did. Of entries that were rolled out a node that
/// started since does not know what they touched.
fn same_clashes(node: &Node, witness: &Witness, has_rolled: bool) -> Checked<()> {
    let mut recorded: BTreeSet<(usize, Clash)> = BTreeSet::new();
    let mut statement = node.app.prepare("SELECT shard, seq, tbl, key, cause FROM __antiphon___conflict").unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let (shard, seq, name, key, cause): (u32, i64, String, Vec<u8>, String) =
            (row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap(), row.get(3).unwrap(), row.get(4).unwrap());
        let table = Shape::position(&name).ok_or("a clash in an unknown table")?;
        let key = decode_row(&key).map_err(|error| error.to_string())?;
        recorded.insert((
            shard as usize,
            (seq.cast_unsigned(), (table, TABLES[table].fold_key(&key)), cause == "unique-index"),
        ));
    }
    let folds = witness.folds.iter().enumerate();
    let held: BTreeSet<(usize, Clash)> =
        folds.flat_map(|(shard, fold)| fold.clashes.iter().map(move |clash| (shard + 1, clash.clone()))).collect();
    let missing: Vec<_> = held.difference(&recorded).filter(|clash| !witness.unsure.contains(*clash)).collect();
    let invented: Vec<_> = recorded.difference(&held).filter(|clash| !witness.unsure.contains(*clash)).collect();
    if !missing.is_empty() && !has_rolled || !invented.is_empty() {
        return Err(format!(
            "node {}: clashes without a record: {missing:?}; records without a clash: {invented:?}",
            witness.origin.node
        ));
    }
    Ok(())
}

/// Rows that the application updated since this was asked last, whether their values changed or not.
fn updated(app: &Connection) -> BTreeSet<Key> {
    let mut statement = app.prepare_cached("DELETE FROM temp.updated RETURNING id").unwrap();
    let ids = statement.query_map([], |row| row.get(0)).unwrap();
    ids.map(|id| (STOCK, TABLES[STOCK].fold_key(&[Value::Integer(id.unwrap())]))).collect()
}

fn is_captured(app: &Connection, table: usize) -> bool {
    let sql = format!(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name = '__antiphon__{}_on_insert'",
        TABLES[table].name
    );
    count(app, &sql) > 0
}

fn count(app: &Connection, sql: &str) -> u64 {
    let count: i64 = app.prepare_cached(sql).unwrap().query_row([], |row| row.get(0)).unwrap();
    count.cast_unsigned()
}

fn at(position: u64) -> usize {
    usize::try_from(position).unwrap()
}
