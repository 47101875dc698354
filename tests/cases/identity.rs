//! Identity of rows: keys that move, UNIQUE values that change hands, keys that are equal and look different.

use antiphon_harness::{pair, settle};

/// Rows 1 to `count`, with their number as second column.
fn fill(table: &str, count: u32) -> String {
    format!(
        "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {count}) INSERT INTO {table} SELECT i, i FROM n"
    )
}

/// Moving rows to other keys must not leave the old rows behind on peers.
#[test]
fn c20_key_move_deletes_old_rows_on_peers() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    a.sql(&fill("t", 100));
    settle(&mut [&mut a, &mut b]);
    a.sql("UPDATE t SET id = id + 1000");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.one("SELECT count(*) FROM t"), "100");
    assert_eq!(b.one("SELECT min(id) FROM t"), "1001");
}

/// The same where most rows move to a key that another had, which SQLite allows from the last row down only.
#[test]
fn c20_keys_that_move_onto_each_other() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    a.sql(&fill("t", 100));
    settle(&mut [&mut a, &mut b]);
    let shift = "BEGIN; UPDATE t SET id = -id - 10; UPDATE t SET id = -id; COMMIT";
    a.sql(shift);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT count(*), min(id), max(id), sum(id = v + 10) FROM t"), ["100|11|110|100"]);
}

/// Every way in which SQLite removes a row for the sake of another, without telling DELETE triggers.
const REPLACING: &[&str] = &[
    "INSERT OR REPLACE INTO t VALUES (9, 1, 'insert or replace')",
    "REPLACE INTO t VALUES (2, 1, 'takes two rows with it')",
    "UPDATE OR REPLACE t SET u = 1 WHERE id = 3",
    "UPDATE OR REPLACE t SET id = 1 WHERE id = 3",
    "UPDATE OR REPLACE t SET id = 2, u = 1 WHERE id = 3",
    "INSERT INTO t VALUES (9, 1, 'upsert') ON CONFLICT (u) DO UPDATE SET v = excluded.v",
    "INSERT INTO t VALUES (9, 1, 'upsert that moves') ON CONFLICT (u) DO UPDATE SET id = 77",
    "INSERT INTO t VALUES (9, 1, 'nothing') ON CONFLICT DO NOTHING",
    "INSERT OR IGNORE INTO t VALUES (9, 1, 'ignored')",
    "INSERT OR REPLACE INTO c VALUES (9, 1, 'by its column')",
    "INSERT INTO c VALUES (9, 1, 'by its column')",
    "UPDATE c SET u = 1 WHERE id = 3",
    "UPDATE c SET id = 1 WHERE id = 3",
    "INSERT INTO w VALUES ('z', 1, 'without rowid') ON CONFLICT DO NOTHING",
    "INSERT OR REPLACE INTO w VALUES ('z', 1, 'without rowid')",
    "UPDATE OR REPLACE w SET u = 'A' COLLATE NOCASE WHERE k = 'c'",
    "INSERT OR REPLACE INTO m VALUES (9, 1, 1, 'over two columns')",
    "INSERT OR REPLACE INTO m VALUES (9, 1, NULL, 'NULLs are never equal')",
];

/// A row that REPLACE removed is gone on peers too, and a row that was spared is nobody's change.
#[test]
fn c21_replace_over_a_unique_value_deletes_on_peers() {
    let ddl = "CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE, v);
        CREATE TABLE c (id INTEGER PRIMARY KEY ON CONFLICT REPLACE, u UNIQUE ON CONFLICT REPLACE, v);
        CREATE TABLE w (k TEXT PRIMARY KEY, u TEXT COLLATE NOCASE UNIQUE, v) WITHOUT ROWID;
        CREATE TABLE m (id INTEGER PRIMARY KEY, x, y, v, UNIQUE (x, y));";
    for recursive in [0, 1] {
        for statement in REPLACING {
            let (mut a, mut b) = pair(ddl);
            a.sql(&format!("PRAGMA recursive_triggers = {recursive}"));
            a.sql(
                "INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c');
                 INSERT INTO c VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c');
                 INSERT INTO w VALUES ('a', '1', 'a'), ('b', 'a', 'b'), ('c', 'c', 'c');
                 INSERT INTO m VALUES (1, 1, 1, 'a'), (2, 1, NULL, 'b'), (3, 1, NULL, 'c')",
            );
            settle(&mut [&mut a, &mut b]);
            a.sql(statement);
            settle(&mut [&mut a, &mut b]);
            // In one transaction with the row that is replaced, and again on what came of it.
            a.sql(&format!("BEGIN; INSERT OR REPLACE INTO t VALUES (5, 5, 'e'), (6, 5, 'f'); {statement}; COMMIT"));
            settle(&mut [&mut a, &mut b]);
        }
    }
}

