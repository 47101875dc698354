//! Points in time: the log archived by nodes that run, and databases as they were at any moment of its history.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use antiphon::components;
use antiphon::config::Config;
use antiphon::custom::Pins;
use antiphon::db::{Database, Options};
use antiphon::log::{Look, Placed};
use antiphon_core::codec;
use antiphon_core::entry::Body;
use antiphon_harness::health::{is_unwell, serving};
use antiphon_harness::{Dice, Ended, Place, Site, dump, eventually};
use rusqlite::Connection;

use super::observed::metric;
use super::place;
use super::snapshots::{Says as _, objects};

const TABLES: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, v, note TEXT);
    CREATE TABLE tag (id TEXT PRIMARY KEY, name TEXT UNIQUE);
    CREATE TABLE stock (id INTEGER PRIMARY KEY, n INTEGER, note TEXT);";

const TWO_SHARDS: &str = "[replication_log]\nshards = 2\n[[conflict.table]]\nmatch = \"stock\"\nuse = \"counter\"\nsettings = { columns = \"n\" }\n";

/// What is there is archived soon.
pub(super) const SOON: &str = "[snapshot]\narchive_interval = 200\nleader_ttl = 1500\n";

fn configure(place: &Place, name: &str, more: &str) {
    let text = format!("db_path = \"{name}.db\"\n[log]\npath = \"log\"\n{more}");
    place.file(&format!("{name}.toml"), &text);
}

pub(super) fn site(place: &Place, name: &str, more: &str) -> Site {
    configure(place, name, more);
    place.site(name, TABLES).arguments(["run", "--config", &format!("{name}.toml")])
}

pub(super) fn snapshot(place: &Place, arguments: &[&str]) -> Ended {
    place.run([&["snapshot"], arguments, &["--config", "a.toml"]].concat())
}

pub(super) fn json(ended: &Ended) -> serde_json::Value {
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

pub(super) fn create(place: &Place, arguments: &[&str]) -> String {
    json(&snapshot(place, &[&["create", "--json"], arguments].concat()))["id"].as_str().unwrap().to_owned()
}

/// All there is of the log, shard by shard.
fn history(place: &Place, shards: u32) -> BTreeMap<u32, Vec<Placed>> {
    let look = Look::open(&place.path("log")).unwrap().unwrap();
    let read = |shard| {
        let mut entries = Vec::new();
        look.each::<antiphon::log::Error>(shard, 1, |placed| {
            entries.push(placed);
            Ok(true)
        })
        .unwrap();
        entries
    };
    (1..=shards).map(|shard| (shard, read(shard))).collect()
}

/// The log folded from its very beginning, up to these places: an oracle that knows of no snapshot.
fn folded(place: &Place, name: &str, history: &BTreeMap<u32, Vec<Placed>>, to: &BTreeMap<u32, u64>) -> Vec<String> {
    let path = place.path(name);
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    conn.execute_batch(TABLES).unwrap();
    let text = std::fs::read_to_string(place.path("a.toml")).unwrap();
    let config: Config = toml::from_str(&text).unwrap();
    let parts = components::parts(&config, Pins::Required).unwrap();
    let options = Options {
        path,
        node: 0,
        filter: parts.filter,
        changes_max: 10_000,
        atomic_max: 100_000,
        compress: false,
        publish: false,
        replicate: true,
        replays: None,
    };
    let mut db = Database::open(options, parts.hasher, parts.policies).unwrap();
    let first = codec::decode(&history[&1][0].frame).unwrap();
    let Body::Genesis(genesis) = first.body else { panic!("the log begins with {:?}", first.body) };
    db.enter_quietly(first.cluster, &genesis).unwrap();
    for (shard, last) in to {
        let entries: Vec<Placed> = history[shard].iter().filter(|placed| placed.seq <= *last).cloned().collect();
        while db.position(*shard).seq < *last {
            assert_eq!(db.apply(*shard, &entries).unwrap().stop, None);
        }
    }
    let mut rows = dump(&conn);
    rows.retain(|row| !row.starts_with("sqlite_"));
    rows
}

/// Rows of a file that was restored.
pub(super) fn rows_of(path: &Path) -> Vec<String> {
    let conn = Connection::open(path).unwrap();
    assert_eq!(conn.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
    dump(&conn)
}

/// Writes for as long as it is let, whole transactions of several rows, with clashes of every kind.
fn write(path: &Path, seed: u64, stop: &AtomicBool) {
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
    let mut dice = Dice::new(seed);
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let mut sql = String::from("BEGIN IMMEDIATE;");
        for _ in 0..=dice.below(6) {
            let (id, n) = (dice.below(40), dice.below(10));
            sql.push_str(&match dice.below(6) {
                0 => format!("INSERT OR REPLACE INTO item VALUES ({id}, {turn}, 'node {seed}');"),
                1 => format!("UPDATE item SET v = {turn} WHERE id = {id};"),
                2 => format!("DELETE FROM item WHERE id = {id};"),
                3 => format!("INSERT OR REPLACE INTO tag VALUES ('{id}', 'name {n}');"),
                4 => format!(
                    "INSERT INTO stock VALUES ({n}, {turn}, 'new') ON CONFLICT (id) DO UPDATE SET n = n + {seed};"
                ),
                _ => format!("UPDATE stock SET n = n + 1, note = '{seed}.{turn}' WHERE id = {n};"),
            });
        }
        sql.push_str("COMMIT");
        conn.execute_batch(&sql).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(dice.below(30)));
    }
}

