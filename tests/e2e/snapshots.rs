//! Snapshots of a node that runs, made, looked at, damaged and brought back by the program itself.

use std::path::{Path, PathBuf};

use antiphon_harness::{DavServer, Ended, Place, S3Server, Site, eventually};
use rusqlite::Connection;

use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE keyless (v);";

fn configure(place: &Place, name: &str, more: &str) {
    let text = format!("db_path = \"{name}.db\"\n[log]\npath = \"log\"\n{more}");
    place.file(&format!("{name}.toml"), &text);
}

fn site(place: &Place, name: &str, more: &str) -> Site {
    configure(place, name, more);
    place.site(name, TABLE).arguments(["run", "--config", &format!("{name}.toml")])
}

/// Rows of these keys.
fn fill(site: &Site, keys: std::ops::Range<u32>, value: &str) {
    let (first, end) = (keys.start, keys.end);
    site.sql(&format!(
        "WITH RECURSIVE k(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM k WHERE n + 1 < {end})
         INSERT INTO t SELECT n, {value} FROM k"
    ));
}

/// What a command says, be it data or talk.
pub(super) trait Says {
    fn says(&self, code: i32, words: &[&str]);
}

impl Says for Ended {
    #[track_caller]
    fn says(&self, code: i32, words: &[&str]) {
        let said = format!("{}{}", self.stdout, self.stderr);
        assert_eq!(self.code, Some(code), "{said}");
        for word in words {
            assert!(said.contains(word), "`{word}` is not in:\n{said}");
        }
    }
}

/// `antiphon snapshot …` by the configuration of `name`.
fn snapshot(place: &Place, name: &str, arguments: &[&str]) -> Ended {
    let config = format!("{name}.toml");
    place.run([&["snapshot"], arguments, &["--config", &config]].concat())
}

