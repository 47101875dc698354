//! One transaction of very many rows between two hosts: their memory, and how long other writers wait meanwhile.

use crate::fixture::{self, WORDS};
use crate::processes::{Two, count, usage, wait_for};
use crate::report::{Report, timed};
use antiphon::db::{Filter, Look, compare_files};
use rusqlite::{Connection, params};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const MEMORY_MAX_MIB: f64 = 300.0;
const WAIT_MAX: Duration = Duration::from_millis(500);
/// Between two rows of the other writers.
const PAUSE: Duration = Duration::from_millis(3);

/// Another writer of a file: small rows, one a transaction, until told to stop. Gives the longest wait for one, and
/// how many there were.
fn write_beside(path: PathBuf, first: i64, go: &AtomicBool, stop: &AtomicBool) -> (Duration, usize) {
    let conn = Connection::open(path).unwrap();
    conn.pragma_update(None, "synchronous", "NORMAL").unwrap();
    // SQLite's own way to wait, as applications have it.
    conn.busy_timeout(Duration::from_secs(30)).unwrap();
    let mut insert = conn.prepare("INSERT INTO items (id, name) VALUES (?1, 'beside')").unwrap();
    let (mut longest, mut rows) = (Duration::ZERO, 0);
    while !stop.load(Ordering::Acquire) {
        if !go.load(Ordering::Acquire) {
            std::thread::sleep(PAUSE);
            continue;
        }
        let begun = Instant::now();
        insert.execute([first + rows]).unwrap();
        longest = longest.max(begun.elapsed());
        rows += 1;
        std::thread::sleep(PAUSE);
    }
    (longest, usize::try_from(rows).unwrap())
}

fn at_once(conn: &Connection, rows: usize) {
    let mut random = fixture::Random::new(1);
    let mut insert = conn.prepare(fixture::INSERT).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    for id in 2..=rows {
        let (qty, price) = (random.below(1000) as i64, random.below(100_000) as f64 / 100.0);
        insert.execute(params![id as i64, format!("name-{id}"), qty, price, WORDS[random.below(24) as usize]]).unwrap();
    }
    conn.execute_batch("COMMIT").unwrap();
}

/// Whether the application's tables are equal.
fn are_equal(here: &Path, there: &Path) -> bool {
    let (here, there) = (Look::open(here).unwrap(), Look::open(there).unwrap());
    compare_files(&here, &there, &Filter::default(), 0).unwrap().is_equal()
}

pub fn run(report: &mut Report, rows: usize) {
    println!("two processes, one transaction of {rows} rows, and another writer beside each");
    let folder = tempfile::tempdir().unwrap();
    let Two { hosts: [from, to], writer, reader } = Two::start(folder.path(), None);
    let [here, there] = ["here.db", "there.db"].map(|name| folder.path().join(name));

    let (go, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let beside = [(&here, 100_000_000), (&there, 200_000_000)].map(|(path, first)| {
        let (path, go, stop) = (path.clone(), Arc::clone(&go), Arc::clone(&stop));
        std::thread::spawn(move || write_beside(path, first, &go, &stop))
    });
    // What the transaction itself makes others wait is the application's own doing.
    let (writing, ()) = timed(|| at_once(&writer, rows));
    go.store(true, Ordering::Release);
    let large = |conn: &Connection| {
        conn.query_row("SELECT count(*) FROM items WHERE id <= ?1", [rows as i64], |row| row.get::<_, i64>(0)).unwrap()
    };
    let (took, ()) = timed(|| {
        wait_for("all rows", || large(&reader) == rows as i64, Duration::from_millis(50));
    });
    // Its own unit comes back to the writer as well, and in slices, too. What the other file has was sealed here.
    let outbox = "__antiphon___global_change_log";
    let last: i64 = writer.query_row(&format!("SELECT max(id) FROM {outbox}"), [], |row| row.get(0)).unwrap();
    let waits = format!("SELECT count(*) FROM {outbox} WHERE state = 0 AND id <= {last}");
    let is_back = || writer.query_row(&waits, [], |row| row.get::<_, i64>(0)).unwrap() == 0;
    wait_for("its own unit", is_back, Duration::from_millis(50));
    stop.store(true, Ordering::Release);
    let [(here_wait, here_rows), (there_wait, there_rows)] = beside.map(|beside| beside.join().unwrap());
    report.figure(
        "its writing, and its way to the other file",
        &format!("{:.1} s, {:.1} s", writing.as_secs_f64(), took.as_secs_f64()),
    );
    let all = rows + here_rows + there_rows;
    wait_for("the rows beside it", || count(&reader) == all && count(&writer) == all, Duration::from_millis(50));
    for (host, name) in [(&from, "writing"), (&to, "reading")] {
        let (_, peak) = usage(host);
        report.mark(
            &format!("memory of the {name} node"),
            &format!("{peak:.0} MiB at its peak"),
            "below 300 MiB",
            peak < MEMORY_MAX_MIB,
        );
    }
    for (wait, made, name) in [(here_wait, here_rows, "writing"), (there_wait, there_rows, "reading")] {
        report.mark(
            &format!("longest wait of another writer, {name} node"),
            &format!("{} ms, {made} rows", wait.as_millis()),
            "at most 500 ms",
            wait <= WAIT_MAX,
        );
    }
    report.mark("both files", "compared row by row", "equal", are_equal(&here, &there));
}
