//! Repair: what differs from the log and is not on its way becomes a change of this node's, and nothing else does.

use antiphon::db::Reconciled;
use antiphon::join;
use antiphon::life::Provenance;
use antiphon::snapshot::Rescue;
use antiphon_core::entry::Genesis;
use antiphon_core::value::Value;
use antiphon_harness::{ColumnMerge, Counter, Node, Setup, pair, pair_with, policy, settle};
use std::sync::Arc;

fn repair(node: &Node, dry_run: bool) -> Vec<Reconciled> {
    let log = node.log.clone();
    node.with(move |db| {
        let folder = tempfile::tempdir().unwrap();
        let scratch = folder.path().join("log.db");
        let mut rescue = Rescue::new(None, folder.path());
        let work = || {
            let same = Provenance::Same;
            futures::executor::block_on(antiphon::repair::repair(db, &*log, &scratch, &[], dry_run, same, &mut rescue))
        };
        // On a thread of its own, for this one waits for the database already.
        std::thread::scope(|scope| scope.spawn(work).join().unwrap()).unwrap()
    })
}

/// Counts of the one table: only here, only in the log, changed, on their way.
#[track_caller]
fn counts(repaired: &[Reconciled]) -> (u64, u64, u64, u64) {
    assert_eq!(repaired.len(), 1);
    let table = &repaired[0];
    (table.only_here, table.only_logged, table.changed, table.on_their_way)
}

fn drop_triggers(node: &Node) {
    for name in
        node.rows("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name LIKE '\\_\\_antiphon%' ESCAPE '\\'")
    {
        node.sql(&format!("DROP TRIGGER \"{name}\""));
    }
}

fn marks(node: &Node) -> String {
    node.one("SELECT count(*) FROM __antiphon__t_change_log")
}

/// Deletions are the hard part: no row is left to be found.
#[test]
fn what_no_trigger_saw_becomes_a_change() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    a.sql("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')");
    settle(&mut [&mut a, &mut b]);
    drop_triggers(&a);
    a.sql("DELETE FROM t WHERE id = 1; UPDATE t SET v = 2.0 WHERE id = 2; INSERT INTO t VALUES (9, x'00')");
    let before = a.rows("SELECT * FROM sqlite_schema");
    assert_eq!(counts(&repair(&a, true)), (1, 1, 1, 0));
    assert_eq!(a.rows("SELECT * FROM sqlite_schema"), before, "a dry run puts no trigger back");
    assert_eq!(marks(&a), "0", "a dry run marks nothing");
    assert_eq!(counts(&repair(&a, false)), (1, 1, 1, 0));
    assert_eq!(marks(&a), "3");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT id, typeof(v) FROM t"), ["2|real", "3|text", "4|text", "9|blob"]);
    assert_eq!(counts(&repair(&b, false)), (0, 0, 0, 0));
    a.sql("INSERT INTO t VALUES (10, 'later')");
    settle(&mut [&mut a, &mut b]);
}

/// A row that others wrote and this node has not applied is no deletion of this node's.
#[test]
fn rows_that_are_not_applied_here_yet_are_no_differences() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    a.sql("INSERT INTO t VALUES (1, 'a')");
    settle(&mut [&mut a, &mut b]);
    b.sql("INSERT INTO t VALUES (2, 'new'); UPDATE t SET v = 'newer' WHERE id = 1");
    b.publish();
    assert_eq!(counts(&repair(&a, false)), (0, 0, 0, 0));
    settle(&mut [&mut a, &mut b]);
    assert_eq!(a.rows("SELECT v FROM t"), ["newer", "new"]);
}

/// Marked keys, pending ones and those with a shadow are settled already.
#[test]
fn what_is_on_its_way_is_left_alone() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    a.sql("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')");
    settle(&mut [&mut a, &mut b]);
    a.sql("UPDATE t SET v = 'pending' WHERE id = 1");
    a.seal();
    b.sql("UPDATE t SET v = 'of b' WHERE id = 1");
    b.publish();
    // Behind the pending key there is a shadow now.
    a.apply();
    a.sql("UPDATE t SET v = 'marked' WHERE id = 2");
    assert_eq!(counts(&repair(&a, false)), (0, 0, 0, 2));
    assert_eq!(marks(&a), "1");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT v FROM t"), ["pending", "marked", "c"]);
}

