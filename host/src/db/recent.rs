//! Which keys the latest entries touched: enough to notice that two nodes changed one row unseen.
//!
//! In memory, bounded, and rebuilt from the log. Tables of the default policy need no more: whoever is later
//! in the log wins whether the clash is noticed or not, so a miss loses a line in the conflict table and
//! never a row. Keys are only looked at when an entry comes whose origin had not seen another's.

mod chains;

use super::catalog::Tracked;
use super::overlay::{TableId, hash, pack_keys};
use crate::log::Shard;
use antiphon_core::entry::{Chunk, Origin};
use antiphon_core::hash::PackedKeys;
use chains::Chains;
use std::collections::{HashMap, VecDeque};

/// Most bytes that the keys remembered per shard take.
pub(super) const BYTES_MAX: usize = 16 << 20;
/// What a key takes besides its own bytes: where it ends, whether it is gone, and its place in the chains.
const BESIDES: usize = 4 + 1 + 12;
/// Most entries remembered per shard.
pub(super) const ENTRIES_MAX: usize = 4096;

/// The keys of one table that a unit touched.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    table: TableId,
    packed: PackedKeys,
    /// For each key, whether its row was gone after it.
    gone: Vec<bool>,
}

impl Keys {
    pub(super) fn new(table: TableId) -> Self {
        Self { table, packed: PackedKeys::default(), gone: Vec::new() }
    }

    /// The keys of a chunk.
    pub(super) fn of(tracked: &Tracked, chunk: &Chunk) -> Self {
        let packed = pack_keys(tracked, chunk);
        let written = chunk.written.len();
        let gone = (0..packed.len()).map(|index| index >= written).collect();
        Self { table: tracked.id, packed, gone }
    }

    pub(super) fn packed(&self) -> &PackedKeys {
        &self.packed
    }

    pub(super) fn push(&mut self, key: &[u8], gone: bool) {
        self.packed.bytes.extend(key);
        self.packed.end();
        self.gone.push(gone);
    }

    pub(super) fn weight(&self) -> usize {
        self.packed.bytes.len() + BESIDES * self.packed.len()
    }

    /// Keeps no more memory than it needs: it may be kept for long.
    fn shrink(&mut self) {
        self.packed.bytes.shrink_to_fit();
        self.packed.ends.shrink_to_fit();
        self.gone.shrink_to_fit();
    }
}

#[derive(Debug)]
struct Touched {
    seq: u64,
    origin: Origin,
    /// How many keys were touched before, since the first entry that was remembered.
    before: u64,
    tables: Vec<Keys>,
}

impl Touched {
    fn keys(&self) -> usize {
        self.tables.iter().map(|keys| keys.packed.len()).sum()
    }

    fn weight(&self) -> usize {
        self.tables.iter().map(Keys::weight).sum()
    }
}

/// One key of one entry.
#[derive(Clone, Copy)]
struct Touch<'a> {
    entry: &'a Touched,
    table: TableId,
    key: &'a [u8],
    gone: bool,
}

impl<'a> Touch<'a> {
    /// The touch at a place among all of these entries.
    fn find(entries: &'a VecDeque<Touched>, place: usize) -> Option<Self> {
        let number = entries.front()?.before + place as u64;
        let at = entries.partition_point(|entry| entry.before <= number).checked_sub(1)?;
        let entry = entries.get(at)?;
        let mut at = usize::try_from(number - entry.before).ok()?;
        let keys = entry.tables.iter().find(|keys| match at.checked_sub(keys.packed.len()) {
            Some(rest) => {
                at = rest;
                false
            }
            None => true,
        })?;
        Some(Self { entry, table: keys.table, key: keys.packed.get(at)?, gone: *keys.gone.get(at)? })
    }
}

#[derive(Debug, Default)]
struct Window {
    entries: VecDeque<Touched>,
    bytes: usize,
    /// Their keys, once one was looked for.
    chains: Option<Chains>,
    /// The last entry that was read again.
    recalled: u64,
    /// What is read again begins with the first entry there ever was.
    whole: bool,
    /// Of entries read again, by their origin.
    units: HashMap<Origin, Recalling>,
}

