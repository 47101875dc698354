//! X16: somebody who may write to the servers writes as much as they take, and as large as it may be. The applications
//! beside the nodes write on as if nothing were, the nodes stay small, and say in words what has stopped.

use crate::hostile::{change_of, log};
use crate::site::{place, replicates, site, status};
use antiphon::log::{Appended, Log as _};
use antiphon_core::codec::{self, Encoder};
use antiphon_core::entry::{Entry, Origin};
use antiphon_harness::health::{is_unwell, is_well, serving};
use antiphon_harness::{Broker, Neighbour, Place, Site, Stopping, Waits, eventually, settled};
use async_nats::Client;
use async_nats::jetstream::{self, stream};
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

/// Writes beside both nodes until it is told to stop.
fn write<'scope>(
    scope: &'scope Scope<'scope, '_>,
    place: &Place,
    sites: &[Site; 2],
    stop: &'scope AtomicBool,
) -> [ScopedJoinHandle<'scope, Waits>; 2] {
    let neighbours =
        [(&sites[0], 1_000), (&sites[1], 1_000_000)].map(|(site, first)| (Neighbour::of(place, site), first));
    neighbours.map(|(neighbour, first)| scope.spawn(move || neighbour.write(first, stop)))
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

/// Sends these in turn at the pace, for so long; gives how many bytes the server has taken.
async fn flood(client: &Client, subject: &'static str, pieces: &[Bytes], lasts: Duration) -> u64 {
    let (begun, mut sent) = (Instant::now(), 0);
    for piece in pieces.iter().cycle() {
        if begun.elapsed() > lasts {
            break;
        }
        client.publish(subject, piece.clone()).await.unwrap();
        sent += piece.len() as u64;
        while sent > begun.elapsed().as_millis() as u64 * PACE / 1000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    client.flush().await.unwrap();
    sent
}

/// How much of the pace a server on this machine takes in a second, where no node is.
async fn ceiling(pieces: &[Bytes]) -> u64 {
    let broker = broker();
    let client = async_nats::connect(broker.url()).await.unwrap();
    let name = "flood".to_owned();
    let stream = stream::Config { name, subjects: vec!["flood".to_owned()], ..stream::Config::default() };
    jetstream::new(client.clone()).create_stream(stream).await.unwrap();
    let begun = Instant::now();
    let sent = flood(&client, "flood", pieces, Duration::from_secs(2)).await;
    each_second(sent, begun)
}

fn each_second(bytes: u64, since: Instant) -> u64 {
    bytes * 1000 / since.elapsed().as_millis() as u64
}

/// One that takes large messages.
fn broker() -> Broker {
    Broker::with("max_payload: 8MB")
}

/// What came of a flood.
struct Flooded {
    /// Bytes in a second.
    rate: u64,
    waits: [Waits; 2],
}

impl Flooded {
    /// Lets it come over two nodes, and waits until each of them says what this is.
    async fn with(place: &Place, broker: &Broker, sites: &[Site; 2], pieces: &[Bytes], said: impl Fn(&Site)) -> Self {
        let lasts = Duration::from_secs(if std::env::var("FULL").is_ok() { 60 } else { 5 });
        let client = async_nats::connect(broker.url()).await.unwrap();
        let stop = AtomicBool::new(false);
        let (rate, waits) = std::thread::scope(|scope| {
            let _stopping = Stopping(&stop);
            let writers = write(scope, place, sites, &stop);
            let begun = Instant::now();
            let sent = wait_for(flood(&client, "harmonylite-change-log-1.666.1", pieces, lasts));
            let rate = each_second(sent, begun);
            sites.iter().for_each(said);
            stop.store(true, Ordering::Release);
            (rate, writers.map(|writer| writer.join().unwrap()))
        });
        Self { rate, waits }
    }

    /// It was as much as the machine can send, or what was asked for; and no application was held up by it.
    #[track_caller]
    fn check(self, ceiling: u64) {
        println!("{} MiB/s were sent, of {} MiB/s where no node is", self.rate >> 20, ceiling >> 20);
        assert!(self.rate >= ceiling.min(PACE) / 10 * 9, "{} of {ceiling}", self.rate);
        self.waits.into_iter().for_each(Waits::are_short);
    }
}

/// Garbage in pieces of all sizes, at 50 MB a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x16_a_flood_of_garbage_stops_its_shard_and_no_application() {
    // Very many small ones, and a few as large as the server takes.
    let mut sizes = vec![20; 1_000];
    sizes.extend([5_000; 50]);
    sizes.extend([300_000, 4_000_000, 7_900_000]);
    let pieces: Vec<Bytes> = sizes.into_iter().map(|size| vec![b'x'; size].into()).collect();
    let ceiling = ceiling(&pieces).await;
    let (broker, place) = (broker(), place());
    let sites = nodes(&place, &broker);
    let flooded = Flooded::with(&place, &broker, &sites, &pieces, |site| {
        // A server that is flooded may not answer for a while.
        eventually("it is said what it is", || {
            let what = is_unwell(site, "shard 1");
            assert!(what.len() < WORDS_MAX, "{what}");
            what.contains("it is not an entry of Antiphon")
        });
    })
    .await;
    // The other shard goes on, both ways.
    for (site, first, waits) in [(&sites[1], 1_000, &flooded.waits[0]), (&sites[0], 1_000_000, &flooded.waits[1])] {
        let there = format!("SELECT count(*) FROM t WHERE id BETWEEN {first} AND {}", first + 900_000);
        let arrived = || site.one(&there).parse::<i64>().unwrap();
        eventually("rows of the other shard arrive", || arrived() >= waits.rows() / 4);
    }
    stay_small(&sites);
    flooded.check(ceiling);
}

/// Entries that are read to their end and then left out: in another's name, or with a number that was there. No shard
/// stops, so all of it is read, and the applications' rows come through between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x16_a_flood_of_entries_that_are_left_out() {
    let (broker, place) = (broker(), place());
    let sites = nodes(&place, &broker);
    let entry = some_entry(&log(&broker).await).await;
    let (cluster, victim, number) = (entry.cluster, entry.origin, entry.number);
    let mut encoder = Encoder::new(None);
    let mut pieces: Vec<Bytes> = Vec::new();
    for (at, size) in (1..).zip([[20; 100].as_slice(), &[5_000; 100], &[100_000; 20], &[2_000_000; 3]].concat()) {
        let text = "x".repeat(size);
        let forged = change_of("t", cluster, victim, number + at, 7, &text);
        // The first of these is a change like any other, and all that follow are the same.
        let again = change_of("t", cluster, INTRUDER, 1, 8, "his own");
        pieces.push(encoder.encode(&forged).unwrap().into());
        pieces.push(encoder.encode(&again).unwrap().into());
    }
    let ceiling = ceiling(&pieces).await;
    let flooded = Flooded::with(&place, &broker, &sites, &pieces, |site| {
        assert!(is_unwell(site, "forged").len() < WORDS_MAX);
    })
    .await;
    // A row each way comes behind all of it, as long as it is read on.
    for (from, to, id) in [(&sites[0], &sites[1], 2), (&sites[1], &sites[0], 3)] {
        from.sql(&format!("INSERT INTO t VALUES ({id}, 'behind it')"));
        let position = || to.one("SELECT sum(seq) FROM __antiphon___position");
        let arrived = || to.one(&format!("SELECT count(*) FROM t WHERE id = {id}")) == "1";
        while !arrived() {
            let before = position();
            eventually("it is read on", || arrived() || position() != before);
        }
    }
    settled(&sites.each_ref());
    for site in &sites {
        assert_eq!(site.rows("SELECT id, v FROM t WHERE id IN (7, 8)"), ["8|his own"]);
    }
    stay_small(&sites);
    flooded.check(ceiling);
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
        let writers = write(scope, &place, &sites, &stop);
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
        writers.into_iter().for_each(|writer| writer.join().unwrap().are_short());
    });
    settled(&sites.each_ref());
    stay_small(&sites);
}
