//! Tables that go and come back, are made anew, or are left out by the configuration for a while.

use antiphon::db::Filter;
use antiphon_core::entry::Body;
use antiphon_harness::{Counter, Dice, Node, Setup, found, pair, pair_with, policy, settle, trio};
use std::collections::BTreeMap;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v)";

/// The twelve steps of SQLite's manual, in one transaction; `rows` is what the new table takes from the old one.
fn rebuild(columns: &str, rows: &str) -> String {
    format!(
        "BEGIN; CREATE TABLE new_t ({columns}); INSERT INTO new_t {rows}; DROP TABLE t;
         ALTER TABLE new_t RENAME TO t; COMMIT"
    )
}

/// Rows and keys of `t` that a node's entries after the first `after` of the log brought.
fn sent(node: &Node, after: usize) -> (usize, usize) {
    let entries = node.log_entries(1).into_iter().skip(after);
    let chunks = entries.flat_map(|body| if let Body::Changes(changes) = body { changes.chunks } else { Vec::new() });
    chunks.fold((0, 0), |(written, gone), chunk| (written + chunk.written.len(), gone + chunk.gone.len()))
}

/// More tables than one look at the marks speaks of: a change to any of them is found, and a unit of many is whole.
#[test]
fn changes_are_found_in_each_of_very_many_tables() {
    const TABLES: usize = 230;
    let every = |sql: &dyn Fn(usize) -> String| (0..TABLES).map(sql).collect::<String>();
    let (mut a, mut b) = pair(&every(&|n| format!("CREATE TABLE t{n} (id INTEGER PRIMARY KEY, v);")));
    let sum = format!(
        "SELECT {}",
        (0..TABLES).map(|n| format!("(SELECT count(*) FROM t{n})")).collect::<Vec<_>>().join(" + ")
    );
    for n in [0, 99, 100, 199, 200, TABLES - 1] {
        a.sql(&format!("INSERT INTO t{n} VALUES (1, 'a')"));
        assert!(a.with(|db| db.is_dirty().unwrap()), "{n}");
        a.publish();
        assert!(!a.with(|db| db.is_dirty().unwrap()), "{n}");
    }
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.one(&sum), "6");
    b.sql(&format!("BEGIN; {} COMMIT", every(&|n| format!("INSERT INTO t{n} VALUES (2, 'b');"))));
    let before = b.log_entries(1).len();
    settle(&mut [&mut a, &mut b]);
    assert_eq!(a.one(&sum), (TABLES + 6).to_string());
    assert_eq!(b.log_entries(1).len(), before + 1, "one transaction is one entry");
}

fn filled() -> (Node, Node) {
    let (mut a, mut b) = pair(TABLE);
    a.sql("WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 20) INSERT INTO t SELECT i, 'v' || i FROM n");
    settle(&mut [&mut a, &mut b]);
    (a, b)
}

/// A rebuilt table sends the rows that differ, and those that the rebuild left out are gone everywhere.
#[test]
fn c82_a_rebuilt_table_sends_what_differs() {
    for up in [true, false] {
        let (mut a, mut b) = filled();
        let before = a.log_entries(1).len();
        let ddl = rebuild(
            "id INTEGER PRIMARY KEY, v TEXT",
            "SELECT id, CASE id WHEN 7 THEN 'new' ELSE v END FROM t WHERE id <> 3",
        );
        a.sql(&ddl);
        // A write between the rebuild and the host's next look at it is one of no trigger's.
        a.sql("UPDATE t SET v = 'unseen' WHERE id = 8; INSERT INTO t VALUES (21, 'v21')");
        if !up {
            a.crash();
        }
        settle(&mut [&mut a, &mut b]);
        assert_eq!(sent(&a, before), (3, 1), "up: {up}");
        assert_eq!(b.one("SELECT count(*) FROM t"), "20");
        assert_eq!(b.rows("SELECT v FROM t WHERE id IN (7, 8) ORDER BY id"), ["new", "unseen"]);
        assert_eq!(a.one("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'"), "4");
        a.sql("DELETE FROM t WHERE id = 9");
        b.sql("UPDATE t SET v = 'b' WHERE id = 10");
        settle(&mut [&mut a, &mut b]);
        assert_eq!(a.one("SELECT v FROM t WHERE id = 10"), "b");
    }
}

