//! C111–C113, F03, F06, F12, F14: the machine and the application misbehave, and the host waits, and goes on.

use antiphon_harness::{Resource, Signal, eventually, settled};
use std::process::Command;
use std::time::Duration;

use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE n (id INTEGER PRIMARY KEY, n INTEGER);";

const OF_A: &str = "INSERT INTO n VALUES (1, 0)";
const OF_B: &str = "INSERT INTO n VALUES (2, 0)";

/// The application holds the write lock for longer than SQLite waits: the host waits, and loses no place.
#[test]
fn c111_a_long_write_transaction_is_waited_for() {
    let place = place();
    let (mut a, b) = place.pair(TABLE, OF_A, OF_B);
    let conn = a.connect();
    conn.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1, 'in the long one')").unwrap();
    b.sql("INSERT INTO t VALUES (2, 'meanwhile'); UPDATE n SET n = n + 1 WHERE id = 1");
    a.wait_for_words("cannot apply, will retry");
    assert_eq!(conn.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    conn.execute_batch("COMMIT").unwrap();
    eventually("all is everywhere", || [&a, &b].iter().all(|site| site.one("SELECT count(*) FROM t") == "2"));
    assert_eq!(settled(&[&a, &b]).len(), 4);
    assert_eq!(a.one("SELECT n FROM n WHERE id = 1"), "1");
    // A start must not need a quiet moment either.
    a.kill9();
    conn.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (3, 'in another')").unwrap();
    a.spawn();
    a.wait_for_words("waiting for it");
    conn.execute_batch("COMMIT").unwrap();
    a.wait_for_words("antiphon run OTHER.db");
    eventually("it goes on", || b.one("SELECT count(*) FROM t") == "3");
    assert!(a.is_running());
}

/// The application never sees a lock of ours for longer than its own patience of a second.
#[test]
fn c111_the_application_waits_for_no_lock_of_ours() {
    let place = place();
    let (a, b) = place.pair(TABLE, OF_A, OF_B);
    std::thread::scope(|scope| {
        for (site, from) in [(&a, 0), (&b, 1)] {
            scope.spawn(move || {
                let conn = site.connect();
                conn.busy_timeout(Duration::from_secs(1)).unwrap();
                for id in 0..1_000 {
                    conn.execute("INSERT INTO t VALUES (?1, 'x')", [id * 2 + from]).unwrap();
                }
            });
        }
    });
    eventually("all is everywhere", || [&a, &b].iter().all(|site| site.one("SELECT count(*) FROM t") == "2000"));
    settled(&[&a, &b]);
}

/// Nothing of ours stands between the application and the end of its WAL: no reader is left behind in it.
#[test]
fn c112_the_wal_can_be_emptied_at_any_time() {
    let place = place();
    let (mut a, mut b) = place.pair(TABLE, OF_A, OF_B);
    for round in 0..40 {
        a.sql(&format!("INSERT INTO t VALUES ({round}, randomblob(20000))"));
        b.sql(&format!("INSERT INTO t VALUES ({round} + 1000, randomblob(20000))"));
        for site in [&a, &b] {
            // With a busy handler of its own a checkpoint waits for readers that end, and for none that stands.
            let conn = site.connect();
            conn.busy_timeout(Duration::from_secs(5)).unwrap();
            let busy: i64 = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
            assert_eq!(busy, 0, "round {round}");
        }
    }
    settled(&[&a, &b]);
    // Under load, and with SQLite's own checkpoints alone, it stays within a few times their 4 MB.
    let conn = a.connect();
    let wal = a.database.with_file_name("a.db-wal");
    let mut largest = 0;
    // Four times as much is written as it may become.
    for round in 0..8_000 {
        conn.execute("INSERT OR REPLACE INTO t VALUES (?1, randomblob(8000))", [round % 300]).unwrap();
        largest = largest.max(std::fs::metadata(&wal).map_or(0, |file| file.len()));
    }
    println!("largest WAL: {largest} bytes");
    assert!(largest < 32 << 20, "{largest}");
    eventually("all is sent", || a.is_quiet());
    settled(&[&a, &b]);
    a.term();
    b.term();
}

