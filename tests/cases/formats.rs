//! Files of every format, rows and tables of every size.

use antiphon::log::Memory;
use antiphon_harness::{Node, Setup, found, pair, pair_with, settle};
use std::sync::Arc;

/// Two members of a new cluster with files on disk, each made with this SQL first.
fn on_disk(first: &str, ddl: &str) -> (tempfile::TempDir, Node, Node) {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup { folder: Some(folder.path().to_owned()), ..Setup::default() };
    let (a, b) = pair_with(&setup, &format!("{first}; {ddl}"));
    (folder, a, b)
}

const TABLES: &str = "CREATE TABLE t (k TEXT PRIMARY KEY, u TEXT COLLATE NOCASE UNIQUE, v);
    CREATE TABLE w (a, b TEXT, v, PRIMARY KEY (b, a)) WITHOUT ROWID";

/// Writes of every kind, the keys and values being text of more than one byte a letter.
fn write_both(a: &mut Node, b: &mut Node) {
    a.sql("INSERT INTO t VALUES ('é', 'Ä1', 'x'), ('日本', 'b', x'00ff'), ('👍', 'c', 1.5); INSERT INTO w VALUES (1, 'ß', 'x'), (2, 'ß', 'y')");
    settle(&mut [a, b]);
    b.sql("INSERT OR REPLACE INTO t VALUES ('neu', 'B', '日本'); UPDATE w SET b = 'ü' WHERE a = 1; DELETE FROM t WHERE k = '👍'");
    a.sql("UPDATE t SET v = 'ö' WHERE k = 'é'; INSERT INTO t VALUES ('z', 'fight', 1)");
    settle(&mut [a, b]);
    b.crash();
    b.sql("UPDATE t SET k = k || '\u{2028}' WHERE u = 'b'");
    settle(&mut [a, b]);
    assert_eq!(a.one("SELECT count(*) FROM t WHERE u = 'b' AND v = '日本'"), "1");
    assert_eq!(a.rows("PRAGMA integrity_check"), ["ok"]);
    assert_eq!(b.rows("PRAGMA integrity_check"), ["ok"]);
}

/// Text in UTF-16, pages of the smallest and the largest size.
#[test]
fn c102_encodings_and_page_sizes() {
    for first in [
        "PRAGMA encoding = 'UTF-16le'",
        "PRAGMA encoding = 'UTF-16be'",
        "PRAGMA page_size = 512",
        "PRAGMA page_size = 65536",
        "PRAGMA auto_vacuum = FULL; PRAGMA encoding = 'UTF-16le'; PRAGMA page_size = 512",
    ] {
        let (_folder, mut a, mut b) = on_disk(&format!("{first}; PRAGMA journal_mode = WAL"), TABLES);
        write_both(&mut a, &mut b);
    }
}

/// One file in UTF-16 beside one in UTF-8: the same rows, byte for byte as each reads them.
#[test]
fn c102_two_encodings_in_one_cluster() {
    let log = Arc::new(Memory::new());
    let mut a = Node::new(&log, Setup::default(), &format!("PRAGMA encoding = 'UTF-16le'; {TABLES}"));
    let mut b = Node::new(&log, Setup { node: 2, ..Setup::default() }, TABLES);
    found(&mut [&mut a, &mut b]);
    write_both(&mut a, &mut b);
}

