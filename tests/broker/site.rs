//! Nodes of the real program, each configured for a broker by lines of a test's own.

use antiphon_harness::{Place, Site, eventually};
use serde_json::Value;

pub(crate) const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";

/// A folder for nodes.
pub(crate) fn place() -> Place {
    Place::new(antiphon_harness::program!())
}

/// A node whose configuration has these lines at its top, and these under `[nats]`.
pub(crate) fn site(place: &Place, name: &str, top: &str, nats: &str) -> Site {
    let site = place.site(name, TABLE);
    configure(place, &site, name, top, nats)
}

/// The same, on a database that is there.
pub(crate) fn configure(place: &Place, site: &Site, name: &str, top: &str, nats: &str) -> Site {
    let file = format!("{name}.toml");
    let text = format!("db_path = '{}'\n{top}\n[nats]\nreconnect_wait_seconds = 1\n{nats}\n", site.database.display());
    let config = place.file(&file, &text);
    place.bare(name).arguments(["run", "--config", config.to_str().unwrap()])
}

/// Starts a node and waits until it replicates.
pub(crate) fn start(site: &mut Site) {
    site.spawn();
    site.wait_for_words("  log      ");
}

/// What `status --json` says of a node.
pub(crate) fn status(place: &Place, name: &str) -> Value {
    let ended = place.run(["status", "--json", "--config", &format!("{name}.toml")]);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{}{}", ended.stdout, ended.stderr))
}

/// What a node does without, by its status.
pub(crate) fn degraded(place: &Place, name: &str, part: &str) -> String {
    status(place, name)["degraded"][part].as_str().unwrap_or_default().to_owned()
}

pub(crate) fn count(site: &Site) -> String {
    site.one("SELECT count(*) FROM t")
}

/// A row that one writes comes to the other.
pub(crate) fn replicates(from: &Site, to: &Site, id: u32) {
    from.sql(&format!("INSERT INTO t VALUES ({id}, 'from')"));
    eventually("a row arrives", || to.one(&format!("SELECT count(*) FROM t WHERE id = {id}")) == "1");
}
