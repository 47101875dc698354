//! Policies of a cluster that runs change at one place of the log: nothing is lost on the way, and nothing added twice.

use antiphon_core::entry::Body;
use antiphon_harness::{
    ColumnMerge, Counter, FirstWriteWins, Node, Setup, decision, pair_with, policy, settle, trio_with,
};
use std::sync::Arc;

const STOCK: &str = "CREATE TABLE stock (id INTEGER PRIMARY KEY, a, b, n INTEGER)";

/// A cluster without policies, whose nodes have resolvers for more.
fn open() -> Setup {
    Setup {
        resolvers: vec![
            ("counter", Arc::new(|| Ok(Box::new(Counter::new(&["n"]))))),
            ("column-merge", Arc::new(|| Ok(Box::new(ColumnMerge)))),
            ("first-write-wins", Arc::new(|| Ok(Box::new(FirstWriteWins)))),
        ],
        ..Setup::default()
    }
}

fn stock(node: &Node) -> Vec<String> {
    node.rows("SELECT * FROM stock ORDER BY id")
}

fn triggers(node: &Node) -> Vec<String> {
    node.rows("SELECT name FROM sqlite_schema WHERE type = 'trigger' ORDER BY name")
}

fn stamps(node: &Node) -> String {
    node.one("SELECT count(*) FROM __antiphon___stamp")
}

/// Which version holds on a node in each shard.
fn in_force(node: &Node) -> Vec<u64> {
    node.with(|db| (1..=db.shards()).map(|shard| db.version_in_force(shard)).collect())
}

/// Applies whatever there is, and does what is asked for meanwhile; gives what the node waited for.
fn rounds(nodes: &mut [&mut Node]) -> Vec<String> {
    let mut waited = Vec::new();
    for _ in 0..6 {
        for node in nodes.iter_mut() {
            node.publish();
            waited.extend(node.apply());
        }
    }
    waited
}

#[test]
fn a_policy_holds_from_its_place_on() {
    let (mut a, mut b) = pair_with(&open(), STOCK);
    a.sql("INSERT INTO stock VALUES (1, 'a', 'b', 100)");
    settle(&mut [&mut a, &mut b]);
    let plain = triggers(&a);
    a.propose(decision(1, &[("stock", "counter")]));
    settle(&mut [&mut a, &mut b]);
    assert_eq!((in_force(&a), in_force(&b)), (vec![1], vec![1]));
    for by in 1..4 {
        a.sql(&format!("UPDATE stock SET n = n + {by}"));
        b.sql(&format!("UPDATE stock SET n = n + 10 * {by}, b = 'b{by}'"));
        settle(&mut [&mut a, &mut b]);
    }
    assert_eq!(stock(&a), ["1|a|b3|166"]);
    assert_eq!(stamps(&a), "1");
    // And back: stamps go, and triggers note keys alone again.
    b.propose(decision(2, &[]));
    settle(&mut [&mut a, &mut b]);
    a.sql("UPDATE stock SET n = n + 1");
    b.sql("UPDATE stock SET n = n + 5");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(stock(&b), ["1|a|b3|171"], "the later one in the log wins");
    for node in [&a, &b] {
        assert_eq!(triggers(node), plain);
        assert_eq!(stamps(node), "0");
    }
}

/// Of two who propose at the same time, one is first in the log; the other's proposal is nobody's.
#[test]
fn the_first_of_a_version_is_the_decision() {
    let (mut a, mut b) = pair_with(&open(), STOCK);
    a.propose(decision(1, &[("stock", "counter")]));
    b.propose(decision(1, &[("stock", "first-write-wins")]));
    settle(&mut [&mut a, &mut b]);
    let decided = decision(1, &[("stock", "counter")]);
    for node in [&a, &b] {
        assert_eq!(node.with(|db| db.decided()), Some(decided.clone()));
        assert_eq!(in_force(node), [1]);
    }
    // What nobody decided on can't come into force either.
    let entry = Body::InForce(decision(1, &[("stock", "first-write-wins")]).into());
    assert!(!a.log_entries(1).contains(&entry));
}