/// Stops who writes, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Up to which entry of each shard everything had come at this time.
fn at_time(history: &BTreeMap<u32, Vec<Placed>>, millis: u64) -> BTreeMap<u32, u64> {
    let last = |entries: &Vec<Placed>| {
        let before = entries.iter().take_while(|placed| placed.time / 1_000_000 <= millis);
        before.last().map_or(0, |placed| placed.seq)
    };
    history.iter().map(|(shard, entries)| (*shard, last(entries))).collect()
}

/// The last entries of a folder's segments, by shard.
pub(super) fn archived(place: &Place) -> BTreeMap<u32, u64> {
    let mut ends = BTreeMap::new();
    let mut folders = vec![place.path("log/snapshots")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = path.to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if let Some(name) =
                text.strip_suffix(".seg").filter(|text| text.contains("/log/") && !text.contains("/void/"))
            {
                let (folder, file) = name.rsplit_once('/').unwrap();
                let shard: u32 = folder.rsplit_once('/').unwrap().1.parse().unwrap();
                let last: u64 = file.split('-').nth(1).unwrap().parse().unwrap();
                let end: &mut u64 = ends.entry(shard).or_default();
                *end = last.max(*end);
            }
        }
    }
    ends
}

/// Two nodes write at once; at fifty points, by place and by time, what comes back is what a fold from the very beginning
/// makes of the log.
#[test]
fn any_point_of_a_history_comes_back() {
    let place = place();
    let more = format!("{TWO_SHARDS}{SOON}");
    let (mut a, mut b) = (site(&place, "a", &more), site(&place, "b", &more));
    a.start();
    b.start();
    a.sql("INSERT INTO item VALUES (1, 1, 'first')");
    create(&place, &[]);
    let stop = AtomicBool::new(false);
    let increments = std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        let (of_a, of_b) = (place.path("a.db"), place.path("b.db"));
        let stop = &stop;
        scope.spawn(move || write(&of_a, 1, stop));
        scope.spawn(move || write(&of_b, 2, stop));
        let pause = || std::thread::sleep(std::time::Duration::from_millis(1200));
        pause();
        let first = create(&place, &["--incremental"]);
        pause();
        create(&place, &[]);
        pause();
        let second = create(&place, &["--incremental"]);
        pause();
        drop(stopping);
        [first, second]
    });
    eventually("everything is everywhere", || a.is_quiet() && b.is_quiet() && a.dump() == b.dump());
    let ends = |history: &BTreeMap<u32, Vec<Placed>>| {
        history.iter().map(|(shard, entries)| (*shard, entries.last().unwrap().seq)).collect::<BTreeMap<u32, u64>>()
    };
    eventually("everything is archived", || archived(&place) == ends(&history(&place, 2)));
    let history = history(&place, 2);
    let ends = ends(&history);
    let listed = snapshot(&place, &["list", "--json"]);
    let snapshots: Vec<serde_json::Value> =
        listed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let begins = snapshots.last().unwrap()["positions"].clone();
    let begin = |shard: u32| begins[shard.to_string()].as_u64().unwrap();
    let time_of = |shard: u32, seq: u64| {
        history[&shard].iter().find(|placed| placed.seq == seq).map_or(0, |placed| placed.time / 1_000_000)
    };
    let from_ms = (1..=2).map(|shard| time_of(shard, begin(shard))).max().unwrap();
    let to_ms = (1..=2).map(|shard| time_of(shard, ends[&shard])).max().unwrap();
    a.term();
    b.term();
    // From here on the archive has to do.
    std::fs::rename(place.path("log/log.db"), place.path("log.db.away")).unwrap();
    let mut dice = Dice::new(std::process::id().into());
    let mut left_out = 0;
    for turn in 0..50 {
        let (arguments, to) = if turn % 2 == 0 {
            let to: BTreeMap<u32, u64> =
                (1..=2).map(|shard| (shard, begin(shard) + dice.below(ends[&shard] - begin(shard) + 1))).collect();
            (["--to-seq".to_owned(), format!("1:{},2:{}", to[&1], to[&2])], to)
        } else {
            let millis = from_ms + dice.below(to_ms - from_ms + 1);
            let time = Connection::open_in_memory()
                .unwrap()
                .query_row(
                    "SELECT strftime('%Y-%m-%dT%H:%M:%fZ', ?1 / 1000.0, 'unixepoch')",
                    [millis.cast_signed()],
                    |row| row.get::<_, String>(0),
                )
                .unwrap();
            (["--to-time".to_owned(), time], at_time(&history, millis))
        };
        let file = format!("{turn}.db");
        let asked = [&["restore", "--json", "--output", &file][..], &[&arguments[0], &arguments[1]]].concat();
        let said = json(&snapshot(&place, &asked));
        for (shard, seq) in &to {
            assert_eq!(said["positions"][shard.to_string()]["seq"], *seq, "{arguments:?}: {said}");
        }
        left_out += said["left_out"].as_u64().unwrap();
        let expected = folded(&place, &format!("oracle-{turn}.db"), &history, &to);
        assert_eq!(rows_of(&place.path(&file)), expected, "{arguments:?}");
    }
    println!("pieces of transactions left out: {left_out}");
    for id in increments {
        let shown = json(&snapshot(&place, &["show", "--json", &id]));
        let to: BTreeMap<u32, u64> =
            (1..=2).map(|shard: u32| (shard, shown["positions"][shard.to_string()]["seq"].as_u64().unwrap())).collect();
        let file = format!("{id}.db");
        json(&snapshot(&place, &["restore", &id, "--json", "--output", &file]));
        assert_eq!(rows_of(&place.path(&file)), folded(&place, &format!("oracle-{id}.db"), &history, &to));
        for level in ["quick", "hash", "restore"] {
            assert_eq!(snapshot(&place, &["verify", &id, "--level", level]).code, Some(0));
        }
    }
}

