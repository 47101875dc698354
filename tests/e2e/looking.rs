//! The commands that look inside, at nodes that run and at files at rest; and the one that repairs.

use antiphon_harness::{Place, Site, eventually, settled};
use serde_json::Value;

use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";

/// Runs a command that must succeed, and gives what it printed.
#[track_caller]
fn printed(place: &Place, arguments: &[&str]) -> String {
    let ended = place.run(arguments);
    ended.expect(0, &[]);
    ended.stdout
}

/// The same, as JSON, an object a line.
#[track_caller]
fn objects(place: &Place, arguments: &[&str]) -> Vec<Value> {
    printed(place, arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Two running nodes that changed row 1 without having heard of each other.
fn clashed(place: &Place) -> (Site, Site) {
    let mut a = place.site("a", &format!("{TABLE} INSERT INTO t VALUES (1, 'first')"));
    let mut b = place.site("b", TABLE);
    a.start();
    b.start();
    settled(&[&a, &b]);
    b.term();
    a.sql("UPDATE t SET v = 'of a' WHERE id = 1");
    b.sql("UPDATE t SET v = 'of b' WHERE id = 1");
    eventually("a's change is in the log", || a.is_quiet());
    b.start();
    settled(&[&a, &b]);
    (a, b)
}

/// Records are the same everywhere, under the same names, and can be deleted in one file without the others' knowing.
#[test]
fn conflicts_are_the_same_on_all_nodes_and_purged_on_one() {
    let place = place();
    let (a, b) = clashed(&place);
    let list = |site: &str| objects(&place, &["conflicts", "list", site, "--log", "log", "--json"]);
    let found = list("a.db");
    assert_eq!(found, list("b.db"));
    assert_eq!(found.len(), 1);
    let record = &found[0];
    assert_eq!(record["winner"]["v"], "of b");
    assert_eq!(record["loser"]["v"], "of a");
    assert_eq!((&record["winner_node"], &record["loser_node"]), (&b.node().into(), &a.node().into()));
    let id = record["id"].as_str().unwrap();
    let shown = printed(&place, &["conflicts", "show", id, "b.db", "--log", "log"]);
    assert!(shown.contains("v = 'of a'") && shown.contains("v = 'of b'"), "{shown}");
    place.run(["conflicts", "show", "1/1#9", "b.db"]).expect(66, &["there is no record 1/1#9", "conflicts list"]);
    // The log knows when: nothing is older than a day, and all is older than now.
    assert_eq!(printed(&place, &["conflicts", "list", "a.db", "--log", "log", "--since", "0s"]), "");
    assert!(printed(&place, &["conflicts", "list", "a.db", "--log", "log", "--since", "1d"]).contains(id));
    place.run(["conflicts", "purge", "a.db", "--log", "log", "--all"]).expect(2, &["nobody can be asked", "--yes"]);
    place.run(["conflicts", "purge", "a.db", "--log", "log", "--all", "--dry-run"]).expect(0, &["1 record would be"]);
    place
        .run(["conflicts", "purge", "a.db", "--log", "log", "--before", "1d", "--yes"])
        .expect(0, &["0 records would"]);
    assert_eq!(list("a.db").len(), 1);
    place
        .run(["conflicts", "purge", "a.db", "--log", "log", "--before", "0s", "--yes"])
        .expect(0, &["1 record deleted"]);
    assert_eq!((list("a.db").len(), list("b.db").len()), (0, 1));
    a.sql("INSERT INTO t VALUES (2, 'goes on')");
    settled(&[&a, &b]);
}

/// Running nodes in step are equal; one that was away is behind, and the words say so.
#[test]
fn verify_says_that_files_are_equal_or_who_is_behind() {
    let place = place();
    let (a, mut b) = clashed(&place);
    let equal = printed(&place, &["verify", "a.db", "b.db"]);
    assert!(equal.contains("table t: equal, 1 row"), "{equal}");
    b.term();
    a.sql("INSERT INTO t VALUES (2, 'while b is away')");
    eventually("it is in the log", || a.is_quiet());
    b.sql("INSERT INTO t VALUES (3, 'of b')");
    let differs = place.run(["verify", "a.db", "b.db"]);
    differs.expect(65, &["are not the same", "run it again"]);
    for words in [
        "1 only in A, 1 only in B, 0 with other values",
        "only A: id = 2, v = 'while b is away'",
        "note: B has 1 marked key that no batch holds yet",
        "note: B is 1 entry behind; run again when in step",
    ] {
        assert!(differs.stdout.contains(words), "`{words}` is not in:\n{}", differs.stdout);
    }
    b.start();
    settled(&[&a, &b]);
    place.run(["verify", "a.db", "b.db"]).expect(0, &[]);
}

/// What scripts of HarmonyLite's users look for, and values as they are.
#[test]
fn peek_prints_every_change_with_its_values() {
    let place = place();
    let mut a = place.site("a", &format!("{TABLE} INSERT INTO t VALUES (1, 'was there')"));
    a.start();
    eventually("the founder is done", || a.is_quiet());
    for sql in [
        "INSERT INTO t VALUES (9007199254740993, x'00ff')",
        "UPDATE t SET v = CAST(x'ff' AS TEXT) WHERE id = 1",
        "DELETE FROM t WHERE id = 1",
        "INSERT INTO t VALUES (1, 1.0)",
    ] {
        a.sql(sql);
        eventually("it is in the log", || a.is_quiet());
    }
    let peek = |more: &[&str]| {
        let mut arguments = vec!["log", "peek", "--log", "log", "--json"];
        arguments.extend(more);
        objects(&place, &arguments)
    };
    let all = peek(&[]);
    let types: Vec<_> = all.iter().map(|change| change["Payload"]["Type"].as_str().unwrap()).collect();
    assert_eq!(types, ["insert", "insert", "update", "delete", "insert"]);
    let rows: Vec<_> = all.iter().map(|change| change["Payload"]["Row"].to_string()).collect();
    assert_eq!(
        rows,
        [
            r#"{"id":1,"v":"was there"}"#,
            r#"{"id":9007199254740993,"v":{"$blob":"AP8="}}"#,
            r#"{"id":1,"v":{"$text":"/w=="}}"#,
            r#"{"id":1}"#,
            r#"{"id":1,"v":1.0}"#
        ]
    );
    for change in &all {
        assert_eq!(change["FromNodeId"], a.node());
        assert_eq!(change["Payload"]["TableName"], "t");
        assert!(change["Payload"]["Id"].is_u64() && change["seq"].is_u64() && change["time"].is_string());
    }
    // What comes before `--from` still says what is an update.
    let from = all[2]["seq"].to_string();
    assert_eq!(peek(&["--from", &from]), all[2..]);
    assert_eq!(peek(&["--limit", "2"]), all[..2]);
    assert_eq!(peek(&["--table", "T"]).len(), 5);
    assert_eq!(peek(&["--table", "u"]).len(), 0);
    let info = &objects(&place, &["log", "info", "a.db", "--log", "log", "--json"])[0];
    assert_eq!(info["genesis"]["founder"], a.node());
    assert_eq!(info["shards"][0]["last"], place.entries(1).len());
    assert_eq!(info["shards"][0]["entries"], info["shards"][0]["last"]);
    // Once the beginning is gone nobody can say whether a row was there.
    a.term();
    let log = rusqlite::Connection::open(place.path("log/log.db")).unwrap();
    log.execute_batch("DELETE FROM shard_1 WHERE seq < 3").unwrap();
    drop(log);
    assert!(peek(&[]).iter().all(|change| ["upsert", "delete"].contains(&change["Payload"]["Type"].as_str().unwrap())));
}

/// What is on its way is in the file alone, whether a host runs or not.
#[test]
fn peek_shows_what_is_not_in_the_log_yet() {
    let place = place();
    let mut a = place.site("a", TABLE);
    a.start();
    eventually("the founder is done", || a.is_quiet());
    a.term();
    a.sql("INSERT INTO t VALUES (7, 'later'); DELETE FROM t WHERE id = 7;");
    let pending = place.run(["log", "peek", "a.db", "--log", "log", "--pending", "--json"]);
    pending.expect(0, &["0 batches are in the outbox and not in the log; 2 marks are in no batch"]);
    let marks: Vec<Value> = pending.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<_> = marks.iter().map(|mark| mark["Payload"]["Type"].as_str().unwrap()).collect();
    assert_eq!(types, ["insert", "delete"]);
    assert!(marks.iter().all(|mark| mark["pending"] == "mark" && mark["Payload"]["Row"]["id"] == 7));
    // A batch that is sealed and not sent, as a host leaves it whose log can't be reached.
    let batch: Vec<u8> = {
        let log = rusqlite::Connection::open(place.path("log/log.db")).unwrap();
        log.query_row("SELECT frame FROM shard_1 ORDER BY seq DESC LIMIT 1", [], |row| row.get(0)).unwrap()
    };
    a.connect()
        .execute(
            "INSERT INTO __antiphon___global_change_log (shard, number, state, batch) VALUES (1, 99, 0, ?1)",
            [batch],
        )
        .unwrap();
    place
        .run(["log", "peek", "a.db", "--log", "log", "--pending"])
        .expect(0, &["1 batch is in the outbox and not in the log; 2 marks are in no batch"]);
}

/// Looking leaves every file as it was, of a node that runs and of one at rest.
#[test]
fn looking_changes_nothing() {
    let place = place();
    let (a, mut b) = clashed(&place);
    b.term();
    let read = |name: &str| std::fs::read(place.path(name)).unwrap();
    let listed = || {
        let mut names: Vec<_> =
            std::fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let (before, files) = ((read("a.db"), read("b.db"), read("log/log.db")), listed());
    place.run(["doctor", "b.db", "--log", "log"]).expect(0, &[]);
    place.run(["doctor", "a.db", "--log", "log"]).expect(0, &[]);
    place.run(["conflicts", "list", "b.db", "--log", "log"]).expect(0, &[]);
    place.run(["log", "info", "b.db", "--log", "log"]).expect(0, &[]);
    place.run(["log", "peek", "b.db", "--log", "log", "--pending"]).expect(0, &[]);
    place.run(["verify", "a.db", "b.db"]).expect(0, &[]);
    place.run(["log", "info", "b.db", "--log", "nowhere"]).expect(66, &["there is no log in `nowhere`", "--log DIR"]);
    place.run(["repair", "b.db", "--log", "nowhere"]).expect(66, &["there is no log in `nowhere`"]);
    assert!((read("a.db"), read("b.db"), read("log/log.db")) == before, "a file was written");
    assert_eq!(listed(), files, "a file was made");
    drop(a);
}

/// Rows that changed while no trigger was there, deletions among them, reach the other node after a repair.
#[test]
fn repair_sends_what_no_trigger_saw() {
    let place = place();
    let mut a = place.site("a", &format!("{TABLE} INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')"));
    let mut b = place.site("b", TABLE);
    a.start();
    b.start();
    settled(&[&a, &b]);
    a.verb("repair", &[]).expect(75, &["another Antiphon runs", "stop the other one first"]);
    a.term();
    for name in a.rows("SELECT name FROM sqlite_schema WHERE type = 'trigger'") {
        a.sql(&format!("DROP TRIGGER \"{name}\""));
    }
    a.sql("DELETE FROM t WHERE id = 1; UPDATE t SET v = 'other' WHERE id = 2; INSERT INTO t VALUES (4, 'd')");
    b.sql("INSERT INTO t VALUES (5, 'of b')");
    eventually("b's row is in the log", || b.is_quiet());
    let doctor = place.run(["doctor", "a.db", "--log", "log"]);
    doctor.expect(65, &["the doctor found 1 error"]);
    assert!(doctor.stdout.contains("its triggers are missing"), "{}", doctor.stdout);
    let words = "table t: 3 rows would be sent: 1 inserted, 1 updated, 1 deleted\n";
    let dry = a.verb("repair", &["--dry-run"]);
    dry.expect(0, &["nothing was changed"]);
    assert_eq!(dry.stdout, words);
    let done = a.verb("repair", &["--table", "T"]);
    done.expect(0, &["marked; they are sent when the node runs"]);
    assert_eq!(done.stdout, words.replace("would be", "will be"));
    a.start();
    settled(&[&a, &b]);
    assert_eq!(b.rows("SELECT id || v FROM t"), ["2other", "3c", "4d", "5of b"]);
    a.term();
    a.verb("repair", &[]).expect(0, &["nothing to repair"]);
    a.verb("repair", &["--table", "u"]).expect(66, &["there is no replicated table `u`"]);
}

/// Without the whole log nobody but the user knows which rows are right.
#[test]
fn repair_needs_the_whole_log() {
    let place = place();
    let mut a = place.site("a", &format!("{TABLE} INSERT INTO t VALUES (1, 'a')"));
    a.start();
    eventually("the founder is done", || a.is_quiet());
    a.term();
    let log = rusqlite::Connection::open(place.path("log/log.db")).unwrap();
    log.execute_batch("DELETE FROM shard_1 WHERE seq < 3").unwrap();
    a.verb("repair", &[]).expect(65, &["--discard-local", "--publish-local"]);
    let doctor = place.run(["doctor", "a.db", "--log", "nowhere"]);
    assert!(doctor.expect(65, &[]).stdout.contains("error: there is no log in `nowhere`"), "{}", doctor.stdout);
    let never = place.site("never", TABLE);
    never.verb("repair", &[]).expect(1, &["belongs to no cluster", "antiphon run"]);
    place.run(["conflicts", "list", "third.db"]).expect(66, &["cannot open database `third.db`"]);
}
