//! Who is told when something is wrong, and when it no longer is: by a webhook that fails at first, and by a command.

use antiphon_harness::http::{Receiver, get};
use antiphon_harness::{Site, eventually, finish, settled};
use std::os::unix::fs::PermissionsExt as _;

use super::observed::{at, metric, serving};
use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";

/// What was told, in short.
pub(super) fn told(bodies: &[serde_json::Value]) -> Vec<String> {
    let text = |value: &serde_json::Value, key: &str| value[key].as_str().unwrap_or("-").to_owned();
    bodies.iter().map(|body| [text(body, "event"), text(body, "state"), text(body, "name")].join(" ")).collect()
}

/// Each condition is told once, however often the webhook fails and the process dies, and taken back once. X07: the secrets
/// of the way stand in no log, no page, no process list and no file of ours.
#[test]
fn a_condition_is_told_once_and_taken_back() {
    let place = place();
    let receiver = Receiver::new();
    let secret = place.file("webhook", &format!("{}\n", receiver.address("/hooks/Canary1")));
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let lines = place.path("lines");
    let command = format!("[\"sh\", \"-c\", \"cat >> '{}'\"]", lines.display());
    let (mut a, b) = (place.site("a", TABLE), place.site("b", TABLE));
    let mut b = serving(b)
        .with("ANTIPHON_ALERTS__WEBHOOK", format!("${{file:{}}}", secret.display()))
        .with("ANTIPHON_ALERTS__TOKEN", "Canary2")
        .with("ANTIPHON_ALERTS__COMMAND", command)
        .with("ANTIPHON_HEALTH_CHECK__LOG_GRACE", "3000");
    a.start();
    b.start();
    a.sql("INSERT INTO t VALUES (1, 'a')");
    settled(&[&a, &b]);
    eventually("it is well", || get(at(&b, "health"), "/health").status == 200);
    assert!(receiver.bodies().is_empty(), "a start is nothing to be told of");

    receiver.fail(2);
    a.sql("ALTER TABLE t ADD COLUMN extra; INSERT INTO t VALUES (2, 'a', 'more')");
    let firing = ["condition firing shard 1", "health unhealthy -"];
    eventually("it is told", || told(&receiver.bodies()) == firing);
    assert!(receiver.has_failed() && b.said().contains("an alert reached nobody, will try again"), "{}", b.said());
    assert!(metric(&b, "harmonylite_alert_errors").is_some_and(|count| count >= 1.0));
    let first = receiver.bodies().remove(0);
    assert!(first["what"].as_str().unwrap().contains("column `extra`"), "{first}");
    assert_eq!((first["node_id"].as_u64(), first["status"].as_str()), (Some(b.node()), Some("unhealthy")));
    assert!(receiver.heads()[0].contains("POST /hooks/Canary1?") && receiver.heads()[0].contains("Bearer Canary2"));

    // It dies, and finds the same after its start.
    hide_and_seek(&b);
    // Who dies before it has noted what it told tells it again.
    let noted = |way: &str| std::fs::read_to_string(b.state().join(format!("told-{way}.json"))).unwrap_or_default();
    eventually("it is noted", || ["webhook", "command"].iter().all(|way| noted(way).contains("\"unhealthy\": true")));
    b.kill9();
    b.start();
    eventually("it is found again", || get(at(&b, "health"), "/health").body.contains("shard 1"));
    b.sql("ALTER TABLE t ADD COLUMN extra");
    settled(&[&a, &b]);
    let all = ["condition firing shard 1", "health unhealthy -", "condition resolved shard 1", "health healthy -"];
    eventually("it is taken back", || receiver.bodies().len() >= all.len());
    assert_eq!(told(&receiver.bodies()), all);
    let lines = || std::fs::read_to_string(&lines).unwrap_or_default();
    eventually("the command was told the same", || lines().lines().count() == all.len());
    let lines: Vec<serde_json::Value> = lines().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told(&lines), all);
    hide_and_seek(&b);
    b.term();
    assert_eq!(receiver.bodies().len(), all.len(), "a stop in order is nothing to be told of");
}

/// Looks for the secrets wherever they could be read.
fn hide_and_seek(site: &Site) {
    let health = at(site, "health");
    let process = std::fs::read(format!("/proc/{}/cmdline", site.pid())).unwrap();
    let mut places = vec![
        ("log".to_owned(), site.said()),
        ("process list".to_owned(), String::from_utf8_lossy(&process).into_owned()),
        ("health".to_owned(), get(health, "/health").body),
        ("metrics".to_owned(), get(health, "/metrics").body),
    ];
    let shown = finish(&mut site.command(&["config", "show"]));
    places.push(("the configuration as shown".to_owned(), shown.stdout + &shown.stderr));
    for entry in std::fs::read_dir(site.state()).unwrap() {
        let path = entry.unwrap().path();
        let Ok(content) = std::fs::read(&path) else { continue };
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0, "{} is its owner's", path.display());
        places.push((path.display().to_string(), String::from_utf8_lossy(&content).into_owned()));
    }
    for (place, text) in places {
        assert!(!text.contains("Canary1") && !text.contains("Canary2"), "a secret stands in {place}: {text}");
    }
}

/// A node that ends for good says so with its last words.
#[test]
fn the_end_of_a_node_is_told() {
    let place = place();
    let receiver = Receiver::new();
    let mut a = place.site("a", TABLE).with("ANTIPHON_ALERTS__WEBHOOK", receiver.address("/"));
    a.start();
    a.sql("INSERT INTO t VALUES (1, 'a')");
    eventually("it is sent", || a.is_quiet());
    // Another file in its place: nothing that waiting could mend.
    std::fs::copy(&a.database, place.path("other.db")).unwrap();
    std::fs::rename(place.path("other.db"), &a.database).unwrap();
    assert!(!a.wait().success());
    eventually("it is told", || told(&receiver.bodies()) == ["condition firing ended"]);
    a.start();
    eventually("it is taken back", || told(&receiver.bodies()).contains(&"condition resolved ended".to_owned()));
}