/// Several entries: each statement is one.
fn add(site: &Site, ids: std::ops::Range<u32>) {
    for id in ids {
        site.sql(&format!("INSERT OR REPLACE INTO item VALUES ({id}, {id}, 'x')"));
        eventually("it is sent", || site.is_quiet());
    }
}

fn last(place: &Place) -> u64 {
    history(place, 1)[&1].last().unwrap().seq
}

fn restore(place: &Place, to: u64, file: &str, more: &[&str]) -> Ended {
    let to = to.to_string();
    snapshot(place, &[&["restore", "--output", file, "--to-seq", &to], more].concat())
}

/// What was cut off before it was archived is a hole: noted, told, not gone across unless somebody says so, and a full
/// snapshot is made behind it at once.
#[test]
fn a_hole_is_told_and_not_gone_across() {
    let place = place();
    let mut a = serving(site(&place, "a", "[snapshot]\narchive_interval = 3600000\ninterval = 3600000\n"));
    a.start();
    add(&a, 0..3);
    create(&place, &[]);
    let base = last(&place);
    add(&a, 3..13);
    a.term();
    let end = last(&place);
    assert_eq!(archived(&place), BTreeMap::new());
    let log = Connection::open(place.path("log/log.db")).unwrap();
    log.execute("DELETE FROM shard_1 WHERE seq <= ?1", [(end - 3).cast_signed()]).unwrap();
    drop(log);
    configure(&place, "a", &format!("{SOON}interval = 3600000\n"));
    a.start();
    eventually("a full one is made", || snapshot(&place, &["list", "--json"]).stdout.matches("\"full\"").count() == 2);
    a.wait_for_words("because=the log was cut before it was archived");
    eventually("the rest is archived", || archived(&place).get(&1) == Some(&end));
    is_unwell(&a, "archive-hole");
    assert_eq!(metric(&a, "harmonylite_archive_holes"), Some(1.0));
    let gone = format!("no point in entries {} to {}: nobody has them", base + 1, end - 3);
    let listed = snapshot(&place, &["list", "--pitr"]);
    assert!(listed.stdout.contains(&gone), "{}", listed.stdout);
    restore(&place, end - 5, "in.db", &[]).says(6, &["are neither in the archive nor in the log"]);
    restore(&place, end - 1, "over.db", &[]).says(6, &["are neither in the archive nor in the log", "--allow-hole"]);
    assert!(!place.path("over.db").exists());
    restore(&place, end - 1, "over.db", &["--allow-hole"]).says(0, &["holds  5 rows"]);
    restore(&place, base, "base.db", &[]).says(0, &["holds  3 rows"]);
    add(&a, 20..25);
    restore(&place, last(&place), "end.db", &[]).says(0, &["holds  18 rows"]);
    assert_eq!(rows_of(&place.path("end.db")), a.dump());
}

