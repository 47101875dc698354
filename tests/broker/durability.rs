//! An acknowledgement is a promise only from a server that syncs first.

use crate::site::{degraded, place, site, start};
use antiphon_harness::{Broker, eventually};

/// A broker with these lines, and its monitoring page.
fn broker(more: &str) -> (Broker, String) {
    let broker = Broker::with(more);
    let page = broker.monitor();
    (broker, page)
}

/// A later block of the same name replaces the one that syncs always.
fn late(store: &std::path::Path) -> String {
    format!("jetstream {{ store_dir: {store:?} }}")
}

#[test]
fn strict_durability_takes_only_servers_that_sync() {
    let place = place();
    let (good, page) = broker("");
    let mut a = site(
        &place,
        "a",
        "",
        &format!("urls = ['{}']\nnats_monitor = ['{page}']\nstrict_durability = true", good.url()),
    );
    start(&mut a);
    assert_eq!(degraded(&place, "a", "durability"), "");
    let doctor = place.run(["doctor", "--config", "a.toml"]).stdout;
    assert!(!doctor.contains("sync_interval"), "{doctor}");

    let (bad, page) = broker(&late(&place.path("store")));
    let nats = format!("urls = ['{}']\nnats_monitor = ['{page}']", bad.url());
    let mut b = site(&place, "b", "", &format!("{nats}\nstrict_durability = true"));
    b.refused()
        .expect(64, &["`strict_durability` is on", "syncs every 120 seconds", "jetstream { sync_interval: always }"]);

    // Without it the node runs, and says what it does without.
    let mut c = site(&place, "c", "", &nats);
    start(&mut c);
    eventually("it is shown", || degraded(&place, "c", "durability").contains("syncs every 120 seconds"));
    assert_eq!(c.said().matches("syncs every 120 seconds").count(), 1, "{}", c.said());
    let doctor = place.run(["doctor", "--config", "c.toml"]).stdout;
    assert!(doctor.contains("add the line `jetstream { sync_interval: always }`"), "{doctor}");

    // What can't be known is not taken for good.
    let mut d = site(&place, "d", "", &format!("urls = ['{}']\nstrict_durability = true", good.url()));
    d.refused().expect(64, &["`nats_monitor` names no page", "nats_monitor = ["]);
    let nowhere = "nats_monitor = ['http://127.0.0.1:1']";
    let mut e = site(&place, "e", "", &format!("urls = ['{}']\n{nowhere}\nstrict_durability = true", good.url()));
    e.refused().expect(64, &["it is not known whether the NATS server at http://127.0.0.1:1 syncs"]);
    // A server of one's own is asked as well.
    let own = format!("nats_server = '{}'\nstrict_durability = true", Broker::program().display());
    let mut f = site(&place, "f", "", &own);
    start(&mut f);
}

/// After so many tries in vain a node says that it does without; it never gives up, and says when it is over.
#[test]
fn c12_tries_in_vain_are_an_outage_and_no_end() {
    let place = place();
    let mut broker = Broker::start();
    let mut a = site(&place, "a", "", &format!("urls = ['{}']\nconnect_retries = 2", broker.url()));
    start(&mut a);
    assert_eq!(degraded(&place, "a", "connection"), "");
    broker.kill();
    a.sql("INSERT INTO t VALUES (1, 'meanwhile')");
    a.wait_for_words("no NATS server can be reached; waiting");
    eventually("it is shown", || {
        degraded(&place, "a", "connection").starts_with("no NATS server can be reached at 127.0.0.1:")
    });
    broker.resume();
    eventually("it is over", || degraded(&place, "a", "connection").is_empty() && a.is_quiet());
    a.wait_for_words("a NATS server is reached again");
}