fn create(place: &Place, name: &str) -> String {
    let made = snapshot(place, name, &["create", "--json"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let made: serde_json::Value = serde_json::from_str(&made.stdout).unwrap();
    made["id"].as_str().unwrap().to_owned()
}

fn rows(path: &Path, sql: &str) -> Vec<String> {
    let conn = Connection::open(path).unwrap();
    let mut statement = conn.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

const ALL: &str = "SELECT id || ' ' || v FROM t ORDER BY id";

/// Waits until both have the same rows, and everything is sent.
#[track_caller]
fn same(a: &Site, b: &Site) {
    eventually("both have the same", || a.is_quiet() && b.is_quiet() && a.rows(ALL) == b.rows(ALL));
}

/// All objects of the snapshots in a folder.
pub(super) fn objects(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(objects(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// A snapshot holds what the log says, whoever made it; what came later is not in it, and tables of one node alone are.
#[test]
fn a_database_comes_back_from_a_snapshot() {
    let place = place();
    let (mut a, mut b) = (site(&place, "a", ""), site(&place, "b", ""));
    a.start();
    b.start();
    fill(&a, 1..501, "'a' || n");
    a.sql("INSERT INTO keyless VALUES ('mine')");
    fill(&b, 501..901, "'b' || n");
    same(&a, &b);
    let first = create(&place, "a");
    let then = a.rows(ALL);
    b.sql("DELETE FROM t WHERE id % 2 = 0; UPDATE t SET v = 'new' WHERE id < 100");
    same(&a, &b);
    let second = create(&place, "b");
    assert!(first < second, "later ones sort later");

    let listed = snapshot(&place, "a", &["list", "--json"]);
    let ids: Vec<String> = listed
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids, [second.clone(), first.clone()]);
    snapshot(&place, "a", &["list"]).says(0, &[&first, &second, " rows"]);
    snapshot(&place, "a", &["show", &first]).says(0, &["900 rows in `t`", "`keyless` is of that node alone"]);
    for level in ["quick", "hash", "restore"] {
        snapshot(&place, "a", &["verify", "--all", "--level", level]).says(0, &[&first, &second, "ok: "]);
    }

    snapshot(&place, "a", &["restore", &first, "--output", "one.db", "--dry-run"]).says(0, &["`one.db` would be"]);
    assert!(!place.path("one.db").exists());
    snapshot(&place, "a", &["restore", &first, "--output", "one.db"]).says(0, &["holds  900 rows"]);
    snapshot(&place, "b", &["restore", "--output", "two.db"]).says(0, &["holds  450 rows"]);
    assert_eq!(rows(&place.path("one.db"), ALL), then);
    assert_eq!(rows(&place.path("two.db"), ALL), a.rows(ALL));
    assert_eq!(rows(&place.path("one.db"), "SELECT v FROM keyless"), ["mine"]);
    let ours = "SELECT name FROM sqlite_schema WHERE name LIKE '\\_\\_antiphon%' ESCAPE '\\'";
    assert_eq!(rows(&place.path("one.db"), ours), [""; 0], "nothing of the host's is left in it");
    // Nothing is overwritten, and nothing is left behind.
    snapshot(&place, "a", &["restore", "--output", "one.db"]).says(1, &["`one.db` is there already"]);
    let left =
        std::fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.starts_with(".antiphon")).count(), 0);
    for site in [&a, &b] {
        let left = std::fs::read_dir(site.state()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(left.filter(|name| name.to_string_lossy().starts_with("scratch-")).count(), 0);
    }
}

/// Stops who writes, also when the test fails.
struct Stop<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Whoever writes goes on writing, and no snapshot holds a part of a transaction.
#[test]
fn snapshots_are_made_while_the_application_writes() {
    let place = place();
    let mut a = site(&place, "a", "");
    a.start();
    a.sql("INSERT INTO t VALUES (1, 0), (2, 0)");
    let path = place.path("a.db");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        let writer = scope.spawn(|| {
            let conn = Connection::open(&path).unwrap();
            conn.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
            let mut written = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                written += 1;
                conn.execute_batch("BEGIN IMMEDIATE; UPDATE t SET v = v + 1; COMMIT").unwrap();
            }
            written
        });
        for turn in 0..5 {
            let id = create(&place, "a");
            let output = format!("{turn}.db");
            snapshot(&place, "a", &["restore", &id, "--output", &output]).says(0, &["holds  2 rows"]);
            let both = rows(&place.path(&output), "SELECT CAST(v AS TEXT) FROM t ORDER BY id");
            assert_eq!(both[0], both[1], "of a transaction a part is in it");
        }
        drop(stopping);
        writer.join().unwrap()
    });
    assert_eq!(a.one("SELECT CAST(v AS TEXT) FROM t WHERE id = 1"), written.to_string());
}

/// Whether everything is tried, and not a sample.
pub(super) fn full() -> bool {
    std::env::var_os("FULL").is_some()
}

/// Damage anywhere is found: such a snapshot is never restored, and the one before it is what is left.
#[test]
fn c68_a_damaged_snapshot_is_never_used() {
    let place = place();
    let mut a = site(&place, "a", "");
    a.start();
    fill(&a, 1..3001, "'a' || n");
    eventually("it is sent", || a.is_quiet());
    let older = create(&place, "a");
    a.sql("INSERT INTO t VALUES (5000, 'more')");
    eventually("it is sent", || a.is_quiet());
    let newer = create(&place, "a");
    let folder = place.path("log/snapshots");
    // What was said of it later is no part of it.
    let is_part = |path: &PathBuf| {
        let path = path.to_string_lossy();
        path.contains(&newer) && !path.contains("/verify/")
    };
    let of_newer: Vec<PathBuf> = objects(&folder).into_iter().filter(is_part).collect();
    assert_eq!(of_newer.len(), 4, "{of_newer:?}");
    for (turn, path) in of_newer.iter().enumerate() {
        let whole = std::fs::read(path).unwrap();
        let step = (whole.len() / 7).max(1);
        let step = if full() { step.min(1_000) } else { step };
        for at in (0..whole.len()).step_by(step) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            std::fs::write(path, &damaged).unwrap();
            let output = format!("{turn}-{at}.db");
            // What goes with the rows is of use to nodes only; a file of rows is made without it.
            if !path.to_string_lossy().contains("/state-") {
                let said = snapshot(&place, "a", &["restore", &newer, "--output", &output]);
                assert_eq!(said.code, Some(3), "{}: {}", path.display(), said.stderr);
                assert!(said.stderr.contains("failed to download snapshot"), "{}", said.stderr);
                assert!(said.stderr.contains("hint: "), "{}", said.stderr);
                assert!(!place.path(&output).exists());
                // Where none was named, the one before it is taken.
                snapshot(&place, "a", &["restore", "--output", &output]).says(0, &[&older]);
                assert_eq!(rows(&place.path(&output), "SELECT CAST(count(*) AS TEXT) FROM t WHERE id = 5000"), ["0"]);
            }
            let verified = snapshot(&place, "a", &["verify", &newer]);
            assert_eq!(verified.code, Some(3), "{}", verified.stdout);
            assert!(verified.stdout.contains("BAD: "), "{}", verified.stdout);
        }
        std::fs::remove_file(path).unwrap();
        assert_ne!(snapshot(&place, "a", &["verify", &newer]).code, Some(0), "{}", path.display());
        if !path.to_string_lossy().contains("/state-") {
            let said = snapshot(&place, "a", &["restore", &newer, "--output", "gone.db"]);
            assert_ne!(said.code, Some(0), "{}", path.display());
            assert!(!place.path("gone.db").exists());
        }
        std::fs::write(path, &whole).unwrap();
    }
    snapshot(&place, "a", &["verify", &newer]).says(0, &["ok: "]);
    // An index can be made anew, for the manifest knows it; objects can't.
    let repair = || place.run(["repo", "check", "--repair-index", "--config", "a.toml"]);
    let part = |name: &str| of_newer.iter().find(|path| path.to_string_lossy().contains(name)).unwrap();
    let index = std::fs::read(part("/index-")).unwrap();
    std::fs::write(part("/index-"), &index[1..]).unwrap();
    repair().says(0, &[&format!("{newer}  its index was made anew"), "2 of 2 snapshots whole"]);
    assert_eq!(std::fs::read(part("/index-")).unwrap(), index);
    std::fs::remove_file(part("/index-")).unwrap();
    repair().says(0, &["its index was made anew"]);
    assert!(!repair().stdout.contains("anew"));
    let image = std::fs::read(part("/image-")).unwrap();
    std::fs::remove_file(part("/index-")).unwrap();
    std::fs::write(part("/image-"), &image[..image.len() - 1]).unwrap();
    assert_ne!(repair().code, Some(0));
    assert!(!part("/index-").exists());
    std::fs::write(part("/image-"), &image).unwrap();
    repair().says(0, &["its index was made anew"]);
    snapshot(&place, "a", &["restore", &newer, "--output", "repaired.db"]).says(0, &[&newer]);
    // Of a snapshot without a whole manifest nobody speaks any more.
    let manifest = of_newer.iter().find(|path| path.to_string_lossy().contains("/snap/")).unwrap();
    let whole = std::fs::read(manifest).unwrap();
    std::fs::write(manifest, &whole[..whole.len() - 10]).unwrap();
    snapshot(&place, "a", &["restore", "--output", "older.db"]).says(0, &[&older]);
    snapshot(&place, "a", &["list"]).says(0, &[&format!("{newer} does not count: "), "it is not a manifest"]);
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    std::fs::write(manifest, damaged).unwrap();
    snapshot(&place, "a", &["list"]).says(0, &[&format!("{newer} does not count: "), "snapshot checksum mismatch"]);
}

