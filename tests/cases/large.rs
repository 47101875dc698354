//! Units too large for one transaction: applied in slices, and what comes of it is what comes of them at once.

use antiphon::flaw::testing::on_fault;
use antiphon_harness::{ColumnMerge, Counter, FirstWriteWins, Node, Setup, policy, trio_with};
use std::cell::Cell;
use std::rc::Rc;

/// Pieces of three changes, and slices of two.
fn sliced() -> Setup {
    Setup { changes_max: 3, atomic_max: 2, ..Setup::default() }
}

/// The same pieces, each unit at once.
fn at_once() -> Setup {
    Setup { atomic_max: 1_000_000, ..sliced() }
}

const RECORDS: &str =
    "SELECT shard, seq, tbl, hex(key), cause, resolver, verdict, winner_node, loser_node, hex(winner),
     hex(loser), hex(merged) FROM __antiphon___conflict ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12";
const STAMPS: &str = "SELECT tbl, hex(key), seq, node, other FROM __antiphon___stamp ORDER BY 1, 2";

fn settle(nodes: &mut [&mut Node]) {
    for _ in 0..8 {
        for node in nodes.iter_mut() {
            node.publish();
            assert_eq!(node.apply(), None);
        }
    }
    for node in nodes.iter() {
        for left in ["slice", "displaced", "staged", "shadow"] {
            assert_eq!(node.one(&format!("SELECT count(*) FROM __antiphon___{left}")), "0", "{left}");
        }
        assert_eq!(node.with(|db| db.pending_len()), 0);
        assert_eq!(node.dump(), nodes[0].dump());
        assert_eq!(node.rows(RECORDS), nodes[0].rows(RECORDS));
        assert_eq!(node.rows(STAMPS), nodes[0].rows(STAMPS));
    }
}

fn units_in_slices(node: &Node) -> u64 {
    node.one("SELECT coalesce(max(value), 0) FROM __antiphon___meta WHERE name = 'sliced-units'").parse().unwrap()
}

/// The point of every death, one after another: `step` is repeated until it passes none that is new.
fn die_everywhere(node: &mut Node, mut step: impl FnMut(&mut Node)) -> usize {
    let mut deaths = 0;
    loop {
        let left = Rc::new(Cell::new(deaths as u64 + 1));
        let (count, died) = (left.clone(), Rc::new(Cell::new(false)));
        let dead = died.clone();
        on_fault(move |_| {
            count.set(count.get().saturating_sub(1));
            dead.set(dead.get() || count.get() == 0);
            dead.get()
        });
        step(node);
        on_fault(|_| false);
        if !died.get() {
            return deaths;
        }
        node.crash();
        deaths += 1;
    }
}

/// What one, two and three have after two of them wrote at odds, one of them much; of slices and at once.
fn both_ways(policies: &Setup, ddl: &str, before: &str, much: &[&str], meanwhile: &str) -> Vec<String> {
    let mut outcomes = Vec::new();
    for setup in [sliced(), at_once()] {
        let setup = Setup { policies: policies.policies.clone(), ..setup };
        let (mut a, mut b, mut c) = trio_with(&setup, ddl);
        a.sql(before);
        settle(&mut [&mut a, &mut b, &mut c]);
        let counted = units_in_slices(&c);
        b.sql(meanwhile);
        b.publish();
        // What is sealed before the unit ends is a piece of it, and may be written again meanwhile.
        for statement in much {
            a.sql(statement);
            a.with(|db| db.seal()).unwrap();
        }
        a.publish();
        settle(&mut [&mut b, &mut c, &mut a]);
        assert_eq!(units_in_slices(&c) > counted, setup.atomic_max == 2);
        let seq = "SELECT max(seq) FROM __antiphon___position";
        outcomes.push((c.dump(), c.rows(RECORDS), c.rows(STAMPS), c.one(seq)));
    }
    assert_eq!(outcomes[0], outcomes[1]);
    assert!(!outcomes[0].1.is_empty(), "there were clashes");
    outcomes.remove(0).0
}

const ITEMS: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v, w)";
const SERIES: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20)";

