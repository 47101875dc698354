//! Logs that lose something: found before anything is applied or sent, and said. No row is touched.

use crate::admin::Admin;
use crate::load::Load;
use crate::world::{World, count, start};
use antiphon_harness::{Brokers, Site, eventually, settled};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Three nodes that run and have some rows, one by one, so that each is an entry of its own.
fn trio(world: &World) -> [Site; 3] {
    let mut sites = world.sites(["a", "b", "c"]);
    // A snapshot would lead them on: see `rescued.rs`.
    sites.iter_mut().for_each(|site| site.set("ANTIPHON_SNAPSHOT__ENABLED", Some("false")));
    sites.iter_mut().for_each(start);
    for id in 0..10 {
        sites[id % 3].sql(&format!("INSERT INTO t (id) VALUES ({id})"));
        eventually("it arrives", || sites.iter().all(|site| count(site) == id + 1));
    }
    settled(&[&sites[0], &sites[1], &sites[2]]);
    sites
}

/// The running host ends with these words, and its rows are as they were.
#[track_caller]
fn stops(site: &mut Site, words: &[&str]) {
    let before = site.dump();
    let status = site.wait();
    says(site, status.code(), words);
    assert!(site.dump() == before, "rows were touched");
}

/// The same of a host that is started.
#[track_caller]
fn is_refused(site: &mut Site, words: &[&str]) {
    site.spawn();
    stops(site, words);
}

#[track_caller]
fn says(site: &Site, code: Option<i32>, words: &[&str]) {
    let said = site.said();
    assert_eq!(code, Some(65), "{said}");
    for word in words.iter().chain(&["hint: ", "the rows of the database are safe"]) {
        assert!(said.contains(word), "`{word}` is not in:\n{said}");
    }
}

/// Writes at the first two of three nodes while the third is away.
fn write_without_the_third(sites: &mut [Site; 3]) {
    let [a, b, c] = sites;
    c.term();
    for id in 100..120 {
        let (writer, other) = if id % 2 == 0 { (&*a, &*b) } else { (&*b, &*a) };
        writer.sql(&format!("INSERT INTO t (id) VALUES ({id})"));
        eventually("it arrives", || count(other) == id - 89);
    }
    settled(&[a, b]);
}

/// Entries that a node has not read yet are gone from the front: by hand, or by a limit that drops the oldest.
#[test]
fn c64_a_node_that_comes_too_late_stops() {
    World::each(|world| {
        let mut sites = trio(&world);
        write_without_the_third(&mut sites);
        let admin = Admin::of(&world);
        admin.set(|stream| {
            stream.max_messages = 5;
            stream.discard = async_nats::jetstream::stream::DiscardPolicy::Old;
        });
        eventually("the oldest are dropped", || admin.stream(async |stream| stream.cached_info().state.messages) == 5);
        let [a, b, c] = &mut sites;
        is_refused(c, &["shard 1 of the log begins at entry", "was applied here"]);
        // Those that have read everything go on, as long as nothing is dropped before they have it.
        a.sql("INSERT INTO t (id) VALUES (500)");
        eventually("the others go on", || count(b) == 31);
        // Who is new can't: there is no beginning to read.
        let mut late = world.site("late");
        late.set("ANTIPHON_SNAPSHOT__ENABLED", Some("false"));
        late.refused().expect(66, &["the log begins at entry", "no snapshot leads up to it"]);
        assert!(a.is_running() && b.is_running());
    });
}

/// Somebody set a limit at which a stream drops what it has: nothing more is given to it, until it is told to keep all.
#[test]
fn c64_a_stream_that_would_lose_entries_is_given_none() {
    World::each(|world| {
        let [mut a, b, _c] = trio(&world);
        a.term();
        Admin::of(&world).set(|stream| stream.max_messages = 100_000);
        a.sql("INSERT INTO t (id) VALUES (501)");
        is_refused(&mut a, &["would lose entries", "update_existing = true"]);
        world.configure("a", &world.servers.urls(), "update_existing = true", world.place.bare("other"));
        start(&mut a);
        settled(&[&a, &b]);
        assert_eq!(Admin::of(&world).stream(async |stream| stream.cached_info().config.max_messages), -1);
    });
}

/// Entries in the midst are gone: those of one origin.
#[test]
fn f08_a_hole_in_the_log_stops_who_comes_to_it() {
    World::each(|world| {
        let mut sites = trio(&world);
        write_without_the_third(&mut sites);
        let b = sites[1].node();
        Admin::of(&world).stream(async |stream| {
            let subject = format!("harmonylite-change-log-1.{b}.>");
            stream.purge().filter(subject).await.unwrap();
        });
        sites[2].spawn();
        let status = sites[2].wait();
        says(&sites[2], status.code(), &["of the log"]);
        let rows = count(&sites[2]);
        assert!((10..=11).contains(&rows), "nothing behind the hole is applied: {rows} rows");
    });
}

/// The newest entries are gone: the nodes that had them stop, whether they send or only read.
/// Somebody puts an older entry of a node's into the stream once more, behind its newer ones. Nobody takes it twice, and its
/// origin does not take it for a lost end.
#[test]
fn f08_an_older_entry_again_holds_nobody_up() {
    World::each(|world| {
        let mut sites = trio(&world);
        let admin = Admin::of(&world);
        for id in 10..12 {
            sites[0].sql(&format!("INSERT INTO t (id) VALUES ({id})"));
            eventually("it arrives", || sites.iter().all(|site| count(site) == id + 1));
        }
        settled(&[&sites[0], &sites[1], &sites[2]]);
        let mut id = 12;
        let mut goes_on = |sites: &[Site; 3]| {
            for site in sites {
                site.sql(&format!("INSERT INTO t (id) VALUES ({id})"));
                id += 1;
            }
            eventually("it arrives", || sites.iter().all(|site| count(site) == id));
        };
        // Once, twice on top of each other, and found by a start.
        admin.say_older_again();
        goes_on(&sites);
        admin.say_older_again();
        admin.say_older_again();
        goes_on(&sites);
        sites[2].term();
        admin.say_older_again();
        start(&mut sites[2]);
        goes_on(&sites);
        let is_told = |site: &Site| site.said().contains("stands in the log once more");
        eventually("whose it is says so", || sites.iter().any(is_told));
        settled(&[&sites[0], &sites[1], &sites[2]]);
    });
}

