//! Which WebAssembly components decide what, and what they may touch.

use std::collections::BTreeMap;

use super::secret::Settings;
use super::section::section;

/// The resolvers that come with the program.
pub const RESOLVERS: &[&str] =
    &["last-write-wins", "newest-wins", "first-write-wins", "column-merge", "counter", "node-priority"];

/// A setting that a resolver can't do without: names joined by commas.
#[derive(Debug)]
pub(super) struct Required {
    /// What it is called.
    pub(super) setting: &'static str,
    /// Whose names it holds.
    pub(super) what: &'static str,
    /// Some of them.
    pub(super) example: &'static str,
}

/// The only setting of a resolver that comes with the program, if it has one.
pub(super) fn required(resolver: &str) -> Option<Required> {
    match resolver {
        "counter" => Some(Required { setting: "columns", what: "names of columns", example: "quantity, reserved" }),
        "node-priority" => Some(Required { setting: "order", what: "numbers of nodes", example: "1, 2" }),
        _ => None,
    }
}

/// The hashers that come with the program.
pub const HASHERS: &[&str] = &["fnv", "xxh3"];

/// What a hasher that comes with the program can be told.
pub(super) fn hasher_settings(hasher: &str) -> &'static [&'static str] {
    match hasher {
        "xxh3" => &["columns", "seed"],
        _ => &[],
    }
}

section! {
    /// The component that turns a row's key into a number, and with it into a shard.
    Hash at "hash" {
        /// Its name: `fnv`, which spreads keys as HarmonyLite does, `xxh3`, which can keep rows together, or the NAME of a
        /// `[plugin.NAME]`.
        r#use: String = "fnv".to_owned(),
        /// What the component wants to be told. `xxh3`: `{ columns = "tenant" }` brings rows that are alike in these columns
        /// of their keys to one shard, in all tables that have them; `{ seed = 7 }` spreads keys otherwise. Nodes must agree.
        settings: Settings = Settings::default(),
    }
}

section! {
    /// The components that decide when two nodes changed the same row without knowing of each other.
    Conflict at "conflict" {
        /// For tables that no `[[conflict.table]]` matches: `last-write-wins`, `newest-wins`, `first-write-wins` or
        /// `column-merge`. The others need settings, and so a `[[conflict.table]]`.
        default: String = "last-write-wins".to_owned(),
        /// Milliseconds for which this node keeps the record of a clash, which `antiphon conflicts` shows: 30 days.
        /// 0: until it is deleted by hand. Every node may have its own.
        keep: u64 = 2_592_000_000,
    }
    tables {
        /// For some tables; the first that matches holds.
        table: Vec<ConflictTable>,
    }
}

section! {
    /// For some tables; the first that matches holds.
    ConflictTable at "conflict.table[]" {
        /// Glob of table names.
        r#match: String = String::new(),
        /// The component, as in `default` above, or `counter` or `node-priority`.
        r#use: String = String::new(),
        /// What the component wants to be told. `counter`: `{ columns = "quantity, reserved" }`; their changes are added
        /// up. `node-priority`: `{ order = "1, 2" }`; the node named first wins.
        settings: Settings = Settings::default(),
    }
}

section! {
    /// A component by a name of your own.
    Plugin at "plugin.*" {
        /// `builtin:NAME` for one that comes with the program, `file:PATH` for your own.
        source: String = String::new(),
        /// The SHA-256 of your own component's bytes; required for `file:`, so that no other bytes ever run.
        sha256: String = String::new(),
        /// What the component wants to be told. `${file:PATH}` stands for what the file holds.
        settings: Settings = Settings::default(),
    }
    tables {
        /// What your own component may reach.
        grants: Grants,
    }
}

section! {
    /// What your own component may reach. What is not named is refused.
    Grants at "plugin.*.grants" {
        /// Servers it may speak HTTP with, as `https://host:port`.
        http: Vec<String> = Vec::new(),
        /// Allow addresses of private networks and of this machine.
        private_networks: bool = false,
    }
}

/// The plugins by name.
pub type Plugins = BTreeMap<String, Plugin>;