/// The log loses its end after it was archived: what is in the archive of it does not count any more, and what comes back is
/// what the log says now.
#[test]
fn what_the_log_lost_is_no_part_of_its_history() {
    let place = place();
    let mut a = site(&place, "a", &format!("{SOON}interval = 3600000\n"));
    a.start();
    add(&a, 0..10);
    create(&place, &[]);
    add(&a, 10..15);
    eventually("it is archived", || archived(&place).get(&1) == Some(&last(&place)));
    let kept = last(&place);
    a.term();
    for file in ["log.db", "log.db-wal"] {
        let _ = std::fs::copy(place.path(&format!("log/{file}")), place.path(&format!("{file}.kept")));
    }
    a.start();
    add(&a, 15..20);
    let lost = last(&place);
    eventually("it is archived", || archived(&place).get(&1) == Some(&lost));
    // A snapshot ends with what will be lost.
    let of_lost = create(&place, &[]);
    let then = a.dump();
    a.kill9();
    for file in ["log.db", "log.db-wal", "log.db-shm"] {
        let _ = std::fs::remove_file(place.path(&format!("log/{file}")));
        let _ = std::fs::copy(place.path(&format!("{file}.kept")), place.path(&format!("log/{file}")));
    }
    assert_eq!(last(&place), kept);
    // Another node writes first, so that other entries stand where the lost ones did.
    let mut b = site(&place, "b", &format!("{SOON}interval = 3600000\n"));
    b.start();
    add(&b, 100..103);
    a.start();
    eventually("both are the same", || a.is_quiet() && b.is_quiet() && a.dump() == b.dump());
    assert_eq!(a.one("SELECT count(*) FROM item"), "23");
    add(&a, 200..210);
    let end = last(&place);
    eventually("it is archived", || archived(&place).get(&1).is_some_and(|archived| *archived >= end));
    let void = |said: &str| said.contains("the log lost what is in this segment");
    assert!(void(&a.said()) || void(&b.said()), "{}{}", a.said(), b.said());
    a.term();
    b.term();
    let history = history(&place, 1);
    // Who asks for it by its name has it all the same; nothing else begins with it.
    snapshot(&place, &["restore", &of_lost, "--output", "lost.db"]).says(0, &[&of_lost]);
    assert_eq!(rows_of(&place.path("lost.db")), then);
    for seq in [kept, kept + 2, lost, lost + 1, end] {
        let file = format!("{seq}.db");
        restore(&place, seq, &file, &[]).says(0, &[]);
        let to = BTreeMap::from([(1, seq)]);
        assert_eq!(rows_of(&place.path(&file)), folded(&place, &format!("oracle-{seq}.db"), &history, &to), "{seq}");
    }
}

