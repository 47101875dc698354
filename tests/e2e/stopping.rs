//! The end of a process, ordered or not, and the start after it.

use antiphon_harness::{Signal, Stopping, eventually, settled};
use rusqlite::Connection;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::place;

const BOUND: Duration = Duration::from_secs(5);
const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";

/// Writes rows 1, 2, 3… one commit each, until told to stop; gives how many were committed when `during` returned.
fn while_writing(conn: Connection, during: impl FnOnce()) -> u64 {
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let conn = conn;
            let mut insert = conn.prepare("INSERT INTO t VALUES (?1, 'x')").unwrap();
            for id in 1u64.. {
                insert.execute([id.cast_signed()]).unwrap();
                written.store(id, Ordering::Release);
                if stop.load(Ordering::Acquire) {
                    break;
                }
            }
        });
        // The writer must end when `during` panics, too, or the test would wait for it for ever.
        let _stopping = Stopping(&stop);
        eventually("rows are being written", || written.load(Ordering::Acquire) > 200 || writer.is_finished());
        during();
    });
    written.into_inner()
}

fn a_signal_ends_in_order(signal: Signal) {
    let place = place();
    let mut a = place.site("a", TABLE);
    let mut b = place.site("b", TABLE);
    a.start();
    b.start();
    let written = while_writing(a.connect(), || {
        let (code, took) = a.stop(signal);
        assert_eq!(code, Some(0));
        assert!(took < BOUND, "it took {took:?}");
        assert!(a.said().contains("stopping after the batch in hand"), "{}", a.said());
    });
    a.start();
    eventually("every row arrives", || b.one("SELECT count(*) FROM t") == written.to_string());
    assert_eq!(settled(&[&a, &b]).len() as u64, written);
}

#[test]
fn sigterm_finishes_the_batch_in_hand() {
    a_signal_ends_in_order(Signal::TERM);
}

#[test]
fn sigint_finishes_the_batch_in_hand() {
    a_signal_ends_in_order(Signal::INT);
}

/// A supervisor may stop what it has just started.
#[test]
fn a_signal_right_after_the_start_ends_in_order() {
    let place = place();
    let mut a = place.site("a", TABLE);
    for _ in 0..5 {
        a.start();
        let (code, took) = a.stop(Signal::TERM);
        assert_eq!(code, Some(0));
        assert!(took < BOUND, "it took {took:?}");
    }
}

/// What was committed before a stop goes out with it: nobody has to wait for the next start.
#[test]
fn rows_committed_before_the_signal_leave_with_it() {
    let place = place();
    let mut a = place.site("a", TABLE);
    let mut b = place.site("b", TABLE);
    a.start();
    b.start();
    for round in 0..5 {
        // Before it has read the log to its end a node says nothing, and may end that way.
        eventually("it has caught up", || a.is_quiet());
        a.sql(&format!("INSERT INTO t VALUES ({round}, 'last words')"));
        a.term();
        eventually("the row arrives", || b.one("SELECT count(*) FROM t") == (round + 1).to_string());
        a.start();
    }
}

/// C110: triggers stay in the file; whoever writes while no host runs is heard at the next start.
#[test]
fn c110_rows_written_while_the_host_is_down_are_published_at_start() {
    let place = place();
    let mut a = place.site("a", TABLE);
    let mut b = place.site("b", TABLE);
    a.start();
    b.start();
    a.term();
    for id in 0..1_000 {
        a.sql(&format!("INSERT INTO t VALUES ({id}, 'while away')"));
    }
    a.sql("UPDATE t SET v = 'changed' WHERE id % 2; DELETE FROM t WHERE id % 10 = 0");
    a.start();
    eventually("they arrive", || b.one("SELECT count(*) FROM t") == "900");
    assert_eq!(settled(&[&a, &b]).len(), 900);
    assert_eq!(b.one("SELECT count(*) FROM t WHERE v = 'changed'"), "500");
}

/// No start after a crash takes a manual step, or long.
#[test]
fn after_kill_9_it_is_back_within_five_seconds() {
    let place = place();
    let mut a = place.site("a", TABLE);
    let mut b = place.site("b", TABLE);
    a.start();
    b.start();
    let written = while_writing(a.connect(), || {
        for round in 0..5 {
            a.kill9();
            let spawned = std::time::Instant::now();
            a.start();
            // Back means that a row gets through, not that a line was printed.
            b.sql(&format!("INSERT INTO t VALUES (-1 - {round}, 'after the crash')"));
            eventually("a row gets through", || {
                a.one("SELECT count(*) FROM t WHERE id < 0") == (round + 1).to_string()
            });
            let took = spawned.elapsed();
            assert!(took < BOUND, "it took {took:?}");
        }
    });
    eventually("every row arrives", || b.one("SELECT count(*) FROM t WHERE id > 0") == written.to_string());
    assert_eq!(settled(&[&a, &b]).len() as u64, written + 5);
    assert_eq!(a.one("PRAGMA integrity_check"), "ok");
}

/// F03 in small: a process that stood still goes on where it was.
#[test]
fn a_process_that_was_stopped_for_a_while_goes_on() {
    let place = place();
    let mut a = place.site("a", TABLE);
    let mut b = place.site("b", TABLE);
    a.start();
    b.start();
    a.signal(Signal::STOP);
    a.sql("INSERT INTO t VALUES (1, 'of a')");
    b.sql("INSERT INTO t VALUES (2, 'of b')");
    std::thread::sleep(Duration::from_secs(1));
    a.signal(Signal::CONT);
    eventually("both rows are everywhere", || [&a, &b].iter().all(|site| site.one("SELECT count(*) FROM t") == "2"));
    assert_eq!(
        place.entries(1).iter().filter(|entry| entry.origin.node == a.node()).count(),
        3,
        "genesis, founded, one row"
    );
}
