//! Deletes that SQLite makes by itself: cascades, and their order.

use antiphon_harness::{Setup, pair, pair_with, settle, trio};

/// A cascade ran where the row was deleted; its deletes arrive as rows and must not run it again.
#[test]
fn c42_cascades_are_applied_once() {
    let (mut a, mut b) = pair(
        "CREATE TABLE top (id INTEGER PRIMARY KEY);
         CREATE TABLE mid (id INTEGER PRIMARY KEY, top REFERENCES top ON DELETE CASCADE ON UPDATE CASCADE);
         CREATE TABLE leaf (id INTEGER PRIMARY KEY, mid REFERENCES mid ON DELETE CASCADE);
         CREATE TABLE tree (id INTEGER PRIMARY KEY, up REFERENCES tree ON DELETE CASCADE);
         CREATE TABLE gone (id INTEGER PRIMARY KEY, what);
         CREATE TRIGGER t AFTER DELETE ON leaf BEGIN INSERT INTO gone (what) VALUES ('leaf ' || OLD.id); END;",
    );
    for node in [&a, &b] {
        node.sql("PRAGMA foreign_keys = ON");
    }
    a.sql(
        "INSERT INTO top VALUES (1), (2); INSERT INTO mid VALUES (1, 1), (2, 1), (3, 2);
         INSERT INTO leaf VALUES (1, 1), (2, 1), (3, 2), (4, 3);
         INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2), (4, 3), (5, NULL), (6, 5)",
    );
    settle(&mut [&mut a, &mut b]);
    a.sql("DELETE FROM top WHERE id = 1; DELETE FROM tree WHERE id = 1; UPDATE top SET id = 22 WHERE id = 2");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM top"), ["22"]);
    assert_eq!(b.rows("SELECT * FROM mid"), ["3|22"]);
    assert_eq!(b.rows("SELECT * FROM leaf"), ["4|3"]);
    assert_eq!(b.rows("SELECT id FROM tree"), ["5", "6"]);
    assert_eq!(b.one("SELECT count(*) FROM gone"), "3", "the trigger ran at the origin, and only there");
    assert_eq!(b.rows("PRAGMA foreign_key_check"), [""; 0]);
}

/// A child may arrive in another shard before its parent.
#[test]
fn c43_a_child_may_come_before_its_parent() {
    let setup = Setup { shards: 4, ..Setup::default() };
    let (mut a, mut b) = pair_with(
        &setup,
        "CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE child (id INTEGER PRIMARY KEY, p NOT NULL REFERENCES parent)",
    );
    for node in [&a, &b] {
        node.sql("PRAGMA foreign_keys = ON");
    }
    for id in 1..=20 {
        a.sql(&format!("BEGIN; INSERT INTO parent VALUES ({id}); INSERT INTO child VALUES ({id} + 1, {id}); COMMIT"));
    }
    a.publish();
    // Shard after shard, the last one first: some child is there before its parent.
    let mut orphans = 0;
    for shard in (1..=4).rev() {
        let applied = b.apply_next(shard, usize::MAX);
        assert_eq!(applied.stop, None);
        orphans += b.rows("PRAGMA foreign_key_check").len();
    }
    assert!(orphans > 0, "this test must see what it speaks of");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("PRAGMA foreign_key_check"), [""; 0]);
    assert_eq!(b.one("SELECT count(*) FROM child"), "20");
}

/// A row is deleted on one node and changed on another: what comes later in the log holds, on all nodes.
#[test]
fn c40_a_delete_against_an_update() {
    for delete_first in [true, false] {
        let (mut a, mut b, mut c) = trio("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
        a.sql("INSERT INTO t VALUES (1, 'x'), (2, 'y')");
        settle(&mut [&mut a, &mut b, &mut c]);
        a.sql("DELETE FROM t WHERE id = 1");
        b.sql("UPDATE t SET v = 'new' WHERE id = 1");
        if delete_first {
            a.publish();
        } else {
            b.publish();
        }
        settle(&mut [&mut a, &mut b, &mut c]);
        // The update brings the whole row back; the delete takes the changed one away.
        let expected = if delete_first { vec!["1|new", "2|y"] } else { vec!["2|y"] };
        let winner = if delete_first { 2 } else { 1 };
        for node in [&a, &b, &c] {
            assert_eq!(node.rows("SELECT * FROM t"), expected, "delete first: {delete_first}");
            assert_eq!(node.conflicts(), [format!("t|same-key|{winner}")]);
        }
    }
}

/// A parent goes while another node gives it a child: the orphan is the same everywhere, and SQLite names it.
#[test]
fn c44_orphans_are_the_same_on_all_nodes() {
    for cascade in ["", " ON DELETE CASCADE"] {
        for child_first in [true, false] {
            let (mut a, mut b, mut c) = trio(&format!(
                "CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE child (id INTEGER PRIMARY KEY, p REFERENCES parent{cascade})"
            ));
            for node in [&a, &b, &c] {
                node.sql("PRAGMA foreign_keys = ON");
            }
            a.sql("INSERT INTO parent VALUES (1), (2)");
            settle(&mut [&mut a, &mut b, &mut c]);
            a.sql("DELETE FROM parent WHERE id = 1");
            b.sql("INSERT INTO child VALUES (10, 1), (20, 2)");
            if child_first {
                b.publish();
            } else {
                a.publish();
            }
            settle(&mut [&mut a, &mut b, &mut c]);
            for node in [&a, &b, &c] {
                assert_eq!(node.rows("SELECT id FROM child ORDER BY id"), ["10", "20"]);
                assert_eq!(node.rows("PRAGMA foreign_key_check"), ["child|10|parent|0"], "{cascade} {child_first}");
            }
        }
    }
}