/// F09: damage to a segment is found; what comes back is right, or nothing does.
#[test]
fn f09_damaged_segments_are_never_applied() {
    let place = place();
    let mut a = site(&place, "a", &format!("{SOON}interval = 3600000\n"));
    a.start();
    add(&a, 0..3);
    create(&place, &[]);
    add(&a, 3..20);
    let id = create(&place, &["--incremental"]);
    let end = last(&place);
    eventually("it is archived", || archived(&place).get(&1) == Some(&end));
    let expected = a.dump();
    a.term();
    std::fs::rename(place.path("log/log.db"), place.path("log.db.away")).unwrap();
    let mut segments = Vec::new();
    let mut folders = vec![place.path("log/snapshots")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "seg") {
                segments.push(path);
            }
        }
    }
    assert!(!segments.is_empty());
    for (turn, path) in segments.iter().enumerate() {
        let whole = std::fs::read(path).unwrap();
        let mut places = vec![0, 5, 20, whole.len() / 2, whole.len() - 1];
        if super::snapshots::full() {
            places.extend((0..whole.len()).step_by(1_000));
        }
        places.dedup();
        for (nth, at) in places.into_iter().enumerate() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x20;
            std::fs::write(path, damaged).unwrap();
            let file = format!("{turn}-{nth}.db");
            let said = restore(&place, end, &file, &[]);
            assert_eq!(said.code, Some(3), "{}{}", said.stdout, said.stderr);
            assert!(said.stderr.contains("failed to download segment"), "{}", said.stderr);
            assert!(!place.path(&file).exists());
        }
        snapshot(&place, &["verify", &id, "--level", "restore"]).says(3, &["BAD: "]);
        std::fs::remove_file(path).unwrap();
        snapshot(&place, &["verify", &id, "--level", "quick"]).says(3, &["BAD: "]);
        let said = restore(&place, end, "gone.db", &[]);
        assert!(matches!(said.code, Some(4 | 6)), "{:?} {}", said.code, said.stderr);
        std::fs::write(path, &whole).unwrap();
    }
    restore(&place, end, "whole.db", &[]).says(0, &[]);
    assert_eq!(rows_of(&place.path("whole.db")), expected);
}

