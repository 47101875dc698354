//! Nodes that only receive or only send, and one that ends when nothing happens.

use antiphon_harness::{Site, eventually, settled};

use rusqlite::Connection;

use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";
const PUBLISH: &str = "ANTIPHON_PUBLISH";
const REPLICATE: &str = "ANTIPHON_REPLICATE";

/// What a program says that ends because nothing happens.
const ASLEEP: &str = "as long as `sleep_timeout` says";
const OF_A: &str = "INSERT INTO t VALUES (1, 'of a'), (2, 'of a')";

fn traces(site: &Site) -> Vec<String> {
    site.rows(
        "SELECT name FROM sqlite_schema WHERE type = 'trigger' OR name LIKE '\\_\\_antiphon\\_\\_%\\_change\\_log' ESCAPE '\\'
         AND name <> '__antiphon___global_change_log'",
    )
}

/// Nothing written there is noted or sent, and the cluster's next word about a row holds.
#[test]
fn a_node_that_does_not_publish_sends_nothing_ever() {
    let place = place();
    let (a, mut b) = place.pair(TABLE, OF_A, "");
    b.term();
    b.set(PUBLISH, Some("false"));
    b.start();
    assert!(b.said().contains("publish  off"), "{}", b.said());
    assert_eq!(traces(&b), [""; 0], "triggers that were there are taken out");
    let before = place.written_by(b.node());
    b.sql("INSERT INTO t VALUES (10, 'mine'); UPDATE t SET v = 'mine' WHERE id <= 2");
    a.sql("UPDATE t SET v = 'the next' WHERE id = 1; INSERT INTO t VALUES (3, 'of a')");
    eventually("it receives", || b.one("SELECT count(*) FROM t WHERE v = 'of a' AND id = 3") == "1");
    assert_eq!(b.rows("SELECT v FROM t WHERE id IN (1, 2, 10) ORDER BY id"), ["the next", "mine", "mine"]);
    let doctor = b.verb("doctor", &[]);
    assert!(doctor.stdout.contains("note: `publish` is off"), "{}", doctor.stdout);
    assert!(!doctor.stdout.contains("triggers are missing"), "{}", doctor.stdout);
    b.sql("CREATE TABLE late (id INTEGER PRIMARY KEY)");
    a.sql("UPDATE t SET v = 'the next' WHERE id = 2");
    eventually("the next word holds", || b.one("SELECT v FROM t WHERE id = 2") == "the next");
    b.term();
    b.start();
    a.sql("INSERT INTO t VALUES (4, 'of a')");
    eventually("it receives", || b.one("SELECT count(*) FROM t WHERE id = 4") == "1");
    assert_eq!(traces(&b), [""; 0]);
    assert_eq!(place.written_by(b.node()), before);
    assert_eq!(a.one("SELECT count(*) FROM t WHERE v = 'mine'"), "0");
}

/// What was written while nothing was noted is known by comparing, and the user says whose rows hold.
#[test]
fn a_node_that_publishes_again_asks_about_what_was_not_noted() {
    for remedy in ["--publish-local", "--discard-local"] {
        let place = place();
        let (a, mut b) = place.pair(TABLE, OF_A, "");
        b.term();
        b.set(PUBLISH, Some("false"));
        b.start();
        b.term();
        // Nothing was written: it just goes on.
        b.set(PUBLISH, None::<String>);
        b.start();
        b.sql("INSERT INTO t VALUES (5, 'noted')");
        eventually("the row arrives", || a.one("SELECT count(*) FROM t WHERE id = 5") == "1");
        settled(&[&a, &b]);
        b.term();
        b.set(PUBLISH, Some("false"));
        b.start();
        b.sql("INSERT INTO t VALUES (6, 'not noted'); DELETE FROM t WHERE id = 1");
        b.term();
        a.sql("UPDATE t SET v = 'since' WHERE id = 2");
        eventually("a is at rest", || a.is_quiet());
        b.verb("repair", &[]).expect(64, &["`publish` is off"]);
        b.set(PUBLISH, None::<String>);
        b.verb("repair", &[]).expect(65, &["while `publish` was off", "`antiphon run` says"]);
        let before = place.entries(1).len();
        b.refused().expect(65, &["1 only here, 1 only there", "--discard-local", "--publish-local"]);
        assert_eq!(place.entries(1).len(), before);
        b.verb("join", &[remedy]).expect(0, &["joined"]);
        b.start();
        let wanted: &[&str] = if remedy == "--publish-local" {
            &["2|since", "5|noted", "6|not noted"]
        } else {
            &["1|of a", "2|since", "5|noted"]
        };
        eventually("the rows are as the user said", || a.rows("SELECT * FROM t ORDER BY id") == wanted);
        settled(&[&a, &b]);
    }
}

