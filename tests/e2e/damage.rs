//! Files that are no sound database: neither captured nor applied, and not touched.

use antiphon_harness::{Place, Site};
use std::os::unix::fs::FileExt as _;

use super::place;

/// A founder that runs, and a file that will be damaged.
fn damaged(damage: impl FnOnce(&std::fs::File)) -> (Place, Site, Site) {
    let place = place();
    let schema = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); CREATE INDEX by_v ON t (v);";
    let mut a = place.site("a", schema);
    a.start();
    let fill = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
                INSERT INTO t SELECT i, printf('%0200d', i) FROM n; PRAGMA wal_checkpoint(TRUNCATE);";
    let b = place.site("b", &format!("{schema} {fill}"));
    damage(&std::fs::OpenOptions::new().write(true).read(true).open(&b.database).unwrap());
    (place, a, b)
}

#[track_caller]
fn is_left_alone(site: &mut Site) {
    let before = std::fs::read(&site.database).unwrap();
    site.refused().expect(65, &["is damaged", "nothing of `", "restore the file from a backup", ".recover"]);
    assert!(std::fs::read(&site.database).unwrap() == before, "the file was touched");
    site.verb("join", &["--discard-local"]).expect(65, &["is damaged", "restore the file from a backup"]);
    assert!(std::fs::read(&site.database).unwrap() == before, "the file was touched");
}

#[test]
fn bytes_overwritten_in_the_middle() {
    let (_place, mut a, mut b) = damaged(|file| {
        let middle = file.metadata().unwrap().len() / 2;
        file.write_all_at(&[0xa5; 3 * 4096], middle).unwrap();
    });
    is_left_alone(&mut b);
    assert!(a.is_running());
    assert_eq!(a.one("SELECT count(*) FROM t"), "0");
}

#[test]
fn the_first_page_overwritten() {
    let (_place, _a, mut b) = damaged(|file| file.write_all_at(&[0; 4096], 100).unwrap());
    is_left_alone(&mut b);
}

#[test]
fn a_truncated_file() {
    let (_place, _a, mut b) =
        damaged(|file| file.set_len(file.metadata().unwrap().len() * 2 / 3 / 4096 * 4096).unwrap());
    is_left_alone(&mut b);
}

#[test]
fn cut_within_a_page() {
    let (_place, _a, mut b) = damaged(|file| file.set_len(file.metadata().unwrap().len() / 2 + 1000).unwrap());
    is_left_alone(&mut b);
}

#[test]
fn a_text_file() {
    let (_place, _a, mut b) = damaged(|file| {
        file.set_len(0).unwrap();
        file.write_all_at(&b"Dear diary, this is not a database.\n".repeat(500), 0).unwrap();
    });
    is_left_alone(&mut b);
}

#[test]
fn a_database_that_is_not_there() {
    let place = place();
    let mut a = place.bare("a");
    a.refused().expect(66, &["cannot open database", "it has to exist already"]);
    assert!(!a.database.exists(), "it was not made");
    assert!(!a.state().exists(), "nor anything beside it");
    place.run(["cleanup", "a.db"]).expect(66, &["cannot open database"]);
    place.run(["join", "a.db", "--discard-local"]).expect(66, &["cannot open database"]);
    let mut folder = place.bare("folder");
    std::fs::create_dir(&folder.database).unwrap();
    folder.refused();
}
