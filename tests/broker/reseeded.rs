//! Logs that lose all they held, and begin again with what one node has.

use crate::admin::Admin;
use crate::load::{Load, check_rows};
use crate::lost::stores;
use crate::rescued::trio;
use crate::world::{World, count, start};
use antiphon_harness::{Site, eventually, settled};

/// C65: the stream is deleted while applications write beside three nodes. They go on by themselves: nothing is lost,
/// and all are equal.
#[test]
fn c65_a_deleted_log_begins_again_under_load() {
    World::each(|world| {
        let mut sites = trio(&world);
        let load = Load::beside(&sites);
        load.more(20);
        Admin::of(&world).delete();
        load.more(20);
        eventually("the log begins again", || Admin::of(&world).exists());
        load.more(20);
        check_rows(&[&sites[0], &sites[1], &sites[2]], &load.end());
        assert!(sites.iter_mut().all(Site::is_running));
        // As any other log from here on: who is new joins, and who starts again goes on.
        sites[0].term();
        start(&mut sites[0]);
        assert!(sites[0].said().contains("went on where it stood"), "{}", sites[0].said());
        sites[0].sql("INSERT INTO t (id) VALUES (2000)");
        settled(&[&sites[0], &sites[1], &sites[2]]);
    });
}

/// F02, F08: all servers lose their disks while nodes run. What they know goes on in a log that begins again.
#[test]
fn f02_f08_servers_that_lost_their_disks_are_given_a_log_again() {
    World::each(|mut world| {
        let mut sites = trio(&world);
        let load = Load::beside(&sites);
        load.more(20);
        world.servers.kill();
        for store in stores(&mut world.servers) {
            std::fs::remove_dir_all(store).unwrap();
        }
        world.servers.resume();
        load.more(20);
        eventually("the log begins again", || Admin::of(&world).exists());
        load.more(20);
        check_rows(&[&sites[0], &sites[1], &sites[2]], &load.end());
        assert!(sites.iter_mut().all(Site::is_running));
    });
}

/// C66: nobody ran when the servers lost their disks. An empty log may be another one, so a start asks; the user says
/// which node's rows it begins with, and the others send what they wrote meanwhile.
#[test]
fn c66_a_lost_log_begins_again_when_the_user_says_so() {
    World::each(|mut world| {
        let mut sites = trio(&world);
        // The third is behind the others, and has written something that nobody has.
        sites[2].term();
        for id in 100..120 {
            sites[id % 2].sql(&format!("INSERT INTO t (id, v) VALUES ({id}, 'meanwhile')"));
        }
        let [a, b, c] = &mut sites;
        settled(&[a, b]);
        c.sql("INSERT INTO t (id, v) VALUES (500, 'away'); UPDATE t SET v = 'away' WHERE id = 3");
        a.term();
        b.term();
        world.servers.kill();
        for store in stores(&mut world.servers) {
            std::fs::remove_dir_all(store).unwrap();
        }
        world.servers.resume();
        a.sql("INSERT INTO t (id, v) VALUES (600, 'unsent')");
        let before = a.dump();
        a.refused().expect(65, &["the log is empty", "antiphon log reseed"]);
        assert!(a.dump() == before, "rows were touched");
        let reseeded = world.place.run(["log", "reseed", "--config", "b.toml"]);
        assert_eq!(reseeded.code, Some(0), "{}", reseeded.stderr);
        assert!(reseeded.stderr.contains("the log begins again with this database"), "{}", reseeded.stderr);
        let again = world.place.run(["log", "reseed", "--config", "b.toml"]);
        assert_eq!(again.code, Some(6), "{}", again.stderr);
        start(b);
        start(c);
        start(a);
        assert!(c.said().contains("went on from a snapshot"), "{}", c.said());
        settled(&[a, b, c]);
        assert_eq!(count(a), 32);
        assert_eq!(b.one("SELECT group_concat(v) FROM t WHERE id IN (3, 500, 600)"), "away,away,unsent");
    });
}

/// F08: what the stream held is purged while nodes run: as if it were deleted.
#[test]
fn f08_a_purged_log_begins_again() {
    World::each(|world| {
        let mut sites = trio(&world);
        Admin::of(&world).stream(async |stream| {
            stream.purge().await.unwrap();
        });
        sites[1].sql("INSERT INTO t (id) VALUES (100)");
        sites[2].sql("INSERT INTO t (id) VALUES (200)");
        eventually("all rows are everywhere", || sites.iter().all(|site| count(site) == 12));
        settled(&[&sites[0], &sites[1], &sites[2]]);
        assert!(sites.iter_mut().all(Site::is_running));
    });
}

/// A node that is told of other streams by mistake does not begin a log there, and touches nothing.
#[test]
fn c66_an_empty_log_is_not_taken_for_a_lost_one() {
    World::each(|world| {
        let [mut a, b, c] = trio(&world);
        a.term();
        a.set("ANTIPHON_NATS__STREAM_PREFIX", Some("another"));
        a.sql("INSERT INTO t (id) VALUES (300)");
        a.refused().expect(65, &["the log is empty", "antiphon log reseed"]);
        a.set("ANTIPHON_NATS__STREAM_PREFIX", None::<String>);
        start(&mut a);
        settled(&[&a, &b, &c]);
        assert_eq!(count(&b), 11);
    });
}
