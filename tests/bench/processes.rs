//! Two hosts as users run them: rows a second from one application's file to the other's, and one row's delay.

use crate::fixture::{self, INSERT, Kind, UPSERT};
use crate::report::{Report, per_second, timed};
use rusqlite::Connection;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
const SAMPLES: usize = 300;
/// After so long all that was written is archived, and whoever archives has looked for more.
const ARCHIVED: Duration = Duration::from_secs(15);

/// A host; ended with this object.
pub(crate) struct Host(Child);

impl Host {
    fn start(database: &Path, log: &Path, config: Option<&Path>) -> Self {
        let config = config.into_iter().flat_map(|file| [Path::new("--config"), file]);
        Self::run([Path::new("run"), database, Path::new("--log"), log].into_iter().chain(config))
    }

    /// One that is told everything by a file.
    pub(crate) fn configured(config: &Path) -> Self {
        Self::run([Path::new("run"), Path::new("--config"), config])
    }

    fn run<'a>(arguments: impl IntoIterator<Item = &'a Path>) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_antiphon"))
            .args(arguments)
            .env("ANTIPHON_LOG", "warn")
            .stdout(Stdio::null())
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

/// Two hosts on fresh databases, both members, with the application's connection to each.
pub(crate) struct Two {
    pub(crate) hosts: [Host; 2],
    pub(crate) writer: Connection,
    pub(crate) reader: Connection,
}

impl Two {
    pub(crate) fn start(folder: &Path, config: Option<&Path>) -> Self {
        let log = folder.join("log");
        let [here, there] = ["here.db", "there.db"].map(|name| folder.join(name));
        let (writer, reader) = (fixture::create(&here), fixture::create(&there));
        let hosts = [&here, &there].map(|database| Host::start(database, &log, config));
        // A row written before its host is a member would be one that the cluster does not have: refused, and rightly.
        for conn in [&writer, &reader] {
            wait_for("a member", || is_member(conn), Duration::from_millis(5));
        }
        fixture::fill(&writer, Kind::Ordinary, 0, 1, INSERT);
        wait_for("the first row", || count(&reader) == 1, Duration::from_millis(5));
        Self { hosts, writer, reader }
    }
}

/// Whether a snapshot was made of what these nodes wrote.
fn has_snapshot(folder: &Path) -> bool {
    let clusters = std::fs::read_dir(folder.join("log/snapshots")).into_iter().flatten().flatten();
    let snapshots = clusters.filter_map(|cluster| std::fs::read_dir(cluster.path().join("snap")).ok()).flatten();
    snapshots.flatten().next().is_some()
}

/// Whether a mark can be judged with so few rows.
pub(crate) fn is_enough(rows: usize) -> bool {
    rows >= 10_000
}

pub fn run(report: &mut Report, rows: usize) {
    println!("two processes, {rows} rows");
    let folder = tempfile::tempdir().unwrap();
    let plain = fixture::create(&folder.path().join("plain.db"));
    let (plain_took, ()) = timed(|| fixture::fill(&plain, Kind::Ordinary, 0, rows, UPSERT));
    let limit = per_second(rows, plain_took);
    report.figure("plain upserts in one thread", &format!("{limit:.0} rows/s"));
    let Two { hosts: [from, to], writer, reader } = Two::start(folder.path(), None);

    let (took, writing) = timed(|| {
        let (writing, ()) = timed(|| fixture::fill(&writer, Kind::Ordinary, 1, rows, INSERT));
        wait_for("all rows", || count(&reader) == rows, Duration::from_millis(10));
        writing
    });
    report.figure("  the application's writes meanwhile", &format!("{:.0} rows/s", per_second(rows, writing)));
    for (host, name) in [(&from, "writing"), (&to, "reading")] {
        let (cpu, peak) = usage(host);
        report.figure(
            &format!("  the {name} node's processor time"),
            &format!("{:.2} µs a row", cpu * 1e6 / rows as f64),
        );
        report.mark(
            &format!("  the {name} node's memory at its peak"),
            &format!("{peak:.0} MiB"),
            "under 100 MiB",
            peak < 100.0 || !is_enough(rows),
        );
    }
    let reached = per_second(rows, took);
    report.mark(
        "end to end between two processes",
        &format!("{reached:.0} rows/s = {:.0}% of plain", reached / limit * 100.0),
        "200,000 rows/s, or 20% of plain",
        reached >= 200_000.0 || reached >= limit * 0.2 || !is_enough(rows),
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
    report.mark(
        "one row's delay, median and p99",
        &format!("{:.1} ms and {:.1} ms", at(50), at(99)),
        "5 ms and 20 ms",
        at(50) <= 5.0 && at(99) <= 20.0 || !is_enough(rows),
    );
    let seconds = if is_enough(rows) {
        // Idle is who has nothing left to do: one of both makes the first snapshot, and one archives what was written.
        wait_for("the first snapshot", || has_snapshot(folder.path()), Duration::from_millis(100));
        std::thread::sleep(ARCHIVED);
        10
    } else {
        1
    };
    let (before, _) = usage(&to);
    std::thread::sleep(Duration::from_secs(seconds));
    let (after, _) = usage(&to);
    let idle = (after - before) * 100.0 / seconds as f64;
    report.mark("idle, of one processor", &format!("{idle:.1}%"), "under 1%", idle < 1.0 || !is_enough(rows));
}

const COUNTER: &str = "[conflict]
[[conflict.table]]
match = \"items\"
use = \"counter\"
settings = { columns = \"qty\" }
";

/// Both nodes count on the same rows at the same time, and no step is lost.
pub fn run_counter(report: &mut Report, rows: usize) {
    println!("two processes, a counter table, {rows} rows");
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("antiphon.toml");
    std::fs::write(&config, COUNTER).unwrap();
    let Two { hosts: _hosts, mut writer, mut reader } = Two::start(folder.path(), Some(&config));
    let sum =
        |conn: &Connection| conn.query_row("SELECT total(qty) FROM items", [], |row| row.get::<_, f64>(0)).unwrap();
    let arrive = |conn: &Connection, expected: f64| {
        wait_for("all steps", || count(conn) == rows && sum(conn) == expected, Duration::from_millis(10));
    };
    let (took, ()) = timed(|| {
        fixture::fill(&writer, Kind::Ordinary, 1, rows, INSERT);
        arrive(&reader, sum(&writer));
    });
    report.mark(
        "rows of a counter table, end to end",
        &format!("{:.0} rows/s", per_second(rows, took)),
        "50,000 rows/s",
        per_second(rows, took) >= 50_000.0 || !is_enough(rows),
    );
    let expected = sum(&writer) + rows as f64 * 3.0;
    let (took, ()) = timed(|| {
        std::thread::scope(|scope| {
            for (conn, step) in [(&mut writer, 1), (&mut reader, 2)] {
                scope.spawn(move || fixture::step(conn, rows, step));
            }
        });
        arrive(&reader, expected);
        arrive(&writer, expected);
    });
    report.figure(
        "steps of a counter from both nodes, all on the same rows",
        &format!("{:.0} steps/s", per_second(rows * 2, took)),
    );
}
