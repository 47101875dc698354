//! Where snapshots are kept: from the configuration to a `Store`, and what is done around every store.
//!
//! | module | noun |
//! |---|---|
//! | `bucket` | the bucket of NATS that a storage is lent |
//! | `ssh` | the channel to an SFTP server that a storage is lent |
//! | `web` | the servers that `s3` and `webdav` are lent |
//! | `steady` | tries again, and goes no faster than it may |
//! | `moved` | how much went in and out, shown to who waits |
//! | `content` | size and hash of an object: what was put is what is there |
//! | `conformance` | the suite that every store passes |

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use antiphon_bundle::World;
use antiphon_core::store::{ErrorKind, StoreError};
use antiphon_plugin::{Bucket, Grants, Limits, Pace, PluginHost, Socket, Source, Storage};

use crate::components;
use crate::config::{Config, expand, speaks_of_a_secret};
use crate::custom::{self, Pins};
use crate::failure::{Failure, Kind};
use crate::node::{Carrier, NEVER_STARTED};
use ssh::{Place, SshServer, Words};

mod bucket;
pub mod conformance;
mod content;
mod moved;
mod ssh;
mod steady;
mod web;

pub use content::{Content, get, put};
pub use moved::{Moved, Progress};
pub use steady::{Retry, Steady};
use web::Here;

/// The memory of an instance that a storage has at least: objects pass through it.
pub(crate) const MEMORY_BYTES_MIN: usize = 128 << 20;

/// A store that a configuration names.
pub struct Opened {
    /// What the configuration calls it.
    pub name: String,
    /// Where it is, for people to read.
    pub place: String,
    /// The component, for what only it knows.
    pub component: Storage,
    /// The store.
    pub store: Steady<Storage>,
}

/// What a storage component is made from.
struct Parts {
    name: String,
    place: String,
    source: Source<'static>,
    settings: Vec<(String, String)>,
    limits: Limits,
    grants: Grants,
}

/// Loads the store of a configuration: that of `[snapshot]`, or the one that goes by `name`.
///
/// # Errors
/// When there is none of that name, or it can't be loaded.
pub fn open(config: &Config, host: &PluginHost, name: Option<&str>, pins: Pins) -> Result<Opened, Failure> {
    let Parts { name, place, source, settings, mut limits, grants } = parts(config, name, pins)?;
    limits.memory_bytes = limits.memory_bytes.max(MEMORY_BYTES_MIN);
    let pace = Pace { instances: config.snapshot.parallel as usize, ..Pace::default() };
    let component = host.storage(&source, &settings, grants, limits, pace).map_err(|error| {
        let failure = Failure::caused(Kind::Config, error.to_string(), error.reason());
        error.hint().into_iter().fold(failure, Failure::hint)
    })?;
    let store = Steady::new(component.clone(), Retry::default(), config.snapshot.bandwidth.0);
    Ok(Opened { name, place, component, store })
}

