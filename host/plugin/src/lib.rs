//! Runs WebAssembly components as ordinary Antiphon traits. The one crate that knows wasmtime.
//!
//! [`PluginHost`] turns bytes into a [`Hasher`] or a [`Resolver`], which are a `Hash` and a `Resolve` of
//! `antiphon-core` like any other. They compute on the thread that calls them: a plain one with 2 MiB of stack, never
//! one that an async runtime is on.
//!
//! | module | noun |
//! |---|---|
//! | `engine` | the engine all plugins share, and its clock |
//! | `cache` | components compiled before |
//! | `compile` | compiling what somebody wrote, in a process of its own |
//! | `component` | bytes -> a component of the world wanted, or why not |
//! | `inert` | what a plugin that only computes can import |
//! | `anatomy` | what a component is made of, looked at and not run |
//! | `limits` | what it may use up |
//! | `plugin` | the life of its instances |
//! | `hasher`, `resolver` | the worlds as traits |
//! | `storage` | the storage worlds as a `Store`: a pool of instances, each call bounded |
//! | `lent` | what a storage plugin can reach: what its grants name, and nothing else |
//! | `convert` | core's types <-> the worlds' |
//! | `log`, `words` | what guests say, and the last words of one that failed |
//! | `usage` | what they cost |
//! | `error` | what went wrong, why, and what to do |

mod anatomy;
mod bindings;
mod cache;
mod compile;
mod component;
mod convert;
mod engine;
mod error;
mod hasher;
mod inert;
mod lent;
mod limits;
mod log;
mod plugin;
mod resolver;
mod storage;
mod usage;
mod words;

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use sha2::{Digest as _, Sha256};

pub use anatomy::{Anatomy, Fate, Import, World};
pub use compile::{Compiled, Compiler, compile_here};
pub use error::{EngineError, Error, Reason, Spent, Trace};
pub use hasher::Hasher;
pub use lent::{Advice, Bucket, Certificates, Conversation, Grants, Post, Server, Socket, Web, WebServer};
pub use limits::{Limits, METER};
pub use resolver::Resolver;
pub use storage::{Pace, Storage};
pub use usage::Used;

use cache::Cache;
use engine::Runtime;
use lent::Lending;
use plugin::Plugin;

/// How a host is made.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    /// Where compiled components are kept; `None` = they are compiled at each start. The folder is made ours alone.
    pub cache_dir: Option<PathBuf>,
    /// How components that somebody wrote are compiled; `None` = in this process, without a cap.
    pub compiler: Option<Compiler>,
}

/// Where plugins come to life. Cheap to clone; plugins keep alive what they need of it.
#[derive(Clone)]
pub struct PluginHost {
    runtime: Arc<Runtime>,
    /// Made when the first storage is loaded: most nodes of a cluster have one, and most commands none.
    lending: Arc<OnceLock<Arc<Lending>>>,
}

/// A component, and where it comes from.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    /// What the configuration calls it.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
    /// The component's bytes: those that are hashed are those that are compiled.
    pub bytes: Cow<'a, [u8]>,
}

impl Source<'_> {
    /// Its name, if somebody wrote it.
    pub(crate) fn foreign(&self) -> Option<&str> {
        (self.origin != Origin::Official).then_some(&*self.name)
    }
}

/// Where a component comes from; it decides what nodes have to agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It comes with the program.
    Official,
    /// It is the user's own; the text says where it is, as `file:PATH`.
    Custom(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Official => f.write_str("builtin"),
            Self::Custom(place) => f.write_str(place),
        }
    }
}

/// What a plugin says of itself, and what its bytes are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The name it gives itself.
    pub name: String,
    /// The version of the build.
    pub version: String,
    /// One sentence on what it does.
    pub description: String,
    /// A JSON schema of its settings; empty if it has none. Its own words, unchecked.
    pub settings_schema: String,
    /// Raised whenever an answer can differ from that of the last build.
    pub laws: u32,
    /// The sha256 of its bytes, in hex.
    pub sha256: String,
}

/// Names and values of a plugin's settings.
type Settings = Vec<(String, String)>;

impl fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginHost").finish_non_exhaustive()
    }
}

impl PluginHost {
    /// Starts the engine.
    ///
    /// # Errors
    /// When this machine can't run it. A cache that can't be used is a warning in the log, not an error.
    pub fn new(options: &HostOptions) -> Result<Self, EngineError> {
        let cache = options.cache_dir.as_deref().and_then(Cache::open);
        let runtime = Runtime::new(cache, options.compiler.clone()).map_err(|err| EngineError(err.to_string()))?;
        Ok(Self { runtime: Arc::new(runtime), lending: Arc::default() })
    }

    /// What the plugins that came to life here have cost, in the order of their names.
    #[must_use]
    pub fn used(&self) -> Vec<Used> {
        self.runtime.used()
    }

    /// Looks at what a component imports and exports, of whatever world it is. It is compiled and not run.
    ///
    /// # Errors
    /// When the bytes are no component.
    pub fn examine(&self, source: &Source<'_>, limits: &Limits) -> Result<Anatomy, Error> {
        anatomy::examine(&self.runtime, source, limits)
    }

    /// Loads a hasher. Its settings are looked at when it is configured.
    ///
    /// # Errors
    /// When the bytes are no hasher, or one that may not be run here.
    pub fn hasher(&self, source: &Source<'_>, settings: &[(String, String)], limits: Limits) -> Result<Hasher, Error> {
        let plugin = Plugin::load(&self.runtime, source, sha256(&source.bytes), limits)?;
        Ok(Hasher::new(plugin, settings.to_vec()))
    }

    /// Loads a resolver. Its settings are looked at when it is configured.
    ///
    /// # Errors
    /// When the bytes are no resolver, or one that may not be run here.
    pub fn resolver(
        &self,
        source: &Source<'_>,
        settings: &[(String, String)],
        limits: Limits,
    ) -> Result<Resolver, Error> {
        let plugin = Plugin::load(&self.runtime, source, sha256(&source.bytes), limits)?;
        Ok(Resolver::new(plugin, settings.to_vec()))
    }

    /// Loads a storage, and lends it what `grants` say. It is opened when it is asked something.
    ///
    /// # Errors
    /// When the bytes are no storage, or one that wants more than it is granted.
    pub fn storage(
        &self,
        source: &Source<'_>,
        settings: &[(String, String)],
        grants: Grants,
        limits: Limits,
        pace: Pace,
    ) -> Result<Storage, Error> {
        Storage::load(self.lending(source)?, source, settings.to_vec(), grants, limits, pace)
    }

    /// Asks a storage what it is. It is lent nothing for that.
    ///
    /// # Errors
    /// When the bytes are no storage.
    pub fn describe_storage(&self, source: &Source<'_>, limits: Limits) -> Result<Info, Error> {
        Storage::describe(self.lending(source)?, source, limits)
    }

    fn lending(&self, source: &Source<'_>) -> Result<Arc<Lending>, Error> {
        if let Some(lending) = self.lending.get() {
            return Ok(Arc::clone(lending));
        }
        let made = Lending::new(Arc::clone(&self.runtime)).map_err(|why| Error::engine(source, why))?;
        // Of two that are made at once, one is enough.
        Ok(Arc::clone(self.lending.get_or_init(|| Arc::new(made))))
    }
}

/// The sha256 of `bytes`, in hex.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a String can't fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
