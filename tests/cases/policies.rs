//! Tables with a policy of their own: concurrent changes are decided by the resolver, the same on every node.

use antiphon::clock::testing::set;
use antiphon_harness::{
    ColumnMerge, Counter, Dice, FirstWriteWins, NewestWins, Node, NodePriority, Setup, append_floor, pair_with, policy,
    settle, trio_with,
};

const STOCK: &str = "CREATE TABLE stock (id INTEGER PRIMARY KEY, a, b, n INTEGER)";

fn merging() -> Setup {
    Setup { policies: vec![policy("stock", "column-merge", ColumnMerge)], ..Setup::default() }
}

fn counting() -> Setup {
    Setup { policies: vec![policy("stock", "counter", Counter::new(&["n"]))], ..Setup::default() }
}

/// Three nodes that all have `stock(1)` with these values.
fn stocked(setup: &Setup, values: &str) -> (Node, Node, Node) {
    let (mut a, mut b, mut c) = trio_with(setup, STOCK);
    a.sql(&format!("INSERT INTO stock VALUES (1, {values})"));
    settle(&mut [&mut a, &mut b, &mut c]);
    (a, b, c)
}

fn stock(node: &Node) -> Vec<String> {
    node.rows("SELECT * FROM stock ORDER BY id")
}

/// What every node recorded, but for the rows' images.
fn records(node: &Node) -> Vec<String> {
    node.rows(
        "SELECT shard, seq, tbl, hex(key), cause, resolver, verdict, winner_node, loser_node, hex(winner), hex(loser), hex(merged)
         FROM __antiphon___conflict ORDER BY shard, seq, id",
    )
}

fn agree_on_records(nodes: &[&Node]) -> Vec<String> {
    let first = records(nodes[0]);
    for node in nodes {
        assert_eq!(records(node), first);
    }
    first
}

#[test]
fn changes_to_different_columns_are_merged() {
    let (mut a, mut b, mut c) = stocked(&merging(), "'a0', 'b0', 0");
    a.sql("UPDATE stock SET a = 'a1'");
    b.sql("UPDATE stock SET b = 'b1'");
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(stock(&a), ["1|a1|b1|0"]);
    assert_eq!(agree_on_records(&[&a, &b, &c]).len(), 1);
}

#[test]
fn additions_on_every_node_are_summed() {
    let (mut a, mut b, mut c) = stocked(&counting(), "'a', 'b', 100");
    for round in 1..4 {
        for (node, by) in [(&a, 5), (&b, 3), (&c, -2)] {
            node.sql(&format!("UPDATE stock SET n = n + {by}; UPDATE stock SET n = n + {round}"));
            node.seal();
            node.sql("UPDATE stock SET n = n + 1");
        }
    }
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(stock(&a), [format!("1|a|b|{}", 100 + 3 * (5 + 3 - 2) + 3 * (1 + 2 + 3) + 9)]);
    agree_on_records(&[&a, &b, &c]);
}

/// An application's trigger that touches the row again runs before the AFTER triggers of capture.
#[test]
fn c46_additions_are_exact_beside_an_updated_at_trigger() {
    let (mut a, mut b, mut c) = stocked(&counting(), "'a', 'b', 10");
    for node in [&a, &b, &c] {
        node.sql("CREATE TRIGGER touch AFTER UPDATE OF n ON stock BEGIN UPDATE stock SET a = 'touched' WHERE id = NEW.id; END");
    }
    a.sql("UPDATE stock SET n = n + 5");
    b.sql("UPDATE stock SET n = n + 7");
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(stock(&a), ["1|touched|b|22"]);
}

#[test]
fn the_first_write_stays() {
    let setup = Setup { policies: vec![policy("stock", "first-write-wins", FirstWriteWins)], ..Setup::default() };
    let (mut a, mut b, mut c) = trio_with(&setup, STOCK);
    // A change that was kept out must not hide a later one: the stamp does not move.
    a.sql("INSERT INTO stock VALUES (1, 'first', NULL, 1)");
    a.publish();
    b.sql("INSERT INTO stock VALUES (1, 'second', NULL, 9)");
    b.publish();
    a.apply_next(1, 2);
    a.sql("UPDATE stock SET n = 2");
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(stock(&a), ["1|first|NULL|2"]);
    let records = agree_on_records(&[&a, &b, &c]);
    assert!(records.len() == 1 && records[0].contains("|first-write-wins|keep|1|2|"), "{records:?}");
}

