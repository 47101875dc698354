//! Objects on an SFTP server: a real OpenSSH.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use antiphon::config::{Config, Sources};
use antiphon::custom::Pins;
use antiphon::storage::conformance::{self, Extent};
use antiphon::storage::{Opened, open};
use antiphon_core::store::{ErrorKind, LIST_MAX, Name, Put, Store as _};
use antiphon_harness::{Flow, Proxy, Sshd};

use super::{HOST, conforms, name};

/// The store of a configuration with these lines under `[snapshot.sftp]`.
pub(crate) fn store_of(lines: &str) -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("antiphon.toml");
    std::fs::write(&file, format!("db_path = 'app.db'\n[snapshot]\nstore = 'sftp'\n[snapshot.sftp]\n{lines}")).unwrap();
    let config = Config::unjudged(Sources { file: Some(file), ..Sources::default() }).unwrap();
    open(&config, &HOST, None, Pins::Required).unwrap()
}

/// The store in a folder of a server, as one logs in who is known there.
fn store(sshd: &Sshd, folder: &Path) -> Opened {
    let (key, known) = (sshd.own_key(), sshd.known_hosts());
    store_of(&format!("url = '{}'\nkey_file = {key:?}\nknown_hosts = {known:?}", sshd.url(folder)))
}

#[test]
fn the_suite() {
    let (sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    let objects = folder.path().join("made/objects");
    let opened = store(&sshd, &objects);
    assert_eq!(opened.name, "sftp");
    conforms(&opened.store);
    assert!(opened.component.memory_peak() < 128 << 20, "{}", opened.component.memory_peak());
    // Nothing is left of all that but the folder.
    assert_eq!(std::fs::read_dir(&objects).unwrap().count(), 0);
    let traits = opened.store.traits().unwrap();
    assert!(traits.put_if_absent && traits.atomic_put && traits.ranged_get, "{traits:?}");
}

#[test]
fn by_a_name_of_ones_own() {
    let (sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    let file = folder.path().join("antiphon.toml");
    let (url, key, known) = (sshd.url(&folder.path().join("objects")), sshd.own_key(), sshd.known_hosts());
    let settings = format!("url = '{url}'\nkey_file = {key:?}\nknown_hosts = {known:?}");
    let plugin = format!("[plugin.off-site]\nsource = 'builtin:sftp'\n[plugin.off-site.settings]\n{settings}");
    std::fs::write(&file, format!("db_path = 'app.db'\n{plugin}")).unwrap();
    let config = Config::unjudged(Sources { file: Some(file), ..Sources::default() }).unwrap();
    let opened = open(&config, &HOST, Some("off-site"), Pins::Required).unwrap();
    opened.component.check().unwrap();
    opened.component.put(&name("a/b"), b"x", Put::Replace).unwrap();
    assert_eq!(std::fs::read(folder.path().join("objects/a/b")).unwrap(), b"x");
}

#[test]
fn files_and_folders_are_their_owners_alone() {
    let (sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    let opened = store(&sshd, &folder.path().join("objects"));
    opened.component.put(&name("a/b"), b"x", Put::Replace).unwrap();
    let mode = |path: &str| std::fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("objects"), mode("objects/a"), mode("objects/a/b")], [0o700, 0o700, 0o600]);
}

/// A server that knows the protocol and nothing besides: all works, and the store says what it can't promise.
#[test]
fn a_server_without_extensions() {
    let denied = "posix-rename,hardlink,fsync,limits,statvfs,fstatvfs,lsetstat,expand-path,copy-data";
    let sshd = Sshd::with(&format!("Subsystem sftp /usr/lib/openssh/sftp-server -P {denied}"));
    let folder = tempfile::tempdir().unwrap();
    let opened = store(&sshd, folder.path());
    let traits = opened.store.traits().unwrap();
    assert!(!traits.put_if_absent && !traits.atomic_put && traits.ranged_get, "{traits:?}");
    let extent = Extent { object_bytes: 8 << 20, listed: 300, threads: 4, ..Extent::default() };
    let steps = conformance::run(&opened.store, "suite", extent, |_| {});
    // For a moment an object that is replaced is not there; that is what it says.
    let failed = |step: &&conformance::Step| step.outcome.is_err() && !step.what.starts_with("many writers of one");
    assert!(steps.iter().find(failed).is_none(), "{steps:#?}");
    // One that may not be replaced isn't, here neither.
    opened.component.put(&name("once"), b"first", Put::IfAbsent).unwrap();
    let error = opened.component.put(&name("once"), b"second", Put::IfAbsent).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Exists, "{error}");
    assert_eq!(opened.component.get(&name("once"), None).unwrap(), b"first");
}

