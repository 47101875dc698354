//! F01: the points that only a snapshot comes by: while it is made, brought back, or removed.
//!
//! Whatever had been done, the newest that counts can be restored, and the application and its other nodes notice nothing.

use super::*;
use antiphon_harness::{Ended, S3Server, finish};

const FILL: &str = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
                    INSERT INTO shared SELECT i, hex(randomblob(100)) FROM n";

fn snapshot(place: &Place, arguments: &[&str]) -> Ended {
    place.run([&["snapshot"], arguments, &["--config", "a.toml"]].concat())
}

/// The rows of the newest snapshot, as a file of its own.
fn restored(place: &Place, name: &str) -> String {
    let said = snapshot(place, &["restore", "--output", name]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let conn = Connection::open(place.path(name)).unwrap();
    assert_eq!(conn.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
    conn.query_row("SELECT CAST(count(*) AS TEXT) FROM item", [], |row| row.get(0)).unwrap()
}

/// Objects that snapshots consist of, and when each was stored.
fn objects(place: &Place) -> BTreeMap<std::path::PathBuf, std::time::SystemTime> {
    let mut found = BTreeMap::new();
    let mut folders = vec![place.path("log/snapshots")];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "frm") {
                let when = std::fs::metadata(&path).unwrap().modified().unwrap();
                found.insert(path, when);
            }
        }
    }
    found
}

#[test]
fn f01_c70_deaths_around_snapshots() {
    let place = place();
    let text = |name: &str| format!("db_path = '{name}.db'\n[log]\npath = 'log'\n[snapshot]\ninterval = 0\n");
    let site = |name: &str| {
        place.file(&format!("{name}.toml"), &text(name));
        place.site(name, TABLES).arguments(["run", "--config", &format!("{name}.toml")])
    };
    let (mut a, mut b) = (site("a"), site("b"));
    a.start();
    a.sql(FILL);
    a.sql("INSERT INTO item VALUES ('0', 0, 'first')");
    b.start();
    settled(&[&a, &b]);
    assert_eq!(snapshot(&place, &["create"]).code, Some(0));
    // Made: what is there before it counts is the one before.
    let (mut rows, mut whole) = (1, 1);
    // Once it is ready to be stored, the next start goes on with it.
    let steps = [
        ("snapshot-copied:1", false, false),
        ("snapshot-drained:1", false, false),
        ("snapshot-kept:1", false, true),
        ("snapshot-put:1", false, true),
        ("snapshot-put:2", false, true),
        ("snapshot-commit:1", false, true),
        ("snapshot-committed:1", true, false),
    ];
    for (at, (point, counts, goes_on)) in steps.into_iter().enumerate() {
        rows += 1;
        a.sql(&format!("INSERT INTO item VALUES ('{rows}', 0, 'more')"));
        settled(&[&a, &b]);
        a.term();
        a.set(DIE_AT, Some(point));
        a.start();
        let asked = snapshot(&place, &["create"]);
        assert_ne!(asked.code, Some(0), "{point}");
        dies(&mut a);
        if counts {
            whole = rows;
        }
        assert_eq!(restored(&place, &format!("{at}.db")), whole.to_string(), "{point}");
        let stored = objects(&place);
        comes_back(&mut a);
        eventually("nothing is left of the one that was begun", || !place.path("a.db.antiphon/snapshot-job").exists());
        if goes_on {
            whole = rows;
            assert_eq!(restored(&place, &format!("went-on-{at}.db")), whole.to_string(), "{point}");
            let now = objects(&place);
            let again: Vec<_> = stored.iter().filter(|(path, when)| now.get(*path) != Some(*when)).collect();
            assert!(again.is_empty(), "{point}: {again:?} were stored again");
            assert!(
                point != "snapshot-commit:1" || now.len() == stored.len(),
                "{point}: all was there but the manifest"
            );
        }
        assert_eq!(
            std::fs::read_dir(place.path("a.db.antiphon"))
                .unwrap()
                .filter(|entry| { entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("scratch") })
                .count(),
            0,
            "{point}: what lay about is gone after a start"
        );
        b.sql("UPDATE total SET n = n + 1");
        settled(&[&a, &b]);
    }
    assert_eq!(snapshot(&place, &["create"]).code, Some(0));
    // Brought back: the file is there whole, or not at all.
    for point in ["snapshot-fetched:1", "snapshot-linked:1"] {
        let arguments = ["snapshot", "restore", "--output", "x.db", "--config", "a.toml"];
        let died = finish(place.command(arguments).env(DIE_AT, point));
        assert_eq!(died.code, None, "{point}: it is killed");
        assert!(!place.path("x.db").exists(), "{point}");
    }
    assert_eq!(restored(&place, "y.db"), rows.to_string());
    // Removed: what is left of it is looked at by nobody, and goes with the next.
    assert_eq!(snapshot(&place, &["forget", "--keep-last", "1"]).code, Some(0));
    // Before anything, behind the manifests, and then, with those gone, behind the objects.
    for (at, passing) in ["snapshot-prune:1", "snapshot-prune:2", "snapshot-prune:2"].into_iter().enumerate() {
        let arguments = ["snapshot", "prune", "--grace", "0s", "--config", "a.toml"];
        let died = finish(place.command(arguments).env(DIE_AT, passing));
        assert_eq!(died.code, None, "{passing}: it is killed");
        assert_eq!(restored(&place, &format!("pruned-{at}.db")), rows.to_string(), "{passing}");
    }
    assert_eq!(snapshot(&place, &["prune", "--grace", "0s"]).code, Some(0));
    assert_eq!(snapshot(&place, &["verify", "--all", "--level", "restore"]).code, Some(0));
    settled(&[&a, &b]);
}

