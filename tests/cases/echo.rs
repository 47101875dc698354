//! Echo, order, crash: what a node wrote itself is never rewritten by what comes back.

use antiphon::flaw::testing::on_fault;
use antiphon::log::Faults;
use antiphon_harness::{Dice, Node, Setup, pair, pair_with, settle, trio};
use rusqlite::ErrorCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The echo of an older value must not overwrite a newer one that is on its way.
#[test]
fn c01_own_echo_never_overwrites_a_newer_pending_value() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    a.sql("INSERT INTO t VALUES (1, 'v1')");
    a.publish();
    a.sql("UPDATE t SET v = 'v2'");
    a.seal();
    assert_eq!(a.apply(), None);
    assert_eq!(a.one("SELECT v FROM t"), "v2");
    // A third value, committed and in no batch at all when the next echo comes.
    a.publish();
    a.sql("UPDATE t SET v = 'v3'");
    assert_eq!(a.apply(), None);
    assert_eq!(a.one("SELECT v FROM t"), "v3");
    a.crash();
    assert_eq!(a.one("SELECT v FROM t"), "v3");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|v3"]);
}

/// The same for a row that was deleted, and for one that was deleted and written anew.
#[test]
fn c01_own_echo_never_brings_a_deleted_row_back() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    a.sql("INSERT INTO t VALUES (1, 'old'), (2, 'old')");
    a.publish();
    a.sql("DELETE FROM t; INSERT INTO t VALUES (2, 'new')");
    assert_eq!(a.apply(), None);
    assert_eq!(a.rows("SELECT * FROM t"), ["2|new"]);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM t"), ["2|new"]);
}

