//! What may happen to snapshots and to where they are kept, and what comes of it: nothing that is not said, nothing that is
//! applied and was never written, and replication goes on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use antiphon::components;
use antiphon::config::Config;
use antiphon::custom::Pins;
use antiphon::db::Fold;
use antiphon::failure::Failure;
use antiphon::snapshot::{Grace, Repo, Travel, Wanted};
use antiphon::storage;
use antiphon_core::snapshot::id::SnapshotId;
use antiphon_core::snapshot::manifest::Manifest;
use antiphon_core::snapshot::reach::Target;
use antiphon_core::store::{Name, Object, Part, Put, Store, StoreError, Traits};
use antiphon_harness::health::{at, is_unwell, is_well, reasons, serving};
use antiphon_harness::http::{Receiver, get};
use antiphon_harness::{Answer, Ended, Faulty, Place, Proxy, S3Server, Site, eventually, settled};
use antiphon_plugin::{HostOptions, PluginHost};
use rusqlite::Connection;

use super::alerts;
use super::observed::metric;
use super::place;
use super::snapshots::{Says as _, objects};

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";
const ALL: &str = "SELECT id || ' ' || v FROM t ORDER BY id";

fn configure(place: &Place, name: &str, more: &str) {
    place.file(&format!("{name}.toml"), &format!("db_path = \"{name}.db\"\n[log]\npath = \"log\"\n{more}"));
}

fn site(place: &Place, name: &str, more: &str) -> Site {
    configure(place, name, more);
    place.site(name, TABLE).arguments(["run", "--config", &format!("{name}.toml")])
}

fn snapshot(place: &Place, name: &str, arguments: &[&str]) -> Ended {
    place.run([&["snapshot"], arguments, &["--config", &format!("{name}.toml")]].concat())
}

