//! Founding and joining: whose rows go where, and what is refused.

use antiphon_harness::{Site, eventually, goes_on, settled};

use std::os::unix::fs::PermissionsExt as _;

use super::place;

const TABLES: &str =
    "CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE u (name TEXT PRIMARY KEY, n REAL) WITHOUT ROWID;";

fn rows(from: u32, to: u32) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (VALUES ({from}) UNION ALL SELECT i + 1 FROM n WHERE i < {to})
         INSERT INTO t SELECT i, 'row ' || i FROM n;
         INSERT INTO u SELECT 'name ' || id, id / 3.0 FROM t WHERE id BETWEEN {from} AND {to};"
    )
}

/// What the application stored before the host ever ran belongs to the cluster, too.
#[test]
fn rows_of_the_founder_reach_an_empty_node() {
    let place = place();
    let mut a = place.site("a", &format!("{TABLES} {}", rows(1, 25_000)));
    let mut b = place.site("b", TABLES);
    a.start();
    b.start();
    assert!(a.said().contains("founded"), "{}", a.said());
    assert!(b.said().contains("joined; all rows come from the log"), "{}", b.said());
    eventually("the rows arrive", || b.one("SELECT count(*) FROM t") == "25000");
    assert_eq!(settled(&[&a, &b]).len(), 50_000);
    // What came from the log is nothing to send back.
    assert_eq!(place.written_by(b.node()), 0);
    goes_on(&[&a, &b]);
}

/// Two copies of one file have nothing to tell each other.
#[test]
fn copies_of_one_file_join_without_sending_a_row() {
    let place = place();
    let mut a = place.site("a", &format!("{TABLES} {}", rows(1, 5_000)));
    let mut b = place.copy("b", &a);
    a.start();
    eventually("the founder is done", || a.is_quiet());
    let before = place.entries(1).len();
    b.start();
    assert!(b.said().contains("joined; the rows were the cluster's already"), "{}", b.said());
    // A start that sends anything sends it before it is quiet, and a row of ours behind it would come after it.
    b.sql("INSERT INTO t VALUES (-1, 'first word')");
    eventually("the first row arrives", || a.one("SELECT count(*) FROM t WHERE id = -1") == "1");
    assert_eq!(place.entries(1).len(), before + 1, "only that row was sent");
    assert_eq!(place.written_by(b.node()), 1);
    goes_on(&[&a, &b]);
}

/// Equal copies join quietly with several shards, too.
#[test]
fn copies_join_quietly_with_several_shards() {
    let place = place();
    let mut a = place.site("a", &format!("{TABLES} {}", rows(1, 2_000))).with("ANTIPHON_REPLICATION_LOG__SHARDS", "3");
    let mut b = place.copy("b", &a).with("ANTIPHON_REPLICATION_LOG__SHARDS", "3");
    a.start();
    eventually("the founder is done", || a.is_quiet());
    b.start();
    assert!(b.said().contains("joined; the rows were the cluster's already"), "{}", b.said());
    settled(&[&a, &b]);
    assert_eq!(place.written_by(b.node()), 0);
    goes_on(&[&a, &b]);
}

/// An empty node reads shards side by side; what it gets from them is nothing to send back.
#[test]
fn an_empty_node_sends_no_row_back_with_several_shards() {
    let place = place();
    let shards = "ANTIPHON_REPLICATION_LOG__SHARDS";
    let mut a = place.site("a", &format!("{TABLES} {}", rows(1, 20_000))).with(shards, "4");
    let mut b = place.site("b", TABLES).with(shards, "4");
    a.start();
    eventually("the founder is done", || a.is_quiet());
    b.start();
    assert_eq!(settled(&[&a, &b]).len(), 40_000);
    let changes: usize = (1..=4)
        .flat_map(|shard| place.entries(shard))
        .filter(|entry| entry.origin.node == b.node())
        .filter(|entry| matches!(entry.body, antiphon_core::entry::Body::Changes(_)))
        .count();
    assert_eq!(changes, 0, "batches of rows that came from the log");
    goes_on(&[&a, &b]);
}

