//! From the configuration to the components a node runs with.

use crate::alarm::{Ceiling, OnFull};
use crate::anew::Leave;
use crate::config::{Config, Loaded, Sources};
use crate::custom::{self, Component, Pins};
use crate::db::{self, Find, Found, Make, Policies};
use crate::failure::{Failure, Kind};
use crate::housekeeping::Keep;
use crate::log::{Limit, Login, Names};
use crate::node::{Carrier, Nats, Parts};
use crate::reload::{self, Reload};
use crate::replay::{Amounts, Plugin};
use crate::seq_map::SeqMap;
use crate::server::Managed;
use crate::snapshot::Shelf;
use antiphon_bundle::World;
use antiphon_core::codec;
use antiphon_core::entry::{Genesis, OnFailure, Policy as Agreed, Settings};
use antiphon_core::hash::{Hash, PluginError};
use antiphon_core::resolve::Resolve;
use antiphon_plugin::{Compiler, HostOptions, PluginHost, sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a missed file event may go unnoticed, unless the user says otherwise.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Loads the components and gathers what a node is made from.
///
/// # Errors
/// When a component can't be loaded.
pub fn parts(config: &Config, pins: Pins) -> Result<Parts, Failure> {
    parts_from(config, None, pins)
}

/// What nodes would have to agree on, by a configuration.
///
/// # Errors
/// When a component can't be loaded.
pub fn agreed(loaded: &Loaded, pins: Pins) -> Result<Genesis, Failure> {
    let config = &loaded.config;
    let host = host(config)?;
    Components { config, host: &host, pins, found: BTreeMap::new() }.load().map(|configured| configured.agreed)
}

/// The same for a node that looks into its configuration again when the log names a component that it lacks.
///
/// # Errors
/// When a component can't be loaded.
pub fn parts_of(loaded: &Loaded, pins: Pins) -> Result<Parts, Failure> {
    parts_from(&loaded.config, Some(&loaded.sources), pins)
}

fn parts_from(config: &Config, sources: Option<&Sources>, pins: Pins) -> Result<Parts, Failure> {
    let host = host(config)?;
    let components = Components { config, host: &host, pins, found: BTreeMap::new() };
    let Configured { hasher, held, agreed } = components.load()?;
    let shelf = config.snapshot.enabled.then(|| Shelf::new(host.clone(), config.clone(), pins));
    let finder = Arc::new(Finder { host, sources: sources.cloned(), held: Mutex::new(held) });
    let reload = sources.map(|sources| reloading(Arc::clone(&finder), shelf.clone(), config.clone(), sources.clone()));
    let plugins = Some(finder.host.clone());
    let find: Find = Arc::new(move |agreed| finder.find(agreed));
    let policies = Policies::new(find, agreed.all_policies());
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
        outbox: Ceiling {
            bytes: config.capture.outbox_bytes_max,
            on_full: OnFull::named(&config.capture.outbox_on_full),
        },
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
        reload,
        shelf,
        plugins,
        leave: Leave::default(),
        lookout: None,
    })
}