fn create(place: &Place, name: &str) -> String {
    let made = snapshot(place, name, &["create", "--json"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    serde_json::from_str::<serde_json::Value>(&made.stdout).unwrap()["id"].as_str().unwrap().to_owned()
}

/// Several entries: each statement is one.
fn write(site: &Site, ids: std::ops::Range<u32>, value: &str) {
    for id in ids {
        site.sql(&format!("REPLACE INTO t VALUES ({id}, '{value}')"));
        eventually("it is sent", || site.is_quiet());
    }
}

/// The first entry of the log.
fn begins(place: &Place) -> u64 {
    let conn = Connection::open(place.path("log/log.db")).unwrap();
    conn.query_row("SELECT min(seq) FROM shard_1", [], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned()
}

fn count(path: &Path, which: &str) -> i64 {
    let conn = Connection::open(path).unwrap();
    conn.query_row(&format!("SELECT count(*) FROM t WHERE {which}"), [], |row| row.get(0)).unwrap()
}

fn of_s3(url: &str) -> String {
    format!(
        "store = 's3'\n[snapshot.s3]\nendpoint = '{url}'\nbucket = 'bucket'\naccess_key = '{}'\nsecret = '{}'\n",
        S3Server::KEY,
        S3Server::SECRET
    )
}

/// F10: where snapshots are kept can't be reached for a while: rows go from node to node as ever, nothing of the log is let
/// go of, what is wrong is said; and when it is back all of it goes on by itself.
#[test]
fn f10_a_store_that_is_away_holds_up_nothing_but_snapshots() {
    let (place, mut store) = (place(), S3Server::start());
    let often = "[replication_log]\nmax_entries = 3\n[snapshot]\ninterval = 400\nincremental_interval = 0\n\
                 incremental_threshold = 0\nleader_ttl = 1500\narchive_interval = 100\n";
    let more = format!("{often}{}", of_s3(&store.url()));
    let receiver = Receiver::new();
    let [mut a, mut b] = ["a", "b"].map(|name| {
        serving(site(&place, name, &more))
            .with("ANTIPHON_HEALTH_CHECK__LOG_GRACE", "500")
            .with("ANTIPHON_ALERTS__WEBHOOK", receiver.address("/"))
    });
    a.start();
    b.start();
    let mut id = 0;
    let mut goes_on = |a: &Site, b: &Site| {
        id += 2;
        a.sql(&format!("INSERT INTO t VALUES ({id}, 'of a')"));
        b.sql(&format!("INSERT INTO t VALUES ({}, 'of b')", id + 1));
        settled(&[a, b]);
    };
    let truncate = || place.run(["log", "truncate", "--config", "a.toml"]);
    eventually("the log is cut", || {
        goes_on(&a, &b);
        truncate();
        begins(&place) > 1
    });
    store.kill();
    let told = || ["a.db", "b.db"].map(|name| place.run(["status", name]).stdout).concat();
    eventually("it is said", || {
        goes_on(&a, &b);
        told().contains("nobody listens there")
    });
    // Whichever of them makes snapshots is not well for it; each that looks for them counts that it could not.
    let is_wrong = |site: &Site| reasons(&get(at(site, "health"), "/health").json()).contains(&"snapshots".to_owned());
    eventually("it is a reason not to be well", || is_wrong(&a) || is_wrong(&b));
    eventually("it is counted", || {
        [&a, &b].iter().any(|site| metric(site, "harmonylite_storage_errors").is_some_and(|count| count >= 1.0))
    });
    let is_alarmed = |said: &str| alerts::told(&receiver.bodies()).iter().any(|told| told == said);
    eventually("somebody is told", || is_alarmed("condition firing snapshots"));
    let then = begins(&place);
    for _ in 0..10 {
        goes_on(&a, &b);
    }
    let refused = truncate();
    assert_ne!(refused.code, Some(0), "{}", refused.stdout);
    assert!(refused.stderr.contains("hint: "), "{}", refused.stderr);
    assert_eq!(begins(&place), then, "nothing goes that no store was asked about");
    store.resume();
    eventually("the log is cut again", || {
        goes_on(&a, &b);
        truncate();
        begins(&place) > then
    });
    eventually("it is taken back", || {
        goes_on(&a, &b);
        is_alarmed("condition resolved snapshots") && !is_wrong(&a) && !is_wrong(&b)
    });
    snapshot(&place, "a", &["verify", "--level", "restore"]).says(0, &["ok: "]);
}

/// F10: no room where snapshots are kept.
#[test]
fn f10_a_store_that_is_full_holds_up_nothing_but_snapshots() {
    let full = Faulty::start(|asked| match asked.method.as_str() {
        "PUT" => Answer::of(507, "<Error><Code>XMinioStorageFull</Code><Message>no room</Message></Error>"),
        "GET" if asked.path.contains("list-type") => {
            Answer::of(200, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
        }
        _ => Answer::of(404, "<Error><Code>NoSuchKey</Code></Error>"),
    });
    let place = place();
    let more = format!("[snapshot]\ninterval = 3600000\n{}", of_s3(&full.url()));
    let (mut a, mut b) = (site(&place, "a", &more), site(&place, "b", &more));
    a.start();
    b.start();
    write(&a, 0..5, "before");
    let asking = place.command(["snapshot", "create", "--config", "a.toml"]).spawn().unwrap();
    write(&a, 5..10, "meanwhile");
    settled(&[&a, &b]);
    let refused = snapshot(&place, "a", &["create"]);
    assert_ne!(refused.code, Some(0));
    refused.says(refused.code.unwrap(), &["Unable to save snapshot", "room"]);
    assert!(!asking.wait_with_output().unwrap().status.success());
    write(&b, 10..15, "after");
    settled(&[&a, &b]);
    assert_eq!(begins(&place), 1);
}

/// Two that are made at once are two, and either counts.
#[test]
fn c70_two_snapshots_at_once_both_count() {
    let place = place();
    let (mut a, mut b) = (site(&place, "a", ""), site(&place, "b", ""));
    a.start();
    b.start();
    write(&a, 0..20, "x");
    settled(&[&a, &b]);
    let made = std::thread::scope(|scope| {
        let both = ["a", "b"].map(|name| scope.spawn(|| create(&place, name)));
        both.map(|making| making.join().unwrap())
    });
    assert_ne!(made[0], made[1]);
    for (at, id) in made.iter().enumerate() {
        snapshot(&place, "a", &["verify", id, "--level", "restore"]).says(0, &[id, "ok: "]);
        let file = format!("{at}.db");
        snapshot(&place, "b", &["restore", id, "--output", &file]).says(0, &["holds  20 rows"]);
    }
}

/// F09: a manifest that lies where another one belongs, and one that is another cluster's: neither counts, and what is older
/// does.
#[test]
fn f09_x06_a_manifest_in_the_wrong_place_does_not_count() {
    let place = place();
    let mut a = site(&place, "a", "");
    a.start();
    write(&a, 0..5, "x");
    let older = create(&place, "a");
    write(&a, 5..9, "y");
    let newer = create(&place, "a");
    let folder = std::fs::read_dir(place.path("log/snapshots")).unwrap().map(|entry| entry.unwrap().path());
    let folder = folder.filter(|path| path.is_dir()).last().unwrap();
    let manifest = |id: &str| {
        let mut all = std::fs::read_dir(folder.join("snap")).unwrap().map(|entry| entry.unwrap().path());
        all.find(|path| path.to_string_lossy().contains(id)).unwrap()
    };
    let (of_older, of_newer) = (manifest(&older), manifest(&newer));
    let whole = std::fs::read(&of_newer).unwrap();
    std::fs::copy(&of_older, &of_newer).unwrap();
    snapshot(&place, "a", &["list"]).says(0, &[&older, &format!("{newer} does not count"), "its manifest is that of"]);
    snapshot(&place, "a", &["restore", &newer, "--output", "no.db"]).says(3, &["copied or renamed"]);
    snapshot(&place, "a", &["restore", "--output", "older.db"]).says(0, &[&older, "holds  5 rows"]);
    std::fs::write(&of_newer, &whole).unwrap();
    // The same objects, under the name of another cluster.
    let other = "0".repeat(32);
    let copied = folder.with_file_name(&other);
    let done = std::process::Command::new("cp").arg("-r").args([&folder, &copied]).status().unwrap();
    assert!(done.success());
    snapshot(&place, "a", &["restore", "--cluster", &other, "--output", "no.db"]).says(3, &["copied or renamed"]);
    assert!(!place.path("no.db").exists());
    // And a node whose log is this one takes nothing from there.
    std::fs::remove_dir_all(&folder).unwrap();
    snapshot(&place, "a", &["create"]).says(0, &[]);
    let mut late = site(&place, "late", "");
    late.start();
    settled(&[&a, &late]);
}

/// A store that somebody prunes as soon as a snapshot's rows are asked for.
struct Pruned<'a> {
    inner: &'a dyn Store,
    cluster: &'a str,
    /// What is asked for then.
    of: String,
    is_done: AtomicBool,
}

impl Store for Pruned<'_> {
    fn traits(&self) -> Result<Traits, StoreError> {
        self.inner.traits()
    }

    fn check(&self) -> Result<(), StoreError> {
        self.inner.check()
    }

    fn put(&self, name: &Name, body: &[u8], put: Put) -> Result<(), StoreError> {
        self.inner.put(name, body, put)
    }

    fn get(&self, name: &Name, part: Option<Part>) -> Result<Vec<u8>, StoreError> {
        if name.as_str().contains(&self.of) && !self.is_done.swap(true, Ordering::Relaxed) {
            let at_once = Grace { forgotten_ms: 0, orphans_ms: 0, window_ms: None };
            Repo::new(self.inner, self.cluster).prune(at_once, false).unwrap();
        }
        self.inner.get(name, part)
    }

    fn stat(&self, name: &Name) -> Result<Object, StoreError> {
        self.inner.stat(name)
    }

    fn list(&self, prefix: &str, after: Option<&Name>, limit: u32) -> Result<Vec<Object>, StoreError> {
        self.inner.list(prefix, after, limit)
    }

    fn delete(&self, names: &[Name]) -> Result<(), StoreError> {
        self.inner.delete(names)
    }
}

/// What a restore reads is pruned under its hands: it goes there from an older snapshot, and what comes is the same.
#[test]
fn a_restore_finds_another_way_when_its_snapshot_is_pruned() {
    let place = place();
    let soon = "[snapshot]\narchive_interval = 100\nleader_ttl = 1500\ninterval = 3600000\n";
    let mut a = site(&place, "a", soon);
    a.start();
    write(&a, 0..5, "first");
    create(&place, "a");
    write(&a, 3..9, "second");
    let second = create(&place, "a");
    write(&a, 20..24, "third");
    let expected = a.rows(ALL);
    let end: u64 = a.one("SELECT seq FROM \"__antiphon___position\"").parse().unwrap();
    let archived = || {
        let said = snapshot(&place, "a", &["list", "--pitr", "--json"]).stdout;
        said.contains(&format!("\"to_seq\":{end}"))
    };
    eventually("all is archived", archived);
    a.term();
    let config: Config = toml::from_str(&format!(
        "db_path = {:?}\n[snapshot]\nstore = 'file'\n[snapshot.file]\npath = {:?}",
        place.path("a.db"),
        place.path("log/snapshots")
    ))
    .unwrap();
    let host = PluginHost::new(&HostOptions::default()).unwrap();
    let fold = |_: &Manifest| -> Result<Fold, Failure> {
        let parts = components::parts(&config, Pins::Required)?;
        let (changes_max, atomic_max) = (parts.changes_max, parts.atomic_max);
        Ok(Fold { filter: parts.filter, policies: parts.policies, changes_max, atomic_max })
    };
    let target = Target::Seq(BTreeMap::from([(1, end)]));
    let wanted = Wanted { target, base: None, allow_hole: false, with_state: false };
    for (turn, of) in [format!("base/{second}/index"), format!("base/{second}/image")].into_iter().enumerate() {
        // It is let go of, and those that read it have the grace; here there is none.
        if turn == 0 {
            snapshot(&place, "a", &["forget", &second]).says(0, &[]);
            let aside = place.path("kept-snapshots");
            let done = std::process::Command::new("cp").arg("-r").args([place.path("log/snapshots"), aside]).status();
            assert!(done.unwrap().success());
        } else {
            std::fs::remove_dir_all(place.path("log/snapshots")).unwrap();
            std::fs::rename(place.path("kept-snapshots"), place.path("log/snapshots")).unwrap();
        }
        // A store holds on to the folder that it was opened with.
        let opened = storage::open(&config, &host, None, Pins::Required).unwrap();
        let clusters = Repo::clusters(&opened.store).unwrap();
        let cluster = clusters.first().unwrap();
        let folder = place.path(&format!("aside-{turn}"));
        std::fs::create_dir(&folder).unwrap();
        let store = Pruned { inner: &opened.store, cluster, of, is_done: AtomicBool::new(false) };
        let arrived = Travel::new(Repo::new(&store, cluster), None, 1).go(&wanted, &folder, &fold).unwrap();
        assert!(store.is_done.load(Ordering::Relaxed));
        assert_ne!(arrived.base.id.to_string(), second);
        let conn = Connection::open(&arrived.image).unwrap();
        let mut statement = conn.prepare(ALL).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap);
        assert_eq!(rows.collect::<Vec<_>>(), expected);
    }
}

/// Who has not applied what the log has makes none by itself, says so, and makes one when it has.
#[test]
fn a_node_that_lags_puts_its_snapshots_off() {
    let place = place();
    let often = "[replication_log]\nshards = 2\n[snapshot]\ninterval = 200\nincremental_interval = 0\n\
                 incremental_threshold = 0\nleader_ttl = 1500\n";
    let (mut a, mut b) = (site(&place, "a", &format!("{often}lag_max = 1\n")), site(&place, "b", often));
    // The first to run leads.
    a.start();
    write(&a, 0..5, "x");
    eventually("it leads", || a.said().contains("Snapshot saved"));
    b.start();
    settled(&[&a, &b]);
    b.sql("CREATE TABLE late (id INTEGER PRIMARY KEY, v); INSERT INTO late VALUES (1, 'x')");
    let mut id = 100;
    let mut said = String::new();
    eventually("it is put off", || {
        id += 1;
        // What comes in the other shard makes one due.
        b.sql(&format!("INSERT INTO t VALUES ({id}, 'y')"));
        said = place.run(["status", "a.db"]).stdout;
        said.contains("snapshot put off") && said.contains("still to be applied here")
    });
    let saved = |site: &Site| site.said().matches("Snapshot saved").count();
    let then = saved(&a);
    a.sql("CREATE TABLE late (id INTEGER PRIMARY KEY, v)");
    settled(&[&a, &b]);
    eventually("one is made", || {
        id += 1;
        b.sql(&format!("INSERT INTO t VALUES ({id}, 'z')"));
        saved(&a) > then
    });
}

/// A node that was silent for so long that nobody waits for it any more comes back: what it had not read is gone from the
/// log, a snapshot leads it on, and what it wrote meanwhile is sent, once.
#[test]
fn c64_a_node_comes_back_after_it_was_given_up() {
    const EXPIRY: Duration = Duration::from_secs(10);
    let place = place();
    let more = format!(
        "[replication_log]\nmax_entries = 2\nnode_expiry = {}\n[snapshot]\ninterval = 0\nleader_ttl = 1500\n\
         archive_interval = 100\n",
        EXPIRY.as_millis()
    );
    let (mut a, mut b) = (site(&place, "a", &more), site(&place, "b", &more));
    a.start();
    b.start();
    write(&a, 0..10, "first");
    settled(&[&a, &b]);
    let left = Instant::now();
    b.term();
    let stood: u64 = b.one("SELECT seq FROM \"__antiphon___position\"").parse().unwrap();
    b.sql("INSERT INTO t VALUES (500, 'while away'); UPDATE t SET v = 'while away' WHERE id = 3; DELETE FROM t WHERE id = 4");
    for turn in 0..3 {
        write(&a, 5..15, &format!("turn {turn}"));
        create(&place, "a");
    }
    let truncate = || place.run(["log", "truncate", "--config", "a.toml"]);
    truncate();
    let begins_now = begins(&place);
    // A machine that is this slow has given it up by now.
    assert!(begins_now <= stood + 1 || left.elapsed() >= EXPIRY, "it is waited for");
    eventually("it is given up", || {
        truncate();
        begins(&place) > stood + 1
    });
    b.start();
    assert!(b.said().contains("went on from a snapshot"), "{}", b.said());
    settled(&[&a, &b]);
    assert_eq!(a.one("SELECT group_concat(id) FROM t WHERE v = 'while away'"), "3,500");
    assert_eq!(a.one("SELECT count(*) FROM t WHERE id = 4"), "0");
    assert_eq!(a.one("SELECT count(*) FROM t WHERE v = 'turn 2'"), "10");
}

/// Somebody holds the write lock for longer than a restore waits: nothing has changed then, and that is said.
#[test]
fn a_restore_gives_up_behind_a_lock_and_changes_nothing() {
    let place = place();
    let mut a = site(&place, "a", "");
    a.start();
    write(&a, 0..5, "then");
    let id = create(&place, "a");
    write(&a, 3..9, "now");
    a.term();
    let before = a.dump();
    let holder = a.connect();
    holder.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (100, 'not committed')").unwrap();
    let refused = snapshot(&place, "a", &["restore", &id, "--as-changes"]);
    refused.says(6, &["does not go back; nothing has changed", "locked"]);
    holder.execute_batch("ROLLBACK").unwrap();
    assert_eq!(a.dump(), before);
    assert_eq!(count(&place.path("a.db"), "v = 'now'"), 6);
    snapshot(&place, "a", &["restore", &id, "--as-changes"]).says(0, &[]);
    assert_eq!(count(&place.path("a.db"), "v = 'now'"), 0);
    a.start();
    eventually("it is sent", || a.is_quiet());
}

/// What is on its way when a snapshot is begun is waited for, and is in it; where the log takes nothing for a minute, there is
/// none, and it is said why.
#[test]
fn c61_a_snapshot_waits_for_what_is_on_its_way() {
    let place = place();
    let mut a = site(&place, "a", "[snapshot]\ninterval = 3600000\nleader_ttl = 3600000\n");
    a.start();
    write(&a, 0..3, "before");
    let log = Connection::open(place.path("log/log.db")).unwrap();
    let held = |work: &mut dyn FnMut()| {
        log.busy_timeout(Duration::from_secs(10)).unwrap();
        log.execute_batch("BEGIN IMMEDIATE").unwrap();
        work();
        log.execute_batch("ROLLBACK").unwrap();
    };
    let ask = || {
        let mut asking = place.command(["snapshot", "create", "--config", "a.toml"]);
        asking.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut asked = None;
    held(&mut || {
        a.sql("INSERT INTO t VALUES (100, 'on its way')");
        let mut asking = ask();
        let copied = || {
            let entries = std::fs::read_dir(a.state()).unwrap().map(|entry| entry.unwrap().path());
            entries.filter(|path| path.join("copy.db").exists()).count() > 0
        };
        eventually("the file is copied", copied);
        std::thread::sleep(Duration::from_secs(2));
        assert!(asking.try_wait().unwrap().is_none(), "it waits");
        asked = Some(asking);
    });
    let ended = asked.unwrap().wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    snapshot(&place, "a", &["restore", "--output", "with.db"]).says(0, &["holds  4 rows"]);
    if !super::snapshots::full() {
        return;
    }
    held(&mut || {
        a.sql("INSERT INTO t VALUES (101, 'on its way')");
        let ended = ask().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success() && said.contains("not in the log yet, after 60 s"), "{said}");
    });
    eventually("it is sent", || a.is_quiet());
    create(&place, "a");
    snapshot(&place, "a", &["restore", "--output", "later.db"]).says(0, &["holds  5 rows"]);
}

/// F10: a store that is so slow that a snapshot takes a long while: whoever writes waits for nothing of it, rows go from node
/// to node meanwhile, and it is a snapshot in the end.
#[test]
fn f10_a_store_that_is_slow_holds_up_nothing_but_snapshots() {
    let (place, store) = (place(), S3Server::start());
    let slow = Proxy::to(store.port());
    let more = format!("[snapshot]\ninterval = 0\n{}", of_s3(&slow.url().replace("nats://", "http://")));
    let (mut a, mut b) = (site(&place, "a", &more), site(&place, "b", &more));
    a.start();
    b.start();
    a.sql("WITH RECURSIVE k(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM k WHERE n < 300) INSERT INTO t SELECT n, hex(randomblob(2000)) FROM k");
    settled(&[&a, &b]);
    slow.throttle(Some(200_000));
    let mut made = None;
    std::thread::scope(|scope| {
        let making = scope.spawn(|| snapshot(&place, "a", &["create", "--json"]));
        let mut written = 0;
        while !making.is_finished() {
            written += 1;
            a.sql(&format!("INSERT INTO t VALUES ({}, 'meanwhile')", 1_000 + written));
            settled(&[&a, &b]);
        }
        assert!(written >= 10, "only {written} rows went their way while it was made");
        made = Some(making.join().unwrap());
    });
    made.unwrap().says(0, &["\"id\""]);
    slow.throttle(None);
    snapshot(&place, "a", &["verify", "--level", "restore"]).says(0, &["ok: "]);
}

/// A snapshot of other tables than a node takes is of no use to it: it says so, and touches nothing.
#[test]
fn a_snapshot_of_other_tables_is_no_use() {
    let place = place();
    let some = "[capture]\nexclude = ['private_*']\n[snapshot]\ninterval = 0\n";
    let mut a = site(&place, "a", some);
    a.start();
    write(&a, 0..5, "first");
    create(&place, "a");
    write(&a, 5..10, "second");
    a.term();
    let log = Connection::open(place.path("log/log.db")).unwrap();
    log.execute("DELETE FROM shard_1 WHERE seq < (SELECT max(seq) FROM shard_1) - 6", []).unwrap();
    drop(log);
    let mut b = site(&place, "b", "[snapshot]\ninterval = 0\n");
    b.refused().expect(66, &["no snapshot leads up to it", "and the same tables: "]);
    assert_eq!(b.rows("SELECT count(*) FROM t"), ["0"]);
    let mut c = site(&place, "c", some);
    c.start();
    eventually("all rows come", || c.one("SELECT count(*) FROM t") == "10");
}

/// What an upload left that nobody finished is kept for two days, for somebody may be at it still; then a prune takes it.
#[test]
fn what_an_upload_left_goes_after_two_days() {
    let place = place();
    let mut a = site(&place, "a", "[snapshot]\ninterval = 0\n");
    a.start();
    write(&a, 0..5, "first");
    create(&place, "a");
    // A node prunes by itself, too.
    a.term();
    let cluster = std::fs::read_dir(place.path("log/snapshots")).unwrap().map(|entry| entry.unwrap().path());
    let base = cluster.into_iter().find(|path| path.is_dir()).unwrap().join("base");
    let whole = std::fs::read_dir(&base).unwrap().next().unwrap().unwrap().path();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let hour = 3_600_000;
    let left = [47, 49].map(|hours| base.join(SnapshotId::new(now - hours * hour, 7).to_string()));
    for left in &left {
        std::fs::create_dir(left).unwrap();
        std::fs::copy(whole.join("image-000000.frm"), left.join("image-000000.frm")).unwrap();
    }
    snapshot(&place, "a", &["prune", "--dry-run"]).says(0, &[]);
    assert!(left.iter().all(|left| left.exists()), "that was only asked");
    snapshot(&place, "a", &["prune"]).says(0, &[]);
    assert!(left[0].join("image-000000.frm").exists() && !left[1].join("image-000000.frm").exists());
    snapshot(&place, "a", &["verify", "--all", "--level", "restore"]).says(0, &["ok: "]);
}

/// Whoever verifies a snapshot says how it was found, and a damaged one is told until it is gone. The log is not cut for its
/// sake.
#[test]
fn f09_a_damaged_snapshot_is_told_until_it_goes() {
    let place = place();
    let mut a = serving(site(
        &place,
        "a",
        "[replication_log]\nmax_entries = 2\n[snapshot]\ninterval = 0\nleader_ttl = 1500\narchive_interval = 100\n",
    ));
    a.start();
    write(&a, 1..20, "as it was");
    // It makes the first one by itself.
    let listed = || {
        let line = snapshot(&place, "a", &["list", "--json"]).stdout;
        serde_json::from_str::<serde_json::Value>(&line).ok()?["id"].as_str().map(str::to_owned)
    };
    eventually("there is one", || listed().is_some());
    let id = listed().unwrap();
    is_well(&a);
    let is_image = |path: &PathBuf| path.to_string_lossy().contains(&format!("{id}/image-"));
    let image = objects(&place.path("log/snapshots")).into_iter().find(is_image).unwrap();
    let whole = std::fs::read(&image).unwrap();
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&image, damaged).unwrap();
    let verify = || snapshot(&place, "a", &["verify", &id]);
    verify().says(3, &["BAD"]);
    assert!(snapshot(&place, "a", &["list"]).stdout.trim_end().ends_with("damaged"));

    // The node looks at its store when it has made one. Two that are whole would do for the log to be cut.
    let first = begins(&place);
    write(&a, 20..40, "later");
    create(&place, "a");
    let what = is_unwell(&a, "snapshot-damaged");
    assert!(what.contains(&id), "{what}");
    let damaged = |number: u32| {
        let metrics = get(at(&a, "metrics"), "/metrics").body;
        let of = |line: &&str| line.starts_with("harmonylite_snapshots_damaged{");
        metrics.lines().find(of).unwrap().ends_with(&format!(" {number}"))
    };
    assert!(damaged(1));
    snapshot(&place, "a", &["list"]).says(0, &["damaged"]);
    let truncate = || place.run(["log", "truncate", "--config", "a.toml"]).says(0, &[]);
    truncate();
    assert_eq!(begins(&place), first, "there are not two snapshots to go on from");
    snapshot(&place, "a", &["forget", &id]).says(0, &[]);
    create(&place, "a");
    is_well(&a);
    eventually("nobody says that one is damaged", || damaged(0));
    eventually("the log is cut: there are two", || {
        truncate();
        begins(&place) > first
    });

    // What was found whole since is no longer damaged.
    std::fs::write(&image, whole).unwrap();
    verify().says(0, &[]);
    let listed = snapshot(&place, "a", &["list"]);
    assert!(!listed.stdout.contains("damaged"), "{}", listed.stdout);
}
