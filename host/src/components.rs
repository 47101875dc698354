//! From the configuration to the components a node runs with.

use crate::config::Config;
use crate::db::{self, Make, Policies, Policy};
use crate::failure::{Failure, Kind};
use crate::housekeeping::Keep;
use crate::node::Parts;
use antiphon_bundle::World;
use antiphon_core::codec;
use antiphon_core::entry::{Genesis, Policy as Agreed};
use antiphon_core::hash::PluginError;
use antiphon_core::resolve::Resolve;
use antiphon_plugin::{HostOptions, Limits, Origin, PluginHost, Source};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a missed file event may go unnoticed, unless the user says otherwise.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Loads the components and gathers what a node is made from.
///
/// # Errors
/// When a component can't be loaded.
pub fn parts(config: &Config) -> Result<Parts, Failure> {
    let host = PluginHost::new(&HostOptions { cache_dir: Some(cache(&config.state_dir())) })
        .map_err(|error| Failure::caused(Kind::General, "cannot start the engine for components", &error))?;
    let hasher = host
        .hasher(&official(World::Hasher, &config.hash.r#use)?, &[], Limits::default())
        .map_err(|error| failed(&error))?;
    let (policies, agreed_policies, resolver) = policies(config, &host)?;
    let agreed = Genesis {
        shards: config.replication_log.shards,
        hasher: hasher.identity().to_owned(),
        resolver,
        policies: agreed_policies,
        wire: u32::from(codec::VERSION),
    };
    let filter = config
        .capture
        .filter()
        .map_err(|error| Failure::caused(Kind::Config, "a pattern under `[capture]` is no glob", &error))?;
    Ok(Parts {
        database: config.db_path.clone(),
        node: config.node_id,
        log: config.log.path.clone(),
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
        agreed,
        hasher: Box::new(hasher),
        policies,
    })
}

/// Who decides over which table: the policies, what nodes must agree on of them, and the default one's identity.
fn policies(config: &Config, host: &PluginHost) -> Result<(Policies, Vec<Agreed>, String), Failure> {
    let mut policies = Vec::new();
    let mut agreed = Vec::new();
    for table in &config.conflict.table {
        let pattern = db::glob(&table.r#match).map_err(|error| {
            Failure::caused(Kind::Config, "a pattern under `[[conflict.table]]` is no glob", &error)
        })?;
        let settings = table.settings.reveal();
        let (policy, resolver) = policy(config, host, &table.r#use, Some(&pattern), settings.clone())?;
        policies.push(policy);
        agreed.push(Agreed { pattern: table.r#match.clone(), resolver, settings });
    }
    let (policy, resolver) = policy(config, host, &config.conflict.default, None, Vec::new())?;
    policies.push(policy);
    Ok((Policies::new(policies), agreed, resolver))
}

/// One policy, and the identity of its resolver.
fn policy(
    config: &Config,
    host: &PluginHost,
    name: &str,
    tables: Option<&globset::Glob>,
    mut settings: Vec<(String, String)>,
) -> Result<(Policy, String), Failure> {
    let mut builtin = name;
    if let Some(plugin) = config.plugin.get(name) {
        builtin = plugin.source.strip_prefix("builtin:").unwrap_or(name);
        settings.splice(0..0, plugin.settings.reveal());
    }
    let source = official(World::Resolver, builtin)?;
    let load = {
        let host = host.clone();
        move || host.resolver(&source, &settings, Limits::default())
    };
    let identity = load().map_err(|error| failed(&error))?.identity().to_owned();
    let make: Make = Arc::new(move || Ok(Box::new(load().map_err(PluginError::from)?) as Box<dyn Resolve>));
    let policy = Policy::new(builtin, tables, make)
        .map_err(|error| Failure::caused(Kind::General, format!("cannot make the resolver `{name}`"), &error))?;
    Ok((policy, identity))
}

fn official(world: World, name: &str) -> Result<Source<'static>, Failure> {
    let component = antiphon_bundle::find(world, name).ok_or_else(|| {
        Failure::config(format!("there is no official component `{name}`"))
            .hint("`antiphon config example` names those there are")
    })?;
    Ok(Source { name: name.to_owned(), origin: Origin::Official, bytes: Cow::Borrowed(component.bytes) })
}

fn failed(error: &antiphon_plugin::Error) -> Failure {
    Failure::new(Kind::General, error.to_string())
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
