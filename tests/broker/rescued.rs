//! Logs that lose something, and a snapshot that leads the nodes on.

use crate::admin::Admin;
use crate::lost::{back_up, put_back};
use crate::world::{World, count, start};
use antiphon_harness::{Site, eventually, settled};

/// Three nodes that run, have some rows, and keep their snapshots in one folder.
pub(crate) fn trio(world: &World) -> [Site; 3] {
    let mut sites = ["a", "b", "c"].map(|name| {
        let more = "[snapshot]\nstore = 'file'\ninterval = 0\n[snapshot.file]\npath = 'snapshots'";
        world.site_with(name, &world.servers.urls(), more)
    });
    sites.iter_mut().for_each(start);
    for id in 0..10 {
        sites[id % 3].sql(&format!("INSERT INTO t (id) VALUES ({id})"));
        eventually("it arrives", || sites.iter().all(|site| count(site) == id + 1));
    }
    settled(&[&sites[0], &sites[1], &sites[2]]);
    sites
}

pub(crate) fn snapshot(world: &World, name: &str) {
    let made = world.place.run(["snapshot", "create", "--config", &format!("{name}.toml")]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
}

/// C60, C64: entries that a node had not read are gone; a snapshot leads it on, and what it wrote meanwhile is sent.
#[test]
fn c60_c64_a_node_that_comes_too_late_goes_on() {
    World::each(|world| {
        let [mut a, mut b, mut c] = trio(&world);
        c.term();
        c.sql("INSERT INTO t (id, v) VALUES (900, 'late'); UPDATE t SET v = 'late' WHERE id = 3");
        for id in 100..120 {
            a.sql(&format!("INSERT INTO t (id) VALUES ({id})"));
            eventually("it arrives", || count(&b) == id - 89);
        }
        settled(&[&a, &b]);
        snapshot(&world, "a");
        for id in 120..125 {
            b.sql(&format!("INSERT INTO t (id) VALUES ({id})"));
            eventually("it arrives", || count(&a) == id - 89);
        }
        Admin::of(&world).stream(async |stream| {
            let last = stream.cached_info().state.last_sequence;
            stream.purge().sequence(last - 6).await.unwrap();
        });
        start(&mut c);
        assert!(c.said().contains("went on from a snapshot"), "{}", c.said());
        settled(&[&a, &b, &c]);
        assert_eq!(a.one("SELECT group_concat(id) FROM t WHERE v = 'late'"), "3,900");
        // Who is new begins with the snapshot, and who was there before goes on without a beginning.
        let more = "[snapshot]\nstore = 'file'\ninterval = 0\n[snapshot.file]\npath = 'snapshots'";
        let mut late = world.site_with("late", &world.servers.urls(), more);
        start(&mut late);
        a.term();
        start(&mut a);
        b.sql("INSERT INTO t (id) VALUES (1000)");
        a.sql("INSERT INTO t (id) VALUES (1001)");
        late.sql("INSERT INTO t (id) VALUES (1002)");
        settled(&[&a, &b, &c, &late]);
        b.term();
    });
}

/// F02, C10, C66: what the servers stored is put back as it was, after two writers wrote to the same keys and both
/// applied it, and while a third node was behind. They go on by themselves; nothing is lost, and all are equal.
#[test]
fn f02_c10_c66_a_log_that_was_rolled_back_is_gone_back_with() {
    World::each(|mut world| {
        let mut sites = trio(&world);
        snapshot(&world, "a");
        sites[0].sql("UPDATE t SET v = 'after'");
        settled(&[&sites[0], &sites[1], &sites[2]]);
        sites.iter_mut().for_each(Site::term);
        back_up(&mut world);
        let [a, b, c] = &mut sites;
        start(a);
        start(b);
        for round in 0..4 {
            for id in 0..100 {
                let (one, other) = if (id + round) % 2 == 0 { (&*a, &*b) } else { (&*b, &*a) };
                one.sql(&format!("REPLACE INTO t (id, v) VALUES ({id}, 'x{round}')"));
                other.sql(&format!("UPDATE t SET n = n + 1 WHERE id = {id}"));
            }
            a.sql(&format!("INSERT INTO t (id, v) VALUES ({}, 'of a')", 200 + round));
            b.sql(&format!("INSERT INTO t (id, v) VALUES ({}, 'of b')", 300 + round));
            settled(&[a, b]);
        }
        put_back(&mut world);
        start(c);
        settled(&[a, b, c]);
        assert!(a.is_running() && b.is_running());
        assert_eq!(c.one("SELECT count(*) FROM t WHERE v IN ('of a', 'of b')"), "8");
        assert_eq!(c.one("SELECT count(*) FROM t"), "108");
    });
}
