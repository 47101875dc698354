//! F01: the points that only the archive and going back in time come by.
//!
//! Whatever had been done, the archive has no gap that is not told, every point of it comes back as it was, and a database
//! that goes back is the old or the new one, never a mix.

use super::*;
use antiphon_harness::{Ended, finish};
use std::time::Instant;

fn site(place: &Place, name: &str) -> Site {
    let text = format!(
        "db_path = '{name}.db'\n[log]\npath = 'log'\n[snapshot]\ninterval = 3600000\narchive_interval = 50\nleader_ttl = 1500\n"
    );
    place.file(&format!("{name}.toml"), &text);
    place.site(name, TABLES).arguments(["run", "--config", &format!("{name}.toml")])
}

fn snapshot(place: &Place, arguments: &[&str]) -> Ended {
    place.run([&["snapshot"], arguments, &["--config", "a.toml"]].concat())
}

fn stands(site: &Site) -> String {
    site.one("SELECT shard || ':' || seq FROM \"__antiphon___position\"")
}

/// Whether the archive leads to where a node stands, without a gap.
fn is_archived(place: &Place, site: &Site) -> bool {
    let said = snapshot(place, &["list", "--pitr", "--json"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let said: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let windows = said["windows"].as_array().unwrap();
    assert_eq!((windows.len(), said["holes"].as_array().unwrap().len()), (1, 0), "{said}");
    stands(site) == format!("1:{}", windows[0]["to_seq"])
}

/// What comes back at a point.
fn restored(place: &Place, point: &str, file: &str) -> Vec<String> {
    let said = snapshot(place, &["restore", "--to-seq", point, "--output", file]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    antiphon_harness::dump(&Connection::open(place.path(file)).unwrap())
}

/// A node with a row and a snapshot of it.
fn begun(place: &Place) -> Site {
    let mut a = site(place, "a");
    a.start();
    a.sql("INSERT INTO item VALUES ('0', 0, 'first')");
    eventually("it is sent", || a.is_quiet());
    assert_eq!(snapshot(place, &["create"]).code, Some(0));
    a
}

#[test]
fn f01_deaths_of_who_archives() {
    let place = place();
    let mut a = begun(&place);
    let mut points: Vec<(String, Vec<String>)> = Vec::new();
    let deaths = ["archive-put:1", "archive-put:2", "archive-stored:1", "archive-stored:3", "increment-flushed:1"];
    for (at, point) in deaths.into_iter().enumerate() {
        a.term();
        a.set(DIE_AT, Some(point));
        a.start();
        let incremental = point.starts_with("increment");
        let mut n = 0;
        eventually("it dies", || {
            n += 1;
            a.sql(&format!("INSERT INTO item VALUES ('{at}.{n}', {n}, 'more')"));
            if incremental {
                assert_ne!(snapshot(&place, &["create", "--incremental"]).code, Some(0));
            }
            !a.is_running()
        });
        dies(&mut a);
        comes_back(&mut a);
        eventually("it is sent", || a.is_quiet());
        eventually("all is archived", || is_archived(&place, &a));
        points.push((stands(&a), a.dump()));
        for (turn, (seq, expected)) in points.iter().enumerate() {
            assert_eq!(&restored(&place, seq, &format!("{at}-{turn}.db")), expected, "{point}");
        }
    }
    let made = snapshot(&place, &["create", "--incremental"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let verified = snapshot(&place, &["verify", "--all", "--level", "restore"]);
    assert_eq!(verified.code, Some(0), "{}", verified.stdout);
}

/// Arguments for what the archive alone is asked.
fn alone<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["snapshot"], arguments, &["--config", "alone.toml"]].concat()
}

/// Segments become one, and what went into them goes: whoever dies on the way leaves every point as it was, and whoever
/// goes on ends where he would have ended.
#[test]
fn f01_deaths_while_segments_are_merged() {
    let place = place();
    let mut a = begun(&place);
    let mut points: Vec<(String, Vec<String>)> = Vec::new();
    let since = Instant::now();
    for n in 0..24 {
        a.sql(&format!("INSERT INTO item VALUES ('{n}-', {n}, 'more'); UPDATE item SET v = v + 1 WHERE id = '0'"));
        eventually("it is sent", || a.is_quiet());
        if n % 6 == 0 {
            points.push((stands(&a), a.dump()));
        }
        std::thread::sleep(Duration::from_millis(60));
    }
    eventually("all is archived", || is_archived(&place, &a));
    points.push((stands(&a), a.dump()));
    // Some segments each, however slow it went.
    let took = since.elapsed().as_millis();
    let (short, long) = (took / 6, took / 2);
    // Nobody else merges meanwhile, and the log leads nowhere: it is the archive that is read.
    a.term();
    std::fs::rename(place.path("log"), place.path("log-away")).unwrap();
    let text = "db_path = 'a.db'\n[log]\npath = 'none'\n[snapshot.file]\npath = 'log-away/snapshots'\n";
    place.file("alone.toml", &format!("{text}[snapshot]\nmerge_short = {short}\nmerge_long = {long}\n"));
    let segments = || {
        let mut found: Vec<u64> = vec![0; 3];
        let cluster = std::fs::read_dir(place.path("log-away/snapshots")).unwrap().map(|entry| entry.unwrap().path());
        let cluster = cluster.filter(|path| path.is_dir()).last().unwrap();
        for (level, folder) in ["log", "log1", "log2"].into_iter().enumerate() {
            let mut folders = vec![cluster.join(folder)];
            while let Some(folder) = folders.pop() {
                let Ok(entries) = std::fs::read_dir(folder) else { continue };
                for path in entries.map(|entry| entry.unwrap().path()) {
                    if path.is_dir() { folders.push(path) } else { found[level] += 1 }
                }
            }
        }
        found
    };
    let mut turn = 0;
    let mut all_as_before = |what: &str| {
        for (seq, expected) in &points {
            turn += 1;
            let file = format!("point-{turn}.db");
            let said = place.run(alone(&["restore", "--to-seq", seq, "--output", &file]));
            assert_eq!(said.code, Some(0), "{what}: {}", said.stderr);
            assert_eq!(
                &antiphon_harness::dump(&Connection::open(place.path(&file)).unwrap()),
                expected,
                "{what}: {seq}"
            );
        }
        let said = place.run(alone(&["list", "--pitr", "--json"]));
        let said: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(
            (said["windows"].as_array().unwrap().len(), said["holes"].as_array().unwrap().len()),
            (1, 0),
            "{what}"
        );
    };
    let before = segments();
    for point in ["merge-put:1", "merge-stored:1", "merge-put:2", "merge-stored:2"] {
        let died = finish(place.command(alone(&["merge"])).env(DIE_AT, point));
        assert_eq!(died.code, None, "{point}: it is killed, {}", died.stdout);
        all_as_before(point);
    }
    let done = place.run(alone(&["merge"]));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    all_as_before("merged");
    let merged = segments();
    assert_eq!(merged[0], before[0], "nothing is gone yet");
    assert!(merged[1] > 1 && merged[2] > 0, "{merged:?}");
    assert!(place.run(alone(&["merge", "--dry-run"])).stdout.starts_with("would be merged: 0 segments"));
    for point in ["snapshot-prune:1", "snapshot-prune:2"] {
        let died = finish(place.command(alone(&["prune", "--grace", "0s"])).env(DIE_AT, point));
        all_as_before(&format!("{point}, {:?}", died.code));
    }
    assert_eq!(place.run(alone(&["prune", "--grace", "0s"])).code, Some(0));
    all_as_before("pruned");
    let left = segments();
    assert!(left.iter().sum::<u64>() < before[0] * 3 / 4, "{before:?} became {left:?}");
    let verified = place.run(alone(&["verify", "--all", "--level", "restore"]));
    assert_eq!(verified.code, Some(0), "{}", verified.stdout);
    // What is older than the window goes, and that is said before it does.
    std::fs::rename(place.path("log-away"), place.path("log")).unwrap();
    comes_back(&mut a);
    assert_eq!(snapshot(&place, &["create"]).code, Some(0));
    a.sql("INSERT INTO item VALUES ('after', 0, 'the second')");
    eventually("it is sent", || a.is_quiet());
    eventually("all is archived", || is_archived(&place, &a));
    a.term();
    place.file("short.toml", "db_path = 'a.db'\n[log]\npath = 'none'\n[snapshot.file]\npath = 'log/snapshots'\n[snapshot]\npitr_window = 1\n");
    let prune = ["snapshot", "prune", "--grace", "0s", "--config", "short.toml"];
    let died = finish(place.command(prune).env(DIE_AT, "snapshot-floor:1"));
    assert_eq!(died.code, None, "it is killed");
    let restore = |point: &str, file: &str| {
        place.run(["snapshot", "restore", "--to-seq", point, "--output", file, "--config", "short.toml"])
    };
    assert_eq!(restore(&points[2].0, "before.db").code, Some(0), "nothing is gone yet");
    assert_eq!(place.run(prune).code, Some(0));
    let gone = restore(&points[2].0, "gone.db");
    assert_eq!(gone.code, Some(6), "{}", gone.stderr);
    assert!(!place.path("gone.db").exists());
    assert_eq!(restore(&stands(&a), "end.db").code, Some(0), "what came later is there");
    comes_back(&mut a);
    a.sql("INSERT INTO item VALUES ('last', 0, 'x')");
    eventually("it goes on behind that", || {
        a.is_quiet()
            && snapshot(&place, &["list", "--pitr", "--json"])
                .stdout
                .contains(&format!("\"to_seq\":{}", &stands(&a)[2..]))
    });
}

/// A hole is noted, and the full snapshot behind it made, even if the process dies on the way.
#[test]
fn f01_a_death_at_a_hole() {
    let place = place();
    let mut a = begun(&place);
    eventually("all is archived", || is_archived(&place, &a));
    // Nothing is archived while it can't be made out where.
    a.term();
    a.set(DIE_AT, Some("archive-put:1"));
    a.start();
    for n in 1..8 {
        // It may have died already: then what is written waits for the next start.
        a.sql(&format!("INSERT INTO item VALUES ('{n}', {n}, 'more')"));
    }
    dies(&mut a);
    comes_back(&mut a);
    eventually("it is sent", || a.is_quiet());
    a.term();
    for point in ["archive-hole:1", "snapshot-commit:1"] {
        for n in 1..8 {
            a.sql(&format!("UPDATE item SET v = v + 1 WHERE id = '{n}'"));
            a.set(DIE_AT, Some("archive-put:1"));
            a.start();
            dies(&mut a);
        }
        let log = Connection::open(place.path("log/log.db")).unwrap();
        log.execute("DELETE FROM shard_1 WHERE seq <= (SELECT max(seq) FROM shard_1) - 2", []).unwrap();
        drop(log);
        a.set(DIE_AT, Some(point));
        a.spawn();
        dies(&mut a);
    }
    comes_back(&mut a);
    eventually("it is sent", || a.is_quiet());
    a.sql("INSERT INTO item VALUES ('last', 0, 'last')");
    eventually("a full one leads on", || {
        let said = snapshot(&place, &["restore", "--to-seq", &stands(&a), "--output", "end.db"]);
        if said.code == Some(0) && a.is_quiet() {
            let same = antiphon_harness::dump(&Connection::open(place.path("end.db")).unwrap()) == a.dump();
            std::fs::remove_file(place.path("end.db")).unwrap();
            return same;
        }
        let _ = std::fs::remove_file(place.path("end.db"));
        false
    });
}

/// Two nodes with these rows, and a snapshot of them; where the first stood then, and what it had.
fn two_with_a_past(place: &Place, rows: &str) -> (Site, Site, String, Vec<String>) {
    let (mut a, mut b) = (site(place, "a"), site(place, "b"));
    a.start();
    b.start();
    a.sql(rows);
    settled(&[&a, &b]);
    assert_eq!(snapshot(place, &["create"]).code, Some(0));
    let (point, then) = (stands(&a), a.dump());
    (a, b, point, then)
}

/// A database goes back in place, and whoever does it dies: it is the old one or the new one, for all who read it meanwhile.
#[test]
fn f01_deaths_on_the_way_back_in_place() {
    let place = place();
    let (mut a, b, point, then) = two_with_a_past(
        &place,
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
           INSERT INTO shared SELECT i, 'then' FROM n",
    );
    let points = [
        "in-place-ready:1",
        "settle:1",
        "commit:1",
        "commit:2",
        "commit:3",
        "committed:1",
        "committed:2",
        "in-place-done:1",
        "in-place-noted:1",
    ];
    for (turn, at) in points.into_iter().enumerate() {
        b.sql(&format!("UPDATE shared SET v = 'turn {turn}'; INSERT INTO item VALUES ('{turn}', {turn}, 'b')"));
        settled(&[&a, &b]);
        let now = a.dump();
        a.term();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (stop, path) = (&stop, place.path("a.db"));
            for _ in 0..4 {
                let path = path.clone();
                scope.spawn(move || {
                    let conn = Connection::open(path).unwrap();
                    conn.busy_timeout(Duration::from_secs(20)).unwrap();
                    while !stop.load(Ordering::Relaxed) {
                        let seen: i64 =
                            conn.query_row("SELECT count(DISTINCT v) FROM shared", [], |row| row.get(0)).unwrap();
                        assert_eq!(seen, 1, "a mix is seen");
                    }
                });
            }
            let arguments = ["snapshot", "restore", "--to-seq", &point, "--in-place", "--config", "a.toml"];
            let died = finish(place.command(arguments).env(DIE_AT, at));
            stop.store(true, Ordering::Relaxed);
            let is_there = a.dump() == then;
            assert!(is_there || a.dump() == now, "{at}: it is neither the old nor the new");
            println!("{at}: {:?}, {}", died.code, if is_there { "new" } else { "old" });
        });
        assert_eq!(a.one("PRAGMA integrity_check"), "ok");
        comes_back(&mut a);
        settled(&[&a, &b]);
        assert_eq!(a.dump(), now, "{at}: what came later comes in again");
        let left = std::fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().path());
        for folder in left.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".antiphon-restore")) {
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
}

