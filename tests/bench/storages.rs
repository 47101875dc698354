//! Storages, each through its component and by the same means without one, in one run: what is put is fetched and compared.

use crate::natively::{self, at_once, forget, name};
use crate::report::{Report, timed};
use antiphon::config::{Config, Sources};
use antiphon::custom::Pins;
use antiphon::storage::conformance::noise;
use antiphon::storage::open;
use antiphon_bundle::World;
use antiphon_core::store::{Put, Store as _};
use antiphon_harness::{Broker, DavServer, S3Server, Sshd};
use antiphon_plugin::{HostOptions, Limits, Origin, PluginHost, Source, Storage};
use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::time::Duration;

const OBJECT_BYTES: usize = 8 << 20;
/// As many as snapshots have under way.
pub const AT_ONCE: usize = 4;

/// Puts all and fetches all, and says how long either took.
type Way<'a> = dyn FnMut(&[Vec<u8>]) -> (Duration, Duration) + 'a;

pub fn run(report: &mut Report, rows: usize) {
    println!("storages, objects of 8 MiB, {AT_ONCE} at once");
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut race = Race::new(report, folder.path(), rows);

    let (objects, plain) = (folder.path().join("objects"), folder.path().join("plain"));
    fs::create_dir(&plain).unwrap();
    let lines = format!("[snapshot]\nstore = 'file'\n[snapshot.file]\npath = {objects:?}");
    race.run("file", 0.8, &lines, || forget(&objects), &mut |bodies| natively::files(&plain, bodies));

    let broker = Broker::start();
    let lines = format!("[nats]\nurls = ['{}']", broker.url());
    race.run("nats", 0.9, &lines, || {}, &mut |bodies| natively::nats(&runtime, &broker.url(), bodies));

    let sshd = Sshd::start();
    let (url, key, known) = (sshd.url(&folder.path().join("sftp")), sshd.own_key(), sshd.known_hosts());
    let login = format!("url = '{url}'\nkey_file = {key:?}\nknown_hosts = {known:?}");
    let lines = format!("[snapshot]\nstore = 'sftp'\n[snapshot.sftp]\n{login}");
    race.run("sftp", 0.75, &lines, || {}, &mut |bodies| natively::sftp(&sshd, folder.path(), bodies));

    let server = S3Server::start();
    let (url, key, secret) = (server.url(), S3Server::KEY, S3Server::SECRET);
    let login = format!("endpoint = '{url}'\nbucket = 'bucket'\naccess_key = '{key}'\nsecret = '{secret}'");
    let lines = format!("[snapshot]\nstore = 's3'\n[snapshot.s3]\n{login}");
    let bucket = natively::s3(&url);
    race.run("s3", 0.8, &lines, || {}, &mut |bodies| natively::http(&runtime, &bucket, bodies));

    let server = DavServer::start();
    let lines = format!("[snapshot]\nstore = 'webdav'\n[snapshot.webdav]\nurl = '{}'", server.address("/"));
    let files = natively::webdav(&server.url());
    race.run("webdav", 0.8, &lines, || {}, &mut |bodies| natively::http(&runtime, &files, bodies));

    let judged = race.judged;
    starts(report, judged);
}

/// Components against their likes.
struct Race<'a> {
    report: &'a mut Report,
    folder: &'a Path,
    host: PluginHost,
    bodies: Vec<Vec<u8>>,
    judged: bool,
}

impl<'a> Race<'a> {
    fn new(report: &'a mut Report, folder: &'a Path, rows: usize) -> Self {
        // So few rows are no measurement.
        let judged = rows >= 10_000;
        let bodies = (0..if judged { 24 } else { 2 }).map(|seed| noise(seed, OBJECT_BYTES)).collect();
        let host = PluginHost::new(&HostOptions::default()).unwrap();
        Self { report, folder, host, bodies, judged }
    }

    /// Alternately, so that what else the machine does is both's; the median of each. `between`: before all is fetched.
    fn run(&mut self, what: &str, mark: f64, lines: &str, between: impl Fn(), native: &mut Way<'_>) {
        let store = self.configured(lines);
        let rounds = if self.judged { 7 } else { 1 };
        let mut all: [Vec<Duration>; 4] = Default::default();
        for _ in 0..rounds {
            let (one, other) = (component(&store, &self.bodies, &between), native(&self.bodies));
            all.iter_mut().zip([one.0, one.1, other.0, other.1]).for_each(|(all, took)| all.push(took));
        }
        all.iter_mut().for_each(|all| all.sort_unstable());
        let middle = all.map(|all| all[rounds / 2]);
        let moved = (self.bodies.len() * OBJECT_BYTES) as f64 / f64::from(1 << 20);
        let rate = |took: Duration| moved / took.as_secs_f64();
        for (how, component, native) in [("put", middle[0], middle[2]), ("get", middle[1], middle[3])] {
            let ratio = native.as_secs_f64() / component.as_secs_f64();
            self.report.mark(
                &format!("`{what}` {how}, against its like without a component"),
                &format!("{:.0} MiB/s = {:.0}% of {:.0}", rate(component), ratio * 100.0, rate(native)),
                &format!("{:.0}%", mark * 100.0),
                ratio >= mark || !self.judged,
            );
        }
        let peak = store.memory_peak();
        let value = format!("{:.1} MiB", peak as f64 / f64::from(1 << 20));
        self.report.mark(&format!("`{what}`, memory of an instance"), &value, "under 128 MiB", peak < 128 << 20);
    }

    fn configured(&self, lines: &str) -> Storage {
        let file = self.folder.join("antiphon.toml");
        fs::write(&file, format!("db_path = 'app.db'\n{lines}")).unwrap();
        let config = Config::unjudged(Sources { file: Some(file), ..Sources::default() }).unwrap();
        open(&config, &self.host, None, Pins::Required).unwrap().component
    }
}

fn component(store: &Storage, bodies: &[Vec<u8>], between: &impl Fn()) -> (Duration, Duration) {
    let put = at_once(bodies.len(), |number| store.put(&name(number), &bodies[number], Put::Replace).unwrap()).0;
    between();
    let (got, found) = at_once(bodies.len(), |number| store.get(&name(number), None).unwrap());
    assert!(found == bodies, "what came back is not what was put");
    (put, got)
}

fn source(name: &str) -> Source<'static> {
    let bytes = antiphon_bundle::find(World::Storage, name).unwrap().bytes;
    Source { name: name.to_owned(), origin: Origin::Official, bytes: Cow::Borrowed(bytes) }
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
