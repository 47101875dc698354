//! Nodes that a snapshot leads on: new ones, late ones, and those whose log lost what they had applied.

use std::path::Path;

use antiphon_harness::{Ended, Place, Signal, Site, eventually, settled};
use rusqlite::Connection;

use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";
const ALL: &str = "SELECT id || ' ' || v FROM t ORDER BY id";

fn site(place: &Place, name: &str, more: &str) -> Site {
    let text = format!("db_path = \"{name}.db\"\n[log]\npath = \"log\"\n[snapshot]\ninterval = 0\n{more}");
    place.file(&format!("{name}.toml"), &text);
    place.site(name, TABLE).arguments(["run", "--config", &format!("{name}.toml")])
}

fn create(place: &Place, name: &str) -> Ended {
    let made = place.run(["snapshot", "create", "--config", &format!("{name}.toml")]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    made
}

/// Several entries: each statement is one.
fn write(site: &Site, ids: std::ops::Range<u32>, value: &str) {
    for id in ids {
        site.sql(&format!("REPLACE INTO t VALUES ({id}, '{value}')"));
        eventually("it is sent", || site.is_quiet());
    }
}

/// The log lets go of its oldest entries, and keeps so many.
fn cut(place: &Place, kept: u32) {
    let conn = Connection::open(place.path("log/log.db")).unwrap();
    conn.execute("DELETE FROM shard_1 WHERE seq <= (SELECT max(seq) FROM shard_1) - ?1", [kept]).unwrap();
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// C60, C64: what a node had not read is gone from the log; a snapshot leads it on, and what it wrote meanwhile is on top.
#[test]
fn c60_c64_a_node_that_comes_too_late_goes_on_from_a_snapshot() {
    let place = place();
    let (mut a, mut b) = (site(&place, "a", ""), site(&place, "b", ""));
    a.start();
    b.start();
    write(&a, 0..20, "first");
    settled(&[&a, &b]);
    b.term();
    write(&a, 10..40, "second");
    // Nobody sends these yet: one is new, one is of a row that another changed, one is gone.
    b.sql("INSERT INTO t VALUES (100, 'late'); UPDATE t SET v = 'late' WHERE id = 15; DELETE FROM t WHERE id = 16");
    create(&place, "a");
    write(&a, 30..50, "third");
    cut(&place, 25);
    b.start();
    assert!(b.said().contains("went on from a snapshot"), "{}", b.said());
    settled(&[&a, &b]);
    let rows = a.rows(ALL);
    for row in ["100 late", "15 late", "17 second", "49 third", "5 first"] {
        assert!(rows.iter().any(|found| found == row), "{row} is not in {rows:?}");
    }
    assert!(!rows.iter().any(|row| row.starts_with("16 ")), "{rows:?}");
    // As any other start from here on.
    b.term();
    b.start();
    write(&b, 200..203, "later");
    settled(&[&a, &b]);
}

/// A node that wrote the first of these rows before a snapshot and the second after it; of the log, so many entries are kept.
fn cut_behind_a_snapshot(place: &Place, [first, second]: [std::ops::Range<u32>; 2], kept: u32) -> Site {
    let mut a = site(place, "a", "");
    a.start();
    write(&a, first, "first");
    create(place, "a");
    write(&a, second, "second");
    cut(place, kept);
    a
}

/// A new node begins with a snapshot where the log begins too late, and reads only what came after it.
#[test]
fn c62_a_new_node_joins_a_log_without_a_beginning() {
    let place = place();
    let mut a = cut_behind_a_snapshot(&place, [0..40, 30..45], 20);
    let mut b = site(&place, "b", "");
    b.start();
    assert!(b.said().contains("the rows come from a snapshot"), "{}", b.said());
    settled(&[&a, &b]);
    // Its members need no beginning either: they know how it began.
    a.term();
    a.start();
    write(&a, 100..103, "third");
    write(&b, 103..106, "fourth");
    settled(&[&a, &b]);
}

/// C63: no snapshot leads up to what the log still has. The node says so, touches nothing, and goes on once there is one.
#[test]
fn c63_a_snapshot_that_is_too_old_is_refused() {
    let place = place();
    let mut a = cut_behind_a_snapshot(&place, [0..10, 10..40], 5);
    a.term();
    let mut b = site(&place, "b", "");
    let refused = b.refused();
    assert_eq!(refused.code, Some(66), "{}", refused.stderr);
    assert!(refused.stderr.contains("no snapshot leads up to it"), "{}", refused.stderr);
    assert!(refused.stderr.contains("antiphon snapshot create"), "{}", refused.stderr);
    assert_eq!(b.one("SELECT count(*) FROM t"), "0");
    a.start();
    create(&place, "a");
    b.start();
    settled(&[&a, &b]);
}

/// The same while another node runs: it is asked for one, and the new node goes on by itself once it is there.
#[test]
fn c63_who_finds_no_snapshot_asks_for_one() {
    let place = place();
    let mut a = site(&place, "a", "leader_ttl = 1500");
    a.start();
    write(&a, 0..10, "first");
    create(&place, "a");
    write(&a, 10..40, "second");
    cut(&place, 5);
    let mut b = site(&place, "b", "");
    b.start();
    assert!(b.said().contains("a new one was asked for"), "{}", b.said());
    assert!(b.said().contains("the rows come from a snapshot"), "{}", b.said());
    settled(&[&a, &b]);
    eventually("nobody asks any more", || {
        std::fs::read_dir(place.path("log/snapshots"))
            .unwrap()
            .map(|cluster| cluster.unwrap().path().join("ask"))
            .all(|asked| !asked.exists() || std::fs::read_dir(asked).unwrap().count() == 0)
    });
}

/// A long log is not read from its beginning by who is new.
#[test]
fn a_new_node_spares_itself_a_long_log() {
    let place = place();
    let mut a = site(&place, "a", "");
    a.set("ANTIPHON_SCAN_MAX_CHANGES", Some("1"));
    a.start();
    a.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) INSERT INTO t SELECT i, 'x' FROM n");
    eventually("all of it is sent", || a.is_quiet() && place.entries(1).len() > 1000);
    create(&place, "a");
    write(&a, 2000..2003, "later");
    let mut b = site(&place, "b", "");
    b.start();
    assert!(b.said().contains("the rows come from a snapshot"), "{}", b.said());
    settled(&[&a, &b]);
}

/// C10, C66: the log lost its tail after both had applied it, and another node had read less. Both writers go back to a
/// snapshot, send again what was lost, and all nodes are equal; nothing that an application committed is gone.
#[test]
fn c10_c66_a_log_that_lost_its_tail_is_gone_back_with() {
    let place = place();
    let (mut a, mut b, mut c) = (site(&place, "a", ""), site(&place, "b", ""), site(&place, "c", ""));
    a.start();
    b.start();
    c.start();
    write(&a, 0..30, "first");
    settled(&[&a, &b, &c]);
    create(&place, "a");
    write(&b, 30..35, "second");
    settled(&[&a, &b, &c]);
    for site in [&mut a, &mut b, &mut c] {
        site.term();
    }
    copy_folder(&place.path("log"), &place.path("saved"));
    a.start();
    b.start();
    // Two writers on the same keys, each applying what the other wrote.
    for round in 0..4 {
        write(&a, 10..20, &format!("a{round}"));
        write(&b, 15..25, &format!("b{round}"));
        settled(&[&a, &b]);
    }
    a.sql("INSERT INTO t VALUES (500, 'of a')");
    b.sql("INSERT INTO t VALUES (600, 'of b')");
    settled(&[&a, &b]);
    a.term();
    b.term();
    for file in ["log.db", "log.db-wal", "log.db-shm"] {
        let _ = std::fs::remove_file(place.path(&format!("log/{file}")));
    }
    copy_folder(&place.path("saved"), &place.path("log"));
    a.sql("INSERT INTO t VALUES (700, 'while down')");
    for site in [&mut a, &mut b, &mut c] {
        site.start();
    }
    assert!(a.said().contains("went on from a snapshot"), "{}", a.said());
    assert!(b.said().contains("went on from a snapshot"), "{}", b.said());
    assert!(!c.said().contains("went on from a snapshot"), "{}", c.said());
    settled(&[&a, &b, &c]);
    let rows = c.rows(ALL);
    for row in ["500 of a", "600 of b", "700 while down", "12 a3", "22 b3", "0 first", "33 second"] {
        assert!(rows.iter().any(|found| found == row), "{row} is not in {rows:?}");
    }
    for site in [&a, &b, &c] {
        assert_eq!(site.one("PRAGMA integrity_check"), "ok");
    }
}

/// The same while nodes run: they find out, go back, and go on, without anybody's help.
#[test]
fn a_node_goes_back_while_it_runs() {
    let place = place();
    let (mut a, mut b) = (site(&place, "a", ""), site(&place, "b", ""));
    a.start();
    b.start();
    write(&a, 0..20, "first");
    settled(&[&a, &b]);
    create(&place, "a");
    b.signal(Signal::STOP);
    write(&a, 10..40, "second");
    create(&place, "a");
    write(&a, 40..50, "third");
    b.sql("INSERT INTO t VALUES (300, 'mine')");
    cut(&place, 12);
    b.signal(Signal::CONT);
    settled(&[&a, &b]);
    assert!(b.is_running());
    assert!(b.said().contains("starting again, to look for a snapshot"), "{}", b.said());
    assert!(a.rows(ALL).contains(&"300 mine".to_owned()));
}
