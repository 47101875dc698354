//! Components against their native twins.

use crate::report::{Report, per_second, timed};
use antiphon_bundle::World;
use antiphon_core::cbor;
use antiphon_core::hash::{Hash, PackedKeys, fnv::Fnv};
use antiphon_core::resolve::{Cause, Clash, LastWriteWins, Resolve, Side, Stamp};
use antiphon_core::schema::{Column, Table};
use antiphon_core::value::Value;
use antiphon_plugin::{HostOptions, Limits, Origin, PluginHost, Source};
use std::borrow::Cow;

const BATCH: usize = 512;

fn source(world: World, name: &str) -> Source<'static> {
    let bytes = antiphon_bundle::find(world, name).unwrap().bytes;
    Source { name: name.to_owned(), origin: Origin::Official, bytes: Cow::Borrowed(bytes) }
}

fn table() -> Table {
    let column = |name: &str, pk_position| Column {
        name: name.into(),
        decl_type: "INTEGER".into(),
        pk_position,
        collation: "BINARY".into(),
        not_null: false,
    };
    Table {
        name: "items".into(),
        columns: vec![column("id", 1), column("name", 0), column("qty", 0), column("price", 0), column("note", 0)],
        rowid_key: true,
        ..Table::default()
    }
}

fn hashes(hasher: &mut dyn Hash, keys: &PackedKeys, times: usize) -> u64 {
    hasher.configure(&[table()]).unwrap();
    (0..times).map(|_| hasher.hash(0, keys).unwrap().iter().fold(0, |sum, hash| sum ^ hash)).fold(0, |a, b| a ^ b)
}

fn clashes(resolver: &mut dyn Resolve, batch: &[Clash], times: usize) {
    resolver.configure(&["a".into(), "b".into()], &[table()]).unwrap();
    for _ in 0..times {
        assert_eq!(resolver.resolve(batch).unwrap().len(), batch.len());
    }
}

pub fn run(report: &mut Report, rows: usize) {
    println!("components, batches of {BATCH}");
    let host = PluginHost::new(&HostOptions::default()).unwrap();

    let mut keys = PackedKeys::default();
    for id in 0..BATCH {
        cbor::write_int(&mut keys.bytes, id as i64 * 7919);
        keys.end();
    }
    let times = (rows * 10).div_ceil(BATCH);
    let mut component = host.hasher(&source(World::Hasher, "fnv"), &[], Limits::default()).unwrap();
    let (component_took, from_component) = timed(|| hashes(&mut component, &keys, times));
    let (native_took, from_native) = timed(|| hashes(&mut Fnv::default(), &keys, times));
    assert_eq!(from_component, from_native);
    report.mark(
        "hash component, against its native twin",
        &format!(
            "{:.1} M keys/s = {:.1} times its time",
            per_second(times * BATCH, component_took) / 1e6,
            component_took.as_secs_f64() / native_took.as_secs_f64()
        ),
        "10 M keys/s",
        per_second(times * BATCH, component_took) >= 10e6 || rows < 10_000,
    );

    let row: Vec<Value> = vec![1.into(), "name-1".into(), 7.into(), Value::Real(1.5), "willow".into()];
    let side = |node| Side { stamp: Stamp { node, clock: 1, seq: 1 }, row: Some(row.clone()) };
    let clash =
        Clash { table: 0, key: vec![1.into()], cause: Cause::SameKey, base: None, current: side(0), incoming: side(1) };
    let batch = vec![clash; BATCH];
    let times = rows.div_ceil(BATCH);
    let mut component = host.resolver(&source(World::Resolver, "last-write-wins"), &[], Limits::default()).unwrap();
    let (component_took, ()) = timed(|| clashes(&mut component, &batch, times));
    let (native_took, ()) = timed(|| clashes(&mut LastWriteWins, &batch, times));
    report.figure(
        "resolver component, two 5-column rows a clash",
        &format!(
            "{:.0} k clashes/s (native: {:.0} M)",
            per_second(times * BATCH, component_took) / 1e3,
            per_second(times * BATCH, native_took) / 1e6
        ),
    );
}
