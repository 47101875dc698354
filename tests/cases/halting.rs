//! A resolver that gives no verdict stops its shard before an entry, on every node. Other policies can only come behind
//! that entry; they decide it all the same, and the same on nodes that read the log later.

use antiphon::log::Memory;
use antiphon_core::entry::{Body, Bounds, OnFailure};
use antiphon_core::hash::PluginError;
use antiphon_core::resolve::{Clash, Needs, Resolve, Verdict};
use antiphon_core::schema::Table;
use antiphon_core::value::Value;
use antiphon_harness::{ColumnMerge, Counter, Dice, Node, Setup, decision, found, policy, settle};
use std::sync::Arc;

const STOCK: &str = "CREATE TABLE stock (id INTEGER PRIMARY KEY, a, b, n INTEGER)";

/// Keeps what stands, and gives no verdict where as much or more comes.
#[derive(Clone)]
struct Refuses(i64);

impl Resolve for Refuses {
    fn configure(&mut self, _: &[String], _: &[Table]) -> Result<Needs, PluginError> {
        Ok(Needs::default())
    }

    fn resolve(&mut self, batch: &[Clash]) -> Result<Vec<Verdict>, PluginError> {
        let n = |clash: &Clash| clash.incoming.row.as_ref().map(|row| row[3].clone());
        if batch.iter().any(|clash| matches!(n(clash), Some(Value::Integer(n)) if n >= self.0)) {
            return Err(PluginError("it is too much".to_owned()));
        }
        Ok(vec![Verdict::Keep; batch.len()])
    }
}

fn setup(node: u64, limit: i64) -> Setup {
    Setup {
        node,
        policies: vec![policy("stock", "refuses", Refuses(limit))],
        resolvers: vec![
            ("counter", Arc::new(|| Ok(Box::new(Counter::new(&["n"]))))),
            ("refuses too", Arc::new(|| Ok(Box::new(Refuses(0))))),
            ("column-merge", Arc::new(|| Ok(Box::new(ColumnMerge)))),
        ],
        ..Setup::default()
    }
}

fn stock(node: &Node) -> Vec<String> {
    node.rows("SELECT id, n FROM stock ORDER BY id")
}

/// Verdicts and resolvers of the clashes that a node recorded.
fn records(node: &Node) -> Vec<String> {
    node.rows("SELECT seq, resolver, verdict FROM __antiphon___conflict ORDER BY seq, hex(key)")
}

/// Everybody sends and applies what there is; gives what they wait for at the end, each.
fn rounds(nodes: &mut [&mut Node]) -> Vec<Option<String>> {
    let mut waits = Vec::new();
    for _ in 0..6 {
        nodes.iter_mut().for_each(|node| node.publish());
        waits = nodes.iter_mut().map(|node| node.apply()).collect();
    }
    waits
}

/// Two nodes changed the same rows, and their resolver gives no verdict.
fn stopped(log: &Arc<Memory>, setup: impl Fn(u64) -> Setup) -> (Node, Node) {
    let [mut a, mut b] = [1, 2].map(|node| Node::new(log, setup(node), STOCK));
    found(&mut [&mut a, &mut b]);
    a.sql("INSERT INTO stock VALUES (1, 'a', 'b', 100), (2, 'a', 'b', 200), (3, 'a', 'b', 300), (4, 'a', 'b', 400)");
    settle(&mut [&mut a, &mut b]);
    a.sql("UPDATE stock SET n = n + 1");
    b.sql("UPDATE stock SET n = n + 10");
    a.publish();
    b.publish();
    for waits in rounds(&mut [&mut a, &mut b]) {
        let waits = waits.unwrap();
        assert!(waits.contains("gives no verdict on table `stock`"), "{waits}");
        assert!(waits.contains("`antiphon policy apply` goes on with a policy that decides it"), "{waits}");
    }
    (a, b)
}

/// A node that reads the whole log decides as the others did.
fn joins(log: &Arc<Memory>, setup: Setup, others: &mut [&mut Node]) {
    let mut late = Node::new(log, setup, STOCK);
    late.enter();
    assert_eq!(rounds(&mut [&mut late]), [None]);
    let (rows, clashes) = (stock(&late), records(&late));
    for other in others.iter() {
        assert_eq!((&stock(other), &records(other)), (&rows, &clashes));
    }
    // And takes part from there on.
    late.sql("UPDATE stock SET n = n + 1000");
    let mut all: Vec<&mut Node> = others.iter_mut().map(|node| &mut **node).collect();
    all.push(&mut late);
    settle(&mut all);
}

