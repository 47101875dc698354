//! `snapshot restore --in-place --offline`: another file gets the name of a database that nobody has open.

use antiphon_harness::{Ended, Place, Site, settled};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use super::back::stands;
use super::place;
use super::snapshots::Says as _;
use super::travel::{SOON, create, json, site, snapshot};

const FILL: &str = "INSERT INTO item VALUES (1, 1, 'one'), (2, 2.5, 'two'), (3, x'00ff', NULL);
    INSERT INTO tag VALUES ('a', 'first'), ('b', 'second')";

/// Two nodes that have a snapshot, what a stood at then, and what both have now.
struct World {
    place: Place,
    a: Site,
    b: Site,
    point: String,
    then: Vec<String>,
    now: Vec<String>,
}

impl World {
    fn new() -> Self {
        let place = place();
        let more = format!("{SOON}interval = 3600000\n");
        let (mut a, mut b) = (site(&place, "a", &more), site(&place, "b", &more));
        a.start();
        b.start();
        a.sql(FILL);
        settled(&[&a, &b]);
        create(&place, &[]);
        a.sql("UPDATE item SET note = 'then'");
        settled(&[&a, &b]);
        let point = stands(&a);
        let then = a.dump();
        b.sql("DELETE FROM tag; UPDATE item SET note = 'now'");
        settled(&[&a, &b]);
        let now = a.dump();
        Self { place, a, b, point, then, now }
    }

    /// Goes back to then.
    fn back(&self, more: &[&str]) -> Ended {
        snapshot(&self.place, &[&["restore", "--to-seq", &self.point, "--in-place", "--offline"], more].concat())
    }

    /// The node goes on, has what came later, and what is written to its file is sent.
    fn goes_on(&mut self) {
        // Nobody watches yet: what is written is noted all the same.
        self.a.sql("INSERT INTO item VALUES (88, 88, 'written since')");
        self.a.start();
        settled(&[&self.a, &self.b]);
        assert_eq!(self.b.one("SELECT count(*) FROM item WHERE id = 88"), "1");
        self.b.sql("DELETE FROM item WHERE id = 88");
        settled(&[&self.a, &self.b]);
        assert_eq!(self.a.dump(), self.now);
        self.a.term();
    }

    /// Files that were put aside.
    fn kept(&self) -> Vec<PathBuf> {
        let folder = self.place.path("").read_dir().unwrap().map(|entry| entry.unwrap().path());
        let mut kept: Vec<_> = folder.filter(|path| path.to_string_lossy().contains("a.db.before-restore-")).collect();
        kept.sort();
        kept
    }
}

/// The file is another one after it, and the old one is kept. It is refused while anybody has the file open, and where
/// something would be gone.
#[test]
fn a_database_that_nobody_has_open_is_replaced() {
    let mut world = World::new();
    world.back(&[]).says(6, &["a node runs beside"]);
    world.a.term();
    let path = world.place.path("a.db");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let before = path.metadata().unwrap().ino();
    // However an application has it open: this one idles, and has no lock.
    let app = rusqlite::Connection::open(&path).unwrap();
    world.back(&[]).says(6, &["has `", "a.db` open", &format!("process {}", std::process::id())]);
    app.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).unwrap();
    world.back(&[]).says(6, &["a.db` open"]);
    app.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
    drop(app);
    world.a.sql("CREATE TABLE later (id INTEGER PRIMARY KEY); INSERT INTO later VALUES (1)");
    world.back(&[]).says(6, &["table later is in no snapshot", "--discard-local"]);
    assert_eq!(path.metadata().unwrap().ino(), before);
    assert_eq!(world.a.one("PRAGMA journal_mode"), "wal");
    world.a.sql("DROP TABLE later; INSERT INTO item VALUES (77, 77, 'not sent')");
    world.back(&[]).says(6, &["changes that are not in the log", "--discard-local"]);
    world.back(&["--discard-local", "--dry-run"]).says(0, &["would be the database at"]);
    assert_eq!((path.metadata().unwrap().ino(), world.kept().len()), (before, 0));

    world
        .back(&["--discard-local"])
        .says(0, &["is the database at", "what was there is kept", "what came later comes in again"]);
    assert_eq!(world.a.dump(), world.then);
    assert_eq!(world.a.one("PRAGMA journal_mode"), "wal");
    let now = path.metadata().unwrap();
    assert!(now.ino() != before && now.mode() & 0o777 == 0o640 && now.nlink() == 1);
    let kept = world.kept();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0].metadata().unwrap().ino(), before);
    let kept = rusqlite::Connection::open(&kept[0]).unwrap();
    assert_eq!(
        kept.query_row("SELECT note FROM item WHERE id = 77", [], |row| row.get::<_, String>(0)).unwrap(),
        "not sent"
    );
    drop(kept);
    world.goes_on();

    // Nothing waits to be sent now. A file that keeps a rollback journal goes on with one.
    world.a.sql("PRAGMA journal_mode = DELETE");
    let said = json(&world.back(&["--json"]));
    assert_eq!((&said["rows"], &said["output"]), (&5.into(), &path.display().to_string().into()));
    assert_eq!(said["kept"], world.kept()[1].display().to_string());
    assert_eq!(world.a.one("PRAGMA journal_mode"), "delete");
    assert_eq!(world.a.dump(), world.then);
    world.goes_on();
    assert!(
        !world
            .place
            .path("")
            .read_dir()
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with(".antiphon-restore") })
    );
}

/// A file that SQLite can't read, with a `-wal` beside it that is not the new one's; and then none at all.
#[test]
fn a_database_that_is_damaged_or_gone_is_replaced() {
    let mut world = World::new();
    let (path, wal) = (world.place.path("a.db"), world.place.path("a.db-wal"));
    world.a.term();
    // What lies beside it has sound pages, and would be taken for the new file's.
    let app = world.a.connect();
    app.execute_batch("UPDATE item SET note = 'in the wal'").unwrap();
    let waits = std::fs::read(&wal).unwrap();
    assert!(!waits.is_empty());
    drop(app);
    std::fs::write(&path, b"this is no database any more").unwrap();
    std::fs::write(&wal, &waits).unwrap();
    world.back(&[]).says(6, &["can't be read", "--discard-local"]);
    world.back(&["--discard-local"]).says(0, &["is the database at", "what was there is kept"]);
    assert_eq!(world.a.dump(), world.then);
    let kept = world.kept();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert_eq!(std::fs::read(&kept[0]).unwrap(), b"this is no database any more");
    assert_eq!(std::fs::read(&kept[1]).unwrap(), waits);
    world.goes_on();

    std::fs::remove_file(&path).unwrap();
    std::fs::write(&wal, &waits).unwrap();
    let said = json(&world.back(&["--json"]));
    assert!(said["kept"].as_str().unwrap().ends_with("-wal"), "{said}");
    assert_eq!(world.a.dump(), world.then);
    world.goes_on();

    std::fs::remove_file(&path).unwrap();
    let said = json(&world.back(&["--json"]));
    assert_eq!(said["kept"], serde_json::Value::Null);
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
    world.goes_on();
    // What is another cluster's, or no node's, stays.
    std::fs::remove_file(&path).unwrap();
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE mine (id)").unwrap();
    world.back(&["--discard-local"]).says(6, &["belongs to no cluster"]);
    assert_eq!(world.a.one("SELECT name FROM sqlite_schema"), "mine");
}