/// A mark that a row may be gone must not send the row as it stands here: nobody wrote it.
#[test]
fn c21_a_spared_row_does_not_revert_another_nodes_write() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE, v)");
    a.sql("INSERT INTO t VALUES (1, 1, 'old')");
    settle(&mut [&mut a, &mut b]);
    b.sql("UPDATE t SET v = 'new'");
    b.publish();
    a.sql("INSERT OR IGNORE INTO t VALUES (2, 1, 'ignored'); INSERT INTO t VALUES (3, 1, 'x') ON CONFLICT DO NOTHING");
    a.publish();
    settle(&mut [&mut a, &mut b]);
    assert_eq!(a.rows("SELECT * FROM t"), ["1|1|new"]);
}

/// One UNIQUE value, two keys, two nodes: one row survives, and every node says which did not.
#[test]
fn c22_one_unique_value_on_two_nodes_leaves_one_row_and_a_record() {
    for b_first in [false, true] {
        let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE)");
        a.sql("INSERT INTO t VALUES (1, 'x')");
        b.sql("INSERT INTO t VALUES (2, 'x')");
        let winner = if b_first { "1" } else { "2" };
        if b_first {
            b.publish();
        } else {
            a.publish();
        }
        settle(&mut [&mut a, &mut b]);
        for node in [&a, &b] {
            assert_eq!(node.rows("SELECT * FROM t"), [format!("{winner}|x")]);
            assert_eq!(node.conflicts(), [format!("t|unique-index|{winner}")]);
        }
    }
}

/// A row hidden behind a pending one's UNIQUE value comes out when that one moves on.
#[test]
fn c22_a_hidden_row_appears_once_the_pending_one_lets_go() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE)");
    a.sql("INSERT INTO t VALUES (1, 'x')");
    a.publish();
    b.sql("INSERT INTO t VALUES (2, 'x')");
    b.seal();
    assert_eq!(b.apply(), None);
    assert_eq!(b.rows("SELECT * FROM t"), ["2|x"], "the pending row stays, the other waits behind it");
    b.crash();
    b.sql("UPDATE t SET u = 'y'");
    b.publish();
    settle(&mut [&mut a, &mut b]);
    // Both batches of b are in the log: the first one evicts a's row, the second lets go of the value.
    assert_eq!(a.rows("SELECT * FROM t"), ["2|y"]);
}

/// UNIQUE values that go round within one transaction can't be applied one row after the other.
#[test]
fn c23_unique_values_that_change_hands() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, u INTEGER UNIQUE)");
    a.sql(&fill("t", 1000));
    settle(&mut [&mut a, &mut b]);
    a.sql("BEGIN; UPDATE t SET u = -1 WHERE id = 1; UPDATE t SET u = 1 WHERE id = 2; UPDATE t SET u = 2 WHERE id = 1; COMMIT");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT u FROM t WHERE id < 3 ORDER BY id"), ["2", "1"]);
    a.sql(
        "BEGIN; UPDATE t SET u = -u WHERE id IN (4, 5, 6);
         UPDATE t SET u = CASE id WHEN 4 THEN 5 WHEN 5 THEN 6 ELSE 4 END WHERE id IN (4, 5, 6); COMMIT",
    );
    settle(&mut [&mut a, &mut b]);
    a.sql("BEGIN; UPDATE t SET u = -u; UPDATE t SET u = 1 - u; COMMIT");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.one("SELECT count(*) || ' ' || sum(u) FROM t"), "1000 501500");
    assert_eq!(b.conflicts(), [""; 0]);
}

