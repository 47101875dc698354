//! Going back in time: asking the past, comparing with it, and bringing it back into a cluster that runs.

use antiphon_harness::{Ended, Place, Site, eventually, settled};

use super::place;
use super::snapshots::Says as _;
use super::travel::{SOON, archived, create, json, rows_of, site, snapshot};

fn two(place: &Place) -> (Site, Site) {
    let more = format!(
        "{SOON}interval = 3600000\n[[conflict.table]]\nmatch = \"stock\"\nuse = \"counter\"\nsettings = {{ columns = \"n\" }}\n"
    );
    (site(place, "a", &more), site(place, "b", &more))
}

fn at(place: &Place, arguments: &[&str]) -> Ended {
    place.run([&["at"], arguments, &["--config", "a.toml"]].concat())
}

/// Where a node stands, as an argument.
pub(super) fn stands(site: &Site) -> String {
    site.one("SELECT shard || ':' || seq FROM \"__antiphon___position\"")
}

const FILL: &str = "INSERT INTO item VALUES (1, 1, 'one'), (2, 2.5, 'two'), (3, x'00ff', NULL);
    INSERT INTO tag VALUES ('a', 'first'), ('b', 'second'), ('c', NULL);
    INSERT INTO stock VALUES (1, 100, 'full')";

/// A deletion is found by asking the past and undone while both nodes run: both have what was there, what came later and
/// was not touched stays out, and the application's own triggers take no part.
#[test]
fn a_cluster_goes_back_by_changes() {
    let place = place();
    let (mut a, mut b) = two(&place);
    a.sql(
        "CREATE TABLE noted (id INTEGER PRIMARY KEY, what TEXT);
           CREATE TRIGGER notes AFTER UPDATE ON item BEGIN INSERT INTO noted (what) VALUES ('update ' || NEW.id); END",
    );
    b.sql("CREATE TABLE noted (id INTEGER PRIMARY KEY, what TEXT)");
    a.start();
    b.start();
    a.sql(FILL);
    settled(&[&a, &b]);
    create(&place, &[]);
    b.sql("UPDATE item SET v = 22 WHERE id = 2; UPDATE stock SET n = n - 7");
    settled(&[&a, &b]);
    let (point, then) = (stands(&a), a.dump());
    let moment = json(&snapshot(&place, &["restore", "--json", "--output", "then.db", "--to-seq", &point]));
    assert_eq!(moment["left_out"], 0);
    assert_eq!(rows_of(&place.path("then.db")), then);
    // Names change hands, so that rows stand in each other's way; the rest is a mess of every kind.
    a.sql(
        "DELETE FROM item; UPDATE tag SET name = 'other' WHERE id = 'a'; UPDATE tag SET name = 'first' WHERE id = 'b';
           INSERT INTO tag VALUES ('d', 'second')",
    );
    b.sql("UPDATE stock SET n = 5, note = NULL; INSERT INTO item VALUES (9, 9, 'new')");
    settled(&[&a, &b]);
    let mess = a.dump();

    let asked = at(&place, &[&point, "SELECT id, v, note FROM item ORDER BY id"]);
    asked.says(0, &[]);
    assert_eq!(asked.stdout, "id  v        note\n1   1        one\n2   22       two\n3   x'00ff'  NULL\n");
    assert!(asked.stderr.contains(&format!("at {point}")), "{}", asked.stderr);
    let asked = at(&place, &[&point, "--csv", "SELECT name FROM tag ORDER BY id"]);
    assert_eq!(asked.stdout, "name\r\nfirst\r\nsecond\r\n\r\n");
    let asked = at(&place, &["--json", &point, "SELECT n, note FROM stock"]);
    assert_eq!(asked.stdout, "{\"n\":93,\"note\":\"full\"}\n");
    at(&place, &[&point, "DELETE FROM item"]).says(2, &["the past can only be read"]);
    at(&place, &[&point, "ATTACH 'x.db' AS x"]).says(1, &["the query can't be answered"]);
    at(&place, &[&point, "SELECT 1; SELECT 2"]).says(1, &["Multiple statements"]);
    at(&place, &["live", "SELECT 1"]).says(2, &["no point in time"]);

    let said = snapshot(&place, &["diff", &point, "live"]);
    said.says(
        0,
        &["table item: differs: 3 only in A, 1 only in B", "table stock: differs: 0 only in A, 0 only in B, 1"],
    );
    let said = snapshot(&place, &["diff", &point, "live", "--table", "tag", "--rows"]);
    said.says(0, &["table tag: differs", "A has 'first', B has 'other'"]);
    assert!(!said.stdout.contains("table item"), "{}", said.stdout);

    let back = |more: &[&str]| snapshot(&place, &[&["restore", "--to-seq", &point, "--as-changes"], more].concat());
    back(&["--dry-run"])
        .says(0, &["would have the rows", "table item: 3 inserted, 0 updated, 1 deleted", "nothing was changed"]);
    settled(&[&a, &b]);
    assert_eq!(a.dump(), mess);
    let undo = stands(&a);
    let said = back(&[]);
    said.says(0, &["table item: 3 inserted, 0 updated, 1 deleted", "the others follow", &undo]);
    settled(&[&a, &b]);
    assert_eq!(b.dump(), then);
    assert_eq!(a.one("SELECT count(*) FROM noted"), "0");
    assert_eq!(a.one("SELECT count(*) FROM sqlite_schema WHERE name = 'notes'"), "1", "the trigger is there again");
    // One table alone, and back again.
    let said = snapshot(&place, &["restore", "--to-seq", &undo, "--as-changes", "--table", "stock"]);
    said.says(0, &["table stock: 0 inserted, 1 updated, 0 deleted"]);
    settled(&[&a, &b]);
    assert_eq!(b.one("SELECT n FROM stock"), "5");
    assert_eq!(b.one("SELECT count(*) FROM item"), "3");
    back(&[]).says(0, &[]);
    settled(&[&a, &b]);
    assert_eq!(b.dump(), then);
    // Nodes go on as ever.
    b.sql("UPDATE stock SET n = n + 1");
    settled(&[&a, &b]);
    assert_eq!(a.one("SELECT n FROM stock"), "94");
}

