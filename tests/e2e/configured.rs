//! The node as it is configured: files, variables, flags of old, shards and globs.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_core::entry::Body;
use antiphon_harness::{Site, eventually, settled};

use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";
const SHARDS: &str = "ANTIPHON_REPLICATION_LOG__SHARDS";

/// HarmonyLite's users type what they always typed.
#[test]
fn flags_of_old_work() {
    let place = place();
    let mut a = place.site("a", TABLE).arguments(["-config", "a.toml", "-node-id", "7"]);
    let mut b = place.site("b", TABLE).arguments(["-config=conf/b.toml", "-node-id=8"]);
    place.file("a.toml", "db_path = \"a.db\"\n[log]\npath = \"log\"\n");
    place.file("conf/b.toml", "db_path = \"../b.db\"\nnode_id = 3\n[log]\npath = \"../log\"\n");
    a.start();
    b.start();
    assert_eq!((a.node(), b.node()), (7, 8));
    assert!(a.said().contains("as node 7"), "{}", a.said());
    a.sql("INSERT INTO t VALUES (1, 'a')");
    b.sql("INSERT INTO t VALUES (2, 'b')");
    eventually("both have both", || [&a, &b].iter().all(|site| site.one("SELECT count(*) FROM t") == "2"));
    settled(&[&a, &b]);
    a.term();
    place.run(["-config", "a.toml", "-cleanup"]).expect(0, &["objects removed"]);
    assert_eq!(a.schema().len(), 1);
    let version = place.run(["-version"]);
    assert_eq!(version.code, Some(0));
    assert!(version.stdout.starts_with("antiphon "), "{}", version.stdout);
}

/// A path in a file is relative to the file, wherever the program is run.
#[test]
fn relative_paths_in_a_configuration_are_relative_to_it() {
    let place = place();
    let a = place.site("a", TABLE);
    let config = place.file("deep/down/antiphon.toml", "db_path = \"../../a.db\"\n[log]\npath = \"the log\"\n");
    let mut a = a.arguments(["run", "--config", config.to_str().unwrap()]);
    a.start();
    assert!(place.path("deep/down/the log/log.db").exists());
    let mut b = place.site("b", TABLE).arguments(["run", "b.db", "--log", "deep/down/the log"]);
    b.start();
    a.sql("INSERT INTO t VALUES (1, 'x')");
    eventually("the row arrives", || b.one("SELECT count(*) FROM t") == "1");
}

/// Rows go to shards by their keys; a table with another UNIQUE index needs one order for all of it.
#[test]
fn four_shards_by_variable() {
    let place = place();
    let tables =
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE mail (id INTEGER PRIMARY KEY, address TEXT UNIQUE);";
    let mut sites = ["a", "b", "c"].map(|name| place.site(name, tables).with(SHARDS, "4"));
    for site in &mut sites {
        site.start();
    }
    for (at, site) in sites.iter().enumerate() {
        let base = at * 1_000;
        site.sql(&format!(
            "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 200)
             INSERT INTO t SELECT {base} + i, i FROM n;
             INSERT INTO mail SELECT {base} + id % 1000, 'a' || id FROM t WHERE id BETWEEN {base} AND {base} + 999;"
        ));
        site.sql(&format!(
            "UPDATE t SET v = 'new' WHERE id % 3 = 0 AND id > {base}; DELETE FROM t WHERE id = {base} + 5"
        ));
    }
    let all: Vec<&Site> = sites.iter().collect();
    eventually("all rows are everywhere", || {
        all.iter().all(|site| site.one("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM mail)") == "597|600")
    });
    settled(&all);

    let mut shards_of = [("t", Vec::new()), ("mail", Vec::new())];
    for shard in 1..=4 {
        for entry in place.entries(shard) {
            let Body::Changes(changes) = entry.body else { continue };
            for chunk in changes.chunks {
                shards_of.iter_mut().find(|(name, _)| *name == chunk.table).unwrap().1.push(shard);
            }
        }
    }
    for (_, shards) in &mut shards_of {
        shards.sort_unstable();
        shards.dedup();
    }
    assert_eq!(shards_of[0].1, [1, 2, 3, 4], "rows of `t` are spread");
    assert_eq!(shards_of[1].1.len(), 1, "`mail` goes whole");
    assert!(place.entries(5).is_empty());
}

