//! C111–C113, F03, F06, F12, F14, P5: the machine and the application misbehave, and the host waits, and goes on.

use antiphon_harness::{Neighbour, Place, Resource, Signal, Site, Stopping, eventually, settled};
use rusqlite::Connection;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::sync::atomic::AtomicBool;
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
        let stop = AtomicBool::new(false);
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

/// How often a writer beside each node must have written before its times say anything.
const BESIDE: i64 = 300;

/// Runs `acts` while a writer beside each node writes, no write of which may wait for longer than a host may make it.
fn beside(place: &Place, sites: [&Site; 2], first: i64, acts: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopping = Stopping(&stop);
        let writers = [0, 1].map(|at| {
            let (neighbour, stop) = (Neighbour::of(place, sites[at]), &stop);
            scope.spawn(move || neighbour.write(first + at as i64 * 1_000_000, stop))
        });
        acts();
        for (at, site) in sites.iter().enumerate() {
            let first = first + at as i64 * 1_000_000;
            let there = format!("SELECT count(*) FROM t WHERE id BETWEEN {first} AND {}", first + 999_999);
            eventually("enough was written", || site.one(&there).parse::<i64>().unwrap() >= BESIDE);
        }
        drop(stopping);
        writers.into_iter().for_each(|writer| writer.join().unwrap().are_short());
    });
}

/// F12, P5: VACUUM, checkpoints, schema changes, tables that are dropped, on both nodes while both are written to.
#[test]
fn f12_what_applications_do_to_their_files() {
    let place = place();
    let (mut a, mut b) = place.pair(TABLE, OF_A, OF_B);
    a.sql("WITH RECURSIVE i(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM i WHERE i < 2000) INSERT INTO t SELECT i, hex(randomblob(50)) FROM i");
    let acts = [
        "VACUUM",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "ALTER TABLE t ADD COLUMN extra TEXT DEFAULT 'x'",
        "CREATE INDEX i ON t (v); DROP INDEX i",
        "CREATE TABLE late (id INTEGER PRIMARY KEY, v)",
        "INSERT OR REPLACE INTO late VALUES (1, 'x')",
        "PRAGMA optimize; ANALYZE",
        "PRAGMA incremental_vacuum; REINDEX",
        "DROP TABLE late",
        "CREATE TABLE late (v, id TEXT PRIMARY KEY)",
        "DELETE FROM t WHERE id <= 2000 AND id % 3 = 0; VACUUM",
    ];
    beside(&place, [&a, &b], 10_000_000, || {
        for (at, act) in acts.iter().enumerate() {
            // Both make the change, as an operator rolls one out; the order is any.
            let (first, second) = if at % 2 == 0 { (&a, &b) } else { (&b, &a) };
            first.sql(act);
            if !act.starts_with("DELETE") {
                second.sql(act);
            }
            a.sql("UPDATE n SET n = n + 1 WHERE id = 1");
            b.sql("UPDATE n SET n = n + 1 WHERE id = 2");
        }
    });
    settled(&[&a, &b]);
    // Whoever writes meanwhile sets it, so that the other would wait for a column that is gone.
    for site in [&b, &a] {
        site.sql("ALTER TABLE t DROP COLUMN extra");
    }
    beside(&place, [&a, &b], 20_000_000, || {});
    settled(&[&a, &b]);
    let counted = acts.len().to_string();
    assert_eq!(b.rows("SELECT n FROM n ORDER BY id"), [counted.clone(), counted]);
    b.sql("INSERT INTO late (id, v) VALUES ('the other one', 1)");
    eventually("the new table of an old name is followed", || {
        a.one("SELECT count(*) FROM late WHERE id = 'the other one'") == "1"
    });
    settled(&[&a, &b]);
    assert_eq!(a.one("PRAGMA integrity_check"), "ok");
    a.term();
    b.term();
}

