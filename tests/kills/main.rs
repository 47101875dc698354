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

mod moving;
mod snapshots;
mod travel;
mod working;

use antiphon_harness::{Place, Signal, Site, Stopping, eventually, settled};
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
const ITEMS: &str = "INSERT INTO item VALUES ('a', 1, 'x'), ('b', 2, 'y')";

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

/// How a host comes to the point at which it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// It founds the cluster.
    Founder,
    /// It joins empty.
    Joiner,
    /// It joins with the founder's rows.
    Equal,
}
use Who::{Equal, Founder, Joiner};

const ALL: &[Who] = &[Founder, Joiner, Equal];

/// The points named in the program, who passes them for sure, and the passing at which it dies. `commit` ends every
/// transaction of the host's, so its first passings are those of founding and joining. Those with nobody beside them
/// are passed in `deaths_off_the_way`, `deaths_between_slices`, `deaths_while_policies_change` `deaths_around_snapshots` and
/// `deaths_on_the_way_back`.
const POINTS: &[(&str, &[Who], &[u64])] = &[
    ("checked", ALL, &[1]),
    ("created", &[Founder], &[1]),
    ("identified", &[Founder, Joiner], &[1]),
    ("reload", &[Founder, Joiner], &[1, 3]),
    ("opened", &[Founder], &[1]),
    ("judged", &[Joiner], &[1]),
    ("genesis", &[Founder], &[1]),
    ("begun", &[Founder], &[1]),
    ("enter", &[Founder, Joiner], &[1]),
    ("aside", &[Equal], &[1]),
    ("logged", &[Equal], &[1]),
    ("compared", &[Equal], &[1]),
    ("adopted", &[Equal], &[1]),
    ("entered", ALL, &[1]),
    ("noted", ALL, &[1]),
    ("install", ALL, &[1]),
    ("installed", ALL, &[1]),
    ("scan", &[Founder], &[1, 2]),
    ("scanned", &[Founder], &[1, 2, 3]),
    ("founding", &[Founder], &[1]),
    ("founded", &[Founder], &[1]),
    ("publish", &[Founder, Joiner], &[1, 20]),
    ("seal", &[Founder, Joiner], &[1, 2, 10]),
    ("taken", &[Founder], &[1, 12]),
    ("spread", &[Founder], &[1, 10]),
    ("enqueued", &[Founder, Equal], &[1, 10]),
    ("sealed", &[Founder, Joiner], &[1, 2, 10]),
    ("unsent", &[Founder, Joiner], &[1, 5]),
    ("append", ALL, &[1, 2, 10]),
    ("appended", ALL, &[1, 2, 10]),
    ("sent", &[Founder, Equal], &[1, 5]),
    ("check", &[Founder, Joiner], &[1]),
    ("remembered", &[Equal], &[1]),
    ("read", &[Founder, Joiner], &[1, 3]),
    ("apply", ALL, &[1, 2, 10]),
    ("decoded", &[Founder, Joiner], &[1, 20]),
    ("staged", &[Founder, Joiner], &[1, 5]),
    ("unstaged", &[Founder, Joiner], &[1, 5]),
    ("unit", &[Founder, Joiner], &[1, 5]),
    ("rows", &[Founder, Joiner], &[1, 5]),
    ("placed", &[Founder, Joiner], &[1, 5]),
    ("confirmed", &[Founder, Equal], &[1, 5]),
    ("applied", ALL, &[1, 2, 10]),
    ("slice", &[], &[]),
    ("sliced", &[], &[]),
    ("slice-placed", &[], &[]),
    ("slices-ended", &[], &[]),
    ("begin", ALL, &[1, 2, 3, 10]),
    ("commit", &[Founder, Joiner], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 20, 30]),
    ("committed", &[Founder, Joiner], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 20, 30]),
    ("looked", &[Joiner], &[1]),
    ("measured", &[Founder], &[1]),
    ("pruned", &[], &[]),
    ("settle", &[], &[]),
    ("adopt-triggers", &[], &[]),
    ("adopt-marked", &[], &[]),
    ("adopt-dropped", &[], &[]),
    ("adopting", &[], &[]),
    ("adopted-all", &[], &[]),
    ("decided", &[], &[]),
    ("recaptured", &[], &[]),
    ("in-force", &[], &[]),
    ("turn", &[], &[]),
    ("turned", &[], &[]),
    ("covered", &[], &[]),
    ("begin-life", &[], &[]),
    ("uninstall", &[], &[]),
    ("stopping", &[], &[]),
    ("snapshot-copied", &[], &[]),
    ("snapshot-drained", &[], &[]),
    ("snapshot-put", &[], &[]),
    ("snapshot-commit", &[], &[]),
    ("snapshot-committed", &[], &[]),
    ("snapshot-fetched", &[], &[]),
    ("snapshot-linked", &[], &[]),
    ("snapshot-prune", &[], &[]),
    ("log-cutting", &[], &[]),
    ("log-cut", &[], &[]),
    ("repo-copying", &[], &[]),
    ("snapshot-age", &[], &[]),
    ("snapshot-aged", &[], &[]),
    ("archive-part", &[], &[]),
    ("archive-put", &[], &[]),
    ("archive-stored", &[], &[]),
    ("archive-hole", &[], &[]),
    ("archive-void", &[], &[]),
    ("archive-claim", &[], &[]),
    ("archive-term", &[], &[]),
    ("snapshot-kept", &[], &[]),
    ("merge-put", &[], &[]),
    ("merge-stored", &[], &[]),
    ("snapshot-floor", &[], &[]),
    ("increment-flushed", &[], &[]),
    ("in-place-ready", &[], &[]),
    ("in-place-done", &[], &[]),
    ("in-place-noted", &[], &[]),
    ("offline-noted", &[], &[]),
    ("offline-kept", &[], &[]),
    ("offline-aside", &[], &[]),
    ("offline-cleared", &[], &[]),
    ("offline-named", &[], &[]),
    ("offline-put", &[], &[]),
    ("reverting", &[], &[]),
    ("reverted", &[], &[]),
    ("unfounded", &[], &[]),
    ("stood-back", &[], &[]),
    ("restored", &[], &[]),
    ("going-back", &[], &[]),
    ("begun-again", &[], &[]),
    ("anew", &[], &[]),
    ("began-again", &[], &[]),
    ("filled", &[], &[]),
];