/// F01: a node that a snapshot leads on dies on the way there: at the next start it is there, with what it had written.
#[test]
fn f01_deaths_on_the_way_back() {
    let place = place();
    let site = |name: &str| {
        let text = format!("db_path = '{name}.db'\n[log]\npath = 'log'\n[snapshot]\ninterval = 0\n");
        place.file(&format!("{name}.toml"), &text);
        place.site(name, TABLES).arguments(["run", "--config", &format!("{name}.toml")])
    };
    let (mut a, mut b) = (site("a"), site("b"));
    a.start();
    b.start();
    let write = |site: &Site, id: String| {
        site.sql(&format!("INSERT INTO item VALUES ('{id}', 0, '{id}')"));
        eventually("it is sent", || site.is_quiet());
    };
    write(&a, "first".to_owned());
    settled(&[&a, &b]);
    let cut = || {
        let log = Connection::open(place.path("log/log.db")).unwrap();
        log.execute("DELETE FROM shard_1 WHERE seq <= (SELECT max(seq) FROM shard_1) - 3", []).unwrap();
    };
    let points = ["going-back:1", "unfounded:1", "stood-back:1", "restored:1", "reload:2", "entered:1", "noted:1"];
    for (at, point) in points.into_iter().enumerate() {
        b.term();
        (0..6).for_each(|n| write(&a, format!("a{at}-{n}")));
        assert_eq!(snapshot(&place, &["create"]).code, Some(0));
        write(&a, format!("after-{at}"));
        b.sql(&format!(
            "INSERT INTO item VALUES ('b{at}', 0, 'while down'); UPDATE item SET v = {at} WHERE id = 'first'"
        ));
        cut();
        b.set(DIE_AT, Some(point));
        b.spawn();
        dies(&mut b);
        comes_back(&mut b);
        settled(&[&a, &b]);
        assert_eq!(a.one("SELECT count(*) FROM item WHERE note = 'while down'"), (at + 1).to_string(), "{point}");
        assert_eq!(a.one("SELECT v FROM item WHERE id = 'first'"), at.to_string(), "{point}");
    }
    // One that is new.
    let mut late = site("late");
    for point in ["filled:1", "entered:1"] {
        late.set(DIE_AT, Some(point));
        late.spawn();
        dies(&mut late);
    }
    comes_back(&mut late);
    settled(&[&a, &b, &late]);
}