/// What looks into a configuration again while the node runs that was started with it.
fn reloading(finder: Arc<Finder>, shelf: Option<Shelf>, running: Config, sources: Sources) -> Reload {
    let running = Mutex::new(running);
    Reload::new(move || {
        let now = Config::load(sources.clone())?.config;
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = reload::plan(&running, &now)?;
        if !changed.is_empty() {
            // First what can be refused.
            if let Some(shelf) = shelf.as_ref().filter(|_| reload::keeps_elsewhere(&running, &now)) {
                shelf.renew(&now)?;
            }
            finder.renew(&now);
            *running = now;
        }
        Ok(changed)
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
    PluginHost::new(&HostOptions { cache_dir: Some(cache(&config.state_dir())), compiler: compiler() })
        .map_err(|error| Failure::caused(Kind::General, "cannot start the engine for components", &error))
}

/// The components of a configuration, each file read once however often it is named.
struct Components<'a> {
    config: &'a Config,
    host: &'a PluginHost,
    pins: Pins,
    found: BTreeMap<String, Component>,
}

/// What a configuration's components come to.
struct Configured {
    /// Where a key goes.
    hasher: Box<dyn Hash>,
    /// What can decide over clashes.
    held: Vec<Component>,
    /// What nodes must agree on of all that.
    agreed: Genesis,
}

impl Components<'_> {
    /// Loads what is in use, to know what it is.
    fn load(mut self) -> Result<Configured, Failure> {
        let config = self.config;
        let Component { source, settings, limits, .. } = self.find(World::Hasher, &config.hash.r#use)?;
        let hasher_settings = told(settings, config.hash.settings.reveal());
        let hasher = self.host.hasher(&source, &hasher_settings, limits).map_err(|error| failed(&error))?;
        let mut agreed = Vec::new();
        for table in &config.conflict.table {
            db::Pattern::new(&table.r#match).map_err(|error| {
                Failure::caused(Kind::Config, "a pattern under `[[conflict.table]]` is no glob", &error)
            })?;
            let decided = self.policy(&table.r#use, table.settings.reveal())?;
            agreed.push(Agreed { pattern: table.r#match.clone(), ..decided });
        }
        let default = self.policy(&config.conflict.default, Vec::new())?;
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
        // Those in use first: they may be ones that somebody works on, and are not pinned.
        let held = self.found.into_values().chain(held(config)).collect();
        Ok(Configured { hasher: Box::new(hasher), held, agreed: genesis })
    }

    fn find(&mut self, world: World, name: &str) -> Result<Component, Failure> {
        if let Some(found) = self.found.get(name) {
            return Ok(found.clone());
        }
        let found = custom::component(self.config, world, name, self.pins)?;
        self.found.insert(name.to_owned(), found.clone());
        Ok(found)
    }

    /// One policy, as nodes agree on it.
    fn policy(&mut self, name: &str, own: Settings) -> Result<Agreed, Failure> {
        let component = self.find(World::Resolver, name)?;
        let Component { source, settings, limits, on_failure, .. } = &component;
        let settings = told(settings.clone(), own);
        let resolver = self.host.resolver(source, &settings, limits.clone()).map_err(|error| failed(&error))?;
        let agreed = Agreed {
            pattern: String::new(),
            resolver: resolver.identity().to_owned(),
            settings,
            on_failure: *on_failure,
        };
        Ok(agreed)
    }
}

/// What a component is told: the settings of the plugin, and those where it is used, which win. In order of their names,
/// so that nodes which say the same in another order agree.
fn told(plugin: Settings, here: Settings) -> Settings {
    plugin.into_iter().chain(here).collect::<BTreeMap<_, _>>().into_iter().collect()
}

/// All components that a configuration names and approves of, whether anything uses them or not.
fn held(config: &Config) -> Vec<Component> {
    let approved = |plugin: &crate::config::Plugin| !plugin.source.starts_with("file:") || !plugin.sha256.is_empty();
    let named = config.plugin.iter().filter(|(_, plugin)| approved(plugin));
    named.filter_map(|(name, _)| custom::component(config, World::Resolver, name, Pins::Required).ok()).collect()
}

/// Finds the resolvers that policies of the log name.
struct Finder {
    host: PluginHost,
    /// Where the configuration came from, to look into it again.
    sources: Option<Sources>,
    held: Mutex<Vec<Component>>,
}

impl Finder {
    /// Takes up what a configuration says now of what components may use up, and those that are new in it.
    fn renew(&self, config: &Config) {
        let pinned = held(config);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|component| pinned.iter().all(|pinned| pinned.name != component.name));
        for component in held.iter_mut() {
            if let Some(plugin) = config.plugin.get(&component.name) {
                component.limits = custom::limits(&plugin.limits);
            }
        }
        held.extend(pinned);
    }

    fn find(&self, agreed: &Agreed) -> Result<Found, String> {
        let Component { name, source, mut limits, .. } = self.component(&agreed.resolver)?;
        if let OnFailure::Park(bounds) = agreed.on_failure {
            limits = custom::limits_of(&bounds, &limits)?;
        }
        // Where a failure is an answer, it must not depend on what else was asked.
        limits.sparing = agreed.on_failure != OnFailure::Stop;
        let plugin = Plugin {
            name,
            source: source.origin.to_string(),
            sha256: sha256(&source.bytes),
            settings: agreed.settings.iter().cloned().collect(),
            limits: Amounts::of(&limits),
        };
        let (host, settings) = (self.host.clone(), agreed.settings.clone());
        let load = move || host.resolver(&source, &settings, limits.clone());
        let resolver = load().map_err(|error| error.to_string())?;
        if resolver.identity() != agreed.resolver {
            return Err(format!(
                "it decides by `{}`, and this program has `{}`; run the version of it that the other nodes run",
                agreed.resolver,
                resolver.identity()
            ));
        }
        // Records of clashes are the same on all nodes, so they name it as it names itself.
        let name = resolver.info().name.clone();
        let make: Make = Arc::new(move || Ok(Box::new(load().map_err(PluginError::from)?) as Box<dyn Resolve>));
        Ok(Found { name, plugin, make })
    }

    fn component(&self, identity: &str) -> Result<Component, String> {
        let Some(digest) = identity.strip_prefix("sha256:") else {
            let name = identity.split('@').next().unwrap_or(identity);
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(found) = held.iter().find(|component| component.official.as_deref() == Some(name)) {
                return Ok(found.clone());
            }
            return custom::of_the_program(World::Resolver, name).map_err(|_| {
                format!(
                    "it decides by `{identity}`, which this program does not have; run the version of it that the other \
                     nodes run"
                )
            });
        };
        let has_digest = |component: &Component| sha256(&component.source.bytes) == digest;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = held.iter().find(|component| has_digest(component)) {
            return Ok(found.clone());
        }
        // It may have been configured since.
        if let Some(loaded) = self.sources.clone().and_then(|sources| Config::load(sources).ok()) {
            *held = self::held(&loaded.config);
        }
        held.iter().find(|component| has_digest(component)).cloned().ok_or_else(|| {
            format!(
                "it decides by the component `sha256:{digest}`, which this node's configuration does not have; take its file \
                 from another node and add `[plugin.NAME]` with `source = \"file:PATH\"` and `sha256 = \"{digest}\"`; it is \
                 taken up by itself"
            )
        })
    }
}

fn failed(error: &antiphon_plugin::Error) -> Failure {
    let failure = Failure::caused(Kind::Config, error.to_string(), error.reason());
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The hidden command that compiles one component.
pub(crate) const COMPILE: &str = "compile-component";

/// This program again, under a name that stays its own while it is replaced by another version.
pub(crate) fn compiler() -> Option<Compiler> {
    let own = PathBuf::from("/proc/self/exe");
    let program = if own.exists() { own } else { std::env::current_exe().ok()? };
    Some(Compiler { program, arguments: vec![COMPILE.into()] })
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
