//! The answers of every laws version, kept as files: a resolver that answers otherwise needs the next version.
//!
//! `laws/NAME@LAWS.toml` holds cases that somebody thought of, and under `drawn` the hash of the answers to thousands
//! that were drawn. A file is about one table and one way to be told, so a hasher has further ones, `NAME@LAWS-WHAT.toml`. A file never changes once its laws were released. A new version gets a new file; the old one stays,
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

fn named(world: World) -> impl Iterator<Item = &'static str> {
    antiphon_bundle::ALL.iter().filter(move |component| component.world == world).map(|component| component.name)
}

fn identity(world: World, name: &str) -> String {
    let source = official(world, name);
    match world {
        World::Resolver => HOST.resolver(&source, &[], Limits::default()).unwrap().identity().to_owned(),
        World::Hasher => HOST.hasher(&source, &[], Limits::default()).unwrap().identity().to_owned(),
        World::Storage => unreachable!("nodes need not agree on where they keep things"),
    }
}

#[test]
fn every_resolver_answers_as_its_laws_say() {
    let mut wrong = Vec::new();
    for name in named(World::Resolver) {
        let laws = laws(&identity(World::Resolver, name));
        assert!(laws.drawn.is_some(), "{name}: no digest of drawn clashes");
        let settings = laws.settings.as_deref().unwrap_or_default();
        let mut resolver = HOST.resolver(&official(World::Resolver, name), settings, Limits::default()).unwrap();
        for outcome in laws.ask_resolver(&mut resolver).unwrap().iter().filter(|outcome| !outcome.passed()) {
            wrong.push(format!("{name}: {}: {:?}, and the laws say {}", outcome.why, outcome.got, outcome.expected));
        }
    }
    assert!(wrong.is_empty(), "an answer changed; raise the laws of the component\n{}", wrong.join("\n"));
}

#[test]
fn every_hasher_answers_as_its_laws_say() {
    let mut wrong = Vec::new();
    for name in named(World::Hasher) {
        let files = files_of(&identity(World::Hasher, name));
        assert!(!files.is_empty(), "{name}: new laws need cases of their own");
        for file in files {
            let laws = laws(&file);
            let settings = laws.settings.as_deref().unwrap_or_default();
            let mut hasher = HOST.hasher(&official(World::Hasher, name), settings, Limits::default()).unwrap();
            let outcomes = laws.ask_hasher(&mut hasher).unwrap();
            assert!(outcomes.len() > 3, "{file}: hardly a case");
            for outcome in outcomes.iter().filter(|outcome| !outcome.passed()) {
                wrong
                    .push(format!("{file}: {}: {:?}, and the laws say {}", outcome.why, outcome.got, outcome.expected));
            }
        }
    }
    assert!(wrong.is_empty(), "a hash changed; raise the laws of the component\n{}", wrong.join("\n"));
}

/// The files of these laws, without their ending.
fn files_of(identity: &str) -> Vec<String> {
    let of = |file: &String| file == identity || file.strip_prefix(identity).is_some_and(|rest| rest.starts_with('-'));
    files().into_iter().filter(of).collect()
}

/// All files, without their ending.
fn files() -> Vec<String> {
    let files = std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    files.map(|file| file.strip_suffix(".toml").unwrap().to_owned()).collect()
}

/// A file that nobody runs protects nothing, and one that is gone can't be compared with.
#[test]
fn every_version_of_every_components_laws_is_kept() {
    let mut expected: Vec<String> = Vec::new();
    for world in [World::Resolver, World::Hasher] {
        for name in named(world) {
            let latest: u32 = identity(world, name).rsplit_once('@').unwrap().1.parse().unwrap();
            expected.extend((1..=latest).map(|laws| format!("{name}@{laws}")));
        }
    }
    for laws in &expected {
        assert!(files().contains(laws), "the laws {laws} are gone");
    }
    for file in files() {
        assert!(expected.iter().any(|laws| files_of(laws).contains(&file)), "{file} is of no component");
    }
}
