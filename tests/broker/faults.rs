//! Faults of servers, hosts and the network between them, while three applications write.

use crate::load::{Load, Random, check};
use crate::scenario::{BOUND, Scenario, is_full, seconds};
use crate::world::{World, count, start};
use antiphon_harness::{Flow, Signal, Site, eventually, settled};
use std::time::{Duration, Instant};

/// Stream of the only shard.
const STREAM: &str = "harmonylite-changes-1";

/// The server that leads. Those that are back may be choosing one still.
fn leading(scenario: &Scenario) -> usize {
    let mut leader = None;
    eventually("a server leads", || {
        leader = scenario.world.servers.leader(STREAM);
        leader.is_some()
    });
    leader.unwrap()
}

#[test]
fn f02_a_server_is_killed() {
    let mut scenario = Scenario::one();
    scenario.world.servers.kill();
    scenario.pass(seconds(1, 30));
    scenario.world.servers.resume();
    scenario.healed();
}

#[test]
fn f02_a_server_is_stopped_again_and_again() {
    let mut scenario = Scenario::one();
    for _ in 0..if is_full() { 20 } else { 3 } {
        scenario.world.servers.server(0).stop();
        scenario.write_on();
        scenario.world.servers.resume();
        scenario.write_on();
    }
    scenario.healed();
}

#[test]
fn f03_a_server_stands_still() {
    let mut scenario = Scenario::one();
    scenario.world.servers.server(0).signal(Signal::STOP);
    scenario.pass(seconds(3, 40));
    scenario.world.servers.server(0).signal(Signal::CONT);
    scenario.healed();
}

/// The host alone: an application's file may be locked by a process that stands still, as by any other.
#[test]
fn f03_hosts_stand_still() {
    let scenario = Scenario::one();
    for site in &scenario.sites {
        site.signal(Signal::STOP);
        std::thread::sleep(seconds(1, 15));
        site.signal(Signal::CONT);
    }
    scenario.healed();
}

#[test]
fn f01_hosts_are_killed() {
    let mut scenario = Scenario::one();
    let mut random = Random(7);
    for round in 0..if is_full() { 60 } else { 6 } {
        let site = &mut scenario.sites[round % 3];
        site.kill9();
        site.spawn();
        std::thread::sleep(Duration::from_millis(random.below(400)));
    }
    scenario.healed();
}

#[test]
fn f07_a_network_is_slow() {
    let scenario = Scenario::one();
    for (way, delay) in scenario.ways.iter().zip([5, 50, 200]) {
        way[0].delay(Duration::from_millis(delay));
    }
    scenario.pass(seconds(2, 30));
    // It stays so, and all arrives.
    scenario.healed();
}

#[test]
fn f07_connections_are_cut() {
    let scenario = Scenario::one();
    for round in 0..if is_full() { 100 } else { 9 } {
        scenario.ways[round % 3][0].cut();
        std::thread::sleep(Duration::from_millis(150));
    }
    scenario.healed();
}

/// One node is alone for a while, and so is another later.
#[test]
fn f07_nodes_are_cut_off() {
    let scenario = Scenario::one();
    for way in &scenario.ways[1..] {
        way[0].close();
        scenario.pass(seconds(1, 40));
        way[0].heal();
    }
    scenario.healed();
}

/// Neither end is told anything: bytes just stand still.
#[test]
fn f07_a_connection_is_half_open() {
    let scenario = Scenario::one();
    scenario.ways[0][0].flows(Flow::Stands, Flow::Stands);
    scenario.pass(seconds(4, 60));
    scenario.ways[0][0].heal();
    scenario.healed();
}

/// What the node sends arrives, and of the answers none; then the other way round.
#[test]
fn f07_one_way_is_lost() {
    let scenario = Scenario::one();
    for (forth, back) in [(Flow::Passes, Flow::Loses), (Flow::Loses, Flow::Passes)] {
        scenario.ways[1][0].flows(forth, back);
        scenario.pass(seconds(1, 30));
        scenario.ways[1][0].heal();
        scenario.write_on();
    }
    scenario.healed();
}

