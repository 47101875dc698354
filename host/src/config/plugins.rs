//! Which WebAssembly components decide what, and what they may touch.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::secret::Settings;
use super::section::section;
use super::size::Size;

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
        /// For tables that no `[[conflict.table]]` matches: `last-write-wins`, `newest-wins`, `first-write-wins`,
        /// `column-merge`, or the NAME of a `[plugin.NAME]`. The others need settings, and so a `[[conflict.table]]`.
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
        /// `antiphon plugin pin NAME` writes it.
        sha256: String = String::new(),
        /// What the component wants to be told. What a resolver or a hasher is told stands in the log.
        settings: Settings = Settings::default(),
        /// What becomes of a clash that a resolver fails at. `stop`: its shard stops there. `park`: the row that stands
        /// stays, and `antiphon conflicts` says so. The same on all nodes.
        on_failure: String = "stop".to_owned(),
    }
    tables {
        /// What it may use up.
        limits: PluginLimits,
        /// What your own component may reach.
        grants: Grants,
    }
}

section! {
    /// What a component may use up before it is stopped. With `on_failure = "park"` those of fuel, memory and what is
    /// returned decide what becomes of a row, and are the same on all nodes.
    PluginLimits at "plugin.*.limits" {
        /// The largest component that is compiled; at most 64 MiB.
        component_bytes: Size = Size::mib(64),
        /// Seconds of processor time for compiling it, which happens once, in a process of its own.
        compile_seconds: u64 = 120,
        /// Memory for compiling it.
        compile_memory: Size = Size::mib(2048),
        /// Memory of one instance. Components made from Python or JavaScript may need more than the default.
        memory: Size = Size::mib(64),
        /// Bytes that it may hand over in one call.
        returned: Size = Size::mib(16),
        /// Fuel of a call, whatever it is about. A unit is about one instruction.
        fuel_base: u64 = 200_000_000,
        /// Fuel on top for each key, clash, table or column.
        fuel_per_item: u64 = 500_000,
        /// Fuel on top for each byte handed to the component.
        fuel_per_byte: u64 = 200,
        /// Milliseconds after which a call is ended though fuel is left. That is no answer: the shard stops.
        watchdog: u64 = 5000,
        /// Calls after which an instance is replaced by a new one.
        calls: u64 = 1_000_000,
    }
}

section! {
    /// What your own component may reach. What is not named is refused.
    Grants at "plugin.*.grants" {
        /// The folder that it sees as `/`. It is made if it is not there.
        folder: PathBuf = PathBuf::new(),
        /// Servers it may speak HTTP with, as `https://host:port`.
        http: Vec<String> = Vec::new(),
        /// Servers it may connect to by itself, as `host:port`.
        sockets: Vec<String> = Vec::new(),
        /// Allow addresses of private networks and of this machine.
        private_networks: bool = false,
        /// Certificates of those who sign the servers', as PEM, besides those whom the system trusts.
        ca_file: PathBuf = PathBuf::new(),
    }
}

/// The plugins by name.
pub type Plugins = BTreeMap<String, Plugin>;
