//! Snapshots: what it costs to make one and to bring one back, what they save, and what an application notices.

use crate::fixture::{self, INSERT, Kind, Random, WORDS};
use crate::processes::{Host, is_enough, is_member, wait_for};
use crate::report::{Report, timed};
use antiphon::log::{self, Look};
use antiphon_core::codec;
use antiphon_core::entry::Body;
use rusqlite::{Connection, params};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(5);
/// Rows that are changed many times, at most: fifty changes of each are half a gigabyte of log.
const CHURNED_MAX: usize = 100_000;
/// Changes that are tried in transactions of their own.
const ONE_BY_ONE: usize = 1_000;
const ORDERS: &str =
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, ref TEXT NOT NULL UNIQUE, customer INTEGER, note TEXT,
    total REAL, status TEXT, created_at TEXT); CREATE INDEX by_customer ON orders (customer)";

/// A database with a host beside it.
struct Node {
    folder: tempfile::TempDir,
    _host: Host,
    app: Connection,
}

/// What a table of the host's own holds.
fn own(conn: &Connection, what: &str) -> i64 {
    conn.query_row(&format!("SELECT count(*) FROM \"__antiphon___{what}"), [], |row| row.get(0)).unwrap_or(-1)
}

impl Node {
    /// With what `make` writes before its host first runs.
    fn start(make: impl FnOnce(&Connection)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let app = fixture::create(&folder.path().join("app.db"));
        make(&app);
        let config = folder.path().join("antiphon.toml");
        let (db, log) = (folder.path().join("app.db"), folder.path().join("log"));
        // Snapshots are made by hand here, and nothing is cut.
        let text = format!(
            "db_path = {db:?}\n[log]\npath = {log:?}\n[snapshot]\ninterval = 86400000\nleader_ttl = 86400000\n\
             incremental_interval = 0\nincremental_threshold = 0\n"
        );
        std::fs::write(&config, text).unwrap();
        let host = Host::configured(&config);
        wait_for("a member", || is_member(&app), LOOK);
        let node = Self { folder, _host: host, app };
        node.settle();
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits until all that was written is in the log.
    fn settle(&self) {
        let marks = || {
            ["items", "orders"].iter().all(|table| {
                let sql = format!("SELECT EXISTS (SELECT 1 FROM \"__antiphon__{table}_change_log\")");
                // A table that is not there has none.
                !self.app.query_row(&sql, [], |row| row.get(0)).unwrap_or(false)
            })
        };
        wait_for(
            "an empty outbox",
            || {
                own(&self.app, "scan\"") == 0
                    && own(&self.app, "meta\" WHERE name = 'founding' AND value = 1") == 0
                    && marks()
                    && own(&self.app, "global_change_log\" WHERE state = 0") == 0
            },
            LOOK,
        );
    }

    fn run(&self, arguments: &[&str]) -> Value {
        let config = self.path("antiphon.toml");
        let said = Command::new(env!("CARGO_BIN_EXE_antiphon"))
            .args(arguments)
            .args(["--json".as_ref(), "--config".as_ref(), config.as_os_str()])
            .output()
            .unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let last = said.stdout.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).unwrap();
        serde_json::from_slice(last).unwrap()
    }

    /// Makes a snapshot; gives its name, and how long that took.
    fn create(&self) -> (String, Duration) {
        let (took, made) = timed(|| self.run(&["snapshot", "create"]));
        (made["id"].as_str().unwrap().to_owned(), took)
    }

    fn restore(&self, id: &str, to: &str) -> Duration {
        let output = self.path(to);
        let (took, _) = timed(|| self.run(&["snapshot", "restore", id, "--output", output.to_str().unwrap()]));
        took
    }

    /// Bytes of a snapshot, as they were and as they are kept.
    fn bytes(&self, id: &str) -> (f64, f64) {
        let raw = self.run(&["snapshot", "show", id])["image"]["bytes"].as_f64().unwrap();
        (raw, size(&self.path("log/snapshots"), &|path| path.contains(id)))
    }

    /// Bytes of all entries of the log; their pages on the disk are a few more.
    fn log_bytes(&self) -> f64 {
        let log = Connection::open(self.path("log/log.db")).unwrap();
        log.query_row("SELECT sum(length(frame)) FROM shard_1", [], |row| row.get(0)).unwrap()
    }