/// A rebuild upon changes that are on their way, of this node's and of another's.
#[test]
fn c82_a_rebuild_while_changes_are_on_their_way() {
    let (mut a, mut b) = filled();
    a.sql("UPDATE t SET v = 'sealed' WHERE id IN (1, 2, 3); INSERT INTO t VALUES (30, 'sealed')");
    a.seal();
    a.sql("UPDATE t SET v = 'marked' WHERE id IN (4, 5)");
    b.sql("UPDATE t SET v = 'b' WHERE id IN (2, 5, 6)");
    b.publish();
    a.sql(&rebuild("id INTEGER PRIMARY KEY, v", "SELECT id, v || '!' FROM t WHERE id NOT IN (3, 4, 30)"));
    settle(&mut [&mut a, &mut b]);
    assert_eq!(a.one("SELECT count(*) FROM t"), "18");
    assert_eq!(a.rows("SELECT v FROM t WHERE id < 8 ORDER BY id"), ["sealed!", "sealed!", "marked!", "v6!", "v7!"]);
}

/// While a table is compared, its rows are not written over, and what the application writes is not lost.
#[test]
fn c82_writes_while_a_rebuilt_table_is_compared() {
    let setup = Setup { changes_max: 5, ..Setup::default() };
    let (mut a, mut b) = pair_with(&setup, TABLE);
    a.sql("WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 50) INSERT INTO t SELECT i, i FROM n");
    settle(&mut [&mut a, &mut b]);
    a.sql(&rebuild("id INTEGER PRIMARY KEY, v", "SELECT id, v * 2 FROM t WHERE id <> 50"));
    for step in 1..=12 {
        b.sql(&format!("UPDATE t SET v = 'b{step}' WHERE id = {}", step + 30));
        b.publish();
        a.publish_step();
        a.sql(&format!("UPDATE t SET v = 'a{step}' WHERE id = {step}; INSERT INTO t VALUES ({}, 'a')", step + 100));
        a.apply();
        if step == 4 {
            a.crash();
        }
    }
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.one("SELECT count(*) FROM t"), "61");
    assert_eq!(b.one("SELECT count(*) FROM t WHERE v LIKE 'a%'"), "24");
}

/// A rebuild without a column that the log has values in, and with another.
#[test]
fn c82_a_rebuild_with_other_columns() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, v, w UNIQUE)");
    a.sql("INSERT INTO t VALUES (1, 'x', 1), (2, 'y', 2), (3, 'z', 3)");
    settle(&mut [&mut a, &mut b]);
    // An eviction of old, by a column that will be gone.
    a.sql("INSERT INTO t VALUES (4, 'a', 4)");
    b.sql("INSERT INTO t VALUES (5, 'b', 4)");
    settle(&mut [&mut a, &mut b]);
    let ddl = rebuild("id INTEGER PRIMARY KEY, v, n DEFAULT 7", "SELECT id, v, 7 FROM t");
    let before = a.log_entries(1).len();
    a.sql(&ddl);
    b.sql(&ddl);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(sent(&a, before), (0, 0));
    assert_eq!(a.one("SELECT count(*) FROM t"), "4");
}

/// Another key makes every row another one: all of them are sent.
#[test]
fn c82_a_rebuild_with_another_key_sends_all_rows() {
    let (mut a, mut b) = filled();
    let ddl = rebuild("id INTEGER, v TEXT PRIMARY KEY", "SELECT id, v FROM t");
    a.sql(&ddl);
    b.sql(&ddl);
    settle(&mut [&mut a, &mut b]);
    a.sql("DELETE FROM t WHERE v = 'v3'");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.one("SELECT count(*) FROM t"), "19");
}

/// Who loses triggers by someone's hand is compared as well: what was written meanwhile is in no mark.
#[test]
fn c82_lost_triggers() {
    for triggers in [&["on_update"][..], &["on_insert", "on_update", "on_move", "on_delete"]] {
        let (mut a, mut b) = filled();
        let before = a.log_entries(1).len();
        for trigger in triggers {
            a.sql(&format!("DROP TRIGGER __antiphon__t_{trigger}"));
        }
        a.sql("UPDATE t SET v = 'unseen' WHERE id = 1; DELETE FROM t WHERE id = 2");
        settle(&mut [&mut a, &mut b]);
        // The deletion that was marked may be sent twice.
        assert_eq!(sent(&a, before).0, 1);
        assert_eq!(b.rows("SELECT * FROM t WHERE id < 3"), ["1|unseen"]);
    }
}

