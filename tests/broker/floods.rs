//! X16: somebody who may write to the servers writes as much as they take, and as large as it may be. The applications
//! beside the nodes write on as if nothing were, the nodes stay small, and say in words what has stopped.

use crate::hostile::{change_of, log};
use crate::site::{place, replicates, site, status};
use antiphon::log::{Appended, Log as _};
use antiphon_core::codec::{self, Encoder};
use antiphon_core::entry::{Entry, Origin};
use antiphon_harness::health::{is_unwell, is_well, serving};
use antiphon_harness::{Broker, Place, Site, eventually, settled};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// Bytes that are sent in a second.
const PACE: u64 = 50 << 20;
/// What a node may have at its peak.
const MEMORY_MAX: u64 = 300 << 20;
/// As long as words may be that people read.
const WORDS_MAX: usize = 5_000;
const INTRUDER: Origin = Origin { node: 666, incarnation: 1 };

/// Two nodes at rest, which say how they are.
fn nodes(place: &Place, broker: &Broker) -> [Site; 2] {
    let nats = format!("urls = ['{}']\n[replication_log]\nshards = 2", broker.url());
    let mut sites = ["a", "b"].map(|name| serving(site(place, name, "", &nats)));
    for site in &mut sites {
        site.spawn();
        site.wait_for_words("  metrics  http");
    }
    let [a, b] = &sites;
    replicates(a, b, 1);
    settled(&[a, b]);
    is_well(a);
    is_well(b);
    sites
}

/// Writes beside a node until it is told to stop, and never waits for longer than an application would; gives how often.
fn write<'scope>(
    scope: &'scope Scope<'scope, '_>,
    site: &'scope Site,
    first: i64,
    stop: &'scope AtomicBool,
) -> ScopedJoinHandle<'scope, i64> {
    scope.spawn(move || {
        let conn = site.connect();
        conn.busy_timeout(Duration::from_secs(1)).unwrap();
        let mut written = 0;
        while !stop.load(Ordering::Acquire) {
            conn.execute("INSERT INTO t VALUES (?1, 'meanwhile')", [first + written]).unwrap();
            written += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
        written
    })
}

/// Ends the writers however the test ends.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Waits within the scope of other threads.
fn wait_for<T>(what: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(what))
}

/// An entry of the first shard that a node wrote.
async fn some_entry(log: &impl antiphon::log::Log) -> Entry {
    let entries = log.read(1, 0, 1 << 20).await.unwrap();
    codec::decode(&entries.last().unwrap().frame).unwrap()
}

#[track_caller]
fn stay_small(sites: &[Site]) {
    for site in sites {
        let peak = site.peak_memory();
        println!("{} MiB at the peak", peak >> 20);
        assert!(peak < MEMORY_MAX, "{peak}");
    }
}