/// Links in the folder are no objects, and no prefix leads out of it.
#[test]
fn t13_nothing_outside_the_folder_is_listed() {
    let (sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    let root = folder.path().join("objects");
    let outside = folder.path().join("outside");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    symlink(&outside, root.join("out")).unwrap();
    symlink(outside.join("secret"), root.join("link")).unwrap();
    let store = store(&sshd, &root).component;
    store.put(&name("mine"), b"x", Put::Replace).unwrap();
    let names = |prefix: &str| -> Vec<String> {
        let listed = store.list(prefix, None, LIST_MAX).unwrap();
        listed.into_iter().map(|object| object.name.as_str().to_owned()).collect()
    };
    assert_eq!(names(""), ["mine"]);
    for prefix in ["../", "../outside/", "../outside/s", "./", "a//", "/", "/etc/", "mine/../../outside/"] {
        assert_eq!(names(prefix), [""; 0], "{prefix}");
    }
    assert_eq!(store.stat(&name("link")).unwrap_err().kind, ErrorKind::NotFound);
    // A link that is replaced or removed is itself, and not what it leads to.
    store.put(&name("link"), b"mine", Put::Replace).unwrap();
    store.delete(&[name("link")]).unwrap();
    assert_eq!(std::fs::read_to_string(outside.join("secret")).unwrap(), "secret");
}

#[test]
fn what_was_cut_off_is_no_object_and_goes() {
    let (sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    let store = store(&sshd, folder.path()).component;
    store.put(&name("a/b"), b"x", Put::Replace).unwrap();
    let (old, new) = (folder.path().join("a/~0123"), folder.path().join("a/~4567"));
    std::fs::write(&old, "half").unwrap();
    std::fs::write(&new, "half").unwrap();
    let file = std::fs::File::options().write(true).open(&old).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(7200)).unwrap();
    let names: Vec<_> = store.list("", None, LIST_MAX).unwrap().into_iter().map(|object| object.name).collect();
    assert_eq!(names, [name("a/b")]);
    store.check().unwrap();
    assert!(!old.exists() && new.exists());
}

/// What was acknowledged is there when the server is back, and the store goes on by itself.
#[test]
fn a_server_that_is_killed_in_the_middle() {
    let (mut sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    let opened = store(&sshd, folder.path());
    let store = &opened.store;
    let body = |number: usize| vec![u8::try_from(number).unwrap(); 300_000 + number];
    let names: Vec<Name> = (0..40).map(|number| name(&format!("objects/{number}"))).collect();
    let kept: Vec<usize> = std::thread::scope(|scope| {
        let putting = scope.spawn(|| {
            let put = |number: &usize| store.put(&names[*number], &body(*number), Put::Replace).is_ok();
            (0..names.len()).filter(put).collect()
        });
        let begun = Instant::now();
        while std::fs::read_dir(folder.path().join("objects")).map_or(0, Iterator::count) < 5 {
            assert!(begun.elapsed() < Duration::from_secs(60));
        }
        sshd.kill();
        sshd.resume();
        putting.join().unwrap()
    });
    // Each is tried again, and the server was away for a moment only.
    assert_eq!(kept.len(), names.len());
    for number in &kept {
        assert_eq!(store.get(&names[*number], None).unwrap(), body(*number));
    }
}

/// The store of a server that is reached through a network.
fn store_behind(proxy: &Proxy, sshd: &Sshd, folder: &Path) -> Opened {
    let known = sshd.write("known_behind", &format!("127.0.0.1 {}\n", sshd.host_key()));
    let url = format!("sftp://{}@127.0.0.1:{}{}", Sshd::user(), proxy.port(), folder.display());
    store_of(&format!("url = '{url}'\nkey_file = {:?}\nknown_hosts = {known:?}", sshd.own_key()))
}

#[test]
fn f10_a_network_that_is_slow_cut_and_gone() {
    let (sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    let proxy = Proxy::to(sshd.port());
    let opened = store_behind(&proxy, &sshd, folder.path());
    let body = conformance::noise(1, 3 << 20);
    // Slow: it takes its time.
    proxy.throttle(Some(4 << 20));
    opened.component.put(&name("slow"), &body, Put::Replace).unwrap();
    assert_eq!(opened.component.get(&name("slow"), None).unwrap(), body);
    // Cut, while an object is on its way: it is tried again, and what is seen is whole.
    let before = proxy.passed();
    std::thread::scope(|scope| {
        let putting = scope.spawn(|| opened.store.put(&name("cut"), &body, Put::IfAbsent));
        let begun = Instant::now();
        while proxy.passed() < before + (1 << 20) {
            assert!(begun.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(opened.component.stat(&name("cut")).unwrap_err().kind, ErrorKind::NotFound);
        proxy.cut();
        putting.join().unwrap().unwrap();
    });
    proxy.heal();
    assert_eq!(opened.component.get(&name("cut"), None).unwrap(), body);
    // Gone: nobody is let through.
    proxy.close();
    let error = opened.component.check().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Temporary, "{error}");
    let error = opened.component.check().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Temporary, "{error}");
    proxy.heal();
    opened.store.check().unwrap();
}

/// One that stands still, and says nothing more: it is given up on.
#[test]
fn f10_a_network_that_hangs() {
    let (sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    let proxy = Proxy::to(sshd.port());
    let opened = store_behind(&proxy, &sshd, folder.path());
    opened.component.check().unwrap();
    proxy.flows(Flow::Stands, Flow::Stands);
    let begun = Instant::now();
    let error = opened.component.get(&name("a"), None).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Temporary, "{error}");
    assert!(error.message.contains("nothing came"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(29), "{:?}", begun.elapsed());
    proxy.heal();
    opened.store.check().unwrap();
}

/// Whoever drops a store leaves no connection behind.
#[test]
fn t05_connections_end_with_the_store() {
    let (sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    let opened = store(&sshd, folder.path());
    std::thread::scope(|scope| {
        for turn in 0..16 {
            let store = &opened.component;
            scope.spawn(move || store.put(&name(&format!("{turn}")), b"x", Put::Replace).unwrap());
        }
    });
    assert!(sshd.conversations() > 0);
    // As many instances as may be at work, and each has one.
    assert!(opened.component.instances() <= 4);
    drop(opened);
    let begun = Instant::now();
    while sshd.conversations() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", sshd.said());
        std::thread::sleep(Duration::from_millis(10));
    }
}
