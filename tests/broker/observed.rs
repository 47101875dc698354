//! A node whose servers are away: it says so when that has lasted, and takes it back by itself.

use crate::site::{TABLE, configure, place, replicates, site};
use antiphon_harness::health::{is_unwell, is_well, serving};
use antiphon_harness::http::get;
use antiphon_harness::{Broker, Clock, eventually};
use std::net::SocketAddr;

/// F06: the log away for longer than `log_grace` makes a node unhealthy, and nothing is lost.
#[test]
fn a_broker_that_is_away_is_told_and_comes_back() {
    let place = place();
    let mut broker = Broker::start();
    let top = "[health_check]\nenable = true\nbind = '127.0.0.1:0'\nlog_grace = 1000\n\
               [prometheus]\nenable = true\nbind = '127.0.0.1:0'";
    let site = place.site("a", TABLE);
    let mut a = configure(&place, &site, "a", top, &format!("urls = ['{}']", broker.url()));
    a.spawn();
    a.wait_for_words("  metrics  http");
    let said = a.said();
    let line = said.lines().find_map(|line| line.trim_start().strip_prefix("health ")).unwrap();
    let address = line.trim().strip_prefix("http://").unwrap().split('/').next().unwrap();
    let at: SocketAddr = address.parse().unwrap();
    eventually("it is well", || get(at, "/health").status == 200);
    // The word that its cluster is founded is on its way, too.
    eventually("and nothing waits", || a.is_quiet());

    broker.stop();
    a.sql("INSERT INTO t VALUES (1, 'while it is away')");
    eventually("it is not well", || get(at, "/health").status == 503);
    let found = get(at, "/health").json();
    assert_eq!((found["nats_connected"].as_bool(), found["db_connected"].as_bool()), (Some(false), Some(true)));
    let log = found["reasons"].as_array().unwrap().iter().find(|reason| reason["name"] == "log").cloned();
    let log = log.unwrap_or_else(|| panic!("{found}"));
    assert!(log["what"].as_str().unwrap().starts_with("the log is out of reach: "), "{log}");
    assert_eq!(get(at, "/livez").status, 200);
    let metrics = get(at, "/metrics").body;
    let reachable = metrics.lines().find(|line| line.starts_with("harmonylite_log_reachable{")).unwrap();
    assert!(reachable.ends_with(" 0"), "{reachable}");
    eventually("what waits is told", || {
        let metrics = get(at, "/metrics").body;
        let waits = metrics.lines().find(|line| line.starts_with("harmonylite_pending_publish{")).map(str::to_owned);
        waits.is_some_and(|line| line.ends_with(" 1"))
    });

    broker.resume();
    eventually("it is well again", || get(at, "/health").status == 200);
    eventually("and nothing waits", || a.is_quiet());
}

/// C118: a machine whose clock is another than the servers' is told so, in either direction, and rows go on.
#[test]
fn c118_a_clock_that_is_not_the_servers_is_told() {
    let place = place();
    let broker = Broker::start();
    let clock = Clock::new(&place, "clock");
    let nats = format!("urls = ['{}']", broker.url());
    let top = "[health_check]\nlog_grace = 500";
    let mut a = clock.tells(serving(site(&place, "a", top, &nats)));
    let mut b = serving(site(&place, "b", top, &nats));
    for site in [&mut a, &mut b] {
        site.spawn();
        site.wait_for_words("  metrics  http");
    }
    replicates(&a, &b, 1);
    for (id, ahead, words) in [(2, 86_400, "ahead of the log's"), (4, -86_400, "behind the log's")] {
        clock.set(ahead);
        eventually("it says how", || {
            let what = is_unwell(&a, "clock");
            what.starts_with("this machine's clock is 86") && what.ends_with(words)
        });
        replicates(&a, &b, id);
        replicates(&b, &a, id + 1);
    }
    clock.set(0);
    is_well(&a);
    is_well(&b);
}
