//! The cases of duplicates, crashes and identity, at one server and at three.

use crate::admin::Admin;
use crate::load::{Load, check};
use crate::scenario::is_full;
use crate::world::{World, count, start};
use antiphon_harness::{Signal, Site, eventually, settled};
use std::path::Path;
use std::time::{Duration, Instant};

/// Two nodes that run, with the counter at both.
fn pair(world: &World) -> [Site; 2] {
    let mut sites = world.sites(["a", "b"]);
    sites[0].sql("INSERT INTO tally VALUES (1, 0)");
    sites.iter_mut().for_each(start);
    eventually("both have the counter", || sites.iter().all(|site| site.one("SELECT count(*) FROM tally") == "1"));
    sites
}

fn is_counted(site: &Site, expected: u32) -> bool {
    site.one("SELECT n FROM tally") == expected.to_string()
}

/// Writes one row at a time at both nodes at the same time: no faults, and all the same a test that others fail.
#[test]
fn c03_interleaved_writes_of_two_nodes_are_all_there() {
    const WRITES: usize = 5000;
    for _ in 0..if is_full() { 20 } else { 2 } {
        let world = World::one();
        let sites = pair(&world);
        std::thread::scope(|scope| {
            for (site, node) in sites.iter().zip(0..) {
                let conn = site.connect();
                scope.spawn(move || {
                    for row in 0..WRITES {
                        let id = (row * 2 + node).cast_signed();
                        conn.execute("INSERT INTO t (id, v) VALUES (?1, ?2)", (id, format!("of {node}"))).unwrap();
                    }
                });
            }
        });
        eventually("all rows are at both", || sites.iter().all(|site| count(site) == 2 * WRITES));
        settled(&[&sites[0], &sites[1]]);
    }
}

/// C04, C05: a process that dies after its append was taken, and before it knew, sends nothing twice; not even when the
/// server has long forgotten which messages it had.
#[test]
fn c04_c05_an_append_that_was_taken_counts_once() {
    World::each(|world| {
        let [mut a, b] = pair(&world);
        Admin::of(&world).set(|stream| stream.duplicate_window = Duration::from_millis(100));
        let mut expected = 0;
        for point in ["append", "appended", "sent", "commit", "committed"] {
            for _ in 0..10 {
                a.sql("UPDATE tally SET n = n + 1");
                b.sql("UPDATE tally SET n = n + 1");
            }
            a.kill9();
            a.set("ANTIPHON_DIE_AT", Some(format!("{point}:1")));
            a.spawn();
            a.sql("UPDATE tally SET n = n + 1");
            a.wait();
            a.set("ANTIPHON_DIE_AT", None::<String>);
            // Longer than the server remembers what it had.
            std::thread::sleep(Duration::from_millis(300));
            start(&mut a);
            expected += 21;
            eventually("each addition counts once", || is_counted(&a, expected) && is_counted(&b, expected));
        }
        settled(&[&a, &b]);
        Admin::of(&world).no_number_twice();
    });
}

/// A host that stood still while others went on has no double effect, nor has one whose servers moved on meanwhile.
#[test]
fn c09_a_host_that_stood_still_goes_on() {
    World::each(|world| {
        let [a, b] = pair(&world);
        b.signal(Signal::STOP);
        for id in 0..200 {
            a.sql(&format!("INSERT INTO t (id) VALUES ({id}); UPDATE tally SET n = n + 1"));
        }
        if is_full() {
            std::thread::sleep(Duration::from_secs(60));
        }
        b.signal(Signal::CONT);
        b.sql("UPDATE tally SET n = n + 1");
        eventually("all is there", || is_counted(&a, 201) && is_counted(&b, 201) && count(&b) == 200);
        settled(&[&a, &b]);
    });
}

