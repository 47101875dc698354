//! Policies of a cluster that runs, changed from the command line.

use antiphon_harness::{Ended, Place, Site, eventually, resolver_guest, settled};

use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v, n INTEGER);";

const COUNTING: &str = "[[conflict.table]]\nmatch = \"t\"\nuse = \"counter\"\nsettings = { columns = \"n\" }\n";

/// A site with a configuration of its own, which ends with this.
fn site(place: &Place, name: &str, more: &str) -> Site {
    configure(place, name, more);
    place.site(name, TABLE).arguments(["run", "--config", &format!("{name}.toml")])
}

fn configure(place: &Place, name: &str, more: &str) {
    let text = format!("db_path = \"{name}.db\"\n[log]\npath = \"log\"\n{more}");
    place.file(&format!("{name}.toml"), &text);
}

/// What a command that succeeded said holds all of this.
fn says(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let said = format!("{}{}", ended.stdout, ended.stderr);
    for words in words {
        assert!(said.contains(words), "`{words}` is not in:\n{said}");
    }
}

/// Both add to the same row without knowing of each other.
fn add(first: &mut Site, second: &mut Site) {
    second.term();
    first.sql("UPDATE t SET n = n + 1");
    eventually("it is in the log", || first.is_quiet());
    second.sql("UPDATE t SET n = n + 20");
    second.start();
}

/// What a node is configured for is proposed, comes into force everywhere, and decides from there on.
#[test]
fn the_policies_of_a_configuration_become_the_clusters() {
    let place = place();
    let (mut a, mut b) = (site(&place, "a", ""), site(&place, "b", ""));
    a.start();
    b.start();
    a.sql("INSERT INTO t VALUES (1, 'x', 100)");
    eventually("the row is everywhere", || b.one("SELECT count(*) FROM t") == "1");
    b.term();
    configure(&place, "b", COUNTING);
    b.start();
    eventually("it says what differs", || b.said().contains("`antiphon policy apply` makes this configuration's"));
    assert!(b.said().contains("this configuration's are `counter@1` for `t` (columns = n)"), "{}", b.said());
    says(
        &place.run(["policy", "show", "--config", "b.toml"]),
        &["the log, version 0", "`last-write-wins@1` for all other tables", "this configuration", "counter@1"],
    );
    says(
        &place.run(["policy", "apply", "--config", "b.toml", "--dry-run"]),
        &["the log's policies are none besides", "`counter@1` for `t`", "nothing was changed"],
    );
    says(&place.run(["policy", "apply", "--config", "b.toml"]), &["decided as version 1"]);
    says(&place.run(["policy", "apply", "--config", "b.toml"]), &["this configuration's already, as version 1"]);
    let holds = || place.run(["policy", "show", "--json", "--config", "a.toml"]).stdout;
    eventually("it holds", || holds().contains("\"in_force\": {\n    \"1\": 1"));
    assert!(holds().contains("\"equal\": false") && holds().contains("\"version\": 1"), "{}", holds());
    eventually("both have read it", || a.is_quiet() && b.is_quiet());
    add(&mut a, &mut b);
    eventually("both count", || [&a, &b].iter().all(|site| site.one("SELECT n FROM t") == "121"));
    settled(&[&a, &b]);
    says(
        &place.run(["log", "peek", "--log", "log"]),
        &["version 1 of the policies is decided on", "version 1 of the policies holds from here on"],
    );
}

/// A node that lacks a component stops before it would need it, says what to configure, and goes on by itself once that
/// is there: its configuration is looked into again.
#[test]
fn a_node_takes_a_component_up_by_itself() {
    let place = place();
    let bytes = resolver_guest("(i32.const 0)");
    std::fs::write(place.path("mine.wasm"), &bytes).unwrap();
    let sha256 = antiphon_plugin::sha256(&bytes);
    let plugin = format!("[plugin.mine]\nsource = \"file:mine.wasm\"\nsha256 = \"{sha256}\"\n");
    let (mut a, mut b) = (site(&place, "a", ""), site(&place, "b", ""));
    a.start();
    b.start();
    a.sql("INSERT INTO t VALUES (1, 'x', 100)");
    eventually("the row is everywhere", || b.one("SELECT count(*) FROM t") == "1");
    a.term();
    configure(&place, "a", &format!("[[conflict.table]]\nmatch = \"t\"\nuse = \"mine\"\n{plugin}"));
    a.start();
    says(&place.run(["policy", "apply", "--config", "a.toml"]), &["decided as version 1"]);
    let paused = || place.run(["status", "b.db", "--log", "log", "--json"]).stdout.replace('\\', "");
    let line = format!("`sha256 = \"{sha256}\"`");
    eventually("it says what to configure", || paused().contains(&line) && paused().contains("[plugin.NAME]"));
    // It captures on meanwhile.
    b.sql("UPDATE t SET v = 'meanwhile'");
    configure(&place, "b", &plugin);
    eventually("it goes on by itself", || a.one("SELECT v FROM t") == "meanwhile");
    settled(&[&a, &b]);
    add(&mut a, &mut b);
    settled(&[&a, &b]);
    assert_eq!(b.one("SELECT n FROM t"), "101", "what stood stays, says the component");
}

/// Nobody is told to do what can't be done.
#[test]
fn rows_can_not_move_to_one_shard_later() {
    let place = place();
    let mut a = site(&place, "a", "");
    place.run(["policy", "show", "--config", "a.toml"]).expect(66, &["was never replicated"]);
    a.start();
    let refused = place.run(["policy", "apply", "--config", "a.toml", "--route", "t=whole"]);
    refused.expect(2, &["rows of `t` can't move to one shard while the cluster runs", "drop the UNIQUE index"]);
}