/// A copy taken a while ago is a copy of the log's past; what came since reaches it from there.
#[test]
fn a_copy_made_before_the_first_start_joins_while_the_founder_writes_on() {
    let place = place();
    let mut a = place.site("a", &format!("{TABLES} {}", rows(1, 1_000)));
    let mut b = place.copy("b", &a);
    a.start();
    eventually("the founder is done", || a.is_quiet());
    a.sql("UPDATE t SET v = 'changed' WHERE id <= 100; DELETE FROM u WHERE n > 300;");
    a.sql(&rows(2_001, 2_500));
    b.start();
    assert!(b.said().contains("joined; the rows were the cluster's already"), "{}", b.said());
    settled(&[&a, &b]);
    assert_eq!(b.one("SELECT count(*) FROM t WHERE v = 'changed'"), "100");
    assert_eq!(place.written_by(b.node()), 0);
    goes_on(&[&a, &b]);
}

/// A copy of a running member carries the member's name and state; it becomes another node, not a second one.
#[test]
fn a_copy_of_a_member_becomes_a_node_of_its_own_or_is_refused() {
    let place = place();
    let mut a = place.site("a", &format!("{TABLES} {}", rows(1, 500)));
    a.start();
    eventually("the founder is done", || a.is_quiet());
    a.term();
    let mut b = place.copy("b", &a);
    a.start();
    b.spawn();
    eventually("the copy replicates or is refused", || b.said().contains("replicating ") || !b.is_running());
    a.sql("INSERT INTO t VALUES (-1, 'of a')");
    if b.is_running() {
        b.sql("INSERT INTO t VALUES (-2, 'of b')");
        // Either both rows get everywhere, or the copy stops and says so; never may a row be lost in silence.
        eventually("both rows are everywhere, or the copy says why not", || {
            let both = |site: &Site| site.one("SELECT count(*) FROM t WHERE id IN (-1, -2)") == "2";
            both(&a) && both(&b)
                || b.said().contains("copy of it is running")
                || a.said().contains("copy of it is running")
        });
    }
    assert!(a.is_running(), "the first is unharmed");
}

struct Refused {
    a: Site,
    b: Site,
    before: Vec<String>,
}

/// Two files with different rows; the second was refused.
fn two_different_files() -> Refused {
    let place = place();
    let mut a = place.site("a", &format!("{TABLES} {}", rows(1, 300)));
    let mut b = place.site("b", &format!("{TABLES} {} UPDATE t SET v = 'mine' WHERE id <= 250;", rows(201, 700)));
    a.start();
    let before = b.dump();
    b.refused().expect(
        65,
        &[
            "`t` has 500 rows here and 300 in the cluster (400 only here, 200 only there, 50 different)",
            "`u` has 500 rows here and 300 in the cluster (400 only here, 200 only there, 0 different)",
            "antiphon join --discard-local",
            "antiphon join --publish-local",
        ],
    );
    assert_eq!(b.dump(), before);
    let traces = "SELECT name FROM sqlite_schema WHERE type = 'trigger' OR name LIKE '%\\_change\\_log' ESCAPE '\\'
                  AND name <> '__antiphon___global_change_log'";
    assert_eq!(b.rows(traces), [""; 0], "a file that was refused is not captured");
    // It is refused as often as it is tried, and nobody else notices.
    b.refused().expect(65, &["antiphon join --discard-local"]);
    assert!(a.is_running());
    assert_eq!(a.one("SELECT count(*) FROM t"), "300");
    Refused { a, b, before }
}

#[test]
fn different_files_are_refused_and_discarding_works() {
    let Refused { a, mut b, before } = two_different_files();
    // Whoever may not read the file may not read its copy.
    std::fs::set_permissions(&b.database, std::fs::Permissions::from_mode(0o640)).unwrap();
    let joined = b.verb("join", &["--discard-local"]);
    joined.expect(
        0,
        &["a copy of the database as it was: ", "table t: 400 rows discarded, 250 taken from the cluster", "joined"],
    );
    let copy = joined.stderr.lines().next().unwrap().split_once("was: ").unwrap().1;
    assert_eq!(std::fs::metadata(copy).unwrap().permissions().mode() & 0o777, 0o640);
    let copy = rusqlite::Connection::open(copy).unwrap();
    let kept: i64 = copy.query_row("SELECT count(*) FROM t WHERE v = 'mine'", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 50, "the copy has the rows as they were");
    assert_eq!(before.len(), 1_000);
    b.start();
    assert_eq!(settled(&[&a, &b]).len(), 600);
    assert_eq!(a.one("SELECT count(*) FROM t WHERE v = 'mine'"), "0");
    goes_on(&[&a, &b]);
}

