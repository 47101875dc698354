//! A log whose beginning goes once snapshots hold it, and what nodes do that would need all of it.

use antiphon_harness::{Place, Site, eventually, settled};
use rusqlite::Connection;

use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";
const ALL: &str = "SELECT id || ' ' || v FROM t ORDER BY id";
/// Entries that stay behind a snapshot.
const KEPT: u64 = 5;

fn site(place: &Place, name: &str, more: &str) -> Site {
    place.file(
        &format!("{name}.toml"),
        &format!(
            "db_path = \"{name}.db\"\n[log]\npath = \"log\"\n[snapshot]\ninterval = 0\nleader_ttl = 1500\n\
             [replication_log]\nmax_entries = {KEPT}\n{more}"
        ),
    );
    place.site(name, TABLE).arguments(["run", "--config", &format!("{name}.toml")])
}

fn create(place: &Place, name: &str) {
    let made = place.run(["snapshot", "create", "--config", &format!("{name}.toml")]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
}

/// Several entries: each statement is one.
fn write(site: &Site, ids: std::ops::Range<u32>, value: &str) {
    for id in ids {
        site.sql(&format!("REPLACE INTO t VALUES ({id}, '{value}')"));
        eventually("it is sent", || site.is_quiet());
    }
}

/// The first entry of a shard, and the last.
fn bounds(place: &Place, shard: u32) -> (u64, u64) {
    let conn = Connection::open(place.path("log/log.db")).unwrap();
    let sql = format!("SELECT min(seq), max(seq) FROM shard_{shard}");
    conn.query_row(&sql, [], |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned())))
        .unwrap()
}

/// How large the log's file is, with all that was written.
fn bytes(place: &Place) -> u64 {
    let file = place.path("log/log.db");
    let _ = Connection::open(&file).unwrap().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    std::fs::metadata(file).unwrap().len()
}

/// One that runs, with a log that was cut after it wrote a while.
fn long_lived(place: &Place) -> Site {
    let mut a = site(place, "a", "");
    a.start();
    write(&a, 0..20, "first");
    create(place, "a");
    write(&a, 10..30, "second");
    create(place, "a");
    write(&a, 20..40, "third");
    create(place, "a");
    // What nodes say of their places is a few seconds old.
    eventually("the log begins later", || {
        let done = place.run(["log", "truncate", "--config", "a.toml"]);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        bounds(place, 1).0 > KEPT
    });
    a
}

/// Nothing goes that the second newest snapshot needs to go on, or that a member has not read, and `max_entries` before
/// it stay; then it goes, and the file becomes smaller.
#[test]
fn the_log_is_cut_to_what_somebody_needs() {
    let place = place();
    let (mut a, mut b) = (site(&place, "a", ""), site(&place, "b", ""));
    a.start();
    b.start();
    for id in 0..30 {
        a.sql(&format!("REPLACE INTO t VALUES ({id}, hex(randomblob(50000)))"));
        eventually("it is sent", || a.is_quiet());
    }
    settled(&[&a, &b]);
    // A member that reads no further holds all of it.
    b.term();
    let behind = bounds(&place, 1).1;
    write(&a, 0..10, "second");
    for _ in 0..3 {
        create(&place, "a");
        write(&a, 10..15, "third");
    }
    a.wait_for_words("Snapshot saved");
    assert_eq!(bounds(&place, 1).0, 1, "{}", a.said());
    let full = bytes(&place);
    b.start();
    settled(&[&a, &b]);
    // Which of them leads is theirs to say; the leader looks at the log when it made one.
    let reached = bounds(&place, 1).1;
    eventually("both say how far they are", || {
        let said = Connection::open(place.path("log/log.db")).unwrap();
        let mut members = said.prepare("SELECT said ->> '$.positions.1' FROM member").unwrap();
        let positions: Vec<i64> = members.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        positions.len() == 2 && positions.iter().all(|position| position.cast_unsigned() == reached)
    });
    for name in ["a", "b"] {
        create(&place, name);
    }
    let mut stands = 0;
    eventually("the log is cut", || {
        stands = bounds(&place, 1).0;
        stands > 1
    });
    assert!(stands > behind - 30 && stands <= reached + 1 - KEPT, "{behind} {stands} {reached}");
    eventually("its file is smaller", || bytes(&place) < full / 2);
    for (site, ids) in [(&mut a, 50..53), (&mut b, 60..63)] {
        site.term();
        site.start();
        write(site, ids, "later");
    }
    settled(&[&a, &b]);
}