/// A node that dies while it makes one leaves nothing that counts, and its next start removes what lies in its folder.
#[test]
fn a_node_that_dies_while_it_makes_a_snapshot_leaves_none() {
    let place = place();
    let mut a = site(&place, "a", "[snapshot]\nbandwidth = \"200 KiB\"\n");
    a.start();
    fill(&a, 1..3001, "hex(randomblob(200))");
    eventually("it is sent", || a.is_quiet());
    let mut asking = place.command(["snapshot", "create", "--config", "a.toml"]).spawn().unwrap();
    eventually("a part is stored", || {
        place.path("log/snapshots").exists() && !objects(&place.path("log/snapshots")).is_empty()
    });
    a.kill9();
    assert!(!asking.wait().unwrap().success());
    snapshot(&place, "a", &["list"]).says(66, &["there is no snapshot at"]);
    configure(&place, "a", "");
    a.start();
    let left = std::fs::read_dir(a.state()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.filter(|name| name.to_string_lossy().starts_with("scratch-")).count(), 0);
    let id = create(&place, "a");
    snapshot(&place, "a", &["verify", "--level", "restore"]).says(0, &[&id, "ok: "]);
}

/// A node that is to stop does not wait for a snapshot to end.
#[test]
fn a_stop_does_not_wait_for_a_snapshot() {
    let place = place();
    let mut a = site(&place, "a", "[snapshot]\nbandwidth = \"10 KiB\"\n");
    a.start();
    fill(&a, 1..3001, "hex(randomblob(200))");
    eventually("it is sent", || a.is_quiet());
    let mut asking = place.command(["snapshot", "create", "--config", "a.toml"]).spawn().unwrap();
    eventually("it is under way", || {
        std::fs::read_dir(a.state())
            .unwrap()
            .any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("scratch-"))
    });
    let (code, took) = a.stop(rustix::process::Signal::TERM);
    assert_eq!(code, Some(0));
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
    assert!(!asking.wait().unwrap().success());
}

