//! F01: the points that only a snapshot comes by: while it is made, brought back, or removed.
//!
//! Whatever had been done, the newest that counts can be restored, and the application and its other nodes notice nothing.

use super::*;
use antiphon_harness::{Ended, finish};

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

#[test]
fn f01_deaths_around_snapshots() {
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
    let steps = [
        ("snapshot-copied:1", false),
        ("snapshot-drained:1", false),
        ("snapshot-put:1", false),
        ("snapshot-put:2", false),
        ("snapshot-commit:1", false),
        ("snapshot-committed:1", true),
    ];
    for (at, (point, counts)) in steps.into_iter().enumerate() {
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
        comes_back(&mut a);
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