/// What could not be sent does not count as sent, and nobody gives up.
#[test]
fn c11_c12_what_is_written_without_servers_arrives() {
    World::each(|mut world| {
        let [mut a, mut b] = pair(&world);
        world.servers.kill();
        for id in 0..500 {
            a.sql(&format!("INSERT INTO t (id) VALUES ({id})"));
        }
        b.sql("INSERT INTO t (id) VALUES (1000)");
        a.wait_for_words("Unable to publish");
        if is_full() {
            std::thread::sleep(Duration::from_secs(60));
        }
        assert!(a.is_running() && b.is_running() && !a.is_quiet());
        world.servers.resume();
        eventually("all rows arrive", || count(&a) == 501 && count(&b) == 501);
        settled(&[&a, &b]);
    });
}

/// Something on the log's subject that no node wrote: its shard waits there and says so, at every node and after a restart;
/// the other shard goes on.
fn garbage_stops_its_shard_alone(world: &World, headers: &[(&str, &str)]) {
    let [mut a, mut b] = ["a", "b"].map(|name| world.site_with(name, &world.servers.urls(), "shards = 2"));
    start(&mut a);
    start(&mut b);
    a.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) INSERT INTO t SELECT i, 0, 0 FROM n");
    eventually("it works", || count(&b) == 50);
    settled(&[&a, &b]);
    Admin::of(world).publish("harmonylite-change-log-1.9.9", headers, b"garbage");
    a.sql("UPDATE t SET v = 1");
    for site in [&mut a, &mut b] {
        site.wait_for_words("paused until this changes");
        assert!(site.said().contains("of shard 1"), "{}", site.said());
    }
    let arrived = |b: &Site| b.one("SELECT count(*) FROM t WHERE v = 1").parse::<usize>().unwrap();
    eventually("the other shard goes on", || arrived(&b) > 10);
    let status = || world.place.run(["status", "--config", "b.toml"]);
    eventually("the status says so", || {
        let said = status();
        said.code == Some(3) && said.stdout.contains("paused") && said.stdout.contains("of shard 1")
    });
    b.term();
    start(&mut b);
    b.wait_for_words("paused until this changes");
    let here = arrived(&b);
    assert!(here > 10 && here < 50, "{here} of 50 are there");
    assert!(a.is_running() && b.is_running());
}

#[test]
fn c13_garbage_stops_its_shard_alone() {
    World::each(|world| garbage_stops_its_shard_alone(&world, &[("Antiphon-Number", "1")]));
}

/// Parts of an entry that is not there are garbage as well.
#[test]
fn c13_parts_that_stand_alone_stop_their_shard_alone() {
    for part in ["2/3", "1/2", "7/7", "18446744073709551615/18446744073709551615", "0/0"] {
        garbage_stops_its_shard_alone(&World::one(), &[("Antiphon-Number", "1"), ("Antiphon-Part", part)]);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A copy of a site's file, with settings of its own.
fn copy_of(world: &World, name: &str, site: &Site) -> Site {
    world.configure(name, &world.servers.urls(), "", world.place.copy(name, site))
}

/// Has the note beside a copy say that it is the file that it was made for, as an image of a whole machine does.
fn forge(site: &Site) {
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&site.database).unwrap());
    let note = std::fs::read_to_string(site.state().join("life")).unwrap();
    let lines = note
        .lines()
        .map(|line| if line.starts_with("inode ") { format!("inode {inode}\n") } else { format!("{line}\n") });
    std::fs::write(site.state().join("life"), lines.collect::<String>()).unwrap();
}

/// An image of a whole machine is told from the original by nothing beside it. Of two that run, the second is refused.
#[test]
fn c29_a_clone_is_fenced_within_seconds() {
    World::each(|world| {
        let [mut a, b] = pair(&world);
        a.term();
        let mut clone = copy_of(&world, "clone", &a);
        copy_folder(&a.state(), &clone.state());
        forge(&clone);
        start(&mut a);
        let load = Load::beside([&a, &b]);
        load.more(20);
        let asked = Instant::now();
        clone.refused().expect(75, &["runs already, on another copy of this file", "hint: "]);
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(if is_full() { 5 } else { 8 }), "it took {took:?}");
        load.more(20);
        check(&[&a, &b], &load.end());
        Admin::of(&world).no_number_twice();
        // What the hint says helps.
        std::fs::remove_dir_all(clone.state()).unwrap();
        start(&mut clone);
        goes_on_all(&[&a, &b, &clone]);
        Admin::of(&world).no_number_twice();
    });
}