#[test]
fn different_files_are_refused_and_publishing_works() {
    let Refused { a, mut b, .. } = two_different_files();
    b.verb("join", &["--publish-local"])
        .expect(0, &["table t: 450 rows will be published, 200 taken from the cluster", "joined"]);
    b.start();
    eventually("the rows reach the founder", || a.one("SELECT count(*) FROM t") == "700");
    assert_eq!(settled(&[&a, &b]).len(), 1_400);
    assert_eq!(a.one("SELECT count(*) FROM t WHERE v = 'mine'"), "50");
    goes_on(&[&a, &b]);
}

/// Whoever joined already has nothing to decide.
#[test]
fn joining_twice_is_refused() {
    let place = place();
    let mut a = place.site("a", TABLES);
    a.start();
    a.term();
    a.verb("join", &["--discard-local"]).expect(1, &["belongs to a cluster already", "antiphon run"]);
    let b = place.site("b", TABLES).log(place.path("elsewhere"));
    b.verb("join", &["--publish-local"]).expect(66, &["there is no log in"]);
    drop(antiphon::log::Local::open(&place.path("elsewhere")).unwrap());
    b.verb("join", &["--discard-local"]).expect(66, &["the log is empty", "antiphon run"]);
    let copies = std::fs::read_dir(place.path("")).unwrap().flatten();
    let copies = copies.filter(|file| file.file_name().to_string_lossy().contains("before-join"));
    assert_eq!(copies.count(), 0, "nothing is copied for a join that can't be");
}

/// Two processes on one file would both send every change.
#[test]
fn a_second_host_on_one_database_is_refused() {
    let place = place();
    let mut a = place.site("a", TABLES);
    let mut b = place.site("b", TABLES);
    a.start();
    b.start();
    let (database, log) = (a.database.to_str().unwrap().to_owned(), a.log.to_str().unwrap().to_owned());
    place.run(["run", &database, "--log", &log]).expect(75, &["another Antiphon runs on", "stop the other one first"]);
    // By another name of the same file, too.
    let link = place.path("link.db");
    std::os::unix::fs::symlink(&a.database, &link).unwrap();
    place.run(["run", link.to_str().unwrap(), "--log", &log]).expect(75, &["another Antiphon runs on"]);
    place.run(["cleanup", &database]).expect(75, &["another Antiphon runs on"]);
    place.run(["join", &database, "--log", &log, "--discard-local"]).expect(75, &["another Antiphon runs on"]);
    assert!(a.is_running());
    goes_on(&[&a, &b]);
}

/// Whoever tries first founds; all others join, be it in the same moment.
#[test]
fn nodes_started_at_once_agree_on_one_founder() {
    let place = place();
    let mut sites: Vec<Site> = (0..4).map(|n| place.site(&format!("n{n}"), TABLES)).collect();
    for site in &mut sites {
        site.spawn();
    }
    for site in &mut sites {
        site.wait_for_words("replicating ");
    }
    let founders = sites.iter().filter(|site| site.said().contains("founded")).count();
    assert_eq!(founders, 1);
    goes_on(&sites.iter().collect::<Vec<_>>());
}

/// Another log is another cluster, and a log that is gone is not an empty one.
#[test]
fn a_member_is_refused_by_another_log() {
    let place = place();
    let mut a = place.site("a", &format!("{TABLES} {}", rows(1, 10)));
    let mut other = place.site("other", TABLES).log(place.path("other-log"));
    a.start();
    other.start();
    a.term();
    let mut a = a.log(place.path("other-log"));
    a.refused().expect(65, &["belongs to another cluster", "antiphon cleanup"]);
    let mut a = a.log(place.path("empty-log"));
    a.refused().expect(65, &["there is no log in", "antiphon log reseed", "it ran last with `antiphon run", "log`"]);
    assert!(!place.path("empty-log").exists(), "none is made in its place");
    // One that others have made there has nothing in it yet.
    drop(antiphon::log::Local::open(&place.path("empty-log")).unwrap());
    a.refused().expect(65, &["the log is empty", "antiphon log reseed"]);
    // Where its log is, nobody has forgotten over that.
    let status = place.run(["status", a.database.to_str().unwrap()]);
    assert!(status.stdout.contains(&format!("log        {}\n", place.path("log").display())), "{}", status.stdout);
    assert_eq!(a.one("SELECT count(*) FROM t"), "10");
    // The remedy it names works.
    let log = place.path("empty-log");
    let reseeded = place.run(["log", "reseed", a.database.to_str().unwrap(), "--log", log.to_str().unwrap()]);
    assert_eq!(reseeded.code, Some(0), "{}", reseeded.stderr);
    a.start();
    assert!(a.said().contains("went on where it stood"), "{}", a.said());
}
