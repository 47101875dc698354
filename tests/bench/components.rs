//! Components against their native twins, and what it takes to have them.

use crate::report::{Report, per_second, timed};
use antiphon_bundle::World;
use antiphon_core::cbor;
use antiphon_core::hash::{Hash, PackedKeys, fnv::Fnv, xxh3::Xxh3};
use antiphon_core::resolve::{Cause, Clash, LastWriteWins, Resolve, Side, Stamp};
use antiphon_core::schema::{Column, Table};
use antiphon_core::value::Value;
use antiphon_harness::ColumnMerge;
use antiphon_plugin::{HostOptions, Limits, Origin, PluginHost, Source};
use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

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
    (0..times).map(|_| hasher.hash(0, keys).unwrap().iter().fold(0, |sum, hash| sum ^ hash)).fold(0, |a, b| a ^ b)
}

fn clashes(resolver: &mut dyn Resolve, batch: &[Clash], times: usize) {
    for _ in 0..times {
        assert_eq!(resolver.resolve(batch).unwrap().len(), batch.len());
    }
}

/// The shortest of five: what else the machine does only ever makes it longer.
fn shortest<T>(mut work: impl FnMut() -> T) -> (Duration, T) {
    let mut best = timed(&mut work);
    for _ in 1..5 {
        let again = timed(&mut work);
        if again.0 < best.0 {
            best = again;
        }
    }
    best
}

pub fn run(report: &mut Report, rows: usize) {
    println!("components, batches of {BATCH}");
    let host = PluginHost::new(&HostOptions::default()).unwrap();
    // So few rows are no measurement.
    let judged = |reached: bool| reached || rows < 10_000;

    let mut keys = PackedKeys::default();
    for id in 0..BATCH {
        cbor::write_int(&mut keys.bytes, id as i64 * 7919);
        keys.end();
    }
    let times = (rows * 2).div_ceil(BATCH);
    let twins: [(&str, Box<dyn Hash>); 2] = [("fnv", Box::new(Fnv::default())), ("xxh3", Box::new(Xxh3::default()))];
    for (name, mut twin) in twins {
        let mut component = host.hasher(&source(World::Hasher, name), &[], Limits::default()).unwrap();
        component.configure(&[table()]).unwrap();
        twin.configure(&[table()]).unwrap();
        let (component_took, from_component) = shortest(|| hashes(&mut component, &keys, times));
        let (native_took, from_native) = shortest(|| hashes(twin.as_mut(), &keys, times));
        assert_eq!(from_component, from_native);
        let rate = per_second(times * BATCH, component_took);
        let ratio = component_took.as_secs_f64() / native_took.as_secs_f64();
        report.mark(
            &format!("hasher `{name}`, against its native twin"),
            &format!("{:.1} M keys/s = {ratio:.1} times its time", rate / 1e6),
            "10 M keys/s, 6 times",
            judged(rate >= 10e6 && ratio <= 6.0),
        );
    }

    let row =
        |qty: i64| -> Vec<Value> { vec![1.into(), "name-1".into(), qty.into(), Value::Real(1.5), "willow".into()] };
    let side = |node, qty| Side { stamp: Stamp { node, clock: 1, seq: 1 }, row: Some(row(qty)) };
    let two = Clash {
        table: 0,
        key: vec![1.into()],
        cause: Cause::SameKey,
        base: None,
        current: side(0, 7),
        incoming: side(1, 8),
    };
    let three = Clash { base: Some(row(7)), ..two.clone() };
    let times = rows.div_ceil(BATCH);
    let cases: [(&str, &str, Clash, Box<dyn Resolve>); 3] = [
        ("last-write-wins", "is shown one row", two.clone(), Box::new(LastWriteWins)),
        ("column-merge", "is shown two rows", two, Box::new(ColumnMerge)),
        ("column-merge", "is shown three rows, gives one", three, Box::new(ColumnMerge)),
    ];
    for (name, what, clash, mut twin) in cases {
        let batch = vec![clash; BATCH];
        let mut component = host.resolver(&source(World::Resolver, name), &[], Limits::default()).unwrap();
        for resolver in [&mut component as &mut dyn Resolve, twin.as_mut()] {
            resolver.configure(&["a".into(), "b".into()], &[table()]).unwrap();
        }
        assert_eq!(component.resolve(&batch).unwrap(), twin.resolve(&batch).unwrap());
        let (component_took, ()) = shortest(|| clashes(&mut component, &batch, times));
        let (native_took, ()) = shortest(|| clashes(twin.as_mut(), &batch, times));
        let rate = per_second(times * BATCH, component_took);
        let value = format!("{:.0} k/s (native: {:.1} M)", rate / 1e3, per_second(times * BATCH, native_took) / 1e6);
        let what = format!("`{name}`, {what}");
        if what.contains("two") {
            report.mark(&what, &value, "300 k/s", judged(rate >= 300e3));
        } else {
            report.figure(&what, &value);
        }
    }

    let mut fnv = host.hasher(&source(World::Hasher, "fnv"), &[], Limits::default()).unwrap();
    let (took, ()) = shortest(|| (0..1_000).for_each(|_| fnv.configure(&[]).unwrap()));
    let micros = took.as_secs_f64() * 1e3;
    report.mark("a new instance, configured", &format!("{micros:.0} µs"), "100 µs", judged(micros < 100.0));

    ready(report, judged);
    idle(report);
}

