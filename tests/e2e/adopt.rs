//! A cluster moves from HarmonyLite: `antiphon adopt`.

use antiphon_harness::{Ended, Place, Signal, Site, eventually, goes_on, harmonylite, settled};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use super::place;

const TABLES: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);
     CREATE TABLE pair (a TEXT, b INTEGER, v TEXT, PRIMARY KEY (b, a));";
const REPLICATED: &[&str] = &["t", "pair"];
const ROWS: &str = "INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three'), (4, 'four');
     INSERT INTO pair VALUES ('x', 1, 'x1'), ('y', 2, 'y2');";
/// What one node wrote while HarmonyLite could send nothing.
const UNSENT: &str =
    "INSERT INTO t VALUES (8, 'new'); UPDATE t SET v = 'TWO' WHERE id = 2; UPDATE t SET v = 'Two' WHERE id = 2;
     DELETE FROM t WHERE id = 3; UPDATE pair SET v = 'X1' WHERE a = 'x'; DELETE FROM pair WHERE a = 'y';";

/// A node of HarmonyLite's: all nodes had these rows, and this one wrote `unsent` since.
fn node(place: &Place, name: &str, more: &str, unsent: &str) -> Site {
    let site = place.site(name, &format!("{TABLES} {more}"));
    let conn = site.connect();
    harmonylite::install(&conn, REPLICATED);
    conn.execute_batch(ROWS).unwrap();
    harmonylite::sent(&conn, REPLICATED);
    conn.execute_batch(unsent).unwrap();
    site
}

fn adopt(place: &Place, site: &Site, flags: &[&str]) -> Ended {
    place.run([&["adopt", site.database.to_str().unwrap()], flags].concat())
}

fn theirs(site: &Site) -> String {
    site.one("SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_\\_harmonylite%' ESCAPE '\\'")
}

fn ours(site: &Site) -> String {
    site.one("SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_\\_antiphon%' ESCAPE '\\'")
}

/// What a node had not sent reaches the others, deletions included, and nothing of HarmonyLite is left.
#[test]
fn what_was_unsent_becomes_changes() {
    for shards in ["1", "3"] {
        let place = place();
        let shards = ("ANTIPHON_REPLICATION_LOG__SHARDS", shards);
        let mut a = node(&place, "a", "", "").with(shards.0, shards.1);
        let mut b = node(&place, "b", "", UNSENT).with(shards.0, shards.1);
        for site in [&a, &b] {
            adopt(&place, site, &[]).expect(0, &["removed from", "go on with `antiphon run`"]);
            assert_eq!(theirs(site), "0");
        }
        // Between the two the application writes on.
        b.sql("INSERT INTO t VALUES (9, 'in between'); DELETE FROM t WHERE id = 4");
        a.start();
        eventually("the founder is done", || a.is_quiet());
        b.start();
        assert!(b.said().contains("joined; the rows were the cluster's already"), "{}", b.said());
        settled(&[&a, &b]);
        assert_eq!(a.rows("SELECT * FROM t ORDER BY id"), ["1|one", "2|Two", "8|new", "9|in between"]);
        assert_eq!(a.rows("SELECT * FROM pair"), ["x|1|X1"]);
        goes_on(&[&a, &b]);
    }
}

/// The first node's rows are all sent, whether they were sent before or not.
#[test]
fn the_first_node_sends_all_its_rows() {
    for shards in ["1", "3"] {
        let place = place();
        let shards = ("ANTIPHON_REPLICATION_LOG__SHARDS", shards);
        let mut a = node(&place, "a", "", UNSENT).with(shards.0, shards.1);
        let mut b = place.site("b", TABLES).with(shards.0, shards.1);
        adopt(&place, &a, &[]).expect(0, &[]);
        a.start();
        b.start();
        settled(&[&a, &b]);
        assert_eq!(b.rows("SELECT * FROM t ORDER BY id"), ["1|one", "2|Two", "4|four", "8|new"]);
        goes_on(&[&a, &b]);
    }
}

