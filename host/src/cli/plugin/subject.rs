//! The component that a command is about, and what it is told.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use antiphon_bundle::World as Bundled;
use antiphon_plugin::{Anatomy, Hasher, HostOptions, Info, Limits, Origin, PluginHost, Resolver, Source, World};

use crate::components;
use crate::config::{Config, Environment, Overrides, Sources};
use crate::custom;
use crate::failure::{Failure, Kind};

/// Which component.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Which {
    /// A component's file, the name of an official one, or with `--config` the NAME of a `[plugin.NAME]`
    #[arg(value_name = "FILE")]
    pub(super) plugin: String,
    /// The configuration that has a `[plugin.NAME]`
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// What it is told.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Told {
    /// A setting, as in `columns=quantity`; may be given several times, and comes before the configuration's
    #[arg(long = "settings", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a setting is NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

/// The component, and all that is known of it without running it.
pub(super) struct Subject {
    pub(super) source: Source<'static>,
    pub(super) settings: Vec<(String, String)>,
    pub(super) limits: Limits,
    /// The digest that the configuration asks for.
    pub(super) pinned: Option<String>,
}

/// The configuration as it is written: whether it makes sense for a node is another question.
pub(super) fn configuration(file: &Path) -> Result<Config, Failure> {
    Config::unjudged(Sources {
        file: Some(file.to_owned()),
        environment: Environment::of_process(),
        overrides: Overrides::default(),
    })
}

impl Which {
    /// The name it has in a configuration, and the file of that, if it is named so.
    pub(super) fn configured(&self) -> Option<(&str, &Path)> {
        Some((&self.plugin, self.config.as_deref()?))
    }

    /// How it was named.
    pub(super) fn named(&self) -> &str {
        &self.plugin
    }

    /// Finds the component and reads its bytes.
    pub(super) fn find(self, told: Told) -> Result<Subject, Failure> {
        let Self { plugin: name, config } = self;
        if let Some(file) = &config {
            let config = configuration(file)?;
            let Some(plugin) = config.plugin.get(&name) else {
                let known: Vec<String> = config.plugin.keys().map(|name| format!("`{name}`")).collect();
                return Err(Failure::config(format!("there is no `[plugin.{name}]` in `{}`", file.display())).hint(
                    match known.as_slice() {
                        [] => "leave `--config` out to name a file or an official component".to_owned(),
                        known => format!("it has {}", known.join(", ")),
                    },
                ));
            };
            let mut settings = plugin.settings.reveal();
            settings.retain(|(name, _)| !told.settings.iter().any(|(given, _)| given == name));
            settings.extend(told.settings);
            let limits = custom::limits(&plugin.limits);
            let source = configured(&name, &plugin.source, &limits)?;
            let pinned = Some(plugin.sha256.clone()).filter(|pinned| !pinned.is_empty());
            return Ok(Subject { source, settings, limits, pinned });
        }
        let limits = Limits::default();
        let builtin = name.strip_prefix("builtin:");
        let path = Path::new(name.strip_prefix("file:").unwrap_or(&name));
        let source = match official(builtin.unwrap_or(&name)) {
            Some(source) if builtin.is_some() || !path.exists() => source,
            _ if builtin.is_some() => return Err(no_official(&name)),
            _ => {
                let stem = path.file_stem().map_or_else(|| name.clone(), |stem| stem.to_string_lossy().into_owned());
                of_file(&stem, path, &limits)?
            }
        };
        Ok(Subject { source, settings: told.settings, limits, pinned: None })
    }
}

/// The component of a `[plugin.NAME]`.
pub(super) fn configured(name: &str, source: &str, limits: &Limits) -> Result<Source<'static>, Failure> {
    match source.split_once(':') {
        Some(("builtin", builtin)) => official(builtin).ok_or_else(|| no_official(builtin)),
        Some(("file", path)) if !path.is_empty() => of_file(name, Path::new(path), limits),
        _ => Err(Failure::config(format!("`plugin.{name}.source` is neither `builtin:NAME` nor `file:PATH`"))),
    }
}

fn no_official(name: &str) -> Failure {
    Failure::config(format!("there is no official component `{name}`")).hint("`antiphon plugin list` names them")
}

