//! Components of the user's own, in real processes.

use antiphon_core::entry::Body;
use antiphon_harness::{Place, Site, eventually, resolver_guest, resolver_guest_with, settled};

use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";

/// What came replaces what stands, but it gives up over the number 666.
const FUSSY: &str = "(if (i64.eq (call $number (local.get $clash) (i32.const 1)) (i64.const 666)) (then (unreachable)))
    (i32.const 1)";

/// What stands stays.
pub(super) const KEEP: &str = "(i32.const 0)";

/// Writes a component; gives its sha256.
pub(super) fn component(place: &Place, name: &str, bytes: &[u8]) -> String {
    std::fs::write(place.path(name), bytes).unwrap();
    antiphon_plugin::sha256(bytes)
}

/// A site with a configuration that ends with this.
pub(super) fn site(place: &Place, name: &str, more: &str) -> Site {
    let text = format!("db_path = \"{name}.db\"\n[log]\npath = \"log\"\n{more}");
    place.file(&format!("{name}.toml"), &text);
    place.site(name, TABLE).arguments(["run", "--config", &format!("{name}.toml")])
}

/// The tables of `t` are decided by `[plugin.mine]`, which goes on like this.
pub(super) fn mine(rest: &str) -> String {
    format!("[[conflict.table]]\nmatch = \"t\"\nuse = \"mine\"\n[plugin.mine]\nsource = \"file:mine.wasm\"\n{rest}")
}

/// Both write the same row without knowing of each other; `first` comes first in the log.
fn clash(first: &mut Site, second: &mut Site, sql: [&str; 2]) {
    second.term();
    first.sql(sql[0]);
    eventually("it is in the log", || first.is_quiet());
    second.sql(sql[1]);
    second.start();
}

/// A resolver that somebody wrote decides, on every node.
#[test]
fn a_resolver_of_ones_own_decides() {
    let place = place();
    let sha256 = component(&place, "mine.wasm", &resolver_guest(KEEP));
    let config = mine(&format!("sha256 = \"{sha256}\"\n"));
    let (mut a, mut b) = (site(&place, "a", &config), site(&place, "b", &config));
    a.start();
    b.start();
    a.sql("INSERT INTO t VALUES (1, 'x')");
    eventually("the row is everywhere", || b.one("SELECT count(*) FROM t") == "1");
    clash(&mut a, &mut b, ["UPDATE t SET v = 'first'", "UPDATE t SET v = 'second'"]);
    eventually("the clash is recorded", || b.one("SELECT count(*) FROM __antiphon___conflict") == "1");
    settled(&[&a, &b]);
    assert_eq!(a.one("SELECT v FROM t"), "first", "the later one won: nobody asked the resolver");
    assert_eq!(b.one("SELECT resolver, verdict FROM __antiphon___conflict"), "mine|keep");
}

/// As the policy of all tables it decides over those that nobody named; and a component may call itself what it likes.
#[test]
fn a_resolver_of_ones_own_is_the_default() {
    for name in ["mine", "last-write-wins"] {
        let folder = place();
        let sha256 = component(&folder, "mine.wasm", &resolver_guest(KEEP));
        let config = format!(
            "[conflict]\ndefault = \"{name}\"\n[plugin.{name}]\nsource = \"file:mine.wasm\"\nsha256 = \"{sha256}\"\n"
        );
        let (mut a, mut b) = (site(&folder, "a", &config), site(&folder, "b", &config));
        a.start();
        b.start();
        a.sql("INSERT INTO t VALUES (1, 'x')");
        eventually("the row is everywhere", || b.one("SELECT count(*) FROM t") == "1");
        clash(&mut a, &mut b, ["UPDATE t SET v = 'first'", "UPDATE t SET v = 'second'"]);
        eventually("the clash is recorded", || b.one("SELECT count(*) FROM __antiphon___conflict") == "1");
        settled(&[&a, &b]);
        assert_eq!(a.one("SELECT v FROM t"), "first", "{name}");
    }
}