/// Other differences are for the user to settle, and what was unsent is not forgotten meanwhile.
#[test]
fn a_node_that_lost_rows_is_settled_by_its_user() {
    for (flag, expected) in [
        ("--publish-local", vec!["1|one", "2|Two", "4|four", "8|new", "77|lost before"]),
        ("--discard-local", vec!["1|one", "2|two", "3|three", "4|four", "77|lost before"]),
    ] {
        let place = place();
        let mut a = node(&place, "a", "", "");
        a.sql("INSERT INTO t VALUES (77, 'lost before')");
        let mut b = node(&place, "b", "", UNSENT);
        adopt(&place, &a, &[]).expect(0, &[]);
        adopt(&place, &b, &[]).expect(0, &[]);
        a.start();
        eventually("the founder is done", || a.is_quiet());
        b.refused().expect(65, &["antiphon join --publish-local"]);
        b.verb("join", &[flag]).expect(0, &[]);
        b.start();
        settled(&[&a, &b]);
        assert_eq!(a.rows("SELECT * FROM t ORDER BY id"), expected, "{flag}");
    }
}

/// A database whose rows are all deleted, and whose deletions were not sent, is no empty one.
#[test]
fn a_database_that_was_emptied_sends_that() {
    let place = place();
    let mut a = node(&place, "a", "", "");
    let mut b = node(&place, "b", "", "DELETE FROM t; DELETE FROM pair");
    adopt(&place, &a, &[]).expect(0, &[]);
    adopt(&place, &b, &[]).expect(0, &[]);
    a.start();
    eventually("the founder is done", || a.is_quiet());
    b.start();
    settled(&[&a, &b]);
    assert_eq!(a.one("SELECT count(*) FROM t"), "0");
    goes_on(&[&a, &b]);
}