/// What somebody sees at a terminal who runs this there.
fn at_a_terminal(place: &Place, arguments: &[&str]) -> String {
    let program = place.command(arguments);
    let words: Vec<_> = std::iter::once(program.get_program()).chain(program.get_args()).collect();
    let line: Vec<&str> = words.iter().map(|word| word.to_str().unwrap()).collect();
    let mut terminal = std::process::Command::new("script");
    terminal.args(["-qec", &line.join(" "), "/dev/null"]).current_dir(program.get_current_dir().unwrap());
    terminal.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm");
    let shown = terminal.output().unwrap();
    let said = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success(), "{said}");
    said
}

/// Who waits at a terminal sees how much has come. Who reads what is said sees nothing of that.
#[test]
fn a_terminal_is_shown_how_far_a_restore_is() {
    let place = place();
    let mut a = site(&place, "a", "");
    a.start();
    fill(&a, 1..3001, "hex(randomblob(200))");
    eventually("it is sent", || a.is_quiet());
    create(&place, "a");
    // As slow as a storage far away.
    configure(&place, "a", "[snapshot]\nbandwidth = \"400 KiB\"\n");
    let said = at_a_terminal(&place, &["snapshot", "restore", "--output", "seen.db", "--config", "a.toml"]);
    assert!(said.contains("fetching") && said.contains("B/s"), "{said}");
    let said = at_a_terminal(&place, &["snapshot", "verify", "--level", "hash", "--config", "a.toml"]);
    assert!(said.contains("reading"), "{said}");
    let plain = snapshot(&place, "a", &["restore", "--output", "plain.db"]);
    assert!(plain.code == Some(0) && !plain.stderr.contains("fetching"), "{}", plain.stderr);
}