/// Two tables are walked side by side: every kind of key must come in the same order from both.
#[test]
fn every_kind_of_key_is_compared() {
    let setup = Setup { shards: 3, ..Setup::default() };
    let (mut a, mut b) = pair_with(
        &setup,
        "CREATE TABLE t (k, n TEXT COLLATE NOCASE, r TEXT COLLATE RTRIM, v, PRIMARY KEY (k, n DESC, r)) WITHOUT ROWID",
    );
    let keys = [
        "1",
        "1.5",
        "2",
        "-3",
        "9007199254740993",
        "9007199254740992.0",
        "1e300",
        "'a'",
        "'A'",
        "''",
        "x'61'",
        "x''",
        "CAST(x'ff' AS TEXT)",
    ];
    for key in keys {
        for text in ["a", "B", "é", "[", "_"] {
            a.sql(&format!("INSERT INTO t VALUES ({key}, '{text}', '{text} x', 0)"));
        }
    }
    settle(&mut [&mut a, &mut b]);
    assert_eq!(counts(&repair(&a, true)), (0, 0, 0, 0));
    drop_triggers(&a);
    a.sql("UPDATE t SET v = 1 WHERE n = '['; DELETE FROM t WHERE n = 'é'; INSERT INTO t SELECT k, n, r || 'y', v FROM t WHERE n = 'b'");
    let each = keys.len() as u64;
    assert_eq!(counts(&repair(&a, false)), (each, each, each, 0));
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.one("SELECT count(*) FROM t"), (keys.len() * 5).to_string());
}

/// A policy weighs a change against the row it was made upon, and that is the log's.
#[test]
fn a_repaired_row_says_what_it_was_made_upon() {
    let setup = Setup { policies: vec![policy("t", "column-merge", ColumnMerge)], ..Setup::default() };
    let (mut a, mut b) = pair_with(&setup, "CREATE TABLE t (id INTEGER PRIMARY KEY, x, y)");
    a.sql("INSERT INTO t VALUES (1, 'x0', 'y0'), (2, 'x0', 'y0')");
    settle(&mut [&mut a, &mut b]);
    drop_triggers(&a);
    a.sql("UPDATE t SET x = 'x1' WHERE id = 1; DELETE FROM t WHERE id = 2");
    b.sql("UPDATE t SET y = 'y1' WHERE id = 1");
    b.publish();
    assert_eq!(counts(&repair(&a, false)), (0, 1, 1, 0));
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|x1|y1"]);
}

/// The same of triggers that the node itself finds missing: what it marks anew is made upon the log's rows.
#[test]
fn c82_lost_triggers_where_a_policy_asks_what_was_before() {
    let setup = Setup { policies: vec![policy("t", "column-merge", ColumnMerge)], ..Setup::default() };
    let (mut a, mut b) = pair_with(&setup, "CREATE TABLE t (id INTEGER PRIMARY KEY, x, y)");
    a.sql("INSERT INTO t VALUES (1, 'x0', 'y0'), (2, 'x0', 'y0')");
    settle(&mut [&mut a, &mut b]);
    let before = a.log_entries(1).len();
    drop_triggers(&a);
    a.sql("UPDATE t SET x = 'x1' WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (3, 'x3', 'y3')");
    a.publish();
    let row = |id, x: &str, y: &str| Some(vec![Value::Integer(id), Value::from(x), Value::from(y)]);
    assert_eq!(a.bases(before), [None, row(1, "x0", "y0"), row(2, "x0", "y0")]);
    b.sql("UPDATE t SET y = 'y1' WHERE id = 1");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|x1|y1", "3|x3|y3"]);
}