impl Window {
    fn push(&mut self, seq: u64, origin: Origin, tables: Vec<Keys>) {
        let before = self.entries.back().map_or(0, |last| last.before + last.keys() as u64);
        let entry = Touched { seq, origin, before, tables };
        self.bytes += entry.weight();
        self.entries.push_back(entry);
        if let Some(chains) = &mut self.chains {
            chain(chains, &self.entries, self.entries.len() - 1);
            if chains.are_full() {
                self.chains = None;
            }
        }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.entries.pop_front() else { return };
        self.bytes -= oldest.weight();
        if let Some(chains) = &mut self.chains {
            chains.forget(oldest.keys());
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
        self.chains = None;
    }
}

/// What is known of an origin by entries that are read again.
#[derive(Debug, Default)]
struct Recalling {
    /// Its last number.
    number: u64,
    /// What its open unit has touched so far.
    open: Vec<Keys>,
    /// That unit may have begun before what can be read, or be one that came before.
    torn: bool,
}

/// An entry that is read again after a start.
pub(super) struct Recalled {
    pub(super) seq: u64,
    pub(super) origin: Origin,
    pub(super) number: u64,
    pub(super) more: bool,
}

/// Chains of all that was touched.
fn chained(entries: &VecDeque<Touched>) -> Chains {
    let mut chains = Chains::with_room(entries.iter().map(Touched::keys).sum());
    (0..entries.len()).for_each(|at| chain(&mut chains, entries, at));
    chains
}

/// Adds what an entry touched. Whether its origin touched a key before, nobody needs to know who comes from later.
fn chain(chains: &mut Chains, entries: &VecDeque<Touched>, at: usize) {
    let Some(entry) = entries.get(at) else { return };
    for keys in &entry.tables {
        for key in keys.packed.iter() {
            chains.push(hash(keys.table, key), |place| {
                Touch::find(entries, place).is_some_and(|last| {
                    last.entry.origin == entry.origin && last.table == keys.table && last.key == key
                })
            });
        }
    }
}

/// The latest change to a key that another had not seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unseen {
    pub(super) origin: Origin,
    /// It left no row.
    pub(super) gone: bool,
}

/// The latest entries of every shard.
#[derive(Debug, Default)]
pub(super) struct Recent {
    shards: HashMap<Shard, Window>,
}

impl Recent {
    /// Remembers what a unit touched.
    pub(super) fn note(&mut self, shard: Shard, seq: u64, origin: Origin, mut tables: Vec<Keys>) {
        let window = self.shards.entry(shard).or_default();
        if window.entries.back().is_some_and(|last| last.seq >= seq) {
            return;
        }
        tables.iter_mut().for_each(Keys::shrink);
        window.push(seq, origin, tables);
        while window.entries.len() > ENTRIES_MAX || window.bytes > BYTES_MAX {
            window.forget_oldest();
        }
    }

    /// What is read again begins with this entry.
    pub(super) fn recall_from(&mut self, shard: Shard, first: u64) {
        self.shards.entry(shard).or_default().whole |= first == 1;
    }

    /// Remembers an entry that was applied before this start, as [`Recent::note`] would have then: pieces
    /// count where their unit took effect, and what came twice counts once.
    ///
    /// A unit of which only the end can be read may have touched anything. What came before it is forgotten then: a
    /// clash may be missed, but none is seen where there was none.
    pub(super) fn recall(&mut self, shard: Shard, entry: &Recalled, mut tables: Vec<Keys>) {
        let window = self.shards.entry(shard).or_default();
        if entry.seq <= window.recalled {
            return;
        }
        window.recalled = entry.seq;
        let torn = !window.whole;
        let unit = window.units.entry(entry.origin).or_insert_with(|| Recalling { torn, ..Recalling::default() });
        if entry.number <= unit.number {
            return;
        }
        unit.number = entry.number;
        unit.open.append(&mut tables);
        if entry.more {
            return;
        }
        let tables = std::mem::take(&mut unit.open);
        if std::mem::take(&mut unit.torn) {
            window.clear();
        } else {
            self.note(shard, entry.seq, entry.origin, tables);
        }
    }

