//! What a log may hold, and what other tools are told.

use crate::site::{count, place, replicates, site, start};
use antiphon_harness::health::{at, is_unwell, serving};
use antiphon_harness::http::get;
use antiphon_harness::{Broker, Site, eventually, settled};
use std::collections::BTreeMap;

/// A log that is full takes nothing more; what waits goes out when there is room.
#[test]
fn a_full_log_blocks_and_loses_nothing() {
    let broker = Broker::start();
    let place = place();
    let nats = |bytes: &str| {
        format!(
            "urls = ['{}']\n[replication_log]\nlog_bytes_max = '{bytes}'\ncompress = false\nupdate_existing = true",
            broker.url()
        )
    };
    let (a, mut b) = (site(&place, "a", "", &nats("2 MiB")), site(&place, "b", "", &nats("2 MiB")));
    let mut a = serving(a);
    start(&mut a);
    start(&mut b);
    let is_full = |a: &Site| a.said().contains("`log_bytes_max` is reached");
    let mut rows = 0;
    while !is_full(&a) {
        rows += 1;
        assert!(rows < 100, "{}", a.said());
        a.sql(&format!("INSERT INTO t VALUES ({rows}, randomblob(100000))"));
        eventually("it is sent, or waits", || a.is_quiet() || is_full(&a));
    }
    let what = is_unwell(&a, "log-room");
    assert!(what.starts_with("shard 1 of the log has used ") && what.ends_with(" % of its room"), "{what}");
    let metrics = get(at(&a, "metrics"), "/metrics").body;
    assert!(metrics.contains("harmonylite_log_used_ratio{shard=\"1\""), "{metrics}");
    assert_ne!(count(&b), rows.to_string());
    a.term();
    b.term();
    let mut a = crate::site::configure(&place, &place.bare("a"), "a", "", &nats("20 MiB"));
    let mut b = crate::site::configure(&place, &place.bare("b"), "b", "", &nats("20 MiB"));
    start(&mut a);
    start(&mut b);
    eventually("all rows arrive", || count(&b) == rows.to_string());
    settled(&[&a, &b]);
}

/// Where the oldest entries may go, a node that had not read them stops, and says so.
#[test]
fn c64_a_log_that_drops_stops_who_is_behind() {
    let broker = Broker::start();
    let place = place();
    let nats = format!(
        "urls = ['{}']\n[replication_log]\nlog_bytes_max = '2 MiB'\non_full = 'drop'\ncompress = false",
        broker.url()
    );
    // A snapshot would lead it on.
    let top = "[snapshot]\nenabled = false";
    let (mut a, mut b) = (site(&place, "a", top, &nats), site(&place, "b", top, &nats));
    start(&mut a);
    start(&mut b);
    replicates(&a, &b, 1);
    settled(&[&a, &b]);
    b.term();
    for id in 2..=12 {
        a.sql(&format!("INSERT INTO t VALUES ({id}, randomblob(500000))"));
        // Its own it reads as well.
        eventually("it is sent", || a.is_quiet());
    }
    let ended = b.refused();
    assert_eq!(ended.code, Some(65), "{}", ended.stderr);
    assert!(ended.stderr.contains("begins at entry"), "{}", ended.stderr);
    assert_eq!(count(&b), "1");
    assert!(a.is_running(), "{}", a.said());
}

/// A CBOR map of streams and positions, after each commit; whatever becomes of the file changes nothing.
#[test]
fn other_tools_are_told_how_far_it_came() {
    let broker = Broker::start();
    let place = place();
    let nats = format!("urls = ['{}']", broker.url());
    let (mut a, mut b) = (site(&place, "a", "seq_map_path = 'map.cbor'", &nats), site(&place, "b", "", &nats));
    start(&mut a);
    start(&mut b);
    let read = |path: std::path::PathBuf| -> BTreeMap<String, u64> {
        std::fs::read(path).ok().and_then(|bytes| ciborium::from_reader(bytes.as_slice()).ok()).unwrap_or_default()
    };
    let position =
        |site: &Site| site.one("SELECT seq FROM __antiphon___position WHERE shard = 1").parse::<u64>().unwrap();
    let told = |path: &std::path::Path| read(path.to_owned()).get("harmonylite-changes-1").copied();
    let (of_a, of_b) = (place.path("map.cbor"), b.state().join("seq-map.cbor"));
    for id in 1..5 {
        replicates(&b, &a, id);
        eventually("it is told", || told(&of_a) == Some(position(&a)) && told(&of_b) == Some(position(&b)));
        match id {
            1 => std::fs::write(&of_a, b"garbage").unwrap(),
            2 => std::fs::remove_file(&of_a).unwrap(),
            _ => {}
        }
        if id == 3 {
            a.term();
            std::fs::write(&of_a, b"\xa1").unwrap();
            start(&mut a);
        }
    }
    settled(&[&a, &b]);
}