fn official(name: &str) -> Option<Source<'static>> {
    let component = antiphon_bundle::ALL.iter().find(|component| component.name == name)?;
    Some(Source { name: name.to_owned(), origin: Origin::Official, bytes: Cow::Borrowed(component.bytes) })
}

/// The official component that another of its world is compared with.
pub(super) fn yardstick(world: World) -> Option<Source<'static>> {
    match world {
        World::Resolver => official("last-write-wins"),
        World::Hasher => official("fnv"),
        _ => None,
    }
}

/// What an official component is for.
pub(super) fn world_of(bundled: Bundled) -> World {
    match bundled {
        Bundled::Resolver => World::Resolver,
        Bundled::Hasher => World::Hasher,
        Bundled::Storage => World::Storage,
    }
}

fn of_file(name: &str, path: &Path, limits: &Limits) -> Result<Source<'static>, Failure> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        let failure = Failure::caused(Kind::Missing, format!("cannot read the component `{shown}`"), &error);
        if error.kind() == std::io::ErrorKind::NotFound {
            return failure.hint("name a `.wasm` file, or an official component: `antiphon plugin list` names them");
        }
        failure
    };
    let mut bytes = Vec::new();
    // One byte more than is allowed shows that it is too large; no more than that is read.
    let most = limits.component_bytes as u64 + 1;
    File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)).map_err(unreadable)?;
    Ok(Source { name: name.to_owned(), origin: Origin::Custom(format!("file:{shown}")), bytes: Cow::Owned(bytes) })
}

impl Subject {
    /// Compiles it, and looks at it without running it.
    pub(super) fn examine(&self, host: &PluginHost) -> Result<Anatomy, antiphon_plugin::Error> {
        host.examine(&self.source, &self.limits)
    }

    /// Runs it so far as to ask what it is.
    pub(super) fn load(&self, host: &PluginHost, world: World) -> Result<Loaded, antiphon_plugin::Error> {
        load(host, &self.source, &self.settings, &self.limits, world)
    }
}

/// Loads a component of a world that only computes.
pub(super) fn load(
    host: &PluginHost,
    source: &Source<'_>,
    settings: &[(String, String)],
    limits: &Limits,
    world: World,
) -> Result<Loaded, antiphon_plugin::Error> {
    Ok(match world {
        World::Hasher => Loaded::Hasher(host.hasher(source, settings, limits.clone())?),
        _ => Loaded::Resolver(host.resolver(source, settings, limits.clone())?),
    })
}

/// What a component of any world says of itself.
pub(super) fn describe(
    host: &PluginHost,
    source: &Source<'_>,
    limits: &Limits,
    world: World,
) -> Result<Info, antiphon_plugin::Error> {
    if world.is_pure() {
        return Ok(load(host, source, &[], limits, world)?.info().clone());
    }
    host.describe_storage(source, limits.clone())
}

/// A component that runs.
pub(super) enum Loaded {
    Resolver(Resolver),
    Hasher(Hasher),
}

impl Loaded {
    pub(super) fn info(&self) -> &Info {
        match self {
            Self::Resolver(resolver) => resolver.info(),
            Self::Hasher(hasher) => hasher.info(),
        }
    }

    pub(super) fn identity(&self) -> &str {
        match self {
            Self::Resolver(resolver) => resolver.identity(),
            Self::Hasher(hasher) => hasher.identity(),
        }
    }

    pub(super) fn memory_peak(&self) -> usize {
        match self {
            Self::Resolver(resolver) => resolver.memory_peak(),
            Self::Hasher(hasher) => hasher.memory_peak(),
        }
    }
}

/// The engine, with what this user's programs compiled before.
pub(super) fn host() -> Result<PluginHost, Failure> {
    start(&HostOptions { cache_dir: components::user_cache(), compiler: components::compiler() })
}

/// The engine.
pub(super) fn start(options: &HostOptions) -> Result<PluginHost, Failure> {
    PluginHost::new(options)
        .map_err(|error| Failure::caused(Kind::General, "cannot start the engine for components", &error))
}

/// A component that can't be used.
pub(super) fn unusable(error: &antiphon_plugin::Error) -> Failure {
    let failure = Failure::caused(Kind::Data, error.to_string(), error.reason());
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