    /// Forgets entries after a position: they were applied in a transaction that was rolled back.
    pub(super) fn rewind(&mut self, shard: Shard, position: u64) {
        let Some(window) = self.shards.get_mut(&shard) else { return };
        while let Some(last) = window.entries.pop_back_if(|last| last.seq > position) {
            window.bytes -= last.weight();
            // What they hid is not hidden any more.
            window.chains = None;
        }
    }

    /// Whether anyone but `origin` wrote after `seen`: if not, nothing of it can clash.
    pub(super) fn unseen(&self, shard: Shard, origin: Origin, seen: u64) -> bool {
        let Some(window) = self.shards.get(&shard) else { return false };
        window.entries.iter().rev().take_while(|entry| entry.seq > seen).any(|entry| entry.origin != origin)
    }

    /// The latest change to a key that `origin` had not seen.
    pub(super) fn clash(
        &mut self,
        shard: Shard,
        origin: Origin,
        seen: u64,
        table: TableId,
        key: &[u8],
    ) -> Option<Unseen> {
        let window = self.shards.get_mut(&shard)?;
        let chains = window.chains.get_or_insert_with(|| chained(&window.entries));
        let touches = chains.places(hash(table, key)).map_while(|place| Touch::find(&window.entries, place));
        touches
            .take_while(|touch| touch.entry.seq > seen)
            .find(|touch| touch.entry.origin != origin && touch.table == table && touch.key == key)
            .map(|touch| Unseen { origin: touch.entry.origin, gone: touch.gone })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[&str]) -> Vec<Keys> {
        let mut touched = Keys::new(0);
        for key in keys {
            touched.push(key.as_bytes(), false);
        }
        vec![touched]
    }

    fn origin(node: u64) -> Origin {
        Origin { node, incarnation: 1 }
    }

    fn unseen(node: u64) -> Option<Unseen> {
        Some(Unseen { origin: origin(node), gone: false })
    }

    #[test]
    fn only_what_another_wrote_unseen_clashes() {
        let mut recent = Recent::default();
        recent.note(1, 5, origin(1), keys(&["a"]));
        recent.note(1, 6, origin(2), keys(&["b"]));
        assert!(!recent.unseen(1, origin(2), 5));
        assert!(recent.unseen(1, origin(2), 4));
        assert_eq!(recent.clash(1, origin(2), 4, 0, b"a"), unseen(1));
        assert_eq!(recent.clash(1, origin(2), 4, 0, b"b"), None, "its own change");
        assert_eq!(recent.clash(1, origin(2), 5, 0, b"a"), None, "it had seen that");
        assert_eq!(recent.clash(1, origin(2), 4, 1, b"a"), None, "another table");
    }

    #[test]
    fn the_last_word_of_a_unit_counts() {
        let mut touched = Keys::new(0);
        for (key, gone) in [("b", false), ("", true), ("a", true), ("ab", false), ("b", true), ("a", false)] {
            touched.push(key.as_bytes(), gone);
        }
        let mut again = Keys::new(0);
        again.push(b"ab", true);
        let mut recent = Recent::default();
        recent.note(1, 5, origin(1), vec![touched, Keys::new(0), again]);
        let found = ["", "a", "aa", "ab", "b", "c"]
            .map(|key| recent.clash(1, origin(2), 4, 0, key.as_bytes()).map(|unseen| unseen.gone));
        assert_eq!(found, [Some(true), Some(false), None, Some(true), Some(true), None]);
    }

