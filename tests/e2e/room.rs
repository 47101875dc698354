//! C115, C116, F05: no room, no right, no file more, and an outbox that is full. The host says so and goes on when it can.

use antiphon_harness::health::{at, is_unwell, is_well, serving};
use antiphon_harness::{Errno, Place, Refusing, Resource, Site, eventually, mounts_apart, settled};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE n (id INTEGER PRIMARY KEY, n INTEGER);";

const OF_A: &str = "INSERT INTO n VALUES (1, 0)";
const OF_B: &str = "INSERT INTO n VALUES (2, 0)";

/// A small disk of the test's own, which only it sees.
struct Disk(std::path::PathBuf);

impl Disk {
    fn new(place: &Place, options: &str) -> Self {
        let path = place.path("disk");
        std::fs::create_dir_all(&path).unwrap();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Self(path)
    }

    /// Leaves next to no room; says whether it could.
    fn shrink(&self) -> bool {
        let said = Command::new("df").args(["-k", "--output=used"]).arg(&self.0).output().unwrap().stdout;
        let used: u64 = String::from_utf8(said).unwrap().split_whitespace().last().unwrap().parse().unwrap();
        let size = format!("remount,size={}k", used + 512);
        Command::new("mount").args(["-o", &size]).arg(&self.0).output().unwrap().status.success()
    }

