//! What a component is made of, as far as that shows without running it.

use std::fmt;
use std::sync::Arc;

use crate::component::{self, check_exports, check_import};
use crate::engine::Runtime;
use crate::error::{Attempt, Error, Reason, Subject};
use crate::hasher::EXPORTS as HASHER;
use crate::inert;
use crate::limits::Limits;
use crate::resolver::EXPORTS as RESOLVER;
use crate::storage::EXPORTS as STORAGE;
use crate::{Source, sha256};

/// A component, looked at and not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anatomy {
    /// The world it is made for, if its exports are those of one.
    pub world: Option<World>,
    /// The version of the interface that it exports.
    pub version: Option<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// What it imports.
    pub imports: Vec<Import>,
    /// Why it can't be run here, if it can't.
    pub unfit: Option<Reason>,
}

/// What a component is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// It decides clashes.
    Resolver,
    /// It hashes keys.
    Hasher,
    /// It keeps objects, reached over HTTP.
    StorageHttp,
    /// It keeps objects, reached through SFTP.
    StorageSsh,
    /// It keeps objects in a bucket of NATS.
    StorageNats,
    /// It keeps objects in a folder, or behind sockets of its own: its imports don't tell which.
    Storage,
}

impl World {
    /// Its name; of the storage worlds that can't be told apart, what they have in common.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Resolver => "resolver",
            Self::Hasher => "hasher",
            Self::StorageHttp => "storage-http",
            Self::StorageSsh => "storage-ssh",
            Self::StorageNats => "storage-nats",
            Self::Storage => "storage",
        }
    }

    /// Whether it only computes, and so can be run anywhere.
    #[must_use]
    pub fn is_pure(self) -> bool {
        matches!(self, Self::Resolver | Self::Hasher)
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something a component imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Its name, with version.
    pub name: String,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The host has it.
    Satisfied,
    /// It is there, and leads nowhere: clocks stand still, there is no file and no address.
    Inert,
    /// It leads nowhere unless the configuration grants it.
    NeedsGrant,
    /// It is not to be had.
    Refused(Reason),
}

/// Interfaces of the host's own: what they are about is decided by the world.
const LENT: [&str; 5] = ["log", "types", "objects", "nats-bucket", "ssh-channel"];

pub(crate) fn examine(runtime: &Runtime, source: &Source<'_>, limits: &Limits) -> Result<Anatomy, Error> {
    let sha256 = sha256(&source.bytes);
    let compiled = component::compile(runtime, &source.bytes, &sha256, limits, source.foreign());
    let component = compiled.map_err(|reason| {
        let subject = Subject { name: source.name.clone(), origin: source.origin.to_string(), sha256 };
        Error::new(&Arc::new(subject), Attempt::Load, reason)
    })?;
    let engine = &runtime.engine;
    let kind = component.component_type();
    let exports: Vec<String> = kind.exports(engine).map(|(name, _)| name.to_owned()).collect();
    let imports: Vec<String> = kind.imports(engine).map(|(name, _)| name.to_owned()).collect();
    let world = world(&exports, &imports);
    let version = exports.iter().find_map(|export| {
        let (_, version) = export.strip_prefix("antiphon:plugin/")?.split_once('@')?;
        Some(version.to_owned())
    });
    let imports: Vec<Import> = imports.into_iter().map(|name| Import { fate: fate(&name, world), name }).collect();
    let refused = imports.iter().find_map(|import| match &import.fate {
        Fate::Refused(reason) => Some(reason.clone()),
        _ => None,
    });
    let fit = match world {
        None => Err(Reason::NoWorld { exports: exports.clone() }),
        Some(World::Resolver) => check_exports(engine, &component, "resolver", &RESOLVER),
        Some(World::Hasher) => check_exports(engine, &component, "hasher", &HASHER),
        Some(world) => check_exports(engine, &component, world.name(), &STORAGE),
    };
    let fit = fit.and(refused.map_or(Ok(()), Err));
    let fit = fit.and_then(|()| match world {
        // What a world of storage is linked with depends on its grants.
        Some(world) if world.is_pure() => component::link(runtime, &component).map(drop),
        _ => Ok(()),
    });
    Ok(Anatomy { world, version, exports, imports, unfit: fit.err() })
}

