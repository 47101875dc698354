//! Turns a table's schema into the SQL that records which of its rows changed.
//!
//! Only text is made here; the host runs it. Triggers note keys, never whole rows: the row is read when the
//! changes are sealed, so a later trigger of the application's can't leave a stale image behind, and a
//! trigger names no column that the application might want to drop. They use nothing but plain INSERTs in
//! the syntax of old SQLites, with no conflict clause (the application's own would override it and could
//! make its write fail), and no function, so that they run under `trusted_schema = OFF`. For tables whose policy asks
//! for it they note every column as it was, and the time by `julianday`, which such a schema may call.

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
pub const EVENTS: [&str; 8] = [
    "on_insert",
    "on_update",
    "on_move",
    "on_delete",
    "before_insert",
    "before_update",
    "before_move",
    "before_delete",
];

/// The triggers by which a table takes nothing more from the application, by the ends of their names.
pub const REFUSALS: [&str; 3] = ["when_full_insert", "when_full_update", "when_full_delete"];

/// The time of a change in Unix milliseconds, in the words of old SQLites.
const NOW: &str = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)";

/// The name a key column has in the change log.
fn logged(column: &str) -> String {
    quote(&format!("val_{column}"))
}

/// The name a column has in the change log as it was before.
fn logged_before(column: &str) -> String {
    quote(&format!("old_{column}"))
}

/// Names of a change log's columns, in their order: `id, op, val_…`, and `created_at, old_…` where the policy asks.
#[must_use]
pub fn change_log_columns(table: &Table) -> Vec<String> {
    let key = table.key_columns().into_iter().filter_map(|position| table.columns.get(position));
    let key = key.map(|column| format!("val_{}", column.name));
    let before = table.columns.iter().map(|column| format!("old_{}", column.name));
    let before = std::iter::once("created_at".to_owned()).chain(before).filter(|_| table.resolved);
    ["id", "op"].into_iter().map(str::to_owned).chain(key).chain(before).collect()
}

/// The statement that creates a table's change log: append-only, no index, columns without affinity.
#[must_use]
pub fn create_change_log(table: &Table) -> String {
    let columns = change_log_columns(table).iter().skip(2).map(|name| quote(name)).collect::<Vec<_>>().join(", ");
    format!(
        "CREATE TABLE IF NOT EXISTS main.{} (id INTEGER PRIMARY KEY, op, {columns})",
        quote(&change_log(&table.name))
    )
}

/// Columns of a change log that every mark fills, and those that a mark with the row as it was fills besides.
struct Into {
    key: String,
    row: String,
}

impl Into {
    fn of(table: &Table) -> Self {
        let key = joined(table, logged) + if table.resolved { ", created_at" } else { "" };
        let mut row = key.clone();
        for column in table.columns.iter().filter(|_| table.resolved) {
            row = row + ", " + &logged_before(&column.name);
        }
        Self { key, row }
    }
}

/// The values for [`Into::key`], out of `row`.
fn key_values(table: &Table, row: &str) -> String {
    joined(table, |column| format!("{row}.{}", quote(column)))
        + &if table.resolved { format!(", {NOW}") } else { String::new() }
}

/// The values for [`Into::row`], out of `row`.
fn row_values(table: &Table, row: &str) -> String {
    let mut values = key_values(table, row);
    for column in table.columns.iter().filter(|_| table.resolved) {
        values = values + &format!(", {row}.{}", quote(&column.name));
    }
    values
}

/// The statements that create a table's triggers.
///
/// Where the policy asks for the row as it was, BEFORE triggers note it: an application's trigger may change the row
/// again before the AFTER triggers run. Such a mark says *may be gone*, for the statement can still leave the row alone.
#[must_use]
pub fn create_triggers(table: &Table) -> Vec<String> {
    let on = quote(&table.name);
    let create = |event: &str, when: &str, body: &str| {
        format!("CREATE TRIGGER main.{} {when} BEGIN {body}; END", quote(&trigger(&table.name, event)))
    };
    let log = quote(&change_log(&table.name));
    let into = Into::of(table);
    let note =
        |op: i64, row: &str| format!("INSERT INTO {log} (op, {}) VALUES ({op}, {})", into.key, key_values(table, row));
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
    let (mut inserting, mut updating) = (colliding(table), colliding(table));
    if table.resolved {
        let as_it_was =
            format!("INSERT INTO {log} (op, {}) VALUES ({}, {})", into.row, op::MAYBE_GONE, row_values(table, "OLD"));
        let same_key =
            holding(table, &table.key_columns().into_iter().map(|at| key_term(table, at)).collect::<Vec<_>>());
        inserting.insert(0, same_key.clone());
        updating.insert(0, as_it_was.clone());
        triggers.push(create("before_move", &format!("BEFORE UPDATE ON {on} FOR EACH ROW WHEN {moved}"), &same_key));
        triggers.push(create("before_delete", &format!("BEFORE DELETE ON {on} FOR EACH ROW"), &as_it_was));
    }
    inserting.extend(same_rowid(table, None));
    updating.extend(same_rowid(table, Some("OLD")));
    if !inserting.is_empty() {
        triggers.push(create("before_insert", &format!("BEFORE INSERT ON {on} FOR EACH ROW"), &inserting.join("; ")));
        triggers.push(create("before_update", &format!("BEFORE UPDATE ON {on} FOR EACH ROW"), &updating.join("; ")));
    }
    triggers
}