/// What was asked once is there for the next question, for its owner alone.
#[test]
fn the_past_is_kept_for_the_next_question() {
    let place = place();
    let (mut a, _) = two(&place);
    a.start();
    a.sql(FILL);
    eventually("it is sent", || a.is_quiet());
    let id = create(&place, &[]);
    a.sql("DELETE FROM item");
    eventually("it is sent", || a.is_quiet());
    let point = stands(&a);
    let end: u64 = point.rsplit_once(':').unwrap().1.parse().unwrap();
    eventually("it is archived", || archived(&place).get(&1) == Some(&end));
    let home = place.path("home");
    std::fs::create_dir(&home).unwrap();
    let ask = |point: &str| {
        let mut command = place.command(["at", point, "SELECT count(*) AS n FROM item", "--config", "a.toml"]);
        antiphon_harness::finish(command.env("HOME", &home).env_remove("XDG_CACHE_HOME")).stdout
    };
    assert_eq!(ask(&point), "n\n0\n");
    assert_eq!(ask(&id), "n\n3\n");
    let folder = home.join(".cache/antiphon/points");
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap()).collect();
        files.sort_by_key(std::fs::DirEntry::file_name);
        files
    };
    assert_eq!(files().len(), 4, "two databases, and where each stands");
    for file in files() {
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600, "{file:?}");
    }
    // Now they have to do: there is nothing to make them from.
    let segments = |folder: &std::path::Path| {
        let base = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).next().unwrap();
        base.join("base")
    };
    std::fs::rename(segments(&place.path("log/snapshots")), place.path("away")).unwrap();
    assert_eq!(ask(&point), "n\n0\n");
    assert_eq!(ask(&id), "n\n3\n");
    at(&place, &["--allow-hole", &id, "SELECT 1"]).says(66, &["failed to download snapshot"]);
}

/// In place: not while a node runs, not over what is not sent; then in one transaction, and what came later comes in again.
#[test]
fn a_database_goes_back_in_place() {
    let place = place();
    let (mut a, mut b) = two(&place);
    a.start();
    b.start();
    a.sql(FILL);
    settled(&[&a, &b]);
    create(&place, &[]);
    a.sql("UPDATE item SET note = 'then'");
    settled(&[&a, &b]);
    let (point, then) = (stands(&a), a.dump());
    b.sql("DELETE FROM tag; UPDATE stock SET n = n + 11");
    settled(&[&a, &b]);
    let now = a.dump();
    let back = |more: &[&str]| snapshot(&place, &[&["restore", "--to-seq", &point, "--in-place"], more].concat());
    back(&[]).says(6, &["a node runs beside", "--as-changes"]);
    a.term();
    a.sql("INSERT INTO item VALUES (77, 77, 'not sent')");
    back(&[]).says(6, &["changes that are not in the log", "--discard-local"]);
    back(&["--table", "item", "--discard-local"]).says(2, &["--as-changes"]);
    back(&["--dry-run", "--discard-local"]).says(0, &["would be the database at"]);
    assert_eq!(a.one("SELECT count(*) FROM item"), "4");
    // The application goes on reading meanwhile, and sees the one or the other.
    let reader = a.connect();
    back(&["--discard-local"]).says(0, &["is at", "what came later comes in again"]);
    assert_eq!(reader.query_row("SELECT count(*) FROM tag", [], |row| row.get::<_, u32>(0)).unwrap(), 3);
    assert_eq!(a.dump(), then);
    a.sql("INSERT INTO item VALUES (88, 88, 'written since')");
    a.start();
    settled(&[&a, &b]);
    assert_eq!(b.one("SELECT count(*) FROM item WHERE id = 88"), "1");
    b.sql("DELETE FROM item WHERE id = 88");
    settled(&[&a, &b]);
    assert_eq!(a.dump(), now);
    // A snapshot by its name does as well.
    a.term();
    let id = create_by(&place, "b");
    let said = json(&snapshot(&place, &["restore", &id, "--in-place", "--json"]));
    assert_eq!((&said["snapshot"], &said["rows"]), (&id.as_str().into(), &0.into()));
    assert_eq!(a.dump(), now);
    a.start();
    a.sql("UPDATE stock SET n = n + 1");
    settled(&[&a, &b]);
}