/// A node with rows on their way when it reads the decision does not know what the log says behind them: it looks that
/// up in the log, and waits so long.
#[test]
fn rows_on_their_way_get_the_logs_rows_behind_them() {
    for restart in [false, true] {
        let (mut a, mut b, mut c) = trio_with(&open(), STOCK);
        a.sql("INSERT INTO stock VALUES (1, 'a', 'b', 100), (2, 'a', 'b', 200)");
        settle(&mut [&mut a, &mut b, &mut c]);
        a.sql("UPDATE stock SET n = 105 WHERE id = 1; INSERT INTO stock VALUES (3, 'a', 'b', 7)");
        a.seal();
        b.propose(decision(1, &[("stock", "counter")]));
        b.apply();
        b.publish();
        b.apply();
        assert_eq!(in_force(&b), [1]);
        // Another's change under the policy, before this node's own, which was made before it.
        b.sql("UPDATE stock SET n = n + 30 WHERE id = 1");
        b.publish();
        let waits = a.apply().unwrap();
        assert!(waits.contains("that is being built from the log, and this goes on by itself"), "{waits}");
        assert_eq!(in_force(&a), [0]);
        // Meanwhile the application writes on, upon what it sees.
        a.sql("UPDATE stock SET n = n + 1 WHERE id = 1");
        if restart {
            a.crash();
            a.apply();
        }
        let waited = rounds(&mut [&mut a, &mut b, &mut c]);
        assert!(waited.iter().all(|why| why.contains("built from the log")), "{waited:?}");
        settle(&mut [&mut a, &mut b, &mut c]);
        // 105 was sent as a row and no addition, so it goes by the order of the log; the 1 was added.
        assert_eq!(stock(&a), ["1|a|b|106", "2|a|b|200", "3|a|b|7"], "restart: {restart}");
    }
}

/// Once a decision was read, changes say what they were made upon: whatever comes between it and its place counts fully.
#[test]
fn changes_on_the_way_to_a_policy_are_merged() {
    let (mut a, mut b) = pair_with(&open(), STOCK);
    a.sql("INSERT INTO stock VALUES (1, 'a', 'b', 100)");
    settle(&mut [&mut a, &mut b]);
    a.propose(decision(1, &[("stock", "counter")]));
    for node in [&mut a, &mut b] {
        node.apply();
    }
    a.sql("UPDATE stock SET n = n + 1");
    a.seal();
    b.publish();
    b.apply();
    assert_eq!(in_force(&b), [1]);
    b.sql("UPDATE stock SET n = n + 20");
    b.publish();
    assert_eq!(rounds(&mut [&mut a, &mut b]), Vec::<String>::new());
    settle(&mut [&mut a, &mut b]);
    assert_eq!(stock(&b), ["1|a|b|121"]);
}

/// What nobody else changed is no clash, although no stamp says so: the row itself does.
#[test]
fn the_first_policy_overrules_nobody_unseen() {
    let (mut a, mut b) = pair_with(&open(), STOCK);
    a.sql("INSERT INTO stock VALUES (1, 'a', 'b', 1), (2, 'a', 'b', 1)");
    settle(&mut [&mut a, &mut b]);
    a.propose(decision(1, &[("stock", "first-write-wins")]));
    for node in [&mut a, &mut b] {
        node.apply();
    }
    a.sql("UPDATE stock SET n = 2");
    a.seal();
    b.sql("UPDATE stock SET n = 3 WHERE id = 2");
    b.publish();
    b.apply();
    b.publish();
    b.apply();
    assert_eq!(in_force(&b), [1]);
    rounds(&mut [&mut a, &mut b]);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(stock(&b), ["1|a|b|2", "2|a|b|3"], "the second row was another's first");
}

/// From one policy to another nothing is forgotten: what was made unaware is known as such.
#[test]
fn one_policy_follows_another_without_a_gap() {
    let setup = Setup { policies: vec![policy("stock", "column-merge", ColumnMerge)], ..open() };
    let (mut a, mut b) = pair_with(&setup, STOCK);
    a.sql("INSERT INTO stock VALUES (1, 'a', 'b', 100)");
    settle(&mut [&mut a, &mut b]);
    a.sql("UPDATE stock SET n = n + 1, a = 'a1'");
    a.seal();
    b.sql("UPDATE stock SET n = n + 20, b = 'b1'");
    b.publish();
    b.propose(decision(1, &[("stock", "counter")]));
    b.apply();
    b.publish();
    rounds(&mut [&mut a, &mut b]);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(stock(&a), ["1|a1|b1|121"]);
}