/// The files of clashes that a resolver failed at.
fn replays(site: &Site) -> Vec<std::path::PathBuf> {
    let Ok(folder) = std::fs::read_dir(site.state().join(antiphon::replay::FOLDER)) else { return Vec::new() };
    let mut files: Vec<_> = folder.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// A resolver that crashes stops its shard, in words, and nothing else: other shards go on, and so does capture.
#[test]
fn a_resolver_that_crashes_stops_its_shard_alone() {
    let place = place();
    let guest = resolver_guest(FUSSY);
    let sha256 = component(&place, "mine.wasm", &guest);
    let config = format!("[replication_log]\nshards = 2\n{}", mine(&format!("sha256 = \"{sha256}\"\n")));
    let (mut a, mut b) = (site(&place, "a", &config), site(&place, "b", &config));
    a.start();
    b.start();
    a.sql("WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 40) INSERT INTO t SELECT i, 0 FROM n");
    eventually("the rows are everywhere", || b.one("SELECT count(*) FROM t") == "40" && b.is_quiet());
    let shard_of = |key: i64| {
        (1..=2).find(|shard| {
            place.entries(*shard).iter().any(|entry| match &entry.body {
                Body::Changes(changes) => {
                    changes.chunks.iter().flat_map(|chunk| chunk.written.iter()).any(|row| row[0] == key.into())
                }
                _ => false,
            })
        })
    };
    let (bad, same) = (1, (2..=40).find(|key| shard_of(*key) == shard_of(1)).unwrap());
    let other = (2..=40).find(|key| shard_of(*key) != shard_of(1)).unwrap();
    // Two clashes of one batch, and only one of them is too much for it.
    let pair = format!("id IN ({bad}, {same})");
    let second = format!("UPDATE t SET v = iif(id = {bad}, 666, 5) WHERE {pair}");
    clash(&mut a, &mut b, [&format!("UPDATE t SET v = 1 WHERE {pair}"), &second]);
    for site in [&mut a, &mut b] {
        site.wait_for_words("gives no verdict");
    }
    b.sql(&format!("UPDATE t SET v = 'on' WHERE id = {other}"));
    eventually("the other shard goes on", || a.one(&format!("SELECT v FROM t WHERE id = {other}")) == "on");
    assert_eq!(a.one(&format!("SELECT group_concat(v) FROM t WHERE {pair}")), "1,1", "half a unit was applied");

    let said = a.said();
    let block: Vec<&str> = said
        .split("a resolver gives no verdict\n")
        .nth(1)
        .unwrap()
        .lines()
        .take_while(|line| line.starts_with("    "))
        .collect();
    let sha = format!("    sha256     {sha256}");
    for line in [
        "    why        it panicked in `decide`, called by `resolve`",
        "    table      t",
        "    key        1",
        "    kind       same-key",
        "    plugin     mine",
        "    source     file:mine.wasm",
        &sha,
        "    function   resolve",
        "    backtrace  decide < resolve",
    ] {
        assert!(block.contains(&line), "`{line}` is not in:\n{}", block.join("\n"));
    }
    let [replay] = &replays(&a)[..] else { panic!("{:?}", replays(&a)) };
    for (start, end) in
        [("    fuel  ", " of 2005"), ("    memory", " of 67108864 bytes"), ("    next", "reproduces it")]
    {
        assert!(block.iter().any(|line| line.starts_with(start) && line.contains(end)), "{}", block.join("\n"));
    }
    assert!(said.contains(replay.to_str().unwrap()), "{said}");
    assert_eq!(said.matches("a resolver gives no verdict\n").count(), 1, "it is told once: {said}");

    let mut words = String::new();
    eventually("the status says so", || {
        words = place.run(["status", "--config", "a.toml"]).stdout;
        words.contains("the resolver `mine` gives no verdict on table `t`, key 1: it panicked")
    });
    let mode = std::os::unix::fs::PermissionsExt::mode(&replay.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let replay = antiphon::replay::Replay::read(replay).unwrap();
    let host = antiphon_plugin::PluginHost::new(&antiphon_plugin::HostOptions::default()).unwrap();
    let failed = replay.run(&host, &guest).unwrap().unwrap_err();
    assert_eq!((&failed.why, failed.is_verdict), (&replay.why, true));
    let verdict = replay.run(&host, &resolver_guest("(i32.const 1)")).unwrap();
    assert_eq!(verdict, Ok(antiphon_core::resolve::Verdict::Take), "another component answers it");
    // A stop and a start change nothing about it.
    a.term();
    a.start();
    a.wait_for_words("gives no verdict");
    assert_eq!(replays(&a).len(), 1);
}

/// Where it was agreed to park, the row that stands stays, a record says why, and all goes on, the same on all nodes.
#[test]
fn a_clash_that_is_parked_leaves_what_stands() {
    let place = place();
    let sha256 = component(&place, "mine.wasm", &resolver_guest(FUSSY));
    let config = mine(&format!("sha256 = \"{sha256}\"\non_failure = \"park\"\n"));
    let (mut a, mut b) = (site(&place, "a", &config), site(&place, "b", &config));
    a.start();
    b.start();
    a.sql("WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 40) INSERT INTO t SELECT i, 0 FROM n");
    eventually("the rows are everywhere", || b.one("SELECT count(*) FROM t") == "40" && b.is_quiet());
    clash(&mut a, &mut b, ["UPDATE t SET v = 1", "UPDATE t SET v = iif(id % 10 = 3, 666, 2)"]);
    let all = |site: &Site| site.one("SELECT count(*) FROM __antiphon___conflict") == "40";
    eventually("all clashes are recorded", || all(&a) && all(&b));
    settled(&[&a, &b]);
    assert_eq!(a.one("SELECT count(*) FILTER (WHERE v = 1), count(*) FILTER (WHERE v = 2) FROM t"), "4|36");
    let records =
        "SELECT shard, seq, tbl, key, cause, resolver, verdict, winner_node, loser_node, winner, loser, reason
                   FROM __antiphon___conflict ORDER BY key";
    assert_eq!(a.rows(records), b.rows(records));
    let reason = "it panicked in `decide`, called by `resolve`";
    let counted = "SELECT verdict, count(*), reason FROM __antiphon___conflict GROUP BY 1 ORDER BY 1";
    assert_eq!(a.rows(counted), [format!("park|4|{reason}"), "take|36|NULL".to_owned()]);
    assert!(a.said().contains("is parked"), "{}", a.said());
    assert!(place.run(["conflicts", "list", "a.db"]).stdout.contains("answered park"));
    // A later change that has seen the one that stands is no clash.
    b.sql("UPDATE t SET v = 7 WHERE id = 3");
    eventually("it goes on", || a.one("SELECT v FROM t WHERE id = 3") == "7");
    // Who would stop there, or park for another reason, parks as all do, and says what it is configured for.
    let stops = mine(&format!("sha256 = \"{sha256}\"\n"));
    let thirsty = format!("{config}limits = {{ fuel_base = 300000000 }}\n");
    let stopping = format!("this configuration's are `sha256:{sha256}` for `t`\"");
    for (name, config, own) in [("c", &stops, stopping.as_str()), ("d", &thirsty, "fuel_base = 300000000")] {
        let mut late = site(&place, name, config);
        late.start();
        settled(&[&a, &late]);
        assert_eq!(late.rows(counted), a.rows(counted), "{name}");
        eventually("it says what differs", || late.said().contains("the log's policies hold"));
        let said = late.said();
        assert!(said.contains("on_failure = park, with fuel_base = 200000000") && said.contains(own), "{name}: {said}");
    }
}

/// A resolver that gives no verdict holds up its shard, and what replaces it can only come behind: policies that are
/// applied decide what stands before them as well, on nodes that start meanwhile and on those that come later.
#[test]
fn t08_policies_applied_later_lift_a_stop() {
    for parks in [false, true] {
        let place = place();
        let sha256 = component(&place, "mine.wasm", &resolver_guest(FUSSY));
        let config = mine(&format!("sha256 = \"{sha256}\"\n"));
        let (mut a, mut b) = (site(&place, "a", &config), site(&place, "b", &config));
        a.start();
        b.start();
        a.sql("INSERT INTO t VALUES (1, 0), (2, 0)");
        eventually("the rows are everywhere", || b.one("SELECT count(*) FROM t") == "2" && b.is_quiet());
        clash(&mut a, &mut b, ["UPDATE t SET v = 1", "UPDATE t SET v = iif(id = 1, 666, 5)"]);
        for site in [&mut a, &mut b] {
            site.wait_for_words("gives no verdict");
        }
        a.sql("INSERT INTO t VALUES (3, 'meanwhile')");
        let then = if parks {
            format!("{config}on_failure = \"park\"\n")
        } else {
            // What held before stays named: those who read the log from its beginning begin with it.
            let fixed = component(&place, "fixed.wasm", &resolver_guest("(i32.const 1)"));
            let old = config.replace("use = \"mine\"", "use = \"fixed\"");
            format!("{old}[plugin.fixed]\nsource = \"file:fixed.wasm\"\nsha256 = \"{fixed}\"\n")
        };
        for name in ["a", "b"] {
            place.file(&format!("{name}.toml"), &format!("db_path = \"{name}.db\"\n[log]\npath = \"log\"\n{then}"));
        }
        let applied = place.run(["policy", "apply", "--config", "a.toml"]);
        assert_eq!(applied.code, Some(0), "{}", applied.stderr);
        if parks {
            b.term();
            b.start();
        }
        eventually("both go on", || [&a, &b].iter().all(|site| site.one("SELECT count(*) FROM t") == "3"));
        settled(&[&a, &b]);
        let v = if parks { "1,5,meanwhile" } else { "666,5,meanwhile" };
        assert_eq!(a.one("SELECT group_concat(v) FROM (SELECT v FROM t ORDER BY id)"), v);
        let mut c = site(&place, "c", &then);
        c.start();
        settled(&[&a, &c]);
        let records =
            "SELECT seq, key, resolver, verdict, winner, loser, reason FROM __antiphon___conflict ORDER BY key";
        assert_eq!(a.rows(records).len(), 2);
        assert_eq!([b.rows(records), c.rows(records)], [a.rows(records), a.rows(records)]);
        let peeked = place.run(["log", "peek", "--log", "log"]).stdout;
        assert!(peeked.contains("on where those before gave no verdict"), "{peeked}");
    }
}

/// A component that counts answers by what it was asked before, so it answers otherwise on a node that was started later.
/// `plugin check` would have refused it; here it slipped through, and nodes that compare their answers find it out.
#[test]
fn t10_t11_answers_that_differ_are_an_alarm() {
    let place = place();
    let counting = "(global.set $asked (i32.add (global.get $asked) (i32.const 1)))
        (i32.gt_u (global.get $asked) (i32.const 1))";
    let sha256 =
        component(&place, "mine.wasm", &resolver_guest_with(counting, "(global $asked (mut i32) (i32.const 0))"));
    let config = mine(&format!("sha256 = \"{sha256}\"\n"));
    place.run(["plugin", "check", "mine.wasm"]).expect(3, &[]);
    let (mut a, mut b) = (site(&place, "a", &config), site(&place, "b", &config));
    a.start();
    b.start();
    a.sql("INSERT INTO t VALUES (1, 0), (2, 0)");
    eventually("the rows are everywhere", || b.one("SELECT count(*) FROM t") == "2" && b.is_quiet());
    clash(&mut a, &mut b, ["UPDATE t SET v = 'a' WHERE id = 1", "UPDATE t SET v = 'b' WHERE id = 1"]);
    eventually("both keep", || b.one("SELECT v FROM t WHERE id = 1") == "a");
    let words = |site: &Site| site.verb("status", &[]).stdout;
    assert!(!words(&a).contains("otherwise"), "{}", words(&a));
    // The second is another question to one of them, and the first one to the other.
    clash(&mut a, &mut b, ["UPDATE t SET v = 'c' WHERE id = 2", "UPDATE t SET v = 'd' WHERE id = 2"]);
    for site in [&a, &b] {
        eventually("both tell", || site.said().contains("a resolver answered the same clash otherwise on two nodes"));
        assert!(site.said().contains("policy=\"mine\" table=\"t\" shard=1 seq="), "{}", site.said());
        eventually("status says so", || {
            let said = words(site);
            said.contains("its resolver `mine` answered the clash of entry") && said.contains("`antiphon policy apply`")
        });
    }
    assert_ne!(a.one("SELECT v FROM t WHERE id = 2"), b.one("SELECT v FROM t WHERE id = 2"), "they do differ");
    eventually("doctor says so", || {
        let said = place.run(["doctor", "--config", "a.toml"]);
        said.code != Some(0) && said.stdout.contains("the resolver `mine` answered the clash of entry")
    });
    a.sql("INSERT INTO t VALUES (3, 'on')");
    eventually("nothing stops for it", || b.one("SELECT count(*) FROM t") == "3");
}

/// What a plugin may use up is changed while its node runs, and what had stopped for it goes on. What can change an answer
/// is refused, with the way that there is.
#[test]
fn limits_are_reloaded_while_a_node_runs() {
    let place = place();
    // A clash takes about 50 million instructions.
    let slow = "(local $n i32) (local.set $n (i32.const 10000000))
        (loop $l (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1))))) (i32.const 0)";
    let sha256 = component(&place, "mine.wasm", &resolver_guest(slow));
    let configure = |name: &str, rest: &str| {
        let config = mine(&format!("sha256 = \"{sha256}\"\n{rest}"));
        let text = format!("db_path = \"{name}.db\"\n[log]\npath = \"log\"\n{config}");
        place.file(&format!("{name}.toml"), &text);
        config
    };
    let scant = "limits = { fuel_base = 1000000 }\n";
    let (mut a, mut b) = (site(&place, "a", &configure("a", scant)), site(&place, "b", &configure("b", scant)));
    let reload = |name: &str| place.run(["plugin", "reload", "--config", &format!("{name}.toml")]);
    reload("a").expect(1, &["no node runs beside", "a start reads the configuration"]);
    a.start();
    b.start();
    a.sql("INSERT INTO t VALUES (1, 0)");
    eventually("the row is everywhere", || b.one("SELECT count(*) FROM t") == "1" && b.is_quiet());
    assert_eq!(reload("a").stdout, "nothing of the plugins has changed\n");
    clash(&mut a, &mut b, ["UPDATE t SET v = 1", "UPDATE t SET v = 2"]);
    for site in [&mut a, &mut b] {
        site.wait_for_words("it ran out of fuel after");
    }
    configure("a", &format!("{scant}on_failure = \"park\"\n"));
    reload("a").expect(
        64,
        &[
            "nothing was reloaded",
            "`on_failure` of `[plugin.mine]` is another",
            "hint: `antiphon policy apply` changes",
        ],
    );
    place.file("a.toml", "db_path = 3");
    reload("a").expect(64, &["`db_path`"]);
    for name in ["a", "b"] {
        configure(name, "limits = { fuel_base = 300000000, calls = 7 }\n");
        let reloaded = reload(name);
        assert_eq!(reloaded.code, Some(0), "{}", reloaded.stderr);
        assert_eq!(
            reloaded.stdout,
            "`limits.fuel_base` of `[plugin.mine]` is another\n`limits.calls` of `[plugin.mine]` is another\n"
        );
    }
    eventually("the clash is recorded", || {
        [&a, &b].iter().all(|site| site.one("SELECT count(*) FROM __antiphon___conflict") == "1")
    });
    settled(&[&a, &b]);
    assert_eq!(a.one("SELECT v FROM t"), "1");
    assert!(a.said().contains("plugins reloaded"), "{}", a.said());
}

