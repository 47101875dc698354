//! F17, C84: nodes of two builds in one cluster, as while it is upgraded one by one, and while that is taken back.
//!
//! `PREVIOUS` names a program of the build before; `tests/run --full` makes one.

use antiphon_harness::{Brokers, Ended, Place, Site, eventually, settled};
use serde_json::Value;

use crate::world::{TABLES, World, start};

/// Snapshots of all rows and of what changed, as often as they can be made.
const SNAPSHOTS: &str = "[snapshot]\nstore = 'file'\ninterval = 2000\nincremental_interval = 500\nleader_ttl = 1500\n\
                         archive_interval = 100\n[snapshot.keep]\nlast = 1000\n[snapshot.file]\npath = 'snapshots'";

/// One build, and the folder that it shares with the other.
struct Build {
    place: Place,
    node: &'static str,
}

impl Build {
    fn run(&self, arguments: &[&str]) -> Ended {
        let config = format!("{}.toml", self.node);
        let ended = self.place.run([arguments, &["--config", &config]].concat());
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}{}", ended.stdout, ended.stderr);
        ended
    }

    /// Snapshots and who made them, as this build lists them.
    fn snapshots(&self) -> Vec<(String, u64)> {
        let said = self.run(&["snapshot", "list", "--json"]).stdout;
        let line = |line: &str| {
            let one: Value = serde_json::from_str(line).unwrap();
            (one["id"].as_str().unwrap().to_owned(), one["node"].as_u64().unwrap())
        };
        said.lines().map(line).collect()
    }
}

/// Both write rows of their own, add to the same counters, and quarrel over the same rows; a schema changes meanwhile.
fn write(sites: &[&Site], turn: u32) {
    for step in 0..20 {
        for (of, site) in (0..).zip(sites) {
            let id = turn * 1000 + step * 10 + of;
            site.sql(&format!(
                "INSERT INTO t (id, v) VALUES ({id}, 'of {of}'); REPLACE INTO item VALUES ('{id}', {step}, NULL);
                 INSERT INTO tally VALUES ({turn}, 1) ON CONFLICT (id) DO UPDATE SET n = n + 1;
                 REPLACE INTO shared VALUES ({step}, 'turn {turn} of {of}'); DELETE FROM item WHERE v = {step} - 5"
            ));
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    sites.iter().for_each(|site| site.sql(&format!("ALTER TABLE t ADD COLUMN of_{turn} TEXT DEFAULT 'x'")));
    sites.iter().for_each(|site| site.sql(&format!("UPDATE t SET of_{turn} = 'y' WHERE id % 7 = {turn} % 7")));
}

/// What each build makes of the cluster's log and its snapshots, the other one reads as it was meant.
fn agree(builds: [&Build; 2], sites: [&Site; 2], turn: u32) {
    settled(&sites);
    let added = sites[0].one(&format!("SELECT n FROM tally WHERE id = {turn}"));
    assert_eq!(added, "40", "an addition is lost, or counts twice");
    let rows = sites[0].one("SELECT count(*) FROM t");
    for build in builds {
        // Of what both have in the log by now.
        let full = build.run(&["snapshot", "create", "--json"]).stdout;
        let full: Value = serde_json::from_str(&full).unwrap();
        build.run(&["snapshot", "create", "--incremental"]);
        for reader in builds {
            for (which, id) in [("full", full["id"].as_str()), ("newest", None)] {
                reader.run(&[&["snapshot", "verify", "--level", "restore"], id.as_slice()].concat());
                let output = format!("{turn}-{}-{}-{which}.db", build.node, reader.node);
                reader.run(&[&["snapshot", "restore", "--output", &output], id.as_slice()].concat());
                let back = rusqlite::Connection::open(reader.place.path(&output)).unwrap();
                let count = |sql: &str| back.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().to_string();
                assert_eq!(count("SELECT count(*) FROM t"), rows, "{output}");
            }
        }
    }
}

/// Two nodes, one of each build; then each goes on with what the other left, and both are of the other build.
fn beside(first: &Place, second: &Place) {
    let world = World { place: first.clone(), servers: Brokers::one() };
    let site =
        |place: &Place, name: &str| world.configure(name, &world.servers.urls(), SNAPSHOTS, place.site(name, TABLES));
    let (mut a, mut b) = (site(first, "a"), site(second, "b"));
    start(&mut a);
    a.sql("INSERT INTO t (id, v) VALUES (1, 'first')");
    start(&mut b);
    settled(&[&a, &b]);
    let builds = [Build { place: first.clone(), node: "a" }, Build { place: second.clone(), node: "b" }];
    write(&[&a, &b], 1);
    agree([&builds[0], &builds[1]], [&a, &b], 1);

    // Whoever leads goes, and the other one makes the snapshots and goes on with the archive.
    for turn in 2..4 {
        let (gone, left) = if turn == 2 { (&mut a, &b) } else { (&mut b, &a) };
        gone.kill9();
        left.sql(&format!("INSERT INTO t (id, v) VALUES ({turn}, 'alone')"));
        let node = left.node();
        let made = |builds: &[Build; 2]| builds[1].snapshots().iter().filter(|(_, by)| *by == node).count();
        let before = made(&builds);
        eventually("who is left makes snapshots", || {
            left.sql("UPDATE shared SET v = v || '.' WHERE id = 0");
            made(&builds) > before
        });
        gone.sql(&format!("INSERT INTO t (id, v) VALUES ({turn}0, 'while it was away')"));
        start(gone);
        write(&[&a, &b], turn);
        agree([&builds[0], &builds[1]], [&a, &b], turn);
    }

    // Each file comes to the other build.
    a.term();
    b.term();
    let (mut a, mut b) = (a.moved(second), b.moved(first));
    start(&mut a);
    a.sql("INSERT INTO t (id, v) VALUES (4, 'by the other build')");
    start(&mut b);
    write(&[&a, &b], 4);
    let builds = [Build { place: second.clone(), node: "a" }, Build { place: first.clone(), node: "b" }];
    agree([&builds[0], &builds[1]], [&a, &b], 4);
    for site in [&a, &b] {
        assert!(!site.said().contains("panicked"), "{}", site.said());
    }
}

#[test]
#[ignore = "it needs a program of the build before: PREVIOUS=PATH"]
fn f17_c84_two_builds_are_one_cluster() {
    let previous = std::env::var("PREVIOUS").expect("PREVIOUS names a program of the build before");
    let now = Place::new(antiphon_harness::program!());
    let before = now.with_program(&previous);
    let version = |place: &Place| place.run(["--version"]).stdout;
    println!("{}{}", version(&before), version(&now));
    beside(&now, &before);
    let now = Place::new(antiphon_harness::program!());
    beside(&now.with_program(&previous), &now);
}
