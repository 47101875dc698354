//! Storages, each through its component and by the same means without one, in one run: what is put is fetched and compared.

use crate::report::{Report, timed};
use antiphon::config::{Config, Sources};
use antiphon::custom::Pins;
use antiphon::storage::conformance::noise;
use antiphon::storage::open;
use antiphon_bundle::World;
use antiphon_core::store::{Name, Put, Store as _};
use antiphon_harness::{Broker, Sshd};
use antiphon_plugin::{Grants, HostOptions, Limits, Origin, Pace, PluginHost, Source, Storage};
use async_nats::jetstream::object_store::{Config as Bucket, ObjectMetadata};
use futures::StreamExt as _;
use std::borrow::Cow;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

const OBJECT_BYTES: usize = 8 << 20;
/// As many as snapshots have under way.
const AT_ONCE: usize = 4;

pub fn run(report: &mut Report, rows: usize) {
    println!("storages, objects of 8 MiB, {AT_ONCE} at once");
    // So few rows are no measurement.
    let judged = rows >= 10_000;
    let count = if judged { 24 } else { 2 };
    let bodies: Vec<Vec<u8>> = (0..count as u64).map(|seed| noise(seed, OBJECT_BYTES)).collect();
    let host = PluginHost::new(&HostOptions::default()).unwrap();
    let mut compare = |what: &str, mark: f64, component: &mut Way<'_>, native: &mut Way<'_>| {
        // Alternately, so that what else the machine does is both's; the best of each.
        let mut best = [Duration::MAX; 4];
        for _ in 0..if judged { 3 } else { 1 } {
            let (one, other) = (component(), native());
            for (best, took) in best.iter_mut().zip([one.0, one.1, other.0, other.1]) {
                *best = (*best).min(took);
            }
        }
        let rate = |took: Duration| (count * OBJECT_BYTES) as f64 / f64::from(1 << 20) / took.as_secs_f64();
        for (how, component, native) in [("put", best[0], best[2]), ("get", best[1], best[3])] {
            let ratio = native.as_secs_f64() / component.as_secs_f64();
            report.mark(
                &format!("`{what}` {how}, against its like without a component"),
                &format!("{:.0} MiB/s = {:.0}% of {:.0}", rate(component), ratio * 100.0, rate(native)),
                &format!("{:.0}%", mark * 100.0),
                ratio >= mark || !judged,
            );
        }
    };

    let folder = tempfile::tempdir().unwrap();
    let objects = folder.path().join("component");
    let store = file(&host, &objects);
    let native = folder.path().join("native");
    fs::create_dir(&native).unwrap();
    compare("file", 0.8, &mut || component(&store, &bodies, || forget(&objects)), &mut || files(&native, &bodies));

    let broker = Broker::start();
    let configured = |text: &str| {
        let file = folder.path().join("antiphon.toml");
        fs::write(&file, format!("db_path = 'app.db'\n{text}")).unwrap();
        let config = Config::unjudged(Sources { file: Some(file), ..Sources::default() }).unwrap();
        open(&config, &host, None, Pins::Required).unwrap().component
    };
    let store = configured(&format!("[nats]\nurls = ['{}']", broker.url()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    compare("nats", 0.9, &mut || component(&store, &bodies, || {}), &mut || nats(&runtime, &broker.url(), &bodies));

    let sshd = Sshd::start();
    let (url, key, known) = (sshd.url(&folder.path().join("sftp")), sshd.own_key(), sshd.known_hosts());
    let lines = format!("url = '{url}'\nkey_file = {key:?}\nknown_hosts = {known:?}");
    let store = configured(&format!("[snapshot]\nstore = 'sftp'\n[snapshot.sftp]\n{lines}"));
    compare("sftp", 0.75, &mut || component(&store, &bodies, || {}), &mut || sftp(&sshd, folder.path(), &bodies));

    starts(report, judged);
}

/// Puts all and fetches all, and says how long either took.
type Way<'a> = dyn FnMut() -> (Duration, Duration) + 'a;

fn name(number: usize) -> Name {
    Name::new(format!("objects/{number}")).unwrap()
}

fn file(host: &PluginHost, folder: &Path) -> Storage {
    let limits = Limits { memory_bytes: 128 << 20, ..Limits::default() };
    let grants = Grants { folder: Some(folder.to_owned()), ..Grants::default() };
    host.storage(&source("file"), &[], grants, limits, Pace::default()).unwrap()
}

fn source(name: &str) -> Source<'static> {
    let bytes = antiphon_bundle::find(World::Storage, name).unwrap().bytes;
    Source { name: name.to_owned(), origin: Origin::Official, bytes: Cow::Borrowed(bytes) }
}

/// Does this for all numbers, so many at once; gives how long it took, and what each came to.
fn at_once<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> (Duration, Vec<T>) {
    let work = &work;
    timed(|| {
        std::thread::scope(|scope| {
            let turns = |turn: usize| (turn..count).step_by(AT_ONCE);
            let threads: Vec<_> = (0..AT_ONCE)
                .map(|turn| scope.spawn(move || turns(turn).map(|number| (number, work(number))).collect::<Vec<_>>()))
                .collect();
            let mut done: Vec<(usize, T)> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            done.sort_by_key(|(number, _)| *number);
            done.into_iter().map(|(_, done)| done).collect()
        })
    })
}

/// Has the system forget what it keeps of the files in a folder: who restores has them from the disk.
fn forget(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            forget(&path);
        } else {
            rustix::fs::fadvise(File::open(path).unwrap(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
    }
}

fn component(store: &Storage, bodies: &[Vec<u8>], between: impl Fn()) -> (Duration, Duration) {
    let put = at_once(bodies.len(), |number| store.put(&name(number), &bodies[number], Put::Replace).unwrap()).0;
    between();
    let (got, found) = at_once(bodies.len(), |number| store.get(&name(number), None).unwrap());
    assert!(found == bodies, "what came back is not what was put");
    (put, got)
}

/// What the component does, without it: aside, synced, renamed, and the folder synced.
fn files(folder: &Path, bodies: &[Vec<u8>]) -> (Duration, Duration) {
    let (put, _) = at_once(bodies.len(), |number| {
        let (aside, place) = (folder.join(format!("~{number}")), folder.join(number.to_string()));
        let mut file = File::create(&aside).unwrap();
        file.write_all(&bodies[number]).unwrap();
        file.sync_all().unwrap();
        fs::rename(&aside, place).unwrap();
        File::open(folder).unwrap().sync_all().unwrap();
    });
    forget(folder);
    let (got, found) = at_once(bodies.len(), |number| fs::read(folder.join(number.to_string())).unwrap());
    assert!(found == bodies);
    (put, got)
}

fn nats(runtime: &tokio::runtime::Runtime, url: &str, bodies: &[Vec<u8>]) -> (Duration, Duration) {
    runtime.block_on(async {
        let context = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
        let config = Bucket { bucket: "native".to_owned(), ..Bucket::default() };
        let store = match context.get_object_store("native").await {
            Ok(store) => store,
            Err(_) => context.create_object_store(config).await.unwrap(),
        };
        let store = &store;
        let begun = std::time::Instant::now();
        let put = futures::stream::iter(bodies.iter().enumerate()).map(async |(number, body)| {
            let name = name(number).as_str().to_owned();
            // Of the same pieces as the component's host cuts.
            let meta = ObjectMetadata { name, chunk_size: Some(512 << 10), ..ObjectMetadata::default() };
            store.put(meta, &mut body.as_slice()).await.unwrap();
        });
        put.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
        let put = begun.elapsed();
        let begun = std::time::Instant::now();
        let got = futures::stream::iter(0..bodies.len()).map(async |number| {
            let mut body = Vec::with_capacity(OBJECT_BYTES);
            store.get(name(number).as_str()).await.unwrap().read_to_end(&mut body).await.unwrap();
            body
        });
        let found: Vec<Vec<u8>> = got.buffered(AT_ONCE).collect().await;
        let got = begun.elapsed();
        assert!(found == bodies);
        (put, got)
    })
}

/// OpenSSH's own client, with as much on its way, and synced as the component does it. Each of them connects once.
fn sftp(sshd: &Sshd, folder: &Path, bodies: &[Vec<u8>]) -> (Duration, Duration) {
    let (here, there) = (folder.join("here"), folder.join("there"));
    fs::create_dir_all(&here).unwrap();
    fs::create_dir_all(&there).unwrap();
    for (number, body) in bodies.iter().enumerate() {
        fs::write(here.join(number.to_string()), body).unwrap();
    }
    let one = |turn: usize, line: &dyn Fn(usize) -> String| {
        let batch = folder.join(format!("batch-{turn}"));
        let lines = (turn..bodies.len()).step_by(AT_ONCE).map(|number| line(number) + "\n");
        fs::write(&batch, lines.collect::<String>()).unwrap();
        let mut command = Command::new("sftp");
        command.args(["-q", "-R", "64", "-B", "131072", "-P", &sshd.port().to_string(), "-i"]).arg(sshd.own_key());
        command.arg("-o").arg(format!("UserKnownHostsFile={}", sshd.known_hosts().display()));
        command.arg("-b").arg(&batch).arg(format!("{}@127.0.0.1", Sshd::user()));
        let ended = command.output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    };
    let run = |line: &(dyn Fn(usize) -> String + Sync)| at_once(AT_ONCE, |turn| one(turn, line)).0;
    let (from, to) = (here.display(), there.display());
    // Connecting is not what is compared.
    let connected = run(&|_| "pwd".to_owned());
    let put = run(&|number| format!("put -f {from}/{number} {to}/~{number}\nrename {to}/~{number} {to}/{number}"));
    let got = run(&|number| format!("get {to}/{number} {from}/{number}"));
    for (number, body) in bodies.iter().enumerate() {
        assert!(fs::read(here.join(number.to_string())).unwrap() == *body);
    }
    (put.saturating_sub(connected), got.saturating_sub(connected))
}

/// How long it takes until a storage can be asked, from the cache; and that no other is compiled.
fn starts(report: &mut Report, judged: bool) {
    for component in antiphon_bundle::ALL.iter().filter(|component| component.world == World::Storage) {
        let folder = tempfile::tempdir().unwrap();
        let start = || {
            let options = HostOptions { cache_dir: Some(folder.path().to_owned()), compiler: None };
            let host = PluginHost::new(&options).unwrap();
            let info = host.describe_storage(&source(component.name), Limits::default()).unwrap();
            assert_eq!(info.name, component.name);
        };
        start();
        let warm = (0..5).map(|_| timed(start).0).min().unwrap();
        report.mark(
            &format!("storage `{}` ready, from the cache", component.name),
            &format!("{:.1} ms", warm.as_secs_f64() * 1e3),
            "50 ms",
            warm < Duration::from_millis(50) || !judged,
        );
    }
}
