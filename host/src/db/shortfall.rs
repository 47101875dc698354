//! What stays behind while everything else goes on: tables that are gone here, rows that can't travel.
//!
//! None of it stops a shard, so nothing but these words tells that the nodes are not alike.

use super::catalog::has_null_keys;
use super::{Database, Error};
use crate::log::Difference;
use std::collections::{BTreeMap, BTreeSet};

/// Keys of rows that are named before the rest is only counted.
const NAMED_MAX: usize = 3;

impl Database {
    /// What of a table does not reach the other nodes, or does not come in from them, and what to do; by table.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn shortfalls(&mut self) -> Result<BTreeMap<String, String>, Error> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for gone in self.detached() {
            let since = gone.since.iter().map(|(shard, seq)| format!("entry {seq} of shard {shard}"));
            found.entry(gone.table).or_default().push(format!(
                "it was replicated and is gone from this file; what the log says of it after {} is passed over. Create it \
                 again as it is on the other nodes, or exclude it with `exclude` under `[capture]`",
                since.collect::<Vec<_>>().join(" and ")
            ));
        }
        let mut large: BTreeMap<String, (Vec<String>, usize)> = BTreeMap::new();
        for row in self.oversized()? {
            let (named, count) = large.entry(row.table).or_default();
            *count += 1;
            if named.len() < NAMED_MAX {
                named.push(row.key.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
            }
        }
        for (table, (named, count)) in large {
            let rest = count - named.len();
            let rest = if rest == 0 { String::new() } else { format!(" and {rest} more") };
            found.entry(table).or_default().push(format!(
                "too large to be sent, so that other nodes don't have them as they are here: the rows with key {}{rest}. Make \
                 them smaller, or keep large contents in files beside the database",
                named.join("; ")
            ));
        }
        for table in self.keyless()? {
            found.entry(table).or_default().push(
                "it has rows with a NULL in the primary key, which are not sent, for nothing tells them apart; give each a key"
                    .to_owned(),
            );
        }
        for Difference { node, shard, seq, table, policy } in self.differences() {
            found.entry(table.clone()).or_default().push(format!(
                "its resolver `{policy}` answered the clash of entry {seq} of shard {shard} otherwise here than on node {node}, \
                 so rows may differ: `antiphon plugin check` tells whether it only computes. Put another in its place with \
                 `antiphon policy apply`, and then take the rows of the node that is right with `antiphon join \
                 --discard-local` on the other"
            ));
        }
        Ok(found.into_iter().map(|(table, reasons)| (table, reasons.join("; "))).collect())
    }

    /// Tables that are captured and have rows without a whole key. All are looked at once, later only those for which
    /// a seal came upon such a row.
    fn keyless(&mut self) -> Result<BTreeSet<String>, Error> {
        let mut keyless = BTreeSet::new();
        for tracked in self.tables.iter().filter(|tracked| tracked.captured) {
            let name = &tracked.table.name;
            let suspected = self.keyless.as_ref().is_none_or(|known| known.contains(name));
            if suspected && has_null_keys(&self.conn, &tracked.table)? {
                keyless.insert(name.clone());
            }
        }
        self.keyless = Some(keyless.clone());
        Ok(keyless)
    }

    /// A seal came upon a row without a key.
    pub(super) fn note_keyless(&mut self, table: &str) {
        if let Some(known) = &mut self.keyless {
            known.insert(table.to_owned());
        }
    }
}
