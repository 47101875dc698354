//! Identity of rows: keys that move, UNIQUE values that change hands, keys that are equal and look different.

use antiphon::log::Memory;
use antiphon_core::key::write_folded;
use antiphon_core::value::Value;
use antiphon_harness::{Dice, Node, Setup, found, pair, pair_with, settle, trio};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
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

/// Values as SQL, near each other in every way that SQLite calls equal, or nearly does.
const NEAR: &[&str] = &[
    "0",
    "0.0",
    "-0.0",
    "1",
    "1.0",
    "1.5",
    "-1",
    "-1.0",
    "127",
    "127.0",
    "5e-324",
    "1e300",
    "9e999",
    "-9e999",
    "9007199254740991",
    "9007199254740992",
    "9007199254740992.0",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775807.0",
    "9223372036854774784",
    "9223372036854774784.0",
    "-9223372036854775808",
    "-9223372036854775808.0",
    "1e15",
    "1000000000000000",
    "0.1",
    "0.1000000000000000055",
    "''",
    "' '",
    "'  '",
    "'1'",
    "'1.0'",
    "'a'",
    "'A'",
    "'a '",
    "'A '",
    "' a'",
    "'a' || char(9)",
    "'é'",
    "'É'",
    "'e' || char(769)",
    "'ß'",
    "'SS'",
    "'[' ",
    "'{'",
    "'@'",
    "'`'",
    "'a' || char(0)",
    "'A' || char(0)",
    "'a' || char(0) || 'b'",
    "'A' || char(0) || 'C'",
    "'a' || char(0) || ' '",
    "char(0)",
    "char(0) || char(0)",
    "' ' || char(0)",
    "CAST(x'FF' AS TEXT)",
    "CAST(x'C3' AS TEXT)",
    "CAST(x'C341' AS TEXT)",
    "CAST(x'C361' AS TEXT)",
    "CAST(x'FF20' AS TEXT)",
    "x''",
    "x'00'",
    "x'0000'",
    "x'20'",
    "x'61'",
    "x'41'",
    "x'31'",
    "x'ff'",
    "zeroblob(3)",
    "char(0x1F980)",
];

/// Keys are the same bytes, and so of one shard and one fate, exactly where a UNIQUE index of SQLite's refuses the
/// second of them.
#[test]
fn c24_one_key_to_sqlite_is_one_key_to_the_fold() {
    let db = Connection::open_in_memory().unwrap();
    let mut equal = 0;
    for collation in ["BINARY", "NOCASE", "RTRIM"] {
        db.execute_batch(&format!("CREATE TABLE {collation} (k COLLATE {collation} PRIMARY KEY)")).unwrap();
        // The bytes of a value as SQLite keeps it, which is how a trigger notes it.
        let bytes = || {
            let value = |row: &rusqlite::Row<'_>| {
                Ok(match row.get_ref(0)? {
                    ValueRef::Null => Value::Null,
                    ValueRef::Integer(number) => Value::Integer(number),
                    ValueRef::Real(number) => Value::Real(number),
                    ValueRef::Text(text) => Value::Text(text.to_vec()),
                    ValueRef::Blob(blob) => Value::Blob(blob.to_vec()),
                })
            };
            let mut bytes = Vec::new();
            write_folded(
                &mut bytes,
                collation,
                &db.query_row(&format!("SELECT k FROM {collation}"), [], value).unwrap(),
            );
            bytes
        };
        for one in NEAR {
            let put = |value: &str| db.execute(&format!("INSERT INTO {collation} VALUES ({value})"), []);
            for other in NEAR {
                db.execute(&format!("DELETE FROM {collation}"), []).unwrap();
                put(one).unwrap();
                let of_one = bytes();
                let refused = put(other).is_err();
                db.execute(&format!("DELETE FROM {collation}"), []).unwrap();
                put(other).unwrap();
                assert_eq!(of_one == bytes(), refused, "{one} and {other} under {collation}");
                equal += usize::from(refused && one != other);
            }
        }
    }
    assert!(equal > 40, "only {equal} pairs are equal and look different");
}

