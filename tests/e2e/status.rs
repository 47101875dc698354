//! `antiphon status`, asked from another process while a node runs, is stopped, was killed, or never ran.

use antiphon_harness::{Ended, Site, eventually, settled};
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";

fn status(site: &Site) -> Ended {
    site.verb("status", &[])
}

/// The first line of the answer.
fn verdict(site: &Site) -> String {
    status(site).stdout.lines().next().unwrap_or_default().to_owned()
}

fn json(site: &Site) -> serde_json::Value {
    serde_json::from_str(&site.verb("status", &["--json"]).stdout).unwrap()
}

/// Everything in a folder, byte for byte.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), if path.is_file() { std::fs::read(&path).unwrap() } else { vec![] }))
        .collect();
    files.sort();
    files
}

/// A node in step says so; one that can't go on says why, and is in step again when it could.
#[test]
fn a_paused_shard_shows_its_reason_and_goes_again() {
    let place = place();
    let mut a = place.site("a", TABLE);
    let mut b = place.site("b", TABLE);
    a.start();
    b.start();
    a.sql("INSERT INTO t VALUES (1, 'one')");
    settled(&[&a, &b]);
    for site in [&a, &b] {
        eventually("it is in step", || verdict(site) == "in step");
        let said = status(site);
        said.expect(0, &[]);
        assert_eq!(said.stderr, "");
    }
    a.sql("ALTER TABLE t ADD COLUMN extra; INSERT INTO t VALUES (2, 'two', 'more')");
    eventually("the shard is paused", || verdict(&b).starts_with("paused: shard 1: entry "));
    let said = status(&b);
    said.expect(3, &[]);
    assert!(said.stdout.contains("sets column `extra` of table `t`"), "{}", said.stdout);
    // The same of all nodes, seen from any of them.
    eventually("the tables differ", || {
        let compared = place.run(["schema", "status", "a.db", "--log", "log"]);
        compared.code == Some(3) && compared.stdout.contains("t  DIFFERS") && compared.stdout.contains("waits: entry")
    });
    assert_eq!(said.stderr, "", "the answer is on stdout");
    let compared = || place.run(["schema", "status", "a.db", "--log", "log", "--json"]);
    let read = |ended: &Ended| serde_json::from_str::<serde_json::Value>(&ended.stdout).unwrap();
    let differs = compared();
    differs.expect(3, &[]);
    let tables = &read(&differs)["tables"];
    let versions = tables[0]["versions"].as_object().unwrap();
    assert_eq!((tables[0]["table"].as_str(), tables.as_array().unwrap().len()), (Some("t"), 1));
    assert_eq!(versions.len(), 2, "{tables}");
    for site in [&a, &b] {
        let has = |nodes: &&serde_json::Value| *nodes == &serde_json::json!([site.node()]);
        assert_eq!(versions.values().filter(has).count(), 1, "{tables}");
    }
    assert_eq!(tables[0]["missing"], serde_json::json!([]));
    let waiting = &read(&differs)["waiting"];
    assert_eq!((waiting[0]["node"].as_u64(), waiting[0]["part"].as_str()), (Some(b.node()), Some("shard 1")));
    let reason = waiting[0]["reason"].as_str().unwrap();
    assert!(reason.contains("sets column `extra` of table `t`") && waiting[1].is_null(), "{waiting}");
    let found = json(&b);
    assert_eq!(found["verdict"], "paused");
    assert_eq!(found["well"], false);
    assert_eq!(found["troubles"]["shard 1"]["paused"], true);
    assert_eq!(found["shards"][0]["behind"]["changes"], 1);
    assert!(found["shards"][0]["end"].as_u64() > found["shards"][0]["position"].as_u64());
    b.sql("ALTER TABLE t ADD COLUMN extra");
    eventually("it goes on", || verdict(&b) == "in step");
    let found = json(&b);
    assert_eq!(found["troubles"], serde_json::json!({}));
    assert_eq!(found["shards"][0]["behind"], serde_json::Value::Null);
    settled(&[&a, &b]);
    eventually("the tables are equal", || compared().code == Some(0));
    let equal = read(&compared());
    let nodes = equal["tables"][0]["versions"].as_object().unwrap().values().next().unwrap().as_array().unwrap();
    assert_eq!((nodes.len(), &equal["waiting"]), (2, &serde_json::json!([])), "{equal}");
    a.sql("CREATE TABLE single (id INTEGER PRIMARY KEY)");
    eventually("a table that only one has is missing on the other", || {
        let said = read(&compared());
        let of = said["tables"].as_array().unwrap().iter().find(|of| of["table"] == "single").cloned();
        of.is_some_and(|of| of["missing"] == serde_json::json!([b.node()]))
    });
}

