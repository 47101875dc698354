//! From the configuration to the components a node runs with.

use crate::config::Config;
use crate::custom::{self, Component, Pins};
use crate::db::{self, Make, Order, Policies, Policy};
use crate::failure::{Failure, Kind};
use crate::housekeeping::Keep;
use crate::log::{Limit, Login, Names};
use crate::node::{Carrier, Nats, Parts};
use crate::seq_map::SeqMap;
use crate::server::Managed;
use antiphon_bundle::World;
use antiphon_core::codec;
use antiphon_core::entry::{Genesis, Policy as Agreed, Settings};
use antiphon_core::hash::{Hash, PluginError};
use antiphon_core::resolve::Resolve;
use antiphon_plugin::{HostOptions, PluginHost};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a missed file event may go unnoticed, unless the user says otherwise.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Loads the components and gathers what a node is made from.
///
/// # Errors
/// When a component can't be loaded.
pub fn parts(config: &Config, pins: Pins) -> Result<Parts, Failure> {
    let host = host(config)?;
    let components = Components { config, host: &host, pins, found: BTreeMap::new() };
    let (hasher, policies, agreed) = components.load()?;
    let filter = config
        .capture
        .filter()
        .map_err(|error| Failure::caused(Kind::Config, "a pattern under `[capture]` is no glob", &error))?;
    Ok(Parts {
        database: config.db_path.clone(),
        node: config.node_id,
        log: carrier(config)?,
        filter,
        changes_max: config.scan_max_changes.max(1) as usize,
        atomic_max: config.atomic_max as usize,
        compress: config.replication_log.compress,
        publish: config.publish,
        replicate: config.replicate,
        sleep_timeout: Duration::from_millis(config.sleep_timeout),
        outbox_bytes_max: config.capture.outbox_bytes_max,
        poll_interval: match config.polling_interval {
            0 => POLL_INTERVAL,
            interval => Duration::from_millis(interval),
        },
        keep: Keep {
            interval: Duration::from_millis(config.cleanup_interval),
            age: Duration::from_millis(config.outbox_keep),
            bytes: config.outbox_keep_bytes,
            records: (config.conflict.keep > 0).then(|| Duration::from_millis(config.conflict.keep)),
        },
        seq_map: SeqMap::new(config.seq_map_path.clone(), config.nats.stream_prefix.clone()),
        agreed,
        hasher,
        policies,
    })
}

/// What carries the log: NATS if servers are named or one is to be started, else the directory.
///
/// # Errors
/// When a secret can't be had from where it is said to stand.
pub(crate) fn carrier(config: &Config) -> Result<Carrier, Failure> {
    let nats = &config.nats;
    if nats.urls.is_empty() && !nats.start_server {
        return Ok(Carrier::Embedded(config.log.path.clone()));
    }
    let given = |path: &Path| (!path.as_os_str().is_empty()).then(|| path.to_owned());
    let password = nats
        .user_password
        .resolve()
        .map_err(|why| Failure::config(format!("cannot use `nats.user_password`: {why}")))?;
    let user = (!nats.user_name.is_empty()).then(|| (nats.user_name.clone(), password));
    let managed = nats.start_server.then(|| Managed {
        database: config.db_path.clone(),
        program: given(&nats.nats_server),
        bind_address: nats.bind_address.clone(),
        cluster_addr: nats.cluster_addr.clone(),
        cluster_peers: nats.cluster_peers.iter().map(|peer| peer.reveal().to_owned()).collect(),
        server_config: given(&nats.server_config),
        user: user.clone(),
    });
    Ok(Carrier::Nats(Box::new(Nats {
        urls: nats.urls.iter().map(|url| url.reveal().to_owned()).collect(),
        shown: match &managed {
            Some(_) => "a NATS server started here".to_owned(),
            None => nats.urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        },
        name: format!("antiphon-node-{}", config.node_id),
        login: Login {
            user,
            token: None,
            seed_file: given(&nats.seed_file),
            creds_file: given(&nats.creds_file),
            ca_file: given(&nats.ca_file),
            certificate: given(&nats.cert_file).zip(given(&nats.key_file)),
            require_tls: nats.require_tls,
        },
        pause: Duration::from_secs(nats.reconnect_wait_seconds.max(1).into()),
        tries: u32::try_from(nats.connect_retries).unwrap_or(1),
        names: Names { subject_prefix: nats.subject_prefix.clone(), stream_prefix: nats.stream_prefix.clone() },
        replicas: copies(config.replication_log.replicas, config.replication_log.shards),
        update_existing: config.replication_log.update_existing,
        limit: Limit { bytes: config.replication_log.log_bytes_max.0, drops: config.replication_log.on_full == "drop" },
        monitors: nats.nats_monitor.iter().map(|page| page.reveal().to_owned()).collect(),
        strict_durability: nats.strict_durability,
        managed,
    })))
}