/// Rows of one tenant come by one shard, whatever table they are in: so the tenant's transactions arrive whole.
#[test]
fn a_hasher_keeps_the_rows_of_a_tenant_together() {
    let place = place();
    let tables = "CREATE TABLE orders (tenant INTEGER, id INTEGER, v, PRIMARY KEY (tenant, id));
        CREATE TABLE lines (id INTEGER, number INTEGER, Tenant INTEGER, PRIMARY KEY (id, number, tenant)) WITHOUT ROWID;
        CREATE TABLE other (id INTEGER PRIMARY KEY);";
    let config = |name: &str, hash: &str| {
        place.file(
            &format!("{name}.toml"),
            &format!(
                "db_path = '{name}.db'\n[replication_log]\nshards = 4\n[log]\npath = 'log'\n[hash]\nuse = {hash}\n"
            ),
        );
        place.site(name, tables).arguments(["run", "--config", &format!("{name}.toml")])
    };
    let told = "'xxh3'\nsettings = { seed = 3, columns = 'tenant' }";
    let (mut a, mut b) = (config("a", told), config("b", told));
    a.start();
    b.start();
    a.sql(
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 200)
         INSERT INTO orders SELECT i % 20, i, i FROM n;
         INSERT INTO lines SELECT id, id % 3, tenant FROM orders; INSERT INTO other SELECT id FROM orders;",
    );
    // A row that moves to another tenant leaves one shard and comes by another.
    a.sql("UPDATE orders SET tenant = 21 WHERE id = 5");
    eventually("all rows are everywhere", || b.dump() == a.dump());
    settled(&[&a, &b]);
    assert_eq!(b.rows("SELECT tenant FROM orders WHERE id = 5"), ["21"]);

    let mut shard_of: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    let mut of_others = BTreeSet::new();
    for shard in 1..=4 {
        for entry in place.entries(shard) {
            let Body::Changes(changes) = entry.body else { continue };
            for chunk in changes.chunks {
                let tenant = chunk.columns.iter().position(|column| column.eq_ignore_ascii_case("tenant"));
                let Some(tenant) = tenant else {
                    of_others.insert(shard);
                    continue;
                };
                for row in chunk.written.iter() {
                    shard_of.entry(format!("{:?}", row[tenant])).or_default().insert(shard);
                }
            }
        }
    }
    assert_eq!(shard_of.len(), 21, "{shard_of:?}");
    assert!(shard_of.values().all(|shards| shards.len() == 1), "{shard_of:?}");
    assert!(shard_of.values().flatten().collect::<BTreeSet<_>>().len() > 1, "tenants are spread: {shard_of:?}");
    assert!(of_others.len() > 1, "rows without tenants are spread");

    for (name, hash, words) in [
        (
            "c",
            "'xxh3'\nsettings = { columns = 'tenant', seed = 4 }",
            "it hashes keys with `xxh3@1` (columns = tenant, seed = 3), and this node with `xxh3@1` (columns = tenant, seed = 4)",
        ),
        ("d", "'fnv'", "it hashes keys with `xxh3@1` (columns = tenant, seed = 3), and this node with `fnv@1`"),
    ] {
        let ended = config(name, hash).refused();
        ended.expect(64, &["this node differs from its cluster", words]);
    }
    let info = place.run(["log", "info", "--log", "log"]).stdout;
    assert!(info.contains("hashed by xxh3@1 (columns = tenant, seed = 3), clashes"), "{info}");
    // What the component itself refuses is told before anything happens.
    config("e", "'xxh3'\nsettings = { seed = -1 }")
        .refused()
        .expect(1, &["the setting `seed` is `-1`", "whole number"]);
}

/// A table made in the middle of a long unit, with shards to agree on: its route waits for the unit's end.
#[test]
fn a_table_created_within_a_long_unit_with_shards() {
    let place = place();
    let small = ("ANTIPHON_SCAN_MAX_CHANGES", "200");
    let mut a = place.site("a", TABLE).with(SHARDS, "2").with(small.0, small.1);
    let mut b = place.site("b", TABLE).with(SHARDS, "2").with(small.0, small.1);
    a.start();
    b.start();
    eventually("the route is known", || a.is_quiet() && b.is_quiet());
    let create = "CREATE TABLE later (id INTEGER PRIMARY KEY)";
    a.sql(
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 60000) INSERT INTO t SELECT i, i FROM n",
    );
    a.sql(&format!("{create}; INSERT INTO later VALUES (1)"));
    b.sql(create);
    eventually("all of it arrives", || {
        assert!(a.is_running() && b.is_running());
        b.one("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM later)") == "60000|1"
    });
    settled(&[&a, &b]);
}

