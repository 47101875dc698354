//! The resolver `last-write-wins`: what comes later in the log wins.
//!
//! The log gives every node the same order, so whoever is asked knows the later change already: the incoming one.

mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "resolver" });
    use super::LastWriteWins;
    export!(LastWriteWins);
}

use bindings::exports::antiphon::plugin::conflict::{self, Clash, Needs, Settings, Table, Verdict};
use bindings::exports::antiphon::plugin::metadata::{self, Info};

struct LastWriteWins;

impl metadata::Guest for LastWriteWins {
    fn describe() -> Info {
        Info {
            name: "last-write-wins".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            description: "the change that comes later in the log wins".into(),
            settings_schema: String::new(),
            laws: 1,
        }
    }
}

impl conflict::Guest for LastWriteWins {
    fn configure(settings: Settings, _nodes: Vec<String>, _tables: Vec<Table>) -> Result<Needs, String> {
        match settings.first() {
            Some((name, _)) => Err(format!("there is no setting `{name}`: last-write-wins has none")),
            None => Ok(Needs::empty()),
        }
    }

    fn resolve(batch: Vec<Clash>) -> Result<Vec<Verdict>, String> {
        Ok(batch.iter().map(|_| Verdict::Take).collect())
    }
}
