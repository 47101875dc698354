//! Stores: one suite for all of them, each with its real server, and what becomes of each when that server misbehaves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "this is all test, and a test fails by panicking"
)]

mod file;
mod hostile;
mod nats;
mod sftp;
mod sftp_hostile;
mod sftp_login;

use std::path::Path;
use std::sync::LazyLock;

use antiphon::storage::conformance::{self, Extent};
use antiphon_core::store::{Name, Store};
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
    let config = antiphon::config::Sources { file: Some(file), ..antiphon::config::Sources::default() };
    let config = antiphon::config::Config::unjudged(config).unwrap();
    let opened = antiphon::storage::open(&config, &host, None, antiphon::custom::Pins::Required).unwrap();
    opened.store.check().unwrap();
    let kept = std::fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let kept: Vec<_> = kept.filter(|name| name.to_str().is_some_and(|name| name.ends_with(".compiled"))).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
}

/// Runs the whole suite; a step that fails is told with all others.
fn conforms(store: &dyn Store) {
    let steps = conformance::run(store, "suite", Extent::default(), |step| {
        eprintln!("{:>6} ms  {}  {:?}", step.took.as_millis(), step.what, step.outcome);
    });
    let failed: Vec<_> = steps.iter().filter(|step| step.outcome.is_err()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