/// A running node takes up another storage, and stays with the one it has if the other can't be opened.
#[test]
fn a_storage_is_reloaded_while_a_node_runs() {
    let place = place();
    let at = |folder: &str| format!("[snapshot]\nstore = \"file\"\n[snapshot.file]\npath = \"{folder}\"\n");
    let mut a = site(&place, "a", &at("one"));
    a.start();
    a.sql("INSERT INTO t VALUES (1, 'x')");
    create(&place, "a");
    let reload = || place.run(["plugin", "reload", "--config", "a.toml"]);
    assert_eq!(reload().stdout, "nothing of the plugins has changed\n");
    configure(&place, "a", &at("two"));
    assert_eq!(reload().stdout, "`[snapshot]` is another\n");
    let second = create(&place, "a");
    // The log is archived there as well, sooner or later.
    let is_archive = |path: &&PathBuf| {
        path.extension().is_some_and(|ending| ending == "seg") || path.to_string_lossy().contains("/term/")
    };
    let count = |folder: &str| objects(&place.path(folder)).iter().filter(|path| !is_archive(path)).count();
    assert_eq!(count("one"), 5);
    assert!(objects(&place.path("two")).iter().any(|path| path.to_string_lossy().contains(&second)));
    // Refused, with nothing changed.
    configure(&place, "a", "[snapshot]\nstore = \"tape\"\n");
    reload().says(64, &["`snapshot.store` must be one of", "found `tape`"]);
    configure(&place, "a", "[snapshot]\nstore = \"sftp\"\n");
    reload().says(64, &["`snapshot.sftp.url` is not set"]);
    configure(&place, "a", "[snapshot]\nenabled = false\n");
    reload().says(64, &["`snapshot.enabled` is another", "at a start"]);
    configure(&place, "a", &at("two"));
    assert_eq!(reload().stdout, "nothing of the plugins has changed\n");
    create(&place, "a");
    assert_eq!(count("two"), 10);
}

/// What stands in the way is said, with what to do.
#[test]
fn what_keeps_a_snapshot_from_being_made_is_said() {
    let place = place();
    let mut a = site(&place, "a", "");
    snapshot(&place, "a", &["create"]).says(1, &["Unable to save snapshot", "no node runs beside", "antiphon run"]);
    snapshot(&place, "a", &["list"]).says(66, &["there is no snapshot at", "`antiphon snapshot create`"]);
    snapshot(&place, "a", &["show", "nonsense"]).says(2, &["`nonsense` is not a snapshot"]);
    configure(&place, "a", "[snapshot]\nenabled = false\n");
    snapshot(&place, "a", &["create"]).says(64, &["`snapshot.enabled` is off"]);
    a.start();
    configure(&place, "a", "");
    snapshot(&place, "a", &["create"]).says(64, &["was started with `snapshot.enabled` off", "start the node again"]);
    a.sql("INSERT INTO t VALUES (1, 'x')");
    eventually("it is sent", || a.is_quiet());
    place.file("b.toml", "db_path = \"b.db\"\npublish = false\n[log]\npath = \"log\"\n");
    let mut b = place.site("b", TABLE).arguments(["run", "--config", "b.toml"]);
    b.start();
    snapshot(&place, "b", &["create"]).says(75, &["`publish` is off"]);
}

/// What puts one off is said where people look, and one that is due by size is made.
#[test]
fn a_snapshot_is_due_by_size_and_put_off_where_room_is_scarce() {
    let place = place();
    let due = "[snapshot]\nleader_ttl = 1500\nincremental_interval = 200\ngrowth_threshold = \"64 KiB\"\n";
    let mut a = site(&place, "a", &format!("{due}scratch_max = \"1 KiB\"\n"));
    a.start();
    fill(&a, 1..3, "'a'");
    eventually("it is said", || {
        let said = place.run(["status", "a.db"]).stdout;
        said.contains("a snapshot needs") && said.contains("and may have 1024")
    });
    a.term();
    configure(&place, "a", due);
    a.start();
    eventually("the first is made", || a.said().contains("there is none yet"));
    assert!(!place.run(["status", "a.db"]).stdout.contains("a snapshot needs"));
    fill(&a, 10..1000, "hex(randomblob(100))");
    eventually("it grew", || a.said().contains("the database has grown enough"));
    let by_place = |arguments: &[&str]| {
        let listed = snapshot(&place, "a", &[&["list"], arguments].concat());
        assert_eq!(listed.code, Some(0), "{}", listed.stderr);
        listed.stdout.lines().count()
    };
    a.term();
    assert!(by_place(&[]) > 1);
    assert_eq!(by_place(&["--from-seq", "1"]), by_place(&[]));
    assert_eq!((by_place(&["--to-seq", "0"]), by_place(&["--from-seq", "1:99999"])), (0, 0));
}