fn create_by(place: &Place, name: &str) -> String {
    let made = json(&place.run(["snapshot", "create", "--json", "--config", &format!("{name}.toml")]));
    made["id"].as_str().unwrap().to_owned()
}

/// Tables alone, without what belongs to others.
#[test]
fn single_tables_come_back() {
    let place = place();
    let (mut a, _) = two(&place);
    a.sql("CREATE VIEW all_items AS SELECT * FROM item; CREATE INDEX by_note ON item (note)");
    a.start();
    a.sql(FILL);
    eventually("it is sent", || a.is_quiet());
    create(&place, &[]);
    a.sql("UPDATE item SET note = 'later'");
    eventually("it is sent", || a.is_quiet());
    let point = stands(&a);
    let said = snapshot(&place, &["restore", "--to-seq", &point, "--table", "ITEM", "--output", "item.db"]);
    said.says(0, &["holds  3 rows"]);
    let rows = rows_of(&place.path("item.db"));
    assert!(rows.len() == 3 && rows.iter().all(|row| row.starts_with("item: ")), "{rows:?}");
    let conn = rusqlite::Connection::open(place.path("item.db")).unwrap();
    let names: String =
        conn.query_row("SELECT group_concat(name) FROM sqlite_schema ORDER BY name", [], |row| row.get(0)).unwrap();
    assert_eq!(names, "item,by_note");
    let said = snapshot(&place, &["restore", "--table", "nothing", "--output", "x.db"]);
    said.says(66, &["there is no table `nothing` at this point"]);
    assert!(!place.path("x.db").exists());
}

/// Points before and after a change of policies come back by the policies of then, whatever the configuration says now.
#[test]
fn points_around_a_change_of_policies_come_back() {
    let place = place();
    let more = format!("{SOON}interval = 3600000\n");
    let (mut a, mut b) = (site(&place, "a", &more), site(&place, "b", &more));
    a.start();
    b.start();
    a.sql(FILL);
    settled(&[&a, &b]);
    create(&place, &[]);
    let mut points = Vec::new();
    // Both add to the same row without knowing of each other.
    let mut add = |a: &mut Site, b: &mut Site| {
        b.term();
        a.sql("UPDATE stock SET n = n + 1");
        eventually("it is in the log", || a.is_quiet());
        b.sql("UPDATE stock SET n = n + 20");
        b.start();
        settled(&[&*a, &*b]);
        points.push((stands(a), a.dump()));
        a.one("SELECT n FROM stock")
    };
    assert_eq!(add(&mut a, &mut b), "120", "the later one counts");
    let counting = "[[conflict.table]]\nmatch = \"stock\"\nuse = \"counter\"\nsettings = { columns = \"n\" }\n";
    let text = format!("db_path = \"a.db\"\n[log]\npath = \"log\"\n{more}{counting}");
    place.file("a.toml", &text);
    place.run(["policy", "apply", "--config", "a.toml"]).says(0, &[]);
    eventually("it is in force", || {
        [&a, &b].iter().all(|site| site.said().contains("other policies hold from here on"))
    });
    assert_eq!(add(&mut a, &mut b), "141", "both count");
    create(&place, &["--incremental"]);
    assert_eq!(add(&mut a, &mut b), "162");
    for (at, (point, expected)) in points.iter().enumerate() {
        let file = format!("{at}.db");
        snapshot(&place, &["restore", "--to-seq", point, "--output", &file]).says(0, &[]);
        assert_eq!(&rows_of(&place.path(&file)), expected, "{point}");
    }
}