/// How long it takes until all that come with the program can be asked.
fn ready(report: &mut Report, judged: impl Fn(bool) -> bool) {
    let folder = tempfile::tempdir().unwrap();
    let cold = timed(|| all(folder.path())).0;
    let warm = shortest(|| all(folder.path())).0;
    let millis = |took: Duration| format!("{:.0} ms", took.as_secs_f64() * 1e3);
    let count = antiphon_bundle::ALL.len();
    report.mark(
        &format!("all {count} components ready, never compiled before"),
        &millis(cold),
        "3 s",
        judged(cold < Duration::from_secs(3)),
    );
    report.mark(
        &format!("all {count} components ready, from the cache"),
        &millis(warm),
        "300 ms",
        judged(warm < Duration::from_millis(300)),
    );
}

/// A host, and with it every component, loaded and asked.
struct Loaded {
    _host: PluginHost,
    _hashers: Vec<antiphon_plugin::Hasher>,
    _resolvers: Vec<antiphon_plugin::Resolver>,
}

fn all(cache: &Path) -> Loaded {
    let host = PluginHost::new(&HostOptions { cache_dir: Some(cache.to_owned()), compiler: None }).unwrap();
    let (mut hashers, mut resolvers) = (Vec::new(), Vec::new());
    for component in antiphon_bundle::ALL {
        let source = source(component.world, component.name);
        match component.world {
            World::Hasher => {
                let mut hasher = host.hasher(&source, &[], Limits::default()).unwrap();
                hasher.configure(&[table()]).unwrap();
                hashers.push(hasher);
            }
            World::Resolver => {
                let setting = match component.name {
                    "counter" => Some(("columns", "qty")),
                    "node-priority" => Some(("order", "1, 2")),
                    _ => None,
                };
                let settings: Vec<_> = setting.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
                let mut resolver = host.resolver(&source, &settings, Limits::default()).unwrap();
                resolver.configure(&["1".into(), "2".into()], &[table()]).unwrap();
                resolvers.push(resolver);
            }
            // A node has one, and has its own figures.
            World::Storage => {}
        }
    }
    Loaded { _host: host, _hashers: hashers, _resolvers: resolvers }
}

/// Makes a process measure its own memory instead of running the marks; the value is the folder of a cache.
const IDLE: &str = "ANTIPHON_BENCH_IDLE";

/// What all components at once add to a process that does nothing with them, in a process of its own.
fn idle(report: &mut Report) {
    let folder = tempfile::tempdir().unwrap();
    // The first one compiles.
    let kib = [(); 2].map(|()| {
        let child =
            std::process::Command::new(std::env::current_exe().unwrap()).env(IDLE, folder.path()).output().unwrap();
        String::from_utf8(child.stdout).unwrap().trim().parse::<u64>().unwrap()
    })[1];
    let mib = kib as f64 / 1024.0;
    report.mark("memory of all components at rest", &format!("{mib:.1} MiB"), "20 MiB", mib < 20.0);
}

/// Whether this process is the one that [`idle`] starts; if so it has done its work.
pub fn measured_idle() -> bool {
    let Some(cache) = std::env::var_os(IDLE) else { return false };
    let before = resident_kib();
    let loaded = all(Path::new(&cache));
    println!("{}", resident_kib().saturating_sub(before));
    drop(loaded);
    true
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