/// What is forgotten stays for a while, and goes then; what is pinned stays, and so does the last one.
#[test]
fn snapshots_are_forgotten_and_pruned() {
    let place = place();
    let mut a = site(&place, "a", "");
    a.start();
    let ids: Vec<String> = (0..5)
        .map(|n| {
            a.sql(&format!("INSERT INTO t VALUES ({n}, 'x')"));
            create(&place, "a")
        })
        .collect();
    let listed = || {
        let listed = snapshot(&place, "a", &["list", "--json"]).stdout;
        let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let said = |line: serde_json::Value| {
            (line["id"].as_str().unwrap().to_owned(), line["marks"]["forgotten_ms"].is_number())
        };
        listed.lines().map(line).map(said).collect::<Vec<_>>()
    };
    snapshot(&place, "a", &["pin", &ids[0]]).says(0, &[]);
    snapshot(&place, "a", &["tag", &ids[1], "release"]).says(0, &[]);
    snapshot(&place, "a", &["list", "--tag", "release"]).says(0, &[&ids[1], "#release"]);
    snapshot(&place, "a", &["forget"]).says(2, &["it is not said which"]);
    snapshot(&place, "a", &["forget", &ids[0]]).says(1, &["is pinned", "unpin"]);
    snapshot(&place, "a", &["forget", "--before", "0s"]).says(1, &["nothing was forgotten"]);
    let keeping = ["forget", "--keep-last", "1", "--keep-tag", "release"];
    snapshot(&place, "a", &[&keeping[..], &["--dry-run"]].concat())
        .says(0, &["stays: one of the newest", "stays: tagged `release`", "stays: pinned", "goes"]);
    assert!(listed().iter().all(|(_, forgotten)| !forgotten));
    snapshot(&place, "a", &keeping).says(0, &["goes"]);
    let forgotten: Vec<String> = listed().into_iter().filter(|(_, gone)| *gone).map(|(id, _)| id).collect();
    assert_eq!(forgotten, [ids[3].clone(), ids[2].clone()]);
    // Whoever reads one may go on.
    snapshot(&place, "a", &["prune"]).says(0, &["removed: 0 snapshots"]);
    snapshot(&place, "a", &["verify", &ids[2]]).says(0, &["ok: "]);
    snapshot(&place, "a", &["prune", "--grace", "0s", "--dry-run"]).says(0, &["would be removed: 2 snapshots"]);
    snapshot(&place, "a", &["prune", "--grace", "0s"]).says(0, &["removed: 2 snapshots"]);
    let left: Vec<String> = listed().into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, [ids[4].clone(), ids[1].clone(), ids[0].clone()]);
    let folder = place.path("log/snapshots");
    let of_gone = |path: &PathBuf| ids[2..4].iter().any(|id| path.to_string_lossy().contains(id));
    assert_eq!(objects(&folder).into_iter().filter(of_gone).count(), 0);
    snapshot(&place, "a", &["verify", "--all", "--level", "restore"]).says(0, &["ok: "]);
    // Where the newest is damaged, nothing more goes.
    snapshot(&place, "a", &["forget", &ids[1]]).says(0, &["goes"]);
    let manifest = objects(&folder)
        .into_iter()
        .find(|path| path.to_string_lossy().contains("/snap/") && path.to_string_lossy().contains(&ids[4]))
        .unwrap();
    std::fs::write(&manifest, "x").unwrap();
    snapshot(&place, "a", &["prune", "--grace", "0s"]).says(65, &["nothing was pruned", "snapshot create"]);
}

