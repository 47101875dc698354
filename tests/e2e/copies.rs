//! C29, C30, C31, C114, C117: files that are copied, moved, replaced, brought back, and reached by other names.

use antiphon_harness::{Place, Signal, Site, eventually, goes_on, mounts_apart, settled};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";

/// Two members with some rows, both at rest.
fn pair(place: &Place) -> (Site, Site) {
    place.pair(TABLE, "INSERT INTO t VALUES (1, 'of a'), (2, 'of a')", "INSERT INTO t VALUES (3, 'of b')")
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Every entry's origin and number: no number may come twice, whoever copied whose outbox.
fn no_number_twice(place: &Place) {
    let mut seen = BTreeSet::new();
    for entry in place.entries(1).iter().skip(1) {
        assert!(
            seen.insert((entry.origin.node, entry.origin.incarnation, entry.number)),
            "{:?} {}",
            entry.origin,
            entry.number
        );
    }
}

/// A copy of a file at rest goes on from the same place, under a name of its own, and sends nothing it has copied.
#[test]
fn c30_a_copy_at_rest_is_a_node_of_its_own() {
    let place = place();
    let (mut a, mut b) = pair(&place);
    a.term();
    a.sql("PRAGMA wal_checkpoint(TRUNCATE)");
    let mut copy = place.copy("copy", &a);
    a.start();
    b.sql("INSERT INTO t VALUES (4, 'since')");
    settled(&[&a, &b]);
    let before = place.entries(1).len();
    copy.verb("repair", &[]).expect(65, &["this file is a copy of another node's", "`antiphon run` says"]);
    copy.start();
    assert!(copy.said().contains("a node of its own"), "{}", copy.said());
    assert_ne!(copy.node(), a.node());
    eventually("the copy catches up", || copy.one("SELECT count(*) FROM t") == "4");
    assert_eq!(place.entries(1).len(), before, "nothing copied is sent");
    goes_on(&[&a, &b, &copy]);
    no_number_twice(&place);
    copy.term();
    copy.start();
    assert!(copy.said().contains("went on where it stood"), "{}", copy.said());
    goes_on(&[&a, &b, &copy]);
    b.term();
}

/// What was on its way when the copy was made came from the original: the copy takes it from the log.
#[test]
fn c30_a_copy_with_batches_on_their_way_sends_none_of_them() {
    let place = place();
    let (mut a, b) = pair(&place);
    // Dies when its batch is in the log, and amid the transaction that would note so.
    a.term();
    a.set("ANTIPHON_DIE_AT", Some("confirmed:1"));
    a.sql("INSERT INTO t VALUES (5, 'on its way')");
    a.spawn();
    eventually("it dies", || !a.is_running());
    a.wait();
    a.set("ANTIPHON_DIE_AT", None::<String>);
    let mut copy = place.copy("copy", &a);
    assert_eq!(copy.one("SELECT count(*) FROM \"__antiphon___global_change_log\" WHERE state = 0"), "1");
    a.start();
    a.sql("UPDATE t SET v = 'newer' WHERE id = 5");
    eventually("the newer value is everywhere", || b.one("SELECT v FROM t WHERE id = 5") == "newer");
    let before = place.entries(1).len();
    copy.start();
    eventually("the copy has it, too", || copy.one("SELECT v FROM t WHERE id = 5") == "newer");
    assert_eq!(place.entries(1).len(), before, "nothing copied is sent");
    goes_on(&[&a, &b, &copy]);
    no_number_twice(&place);
}

/// Changes that are in no batch yet may be the original's or the copy's own: only the user knows.
#[test]
fn c30_a_copy_with_unsent_changes_asks() {
    for remedy in ["--discard-local", "--publish-local"] {
        let place = place();
        let (mut a, mut b) = pair(&place);
        a.term();
        a.sql("INSERT INTO t VALUES (6, 'unsent'); DELETE FROM t WHERE id = 1");
        let mut copy = place.copy("copy", &a);
        b.sql("UPDATE t SET v = 'since' WHERE id = 2");
        eventually("b is at rest", || b.is_quiet());
        let before = place.entries(1).len();
        copy.refused().expect(65, &["is a copy of node", "were not sent", "--discard-local", "--publish-local"]);
        copy.refused().expect(65, &["is a copy of node"]);
        assert_eq!(place.entries(1).len(), before);
        copy.verb("join", &[remedy]).expect(0, &["joined"]);
        copy.start();
        if remedy == "--discard-local" {
            assert_eq!(settled(&[&b, &copy]).len(), 3);
            assert_eq!(place.entries(1).len(), before, "nothing copied is sent");
            a.start();
            eventually("the original sends them", || copy.one("SELECT count(*) FROM t WHERE id = 6") == "1");
            goes_on(&[&a, &b, &copy]);
        } else {
            // Its own changes alone: row 2 is older here than in the log, and stays the log's.
            eventually("they are the copy's", || {
                b.rows("SELECT id, v FROM t ORDER BY id") == ["2|since", "3|of b", "6|unsent"]
            });
            goes_on(&[&b, &copy]);
        }
        no_number_twice(&place);
        b.term();
    }
}

/// A file that moves with its directory is the same node; one that moves alone might be a copy, and is safe as one.
#[test]
fn c30_a_move_with_the_directory_is_the_same_node() {
    let place = place();
    let (mut a, b) = pair(&place);
    let node = a.node();
    a.term();
    a.sql("INSERT INTO t VALUES (7, 'before the move')");
    let mut moved = place.bare("moved");
    std::fs::rename(&a.database, &moved.database).unwrap();
    std::fs::rename(a.state(), moved.state()).unwrap();
    moved.start();
    assert!(moved.said().contains("went on where it stood"), "{}", moved.said());
    assert_eq!(moved.node(), node);
    eventually("it sends what it had", || b.one("SELECT count(*) FROM t WHERE id = 7") == "1");
    goes_on(&[&moved, &b]);
    moved.term();
    let mut alone = place.bare("alone");
    std::fs::rename(&moved.database, &alone.database).unwrap();
    alone.start();
    assert!(alone.said().contains("a node of its own"), "{}", alone.said());
    goes_on(&[&alone, &b]);
    no_number_twice(&place);
}

/// File and directory copied: by its inode the file is known for what it is, whether the original runs or not.
#[test]
fn c29_a_copy_with_its_directory_is_no_second_one() {
    let place = place();
    let (mut a, b) = pair(&place);
    a.term();
    let mut copy = place.copy("copy", &a);
    copy_folder(&a.state(), &copy.state());
    a.start();
    copy.start();
    assert_ne!(copy.node(), a.node());
    goes_on(&[&a, &b, &copy]);
    no_number_twice(&place);
}

/// An image of a whole machine has even the inode in common. Of two that run, the second is refused.
#[test]
fn c29_a_clone_to_the_last_note_is_refused() {
    let place = place();
    let (mut a, b) = pair(&place);
    a.term();
    let mut clone = place.copy("clone", &a);
    copy_folder(&a.state(), &clone.state());
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&clone.database).unwrap());
    let note = std::fs::read_to_string(clone.state().join("life")).unwrap();
    let lines = note
        .lines()
        .map(|line| if line.starts_with("inode ") { format!("inode {inode}\n") } else { format!("{line}\n") });
    std::fs::write(clone.state().join("life"), lines.collect::<String>()).unwrap();
    a.start();
    let asked = Instant::now();
    clone.refused().expect(75, &["runs already, on another copy of this file", "hint: "]);
    assert!(asked.elapsed() < Duration::from_secs(5));
    goes_on(&[&a, &b]);
    no_number_twice(&place);
    // What the hint says helps.
    std::fs::remove_dir_all(clone.state()).unwrap();
    clone.start();
    goes_on(&[&a, &b, &clone]);
    no_number_twice(&place);
}