/// The same on the way: any of these values as the key, over several shards, rewritten by whoever comes.
#[test]
fn c24_any_key_over_several_shards() {
    for ddl in [
        "CREATE TABLE t (k PRIMARY KEY, v)",
        "CREATE TABLE t (k COLLATE NOCASE PRIMARY KEY, v) WITHOUT ROWID",
        "CREATE TABLE t (v, k TEXT COLLATE RTRIM PRIMARY KEY)",
        "CREATE TABLE t (k NUMERIC PRIMARY KEY, v)",
        "CREATE TABLE t (k REAL PRIMARY KEY, v)",
        "CREATE TABLE t (k BLOB, v, l DEFAULT x'00', PRIMARY KEY (l, k))",
    ] {
        let (mut a, mut b) = pair_with(&Setup { shards: 3, ..Setup::default() }, ddl);
        let mut dice = Dice::new(24);
        for round in 0..300 {
            let (key, other) = (*dice.pick(NEAR), *dice.pick(NEAR));
            let node = if dice.below(2) == 0 { &mut a } else { &mut b };
            let sql = match dice.below(4) {
                0 => format!("DELETE FROM t WHERE k = {key}"),
                1 => format!("UPDATE OR IGNORE t SET k = {other}, v = {round} WHERE k = {key}"),
                _ => format!("INSERT OR REPLACE INTO t (k, v) VALUES ({key}, {round})"),
            };
            node.sql(&sql);
            match dice.below(8) {
                0 => node.publish(),
                1 => assert_eq!(node.apply(), None),
                2 => node.crash(),
                3 => settle(&mut [&mut a, &mut b]),
                _ => {}
            }
        }
        settle(&mut [&mut a, &mut b]);
        assert_eq!(a.rows("PRAGMA integrity_check"), ["ok"], "{ddl}");
        assert_ne!(a.one("SELECT count(*) FROM t"), "0");
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

/// A row without a key that is written later stays here, and that it does is said, for as long as there is one.
#[test]
fn c25_a_null_key_that_comes_later_is_reported() {
    let (mut a, mut b) = pair("CREATE TABLE n (k TEXT PRIMARY KEY, v); CREATE TABLE m (x, y, v, PRIMARY KEY (x, y))");
    let said = |node: &Node| node.with(|db| db.shortfalls().unwrap()).into_iter().collect::<Vec<_>>();
    assert_eq!(said(&a), []);
    a.sql("INSERT INTO n VALUES ('k', 1), (NULL, 2), (NULL, 3); INSERT INTO m VALUES (1, NULL, 4), (1, 1, 5)");
    for start in [false, true] {
        if start {
            a.crash();
        }
        a.publish();
        let tables: Vec<(String, String)> = said(&a);
        assert_eq!(tables.iter().map(|(table, _)| table.as_str()).collect::<Vec<_>>(), ["m", "n"], "start: {start}");
        assert!(tables.iter().all(|(_, why)| why.contains("NULL") && why.contains("give each a key")), "{tables:?}");
    }
    assert_eq!(b.apply(), None);
    assert_eq!((b.rows("SELECT * FROM n"), b.rows("SELECT * FROM m")), (vec!["k|1".into()], vec!["1|1|5".into()]));
    a.sql("UPDATE n SET k = 'key of ' || v WHERE k IS NULL; UPDATE m SET y = 2 WHERE y IS NULL");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM n ORDER BY k"), ["k|1", "key of 2|2", "key of 3|3"]);
    assert_eq!(said(&a), []);
}

/// UNIQUE indexes over some rows, and over expressions: what one node writes arrives, whatever moved, swapped or
/// replaced what within a transaction.
#[test]
fn c22_partial_and_expression_indexes_of_one_writer() {
    let ddl = "CREATE TABLE t (id INTEGER PRIMARY KEY, u, on_duty INTEGER, v);
        CREATE UNIQUE INDEX one_on_duty ON t (u) WHERE on_duty;
        CREATE TABLE e (id INTEGER PRIMARY KEY, u, n INTEGER);
        CREATE UNIQUE INDEX halves ON e (u, n / 2);
        CREATE TABLE w (k TEXT PRIMARY KEY, u, x UNIQUE) WITHOUT ROWID;
        CREATE UNIQUE INDEX some ON w (u) WHERE u > 2;";
    let mut done = 0;
    for seed in 1..=60 {
        let (mut a, mut b) = pair_with(&Setup { changes_max: 4, ..Setup::default() }, ddl);
        let mut dice = Dice::new(seed);
        a.sql(&format!("PRAGMA recursive_triggers = {}", dice.below(2)));
        for step in 0..60 {
            let (id, u, on) = (dice.below(6), dice.below(4), dice.below(2));
            let or = *dice.pick(&["", "OR REPLACE", "OR IGNORE"]);
            let sql = match dice.below(12) {
                0 => format!("DELETE FROM t WHERE id = {id}"),
                1 => format!("UPDATE {or} t SET on_duty = {on}, v = {step} WHERE id = {id}"),
                2 => format!("UPDATE {or} t SET u = {u} WHERE id = {id}"),
                // Over to another row, in either order, and the one that held it before gone.
                3 => format!(
                    "BEGIN; UPDATE t SET on_duty = 0 WHERE u = {u}; UPDATE {or} t SET on_duty = 1 WHERE id = {id}; COMMIT"
                ),
                4 => format!(
                    "BEGIN; DELETE FROM t WHERE u = {u}; INSERT {or} INTO t VALUES ({id}, {u}, 1, {step}); COMMIT"
                ),
                5 => "BEGIN; UPDATE t SET u = -u - 1; UPDATE t SET u = (-u) % 4; COMMIT".to_owned(),
                6 => format!("INSERT {or} INTO e VALUES ({id}, {u}, {step} % 6)"),
                7 => format!("UPDATE {or} e SET n = n + 1 WHERE id >= {id}"),
                8 => format!("INSERT {or} INTO w VALUES ('{id}', {u}, {})", dice.below(5)),
                9 => format!("UPDATE {or} w SET u = u + 1, k = k || 'x' WHERE k >= '{id}'"),
                _ => format!("INSERT {or} INTO t VALUES ({id}, {u}, {on}, {step})"),
            };
            match a.app.execute_batch(&sql) {
                Ok(()) => done += 1,
                // SQLite's own refusal; what the transaction did before it stays.
                Err(_) if !a.app.is_autocommit() => a.sql("COMMIT"),
                Err(_) => {}
            }
            match dice.below(6) {
                0 => drop(a.publish_step()),
                1 => assert_eq!(b.apply(), None, "seed {seed}"),
                _ => {}
            }
        }
        settle(&mut [&mut a, &mut b]);
    }
    assert!(done > 1500, "only {done} statements were taken");
}

/// Two nodes give one value of such an index to two rows. Which of them should go, no node can tell from the log, so
/// the shard stops on all, with the remedies; and goes on when one row lets go, or the index does.
#[test]
fn c22_a_fight_over_a_partial_index_stops_with_the_remedy() {
    let index = "CREATE UNIQUE INDEX one_live ON t (u) WHERE live";
    let (mut a, mut b, mut c) = trio(&format!("CREATE TABLE t (id INTEGER PRIMARY KEY, u, live INTEGER); {index}"));
    a.sql("INSERT INTO t VALUES (1, 'x', 1)");
    b.sql("INSERT INTO t VALUES (2, 'x', 1)");
    for _ in 0..2 {
        for node in [&mut a, &mut b, &mut c] {
            node.publish();
            node.apply();
        }
    }
    for node in [&mut a, &mut b, &mut c] {
        let reason = node.apply().unwrap_or_default();
        assert!(reason.contains("UNIQUE constraint failed: t.u"), "{reason}");
        assert!(reason.contains("change the row that stands in its way, or drop an index"), "{reason}");
        node.crash();
        assert_eq!(node.one("SELECT count(*) FROM t"), "1", "nothing is taken away in silence");
    }
    // Each does what its own stop says.
    a.sql("UPDATE t SET live = 0 WHERE id = 1; INSERT INTO t VALUES (10, 'a', 1)");
    b.sql("UPDATE t SET u = 'y' WHERE id = 2; INSERT INTO t VALUES (20, 'b', 1)");
    c.sql("DROP INDEX one_live");
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(a.rows("SELECT * FROM t ORDER BY id"), ["1|x|0", "2|y|1", "10|a|1", "20|b|1"]);
    c.sql(index);
    b.sql("DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (3, 'y', 1)");
    settle(&mut [&mut a, &mut b, &mut c]);
    // What is built aside from the whole log comes past the fight as well: only a comparison with it tells that a row
    // went while no trigger saw it.
    a.sql("DROP TRIGGER __antiphon__t_on_delete; DELETE FROM t WHERE id = 10");
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(b.rows("SELECT id FROM t ORDER BY id"), ["1", "3", "20"]);
}

/// A REPLACE over an index of nothing but an expression can't be followed, so such a table is refused, with the remedy.
#[test]
fn c22_an_index_over_an_expression_alone_is_refused() {
    let (mut a, mut b) = pair(
        "CREATE TABLE good (id INTEGER PRIMARY KEY); CREATE TABLE t (id INTEGER PRIMARY KEY, u); CREATE UNIQUE INDEX i ON t (lower(u))",
    );
    a.sql("INSERT INTO t VALUES (1, 'x'); INSERT INTO good VALUES (1)");
    let refused = a.with(|db| db.refused().to_vec());
    assert_eq!(refused.iter().map(|refused| refused.table.as_str()).collect::<Vec<_>>(), ["t"]);
    assert!(refused[0].reason.contains("`i`") && refused[0].reason.contains("exclude"), "{}", refused[0].reason);
    a.publish();
    assert_eq!(b.apply(), None);
    assert_eq!((b.one("SELECT count(*) FROM good"), b.one("SELECT count(*) FROM t")), ("1".into(), "0".into()));
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

/// Rows are marked page by page, each from the last key of the one before: a row without a whole key is no such place.
#[test]
fn c25_a_row_without_a_key_ends_no_page() {
    let ddl = "CREATE TABLE t (a, b, v, PRIMARY KEY (a, b))";
    let log = Arc::new(Memory::new());
    let [mut a, mut b] = [1, 2].map(|node| Node::new(&log, Setup { node, ..Setup::default() }, ddl));
    let many = "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 9999)";
    a.sql(&format!(
        "{many} INSERT INTO t SELECT 1, i, 'v' FROM n; {many} INSERT INTO t SELECT 5, i, 'v' FROM n WHERE i < 101"
    ));
    a.enter();
    b.enter();
    // It comes when the triggers are in place and no row is marked yet, and would be the last of the first page.
    a.sql("INSERT INTO t VALUES (5, NULL, 'keyless')");
    for _ in 0..4 {
        for node in [&mut a, &mut b] {
            node.publish();
            assert_eq!(node.apply(), None);
        }
    }
    assert_eq!(b.one("SELECT count(*) FROM t"), "10099");
}
