//! The machine under the host: its clock, its components, and an answer that is lost at the wrong moment.

use antiphon::clock::testing::set;
use antiphon::housekeeping::{Housekeeper, Keep};
use antiphon::log::{Claimant, Faults, Hold, Log as _, Memory};
use antiphon_core::entry::Origin;
use antiphon_harness::{Node, Setup, found, pair, settle, trio};
use futures::executor::block_on;
use std::sync::Arc;
use std::time::Duration;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE n (id INTEGER PRIMARY KEY, n INTEGER);";
const DAY: u64 = 86_400_000;

/// Puts the clock back to the machine's when a test ends.
struct Skewed;

impl Drop for Skewed {
    fn drop(&mut self) {
        set(None);
    }
}

/// C118, F11: log order knows no clock. One that jumps a day, goes backwards or stands still changes no row.
#[test]
fn c118_clocks_that_jump_or_stand_change_no_row() {
    let _skewed = Skewed;
    let run = |clocks: [[Option<u64>; 2]; 4]| {
        let (mut a, mut b) = pair(TABLE);
        for (round, [of_a, of_b]) in clocks.into_iter().enumerate() {
            set(of_a);
            a.sql(&format!("INSERT OR REPLACE INTO t VALUES (1, 'a {round}'), (10 + {round}, 'a')"));
            a.publish();
            set(of_b);
            b.sql(&format!("INSERT OR REPLACE INTO t VALUES (1, 'b {round}'), (20 + {round}, 'b')"));
            b.publish();
            if round == 2 {
                a.crash();
                b.crash();
            }
            settle(&mut [&mut a, &mut b]);
        }
        (a.dump(), a.conflicts().len())
    };
    let now = 1_700_000_000_000;
    let true_time = run([[None, None]; 4]);
    assert_eq!(
        run([
            [Some(now), Some(now + DAY)],
            [Some(now + DAY), Some(now)],
            [Some(now - DAY), Some(now)],
            [Some(0), Some(now)]
        ]),
        true_time
    );
    assert_eq!(run([[Some(now), Some(now)]; 4]), true_time, "a frozen clock");
    assert_eq!(true_time.1, 4, "each round is one clash, whatever the clocks say");
}

/// The clock of a node never goes back, whatever its machine's does: what is written later is stamped later.
#[test]
fn c118_stamps_do_not_go_back() {
    let _skewed = Skewed;
    let (mut a, mut b) = pair(TABLE);
    let now = 1_700_000_000_000;
    for (round, clock) in [now, now - DAY, now + DAY, 0, now].into_iter().enumerate() {
        set(Some(clock));
        a.sql(&format!("INSERT INTO t VALUES ({round}, 'x')"));
        if round == 2 {
            a.crash();
        }
        settle(&mut [&mut a, &mut b]);
    }
    let clocks = a.rows("SELECT clock FROM __antiphon___global_change_log ORDER BY shard, number");
    let clocks: Vec<u64> = clocks.iter().map(|clock| clock.parse().unwrap()).collect();
    assert!(clocks.windows(2).all(|pair| pair[0] < pair[1]), "{clocks:?}");
}

/// F11: the outbox is cleaned by a clock that jumps. It may keep a batch for longer or shorter than it should, and never
/// removes one that waits, or the newest.
#[test]
fn f11_no_clock_removes_what_is_needed() {
    let _skewed = Skewed;
    let now = 1_700_000_000_000;
    let (mut a, mut b) = pair(TABLE);
    let keep =
        Keep { interval: Duration::from_secs(1), age: Duration::from_secs(3600), bytes: u64::MAX, records: None };
    let mut keeper = Housekeeper::new(a.db.clone(), keep);
    let waiting = "SELECT count(*) FROM __antiphon___global_change_log WHERE state = 0";
    let mut gone = 0;
    for (round, clock) in
        [now, now + DAY, now - DAY, 0, now + 400 * DAY, u64::MAX / 2, now, now].into_iter().enumerate()
    {
        set(Some(clock));
        a.sql(&format!("INSERT INTO t VALUES ({round}, 'sent'); UPDATE t SET v = 'again' WHERE id < {round}"));
        settle(&mut [&mut a, &mut b]);
        a.sql(&format!("INSERT INTO t VALUES ({round} + 100, 'waits')"));
        a.seal();
        assert_eq!(a.one(waiting), "1");
        gone += block_on(keeper.step(antiphon::clock::unix_ms())).unwrap().batches;
        assert_eq!(a.one(waiting), "1", "at {clock}");
        a.crash();
        keeper = Housekeeper::new(a.db.clone(), keep);
        settle(&mut [&mut a, &mut b]);
        gone += block_on(keeper.step(antiphon::clock::unix_ms())).unwrap().batches;
        let newest = "SELECT max(number) FROM __antiphon___global_change_log";
        let sent = block_on(a.log.last_number(1, a.with(|db| db.origin()))).unwrap();
        assert_eq!(a.one(newest), sent.to_string(), "the numbering goes on from it");
    }
    assert!(gone > 0, "something was due");
}