/// The same by another file. A damaged one may be under its other name alone for a moment; whoever says it again has it done.
#[test]
fn f01_deaths_while_a_file_is_replaced() {
    let place = place();
    let (mut a, b, point, then) =
        two_with_a_past(&place, "INSERT INTO item VALUES ('a', 1, 'then'), ('b', 2, 'then'), ('c', 3, 'then')");
    let back = |at: Option<&str>| {
        let arguments = ["snapshot", "restore", "--to-seq", &point, "--in-place", "--offline", "--discard-local"];
        let mut command = place.command(arguments);
        command.args(["--config", "a.toml"]);
        finish(at.into_iter().fold(&mut command, |command, at| command.env(DIE_AT, at)))
    };
    let mut turn = 0;
    for (at, is_damaged, comes) in [
        ("offline-noted:1", false, false),
        ("offline-kept:1", false, false),
        ("offline-named:1", false, true),
        ("offline-aside:1", true, false),
        ("offline-cleared:1", true, false),
        ("offline-noted:1", true, false),
        ("offline-put:1", true, true),
    ] {
        turn += 1;
        b.sql(&format!("UPDATE item SET v = {turn}; INSERT INTO item VALUES ('{turn}', {turn}, 'b')"));
        settled(&[&a, &b]);
        let now = a.dump();
        a.term();
        if is_damaged {
            std::fs::write(place.path("a.db"), vec![b'x'; 8192]).unwrap();
        }
        let died = back(Some(at));
        assert_eq!(died.code, None, "{at}: it is killed: {}", died.stderr);
        if is_damaged && !comes {
            let again = back(None);
            assert_eq!(again.code, Some(0), "{at}: {}", again.stderr);
        }
        assert_eq!(a.dump(), if comes || is_damaged { then.clone() } else { now.clone() }, "{at}");
        assert_eq!(a.one("PRAGMA integrity_check"), "ok");
        // What is written before the node runs is noted in the one and in the other.
        a.sql(&format!("INSERT INTO item VALUES ('a{turn}', 0, 'a')"));
        comes_back(&mut a);
        settled(&[&a, &b]);
        assert_eq!(b.one(&format!("SELECT count(*) FROM item WHERE id = 'a{turn}'")), "1", "{at}");
        b.sql(&format!("DELETE FROM item WHERE id = 'a{turn}'"));
        settled(&[&a, &b]);
        assert_eq!(a.dump(), now, "{at}: what came later comes in again");
    }
}

/// The same by changes: all of them are sent, or none.
#[test]
fn f01_deaths_on_the_way_back_by_changes() {
    let place = place();
    let (a, b, point, then) =
        two_with_a_past(&place, "INSERT INTO item VALUES ('a', 1, 'then'), ('b', 2, 'then'), ('c', 3, 'then')");
    for (turn, (at, comes)) in [("reverting:1", false), ("reverted:1", true)].into_iter().enumerate() {
        b.sql(&format!(
            "DELETE FROM item WHERE id = 'a'; UPDATE item SET v = {turn} + 50; INSERT INTO item VALUES ('d', 4, 'new')"
        ));
        settled(&[&a, &b]);
        let now = a.dump();
        let arguments = ["snapshot", "restore", "--to-seq", &point, "--as-changes", "--config", "a.toml"];
        let died = finish(place.command(arguments).env(DIE_AT, at));
        assert_eq!(died.code, None, "{at}: it is killed");
        settled(&[&a, &b]);
        assert_eq!(b.dump(), if comes { then.clone() } else { now }, "{at}");
        assert_eq!(snapshot(&place, &["restore", "--to-seq", &point, "--as-changes"]).code, Some(0));
        settled(&[&a, &b]);
        assert_eq!(b.dump(), then);
    }
}