#[test]
fn the_named_node_wins() {
    let setup =
        Setup { policies: vec![policy("stock", "node-priority", NodePriority::new(&["2", "1"]))], ..Setup::default() };
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let (a, b, c) = stocked(&setup, "'a', 'b', 0");
        let mut nodes = [a, b, c];
        for (at, node) in nodes.iter().enumerate() {
            node.sql(&format!("UPDATE stock SET n = {}", at + 1));
        }
        for at in order {
            nodes[at].publish();
        }
        let [a, b, c] = &mut nodes;
        settle(&mut [a, b, c]);
        assert_eq!(stock(a), ["1|a|b|2"], "{order:?}");
    }
}

/// The newest write stands though its node comes to the log last, or first.
#[test]
fn the_newest_write_stands_wherever_it_is_in_the_log() {
    for order in [[0, 1], [1, 0]] {
        let setup = Setup { policies: vec![policy("stock", "newest-wins", NewestWins::default())], ..Setup::default() };
        let (a, b, mut c) = stocked(&setup, "'a', 'b', 0");
        let mut nodes = [a, b];
        nodes[0].sql("UPDATE stock SET n = 1");
        std::thread::sleep(std::time::Duration::from_millis(5));
        nodes[1].sql("UPDATE stock SET n = 2");
        for at in order {
            nodes[at].publish();
        }
        let [a, b] = &mut nodes;
        settle(&mut [a, b, &mut c]);
        assert_eq!(stock(a), ["1|a|b|2"], "{order:?}");
        agree_on_records(&[a, b, &c]);
    }
}

/// Both orders of a delete and an update, by policy: a concurrent change beats a delete where rows are merged, the
/// first stays where the first wins.
#[test]
fn c40_delete_against_update() {
    let setups = [
        (merging(), ["1|a|b|7", "1|a|b|7"]),
        (counting(), ["1|a|b|7", "1|a|b|7"]),
        (
            Setup { policies: vec![policy("stock", "first-write-wins", FirstWriteWins)], ..Setup::default() },
            ["", "1|a|b|7"],
        ),
        (Setup::default(), ["1|a|b|7", ""]),
    ];
    for (setup, expected) in setups {
        for (order, expected) in [[0, 1], [1, 0]].into_iter().zip(expected) {
            let (a, b, mut c) = stocked(&setup, "'a', 'b', 0");
            let mut nodes = [a, b];
            nodes[0].sql("DELETE FROM stock");
            nodes[1].sql("UPDATE stock SET n = 7");
            for at in order {
                nodes[at].publish();
            }
            let [a, b] = &mut nodes;
            settle(&mut [a, b, &mut c]);
            assert_eq!(stock(a).join(","), expected, "{order:?}");
            let records = agree_on_records(&[a, b, &c]);
            assert_eq!(records.len(), 1, "{records:?}");
        }
    }
}

/// Puts the clock back to the machine's when a test ends.
struct Skewed;

impl Drop for Skewed {
    fn drop(&mut self) {
        set(None);
    }
}

/// A node was away for long with a change of its own; the row it changed was deleted since, and that was after it by the
/// clock. The stamp of a deleted row stays for good, so no row rises from the dead, on any node.
#[test]
fn c41_an_old_update_brings_no_deleted_row_back() {
    const NOW: u64 = 1_700_000_000_000;
    const DAY: u64 = 86_400_000;
    let _skewed = Skewed;
    set(Some(NOW));
    for later in [false, true] {
        let setup = Setup { policies: vec![policy("stock", "newest-wins", NewestWins::default())], ..Setup::default() };
        let (mut a, mut b, mut c) = stocked(&setup, "'a', 'b', 0");
        set(Some(NOW + if later { 100 * DAY } else { 1000 }));
        b.sql("UPDATE stock SET n = 1");
        set(Some(NOW + 2000));
        a.sql("DELETE FROM stock");
        settle(&mut [&mut a, &mut c]);
        // Many changes of other rows, starts, and all that housekeeping takes away.
        for day in 1..=30 {
            set(Some(NOW + day * DAY));
            a.sql(&format!("INSERT INTO stock VALUES ({day} + 1, 'a', 'b', 0); DELETE FROM stock WHERE id = {day}"));
            settle(&mut [&mut a, &mut c]);
            let due = antiphon::db::Due { before_ms: u64::MAX, excess_bytes: u64::MAX };
            a.with(move |db| db.prune(due, u64::MAX).unwrap());
            a.crash();
        }
        set(Some(NOW + 200 * DAY));
        settle(&mut [&mut a, &mut b, &mut c]);
        let expected = if later { vec!["1|a|b|1", "31|a|b|0"] } else { vec!["31|a|b|0"] };
        assert_eq!(stock(&b), expected);
        agree_on_records(&[&a, &b, &c]);
    }
}

