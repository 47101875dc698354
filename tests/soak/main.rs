//! What only time shows: three nodes on a real server, written to all the while, killed and started again, with
//! snapshots, increments, an archive and prunes, and a database brought back now and then.
//!
//! It takes a minute, or ten with `FULL=1`, and is alone on its machine: how it does under load is asked of it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test that can't go on ends there"
)]

use antiphon_harness::{Broker, Ended, Place, Site, settled};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const TABLES: &str =
    "CREATE TABLE item (writer INTEGER, slot INTEGER, n INTEGER NOT NULL, note TEXT, PRIMARY KEY (writer, slot));
                      CREATE TABLE total (writer INTEGER PRIMARY KEY, n INTEGER NOT NULL);";
/// Each application's writes in a second.
const PACE: u64 = 500;
/// Rows that each of them writes again and again, so that the files stay as large as they are.
const SLOTS: u64 = 4_000;
const KILL_EVERY: Duration = Duration::from_secs(10);
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
const WAL_MAX: u64 = 64 << 20;
const MIB: f64 = 1_048_576.0;

/// How long it takes, and what follows from that.
struct Course {
    whole: Duration,
    drill_every: Duration,
    /// Between two full snapshots.
    interval: Duration,
    /// Bytes that a process may have more at the end of its second half than at the beginning.
    growth: f64,
}

impl Course {
    fn chosen() -> Self {
        let seconds = Duration::from_secs;
        if std::env::var("FULL").is_ok() {
            // 1 MiB a minute.
            return Self { whole: seconds(600), drill_every: seconds(60), interval: seconds(60), growth: 5.0 * MIB };
        }
        // Half a minute is too short to tell a slope of that from what an allocator keeps.
        Self { whole: seconds(60), drill_every: seconds(25), interval: seconds(25), growth: 16.0 * MIB }
    }
}

fn site(place: &Place, name: &str, broker: &Broker, course: &Course) -> Site {
    let text = format!(
        "db_path = '{name}.db'\n[replication_log]\nshards = 2\n[logging]\nlevel = 'info,antiphon::snapshot::archivist=warn'\n[nats]\nurls = ['{}']\n\
         [snapshot]\nstore = 'file'\ninterval = {}\nincremental_interval = 0\nincremental_threshold = 300\n\
         archive_interval = 1000\nleader_ttl = 1500\nretention_count = 2\nprune_grace = 5000\n\
         [snapshot.keep]\nverified = 0\n[snapshot.file]\npath = 'snapshots'\n",
        broker.url(),
        course.interval.as_millis()
    );
    place.file(&format!("{name}.toml"), &text);
    place.site(name, TABLES).arguments(["run", "--config", &format!("{name}.toml")])
}