/// F11: who may take a lease goes by how long an observer saw nothing change, whatever the time of day is said to be.
#[test]
fn f11_leases_know_no_time_of_day() {
    let _skewed = Skewed;
    let now = 1_700_000_000_000;
    let log = Memory::new();
    let ttl = Duration::from_secs(30);
    let [mut one, mut two] = [1, 2].map(|node| Claimant::new("work", Origin { node, incarnation: 1 }, ttl));
    for (round, clock) in [now, now + DAY, now - DAY, 0, u64::MAX / 2, now, now].into_iter().enumerate() {
        let passed = Duration::from_secs(10 * round as u64);
        set(Some(clock));
        assert_eq!(block_on(one.hold(&log, passed)).unwrap(), Hold::Held, "at {clock}");
        set(Some(now - clock.min(now)));
        let other = block_on(two.hold(&log, passed)).unwrap();
        assert_eq!(other, Hold::HeldBy(Origin { node: 1, incarnation: 1 }), "at {clock}");
    }
}

/// C04: the log has it and says so, and the host dies before it knows. It is in the log once, and counts once.
#[test]
fn c04_a_death_after_the_append_counts_once() {
    let (mut a, mut b) = pair(TABLE);
    a.sql("INSERT INTO n VALUES (1, 0)");
    settle(&mut [&mut a, &mut b]);
    for round in 1..=20 {
        let before = a.log_entries(1).len();
        a.sql("UPDATE n SET n = n + 1 WHERE id = 1");
        assert!(a.dying_at("appended", 1, Node::try_round), "it died");
        assert_eq!(a.log_entries(1).len(), before + 1);
        a.crash();
        settle(&mut [&mut a, &mut b]);
        assert_eq!(a.log_entries(1).len(), before + 1, "nothing was sent twice");
        assert_eq!(b.one("SELECT n FROM n"), round.to_string());
    }
}

/// C05: the same, and it comes a second time, for a log may forget what it has taken.
#[test]
fn c05_an_entry_that_comes_again_takes_effect_once() {
    let (mut a, mut b) = pair(TABLE);
    a.sql("INSERT INTO n VALUES (1, 0)");
    settle(&mut [&mut a, &mut b]);
    for _ in 0..10 {
        a.log.fail(Faults { redeliver: true, lose_ack: true, ..Faults::default() });
        a.sql("UPDATE n SET n = n + 1 WHERE id = 1");
        a.try_round();
        b.apply();
        // What another wrote meanwhile is not undone when the first comes again.
        b.sql("UPDATE n SET n = n + 100 WHERE id = 1");
        a.crash();
        settle(&mut [&mut a, &mut b]);
    }
    assert_eq!(a.one("SELECT n FROM n"), "1010");
}

