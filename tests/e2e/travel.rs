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
use antiphon_harness::{Dice, Ended, Place, Site, dump, eventually};
use rusqlite::Connection;

use super::place;

const TABLES: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, v, note TEXT);
    CREATE TABLE tag (id TEXT PRIMARY KEY, name TEXT UNIQUE);
    CREATE TABLE stock (id INTEGER PRIMARY KEY, n INTEGER, note TEXT);";

const TWO_SHARDS: &str = "[replication_log]\nshards = 2\n[[conflict.table]]\nmatch = \"stock\"\nuse = \"counter\"\nsettings = { columns = \"n\" }\n";

/// What is there is archived soon.
const SOON: &str = "[snapshot]\narchive_interval = 200\nleader_ttl = 1500\n";

fn site(place: &Place, name: &str, more: &str) -> Site {
    let text = format!("db_path = \"{name}.db\"\n[log]\npath = \"log\"\n{more}");
    place.file(&format!("{name}.toml"), &text);
    place.site(name, TABLES).arguments(["run", "--config", &format!("{name}.toml")])
}

fn snapshot(place: &Place, arguments: &[&str]) -> Ended {
    place.run([&["snapshot"], arguments, &["--config", "a.toml"]].concat())
}

fn json(ended: &Ended) -> serde_json::Value {
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

fn create(place: &Place, arguments: &[&str]) -> String {
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
fn rows_of(path: &Path) -> Vec<String> {
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
fn archived(place: &Place) -> BTreeMap<u32, u64> {
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
