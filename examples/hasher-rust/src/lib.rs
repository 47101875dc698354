//! `by-tenant`: rows whose keys begin alike share a shard.
//!
//! With keys such as `PRIMARY KEY (tenant, id)` in every table, all rows of one tenant go to one shard: its changes
//! stay in the order in which they were made, and a transaction that touches one tenant only arrives whole.
//!
//! The host asks this component on every node and must hear the same everywhere. So a hash may depend on the table, the
//! key and the settings, and on nothing else.

mod bindings {
    // What the host and this component say to each other is described in `wit/`; this makes Rust of it.
    wit_bindgen::generate!({ path: "wit", world: "hasher" });
    use super::Plugin;
    export!(Plugin);
}

use std::cell::RefCell;

use bindings::antiphon::plugin::types::{Settings, Table};
use bindings::exports::antiphon::plugin::metadata::{self, Info};
use bindings::exports::antiphon::plugin::rowhash;

struct Plugin;

impl metadata::Guest for Plugin {
    fn describe() -> Info {
        Info {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            description: env!("CARGO_PKG_DESCRIPTION").into(),
            settings_schema: r#"{ "type": "object", "additionalProperties": false }"#.into(),
            laws: 1,
        }
    }
}

thread_local! {
    static TABLES: RefCell<Vec<Table>> = const { RefCell::new(Vec::new()) };
}

impl rowhash::Guest for Plugin {
    /// Called before the first key, and again when the schema changes.
    fn configure(settings: Settings, tables: Vec<Table>) -> Result<(), String> {
        if let Some((name, _)) = settings.first() {
            // The user reads this, and the host does not start.
            return Err(format!("there is no setting `{name}`"));
        }
        TABLES.set(tables);
        Ok(())
    }

    /// One hash a key. `keys` holds them back to back, `ends` where each one ends.
    fn hash(table: u32, keys: Vec<u8>, ends: Vec<u32>) -> Result<Vec<u64>, String> {
        let mut start = 0;
        let mut hashes = Vec::with_capacity(ends.len());
        for end in ends {
            let key = keys.get(start..end as usize).ok_or("the ends of the keys are not in order")?;
            hashes.push(if key.is_empty() { whole(table)? } else { fnv(tenant(key).ok_or("a key is no CBOR")?) });
            start = end as usize;
        }
        Ok(hashes)
    }
}

/// The empty key stands for a table that goes to one shard whole: its name decides which.
fn whole(table: u32) -> Result<u64, String> {
    TABLES.with_borrow(|tables| {
        let table =
            tables.iter().find(|known| known.id == table).ok_or_else(|| format!("there is no table {table}"))?;
        Ok(fnv(table.name.as_bytes()))
    })
}

/// The first value of a key. Values are CBOR, back to back.
fn tenant(key: &[u8]) -> Option<&[u8]> {
    key.get(..length(key)?)
}

/// How many bytes the first value takes.
fn length(value: &[u8]) -> Option<usize> {
    let first = *value.first()?;
    let head = match first % 32 {
        0..24 => 1,
        24 => 2,
        25 => 3,
        26 => 5,
        27 => 9,
        _ => return None,
    };
    // What the head says besides the type: a length, for texts and blobs.
    let number = match head {
        1 => u64::from(first % 32),
        _ => value.get(1..head)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)),
    };
    match first / 32 {
        2 | 3 => head.checked_add(usize::try_from(number).ok()?),
        // A tag is on a text that is not UTF-8, and its bytes follow.
        6 => head.checked_add(length(value.get(head..)?)?),
        _ => Some(head),
    }
}

/// FNV-1a in 64 bits: short, and it spreads short inputs well.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