/// A write between the triggers' return and the comparison finds a row that nobody has seen. It is made upon the log's.
#[test]
fn c82_writes_upon_rows_that_changed_unseen() {
    for repaired in [true, false] {
        let setup = Setup { policies: vec![policy("t", "counter", Counter::new(&["n"]))], ..Setup::default() };
        let (mut a, mut b) = pair_with(&setup, "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)");
        a.sql("INSERT INTO t VALUES (1, 10), (2, 10), (3, 10)");
        settle(&mut [&mut a, &mut b]);
        // One of them is on its way.
        a.sql("UPDATE t SET n = n + 20 WHERE id = 3");
        a.seal();
        b.sql("UPDATE t SET n = n + 100; INSERT INTO t VALUES (4, 100)");
        b.publish();
        drop_triggers(&a);
        a.sql("UPDATE t SET n = n + 5; INSERT INTO t VALUES (4, 5), (5, 5)");
        let installed = a.with(|db| db.install(true)).unwrap();
        assert_eq!(installed, ["t"]);
        a.sql("UPDATE t SET n = n + 1; DELETE FROM t WHERE id = 5");
        if repaired {
            repair(&a, false);
        }
        assert!(a.with(|db| db.seal()).unwrap(), "nothing of it is sealed before it was compared");
        settle(&mut [&mut a, &mut b]);
        assert_eq!(b.rows("SELECT * FROM t"), ["1|116", "2|116", "3|136", "4|106"], "repaired: {repaired}");
    }
}

/// A mark that says *may be gone* sends nothing of a row that is there: what else became of that row unseen is found.
#[test]
fn rows_that_were_only_looked_at_are_compared() {
    for repaired in [true, false] {
        let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE, v)");
        a.sql("INSERT INTO t VALUES (1, 'u', 'a')");
        settle(&mut [&mut a, &mut b]);
        drop_triggers(&a);
        a.sql("UPDATE t SET v = 'unseen'");
        a.with(|db| db.install(true)).unwrap();
        a.sql("INSERT OR IGNORE INTO t VALUES (2, 'u', 'ignored')");
        assert_eq!(marks(&a), "1");
        if repaired {
            assert_eq!(counts(&repair(&a, false)), (0, 0, 1, 0));
        }
        settle(&mut [&mut a, &mut b]);
        assert_eq!(b.rows("SELECT * FROM t"), ["1|u|unseen"], "repaired: {repaired}");
    }
}

/// A row that is on its way and changed again unseen is sent again, and one that was removed unseen goes.
#[test]
fn c82_what_is_on_its_way_and_changed_unseen() {
    for repaired in [true, false] {
        let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
        a.sql("INSERT INTO t VALUES (1, 'a'), (2, 'a'), (3, 'a')");
        settle(&mut [&mut a, &mut b]);
        a.sql("UPDATE t SET v = 'sealed'; INSERT INTO t VALUES (4, 'sealed')");
        a.seal();
        drop_triggers(&a);
        a.sql("UPDATE t SET v = 'unseen' WHERE id = 1; DELETE FROM t WHERE id IN (2, 4)");
        if repaired {
            assert_eq!(counts(&repair(&a, false)), (0, 2, 1, 1));
        }
        settle(&mut [&mut a, &mut b]);
        assert_eq!(b.rows("SELECT * FROM t"), ["1|unseen", "3|sealed"], "repaired: {repaired}");
    }
}

/// A row too large to be sent is held back, whatever was sealed of it before. Comparing comes to an end.
#[test]
fn c82_lost_triggers_beside_a_row_too_large() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    a.sql("INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    settle(&mut [&mut a, &mut b]);
    a.with(|db| db.limit_rows(1000));
    a.sql("UPDATE t SET v = 'sealed'");
    a.seal();
    a.sql("UPDATE t SET v = zeroblob(2000)");
    a.seal();
    drop_triggers(&a);
    a.sql("UPDATE t SET v = 'small' WHERE id = 2");
    for _ in 0..3 {
        a.publish();
        a.apply();
    }
    assert_eq!(a.with(|db| db.oversized()).unwrap().len(), 1);
    a.sql("DELETE FROM t WHERE id = 1");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM t"), ["2|small"]);
}