    #[test]
    fn any_history_clashes_as_a_look_at_each_entry_says() {
        /// One entry after the other, the latest first.
        fn looked_up(entries: &VecDeque<Touched>, of: Origin, seen: u64, key: (TableId, &[u8])) -> Option<Unseen> {
            let unseen = entries.iter().rev().take_while(|entry| entry.seq > seen);
            unseen.filter(|entry| entry.origin != of).find_map(|entry| {
                let mut touched = entry.tables.iter().rev().filter(|keys| keys.table == key.0).flat_map(|keys| {
                    let gone = keys.gone.iter().copied();
                    keys.packed.iter().zip(gone).collect::<Vec<_>>().into_iter().rev()
                });
                let (_, gone) = touched.find(|(touched, _)| *touched == key.1)?;
                Some(Unseen { origin: entry.origin, gone })
            })
        }
        let mut state = 1u64;
        let mut any = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut recent = Recent::default();
        let (mut seq, mut found) = (0, 0);
        for step in 0..10_000 {
            // More than is remembered, with weights that differ: what is oldest goes for its size or its number.
            let size = if step % 1000 < 10 { 5000 } else { 4 };
            if any(50) == 0 {
                seq -= any(10).min(seq);
                recent.rewind(1, seq);
            }
            seq += 1 + any(2);
            let mut tables = Vec::new();
            for table in 0..any(3) {
                let mut touched = Keys::new(usize::try_from(table).unwrap());
                for _ in 0..any(size) {
                    touched.push(format!("{:0100}", any(3000)).as_bytes(), any(2) == 0);
                }
                tables.push(touched);
            }
            recent.note(1, seq, origin(any(3)), tables);
            let mut latest = Vec::new();
            for _ in 0..any(4) {
                let behind = if any(8) == 0 { 5000 } else { 20 };
                let (of, seen) = (origin(any(3)), seq.saturating_sub(any(behind)));
                let (table, key) = (usize::try_from(any(2)).unwrap(), format!("{:0100}", any(3000)));
                let entries = recent.shards.get(&1).map(|window| &window.entries).unwrap();
                let expected = looked_up(entries, of, seen, (table, key.as_bytes()));
                found += u32::from(expected.is_some());
                latest.push((of, seen, table, key, expected));
            }
            for (of, seen, table, key, expected) in latest {
                assert_eq!(recent.clash(1, of, seen, table, key.as_bytes()), expected, "step {step}");
            }
        }
        assert!(found > 1000, "{found}");
    }

    #[test]
    fn what_is_read_again_counts_where_it_took_effect() {
        let mut recent = Recent::default();
        recent.recall_from(1, 1);
        let piece = |seq, number, more| Recalled { seq, origin: origin(1), number, more };
        recent.recall(1, &piece(5, 1, true), keys(&["a"]));
        assert_eq!(recent.clash(1, origin(2), 4, 0, b"a"), None, "its unit is open");
        recent.recall(1, &piece(8, 2, false), keys(&["b"]));
        assert_eq!(recent.clash(1, origin(2), 7, 0, b"a"), unseen(1));
        recent.recall(1, &piece(9, 2, false), keys(&["b"]));
        assert_eq!(recent.clash(1, origin(2), 8, 0, b"b"), None, "it came twice");
    }

    #[test]
    fn before_a_unit_of_which_only_the_end_is_known_nothing_is_known() {
        let mut recent = Recent::default();
        recent.recall_from(1, 4);
        let of = |node, seq, number, more| Recalled { seq, origin: origin(node), number, more };
        recent.recall(1, &of(1, 4, 7, false), keys(&["a"]));
        recent.recall(1, &of(1, 5, 8, false), keys(&["a"]));
        assert_eq!(recent.clash(1, origin(2), 3, 0, b"a"), unseen(1));
        // Its first piece is gone from the log, and may have deleted the row.
        recent.recall(1, &of(3, 6, 2, true), keys(&["b"]));
        recent.recall(1, &of(3, 7, 3, false), keys(&["c"]));
        assert_eq!(recent.clash(1, origin(2), 3, 0, b"a"), None);
        recent.recall(1, &of(1, 8, 9, false), keys(&["a"]));
        assert_eq!(recent.clash(1, origin(2), 3, 0, b"a"), unseen(1));
    }

    #[test]
    fn what_was_rolled_back_is_forgotten() {
        let mut recent = Recent::default();
        recent.note(1, 5, origin(1), keys(&["a"]));
        recent.note(1, 6, origin(1), keys(&["a"]));
        recent.rewind(1, 5);
        assert_eq!(recent.clash(1, origin(2), 5, 0, b"a"), None);
        assert_eq!(recent.clash(1, origin(2), 4, 0, b"a"), unseen(1));
    }
}