#[test]
fn f08_a_purged_log_stops_the_nodes() {
    World::each(|world| {
        let mut sites = trio(&world);
        Admin::of(&world).stream(async |stream| {
            stream.purge().await.unwrap();
        });
        let [a, b, c] = &mut sites;
        a.sql("INSERT INTO t (id) VALUES (100)");
        for site in [a, b, c] {
            stops(site, &[]);
        }
        // Nor is it taken for an empty one.
        world.site("late").refused().expect(65, &["has lost them all", "hint: "]);
    });
}

/// The stream is deleted while rows are written, and what comes after it is another log: nobody takes it for the old
/// one, however far it has grown.
#[test]
fn c65_a_log_that_was_made_anew_stops_the_nodes() {
    World::each(|world| {
        let mut sites = trio(&world);
        let load = Load::beside(&sites);
        load.more(20);
        Admin::of(&world).delete();
        load.more(5);
        drop(load.end());
        for site in &mut sites {
            stops(site, &["shard 1"]);
        }
        let mut other = world.site("other");
        start(&mut other);
        for id in 0..200 {
            other.sql(&format!("INSERT INTO t (id) VALUES ({id})"));
            std::thread::sleep(Duration::from_millis(2));
        }
        settled(&[&other]);
        for site in &mut sites {
            let before = site.dump();
            site.refused().expect(65, &["this database belongs to another cluster than this log", "hint: "]);
            assert!(site.dump() == before, "rows were touched");
        }
        assert_eq!(count(&other), 200);
    });
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).map(drop).unwrap();
        }
    }
}

pub(crate) fn stores(servers: &mut Brokers) -> Vec<PathBuf> {
    (0..servers.count()).map(|at| servers.server(at).store()).collect()
}

/// Keeps what the servers have stored, for [`put_back`]; they are restarted for that.
pub(crate) fn back_up(world: &mut World) {
    world.servers.kill();
    let backup = world.place.path("backup");
    for (store, at) in stores(&mut world.servers).iter().zip(0..) {
        copy_folder(store, &backup.join(format!("{at}")));
    }
    world.servers.resume();
}

/// What the servers have stored is as it was at [`back_up`].
pub(crate) fn put_back(world: &mut World) {
    world.servers.kill();
    let backup = world.place.path("backup");
    for (store, at) in stores(&mut world.servers).iter().zip(0..) {
        std::fs::remove_dir_all(store).unwrap();
        copy_folder(&backup.join(format!("{at}")), store);
    }
    world.servers.resume();
}

/// F02: what the servers stored is put back as it was some time ago, as a backup does. C10, C66: it is found, before
/// anything is sent upon it, and also after others have made it grow again.
#[test]
fn f02_c10_c66_a_log_that_was_rolled_back_stops_the_nodes() {
    World::each(|mut world| {
        let mut sites = trio(&world);
        sites.iter_mut().for_each(Site::term);
        back_up(&mut world);
        sites.iter_mut().for_each(start);
        let [a, b, c] = &mut sites;
        for id in 100..110 {
            a.sql(&format!("INSERT INTO t (id) VALUES ({id})"));
            b.sql(&format!("INSERT INTO t (id) VALUES ({})", id + 100));
        }
        eventually("all rows are everywhere", || [&*a, &*b, &*c].iter().all(|site| count(site) == 30));
        settled(&[a, b, c]);
        c.term();
        put_back(&mut world);
        stops(a, &["its tail is lost"]);
        stops(b, &["its tail is lost"]);
        // A node that never had what is lost makes the log grow past what they know.
        let mut late = world.site("late");
        start(&mut late);
        for id in 1000..1100 {
            late.sql(&format!("INSERT INTO t (id) VALUES ({id})"));
            std::thread::sleep(Duration::from_millis(2));
        }
        settled(&[&late]);
        for site in [a, b, c] {
            is_refused(site, &["has another entry at position"]);
        }
    });
}

/// F02: one server of three loses its disk, and has all from the others again.
#[test]
fn f02_a_server_of_three_that_lost_its_disk_is_given_it_again() {
    let mut world = World::three();
    let sites = trio(&world);
    let load = Load::beside(&sites);
    for server in 0..3 {
        load.more(10);
        world.servers.server(server).kill();
        let store = world.servers.server(server).store();
        std::fs::remove_dir_all(store).unwrap();
        world.servers.resume();
    }
    load.more(10);
    crate::load::check_rows(&[&sites[0], &sites[1], &sites[2]], &load.end());
}

/// F02: all servers lose their disks: nodes that have more than an empty log stop.
#[test]
fn f02_f08_servers_that_lost_their_disks_stop_the_nodes() {
    World::each(|mut world| {
        let mut sites = trio(&world);
        world.servers.kill();
        for store in stores(&mut world.servers) {
            std::fs::remove_dir_all(store).unwrap();
        }
        world.servers.resume();
        for site in &mut sites {
            stops(site, &["its tail is lost"]);
        }
    });
}
