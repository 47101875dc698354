//! Hosts with a real NATS server between them, as ratios to what the server takes of the same batches by themselves.

use crate::fixture::{self, INSERT, Kind};
use crate::processes::{Host, count, is_enough, is_member, usage, wait_for};
use crate::report::{Report, per_second, timed};
use antiphon_harness::{Broker, Proxy};
use async_nats::jetstream::stream::Config;
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use rusqlite::Connection;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const SAMPLES: usize = 300;

/// What carries the rows, and how far.
#[derive(Clone, Copy)]
struct Shape {
    shards: usize,
    nodes: usize,
    /// Each way.
    delay: Duration,
}

/// Hosts on fresh databases, all members, and the server between them.
struct Cluster {
    shape: Shape,
    broker: Broker,
    hosts: Vec<Host>,
    applications: Vec<Connection>,
    _ways: Vec<Proxy>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    fn start(shape: Shape) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start();
        let ways: Vec<Proxy> = (0..shape.nodes).map(|_| way(&broker, shape.delay)).collect();
        let urls = ways.iter().map(|way| if shape.delay.is_zero() { broker.url() } else { way.url() });
        let (hosts, applications): (Vec<_>, Vec<_>) =
            (1..).zip(urls).map(|(number, url)| node(folder.path(), number, &url, shape.shards)).unzip();
        // A row written before its host is a member would be one that the cluster does not have.
        for conn in &applications {
            wait_for("a member", || is_member(conn), Duration::from_millis(5));
        }
        fixture::fill(&applications[0], Kind::Ordinary, 0, 1, INSERT);
        let cluster = Self { shape, broker, hosts, applications, _ways: ways, _folder: folder };
        cluster.arrived(1);
        cluster
    }

    /// Waits until every node has so many rows.
    fn arrived(&self, rows: usize) {
        for conn in &self.applications {
            wait_for("all rows", || count(conn) >= rows, Duration::from_millis(5));
        }
    }

    fn admin(&self) -> Admin {
        Admin::new(&self.broker.url())
    }
}

fn way(broker: &Broker, delay: Duration) -> Proxy {
    let way = Proxy::to(broker.port());
    way.delay(delay);
    way
}

fn node(folder: &Path, number: usize, url: &str, shards: usize) -> (Host, Connection) {
    let database = folder.join(format!("{number}.db"));
    let application = fixture::create(&database);
    let config = folder.join(format!("{number}.toml"));
    let text = format!("db_path = {database:?}\n[replication_log]\nshards = {shards}\n[nats]\nurls = [{url:?}]\n");
    std::fs::write(&config, text).unwrap();
    (Host::configured(&config), application)
}

/// The server's own client.
struct Admin {
    runtime: Runtime,
    context: Context,
}

impl Admin {
    fn new(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let connect = async { jetstream::new(async_nats::connect(url).await.unwrap()) };
        Self { context: runtime.block_on(connect), runtime }
    }

    /// Bytes that the streams hold, with subjects and headers, and what is in them.
    fn batches(&self, shards: usize) -> (u64, Vec<Vec<Bytes>>) {
        self.runtime.block_on(async {
            let (mut bytes, mut batches) = (0, Vec::new());
            for shard in 1..=shards {
                let stream = self.context.get_stream(format!("harmonylite-changes-{shard}")).await.unwrap();
                let state = &stream.cached_info().state;
                bytes += state.bytes;
                let mut of_shard = Vec::new();
                for seq in 1..=state.last_sequence {
                    of_shard.push(stream.get_raw_message(seq).await.unwrap().payload);
                }
                batches.push(of_shard);
            }
            (bytes, batches)
        })
    }

    /// Publishes the same batches to streams of the same kind, one after the other in each: nobody who keeps their
    /// order can be faster.
    fn publish(&self, batches: &[Vec<Bytes>]) -> Duration {
        self.runtime.block_on(async {
            for shard in 0..batches.len() {
                let name = format!("plain-{shard}");
                let config = Config { subjects: vec![name.clone()], name, ..Config::default() };
                self.context.create_stream(config).await.unwrap();
            }
            let begun = Instant::now();
            let publishing = batches.iter().enumerate().map(|(shard, batches)| async move {
                for batch in batches {
                    let sent = self.context.publish(format!("plain-{shard}"), batch.clone()).await;
                    sent.unwrap().await.unwrap();
                }
            });
            futures::future::join_all(publishing).await;
            begun.elapsed()
        })
    }
}

/// Rows go from the first node to all others; gives how many a second, and what the limit is.
fn throughput(report: &mut Report, cluster: &Cluster, rows: usize) -> (f64, f64) {
    let writer = &cluster.applications[0];
    let (took, ()) = timed(|| {
        fixture::fill(writer, Kind::Ordinary, 1, rows, INSERT);
        cluster.arrived(rows);
    });
    let (_, batches) = cluster.admin().batches(cluster.shape.shards);
    let way = way(&cluster.broker, cluster.shape.delay);
    let through = if cluster.shape.delay.is_zero() { cluster.broker.url() } else { way.url() };
    let plain = Admin::new(&through).publish(&batches);
    let count: usize = batches.iter().map(Vec::len).sum();
    let Shape { shards, nodes, delay } = cluster.shape;
    let (reached, limit) = (per_second(rows, took), per_second(rows, plain));
    report.figure(
        &format!("  {shards} shards, {nodes} nodes, {} ms each way", delay.as_millis()),
        &format!("{reached:.0} rows/s = {:.0}% of publishing its {count} batches", reached / limit * 100.0),
    );
    (reached, limit)
}

