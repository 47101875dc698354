//! What a node serves about itself: health and metrics, asked over HTTP while it runs.

use antiphon::metrics::table::TABLE;
pub(super) use antiphon_harness::health::{at, serving};
use antiphon_harness::health::{is_unwell, is_well, reasons};
use antiphon_harness::http::{ask, get};
use antiphon_harness::{Resource, Site, eventually, settled};
use serde_json::Value;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use super::place;

const TABLE_T: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";

/// The value of a metric, labels and all; none if it is not there.
pub(super) fn metric(site: &Site, name: &str) -> Option<f64> {
    let text = get(at(site, "metrics"), "/metrics").body;
    let label = format!("node_id=\"{}\"", site.node());
    let line = text.lines().find(|line| {
        let (found, rest) = line.split_once(['{', ' ']).unwrap_or((line, ""));
        found == name.split('{').next().unwrap()
            && rest.contains(&label)
            && name
                .split_once('{')
                .is_none_or(|(_, wanted)| wanted.trim_end_matches('}').split(',').all(|label| rest.contains(label)))
    });
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
}

fn is(site: &Site, name: &str, value: f64) {
    eventually(&format!("{name} is {value}"), || metric(site, name) == Some(value));
}

/// P6: a node that stopped applying says so to whoever asks, with the remedy, and takes it back by itself.
#[test]
fn health_and_metrics_say_that_a_shard_stopped_and_went_on() {
    let place = place();
    let (mut a, mut b) = (serving(place.site("a", TABLE_T)), serving(place.site("b", TABLE_T)));
    a.start();
    b.start();
    for id in 1..=5 {
        a.sql(&format!("INSERT INTO t VALUES ({id}, 'a')"));
    }
    settled(&[&a, &b]);
    let health = |site: &Site| get(at(site, "health"), "/health");
    for site in [&a, &b] {
        eventually("it is well", || health(site).status == 200);
        eventually("it is ready", || get(at(site, "health"), "/readyz").status == 200);
        let found = health(site).json();
        let keys = ["db_connected", "nats_connected", "cdc_installed"];
        assert!(keys.iter().all(|key| found[key] == true), "{found}");
        assert_eq!((found["status"].as_str(), found["tables_tracked"].as_u64()), (Some("healthy"), Some(1)));
        assert_eq!(found["node_id"].as_u64(), Some(site.node()));
        assert_eq!(found["version"], env!("CARGO_PKG_VERSION"));
        assert!(found["uptime_seconds"].is_u64() && reasons(&found).is_empty());
    }
    let never = "0001-01-01T00:00:00Z";
    eventually("times are told", || {
        let (of_a, of_b) = (health(&a).json(), health(&b).json());
        of_a["last_published_event_timestamp"] != never && of_b["last_replicated_event_timestamp"] != never
    });
    assert_eq!(health(&b).json()["last_published_event_timestamp"], never, "it wrote nothing");
    // Each change once, where it was written and where it was applied.
    is(&a, "harmonylite_published", 5.0);
    is(&b, "harmonylite_applied", 5.0);
    is(&a, "harmonylite_applied", 0.0);
    is(&b, "harmonylite_schema_mismatch_paused", 0.0);
    is(&b, "harmonylite_healthy", 1.0);

    a.sql("ALTER TABLE t ADD COLUMN extra; INSERT INTO t VALUES (6, 'a', 'more')");
    eventually("it is not well", || health(&b).status == 503);
    let found = health(&b).json();
    assert_eq!((found["status"].as_str(), reasons(&found)), (Some("unhealthy"), vec!["shard 1".to_owned()]));
    let reason = &found["reasons"][0];
    assert!(reason["what"].as_str().unwrap().contains("column `extra` of table `t`"), "{reason}");
    assert!(reason["remedy"].as_str().unwrap().contains("antiphon status") && reason["since"].is_string());
    assert_eq!(get(at(&b, "health"), "/readyz").status, 503);
    assert_eq!(get(at(&b, "health"), "/livez").status, 200, "a new process would be no better");
    is(&b, "harmonylite_schema_mismatch_paused", 1.0);
    is(&b, "harmonylite_shard_stopped{shard=\"1\"}", 1.0);
    is(&b, "harmonylite_lag_changes{shard=\"1\"}", 1.0);
    is(&b, "harmonylite_condition{what=\"shard 1\"}", 1.0);
    assert_eq!(health(&a).status, 200, "the other is none the worse");

    b.sql("ALTER TABLE t ADD COLUMN extra");
    settled(&[&a, &b]);
    eventually("it is well again", || health(&b).status == 200 && get(at(&b, "health"), "/readyz").status == 200);
    is(&b, "harmonylite_shard_stopped{shard=\"1\"}", 0.0);
    is(&b, "harmonylite_applied", 6.0);
    assert_eq!(metric(&b, "harmonylite_condition"), None);
}