/// Points that there are not, and words that make no sense.
#[test]
fn what_cannot_be_reached_is_said() {
    let place = place();
    let mut a = site(&place, "a", &format!("{SOON}interval = 3600000\n"));
    a.start();
    add(&a, 0..5);
    let early = last(&place) - 3;
    create(&place, &[]);
    add(&a, 5..8);
    restore(&place, early, "x.db", &[]).says(4, &["stands after this point", "list --pitr"]);
    restore(&place, 1_000_000, "x.db", &[]).says(4, &["shard 1"]);
    let asked = |arguments: &[&str]| snapshot(&place, &[&["restore", "--output", "x.db"], arguments].concat());
    asked(&["--to-time", "1990-01-01"]).says(4, &["stands after this point"]);
    asked(&["--to-seq", "2:5"]).says(4, &["there is no shard 2"]);
    asked(&["--to-seq", "x"]).says(2, &["1:200,2:180"]);
    asked(&["--to-time", "then"]).says(2, &["2026-11-21T12:05:41Z"]);
    asked(&["--to-time", "1h", "--to-seq", "1"]).says(2, &[]);
    snapshot(&place, &["restore"]).says(2, &["--output"]);
    // A table that a snapshot does not have yet, and no place before it.
    a.sql("CREATE TABLE extra (id INTEGER PRIMARY KEY); INSERT INTO extra VALUES (1)");
    eventually("it is sent", || {
        a.is_quiet() && history(&place, 1)[&1].iter().any(|placed| {
            let entry = codec::decode(&placed.frame).unwrap();
            matches!(entry.body, Body::Changes(changes) if changes.chunks.iter().any(|chunk| chunk.table == "extra"))
        })
    });
    let end = last(&place);
    let said = restore(&place, end, "x.db", &[]);
    said.says(4, &["`extra`", &format!("`--to-seq 1:{}` is the last point before it", end - 1)]);
    restore(&place, end - 1, "before.db", &[]).says(0, &["holds  8 rows"]);
    assert!(!place.path("x.db").exists());
    // Of a time after all there is, everything comes.
    let now = asked(&["--to-time", "0s"]);
    now.says(4, &["`extra`"]);
}

/// Where the schema changed, a full snapshot is made by itself; from the first row of the new one up to that there is no
/// point, and whoever asks for one hears of the nearest on either side.
#[test]
fn a_changed_schema_makes_a_full_snapshot_and_a_short_gap() {
    let place = place();
    let mut a = site(&place, "a", &format!("{SOON}interval = 3600000\n"));
    a.start();
    add(&a, 0..5);
    create(&place, &[]);
    let before = last(&place);
    // Before a minute is over none is made by itself.
    a.sql("CREATE TABLE extra (id INTEGER PRIMARY KEY)");
    for id in 1..4 {
        a.sql(&format!("INSERT INTO extra VALUES ({id})"));
        let captured = "SELECT count(*) FROM sqlite_schema WHERE name = '__antiphon__extra_change_log'";
        eventually("it is sent", || a.one(captured) == "1" && a.is_quiet());
    }
    let gap = last(&place);
    assert!(gap >= before + 3);
    a.term();
    configure(&place, "a", &format!("{SOON}interval = 3600000\nincremental_interval = 100\n"));
    a.start();
    let mut made = serde_json::Value::Null;
    eventually("a full one is made", || {
        let listed = snapshot(&place, &["list", "--json"]).stdout;
        made = serde_json::from_str(listed.lines().next().unwrap_or_default()).unwrap_or_default();
        made["trigger"] == "schema" && made["kind"] == "full"
    });
    let stands = made["positions"]["1"].as_u64().unwrap();
    assert!(stands >= gap);
    let said = restore(&place, gap - 1, "in.db", &[]);
    let (earlier, later) = (format!("`--to-seq 1:{}` is the last", gap - 3), format!("`--to-seq 1:{stands}`"));
    said.says(4, &["`extra`", &earlier, "the first point behind it is that of snapshot", &later]);
    assert!(!place.path("in.db").exists());
    restore(&place, gap - 3, "before.db", &[]).says(0, &["holds  5 rows"]);
    restore(&place, stands, "behind.db", &[]).says(0, &["holds  8 rows"]);
    let listed = snapshot(&place, &["list", "--pitr"]).stdout;
    assert!(listed.contains(&format!("the schema changed between entries {before} and {stands}")), "{listed}");
    let listed = json(&snapshot(&place, &["list", "--pitr", "--json"]));
    assert_eq!(listed["altered"], serde_json::json!([{ "after_seq": before, "until_seq": stands }]));
}