#[test]
fn c49_a_large_unit_moves_the_position_once_and_is_counted() {
    let (mut a, mut b, mut c) = trio_with(&sliced(), ITEMS);
    a.sql(&format!("INSERT INTO t {SERIES} SELECT i, 'v' || i, 0 FROM n"));
    a.publish();
    let position = |node: &Node| node.with(|db| db.position(1).seq);
    let (mut seen, mut places) = (Vec::new(), Vec::new());
    loop {
        let step = b.apply_next(1, 100);
        seen.push(b.one("SELECT count(*) FROM t"));
        places.push(position(&b));
        if step.stop.is_none() {
            break;
        }
    }
    seen.dedup();
    let expected: Vec<String> = (0..=20).map(|n| n.to_string()).filter(|n| seen.contains(n)).collect();
    assert_eq!(seen, expected, "rows come slice by slice");
    assert!(seen.len() > 8, "{seen:?}");
    places.dedup();
    assert_eq!(*places.last().unwrap(), places[places.len() - 2] + 1, "the position waits for the last: {places:?}");
    settle(&mut [&mut a, &mut b, &mut c]);
    for node in [&a, &b, &c] {
        assert_eq!(units_in_slices(node), 1);
        assert_eq!(node.one("SELECT value FROM __antiphon___meta WHERE name = 'sliced-changes'"), "20");
    }
}

#[test]
fn c49_a_key_in_several_slices_counts_once() {
    let much = [
        &format!(
            "BEGIN; INSERT INTO t {SERIES} SELECT i, 'first', 0 FROM n WHERE true ON CONFLICT DO UPDATE SET v = 'first'; COMMIT"
        ),
        "UPDATE t SET v = 'second' WHERE id IN (1, 2, 9)",
        "UPDATE t SET v = 'third' WHERE id = 1; DELETE FROM t WHERE id = 2",
    ];
    let before = "INSERT INTO t VALUES (1, 'old', 1), (2, 'old', 2), (3, 'old', 3)";
    let dump = both_ways(&Setup::default(), ITEMS, before, &much, "UPDATE t SET w = 'theirs'");
    assert!(dump.iter().any(|row| row.contains("t7468697264|")), "{dump:?}");
}

#[test]
fn c49_policies_decide_as_if_at_once() {
    let before = format!("INSERT INTO t {SERIES} SELECT i, 10, 10 FROM n");
    let much =
        ["UPDATE t SET w = w + 1", "UPDATE t SET w = w + 5, v = v || 'x' WHERE id < 4", "DELETE FROM t WHERE id = 20"];
    let theirs = "UPDATE t SET w = w + 100 WHERE id % 2; DELETE FROM t WHERE id = 8";
    for setup in [
        Setup { policies: vec![policy("t", "counter", Counter::new(&["w"]))], ..Setup::default() },
        Setup { policies: vec![policy("t", "column-merge", ColumnMerge)], ..Setup::default() },
        Setup { policies: vec![policy("t", "first-write-wins", FirstWriteWins)], ..Setup::default() },
    ] {
        both_ways(&setup, ITEMS, &before, &much, theirs);
    }
}

const UNIQUE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v, w UNIQUE)";

#[test]
fn c49_unique_values_change_hands_across_slices() {
    let before = format!("INSERT INTO t {SERIES} SELECT i, 10, i FROM n");
    // Every row takes its neighbour's value; the last one's goes round.
    let much = [
        "BEGIN; UPDATE t SET w = -w; UPDATE t SET w = 1 - w WHERE w > -20; UPDATE t SET w = 1 WHERE w = -20; COMMIT",
        "UPDATE t SET v = 'again' WHERE id IN (2, 19)",
        "BEGIN; DELETE FROM t WHERE id = 7; UPDATE t SET w = 8 WHERE id = 12; COMMIT",
    ];
    // Values that the unit takes from rows it does not know.
    let theirs =
        "INSERT INTO t VALUES (30, 'theirs', 21), (31, 'theirs', 22); UPDATE t SET v = 'theirs' WHERE id IN (3, 4)";
    let more = "UPDATE t SET w = 21 WHERE id = 1";
    let much: Vec<&str> = much.into_iter().chain([more]).collect();
    both_ways(&Setup::default(), UNIQUE, &before, &much, theirs);
    for setup in [
        Setup { policies: vec![policy("t", "first-write-wins", FirstWriteWins)], ..Setup::default() },
        Setup { policies: vec![policy("t", "column-merge", ColumnMerge)], ..Setup::default() },
    ] {
        both_ways(&setup, UNIQUE, &before, &much, theirs);
    }
}