/// Garbage in pieces of all sizes, at 50 MB a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x16_a_flood_of_garbage_stops_its_shard_and_no_application() {
    let lasts = Duration::from_secs(if std::env::var("FULL").is_ok() { 60 } else { 5 });
    let broker = Broker::with("max_payload: 8MB");
    let place = place();
    let sites = nodes(&place, &broker);
    let client = async_nats::connect(broker.url()).await.unwrap();
    // Very many small ones, and a few as large as the server takes.
    let mut sizes = vec![20; 1_000];
    sizes.extend([5_000; 50]);
    sizes.extend([300_000, 4_000_000, 7_900_000]);
    let pieces: Vec<Bytes> = sizes.into_iter().map(|size| vec![b'x'; size].into()).collect();
    let stop = AtomicBool::new(false);
    let (flooded, written) = std::thread::scope(|scope| {
        let _stopping = Stopping(&stop);
        let writers = [write(scope, &sites[0], 1_000, &stop), write(scope, &sites[1], 1_000_000, &stop)];
        let flooded = wait_for(async {
            let (begun, mut sent) = (Instant::now(), 0);
            for piece in pieces.iter().cycle() {
                if begun.elapsed() > lasts {
                    break;
                }
                client.publish("harmonylite-change-log-1.666.1", piece.clone()).await.unwrap();
                sent += piece.len() as u64;
                while sent > begun.elapsed().as_millis() as u64 * PACE / 1000 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            client.flush().await.unwrap();
            sent
        });
        for site in &sites {
            // A server that is flooded may not answer for a while.
            eventually("it is said what it is", || {
                let what = is_unwell(site, "shard 1");
                assert!(what.len() < WORDS_MAX, "{what}");
                what.contains("it is not an entry of Antiphon")
            });
        }
        stop.store(true, Ordering::Release);
        (flooded, writers.map(|writer| writer.join().unwrap()))
    });
    println!("{} MiB were sent; {written:?} rows were written meanwhile", flooded >> 20);
    assert!(written.iter().all(|written| *written > 0), "{written:?}");
    // The other shard goes on, both ways.
    for (site, first) in [(&sites[1], 1_000), (&sites[0], 1_000_000)] {
        let there = format!("SELECT count(*) FROM t WHERE id BETWEEN {first} AND {}", first + 900_000);
        let arrived = || site.one(&there).parse::<i64>().unwrap();
        let least = if first == 1_000 { written[0] } else { written[1] } / 4;
        eventually("rows of the other shard arrive", || arrived() >= least);
    }
    stay_small(&sites);
}

/// A table's name as long as an entry may be: what is said of it stays short.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x16_a_giant_name_is_said_in_few_words() {
    let broker = Broker::start();
    let place = place();
    let mut sites = nodes(&place, &broker);
    let log = log(&broker).await;
    let cluster = some_entry(&log).await.cluster;
    let name = "x".repeat(32 << 20);
    let giant = Encoder::new(None).encode(&change_of(&name, cluster, INTRUDER, 1, 1, "his own")).unwrap();
    assert!(matches!(log.append(1, INTRUDER, 1, &[giant]).await.unwrap(), Appended::At(_)));
    for (site, name) in sites.iter_mut().zip(["a", "b"]) {
        let what = is_unwell(site, "shard 1");
        assert!(
            what.contains("it changes table `xxx") && what.contains("create it here as it is on the other"),
            "{what}"
        );
        assert!(what.len() < WORDS_MAX, "{}", what.len());
        site.wait_for_words("paused until this changes; capture goes on");
        assert!(site.said().len() < 100_000 && status(&place, name).to_string().len() < 100_000);
        site.sql("INSERT INTO t VALUES (NULL, 'written all the same')");
    }
    stay_small(&sites);
}

/// A little that unpacks to very much, in another's name: it is left out, and takes no lock for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x16_what_unpacks_to_very_much_holds_no_application_up() {
    let broker = Broker::start();
    let place = place();
    let sites = nodes(&place, &broker);
    let log = log(&broker).await;
    let Entry { cluster, origin, number, .. } = some_entry(&log).await;
    let name = "x".repeat(32 << 20);
    let mut encoder = Encoder::new(Some(3));
    let bombs: Vec<Vec<u8>> = (1..=100)
        .map(|at| encoder.encode(&change_of(&name, cluster, origin, number + at, 1, "forged")).unwrap())
        .collect();
    assert!(bombs[0].len() < 100_000, "{}", bombs[0].len());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stopping = Stopping(&stop);
        let writers = [write(scope, &sites[0], 1_000, &stop), write(scope, &sites[1], 1_000_000, &stop)];
        let appended = wait_for(log.append(1, INTRUDER, 1, &bombs));
        assert!(matches!(appended.unwrap(), Appended::At(_)));
        for site in &sites {
            let what = is_unwell(site, "forged");
            assert!(what.len() < WORDS_MAX, "{what}");
        }
        // A row each way comes behind all of them.
        replicates(&sites[0], &sites[1], 2);
        replicates(&sites[1], &sites[0], 3);
        stop.store(true, Ordering::Release);
        for writer in writers {
            assert!(writer.join().unwrap() > 0);
        }
    });
    settled(&sites.each_ref());
    stay_small(&sites);
}
