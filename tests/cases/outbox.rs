//! The outbox: what waits is never removed, and what is removed is never missed.

use antiphon::db::{Due, Pruned};
use antiphon::housekeeping::{Housekeeper, Keep};
use antiphon::join;
use antiphon::life::Provenance;
use antiphon::log::{Log as _, Placed};
use antiphon::snapshot::Rescue;
use antiphon_core::entry::Genesis;
use antiphon_harness::{Node, Setup, pair, pair_with, settle};
use futures::executor::block_on;
use std::time::Duration;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v)";
/// Everything that may go is due.
const ALL: Due = Due { before_ms: u64::MAX, excess_bytes: 0 };

fn prune(node: &Node, due: Due) -> Pruned {
    node.with(move |db| db.prune(due, u64::MAX).unwrap())
}

fn numbers(node: &Node) -> Vec<String> {
    node.rows("SELECT number FROM __antiphon___global_change_log ORDER BY id")
}

/// Some batches of one row each, back from the log.
fn write(node: &mut Node, ids: std::ops::RangeInclusive<u32>) {
    for id in ids {
        node.sql(&format!("INSERT INTO t VALUES ({id}, hex(randomblob(100)))"));
        node.publish();
    }
}

/// What the log does not have stays, whatever its age and size.
#[test]
fn what_waits_is_never_pruned() {
    let (mut a, mut b) = pair(TABLE);
    a.sql("INSERT INTO t VALUES (1, 'sealed')");
    a.seal();
    a.sql("INSERT INTO t VALUES (2, 'sealed later')");
    a.seal();
    let before = numbers(&a);
    let greedy = Due { excess_bytes: u64::MAX, ..ALL };
    let waiting = a.rows("SELECT number FROM __antiphon___global_change_log WHERE state = 0");
    assert_eq!(waiting.len(), 2);
    prune(&a, greedy);
    assert_eq!(a.rows("SELECT number FROM __antiphon___global_change_log WHERE state = 0"), waiting);
    // In the log, and not yet read back: still pending.
    while a.publish_step() {}
    let left = numbers(&a);
    prune(&a, greedy);
    assert_eq!(numbers(&a), left);
    assert!(before.ends_with(&left));
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.one("SELECT count(*) FROM t"), "2");
    prune(&a, greedy);
    assert_eq!(numbers(&a).len(), 1, "now all but the newest may go");
}

/// A piece that came back before its unit was whole has not taken effect: its keys are pending, also after a start.
#[test]
fn a_piece_of_an_open_unit_is_never_pruned() {
    let (mut a, mut b) = pair_with(&Setup { changes_max: 1, ..Setup::default() }, TABLE);
    a.sql("INSERT INTO t VALUES (1, 'a'), (2, 'a'), (3, 'a')");
    // Two pieces of three go out and come back.
    assert!(a.publish_step());
    assert!(a.publish_step());
    let position = a.with(|db| db.position(1).seq);
    let entries = block_on(a.log.read(1, position, usize::MAX)).unwrap();
    assert_eq!(entries.len(), 2);
    let before = numbers(&a);
    a.apply_placed(1, entries);
    assert_eq!(a.one("SELECT count(*) FROM __antiphon___staged"), "2");
    prune(&a, ALL);
    assert!(before.iter().skip(before.len() - 2).all(|number| numbers(&a).contains(number)), "{:?}", numbers(&a));
    a.crash();
    assert!(a.with(|db| db.pending_len()) >= 2);
    // What another writes meanwhile stays behind it.
    b.sql("INSERT INTO t VALUES (1, 'b')");
    b.publish();
    assert_eq!(a.apply(), None);
    assert_eq!(a.one("SELECT v FROM t WHERE id = 1"), "a");
    settle(&mut [&mut a, &mut b]);
}

/// The numbering goes on where it was, and other nodes see no hole.
#[test]
fn a_start_after_a_pruning_goes_on_numbering() {
    for shards in [1, 3] {
        let (mut a, mut b) = pair_with(&Setup { shards, ..Setup::default() }, TABLE);
        write(&mut a, 1..=9);
        settle(&mut [&mut a, &mut b]);
        let last = a.rows("SELECT shard, max(number) FROM __antiphon___global_change_log GROUP BY shard");
        assert!(prune(&a, ALL).batches > 0);
        assert_eq!(a.rows("SELECT shard, number FROM __antiphon___global_change_log ORDER BY shard"), last);
        a.crash();
        write(&mut a, 10..=18);
        settle(&mut [&mut a, &mut b]);
        assert_eq!(b.one("SELECT count(*) FROM t"), "18");
        assert_eq!(prune(&a, ALL).batches, prune_count(&a, &last), "and what was sent since may go as well");
    }
}

