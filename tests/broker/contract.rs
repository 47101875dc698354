//! The contract of a log, kept by JetStream.

use antiphon::log::{Appended, Connection, JetStream, Limit, Log, Login, Names, Sender, Settings, conformance};
use antiphon_core::entry::Origin;
use antiphon_harness::Broker;
use std::cell::Cell;
use std::time::Duration;

async fn connect(broker: &Broker) -> Connection {
    let pause = Duration::from_millis(100);
    let connection = Connection::open(&[broker.url()], "test", Login::default(), pause).await.unwrap();
    connection.wait(10).await;
    connection
}

fn settings(prefix: &str, place: &str) -> Settings {
    let names = Names { subject_prefix: format!("{prefix}-subject"), stream_prefix: prefix.to_owned() };
    Settings { names, replicas: 1, update_existing: false, limit: Limit::default(), place: place.to_owned() }
}

fn origin(node: u64) -> Origin {
    Origin { node, incarnation: 1 }
}

#[tokio::test]
async fn jetstream_keeps_the_contract() {
    let broker = Broker::start();
    let connection = connect(&broker).await;
    let next = Cell::new(0);
    conformance::run(|| {
        next.set(next.get() + 1);
        Box::new(JetStream::new(&connection, settings(&format!("log{}", next.get()), "here")))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn two_connections_share_a_log() {
    let broker = Broker::start();
    let (one, other) = (connect(&broker).await, connect(&broker).await);
    let (one, other) =
        (JetStream::new(&one, settings("log", "here")), JetStream::new(&other, settings("log", "there")));
    conformance::run_shared(&one, &other).await.unwrap();
}

/// An entry that the server takes only in parts is one entry, and stands whole between others.
#[tokio::test]
async fn a_large_entry_is_cut_and_put_together() {
    let broker = Broker::with("max_payload: 65536");
    let connection = connect(&broker).await;
    let log = JetStream::new(&connection, settings("log", "here"));
    let large: Vec<u8> = (0..5_000_000u32).map(|at| at.to_le_bytes()[(at % 3) as usize]).collect();
    let frames = [vec![1; 10], large.clone(), vec![3; 70_000], vec![4; 10]];
    let Appended::At(last) = log.append(1, origin(1), 1, &frames).await.unwrap() else { panic!("fenced") };
    assert_eq!(log.append(1, origin(2), 1, &[vec![5; 10]]).await.unwrap(), Appended::At(last + 1));
    let mut after = 0;
    let mut read = Vec::new();
    while read.len() < 5 {
        let placed = log.read(1, after, 1 << 20).await.unwrap();
        assert!(
            placed[0].first() == after + 1
                && placed[0].from == Sender::Origin(origin(if read.len() < 4 { 1 } else { 2 }))
        );
        after = placed.last().unwrap().seq;
        read.extend(placed);
    }
    assert_eq!(
        read.iter().map(|placed| &placed.frame).collect::<Vec<_>>(),
        [&frames[0], &frames[1], &frames[2], &frames[3], &vec![5; 10]]
    );
    // A position within an entry gives the entry.
    let again = log.read(1, read[1].seq - 1, 1).await.unwrap();
    assert_eq!(again[0], read[1]);
    assert_eq!(log.last_number(1, origin(1)).await.unwrap(), 4);
}

/// What waited for long is many entries, more than the server takes at once: they follow each other in several batches.
#[tokio::test]
async fn many_entries_are_taken_at_once() {
    let broker = Broker::start();
    let connection = connect(&broker).await;
    let log = JetStream::new(&connection, settings("log", "here"));
    let frames: Vec<Vec<u8>> = (0..2500u32).map(|number| number.to_le_bytes().to_vec()).collect();
    assert_eq!(log.append(1, origin(1), 1, &frames).await.unwrap(), Appended::At(2500));
    assert_eq!(log.append(1, origin(1), 2400, &frames).await.unwrap(), Appended::Fenced { last: 2500 });
    assert_eq!(log.append(1, origin(1), 2501, &frames[..1]).await.unwrap(), Appended::At(2501));
    let mut read = Vec::new();
    while read.len() < 2500 {
        read.extend(log.read(1, read.len() as u64, 1 << 20).await.unwrap().into_iter().map(|placed| placed.frame));
    }
    assert!(read[..2500] == frames);
}

/// A claim is one process's, until it is silent for some seconds; the same place takes it over at once.
#[tokio::test]
async fn c31_one_process_speaks_for_an_origin() {
    let broker = Broker::start();
    let (one, other) = (connect(&broker).await, connect(&broker).await);
    let here = JetStream::new(&one, settings("log", "here"));
    let held = here.claim(origin(1)).await.unwrap().unwrap();
    let there = JetStream::new(&other, settings("log", "there"));
    assert!(there.claim(origin(1)).await.unwrap().is_none(), "it is claimed, and renewed");
    let restarted = JetStream::new(&other, settings("log", "here"));
    assert!(restarted.claim(origin(1)).await.unwrap().is_some(), "the same file on the same machine");
    drop(held);
    assert!(there.claim(origin(1)).await.unwrap().is_some(), "nobody renews it");
}

/// Of whom a log that was cut at its beginning has nothing any more goes on with its numbers, and still nobody does twice.
#[tokio::test]
async fn c64_a_cut_log_takes_the_next_number() {
    let broker = Broker::start();
    let (connection, other) = (connect(&broker).await, connect(&broker).await);
    let log = JetStream::new(&connection, settings("log", "here"));
    let frames = [vec![1; 10], vec![2; 10], vec![3; 10]];
    assert_eq!(log.append(1, origin(1), 1, &frames).await.unwrap(), Appended::At(3));
    assert_eq!(log.append(1, origin(2), 1, &frames).await.unwrap(), Appended::At(6));
    let admin = async_nats::jetstream::new(async_nats::connect(broker.url()).await.unwrap());
    admin.get_stream("log-1").await.unwrap().purge().sequence(5).await.unwrap();
    // As after a start: nothing is remembered.
    let log = JetStream::new(&connection, settings("log", "here"));
    let copy = JetStream::new(&other, settings("log", "there"));
    assert_eq!(log.last_number(1, origin(1)).await.unwrap(), 0);
    assert_eq!(log.append(1, origin(2), 3, &frames).await.unwrap(), Appended::Fenced { last: 3 });
    assert_eq!(log.append(1, origin(1), 4, &[vec![4; 10]]).await.unwrap(), Appended::At(7));
    assert_eq!(copy.append(1, origin(1), 4, &[vec![5; 10]]).await.unwrap(), Appended::Fenced { last: 4 });
    assert_eq!(log.append(1, origin(1), 5, &[vec![6; 10]]).await.unwrap(), Appended::At(8));
}