    /// Changes of rows in the log.
    fn logged(&self) -> usize {
        let look = Look::open(&self.path("log")).unwrap().unwrap();
        let mut changes = 0;
        look.each::<log::Error>(1, 1, |placed| {
            if let Body::Changes(found) = codec::decode(&placed.frame).unwrap().body {
                changes += found.chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
            }
            Ok(true)
        })
        .unwrap();
        changes
    }
}

fn orders(conn: &Connection, random_text: bool, rows: usize) {
    conn.execute_batch(ORDERS).unwrap();
    let mut random = Random::new(7);
    let mut insert = conn.prepare("INSERT INTO orders VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)").unwrap();
    conn.execute_batch("BEGIN").unwrap();
    for id in 1..=rows {
        let (reference, note) = if random_text {
            let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
            let note = (0..40 + random.below(161)).map(|_| char::from(letters[random.below(62) as usize])).collect();
            (format!("{:016x}-{:016x}", random.next(), random.next()), note)
        } else {
            let words: Vec<&str> = (0..6 + random.below(25)).map(|_| WORDS[random.below(24) as usize]).collect();
            (format!("ORD-{id:09}"), words.join(" "))
        };
        let total = random.below(1_000_000) as f64 / 100.0;
        let row = params![id as i64, reference, random.below(5_000) as i64, note, total, "paid", "2026-03-01 10:00:00"];
        insert.execute(row).unwrap();
    }
    conn.execute_batch("COMMIT").unwrap();
}

pub fn run(report: &mut Report, rows: usize) {
    println!("snapshots, {rows} rows");
    let judged = |reached: bool| reached || !is_enough(rows);
    let hundred_thousands = rows as f64 / 100_000.0;
    for (text, random, mark) in [("ordinary", false, 70.0), ("random", true, 35.0)] {
        let node = Node::start(|conn| orders(conn, random, rows));
        let (id, made) = node.create();
        let each = made.as_secs_f64() / hundred_thousands;
        let what = format!("{text} text: a snapshot made, each 100,000 rows");
        report.mark(&what, &format!("{each:.2} s"), "1 s", judged(each < 1.0));
        let back = node.restore(&id, "back.db").as_secs_f64() / hundred_thousands;
        let what = format!("{text} text: brought back and looked at, the same");
        report.mark(&what, &format!("{back:.2} s"), "0.5 s", judged(back < 0.5));
        let (raw, stored) = node.bytes(&id);
        let saved = 100.0 - stored * 100.0 / raw;
        report.mark(
            &format!("{text} text: saved by compression"),
            &format!("{saved:.0}%"),
            &format!("{mark:.0}%"),
            judged(saved >= mark),
        );
        if !random {
            litestream(report, &node, back * hundred_thousands);
            step(report, rows, &node, stored);
        }
    }
    churn(report, rows);
}

/// A hundredth of the rows changed, and as many new ones: what an incremental snapshot adds to the store.
fn step(report: &mut Report, rows: usize, node: &Node, full: f64) {
    let few = (rows / 100).max(10);
    let mut random = Random::new(11);
    for first in (0..few).step_by(10) {
        node.app.execute_batch("BEGIN").unwrap();
        for n in first..(first + 10).min(few) {
            let (changed, added) = (random.below(rows as u64) as i64 + 1, (rows + n + 1) as i64);
            node.app.execute("UPDATE orders SET status = 'sent' WHERE id = ?1", [changed]).unwrap();
            let new =
                params![added, format!("ORD-{added:09}"), 1, "amber birch cedar", 9.5, "paid", "2026-03-02 10:00:00"];
            node.app.execute("INSERT INTO orders VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)", new).unwrap();
        }
        node.app.execute_batch("COMMIT").unwrap();
    }
    node.settle();
    let archived = || size(&node.path("log/snapshots"), &|path| path.ends_with(".seg"));
    let before = archived();
    node.run(&["snapshot", "create", "--incremental"]);
    let percent = (archived() - before) * 100.0 / full;
    let what = "a step of 1% changed and 1% added, of a full one";
    report.mark(what, &format!("{percent:.2}%"), "2%", percent <= 2.0 || !is_enough(rows));
}