/// How many batches were sealed since the outbox ended with these, but for the newest of each shard.
fn prune_count(node: &Node, before: &[String]) -> u64 {
    let now = node.rows("SELECT shard, number FROM __antiphon___global_change_log ORDER BY shard");
    assert_eq!(now.len(), before.len(), "one batch a shard is left");
    let number = |row: &String| row.split('|').nth(1).unwrap().parse::<u64>().unwrap();
    now.iter().zip(before).map(|(now, before)| number(now) - number(before)).sum()
}

/// Own entries that come once more, and that the outbox no longer knows, change nothing.
#[test]
fn own_entries_read_again_after_a_pruning_change_nothing() {
    let (mut a, mut b) = pair(TABLE);
    write(&mut a, 1..=3);
    settle(&mut [&mut a, &mut b]);
    b.sql("UPDATE t SET v = 'newer'; DELETE FROM t WHERE id = 2");
    settle(&mut [&mut a, &mut b]);
    assert!(prune(&a, ALL).batches >= 2);
    a.crash();
    let (rows, clashes) = (a.dump(), a.conflicts());
    let old = block_on(a.log.read(1, 0, usize::MAX)).unwrap();
    let again = |from: u64| -> Vec<Placed> {
        old.iter().skip(1).enumerate().map(|(n, placed)| Placed { seq: from + n as u64, ..placed.clone() }).collect()
    };
    // At the same places, as after a lost answer, and at new ones, as a broker may deliver twice.
    assert_eq!(a.apply_placed(1, old.clone()).entries, 0);
    let end = old.len() as u64;
    let applied = a.apply_placed(1, again(end + 1));
    assert_eq!((applied.entries, applied.stop), (old.len() - 1, None));
    assert_eq!(a.dump(), rows);
    assert_eq!(a.conflicts(), clashes);
    assert_eq!(a.with(|db| db.pending_len()), 0);
}

/// Age and size: the old go, and if that is not enough the oldest, until it is.
#[test]
fn the_oldest_go_first_and_no_more_than_must() {
    let (mut a, mut b) = pair(TABLE);
    write(&mut a, 1..=6);
    settle(&mut [&mut a, &mut b]);
    let all = numbers(&a);
    let nothing = Due { before_ms: 0, excess_bytes: 0 };
    assert_eq!(prune(&a, nothing), Pruned::default());
    let sizes = a.rows("SELECT length(batch) FROM __antiphon___global_change_log ORDER BY id");
    let two: u64 = sizes[..2].iter().map(|size| size.parse::<u64>().unwrap()).sum();
    let pruned = prune(&a, Due { before_ms: 0, excess_bytes: two });
    assert_eq!((pruned.batches, pruned.bytes), (2, two));
    assert_eq!(numbers(&a), all[2..]);
    a.sql("UPDATE __antiphon___global_change_log SET created_at = 1000.5 WHERE id = (SELECT min(id) FROM __antiphon___global_change_log)");
    assert_eq!(prune(&a, Due { before_ms: 1001, excess_bytes: 0 }).batches, 1);
    assert_eq!(numbers(&a), all[3..]);
}

/// A step is bounded by its room, and says that there is more.
#[test]
fn a_step_takes_no_more_than_its_room() {
    let (mut a, mut b) = pair(TABLE);
    write(&mut a, 1..=8);
    settle(&mut [&mut a, &mut b]);
    let mut left = numbers(&a).len();
    while left > 1 {
        let pruned = a.with(|db| db.prune(ALL, 1).unwrap());
        assert_eq!(pruned.batches, 1, "one at least, however small the room");
        left -= 1;
        assert_eq!(numbers(&a).len(), left);
        if left > 1 {
            assert!(pruned.more);
        }
    }
    assert_eq!(a.with(|db| db.prune(ALL, 1).unwrap()), Pruned::default());
}

/// The application comes first: while it holds the lock nothing is done, and soon given up.
#[test]
fn a_held_lock_is_not_waited_for() {
    let (mut a, mut b) = pair(TABLE);
    write(&mut a, 1..=4);
    settle(&mut [&mut a, &mut b]);
    let before = numbers(&a);
    a.sql("BEGIN IMMEDIATE; INSERT INTO t VALUES (100, 'in a transaction')");
    let pruned = prune(&a, ALL);
    assert!(pruned.busy && pruned.more && pruned.batches == 0, "{pruned:?}");
    a.sql("COMMIT");
    assert_eq!(numbers(&a), before);
    assert_eq!(prune(&a, ALL).batches, before.len() as u64 - 1);
    settle(&mut [&mut a, &mut b]);
}

