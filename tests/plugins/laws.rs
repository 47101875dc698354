//! The answers of every laws version, kept as files: a resolver that answers otherwise needs the next version.
//!
//! `laws/NAME@LAWS.toml` holds cases that somebody thought of, and under `drawn` the hash of the answers to thousands
//! that were drawn. A file never changes once its laws were released. A new version gets a new file; the old one stays,
//! for whoever wants to know what a cluster of that time decides.

use std::path::PathBuf;

use antiphon::trial::cases::CaseFile;
use antiphon_bundle::World;
use antiphon_plugin::Limits;

use super::{HOST, official};

/// Every file.
fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "tests", "plugins", "laws"].iter().collect()
}

/// Cases of one laws version.
fn laws(identity: &str) -> CaseFile {
    let path = folder().join(format!("{identity}.toml"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|err| panic!("{}: {err}; new laws need cases of their own", path.display()));
    CaseFile::read(&text).unwrap_or_else(|wrong| panic!("{}: {wrong}", path.display()))
}

fn resolvers() -> impl Iterator<Item = &'static str> {
    antiphon_bundle::ALL.iter().filter(|component| component.world == World::Resolver).map(|component| component.name)
}

fn identity(name: &str) -> String {
    HOST.resolver(&official(World::Resolver, name), &[], Limits::default()).unwrap().identity().to_owned()
}

#[test]
fn every_resolver_answers_as_its_laws_say() {
    let mut wrong = Vec::new();
    for name in resolvers() {
        let laws = laws(&identity(name));
        assert!(laws.drawn.is_some(), "{name}: no digest of drawn clashes");
        let settings = laws.settings.as_deref().unwrap_or_default();
        let mut resolver = HOST.resolver(&official(World::Resolver, name), settings, Limits::default()).unwrap();
        for outcome in laws.ask_resolver(&mut resolver).unwrap().iter().filter(|outcome| !outcome.passed()) {
            wrong.push(format!("{name}: {}: {:?}, and the laws say {}", outcome.why, outcome.got, outcome.expected));
        }
    }
    assert!(wrong.is_empty(), "an answer changed; raise the laws of the component\n{}", wrong.join("\n"));
}

/// A file that nobody runs protects nothing, and one that is gone can't be compared with.
#[test]
fn every_version_of_every_resolvers_laws_is_kept() {
    let mut expected: Vec<String> = Vec::new();
    for name in resolvers() {
        let identity = identity(name);
        let latest: u32 = identity.rsplit_once('@').unwrap().1.parse().unwrap();
        expected.extend((1..=latest).map(|laws| format!("{name}@{laws}.toml")));
    }
    let files = std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = files.collect();
    files.sort();
    expected.sort();
    assert_eq!(files, expected);
}
