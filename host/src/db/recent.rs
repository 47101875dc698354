//! Which keys the latest entries touched: enough to notice that two nodes changed one row unseen.
//!
//! In memory, bounded, and rebuilt from the log. Tables of the default policy need no more: whoever is later
//! in the log wins whether the clash is noticed or not, so a miss loses a line in the conflict table and
//! never a row. Keys are only put in order when an entry comes whose origin had not seen another's.

use super::catalog::Tracked;
use super::overlay::{TableId, pack_keys};
use crate::log::Shard;
use antiphon_core::entry::{Chunk, Origin};
use antiphon_core::hash::PackedKeys;
use std::collections::{HashMap, VecDeque};

/// Most bytes of keys remembered per shard.
pub(super) const BYTES_MAX: usize = 8 << 20;
/// Most entries remembered per shard.
pub(super) const ENTRIES_MAX: usize = 4096;

/// The keys of one table that a unit touched.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    table: TableId,
    packed: PackedKeys,
    /// For each key, whether its row was gone after it.
    gone: Vec<bool>,
    /// Positions of the keys, in the order of their bytes. A table of hashes would be many times as large.
    order: Option<Vec<u32>>,
}

impl Keys {
    pub(super) fn new(table: TableId) -> Self {
        Self { table, packed: PackedKeys::default(), gone: Vec::new(), order: None }
    }

    /// The keys of a chunk.
    pub(super) fn of(tracked: &Tracked, chunk: &Chunk) -> Self {
        let packed = pack_keys(tracked, chunk);
        let written = chunk.written.len();
        let gone = (0..packed.len()).map(|index| index >= written).collect();
        Self { table: tracked.id, packed, gone, order: None }
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
        self.packed.bytes.len() + self.packed.len()
    }

    /// Whether the row of this key was gone; nothing if it was not touched.
    fn gone(&mut self, key: &[u8]) -> Option<bool> {
        let Self { packed, gone, order, .. } = self;
        let of = |at: u32| packed.get(at as usize).unwrap_or_default();
        let order = order.get_or_insert_with(|| {
            let mut order: Vec<u32> = (0..).take(packed.len()).collect();
            order.sort_unstable_by(|&one, &other| of(one).cmp(of(other)).then(one.cmp(&other)));
            order
        });
        // The last word on a key is what counts.
        let last = order.partition_point(|&at| of(at) <= key).checked_sub(1)?;
        let at = *order.get(last)?;
        if of(at) == key { gone.get(at as usize).copied() } else { None }
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
    tables: Vec<Keys>,
}

#[derive(Debug, Default)]
struct Window {
    entries: VecDeque<Touched>,
    bytes: usize,
    /// The last entry that was read again.
    recalled: u64,
    /// What is read again begins with the first entry there ever was.
    whole: bool,
    /// Of entries read again, by their origin.
    units: HashMap<Origin, Recalling>,
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
        window.bytes += tables.iter().map(Keys::weight).sum::<usize>();
        window.entries.push_back(Touched { seq, origin, tables });
        while window.entries.len() > ENTRIES_MAX || window.bytes > BYTES_MAX {
            let Some(oldest) = window.entries.pop_front() else { break };
            window.bytes -= oldest.tables.iter().map(Keys::weight).sum::<usize>();
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
            window.entries.clear();
            window.bytes = 0;
        } else {
            self.note(shard, entry.seq, entry.origin, tables);
        }
    }

    /// Forgets entries after a position: they were applied in a transaction that was rolled back.
    pub(super) fn rewind(&mut self, shard: Shard, position: u64) {
        let Some(window) = self.shards.get_mut(&shard) else { return };
        while let Some(last) = window.entries.pop_back_if(|last| last.seq > position) {
            window.bytes -= last.tables.iter().map(Keys::weight).sum::<usize>();
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
        let unseen = window.entries.iter_mut().rev().take_while(|entry| entry.seq > seen);
        for entry in unseen.filter(|entry| entry.origin != origin) {
            // The last word of a unit in pieces is in its last one.
            let found =
                entry.tables.iter_mut().rev().filter(|keys| keys.table == table).find_map(|keys| keys.gone(key));
            if let Some(gone) = found {
                return Some(Unseen { origin: entry.origin, gone });
            }
        }
        None
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
    fn keys_are_found_whatever_their_order_and_the_last_word_counts() {
        let mut touched = Keys::new(0);
        for (key, gone) in [("b", false), ("", true), ("a", true), ("ab", false), ("b", true), ("a", false)] {
            touched.push(key.as_bytes(), gone);
        }
        touched.shrink();
        let found = ["", "a", "aa", "ab", "b", "c"].map(|key| touched.gone(key.as_bytes()));
        assert_eq!(found, [Some(true), Some(false), None, Some(false), Some(true), None]);
        assert_eq!(Keys::new(0).gone(b"a"), None);
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
