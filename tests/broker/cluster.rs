//! Nodes that share nothing but the broker.

use antiphon_harness::{Broker, Place, Site, eventually, resolver_guest, settled};

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v, n INTEGER DEFAULT 0);";

/// A cluster's place: sites in it are configured for one broker.
struct Cluster {
    place: Place,
    broker: Broker,
}

impl Cluster {
    fn new() -> Self {
        Self { place: Place::new(antiphon_harness::program!()), broker: Broker::start() }
    }

    fn site(&self, name: &str) -> Site {
        self.configured(name, "")
    }

    fn configured(&self, name: &str, settings: &str) -> Site {
        let config = self.configure(name, settings);
        self.place.site(name, TABLE).arguments(["run", "--config", config.to_str().unwrap()])
    }

    fn configure(&self, name: &str, settings: &str) -> std::path::PathBuf {
        let url = self.broker.url();
        self.place.file(
            &format!("{name}.toml"),
            &format!("db_path = '{name}.db'\n{settings}\n[nats]\nurls = ['{url}']\nreconnect_wait_seconds = 1\n"),
        )
    }
}

fn start(site: &mut Site) {
    site.spawn();
    site.wait_for_words("  log      nats://");
}

fn count(site: &Site) -> String {
    site.one("SELECT count(*) FROM t")
}

#[test]
fn rows_go_between_nodes_that_share_only_a_broker() {
    let cluster = Cluster::new();
    let (mut a, mut b, mut c) = (cluster.site("a"), cluster.site("b"), cluster.site("c"));
    a.sql("INSERT INTO t (id, v) VALUES (1, 'before the first start')");
    start(&mut a);
    start(&mut b);
    start(&mut c);
    a.sql("INSERT INTO t (id, v) VALUES (2, 'a')");
    b.sql("INSERT INTO t (id, v) VALUES (3, x'00ff')");
    c.sql("INSERT INTO t (id, v) VALUES (4, 2.5)");
    eventually("all rows arrive", || [&a, &b, &c].iter().all(|site| count(site) == "4"));
    b.sql("UPDATE t SET v = 'b' WHERE id < 3; DELETE FROM t WHERE id = 4");
    eventually("and changes", || [&a, &b, &c].iter().all(|site| count(site) == "3"));
    assert_eq!(settled(&[&a, &b, &c]).len(), 3);
    for site in [&mut a, &mut b, &mut c] {
        site.term();
    }
}

/// A node that starts while no server is there waits, says so, and what is written meanwhile is sent.
#[test]
fn a_start_waits_for_the_broker() {
    let mut cluster = Cluster::new();
    let (mut a, mut b) = (cluster.site("a"), cluster.site("b"));
    start(&mut a);
    start(&mut b);
    a.term();
    cluster.broker.kill();
    a.sql("INSERT INTO t (id) VALUES (1)");
    a.spawn();
    a.wait_for_words("no NATS server can be reached; waiting");
    a.sql("INSERT INTO t (id) VALUES (2)");
    cluster.broker.resume();
    eventually("all rows arrive", || count(&b) == "2");
    settled(&[&a, &b]);
}

/// Rows and transactions larger than the broker takes in one message.
#[test]
fn large_rows_arrive() {
    let cluster = Cluster::new();
    let (mut a, mut b) = (cluster.site("a"), cluster.site("b"));
    start(&mut a);
    start(&mut b);
    a.sql(
        "INSERT INTO t (id, v) VALUES (1, randomblob(2000000)), (2, randomblob(16000000)), (3, randomblob(50000000))",
    );
    a.sql(
        "WITH RECURSIVE c(x) AS (SELECT 10 UNION ALL SELECT x + 1 FROM c WHERE x < 100009)
         INSERT INTO t (id, v) SELECT x, randomblob(20) FROM c",
    );
    eventually("all rows arrive", || count(&b) == "100003");
    let sizes = "SELECT sum(length(v)) FROM t";
    assert_eq!(a.one(sizes), b.one(sizes));
    settled(&[&a, &b]);
}