/// A drop stays where it was made: the others go on, and other tables do here as well.
#[test]
fn c83_a_dropped_table_is_detached() {
    let (mut a, mut b, mut c) =
        trio("CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE other (id INTEGER PRIMARY KEY, v)");
    a.sql("INSERT INTO t VALUES (1, 'x'), (2, 'y')");
    settle(&mut [&mut a, &mut b, &mut c]);
    let position = b.with(|db| db.position(1).seq);
    b.sql("DROP TABLE t");
    a.sql("UPDATE t SET v = 'a'; INSERT INTO other VALUES (1, 'o')");
    for _ in 0..3 {
        for node in [&mut a, &mut b, &mut c] {
            node.publish();
            assert_eq!(node.apply(), None);
        }
    }
    for node in [&a, &c] {
        assert_eq!(node.rows("SELECT * FROM t"), ["1|a", "2|a"]);
    }
    assert_eq!(b.rows("SELECT * FROM other"), ["1|o"]);
    let detached = b.with(|db| db.detached());
    assert_eq!((detached[0].table.as_str(), detached[0].since.as_slice()), ("t", &[(1, position)][..]));
    b.crash();
    assert_eq!(b.with(|db| db.detached()), detached);

    // It comes back: the log's rows are written, and what the application has put in is its change.
    b.sql("CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (2, 'b'), (3, 'b')");
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(a.rows("SELECT * FROM t"), ["1|a", "2|b", "3|b"]);
    assert_eq!(b.with(|db| db.detached()), []);
}

/// A table that was dropped and made anew while the host was down is no deletion of all its rows.
#[test]
fn c83_dropped_and_made_anew_unseen() {
    let (mut a, mut b) = filled();
    b.sql(&format!("DROP TABLE t; {TABLE}; INSERT INTO t VALUES (1, 'seed'), (99, 'b')"));
    b.crash();
    settle(&mut [&mut a, &mut b]);
    assert_eq!(a.one("SELECT count(*) FROM t"), "21");
    assert_eq!(a.rows("SELECT v FROM t WHERE id IN (1, 2, 99) ORDER BY id"), ["seed", "v2", "b"]);
}

/// Changes of this node's that were on their way when it dropped the table come back with the others' rows.
#[test]
fn c83_pending_changes_of_a_dropped_table() {
    for before_echo in [true, false] {
        let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE)");
        a.sql("INSERT INTO t VALUES (1, 'x')");
        settle(&mut [&mut a, &mut b]);
        b.sql("INSERT INTO t VALUES (2, 'y')");
        b.seal();
        b.sql("DROP TABLE t");
        b.publish();
        if before_echo {
            b.sql("CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE); INSERT INTO t VALUES (3, 'x')");
            b.publish();
            settle(&mut [&mut a, &mut b]);
        } else {
            assert_eq!(b.apply(), None);
            b.sql("CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE); INSERT INTO t VALUES (3, 'x')");
            settle(&mut [&mut a, &mut b]);
        }
        assert_eq!(a.rows("SELECT * FROM t"), ["2|y", "3|x"]);
    }
}

/// What another node still sends under a table's old name belongs to the table of the new name.
#[test]
fn c81_entries_under_a_renamed_tables_old_name() {
    let (mut a, mut b) = filled();
    a.sql("UPDATE t SET v = 'a' WHERE id = 1");
    a.publish();
    b.sql("UPDATE t SET v = 'b' WHERE id IN (1, 2)");
    b.seal();
    b.sql("ALTER TABLE t RENAME TO t2");
    b.publish();
    assert_eq!(b.apply(), None);
    assert_eq!(b.rows("SELECT v FROM t2 WHERE id < 3"), ["b", "b"]);
    a.apply();
    a.sql("ALTER TABLE t RENAME TO t2");
    settle(&mut [&mut a, &mut b]);
    b.crash();
    b.sql("ALTER TABLE t2 RENAME TO t3; DELETE FROM t3 WHERE id = 4");
    a.sql("UPDATE t2 SET v = 'late' WHERE id = 3");
    a.publish();
    a.sql("ALTER TABLE t2 RENAME TO t3");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.one("SELECT v FROM t3 WHERE id = 3"), "late");
    // The whole log is needed to compare it, entries under all three names.
    b.sql("BEGIN; CREATE TABLE n (id INTEGER PRIMARY KEY, v); INSERT INTO n SELECT * FROM t3 WHERE id <> 5; DROP TABLE t3; ALTER TABLE n RENAME TO t3; COMMIT");
    let before = b.log_entries(1).len();
    settle(&mut [&mut a, &mut b]);
    assert_eq!(sent(&b, before), (0, 1));
}

