//! Nodes that are gone for good, and changes of theirs that the log lost: others had read them, and keep them.

use crate::lost::{back_up, put_back, stores};
use crate::rescued::{snapshot, trio};
use crate::world::{World, start};
use antiphon_harness::{Ended, Site, eventually, settled};

/// All that the servers have is put back to where it was before this, while nobody looks.
fn rolled_back(world: &mut World, sites: &mut [Site; 3], meanwhile: impl FnOnce(&mut [Site; 3])) {
    sites.iter_mut().for_each(Site::term);
    back_up(world);
    sites.iter_mut().for_each(start);
    meanwhile(sites);
    sites[0].term();
    put_back(world);
}

/// The first writes, and the others read; the second goes on from that, and this is what the third does. In the snapshot
/// a part of all that is older.
fn lose_the_end(world: &mut World, third: &str) -> [Site; 3] {
    let mut sites = trio(world);
    snapshot(world, "b");
    sites[1].sql("UPDATE t SET v = 'known' WHERE id IN (1, 2)");
    settled(&[&sites[0], &sites[1], &sites[2]]);
    rolled_back(world, &mut sites, |[a, b, c]| {
        a.sql("INSERT INTO t (id, v) VALUES (700, 'of a'); UPDATE t SET v = 'of a' WHERE id IN (1, 4, 6)");
        a.sql("DELETE FROM t WHERE id = 5");
        settled(&[a, b, c]);
        b.sql("UPDATE t SET n = 1 WHERE id = 700");
        c.sql(third);
        settled(&[a, b, c]);
    });
    sites
}

fn give_up(world: &World, name: &str, gone: &Site, flags: &[&str]) -> Ended {
    let (config, node) = (format!("{name}.toml"), gone.node().to_string());
    world.place.run(["give-up", "--node", &node, "--config", &config].iter().chain(flags))
}

fn is_told(site: &Site, gone: &Site) -> bool {
    let said = site.verb("status", &["--json"]).stdout;
    said.contains("give-up --node") && said.contains(&gone.node().to_string())
}

/// C66: the end of the log is lost, and so is the node that wrote it. The others go on without; what they had read of it
/// stays with them, and what they had made upon it waits until a user says that nobody will send it again.
#[test]
fn c66_what_others_had_read_of_a_node_that_is_gone_is_not_lost() {
    let mut world = World::one();
    let [a, b, c] = lose_the_end(&mut world, "");
    eventually("both say what is missing", || [&b, &c].iter().all(|site| is_told(site, &a)));
    assert_eq!(c.one("SELECT count(*) FROM t WHERE v = 'of a'"), "0");
    c.sql("UPDATE t SET v = 'later' WHERE id = 6");
    eventually("it arrives", || b.one("SELECT v FROM t WHERE id = 6") == "later");
    // A node that owes nothing is not given up on, and which rows are left is clear when the others have sent theirs.
    give_up(&world, "b", &b, &[]).expect(6, &["nothing that node", "is missing in the log"]);
    give_up(&world, "c", &a, &["--dry-run"]).expect(75, &["is to send changes again, too"]);
    let before = b.dump();
    let told = give_up(&world, "b", &a, &["--dry-run"]);
    told.expect(0, &["would be given up on", "3 rows sent as this node's own", "1 row is left"]);
    assert!(b.dump() == before, "rows were touched");
    let given_up = give_up(&world, "b", &a, &[]);
    given_up.expect(0, &["gave up on", "3 rows are sent as this node's own", "1 row is left"]);
    assert_eq!(given_up.stdout.replace("is sent", "would be sent"), told.stdout);
    assert!(given_up.stdout.contains("t: id = 6, v = 'of a', n = 0: was changed since"), "{}", given_up.stdout);
    eventually("what was made upon it is sent", || {
        c.one("SELECT group_concat(n || v) FROM t WHERE id = 700") == "1of a"
    });
    settled(&[&b, &c]);
    give_up(&world, "c", &a, &[]).expect(0, &["gave up on", "0 rows are sent"]);
    settled(&[&b, &c]);
    assert_eq!(b.one("SELECT group_concat(id || v) FROM t WHERE id IN (1, 4, 700)"), "1of a,4of a,700of a");
    assert_eq!(b.one("SELECT group_concat(id || coalesce(v, '')) FROM t WHERE id IN (5, 6)"), "6later");
    eventually("nothing is missing any more", || [&b, &c].iter().all(|site| !is_told(site, &a)));
}

