//! Which WebAssembly components decide what, and what they may touch.

use std::collections::BTreeMap;

use super::secret::Settings;
use super::section::section;

/// The resolvers that come with the program.
pub const RESOLVERS: &[&str] =
    &["last-write-wins", "newest-wins", "first-write-wins", "column-merge", "counter", "node-priority"];

/// The hashers that come with the program.
pub const HASHERS: &[&str] = &["fnv"];

section! {
    /// The component that turns a row's key into a number, and with it into a shard.
    Hash at "hash" {
        /// Its name: `fnv`, which spreads keys as HarmonyLite does, or the NAME of a `[plugin.NAME]`.
        r#use: String = "fnv".to_owned(),
    }
}

section! {
    /// The components that decide when two nodes changed the same row without knowing of each other.
    Conflict at "conflict" {
        /// For tables that no `[[conflict.table]]` matches: `last-write-wins`, `newest-wins`, `first-write-wins`,
        /// `column-merge`, `counter`, `node-priority`, or the NAME of a `[plugin.NAME]`.
        default: String = "last-write-wins".to_owned(),
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
        /// The component, as in `default` above.
        r#use: String = String::new(),
        /// What the component wants to be told.
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
