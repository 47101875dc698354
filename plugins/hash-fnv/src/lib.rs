//! The hasher `fnv`: 64-bit FNV-1 over a key as HarmonyLite writes it, so that rows keep their shards.
//!
//! Hashed are `9f`, the table's name, for each key column in order of their names `82 <name> <value>`, and `ff`.
//! Everything before the first value is the same for all keys of a table and is hashed once, in `configure`.

mod plan;
mod time;

mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "hasher" });
    use super::Fnv;
    export!(Fnv);
}

use std::cell::RefCell;

use bindings::exports::antiphon::plugin::metadata::{self, Info};
use bindings::exports::antiphon::plugin::rowhash::{self, Settings, Table};
use plan::Plan;

struct Fnv;

thread_local! {
    static PLANS: RefCell<Vec<Plan>> = const { RefCell::new(Vec::new()) };
}

impl metadata::Guest for Fnv {
    fn describe() -> Info {
        Info {
            name: "fnv".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            description: "FNV-1 of the primary key, byte for byte as HarmonyLite hashes it".into(),
            settings_schema: String::new(),
            laws: 1,
        }
    }
}

impl rowhash::Guest for Fnv {
    fn configure(settings: Settings, tables: Vec<Table>) -> Result<(), String> {
        if let Some((name, _)) = settings.first() {
            return Err(format!("there is no setting `{name}`: fnv has none"));
        }
        PLANS.set(tables.iter().map(Plan::new).collect());
        Ok(())
    }

    fn hash(table: u32, keys: Vec<u8>, ends: Vec<u32>) -> Result<Vec<u64>, String> {
        PLANS.with_borrow(|plans| {
            let plan = plans.get(table as usize).ok_or_else(|| format!("there is no table {table}"))?;
            let mut hashes = Vec::with_capacity(ends.len());
            let mut start = 0;
            for end in ends {
                let end = end as usize;
                let hash = keys.get(start..end).and_then(|key| plan.hash(key));
                hashes.push(hash.ok_or_else(|| plan.malformed(hashes.len()))?);
                start = end;
            }
            Ok(hashes)
        })
    }
}