/// New nodes join where the log begins later: empty ones, and those that have the cluster's rows already.
#[test]
fn nodes_join_a_log_that_was_cut() {
    let place = place();
    let mut a = long_lived(&place);
    let mut empty = site(&place, "empty", "");
    empty.start();
    assert!(empty.said().contains("the rows come from a snapshot"), "{}", empty.said());
    let mut equal = site(&place, "equal", "");
    for row in a.rows("SELECT 'INSERT INTO t VALUES (' || id || ', ''' || v || ''')' FROM t") {
        equal.sql(&row);
    }
    equal.start();
    assert!(equal.said().contains("the rows were the cluster's already"), "{}", equal.said());
    let mut other = site(&place, "other", "");
    other.sql("INSERT INTO t VALUES (3, 'mine'), (900, 'mine')");
    let refused = other.refused();
    assert!(refused.stderr.contains("--discard-local"), "{}", refused.stderr);
    place.run(["join", "--publish-local", "--config", "other.toml"]).expect(0, &["joined"]);
    other.start();
    let mut last = site(&place, "last", "");
    last.sql("INSERT INTO t VALUES (3, 'old'), (901, 'old')");
    place.run(["join", "--discard-local", "--config", "last.toml"]).expect(0, &["joined"]);
    last.start();
    settled(&[&a, &empty, &equal, &other, &last]);
    let rows = last.rows(ALL);
    assert!(rows.contains(&"900 mine".to_owned()) && rows.contains(&"3 mine".to_owned()), "{rows:?}");
    assert!(!rows.iter().any(|row| row.contains("old")), "{rows:?}");
    a.term();
    a.start();
    settled(&[&a, &last]);
}

/// A table that was rebuilt is compared with what the log says, though the log alone does not say it any more.
#[test]
fn a_table_is_compared_upon_a_snapshot() {
    let place = place();
    let a = long_lived(&place);
    let mut b = site(&place, "b", "");
    b.start();
    settled(&[&a, &b]);
    let sent = place.written_by(b.node());
    b.sql(
        "BEGIN; CREATE TABLE new (id INTEGER PRIMARY KEY, v); INSERT INTO new SELECT * FROM t WHERE id <> 7;
         UPDATE new SET v = 'rebuilt' WHERE id = 8; DROP TABLE t; ALTER TABLE new RENAME TO t; COMMIT",
    );
    b.wait_for_words("what the log says is built upon a snapshot");
    b.wait_for_words("table compared with the log");
    settled(&[&a, &b]);
    let rows = a.rows(ALL);
    assert!(!rows.iter().any(|row| row.starts_with("7 ")) && rows.contains(&"8 rebuilt".to_owned()), "{rows:?}");
    assert!(place.written_by(b.node()) <= sent + 1, "two rows were sent, and not all");
}

/// So is a database whose file changed where no trigger saw it.
#[test]
fn a_database_is_repaired_upon_a_snapshot() {
    let place = place();
    let mut a = long_lived(&place);
    let mut b = site(&place, "b", "");
    b.start();
    settled(&[&a, &b]);
    a.term();
    let change = "DROP TRIGGER \"__antiphon__t_on_update\"; UPDATE t SET v = 'unseen' WHERE id = 5";
    a.sql(change);
    place.run(["repair", "--dry-run", "--config", "a.toml"]).expect(0, &["this becomes this node's change"]);
    assert_eq!(place.run(["repair", "--config", "a.toml"]).code, Some(0));
    a.start();
    settled(&[&a, &b]);
    assert!(b.rows(ALL).contains(&"5 unseen".to_owned()));
}