/// One database, two hosts: by the same name, a symbolic link, another directory's view of it.
#[test]
fn c31_a_second_host_is_refused_by_whatever_name_it_comes() {
    let place = place();
    let (mut a, b) = pair(&place);
    let second = |named: &Path| {
        let named = named.to_str().unwrap();
        place.run(["run", named, "--log", "log"]).expect(75, &["another Antiphon runs on", "hint: "]);
    };
    second(&a.database);
    let link = place.path("link.db");
    std::os::unix::fs::symlink(&a.database, &link).unwrap();
    second(&link);
    let view = place.path("view");
    std::os::unix::fs::symlink(a.database.parent().unwrap(), &view).unwrap();
    second(&view.join("a.db"));
    let hard = place.path("hard.db");
    std::fs::hard_link(&a.database, &hard).unwrap();
    second(&hard);
    std::fs::remove_file(&hard).unwrap();
    assert!(a.is_running());
    goes_on(&[&a, &b]);
}

/// A bind mount shows the same file under another path, with another directory beside it.
#[test]
fn c31_a_bind_mount_is_the_same_file() {
    let Some(_) = mounts_apart("true") else { return };
    let place = place();
    let (mut a, b) = pair(&place);
    let view = place.path("view/a.db");
    std::fs::create_dir_all(view.parent().unwrap()).unwrap();
    std::fs::write(&view, "").unwrap();
    let mount = |arguments: &[&str]| {
        std::process::Command::new(arguments[0]).args(&arguments[1..]).output().is_ok_and(|done| done.status.success())
    };
    assert!(mount(&["mount", "--bind", a.database.to_str().unwrap(), view.to_str().unwrap()]));
    let refused = place.run(["run", view.to_str().unwrap(), "--log", "log"]);
    assert!(mount(&["umount", view.to_str().unwrap()]));
    refused.expect(75, &["another Antiphon runs on"]);
    assert!(a.is_running());
    goes_on(&[&a, &b]);
}