/// C08: appends whose answers are lost, and appends that are lost themselves, at random moments. What is sent again
/// lands once and never after its successor: the additions are exact, and a row's newest value is the last.
#[test]
fn c08_answers_and_appends_are_lost_at_random() {
    let scenario = Scenario::one();
    let mut random = Random(8);
    for _ in 0..if is_full() { 150 } else { 12 } {
        let way = &scenario.ways[random.below(3) as usize][0];
        if random.below(2) == 0 {
            way.flows(Flow::Passes, Flow::Loses);
        } else {
            way.flows(Flow::Loses, Flow::Passes);
        }
        std::thread::sleep(Duration::from_millis(20 + random.below(150)));
        way.heal();
        std::thread::sleep(Duration::from_millis(random.below(200)));
    }
    scenario.healed();
}

/// The others don't wait for one that gets little through.
#[test]
fn a_slow_node_holds_up_nobody() {
    let scenario = Scenario::one();
    scenario.ways[2][0].throttle(Some(20_000));
    scenario.pass(seconds(2, 30));
    let word = "UPDATE shared SET v = 'a word' WHERE id = 100";
    scenario.sites[0].sql(&format!("INSERT INTO shared VALUES (100, ''); {word}"));
    let said = Instant::now();
    eventually("it is at the other", || scenario.sites[1].one("SELECT count(*) FROM shared WHERE v = 'a word'") == "1");
    let took = said.elapsed();
    assert!(took < Duration::from_secs(5), "a word between the fast ones took {took:?}");
    scenario.ways[2][0].heal();
    scenario.healed();
}

#[test]
fn f02_the_leading_server_is_killed() {
    let mut scenario = Scenario::three();
    for _ in 0..if is_full() { 10 } else { 2 } {
        let leader = leading(&scenario);
        scenario.world.servers.server(leader).kill();
        scenario.pass(Duration::from_secs(1));
        eventually("another one leads", || scenario.world.servers.leader(STREAM).is_some_and(|now| now != leader));
        scenario.world.servers.resume();
    }
    scenario.healed();
}

#[test]
fn the_servers_are_restarted_one_after_the_other() {
    let mut scenario = Scenario::three();
    for _ in 0..if is_full() { 5 } else { 1 } {
        for server in 0..3 {
            scenario.world.servers.server(server).stop();
            scenario.write_on();
            scenario.world.servers.resume();
        }
    }
    scenario.healed();
}

#[test]
#[ignore = "long"]
fn f03_the_leading_server_stands_still() {
    let mut scenario = Scenario::three();
    let leader = leading(&scenario);
    scenario.world.servers.server(leader).signal(Signal::STOP);
    scenario.pass(Duration::from_secs(30));
    scenario.world.servers.server(leader).signal(Signal::CONT);
    scenario.healed();
}

/// Two of three: nothing can be appended, and nothing is lost.
#[test]
#[ignore = "long"]
fn f02_most_servers_are_away() {
    let mut scenario = Scenario::three();
    for pair in [[0, 1], [1, 2], [2, 0]] {
        for server in pair {
            scenario.world.servers.server(server).kill();
        }
        scenario.pass(Duration::from_secs(10));
        scenario.world.servers.resume();
        scenario.write_on();
    }
    scenario.healed();
}

#[test]
#[ignore = "long"]
fn f02_all_servers_are_killed_at_once() {
    let mut scenario = Scenario::three();
    for _ in 0..3 {
        scenario.world.servers.kill();
        scenario.pass(Duration::from_secs(5));
        scenario.world.servers.resume();
        scenario.write_on();
    }
    scenario.healed();
}

/// Each node knows three servers; two of its ways end, and it goes on by the third.
#[test]
#[ignore = "long"]
fn f07_nodes_find_another_way() {
    let scenario = Scenario::three();
    for round in 0..6 {
        for (node, way) in scenario.ways.iter().enumerate() {
            for (at, proxy) in way.iter().enumerate() {
                if at == (node + round) % 3 { proxy.heal() } else { proxy.close() }
            }
        }
        scenario.pass(Duration::from_secs(5));
    }
    // No way is healed: one is enough.
    scenario.healed();
}