/// Machine code is never taken from a user, whatever its file is called: it could do anything.
#[test]
fn t17_machine_code_is_refused() {
    let place = place();
    let sha256 = component(&place, "mine.wasm", &resolver_guest(KEEP));
    let cache = place.path("cache");
    let mut a =
        site(&place, "a", &mine(&format!("sha256 = \"{sha256}\"\n"))).with("XDG_CACHE_HOME", cache.to_str().unwrap());
    a.start();
    a.term();
    let kept = std::fs::read_dir(cache.join("antiphon/components")).unwrap().map(|file| file.unwrap().path());
    let code: Vec<Vec<u8>> = kept
        .filter_map(|path| {
            let bytes = std::fs::read(path).unwrap();
            let at = bytes.windows(4).position(|window| window == b"\x7fELF")?;
            Some(bytes[at..].to_vec())
        })
        .collect();
    assert!(!code.is_empty(), "nothing was compiled");
    for (at, bytes) in code.iter().enumerate() {
        for name in ["code.cwasm", "code.wasm"] {
            let sha256 = component(&place, name, bytes);
            let config = mine(&format!("sha256 = \"{sha256}\"\n")).replace("mine.wasm", name);
            let mut site = site(&place, &format!("{at}-{}", &name[5..]), &config);
            let words =
                ["it is machine code compiled ahead (`.cwasm`)", "hint: Name the component that it was compiled"];
            site.refused().expect(64, &words);
            assert_eq!(site.schema().len(), 1, "something was left behind");
        }
    }
}

