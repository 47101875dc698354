//! Objects as files in a folder.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use antiphon_core::store::{ErrorKind, LIST_MAX, Name, Put, Store as _};
use antiphon_harness::Place;
use antiphon_plugin::{Grants, Limits, Pace, Storage};

use super::{HOST, conforms, name, official};

fn open(folder: &Path) -> Storage {
    let grants = Grants { folder: Some(folder.to_owned()), ..Grants::default() };
    HOST.storage(
        &official("file"),
        &[],
        grants,
        Limits { memory_bytes: 128 << 20, ..Limits::default() },
        Pace::default(),
    )
    .unwrap()
}

/// Everything below a folder, with its folders.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(walk(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

#[test]
fn the_suite() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("objects"));
    conforms(&store);
    // Nothing is left of all that but the folder.
    assert_eq!(walk(folder.path()), [folder.path().join("objects")]);
    assert!(store.memory_peak() < 128 << 20, "{}", store.memory_peak());
}

#[test]
fn files_and_folders_are_their_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("objects");
    let store = open(&root);
    store.put(&name("a/b/c"), b"x", Put::Replace).unwrap();
    store.put(&name("a/d"), b"x", Put::IfAbsent).unwrap();
    for path in walk(folder.path()) {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, wanted, "{} has {mode:o}", path.display());
    }
    // The rest of the process makes files as before.
    let own = folder.path().join("own");
    fs::write(&own, "").unwrap();
    assert_ne!(fs::metadata(&own).unwrap().permissions().mode() & 0o077, 0);
}

/// Links in the folder that lead out of it lead nowhere, and a name that leads through one finds nothing.
#[test]
fn t13_nothing_outside_the_folder_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("objects");
    let outside = folder.path().join("outside");
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    symlink(&outside, root.join("out")).unwrap();
    symlink("../outside", root.join("up")).unwrap();
    symlink(outside.join("secret"), root.join("link")).unwrap();
    symlink("/", root.join("root")).unwrap();
    let store = open(&root);
    for way in ["out/secret", "up/secret", "link", "root/etc/passwd", "root"] {
        assert!(store.get(&name(way), None).is_err(), "{way}");
        assert!(store.stat(&name(way)).is_err(), "{way}");
    }
    for way in ["out/new", "up/new", "root/tmp/antiphon-was-here", "out/secret"] {
        assert!(store.put(&name(way), b"x", Put::Replace).is_err(), "{way}");
        assert!(store.put(&name(way), b"x", Put::IfAbsent).is_err(), "{way}");
    }
    let _ = store.delete(&[name("out/secret"), name("up/secret")]);
    // A link that is replaced or removed is itself, and not what it leads to.
    store.put(&name("link"), b"mine", Put::Replace).unwrap();
    store.delete(&[name("link")]).unwrap();
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");
    assert_eq!(walk(&outside), [outside.join("secret")]);
    assert!(!Path::new("/tmp/antiphon-was-here").exists());
    assert!(store.list("", None, LIST_MAX).unwrap().is_empty());
}

