//! Components as traits: the official ones against their native twins, and every way to misbehave.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is all test, and a test fails by panicking"
)]

mod alone;
mod cache;
mod guests;
mod hostile;
mod laws;
mod malformed;
mod policies;
mod probe;
mod refused;
mod threats;
mod twins;

use std::sync::LazyLock;

use antiphon_bundle::World;
use antiphon_core::hash::PackedKeys;
use antiphon_core::schema::{Column, Table};
use antiphon_plugin::{Hasher, HostOptions, Limits, Origin, PluginHost, Resolver, Source};

static HOST: LazyLock<PluginHost> = LazyLock::new(|| PluginHost::new(&HostOptions::default()).unwrap());

/// A host that remembers what it has compiled, from one run of the tests to the next.
fn cached() -> PluginHost {
    let cache_dir = Some(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled"));
    PluginHost::new(&HostOptions { cache_dir, compiler: None }).unwrap()
}

/// A component of the user's own, from these bytes.
fn custom(bytes: &[u8]) -> Source<'_> {
    Source { name: "mine".into(), origin: Origin::Custom("file:mine.wasm".into()), bytes: bytes.into() }
}

fn official(world: World, name: &str) -> Source<'static> {
    let component = antiphon_bundle::find(world, name).unwrap();
    Source { name: name.into(), origin: Origin::Official, bytes: component.bytes.into() }
}

fn fnv() -> Hasher {
    HOST.hasher(&official(World::Hasher, "fnv"), &[], Limits::default()).unwrap()
}

fn last_write_wins() -> Resolver {
    HOST.resolver(&official(World::Resolver, "last-write-wins"), &[], Limits::default()).unwrap()
}

/// A table with this key (name and declared type, in key order) and one column besides.
fn table(name: &str, key: &[(&str, &str)]) -> Table {
    let mut columns: Vec<Column> = key
        .iter()
        .zip(1..)
        .map(|((name, decl_type), pk_position)| Column {
            name: (*name).into(),
            decl_type: (*decl_type).into(),
            pk_position,
            collation: "BINARY".into(),
            not_null: true,
        })
        .collect();
    columns.push(Column { name: "v".into(), ..Column::default() });
    Table { name: name.into(), columns, ..Table::default() }
}

/// Keys from their canonical bytes.
fn packed(keys: &[&[u8]]) -> PackedKeys {
    let mut packed = PackedKeys::default();
    for key in keys {
        packed.bytes.extend(*key);
        packed.end();
    }
    packed
}
