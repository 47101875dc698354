//! Objects on an SFTP server: a real OpenSSH.

use std::path::Path;

use antiphon::config::{Config, Sources};
use antiphon::custom::Pins;
use antiphon::storage::{Opened, open};
use antiphon_core::store::{ErrorKind, LIST_MAX, Part, Put, Store as _};
use antiphon_harness::Sshd;

use super::{HOST, conforms, name};

/// The store of a configuration with these lines under `[snapshot.sftp]`.
fn store_of(lines: &str) -> Opened {
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