/// How many servers keep a copy of a stream: as many as asked for; 0 is half of the shards and one.
fn copies(replicas: u32, shards: u32) -> usize {
    let copies = if replicas == 0 { shards / 2 + 1 } else { replicas };
    copies.clamp(1, 5) as usize
}

/// Where components come to life, with those of earlier starts at hand.
///
/// # Errors
/// When this machine can't run the engine.
pub fn host(config: &Config) -> Result<PluginHost, Failure> {
    PluginHost::new(&HostOptions { cache_dir: Some(cache(&config.state_dir())) })
        .map_err(|error| Failure::caused(Kind::General, "cannot start the engine for components", &error))
}

/// The components of a configuration, each file read once however often it is named.
struct Components<'a> {
    config: &'a Config,
    host: &'a PluginHost,
    pins: Pins,
    found: BTreeMap<String, Component>,
}

impl Components<'_> {
    /// Where a key goes, who decides over which table, and what nodes must agree on of all that.
    fn load(mut self) -> Result<(Box<dyn Hash>, Policies, Genesis), Failure> {
        let config = self.config;
        let Component { source, settings, limits, .. } = self.find(World::Hasher, &config.hash.r#use)?;
        let hasher_settings = told(settings, config.hash.settings.reveal());
        let hasher = self.host.hasher(&source, &hasher_settings, limits).map_err(|error| failed(&error))?;
        let mut policies = Vec::new();
        let mut agreed = Vec::new();
        for table in &config.conflict.table {
            let pattern = db::glob(&table.r#match).map_err(|error| {
                Failure::caused(Kind::Config, "a pattern under `[[conflict.table]]` is no glob", &error)
            })?;
            let (policy, decided) = self.policy(&table.r#use, Some(&pattern), table.settings.reveal())?;
            policies.push(policy);
            agreed.push(Agreed { pattern: table.r#match.clone(), ..decided });
        }
        let (policy, default) = self.policy(&config.conflict.default, None, Vec::new())?;
        policies.push(policy);
        let genesis = Genesis {
            shards: config.replication_log.shards,
            hasher: hasher.identity().to_owned(),
            hasher_settings,
            resolver: default.resolver,
            resolver_settings: default.settings,
            on_failure: default.on_failure,
            policies: agreed,
            wire: u32::from(codec::VERSION),
        };
        Ok((Box::new(hasher), Policies::new(policies), genesis))
    }

    fn find(&mut self, world: World, name: &str) -> Result<Component, Failure> {
        if let Some(found) = self.found.get(name) {
            return Ok(found.clone());
        }
        let found = custom::component(self.config, world, name, self.pins)?;
        self.found.insert(name.to_owned(), found.clone());
        Ok(found)
    }

    /// One policy, and what nodes must agree on of it.
    fn policy(
        &mut self,
        name: &str,
        tables: Option<&globset::Glob>,
        own: Vec<(String, String)>,
    ) -> Result<(Policy, Agreed), Failure> {
        let Component { official, source, settings, limits, on_failure, .. } = self.find(World::Resolver, name)?;
        let settings = told(settings, own);
        let load = {
            let (host, settings) = (self.host.clone(), settings.clone());
            move || host.resolver(&source, &settings, limits.clone())
        };
        let resolver = load().map_err(|error| failed(&error))?;
        let make: Make = Arc::new(move || Ok(Box::new(load().map_err(PluginError::from)?) as Box<dyn Resolve>));
        let order = if official.as_deref() == Some(PLAIN) { Order::Log } else { Order::Resolver };
        // Records of clashes are the same on all nodes, so they name it as it names itself.
        let policy = Policy::new(&resolver.info().name, order, tables, make)
            .map_err(|error| Failure::caused(Kind::General, format!("cannot make the resolver `{name}`"), &error))?;
        let identity = resolver.identity().to_owned();
        Ok((policy, Agreed { pattern: String::new(), resolver: identity, settings, on_failure }))
    }
}

/// What a component is told: the settings of the plugin, and those where it is used, which win. In order of their names,
/// so that nodes which say the same in another order agree.
fn told(plugin: Settings, here: Settings) -> Settings {
    plugin.into_iter().chain(here).collect::<BTreeMap<_, _>>().into_iter().collect()
}

/// The one policy for which the order of the log is all there is to know. A component of that name that somebody wrote
/// may answer otherwise.
const PLAIN: &str = "last-write-wins";

fn failed(error: &antiphon_plugin::Error) -> Failure {
    let failure = Failure::caused(Kind::Config, error.to_string(), error.reason());
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Where compiled components of a database are kept.
fn cache(state: &Path) -> PathBuf {
    user_cache().unwrap_or_else(|| state.join("cache"))
}

/// Compiled components are the same for all databases of a user.
pub(crate) fn user_cache() -> Option<PathBuf> {
    let home = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .filter(|path| path.is_absolute());
    home.map(|home| home.join("antiphon").join("components"))
}