/// One application: writes at its pace and knows what it has committed.
fn write(conn: &Connection, writer: u64, stop: &AtomicBool) -> Vec<u64> {
    let mut known = vec![0; SLOTS as usize];
    let mut item = conn
        .prepare(
            "INSERT INTO item VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET n = excluded.n, note = excluded.note",
        )
        .unwrap();
    let mut total = conn.prepare("INSERT INTO total VALUES (?1, ?2) ON CONFLICT DO UPDATE SET n = excluded.n").unwrap();
    let begun = Instant::now();
    let mut n = 0;
    while !stop.load(Ordering::Acquire) {
        // Behind its pace, as after a stall of the machine, it makes up for that.
        let due = begun.elapsed().as_millis() as u64 * PACE / 1000;
        while n < due && !stop.load(Ordering::Acquire) {
            n += 1;
            let slot = n.wrapping_mul(2_654_435_761) % SLOTS;
            if n % 50 == 0 {
                total.execute([writer.cast_signed(), n.cast_signed()]).unwrap();
            } else {
                let note = "note ".repeat((n % 20) as usize);
                item.execute((writer.cast_signed(), slot.cast_signed(), n.cast_signed(), note)).unwrap();
                known[slot as usize] = n;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    known
}

/// Ends the writers however the test ends.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What a process has at a moment.
#[derive(Debug)]
struct Sample {
    resident: f64,
    descriptors: usize,
}

fn sample(pid: u32) -> Sample {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: f64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    Sample { resident: resident * 1024.0, descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() }
}

fn size(path: &Path) -> u64 {
    path.metadata().map_or(0, |found| found.len())
}

fn snapshot(place: &Place, arguments: &[&str]) -> Ended {
    place.run([&["snapshot"], arguments, &["--config", "c.toml"]].concat())
}

/// A database comes back from the newest snapshot, whole.
fn drill(place: &Place, number: u64) {
    let file = format!("drill-{number}.db");
    // One that is pruned the moment it is read is no failure: there is a newer one then.
    let restored = (0..3).map(|_| snapshot(place, &["restore", "--output", &file])).find(|ended| ended.code == Some(0));
    assert!(restored.is_some(), "no database came back at drill {number}");
    let conn = Connection::open(place.path(&file)).unwrap();
    let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    let rows: i64 = conn.query_row("SELECT count(*) FROM item", [], |row| row.get(0)).unwrap();
    assert!(sound == "ok" && rows > 0, "{sound}, {rows} rows");
    std::fs::remove_file(place.path(&file)).unwrap();
}

/// A snapshot that was made because it was time, by the moment it was made.
#[derive(Clone, Debug)]
struct Run {
    is_full: bool,
    is_timed: bool,
}

/// Notes which snapshots there are: those that are pruned later have been there all the same.
fn note_runs(place: &Place, runs: &mut BTreeMap<u64, Run>) {
    let said = snapshot(place, &["list", "--json"]);
    for line in said.stdout.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let run = Run { is_full: line["kind"] == "full", is_timed: line["trigger"] == "interval" };
        runs.insert(line["created_ms"].as_u64().unwrap(), run);
    }
}

/// How many full snapshots were made because it was time, and how many of them within a tenth of their interval.
fn punctual(runs: &BTreeMap<u64, Run>, interval: Duration) -> (usize, usize) {
    let full: Vec<(u64, bool)> =
        runs.iter().filter(|(_, run)| run.is_full).map(|(at, run)| (*at, run.is_timed)).collect();
    let gaps: Vec<u64> = full.windows(2).filter(|pair| pair[1].1).map(|pair| pair[1].0 - pair[0].0).collect();
    println!("gaps between full snapshots: {gaps:?} ms");
    let most = interval.as_millis() as u64 * 11 / 10;
    (gaps.len(), gaps.iter().filter(|gap| **gap <= most).count())
}

#[test]
fn three_nodes_are_written_to_and_killed() {
    let course = Course::chosen();
    let place = Place::new(antiphon_harness::program!());
    let broker = Broker::start();
    let mut sites = ["a", "b", "c"].map(|name| site(&place, name, &broker, &course));
    for site in &mut sites {
        site.spawn();
        site.wait_for_words("  log      ");
    }
    let connections = sites.each_ref().map(Site::connect);
    let stop = AtomicBool::new(false);
    let wal = AtomicU64::new(0);
    let mut samples = Vec::new();
    let mut runs = BTreeMap::new();
    let expected: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let stopping = Stopping(&stop);
        let stop = &stop;
        let writers: Vec<_> = connections
            .into_iter()
            .enumerate()
            .map(|(writer, conn)| scope.spawn(move || write(&conn, writer as u64, stop)))
            .collect();
        let started = Instant::now();
        let (mut kills, mut drills) = (0, 0);
        let mut next_sample = started + SAMPLE_EVERY;
        while started.elapsed() < course.whole {
            std::thread::sleep(next_sample.saturating_duration_since(Instant::now()));
            next_sample += SAMPLE_EVERY;
            samples.push(sample(sites[2].pid()));
            for site in &sites {
                wal.fetch_max(size(&site.database.with_extension("db-wal")), Ordering::Relaxed);
            }
            if started.elapsed() > KILL_EVERY * (kills + 1) {
                // The third one lives through it all, to be measured.
                let site = &mut sites[kills as usize % 2];
                site.kill9();
                site.spawn();
                kills += 1;
            }
            // A little after a snapshot was due, so that it is of rows.
            if started.elapsed() > course.drill_every * (drills + 1) + KILL_EVERY / 2 {
                drills += 1;
                drill(&place, drills.into());
            }
            if samples.len() % 5 == 0 {
                note_runs(&place, &mut runs);
            }
        }
        println!("{kills} kills, {drills} drills, {} samples", samples.len());
        drop(stopping);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });

    settled(&sites.each_ref());
    for (writer, slots) in expected.iter().enumerate() {
        let written: u64 = slots.iter().copied().max().unwrap();
        println!("writer {writer}: {written} writes");
        // As many as asked for, or nearly: a soak of an idle cluster shows nothing.
        assert!(written as f64 > course.whole.as_secs_f64() * PACE as f64 * 0.9, "{written} writes");
        let found = sites[2].rows(&format!("SELECT slot, n FROM item WHERE writer = {writer} ORDER BY slot"));
        let wanted = slots.iter().enumerate().filter(|(_, n)| **n > 0).map(|(slot, n)| format!("{slot}|{n}"));
        assert!(found == wanted.collect::<Vec<_>>(), "rows of writer {writer} were lost");
    }
    let wal = wal.into_inner();
    println!("largest WAL: {wal} bytes");
    assert!(wal < WAL_MAX, "{wal}");
    let half = &samples[samples.len() / 2..];
    let quarter = half.len() / 4;
    let least = |samples: &[Sample]| samples.iter().map(|sample| sample.resident).fold(f64::INFINITY, f64::min);
    let growth = least(&half[half.len() - quarter..]) - least(&half[..quarter]);
    println!("memory: {:.1} MiB, growth {:.2} MiB in the second half", least(half) / MIB, growth / MIB);
    assert!(growth < course.growth, "{growth}");
    let descriptors = |samples: &[Sample]| samples.iter().map(|sample| sample.descriptors).min().unwrap();
    let (before, after) = (descriptors(&half[..quarter]), descriptors(&half[half.len() - quarter..]));
    println!("descriptors: {before} and {after}");
    assert!(before.abs_diff(after) <= 5, "{before} and {after}");
    note_runs(&place, &mut runs);
    let (timed, on_time) = punctual(&runs, course.interval);
    println!("{} snapshots, {timed} because it was time, {on_time} of them on time", runs.len());
    assert!(timed >= 1, "{runs:?}");
    assert!(on_time as f64 >= timed as f64 * 0.99, "{on_time} of {timed}");
    let verified = snapshot(&place, &["verify", "--all", "--level", "restore"]);
    assert_eq!(verified.code, Some(0), "{}{}", verified.stdout, verified.stderr);
    println!("{}", verified.stdout);
    for site in &mut sites {
        site.term();
    }
}