#[test]
fn t08_what_a_policy_gives_no_verdict_on_is_decided_by_the_next() {
    for (atomic_max, restart) in [(100_000, false), (100_000, true), (2, false), (2, true)] {
        for counts in [true, false] {
            let log = Arc::new(Memory::new());
            let setup = |node| Setup { atomic_max, ..setup(node, 0) };
            let (mut a, mut b) = stopped(&log, setup);
            let next: &[(&str, &str)] = if counts { &[("stock", "counter")] } else { &[] };
            b.propose(decision(1, next));
            if restart {
                a.crash();
                b.crash();
            }
            assert_eq!(rounds(&mut [&mut a, &mut b]), [None, None]);
            settle(&mut [&mut a, &mut b]);
            let sums: &[&str] =
                if counts { &["1|111", "2|211", "3|311", "4|411"] } else { &["1|110", "2|210", "3|310", "4|410"] };
            assert_eq!(stock(&a), sums);
            let name = if counts { "counter" } else { "last-write-wins" };
            assert_eq!(records(&a).len(), 4);
            assert!(records(&a).iter().all(|record| record.contains(name)), "{:?}", records(&a));
            assert_eq!(a.one("SELECT count(*) FROM __antiphon___inherited"), "1");
            joins(&log, setup(3), &mut [&mut a, &mut b]);
        }
    }
}

#[test]
fn t08_a_clash_that_stopped_its_shard_can_be_parked_later() {
    let log = Arc::new(Memory::new());
    let (mut a, mut b) = stopped(&log, |node| setup(node, 0));
    let mut parks = decision(1, &[("stock", "refuses")]);
    parks.policies[0].on_failure = OnFailure::Park(Bounds::default());
    a.propose(parks);
    assert_eq!(rounds(&mut [&mut a, &mut b]), [None, None]);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(stock(&a), ["1|101", "2|201", "3|301", "4|401"], "what stood stays");
    assert!(records(&a).iter().all(|record| record.ends_with("refuses|park")), "{:?}", records(&a));
    joins(&log, setup(3, 0), &mut [&mut a, &mut b]);
}

/// One that gives no verdict either is passed over; the one after it decides.
#[test]
fn t08_the_first_policy_that_gives_a_verdict_decides() {
    let log = Arc::new(Memory::new());
    let (mut a, mut b) = stopped(&log, |node| setup(node, 0));
    a.propose(decision(1, &[("stock", "refuses too")]));
    for waits in rounds(&mut [&mut a, &mut b]) {
        assert!(waits.unwrap().contains("gives no verdict"));
    }
    b.propose(decision(2, &[("stock", "counter")]));
    assert_eq!(rounds(&mut [&mut a, &mut b]), [None, None]);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(stock(&a), ["1|111", "2|211", "3|311", "4|411"]);
    joins(&log, setup(3, 0), &mut [&mut a, &mut b]);
}

/// Shards stop on their own, and go on by the one decision in the first of them, whether that one has stopped or not.
#[test]
fn t08_shards_that_stopped_go_on_by_one_decision() {
    for ids in [1..=12, 5..=5, 6..=6, 7..=7, 8..=8] {
        let log = Arc::new(Memory::new());
        let setup = |node| Setup { shards: 3, ..setup(node, 0) };
        let [mut a, mut b] = [1, 2].map(|node| Node::new(&log, setup(node), STOCK));
        found(&mut [&mut a, &mut b]);
        for id in 1..=12 {
            a.sql(&format!("INSERT INTO stock VALUES ({id}, 'a', 'b', 100)"));
        }
        settle(&mut [&mut a, &mut b]);
        for id in ids.clone() {
            a.sql(&format!("UPDATE stock SET n = n + 1 WHERE id = {id}"));
            b.sql(&format!("UPDATE stock SET n = n + 10 WHERE id = {id}"));
        }
        a.publish();
        b.publish();
        assert!(rounds(&mut [&mut a, &mut b]).iter().all(Option::is_some));
        a.sql("INSERT INTO stock SELECT id + 20, a, b, 0 FROM stock");
        rounds(&mut [&mut a, &mut b]);
        let others = b.one("SELECT count(*) FROM stock WHERE id > 20");
        assert!(ids.clone().count() > 1 || others != "0", "shards that have not stopped go on");
        b.propose(decision(1, &[("stock", "counter")]));
        assert_eq!(rounds(&mut [&mut a, &mut b]), [None, None]);
        settle(&mut [&mut a, &mut b]);
        let sums = a.one("SELECT group_concat(DISTINCT n) FROM stock WHERE id BETWEEN 1 AND 12 AND n > 100");
        assert_eq!(sums, "111");
        joins(&log, setup(3), &mut [&mut a, &mut b]);
    }
}

