//! All of it at once: three nodes and three shards, a broker between them, snapshots by themselves in S3, and a log that
//! is cut behind them.

use crate::world::{World, start};
use antiphon_harness::{S3Server, Site, eventually, settled};
use serde_json::Value;

/// Rows that are written, in so many rounds.
const ROWS: usize = 20_000;
const ROUNDS: usize = 40;
/// Entries that stay behind a snapshot.
const TRAILING: u64 = 5;
const DIE_AT: &str = "ANTIPHON_DIE_AT";

fn site(world: &World, store: &S3Server, name: &str) -> Site {
    let (url, key, secret) = (store.url(), S3Server::KEY, S3Server::SECRET);
    let more = format!(
        "shards = 3\nmax_entries = {TRAILING}\nnode_expiry = 20000\n\
         [snapshot]\nstore = 's3'\ninterval = 1500\nincremental_interval = 0\nincremental_threshold = 0\nleader_ttl = 2000\n\
         retention_count = 3\narchive_interval = 200\n\
         [snapshot.s3]\nendpoint = '{url}'\nbucket = 'bucket'\naccess_key = '{key}'\nsecret = '{secret}'"
    );
    world.site_with(name, &world.servers.urls(), &more)
}

/// What a command says, one object of JSON a line.
fn told(world: &World, arguments: &[&str]) -> Vec<Value> {
    let said = world.place.run([arguments, &["--json", "--config", "b.toml"]].concat());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The first entry of each shard.
fn begins(world: &World) -> Vec<u64> {
    let info = told(world, &["log", "info"]);
    let shards = info[0]["shards"].as_array().unwrap();
    shards.iter().map(|shard| shard["first"].as_u64().unwrap()).collect()
}

fn saved(sites: &[&Site]) -> usize {
    sites.iter().map(|site| site.said().matches("Snapshot saved").count()).sum()
}

#[test]
fn three_nodes_snapshots_in_s3_and_a_log_that_is_cut() {
    let (world, store) = (World::one(), S3Server::start());
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|name| site(&world, &store, name));
    // The first to run leads; it dies while it uploads its third snapshot or so.
    a.set(DIE_AT, Some("snapshot-put:10"));
    for site in [&mut a, &mut b, &mut c] {
        start(site);
    }
    let mut has_died = false;
    for round in 0..ROUNDS {
        let (first, each) = (round * ROWS / ROUNDS, ROWS / ROUNDS);
        [&a, &b, &c][round % 3].sql(&format!(
            "WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {first} + {each})
             INSERT INTO shared SELECT i, hex(randomblob(40)) FROM n"
        ));
        std::thread::sleep(std::time::Duration::from_millis(200));
        if !has_died && !a.is_running() {
            has_died = true;
            a.wait();
            let before = saved(&[&b, &c]);
            eventually("another takes over", || {
                [&b, &c][round % 2].sql("UPDATE shared SET v = 'again' WHERE id = 1");
                saved(&[&b, &c]) > before
            });
            a.set(DIE_AT, None::<String>);
            start(&mut a);
        }
    }
    assert!(has_died, "{}", a.said());
    let mut n = 0;
    eventually("five snapshots were made", || {
        n += 1;
        b.sql(&format!("UPDATE shared SET v = 'later {n}' WHERE id % 997 = 3"));
        std::thread::sleep(std::time::Duration::from_millis(300));
        saved(&[&a, &b, &c]) >= 5
    });
    settled(&[&a, &b, &c]);
    let kept = || {
        let listed = told(&world, &["snapshot", "list"]);
        listed.into_iter().filter(|snapshot| snapshot["marks"]["forgotten_ms"].is_null()).collect::<Vec<_>>()
    };
    eventually("three are kept", || kept().len() == 3);
    // Nothing changes any more, so what may go is what may go.
    eventually("the log is cut", || {
        told(&world, &["log", "truncate"]);
        let begins = begins(&world);
        let base = &kept()[1]["positions"];
        let rule = |shard: usize| base[(shard + 1).to_string()].as_u64().unwrap() - TRAILING + 1;
        begins.iter().enumerate().all(|(shard, first)| *first == rule(shard))
    });
    // One is wiped, and comes back by a snapshot and what came after it.
    c.kill9();
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(world.place.path(&format!("c.db{end}")));
    }
    std::fs::remove_dir_all(world.place.path("c.db.antiphon")).unwrap();
    let mut c = site(&world, &store, "c");
    start(&mut c);
    let said = c.said();
    assert!(said.contains("the rows come from a snapshot"), "{said}");
    let (_, read) = said.split_once("joined from a snapshot").unwrap();
    let (_, entries) = read.split_once("entries=").unwrap();
    let entries: u64 = entries.split_whitespace().next().unwrap().parse().unwrap();
    assert!(entries < 30, "{entries} of a whole log were read");
    let mut late = site(&world, &store, "late");
    start(&mut late);
    let all = [&a, &b, &c, &late];
    settled(&all);
    for (at, site) in all.iter().enumerate() {
        site.sql(&format!("INSERT INTO shared VALUES ({}, 'goes on')", ROWS + at));
    }
    settled(&all);
    assert_eq!(c.one("SELECT count(*) FROM shared"), (ROWS + all.len()).to_string());
    for level in ["hash", "restore"] {
        let verified = told(&world, &["snapshot", "verify", "--all", "--level", level]);
        assert!(verified.iter().all(|snapshot| snapshot["ok"] == true), "{verified:?}");
    }
}