/// F12, P5: one that reads for long, and checkpoints in a loop meanwhile; one that writes for long, and what had to wait
/// for it.
#[test]
fn f12_long_transactions_and_a_checkpoint_loop() {
    let place = place();
    let (a, b) = place.pair(TABLE, OF_A, OF_B);
    let reader = a.connect();
    beside(&place, [&a, &b], 10_000_000, || {
        reader.execute_batch("BEGIN").unwrap();
        let count =
            |conn: &Connection| conn.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
        let before = count(&reader);
        let checkpoints = [a.connect(), b.connect()];
        for round in 0..200 {
            let kind = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"][round % 4];
            for conn in &checkpoints {
                // Busy is an answer, too, where a reader stands.
                conn.busy_timeout(Duration::ZERO).unwrap();
                let _ = conn.query_row(&format!("PRAGMA wal_checkpoint({kind})"), [], |_| Ok(()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(count(&reader), before, "it sees what it saw");
        reader.execute_batch("COMMIT").unwrap();
    });
    let writer = a.connect();
    writer.execute_batch("BEGIN IMMEDIATE; UPDATE n SET n = n + 1 WHERE id = 1").unwrap();
    for id in 0..200 {
        b.sql(&format!("INSERT INTO t VALUES (20000000 + {id}, randomblob(10000))"));
    }
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(writer.query_row("SELECT count(*) FROM t WHERE id >= 20000000", [], |row| row.get::<_, i64>(0)), Ok(0));
    writer.execute_batch("COMMIT").unwrap();
    // All that the host has to make up for now, it does beside an application.
    beside(&place, [&a, &b], 30_000_000, || {
        eventually("it is made up for", || {
            a.one("SELECT count(*) FROM t WHERE id BETWEEN 20000000 AND 20000199") == "200"
        });
    });
    settled(&[&a, &b]);
    assert_eq!(b.rows("SELECT n FROM n ORDER BY id"), ["1", "0"]);
}

/// F12: a hundred connections that write at the same time, each several times.
#[test]
fn f12_a_hundred_connections_at_once() {
    const CONNECTIONS: i64 = 100;
    let place = place();
    let (a, b) = place.pair(TABLE, OF_A, OF_B);
    let together = std::sync::Barrier::new(CONNECTIONS as usize);
    std::thread::scope(|scope| {
        for number in 0..CONNECTIONS {
            let (conn, together) = (if number % 2 == 0 { &a } else { &b }.connect(), &together);
            scope.spawn(move || {
                // Each has read, so that all of them are in the file at once.
                conn.execute_batch("BEGIN; SELECT count(*) FROM t; COMMIT").unwrap();
                together.wait();
                for round in 0..5 {
                    conn.execute("INSERT INTO t VALUES (?1, 'of many')", [number * 100 + round]).unwrap();
                    conn.execute("UPDATE n SET n = n + 1 WHERE id = ?1", [number % 2 + 1]).unwrap();
                }
                together.wait();
            });
        }
    });
    eventually("all is everywhere", || {
        [&a, &b].iter().all(|site| site.one("SELECT count(*) FROM t WHERE v = 'of many'") == "500")
    });
    settled(&[&a, &b]);
    for site in [&a, &b] {
        assert_eq!(site.rows("SELECT n FROM n ORDER BY id"), ["250", "250"]);
    }
}

/// F12: another mode of the journal. From WAL and back needs the file for oneself, so SQLite refuses it beside a host, and
/// nothing has changed; without one it is any mode.
#[test]
fn f12_another_mode_of_the_journal() {
    let place = place();
    let (mut a, mut b) = place.pair(TABLE, OF_A, OF_B);
    for mode in ["DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF"] {
        let conn = a.connect();
        conn.busy_timeout(Duration::from_millis(100)).unwrap();
        let answer = conn.query_row(&format!("PRAGMA journal_mode = {mode}"), [], |row| row.get::<_, String>(0));
        let error = answer.expect_err("SQLite changes the mode of a file that is open elsewhere").to_string();
        assert!(error.contains("database is locked"), "{mode}: {error}");
        a.sql(&format!("INSERT INTO t (v) VALUES ('{mode}')"));
    }
    assert_eq!(a.one("PRAGMA journal_mode"), "wal");
    eventually("it goes on", || b.one("SELECT count(*) FROM t") == "5");
    for (round, mode) in ["DELETE", "TRUNCATE", "PERSIST", "WAL"].into_iter().enumerate() {
        a.term();
        let id = 100 + round * 2;
        a.sql(&format!("PRAGMA journal_mode = {mode}; INSERT INTO t VALUES ({id}, 'in another mode')"));
        a.start();
        b.sql(&format!("INSERT INTO t VALUES ({id} + 1, 'to another mode')"));
        let there = format!("SELECT count(*) FROM t WHERE id IN ({id}, {id} + 1)");
        eventually("both rows are everywhere", || [&a, &b].iter().all(|site| site.one(&there) == "2"));
        // A mode that is not kept in the file is the connection's own.
        let kept = if mode == "WAL" { "wal" } else { "delete" };
        assert_eq!(a.one("PRAGMA journal_mode"), kept);
    }
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
    let stop = AtomicBool::new(false);
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

/// What a host says where a request for memory is refused.
const OUT_OF_MEMORY: [&str; 4] = [
    "memory allocation of ",
    "Cannot allocate memory",
    "out of memory",
    // Of a thread, whose stack is memory.
    "Resource temporarily unavailable",
];

/// A host that has said that there was no memory may have as much as it wants; one that ended of that is started again.
fn has_memory_again(site: &mut Site, said: &str) {
    assert!(OUT_OF_MEMORY.iter().any(|words| said.contains(words)), "{said}");
    if site.is_running() {
        site.limit(Resource::As, None);
    } else {
        assert_eq!(site.wait().signal(), Some(Signal::ABORT.as_raw()), "{said}");
        assert!(said.contains(OUT_OF_MEMORY[0]), "{said}");
        site.start();
    }
}

/// F06: memory runs out while a large unit is read and applied. Rust ends a process that is refused memory for a growing
/// piece of its own, and no stable way leads around that; so the host ends, having said how many bytes it wanted. What is sure
/// is the rest: nobody sees half of the unit, the application goes on meanwhile, the host comes up by itself where it
/// stood, and all of it arrives.
#[test]
fn f06_memory_that_runs_out_leaves_nothing_by_half() {
    let place = place();
    let (mut a, b) = place.pair(TABLE, OF_A, OF_B);
    a.leave_memory(1 << 20);
    b.sql("INSERT INTO t VALUES (1, randomblob(40000000)), (2, randomblob(40000000))");
    let mut n = 2;
    eventually("memory runs out", || {
        let is_over = !a.is_running() || a.said().contains("cannot apply");
        assert_eq!(a.one("SELECT count(*) FROM t"), "0", "of two rows each of which needs more than there is");
        n += 1;
        a.sql(&format!("INSERT INTO n VALUES ({n}, 0)"));
        is_over
    });
    let said = a.said();
    has_memory_again(&mut a, &said);
    eventually("all of it arrives", || a.one("SELECT count(*) FROM t") == "2");
    settled(&[&a, &b]);
    assert_eq!(a.one("PRAGMA integrity_check"), "ok");
    a.term();
}

/// F06: memory runs out where a snapshot is made. Where it is a component, a thread or SQLite that is refused, that is an
/// error and the host runs on; where it is a piece of Rust's, it ends as above. Either way nothing of the snapshot is
/// there, and the next one is made.
#[test]
fn f06_a_snapshot_without_memory_is_an_error() {
    let place = place();
    place.file("a.toml", "db_path = 'a.db'\n[log]\npath = 'log'\n[snapshot]\ninterval = 0\n");
    let mut a = place.site("a", TABLE).arguments(["run", "--config", "a.toml"]);
    let mut b = place.site("b", TABLE);
    a.start();
    b.start();
    a.sql("WITH RECURSIVE i(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM i WHERE i < 500) INSERT INTO t SELECT i, randomblob(20000) FROM i");
    settled(&[&a, &b]);
    let snapshot = |arguments: &[&str]| place.run([&["snapshot"], arguments, &["--config", "a.toml"]].concat());
    for id in [1_000, 1_001] {
        let mut failed = None;
        eventually("memory runs out", || {
            // What it had only for a moment it has given back, so that there may be more than that.
            a.leave_memory(1 << 20);
            failed = Some(snapshot(&["create"])).filter(|ended| ended.code != Some(0));
            failed.is_some()
        });
        let failed = failed.unwrap();
        let said = format!("{}{}", failed.stderr, a.said());
        a.sql(&format!("INSERT INTO t VALUES ({id}, 'the application goes on')"));
        has_memory_again(&mut a, &said);
        settled(&[&a, &b]);
        // What is listed is whole, and what is not left nothing.
        if snapshot(&["list"]).code == Some(0) {
            snapshot(&["verify", "--all", "--level", "restore"]).expect(0, &[]);
        }
    }
    snapshot(&["create"]).expect(0, &[]);
    snapshot(&["verify", "--all", "--level", "restore"]).expect(0, &[]);
    a.term();
    b.term();
}
