//! Who may write to the broker, and means harm or makes a mistake.

use crate::site::{count, degraded, place, replicates, site, start, status};
use antiphon::log::{Appended, Connection, JetStream, Limit, Log, Login, Names, Settings};
use antiphon_core::codec::{self, Encoder};
use antiphon_core::entry::{Body, Changes, Chunk, ClusterId, Entry, Origin, Rows};
use antiphon_core::value::Value;
use antiphon_harness::{Broker, eventually, settled};
use std::time::Duration;

/// A way to the log beside the nodes'.
pub(crate) async fn log(broker: &Broker) -> JetStream {
    let pause = Duration::from_millis(100);
    let connection = Connection::open(&[broker.url()], "hostile", Login::default(), pause).await.unwrap();
    connection.wait(10).await;
    let names =
        Names { subject_prefix: "harmonylite-change-log".to_owned(), stream_prefix: "harmonylite-changes".to_owned() };
    let place = "elsewhere".to_owned();
    JetStream::new(&connection, Settings { names, replicas: 1, update_existing: false, limit: Limit::default(), place })
}

/// A row of `t` as a change of this origin's.
fn change(cluster: ClusterId, origin: Origin, number: u64, id: i64, text: &str) -> Vec<u8> {
    Encoder::new(None).encode(&change_of("t", cluster, origin, number, id, text)).unwrap()
}

/// A row of a table as a change of this origin's.
pub(crate) fn change_of(table: &str, cluster: ClusterId, origin: Origin, number: u64, id: i64, text: &str) -> Entry {
    let mut written = Rows::new(2);
    written.push(vec![Value::Integer(id), Value::Text(text.as_bytes().to_vec())]);
    let chunk = Chunk {
        table: table.to_owned(),
        columns: vec!["id".to_owned(), "v".to_owned()],
        key: vec![0],
        uniques: Vec::new(),
        written,
        gone: Rows::new(1),
        seen: Vec::new(),
        made: Vec::new(),
    };
    let body = Body::Changes(Changes { more: false, seen: 0, chunks: vec![chunk] });
    Entry { cluster, origin, number, clock: 1, body }
}

/// X01: what is sent in another's name is left out on every node, his numbers stay his own, and it is said.
#[tokio::test]
async fn x01_what_is_sent_in_anothers_name_is_left_out() {
    let broker = Broker::start();
    let place = place();
    let nats = format!("urls = ['{}']", broker.url());
    let (mut a, mut b) = (site(&place, "a", "", &nats), site(&place, "b", "", &nats));
    start(&mut a);
    start(&mut b);
    a.sql("INSERT INTO t VALUES (1, 'safe')");
    eventually("it works", || count(&b) == "1");
    settled(&[&a, &b]);

    let log = log(&broker).await;
    let entries = log.read(1, 0, 1 << 20).await.unwrap();
    let last = codec::decode(&entries.last().unwrap().frame).unwrap();
    let (victim, intruder) = (last.origin, Origin { node: 666, incarnation: 1 });
    let forged = change(last.cluster, victim, last.number + 1, 1, "forged");
    assert!(matches!(log.append(1, intruder, 1, &[forged]).await.unwrap(), Appended::At(_)));
    // What he says in his own name is a change like any other.
    let honest = change(last.cluster, intruder, 2, 2, "his own");
    let appended = log.append(1, intruder, 2, &[honest]).await.unwrap();
    assert!(matches!(appended, Appended::At(_)), "{appended:?}");
    for (site, name) in [(&a, "a"), (&b, "b")] {
        eventually("it is noticed", || degraded(&place, name, "forged").starts_with("1 entry of the log"));
        eventually("it says so", || site.said().contains("a forged entry was left out"));
    }
    // His second number came without a first: the shard stops, as for anyone whose batches are missing.
    eventually("the hole is noticed", || status(&place, "b")["verdict"] == "paused");
    assert_eq!(a.rows("SELECT v FROM t"), ["safe"]);
    assert_eq!(b.rows("SELECT v FROM t"), ["safe"]);
}

/// X01: the victim of a forger goes on as before.
#[tokio::test]
async fn x01_the_victim_goes_on() {
    let broker = Broker::start();
    let place = place();
    let nats = format!("urls = ['{}']", broker.url());
    let (mut a, mut b) = (site(&place, "a", "", &nats), site(&place, "b", "", &nats));
    start(&mut a);
    start(&mut b);
    replicates(&a, &b, 1);
    settled(&[&a, &b]);
    let log = log(&broker).await;
    let entries = log.read(1, 0, 1 << 20).await.unwrap();
    let last = codec::decode(&entries.last().unwrap().frame).unwrap();
    for number in 1..=20 {
        let forged = change(last.cluster, last.origin, last.number + number, 1, "forged");
        let appended = log.append(1, Origin { node: 666, incarnation: 1 }, number, &[forged]).await.unwrap();
        assert!(matches!(appended, Appended::At(_)));
    }
    replicates(&a, &b, 2);
    replicates(&b, &a, 3);
    settled(&[&a, &b]);
    assert_eq!(b.one("SELECT v FROM t WHERE id = 1"), "from");
    // After a start, too: what was left out once is not read again.
    b.term();
    start(&mut b);
    replicates(&a, &b, 4);
    assert!(degraded(&place, "b", "forged").starts_with("20 entries"), "{:?}", status(&place, "b")["degraded"]);
}

/// C13: bytes that are no entry stop their shard, visibly, and no other; nothing is passed over.
#[tokio::test]
async fn c13_garbage_stops_its_shard_alone() {
    let broker = Broker::start();
    let place = place();
    let nats = format!("urls = ['{}']\n[replication_log]\nshards = 2", broker.url());
    let (mut a, mut b) = (site(&place, "a", "", &nats), site(&place, "b", "", &nats));
    start(&mut a);
    start(&mut b);
    replicates(&a, &b, 1);
    settled(&[&a, &b]);
    let log = log(&broker).await;
    let intruder = Origin { node: 666, incarnation: 1 };
    assert!(matches!(log.append(2, intruder, 1, &[b"garbage".to_vec()]).await.unwrap(), Appended::At(_)));
    eventually("it is noticed", || status(&place, "b")["verdict"] == "paused");
    let said = status(&place, "b")["troubles"]["shard 2"]["reason"].as_str().unwrap_or_default().to_owned();
    assert!(said.contains("it is not an entry of Antiphon"), "{said}");
    for id in 100..200 {
        a.sql(&format!("INSERT INTO t VALUES ({id}, 'x')"));
    }
    eventually("the other shard goes on", || count(&b).parse::<u32>().unwrap() > 20);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(count(&b).parse::<u32>().unwrap() < 90, "rows of the shard that stopped came");
    b.term();
    start(&mut b);
    eventually("a start does not forget it", || status(&place, "b")["verdict"] == "paused");
}
