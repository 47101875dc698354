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
    "die at begin",
    "die at committed",
    "die at reload",
    "a step of failures",
    "clock jump",
    "lost tail",
    "rolled over",
    "recreated",
    "emptied",
    "began again",
    "rescued after it began again",
    "die at anew",
    "honest stop",
    "sent again after a loss",
    "changes owed",
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
    "unit in slices",
    "row makes room",
    "die at slice",
    "die at sliced",
    "die at slice-placed",
    "die at slices-ended",
    "clash over a key",
    "clash over a unique value",
    "first-write-wins",
    "fussy",
    "newest-wins",
    "column-merge",
    "counter",
    "node-priority",
    "count",
    "count and insert",
    "copy",
    "copy becomes L",
    "copy that waited",
    "policies proposed",
    "policies in force",
    "a policy waits",
    "die at decided",
    "die at in-force",
    "die at recaptured",
    "die at covered",
    "die at turn",
    "die at turned",
];

/// Pairs that exclude one another: a history has one number of shards, and loses its log in one way.
const EXCLUSIVE: &[&[&str]] = &[
    &["one shard", "two shards", "three shards"],
    &["lost tail", "rolled over", "recreated"],
    &["recreated", "emptied"],
    &["recreated", "began again"],
    &["recreated", "rescued after it began again"],
    &["recreated", "die at anew"],
    &["recreated", "changes owed"],
];

/// What is rare by its nature. Everything else must have met everything else in a full run.
const RARE: &[&str] = &[
    "recreated",
    "emptied",
    "began again",
    "rescued after it began again",
    "die at anew",
    "rolled over",
    "lost tail",
    "honest stop",
    "sent again after a loss",
    "changes owed",
    "die at append",
    "die at appended",
    "die at scanned",
    "row makes room",
    "die at slice",
    "die at sliced",
    "die at slice-placed",
    "die at slices-ended",
    "die at decided",
    "die at in-force",
    "die at recaptured",
    "die at covered",
    "die at turn",
    "die at turned",
    "a policy waits",
];

/// What was seen, how often, and in how many histories two of them met.
#[derive(Clone, Debug)]
pub(crate) struct Coverage {
    counts: BTreeMap<String, u64>,
    /// One row a kind, one column a kind: histories in which both took place.
    met: Vec<Vec<u64>>,
}

impl Default for Coverage {
    fn default() -> Self {
        Self { counts: BTreeMap::new(), met: vec![vec![0; KINDS.len()]; KINDS.len()] }
    }
}

impl Coverage {
    pub(crate) fn see(&mut self, what: &str) {
        match self.counts.get_mut(what) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert(what.to_owned(), 1);
            }
        }
    }

    /// A history has ended: what took place in it has met.
    pub(crate) fn end(&mut self) {
        let seen: Vec<usize> = (0..KINDS.len()).filter(|kind| self.counts.contains_key(KINDS[*kind])).collect();
        for &one in &seen {
            for &other in &seen {
                self.met[one][other] += 1;
            }
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (what, count) in &other.counts {
            *self.counts.entry(what.clone()).or_default() += count;
        }
        for (row, others) in self.met.iter_mut().zip(&other.met) {
            for (met, other) in row.iter_mut().zip(others) {
                *met += other;
            }
        }
    }

    /// What never happened.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        KINDS.iter().copied().filter(|kind| !self.counts.contains_key(*kind)).collect()
    }

    /// How many pairs can meet, and those that never did.
    pub(crate) fn pairs(&self) -> (usize, Vec<(&'static str, &'static str)>) {
        let mut possible = 0;
        let mut never = Vec::new();
        for (one, row) in self.met.iter().enumerate() {
            for (other, met) in row.iter().enumerate().skip(one + 1) {
                let pair = (KINDS[one], KINDS[other]);
                if EXCLUSIVE.iter().any(|group| group.contains(&pair.0) && group.contains(&pair.1)) {
                    assert_eq!(*met, 0, "{pair:?} exclude one another");
                    continue;
                }
                possible += 1;
                if *met == 0 {
                    never.push(pair);
                }
            }
        }
        (possible, never)
    }

    /// Pairs of what is not rare that never met: the generator has a blind spot.
    pub(crate) fn strangers(&self) -> Vec<(&'static str, &'static str)> {
        let (_, mut never) = self.pairs();
        never.retain(|(one, other)| !RARE.contains(one) && !RARE.contains(other));
        never
    }
}

impl std::fmt::Display for Coverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts: Vec<String> = self.counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
        f.write_str(&counts.join(", "))
    }
}