/// Nodes make snapshots by themselves, one of them at a time, and keep as many as they are told to.
#[test]
fn snapshots_are_made_by_one_node_when_they_are_due() {
    let place = place();
    // One that stands still for so long on a busy machine is no leader any more.
    let often = "[snapshot]\ninterval = 300\nleader_ttl = 6000\nretention_count = 2\nprune_grace = 1000\n[snapshot.keep]\nverified = 0\n";
    let (mut a, mut b) = (site(&place, "a", often), site(&place, "b", often));
    a.start();
    b.start();
    let saved = |site: &Site| site.said().matches("Snapshot saved").count();
    let mut n = 0;
    let mut write = |site: &Site| {
        n += 1;
        site.sql(&format!("INSERT INTO t VALUES ({n}, 'x')"));
    };
    eventually("one makes some", || {
        write(&a);
        saved(&a).max(saved(&b)) >= 4
    });
    assert!(saved(&a) == 0 || saved(&b) == 0, "{} and {}", saved(&a), saved(&b));
    let (first, second) = if saved(&a) > 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
    first.kill9();
    eventually("the other takes over", || {
        write(second);
        saved(second) >= 4
    });
    eventually("few are left", || {
        write(second);
        snapshot(&place, "a", &["list"]).stdout.lines().filter(|line| !line.ends_with("forgotten")).count() <= 3
    });
    eventually("what was forgotten goes", || {
        write(second);
        second.said().contains("old snapshots sorted out")
            && snapshot(&place, "a", &["list"]).stdout.lines().count() < 9
    });
    snapshot(&place, "a", &["verify", "--level", "restore"]).says(0, &["ok: "]);
}

/// Snapshots of some age are put again with another class of storage, where they are: they come back as ever, the newest
/// stays as it is, and what was noted of it goes with them.
#[test]
fn old_snapshots_get_another_class_of_storage() {
    let s3 = S3Server::start();
    let place = place();
    let store = |more: &str| {
        format!(
            "[snapshot]\nstore = \"s3\"\ninterval = 0\n{more}\nendpoint = \"{}\"\nbucket = \"bucket\"\naccess_key = \"{}\"\n\
             secret = \"{}\"\n",
            s3.url(),
            S3Server::KEY,
            S3Server::SECRET
        )
    };
    let mut a = site(&place, "a", &store("archive_after = 1\n[snapshot.s3]\narchive_class = \"GLACIER_IR\""));
    a.start();
    let made: Vec<(String, Vec<String>)> = (0..3)
        .map(|turn| {
            fill(&a, turn * 1000..turn * 1000 + 1000, "hex(randomblob(100))");
            eventually("it is sent", || a.is_quiet());
            (create(&place, "a"), a.rows(ALL))
        })
        .collect();
    let archived = || {
        let listed = snapshot(&place, "a", &["list", "--json"]).stdout;
        let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let since = |line: serde_json::Value| line["marks"]["archived_ms"].is_number();
        listed.lines().map(line).map(since).collect::<Vec<_>>()
    };
    eventually("all but the newest are archived", || archived() == [false, true, true]);
    let classes = s3.classes();
    let of = |id: &str| classes.keys().filter(|key| key.contains(&format!("/base/{id}/"))).count();
    let stored = |id: &str| {
        let is_of = |path: &&PathBuf| path.to_string_lossy().contains(&format!("/base/{id}/"));
        objects(&s3.bucket()).iter().filter(is_of).count()
    };
    for (id, _) in &made[..2] {
        assert!(of(id) >= 3 && of(id) == stored(id), "{id}: {classes:?}");
    }
    assert!(classes.values().all(|class| class == "GLACIER_IR"), "{classes:?}");
    // Besides them the storage tries out with an object of its own what the service can do.
    let is_meant = |key: &String| key.starts_with('~') || key.contains("/base/") && !key.contains(&made[2].0);
    assert!(classes.keys().all(is_meant), "{classes:?}");
    snapshot(&place, "a", &["list"]).says(0, &["archived"]);
    snapshot(&place, "a", &["verify", "--all", "--level", "restore"]).says(0, &["ok: "]);
    for (at, (id, then)) in made.iter().enumerate() {
        let file = format!("{at}.db");
        snapshot(&place, "a", &["restore", id, "--output", &file]).says(0, &[id]);
        assert_eq!(&rows(&place.path(&file), ALL), then);
    }
    snapshot(&place, "a", &["forget", &made[0].0]).says(0, &[]);
    snapshot(&place, "a", &["prune", "--grace", "0s"]).says(0, &["removed: 1 snapshot"]);
    let left = objects(&s3.bucket());
    assert!(!left.iter().any(|path| path.to_string_lossy().contains(&made[0].0)), "{left:?}");
    // What can't be done is said before anything begins.
    let judged = |more: &str| {
        configure(&place, "b", &store(more));
        place.run(["config", "check", "--config", "b.toml"])
    };
    judged("archive_after = 1\n[snapshot.s3]").says(64, &["`snapshot.archive_after`", "`archive_class`"]);
    judged("[snapshot.s3]\narchive_class = \"DEEP_ARCHIVE\"").says(64, &["it takes hours to read", "GLACIER_IR"]);
    configure(&place, "b", "[snapshot]\narchive_after = 1\n");
    place.run(["config", "check", "--config", "b.toml"]).says(64, &["`snapshot.archive_after`"]);
}