/// Columns that only this node has stay with their rows, also of those that made room for a while.
#[test]
fn c49_a_row_that_makes_room_keeps_its_own_columns() {
    let (mut a, mut b, mut c) = trio_with(&sliced(), UNIQUE);
    a.sql(&format!("INSERT INTO t {SERIES} SELECT i, 10, i FROM n"));
    settle(&mut [&mut a, &mut b, &mut c]);
    // Noted nowhere, so that nothing of it is on its way.
    b.sql("ALTER TABLE t ADD COLUMN own");
    b.sql("UPDATE t SET own = 'b' || id; DELETE FROM __antiphon__t_change_log");
    a.sql("BEGIN; UPDATE t SET w = -w; UPDATE t SET w = 21 + w; COMMIT");
    a.publish();
    let mut made_room = false;
    while b.apply_next(1, 100).stop.is_some() {
        made_room |= b.one("SELECT count(*) FROM __antiphon___displaced") != "0";
        b.crash();
    }
    assert!(made_room);
    assert_eq!(b.one("SELECT count(*) FROM t WHERE own = 'b' || id AND w = 21 - id"), "20");
    assert_eq!(units_in_slices(&b), units_in_slices(&a) + 1);
}

/// At any point of any slice, on the peer and on the writer's own node.
#[test]
fn c49_a_crash_between_slices_resumes() {
    for (ddl, policies) in [
        (ITEMS, vec![]),
        (UNIQUE, vec![]),
        (UNIQUE, vec![policy("t", "column-merge", ColumnMerge)]),
        (ITEMS, vec![policy("t", "counter", Counter::new(&["w"]))]),
    ] {
        let setup = Setup { policies, ..sliced() };
        let (mut a, mut b, mut c) = trio_with(&setup, ddl);
        a.sql(&format!("INSERT INTO t {SERIES} SELECT i, 10, i FROM n WHERE i < 12"));
        settle(&mut [&mut a, &mut b, &mut c]);
        b.sql("UPDATE t SET w = w + 100 WHERE id = 3; UPDATE t SET v = 'b'");
        b.publish();
        a.sql("BEGIN; UPDATE t SET w = -w; UPDATE t SET w = 12 + w; COMMIT");
        a.with(|db| db.seal()).unwrap();
        a.sql("UPDATE t SET v = 'again' WHERE id IN (1, 11)");
        a.publish();
        for node in [&mut c, &mut a] {
            let mut step = 0;
            let deaths = die_everywhere(node, |node| {
                step += 1;
                // The application goes on meanwhile.
                node.sql(&format!(
                    "INSERT INTO t VALUES ({step} + 100 * {}, 'meanwhile', {step} + 1000 * {})",
                    node.with(|db| db.origin().node),
                    node.with(|db| db.origin().node)
                ));
                for _ in 0..200 {
                    if !matches!(
                        futures::executor::block_on(node.subscribers[0].step()),
                        Ok(antiphon::subscribe::Progress::More)
                    ) {
                        break;
                    }
                }
            });
            assert!(deaths > 30, "{deaths}");
        }
        settle(&mut [&mut a, &mut b, &mut c]);
        assert!(units_in_slices(&a) > 1);
    }
}

/// What the application writes between two slices, to rows of the unit as well, is its newest word.
#[test]
fn c49_writes_between_slices_are_kept() {
    for policies in [vec![], vec![policy("t", "counter", Counter::new(&["w"]))]] {
        let counts = !policies.is_empty();
        let (mut a, mut b, mut c) = trio_with(&Setup { policies, ..sliced() }, ITEMS);
        a.sql(&format!("INSERT INTO t {SERIES} SELECT i, 'a', 0 FROM n"));
        settle(&mut [&mut a, &mut b, &mut c]);
        a.sql("UPDATE t SET w = w + 1");
        a.publish();
        let mut added = 0;
        while b.apply_next(1, 100).stop.is_some() {
            b.sql("UPDATE t SET w = w + 10 WHERE id IN (1, 10, 20)");
            added += 10;
        }
        assert!(added > 50);
        settle(&mut [&mut a, &mut b, &mut c]);
        if counts {
            for id in [1, 10, 20] {
                assert_eq!(a.one(&format!("SELECT w FROM t WHERE id = {id}")), (added + 1).to_string());
            }
        }
    }
}