/// A node whose plugin may use more decides what others can't. Whoever of them speaks first, rows never differ unsaid.
#[test]
fn t08_a_node_that_decides_what_others_cannot_is_found_out() {
    for passed_first in [true, false] {
        let log = Arc::new(Memory::new());
        let [mut a, mut b, mut c] =
            [(1, 0), (2, 0), (3, i64::MAX)].map(|(node, limit)| Node::new(&log, setup(node, limit), STOCK));
        found(&mut [&mut a, &mut b, &mut c]);
        a.sql("INSERT INTO stock VALUES (1, 'a', 'b', 100)");
        settle(&mut [&mut a, &mut b, &mut c]);
        a.sql("UPDATE stock SET n = n + 1");
        b.sql("UPDATE stock SET n = n + 10");
        a.publish();
        b.publish();
        assert!(matches!(rounds(&mut [&mut a, &mut b, &mut c])[..], [Some(_), Some(_), None]));
        a.propose(decision(1, &[("stock", "counter")]));
        if passed_first {
            c.apply();
            let waits = rounds(&mut [&mut c, &mut a, &mut b]);
            assert_eq!(waits[0], None);
            for waits in &waits[1..] {
                let waits = waits.as_ref().unwrap();
                assert!(
                    waits.contains("a node that decided this has put version 1 of the policies in force"),
                    "{waits}"
                );
            }
            assert_eq!(stock(&c), ["1|101"]);
            // With what the plugin may use there they decide it as well.
            drop((a, b));
            joins(&log, setup(4, i64::MAX), &mut [&mut c]);
        } else {
            assert_eq!(rounds(&mut [&mut a, &mut b]), [None, None]);
            let waits = rounds(&mut [&mut c, &mut a, &mut b]);
            assert_eq!(waits[1..], [None, None]);
            let waits = waits[0].as_ref().unwrap();
            assert!(waits.contains("other nodes could not decide a clash of table `stock`"), "{waits}");
            assert_eq!(stock(&a), ["1|111"]);
        }
    }
}

/// Nobody says that he stopped who did not.
#[test]
fn t08_without_a_stop_nothing_is_said_of_one() {
    let log = Arc::new(Memory::new());
    let [mut a, mut b] = [1, 2].map(|node| Node::new(&log, setup(node, i64::MAX), STOCK));
    found(&mut [&mut a, &mut b]);
    a.propose(decision(1, &[("stock", "counter")]));
    settle(&mut [&mut a, &mut b]);
    let said: Vec<bool> = a
        .log_entries(1)
        .iter()
        .filter_map(|body| if let Body::InForce(in_force) = body { Some(in_force.halted.is_some()) } else { None })
        .collect();
    assert!(!said.is_empty() && !said.contains(&true));
}

/// The version of the last policies in the log, whoever has come to them.
fn newest(node: &Node) -> u64 {
    let version = |body: &Body| if let Body::Decided(decision) = body { decision.version } else { 0 };
    node.log_entries(1).iter().map(version).max().unwrap_or(0)
}

/// Nodes that write, die, stop and change policies in any order end with the same rows and records, and so does one that
/// reads the log when all is over.
#[test]
fn t08_histories_with_stops_end_alike() {
    let (mut stops, mut lifted) = (0, 0);
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let log = Arc::new(Memory::new());
        let shards = 1 + u32::try_from(dice.below(3)).unwrap();
        let atomic_max = *dice.pick(&[100_000, 3]);
        let setup = |node| Setup { shards, atomic_max, ..setup(node, 60) };
        let mut nodes = [1, 2, 3].map(|node| Node::new(&log, setup(node), STOCK));
        let [a, b, c] = &mut nodes;
        found(&mut [&mut *a, &mut *b, &mut *c]);
        a.sql("INSERT INTO stock VALUES (1, 0, 0, 10), (2, 0, 0, 20), (3, 0, 0, 30), (4, 0, 0, 40), (5, 0, 0, 50)");
        settle(&mut [&mut *a, &mut *b, &mut *c]);
        for _ in 0..100 {
            let at = usize::try_from(dice.below(3)).unwrap();
            let (id, n) = (1 + dice.below(6), dice.below(100));
            let node = &mut nodes[at];
            match dice.below(24) {
                0..=7 => node.sql(&format!("UPDATE stock SET n = {n} WHERE id = {id}")),
                8 => node.sql(&format!("UPDATE stock SET a = {n}, n = n + 1 WHERE id <= {id}")),
                9 => node.sql(&format!("DELETE FROM stock WHERE id = {id}")),
                10 => node.sql(&format!("INSERT OR IGNORE INTO stock VALUES ({id}, 0, 0, {n})")),
                11..=16 => drop(node.publish_step()),
                17..=21 => stops += usize::from(node.apply().is_some()),
                22 if dice.below(3) == 0 => {
                    let next = *dice.pick(&["counter", "column-merge", "refuses", "refuses too", "last-write-wins"]);
                    node.propose(decision(newest(node) + 1, &[("stock", next)]));
                }
                23 if dice.below(3) == 0 => node.crash(),
                _ => {}
            }
        }
        let [a, b, c] = &mut nodes;
        let mut all = [a, b, c];
        for _ in 0..4 {
            if rounds(&mut all).iter().all(Option::is_none) {
                break;
            }
            lifted += 1;
            let version = newest(all[0]) + 1;
            all[0].propose(decision(version, &[("stock", "counter")]));
        }
        let waits = rounds(&mut all);
        assert!(waits.iter().all(Option::is_none), "seed {seed}: {waits:?}");
        settle(&mut all);
        assert_eq!([records(all[1]), records(all[2])], [records(all[0]), records(all[0])], "seed {seed}");
        joins(&log, setup(4), &mut all);
    }
    assert!(stops > 40 && lifted > 8, "{stops} stops, {lifted} of them lifted at the end");
}
