//! Kill -9, again and again: whatever a process was doing, nothing acknowledged is lost and nothing counts twice.
//!
//! Two tests. One kills random nodes at random moments while an application writes beside every node; `KILLS` and
//! `SEED` in the environment set how often and which moments. The other kills at each named fault point once, so
//! that no instant is left to luck.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test that can't go on ends there"
)]

use antiphon_harness::{Place, Signal, Site, eventually, settled};
use rusqlite::{Connection, params};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Every start after a crash must be ready within this.
const BOUND: Duration = Duration::from_secs(5);

fn place() -> Place {
    Place::new(antiphon_harness::program!())
}

/// Small, seeded, good enough to pick moments with.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

const TABLES: &str = "CREATE TABLE item (id TEXT PRIMARY KEY, v INTEGER, note TEXT);
                      CREATE TABLE total (writer INTEGER PRIMARY KEY, n INTEGER);
                      CREATE TABLE shared (id INTEGER PRIMARY KEY, v TEXT);";

/// What an application knows it has committed: its items, and how often it counted.
#[derive(Default)]
struct Acknowledged {
    items: BTreeMap<String, (i64, String)>,
    total: i64,
    /// All items ever inserted, and those deleted again.
    inserted: u64,
    deleted: u64,
}

/// Inserts, updates and deletes rows of its own, counts, and quarrels over a few shared rows, until told to stop.
fn write(conn: &Connection, writer: usize, seed: u64, stop: &AtomicBool, commits: &AtomicU64) -> Acknowledged {
    let mut random = Random(seed);
    let mut known = Acknowledged::default();
    let number = i64::try_from(writer).unwrap();
    conn.execute("INSERT INTO total VALUES (?1, 0)", [number]).unwrap();
    while !stop.load(Ordering::Acquire) {
        let mut next = known.items.clone();
        let (mut inserted, mut deleted) = (known.inserted, known.deleted);
        let transaction = conn.unchecked_transaction().unwrap();
        for _ in 0..=random.below(4) {
            let some = next.keys().nth(usize::try_from(random.below(next.len().max(1) as u64)).unwrap()).cloned();
            match (random.below(10), some) {
                (0..=1, Some(id)) if next.len() > 50 => {
                    transaction.execute("DELETE FROM item WHERE id = ?1", [&id]).unwrap();
                    next.remove(&id);
                    deleted += 1;
                }
                (2..=5, Some(id)) => {
                    transaction.execute("UPDATE item SET v = v + 1 WHERE id = ?1", [&id]).unwrap();
                    next.get_mut(&id).unwrap().0 += 1;
                }
                _ => {
                    inserted += 1;
                    let (id, note) = (format!("{writer}-{inserted}"), "x".repeat(random.below(300) as usize));
                    transaction.execute("INSERT INTO item VALUES (?1, 0, ?2)", params![id, note]).unwrap();
                    next.insert(id, (0, note));
                }
            }
        }
        transaction.execute("UPDATE total SET n = n + 1 WHERE writer = ?1", [number]).unwrap();
        if random.below(4) == 0 {
            let text = format!("{writer} at {}", known.total);
            transaction
                .execute("REPLACE INTO shared VALUES (?1, ?2)", params![random.below(5).cast_signed(), text])
                .unwrap();
        }
        transaction.commit().unwrap();
        known = Acknowledged { items: next, total: known.total + 1, inserted, deleted };
        commits.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_micros(random.below(3_000)));
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

/// Every node has exactly what the applications were told is stored.
fn check(sites: &[&Site], known: &[Acknowledged]) {
    settled(sites);
    for site in sites {
        let mut expected: Vec<String> = Vec::new();
        for writer in known {
            expected.extend(writer.items.iter().map(|(id, (v, note))| format!("{id}|{v}|{note}")));
        }
        expected.sort();
        let mut found = site.rows("SELECT * FROM item");
        found.sort();
        assert!(found == expected, "{} items are there, {} were acknowledged", found.len(), expected.len());
        let totals: Vec<String> = known.iter().enumerate().map(|(at, known)| format!("{at}|{}", known.total)).collect();
        assert_eq!(site.rows("SELECT * FROM total ORDER BY writer"), totals);
        assert_eq!(site.one("PRAGMA integrity_check"), "ok");
    }
}

#[test]
fn random_kills() {
    let kills = setting("KILLS", 60);
    let seed = setting("SEED", 20_260_301);
    println!("KILLS={kills} SEED={seed}");
    let mut random = Random(seed);
    let place = place();
    let mut sites: Vec<Site> = ["a", "b", "c"].iter().map(|name| place.site(name, TABLES)).collect();
    for site in &mut sites {
        site.start();
    }
    let (stop, commits) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut slowest = Duration::ZERO;
    let known: Vec<Acknowledged> = std::thread::scope(|scope| {
        let writers: Vec<_> = sites
            .iter()
            .enumerate()
            .map(|(at, site)| {
                let (conn, stop, commits) = (site.connect(), &stop, &commits);
                let seed = seed.wrapping_mul(at as u64 + 2) | 1;
                scope.spawn(move || write(&conn, at, seed, stop, commits))
            })
            .collect();
        let stopping = Stopping(&stop);
        for _ in 0..kills {
            std::thread::sleep(Duration::from_millis(random.below(400)));
            let count = sites.len() as u64;
            let site = &mut sites[usize::try_from(random.below(count)).unwrap()];
            site.kill9();
            // Some are killed again before they have said a word.
            if random.below(5) == 0 {
                site.spawn();
                std::thread::sleep(Duration::from_millis(random.below(60)));
                site.kill9();
            }
            let took = site.start();
            assert!(took < BOUND, "a start took {took:?}");
            slowest = slowest.max(took);
        }
        drop(stopping);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let all: Vec<&Site> = sites.iter().collect();
    check(&all, &known);
    let (items, deleted): (u64, u64) =
        known.iter().fold((0, 0), |sum, known| (sum.0 + known.inserted, sum.1 + known.deleted));
    println!(
        "{} commits, {items} items inserted, {deleted} deleted again, {} entries, slowest start {slowest:?}",
        commits.into_inner(),
        place.entries(1).len()
    );
    for site in &mut sites {
        site.term();
    }
}

/// The points named in the program, and the passing at which it dies. `commit` ends every transaction of the host's,
/// so its first passings are those of founding and joining.
const POINTS: &[(&str, &[u64])] = &[
    ("begin", &[1, 2, 3, 10]),
    ("commit", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 20, 30]),
    ("committed", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 20, 30]),
    ("scanned", &[1, 2, 3]),
    ("seal", &[1, 2, 10]),
    ("sealed", &[1, 2, 10]),
    ("append", &[1, 2, 10]),
    ("appended", &[1, 2, 10]),
    ("apply", &[1, 2, 10]),
    ("applied", &[1, 2, 10]),
];

/// A host that dies at a named point, in its first seconds or in the middle of its work, goes on after the next start.
fn die_at(point: &str, passing: u64, founder: bool) {
    let place = place();
    let rows = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 12000)
                INSERT INTO shared SELECT i, 'before' FROM n;";
    let mut dying = place.site("dying", &format!("{TABLES} {}", if founder { rows } else { "" }));
    let mut other = place.site("other", &format!("{TABLES} {}", if founder { "" } else { rows }));
    dying.set("ANTIPHON_DIE_AT", Some(format!("{point}:{passing}")));
    let (stop, commits) = (AtomicBool::new(false), [AtomicU64::new(0), AtomicU64::new(0)]);
    let known: Vec<Acknowledged> = std::thread::scope(|scope| {
        let _stopping = Stopping(&stop);
        let (stop, commits) = (&stop, &commits);
        let start_writing = |at: usize, site: &Site| {
            let conn = site.connect();
            scope.spawn(move || write(&conn, at, 77 + at as u64, stop, &commits[at]))
        };
        let mut writers = [None, None];
        if !founder {
            other.start();
            writers[1] = Some(start_writing(1, &other));
        }
        dying.spawn();
        // Rows written before it is a member would make it a file that differs, and that is another story.
        eventually("it is a member or gone", || dying.said().contains("replicating ") || !dying.is_running());
        if dying.is_running() {
            writers[0] = Some(start_writing(0, &dying));
        }
        eventually("it dies", || !dying.is_running());
        let status = dying.wait();
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}");
        dying.set("ANTIPHON_DIE_AT", None::<String>);
        let took = dying.start();
        assert!(took < BOUND, "the start took {took:?}");
        writers[0].get_or_insert_with(|| start_writing(0, &dying));
        if founder {
            other.start();
            writers[1] = Some(start_writing(1, &other));
        }
        let before = commits.each_ref().map(|commits| commits.load(Ordering::Relaxed));
        eventually("both write on", || {
            commits.iter().zip(before).all(|(commits, before)| commits.load(Ordering::Relaxed) > before + 20)
        });
        stop.store(true, Ordering::Release);
        writers.into_iter().map(|writer| writer.unwrap().join().unwrap()).collect()
    });
    check(&[&dying, &other], &known);
    assert_eq!(dying.one("SELECT count(*) FROM shared WHERE id > 4"), "11996");
}

#[test]
fn every_named_point_of_a_founder() {
    for (point, passings) in POINTS {
        for passing in *passings {
            println!("founder, {point}:{passing}");
            die_at(point, *passing, true);
        }
    }
}

/// A node that joins empty has nothing to scan that would matter: only `scanned` is never passed by it for sure.
#[test]
fn every_named_point_of_a_joiner() {
    for (point, passings) in POINTS.iter().filter(|(point, _)| *point != "scanned") {
        for passing in *passings {
            println!("joiner, {point}:{passing}");
            die_at(point, *passing, false);
        }
    }
}

/// A point that nobody lists is a point that nobody dies at.
#[test]
fn every_point_is_listed() {
    fn points(folder: &std::path::Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                points(&path, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text.split("fault!(\"").skip(1).filter_map(|rest| rest.split_once('"'));
            found.extend(names.map(|(name, _)| name.to_owned()));
        }
    }
    let mut found = Vec::new();
    points(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found.sort();
    let mut listed: Vec<&str> = POINTS.iter().map(|(point, _)| *point).collect();
    listed.sort_unstable();
    assert_eq!(found, listed);
}
