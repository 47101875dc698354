//! A database as HarmonyLite leaves it: its tables and triggers by their layout, and what it does to them.

use rusqlite::Connection;

/// Puts into a database what HarmonyLite puts there when it starts: for these tables, which must exist.
pub fn install(conn: &Connection, tables: &[&str]) {
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS __harmonylite___change_log_global
            (id INTEGER PRIMARY KEY AUTOINCREMENT, change_table_id INTEGER, table_name TEXT);
         CREATE TABLE IF NOT EXISTS __harmonylite__schema_version (id INTEGER PRIMARY KEY CHECK (id = 1),
            schema_hash TEXT NOT NULL, updated_at INTEGER NOT NULL, harmonylite_version TEXT);
         INSERT OR REPLACE INTO __harmonylite__schema_version VALUES (1, 'ab12', 1767225600, 'dev');",
    )
    .unwrap();
    for table in tables {
        let columns = columns(conn, table);
        let log = format!("__harmonylite__{table}_change_log");
        let declared: String = columns.iter().map(|(name, kind)| format!("val_{name} {kind}, ")).collect();
        conn.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS {log}
                (id INTEGER PRIMARY KEY AUTOINCREMENT, {declared}type TEXT, created_at INTEGER, state INTEGER);
             CREATE INDEX IF NOT EXISTS {log}_state_index ON {log} (state);"
        ))
        .unwrap();
        let into: String = columns.iter().map(|(name, _)| format!("val_{name}, ")).collect();
        for (event, row) in [("insert", "NEW"), ("update", "NEW"), ("delete", "OLD")] {
            let values: String = columns.iter().map(|(name, _)| format!("{row}.{name}, ")).collect();
            conn.execute_batch(&format!(
                "DROP TRIGGER IF EXISTS {log}_on_{event};
                 CREATE TRIGGER {log}_on_{event} AFTER {event} ON {table} FOR EACH ROW
                 WHEN (SELECT count(*) FROM pragma_function_list WHERE name = 'harmonylite_version') < 1
                 BEGIN
                    INSERT INTO {log} ({into}type, created_at, state)
                        VALUES ({values}'{event}', CAST((julianday('now') - 2440587.5) * 86400000 AS INT), 0);
                    INSERT INTO __harmonylite___change_log_global (change_table_id, table_name)
                        VALUES (last_insert_rowid(), '{table}');
                 END"
            ))
            .unwrap();
        }
    }
}

/// Its publisher has sent all that waited.
pub fn sent(conn: &Connection, tables: &[&str]) {
    for table in tables {
        conn.execute_batch(&format!("UPDATE __harmonylite__{table}_change_log SET state = 1")).unwrap();
    }
    conn.execute_batch("DELETE FROM __harmonylite___change_log_global").unwrap();
}

/// Names and types of a table's columns; one without a key has its rowid besides.
fn columns(conn: &Connection, table: &str) -> Vec<(String, String)> {
    let mut statement = conn.prepare("SELECT name, type, pk FROM pragma_table_info(?1)").unwrap();
    let found = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, bool>(2)?))).unwrap();
    let found: Vec<(String, String, bool)> = found.map(Result::unwrap).collect();
    let keyed = found.iter().any(|(.., key)| *key);
    let mut columns: Vec<_> = found.into_iter().map(|(name, kind, _)| (name, kind)).collect();
    if !keyed {
        columns.push(("rowid".to_owned(), "INT".to_owned()));
    }
    columns
}
