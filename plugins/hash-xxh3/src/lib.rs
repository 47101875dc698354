//! The hasher `xxh3`: the 64-bit XXH3 of a key, or of the columns of it that are to keep rows together.
//!
//! # Laws, version 1
//! 1. The setting `seed` is a whole number from 0 to 2^64 - 1, 0 if it is not given. The setting `columns` names columns,
//!    joined by commas, compared as SQLite compares names of columns. An empty name, a name given twice and any other
//!    setting are refused.
//! 2. A table whose primary key has all the columns named, one at least, is *grouped*. The hash of its key is XXH3 with
//!    `seed` of the canonical bytes of these columns' values, in the order of the setting, nothing between them. So rows
//!    of all grouped tables that are alike in these columns have one hash, and share a shard.
//! 3. The hash of any other key is XXH3 of its canonical bytes, its seed being XXH3 with `seed` of the table's name, with
//!    ASCII letters in lower case. So is that of the empty key, which stands for a whole table, grouped or not.
//!
//! Any change of these answers needs the next version.

mod plan;
mod settings;

mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "hasher" });
    use super::Xxh3;
    export!(Xxh3);
}

use std::cell::RefCell;

use bindings::antiphon::plugin::log::{Level, write};
use bindings::exports::antiphon::plugin::metadata::{self, Info};
use bindings::exports::antiphon::plugin::rowhash::{self, Settings, Table};
use plan::Plan;
use settings::Chosen;

struct Xxh3;

thread_local! {
    static PLANS: RefCell<Vec<Plan>> = const { RefCell::new(Vec::new()) };
}

impl metadata::Guest for Xxh3 {
    fn describe() -> Info {
        Info {
            name: "xxh3".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            description: "XXH3 of the primary key, or of columns of it that keep rows together".into(),
            settings_schema: settings::SCHEMA.into(),
            laws: 1,
        }
    }
}

impl rowhash::Guest for Xxh3 {
    fn configure(settings: Settings, tables: Vec<Table>) -> Result<(), String> {
        let chosen = Chosen::read(&settings)?;
        let plans: Vec<Plan> = tables.iter().map(|table| Plan::new(table, &chosen)).collect();
        // Not refused: a table that has them may come later.
        if !chosen.columns.is_empty() && !plans.is_empty() && !plans.iter().any(Plan::is_grouped) {
            let columns = chosen.columns.join(", ");
            write(Level::Warn, &format!("no table is grouped: none has all of `{columns}` in its primary key"));
        }
        PLANS.set(plans);
        Ok(())
    }

    fn hash(table: u32, keys: Vec<u8>, ends: Vec<u32>) -> Result<Vec<u64>, String> {
        PLANS.with_borrow(|plans| {
            let plan = plans.get(table as usize).ok_or_else(|| format!("there is no table {table}"))?;
            plan.hash_all(&keys, &ends)
        })
    }
}