/// C66: two have made changes upon those of the node that is gone, and each has read the other's: neither waits for ever.
#[test]
fn c66_two_that_wait_for_each_other_go_on() {
    let mut world = World::one();
    let [a, b, c] = lose_the_end(&mut world, "UPDATE t SET n = 2 WHERE id = 4");
    eventually("both say what is missing", || [&b, &c].iter().all(|site| is_told(site, &a)));
    let given_up = std::thread::scope(|scope| {
        let (world, gone) = (&world, &a);
        let at = |name| scope.spawn(move || give_up(world, name, gone, &[]));
        let both = ["b", "c"].map(at);
        both.map(|gives_up| gives_up.join().unwrap())
    });
    for ended in &given_up {
        ended.expect(0, &["gave up on"]);
    }
    eventually("what was made upon it is sent", || {
        b.one("SELECT group_concat(id || v || n) FROM t WHERE v = 'of a'") == "1of a0,4of a2,6of a0,700of a1"
    });
    settled(&[&b, &c]);
    assert_eq!(b.one("SELECT count(*) FROM t WHERE id = 5"), "0");
    eventually("nothing is missing any more", || [&b, &c].iter().all(|site| !is_told(site, &a)));
}

/// A node that comes back sends it all again, and nothing is kept of that.
#[test]
fn c66_what_is_sent_again_is_kept_no_longer() {
    let mut world = World::one();
    let [mut a, b, c] = lose_the_end(&mut world, "UPDATE t SET n = 2 WHERE id = 4");
    eventually("both say what is missing", || [&b, &c].iter().all(|site| is_told(site, &a)));
    start(&mut a);
    settled(&[&a, &b, &c]);
    for site in [&b, &c] {
        eventually("nothing is kept", || {
            let kept = "SELECT (SELECT count(*) FROM __antiphon___owed) + (SELECT count(*) FROM __antiphon___stray)";
            site.one(kept) == "0" && !is_told(site, &a)
        });
    }
    assert_eq!(c.one("SELECT group_concat(n || v) FROM t WHERE id IN (4, 700)"), "2of a,1of a");
    assert_eq!(c.one("SELECT count(*) FROM t WHERE v = 'of a'"), "4");
}

/// C65: a log begins again with a node that had not read all; another had, and who wrote it is gone.
#[test]
fn c65_a_log_that_begins_again_lacks_nothing_that_any_node_had_read() {
    let mut world = World::one();
    let mut sites = trio(&world);
    let [a, b, c] = &mut sites;
    b.term();
    a.sql("INSERT INTO t (id, v) VALUES (700, 'of a'); UPDATE t SET v = 'of a' WHERE id = 1");
    settled(&[a, c]);
    a.term();
    c.term();
    world.servers.kill();
    for store in stores(&mut world.servers) {
        std::fs::remove_dir_all(store).unwrap();
    }
    world.servers.resume();
    world.place.run(["log", "reseed", "--config", "b.toml"]).expect(0, &["the log begins again"]);
    start(b);
    b.sql("INSERT INTO t (id, v) VALUES (800, 'of b')");
    start(c);
    eventually("it says what is missing", || is_told(c, a));
    settled(&[b, c]);
    assert_eq!(c.one("SELECT count(*) FROM t WHERE v = 'of a'"), "0");
    // The snapshot holds what came after the loss: nobody can tell what is later, so that is for the user to say.
    let before = c.dump();
    let told = give_up(&world, "c", a, &["--dry-run", "--json"]);
    told.expect(0, &["would be given up on", "0 rows sent as this node's own", "3 rows are left"]);
    let told: Vec<serde_json::Value> = told.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told.iter().map(|row| row["key"][0].as_i64().unwrap()).collect::<Vec<_>>(), [1, 700, 800]);
    assert_eq!(told.iter().map(|row| &row["becomes"]).collect::<Vec<_>>(), ["doubtful", "doubtful", "changed"]);
    assert!(told[..2].iter().all(|row| row["row"]["v"] == "of a"), "{told:?}");
    assert!(c.dump() == before, "rows were touched");
    give_up(&world, "c", a, &[]).expect(0, &["0 rows are sent as this node's own"]);
    give_up(&world, "c", a, &["--doubtful"]).expect(0, &["2 rows are sent as this node's own"]);
    settled(&[b, c]);
    assert_eq!(b.one("SELECT group_concat(id) FROM t WHERE v LIKE 'of %'"), "1,700,800");
}