/// L is built of entries under a table's earlier name, and of columns that the table no longer has.
#[test]
fn a_table_of_another_name_and_fewer_columns_is_repaired() {
    let ddl = "CREATE TABLE old (id INTEGER PRIMARY KEY, v, w); CREATE TABLE s (id INTEGER PRIMARY KEY, w)";
    let (mut a, mut b) = pair(ddl);
    a.sql("INSERT INTO old VALUES (1, 'a', 'w'), (2, 'b', 'w'); INSERT INTO s VALUES (1, 'w')");
    settle(&mut [&mut a, &mut b]);
    for node in [&mut a, &mut b] {
        node.sql("ALTER TABLE old RENAME TO t; ALTER TABLE t DROP COLUMN w");
        node.publish();
    }
    settle(&mut [&mut a, &mut b]);
    drop_triggers(&a);
    a.sql("UPDATE t SET v = 'unseen' WHERE id = 1; DELETE FROM s");
    let repaired = repair(&a, false);
    let told: Vec<_> = repaired.iter().map(|one| (one.table.as_str(), one.changed, one.only_logged)).collect();
    assert_eq!(told, [("s", 0, 1), ("t", 1, 0)]);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|unseen", "2|b"]);
    assert_eq!(b.one("SELECT count(*) FROM s"), "0");
}