/// Two thousand names made of what leads elsewhere: what is a name at all is a file below the folder, and nothing besides.
#[test]
fn t13_whatever_is_a_name_stays_in_the_folder() {
    const PARTS: [&str; 24] = [
        "..", ".", "...", "", "~", "~x", "a", "a.b", ".hidden", "-", "--help", "%2e%2e", "\u{2025}", "\u{ff0e}", "\\",
        "a\\..", "C:", "nul", "con.txt", "\0", "a\n", "\u{202e}", "a ", "tmp",
    ];
    let folder = tempfile::tempdir().unwrap();
    let (above, root) = (folder.path().join("above"), folder.path().join("above/objects"));
    fs::create_dir_all(&above).unwrap();
    let store = open(&root);
    let mut refused = 0;
    for number in 0..2_000_usize {
        let part = |place: u32| PARTS[number / 7_usize.pow(place) * 5 % PARTS.len()];
        let mut text = [part(0), part(1), part(2)][..1 + number % 3].join("/");
        if number % 11 == 0 {
            text.insert(0, '/');
        }
        match Name::new(text) {
            Ok(name) => drop(store.put(&name, b"x", Put::Replace)),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 1_000, "{refused}");
    let files = walk(folder.path()).into_iter().filter(|path| path.is_file()).collect::<Vec<_>>();
    assert!(files.len() > 20, "{files:?}");
    assert!(files.iter().all(|path| path.starts_with(&root)), "{files:?}");
    let names = store.list("", None, LIST_MAX).unwrap().into_iter().map(|object| root.join(object.name.as_str()));
    assert_eq!(names.collect::<std::collections::BTreeSet<_>>(), files.into_iter().collect());
}

/// What the system is asked for, in order: the file is on the disk before it has its name, and then the name is.
///
/// Where the system lets nobody watch a program, or there is no `strace`, nothing is shown, which is said.
#[test]
fn f03_a_put_is_on_the_disk_before_it_is_acknowledged() {
    let place = Place::new(antiphon_harness::program!());
    let (root, trace) = (place.path("objects"), place.path("trace"));
    place.file("antiphon.toml", "db_path = 'app.db'\n[snapshot]\nstore = 'file'\n[snapshot.file]\npath = 'objects'");
    place.file("body", "words");
    let asked = place.command(["storage", "put", "body", "a/b", "--config", "antiphon.toml"]);
    let mut watched = Command::new("strace");
    watched.args(["-f", "-y", "-e", "trace=fsync,fdatasync,rename,renameat,renameat2", "-o"]).arg(&trace);
    watched.arg(asked.get_program()).args(asked.get_args()).current_dir(asked.get_current_dir().unwrap());
    let ended = watched.output();
    let Ok(traced) = fs::read_to_string(&trace) else {
        return eprintln!("nothing is shown: strace can't be run here: {ended:?}");
    };
    if !traced.contains("exited with 0") {
        return eprintln!("nothing is shown: the program can't be watched here: {ended:?}");
    }
    let folder = root.join("a");
    let aside = format!("<{}/~", folder.display());
    let at = |what: &str, of: &str| {
        traced.lines().position(|line| line.contains(what) && line.contains(of) && line.ends_with("= 0"))
    };
    let synced = at("fsync(", &aside).expect(&traced);
    let named = at("rename", "/~").or_else(|| at("rename", "\"~")).expect(&traced);
    let kept = traced.lines().skip(named).position(|line| {
        line.contains("fsync(") && line.contains(&format!("<{}>", folder.display())) && line.ends_with("= 0")
    });
    assert!(synced < named && kept.is_some(), "{traced}");
    assert!(at("fsync(", &format!("<{}>", root.display())).is_some(), "the new folder is not on the disk: {traced}");
}

/// A put that was cut off leaves a file beside; it is no object, and in an hour it is nobody's.
#[test]
fn what_was_cut_off_is_no_object_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.put(&name("a/b"), b"x", Put::Replace).unwrap();
    let (old, new) = (folder.path().join("a/~0123"), folder.path().join("a/~4567"));
    fs::write(&old, "half").unwrap();
    fs::write(&new, "half").unwrap();
    let file = fs::File::options().write(true).open(&old).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(7200)).unwrap();
    let names: Vec<_> = store.list("", None, LIST_MAX).unwrap().into_iter().map(|object| object.name).collect();
    assert_eq!(names, [name("a/b")]);
    store.check().unwrap();
    assert!(!old.exists() && new.exists());
}

/// Nobody writes to the pipe, and nobody waits for that.
#[test]
fn t03_what_is_no_file_is_no_object() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.put(&name("a"), b"x", Put::Replace).unwrap();
    let made = Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap();
    assert!(made.success());
    assert_eq!(store.get(&name("pipe"), None).unwrap_err().kind, ErrorKind::NotFound);
    let names: Vec<_> = store.list("", None, LIST_MAX).unwrap().into_iter().map(|object| object.name).collect();
    assert_eq!(names, [name("a")]);
}

#[test]
fn a_folder_that_cannot_be_had_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let grants = Grants { folder: Some(file.join("objects")), ..Grants::default() };
    let Err(error) = HOST.storage(&official("file"), &[], grants, Limits::default(), Pace::default()) else {
        panic!("a file is no folder")
    };
    let said = error.reason().to_string();
    assert!(said.contains(&file.join("objects").display().to_string()), "{said}");
}

#[test]
fn a_setting_that_there_is_not_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let grants = Grants { folder: Some(folder.path().to_owned()), ..Grants::default() };
    let settings = [("colour".to_owned(), "red".to_owned())];
    let limits = Limits { memory_bytes: 128 << 20, ..Limits::default() };
    let store = HOST.storage(&official("file"), &settings, grants, limits, Pace::default()).unwrap();
    let error = store.check().unwrap_err();
    assert_eq!((error.kind, error.message.contains("`colour`")), (ErrorKind::Permanent, true), "{error}");
}