pub(crate) fn world(exports: &[String], imports: &[String]) -> Option<World> {
    let has = |names: &[String], interface: &str| {
        names.iter().any(|name| name.strip_prefix(interface).is_some_and(|rest| rest.starts_with('@')))
    };
    if has(exports, "antiphon:plugin/conflict") {
        return Some(World::Resolver);
    }
    if has(exports, "antiphon:plugin/rowhash") {
        return Some(World::Hasher);
    }
    if !has(exports, "antiphon:plugin/storage") {
        return None;
    }
    Some(if has(imports, "antiphon:plugin/ssh-channel") {
        World::StorageSsh
    } else if has(imports, "antiphon:plugin/nats-bucket") {
        World::StorageNats
    } else if imports.iter().any(|import| import.starts_with("wasi:http/")) {
        World::StorageHttp
    } else {
        World::Storage
    })
}

fn fate(import: &str, world: Option<World>) -> Fate {
    let interface = import.split_once('@').map_or(import, |(name, _)| name);
    let own = interface.strip_prefix("antiphon:plugin/");
    if world.is_none_or(World::is_pure) {
        return match check_import(import, world.map_or("plugin", World::name)) {
            Err(reason) => Fate::Refused(reason),
            Ok(()) if own.is_some() => Fate::Satisfied,
            Ok(()) => Fate::Inert,
        };
    }
    if own.is_some_and(|own| LENT.contains(&own)) {
        return Fate::Satisfied;
    }
    let package = interface.split_once('/').map_or(interface, |(package, _)| package);
    match package {
        "wasi:http" | "wasi:filesystem" | "wasi:sockets" => Fate::NeedsGrant,
        _ if own.is_none() && inert::is_linked(import) => Fate::Satisfied,
        _ => Fate::Refused(Reason::UnknownImport(import.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_storage_world_is_known_by_what_it_is_lent() {
        let storage = names(&["antiphon:plugin/metadata@0.1.0", "antiphon:plugin/storage@0.1.0"]);
        let world = |imports: &[&str]| world(&storage, &names(imports));
        assert_eq!(world(&["antiphon:plugin/ssh-channel@0.1.0"]), Some(World::StorageSsh));
        assert_eq!(world(&["antiphon:plugin/nats-bucket@0.1.0"]), Some(World::StorageNats));
        assert_eq!(world(&["wasi:http/outgoing-handler@0.2.0"]), Some(World::StorageHttp));
        assert_eq!(world(&["wasi:sockets/tcp@0.2.0"]), Some(World::Storage));
        assert_eq!(super::world(&names(&["antiphon:plugin/storages@0.1.0"]), &[]), None);
    }

    #[test]
    fn what_becomes_of_an_import_depends_on_the_world() {
        let http = "wasi:http/outgoing-handler@0.2.0";
        assert!(matches!(fate(http, Some(World::Resolver)), Fate::Refused(Reason::Network { .. })));
        assert_eq!(fate(http, Some(World::StorageHttp)), Fate::NeedsGrant);
        assert_eq!(fate("wasi:clocks/wall-clock@0.2.3", Some(World::Hasher)), Fate::Inert);
        assert_eq!(fate("wasi:clocks/wall-clock@0.2.3", Some(World::Storage)), Fate::Satisfied);
        assert_eq!(fate("antiphon:plugin/log@0.1.0", Some(World::Resolver)), Fate::Satisfied);
        assert!(matches!(fate("antiphon:plugin/nats-bucket@0.1.0", Some(World::Hasher)), Fate::Refused(_)));
        assert_eq!(fate("antiphon:plugin/nats-bucket@0.1.0", Some(World::StorageNats)), Fate::Satisfied);
        assert!(matches!(fate("acme:dynamite/fuse@1.0.0", Some(World::StorageHttp)), Fate::Refused(_)));
    }
}