/// The entry that a unit ends with is gone from the log after some of its slices: nothing else is put on top of those.
#[test]
fn c49_a_tail_lost_between_slices_stops_the_node() {
    let (mut a, mut b, _c) = trio_with(&sliced(), ITEMS);
    a.sql(&format!("INSERT INTO t {SERIES} SELECT i, 'v', 0 FROM n"));
    a.publish();
    while b.one("SELECT count(*) FROM __antiphon___slice") == "0" {
        assert!(b.apply_next(1, 100).stop.is_some());
    }
    b.log.lose_tail(1, 1);
    let error = futures::executor::block_on(b.subscribers[0].step()).unwrap_err().to_string();
    assert!(error.contains("its tail is lost"), "{error}");
    b.sql("INSERT INTO t VALUES (100, 'b', 0)");
    let error = futures::executor::block_on(b.publisher.step()).unwrap_err().to_string();
    assert!(error.contains("its tail is lost"), "{error}");
}

/// A table that has another name by half of a unit is the same table: rows that made room find their places.
#[test]
fn c49_a_table_renamed_between_slices() {
    let (mut a, mut b, mut c) = trio_with(&sliced(), UNIQUE);
    a.sql(&format!("INSERT INTO t {SERIES} SELECT i, 10, i FROM n"));
    settle(&mut [&mut a, &mut b, &mut c]);
    a.sql("BEGIN; UPDATE t SET w = -w; UPDATE t SET w = 21 + w; COMMIT");
    a.publish();
    while b.one("SELECT count(*) FROM __antiphon___displaced") == "0" {
        assert!(b.apply_next(1, 100).stop.is_some());
    }
    b.sql("ALTER TABLE t RENAME TO t2");
    b.publish();
    assert_eq!(b.apply(), None);
    settle(&mut [&mut a, &mut c]);
    assert_eq!(b.rows("SELECT * FROM t2 ORDER BY id"), a.rows("SELECT * FROM t ORDER BY id"));
    for left in ["slice", "displaced", "shadow"] {
        assert_eq!(b.one(&format!("SELECT count(*) FROM __antiphon___{left}")), "0", "{left}");
    }
}

/// A table that is made anew by half of a unit can't be compared with the log. The shard stops and says how to go on; what
/// the application wrote stays, and the others go on.
#[test]
fn c49_a_table_made_anew_between_slices_stops_the_shard() {
    for policies in [vec![], vec![policy("t", "counter", Counter::new(&["w"]))]] {
        let (mut a, mut b, mut c) = trio_with(&Setup { policies, ..sliced() }, ITEMS);
        a.sql(&format!("INSERT INTO t {SERIES} SELECT i, 'v', i FROM n"));
        settle(&mut [&mut a, &mut b, &mut c]);
        a.sql("UPDATE t SET w = w + 1");
        a.publish();
        while b.one("SELECT count(*) FROM __antiphon___slice") == "0" {
            assert!(b.apply_next(1, 100).stop.is_some());
        }
        b.sql(
            "BEGIN; CREATE TABLE n (id INTEGER PRIMARY KEY, v, w); INSERT INTO n SELECT * FROM t; DROP TABLE t;
             ALTER TABLE n RENAME TO t; COMMIT; UPDATE t SET v = 'mine' WHERE id IN (1, 20)",
        );
        let rows = b.rows("SELECT * FROM t");
        let position = b.with(|db| db.position(1));
        for round in 0..4 {
            (0..20).take_while(|_| b.publish_step()).count();
            let reason = b.apply().unwrap_or_default();
            assert!(
                reason.contains("was made anew while a large unit") && reason.contains("antiphon cleanup"),
                "{reason}"
            );
            if round == 1 {
                b.crash();
            }
        }
        assert_eq!((b.rows("SELECT * FROM t"), b.with(|db| db.position(1))), (rows, position));
        a.sql("INSERT INTO t VALUES (30, 'later', 0)");
        settle(&mut [&mut a, &mut c]);
    }
}