/// Keys that SQLite holds equal are one row, however they are written.
#[test]
fn c24_keys_that_are_equal_and_look_different() {
    for (ddl, one, other) in [
        ("CREATE TABLE t (k PRIMARY KEY, v)", "1", "1.0"),
        ("CREATE TABLE t (k PRIMARY KEY, v) WITHOUT ROWID", "0", "-0.0"),
        ("CREATE TABLE t (k TEXT PRIMARY KEY COLLATE NOCASE, v)", "'a'", "'A'"),
        ("CREATE TABLE t (k TEXT PRIMARY KEY COLLATE RTRIM, v)", "'a'", "'a  '"),
        // The key's collation need not be the column's.
        ("CREATE TABLE t (k TEXT, v, PRIMARY KEY (k COLLATE NOCASE))", "'a'", "'A'"),
        ("CREATE TABLE t (k TEXT, v, PRIMARY KEY (k COLLATE NOCASE)) WITHOUT ROWID", "'a'", "'A'"),
    ] {
        let (mut a, mut b) = pair(ddl);
        a.sql(&format!("INSERT INTO t VALUES ({one}, 'first')"));
        settle(&mut [&mut a, &mut b]);
        a.sql(&format!("UPDATE t SET k = {other}, v = 'second'"));
        settle(&mut [&mut a, &mut b]);
        assert_eq!(b.rows("SELECT v FROM t"), ["second"], "{ddl}");
        // Either spelling on either node: one key, so one of them is behind the other.
        a.sql(&format!("UPDATE t SET k = {one}, v = 'of a'"));
        a.publish();
        b.sql(&format!("DELETE FROM t; INSERT INTO t VALUES ({other}, 'of b')"));
        b.seal();
        assert_eq!(b.apply(), None);
        assert_eq!(b.rows("SELECT v FROM t"), ["of b"], "{ddl}");
        settle(&mut [&mut a, &mut b]);
        assert_eq!(a.rows("SELECT v FROM t"), ["of b"], "{ddl}");
        a.sql("DELETE FROM t");
        settle(&mut [&mut a, &mut b]);
        assert_eq!(b.rows("SELECT v FROM t"), [""; 0], "{ddl}");
    }
}

/// The other way round: the key tells apart what the column's collation does not.
#[test]
fn c24_keys_that_differ_where_their_column_says_equal() {
    let (mut a, mut b) = pair("CREATE TABLE t (k TEXT COLLATE NOCASE, v, PRIMARY KEY (k COLLATE BINARY))");
    a.sql("INSERT INTO t VALUES ('a', 'lower'), ('A', 'upper')");
    settle(&mut [&mut a, &mut b]);
    a.sql("UPDATE t SET v = 'changed' WHERE k = 'A' COLLATE BINARY");
    settle(&mut [&mut a, &mut b]);
    a.sql("DELETE FROM t WHERE k = 'a' COLLATE BINARY");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM t"), ["A|changed"]);
}

/// A table without a key is refused by name, with what to do; the others go on.
#[test]
fn c26_a_table_without_a_key_is_refused_with_the_reason() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE loose (v)");
    a.sql("INSERT INTO t VALUES (1, 'x'); INSERT INTO loose VALUES ('y')");
    let refused = a.with(|db| db.refused().to_vec());
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].table, "loose");
    assert!(refused[0].reason.contains("no primary key"), "{}", refused[0].reason);
    assert!(refused[0].reason.contains("exclude"), "{}", refused[0].reason);
    a.publish();
    assert_eq!(b.apply(), None);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|x"]);
    assert_eq!(b.one("SELECT count(*) FROM loose"), "0");
}