/// Hosts die where servers do.
#[test]
#[ignore = "long"]
fn f01_f02_hosts_and_servers_are_killed() {
    let mut scenario = Scenario::three();
    let mut random = Random(12);
    for round in 0..30 {
        scenario.world.servers.server(round % 3).kill();
        let site = &mut scenario.sites[random.below(3) as usize];
        site.kill9();
        std::thread::sleep(Duration::from_millis(random.below(1500)));
        site.spawn();
        scenario.world.servers.resume();
    }
    scenario.healed();
}

/// Ten nodes that come at once, to rows that are there and to writers that write.
#[test]
fn ten_nodes_join_at_once() {
    let world = World::one();
    let mut founder = world.site("founder");
    founder.sql(
        "INSERT INTO tally VALUES (1, 0);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
         INSERT INTO t SELECT i, randomblob(100), 0 FROM n",
    );
    start(&mut founder);
    let load = Load::beside([&founder]);
    let mut others: Vec<Site> = (0..10).map(|number| world.site(&format!("joiner-{number}"))).collect();
    let begun = Instant::now();
    others.iter_mut().for_each(Site::spawn);
    others.iter_mut().for_each(|site| site.wait_for_words("  log      nats://"));
    eventually("all have the counter", || others.iter().all(|site| site.one("SELECT count(*) FROM tally") == "1"));
    load.more(20);
    let committed = load.end();
    let mut all: Vec<&Site> = others.iter().collect();
    all.push(&founder);
    check(&all, &committed);
    assert!(begun.elapsed() < BOUND, "it took {:?}", begun.elapsed());
    assert_eq!(count(&others[0]), 5000);
}

/// A node that was away for many changes, and has some of its own.
#[test]
fn a_node_comes_back_after_many_changes() {
    let changes = if is_full() { 200_000 } else { 20_000 };
    let world = World::one();
    let [mut a, mut b, mut c] = world.sites(["a", "b", "c"]);
    for site in [&mut a, &mut b, &mut c] {
        start(site);
    }
    c.term();
    c.sql("INSERT INTO item VALUES ('of c', 1, 'while it was away')");
    for (site, from) in [(&a, 0), (&b, changes / 2)] {
        let conn = site.connect();
        for first in (from..from + changes / 2).step_by(100) {
            conn.execute_batch(&format!(
                "WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {first} + 99)
                 INSERT INTO t SELECT i, 'row ' || i, i FROM n"
            ))
            .unwrap();
        }
    }
    eventually("the two are equal", || count(&a) == changes && count(&b) == changes);
    let back = Instant::now();
    start(&mut c);
    eventually("it has all", || count(&c) == changes && a.one("SELECT count(*) FROM item") == "1");
    settled(&[&a, &b, &c]);
    println!("recovered in {:?}", back.elapsed());
    assert!(back.elapsed() < BOUND, "it took {:?}", back.elapsed());
}

/// C84: columns and indexes that come node by node, in any order, while all write.
#[test]
fn c84_schemas_change_under_load() {
    let scenario = Scenario::one();
    for (round, order) in [[0, 1, 2], [2, 0, 1]].iter().enumerate() {
        for &node in order {
            let site = &scenario.sites[node];
            site.sql(&format!("ALTER TABLE item ADD COLUMN more_{round} TEXT DEFAULT 'none'"));
            // Of its own alone: an update of what another deletes meanwhile would bring it back.
            let own = format!("id IN (SELECT id FROM item WHERE id LIKE '{}-%' LIMIT 5)", node + 1);
            site.sql(&format!("UPDATE item SET more_{round} = 'of {node}' WHERE {own}"));
            scenario.write_on();
        }
    }
    for node in [1, 2, 0] {
        scenario.sites[node].sql(
            // At once, for an application that writes in between finds no column of that name.
            "BEGIN IMMEDIATE; CREATE INDEX by_v ON item (v); ALTER TABLE shared RENAME COLUMN v TO w;
             ALTER TABLE shared RENAME COLUMN w TO v; COMMIT",
        );
        scenario.write_on();
    }
    scenario.healed();
}
