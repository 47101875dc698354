//! The resolver `counter`: in the columns it is told, what each node added is added up. The others are merged.
//!
//! # Laws, version 1
//! 1. The setting `columns` names columns, joined by commas, compared as SQLite compares names of columns. In every
//!    table that has one outside its primary key, that column is a counter. A name for which there is no such table is
//!    refused, unless there is no table at all; so are an empty name and any other setting.
//! 2. Rows that are gone, rows without a base, clashes over a UNIQUE index, and columns that are no counters are
//!    treated as by `column-merge`, version 1. A counter of a base that isn't there is NULL.
//! 3. The value of a counter, from base, current and incoming value:
//!    1. If all three are NULL: NULL.
//!    2. Else, if each is an integer or NULL: current + incoming - base, NULL being 0. Where that passes the ends of
//!       64 bits it goes on at the other end, as in two's complement. So the sum stays an integer, is the same in
//!       whatever order the changes come, and is exact again once it is back within 64 bits.
//!    3. Else, if each is an integer, a real or NULL: the incoming value if the current one is the base's, the current
//!       one if the incoming one is the base's, and else current + (incoming - base) in reals, NULL being 0. That sum
//!       is rounded, and as SQLite stores it: 0.0 for -0.0, and in a column of affinity INTEGER or NUMERIC an integer
//!       if it is one, strictly between the smallest and the largest of 64 bits.
//!    4. Else, or if that sum is not a number: as if it were no counter.
//!
//! Any change of these answers needs the next version.

mod sum;

use std::collections::BTreeMap;

use resolver::{Clash, Info, Needs, Policy, Settings, Table, Verdict, chosen, merge, names};
use sum::{Affinity, sum};

resolver::component!(Counter);

const NAME: &str = "counter";

/// The counters of each table by its number: one place for each column.
struct Counter {
    counters: BTreeMap<u32, Vec<Option<Affinity>>>,
}

impl Policy for Counter {
    fn describe() -> Info {
        Info {
            name: NAME.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            description: "what nodes add to the named columns is added up; the other columns are merged".into(),
            settings_schema: r#"{
  "type": "object",
  "properties": {
    "columns": { "type": "string", "description": "names of columns joined by commas" }
  },
  "required": ["columns"],
  "additionalProperties": false
}"#
            .into(),
            laws: 1,
        }
    }

    fn needs() -> Needs {
        Needs::BASE | Needs::CURRENT
    }

    fn configure(settings: &Settings, _: &[String], tables: &[Table]) -> Result<Self, String> {
        let names = names(NAME, "columns", settings)?;
        for name in &names {
            check(name, tables)?;
        }
        let counters = |table: &Table| {
            let named = |column: &str| names.iter().any(|name| name.eq_ignore_ascii_case(column));
            let counter = |column: &resolver::Column| {
                (column.pk_position == 0 && named(&column.name)).then(|| Affinity::of(&column.decl_type, table.strict))
            };
            table.columns.iter().map(counter).collect()
        };
        Ok(Self { counters: tables.iter().map(|table| (table.id, counters(table))).collect() })
    }

    fn decide(&self, clash: Clash) -> Result<Verdict, String> {
        let table = clash.table;
        let counters = self.counters.get(&table).ok_or_else(|| format!("there is no table {table}"))?;
        merge(clash, |position, base, current, incoming| {
            let counter = counters.get(position).copied().flatten();
            counter
                .and_then(|affinity| sum(affinity, base, &current, &incoming))
                .unwrap_or_else(|| chosen(base, current, incoming))
        })
    }
}

/// Refuses a name that no table has outside its key.
fn check(name: &str, tables: &[Table]) -> Result<(), String> {
    // Tables named in the refusal.
    const SHOWN: usize = 5;
    let mut in_key = None;
    for table in tables {
        match table.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name)) {
            Some(column) if column.pk_position == 0 => return Ok(()),
            Some(_) => in_key = Some(&table.name),
            None => {}
        }
    }
    if let Some(table) = in_key {
        return Err(format!(
            "the setting `columns` names `{name}`, which is part of the primary key of table `{table}`"
        ));
    }
    let shown: Vec<String> = tables.iter().take(SHOWN).map(|table| format!("`{}`", table.name)).collect();
    let more = match tables.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match shown.as_slice() {
        [] => Ok(()),
        [table] => Err(format!("the setting `columns` names `{name}`, and table {table} has no such column")),
        tables => {
            let tables = tables.join(", ");
            Err(format!("the setting `columns` names `{name}`, and no table has such a column, not {tables}{more}"))
        }
    }
}
