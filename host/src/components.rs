//! From the configuration to the components a node runs with.

use crate::config::Config;
use crate::failure::{Failure, Kind};
use crate::node::Parts;
use antiphon_bundle::World;
use antiphon_core::codec;
use antiphon_core::entry::Genesis;
use antiphon_plugin::{HostOptions, Limits, Origin, PluginHost, Source};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
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
    let resolver = host
        .resolver(&official(World::Resolver, &config.conflict.default)?, &[], Limits::default())
        .map_err(|error| failed(&error))?;
    let agreed = Genesis {
        shards: config.replication_log.shards,
        hasher: hasher.identity().to_owned(),
        resolver: resolver.identity().to_owned(),
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
        compress: config.replication_log.compress,
        publish: config.publish,
        replicate: config.replicate,
        sleep_timeout: Duration::from_millis(config.sleep_timeout),
        outbox_bytes_max: config.capture.outbox_bytes_max,
        poll_interval: match config.polling_interval {
            0 => POLL_INTERVAL,
            interval => Duration::from_millis(interval),
        },
        agreed,
        hasher: Box::new(hasher),
        resolver: Box::new(resolver),
    })
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

/// Compiled components are the same for all databases of a user.
fn cache(state: &Path) -> PathBuf {
    let home = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .filter(|path| path.is_absolute());
    home.map_or_else(|| state.join("cache"), |home| home.join("antiphon").join("components"))
}