/// A floor forgets for all nodes at one place of the log: whether a node has removed the stamps at or below it, or still
/// has them, it decides alike.
#[test]
fn c41_stamps_below_the_floor_may_go_on_any_node_at_any_time() {
    let of = |policy| Setup { policies: vec![policy], ..Setup::default() };
    let policies = [
        merging(),
        counting(),
        of(policy("stock", "first-write-wins", FirstWriteWins)),
        of(policy("stock", "newest-wins", NewestWins::default())),
        of(policy("stock", "node-priority", NodePriority::new(&["2", "1"]))),
    ];
    let (mut floors, mut removed) = (0, 0);
    for setup in &policies {
        let name = setup.policies[0].1;
        for seed in 1..=12 {
            let (a, b, c) = trio_with(&Setup { changes_max: 5, ..setup.clone() }, STOCK);
            let mut nodes = [a, b, c];
            let (mut dice, mut number) = (Dice::new(seed), 0);
            for step in 0..120 {
                let node = &mut nodes[usize::try_from(dice.below(3)).unwrap()];
                let id = dice.below(4);
                node.sql(&match dice.below(5) {
                    0 => format!("DELETE FROM stock WHERE id = {id}"),
                    1 => format!("UPDATE stock SET a = {step} WHERE id = {id}"),
                    2 => format!("UPDATE stock SET n = n + {step}, b = {step} WHERE id >= {id}"),
                    _ => format!("INSERT OR REPLACE INTO stock VALUES ({id}, {step}, 'b', {step})"),
                });
                match dice.below(9) {
                    0 | 1 => drop(node.publish_step()),
                    2 => node.seal(),
                    3 | 4 => drop(node.apply_next(1, 2)),
                    5 => assert_eq!(node.apply(), None),
                    6 => {
                        // Whatever it forgets: below what all have read, or in the midst of what they have not.
                        let floor = node.with(|db| db.position(1).seq).saturating_sub(dice.below(4));
                        number += 1;
                        append_floor(&node.log, 1, number, floor);
                        floors += 1;
                    }
                    7 => {
                        let sql = "DELETE FROM __antiphon___stamp WHERE seq <= (SELECT max(floor) FROM __antiphon___position)";
                        removed += node.app.execute(sql, []).unwrap();
                    }
                    _ if dice.below(3) == 0 => node.crash(),
                    _ => {}
                }
            }
            let [a, b, c] = &mut nodes;
            settle(&mut [a, b, c]);
            assert_eq!(records(a), records(b), "{name}, seed {seed}");
            assert_eq!(records(a), records(c), "{name}, seed {seed}");
        }
    }
    assert!(floors > 300 && removed > 100, "{floors} floors, {removed} stamps removed");
}

// The smallest histories that break one rule each.

#[test]
fn seen_is_per_change() {
    let (mut a, mut b, mut c) = stocked(&merging(), "'a0', 'b0', 0");
    b.sql("UPDATE stock SET b = 'b2'");
    b.seal();
    a.sql("UPDATE stock SET a = 'a1'");
    a.publish();
    b.apply();
    b.sql("UPDATE stock SET b = 'b13'");
    b.seal();
    b.publish();
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(stock(&a), ["1|a1|b13|0"]);
}

#[test]
fn a_stamp_remembers_the_last_change_by_anyone_else() {
    let (mut a, mut b, mut c) = stocked(&merging(), "'a0', 'b0', 0");
    b.sql("UPDATE stock SET b = 'b5'");
    b.seal();
    b.sql("UPDATE stock SET b = 'b8'");
    b.seal();
    a.sql("UPDATE stock SET a = 'a6'");
    a.publish();
    // Node b has not read it when both of its changes go out.
    b.with(|db| assert!(db.position(1).seq > 0));
    b.publish();
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(stock(&a), ["1|a6|b8|0"]);
}