/// C83, C25: what stays behind while all else goes on is told, and a node of which something does is not well: a table
/// that is gone here, rows that have no key.
#[test]
fn c83_what_stays_behind_is_told_until_it_does_not() {
    let place = place();
    let ddl = "CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE k (name TEXT PRIMARY KEY, v);";
    let mut a = place.site("a", ddl);
    let mut b = place.site("b", ddl);
    a.start();
    b.start();
    a.sql("INSERT INTO t VALUES (1, 'x')");
    settled(&[&a, &b]);
    b.sql("DROP TABLE t; INSERT INTO k VALUES (NULL, 'nameless'), ('named', 1)");
    a.sql("INSERT INTO t VALUES (2, 'y')");
    let reason =
        |site: &Site, part: &str| json(site)["troubles"][part]["reason"].as_str().unwrap_or_default().to_owned();
    eventually("both are told", || !reason(&b, "table t").is_empty() && !reason(&b, "table k").is_empty());
    assert!(reason(&b, "table t").contains("gone from this file"), "{}", reason(&b, "table t"));
    assert!(reason(&b, "table k").contains("NULL in the primary key"), "{}", reason(&b, "table k"));
    assert_eq!((json(&b)["verdict"].as_str(), json(&b)["well"].as_bool()), (Some("paused"), Some(false)));
    assert_eq!(json(&b)["shards"][0]["behind"], serde_json::Value::Null, "and all else goes on");
    eventually("a has what b could send", || a.one("SELECT count(*) FROM k") == "1");
    assert_eq!(verdict(&a), "in step");
    b.sql("CREATE TABLE t (id INTEGER PRIMARY KEY, v); UPDATE k SET name = 'late' WHERE name IS NULL");
    eventually("nothing stays behind", || json(&b)["troubles"] == serde_json::json!({}));
    eventually("it has what it missed", || {
        b.one("SELECT count(*) FROM t") == "2" && a.one("SELECT count(*) FROM k") == "2"
    });
    settled(&[&a, &b]);
    assert_eq!(verdict(&b), "in step");
}

/// Members appear, and a stop in order is told from a kill.
#[test]
fn members_come_and_go() {
    let place = place();
    let mut a = place.site("a", TABLE);
    let mut b = place.site("b", TABLE);
    a.start();
    b.start();
    let state = |site: &Site, node: u64| {
        let found = json(site);
        let member = found["members"].as_array().unwrap().iter().find(|member| member["node"] == node).cloned();
        member.map(|member| (member["state"].as_str().unwrap().to_owned(), member["this"] == true))
    };
    let (one, two) = (a.node(), b.node());
    eventually("both are seen by both", || {
        [(&a, one, two), (&b, two, one)].iter().all(|(site, me, other)| {
            state(site, *me) == Some(("here".to_owned(), true))
                && state(site, *other) == Some(("here".to_owned(), false))
        })
    });
    b.term();
    assert_eq!(state(&a, two), Some(("left".to_owned(), false)));
    assert_eq!(verdict(&b), "not running");
    let said = status(&b);
    said.expect(3, &[]);
    assert!(said.stdout.contains(" ago; its last report is "), "{}", said.stdout);
    assert!(json(&b)["host"]["ended_seconds_ago"].is_number() && json(&b)["host"]["ended_by"].is_null());
    b.start();
    eventually("it is there again", || state(&a, two) == Some(("here".to_owned(), false)));
    b.kill9();
    let said = status(&b);
    said.expect(3, &[]);
    assert!(said.stdout.contains("ended without a word, as by a kill"), "{}", said.stdout);
    // What it had committed is told all the same.
    b.sql("INSERT INTO t VALUES (1, 'written meanwhile')");
    assert_eq!(json(&b)["pending"]["marks"], 1);
}

