//! Two hosts as users run them: rows a second from one application's file to the other's, and one row's delay.

use crate::fixture::{self, INSERT, Kind};
use crate::report::{Report, per_second, timed};
use rusqlite::Connection;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
const SAMPLES: usize = 300;

/// A host; ended with this object.
pub(crate) struct Host(Child);

impl Host {
    pub(crate) fn start(database: &Path, log: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_antiphon"))
            .args([Path::new("run"), database, Path::new("--log"), log])
            .env("ANTIPHON_LOG", "warn")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Processor time and peak memory of a process.
pub(crate) fn usage(host: &Host) -> (f64, f64) {
    let proc = format!("/proc/{}", host.0.id());
    let stat = std::fs::read_to_string(format!("{proc}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let peak: f64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    (ticks / 100.0, peak / 1024.0)
}

pub(crate) fn count(conn: &Connection) -> usize {
    conn.query_row("SELECT count(*) FROM items", [], |row| row.get::<_, i64>(0)).unwrap() as usize
}

/// Whether the host beside this database has founded a cluster or joined one.
pub(crate) fn is_member(conn: &Connection) -> bool {
    let sql = "SELECT 1 FROM \"__antiphon___meta\" WHERE name = 'cluster'";
    conn.prepare(sql).is_ok_and(|mut statement| statement.exists([]).unwrap_or(false))
}

pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool, pause: Duration) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not come within {} s", PATIENCE.as_secs());
        std::thread::sleep(pause);
    }
}

pub fn run(report: &mut Report, rows: usize) {
    println!("two processes, {rows} rows");
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let [here, there] = ["here.db", "there.db"].map(|name| folder.path().join(name));
    let (writer, reader) = (fixture::create(&here), fixture::create(&there));
    let (from, to) = (Host::start(&here, &log), Host::start(&there, &log));
    // A row written before its host is a member would be one that the cluster does not have: refused, and rightly.
    for conn in [&writer, &reader] {
        wait_for("a member", || is_member(conn), Duration::from_millis(5));
    }
    fixture::fill(&writer, Kind::Ordinary, 0, 1, INSERT);
    wait_for("the first row", || count(&reader) == 1, Duration::from_millis(5));

    let (took, writing) = timed(|| {
        let (writing, ()) = timed(|| fixture::fill(&writer, Kind::Ordinary, 1, rows, INSERT));
        wait_for("all rows", || count(&reader) == rows, Duration::from_millis(10));
        writing
    });
    report.figure("  the application's writes meanwhile", &format!("{:.0} rows/s", per_second(rows, writing)));
    for (host, name) in [(&from, "writing"), (&to, "reading")] {
        let (cpu, peak) = usage(host);
        report.figure(
            &format!("  the {name} node"),
            &format!("{:.2} µs of processor a row, {peak:.0} MiB at its peak", cpu * 1e6 / rows as f64),
        );
    }
    report.mark(
        "end to end between two processes",
        &format!("{:.0} rows/s", per_second(rows, took)),
        "100,000 rows/s",
        per_second(rows, took) >= 100_000.0 || rows < 10_000,
    );

    let mut delays = Vec::new();
    for id in rows + 1..=rows + SAMPLES.min(rows) {
        let start = Instant::now();
        writer.execute("INSERT INTO items (id, name) VALUES (?1, 'late')", [id as i64]).unwrap();
        let mut seen = reader.prepare_cached("SELECT 1 FROM items WHERE id = ?1").unwrap();
        wait_for("a row", || seen.exists([id as i64]).unwrap(), Duration::from_micros(50));
        delays.push(start.elapsed());
        // Not in step with anyone's timers.
        std::thread::sleep(Duration::from_micros(3000 + (id as u64 * 7919) % 5000));
    }
    delays.sort_unstable();
    let at = |share: usize| delays[(delays.len() - 1) * share / 100].as_secs_f64() * 1e3;
    report.figure("one row's delay, median and p99", &format!("{:.1} ms and {:.1} ms", at(50), at(99)));
    let (before, _) = usage(&to);
    std::thread::sleep(Duration::from_secs(2));
    let (after, _) = usage(&to);
    report.figure("idle, of one processor", &format!("{:.1}%", (after - before) * 50.0));
}