/// Each step of a change, cut off by a crash at every point that it passes.
#[test]
fn a_crash_at_any_point_of_a_change() {
    for point in ["decided", "recaptured", "turn", "turned", "in-force", "covered", "commit", "committed"] {
        for nth in 1..4 {
            let (mut a, mut b) = pair_with(&open(), STOCK);
            a.sql("INSERT INTO stock VALUES (1, 'a', 'b', 100)");
            settle(&mut [&mut a, &mut b]);
            a.sql("UPDATE stock SET n = n + 1");
            a.seal();
            b.propose(decision(1, &[("stock", "counter")]));
            b.apply();
            b.publish();
            b.apply();
            b.sql("UPDATE stock SET n = n + 20");
            b.publish();
            a.dying_at(point, nth, |a| {
                for _ in 0..4 {
                    a.app.execute_batch("UPDATE stock SET n = n + 1000").unwrap();
                    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| a.try_round())).unwrap_or(false) {
                        break;
                    }
                }
            });
            a.crash();
            rounds(&mut [&mut a, &mut b]);
            settle(&mut [&mut a, &mut b]);
            let sum: i64 = a.one("SELECT n FROM stock").parse().unwrap();
            // The row of before overruled the 20, and whatever was added later was.
            assert_eq!((sum % 1000, sum >= 1101), (101, true), "{point} {nth}: {sum}");
            assert_eq!(in_force(&a), [1], "{point} {nth}");
        }
    }
}

/// A node without the component stops before the place, captures on, and goes on once it has it.
#[test]
fn a_node_without_the_component_waits_for_it() {
    let (mut a, mut b) = pair_with(&open(), STOCK);
    b.set_resolvers(Vec::new());
    b.crash();
    a.sql("INSERT INTO stock VALUES (1, 'a', 'b', 100)");
    settle(&mut [&mut a, &mut b]);
    a.propose(decision(1, &[("stock", "counter")]));
    b.apply();
    rounds(&mut [&mut a]);
    assert_eq!(in_force(&a), [1]);
    a.sql("UPDATE stock SET n = n + 1");
    a.publish();
    b.sql("UPDATE stock SET n = n + 20");
    b.seal();
    let waits = b.apply().unwrap();
    assert!(waits.contains("this node lacks the resolver `counter`"), "{waits}");
    assert_eq!((in_force(&b), stock(&b)), (vec![0], vec!["1|a|b|120".to_owned()]));
    b.sql("UPDATE stock SET n = n + 300");
    b.seal();
    b.set_resolvers(open().resolvers);
    b.crash();
    rounds(&mut [&mut a, &mut b]);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(stock(&a), ["1|a|b|421"]);
}

/// Who comes later reads of each policy where it held.
#[test]
fn who_joins_later_reads_every_policy_in_its_place() {
    let (mut a, mut b) = pair_with(&open(), STOCK);
    a.sql("INSERT INTO stock VALUES (1, 'a', 'b', 0)");
    settle(&mut [&mut a, &mut b]);
    for (version, named) in [(1, "counter"), (2, ""), (3, "first-write-wins"), (4, "counter")] {
        let policies = [("stock", named)];
        a.propose(decision(version, if named.is_empty() { &[] } else { &policies }));
        settle(&mut [&mut a, &mut b]);
        a.sql("UPDATE stock SET n = n + 1");
        b.sql("UPDATE stock SET n = n + 10");
        settle(&mut [&mut a, &mut b]);
    }
    let log = a.log.clone();
    let mut c = Node::new(&log, Setup { node: 3, ..open() }, STOCK);
    c.enter();
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(in_force(&c), [4]);
    c.sql("UPDATE stock SET n = n + 100");
    a.sql("UPDATE stock SET n = n + 1000");
    let before: i64 = b.one("SELECT n FROM stock").parse().unwrap();
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(c.one("SELECT n FROM stock"), (before + 1100).to_string());
}