/// One row's way to another node, and a message's to the server and back.
fn latency(report: &mut Report, cluster: &Cluster, rows: usize) {
    let (writer, reader) = (&cluster.applications[0], &cluster.applications[1]);
    let mut delays = Vec::new();
    for id in rows + 1..=rows + SAMPLES.min(rows) {
        let start = Instant::now();
        writer.execute("INSERT INTO items (id, name) VALUES (?1, 'late')", [id as i64]).unwrap();
        let mut seen = reader.prepare_cached("SELECT 1 FROM items WHERE id = ?1").unwrap();
        wait_for("a row", || seen.exists([id as i64]).unwrap(), Duration::from_micros(50));
        delays.push(start.elapsed());
        // Not in step with anyone's timers.
        std::thread::sleep(Duration::from_micros(3000 + (id as u64 * 7919) % 5000));
    }
    let admin = cluster.admin();
    let one = [vec![Bytes::from_static(&[7; 150])]];
    let config = Config { name: "one".to_owned(), subjects: vec!["one".to_owned()], ..Config::default() };
    admin.runtime.block_on(admin.context.create_stream(config)).unwrap();
    let mut plain: Vec<Duration> = (0..SAMPLES)
        .map(|_| {
            let begun = Instant::now();
            admin
                .runtime
                .block_on(async { admin.context.publish("one", one[0][0].clone()).await.unwrap().await.unwrap() });
            begun.elapsed()
        })
        .collect();
    let at = |delays: &mut Vec<Duration>, share: usize| {
        delays.sort_unstable();
        delays[(delays.len() - 1) * share / 100].as_secs_f64() * 1e3
    };
    let (median, late) = (at(&mut delays, 50), at(&mut delays, 99));
    report.mark(
        "one row's delay, median and p99",
        &format!("{median:.1} ms and {late:.1} ms"),
        "6 ms and 20 ms",
        median <= 6.0 && late <= 20.0 || !is_enough(rows),
    );
    let (plain_median, plain_late) = (at(&mut plain, 50), at(&mut plain, 99));
    report.figure(
        "  a message's to the server and back",
        &format!(
            "{plain_median:.1} ms and {plain_late:.1} ms; a row's median is {:.1} times that",
            median / plain_median
        ),
    );
}

/// Bytes of the streams for each row, with subjects, headers and all.
fn bytes(report: &mut Report, kind: Kind, rows: usize, mark: f64) {
    let cluster = Cluster::start(Shape { shards: 1, nodes: 2, delay: Duration::ZERO });
    let (before, _) = cluster.admin().batches(1);
    fixture::fill(&cluster.applications[0], kind, 1, rows, INSERT);
    cluster.arrived(rows);
    let (after, _) = cluster.admin().batches(1);
    let per_row = (after - before) as f64 / rows as f64;
    let name = if kind == Kind::Ordinary { "ordinary" } else { "random" };
    report.mark(
        &format!("bytes a row on the bus, {name}"),
        &format!("{per_row:.1}"),
        &format!("at most {mark:.0}"),
        per_row <= mark || !is_enough(rows),
    );
}

pub fn run(report: &mut Report, rows: usize) {
    println!("processes with a NATS server between them, {rows} rows");
    let shape = Shape { shards: 1, nodes: 2, delay: Duration::ZERO };
    let cluster = Cluster::start(shape);
    let (reached, limit) = throughput(report, &cluster, rows);
    report.mark(
        "end to end through a server",
        &format!("{reached:.0} rows/s = {:.0}% of the limit", reached / limit * 100.0),
        "120,000 rows/s",
        reached >= 120_000.0 || !is_enough(rows),
    );
    for (host, name) in cluster.hosts.iter().zip(["writing", "reading"]) {
        let (cpu, peak) = usage(host);
        let used = format!("{:.2} µs a row, {peak:.0} MiB at its peak", cpu * 1e6 / rows as f64);
        report.figure(&format!("  the {name} node"), &used);
    }
    latency(report, &cluster, rows);
    drop(cluster);
    bytes(report, Kind::Ordinary, rows, 30.0);
    bytes(report, Kind::Random, rows.min(50_000), 105.0);
    for shape in shapes(rows >= 200_000) {
        throughput(report, &Cluster::start(shape), rows);
    }
}

/// All of them, or those along the edges.
fn shapes(all: bool) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for shards in [1, 2, 4] {
        for nodes in [2, 5] {
            for delay in [0, 5, 50] {
                let turns = u8::from(shards > 1) + u8::from(nodes > 2) + u8::from(delay > 0);
                if turns > 0 && (all || turns == 1) {
                    shapes.push(Shape { shards, nodes, delay: Duration::from_millis(delay) });
                }
            }
        }
    }
    shapes
}