/// Capture reads tables and not the WAL, so checkpoints of any kind take nothing from it.
#[test]
fn c113_checkpoints_in_a_loop_take_nothing() {
    let place = place();
    let (a, b) = place.pair(TABLE, OF_A, OF_B);
    for (kind, setting) in
        [("TRUNCATE", "PRAGMA wal_autocheckpoint = 0"), ("RESTART", "PRAGMA wal_autocheckpoint = 1"), ("PASSIVE", "")]
    {
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for site in [&a, &b] {
                let (stop, conn) = (&stop, site.connect());
                scope.spawn(move || {
                    while !stop.load(std::sync::atomic::Ordering::Acquire) {
                        let _ = conn.query_row(&format!("PRAGMA wal_checkpoint({kind})"), [], |_| Ok(()));
                    }
                });
            }
            let conn = a.connect();
            conn.execute_batch(setting).unwrap();
            for _ in 0..100 {
                conn.execute("INSERT INTO t (v) VALUES (?1)", [kind]).unwrap();
                conn.execute("UPDATE n SET n = n + 1 WHERE id = 1", []).unwrap();
            }
            stop.store(true, std::sync::atomic::Ordering::Release);
        });
    }
    eventually("all arrives", || {
        b.one("SELECT n FROM n WHERE id = 1") == "300" && b.one("SELECT count(*) FROM t") == "300"
    });
    settled(&[&a, &b]);
}

/// F03: a host that stood still for a while does nothing twice, and nothing is done twice to it.
#[test]
fn f03_a_host_that_stood_still_has_no_double_effect() {
    let place = place();
    let (mut a, b) = place.pair(TABLE, OF_A, OF_B);
    for round in 0..6 {
        let stopped = if round % 2 == 0 { &a } else { &b };
        for _ in 0..20 {
            a.sql("UPDATE n SET n = n + 1 WHERE id = 1");
            b.sql("UPDATE n SET n = n + 1 WHERE id = 2");
        }
        stopped.signal(Signal::STOP);
        std::thread::scope(|scope| {
            // Beside the writing: it may have been stopped with SQLite's lock in its hands, and then writers wait.
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(500));
                stopped.signal(Signal::CONT);
            });
            for _ in 0..20 {
                a.sql("UPDATE n SET n = n + 1 WHERE id = 1");
                b.sql("UPDATE n SET n = n + 1 WHERE id = 2");
            }
        });
    }
    eventually("the counts are exact", || {
        [&a, &b].iter().all(|site| site.rows("SELECT n FROM n ORDER BY id") == ["240", "240"])
    });
    settled(&[&a, &b]);
    a.term();
}

/// F12: VACUUM, other modes, schema changes and many connections, one after the other and under writes.
#[test]
fn f12_what_applications_do_to_their_files() {
    let place = place();
    let (mut a, mut b) = place.pair(TABLE, OF_A, OF_B);
    a.sql("WITH RECURSIVE i(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM i WHERE i < 2000) INSERT INTO t SELECT i, hex(randomblob(50)) FROM i");
    for (at, act) in [
        "VACUUM",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "ALTER TABLE t ADD COLUMN extra TEXT DEFAULT 'x'",
        "CREATE INDEX i ON t (v); DROP INDEX i",
        "CREATE TABLE late (id INTEGER PRIMARY KEY, v)",
        "PRAGMA optimize; ANALYZE",
        "PRAGMA incremental_vacuum; REINDEX",
        "ALTER TABLE t DROP COLUMN extra",
        "DELETE FROM t WHERE id % 3 = 0; VACUUM",
    ]
    .into_iter()
    .enumerate()
    {
        // Both make the change, as an operator rolls one out; the order is any.
        let (first, second) = if at % 2 == 0 { (&a, &b) } else { (&b, &a) };
        first.sql(act);
        if !act.starts_with("DELETE") {
            second.sql(act);
        }
        a.sql("UPDATE n SET n = n + 1 WHERE id = 1");
        b.sql("UPDATE n SET n = n + 1 WHERE id = 2");
    }
    let connections: Vec<_> = (0..100).map(|_| a.connect()).collect();
    for (at, conn) in connections.iter().enumerate() {
        conn.execute("INSERT INTO t (id, v) VALUES (?1, 'of many')", [10_000 + at as i64]).unwrap();
    }
    drop(connections);
    eventually("all is everywhere", || {
        [&a, &b].iter().all(|site| site.one("SELECT count(*) FROM t WHERE v = 'of many'") == "100")
    });
    settled(&[&a, &b]);
    assert_eq!(b.rows("SELECT n FROM n ORDER BY id"), ["9", "9"]);
    // From WAL and back needs the file for oneself.
    a.term();
    a.sql("PRAGMA journal_mode = DELETE; INSERT INTO t (id, v) VALUES (20000, 'without a WAL')");
    a.start();
    b.sql("INSERT INTO t (id, v) VALUES (20001, 'to one without')");
    eventually("both rows are everywhere", || {
        [&a, &b].iter().all(|site| site.one("SELECT count(*) FROM t WHERE id >= 20000") == "2")
    });
    settled(&[&a, &b]);
    assert_eq!(a.one("PRAGMA integrity_check"), "ok");
    b.term();
}

