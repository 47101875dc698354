//! What is captured and how the log is divided: the tables about the data's way.

use std::path::PathBuf;

use super::section::section;
use super::size::Size;
use crate::db::Filter;

section! {
    /// How changes are kept in the log on their way to the other nodes.
    ReplicationLog at "replication_log" {
        /// How many shards the log has, 1 to 1024. Changes of one shard keep their order; shards are applied side by
        /// side. Written into the log by the node that founds it: later nodes follow the log.
        shards: u32 = 1,
        /// How many entries a shard keeps behind a verified snapshot. Older ones go once enough snapshots hold them and
        /// every node has read them. It drops nothing that no snapshot holds, and blocks nobody; see `log_bytes_max` for a
        /// ceiling.
        max_entries: u64 = 1024,
        /// Milliseconds after which the log is not kept any more for a node that was not heard of. It goes on from a
        /// snapshot when it is back.
        node_expiry: u64 = 604_800_000,
        /// Most bytes that a shard's entries may take (NATS only), as `"10 GiB"`. 0: as much as the servers' disks have room
        /// for.
        log_bytes_max: Size = Size(0),
        /// What happens when they take that much. `block`: nothing more is taken, and changes wait in each node's
        /// database until there is room. `drop`: the oldest entries go; a node that had not read them goes on from
        /// a snapshot, or stops where none fits.
        on_full: String = "block".to_owned(),
        /// How many servers keep a copy of a stream (NATS only). 0: half of `shards` and one, 5 at most.
        replicas: u32 = 1,
        /// Compress entries with zstd.
        compress: bool = true,
        /// Change the settings of existing streams to these (NATS only).
        update_existing: bool = false,
    }
}

section! {
    /// Which tables are replicated. Patterns are globs (`orders`, `app_*`, `{users,roles}`) and, like SQLite, take no
    /// notice of case.
    Capture at "capture" {
        /// Bytes of changes that may wait in the database while the log can't be reached. There is a warning at 50, 80 and
        /// 95 %; nothing is dropped, then or later. 0: as much as the disk has room for.
        outbox_bytes_max: u64 = 0,
        /// What happens when they are that many. `grow`: more of them wait, as long as the disk has room. `refuse`: SQLite
        /// refuses the application's writes to replicated tables, with a constraint error that says why, until the log has
        /// taken a fifth of them. `stop`: the application writes on, and nothing of it is captured until the log takes changes
        /// again; then each table is compared with the log, and rows that differ become this node's changes.
        outbox_on_full: String = "grow".to_owned(),
        /// Only tables that match one of these. Empty: all tables.
        include: Vec<String> = Vec::new(),
        /// But no table that matches one of these.
        exclude: Vec<String> = Vec::new(),
    }
}

section! {
    /// The embedded log, which the nodes of one machine share. It is used unless `urls` is set under `[nats]`.
    Log at "log" {
        /// Its directory. Nodes that name the same one replicate with each other.
        /// Empty: `<db_path>.antiphon/log`.
        path: PathBuf = PathBuf::new(),
    }
}

impl Capture {
    /// The patterns, ready to be asked.
    ///
    /// # Errors
    /// Names the first pattern that is not a glob.
    pub fn filter(&self) -> Result<Filter, globset::Error> {
        Filter::new(&self.include, &self.exclude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(include: &[&str], exclude: &[&str], table: &str, taken: bool) {
        let own = |patterns: &[&str]| patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let capture = Capture { include: own(include), exclude: own(exclude), ..Capture::default() };
        assert_eq!(capture.filter().unwrap().wants(table), taken);
    }

    #[test]
    fn nothing_said_takes_all() {
        check(&[], &[], "orders", true);
    }

    #[test]
    fn exclude_wins_over_include() {
        check(&["app_*"], &["app_tmp*"], "app_users", true);
        check(&["app_*"], &["app_tmp*"], "app_tmp1", false);
        check(&["app_*"], &[], "other", false);
    }

    #[test]
    fn case_does_not_matter_and_slashes_are_letters() {
        check(&["Orders"], &[], "oRDERS", true);
        check(&["a*"], &[], "a/b", true);
    }

    #[test]
    fn a_name_full_of_signs_matches_when_escaped() {
        let name = "a[1]*{x}?\"b";
        check(&[], &[&globset::escape(name)], name, false);
        check(&[], &[&globset::escape(name)], "a1x", true);
    }
}
