//! Nodes that share nothing but one server, or three that keep copies for each other.

use antiphon_harness::{Brokers, Place, Proxy, Site};

/// What all nodes have: rows of each writer's own, a counter that all write to, and rows that they quarrel over.
pub(crate) const TABLES: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v, n INTEGER DEFAULT 0);
    CREATE TABLE item (id TEXT PRIMARY KEY, v INTEGER, note TEXT);
    CREATE TABLE tally (id INTEGER PRIMARY KEY, n INTEGER);
    CREATE TABLE shared (id INTEGER PRIMARY KEY, v TEXT);";

/// Additions are added up, so that one that is lost, or counts twice, shows.
const POLICIES: &str = "[[conflict.table]]\nmatch = 'tally'\nuse = 'counter'\nsettings = { columns = 'n' }\n";

/// The place of a cluster, and what carries its log.
pub(crate) struct World {
    pub(crate) place: Place,
    pub(crate) servers: Brokers,
}

impl World {
    /// With one server.
    pub(crate) fn one() -> Self {
        Self { place: Place::new(antiphon_harness::program!()), servers: Brokers::one() }
    }

    /// With three servers, each of which has a copy of everything.
    pub(crate) fn three() -> Self {
        Self { place: Place::new(antiphon_harness::program!()), servers: Brokers::three() }
    }

    /// Whatever holds with one server holds with three.
    pub(crate) fn each(test: impl Fn(Self)) {
        test(Self::one());
        test(Self::three());
    }

    /// A proxy before each server.
    pub(crate) fn proxies(&mut self) -> Vec<Proxy> {
        (0..self.servers.count()).map(|at| Proxy::to(self.servers.server(at).port())).collect()
    }

    /// A database with the tables and the settings of a host that knows all servers.
    pub(crate) fn site(&self, name: &str) -> Site {
        self.site_with(name, &self.servers.urls(), "")
    }

    /// Several of them.
    pub(crate) fn sites<const N: usize>(&self, names: [&str; N]) -> [Site; N] {
        names.map(|name| self.site(name))
    }

    /// A site that reaches the servers through these proxies alone.
    pub(crate) fn behind(&self, name: &str, proxies: &[Proxy]) -> Site {
        self.site_with(name, &proxies.iter().map(Proxy::url).collect::<Vec<_>>(), "")
    }

    /// A site with addresses of its own, and these lines in its `[replication_log]`.
    pub(crate) fn site_with(&self, name: &str, urls: &[String], more: &str) -> Site {
        self.configure(name, urls, more, self.place.site(name, TABLES))
    }

    /// The settings for a database that is there.
    pub(crate) fn configure(&self, name: &str, urls: &[String], more: &str, site: Site) -> Site {
        let replicas = self.servers.count();
        let config = self.place.file(
            &format!("{name}.toml"),
            &format!(
                "db_path = '{name}.db'\n[replication_log]\nreplicas = {replicas}\n{more}\n\
                 [nats]\nurls = {urls:?}\nreconnect_wait_seconds = 1\n{POLICIES}"
            ),
        );
        site.arguments(["run", "--config", config.to_str().unwrap()])
    }
}

/// Starts a host and waits until it replicates.
pub(crate) fn start(site: &mut Site) {
    site.spawn();
    site.wait_for_words("  log      nats://");
}

/// How many rows of `t` there are.
pub(crate) fn count(site: &Site) -> usize {
    site.one("SELECT count(*) FROM t").parse().unwrap()
}