/// F01: a node dies while it begins a log again that was lost, in one of two shards or in both. It goes on with that at the
/// next start, or when it is told once more; the other follows, and nothing is lost.
#[test]
fn f01_deaths_while_a_log_begins_again() {
    let place = place();
    let site = |name: &str| {
        let text = "[log]\npath = 'log'\n[snapshot]\ninterval = 0\nstore = 'file'\n[snapshot.file]\npath = 'snapshots'\n\
                    [replication_log]\nshards = 2\n";
        place.file(&format!("{name}.toml"), &format!("db_path = '{name}.db'\n{text}"));
        place.site(name, TABLES).arguments(["run", "--config", &format!("{name}.toml")])
    };
    let (mut a, mut b) = (site("a"), site("b"));
    a.start();
    b.start();
    let points = ["begun-again:1", "begun-again:2", "anew:1", "commit:2", "reload:2", "began-again:1"];
    for (at, point) in points.into_iter().enumerate() {
        for id in 0..10 {
            a.sql(&format!("INSERT INTO item VALUES ('a{at}-{id}', 0, 'sent')"));
        }
        settled(&[&a, &b]);
        a.term();
        b.term();
        for (site, name) in [(&a, 'a'), (&b, 'b')] {
            site.sql(&format!("INSERT INTO item VALUES ('{name}{at}', 0, 'while down'); UPDATE item SET v = v + 1"));
        }
        std::fs::remove_dir_all(place.path("log")).unwrap();
        let reseed = ["log", "reseed", "--config", "a.toml"];
        let died = finish(place.command(reseed).env(DIE_AT, point));
        assert_eq!(died.code, None, "{point}: {}", died.stderr);
        if at % 2 == 0 {
            let again = place.run(reseed);
            // It may have died when all was done.
            assert!(matches!(again.code, Some(0 | 6)), "{point}: {}", again.stderr);
        } else if !place.path("log/log.db").exists() {
            assert_eq!(place.run(reseed).code, Some(0), "{point}");
        }
        a.start();
        b.start();
        settled(&[&a, &b]);
        assert_eq!(b.one("SELECT count(*) FROM item WHERE note = 'while down'"), (2 * at + 2).to_string(), "{point}");
        assert_eq!(a.one("SELECT count(*) FROM item WHERE note = 'sent'"), (10 * at + 10).to_string(), "{point}");
    }
}

/// F01: a node dies while it lets go of the log's beginning. What is left begins with an entry that a snapshot leads up to,
/// so all go on, and new ones join.
#[test]
fn f01_deaths_while_a_log_is_cut() {
    let place = place();
    let site = |name: &str| {
        let text = "[log]\npath = 'log'\n[snapshot]\ninterval = 0\narchive_interval = 100\n[replication_log]\nmax_entries = 2\nshards = 2\n";
        place.file(&format!("{name}.toml"), &format!("db_path = '{name}.db'\n{text}"));
        place.site(name, TABLES).arguments(["run", "--config", &format!("{name}.toml")])
    };
    let (mut a, mut b) = (site("a"), site("b"));
    a.start();
    b.start();
    let begins = || {
        let conn = Connection::open(place.path("log/log.db")).unwrap();
        let first = |shard| {
            // There may be nothing in it yet, and no table either.
            conn.query_row(&format!("SELECT min(seq) FROM shard_{shard}"), [], |row| row.get::<_, i64>(0)).unwrap_or(0)
        };
        [first(1), first(2)]
    };
    // Whoever has joined is a member, and the log is kept for it.
    let mut others = Vec::new();
    for (at, point) in ["log-cutting:1", "log-cutting:2", "log-cut:1", "log-cut:2"].into_iter().enumerate() {
        let before = begins();
        a.term();
        a.set(DIE_AT, Some(point));
        a.start();
        for n in 0..3 {
            for id in 0..20 {
                a.sql(&format!("REPLACE INTO item VALUES ('{at}-{id}', {n}, 'more')"));
                eventually("it is sent", || a.is_quiet());
            }
            assert_eq!(snapshot(&place, &["create"]).code, Some(0));
        }
        settled(&[&a, &b]);
        // Members say every few seconds how far they are, and the archive follows: until then nothing may go.
        eventually("it dies", || {
            place.run(["log", "truncate", "--config", "a.toml"]);
            !a.is_running()
        });
        dies(&mut a);
        comes_back(&mut a);
        settled(&[&a, &b]);
        let mut late = site(&format!("late{at}"));
        late.start();
        settled(&[&a, &b, &late]);
        others.push(late);
        eventually("the rest goes", || {
            place.run(["log", "truncate", "--config", "a.toml"]);
            begins().iter().zip(before).all(|(now, before)| *now > before)
        });
    }
}