/// Changes on their way are not given up in silence.
#[test]
fn a_node_with_unsent_changes_does_not_stop_publishing() {
    let place = place();
    let (a, mut b) = place.pair(TABLE, OF_A, "");
    b.term();
    b.sql("INSERT INTO t VALUES (7, 'unsent')");
    b.set(PUBLISH, Some("false"));
    b.refused().expect(64, &["changes made here before wait to be sent", "publish = true"]);
    b.set(PUBLISH, None::<String>);
    b.start();
    eventually("it is sent", || a.one("SELECT count(*) FROM t WHERE id = 7") == "1");
    settled(&[&a, &b]);
    b.term();
    b.set(PUBLISH, Some("false"));
    b.start();
}

/// Somebody has to have something to say first.
#[test]
fn a_node_that_does_not_publish_founds_nothing() {
    let place = place();
    let mut a = place.site("a", &format!("{TABLE} INSERT INTO t VALUES (1, 'x')")).with(PUBLISH, "false");
    a.refused().expect(64, &["the log is empty, and `publish` is off", "hint: "]);
    a.set(REPLICATE, Some("false"));
    a.refused().expect(64, &["both off"]);
    let mut b = place.site("b", &format!("{TABLE} INSERT INTO t VALUES (1, 'x')"));
    b.start();
    a.set(REPLICATE, None::<String>);
    a.start();
    b.sql("INSERT INTO t VALUES (2, 'y')");
    eventually("the row arrives", || a.one("SELECT count(*) FROM t") == "2");
    assert_eq!(traces(&a), [""; 0]);
}

/// It sends and hears only itself; when it listens again it has first what the cluster has.
#[test]
fn a_node_that_does_not_replicate_passes_others_over_and_catches_up() {
    let place = place();
    let (mut a, mut b) = place.pair(TABLE, OF_A, "");
    b.term();
    b.set(REPLICATE, Some("false"));
    b.start();
    assert!(b.said().contains("replicate off"), "{}", b.said());
    a.sql("INSERT INTO t VALUES (3, 'of a'); UPDATE t SET v = 'newer' WHERE id = 1; DELETE FROM t WHERE id = 2");
    b.sql("INSERT INTO t VALUES (4, 'of b')");
    eventually("its own goes out", || a.one("SELECT count(*) FROM t WHERE id = 4") == "1");
    eventually("and comes back", || b.is_quiet());
    assert_eq!(b.rows("SELECT * FROM t ORDER BY id"), ["1|of a", "2|of a", "4|of b"]);
    // It had not seen a's word about row 1, and all learn that.
    b.sql("UPDATE t SET v = 'unseeing' WHERE id = 1");
    eventually("the later word holds", || a.one("SELECT v FROM t WHERE id = 1") == "unseeing");
    eventually("and the other is kept", || {
        a.one("SELECT count(*) FROM \"__antiphon___conflict\" WHERE tbl = 't'") == "1"
    });
    b.kill9();
    b.sql("INSERT INTO t VALUES (5, 'unsent')");
    b.set(REPLICATE, None::<String>);
    b.refused().expect(64, &["`replicate` is on again", "replicate = false"]);
    b.set(REPLICATE, Some("false"));
    b.start();
    eventually("it is sent", || a.one("SELECT count(*) FROM t WHERE id = 5") == "1");
    eventually("and comes back", || b.is_quiet());
    b.term();
    b.set(REPLICATE, None::<String>);
    let before = place.entries(1).len();
    b.verb("repair", &[]).expect(65, &["were passed over", "`antiphon run` says"]);
    assert_eq!(place.entries(1).len(), before);
    b.start();
    assert!(b.said().contains("took the cluster's rows"), "{}", b.said());
    let rows = settled(&[&a, &b]);
    assert_eq!(rows.len(), 4, "{rows:?}");
    a.sql("INSERT INTO t VALUES (20, 'x')");
    b.sql("INSERT INTO t VALUES (21, 'y')");
    eventually("all goes on", || [&a, &b].iter().all(|site| site.one("SELECT count(*) FROM t") == "6"));
    settled(&[&a, &b]);
    a.term();
    b.term();
    b.start();
    assert!(b.said().contains("went on where it stood"), "{}", b.said());
}