/// A table that is left out for a while has no triggers, and comes in again as one that was gone.
#[test]
fn c83_a_table_that_is_excluded_and_included_again() {
    let (mut a, mut b) = filled();
    let without = Filter::new(&[], &["T".to_owned()]).unwrap();
    b.set_filter(without);
    b.crash();
    b.sql("UPDATE t SET v = 'only here' WHERE id = 1");
    a.sql("UPDATE t SET v = 'a' WHERE id = 2; INSERT INTO t VALUES (21, 'a')");
    for node in [&mut a, &mut b] {
        node.publish();
    }
    assert_eq!(b.apply(), None);
    assert_eq!(b.one("SELECT v FROM t WHERE id = 2"), "v2");
    assert_eq!(b.one("SELECT count(*) FROM sqlite_schema WHERE name LIKE '%antiphon\\_\\_t\\_%' ESCAPE '\\'"), "0");
    b.set_filter(Filter::default());
    b.crash();
    settle(&mut [&mut a, &mut b]);
    // A row that both have and that differs: nobody can tell whose is later, and the file's own is kept.
    assert_eq!(a.rows("SELECT v FROM t WHERE id IN (1, 2, 21) ORDER BY id"), ["only here", "v2", "a"]);
}

/// A table that was never included here has rows of its own and missed the others': both are kept.
#[test]
fn c83_a_table_that_is_included_later() {
    let setup = Setup { filter: Filter::new(&["u".to_owned()], &[]).unwrap(), ..Setup::default() };
    let (mut a, mut b) =
        pair_with(&setup, "CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE u (id INTEGER PRIMARY KEY, v)");
    b.sql("INSERT INTO t VALUES (1, 'b')");
    a.sql("INSERT INTO t VALUES (2, 'a'); INSERT INTO u VALUES (1, 'a')");
    for node in [&mut a, &mut b] {
        node.publish();
        node.apply();
    }
    for node in [&mut a, &mut b] {
        node.set_filter(Filter::default());
    }
    a.crash();
    a.publish();
    b.apply();
    assert_eq!(b.rows("SELECT * FROM t"), ["1|b"]);
    b.crash();
    settle(&mut [&mut a, &mut b]);
    assert_eq!(a.rows("SELECT * FROM t"), ["1|b", "2|a"]);
}

/// What another system keeps in the file for itself is nobody's data.
#[test]
fn c97_harmonylites_own_tables_are_left_out() {
    let (mut a, mut b) = pair(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE __harmonylite__t_change_log (id INTEGER PRIMARY KEY, val_id)",
    );
    a.sql("INSERT INTO t VALUES (1, 'x'); INSERT INTO __harmonylite__t_change_log VALUES (1, 1)");
    for node in [&mut a, &mut b] {
        node.publish();
        assert_eq!(node.apply(), None);
    }
    assert_eq!(b.one("SELECT count(*) FROM t"), "1");
    assert_eq!(b.one("SELECT count(*) FROM __harmonylite__t_change_log"), "0");
}