/// A remote value that comes while a local one is pending stays behind it; the later in the log wins everywhere.
#[test]
fn c02_remote_value_stays_behind_a_pending_one() {
    let (mut a, mut b, mut c) = trio("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    a.sql("INSERT INTO t VALUES (1, 'old')");
    settle(&mut [&mut a, &mut b, &mut c]);
    b.sql("UPDATE t SET v = 'b'");
    b.publish();
    a.sql("UPDATE t SET v = 'a'");
    a.seal();
    assert_eq!(a.apply(), None);
    assert_eq!(a.one("SELECT v FROM t"), "a", "P stays visible");
    a.crash();
    assert_eq!(a.one("SELECT v FROM t"), "a", "and does so after a crash");
    assert_eq!(c.apply(), None);
    assert_eq!(c.one("SELECT v FROM t"), "b");
    settle(&mut [&mut a, &mut b, &mut c]);
    for node in [&a, &b, &c] {
        assert_eq!(node.one("SELECT v FROM t"), "a");
        assert_eq!(node.conflicts(), ["t|same-key|1"]);
    }
}

/// The other order: the local change is in the log already, and overruled by what follows it there.
#[test]
fn c02_pending_value_gives_way_to_what_is_later_in_the_log() {
    let (mut a, mut b, mut c) = trio("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    a.sql("INSERT INTO t VALUES (1, 'old')");
    settle(&mut [&mut a, &mut b, &mut c]);
    a.sql("UPDATE t SET v = 'a'");
    a.publish();
    b.sql("UPDATE t SET v = 'b'");
    b.publish();
    settle(&mut [&mut a, &mut b, &mut c]);
    for node in [&a, &b, &c] {
        assert_eq!(node.one("SELECT v FROM t"), "b");
        assert_eq!(node.conflicts(), ["t|same-key|2"]);
    }
}

/// An own append that is acknowledged says nothing about the entries before it.
#[test]
fn c03_interleaved_writers_end_equal() {
    for (seed, shards) in [(1, 1), (2, 1), (3, 3)] {
        let setup = Setup { shards, changes_max: 7, ..Setup::default() };
        let (mut a, mut b) = pair_with(&setup, "CREATE TABLE t (id INTEGER PRIMARY KEY, n, who)");
        let mut dice = Dice::new(seed);
        let mut written = [0, 0];
        while written.iter().sum::<u64>() < 2000 {
            let side = usize::try_from(dice.below(2)).unwrap();
            let node = if side == 0 { &mut a } else { &mut b };
            if written[side] < 1000 {
                written[side] += 1;
                let (id, n) = (dice.below(50), written[side]);
                node.sql(&format!("INSERT OR REPLACE INTO t VALUES ({id}, {n}, {side})"));
                // Rows that only this side writes: each of them must arrive.
                let own = 1_000 * (side as u64 + 1) + n;
                node.sql(&format!("INSERT INTO t VALUES ({own}, {n}, {side})"));
            }
            match dice.below(6) {
                0 => drop(node.publish_step()),
                1 => drop(node.apply()),
                2 => drop(node.apply_next(1, 2)),
                3 if dice.below(10) == 0 => node.crash(),
                _ => {}
            }
        }
        settle(&mut [&mut a, &mut b]);
        assert_eq!(b.one("SELECT count(*) FROM t WHERE id >= 1000"), "2000");
    }
}

/// Dies at one of the places where rows, position and watermark might part.
fn crash_at(points: &[&'static str], seed: u64, crashes_min: u64) {
    let setup = Setup { changes_max: 5, ..Setup::default() };
    let (mut a, mut b) = pair_with(
        &setup,
        "CREATE TABLE counter (who TEXT PRIMARY KEY, n INTEGER NOT NULL);
         CREATE TABLE entry (who TEXT, n INTEGER, PRIMARY KEY (who, n)) WITHOUT ROWID",
    );
    a.sql("INSERT INTO counter VALUES ('a', 0)");
    b.sql("INSERT INTO counter VALUES ('b', 0)");
    settle(&mut [&mut a, &mut b]);
    let mut dice = Dice::new(seed);
    let (mut crashes, mut done) = (0, [0_u64; 2]);
    while crashes < crashes_min {
        let side = usize::try_from(dice.below(2)).unwrap();
        let (name, node) = if side == 0 { ("a", &mut a) } else { ("b", &mut b) };
        for _ in 0..=dice.below(4) {
            // A stale row in T would be counted on, and an increment lost.
            node.sql(&format!(
                "BEGIN; UPDATE counter SET n = n + 1 WHERE who = '{name}';
                 INSERT INTO entry SELECT who, n FROM counter WHERE who = '{name}'; COMMIT"
            ));
            done[side] += 1;
        }
        let (point, nth) = (*dice.pick(points), 1 + dice.below(4));
        if node.dying_at(point, nth, Node::try_round) {
            crashes += 1;
            node.crash();
        }
        assert_eq!(node.one(&format!("SELECT n FROM counter WHERE who = '{name}'")), done[side].to_string());
    }
    settle(&mut [&mut a, &mut b]);
    for (name, count) in [("a", done[0]), ("b", done[1])] {
        assert_eq!(b.one(&format!("SELECT n FROM counter WHERE who = '{name}'")), count.to_string());
        assert_eq!(b.one(&format!("SELECT count(*) FROM entry WHERE who = '{name}'")), count.to_string());
    }
    assert_eq!(a.conflicts(), [""; 0], "nobody wrote another's rows, so nobody was overruled");
}

/// Rows and position are one transaction: a crash before, in or after it neither loses nor doubles.
#[test]
fn c06_crash_while_applying_neither_loses_nor_doubles() {
    crash_at(&["begin", "apply", "applied", "commit", "committed"], 6, 3000);
}

/// The same on the way out: what an append came to is asked of the log, not assumed.
#[test]
fn c06_crash_while_publishing_neither_loses_nor_doubles() {
    crash_at(&["seal", "sealed", "commit", "committed", "append", "appended"], 60, 600);
}

/// What is seen at any moment holds a whole transaction or nothing of it, also if it came in pieces.
#[test]
fn c50_no_observer_sees_half_a_transaction() {
    let setup = Setup { changes_max: 3, ..Setup::default() };
    let (mut a, mut b) = pair_with(&setup, "CREATE TABLE account (id INTEGER PRIMARY KEY, v INTEGER)");
    a.sql("WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 10) INSERT INTO account SELECT i, 100 FROM n");
    settle(&mut [&mut a, &mut b]);
    for round in 1..=20 {
        a.sql("BEGIN; UPDATE account SET v = v - 9 WHERE id = 1; UPDATE account SET v = v + 1 WHERE id > 1; COMMIT");
        while a.publish_step() {
            while b.apply_next(1, 1).entries > 0 {
                assert_eq!(b.one("SELECT sum(v) FROM account"), "1000", "round {round}");
            }
            if round % 5 == 0 {
                b.crash();
            }
        }
    }
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.one("SELECT v FROM account WHERE id = 1"), "-80");
}

/// Another connection looks at every point that the host passes, while both nodes move money among their own accounts in
/// large and small transactions, die and start again: the sum is always there.
#[test]
fn c50_no_connection_sees_money_missing() {
    let mut looks = 0;
    for (seed, mode) in [(1, "WAL"), (2, "WAL"), (3, "WAL"), (4, "DELETE")] {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup { changes_max: 4, folder: Some(folder.path().to_owned()), ..Setup::default() };
        let (mut a, mut b) = pair_with(
            &setup,
            &format!("PRAGMA journal_mode = {mode}; CREATE TABLE account (id INTEGER PRIMARY KEY, v INTEGER NOT NULL)"),
        );
        a.sql("WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 24) INSERT INTO account SELECT i, 100 FROM n");
        settle(&mut [&mut a, &mut b]);
        let observers = [a.connect(), b.connect()];
        for observer in &observers {
            // Without a WAL there are moments at which nobody can read; a look need not wait for them.
            observer.busy_timeout(std::time::Duration::ZERO).unwrap();
        }
        let seen = Arc::new(AtomicU64::new(0));
        let look = {
            let seen = seen.clone();
            move || {
                for observer in &observers {
                    match observer.query_row("SELECT sum(v) FROM account", [], |row| row.get::<_, i64>(0)) {
                        Ok(sum) => assert_eq!(sum, 2400),
                        Err(error) => assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy), "{error}"),
                    }
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        on_fault(move |_| {
            look();
            false
        });
        let mut dice = Dice::new(seed);
        for _ in 0..120 {
            let side = dice.below(2);
            let node = if side == 0 { &mut a } else { &mut b };
            // Each side has twelve accounts of its own; one transaction touches two of them, or all.
            let first = 1 + 12 * side;
            let (from, to, by) = (first + dice.below(12), first + dice.below(12), dice.below(50));
            node.sql(&if dice.below(3) == 0 {
                format!(
                    "BEGIN; UPDATE account SET v = v - 1 WHERE id BETWEEN {first} AND {first} + 11; UPDATE account SET v = v + 12 WHERE id = {to}; COMMIT"
                )
            } else {
                format!("BEGIN; UPDATE account SET v = v - {by} WHERE id = {from}; UPDATE account SET v = v + {by} WHERE id = {to}; COMMIT")
            });
            match dice.below(7) {
                0 | 1 => drop(node.publish_step()),
                2 => drop(node.apply_next(1, 1)),
                3 => assert_eq!(node.apply(), None),
                4 if dice.below(3) == 0 => node.crash(),
                _ => {}
            }
        }
        settle(&mut [&mut a, &mut b]);
        on_fault(|_| false);
        looks += seen.load(Ordering::Relaxed);
        assert_eq!(a.conflicts(), [""; 0]);
    }
    assert!(looks > 5000, "only {looks} looks");
}

/// An entry that the log has twice takes effect once: no older value comes back after a newer one.
#[test]
fn c09_what_is_delivered_twice_takes_effect_once() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)");
    a.sql("INSERT INTO t VALUES (1, 0)");
    settle(&mut [&mut a, &mut b]);
    for n in 1..=5 {
        a.sql(&format!("UPDATE t SET n = {n}"));
        a.seal();
    }
    a.log.fail(Faults { redeliver: true, ..Faults::default() });
    a.publish();
    assert_eq!(a.log_entries(1).len() as u64, 10 + a.with(|db| db.position(1).seq), "five entries, each of them twice");
    let mut last = 0;
    while b.apply_next(1, 1).entries > 0 {
        let n = b.one("SELECT n FROM t").parse().unwrap();
        assert!(n >= last, "{n} after {last}");
        last = n;
    }
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.one("SELECT n FROM t"), "5");
}

/// What the log refused, or may have taken without saying so, waits in the outbox and arrives once.
#[test]
fn c11_a_refused_append_loses_nothing() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    for id in 1..=20 {
        a.sql(&format!("INSERT INTO t VALUES ({id}, 'x')"));
        // A node that has not read the log to its end appends nothing, and nothing could be refused.
        assert_eq!(a.apply(), None);
        let lose_ack = id % 2 == 0;
        a.log.fail(Faults { refuse_append: !lose_ack, lose_ack, ..Faults::default() });
        assert!(a.try_round(), "the log is away");
        a.log.fail(Faults::default());
        if id % 3 == 0 {
            a.crash();
        }
    }
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.one("SELECT count(*) FROM t"), "20");
    assert_eq!(a.conflicts(), [""; 0]);
}