#[test]
fn what_is_pending_is_not_what_the_log_says() {
    let (mut a, mut b, mut c) = stocked(&counting(), "'a', 'b', 0");
    a.sql("UPDATE stock SET n = n + 5");
    c.sql("UPDATE stock SET n = n + 5");
    c.seal();
    a.publish();
    c.apply();
    c.sql("UPDATE stock SET n = n + 1");
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(stock(&a), ["1|a|b|11"]);
}

#[test]
fn a_change_is_made_upon_this_nodes_own_last_one() {
    let (mut a, mut b, mut c) = stocked(&counting(), "'a', 'b', 0");
    a.sql("UPDATE stock SET n = n + 2");
    a.publish();
    b.sql("UPDATE stock SET n = n + 5");
    b.seal();
    b.sql("UPDATE stock SET n = n + 1");
    b.seal();
    b.publish();
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(stock(&a), ["1|a|b|8"]);
}

#[test]
fn a_row_is_replaced_upon_the_one_that_was_there() {
    let (mut a, mut b, mut c) = stocked(&counting(), "'a', 'b', 10");
    b.sql("UPDATE stock SET n = n + 1");
    b.publish();
    a.sql("REPLACE INTO stock VALUES (1, 'a', 'b', 12)");
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(stock(&a), ["1|a|b|13"]);
}