/// A transaction that was sent in many pieces, and applied in slices, is there whole or not at all.
#[test]
fn a_transaction_in_many_pieces_comes_back_whole_or_not_at_all() {
    let place = place();
    let small = "scan_max_changes = 50\natomic_max = 100\n";
    place.file("a.toml", &format!("db_path = \"a.db\"\n{small}[log]\npath = \"log\"\n{SOON}interval = 3600000\n"));
    let mut a = place.site("a", TABLES).arguments(["run", "--config", "a.toml"]);
    a.start();
    add(&a, 0..2);
    create(&place, &[]);
    let before = last(&place);
    a.sql(
        "WITH RECURSIVE n(i) AS (VALUES (100) UNION ALL SELECT i + 1 FROM n WHERE i < 799)
           INSERT INTO item SELECT i, i, 'many' FROM n",
    );
    eventually("it is sent", || a.is_quiet());
    let end = last(&place);
    assert!(end > before + 10, "{before} to {end}");
    add(&a, 10..12);
    let mut left_out = 0;
    for seq in [before, before + 1, before + 7, end - 1, end, end + 1] {
        let said = json(&restore(&place, seq, &format!("{seq}.db"), &["--json"]));
        let rows = rows_of(&place.path(&format!("{seq}.db"))).len();
        let expected = if seq < end { 2 } else { 702 + usize::from(seq > end) };
        assert_eq!(rows, expected, "at {seq}, between {before} and {end}: {said}");
        left_out += said["left_out"].as_u64().unwrap();
    }
    assert!(left_out > 10, "{left_out} pieces were left out");
    // A segment ends where a unit does.
    eventually("all is archived", || archived(&place).get(&1) == Some(&last(&place)));
    assert_eq!(rows_of(&place.path(&format!("{}.db", end + 1))).len(), 703);
}

/// What the archive has from before the oldest full snapshot goes with the next prune, and nothing else does.
#[test]
fn the_archive_ends_with_the_oldest_snapshot() {
    let place = place();
    let mut a = site(&place, "a", &format!("{SOON}interval = 3600000\n"));
    a.start();
    add(&a, 0..3);
    let first = create(&place, &[]);
    let early = last(&place) + 2;
    add(&a, 3..10);
    eventually("it is archived", || archived(&place).get(&1) == Some(&last(&place)));
    let second = create(&place, &[]);
    let stands = last(&place);
    add(&a, 10..15);
    eventually("it is archived", || archived(&place).get(&1) == Some(&last(&place)));
    restore(&place, early, "early.db", &[]).says(0, &["holds  5 rows"]);
    snapshot(&place, &["prune", "--grace", "0s"]).says(0, &["removed: 0 snapshots, 0 segments"]);
    snapshot(&place, &["forget", &first]).says(0, &["goes"]);
    snapshot(&place, &["prune"]).says(0, &["removed: 0 snapshots, 0 segments"]);
    let said = snapshot(&place, &["prune", "--grace", "0s"]);
    said.says(0, &["removed: 1 snapshot, "]);
    assert!(!said.stdout.contains(", 0 segments"), "{}", said.stdout);
    restore(&place, early, "x.db", &[]).says(4, &["stands after this point"]);
    let windows = json(&snapshot(&place, &["list", "--pitr", "--json"]));
    assert_eq!((&windows["windows"][0]["from_seq"], &windows["holes"]), (&stands.into(), &serde_json::json!([])));
    for (seq, rows) in [(stands, 10), (stands + 3, 13), (last(&place), 15)] {
        restore(&place, seq, &format!("{seq}.db"), &[]).says(0, &[&format!("holds  {rows} rows")]);
    }
    snapshot(&place, &["verify", &second, "--level", "restore"]).says(0, &["ok: "]);
    // What is archived goes on as if nothing had happened.
    add(&a, 15..20);
    eventually("it is archived", || archived(&place).get(&1) == Some(&last(&place)));
}