/// The clone starts while the original stands still, and takes its name; the original ends as soon as it can look.
#[test]
fn c29_an_original_that_stood_still_ends() {
    let world = World::one();
    let [mut a, b] = pair(&world);
    a.term();
    let mut clone = copy_of(&world, "clone", &a);
    copy_folder(&a.state(), &clone.state());
    forge(&clone);
    start(&mut a);
    a.signal(Signal::STOP);
    start(&mut clone);
    clone.sql("INSERT INTO t (id, v) VALUES (1, 'of the clone')");
    eventually("the clone's row is there", || count(&b) == 1);
    a.signal(Signal::CONT);
    a.sql("INSERT INTO t (id, v) VALUES (2, 'of the original')");
    assert_eq!(a.wait().code(), Some(65), "{}", a.said());
    assert!(a.said().contains("another process goes on under this node's name"), "{}", a.said());
    assert_eq!(count(&b), 1);
    goes_on_all(&[&b, &clone]);
    Admin::of(&world).no_number_twice();
}

/// A copy of the file alone is another node: it goes on from the same place and sends nothing that it has copied.
#[test]
fn c30_a_copied_file_is_a_node_of_its_own() {
    World::each(|world| {
        let [mut a, b] = pair(&world);
        a.sql("INSERT INTO t (id) VALUES (1)");
        settled(&[&a, &b]);
        // Dies when its batch is in the log, and amid the transaction that would note so.
        a.term();
        a.set("ANTIPHON_DIE_AT", Some("confirmed:1"));
        a.sql("INSERT INTO t (id) VALUES (2)");
        a.spawn();
        a.wait();
        a.set("ANTIPHON_DIE_AT", None::<String>);
        let mut copy = copy_of(&world, "copy", &a);
        let before = Admin::of(&world).entries().len();
        start(&mut copy);
        eventually("the copy has all", || count(&copy) == 2 && count(&b) == 2);
        assert_eq!(Admin::of(&world).entries().len(), before, "nothing copied is sent");
        assert_ne!(copy.node(), a.node());
        start(&mut a);
        goes_on_all(&[&a, &b, &copy]);
        Admin::of(&world).no_number_twice();
    });
}

/// Two hosts on one file: the second is refused, and the first goes on.
#[test]
fn c31_a_second_host_is_refused() {
    World::each(|world| {
        let [a, b] = pair(&world);
        world.place.run(["run", "--config", "a.toml"]).expect(75, &["another Antiphon runs on", "hint: "]);
        goes_on_all(&[&a, &b]);
    });
}

/// What a log was founded with holds for all who come; a node that differs is refused, with the difference in words.
#[test]
fn c67_a_node_with_other_shards_or_another_hasher_is_refused() {
    World::each(|world| {
        let sites = pair(&world);
        for (name, more, words) in [
            ("shards", "shards = 4", ["it has 1 shard, and this node is configured for 4", "hint: "]),
            ("hasher", "[hash]\nuse = 'xxh3'", ["xxh3", "hint: "]),
        ] {
            let mut other = world.site_with(name, &world.servers.urls(), more);
            other.refused().expect(64, &words);
            assert_eq!(other.one("SELECT count(*) FROM tally"), "0");
        }
        goes_on_all(&[&sites[0], &sites[1]]);
    });
}

/// A row each way, and all are equal after it.
#[track_caller]
fn goes_on_all(sites: &[&Site]) {
    let last = sites.iter().map(|site| count(site)).max().unwrap_or_default();
    for (site, id) in sites.iter().zip(10_000 + last..) {
        site.sql(&format!("INSERT INTO t (id) VALUES ({id})"));
    }
    let there = format!("SELECT count(*) FROM t WHERE id >= 10000 + {last}");
    eventually("a row of every site is at every site", || {
        sites.iter().all(|site| site.one(&there) == sites.len().to_string())
    });
    settled(sites);
}