/// Three nodes write while their tables are made anew and lose triggers, with crashes between: each row that one node alone
/// writes ends as that node left it, and sums are exact.
#[test]
fn c82_any_history_of_rebuilds_ends_equal() {
    // More of them: REBUILDS=1000.
    let most = std::env::var("REBUILDS").map_or(12, |most| most.parse().unwrap());
    for seed in (1..=most).chain([242]) {
        let mut dice = Dice::new(seed);
        let sizes = [2, 3, 5, 10_000];
        let setup = Setup {
            shards: *dice.pick(&[1, 1, 1, 2]),
            changes_max: *dice.pick(&sizes),
            policies: vec![policy("s", "counter", Counter::new(&["n"]))],
            ..Setup::default()
        };
        let log = std::sync::Arc::new(antiphon::log::Memory::new());
        let mut nodes = [1, 2, 3].map(|node| Node::new(&log, Setup { node, ..setup.clone() }, MADE_ANEW));
        {
            let [a, b, c] = &mut nodes;
            found(&mut [a, b, c]);
        }
        let mut own: BTreeMap<(&str, u64), Option<u64>> = BTreeMap::new();
        let mut sums = [0; 3];
        nodes[0].sql("INSERT INTO s VALUES (0, 0), (1, 0), (2, 0)");
        for (at, node) in nodes.iter_mut().enumerate() {
            for id in (0..6).map(|id| id + 100 * at as u64) {
                node.sql(&format!("INSERT INTO t VALUES ({id}, 0); INSERT INTO u VALUES ({id}, 'u{id}', 0)"));
                own.extend([(("t", id), Some(0)), (("u", id), Some(0))]);
            }
        }
        {
            let [a, b, c] = &mut nodes;
            settle(&mut [a, b, c]);
        }
        for step in 1..=90 {
            let at = usize::try_from(dice.below(3)).unwrap();
            let node = &mut nodes[at];
            let table = *dice.pick(&["t", "u"]);
            let (id, other) = (dice.below(6) + 100 * at as u64, dice.below(6) + 100 * at as u64);
            let act = dice.below(20);
            let sql = match act {
                0..=3 => {
                    own.insert((table, id), Some(step));
                    match table {
                        "t" => format!("REPLACE INTO t VALUES ({id}, {step})"),
                        _ => format!("INSERT INTO u VALUES ({id}, 'n{step}', {step}) ON CONFLICT (id) DO UPDATE SET v = {step}"),
                    }
                }
                4 => {
                    own.insert((table, id), None);
                    format!("DELETE FROM {table} WHERE id = {id}")
                }
                5 if id != other => format!(
                    "BEGIN; UPDATE u SET x = 's{step}' WHERE id = {id}; UPDATE OR IGNORE u SET x = 'u{id}' WHERE id = {other};
                     UPDATE OR IGNORE u SET x = 'u{other}' WHERE id = {id}; COMMIT"
                ),
                6 | 7 => {
                    let row = usize::try_from(dice.below(3)).unwrap();
                    sums[row] += step;
                    format!("UPDATE s SET n = n + {step} WHERE id = {row}")
                }
                8 => {
                    let table = *dice.pick(&["t", "u", "s"]);
                    let sets: [&[&str]; 4] =
                        [&["on_insert"], &["on_update"], &["on_delete"], &["on_insert", "on_update", "on_delete", "on_move"]];
                    dice.pick(&sets).iter().map(|event| format!("DROP TRIGGER IF EXISTS __antiphon__{table}_{event};")).collect()
                }
                9 => {
                    let table = *dice.pick(&["t", "u", "s"]);
                    let left_out = if table != "s" && dice.below(2) == 0 { own.insert((table, id), None); id } else { 999 };
                    let columns = node.one(&format!("SELECT substr(sql, instr(sql, '(')) FROM sqlite_schema WHERE name = '{table}'"));
                    format!(
                        "BEGIN; CREATE TABLE made {columns}; INSERT INTO made SELECT * FROM {table} WHERE id <> {left_out};
                         DROP TABLE {table}; ALTER TABLE made RENAME TO {table}; COMMIT"
                    )
                }
                10 => { node.crash(); "crash".to_owned() }
                11 | 12 => { let _ = node.publish_step(); "step".to_owned() }
                13 => { node.publish(); "publish".to_owned() }
                14 => { node.with(|db| db.seal()).unwrap(); "seal".to_owned() }
                15 => { node.apply_next(1, 1); "next".to_owned() }
                _ => { node.apply(); "apply".to_owned() }
            };
            if sql.contains(' ') {
                node.sql(&sql);
            }
        }
        let [a, b, c] = &mut nodes;
        for _ in 0..6 {
            for node in [&mut *a, &mut *b, &mut *c] {
                node.publish();
                assert_eq!(node.apply(), None, "seed {seed}");
            }
        }
        settle(&mut [a, b, c]);
        for ((table, id), value) in own {
            let expected: Vec<String> = value.iter().map(u64::to_string).collect();
            assert_eq!(
                a.rows(&format!("SELECT v FROM {table} WHERE id = {id}")),
                expected,
                "seed {seed}: row {id} of {table}"
            );
        }
        assert_eq!(a.rows("SELECT n FROM s ORDER BY id"), sums.map(|sum| sum.to_string()), "seed {seed}");
    }
}

const MADE_ANEW: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);
    CREATE TABLE u (id INTEGER PRIMARY KEY, x UNIQUE, v); CREATE TABLE s (id INTEGER PRIMARY KEY, n INTEGER)";