/// A kill within a pruning leaves all of it or nothing.
#[test]
fn a_kill_while_pruning_loses_nothing() {
    for point in ["begin", "pruned", "commit", "committed"] {
        let (mut a, mut b) = pair(TABLE);
        write(&mut a, 1..=5);
        settle(&mut [&mut a, &mut b]);
        a.sql("INSERT INTO t VALUES (50, 'sealed and not sent')");
        a.seal();
        let before = numbers(&a);
        let died = a.dying_at(point, 1, |a| a.with(|db| db.prune(ALL, u64::MAX).is_err()));
        assert!(died, "{point}");
        a.crash();
        if point == "committed" {
            assert_eq!(numbers(&a).len(), 1, "{point}");
        } else {
            assert_eq!(numbers(&a), before, "{point}");
        }
        assert_eq!(a.with(|db| db.pending_len()), 1, "{point}");
        write(&mut a, 60..=62);
        settle(&mut [&mut a, &mut b]);
        assert_eq!(b.one("SELECT count(*) FROM t"), "9", "{point}");
    }
}

/// The housekeeper holds the outbox to its age and its size.
#[test]
fn the_housekeeper_holds_the_outbox_to_its_size_and_age() {
    let (mut a, mut b) = pair(TABLE);
    write(&mut a, 1..=40);
    settle(&mut [&mut a, &mut b]);
    let size = || a.one("SELECT sum(length(batch)) FROM __antiphon___global_change_log").parse::<u64>().unwrap();
    let (before, now) = (size(), antiphon::clock::unix_ms());
    let keep = Keep { interval: Duration::ZERO, age: Duration::from_secs(3600), bytes: before / 2, records: None };
    let mut housekeeper = Housekeeper::new(a.db.clone(), keep);
    let mut step = |now: u64| while block_on(housekeeper.step(now)).unwrap().more {};
    step(now);
    assert!(size() <= before / 2 && size() > before / 4, "{before} {}", size());
    let kept = size();
    step(now);
    assert_eq!(size(), kept, "nothing is due");
    step(now + 3_600_000 * 2);
    assert_eq!(numbers(&a).len(), 1);
}

/// A clash over each of these keys, recorded on both nodes.
fn clash(a: &mut Node, b: &mut Node, ids: std::ops::RangeInclusive<u32>) {
    for id in ids {
        a.sql(&format!("INSERT INTO t VALUES ({id}, 'a')"));
        b.sql(&format!("INSERT INTO t VALUES ({id}, 'b')"));
        settle(&mut [a, b]);
    }
}

/// Records of clashes go when this node has kept them long enough, whatever clock the writers went by, and rows stay.
#[test]
fn the_housekeeper_removes_records_of_clashes_that_were_kept_long_enough() {
    let (mut a, mut b) = pair(TABLE);
    clash(&mut a, &mut b, 1..=3);
    let day = Duration::from_secs(86_400);
    let outbox = Keep { interval: Duration::ZERO, age: day * 1000, bytes: u64::MAX, records: None };
    let keep = Keep { records: Some(day), ..outbox };
    let day = 86_400_000;
    let records = |node: &Node| node.rows("SELECT key FROM __antiphon___conflict ORDER BY id").len();
    assert_eq!((records(&a), records(&b)), (3, 3));
    // One is of yesterday here, and one of an earlier build, which did not note when: then its writer's clock counts.
    a.sql(&format!(
        "UPDATE __antiphon___conflict SET noted = noted - {day} - 60000 WHERE id = 1;
         UPDATE __antiphon___conflict SET noted = NULL, clock = clock - {day} - 60000 WHERE id = 2;
         UPDATE __antiphon___conflict SET clock = clock - {day} - 60000 WHERE id = 3"
    ));
    let (rows, now) = (a.dump(), antiphon::clock::unix_ms());
    let step = |node: &Node, keep: Keep, now: u64| {
        let mut housekeeper = Housekeeper::new(node.db.clone(), keep);
        let mut removed = 0;
        loop {
            let pruned = block_on(housekeeper.step(now)).unwrap();
            assert!(!pruned.busy);
            removed += pruned.records;
            if !pruned.more {
                return removed;
            }
        }
    };
    assert_eq!(step(&a, outbox, now + 1000 * day), 0, "without an age all are kept");
    assert_eq!(step(&a, keep, now), 2);
    assert_eq!(a.rows("SELECT id FROM __antiphon___conflict"), ["3"]);
    assert_eq!(step(&b, keep, now), 0, "each node keeps its own");
    assert_eq!(step(&b, keep, now + 2 * day), 3);
    assert_eq!(a.dump(), rows);
    clash(&mut a, &mut b, 4..=4);
    assert_eq!((records(&a), records(&b)), (2, 1));
}

