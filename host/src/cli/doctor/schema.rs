//! Tables and what is declared of them.

use super::super::shown::{self, name};
use super::{Failed, Found, Patient};

/// Columns of the host's own statements a table: SQLite's own limit, which a build may have raised.
const COLUMNS_MAX: usize = 2_000;

/// Tables that can't be replicated at all.
pub(super) fn refused(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    for refused in &patient.refused {
        let (what, remedy) =
            refused.reason.split_once("; ").unwrap_or((&refused.reason, "exclude it with `exclude` under `[capture]`"));
        found.error(Some(&refused.table), what, "none of its rows leaves this file, and none comes in", remedy);
    }
    Ok(())
}

/// SQLite lets NULL into most primary keys, and then there may be many rows of one key.
pub(super) fn null_keys(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    for table in &patient.tables {
        let rows = patient.look.keyless(table)?;
        if rows > 0 {
            let key = table.key_columns().into_iter().filter_map(|at| Some(table.columns.get(at)?.name.as_str()));
            found.error(
                Some(&table.name),
                format!(
                    "{} a NULL in the primary key",
                    if rows == 1 { "1 row has".to_owned() } else { format!("{rows} rows have") }
                ),
                "nothing tells such rows apart: they are not replicated, and a table that has them is not taken up",
                format!(
                    "give each a key, and declare {} NOT NULL; or exclude the table with `exclude` under `[capture]`",
                    key.map(name).collect::<Vec<_>>().join(", ")
                ),
            );
        }
    }
    Ok(())
}

/// Keys that SQLite draws by counting: two nodes draw the same.
pub(super) fn drawn_keys(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    let mut statement = patient
        .look
        .conn()
        .prepare("SELECT sql LIKE '%AUTOINCREMENT%' FROM main.sqlite_schema WHERE type = 'table' AND name = ?1")?;
    for table in patient.tables.iter().filter(|table| table.rowid_key) {
        let counted: bool = statement.query_row([&table.name], |row| row.get(0))?;
        found.warning(
            Some(&table.name),
            format!("its key is {}", if counted { "INTEGER PRIMARY KEY AUTOINCREMENT" } else { "INTEGER PRIMARY KEY" }),
            "two nodes that insert without a key before they have heard of each other draw the same number for two different \
             rows; one of the rows is overruled, and only `antiphon conflicts` still has it",
            "if several nodes insert there, let the application make keys that are different everywhere: a ULID or UUID as \
             TEXT or BLOB PRIMARY KEY. If one node inserts, all is well",
        );
    }
    Ok(())
}

/// Indexes that hold for some rows alone can't be agreed upon through the log.
pub(super) fn partial_uniques(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    for table in &patient.tables {
        for unique in table.uniques.iter().filter(|unique| unique.partial) {
            found.warning(
                Some(&table.name),
                format!("its UNIQUE index `{}` is partial or holds an expression", name(&unique.name)),
                "which of two rows keeps such a value is not decided by the log: a row that comes in against the index stops its \
                 shard until one of the two is changed",
                "make it an index over plain columns and all rows, or let one node alone write these rows",
            );
        }
    }
    Ok(())
}

/// A row's columns are bound one by one.
pub(super) fn columns(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    for table in patient.tables.iter().filter(|table| table.columns.len() > COLUMNS_MAX) {
        found.error(
            Some(&table.name),
            format!("it has {} columns", table.columns.len()),
            "SQLite as it is built here takes 2000, so its rows could not be written on other nodes",
            "split the table, or exclude it with `exclude` under `[capture]`",
        );
    }
    Ok(())
}

/// Where a host has run, all triggers should be in place.
pub(super) fn triggers(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    if !patient.publishes {
        found.note(
            None,
            "`publish` is off",
            "what is written here is not noted and reaches no other node, and the next change of the same row that comes from \
             elsewhere replaces it",
            "nothing, if this node is only to receive; else `publish = true`",
        );
        return Ok(());
    }
    if !patient.is_member() {
        return Ok(());
    }
    for table in patient.look.uncaptured(&patient.tables)? {
        found.error(
            Some(&table),
            "its triggers are missing, or are not those they should be",
            "what is written there now is not noted. A running node puts them back within seconds and sends all rows of the \
             table; what was deleted meanwhile comes to light by a comparison alone",
            format!("stop the node, `antiphon repair {} --table {}`, and run it again", patient.shown, name(&table)),
        );
    }
    Ok(())
}

/// HarmonyLite's own objects: their triggers go on working, and no other program empties their tables.
pub(super) fn leftovers(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    let count: u64 = patient.look.conn().query_row(
        "SELECT count(*) FROM main.sqlite_schema WHERE substr(name, 1, 15) = '__harmonylite__' AND type IN ('table', 'trigger')",
        [],
        |row| row.get::<_, i64>(0).map(i64::cast_unsigned),
    )?;
    if count > 0 {
        found.error(
            None,
            format!("{} of HarmonyLite's left", shown::count(count, "table or trigger is", "tables and triggers are")),
            "its triggers note every change a second time, in tables that are not replicated and that nobody empties",
            "`harmonylite -config FILE -cleanup`, with the file it ran with, while neither it nor Antiphon runs",
        );
    }
    Ok(())
}
