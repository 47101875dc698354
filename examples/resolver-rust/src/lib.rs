//! `furthest-status`: of two changes of a row, the one whose status is further along stands.
//!
//! One node ships an order while another, which can't see it, notes that it was paid. Whichever reaches the log last:
//! the order is shipped. With equal statuses, the later in the log stands.
//!
//! The host asks this component on every node and must hear the same everywhere. So an answer may depend on the clash
//! and the settings, and on nothing else; a clock or a random number would be the same on all nodes anyway.

mod bindings {
    // What the host and this component say to each other is described in `wit/`; this makes Rust of it.
    wit_bindgen::generate!({ path: "wit", world: "resolver" });
    use super::Plugin;
    export!(Plugin);
}

use std::cell::RefCell;

use bindings::antiphon::plugin::types::{Row, Settings, Table, Value};
use bindings::exports::antiphon::plugin::conflict::{self, Cause, Clash, Needs, Verdict};
use bindings::exports::antiphon::plugin::metadata::{self, Info};

struct Plugin;

impl metadata::Guest for Plugin {
    fn describe() -> Info {
        Info {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            description: env!("CARGO_PKG_DESCRIPTION").into(),
            settings_schema: r#"{
  "type": "object",
  "properties": {
    "column": { "type": "string", "default": "status", "description": "the column that holds the status" },
    "order": { "type": "string", "default": "new, paid, shipped, cancelled", "description": "from first to last" }
  },
  "additionalProperties": false
}"#
            .into(),
            laws: 1,
        }
    }
}

/// What `configure` found out, for `resolve`.
struct Policy {
    /// Statuses, from first to last.
    order: Vec<String>,
    /// Each table's number, and where its status is.
    columns: Vec<(u32, Option<usize>)>,
}

thread_local! {
    static POLICY: RefCell<Option<Policy>> = const { RefCell::new(None) };
}

impl conflict::Guest for Plugin {
    /// Called before the first clash, and again when the schema changes.
    fn configure(settings: Settings, _nodes: Vec<String>, tables: Vec<Table>) -> Result<Needs, String> {
        let (mut column, mut order) = ("status".to_owned(), "new, paid, shipped, cancelled".to_owned());
        for (name, value) in settings {
            match name.as_str() {
                "column" => column = value,
                "order" => order = value,
                // The user reads this, and the host does not start.
                _ => return Err(format!("there is no setting `{name}`; there are `column` and `order`")),
            }
        }
        let place = |table: &Table| table.columns.iter().position(|known| known.name == column);
        POLICY.set(Some(Policy {
            order: order.split(',').map(|status| status.trim().to_owned()).collect(),
            columns: tables.iter().map(|table| (table.id, place(table))).collect(),
        }));
        // The row that stands is wanted. Who wrote it (`STAMPS`) and what both began with (`BASE`) are not.
        Ok(Needs::CURRENT)
    }

    /// One verdict a clash. An error stops the shard on every node, so there is none for a strange row.
    fn resolve(batch: Vec<Clash>) -> Result<Vec<Verdict>, String> {
        POLICY.with_borrow(|policy| {
            let policy = policy.as_ref().ok_or("it was not configured")?;
            Ok(batch.iter().map(|clash| policy.decide(clash)).collect())
        })
    }
}

impl Policy {
    fn decide(&self, clash: &Clash) -> Verdict {
        // Two rows with different keys and one UNIQUE value: their statuses have nothing to do with each other.
        if clash.cause == Cause::UniqueIndex {
            return Verdict::Take;
        }
        // A row that is gone has no status; whoever deleted it, or wrote it after that, is later in the log.
        let (Some(current), Some(incoming)) = (&clash.current.row, &clash.incoming.row) else { return Verdict::Take };
        if self.rank(clash.table, current) > self.rank(clash.table, incoming) { Verdict::Keep } else { Verdict::Take }
    }

    /// How far along a row is: 1 for the first status, 0 for what is none.
    fn rank(&self, table: u32, row: &Row) -> usize {
        let column = self.columns.iter().find(|(id, _)| *id == table).and_then(|(_, column)| *column);
        match column.and_then(|column| row.get(column)) {
            Some(Value::Text(status)) => {
                self.order.iter().position(|known| known == status).map_or(0, |place| place + 1)
            }
            _ => 0,
        }
    }
}