/// A snapshot that can't be made is told in the words that are known, counted, and over once it can.
#[test]
fn a_snapshot_that_cant_be_made_is_told_and_counted() {
    let place = place();
    place.file(
        "a.toml",
        "db_path = 'a.db'\n[log]\npath = 'log'\n[snapshot.file]\npath = 'objects'\n[logging]\nformat = 'json'\n\
         [health_check]\nlog_grace = 1000\n",
    );
    let mut a = serving(place.site("a", TABLE_T).arguments(["run", "--config", "a.toml"]));
    a.start();
    a.sql("INSERT INTO t VALUES (1, 'x')");
    eventually("a snapshot was made", || metric(&a, "harmonylite_snapshots").is_some_and(|count| count >= 1.0));
    is(&a, "harmonylite_snapshots_failed", 0.0);
    // A file stands where the cluster's folder was.
    let objects = std::fs::read_dir(place.path("objects")).unwrap().next().unwrap().unwrap().path();
    let aside = place.path("aside");
    std::fs::rename(&objects, &aside).unwrap();
    std::fs::write(&objects, "").unwrap();
    let create = || place.run(["snapshot", "create", "--config", "a.toml"]);
    assert_ne!(create().code, Some(0));
    a.wait_for_words("Unable to save snapshot");
    let said = a.said();
    let line: Value = serde_json::from_str(said.lines().find(|line| line.contains("Unable to save")).unwrap()).unwrap();
    assert_eq!((line["level"].as_str(), line["message"].as_str()), (Some("warn"), Some("Unable to save snapshot")));
    assert!(line["spans"]["snapshots"].is_object() && line["failure"].is_string(), "{line}");
    let what = is_unwell(&a, "snapshots");
    assert!(what.starts_with("no snapshot can be made: "), "{what}");
    is(&a, "harmonylite_snapshots_failed", 1.0);
    std::fs::remove_file(&objects).unwrap();
    std::fs::rename(&aside, &objects).unwrap();
    assert_eq!(create().code, Some(0));
    a.wait_for_words("Snapshot saved");
    is_well(&a);
    // Lines of a task are known by one name.
    let tasks = [
        "publish",
        "apply",
        "snapshots",
        "archive",
        "housekeeping",
        "guard",
        "observe",
        "announce",
        "report",
        "alerts",
        "web",
    ];
    let said = a.said();
    let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let spans = lines.filter_map(|line| Some(line["spans"].as_object()?.keys().cloned().collect::<Vec<_>>()));
    let spans: Vec<String> = spans.flatten().collect();
    assert!(!spans.is_empty() && spans.iter().all(|span| tasks.contains(&span.as_str())), "{spans:?}");
}