/// Snapshots of what changed are made by themselves, one upon the other, and a full one when there are many.
#[test]
fn incremental_snapshots_are_made_when_they_are_due() {
    let place = place();
    let often = "[snapshot]\nleader_ttl = 300\narchive_interval = 50\ninterval = 3600000\nincremental_interval = 100\n";
    let mut a = site(&place, "a", often);
    a.start();
    let listed = || {
        let listed = snapshot(&place, &["list", "--json"]).stdout;
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>()
    };
    let mut n = 0;
    eventually("a chain has come to its end", || {
        n += 1;
        a.sql(&format!("INSERT INTO item VALUES ({n}, {n}, 'x')"));
        listed().iter().any(|made| made["trigger"] == "chain")
    });
    let made = listed();
    let end = made.iter().position(|made| made["trigger"] == "chain").unwrap();
    assert_eq!(made[end]["kind"], "full", "{}", made[end]);
    // Up to the full one that it began with: there is one before its end where an archive was too slow for the next step.
    let steps = made[end + 1..].iter().position(|made| made["kind"] == "full").unwrap();
    let chain = &made[end + 1..=end + 1 + steps];
    assert!(steps > 1, "{made:?}");
    for pair in chain.windows(2) {
        assert_eq!((&pair[0]["kind"], &pair[0]["parent"]), (&"incremental".into(), &pair[1]["id"]), "{pair:?}");
    }
    let id = chain[0]["id"].as_str().unwrap();
    snapshot(&place, &["verify", id, "--level", "restore"]).says(0, &["ok: "]);
    snapshot(&place, &["list"]).says(0, &["what changed"]);
    snapshot(&place, &["show", id]).says(0, &["incremental", "goes on   from"]);
    // The newest is taken, whatever it is.
    eventually("it is sent", || a.is_quiet());
    create(&place, &["--incremental"]);
    snapshot(&place, &["restore", "--output", "newest.db"]).says(0, &["is the database of snapshot"]);
    assert_eq!(rows_of(&place.path("newest.db")), a.dump());
}

/// Snapshots that hold no rows of their own are checked with the rest, as far as the archive leads up to them.
#[test]
fn what_leads_to_incremental_snapshots_is_checked_with_all_that_is_kept() {
    let place = place();
    // Each step archives what it needs, and nobody else does.
    let mut a = site(&place, "a", "[snapshot]\nleader_ttl = 1500\narchive_interval = 3600000\n");
    a.start();
    create(&place, &[]);
    let steps = [1, 2].map(|id| {
        a.sql(&format!("INSERT INTO tag VALUES ('of {id}', {id})"));
        eventually("it is sent", || a.is_quiet());
        create(&place, &["--incremental"])
    });
    let check = |more: &[&str]| place.run([&["repo", "check", "--config", "a.toml", "--json"], more].concat());
    let damaged = |more: &[&str]| {
        let checked = check(more);
        let report: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
        let damaged = report["damaged"].as_array().unwrap();
        assert_eq!(checked.code, Some(if damaged.is_empty() { 0 } else { 3 }), "{}", checked.stderr);
        damaged.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(damaged(&[]), [""; 0]);
    assert_eq!(damaged(&["--read-data"]), [""; 0]);

    // The last segment: the first step does without it.
    let segments = objects(&place.path("log/snapshots"));
    let last = segments.iter().filter(|path| path.extension().is_some_and(|end| end == "seg")).max().unwrap();
    let whole = std::fs::read(last).unwrap();
    std::fs::write(last, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(damaged(&[]), [""; 0], "sizes of segments are not noted anywhere");
    assert_eq!(damaged(&["--read-data"]), [&*steps[1]]);
    std::fs::remove_file(last).unwrap();
    assert_eq!(damaged(&[]), [&*steps[1]]);
    std::fs::write(last, whole).unwrap();
    assert_eq!(damaged(&["--read-data"]), [""; 0]);
}