/// A short-lived machine ends its host when there is nothing to do, and not before.
#[test]
fn sleep_timeout_ends_the_program_in_order() {
    let place = place();
    let mut a = place.site("a", TABLE).with("ANTIPHON_SLEEP_TIMEOUT", "700");
    let mut b = place.site("b", TABLE);
    a.start();
    b.start();
    a.sql("INSERT INTO t VALUES (1, 'x')");
    eventually("it ends by itself", || !a.is_running());
    assert_eq!(a.wait().code(), Some(0));
    assert!(a.said().contains(ASLEEP), "{}", a.said());
    eventually("the row was sent", || b.one("SELECT count(*) FROM t") == "1");
    assert!(b.is_running());
}

/// While the log can't be reached nothing happens, and that is no rest: changes wait.
#[test]
fn a_program_whose_changes_wait_does_not_go_to_sleep() {
    let place = place();
    let mut a = place.site("a", TABLE).with("ANTIPHON_SLEEP_TIMEOUT", "3000");
    a.start();
    let log = Connection::open(a.log.join("log.db")).unwrap();
    log.execute_batch("BEGIN IMMEDIATE").unwrap();
    a.sql("INSERT INTO t VALUES (1, 'x')");
    a.wait_for_words("Unable to publish");
    assert!(a.is_running() && !a.said().contains(ASLEEP), "{}", a.said());
    eventually("the status says so", || {
        a.verb("status", &[]).stdout.starts_with("failing: publish: cannot reach the log: ")
    });
    log.execute_batch("ROLLBACK").unwrap();
    eventually("it ends by itself", || !a.is_running());
    assert_eq!(a.wait().code(), Some(0));
    assert!(a.said().contains(ASLEEP), "{}", a.said());
    assert!(a.is_quiet());
}

/// What was sealed and not sent waits as much as what was marked.
#[test]
fn batches_that_wait_keep_a_node_publishing() {
    let place = place();
    let (mut a, b) = place.pair(TABLE, OF_A, "");
    let log = Connection::open(a.log.join("log.db")).unwrap();
    log.execute_batch("BEGIN IMMEDIATE").unwrap();
    a.sql("INSERT INTO t VALUES (3, 'x')");
    let sealed = "SELECT count(*) FROM __antiphon___global_change_log WHERE state = 0";
    eventually("it is sealed", || {
        a.one(sealed) == "1" && a.one("SELECT count(*) FROM __antiphon__t_change_log") == "0"
    });
    a.kill9();
    log.execute_batch("ROLLBACK").unwrap();
    a.set(PUBLISH, Some("false"));
    a.refused().expect(64, &["`publish` is off, and changes made here before wait to be sent"]);
    a.set(PUBLISH, Some("true"));
    a.start();
    eventually("it was sent", || b.one("SELECT count(*) FROM t") == "3");
}