/// Every shard has its own place, and none of them waits for another but for the decision.
#[test]
fn policies_in_several_shards() {
    let setup = Setup { shards: 3, ..open() };
    let (mut a, mut b, mut c) = trio_with(&setup, STOCK);
    a.sql("WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 30) INSERT INTO stock SELECT i, 'a', 'b', 100 FROM n");
    settle(&mut [&mut a, &mut b, &mut c]);
    a.sql("UPDATE stock SET n = n + 1");
    a.seal();
    b.propose(decision(1, &[("stock", "counter")]));
    // Another shard's entry comes before this node has read the decision.
    rounds(&mut [&mut b]);
    assert_eq!(in_force(&b), [1, 1, 1]);
    let refused = c.apply_next(2, usize::MAX).stop;
    let Some(antiphon::db::Stop::Blocked(why)) = refused else { panic!("{refused:?}") };
    assert_eq!(*why.kind(), antiphon::db::ObstacleKind::Undecided, "{why}");
    b.sql("UPDATE stock SET n = n + 20");
    b.publish();
    rounds(&mut [&mut a, &mut b, &mut c]);
    settle(&mut [&mut a, &mut b, &mut c]);
    b.sql("UPDATE stock SET n = n + 300");
    c.sql("UPDATE stock SET n = n + 4000");
    settle(&mut [&mut a, &mut b, &mut c]);
    // The rows that went before the policy was known overruled those after it; additions since count.
    assert_eq!(c.rows("SELECT DISTINCT n FROM stock"), ["4401"]);
}

/// A row too large to be sent is held back across a change: once it fits, it says what it was made upon.
#[test]
fn a_row_that_is_held_back_gets_its_base() {
    let (mut a, mut b) = pair_with(&open(), STOCK);
    a.sql("INSERT INTO stock VALUES (1, 'a', 'b', 100)");
    settle(&mut [&mut a, &mut b]);
    a.with(|db| db.limit_rows(1000));
    a.sql("UPDATE stock SET a = hex(zeroblob(5000)), n = n + 1");
    a.publish();
    b.propose(decision(1, &[("stock", "counter")]));
    b.apply();
    b.sql("UPDATE stock SET n = n + 20");
    b.publish();
    b.apply();
    let waited = rounds(&mut [&mut a, &mut b]);
    assert!(!waited.is_empty() && waited.iter().all(|why| why.contains("built from the log")), "{waited:?}");
    assert_eq!((in_force(&a), in_force(&b)), (vec![1], vec![1]));
    a.sql("UPDATE stock SET a = 'small again'");
    rounds(&mut [&mut a, &mut b]);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(stock(&b), ["1|small again|b|121"]);
}

/// A table that lost its triggers while policies changed is compared with the log, and sends what differs.
#[test]
fn a_table_that_lost_its_triggers_meanwhile() {
    let (mut a, mut b) = pair_with(&open(), STOCK);
    a.sql("INSERT INTO stock VALUES (1, 'a', 'b', 100), (2, 'a', 'b', 100)");
    settle(&mut [&mut a, &mut b]);
    for trigger in triggers(&a) {
        a.sql(&format!("DROP TRIGGER {trigger}"));
    }
    a.sql("UPDATE stock SET a = 'unseen' WHERE id = 1");
    b.propose(decision(1, &[("stock", "column-merge")]));
    b.apply();
    b.publish();
    b.sql("UPDATE stock SET b = 'b1'");
    b.publish();
    for _ in 0..4 {
        a.publish();
        a.apply();
        b.publish();
        b.apply();
    }
    settle(&mut [&mut a, &mut b]);
    // What it sends was sealed before it had read of the policy, and goes by the order of the log.
    assert_eq!(stock(&b), ["1|unseen|b|100", "2|a|b1|100"]);
}

/// What the log lost of a decision is said again by whoever finds a shard that goes by it.
#[test]
fn a_decision_that_the_log_lost_is_said_again() {
    let setup = Setup { shards: 2, ..open() };
    let (mut a, mut b) = pair_with(&setup, STOCK);
    settle(&mut [&mut a, &mut b]);
    a.propose(decision(1, &[("stock", "counter")]));
    a.apply();
    a.publish();
    assert!(a.log_entries(2).iter().any(|body| matches!(body, Body::InForce(_))));
    let first = a.log_entries(1);
    let lost = first.iter().rev().take_while(|body| matches!(body, Body::Decided(_) | Body::InForce(_))).count();
    a.log.lose_tail(1, lost as u64);
    assert_eq!(a.log_entries(1).len() + lost, first.len());
    let waited = rounds(&mut [&mut b]);
    assert!(waited.iter().all(|why| why.contains("decided on; this goes on by itself")), "{waited:?}");
    assert_eq!(in_force(&b), [1, 1]);
    assert_eq!(b.with(|db| db.decided()), Some(decision(1, &[("stock", "counter")])));
}