/// Small pieces, so that units have several.
const PIECE: (&str, &str) = ("ANTIPHON_SCAN_MAX_CHANGES", "1500");
const DIE_AT: &str = "ANTIPHON_DIE_AT";

/// Waits until a host has died where it should; gives no word of it.
fn dies(site: &mut Site) {
    eventually("it dies", || !site.is_running());
    let status = site.wait();
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}");
    site.set(DIE_AT, None::<String>);
}

/// Starts a host again, which must take neither long nor a manual step.
fn comes_back(site: &mut Site) {
    let took = site.start();
    assert!(took < BOUND, "the start took {took:?}");
}

/// A host that dies at a named point, in its first seconds or in the middle of its work, goes on after the next start.
fn die_at(point: &str, passing: u64, who: Who) {
    let place = place();
    let rows = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 12000)
                INSERT INTO shared SELECT i, 'before' FROM n;";
    let mut other = place.site("other", &format!("{TABLES} {}", if who == Founder { "" } else { rows }));
    let mut dying = match who {
        Founder => place.site("dying", &format!("{TABLES} {rows}")),
        Joiner => place.site("dying", TABLES),
        Equal => place.copy("dying", &other),
    };
    other.set(PIECE.0, Some(PIECE.1));
    dying.set(PIECE.0, Some(PIECE.1));
    dying.set(DIE_AT, Some(format!("{point}:{passing}")));
    let (stop, commits) = (AtomicBool::new(false), [AtomicU64::new(0), AtomicU64::new(0)]);
    let known: Vec<Acknowledged> = std::thread::scope(|scope| {
        let _stopping = Stopping(&stop);
        let (stop, commits) = (&stop, &commits);
        let start_writing = |at: usize, site: &Site| {
            let conn = site.connect();
            scope.spawn(move || write(&conn, at, 77 + at as u64, stop, &commits[at]))
        };
        let mut writers = [None, None];
        if who != Founder {
            other.start();
            // A row written before the founder's are all in the log stands among them, and would make them differ.
            eventually("the founder is done", || who == Joiner || other.is_quiet());
            writers[1] = Some(start_writing(1, &other));
        }
        dying.spawn();
        // Rows written before it is a member would make it a file that differs, and that is another story.
        eventually("it is a member or gone", || dying.said().contains("replicating ") || !dying.is_running());
        if dying.is_running() {
            writers[0] = Some(start_writing(0, &dying));
        }
        dies(&mut dying);
        comes_back(&mut dying);
        writers[0].get_or_insert_with(|| start_writing(0, &dying));
        if who == Founder {
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

/// F01: every named point on one's way, at each passing that is listed.
fn every_point_of(who: Who) {
    for (point, _, passings) in POINTS.iter().filter(|(_, passed_by, _)| passed_by.contains(&who)) {
        for passing in *passings {
            println!("{who:?}, {point}:{passing}");
            die_at(point, *passing, who);
        }
    }
}

#[test]
fn f01_every_named_point_of_a_founder() {
    every_point_of(Founder);
}

#[test]
fn f01_every_named_point_of_a_joiner() {
    every_point_of(Joiner);
}

#[test]
fn f01_every_named_point_of_one_that_joins_with_equal_rows() {
    every_point_of(Equal);
}

/// F01: the points that only a command, a copy, another setting or an end comes by.
#[test]
fn f01_deaths_off_the_way() {
    // A command that settles whose rows hold.
    let place = place();
    let (mut a, mut b) = place.pair(TABLES, ITEMS, "");
    let mut late = place.site("late", &format!("{TABLES} INSERT INTO item VALUES ('c', 3, 'z')"));
    late.refused().expect(65, &["join --discard-local"]);
    for passing in ["settle:1", "commit:1", "commit:2", "committed:2"] {
        late.set(DIE_AT, Some(passing));
        assert_eq!(late.verb("join", &["--discard-local"]).code, None, "{passing}: it is killed");
        late.set(DIE_AT, None::<String>);
        assert_eq!(late.one("PRAGMA integrity_check"), "ok");
    }
    // The last of them had done it all but for saying so.
    late.verb("join", &["--discard-local"]);
    comes_back(&mut late);
    settled(&[&a, &b, &late]);
    // A copy that takes a name of its own.
    a.term();
    let mut copy = place.copy("copy", &a);
    a.start();
    for passing in ["begin-life:1", "entered:1"] {
        copy.set(DIE_AT, Some(passing));
        copy.spawn();
        dies(&mut copy);
    }
    comes_back(&mut copy);
    copy.sql("INSERT INTO item VALUES ('d', 4, 'of the copy')");
    eventually("it is a node like any", || b.one("SELECT count(*) FROM item WHERE id = 'd'") == "1");
    settled(&[&a, &b, &late, &copy]);
    // An end in order that becomes one out of order.
    b.set(DIE_AT, Some("stopping:1"));
    b.term();
    b.start();
    b.sql("INSERT INTO item VALUES ('e', 5, 'last words')");
    b.signal(Signal::TERM);
    dies(&mut b);
    comes_back(&mut b);
    eventually("they were heard", || a.one("SELECT count(*) FROM item WHERE id = 'e'") == "1");
    settled(&[&a, &b, &late, &copy]);
    // A housekeeper with batches to throw away.
    a.sql("INSERT INTO item VALUES ('f', 6, 'a batch'), ('g', 7, 'the same')");
    settled(&[&a, &b, &late, &copy]);
    a.term();
    a.set("ANTIPHON_OUTBOX_KEEP", Some("0"));
    a.set("ANTIPHON_CLEANUP_INTERVAL", Some("100"));
    a.set(DIE_AT, Some("pruned:1"));
    a.spawn();
    dies(&mut a);
    comes_back(&mut a);
    eventually("only the newest batch is left", || {
        a.one("SELECT count(*) FROM \"__antiphon___global_change_log\"") == "1"
    });
    settled(&[&a, &b, &late, &copy]);
    // A node that is to send no more.
    b.term();
    b.set("ANTIPHON_PUBLISH", Some("false"));
    b.set(DIE_AT, Some("uninstall:1"));
    b.spawn();
    dies(&mut b);
    comes_back(&mut b);
    a.sql("UPDATE item SET v = 10");
    eventually("it receives", || b.one("SELECT count(*) FROM item WHERE v = 10") == "6");
    assert_eq!(b.one("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'"), "0");
}

/// F01: the points that only a unit comes by that is larger than a node applies at once.
#[test]
fn f01_deaths_between_slices() {
    let place = place();
    let (mut a, mut b) = place.pair(TABLES, ITEMS, "");
    a.term();
    a.set(PIECE.0, Some("500"));
    a.start();
    b.term();
    b.set("ANTIPHON_ATOMIC_MAX", Some("1000"));
    let passings = ["slice:1", "slice:2", "sliced:1", "sliced:2", "slice-placed:1", "slice-placed:2", "slices-ended:1"];
    for (round, passing) in (1..).zip(passings) {
        b.sql("UPDATE item SET v = v + 1 WHERE id = 'b'");
        a.sql(&format!(
            "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
             INSERT INTO item SELECT '{round}-' || i, i, 'large' FROM n; DELETE FROM item WHERE id LIKE '{round}-%0'"
        ));
        b.set(DIE_AT, Some(passing));
        b.spawn();
        dies(&mut b);
        comes_back(&mut b);
        settled(&[&a, &b]);
        assert_eq!(a.one("SELECT count(*) FROM item WHERE note = 'large'"), (round * 2700).to_string(), "{passing}");
        assert_eq!(a.one("SELECT v FROM item WHERE id = 'b'"), (round + 2).to_string(), "{passing}");
        b.term();
    }
}

/// Policies change while a node dies, whatever of it was done: they hold afterwards, and nothing counts twice.
#[test]
fn f01_deaths_while_policies_change() {
    for point in ["decided", "recaptured", "in-force", "turn", "turned", "covered"] {
        let place = place();
        let configure = |name: &str, more: &str| {
            let text = format!("db_path = '{name}.db'\n[log]\npath = 'log'\n{more}");
            place.file(&format!("{name}.toml"), &text);
        };
        let site = |name: &str| {
            configure(name, "");
            place.site(name, TABLES).arguments(["run", "--config", &format!("{name}.toml")])
        };
        let (mut dying, mut other) = (site("dying"), site("other"));
        dying.start();
        other.start();
        dying.sql("INSERT INTO total VALUES (1, 100)");
        settled(&[&dying, &other]);
        dying.term();
        let mut n = 120;
        if point == "covered" {
            // Its row is on its way while the other node goes on to other policies.
            n += 1;
            dying.set(DIE_AT, Some("append:1"));
            dying.spawn();
            dying.sql("UPDATE total SET n = n + 1");
            dies(&mut dying);
        } else {
            other.term();
        }
        configure("dying", "[[conflict.table]]\nmatch = 'total'\nuse = 'counter'\nsettings = { columns = 'n' }\n");
        let applied = place.run(["policy", "apply", "--config", "dying.toml"]);
        assert_eq!(applied.code, Some(0), "{}", applied.stderr);
        if point == "covered" {
            eventually("it holds", || place.run(["log", "peek", "--log", "log"]).stdout.contains("holds from here on"));
        }
        dying.set(DIE_AT, Some(format!("{point}:1")));
        dying.spawn();
        dies(&mut dying);
        comes_back(&mut dying);
        if point != "covered" {
            comes_back(&mut other);
        }
        // What was on its way before there was a policy goes by the order of the log.
        settled(&[&dying, &other]);
        other.sql("UPDATE total SET n = n + 20");
        settled(&[&dying, &other]);
        eventually("it holds", || place.run(["log", "peek", "--log", "log"]).stdout.contains("holds from here on"));
        assert_eq!(dying.one("SELECT n FROM total"), n.to_string(), "{point}");
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
    let mut listed: Vec<&str> = POINTS.iter().map(|(point, ..)| *point).collect();
    listed.sort_unstable();
    assert_eq!(found, listed);
    assert!(listed.len() >= 40, "{}", listed.len());
}