/// Nothing is served that is not in the table; figures of plugins, snapshots, clashes and the process are.
#[test]
fn metrics_of_the_table_are_served() {
    let place = place();
    let (mut a, mut b) = (serving(place.site("a", TABLE_T)), place.site("b", TABLE_T));
    a = a.with("ANTIPHON_SNAPSHOT__ARCHIVE_INTERVAL", "100");
    a.start();
    b.start();
    a.sql("INSERT INTO t VALUES (1, 'x')");
    settled(&[&a, &b]);
    // A clash: both write while neither can hear of the other.
    b.term();
    b.sql("UPDATE t SET v = 'b' WHERE id = 1");
    a.sql("UPDATE t SET v = 'a' WHERE id = 1");
    eventually("it is sent", || a.is_quiet());
    b.start();
    settled(&[&a, &b]);
    is(&a, "harmonylite_clashes{policy=\"last-write-wins\",verdict=\"take\",cause=\"same-key\"}", 1.0);
    is(&a, "harmonylite_snapshot_loop_running", 1.0);
    eventually("a snapshot was made", || metric(&a, "harmonylite_snapshots").is_some_and(|count| count >= 1.0));
    assert_eq!(place.run(["snapshot", "create", "--incremental", "a.db"]).code, Some(0));
    a.sql("INSERT INTO t VALUES (2, 'y')");
    for (name, least) in [
        ("harmonylite_plugin_calls{kind=\"hasher\",plugin=\"fnv\"}", 1.0),
        ("harmonylite_plugin_fuel{kind=\"hasher\",plugin=\"fnv\"}", 1.0),
        ("harmonylite_plugin_calls{kind=\"storage\",plugin=\"file\"}", 1.0),
        ("harmonylite_scan_changes_count", 2.0),
        ("harmonylite_scan_changes_sum", 1.0),
        ("harmonylite_count_changes_count", 2.0),
        ("harmonylite_published_bytes", 50.0),
        ("harmonylite_published_batches", 2.0),
        ("harmonylite_applied_entries", 3.0),
        ("harmonylite_applied_bytes", 50.0),
        ("harmonylite_snapshot_size_bytes", 4096.0),
        ("harmonylite_snapshot_ratio", 1.0),
        ("harmonylite_snapshot_stored_bytes", 100.0),
        ("harmonylite_snapshot_age_seconds{kind=\"full\"}", 0.0),
        ("harmonylite_snapshot_leader", 1.0),
        ("harmonylite_snapshots_saved", 1.0),
        ("harmonylite_snapshot_job_cpu_seconds{job=\"full\"}", 1e-6),
        ("harmonylite_snapshot_job_stored_bytes{job=\"full\"}", 1_000.0),
        ("harmonylite_snapshot_job_scratch_bytes{job=\"full\"}", 8192.0),
        ("harmonylite_snapshot_job_cpu_seconds{job=\"incremental\"}", 1e-6),
        ("harmonylite_snapshot_job_stored_bytes{job=\"incremental\"}", 100.0),
        ("harmonylite_snapshot_job_cpu_seconds{job=\"archive\"}", 1e-6),
        ("harmonylite_snapshot_job_stored_bytes{job=\"archive\"}", 100.0),
        ("harmonylite_snapshot_job_cpu_seconds{job=\"tidying\"}", 1e-6),
        ("harmonylite_snapshot_scratch_needed_bytes", 4096.0),
        ("harmonylite_snapshot_scratch_free_bytes", 4096.0),
        ("harmonylite_plugin_seconds{kind=\"hasher\",plugin=\"fnv\"}", 1e-9),
        ("harmonylite_wal_bytes", 1.0),
        ("harmonylite_database_bytes", 4096.0),
        ("harmonylite_disk_free_bytes", 1.0),
        ("harmonylite_outbox_batches", 1.0),
        ("harmonylite_process_resident_memory_bytes", 1_000_000.0),
        ("harmonylite_process_open_fds", 5.0),
        ("harmonylite_members{state=\"here\"}", 2.0),
    ] {
        eventually(&format!("{name} is {least} at least"), || metric(&a, name).is_some_and(|found| found >= least));
    }
    let text = get(at(&a, "metrics"), "/metrics").body;
    for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
        let mut words = line.split(' ').skip(2);
        let (name, kind) = (words.next().unwrap(), words.next().unwrap());
        let name = name.strip_prefix("harmonylite_").unwrap();
        let known = TABLE.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("{name} is not listed"));
        assert_eq!(known.kind.name(), kind);
    }
}

/// X09: who says nothing, however many they are, does not keep away the one that asks; nothing can be changed from there.
#[test]
fn x09_many_who_say_nothing_keep_nobody_away() {
    let place = place();
    let mut a = serving(place.site("a", TABLE_T));
    a.start();
    let health = at(&a, "health");
    eventually("it is well", || get(health, "/health").status == 200);
    let mut silent = Vec::new();
    for _ in 0..500 {
        let mut stream = TcpStream::connect(health).unwrap();
        // It may have been shown the door already.
        let _ = stream.write_all(b"GET /health HTTP/1.1\r\nHost:");
        silent.push(stream);
        if silent.len() % 100 == 0 {
            assert_eq!(get(health, "/health").status, 200);
        }
    }
    assert_eq!(get(health, "/livez").status, 200);
    a.sql("INSERT INTO t VALUES (1, 'x')");
    eventually("it is replicated all the same", || a.is_quiet());
    drop(silent);
    assert_eq!(ask(health, "POST", "/health", "localhost").status, 405);
    assert_eq!(ask(health, "DELETE", "/", "localhost").status, 405);
    assert_eq!(get(health, "/../../etc/passwd").status, 404);
    assert_eq!(ask(health, "GET", "/", "evil.example.org").status, 421, "another's name leads nowhere");
    assert_eq!(ask(health, "GET", "/events", "evil.example.org").status, 421);
    let page = get(health, "/");
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    assert!(!a.said().contains("other machines can look in"), "loopback is nobody's but this machine's");
}