fn parts(config: &Config, name: Option<&str>, pins: Pins) -> Result<Parts, Failure> {
    let chosen = name.unwrap_or(&config.snapshot.store);
    let plugin = match name {
        Some(name) => Some(name).filter(|name| config.plugin.contains_key(*name)),
        None => chosen.strip_prefix("plugin:"),
    };
    let Some(name) = plugin else { return short(config, chosen) };
    let component = custom::component(config, World::Storage, name, pins)?;
    let settings = component.settings.into_iter().map(|(setting, value)| {
        let key = format!("plugin.{name}.settings.{setting}");
        Ok((setting, expand(&key, &value)?))
    });
    let settings = settings.collect::<Result<Vec<_>, Failure>>()?;
    let granted = config.plugin.get(name).map(|plugin| &plugin.grants);
    let folder = granted.map(|grants| grants.folder.clone()).filter(|folder| !folder.as_os_str().is_empty());
    let sockets = granted.map_or(&[][..], |grants| grants.sockets.as_slice());
    let sockets = sockets.iter().map(|text| socket(name, text)).collect::<Result<Vec<_>, Failure>>()?;
    let private_networks = granted.is_some_and(|grants| grants.private_networks);
    let mut parts = Parts {
        name: name.to_owned(),
        place: component.source.origin.to_string(),
        source: component.source,
        grants: Grants { folder, sockets, private_networks, secrets: secrets(&settings), ..Grants::default() },
        settings,
        limits: component.limits,
    };
    match component.official.as_deref() {
        Some("file") => {
            let path = take(&mut parts.settings, "path").ok_or_else(|| {
                Failure::config(format!("`plugin.{name}.settings.path` is not set"))
                    .hint("write `path = \"DIR\"`: the folder to keep objects in")
            })?;
            parts.place.clone_from(&path);
            parts.grants.folder = Some(PathBuf::from(path));
        }
        Some("nats") => {
            let bucket = take(&mut parts.settings, "bucket").unwrap_or_default();
            let replicas = take(&mut parts.settings, "replicas").unwrap_or_else(|| "1".to_owned());
            let replicas = replicas.parse().ok().filter(|replicas| (1..=5).contains(replicas)).ok_or_else(|| {
                Failure::config(format!("`plugin.{name}.settings.replicas` must be from 1 to 5, found `{replicas}`"))
            })?;
            (parts.place, parts.grants.bucket) = lend_bucket(config, bucket, replicas)?;
        }
        Some("sftp") => {
            let mut words = Words::default();
            for (setting, value) in std::mem::take(&mut parts.settings) {
                match setting.as_str() {
                    "url" => words.url = value,
                    "password" => words.password = value,
                    "key_file" => words.key_file = PathBuf::from(value),
                    "passphrase" => words.passphrase = value,
                    "known_hosts" => words.known_hosts = PathBuf::from(value),
                    "agent" => words.agent = value == "true",
                    _ => parts.settings.push((setting, value)),
                }
            }
            lend_server(&mut parts, words, &format!("plugin.{name}.settings"))?;
        }
        Some("s3") => {
            let (here, settings) = (Here::plugin(name), &mut parts.settings);
            let (place, web) = web::s3(settings, &here, private_networks, &web::variable)?;
            (parts.place, parts.grants.web) = (place, Some(web));
        }
        Some("webdav") => {
            let (place, web) = web::webdav(&mut parts.settings, &Here::plugin(name), private_networks)?;
            (parts.place, parts.grants.web) = (place, Some(web));
        }
        Some(_) => {}
        None => {
            if let Some(granted) = granted {
                parts.grants.web = web::custom(name, granted)?;
            }
            if let Some(folder) = &parts.grants.folder {
                parts.place = folder.display().to_string();
            } else if let Some(Socket { host, port }) = parts.grants.sockets.first() {
                parts.place = format!("{host}:{port}");
            }
        }
    }
    // What was made of settings, or came from elsewhere, is no less secret.
    parts.grants.secrets.extend(secrets(&parts.settings));
    Ok(parts)
}

/// A server that a component may connect to, as the configuration has it: `host:port`, or `[address]:port`.
fn socket(name: &str, text: &str) -> Result<Socket, Failure> {
    let parts = text.rsplit_once(':').and_then(|(host, port)| {
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = inner.or_else(|| Some(host).filter(|host| !host.contains([':', '/', '[', ']', '@'])))?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        Some(Socket { host: host.to_owned(), port }).filter(|socket| !socket.host.is_empty())
    });
    parts.ok_or_else(|| {
        Failure::config(format!("`plugin.{name}.grants.sockets` names `{text}`, which is no server"))
            .hint("write it as `host:port`")
    })
}

/// A store that comes with the program, by the short form: `[snapshot.file]` and the like.
fn short(config: &Config, name: &str) -> Result<Parts, Failure> {
    let snapshot = &config.snapshot;
    let source = custom::official(World::Storage, name).map_err(|_| not_there(config, name))?;
    let mut parts = Parts {
        name: name.to_owned(),
        place: String::new(),
        source,
        settings: Vec::new(),
        limits: Limits::default(),
        grants: Grants::default(),
    };
    match name {
        "file" => {
            let path = snapshot.file.path.clone();
            if path.as_os_str().is_empty() {
                return Err(Failure::config("`snapshot.file.path` is not set, and there is no database to be beside")
                    .hint("write `path = \"DIR\"` under `[snapshot.file]`"));
            }
            parts.place = path.display().to_string();
            parts.grants.folder = Some(path);
        }
        "nats" => {
            let nats = &snapshot.nats;
            (parts.place, parts.grants.bucket) = lend_bucket(config, nats.bucket.clone(), nats.replicas as usize)?;
        }
        "sftp" => {
            let sftp = &snapshot.sftp;
            let words = Words {
                url: expand("snapshot.sftp.url", sftp.url.reveal())?,
                password: expand("snapshot.sftp.password", sftp.password.reveal())?,
                key_file: sftp.key_file.clone(),
                passphrase: expand("snapshot.sftp.passphrase", sftp.passphrase.reveal())?,
                known_hosts: sftp.known_hosts.clone(),
                agent: sftp.agent,
            };
            lend_server(&mut parts, words, "snapshot.sftp")?;
        }
        "s3" => {
            let (mut settings, private) = (snapshot.s3.settings()?, snapshot.s3.private_networks);
            let (place, web) = web::s3(&mut settings, &Here::short(name), private, &web::variable)?;
            (parts.place, parts.grants.web, parts.grants.secrets) = (place, Some(web), secrets(&settings));
            parts.settings = settings;
        }
        "webdav" => {
            let (mut settings, private) = (snapshot.webdav.settings()?, snapshot.webdav.private_networks);
            let (place, web) = web::webdav(&mut settings, &Here::short(name), private)?;
            (parts.place, parts.grants.web, parts.grants.secrets) = (place, Some(web), secrets(&settings));
            parts.settings = settings;
        }
        _ => return Err(not_there(config, name)),
    }
    Ok(parts)
}