/// By the whole program, over HTTP: made, read again, brought back; and no secret is written anywhere by the way.
#[test]
fn x07_snapshots_are_kept_over_http() {
    let (s3, dav) = (S3Server::start(), DavServer::start());
    let in_s3 = format!(
        "[snapshot]\nstore = \"s3\"\n[snapshot.s3]\nendpoint = \"127.0.0.1:{}\"\nbucket = \"bucket\"\npath = \"app\"\n\
         access_key = \"{}\"\nsecret = \"{}\"\n",
        s3.port(),
        S3Server::KEY,
        S3Server::SECRET
    );
    let on_dav = format!("[snapshot]\nstore = \"webdav\"\n[snapshot.webdav]\nurl = \"{}\"\n", dav.address("/backups"));
    for (store, secret, kept) in
        [(in_s3, S3Server::SECRET, s3.bucket().join("app")), (on_dav, DavServer::SECRET, dav.files().join("backups"))]
    {
        let place = place();
        let mut a = site(&place, "a", &store);
        a.start();
        fill(&a, 1..2001, "hex(randomblob(200))");
        eventually("everything is sent", || a.is_quiet());
        create(&place, "a");
        snapshot(&place, "a", &["verify"]).says(0, &[]);
        let then = a.rows(ALL);
        snapshot(&place, "a", &["restore", "--output", "back.db"]).says(0, &["holds  2000 rows"]);
        assert_eq!(rows(&place.path("back.db"), ALL), then);
        assert!(objects(&kept).len() >= 4, "{:?}", objects(&kept));
        let storage = |arguments: &[&str]| place.run([&["storage"], arguments, &["--config", "a.toml"]].concat());
        storage(&["check"]).says(0, &["it can be reached and written"]);
        storage(&["get", "no/such/object"]).says(66, &["no such object"]);
        // With a wrong secret it says what is wrong, and not the secret.
        configure(
            &place,
            "a",
            &store.replace(secret, "hunter2hunter2").replace("canary-06-p%40ss-of-webdav", "hunter2hunter2"),
        );
        let refused = storage(&["check"]);
        refused.says(64, &["`secret`"]);
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(!said.contains("hunter2") && !said.contains(secret), "{said}");
    }
}
