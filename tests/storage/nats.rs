//! Objects in a bucket of NATS, with real servers.

use antiphon::config::{Config, Sources};
use antiphon::custom::Pins;
use antiphon::storage::conformance::noise;
use antiphon::storage::{Opened, open};
use antiphon_core::store::{ErrorKind, LIST_MAX, Put, Store as _};
use antiphon_harness::{Broker, Brokers, Flow, Proxy, eventually};
use async_nats::jetstream::{self, Context};
use tokio::io::AsyncReadExt as _;

use super::{HOST, conforms, name, survives};

/// The store of a node that logs in like this.
fn store(url: &str, more: &str) -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("antiphon.toml");
    std::fs::write(&file, format!("db_path = 'app.db'\n[nats]\nurls = ['{url}']\n{more}")).unwrap();
    let config = Config::unjudged(Sources { file: Some(file), ..Sources::default() }).unwrap();
    open(&config, &HOST, None, Pins::Required).unwrap()
}

#[test]
fn the_suite() {
    let broker = Broker::start();
    let opened = store(&broker.url(), "");
    assert_eq!(opened.name, "nats");
    conforms(&opened.store);
    assert!(opened.component.memory_peak() < 128 << 20, "{}", opened.component.memory_peak());
}

/// Two that use one server and two buckets see nothing of each other.
#[test]
fn x06_buckets_are_apart() {
    let broker = Broker::start();
    let one = store(&broker.url(), "[snapshot.nats]\nbucket = 'one'");
    let other = store(&broker.url(), "[snapshot.nats]\nbucket = 'other'");
    one.store.put(&name("a"), b"one", Put::Replace).unwrap();
    assert_eq!(other.store.get(&name("a"), None).unwrap_err().kind, ErrorKind::NotFound);
    assert!(other.store.list("", None, LIST_MAX).unwrap().is_empty());
    // And one that comes to the same bucket later sees what is there.
    let again = store(&broker.url(), "[snapshot.nats]\nbucket = 'one'");
    assert_eq!(again.store.get(&name("a"), None).unwrap(), b"one");
}

/// A bucket of several copies is made as it was asked for, and goes on without the server that led it.
#[test]
fn a_bucket_has_the_copies_that_were_asked_for() {
    let mut brokers = Brokers::three();
    let opened = store(&brokers.urls().join("', '"), "[snapshot.nats]\nbucket = 'three'\nreplicas = 3");
    let (body, other) = (noise(5, 3 << 20), noise(6, 1 << 20));
    opened.store.put(&name("a"), &body, Put::Replace).unwrap();
    let copies = by_its_client(&brokers.urls()[0], async |context| {
        context.get_stream("OBJ_three").await.unwrap().cached_info().config.num_replicas
    });
    assert_eq!(copies, 3);
    let leader = brokers.leader("OBJ_three").unwrap();
    brokers.server(leader).kill();
    eventually("another server leads the bucket", || opened.store.put(&name("b"), &other, Put::Replace).is_ok());
    assert!(opened.store.get(&name("a"), None).unwrap() == body);
    assert!(opened.store.get(&name("b"), None).unwrap() == other);
}

/// What was acknowledged is there when the server is back, and the store goes on by itself.
#[test]
fn what_was_acknowledged_survives_a_server_that_is_killed_in_the_middle() {
    let mut broker = Broker::start();
    let opened = store(&broker.url(), "");
    survives(&opened.store, || {
        broker.kill();
        broker.resume();
    });
}

/// What a client of NATS's own makes of a server's object store.
fn by_its_client<T>(url: &str, work: impl AsyncFnOnce(Context) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { work(jetstream::new(async_nats::connect(url).await.unwrap())).await })
}

/// Objects are those of the object store, whoever put them: of any size, and in pieces of any size.
#[test]
fn other_clients_read_what_is_put_and_are_read() {
    let broker = Broker::start();
    let opened = store(&broker.url(), "[snapshot.nats]\nbucket = 'one'");
    for size in [0, 1, 524_288, 524_289, 8 << 20] {
        let (ours, theirs) = (noise(1, size), noise(2, size));
        opened.store.put(&name("ours/a.b"), &ours, Put::Replace).unwrap();
        by_its_client(&broker.url(), async |context| {
            let bucket = context.get_object_store("one").await.unwrap();
            let mut object = bucket.get("ours/a.b").await.unwrap();
            let mut found = Vec::new();
            object.read_to_end(&mut found).await.unwrap();
            assert!(found == ours, "{size}");
            let info = bucket.info("ours/a.b").await.unwrap();
            assert_eq!((info.size, info.modified.is_some()), (size, true));
            bucket.put("theirs", &mut theirs.as_slice()).await.unwrap();
        });
        assert!(opened.store.get(&name("theirs"), None).unwrap() == theirs, "{size}");
    }
    // Nothing stays of those that were replaced.
    let messages = by_its_client(&broker.url(), async |context| {
        context.get_stream("OBJ_one").await.unwrap().cached_info().state.messages
    });
    assert_eq!(messages, 16 + 1 + 64 + 1);
}