/// Large components take a while at the first start, which says so; later ones find what was compiled.
#[test]
fn t18_slow_compiling_is_told() {
    let place = place();
    let sha256 = component(&place, "mine.wasm", &large(KEEP, 12));
    let cache = place.path("cache");
    let mut a =
        site(&place, "a", &mine(&format!("sha256 = \"{sha256}\"\n"))).with("XDG_CACHE_HOME", cache.to_str().unwrap());
    a.start();
    let said = a.said();
    for words in ["compiling a component, which happens once", "compiled; the next start takes it from the cache"] {
        assert!(said.contains(words), "`{words}` is not in: {said}");
    }
    a.term();
    a.start();
    assert!(!a.said().contains("compiling a component"), "{}", a.said());
}

/// A resolver with so many large functions that nobody calls.
fn large(verdict: &str, functions: u64) -> Vec<u8> {
    // Additions upon additions: megabytes of code.
    let function = |seed: u64| {
        let sums: String =
            (0..60_000).map(|at| format!("(i64.mul (i64.const {}))(i64.add (local.get 0))", at ^ seed)).collect();
        format!("(func (param i64) (result i64) (local.get 0) {sums})")
    };
    resolver_guest_with(verdict, &(0..functions).map(function).collect::<String>())
}

/// What a component uses up over other clashes is nothing that decides one.
#[test]
fn one_clash_is_not_parked_for_what_others_use_up() {
    let place = place();
    // Every clash takes a fifth of the fuel that it may have.
    let slow = "(local $n i32) (local.set $n (i32.const 10000000))
        (loop $l (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1))))) (i32.const 0)";
    let sha256 = component(&place, "mine.wasm", &resolver_guest(slow));
    let config = mine(&format!("sha256 = \"{sha256}\"\non_failure = \"park\"\n"));
    let (mut a, mut b) = (site(&place, "a", &config), site(&place, "b", &config));
    a.start();
    b.start();
    a.sql("WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 30) INSERT INTO t SELECT i, 0 FROM n");
    eventually("the rows are everywhere", || b.one("SELECT count(*) FROM t") == "30" && b.is_quiet());
    clash(&mut a, &mut b, ["UPDATE t SET v = 1", "UPDATE t SET v = 2"]);
    let all = |site: &Site| site.one("SELECT count(*) FROM __antiphon___conflict") == "30";
    eventually("all clashes are recorded", || all(&a) && all(&b));
    settled(&[&a, &b]);
    assert_eq!(a.rows("SELECT verdict, count(*) FROM __antiphon___conflict GROUP BY 1"), ["keep|30"]);
}