/// Text that is not Unicode can't be written into a file of UTF-16 as it is: SQLite would put other letters in its place,
/// and two keys might become one. Such a file stops there and says so; files of UTF-8 take it byte for byte.
#[test]
fn c92_broken_text_and_a_file_of_utf16() {
    let ddl = "CREATE TABLE t (k TEXT PRIMARY KEY, v); CREATE TABLE u (id INTEGER PRIMARY KEY, u TEXT UNIQUE)";
    for (sql, kept) in [
        ("INSERT INTO t VALUES (CAST(x'FF' AS TEXT), 1), (CAST(x'FE' AS TEXT), 2)", "FE|2 FF|1"),
        ("INSERT INTO u VALUES (1, CAST(x'EDA080' AS TEXT)), (2, 'x')", "78|2 EDA080|1"),
        ("INSERT INTO t VALUES ('a', CAST(x'61FF' AS TEXT))", "61|a\u{fffd}"),
    ] {
        let log = Arc::new(Memory::new());
        let mut wide = Node::new(&log, Setup::default(), &format!("PRAGMA encoding = 'UTF-16le'; {ddl}"));
        let [mut b, mut c] = [2, 3].map(|node| Node::new(&log, Setup { node, ..Setup::default() }, ddl));
        found(&mut [&mut wide, &mut b, &mut c]);
        wide.sql("INSERT INTO t VALUES ('ü', 'proper')");
        settle(&mut [&mut wide, &mut b, &mut c]);
        b.sql(sql);
        settle(&mut [&mut b, &mut c]);
        let of_c = "SELECT hex(k), v FROM t WHERE k <> 'ü' UNION ALL SELECT hex(u), id FROM u ORDER BY 1";
        assert_eq!(c.rows(of_c).join(" "), kept);
        for _ in 0..2 {
            let reason = wide.apply().unwrap_or_default();
            assert!(reason.contains("UTF-16") && reason.contains("make the file anew"), "{reason}");
            assert_eq!(wide.rows("SELECT * FROM t"), ["ü|proper"]);
            wide.crash();
        }
    }
}

/// The same the other way round: halves of surrogate pairs in UTF-16, as some languages write them, leave the file as
/// they are for others to read, and the file itself does not read them back as anything else.
#[test]
fn c92_halves_of_letters_in_a_file_of_utf16() {
    let log = Arc::new(Memory::new());
    let ddl = "CREATE TABLE t (k TEXT PRIMARY KEY, v)";
    let mut wide = Node::new(&log, Setup::default(), &format!("PRAGMA encoding = 'UTF-16le'; {ddl}"));
    let mut b = Node::new(&log, Setup { node: 2, ..Setup::default() }, ddl);
    found(&mut [&mut wide, &mut b]);
    wide.sql("INSERT INTO t VALUES (CAST(x'00D8' AS TEXT), 'one'), (CAST(x'01D8' AS TEXT), 'other')");
    wide.publish();
    assert_eq!(b.apply(), None);
    assert_eq!(b.rows("SELECT hex(k), v FROM t ORDER BY v"), ["EDA080|one", "EDA081|other"]);
    let reason = wide.apply().unwrap_or_default();
    assert!(reason.contains("UTF-16"), "{reason}");
    assert_eq!(wide.rows("SELECT hex(k), v FROM t ORDER BY v"), ["00D8|one", "01D8|other"]);
}

/// A file that reaches over the page that SQLite keeps for its locks, at one GiB.
#[test]
#[ignore = "writes three GiB"]
fn c102_a_file_over_the_lock_page() {
    let (_folder, mut a, mut b) = on_disk("PRAGMA journal_mode = WAL", "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    for chunk in 0..22 {
        a.sql(&format!(
            "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 50)
             INSERT INTO t SELECT {chunk} * 50 + i, randomblob(1048576) FROM n"
        ));
        a.publish();
        assert_eq!(b.apply(), None);
    }
    assert!(
        a.one("SELECT page_count * page_size > 1073741824 + 65536 FROM pragma_page_count, pragma_page_size") == "1"
    );
    settle(&mut [&mut a, &mut b]);
}

/// Any journal will do, and the application may change it while the host runs.
#[test]
fn c103_every_journal_mode() {
    for mode in ["DELETE", "TRUNCATE", "PERSIST", "MEMORY", "WAL"] {
        let (_folder, mut a, mut b) = on_disk(&format!("PRAGMA journal_mode = {mode}"), TABLES);
        write_both(&mut a, &mut b);
        assert_eq!(a.one("PRAGMA journal_mode").to_uppercase(), mode, "the host leaves it as it is");
    }
}