/// A node that counts other shards would look for rows where they are not.
#[test]
fn other_shards_than_the_cluster_are_refused_in_words() {
    let place = place();
    let mut a = place.site("a", TABLE).with(SHARDS, "2");
    let mut b = place.site("b", TABLE);
    a.start();
    let refusal = ["it has 2 shards, and this node is configured for 1", "hint: "];
    b.refused().expect(64, &refusal);
    a.term();
    a.set(SHARDS, Some("5"));
    a.refused().expect(64, &["it has 2 shards, and this node is configured for 5"]);
    a.set(SHARDS, Some("2"));
    a.start();
    b.set(SHARDS, Some("2"));
    b.start();
    a.sql("INSERT INTO t VALUES (1, 'x')");
    eventually("the row arrives", || b.one("SELECT count(*) FROM t") == "1");
}

/// Globs choose the tables, on the sending side and on the receiving one.
#[test]
fn globs_choose_the_tables() {
    let place = place();
    let tables = "CREATE TABLE app_users (id INTEGER PRIMARY KEY); CREATE TABLE app_tmp (id INTEGER PRIMARY KEY);
                  CREATE TABLE other (id INTEGER PRIMARY KEY); CREATE TABLE app_notes (id INTEGER PRIMARY KEY);";
    let mut a = place
        .site("a", tables)
        .with("ANTIPHON_CAPTURE__INCLUDE", "app_*")
        .with("ANTIPHON_CAPTURE__EXCLUDE", "app_tmp*");
    let mut b = place.site("b", tables).with("ANTIPHON_CAPTURE__EXCLUDE", "APP_N*");
    a.start();
    b.start();
    assert!(a.said().contains("tables   app_notes, app_users\n"), "{}", a.said());
    for table in ["app_tmp", "other", "app_notes", "app_users"] {
        a.sql(&format!("INSERT INTO {table} VALUES (1)"));
    }
    eventually("what is chosen arrives", || b.one("SELECT count(*) FROM app_users") == "1");
    for table in ["app_tmp", "other", "app_notes"] {
        assert_eq!(b.one(&format!("SELECT count(*) FROM {table}")), "0", "{table}");
    }
    // And the other way: what only the receiver leaves out is passed over, not a reason to pause.
    b.sql("INSERT INTO other VALUES (2); INSERT INTO app_users VALUES (2)");
    eventually("what is chosen arrives", || a.one("SELECT count(*) FROM app_users") == "2");
    assert_eq!(a.one("SELECT count(*) FROM other WHERE id = 2"), "0");
    let status = a.verb("status", &["--json"]);
    assert!(status.stdout.contains("\"troubles\": {}"), "{}", status.stdout);
}

/// The demonstration is what people run first. It shows one clash under two policies.
#[test]
fn the_demo_works() {
    let demo = place().run(["demo"]);
    demo.expect(0, &[]);
    for words in ["both have both after", "antiphon run app.db"] {
        assert!(demo.stdout.contains(words), "{}", demo.stdout);
    }
    let (_, clashes) = demo.stdout.split_once("\n3. ").unwrap();
    let (latest, added) = clashes.split_once("\n4. ").unwrap();
    for (part, policy, verdict, apples) in
        [(latest, "last-write-wins", "take", "15 apples"), (added, "counter", "merge", "12 apples")]
    {
        let (apart, back) = part.split_once("… and is back:").unwrap();
        assert!(apart.contains(&format!("match = \"stock\"\n      use = \"{policy}\"")), "{part}");
        for (site, alone) in [("north", "7 apples"), ("south", "15 apples")] {
            assert!(apart.contains(&format!("{site}: {alone}, 6 figs, 4 pears\n")), "{part}");
            assert!(back.contains(&format!("{site}: {apples}, 6 figs, 4 pears\n")), "{part}");
        }
        assert!(
            back.contains(&format!("one clash, put to the component `{policy}`; it answered `{verdict}`")),
            "{part}"
        );
    }
}
