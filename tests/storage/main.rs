//! Stores: one suite for all of them, each with its real server, and what becomes of each when that server misbehaves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "this is all test, and a test fails by panicking"
)]

mod faults;
mod file;
mod full;
mod grants;
mod hostile;
mod much;
mod nats;
mod s3;
mod sftp;
mod sftp_hostile;
mod sftp_login;
mod webdav;

use std::path::Path;
use std::sync::LazyLock;

use antiphon::config::{Config, Sources};
use antiphon::custom::Pins;
use antiphon::failure::Failure;
use antiphon::storage::conformance::{self, Extent, noise};
use antiphon::storage::{Opened, open};
use antiphon_core::store::{LIST_MAX, Name, Put, Store};
use antiphon_plugin::{HostOptions, Origin, PluginHost, Source};

/// One host for all tests, which remembers what it has compiled from one run to the next.
static HOST: LazyLock<PluginHost> = LazyLock::new(|| {
    let cache_dir = Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled"));
    PluginHost::new(&HostOptions { cache_dir, ..HostOptions::default() }).unwrap()
});

fn official(name: &str) -> Source<'static> {
    let component = antiphon_bundle::find(antiphon_bundle::World::Storage, name).unwrap();
    Source { name: name.into(), origin: Origin::Official, bytes: component.bytes.into() }
}

/// The store of a configuration with these lines.
fn configured(lines: &str) -> Opened {
    refused(lines).unwrap_or_else(|failure| panic!("{failure}"))
}

/// The same, if there is any.
fn refused(lines: &str) -> Result<Opened, Failure> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("antiphon.toml");
    std::fs::write(&file, format!("db_path = 'app.db'\n{lines}")).unwrap();
    let config = Config::unjudged(Sources { file: Some(file), ..Sources::default() }).unwrap();
    open(&config, &HOST, None, Pins::Required)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A store has its own component compiled, and no other.
#[test]
fn only_what_is_configured_is_compiled() {
    let (cache, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = HostOptions { cache_dir: Some(cache.path().to_owned()), ..HostOptions::default() };
    let host = PluginHost::new(&options).unwrap();
    let file = folder.path().join("antiphon.toml");
    std::fs::write(&file, "db_path = 'app.db'\n[snapshot]\nstore = 'file'\n[snapshot.file]\npath = 'objects'").unwrap();
    let config = Sources { file: Some(file), ..Sources::default() };
    let config = Config::unjudged(config).unwrap();
    let opened = open(&config, &host, None, Pins::Required).unwrap();
    opened.store.check().unwrap();
    let kept = std::fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let kept: Vec<_> = kept.filter(|name| name.to_str().is_some_and(|name| name.ends_with(".compiled"))).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
}

/// Puts objects while `interrupt` ends the server and starts it again; what was acknowledged is there afterwards.
fn survives(store: &dyn Store, interrupt: impl FnOnce()) {
    let body = |number: usize| noise(number as u64, 300_000 + number);
    let names: Vec<Name> = (0..40).map(|number| name(&format!("objects/{number}"))).collect();
    let kept: Vec<usize> = std::thread::scope(|scope| {
        let putting = scope.spawn(|| {
            let put = |number: &usize| store.put(&names[*number], &body(*number), Put::Replace).is_ok();
            (0..names.len()).filter(put).collect()
        });
        antiphon_harness::eventually("some objects are there", || {
            store.list("objects/", None, LIST_MAX).is_ok_and(|listed| listed.len() >= 5)
        });
        interrupt();
        putting.join().unwrap()
    });
    assert!(kept.len() >= 5, "{kept:?}");
    for number in &kept {
        assert_eq!(store.get(&names[*number], None).unwrap(), body(*number));
    }
    store.put(&name("after"), b"x", Put::Replace).unwrap();
}

/// Runs the whole suite; a step that fails is told with all others.
fn conforms(store: &dyn Store) {
    conforms_within(store, Extent::default());
}

/// The same, as far as this goes.
fn conforms_within(store: &dyn Store, extent: Extent) {
    let steps = conformance::run(store, "suite", extent, |step| {
        eprintln!("{:>6} ms  {}  {:?}", step.took.as_millis(), step.what, step.outcome);
    });
    let failed: Vec<_> = steps.iter().filter(|step| step.outcome.is_err()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