/// A component that is made to take for ever to compile, or all memory, meets its caps in a process of its own, and the
/// start fails in words. Nothing is left of it that a later start could take for compiled.
#[test]
fn t18_compiling_has_caps() {
    let place = place();
    let sha256 = component(&place, "mine.wasm", &large(KEEP, 24));
    let cache = place.path("cache");
    let mut a = site(&place, "a", &mine(&format!("sha256 = \"{sha256}\"\nlimits = {{ compile_seconds = 1 }}\n")))
        .with("XDG_CACHE_HOME", cache.to_str().unwrap());
    let begun = std::time::Instant::now();
    a.refused()
        .expect(64, &["compiling it takes more than 1 seconds of processor time", "hint: ", "`compile_seconds`"]);
    assert!(begun.elapsed() < std::time::Duration::from_secs(50), "{:?}", begun.elapsed());
    place.file(
        "a.toml",
        &std::fs::read_to_string(place.path("a.toml"))
            .unwrap()
            .replace("compile_seconds = 1", "compile_memory = \"64 MiB\""),
    );
    a.refused().expect(64, &["compiling it takes more than 67108864 bytes of memory", "hint: ", "`compile_memory`"]);
    let kept = || {
        let files = std::fs::read_dir(cache.join("antiphon/components")).unwrap();
        files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|name| name == "compiled")).count()
    };
    let before = kept();
    component(&place, "mine.wasm", &resolver_guest(KEEP));
    let text = std::fs::read_to_string(place.path("a.toml")).unwrap();
    let sound = antiphon_plugin::sha256(&resolver_guest(KEEP));
    place.file("a.toml", &text.replace(&sha256, &sound).replace("limits = { compile_memory = \"64 MiB\" }", ""));
    a.start();
    // The hasher was compiled before; now this one was, and the policy of all other tables.
    assert_eq!((before, kept()), (1, 3), "what was compiled in the other process is kept for the next start");
}

