//! Who a node is, and what all nodes must agree on, where the log lies on servers.

use crate::site::{TABLE, configure, count, place, replicates, site, start};
use antiphon::log::{Connection, JetStream, Limit, Log, Login, Names, Settings};
use antiphon_core::codec::Encoder;
use antiphon_core::entry::{Body, Entry, Genesis, Origin};
use antiphon_harness::{Broker, Signal, eventually, settled};
use std::time::{Duration, Instant};

/// C67: what a node has otherwise than its cluster is named, and nothing is sent.
#[test]
fn c67_what_differs_is_refused_in_words() {
    let (place, broker) = (place(), Broker::start());
    let nats = |more: &str| format!("urls = ['{}']\n{more}", broker.url());
    let mut a = site(
        &place,
        "a",
        "",
        &nats("[conflict]\ndefault = 'last-write-wins'\n[[conflict.table]]\nmatch = 'x'\nuse = 'first-write-wins'"),
    );
    start(&mut a);
    a.sql("INSERT INTO t VALUES (1, 'x')");
    eventually("it is sent", || a.is_quiet());
    let policy = "[[conflict.table]]\nmatch = 'x'\nuse = 'first-write-wins'";
    for (name, more, words) in [
        (
            "shards",
            format!("{policy}\n[replication_log]\nshards = 4"),
            "it has 1 shard, and this node is configured for 4",
        ),
        (
            "hasher",
            format!("{policy}\n[hash]\nuse = 'xxh3'"),
            "it hashes keys with `fnv@1`, and this node with `xxh3@1`",
        ),
    ] {
        let mut b = site(&place, name, "", &nats(&more));
        b.sql("INSERT INTO t VALUES (2, 'must not go out')");
        b.refused().expect(64, &["this node differs from its cluster: ", words, "`antiphon config show`"]);
        assert_eq!(b.rows("SELECT name FROM sqlite_schema WHERE name LIKE '%_on_insert'"), [""; 0]);
    }
    replicates(&a, &a, 3);
    assert_eq!(count(&a), "2");
}

/// C67: a cluster that speaks another wire version.
#[tokio::test]
async fn c67_a_newer_wire_version_is_refused() {
    let (place, broker) = (place(), Broker::start());
    let pause = Duration::from_millis(100);
    let connection = Connection::open(&[broker.url()], "newer", Login::default(), pause).await.unwrap();
    connection.wait(10).await;
    let names =
        Names { subject_prefix: "harmonylite-change-log".to_owned(), stream_prefix: "harmonylite-changes".to_owned() };
    let settings =
        Settings { names, replicas: 1, update_existing: false, limit: Limit::default(), place: "x".to_owned() };
    let genesis = Genesis {
        shards: 1,
        hasher: "fnv@1".to_owned(),
        resolver: "last-write-wins@1".to_owned(),
        wire: 9,
        ..Genesis::default()
    };
    let origin = Origin { node: 1, incarnation: 1 };
    let entry = Entry { cluster: [7; 16], origin, number: 0, clock: 1, body: Body::Genesis(genesis) };
    let frame = Encoder::new(None).encode(&entry).unwrap();
    assert!(JetStream::new(&connection, settings).begin(1, &frame).await.unwrap());
    let mut a = site(&place, "a", "", &format!("urls = ['{}']", broker.url()));
    a.refused().expect(64, &["it speaks wire version 9, and this build up to 1"]);
}

/// C29: a node's file and the directory beside it, elsewhere at the same time: within 5 s one of the two is out.
#[test]
fn c29_a_cloned_node_is_fenced_within_five_seconds() {
    let (place, broker) = (place(), Broker::start());
    let nats = format!("urls = ['{}']", broker.url());
    let (mut a, mut b) = (site(&place, "a", "", &nats), site(&place, "b", "", &nats));
    start(&mut a);
    start(&mut b);
    replicates(&a, &b, 1);
    settled(&[&a, &b]);
    a.term();
    // A snapshot of a machine brings back all of it: file, directory and inodes.
    let clone = place.copy("clone", &a);
    copy_all(&a.state(), &clone.state());
    let mut clone = configure(&place, &clone, "clone", "", &nats);
    vouch(&clone);
    start(&mut a);
    replicates(&a, &b, 2);
    let begun = Instant::now();
    let ended = clone.refused();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    ended.expect(75, &["runs already, on another copy of this file"]);
    replicates(&a, &b, 3);

    // One that was silent for longer than a claim holds: who goes on in its name puts it out.
    a.signal(Signal::STOP);
    clone.spawn();
    clone.wait_for_words("  log      ");
    a.signal(Signal::CONT);
    let begun = Instant::now();
    let ended = a.wait();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(ended.code(), Some(65), "{}", a.said());
    assert!(a.said().contains("another process goes on under this node's name"), "{}", a.said());
}

/// C30: a copy of the file alone is a node of its own, and sends nothing twice.
#[test]
fn c30_a_copied_file_is_a_node_of_its_own() {
    let (place, broker) = (place(), Broker::start());
    let nats = format!("urls = ['{}']", broker.url());
    let mut a = site(&place, "a", "", &nats);
    start(&mut a);
    a.sql("INSERT INTO t VALUES (1, 'x'), (2, 'y')");
    eventually("it is sent", || a.is_quiet());
    let copy = place.copy("copy", &a);
    let mut copy = configure(&place, &copy, "copy", "", &nats);
    start(&mut copy);
    assert_ne!(copy.node(), a.node());
    replicates(&a, &copy, 3);
    replicates(&copy, &a, 4);
    settled(&[&a, &copy]);
    assert!(!TABLE.is_empty());
}

fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Makes the note of the clone's life say that the file is the one it lies beside, as an image of a whole machine does.
fn vouch(clone: &antiphon_harness::Site) {
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::metadata(&clone.database).unwrap();
    let note = clone.state().join("life");
    let text = std::fs::read_to_string(&note).unwrap();
    let lines = text.lines().map(|line| match line.split_once(' ') {
        Some(("device", _)) => format!("device {}\n", file.dev()),
        Some(("inode", _)) => format!("inode {}\n", file.ino()),
        _ => format!("{line}\n"),
    });
    std::fs::write(&note, lines.collect::<String>()).unwrap();
}