/// Bytes of files in a folder whose paths are wanted.
fn size(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> f64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0.0 };
    let each = entries.map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            size(&path, wanted)
        } else if wanted(&path.to_string_lossy()) {
            path.metadata().unwrap().len() as f64
        } else {
            0.0
        }
    });
    each.sum()
}

/// Many changes of each row: a snapshot against all of the log.
fn churn(report: &mut Report, rows: usize) {
    let judged = |reached: bool| reached || !is_enough(rows);
    // Who only looks waits for a tenth of it.
    let rows = if rows < CHURNED_MAX { (rows / 10).max(1_000) } else { CHURNED_MAX };
    let node = Node::start(|conn| fixture::fill(conn, Kind::Random, 0, rows, INSERT));
    let mut keys: Vec<i64> = (1..=rows as i64).collect();
    let mut random = Random::new(13);
    let mut done = 1;
    for times in [1, 10, 50] {
        for _ in done..times {
            random.shuffle(&mut keys);
            fixture::change(&node.app, &keys);
            // What is changed again before it is sealed is one change in the log.
            node.settle();
        }
        done = times;
        assert_eq!(node.logged(), rows * times, "the log holds other than {times} changes a row");
        let (id, _) = node.create();
        let name = format!("at-{times}.db");
        let back = node.restore(&id, &name);
        let saved = 100.0 - node.bytes(&id).1 * 100.0 / node.log_bytes();
        let fold = folded(&node, rows, keys.last().copied());
        let single = one_by_one(&node.path(&name), &keys) * rows as f64 * times as f64;
        let ratio = |other: f64| other / back.as_secs_f64();
        let (fold, single) = (ratio(fold.as_secs_f64()), ratio(single));
        let figure = |ratio: f64| format!("{:.2} s, {ratio:.1} times faster", back.as_secs_f64());
        let log = format!("{times} changes a row: brought back, against reading the log");
        let alone = format!("{times} changes a row: the same, against a transaction each");
        if times == 50 {
            report.mark(&log, &figure(fold), "10 times", judged(fold >= 10.0));
            report.mark(&alone, &figure(single), "100 times", judged(single >= 100.0));
        } else {
            report.figure(&log, &figure(fold));
            report.figure(&alone, &figure(single));
        }
        let what = format!("{times} changes a row: the log's bytes that a snapshot saves");
        if times == 10 {
            report.mark(&what, &format!("{saved:.1}%"), "90%", judged(saved > 90.0));
        } else {
            report.figure(&what, &format!("{saved:.1}%"));
        }
    }
}

/// How long a new node takes to read all of the log, which ends with a change of this row.
fn folded(node: &Node, rows: usize, last: Option<i64>) -> Duration {
    let path = node.path("late.db");
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(node.path(&format!("late.db{end}")));
    }
    let _ = std::fs::remove_dir_all(node.path("late.db.antiphon"));
    let late = fixture::create(&path);
    let config = node.path("late.toml");
    let log = node.path("log");
    std::fs::write(&config, format!("db_path = {path:?}\n[log]\npath = {log:?}\n[snapshot]\nenabled = false\n"))
        .unwrap();
    let begun = Instant::now();
    let _host = Host::configured(&config);
    // One row is asked for, so that asking takes nothing from who reads.
    let quantity = |conn: &Connection| {
        conn.query_row("SELECT qty FROM items WHERE id = ?1", [last], |row| row.get::<_, i64>(0)).unwrap_or(-1)
    };
    let wanted = quantity(&node.app);
    wait_for("the last change", || quantity(&late) == wanted, LOOK);
    let took = begun.elapsed();
    let sum = |conn: &Connection| {
        conn.query_row("SELECT count(*), sum(qty) FROM items", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?))
        })
        .unwrap()
    };
    assert_eq!(sum(&late), sum(&node.app));
    assert_eq!(sum(&late).0, rows as i64);
    took
}

/// Seconds that a change takes in a synced transaction of its own, by as many as are tried.
fn one_by_one(path: &Path, keys: &[i64]) -> f64 {
    let conn = Connection::open(path).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    conn.pragma_update(None, "synchronous", "FULL").unwrap();
    let few = &keys[..ONE_BY_ONE.min(keys.len())];
    let mut update = conn.prepare("UPDATE items SET qty = qty + 1 WHERE id = ?1").unwrap();
    let (took, ()) = timed(|| few.iter().for_each(|key| assert_eq!(update.execute([key]).unwrap(), 1)));
    took.as_secs_f64() / few.len() as f64
}

