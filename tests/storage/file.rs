//! Objects as files in a folder.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use antiphon_core::store::{ErrorKind, LIST_MAX, Put, Store as _};
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
