//! F17: what another version of the program has left.

use antiphon_harness::{Place, eventually, settled};
use rusqlite::Connection;
use std::path::Path;
use std::process::Command;

use super::place;
use super::snapshots::Says as _;

/// Made with what is said in `tests/earlier/README.md`.
const LEFT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/earlier/left.tar.gz");
const ROWS: &str = include_str!("../earlier/rows.txt");
/// The snapshot that was made before the clashes.
const SNAPSHOT: &str = "01M83WM2DM0Q3GZXKFG4J9TR1Q";
const ALL: &str = "SELECT 't', quote(id), quote(v), quote(extra) FROM t
     UNION ALL SELECT 'item', quote(id), quote(part), CAST(round(v * 7) AS INTEGER) FROM item
     UNION ALL SELECT 'person', quote(id), quote(mail), '' FROM person
     UNION ALL SELECT 'tally', quote(id), quote(n), '' FROM tally ORDER BY 1, 2, 3";

fn rows(database: &Path, sql: &str) -> Vec<String> {
    let conn = Connection::open(database).unwrap();
    let mut statement = conn.prepare(sql).unwrap();
    let width = statement.column_count();
    let text = |row: &rusqlite::Row<'_>, column| match row.get_unwrap::<_, rusqlite::types::Value>(column) {
        rusqlite::types::Value::Text(text) => text,
        rusqlite::types::Value::Integer(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let line = |row: &rusqlite::Row<'_>| Ok((0..width).map(|at| text(row, at)).collect::<Vec<_>>().join("|"));
    statement.query_map([], line).unwrap().map(Result::unwrap).collect()
}

fn unpacked() -> Place {
    let place = place();
    let done = Command::new("tar").args(["-xzf", LEFT, "-C"]).arg(place.path("")).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    place
}

/// A file and a log of an earlier version: a node goes on with them, another reads all of the log, and both write.
#[test]
fn f17_a_file_and_a_log_of_an_earlier_version_are_gone_on_with() {
    let place = unpacked();
    let expected: Vec<&str> = ROWS.lines().collect();
    let run = |name: &str| ["run", "--config", name].map(str::to_owned);
    let mut a = place.bare("a").arguments(run("a.toml"));
    assert_eq!(rows(&a.database, ALL), expected);
    a.start();
    assert_eq!(rows(&a.database, ALL), expected, "a start changes no row");

    // One that has nothing reads the log from its beginning, or from a snapshot.
    let settings = std::fs::read_to_string(place.path("a.toml")).unwrap();
    place.file("c.toml", &settings.replace("a.db", "c.db"));
    let schema: Vec<String> = a
        .rows("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name IN ('t', 'item', 'person', 'tally')")
        .into_iter()
        .map(|sql| sql + ";")
        .collect();
    let mut c = place.site("c", &schema.concat()).arguments(run("c.toml"));
    c.start();
    eventually("all of it is there", || rows(&c.database, ALL) == expected);

    // Both write on, and one counter adds up what each has added.
    a.sql("INSERT INTO t VALUES (1000, 'of a', NULL); UPDATE tally SET n = n + 1 WHERE id = 1; DELETE FROM person WHERE id = 2");
    c.sql("INSERT INTO t VALUES (2000, 'of c', NULL); UPDATE tally SET n = n + 10 WHERE id = 1; DELETE FROM t WHERE id = 5");
    settled(&[&a, &c]);
    eventually("both have counted", || c.one("SELECT n FROM tally WHERE id = 1") == "27");
    settled(&[&a, &c]);
    assert_eq!(c.one("SELECT count(*) FROM t WHERE id IN (5, 1000, 2000)"), "2");
    assert_eq!(a.one("SELECT count(*) FROM person"), "2");
    place.run(["snapshot", "create", "--config", "a.toml"]).says(0, &[]);
}

/// Snapshots and the archive of an earlier version: they are found whole, and points between them come back.
#[test]
fn f17_snapshots_of_an_earlier_version_come_back() {
    let place = unpacked();
    let snapshot = |arguments: &[&str]| place.run([&["snapshot"], arguments, &["--config", "a.toml"]].concat());
    snapshot(&["verify", "--all", "--level", "restore"]).says(0, &[SNAPSHOT]);
    snapshot(&["restore", SNAPSHOT, "--output", "then.db"]).says(0, &[]);
    let then = place.path("then.db");
    assert_eq!(rows(&then, "SELECT n FROM tally ORDER BY id"), ["16", "26"]);
    assert_eq!(rows(&then, "SELECT mail FROM person WHERE id = 3"), ["linus@example.org"]);
    // What was archived after it leads on, past the clashes to the end.
    snapshot(&["restore", "--to-time", "2026-11-24T00:00:00Z", "--output", "last.db"]).says(0, &["4 segments"]);
    assert_eq!(rows(&place.path("last.db"), ALL), ROWS.lines().collect::<Vec<_>>());
}