/// A step over records is bounded as well, and gives way to the application.
#[test]
fn records_go_in_steps_and_not_while_the_lock_is_held() {
    let (mut a, mut b) = pair(TABLE);
    clash(&mut a, &mut b, 1..=4);
    let count = || a.rows("SELECT id FROM __antiphon___conflict");
    assert_eq!(count().len(), 4);
    a.sql("BEGIN IMMEDIATE");
    let pruned = a.with(|db| db.prune_records(u64::MAX, u64::MAX).unwrap());
    assert!(pruned.busy && pruned.more && pruned.records == 0, "{pruned:?}");
    a.sql("COMMIT");
    assert_eq!(count().len(), 4);
    for left in [["2", "3", "4"].as_slice(), &["3", "4"], &["4"], &[]] {
        let pruned = a.with(|db| db.prune_records(u64::MAX, 1).unwrap());
        assert_eq!((pruned.records, pruned.more), (1, !left.is_empty()), "one at least, however small the room");
        assert_eq!(count(), left);
    }
    assert_eq!(a.with(|db| db.prune_records(u64::MAX, 1).unwrap()), Pruned::default());
}

/// What was noted while the clock was wrong stays until that time, and holds up nothing that was noted later.
#[test]
fn f11_records_of_a_time_to_come_hold_up_none() {
    let (mut a, mut b) = pair(TABLE);
    clash(&mut a, &mut b, 1..=3);
    let now = antiphon::clock::unix_ms();
    a.sql(&format!("UPDATE __antiphon___conflict SET noted = {} WHERE id = 2", now + (1 << 36)));
    let pruned = a.with(move |db| db.prune_records(now + 60_000, u64::MAX).unwrap());
    assert_eq!((pruned.records, pruned.more), (2, false));
    assert_eq!(a.rows("SELECT id FROM __antiphon___conflict"), ["2"]);
}

/// A file of an earlier build has no room for the time of a record; it gets one, and keeps what it has.
#[test]
fn records_of_an_earlier_build_are_kept() {
    let (mut a, mut b) = pair(TABLE);
    clash(&mut a, &mut b, 1..=1);
    a.sql("ALTER TABLE __antiphon___conflict DROP COLUMN noted");
    a.crash();
    clash(&mut a, &mut b, 2..=2);
    assert_eq!(a.rows("SELECT noted IS NULL FROM __antiphon___conflict ORDER BY id"), ["1", "0"]);
}

/// The same of a file of an earlier build that joins: what it takes over goes by the names of columns, not by their order.
#[test]
fn records_are_taken_over_into_a_file_of_an_earlier_build() {
    const RECORDS: &str =
        "SELECT seq, tbl, cause, resolver, verdict, winner_node, loser_node FROM __antiphon___conflict";
    let (mut a, mut b) = pair(TABLE);
    clash(&mut a, &mut b, 1..=2);
    let earlier = "CREATE TABLE __antiphon___conflict (id INTEGER PRIMARY KEY, shard, seq, clock, tbl, key, cause,
        resolver, verdict, winner_node, loser_node, columns, winner, loser, merged)";
    let mut c = Node::new(&a.log, Setup { node: 3, ..Setup::default() }, &format!("{TABLE}; {earlier}"));
    c.sql("INSERT INTO t VALUES (9, 'of c')");
    let log = c.log.clone();
    c.with(move |db| {
        let folder = tempfile::tempdir().unwrap();
        let scratch = folder.path().join("log.db");
        let genesis =
            Genesis { shards: 1, hasher: "test".into(), resolver: "test".into(), wire: 1, ..Genesis::default() };
        let work = || {
            block_on(join::force(
                db,
                &*log,
                &genesis,
                &scratch,
                join::Rows::DiscardLocal,
                Provenance::Same,
                &mut Rescue::new(None, folder.path()),
                &mut |_| Ok(()),
            ))
        };
        // On a thread of its own, for this one waits for the database already.
        std::thread::scope(|scope| scope.spawn(work).join().unwrap()).unwrap();
    });
    assert_eq!(c.rows(RECORDS), a.rows(RECORDS));
    settle(&mut [&mut a, &mut b, &mut c]);
}
