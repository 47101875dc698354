//! An embedded log that is lost begins again with what one node has.

use antiphon_harness::{Place, Site, eventually, settled};

use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";

fn site(place: &Place, name: &str) -> Site {
    let text = format!(
        "db_path = \"{name}.db\"\n[log]\npath = \"log\"\n[snapshot]\ninterval = 0\nstore = 'file'\n\
         [snapshot.file]\npath = 'snapshots'\n"
    );
    place.file(&format!("{name}.toml"), &text);
    place.site(name, TABLE).arguments(["run", "--config", &format!("{name}.toml")])
}

/// Two nodes that have stopped, each with a row that nobody else has, and the second a little behind.
fn two(place: &Place) -> (Site, Site) {
    let (mut a, mut b) = (site(place, "a"), site(place, "b"));
    a.start();
    b.start();
    for id in 0..20 {
        a.sql(&format!("INSERT INTO t VALUES ({id}, 'first')"));
    }
    settled(&[&a, &b]);
    b.term();
    a.sql("UPDATE t SET v = 'second' WHERE id < 10");
    eventually("it is sent", || a.is_quiet());
    a.term();
    a.sql("INSERT INTO t VALUES (100, 'of a')");
    b.sql("INSERT INTO t VALUES (200, 'of b'); DELETE FROM t WHERE id = 15");
    (a, b)
}

fn go_on(a: &mut Site, b: &mut Site) {
    a.start();
    b.start();
    assert!(b.said().contains("went on from a snapshot"), "{}", b.said());
    settled(&[a, b]);
    assert_eq!(b.one("SELECT count(*) || ' ' || sum(v = 'second') || ' ' || sum(v LIKE 'of %') FROM t"), "21 10 2");
    b.sql("INSERT INTO t VALUES (300, 'later')");
    settled(&[a, b]);
}

/// C66: the log's directory is gone.
#[test]
fn c66_a_deleted_directory_of_a_log_begins_again() {
    let place = place();
    let (mut a, mut b) = two(&place);
    std::fs::remove_dir_all(place.path("log")).unwrap();
    a.refused().expect(65, &["there is no log", "antiphon log reseed"]);
    assert!(!place.path("log").exists(), "nothing is made in its place");
    let reseeded = place.run(["log", "reseed", "--config", "a.toml"]);
    assert_eq!(reseeded.code, Some(0), "{}", reseeded.stderr);
    go_on(&mut a, &mut b);
}

/// What was archived of the log that is lost stays, and the one that begins again is archived as any other.
#[test]
fn c65_points_of_before_and_after_are_there() {
    let place = place();
    let (mut a, mut b) = (site(&place, "a"), site(&place, "b"));
    a.start();
    b.start();
    a.sql("INSERT INTO t VALUES (1, 'before')");
    settled(&[&a, &b]);
    let create = || {
        let made = place.run(["snapshot", "create", "--config", "a.toml"]);
        assert_eq!(made.code, Some(0), "{}", made.stderr);
    };
    create();
    let restored = |arguments: &[&str]| {
        let place_of = "restored.db";
        let _ = std::fs::remove_file(place.path(place_of));
        let config = ["--output", place_of, "--config", "a.toml"];
        let done = place.run([&["snapshot", "restore"], arguments, &config].concat());
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        let conn = rusqlite::Connection::open(place.path(place_of)).unwrap();
        conn.query_row("SELECT group_concat(v, ' ') FROM (SELECT v FROM t ORDER BY id)", [], |row| {
            row.get::<_, String>(0)
        })
        .unwrap()
    };
    assert_eq!(restored(&[]), "before");
    let first = place.run(["snapshot", "list", "--json", "--config", "a.toml"]).stdout;
    let first: serde_json::Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    let id = first["id"].as_str().unwrap().to_owned();
    a.term();
    b.term();
    std::fs::remove_dir_all(place.path("log")).unwrap();
    assert_eq!(place.run(["log", "reseed", "--config", "a.toml"]).code, Some(0));
    a.start();
    b.start();
    b.sql("INSERT INTO t VALUES (2, 'after')");
    settled(&[&a, &b]);
    create();
    a.sql("INSERT INTO t VALUES (3, 'later')");
    settled(&[&a, &b]);
    create();
    assert_eq!(restored(&[]), "before after later");
    assert_eq!(restored(&[&id]), "before");
    let checked = place.run(["repo", "check", "--read-data", "--config", "a.toml"]);
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
}

/// A log that no node can go on from is let go of, if the user says so, and only then.
#[test]
fn c66_a_log_is_let_go_of_only_if_that_is_said() {
    let place = place();
    let (mut a, mut b) = two(&place);
    let refused = place.run(["log", "reseed", "--config", "a.toml"]);
    assert_eq!(refused.code, Some(6), "{}", refused.stderr);
    assert!(refused.stderr.contains("the log holds entries"), "{}", refused.stderr);
    // Whoever has just left said so; one that died may still be there.
    let reseeded = place.run(["log", "reseed", "--discard-log", "--config", "a.toml"]);
    assert_eq!(reseeded.code, Some(0), "{}", reseeded.stderr);
    go_on(&mut a, &mut b);
}

/// While a node runs its log is not taken away.
#[test]
fn c66_a_log_that_is_in_use_is_not_let_go_of() {
    let place = place();
    let (a, mut b) = two(&place);
    b.start();
    let refused = place.run(["log", "reseed", "--discard-log", "--config", "a.toml"]);
    assert_eq!(refused.code, Some(75), "{}", refused.stderr);
    assert!(refused.stderr.contains("stop all nodes"), "{}", refused.stderr);
    drop(a);
}