/// Lends the server of an address, and tells the component the folder. Everything else stays here.
fn lend_server(parts: &mut Parts, words: Words, key: &str) -> Result<(), Failure> {
    let place = Place::of(words, key)?;
    parts.place = place.to_string();
    parts.grants.secrets = place.secrets();
    parts.settings.push(("folder".to_owned(), place.folder.clone()));
    parts.grants.server = Some(Arc::new(SshServer(place)));
    Ok(())
}

/// The bucket of that name, or of the usual one, and where it is. It is not connected to before it is asked something.
fn lend_bucket(config: &Config, name: String, replicas: usize) -> Result<(String, Lent), Failure> {
    let Carrier::Nats(nats) = components::carrier(config)? else {
        return Err(Failure::config("`nats.urls` names no server, and a bucket of NATS is to keep snapshots")
            .hint("name one: `urls = [\"nats://host:4222\"]` under `[nats]`"));
    };
    let urls = nats.addresses().ok_or_else(|| Failure::new(Kind::Busy, NEVER_STARTED).hint("start the node first"))?;
    let bucket = if name.is_empty() { format!("{}-snapshot-store", nats.names.stream_prefix) } else { name };
    let place = bucket::Place {
        urls,
        shown: nats.shown,
        name: nats.name,
        login: nats.login,
        pause: nats.pause,
        bucket,
        replicas: replicas.clamp(1, 5),
    };
    Ok((format!("bucket `{}`, {}", place.bucket, place.shown), Some(Arc::new(bucket::NatsBucket::new(place)))))
}

/// What is lent, if anything is.
type Lent = Option<Arc<dyn Bucket>>;

fn not_there(config: &Config, name: &str) -> Failure {
    let known: Vec<&str> = antiphon_bundle::ALL
        .iter()
        .filter(|component| component.world == World::Storage)
        .map(|component| component.name)
        .chain(config.plugin.keys().map(String::as_str))
        .collect();
    let meant = crate::words::did_you_mean(name, known.iter().copied());
    Failure::new(Kind::NotBuilt, format!("there is no storage `{name}` in this version{meant}")).hint(
        "`store` under `[snapshot]` is `file`, `nats`, `s3`, `webdav`, `sftp`, or `plugin:NAME` for a `[plugin.NAME]`",
    )
}

fn take(settings: &mut Vec<(String, String)>, name: &str) -> Option<String> {
    let at = settings.iter().position(|(setting, _)| setting == name)?;
    Some(settings.remove(at).1)
}

/// Values that are secrets by what they are called.
fn secrets(settings: &[(String, String)]) -> Vec<String> {
    settings.iter().filter(|(name, _)| speaks_of_a_secret(name)).map(|(_, value)| value.clone()).collect()
}

/// A store's error as the end of a command.
#[must_use]
pub fn failure(error: &StoreError) -> Failure {
    let kind = match error.kind {
        ErrorKind::NotFound => Kind::Missing,
        ErrorKind::Denied => Kind::Config,
        ErrorKind::Temporary => Kind::Busy,
        ErrorKind::Exists | ErrorKind::Unsupported | ErrorKind::Permanent => Kind::General,
    };
    // What a component passes on has lost its hint on the way.
    let usual = || {
        (kind == Kind::Busy).then(|| {
            "see that what keeps the objects runs, can be reached and has room left, then try again".to_owned()
        })
    };
    let failure = Failure::new(kind, error.message.clone());
    error.hint.clone().or_else(usual).into_iter().fold(failure, Failure::hint)
}

/// A pause, as long as it says and up to half as long again at random, so that those who failed together come apart.
fn spread(pause: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness it is the pause itself.
    if getrandom::fill(&mut random).is_err() {
        return pause;
    }
    pause + pause * u32::from(u16::from_le_bytes(random)) / (2 * u32::from(u16::MAX))
}