#[test]
fn a_plan_is_printed_and_nothing_changes() {
    let place = place();
    let a = node(&place, "a", "", UNSENT);
    let before = a.schema();
    let said = adopt(&place, &a, &["--dry-run"]);
    said.expect(0, &["would be removed", "nothing was changed"]);
    for line in [
        "publish  3 rows of table t, with 4 unsent changes",
        "publish  2 rows of table pair, with 2 unsent changes",
        "capture  table t",
        "remove   trigger __harmonylite__t_change_log_on_insert",
        "remove   table __harmonylite___change_log_global",
        "remove   table __harmonylite__schema_version",
    ] {
        assert!(said.stdout.lines().any(|found| found == line), "`{line}` is not in\n{}", said.stdout);
    }
    assert_eq!(a.schema(), before);
    assert!(!a.state().exists());
    let said = adopt(&place, &a, &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((&json["done"], &json["unsent"][1]["rows"]), (&true.into(), &3.into()), "{json}");
}

/// What can't be sent is named, and nothing is done until it may be forgotten.
#[test]
fn what_would_be_forgotten_is_refused() {
    let place = place();
    let a = place.site("a", "CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE keyless (v); CREATE TABLE gone (id INTEGER PRIMARY KEY);");
    harmonylite::install(&a.connect(), &["t", "keyless", "gone"]);
    a.sql("INSERT INTO t VALUES (1, 'x'); INSERT INTO keyless VALUES ('y'); INSERT INTO gone VALUES (1); DROP TABLE gone;");
    let before = a.schema();
    let said = adopt(&place, &a, &[]);
    said.expect(6, &["nothing was done: 2 changes would be forgotten", "--forget-unsent"]);
    assert!(said.stdout.contains("of table keyless: it has no primary key"), "{}", said.stdout);
    assert!(said.stdout.contains("of table gone: there is no such table any more"), "{}", said.stdout);
    assert_eq!(a.schema(), before);
    adopt(&place, &a, &["--forget-unsent"]).expect(0, &[]);
    assert_eq!(theirs(&a), "0");
    assert_eq!(a.one("SELECT val_id FROM __antiphon__t_change_log"), "1");
}

/// Its configuration holds as it is.
#[test]
fn its_configuration_is_taken_as_it_is() {
    let place = place();
    let mut a = node(&place, "a", "", UNSENT);
    place.file(
        "harmonylite.toml",
        "db_path = \"a.db\"\nnode_id = 7\nseq_map_path = \"seq-map.cbor\"\npublish = true\nreplicate = true\n
         scan_max_changes = 1024\ncleanup_interval = 5000\nsleep_timeout = 0\npolling_interval = 0\n
         [replication_log]\nshards = 1\nmax_entries = 1024\nreplicas = 1\ncompress = true\nupdate_existing = false\n
         [snapshot]\nenabled = false\nstore = \"nats\"\ninterval = 0\n
         [nats]\nurls = []\n[logging]\nverbose = false\nformat = \"json\"\n
         [prometheus]\nbind = \":3010\"\nenable = false\n[health_check]\nenable = false\nbind = \"0.0.0.0:8090\"\npath = \"/health\"\n",
    );
    let said = place.run(["adopt", "--config", "harmonylite.toml"]);
    said.expect(0, &[]);
    a = a.arguments(["-config", "harmonylite.toml"]);
    a.start();
    eventually("it founded", || a.is_quiet());
    assert_eq!(a.node(), 7);
    a.term();
}

#[test]
fn twice_is_as_good_as_once_and_what_is_not_theirs_is_refused() {
    let place = place();
    let mut a = node(&place, "a", "", UNSENT);
    adopt(&place, &a, &[]).expect(0, &[]);
    let after = a.schema();
    adopt(&place, &a, &[]).expect(0, &["nothing of HarmonyLite is left"]);
    assert_eq!(a.schema(), after);
    a.start();
    eventually("it founded", || a.is_quiet());
    adopt(&place, &a, &[]).expect(75, &["another Antiphon runs"]);
    a.term();
    adopt(&place, &a, &[]).expect(0, &["nothing of HarmonyLite is left"]);

    let fresh = place.site("fresh", TABLES);
    let before = fresh.schema();
    adopt(&place, &fresh, &[]).expect(6, &["was never replicated by HarmonyLite", "antiphon run"]);
    assert_eq!(fresh.schema(), before);
    place.run(["adopt", "nothing.db"]).expect(66, &["cannot open database `nothing.db`"]);
    place.file("text.db", &"no database ".repeat(100));
    let said = place.run(["adopt", "text.db"]);
    assert_eq!(said.code, Some(65), "{}", said.stderr);
}

/// A process that ends with the test.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// While HarmonyLite runs on the file, it is its own; on another file it may.
#[test]
fn a_file_that_is_in_use_by_it_is_refused() {
    let place = place();
    let a = node(&place, "a", "", UNSENT);
    let b = node(&place, "b", "", "");
    let open = std::fs::File::open(&a.database).unwrap();
    let running = Command::new("sleep").arg0("/usr/local/bin/harmonylite").arg("600").stdin(Stdio::from(open)).spawn();
    let running = Other(running.unwrap());
    let before = a.schema();
    adopt(&place, &a, &[]).expect(75, &["HarmonyLite still runs on", &running.0.id().to_string(), "stop it"]);
    assert_eq!(a.schema(), before);
    adopt(&place, &b, &[]).expect(0, &[]);
    drop(running);
    adopt(&place, &a, &[]).expect(0, &[]);
}

/// The application writes through all of it.
#[test]
fn the_application_writes_on() {
    let place = place();
    let mut a = node(&place, "a", "", "");
    let mut b = node(&place, "b", "", "");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let conn = b.connect();
            let mut id = 100;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) || id < 200 {
                conn.execute("INSERT INTO t VALUES (?1, 'meanwhile')", [id]).unwrap();
                conn.execute("DELETE FROM t WHERE id = ?1 AND id % 3 = 0", [id]).unwrap();
                id += 1;
            }
            id - 100
        });
        eventually("it writes", || b.one("SELECT count(*) FROM t WHERE id > 100") != "0");
        let said = adopt(&place, &b, &[]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let written = writer.join().unwrap();
        said.expect(0, &[]);
        written
    });
    adopt(&place, &a, &[]).expect(0, &[]);
    a.start();
    eventually("the founder is done", || a.is_quiet());
    b.start();
    settled(&[&a, &b]);
    let kept = (100..100 + written).filter(|id| id % 3 != 0).count();
    assert_eq!(a.one("SELECT count(*) FROM t WHERE id >= 100"), kept.to_string());
    assert_ne!(ours(&a), "0");
    assert_eq!(a.stop(Signal::TERM).0, Some(0));
}
