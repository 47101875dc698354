//! The official components, compiled from the folders beside this one and carried in the program.

/// Which world a component is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// It decides clashes.
    Resolver,
    /// It hashes keys.
    Hasher,
    /// It keeps objects.
    Storage,
}

/// A component that comes with the program.
#[derive(Clone, Copy, Debug)]
pub struct Component {
    /// The name that `builtin:NAME` means.
    pub name: &'static str,
    /// Its world.
    pub world: World,
    /// The component.
    pub bytes: &'static [u8],
}

macro_rules! component {
    ($name:literal, $world:ident, $file:literal) => {
        Component {
            name: $name,
            world: World::$world,
            bytes: include_bytes!(concat!(env!("OUT_DIR"), "/", $file, ".wasm")),
        }
    };
}

/// Every official component.
pub const ALL: &[Component] = &[
    component!("last-write-wins", Resolver, "conflict_last_write_wins"),
    component!("newest-wins", Resolver, "conflict_newest_wins"),
    component!("first-write-wins", Resolver, "conflict_first_write_wins"),
    component!("column-merge", Resolver, "conflict_column_merge"),
    component!("counter", Resolver, "conflict_counter"),
    component!("node-priority", Resolver, "conflict_node_priority"),
    component!("fnv", Hasher, "hash_fnv"),
    component!("xxh3", Hasher, "hash_xxh3"),
    component!("file", Storage, "storage_file"),
    component!("nats", Storage, "storage_nats"),
    component!("s3", Storage, "storage_s3"),
    component!("sftp", Storage, "storage_sftp"),
    component!("webdav", Storage, "storage_webdav"),
];

/// The official component of this world and name.
#[must_use]
pub fn find(world: World, name: &str) -> Option<&'static Component> {
    ALL.iter().find(|component| component.world == world && component.name == name)
}