/// C08: the first of two appends gets no answer. The second can't come before it, nor the first after it.
#[test]
fn c08_no_batch_lands_after_its_successor() {
    for seed in 0..40 {
        let (mut a, mut b) = pair(TABLE);
        for step in 0..12u64 {
            let dice = (seed * 31 + step * 17) % 7;
            a.log.fail(Faults {
                lose_ack: dice == 0,
                refuse_append: dice == 1,
                redeliver: dice == 2,
                ..Faults::default()
            });
            a.sql(&format!("INSERT OR REPLACE INTO t VALUES (1, {step})"));
            a.try_round();
            if dice == 3 {
                a.crash();
            }
            b.apply();
            let seen: i64 = b.one("SELECT coalesce(max(v), -1) FROM t").parse().unwrap();
            assert!(seen <= i64::try_from(step).unwrap());
        }
        a.log.fail(Faults::default());
        settle(&mut [&mut a, &mut b]);
        assert_eq!(b.rows("SELECT * FROM t"), ["1|11"], "the last word holds");
    }
}

/// C27: two nodes give one number to two different things. One stands everywhere, and the other can be had everywhere.
#[test]
fn c27_the_loser_of_one_key_is_kept_on_every_node() {
    let (mut a, mut b, mut c) = trio("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v)");
    a.sql("INSERT INTO t (v) VALUES ('of a')");
    b.sql("INSERT INTO t (v) VALUES ('of b')");
    a.publish();
    b.publish();
    settle(&mut [&mut a, &mut b, &mut c]);
    for node in [&a, &b, &c] {
        assert_eq!(node.rows("SELECT * FROM t"), ["1|of b"], "the later entry");
        assert_eq!(node.conflicts(), ["t|same-key|2"]);
        // The images are kept as bytes that hold the values as they were.
        let kept = node.one("SELECT CAST(loser AS TEXT) LIKE '%of a%' FROM __antiphon___conflict");
        assert_eq!(kept, "1", "the row that gave way can be had here");
    }
}

/// C28: numbers that SQLite keeps for itself are not sent, and none is given twice on one node.
#[test]
fn c28_sequences_stay_at_home_and_no_number_is_given_again() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v)");
    a.sql("INSERT INTO t (v) VALUES ('x'), ('y'), ('z')");
    settle(&mut [&mut a, &mut b]);
    a.sql("DELETE FROM t WHERE id = 3");
    settle(&mut [&mut a, &mut b]);
    for node in [&mut a, &mut b] {
        assert!(!node.with(|db| db.table_names().any(|name| name.contains("sequence"))));
        assert_eq!(node.one("SELECT seq FROM sqlite_sequence WHERE name = 't'"), "3");
        node.crash();
    }
    b.sql("INSERT INTO t (v) VALUES ('next')");
    assert_eq!(b.one("SELECT max(id) FROM t"), "4", "3 was another row's");
    settle(&mut [&mut a, &mut b]);
    a.sql("INSERT INTO t (v) VALUES ('after')");
    assert_eq!(a.one("SELECT max(id) FROM t"), "5");
    settle(&mut [&mut a, &mut b]);
}

/// A power cut can take our seal from the application's file while the log has the batch. Its numbers are not given
/// out again, or the node would take its own batch for another's.
#[test]
fn f04_a_seal_that_a_power_cut_took_is_numbered_anew() {
    let (mut a, mut b) = pair(TABLE);
    a.sql("INSERT INTO n VALUES (1, 0)");
    settle(&mut [&mut a, &mut b]);
    a.sql("UPDATE n SET n = n + 1 WHERE id = 1");
    // The file as it was before the seal: marks in it, nothing in the outbox.
    a.sql("CREATE TEMP TABLE cut AS SELECT * FROM __antiphon__n_change_log");
    a.dying_at("appended", 1, Node::try_round);
    a.sql("DELETE FROM __antiphon___global_change_log WHERE number = (SELECT max(number) FROM __antiphon___global_change_log)");
    a.sql("INSERT INTO __antiphon__n_change_log SELECT * FROM temp.cut; DROP TABLE temp.cut");
    a.crash();
    a.publish();
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM n"), ["1|1"]);
    a.sql("UPDATE n SET n = n + 1 WHERE id = 1");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM n"), ["1|2"]);
}