/// Where others' entries were passed over, their rows are missing, and that is no deletion.
#[test]
fn c83_a_table_made_anew_where_others_are_not_read() {
    let (log, ddl) = (Arc::default(), "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    let mut a = Node::new(&log, Setup::default(), ddl);
    let mut b = Node::new(&log, Setup { node: 2, replicate: false, ..Setup::default() }, ddl);
    a.sql("INSERT INTO t VALUES (1, 'a')");
    a.enter();
    a.publish();
    b.enter();
    b.sql("INSERT INTO t VALUES (2, 'b'), (3, 'b')");
    for _ in 0..3 {
        for node in [&mut a, &mut b] {
            node.publish();
            node.apply();
        }
    }
    assert!(b.with(|db| db.has_unread()));
    drop_triggers(&b);
    b.sql("UPDATE t SET v = 'unseen' WHERE id = 2; DELETE FROM t WHERE id = 3");
    b.publish();
    a.apply();
    assert_eq!(a.rows("SELECT * FROM t"), ["1|a", "2|b", "3|b"]);
    assert!(b.with(|db| db.has_marks()).unwrap(), "what changed there is not given up unasked");
    b.sql("UPDATE t SET v = 'b2' WHERE id = 2");
    b.publish();
    a.apply();
    assert_eq!(a.rows("SELECT * FROM t"), ["1|a", "2|b2", "3|b"]);
}

/// What is held back, or not compared yet, is a change that was not sent: no copy goes on as if there were none.
#[test]
fn changes_in_no_batch_and_no_mark_are_not_forgotten() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    a.sql("INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    settle(&mut [&mut a, &mut b]);
    assert!(!a.with(|db| db.has_marks()).unwrap());
    a.with(|db| db.limit_rows(1000));
    a.sql("UPDATE t SET v = zeroblob(2000) WHERE id = 1");
    a.seal();
    assert!(a.with(|db| db.has_marks()).unwrap());
    assert!(!a.with(|db| db.begin_life()).unwrap());
    a.sql("UPDATE t SET v = 'small' WHERE id = 1");
    settle(&mut [&mut a, &mut b]);
    assert!(!a.with(|db| db.has_marks()).unwrap());
    drop_triggers(&a);
    a.with(|db| db.install(true)).unwrap();
    assert!(!a.with(|db| db.begin_life()).unwrap());
    settle(&mut [&mut a, &mut b]);
    assert!(a.with(|db| db.begin_life()).unwrap());
}

/// Of marks that were given up nothing is left that later ones could be taken for.
#[test]
fn marks_that_were_given_up_leave_nothing_behind() {
    let setup = Setup { policies: vec![policy("u", "column-merge", ColumnMerge)], ..Setup::default() };
    let (mut a, mut b) = pair_with(&setup, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    let table = "CREATE TABLE u (id INTEGER PRIMARY KEY, x, y)";
    a.sql(&format!("{table}; INSERT INTO u VALUES (1, 'x0', 'y0')"));
    settle(&mut [&mut a]);
    // Rows that were there before the triggers are marked, and none of them was made upon a row of the log's.
    b.sql(&format!("{table}; INSERT INTO u VALUES (7, 0, 0), (8, 0, 0), (9, 0, 0)"));
    let log = b.log.clone();
    b.with(move |db| {
        db.install(true).unwrap();
        while db.scan().unwrap() {}
        let folder = tempfile::tempdir().unwrap();
        let scratch = folder.path().join("log.db");
        let agreed = Genesis {
            shards: 1,
            hasher: "test".to_owned(),
            hasher_settings: Vec::new(),
            resolver: "test".to_owned(),
            wire: 1,
            ..Genesis::default()
        };
        let work = || {
            futures::executor::block_on(join::force(
                db,
                &*log,
                &agreed,
                &scratch,
                join::Rows::DiscardLocal,
                Provenance::Copy,
                &mut Rescue::new(None, folder.path()),
                &mut |_| Ok(()),
            ))
        };
        std::thread::scope(|scope| scope.spawn(work).join().unwrap()).unwrap()
    });
    assert_eq!(b.rows("SELECT * FROM u"), ["1|x0|y0"]);
    a.sql("UPDATE u SET x = 'x1' WHERE id = 1");
    a.publish();
    b.sql("UPDATE u SET y = 'y1' WHERE id = 1");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(a.rows("SELECT * FROM u"), ["1|x1|y1"]);
}

/// Two thousand columns are as many as SQLite gives at once: the key is one of them, and not read besides.
#[test]
fn c82_the_widest_table_is_compared() {
    let columns = (1..2000).map(|n| format!("c{n}")).collect::<Vec<_>>().join(", ");
    let (mut a, mut b) = pair(&format!("CREATE TABLE t (id INTEGER PRIMARY KEY, {columns})"));
    a.sql("INSERT INTO t (id, c1) VALUES (1, 'x'), (2, 'y')");
    settle(&mut [&mut a, &mut b]);
    a.sql("DROP TRIGGER __antiphon__t_on_update; UPDATE t SET c1999 = 'unseen' WHERE id = 1");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT c1999 FROM t WHERE id = 1"), ["unseen"]);
    assert_eq!(counts(&repair(&a, true)), (0, 0, 0, 0));
}

/// A row that is on its way when its table is compared was made upon what this node had seen then, and what is added to it
/// next was made upon no more than that.
#[test]
fn c82_additions_upon_what_is_on_its_way_in_a_rebuilt_table() {
    let setup = Setup { policies: vec![policy("t", "counter", Counter::new(&["n"]))], ..Setup::default() };
    let (mut a, mut b) = pair_with(&setup, "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)");
    a.sql("INSERT INTO t VALUES (1, 0)");
    settle(&mut [&mut a, &mut b]);
    a.sql("UPDATE t SET n = n + 2");
    a.seal();
    b.sql("UPDATE t SET n = n + 10");
    b.publish();
    a.apply();
    assert_eq!(a.one("SELECT n FROM t"), "2", "what came stays behind what is on its way");
    a.sql("BEGIN; CREATE TABLE made (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO made SELECT * FROM t; DROP TABLE t; ALTER TABLE made RENAME TO t; COMMIT");
    a.publish();
    a.sql("UPDATE t SET n = n + 100");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.one("SELECT n FROM t"), "112");
}
