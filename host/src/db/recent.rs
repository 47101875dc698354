//! Which keys the latest entries touched: enough to notice that two nodes changed one row unseen.
//!
//! In memory, bounded, and rebuilt from the log. Tables of the default policy need no more: whoever is later
//! in the log wins whether the clash is noticed or not, so a miss loses a line in the conflict table and
//! never a row. Key sets are only built when an entry comes whose origin had not seen another's.

use super::overlay::TableId;
use crate::log::Shard;
use antiphon_core::entry::Origin;
use antiphon_core::hash::PackedKeys;
use rustc_hash::FxHashSet;
use std::collections::{HashMap, VecDeque};

/// Most bytes of keys remembered per shard.
const BYTES_MAX: usize = 8 << 20;
/// Most entries remembered per shard.
pub(super) const ENTRIES_MAX: usize = 4096;

#[derive(Debug)]
struct Touched {
    seq: u64,
    origin: Origin,
    tables: Vec<Keys>,
}

#[derive(Debug)]
struct Keys {
    table: TableId,
    packed: PackedKeys,
    set: Option<FxHashSet<Box<[u8]>>>,
}

#[derive(Debug, Default)]
struct Window {
    entries: VecDeque<Touched>,
    bytes: usize,
}

/// The latest entries of every shard.
#[derive(Debug, Default)]
pub(super) struct Recent {
    shards: HashMap<Shard, Window>,
}

impl Recent {
    /// Remembers what an entry touched.
    pub(super) fn note(&mut self, shard: Shard, seq: u64, origin: Origin, tables: Vec<(TableId, PackedKeys)>) {
        let window = self.shards.entry(shard).or_default();
        if window.entries.back().is_some_and(|last| last.seq > seq) {
            return;
        }
        window.bytes += tables.iter().map(|(_, packed)| packed.bytes.len() + packed.len()).sum::<usize>();
        let tables = tables.into_iter().map(|(table, packed)| Keys { table, packed, set: None }).collect();
        window.entries.push_back(Touched { seq, origin, tables });
        while window.entries.len() > ENTRIES_MAX || window.bytes > BYTES_MAX {
            let Some(oldest) = window.entries.pop_front() else { break };
            window.bytes -= oldest.tables.iter().map(|keys| keys.packed.bytes.len() + keys.packed.len()).sum::<usize>();
        }
    }

    /// Whether anyone but `origin` wrote after `seen`: if not, nothing of it can clash.
    pub(super) fn unseen(&self, shard: Shard, origin: Origin, seen: u64) -> bool {
        let Some(window) = self.shards.get(&shard) else { return false };
        window.entries.iter().rev().take_while(|entry| entry.seq > seen).any(|entry| entry.origin != origin)
    }

    /// The latest change to a key that `origin` had not seen: by whom, and where.
    pub(super) fn clash(
        &mut self,
        shard: Shard,
        origin: Origin,
        seen: u64,
        table: TableId,
        key: &[u8],
    ) -> Option<(Origin, u64)> {
        let window = self.shards.get_mut(&shard)?;
        for entry in window.entries.iter_mut().rev().take_while(|entry| entry.seq > seen) {
            if entry.origin == origin {
                continue;
            }
            for keys in entry.tables.iter_mut().filter(|keys| keys.table == table) {
                let set = keys.set.get_or_insert_with(|| keys.packed.iter().map(Into::into).collect());
                if set.contains(key) {
                    return Some((entry.origin, entry.seq));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[&str]) -> Vec<(TableId, PackedKeys)> {
        let mut packed = PackedKeys::default();
        for key in keys {
            packed.bytes.extend(key.as_bytes());
            packed.end();
        }
        vec![(0, packed)]
    }

    #[test]
    fn only_what_another_wrote_unseen_clashes() {
        let origin = |node| Origin { node, incarnation: 1 };
        let mut recent = Recent::default();
        recent.note(1, 5, origin(1), keys(&["a"]));
        recent.note(1, 6, origin(2), keys(&["b"]));
        assert!(!recent.unseen(1, origin(2), 5));
        assert!(recent.unseen(1, origin(2), 4));
        assert_eq!(recent.clash(1, origin(2), 4, 0, b"a"), Some((origin(1), 5)));
        assert_eq!(recent.clash(1, origin(2), 4, 0, b"b"), None, "its own change");
        assert_eq!(recent.clash(1, origin(2), 5, 0, b"a"), None, "it had seen that");
        assert_eq!(recent.clash(1, origin(2), 4, 1, b"a"), None, "another table");
    }
}