/// F15: a component that fails, or answers for fewer than it was asked about, costs this one call. Nothing of it is
/// applied or sent, and the next call goes on.
#[test]
fn f15_a_component_that_fails_costs_its_call_alone() {
    use antiphon_harness::{Mishap, mishap};
    let log = Arc::new(Memory::new());
    let [mut a, mut b] = [1, 2].map(|node| Node::new(&log, Setup { node, shards: 2, ..Setup::default() }, TABLE));
    found(&mut [&mut a, &mut b]);
    for wrong in [Mishap::HashFails, Mishap::HashTooFew, Mishap::ResolveFails, Mishap::ResolveTooFew] {
        a.sql("INSERT OR REPLACE INTO t VALUES (1, 'of a')");
        a.publish();
        b.sql(&format!("INSERT OR REPLACE INTO t VALUES (1, 'of b {wrong:?}')"));
        let marks = "SELECT count(*) FROM __antiphon__t_change_log";
        let outbox = "SELECT count(*) FROM __antiphon___global_change_log";
        let before = b.one(outbox);
        if matches!(wrong, Mishap::HashFails | Mishap::HashTooFew) {
            mishap(Some(wrong));
            assert!(b.with(|db| db.seal().is_err()));
            assert_eq!((b.one(marks).as_str(), b.one(outbox)), ("1", before), "nothing of it is sealed");
            mishap(None);
        }
        b.publish();
        let before = a.rows("SELECT * FROM t");
        if matches!(wrong, Mishap::ResolveFails | Mishap::ResolveTooFew) {
            mishap(Some(wrong));
            assert!(a.try_round(), "the clash is put to the component");
            assert_eq!(a.rows("SELECT * FROM t"), before, "nothing of it is applied");
            mishap(None);
        }
        settle(&mut [&mut a, &mut b]);
        assert_eq!(a.rows("SELECT v FROM t"), [format!("of b {wrong:?}")]);
    }
}

/// C112: a step leaves no read transaction behind, so a checkpoint gets through between any two.
#[test]
fn c112_no_step_leaves_a_reader_behind() {
    let (mut a, mut b) = pair(TABLE);
    for round in 0..30 {
        a.sql(&format!("INSERT INTO t VALUES ({round}, 'x')"));
        assert!(!a.with(|db| db.is_reading().unwrap()), "at rest");
        a.publish_step();
        assert!(!a.with(|db| db.is_reading().unwrap()), "after a seal");
        b.apply();
        assert!(!b.with(|db| db.is_reading().unwrap()), "after an apply");
    }
    settle(&mut [&mut a, &mut b]);
}

/// F17: what a later version wrote is not guessed at. The shard stops before it, names the version, loses nothing, and goes
/// on with a program that reads it.
#[test]
fn f17_an_entry_of_a_later_version_waits_for_one_who_reads_it() {
    let (mut a, mut b) = pair(TABLE);
    settle(&mut [&mut a, &mut b]);
    a.sql("INSERT INTO t VALUES (1, 'by another version')");
    a.publish();
    let position = b.with(|db| db.position(1).seq);
    let mut later = block_on(b.log.read(1, position, usize::MAX)).unwrap();
    later[0].frame[4] += 1;
    let applied = b.apply_placed(1, later);
    let stop = format!("{:?}", applied.stop);
    assert!(applied.changes == 0 && stop.contains("Blocked"), "{stop}");
    assert_eq!(b.with(|db| db.position(1).seq), position);
    b.sql("INSERT INTO t VALUES (2, 'noted meanwhile')");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(a.rows("SELECT id FROM t"), ["1", "2"]);
}

/// F17: a file of the version before has the host's tables without columns that were added since.
#[test]
fn f17_a_file_of_the_version_before_goes_on() {
    let (mut a, mut b) = pair(TABLE);
    a.sql("INSERT INTO t VALUES (1, 'before')");
    settle(&mut [&mut a, &mut b]);
    for (table, column) in [("conflict", "noted"), ("conflict", "reason"), ("staged", "changes")] {
        b.sql(&format!("ALTER TABLE __antiphon___{table} DROP COLUMN {column}"));
    }
    b.crash();
    a.sql("UPDATE t SET v = 'of a' WHERE id = 1");
    b.sql("UPDATE t SET v = 'of b' WHERE id = 1");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(a.dump(), b.dump());
    assert_eq!((a.conflicts().len(), b.conflicts().len()), (1, 1));
}