/// F01: a node dies while it puts an old snapshot again with another class of storage: it comes back as it was, and whoever
/// makes the next one ends what was begun.
#[test]
fn f01_deaths_while_a_snapshot_gets_another_class() {
    let (place, store) = (place(), S3Server::start());
    let text = format!(
        "db_path = 'a.db'\n[log]\npath = 'log'\n[snapshot]\ninterval = 0\nstore = 's3'\narchive_after = 1\n\
         [snapshot.s3]\nendpoint = '{}'\nbucket = 'bucket'\naccess_key = '{}'\nsecret = '{}'\n\
         archive_class = 'GLACIER_IR'\n",
        store.url(),
        S3Server::KEY,
        S3Server::SECRET
    );
    place.file("a.toml", &text);
    let mut a = place.site("a", TABLES).arguments(["run", "--config", "a.toml"]);
    a.start();
    a.sql("INSERT INTO item VALUES ('0', 0, 'first')");
    eventually("it is sent", || a.is_quiet());
    let made = snapshot(&place, &["create", "--json"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let made: serde_json::Value = serde_json::from_str(&made.stdout).unwrap();
    let first = made["id"].as_str().unwrap().to_owned();
    let archived = || snapshot(&place, &["list"]).stdout.lines().filter(|line| line.contains("archived")).count();
    let points = ["snapshot-age:1", "snapshot-age:2", "snapshot-age:3", "snapshot-aged:1"];
    for (at, point) in points.into_iter().enumerate() {
        a.sql(&format!("INSERT INTO item VALUES ('{}', 0, 'more')", at + 1));
        eventually("it is sent", || a.is_quiet());
        a.term();
        a.set(DIE_AT, Some(point));
        a.start();
        // It has been made when the node dies, whether that is told or not.
        snapshot(&place, &["create"]);
        dies(&mut a);
        let file = format!("{at}.db");
        let said = snapshot(&place, &["restore", &first, "--output", &file]);
        assert_eq!(said.code, Some(0), "{point}: {}", said.stderr);
        let conn = Connection::open(place.path(&file)).unwrap();
        assert_eq!(conn.query_row("SELECT count(*) FROM item", [], |row| row.get::<_, i64>(0)).unwrap(), 1, "{point}");
        assert_eq!(archived(), 0, "{point}");
        comes_back(&mut a);
    }
    let mut n = 100;
    eventually("all but the newest are archived", || {
        n += 1;
        a.sql(&format!("INSERT INTO item VALUES ('{n}', 0, 'last')"));
        eventually("it is sent", || a.is_quiet());
        assert_eq!(snapshot(&place, &["create"]).code, Some(0));
        archived() >= 5
    });
    let verified = snapshot(&place, &["verify", "--all", "--level", "restore"]);
    assert_eq!(verified.code, Some(0), "{}", verified.stdout);
}

/// F01: a copy of the backups that is cut off has no snapshot that lacks something, and the next copy goes on from there.
#[test]
fn f01_deaths_while_backups_are_copied() {
    let place = place();
    let text = "db_path = 'a.db'\n[log]\npath = 'log'\n[snapshot]\ninterval = 0\n[plugin.mirror]\nsource = 'builtin:file'\n\
                [plugin.mirror.settings]\npath = 'mirror'\n";
    place.file("a.toml", text);
    let mut a = place.site("a", TABLES).arguments(["run", "--config", "a.toml"]);
    a.start();
    a.sql(FILL);
    eventually("all is sent", || a.is_quiet());
    assert_eq!(snapshot(&place, &["create"]).code, Some(0));
    let copy = ["repo", "copy", "--to", "mirror", "--config", "a.toml"];
    for point in ["repo-copying:1", "repo-copying:2"] {
        let died = finish(place.command(copy).env(DIE_AT, point));
        assert_eq!(died.code, None, "{point}: it is killed");
        let listed = snapshot(&place, &["list", "--plugin", "mirror"]);
        assert_eq!(listed.code, Some(66), "{point}: {}{}", listed.stdout, listed.stderr);
    }
    assert_eq!(place.run(copy).code, Some(0));
    a.sql("INSERT INTO item VALUES ('later', 0, 'x')");
    eventually("all is sent", || a.is_quiet());
    assert_eq!(snapshot(&place, &["create"]).code, Some(0));
    let again = place.run(copy);
    assert!(again.stdout.contains("were there"), "{}{}", again.stdout, again.stderr);
    for (what, words) in [("check", "2 of 2 snapshots whole"), ("stats", "2 made")] {
        let said = place.run(["repo", what, "--plugin", "mirror", "--config", "a.toml"]);
        assert!(said.stdout.contains(words), "{}{}", said.stdout, said.stderr);
    }
    let read = place.run(["repo", "check", "--read-data", "--plugin", "mirror", "--config", "a.toml"]);
    assert_eq!(read.code, Some(0), "{}", read.stderr);
    let said = snapshot(&place, &["restore", "--output", "back.db", "--plugin", "mirror"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let conn = Connection::open(place.path("back.db")).unwrap();
    assert_eq!(conn.query_row("SELECT count(*) FROM item", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
}
