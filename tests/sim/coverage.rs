//! How often each kind of step took place: a simulator that never does something proves nothing about it.

use std::collections::BTreeMap;

/// Everything that must have happened at least once in a full run.
const KINDS: &[&str] = &[
    "one shard",
    "two shards",
    "three shards",
    "rows before the cluster",
    "late table",
    "late column",
    "update extra",
    "blocked",
    "single",
    "transaction",
    "savepoint",
    "rollback",
    "rollback to",
    "swap",
    "refused by SQLite",
    "insert",
    "insert or replace",
    "insert or ignore",
    "upsert on key",
    "upsert on unique",
    "upsert nothing",
    "update",
    "update unique",
    "update or replace",
    "update or ignore",
    "update all",
    "move",
    "move or replace",
    "change of case",
    "delete",
    "delete all",
    "insert child",
    "cascade",
    "cascade of a key",
    "crash between steps",
    "error survived",
    "refuse append",
    "lose ack",
    "redeliver",
    "refuse read",
    "delay",
    "die at seal",
    "die at sealed",
    "die at apply",
    "die at applied",
    "die at commit",
    "die at append",
    "die at appended",
    "die at scanned",
    "die at pruned",
    "pruned",
    "unit in pieces",
    "staged piece",
    "shadow",
    "hidden row",
    "clash over a key",
    "clash over a unique value",
    "first-write-wins",
    "newest-wins",
    "column-merge",
    "counter",
    "node-priority",
    "count",
    "count and insert",
];

/// Counts, by what was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage(BTreeMap<String, u64>);

impl Coverage {
    pub(crate) fn see(&mut self, what: &str) {
        match self.0.get_mut(what) {
            Some(count) => *count += 1,
            None => {
                self.0.insert(what.to_owned(), 1);
            }
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what.clone()).or_default() += count;
        }
    }

    /// What never happened.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        KINDS.iter().copied().filter(|kind| !self.0.contains_key(*kind)).collect()
    }
}

impl std::fmt::Display for Coverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts: Vec<String> = self.0.iter().map(|(what, count)| format!("{what} {count}")).collect();
        f.write_str(&counts.join(", "))
    }
}