/// The statements that have a table refuse what the application writes, in words.
///
/// Neither `OR IGNORE` nor any other clause of the application's overrides what a trigger raises.
#[must_use]
pub fn create_refusals(table: &Table) -> Vec<String> {
    let on = quote(&table.name);
    let create = |name: &str| {
        let event = name.rsplit('_').next().unwrap_or(name).to_ascii_uppercase();
        format!(
            "CREATE TRIGGER main.{} BEFORE {event} ON {on} FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'Antiphon takes no more \
             changes: those that wait for the log have reached `outbox_bytes_max`'); END",
            quote(&trigger(&table.name, name))
        )
    };
    REFUSALS.iter().map(|name| create(name)).collect()
}

/// Notes the row that has the new row's rowid, where that is not the key: REPLACE removes it as well. In an update,
/// only if the rowid changes.
///
/// Before an insert that leaves the rowid to SQLite it reads as -1. A row that has this very rowid is noted then, and
/// dropped at the seal, for it is still there.
fn same_rowid(table: &Table, moved: Option<&str>) -> Option<String> {
    let rowid = quote(table.rowid.as_deref().filter(|_| !table.rowid_key && !table.without_rowid)?);
    let moved = moved.map_or_else(String::new, |old| format!(" AND NEW.{rowid} <> {old}.{rowid}"));
    Some(holding(table, &[format!("{rowid} = NEW.{rowid}{moved}")]))
}

/// That a row has the new row's value in this column of the key.
fn key_term(table: &Table, position: usize) -> String {
    table.columns.get(position).map_or_else(String::new, |column| {
        let name = quote(&column.name);
        format!("{name} = NEW.{name}{}", table.collate(column))
    })
}

/// One statement for each UNIQUE index: notes the rows that hold the new row's value.
fn colliding(table: &Table) -> Vec<String> {
    let statement = |unique: &crate::schema::Unique| {
        let mut terms = Vec::new();
        for (position, collation) in &unique.columns {
            let column = quote(&table.columns.get(*position)?.name);
            terms.push(format!("{column} = NEW.{column} COLLATE {}", quote(collation)));
        }
        (!terms.is_empty()).then(|| holding(table, &terms))
    };
    table.uniques.iter().filter_map(statement).collect()
}

