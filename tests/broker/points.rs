//! Points in time of a log on servers: archived, restored, and back in all nodes.

use crate::world::{World, start};
use antiphon_harness::{Ended, dump, eventually, settled};
use rusqlite::Connection;

const MORE: &str = "shards = 3\n[snapshot]\nstore = 'file'\ninterval = 3600000\narchive_interval = 100\nleader_ttl = 1500\n\
                    [snapshot.file]\npath = 'snapshots'";

fn said(world: &World, arguments: &[&str]) -> Ended {
    let ended = world.place.run([&["snapshot"], arguments, &["--config", "a.toml"]].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended
}

/// With rows that the servers take in several parts, and three shards: by the log itself as long as the servers are there,
/// by the archive alone when they are not, and as changes that every node follows.
#[test]
fn points_in_time_come_back() {
    World::each(|mut world| {
        let [mut a, mut b] = ["a", "b"].map(|name| world.site_with(name, &world.servers.urls(), MORE));
        start(&mut a);
        start(&mut b);
        a.sql("INSERT INTO t (id, v) VALUES (1, 'first'), (2, 'second')");
        settled(&[&a, &b]);
        said(&world, &["create"]);
        let mut points = Vec::new();
        for turn in 0..4 {
            a.sql(&format!("INSERT INTO t (id, v) VALUES ({turn} + 10, randomblob(3000000)); UPDATE t SET n = n + 1"));
            b.sql(&format!("UPDATE t SET v = 'turn {turn}' WHERE id = 1; DELETE FROM t WHERE id = {turn} + 9"));
            settled(&[&a, &b]);
            let point = a.one("SELECT group_concat(shard || ':' || seq) FROM \"__antiphon___position\"");
            points.push((point, a.dump()));
        }
        let comes_back = |world: &World, name: &str| {
            for (at, (point, expected)) in points.iter().enumerate().step_by(2) {
                let file = format!("{name}-{at}.db");
                said(world, &["restore", "--to-seq", point, "--output", &file]);
                let found = dump(&Connection::open(world.place.path(&file)).unwrap());
                assert!(&found == expected, "{name} at {point}: {} rows for {}", found.len(), expected.len());
            }
        };
        comes_back(&world, "log");
        let (point, expected) = &points[1];
        said(&world, &["restore", "--to-seq", point, "--as-changes"]);
        settled(&[&a, &b]);
        assert!(&b.dump() == expected, "b follows");
        let end = a.one("SELECT group_concat(seq) FROM \"__antiphon___position\"");
        eventually("all is archived", || {
            let said = said(&world, &["list", "--pitr", "--json"]).stdout;
            let shards = said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            let ends: Vec<String> = shards.map(|shard| shard["windows"][0]["to_seq"].to_string()).collect();
            ends.join(",") == end
        });
        a.term();
        b.term();
        world.servers.kill();
        comes_back(&world, "archive");
    });
}

/// Files in a folder, whatever is in it.
fn files(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

/// F02: while there is no server nothing is stored and nothing goes, and the application writes on; then all of it comes.
#[test]
fn f02_without_servers_no_snapshot_is_made_and_nothing_is_lost() {
    let mut world = World::one();
    let mut a = world.site_with("a", &world.servers.urls(), MORE);
    start(&mut a);
    a.sql("INSERT INTO t (id, v) VALUES (1, 'first')");
    settled(&[&a]);
    said(&world, &["create"]);
    let end = a.one("SELECT group_concat(seq) FROM \"__antiphon___position\"");
    eventually("all is archived", || {
        let said = said(&world, &["list", "--pitr", "--json"]).stdout;
        let shards = said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        shards.map(|shard| shard["windows"][0]["to_seq"].to_string()).collect::<Vec<_>>().join(",") == end
    });
    let before = files(&world.place.path("snapshots"));
    world.servers.kill();
    a.sql("INSERT INTO t (id, v) VALUES (2, 'while they are away')");
    let refused = world.place.run(["snapshot", "create", "--config", "a.toml"]);
    assert_ne!(refused.code, Some(0), "{}", refused.stdout);
    assert!(refused.stderr.contains("Unable to save snapshot"), "{}", refused.stderr);
    a.sql("INSERT INTO t (id, v) VALUES (3, 'and later')");
    assert_eq!(files(&world.place.path("snapshots")), before);
    said(&world, &["restore", "--output", "meanwhile.db"]);
    world.servers.resume();
    settled(&[&a]);
    said(&world, &["create"]);
    said(&world, &["restore", "--output", "after.db"]);
    let rows = |file: &str| {
        let conn = Connection::open(world.place.path(file)).unwrap();
        conn.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!((rows("meanwhile.db"), rows("after.db")), (1, 3));
}
