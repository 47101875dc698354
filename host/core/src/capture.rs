//! Turns a table's schema into the SQL that records which of its rows changed.
//!
//! Only text is made here; the host runs it. Triggers note keys, never whole rows: the row is read when the
//! changes are sealed, so a later trigger of the application's can't leave a stale image behind, and a
//! trigger names no column that the application might want to drop. They use nothing but plain INSERTs in
//! the syntax of old SQLites, with no conflict clause (the application's own would override it and could
//! make its write fail), and no function, so that they run under `trusted_schema = OFF`.

use crate::schema::{Table, quote};

/// What every object of ours in the application's file begins with.
pub const PREFIX: &str = "__antiphon__";

/// What a mark in a change log says of its key.
pub mod op {
    /// The row was inserted.
    pub const INSERT: i64 = 1;
    /// The row was updated, or had this key before an update moved it.
    pub const UPDATE: i64 = 2;
    /// The row was deleted.
    pub const DELETE: i64 = 3;
    /// REPLACE may have removed the row without firing a DELETE trigger: published only if it is gone.
    pub const MAYBE_GONE: i64 = 4;
}

/// The name of a table's change log.
#[must_use]
pub fn change_log(table: &str) -> String {
    format!("{PREFIX}{table}_change_log")
}

/// The name of one of a table's triggers.
#[must_use]
pub fn trigger(table: &str, event: &str) -> String {
    format!("{PREFIX}{table}_{event}")
}

/// Every trigger a table may have, by the end of its name.
pub const EVENTS: [&str; 6] = ["on_insert", "on_update", "on_move", "on_delete", "before_insert", "before_update"];

/// The name a key column has in the change log.
fn logged(column: &str) -> String {
    quote(&format!("val_{column}"))
}

/// Names of a change log's columns, in their order.
#[must_use]
pub fn change_log_columns(table: &Table) -> Vec<String> {
    let key = table.key_columns().into_iter().filter_map(|position| table.columns.get(position));
    let key = key.map(|column| format!("val_{}", column.name));
    ["id", "op"].into_iter().map(str::to_owned).chain(key).collect()
}

/// The statement that creates a table's change log: append-only, no index, columns without affinity.
#[must_use]
pub fn create_change_log(table: &Table) -> String {
    let columns = joined(table, logged);
    format!(
        "CREATE TABLE IF NOT EXISTS main.{} (id INTEGER PRIMARY KEY, op, {columns})",
        quote(&change_log(&table.name))
    )
}

/// The statements that create a table's triggers.
#[must_use]
pub fn create_triggers(table: &Table) -> Vec<String> {
    let on = quote(&table.name);
    let create = |event: &str, when: &str, body: &str| {
        format!("CREATE TRIGGER main.{} {when} BEGIN {body}; END", quote(&trigger(&table.name, event)))
    };
    let note = |op: i64, row: &str| {
        let into = joined(table, logged);
        let values = joined(table, |column| format!("{row}.{}", quote(column)));
        format!("INSERT INTO {} (op, {into}) VALUES ({op}, {values})", quote(&change_log(&table.name)))
    };
    let moved = table
        .key_columns()
        .into_iter()
        .filter_map(|position| table.columns.get(position))
        .map(|column| format!("OLD.{0} IS NOT NEW.{0}{1}", quote(&column.name), table.collate(column)))
        .collect::<Vec<_>>()
        .join(" OR ");
    let mut triggers = vec![
        create("on_insert", &format!("AFTER INSERT ON {on} FOR EACH ROW"), &note(op::INSERT, "NEW")),
        create("on_update", &format!("AFTER UPDATE ON {on} FOR EACH ROW"), &note(op::UPDATE, "NEW")),
        create("on_move", &format!("AFTER UPDATE ON {on} FOR EACH ROW WHEN {moved}"), &note(op::UPDATE, "OLD")),
        create("on_delete", &format!("AFTER DELETE ON {on} FOR EACH ROW"), &note(op::DELETE, "OLD")),
    ];
    for (event, when, moved) in [
        ("before_insert", format!("BEFORE INSERT ON {on} FOR EACH ROW"), None),
        ("before_update", format!("BEFORE UPDATE ON {on} FOR EACH ROW"), Some("OLD")),
    ] {
        let body: Vec<String> = colliding(table).into_iter().chain(same_rowid(table, moved)).collect();
        if !body.is_empty() {
            triggers.push(create(event, &when, &body.join("; ")));
        }
    }
    triggers
}

/// Notes the row that has the new row's rowid, where that is not the key: REPLACE removes it as well. In an update,
/// only if the rowid changes.
///
/// Before an insert that leaves the rowid to SQLite it reads as -1. A row that has this very rowid is noted then, and
/// dropped at the seal, for it is still there.
fn same_rowid(table: &Table, moved: Option<&str>) -> Option<String> {
    let rowid = quote(table.rowid.as_deref().filter(|_| !table.rowid_key && !table.without_rowid)?);
    let moved = moved.map_or_else(String::new, |old| format!(" AND NEW.{rowid} <> {old}.{rowid}"));
    Some(may_be_gone(table, &format!("{rowid} = NEW.{rowid}{moved}")))
}

/// Notes the rows that a condition holds for.
///
/// The table has an alias there: one called `new` would otherwise be taken for the new row.
fn may_be_gone(table: &Table, condition: &str) -> String {
    format!(
        "INSERT INTO {} (op, {}) SELECT {}, {} FROM {} AS {} WHERE {condition}",
        quote(&change_log(&table.name)),
        joined(table, logged),
        op::MAYBE_GONE,
        joined(table, quote),
        quote(&table.name),
        quote(&format!("{PREFIX}held")),
    )
}

