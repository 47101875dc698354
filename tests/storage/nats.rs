//! Objects in a bucket of NATS, with real servers.

use std::time::{Duration, Instant};

use antiphon::config::{Config, Sources};
use antiphon::custom::Pins;
use antiphon::storage::{Opened, open};
use antiphon_core::store::{ErrorKind, LIST_MAX, Name, Put, Store as _};
use antiphon_harness::Broker;

use super::{HOST, conforms, name};

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

/// What was acknowledged is there when the server is back, and the store goes on by itself.
#[test]
fn a_server_that_is_killed_in_the_middle() {
    let mut broker = Broker::start();
    let opened = store(&broker.url(), "");
    let store = &opened.store;
    let body = |number: usize| vec![u8::try_from(number).unwrap(); 300_000 + number];
    let names: Vec<Name> = (0..40).map(|number| name(&format!("objects/{number}"))).collect();
    let kept: Vec<usize> = std::thread::scope(|scope| {
        let putting = scope.spawn(|| {
            let put = |number: &usize| store.put(&names[*number], &body(*number), Put::Replace).is_ok();
            (0..names.len()).filter(put).collect()
        });
        let begun = Instant::now();
        while store.list("objects/", None, LIST_MAX).map_or(0, |listed| listed.len()) < 5 {
            assert!(begun.elapsed() < Duration::from_secs(60));
        }
        broker.kill();
        broker.resume();
        putting.join().unwrap()
    });
    assert!(kept.len() >= 5, "{kept:?}");
    for number in &kept {
        assert_eq!(store.get(&names[*number], None).unwrap(), body(*number));
    }
    store.put(&name("after"), b"x", Put::Replace).unwrap();
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