/// By a second name SQLite would keep a second `-wal`, and damage the file.
#[test]
fn c117_a_file_with_two_names_is_refused() {
    let place = place();
    let mut a = place.site("a", TABLE);
    let other = place.path("other.db");
    std::fs::hard_link(&a.database, &other).unwrap();
    a.refused().expect(65, &["has 2 names (hard links)", "hint: "]);
    std::fs::remove_file(other).unwrap();
    a.start();
}

/// Whoever names a link means the file: its directory and its `-wal` lie beside the file.
#[test]
fn c117_a_symbolic_link_leads_to_the_file() {
    let place = place();
    let mut a = place.site("a", TABLE);
    let mut b = place.site("b", TABLE);
    let link = place.path("links/app.db");
    std::fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("../a.db", &link).unwrap();
    a = a.arguments(["run", link.to_str().unwrap(), "--log", "log"]);
    a.start();
    b.start();
    goes_on(&[&a, &b]);
    assert!(a.state().join("life").exists());
    assert_eq!(std::fs::read_dir(link.parent().unwrap()).unwrap().count(), 1, "nothing lies beside the link");
}

/// Ends it and says why; nothing of the difference is in the log.
#[track_caller]
fn stops(site: &mut Site, place: &Place, entries: usize, words: &[&str]) {
    eventually("it stops", || !site.is_running());
    let code = site.wait().code();
    let said = site.said();
    assert!(matches!(code, Some(65 | 66)), "{code:?} {said}");
    for word in words.iter().chain(&["hint: "]) {
        assert!(said.contains(word), "`{word}` is not in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(place.entries(1).len(), entries, "nothing was sent");
}

/// Another database under the name while the host runs.
#[test]
fn c114_a_file_put_in_place_of_the_database_stops_the_host() {
    let place = place();
    let (mut a, b) = pair(&place);
    let before = place.entries(1).len();
    let new = place.site("new", &format!("{TABLE} INSERT INTO t VALUES (3, 'of b')"));
    new.sql("PRAGMA wal_checkpoint(TRUNCATE)");
    std::fs::rename(&new.database, &a.database).unwrap();
    stops(&mut a, &place, before, &["another file has taken the place of"]);
    // SQLite's companions of the file that is gone are not the new one's.
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(a.database.with_file_name(format!("a.db{end}")));
    }
    a.refused().expect(65, &["has 1 row here and 3 in the cluster", "--discard-local"]);
    assert_eq!(place.entries(1).len(), before, "no row was sent as deleted");
    assert_eq!(b.one("SELECT count(*) FROM t"), "3");
    a.verb("join", &["--discard-local"]).expect(0, &["joined"]);
    a.start();
    goes_on(&[&a, &b]);
}

/// F13: a symbolic link that leads to another file after a while.
#[test]
fn f13_a_link_that_is_turned_stops_the_host() {
    let place = place();
    let (mut a, b) = pair(&place);
    a.term();
    let link = place.path("current.db");
    std::os::unix::fs::symlink(&a.database, &link).unwrap();
    let mut a = a.arguments(["run", link.to_str().unwrap(), "--log", "log"]);
    a.start();
    let before = place.entries(1).len();
    let other = place.site("other", TABLE);
    std::os::unix::fs::symlink(&other.database, place.path("next.db")).unwrap();
    std::fs::rename(place.path("next.db"), &link).unwrap();
    stops(&mut a, &place, before, &["another file has taken the place of"]);
    assert_eq!(b.one("SELECT count(*) FROM t"), "3");
}

/// A database that is deleted is not a database whose rows were deleted.
#[test]
fn c114_a_deleted_database_stops_the_host() {
    let place = place();
    let (mut a, b) = pair(&place);
    let before = place.entries(1).len();
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(a.database.with_file_name(format!("a.db{end}")));
    }
    stops(&mut a, &place, before, &["was deleted or moved away"]);
    a.refused().expect(66, &["cannot open database"]);
    // A new one with the same tables gets its rows from the log.
    let mut a = place.site("a", TABLE);
    a.start();
    eventually("the rows are back", || a.one("SELECT count(*) FROM t") == "3");
    goes_on(&[&a, &b]);
    no_number_twice(&place);
}