/// The same rows brought back by litestream, if there is one on this machine.
fn litestream(report: &mut Report, node: &Node, ours: f64) {
    const WHAT: &str = "brought back by `litestream restore`";
    let (path, replica) = (node.path("litestream.db"), node.path("replica"));
    let url = format!("file://{}", replica.display());
    std::fs::copy(node.path("back.db"), &path).unwrap();
    let conn = Connection::open(&path).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    let replicated = Command::new("litestream")
        .args(["replicate", "-once", "-force-snapshot"])
        .args([path.as_os_str(), url.as_ref()])
        .output();
    match replicated {
        Err(_) => return report.figure(WHAT, "not compared: `litestream` is not on PATH"),
        Ok(said) if !said.status.success() => return report.figure(WHAT, "not compared: it knows no `-once`"),
        Ok(_) => {}
    }
    let back = node.path("litestream-back.db");
    let restore = || Command::new("litestream").args(["restore", "-o"]).arg(&back).arg(&url).output().unwrap();
    let (took, said) = timed(restore);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let count = |conn: &Connection| conn.query_row("SELECT count(*) FROM orders", [], |row| row.get::<_, i64>(0));
    assert_eq!(count(&Connection::open(&back).unwrap()).unwrap(), count(&conn).unwrap());
    let took = took.as_secs_f64();
    report.figure(WHAT, &format!("{took:.2} s, {:.1} times as long as a snapshot", took / ours));
}

/// How many commits are taken beside snapshots: among fewer, one of a hundred is too few to judge by.
const BESIDE: usize = 3_000;

/// How long a node is left alone after a snapshot.
const REST: Duration = Duration::from_secs(1);

/// Small commits, one after the other, in turn without a snapshot and while one is made.
pub fn latency(report: &mut Report, rows: usize) {
    println!("commits beside a snapshot, {rows} rows");
    let node = Node::start(|conn| fixture::fill(conn, Kind::Random, 0, rows, INSERT));
    let config = node.path("antiphon.toml");
    let commits = |took: &mut Vec<Duration>, goes_on: &dyn Fn(usize) -> bool| {
        let mut done = 0;
        while goes_on(done) {
            let id = 1 + took.len() as i64 % rows as i64;
            took.push(timed(|| node.app.execute("UPDATE items SET qty = qty + 1 WHERE id = ?1", [id]).unwrap()).0);
            std::thread::sleep(Duration::from_millis(1));
            done += 1;
        }
        done
    };
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let wanted = if is_enough(rows) { BESIDE } else { BESIDE / 10 };
    while with.len() < wanted {
        let over = AtomicBool::new(false);
        let done = std::thread::scope(|scope| {
            let making = scope.spawn(|| {
                let made = Command::new(env!("CARGO_BIN_EXE_antiphon"))
                    .args(["snapshot".as_ref(), "create".as_ref(), "--config".as_ref(), config.as_os_str()])
                    .output()
                    .unwrap();
                over.store(true, Ordering::Relaxed);
                made
            });
            let done = commits(&mut with, &|_| !over.load(Ordering::Relaxed));
            assert!(making.join().unwrap().status.success());
            done
        });
        // What is done after a snapshot is no part of a time without one.
        std::thread::sleep(REST);
        commits(&mut without, &|so_far| so_far < done);
    }
    without.sort_unstable();
    with.sort_unstable();
    let at = |took: &[Duration], percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)].as_secs_f64();
    for (what, percent, most) in [("median", 50, 1.25), ("99 of 100", 99, 2.0)] {
        let (before, during) = (at(&without, percent), at(&with, percent));
        let ratio = during / before;
        report.mark(
            &format!("a commit while a snapshot is made, {what}"),
            &format!("{:.3} ms, {ratio:.2} times", during * 1000.0),
            &format!("{most} times"),
            ratio <= most || !is_enough(rows),
        );
    }
    let longest = with.last().unwrap().as_secs_f64() * 1000.0;
    report.mark("the longest of them", &format!("{longest:.0} ms"), "500 ms", longest < 500.0);
}