/// A resolver that never ends, or crashes, at one clash: its shard stops there on every node, and all others go on.
#[test]
fn t01_a_spinning_resolver_stops_its_own_shard_alone() {
    stops_alone("(loop $l (br $l)) (i32.const 0)", "it ran out of fuel after");
}

#[test]
fn t08_a_crashing_resolver_stops_its_own_shard_alone() {
    stops_alone("(unreachable)", "it panicked in `decide`");
}

fn stops_alone(verdict: &str, why: &str) {
    let place = place();
    let sha256 = component(&place, "mine.wasm", &resolver_guest(verdict));
    let config = format!("[replication_log]\nshards = 4\n{}", mine(&format!("sha256 = \"{sha256}\"\n")));
    let (mut a, mut b) = (site(&place, "a", &config), site(&place, "b", &config));
    a.start();
    b.start();
    a.sql("INSERT INTO t VALUES (1, 'x')");
    eventually("the row is everywhere", || b.one("SELECT count(*) FROM t") == "1");
    clash(&mut a, &mut b, ["UPDATE t SET v = 'first'", "UPDATE t SET v = 'second'"]);
    let stopped = |site: &Site| {
        let status = site.verb("status", &[]);
        status.code == Some(3) && status.stdout.contains(why) && status.stdout.contains("mine")
    };
    eventually("both say so", || stopped(&a) && stopped(&b));

    // Rows spread over four shards: those of one of them wait, and no others.
    b.sql("WITH RECURSIVE n(i) AS (VALUES (2) UNION ALL SELECT i + 1 FROM n WHERE i < 101) INSERT INTO t SELECT i, i FROM n");
    let mut held: Vec<String> = Vec::new();
    eventually("the rows of three shards arrive", || {
        let here = a.rows("SELECT id FROM t");
        held = b.rows("SELECT id FROM t").into_iter().filter(|id| !here.contains(id)).collect();
        assert!(a.is_running() && b.is_running());
        held.len() < 50
    });
    let shard = |of: &str| {
        (1..=4).find(|&shard| {
            place.entries(shard).into_iter().any(|entry| match entry.body {
                Body::Changes(changes) => changes.chunks.iter().any(|chunk| {
                    chunk.written.iter().any(|row| row[0] == antiphon_core::value::Value::Integer(of.parse().unwrap()))
                }),
                _ => false,
            })
        })
    };
    let stuck = shard("1");
    assert!(!held.is_empty() && held.iter().all(|id| shard(id) == stuck), "{held:?} wait for shard {stuck:?}");
    // What stood, stands: no side was picked.
    assert_eq!([&a, &b].map(|site| site.one("SELECT v FROM t WHERE id = 1")), ["first", "second"]);
    println!("{}", a.verb("status", &[]).stdout);
}