#[test]
fn a_row_that_came_and_went_between_two_seals_is_no_change() {
    let setup = Setup { changes_max: 1, ..merging() };
    let (mut a, mut b, mut c) = trio_with(&setup, STOCK);
    a.sql("BEGIN; INSERT INTO stock VALUES (1, 1, 1, 1); INSERT INTO stock VALUES (2, 2, 2, 2); INSERT INTO stock VALUES (3, 3, 3, 3);
           UPDATE stock SET n = 5 WHERE id = 2; DELETE FROM stock WHERE id = 1; COMMIT");
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(stock(&b), ["2|2|2|5", "3|3|3|3"]);
    assert_eq!(a.one("SELECT count(*) FROM __antiphon___stamp"), "2");
}

/// Pieces of one unit hold a key twice when it was marked on both sides of a cut: it counts once.
#[test]
fn pieces_of_a_unit_count_an_addition_once() {
    let setup = Setup { changes_max: 1, ..counting() };
    let (mut a, mut b, mut c) = stocked(&setup, "'a', 'b', 0");
    b.sql("UPDATE stock SET n = n + 100");
    b.publish();
    a.sql(
        "BEGIN; UPDATE stock SET n = n + 1; INSERT INTO stock VALUES (2, 0, 0, 0); UPDATE stock SET n = n + 1;
           INSERT OR IGNORE INTO stock VALUES (1, 'x', 'x', 99); UPDATE stock SET n = n + 1 WHERE id = 1; COMMIT",
    );
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(stock(&c), ["1|a|b|103", "2|0|0|1"]);
}

#[test]
fn a_key_that_moves_is_made_upon_nothing_and_leaves_what_it_was() {
    let (mut a, mut b, mut c) = stocked(&merging(), "'a0', 'b0', 0");
    b.sql("UPDATE stock SET b = 'b1'");
    b.publish();
    a.sql("UPDATE stock SET id = 2");
    settle(&mut [&mut a, &mut b, &mut c]);
    // The move deletes the old key, and a change made meanwhile beats a delete.
    assert_eq!(stock(&c), ["1|a0|b1|0", "2|a0|b0|0"]);
}

#[test]
fn a_crash_at_any_point_keeps_sums_exact() {
    for point in ["begin", "seal", "sealed", "commit", "committed", "append", "appended", "apply", "applied"] {
        let (mut a, mut b, mut c) = stocked(&counting(), "'a', 'b', 0");
        for round in 0..3 {
            for node in [&mut a, &mut b] {
                node.sql("UPDATE stock SET n = n + 1");
                node.dying_at(point, round + 1, |node| node.try_round());
                node.crash();
                node.sql("UPDATE stock SET n = n + 1");
            }
        }
        settle(&mut [&mut a, &mut b, &mut c]);
        assert_eq!(stock(&c), ["1|a|b|12"], "{point}");
        agree_on_records(&[&a, &b, &c]);
    }
}

/// Columns that the origin does not have keep what they have, and the resolver does not see them.
#[test]
fn c84_a_resolver_sees_the_columns_that_both_have() {
    let (mut a, mut b, mut c) = stocked(&merging(), "'a0', 'b0', 0");
    b.sql("ALTER TABLE stock ADD COLUMN extra; UPDATE stock SET extra = 'kept', a = 'a1'");
    b.seal();
    a.sql("UPDATE stock SET b = 'b1'");
    a.publish();
    b.publish();
    assert!(a.apply().is_some_and(|why| why.contains("`extra`")));
    for node in [&a, &c] {
        node.sql("ALTER TABLE stock ADD COLUMN extra");
    }
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(stock(&a), ["1|a1|b1|0|kept"]);
    agree_on_records(&[&a, &b, &c]);
}

/// Evictions by a UNIQUE value go by the order of the log under any policy, and move the stamps of those who go.
#[test]
fn c22_unique_values_under_a_policy() {
    let setup = Setup { policies: vec![policy("*", "column-merge", ColumnMerge)], ..Setup::default() };
    let (mut a, mut b, mut c) = trio_with(&setup, "CREATE TABLE stock (id INTEGER PRIMARY KEY, u UNIQUE, n)");
    a.sql("INSERT INTO stock VALUES (1, 'x', 1)");
    b.sql("INSERT INTO stock VALUES (2, 'x', 2)");
    c.sql("INSERT INTO stock VALUES (3, 'y', 3); UPDATE stock SET u = 'x' WHERE id = 3");
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(stock(&a), ["3|x|3"]);
    assert_eq!(agree_on_records(&[&a, &b, &c]).len(), 2);
    a.sql("BEGIN; INSERT INTO stock VALUES (1, 'z', 1); UPDATE stock SET u = 'w' WHERE id = 3; UPDATE stock SET u = 'x' WHERE id = 1; COMMIT");
    b.sql("UPDATE stock SET n = 9");
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(stock(&c), ["1|x|1", "3|w|9"]);
    agree_on_records(&[&a, &b, &c]);
}

/// Triggers of such a table note every column, so SQLite refuses to drop one. After the triggers it goes, and the host
/// makes them again.
#[test]
fn c81_a_column_of_a_table_with_a_policy_goes_after_the_triggers() {
    let (mut a, mut b, mut c) = stocked(&merging(), "'a0', 'b0', 0");
    let refused = a.app.execute_batch("ALTER TABLE stock DROP COLUMN b").unwrap_err().to_string();
    assert!(refused.contains("error in trigger __antiphon__stock_"), "{refused}");
    for node in [&a, &b, &c] {
        let triggers = node.rows(
            "SELECT 'DROP TRIGGER ' || name || ';' FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'stock'",
        );
        assert!(!triggers.is_empty());
        node.sql(&format!("BEGIN; {} ALTER TABLE stock DROP COLUMN b; COMMIT", triggers.concat()));
    }
    settle(&mut [&mut a, &mut b, &mut c]);
    a.sql("UPDATE stock SET a = 'a1'");
    b.sql("UPDATE stock SET n = 7");
    settle(&mut [&mut a, &mut b, &mut c]);
    for node in [&a, &b, &c] {
        assert_eq!(stock(node), ["1|a1|7"]);
    }
    assert_eq!(agree_on_records(&[&a, &b, &c]).len(), 1);
}

/// Rows that were there before the triggers are in no batch. One that went and came again before it was sent is new.
#[test]
fn a_row_that_was_replaced_before_it_was_sent_is_made_upon_nothing() {
    let policies = vec![policy("u", "column-merge", ColumnMerge)];
    let setup = Setup { policies, changes_max: 1, ..Setup::default() };
    let (mut a, mut b) = pair_with(&setup, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    a.sql("CREATE TABLE u (id INTEGER PRIMARY KEY, v UNIQUE); INSERT INTO u VALUES (3, 'x')");
    a.with(|db| db.install(true).unwrap());
    a.sql("REPLACE INTO u VALUES (2, 'x')");
    a.with(|db| while db.scan().unwrap() {});
    a.sql("INSERT INTO u VALUES (3, 'y')");
    let before = a.log_entries(1).len();
    a.publish();
    let bases = a.bases(before);
    assert!(!bases.is_empty() && bases.iter().all(Option::is_none), "{bases:?}");
    b.sql("CREATE TABLE u (id INTEGER PRIMARY KEY, v UNIQUE)");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM u"), ["2|x", "3|y"]);
}

/// A column that came makes triggers of a table with a policy the wrong ones. Its marks are part of the unit all the same.
#[test]
fn c50_a_unit_is_whole_beside_a_new_column() {
    let setup = Setup { policies: vec![policy("u", "column-merge", ColumnMerge)], ..Setup::default() };
    let ddl = "CREATE TABLE t (id INTEGER PRIMARY KEY); CREATE TABLE u (id INTEGER PRIMARY KEY, v)";
    let (mut a, mut b) = pair_with(&setup, ddl);
    a.sql("INSERT INTO u VALUES (1, 'x')");
    settle(&mut [&mut a, &mut b]);
    a.sql("BEGIN; INSERT INTO t VALUES (1); DELETE FROM u; COMMIT");
    a.sql("ALTER TABLE u ADD COLUMN w");
    a.seal();
    let waiting = a.one("SELECT count(*) FROM __antiphon__t_change_log")
        + &a.one("SELECT count(*) FROM __antiphon__u_change_log");
    assert_eq!(waiting, "00", "both are in one unit");
    b.sql("ALTER TABLE u ADD COLUMN w");
    settle(&mut [&mut a, &mut b]);
    assert_eq!((b.one("SELECT count(*) FROM t"), b.one("SELECT count(*) FROM u")), ("1".to_owned(), "0".to_owned()));
}

/// A column that came with a default is no change to rows that were marked before it came, whatever the default looks
/// like as SQL: 0 is 0.0 in a column of REAL.
#[test]
fn c84_a_default_is_no_change() {
    for (column, theirs) in [("REAL DEFAULT 0", "7.5"), ("TEXT DEFAULT 5", "'x'"), ("DEFAULT word", "'other'")] {
        let (mut a, mut b, mut c) = stocked(&merging(), "'a', 'b', 1");
        a.sql("UPDATE stock SET a = 'new'");
        for node in [&a, &b, &c] {
            node.sql(&format!("ALTER TABLE stock ADD COLUMN extra {column}"));
        }
        b.sql(&format!("UPDATE stock SET extra = {theirs}"));
        b.publish();
        settle(&mut [&mut a, &mut b, &mut c]);
        assert_eq!(a.rows(&format!("SELECT a FROM stock WHERE extra = {theirs}")), ["new"], "{column}");
    }
}

/// A column that only the receiver has takes its default in a new row, also where that is computed for each row.
#[test]
fn c84_a_default_of_the_time_is_computed_by_sqlite() {
    for setup in [merging(), Setup::default()] {
        let log = std::sync::Arc::new(antiphon::log::Memory::new());
        let mut a = Node::new(&log, setup.clone(), STOCK);
        let wider =
            "CREATE TABLE stock (id INTEGER PRIMARY KEY, a, b, n INTEGER, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)";
        let mut b = Node::new(&log, Setup { node: 2, ..setup }, wider);
        antiphon_harness::found(&mut [&mut a, &mut b]);
        a.sql("INSERT INTO stock VALUES (1, 'x', 'y', 1)");
        a.publish();
        assert_eq!(b.apply(), None);
        let at = b.one("SELECT at FROM stock");
        assert_eq!(at.len(), "2026-11-21 19:00:00".len(), "{at}");
        a.sql("UPDATE stock SET a = 'z'");
        a.publish();
        b.sql("UPDATE stock SET b = 'of b'; DELETE FROM __antiphon__stock_change_log");
        assert_eq!(b.apply(), None);
        assert_eq!(b.one("SELECT at FROM stock"), at);
    }
}

/// A machine whose clock stood before 1970 makes marks of a negative time: it comes before all others, and not after.
#[test]
fn c118_a_clock_before_1970_is_no_clock_after_all_others() {
    let (mut a, mut b, mut c) = stocked(&merging(), "'a', 'b', 1");
    a.sql("UPDATE stock SET a = 'x'; UPDATE __antiphon__stock_change_log SET created_at = -1");
    settle(&mut [&mut a, &mut b, &mut c]);
    b.sql("UPDATE stock SET a = 'y'");
    settle(&mut [&mut a, &mut b, &mut c]);
    let clock = a.one("SELECT max(clock) FROM __antiphon___stamp").parse::<i64>().unwrap();
    assert!((1..i64::MAX / 2).contains(&clock), "{clock}");
}
