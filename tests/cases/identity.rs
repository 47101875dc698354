//! Identity of rows: keys that move, UNIQUE values that change hands, keys that are equal and look different.

use antiphon::log::Memory;
use antiphon_harness::{Dice, Node, Setup, found, pair, settle};
use std::sync::Arc;

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

/// A row that went because another took its rowid is gone on peers too, whatever the rowid can be called.
#[test]
fn c21_replace_by_rowid_deletes_on_peers() {
    let tables = [
        ("rowid", "CREATE TABLE t (k TEXT PRIMARY KEY, v)"),
        ("_rowid_", "CREATE TABLE t (k TEXT PRIMARY KEY, v, rowid)"),
        ("oid", "CREATE TABLE t (k TEXT PRIMARY KEY, v, RowId, _rowid_ AS (v) STORED, w UNIQUE)"),
        ("rowid", "CREATE TABLE t (k INTEGER PRIMARY KEY DESC, v)"),
    ];
    for (rowid, ddl) in tables {
        for recursive in [0, 1] {
            let (mut a, mut b) = pair(ddl);
            a.sql(&format!("PRAGMA recursive_triggers = {recursive}"));
            a.sql(&format!("INSERT INTO t ({rowid}, k, v) VALUES (-1, 1, 'a'), (1, 2, 'b'), (5, 3, 'c'), (6, 4, 'd')"));
            settle(&mut [&mut a, &mut b]);
            for statement in [
                "INSERT INTO t (k, v) VALUES (10, 'x'), (11, 'y')",
                "INSERT OR REPLACE INTO t (ROWID, k, v) VALUES (1, 20, 'in the place of 2')",
                "REPLACE INTO t (ROWID, k, v) VALUES (-1, 21, 'in the place of 1')",
                "UPDATE OR REPLACE t SET ROWID = 5 WHERE k = 4",
                "UPDATE OR REPLACE t SET ROWID = '1', k = 30 WHERE k = 4",
                "INSERT OR IGNORE INTO t (ROWID, k, v) VALUES (1, 40, 'ignored')",
                "UPDATE t SET v = v || '!'",
            ] {
                a.sql(&statement.replace("ROWID", rowid));
                settle(&mut [&mut a, &mut b]);
            }
            let keys = a.rows("SELECT k FROM t ORDER BY k + 0");
            assert_eq!(keys, ["10", "11", "21", "30"], "{ddl}");
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

/// Rows whose key is NULL can't be told apart: their table is refused while the others go on.
#[test]
fn c25_a_table_with_null_keys_is_refused_with_the_reason() {
    let log = Arc::new(Memory::new());
    let ddl = "CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE n (k TEXT PRIMARY KEY, v)";
    let [mut a, mut b] = [1, 2].map(|node| Node::new(&log, Setup { node, ..Setup::default() }, ddl));
    a.sql("INSERT INTO t VALUES (1, 'x'); INSERT INTO n VALUES (NULL, 1), (NULL, 2), ('k', 3)");
    a.crash();
    let refused = a.with(|db| db.refused().to_vec());
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].table, "n");
    assert!(refused[0].reason.contains("NULL"), "{}", refused[0].reason);
    a.enter();
    b.enter();
    for _ in 0..2 {
        assert_eq!(a.apply(), None);
        a.publish();
    }
    assert_eq!(b.apply(), None);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|x"]);
    assert_eq!(b.one("SELECT count(*) FROM n"), "0");
}

/// A UNIQUE index that only this node has is no part of the fold: it stops the shard, and hides no row in silence.
#[test]
fn c22_a_unique_index_of_one_node_stops_it_and_hides_nothing() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, u)");
    b.sql("CREATE UNIQUE INDEX mine ON t (u)");
    a.sql("INSERT INTO t VALUES (1, 'x'), (2, 'x')");
    a.publish();
    let reason = b.apply().unwrap_or_default();
    assert!(reason.contains("UNIQUE constraint failed: t.u") && reason.contains("make the table as it is"), "{reason}");
    assert_eq!(b.one("SELECT count(*) FROM t"), "0", "and nothing is half applied");
    b.sql("DROP INDEX mine");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.one("SELECT count(*) FROM t"), "2");
}

/// Three nodes that fight over few keys and fewer UNIQUE values, in pieces and with crashes, end equal.
#[test]
fn c22_any_fight_over_unique_values_ends_equal() {
    let ddl = "CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT COLLATE NOCASE UNIQUE, x, y, v, UNIQUE (x, y));
        CREATE TABLE w (k TEXT PRIMARY KEY COLLATE NOCASE, u UNIQUE) WITHOUT ROWID";
    for seed in 1..=150 {
        let log = Arc::new(Memory::new());
        let mut nodes = [1, 2, 3].map(|node| Node::new(&log, Setup { node, changes_max: 3, ..Setup::default() }, ddl));
        let [a, b, c] = &mut nodes;
        found(&mut [a, b, c]);
        let mut dice = Dice::new(seed);
        for step in 0..150 {
            let node = &mut nodes[usize::try_from(dice.below(3)).unwrap()];
            let (id, u, x) = (dice.below(6), *dice.pick(&["'a'", "'A'", "'b'", "'c'", "'d'", "NULL"]), dice.below(3));
            let or = *dice.pick(&["", "OR REPLACE", "OR IGNORE", "OR FAIL"]);
            let sql = match dice.below(12) {
                0 => format!("DELETE FROM t WHERE id = {id}"),
                1 => format!("UPDATE {or} t SET u = {u}, v = {step} WHERE id = {id}"),
                2 => format!("UPDATE {or} t SET id = {id} WHERE u = {u}"),
                3 => format!("UPDATE {or} t SET x = {x}, y = y + 1 WHERE id >= {id}"),
                4 => format!("INSERT {or} INTO w VALUES ({u} || '', {x})"),
                5 => format!("UPDATE {or} w SET u = u + 1"),
                6 => format!("DELETE FROM w WHERE u = {x}"),
                _ => format!("INSERT {or} INTO t VALUES ({id}, {u}, {x}, {}, {step})", dice.below(2)),
            };
            // A constraint that holds is SQLite's own reason to refuse.
            let _ = node.app.execute_batch(&sql);
            match dice.below(10) {
                0 | 1 => drop(node.publish_step()),
                2 => node.seal(),
                3 | 4 => drop(node.apply_next(1, 1)),
                5 => assert_eq!(node.apply(), None),
                6 if dice.below(4) == 0 => node.crash(),
                _ => {}
            }
        }
        let [a, b, c] = &mut nodes;
        settle(&mut [a, b, c]);
        for node in &nodes {
            assert_eq!(node.rows("PRAGMA integrity_check"), ["ok"], "seed {seed}");
            assert_eq!(node.one("SELECT count(*) FROM __antiphon___shadow"), "0", "seed {seed}");
        }
    }
}