/// Notes the rows for which all terms hold, as they are.
///
/// The table has an alias there: one called `new` would otherwise be taken for the new row.
fn holding(table: &Table, terms: &[String]) -> String {
    let held = quote(&format!("{PREFIX}held"));
    format!(
        "INSERT INTO {} (op, {}) SELECT {}, {} FROM {} AS {held} WHERE {}",
        quote(&change_log(&table.name)),
        Into::of(table).row,
        op::MAYBE_GONE,
        row_values(table, &held),
        quote(&table.name),
        terms.join(" AND "),
    )
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

/// Marks rows that are there already, as if they had been inserted now: from the key after `?1…` on, `limit` of them. A
/// row without a whole key is left out: it can't be sent, and none can be looked for after it.
#[must_use]
pub fn mark_existing(table: &Table, from_start: bool) -> String {
    let into = Into::of(table).key;
    let keys = joined(table, quote) + &if table.resolved { format!(", {NOW}") } else { String::new() };
    let width = table.key_columns().len();
    let after = (1..=width).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
    let order = table
        .key_columns()
        .into_iter()
        .filter_map(|position| table.columns.get(position))
        .map(|column| format!("{}{}", quote(&column.name), table.collate(column)))
        .collect::<Vec<_>>()
        .join(", ");
    let columns = table.key_columns().into_iter().filter_map(|position| table.columns.get(position));
    let is_whole =
        columns.map(|column| format!("{} IS NOT NULL", quote(&column.name))).collect::<Vec<_>>().join(" AND ");
    let filter = if from_start { String::new() } else { format!(" AND ({order}) > ({after})") };
    format!(
        "INSERT INTO main.{} (op, {into}) SELECT {}, {keys} FROM main.{} WHERE {is_whole}{filter} ORDER BY {order} LIMIT ?{}",
        quote(&change_log(&table.name)),
        op::INSERT,
        quote(&table.name),
        width + 1,
    )
}

/// Marks one row as changed by us; its key is bound from `?1` on.
#[must_use]
pub fn mark_one(table: &Table) -> String {
    let width = table.key_columns().len();
    let keys = (1..=width).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
    let now = if table.resolved { format!(", {NOW}") } else { String::new() };
    format!(
        "INSERT INTO main.{} (op, {}) VALUES ({}, {keys}{now})",
        quote(&change_log(&table.name)),
        Into::of(table).key,
        op::INSERT
    )
}

/// Marks that one row was as bound: its columns from `?1` on. A mark by [`mark_one`] that follows is made upon it.
#[must_use]
pub fn mark_before(table: &Table) -> String {
    let key =
        table.key_columns().into_iter().map(|position| format!("?{}", position + 1)).collect::<Vec<_>>().join(", ");
    let columns = (1..=table.columns.len()).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
    format!(
        "INSERT INTO main.{} (op, {}) VALUES ({}, {key}, {NOW}, {columns})",
        quote(&change_log(&table.name)),
        Into::of(table).row,
        op::MAYBE_GONE
    )
}

/// Marks, ahead of all other marks, that one row was as bound, its columns from `?1` on. Whatever else is marked of its
/// key is made upon it.
#[must_use]
pub fn mark_first(table: &Table) -> String {
    let key =
        table.key_columns().into_iter().map(|position| format!("?{}", position + 1)).collect::<Vec<_>>().join(", ");
    let columns = (1..=table.columns.len()).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
    let log = quote(&change_log(&table.name));
    format!(
        "INSERT INTO main.{log} (id, op, {}) VALUES ({}, {}, {key}, NULL, {columns})",
        Into::of(table).row,
        ahead(&log),
        op::MAYBE_GONE
    )
}

/// The same of a key that had no row; it is bound from `?1` on.
#[must_use]
pub fn mark_first_none(table: &Table) -> String {
    let keys = (1..=table.key_columns().len()).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
    let log = quote(&change_log(&table.name));
    format!(
        "INSERT INTO main.{log} (id, op, {}) VALUES ({}, {}, {keys}, NULL)",
        Into::of(table).key,
        ahead(&log),
        op::INSERT
    )
}

/// A number below those of all marks.
fn ahead(log: &str) -> String {
    format!("(SELECT min(coalesce(min(id), 1), 1) - 1 FROM main.{log})")
}

/// Most columns that SQLite gives in one result.
const RESULT_COLUMNS_MAX: usize = 2000;

/// Whether marks can be read with their rows at once; else the rows are read one by one.
#[must_use]
pub fn reads_rows(table: &Table) -> bool {
    table.columns.len() + table.key_columns().len() + 3 <= RESULT_COLUMNS_MAX
}

/// Whether the change log can hold what it must of each row.
#[must_use]
pub fn fits(table: &Table) -> bool {
    !table.resolved || reads_rows(table)
}

/// Reads marks from the oldest on, each with its key and the row as it stands now: `id, op, key…, columns…`, and at
/// last when it was made (or NULL). Of a row too wide for that only the first column of the key is read.
#[must_use]
pub fn read_marks(table: &Table) -> String {
    let keys = joined(table, |column| format!("l.{}", logged(column)));
    let first = table.key_columns().first().copied().unwrap_or(0);
    let read = table.columns.iter().enumerate().filter(|(position, _)| reads_rows(table) || *position == first);
    let columns = read.map(|(_, column)| format!("t.{}", quote(&column.name))).collect::<Vec<_>>().join(", ");
    let on = table
        .key_columns()
        .into_iter()
        .filter_map(|position| table.columns.get(position))
        .map(|column| format!("t.{} = l.{}{}", quote(&column.name), logged(&column.name), table.collate(column)))
        .collect::<Vec<_>>()
        .join(" AND ");
    let when = if table.resolved { "l.created_at" } else { "NULL" };
    format!(
        "SELECT l.id, l.op, {keys}, {columns}, {when} FROM main.{} l LEFT JOIN main.{} t ON {on} ORDER BY l.id",
        quote(&change_log(&table.name)),
        quote(&table.name),
    )
}

/// Reads the row as it was from one mark: `?1` is the mark's id.
#[must_use]
pub fn read_before(table: &Table) -> String {
    let columns = table.columns.iter().map(|column| logged_before(&column.name)).collect::<Vec<_>>().join(", ");
    format!("SELECT {columns} FROM main.{} WHERE id = ?1", quote(&change_log(&table.name)))
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
        let with_rowid = with(false, false);
        assert_eq!(with_rowid.len(), 6);
        let (insert, update) = (&with_rowid[4], &with_rowid[5]);
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