/// Metrics have an address of their own, at any path of it, as HarmonyLite has them; an address is used as it is written,
/// and one that others can reach is named once. A disk with less room than asked for is told.
#[test]
fn addresses_are_used_as_they_are_written() {
    let place = place();
    let mut a = serving(place.site("a", TABLE_T))
        .with("ANTIPHON_PROMETHEUS__BIND", "0.0.0.0:0")
        .with("ANTIPHON_PROMETHEUS__NAMESPACE", "app")
        .with("ANTIPHON_PROMETHEUS__SUBSYSTEM", "db")
        .with("ANTIPHON_HEALTH_CHECK__PATH", "/status")
        .with("ANTIPHON_HEALTH_CHECK__DETAILED", "false")
        .with("ANTIPHON_HEALTH_CHECK__PAGE", "false")
        .with("ANTIPHON_HEALTH_CHECK__DISK_FREE_MIN", "1048576 GiB");
    a.start();
    let said = a.said();
    assert_eq!(said.matches("other machines can look in here").count(), 1, "{said}");
    let (health, metrics) = (at(&a, "health"), at(&a, "metrics"));
    assert!(metrics.ip().is_unspecified() && health.ip().is_loopback());
    let local = SocketAddr::new(health.ip(), metrics.port());
    let mut text = String::new();
    eventually("the disk is told to be nearly full", || {
        text = get(local, "/anything").body;
        text.contains("app_db_condition{what=\"disk\",node_id=")
    });
    assert!(text.contains("\n# TYPE app_db_published counter\n"));
    let answer = get(health, "/status");
    assert_eq!((answer.status, answer.body.as_str()), (503, ""));
    assert_eq!(get(health, "/").status, 404);
    assert_eq!(get(health, "/metrics").status, 404);
    // A second node can't have the same address, and says so before it does anything.
    let mut b = place.site("b", TABLE_T).with("ANTIPHON_HEALTH_CHECK__ENABLE", "true");
    b.set("ANTIPHON_HEALTH_CHECK__BIND", Some(health.to_string()));
    b.refused().expect(75, &["cannot listen at `health_check.bind`", "address"]);
}

/// C115, F06: a host that can't write says so, the application writes on, and nothing has to be started again.
#[test]
fn c115_a_host_that_cannot_write_says_so_and_goes_on_when_it_can() {
    let place = place();
    let mut a = serving(place.site("a", TABLE_T)).with("ANTIPHON_HEALTH_CHECK__LOG_GRACE", "500");
    let mut b = place.site("b", TABLE_T);
    a.start();
    b.start();
    a.sql("INSERT INTO t VALUES (1, 'before')");
    settled(&[&a, &b]);
    let health = at(&a, "health");
    eventually("it is well", || get(health, "/health").status == 200);
    let counted = |name: &str| metric(&a, name).is_some_and(|count| count >= 1.0);
    assert!(!counted("harmonylite_publish_errors") && !counted("harmonylite_apply_errors"));
    // No file of the host's may grow any more: to it, the disk is full.
    a.limit(Resource::Fsize, Some(0));
    b.sql("INSERT INTO t VALUES (3, 'of the other')");
    a.sql("INSERT INTO t VALUES (2, 'the application is not concerned')");
    eventually("it is not well", || get(health, "/health").status == 503);
    eventually("it says that it can't send", || {
        reasons(&get(health, "/health").json()).contains(&"publish".to_owned())
    });
    assert_eq!(a.one("SELECT count(*) FROM t"), "2");
    eventually("what fails is counted", || {
        counted("harmonylite_publish_errors") && counted("harmonylite_apply_errors")
    });
    a.limit(Resource::Fsize, None);
    settled(&[&a, &b]);
    eventually("it is well again", || get(health, "/health").status == 200);
    assert_eq!(b.one("SELECT count(*) FROM t"), "3");
}