/// A member with a backup that lacks what came since, at rest and stopped.
fn with_backup(place: &Place) -> (Site, Site, std::path::PathBuf) {
    let (mut a, b) = pair(place);
    a.term();
    let backup = place.path("backup.db");
    a.sql("PRAGMA wal_checkpoint(TRUNCATE)");
    std::fs::copy(&a.database, &backup).unwrap();
    a.start();
    a.sql("INSERT INTO t VALUES (10, 'since'); UPDATE t SET v = 'since' WHERE id = 1");
    b.sql("INSERT INTO t VALUES (11, 'since'); DELETE FROM t WHERE id = 3");
    eventually("all is everywhere", || [&a, &b].iter().all(|site| site.one("SELECT count(*) FROM t") == "4"));
    settled(&[&a, &b]);
    (a, b, backup)
}

/// A backup brought back while the host was down is known, and the user says what it means.
#[test]
fn c114_an_older_file_is_known_and_the_user_decides() {
    for (how, remedy) in [("cp", "--discard-local"), ("mv", "--discard-local"), ("cp", "--publish-local")] {
        let place = place();
        let (mut a, b, backup) = with_backup(&place);
        a.term();
        a.sql("PRAGMA wal_checkpoint(TRUNCATE)");
        let before = place.entries(1).len();
        if how == "cp" {
            std::fs::copy(&backup, &a.database).unwrap();
        } else {
            std::fs::rename(&backup, &a.database).unwrap();
        }
        a.refused().expect(65, &["is older than the one this node ran on", "--discard-local", "--publish-local"]);
        assert_eq!(place.entries(1).len(), before, "{how}: nothing was sent");
        a.verb("join", &[remedy]).expect(0, &["joined"]);
        a.start();
        if remedy == "--discard-local" {
            assert_eq!(settled(&[&a, &b]).len(), 4);
            assert_eq!(place.entries(1).len(), before, "{how}: the past was not sent");
        } else {
            eventually("its rows are the cluster's", || b.one("SELECT v FROM t WHERE id = 1") == "of a");
            assert_eq!(b.one("SELECT count(*) FROM t"), "5", "what came since elsewhere stays");
        }
        goes_on(&[&a, &b]);
        no_number_twice(&place);
    }
}

/// A backup restored through SQLite, into the file the host has open.
#[test]
fn c114_an_older_content_under_a_running_host_stops_it() {
    let place = place();
    let (mut a, b, backup) = with_backup(&place);
    let before = place.entries(1).len();
    let mut conn = a.connect();
    conn.restore(rusqlite::MAIN_DB, &backup, None::<fn(rusqlite::backup::Progress)>).unwrap();
    conn.execute_batch("INSERT INTO t VALUES (12, 'wakes the host')").unwrap();
    stops(&mut a, &place, before, &["the database was replaced by another while it was replicated"]);
    a.refused().expect(65, &["is older than the one this node ran on"]);
    assert_eq!(b.one("SELECT count(*) FROM t"), "4");
    a.verb("join", &["--discard-local"]).expect(0, &["joined"]);
    a.start();
    goes_on(&[&a, &b]);
}

/// F13: a file that this user may not open is not replicated, and the user is told as whom to run.
#[test]
fn f13_a_file_without_rights_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    let place = place();
    let mut a = place.site("a", TABLE);
    a.start();
    // Whoever has the file open goes on.
    std::fs::set_permissions(&a.database, std::fs::Permissions::from_mode(0o000)).unwrap();
    goes_on(&[&a]);
    a.stop(Signal::TERM);
    if !rustix::process::geteuid().is_root() {
        a.refused().expect(66, &["cannot open database", "hint: "]);
        return;
    }
    // Root may open anything: be another user.
    std::fs::set_permissions(a.database.parent().unwrap(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut command =
        a.command(&["run", a.database.to_str().unwrap(), "--log", place.path("other-log").to_str().unwrap()]);
    let refused = antiphon_harness::finish(command.uid(65_534).gid(65_534).env("XDG_CACHE_HOME", place.path("cache")));
    refused.expect(66, &["cannot open database", "run this as the user the application runs as"]);
}