/// One statement for each UNIQUE index: notes the rows that hold the new row's value.
fn colliding(table: &Table) -> Vec<String> {
    let statement = |unique: &crate::schema::Unique| {
        let mut terms = Vec::new();
        for (position, collation) in &unique.columns {
            let column = quote(&table.columns.get(*position)?.name);
            terms.push(format!("{column} = NEW.{column} COLLATE {}", quote(collation)));
        }
        (!terms.is_empty()).then(|| may_be_gone(table, &terms.join(" AND ")))
    };
    table.uniques.iter().filter_map(statement).collect()
}

fn joined(table: &Table, item: impl Fn(&str) -> String) -> String {
    table
        .key_columns()
        .into_iter()
        .filter_map(|position| table.columns.get(position))
        .map(|column| item(&column.name))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Marks rows that are there already, as if they had been inserted now: from the key after `?1…` on, `limit` of them.
#[must_use]
pub fn mark_existing(table: &Table, from_start: bool) -> String {
    let into = joined(table, logged);
    let keys = joined(table, quote);
    let width = table.key_columns().len();
    let after = (1..=width).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
    let order = table
        .key_columns()
        .into_iter()
        .filter_map(|position| table.columns.get(position))
        .map(|column| format!("{}{}", quote(&column.name), table.collate(column)))
        .collect::<Vec<_>>()
        .join(", ");
    let filter = if from_start { String::new() } else { format!("WHERE ({order}) > ({after}) ") };
    format!(
        "INSERT INTO main.{} (op, {into}) SELECT {}, {keys} FROM main.{} {filter}ORDER BY {order} LIMIT ?{}",
        quote(&change_log(&table.name)),
        op::INSERT,
        quote(&table.name),
        width + 1,
    )
}

/// Reads marks from the oldest on, each with its key and the row as it stands now: `id, op, key…, columns…`.
#[must_use]
pub fn read_marks(table: &Table) -> String {
    let keys = joined(table, |column| format!("l.{}", logged(column)));
    let columns =
        table.columns.iter().map(|column| format!("t.{}", quote(&column.name))).collect::<Vec<_>>().join(", ");
    let on = table
        .key_columns()
        .into_iter()
        .filter_map(|position| table.columns.get(position))
        .map(|column| format!("t.{} = l.{}{}", quote(&column.name), logged(&column.name), table.collate(column)))
        .collect::<Vec<_>>()
        .join(" AND ");
    format!(
        "SELECT l.id, l.op, {keys}, {columns} FROM main.{} l LEFT JOIN main.{} t ON {on} ORDER BY l.id",
        quote(&change_log(&table.name)),
        quote(&table.name),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Column, Unique};

    fn table() -> Table {
        let column = |name: &str, pk_position| Column {
            name: name.into(),
            pk_position,
            collation: "BINARY".into(),
            ..Column::default()
        };
        Table {
            name: "a\"b".into(),
            columns: vec![column("select", 1), column("été", 0)],
            uniques: vec![Unique { name: "u".into(), columns: vec![(1, "NOCASE".into())], partial: false }],
            ..Table::default()
        }
    }

    #[test]
    fn names_are_quoted_everywhere() {
        assert_eq!(
            create_change_log(&table()),
            r#"CREATE TABLE IF NOT EXISTS main."__antiphon__a""b_change_log" (id INTEGER PRIMARY KEY, op, "val_select")"#
        );
        let triggers = create_triggers(&table());
        assert_eq!(triggers.len(), 6);
        assert_eq!(
            triggers[0],
            r#"CREATE TRIGGER main."__antiphon__a""b_on_insert" AFTER INSERT ON "a""b" FOR EACH ROW BEGIN INSERT INTO "__antiphon__a""b_change_log" (op, "val_select") VALUES (1, NEW."select"); END"#
        );
        assert!(
            triggers[2].contains(r#"WHEN OLD."select" IS NOT NEW."select" COLLATE "BINARY" BEGIN"#),
            "{}",
            triggers[2]
        );
        assert!(triggers[4].contains(r#"WHERE "été" = NEW."été" COLLATE "NOCASE""#), "{}", triggers[4]);
    }

    #[test]
    fn a_rowid_is_looked_up_only_where_it_is_not_the_key() {
        let with = |rowid_key, without_rowid| {
            let table = Table { rowid: Some("oid".into()), rowid_key, without_rowid, uniques: Vec::new(), ..table() };
            create_triggers(&table)
        };
        let [.., insert, update] = with(false, false).try_into().unwrap_or_else(|_| [const { String::new() }; 6]);
        assert!(insert.ends_with(r#" WHERE "oid" = NEW."oid"; END"#), "{insert}");
        assert!(update.ends_with(r#" WHERE "oid" = NEW."oid" AND NEW."oid" <> OLD."oid"; END"#), "{update}");
        assert_eq!(with(true, false).len(), 4);
        assert_eq!(with(false, true).len(), 4);
    }

    #[test]
    fn no_trigger_has_a_conflict_clause_or_calls_a_function() {
        for sql in create_triggers(&table()) {
            assert!(!sql.contains(" OR IGNORE") && !sql.contains(" OR REPLACE"), "{sql}");
            assert!(!sql.contains("pragma_"), "{sql}");
        }
    }
}