/// F14: with hardly any processor time a host is slow, and nothing else: no component is taken to have failed.
#[test]
fn f14_a_starved_host_is_slow_and_nothing_else() {
    let place = place();
    let (mut a, mut b) = place.pair(TABLE, OF_A, OF_B);
    for site in [&a, &b] {
        let pid = site.pid().to_string();
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let task = task.unwrap().file_name().into_string().unwrap();
            let idle = Command::new("chrt").args(["--idle", "--pid", "0", &task]).output();
            if !idle.is_ok_and(|done| done.status.success()) {
                let nice = Command::new("renice").args(["-n", "19", "-p", &task]).output();
                assert!(nice.is_ok_and(|done| done.status.success()), "neither chrt nor renice works");
            }
        }
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let _stopping = Stopping(&stop);
        for round in 0..50 {
            a.sql(&format!("UPDATE n SET n = n + 1 WHERE id = 1; INSERT OR REPLACE INTO t VALUES ({round} % 7, 'a')"));
            b.sql(&format!("UPDATE n SET n = n + 1 WHERE id = 2; INSERT OR REPLACE INTO t VALUES ({round} % 7, 'b')"));
        }
        eventually("the counts are exact", || {
            [&a, &b].iter().all(|site| site.rows("SELECT n FROM n ORDER BY id") == ["50", "50"])
        });
    });
    settled(&[&a, &b]);
    for site in [&mut a, &mut b] {
        assert!(site.is_running());
        assert!(!site.said().contains("component failed"), "{}", site.said());
    }
}

struct Stopping<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// F06: memory runs out in the middle of a large unit. Whether the host ends by that or not, nobody sees half of it, the
/// application goes on, and it all arrives once there is memory again.
#[test]
fn f06_memory_that_runs_out_leaves_nothing_by_half() {
    let place = place();
    let (mut a, b) = place.pair(TABLE, OF_A, OF_B);
    let status = std::fs::read_to_string(format!("/proc/{}/status", a.pid())).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let size: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
    a.limit(Resource::As, Some(size * 1024 + (16 << 20)));
    b.sql("WITH RECURSIVE i(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM i WHERE i < 30) INSERT INTO t SELECT i, randomblob(3000000) FROM i");
    eventually("it is sent", || b.is_quiet());
    for n in 0..100 {
        let seen = a.one("SELECT count(*) FROM t WHERE id <= 30");
        assert!(seen == "0" || seen == "30", "{seen} of 30 rows");
        a.sql(&format!("INSERT INTO t VALUES (1000 + {n}, 'the application goes on')"));
        std::thread::sleep(Duration::from_millis(20));
    }
    if a.is_running() {
        a.limit(Resource::As, None);
    } else {
        a.wait();
        a.start();
    }
    eventually("all of it arrives", || a.one("SELECT count(*) FROM t") == "130");
    settled(&[&a, &b]);
    assert_eq!(a.one("PRAGMA integrity_check"), "ok");
    a.term();
}