/// A bucket whose servers don't let everybody answer for it is asked in the old way.
#[test]
fn a_bucket_that_only_its_leader_answers_for() {
    let broker = Broker::start();
    let opened = store(&broker.url(), "[snapshot.nats]\nbucket = 'old'");
    opened.component.check().unwrap();
    by_its_client(&broker.url(), async |context| {
        let mut config = context.get_stream("OBJ_old").await.unwrap().cached_info().config.clone();
        config.allow_direct = false;
        context.update_stream(config).await.unwrap();
    });
    let opened = store(&broker.url(), "[snapshot.nats]\nbucket = 'old'");
    let body = noise(3, 3 << 20);
    opened.store.put(&name("a"), &body, Put::Replace).unwrap();
    assert!(opened.store.get(&name("a"), None).unwrap() == body);
    opened.store.put(&name("a"), b"less", Put::Replace).unwrap();
    assert_eq!(opened.store.get(&name("a"), None).unwrap(), b"less");
}

/// Pieces that were changed, or that somebody took away, are no object.
#[test]
fn f09_pieces_that_are_not_what_was_put_are_no_object() {
    let broker = Broker::start();
    let opened = store(&broker.url(), "[snapshot.nats]\nbucket = 'one'");
    let body = noise(4, 2 << 20);
    // The message of the name is the last one, and four pieces stand before it.
    let damaged = |back: u64, other: Option<usize>| {
        opened.store.put(&name("a"), &body, Put::Replace).unwrap();
        by_its_client(&broker.url(), async |context| {
            let bucket = context.get_object_store("one").await.unwrap();
            let nuid = bucket.info("a").await.unwrap().nuid;
            let stream = context.get_stream("OBJ_one").await.unwrap();
            let last = stream.cached_info().state.last_sequence;
            assert!(stream.delete_message(last - back).await.unwrap());
            if let Some(other) = other {
                context.publish(format!("$O.one.C.{nuid}"), vec![7; other].into()).await.unwrap().await.unwrap();
            }
        });
        opened.component.get(&name("a"), None).unwrap_err()
    };
    let piece = 512 << 10;
    for error in [
        damaged(1, None),
        damaged(4, None),
        damaged(1, Some(piece)),
        damaged(1, Some(piece - 1)),
        damaged(1, Some(piece + 1)),
    ] {
        assert_eq!(error.kind, ErrorKind::Temporary, "{error}");
        assert!(error.message.starts_with("cannot get `a`"), "{error}");
    }
    opened.store.put(&name("a"), &body, Put::Replace).unwrap();
    assert!(opened.store.get(&name("a"), None).unwrap() == body);
}

/// Who is slow is waited for, who hangs is given up on, and who is cut off in the middle is asked again.
#[test]
fn f10_a_network_that_is_slow_cut_and_hangs() {
    let broker = Broker::start();
    let proxy = Proxy::to(broker.port());
    let opened = store(&proxy.url(), "");
    opened.component.check().unwrap();
    let body = noise(5, 3 << 20);
    proxy.throttle(Some(2 << 20));
    opened.component.put(&name("slow"), &body, Put::Replace).unwrap();
    assert!(opened.component.get(&name("slow"), None).unwrap() == body);
    let before = proxy.passed();
    std::thread::scope(|scope| {
        let putting = scope.spawn(|| opened.store.put(&name("cut"), &body, Put::Replace));
        eventually("some of it has passed", || proxy.passed() > before + (1 << 20));
        proxy.cut();
        putting.join().unwrap().unwrap();
    });
    proxy.heal();
    assert!(opened.component.get(&name("cut"), None).unwrap() == body);
    proxy.flows(Flow::Stands, Flow::Stands);
    let error = opened.component.get(&name("cut"), None).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Temporary, "{error}");
    proxy.cut();
    proxy.heal();
    opened.store.check().unwrap();
    assert!(opened.store.get(&name("cut"), None).unwrap() == body);
}

#[test]
fn x07_a_login_that_is_wrong_is_refused_and_not_shown() {
    let broker = Broker::with("authorization { user: \"bob\", password: \"right-one\" }");
    let good = store(&broker.url(), "user_name = 'bob'\nuser_password = 'right-one'");
    good.component.check().unwrap();
    let bad = store(&broker.url(), "user_name = 'bob'\nuser_password = 'wrong-one'");
    let error = bad.component.check().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Temporary, "{error}");
    assert!(error.message.contains("127.0.0.1") && !error.message.contains("wrong-one"), "{error}");
    // Nothing is lost of what the login may see.
    assert!(good.store.list("", None, LIST_MAX).unwrap().is_empty());
}

#[test]
fn without_servers_the_setting_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("antiphon.toml");
    std::fs::write(&file, "db_path = 'app.db'\n[snapshot]\nstore = 'nats'").unwrap();
    let config = Config::unjudged(Sources { file: Some(file), ..Sources::default() }).unwrap();
    let Err(failure) = open(&config, &HOST, None, Pins::Required) else { panic!("there is no server") };
    assert!(failure.to_string().contains("`nats.urls`"), "{failure}");
}