/// Policies change for all nodes at one place of the log. Of three, one lacks the component that decides from there on:
/// it pauses before it, says which line to add, captures on, and goes on by itself when the line is there.
#[test]
fn a_node_that_lacks_a_component_waits_for_it() {
    let cluster = Cluster::new();
    let place = &cluster.place;
    let bytes = resolver_guest("(i32.const 0)");
    std::fs::write(place.path("mine.wasm"), &bytes).unwrap();
    let sha256 = antiphon_plugin::sha256(&bytes);
    let plugin = format!("[plugin.mine]\nsource = 'file:mine.wasm'\nsha256 = '{sha256}'\n");
    let (mut a, mut b, mut c) = (cluster.site("a"), cluster.configured("b", &plugin), cluster.site("c"));
    start(&mut a);
    start(&mut b);
    start(&mut c);
    a.sql("INSERT INTO t (id, v) VALUES (1, 'x'), (2, 'x')");
    eventually("the rows are everywhere", || count(&b) == "2" && count(&c) == "2");
    a.term();
    cluster.configure("a", &format!("[[conflict.table]]\nmatch = 't'\nuse = 'mine'\n{plugin}"));
    start(&mut a);
    let applied = place.run(["policy", "apply", "--config", "a.toml"]);
    assert_eq!(applied.code, Some(0), "{}", applied.stderr);
    let paused = || place.run(["status", "--config", "c.toml", "--json"]).stdout.replace('\\', "");
    let line = format!("`sha256 = \"{sha256}\"`");
    eventually("it says what to configure", || paused().contains(&line) && paused().contains("[plugin.NAME]"));
    // The others go on, and it captures.
    b.sql("UPDATE t SET v = 'meanwhile' WHERE id = 2");
    c.sql("UPDATE t SET n = 5 WHERE id = 1");
    eventually("the others go on", || a.one("SELECT v FROM t WHERE id = 2") == "meanwhile");
    assert_eq!(c.one("SELECT v FROM t WHERE id = 2"), "x");
    assert!(!paused().contains("\"paused\": []") && c.is_running());
    cluster.configure("c", &plugin);
    eventually("it goes on by itself", || c.one("SELECT v FROM t WHERE id = 2") == "meanwhile");
    settled(&[&a, &b, &c]);
    // And the component decides everywhere: what stood stays.
    b.term();
    c.sql("UPDATE t SET v = 'first' WHERE id = 1");
    eventually("it is in the log", || c.is_quiet() && a.one("SELECT v FROM t WHERE id = 1") == "first");
    b.sql("UPDATE t SET v = 'second' WHERE id = 1");
    start(&mut b);
    eventually("the clash is recorded", || c.one("SELECT count(*) FROM __antiphon___conflict") == "1");
    settled(&[&a, &b, &c]);
    assert_eq!(c.one("SELECT v FROM t WHERE id = 1"), "first");
    assert_eq!(c.one("SELECT resolver, verdict FROM __antiphon___conflict"), "mine|keep");
}

/// What looks at a node from outside looks at servers as well, and says so when none answers.
#[test]
fn a_node_and_its_log_can_be_looked_at() {
    let mut cluster = Cluster::new();
    let mut a = cluster.site("a");
    start(&mut a);
    a.sql("INSERT INTO t (id) VALUES (1)");
    settled(&[&a]);
    let run = |verb: &[&str]| cluster.place.run(verb.iter().chain(&["--config", "a.toml"]));
    eventually("it is well", || run(&["status"]).code == Some(0));
    let log = run(&["log", "info"]);
    log.expect(0, &[]);
    assert!(log.stdout.contains("shard 1"), "{}", log.stdout);
    let doctor = run(&["doctor"]);
    doctor.expect(0, &[]);
    cluster.broker.kill();
    let run = |verb: &[&str]| cluster.place.run(verb.iter().chain(&["--config", "a.toml"]));
    let said = run(&["status"]).expect(3, &[]).stdout.clone();
    assert!(said.contains("no NATS server at "), "{said}");
}