/// What ended a process is told by the next who asks, and forgotten at the next start.
#[test]
fn what_ended_a_process_is_told() {
    let place = place();
    let mut a = place.site("a", TABLE);
    a.start();
    a.sql("INSERT INTO t VALUES (1, 'one')");
    eventually("the row is in the log", || a.is_quiet());
    let aside = place.path("aside.db");
    std::fs::rename(&a.database, &aside).unwrap();
    eventually("it ends", || !a.is_running());
    a.wait();
    std::fs::rename(&aside, &a.database).unwrap();
    let why = "was deleted or moved away";
    let said = verdict(&a);
    assert!(said.starts_with("not running: it ended: ") && said.ends_with(why), "{said}");
    assert!(json(&a)["host"]["ended_by"].as_str().unwrap().ends_with(why));
    a.start();
    eventually("it is in step", || verdict(&a) == "in step");
    assert_eq!(json(&a)["host"]["ended_by"], serde_json::Value::Null);
}

/// Asking makes nothing, changes nothing, and needs no moment of quiet.
#[test]
fn asking_disturbs_nobody() {
    let place = place();
    let mut a = place.site("a", TABLE);
    let folder = a.database.parent().unwrap().to_owned();
    let before = files(&folder);
    let said = place.run(["status", a.database.to_str().unwrap()]);
    said.expect(3, &[]);
    assert!(said.stdout.starts_with("not running: nothing of Antiphon's is in this database\n"), "{}", said.stdout);
    assert_eq!(files(&folder), before);

    a.start();
    eventually("it is in step", || verdict(&a) == "in step");
    let mode = a.state().join("status.json").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The log is found without being named, for the host said where it is.
    let said = place.run(["status", a.database.to_str().unwrap()]);
    said.expect(0, &[]);
    assert!(said.stdout.contains(place.path("log").canonicalize().unwrap().to_str().unwrap()), "{}", said.stdout);

    let app = a.connect();
    app.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1, 'held')").unwrap();
    assert_eq!(verdict(&a), "in step", "a writer is not waited for");
    app.execute_batch("COMMIT").unwrap();
    eventually("it goes on", || verdict(&a) == "in step" && a.is_quiet());

    // The last connection takes what SQLite keeps beside an open database away with it.
    drop(app);
    a.term();
    let before = files(&folder);
    let inside = files(&a.state());
    let log = files(&place.path("log"));
    status(&a).expect(3, &[]);
    assert_eq!(files(&folder), before);
    assert_eq!(files(&a.state()), inside);
    assert_eq!(files(&place.path("log")), log);
}

/// Two that ask all the time don't keep a host from starting, and don't take each other for one.
#[test]
fn who_asks_keeps_no_host_from_starting() {
    let place = place();
    let mut a = place.site("a", TABLE);
    a.start();
    a.term();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let database = a.database.to_str().unwrap().to_owned();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    place.run(["status", &database]);
                }
            });
        }
        for _ in 0..3 {
            a.start();
            a.term();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// `--watch` draws again until interrupted; with `--json` each picture is a line.
#[test]
fn watching_goes_on_until_interrupted() {
    use std::io::BufRead as _;
    let place = place();
    let mut a = place.site("a", TABLE);
    a.start();
    let mut command = place.command(["status", a.database.to_str().unwrap(), "--watch", "--json"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines.take(2) {
        let found: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(found["host"]["running"], true);
    }
    // Not by SIGINT, which a shell lets those ignore that it starts behind itself.
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(!child.wait().unwrap().success());
}

/// What the log has and nobody needs leaves the database by itself.
#[test]
fn the_outbox_is_cleaned_up_while_running() {
    let place = place();
    let settings = |site: Site| {
        site.with("ANTIPHON_OUTBOX_KEEP", "0")
            .with("ANTIPHON_CLEANUP_INTERVAL", "100")
            .with("ANTIPHON_LOGGING__VERBOSE", "true")
    };
    let mut a = settings(place.site("a", TABLE));
    let mut b = settings(place.site("b", TABLE));
    a.start();
    b.start();
    for id in 1..=20 {
        a.sql(&format!("INSERT INTO t VALUES ({id}, 'a')"));
        b.sql(&format!("INSERT INTO t VALUES ({id} + 100, 'b')"));
    }
    settled(&[&a, &b]);
    let kept = |site: &Site| site.one("SELECT count(*) FROM \"__antiphon___global_change_log\"");
    eventually("only the newest batch is kept", || kept(&a) == "1" && kept(&b) == "1");
    a.wait_for_words("Cleaned up DB change logs");
    assert!(a.said().contains("count="), "{}", a.said());
    a.kill9();
    a.start();
    a.sql("UPDATE t SET v = 'after a start'");
    settled(&[&a, &b]);
    assert_eq!(b.one("SELECT count(*) FROM t WHERE v = 'after a start'"), "40");
}