/// The application switches between them, from and to WAL included, as far as SQLite lets it.
#[test]
fn c103_a_journal_mode_that_changes() {
    let (_folder, mut a, mut b) = on_disk("PRAGMA journal_mode = DELETE", "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    for (id, mode) in ["WAL", "TRUNCATE", "PERSIST", "WAL", "MEMORY", "DELETE"].iter().enumerate() {
        // To leave WAL a connection must be alone, which it is only while the host is down; else SQLite says `locked`.
        let switched = a.app.query_row(&format!("PRAGMA journal_mode = {mode}"), [], |row| row.get::<_, String>(0));
        a.sql(&format!("INSERT INTO t VALUES ({id}, '{mode}')"));
        b.sql(&format!("INSERT INTO t VALUES ({id} + 100, '{mode}')"));
        settle(&mut [&mut a, &mut b]);
        assert!(switched.is_ok() || a.one("PRAGMA journal_mode") == "wal", "{mode}: {switched:?}");
    }
    assert_eq!(a.one("SELECT count(*) FROM t"), "12");
}

/// As many columns as SQLite allows.
#[test]
fn c101_two_thousand_columns() {
    let columns = (1..2000).map(|n| format!("c{n}")).collect::<Vec<_>>().join(", ");
    let (mut a, mut b) = pair(&format!("CREATE TABLE t (id INTEGER PRIMARY KEY, {columns})"));
    a.sql("INSERT INTO t (id, c1, c1999) VALUES (1, 'first', 'last'), (2, 'x', 'y')");
    settle(&mut [&mut a, &mut b]);
    b.sql("UPDATE t SET c1000 = 'mid' WHERE id = 1; DELETE FROM t WHERE id = 2");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(a.rows("SELECT c1, c1000, c1999 FROM t"), ["first|mid|last"]);
}

/// A row of more than one MiB, and one of 50 MB.
#[test]
fn c101_large_rows_arrive() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    a.sql("INSERT INTO t VALUES (1, zeroblob(2000000)), (2, randomblob(50000000)), (3, 'small')");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT length(v) FROM t"), ["2000000", "50000000", "5"]);
}

/// A row beyond what an entry can carry stays where it is, and says so; all others go on, and it follows when it can.
#[test]
fn c101_a_row_that_is_too_large_waits() {
    let (mut a, mut b) =
        pair("CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE other (id INTEGER PRIMARY KEY, v)");
    a.sql("INSERT INTO t VALUES (1, 'small'), (2, 'small')");
    settle(&mut [&mut a, &mut b]);
    a.with(|db| db.limit_rows(1000));
    a.sql("UPDATE t SET v = zeroblob(2000) WHERE id = 1; UPDATE t SET v = 'new' WHERE id = 2; INSERT INTO other VALUES (1, 'x'); INSERT INTO t VALUES (3, zeroblob(3000))");
    b.sql("UPDATE t SET v = 'b' WHERE id = 1");
    for node in [&mut a, &mut b] {
        node.publish();
    }
    for _ in 0..2 {
        for node in [&mut a, &mut b] {
            node.publish();
            assert_eq!(node.apply(), None);
        }
    }
    assert_eq!(b.rows("SELECT * FROM t"), ["1|b", "2|new"]);
    assert_eq!(b.rows("SELECT * FROM other"), ["1|x"]);
    assert_eq!(a.one("SELECT length(v) FROM t WHERE id = 1"), "2000", "what this node wrote stays until it is sent");
    let held = a.with(|db| db.oversized().unwrap());
    assert_eq!(held.iter().map(|row| (row.table.as_str(), row.bytes > 2000)).collect::<Vec<_>>(), [("t", true); 2]);

    // It says so after a start as well, and protects the row as before.
    a.crash();
    a.with(|db| db.limit_rows(1000));
    assert_eq!(a.with(|db| db.oversized().unwrap()), held);
    b.sql("UPDATE t SET v = 'b again' WHERE id = 1");
    b.publish();
    assert_eq!(a.apply(), None);
    assert_eq!(a.one("SELECT length(v) FROM t WHERE id = 1"), "2000");

    a.sql("UPDATE t SET v = 'small again' WHERE id = 1; DELETE FROM t WHERE id = 3");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|small again", "2|new"]);
    assert_eq!(a.with(|db| db.oversized().unwrap()), []);
}