    fn remount(&self, options: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

/// A mount over the same folder, which can't be written through: what is open already lies below it.
struct ReadOnly(std::path::PathBuf);

impl ReadOnly {
    fn over(disk: &Disk) -> Self {
        for options in [&["--bind"][..], &["-o", "remount,bind,ro"]] {
            let mut mount = Command::new("mount");
            mount.args(options).args(options.first().filter(|first| **first == "--bind").map(|_| &disk.0)).arg(&disk.0);
            let done = mount.output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
        Self(disk.0.clone())
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Says that it is not well after a moment, where others have patience.
fn prompt(site: Site) -> Site {
    serving(site).with("ANTIPHON_HEALTH_CHECK__LOG_GRACE", "500").with("ANTIPHON_HEALTH_CHECK__DISK_FREE_MIN", "1 MiB")
}

/// A site whose database lies there, and whose words do not.
fn on(place: &Place, disk: &Path) -> Site {
    let mut site = prompt(place.bare("a"));
    site.database = disk.join("a.db");
    let conn = rusqlite::Connection::open(&site.database).unwrap();
    conn.execute_batch(&format!("PRAGMA journal_mode = WAL; {TABLE}")).unwrap();
    site
}

/// One whose database lies there and one whose does not, which know each other.
fn two(place: &Place, disk: &Path) -> (Site, Site) {
    let (mut a, mut b) = (on(place, disk), place.site("b", TABLE));
    a.start();
    b.start();
    a.sql(OF_A);
    eventually("they know each other", || b.one("SELECT count(*) FROM n") == "1");
    (a, b)
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// No room on the database's disk: the host says so, waits, and goes on when there is room, without a restart.
#[test]
fn c115_a_full_disk_is_waited_for() {
    let Some(_) = mounts_apart("true") else { return };
    let place = place();
    let disk = Disk::new(&place, "size=8m");
    let (mut a, b) = two(&place, &disk.0);
    let filler = disk.0.join("filler");
    std::fs::write(&filler, vec![0; 32 << 20]).unwrap_err();
    // The application's own write fails by SQLite's own reason, and by no other.
    let conn = a.connect();
    let refused = loop {
        match conn.execute("INSERT INTO t (v) VALUES (randomblob(100000))", []) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(refused.sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull), "{refused}");
    let written = a.one("SELECT count(*) FROM t");
    b.sql("WITH RECURSIVE i(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM i WHERE i < 50) INSERT INTO t SELECT 1000 + i, randomblob(20000) FROM i");
    a.wait_for_words("will retry");
    assert!(a.is_running());
    assert!(is_unwell(&a, "disk").starts_with("the disk of the database is nearly full: "));
    assert!(is_unwell(&a, "shard 1").contains("full"));
    std::fs::remove_file(&filler).unwrap();
    disk.remount("size=64m");
    eventually("all is everywhere", || {
        let wanted = written.parse::<u64>().unwrap() + 50;
        [&a, &b].iter().all(|site| site.one("SELECT count(*) FROM t") == wanted.to_string())
    });
    settled(&[&a, &b]);
    assert_eq!(a.one("PRAGMA integrity_check"), "ok");
    is_well(&a);
    drop(conn);
    a.term();
}

/// A folder that has become read-only: the same.
#[test]
fn c115_a_read_only_folder_is_waited_for() {
    let Some(_) = mounts_apart("true") else { return };
    let place = place();
    let disk = Disk::new(&place, "size=64m");
    let mut a = on(&place, &disk.0);
    // Each transaction makes a file in the folder.
    a.sql("PRAGMA journal_mode = DELETE");
    let mut b = place.site("b", TABLE);
    a.start();
    b.start();
    a.sql("INSERT INTO n VALUES (1, 0)");
    settled(&[&a, &b]);
    is_well(&a);
    let read_only = ReadOnly::over(&disk);
    b.sql("INSERT INTO t VALUES (1, 'meanwhile')");
    a.wait_for_words("will retry");
    assert_eq!(is_unwell(&a, "read-only"), "the database or its folder can't be written");
    is_unwell(&a, "shard 1");
    // The application is told so by SQLite, and reads on.
    a.connect().execute("INSERT INTO t VALUES (2, 'x')", []).unwrap_err();
    assert_eq!(a.one("SELECT count(*) FROM n"), "1");
    assert!(a.is_running());
    drop(read_only);
    eventually("all is everywhere", || a.one("SELECT count(*) FROM t") == "1");
    a.sql("INSERT INTO t VALUES (2, 'x')");
    settled(&[&a, &b]);
    is_well(&a);
    a.term();
}

/// A disk that has room and takes no further file: rows go through, and a start that can't be says why.
#[test]
fn c115_a_disk_without_inodes() {
    let Some(_) = mounts_apart("true") else { return };
    let place = place();
    let disk = Disk::new(&place, "size=64m");
    let (mut a, b) = two(&place, &disk.0);
    // As many as there are, for fewer are refused.
    let inodes = Command::new("stat").args(["-f", "-c", "%c %d"]).arg(&disk.0).output().unwrap();
    let inodes = String::from_utf8(inodes.stdout).unwrap();
    let (all, free) = inodes.trim().split_once(' ').unwrap();
    let none = format!("nr_inodes={}", all.parse::<u64>().unwrap() - free.parse::<u64>().unwrap());
    disk.remount(&none);
    std::fs::write(disk.0.join("another"), "").unwrap_err();
    a.sql("INSERT INTO t VALUES (1, 'of a')");
    b.sql("INSERT INTO t VALUES (2, 'of b')");
    eventually("both arrive", || [&a, &b].iter().all(|site| site.one("SELECT count(*) FROM t") == "2"));
    a.wait_for_words("cannot write what `antiphon status` reads");
    assert_eq!(is_unwell(&a, "files"), "the disk of the database has room for 0 files more");
    disk.remount("nr_inodes=1000");
    is_well(&a);
    disk.remount(&none);
    a.kill9();
    a.refused().expect(1, &["cannot ", "No space left on device", "hint: "]);
    disk.remount("nr_inodes=1000");
    a.start();
    b.sql("INSERT INTO t VALUES (3, 'of b')");
    eventually("it goes on", || a.one("SELECT count(*) FROM t") == "3");
    settled(&[&a, &b]);
    a.term();
}

/// The log's disk is full: changes wait in the outbox, and nobody is told that they were sent.
#[test]
fn c115_a_full_log_disk_is_waited_for() {
    let Some(_) = mounts_apart("true") else { return };
    let place = place();
    let disk = Disk::new(&place, "size=4m");
    let log = disk.0.join("log");
    let mut a = prompt(place.site("a", TABLE).log(log.clone()));
    let mut b = place.site("b", TABLE).log(log);
    a.start();
    b.start();
    a.sql("WITH RECURSIVE i(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM i WHERE i < 600) INSERT INTO t SELECT i, randomblob(20000) FROM i");
    a.wait_for_words("Unable to publish");
    assert!(a.is_running() && b.is_running());
    let what = is_unwell(&a, "publish");
    assert!(what.starts_with("changes can't be sent: ") && what.contains("full"), "{what}");
    disk.remount("size=128m");
    eventually("all arrives", || b.one("SELECT count(*) FROM t") == "600");
    settled(&[&a, &b]);
    is_well(&a);
    a.term();
    b.term();
}

/// Errors of a disk, and a quota that is used up, where the database is and where the log is: the same.
#[test]
fn c115_a_disk_that_refuses_is_waited_for() {
    let place = place();
    let refusing = Refusing::new(&place);
    let disk = place.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mut a = refusing.before(on(&place, &disk));
    let mut b = place.site("b", TABLE);
    a.start();
    b.start();
    a.sql(OF_A);
    settled(&[&a, &b]);
    is_well(&a);
    let log = place.path("log");
    let both = place.path("");
    for (round, (error, below, trouble)) in
        [(Errno::IO, &disk, "shard 1"), (Errno::IO, &log, "publish"), (Errno::DQUOT, &both, "publish")]
            .into_iter()
            .enumerate()
    {
        refusing.refuse(below, error);
        // The application is another process, and in luck: what it could write is sent when it can be.
        a.sql("INSERT INTO t (id, v) SELECT coalesce(max(id), 0) + 1, 'of a' FROM t");
        b.sql("INSERT INTO t (id, v) SELECT coalesce(max(id), 0) + 100, 'of b' FROM t");
        is_unwell(&a, trouble);
        assert!(a.is_running());
        refusing.allow();
        eventually("all is everywhere", || {
            [&a, &b].iter().all(|site| site.one("SELECT count(*) FROM t") == ((round + 1) * 2).to_string())
        });
        settled(&[&a, &b]);
        is_well(&a);
    }
    for site in [&a, &b] {
        assert_eq!(site.one("PRAGMA integrity_check"), "ok");
    }
    a.term();
    b.term();
}

/// F05: a limit of this user's says how large a file may become. That is no end of the process, as it would be by itself;
/// it is waited for like a full disk.
#[test]
fn f05_a_limit_of_the_size_of_files_is_waited_for() {
    const MEGABYTE: u64 = 1 << 20;
    let place = place();
    let (mut a, b) = place.pair(TABLE, OF_A, OF_B);
    a.limit(Resource::Fsize, Some(MEGABYTE));
    // The application has no such limit. Both its WAL and the log's have to go past it.
    a.sql("WITH RECURSIVE i(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM i WHERE i < 200) INSERT INTO t SELECT i, randomblob(20000) FROM i");
    a.wait_for_words("Unable to publish");
    b.sql("INSERT INTO t VALUES (1000, 'meanwhile')");
    assert!(a.is_running());
    assert_eq!(b.one("SELECT count(*) FROM t"), "1");
    a.limit(Resource::Fsize, None);
    eventually("all is everywhere", || [&a, &b].iter().all(|site| site.one("SELECT count(*) FROM t") == "201"));
    settled(&[&a, &b]);
    assert_eq!(a.one("PRAGMA integrity_check"), "ok");
    a.term();
}

/// F05: no further file may be opened. Rows go through those that are open, and what needs another is said and made up for.
#[test]
fn f05_a_limit_of_open_files_is_waited_for() {
    let place = place();
    let (mut a, mut b) = (prompt(place.site("a", TABLE)), place.site("b", TABLE));
    a.start();
    b.start();
    a.sql(OF_A);
    b.sql(OF_B);
    settled(&[&a, &b]);
    is_well(&a);
    // Who is connected already hears what nobody else can ask for.
    let mut news = TcpStream::connect(at(&a, "health")).unwrap();
    news.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    news.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let open = std::fs::read_dir(format!("/proc/{}/fd", a.pid())).unwrap().count();
    a.limit(Resource::Nofile, Some(open as u64 + 2));
    let what = is_unwell(&a, "descriptors");
    assert!(what.ends_with(&format!(" files and connections open, of {} that it may", open + 2)), "{what}");
    a.limit(Resource::Nofile, Some(3));
    a.sql("INSERT INTO t VALUES (1, 'of a')");
    b.sql("INSERT INTO t VALUES (2, 'of b')");
    eventually("both arrive", || [&a, &b].iter().all(|site| site.one("SELECT count(*) FROM t") == "2"));
    a.wait_for_words("cannot write what `antiphon status` reads");
    let mut said = Vec::new();
    eventually("who listens is told", || {
        let mut some = [0; 4096];
        let read = news.read(&mut some).unwrap();
        said.extend_from_slice(&some[..read]);
        String::from_utf8_lossy(&said).contains("3 files and connections open, of 3 that it may")
    });
    assert!(a.is_running());
    a.limit(Resource::Nofile, None);
    is_well(&a);
    a.sql("CREATE TABLE later (id INTEGER PRIMARY KEY, v)");
    b.sql("CREATE TABLE later (id INTEGER PRIMARY KEY, v); INSERT INTO later VALUES (1, 'x')");
    eventually("it goes on", || a.one("SELECT count(*) FROM later") == "1");
    settled(&[&a, &b]);
    a.term();
}

/// The log can't be written to for long: said at each step, and everything is kept.
#[test]
fn c116_a_long_outage_is_an_alarm_and_loses_nothing() {
    let place = place();
    let (mut a, b) = place.pair(TABLE, OF_A, OF_B);
    a.term();
    a.set("ANTIPHON_CAPTURE__OUTBOX_BYTES_MAX", Some("100000"));
    a.start();
    let log = rusqlite::Connection::open(place.path("log/log.db")).unwrap();
    log.busy_timeout(Duration::from_secs(20)).unwrap();
    log.execute_batch("BEGIN IMMEDIATE").unwrap();
    for (rows, percent) in [(6, "50"), (9, "80"), (30, "95")] {
        a.sql(&format!("WITH RECURSIVE i(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM i WHERE i < {rows}) INSERT INTO t SELECT {rows} * 100 + i, randomblob(10000) FROM i WHERE (SELECT count(*) FROM t) + i <= {rows}"));
        eventually("it is said", || {
            a.said().contains(&format!("percent={percent}"))
                || a.said().contains(&format!("percent\u{1b}[0m\u{1b}[2m=\u{1b}[0m{percent}"))
        });
    }
    assert_eq!(a.one("SELECT count(*) FROM t"), "30", "the application writes on");
    assert!(a.is_running());
    log.execute_batch("ROLLBACK").unwrap();
    eventually("all arrives", || b.one("SELECT count(*) FROM t") == "30");
    settled(&[&a, &b]);
    a.wait_for_words("the outbox has emptied");
}

/// C116: at its ceiling an outbox takes no more, where its user wants that: the application is refused in words, by SQLite,
/// until there is room. Whoever no longer wants it starts the node without it, and need not wait for the log.
#[test]
fn c116_a_full_outbox_refuses_writes_where_that_is_wanted() {
    let place = place();
    let (mut a, mut b) = (prompt(place.site("a", TABLE)), place.site("b", TABLE));
    a.set("ANTIPHON_CAPTURE__OUTBOX_BYTES_MAX", Some("100000"));
    a.set("ANTIPHON_CAPTURE__OUTBOX_ON_FULL", Some("refuse"));
    a.start();
    b.start();
    a.sql(OF_A);
    b.sql(OF_B);
    settled(&[&a, &b]);
    let log = rusqlite::Connection::open(place.path("log/log.db")).unwrap();
    log.busy_timeout(Duration::from_secs(20)).unwrap();
    let conn = a.connect();
    let refused =
        |sql: &str| conn.execute_batch(sql).is_err_and(|error| error.to_string().contains("`outbox_bytes_max`"));
    let mut written = 0;
    let mut fill = || {
        eventually("there is no more room", || {
            // No write fails for another reason.
            match conn.execute("INSERT INTO t (v) VALUES (randomblob(5000))", []) {
                Ok(_) => written += 1,
                Err(error) => {
                    assert!(error.to_string().starts_with("Antiphon takes no more changes"), "{error}");
                    return true;
                }
            }
            false
        });
        written
    };

    log.execute_batch("BEGIN IMMEDIATE").unwrap();
    let written = fill();
    for sql in [
        "INSERT OR IGNORE INTO t VALUES (1000000, 'x')",
        "REPLACE INTO t VALUES (1, 'x')",
        "INSERT INTO t VALUES (1, 'x') ON CONFLICT DO UPDATE SET v = 'x'",
        "UPDATE OR IGNORE t SET v = 'x' WHERE id = 1",
        "DELETE FROM t WHERE id = 1",
    ] {
        assert!(refused(sql), "{sql}");
    }
    assert_eq!(a.one("SELECT count(*) FROM t"), written.to_string());
    a.wait_for_words("the outbox is full: the application's writes are refused");
    assert!(is_unwell(&a, "outbox").ends_with("the application's writes are refused"));
    // A table that is new, or has another name, is no way around it.
    for site in [&a, &b] {
        site.sql("CREATE TABLE late (id INTEGER PRIMARY KEY)");
    }
    eventually("the new table takes nothing, either", || refused("INSERT INTO late (id) VALUES (NULL)"));
    for site in [&a, &b] {
        site.sql("ALTER TABLE late RENAME TO later");
    }
    eventually("nor under another name", || refused("INSERT INTO later (id) VALUES (NULL)"));
    // Nor does it matter whether the host runs.
    a.kill9();
    assert!(refused("INSERT INTO t (v) VALUES ('x')"));
    log.execute_batch("ROLLBACK").unwrap();
    a.start();
    a.wait_for_words("the outbox has room again");
    conn.execute("INSERT INTO t (v) VALUES ('there is room')", []).unwrap();
    settled(&[&a, &b]);
    is_well(&a);
    assert_eq!(b.one("SELECT count(*) FROM t"), (written + 1).to_string());
    assert!(!a.schema().iter().any(|line| line.contains("_when_full_")), "nothing of it is left");

    log.execute_batch("BEGIN IMMEDIATE").unwrap();
    fill();
    a.kill9();
    a.set("ANTIPHON_CAPTURE__OUTBOX_ON_FULL", None::<String>);
    a.spawn();
    eventually("it is taken, though the log is away", || conn.execute("INSERT INTO t (v) VALUES ('x')", []).is_ok());
    log.execute_batch("ROLLBACK").unwrap();
    settled(&[&a, &b]);
    // Nothing of it outlives a cleanup.
    a.kill9();
    a.verb("cleanup", &[]).expect(0, &[]);
}

/// C116: at its ceiling capture stops, where its user wants that. The application writes on, and nobody applies anything over
/// it; when the log is back each table is compared, and what was written meanwhile is sent.
#[test]
fn c116_a_full_outbox_stops_capture_where_that_is_wanted() {
    let place = place();
    let (mut a, mut b) = (prompt(place.site("a", TABLE)), place.site("b", TABLE));
    a.set("ANTIPHON_CAPTURE__OUTBOX_BYTES_MAX", Some("100000"));
    a.set("ANTIPHON_CAPTURE__OUTBOX_ON_FULL", Some("stop"));
    a.start();
    b.start();
    a.sql("INSERT INTO n VALUES (1, 0), (3, 0), (5, 0), (7, 0)");
    b.sql(OF_B);
    settled(&[&a, &b]);
    let triggers = |site: &Site| site.schema().iter().filter(|line| line.starts_with("trigger|__antiphon")).count();
    let before = triggers(&a);
    let log = rusqlite::Connection::open(place.path("log/log.db")).unwrap();
    log.busy_timeout(Duration::from_secs(20)).unwrap();

    for (round, ends_amid) in [false, true].into_iter().enumerate() {
        log.execute_batch("BEGIN IMMEDIATE").unwrap();
        // What another has for the log meanwhile is no clash with what is compared.
        b.sql("UPDATE n SET n = n + 100 WHERE id = 2");
        let conn = a.connect();
        eventually("nothing is captured any more", || {
            conn.execute("INSERT INTO t (v) VALUES (randomblob(5000))", []).unwrap();
            triggers(&a) == 0
        });
        eventually("it is said", || {
            a.said().matches("what the application writes is not captured until the log takes").count() == round + 1
        });
        eventually("health says so", || is_unwell(&a, "outbox").contains("is not captured"));
        a.sql(&format!(
            "INSERT INTO t VALUES ({}, 'unseen'); UPDATE n SET n = n + 1 WHERE id = 1; DELETE FROM n WHERE id = {};
             UPDATE t SET v = 'other' WHERE id = 3; CREATE TABLE late_{round} (id INTEGER PRIMARY KEY);
             INSERT INTO late_{round} VALUES (7)",
            10_000_000 * (round + 1),
            3 + round * 2
        ));
        b.sql(&format!("CREATE TABLE late_{round} (id INTEGER PRIMARY KEY)"));
        if ends_amid {
            a.kill9();
            a.sql("INSERT INTO t VALUES (5000000, 'while nobody ran')");
            a.spawn();
        }
        log.execute_batch("ROLLBACK").unwrap();
        eventually("all of it arrives", || {
            b.one("SELECT count(*) FROM t WHERE v = 'unseen'") == (round + 1).to_string()
                && b.one(&format!("SELECT count(*) FROM late_{round}")) == "1"
        });
        settled(&[&a, &b]);
        assert_eq!(a.one("SELECT n FROM n WHERE id = 1"), (round + 1).to_string());
        assert_eq!(a.one("SELECT n FROM n WHERE id = 2"), (100 * (round + 1)).to_string());
        assert_eq!(b.one("SELECT count(*) FROM n"), (4 - round).to_string());
        is_well(&a);
        assert!(triggers(&a) > before);
    }
    assert_eq!(b.one("SELECT v FROM t WHERE id = 5000000"), "while nobody ran");

    // Whoever no longer wants it need not wait for the log.
    log.execute_batch("BEGIN IMMEDIATE").unwrap();
    let conn = a.connect();
    eventually("nothing is captured any more", || {
        conn.execute("INSERT INTO t (v) VALUES (randomblob(5000))", []).unwrap();
        triggers(&a) == 0
    });
    a.kill9();
    a.set("ANTIPHON_CAPTURE__OUTBOX_ON_FULL", None::<String>);
    a.spawn();
    eventually("it is captured again", || triggers(&a) > before);
    log.execute_batch("ROLLBACK").unwrap();
    settled(&[&a, &b]);
}

/// No room any more in the middle of a snapshot: that one ends, in words, and leaves nothing. Nothing else is affected.
#[test]
fn c115_a_disk_that_fills_while_a_snapshot_is_made() {
    let Some(_) = mounts_apart("true") else { return };
    let place = place();
    let disk = Disk::new(&place, "size=800m");
    // The host's own folder lies there, and nothing else.
    let state = disk.0.join("state");
    std::fs::DirBuilder::new().mode(0o700).create(&state).unwrap();
    std::os::unix::fs::symlink(&state, place.path("a.db.antiphon")).unwrap();
    place.file("a.toml", "db_path = \"a.db\"\n[log]\npath = \"log\"\n[snapshot]\ninterval = 0\n");
    let mut a = place.site("a", TABLE).arguments(["run", "--config", "a.toml"]);
    a.start();
    a.sql(
        "WITH RECURSIVE i(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM i WHERE i < 1000)
           INSERT INTO t SELECT i, randomblob(20000) FROM i",
    );
    eventually("it is sent", || a.is_quiet());
    let scratch = || {
        let folders = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
        folders.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("scratch-")).collect::<Vec<_>>()
    };
    let create = || place.run(["snapshot", "create", "--config", "a.toml"]);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let failed = std::thread::scope(|scope| {
        let filling = scope.spawn(|| {
            while !scratch().iter().any(|folder| folder.join("copy.db").exists()) {
                assert!(!is_over.load(std::sync::atomic::Ordering::Acquire), "it never began");
                std::thread::sleep(Duration::from_millis(1));
            }
            // It grows meanwhile.
            while !disk.shrink() {}
        });
        let failed = create();
        is_over.store(true, std::sync::atomic::Ordering::Release);
        assert!(filling.join().is_ok(), "{}", failed.stderr);
        failed
    });
    failed.expect(75, &["Unable to save snapshot", "disk is full", "make room"]);
    eventually("nothing is left of it", || scratch().is_empty());
    a.sql("INSERT INTO t VALUES (3000, 'the application goes on')");
    eventually("it is sent", || a.is_quiet());
    assert!(a.is_running());
    disk.remount("size=800m");
    assert!(create().stdout.contains("Snapshot saved"));
    place.run(["snapshot", "verify", "--level", "restore", "--config", "a.toml"]).expect(0, &[]);
    a.term();
}
