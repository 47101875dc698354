//! A component as the configuration names it: its bytes, read once and compared with their pin, what it is told, and
//! what it may use up.

use crate::config::{Config, Plugin, PluginLimits};
use crate::failure::{Failure, Kind};
use antiphon_bundle::World;
use antiphon_core::entry::{Bounds, OnFailure};
use antiphon_plugin::{Limits, Origin, Source, sha256};
use std::borrow::Cow;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

/// Whether a component of one's own has to be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pins {
    /// It has to be: no other bytes than those that were approved ever run.
    Required,
    /// It need not be, while somebody works on it. A pin that is there holds all the same.
    Optional,
}

/// A component, and all that the configuration says of it.
#[derive(Clone, Debug)]
pub struct Component {
    /// What the configuration calls it.
    pub name: String,
    /// The name it has among those that come with the program, if it is one of them.
    pub official: Option<String>,
    /// Its bytes.
    pub source: Source<'static>,
    /// What it is told, by name.
    pub settings: Vec<(String, String)>,
    /// What it may use up.
    pub limits: Limits,
    /// What becomes of a clash that it fails at.
    pub on_failure: OnFailure,
}

/// The component that goes by `name`: the NAME of a `[plugin.NAME]`, or one that comes with the program.
///
/// # Errors
/// When there is none, its file can't be read, or its bytes are not those that were pinned.
pub fn component(config: &Config, world: World, name: &str, pins: Pins) -> Result<Component, Failure> {
    let Some(plugin) = config.plugin.get(name) else { return of_the_program(world, name) };
    let limits = limits(&plugin.limits);
    let official_name = plugin.source.strip_prefix("builtin:");
    let source = match official_name {
        Some(official_name) => official(world, official_name)?,
        None => file(name, plugin, &limits, pins)?,
    };
    compare(name, plugin, &source)?;
    let on_failure = match plugin.on_failure.as_str() {
        "park" => OnFailure::Park(bounds(&limits)),
        _ => OnFailure::Stop,
    };
    Ok(Component {
        name: name.to_owned(),
        official: official_name.map(str::to_owned),
        source,
        settings: plugin.settings.reveal(),
        limits,
        on_failure,
    })
}

/// A component that comes with the program, as no `[plugin.NAME]` says anything of it.
///
/// # Errors
/// When there is none of that name.
pub fn of_the_program(world: World, name: &str) -> Result<Component, Failure> {
    Ok(Component {
        name: name.to_owned(),
        official: Some(name.to_owned()),
        source: official(world, name)?,
        settings: Vec::new(),
        limits: Limits::default(),
        on_failure: OnFailure::Stop,
    })
}

/// Whether the files of all components of one's own are there, and those that were approved.
///
/// # Errors
/// The first that is not.
pub fn check(config: &Config, pins: Pins) -> Result<(), Failure> {
    for (name, plugin) in config.plugin.iter().filter(|(_, plugin)| plugin.source.starts_with("file:")) {
        compare(name, plugin, &file(name, plugin, &limits(&plugin.limits), pins)?)?;
    }
    Ok(())
}

/// What `[plugin.NAME.limits]` says.
#[must_use]
pub fn limits(limits: &PluginLimits) -> Limits {
    let bytes = |size: crate::config::Size| usize::try_from(size.0).unwrap_or(usize::MAX);
    Limits {
        component_bytes: bytes(limits.component_bytes),
        compile_cpu: Duration::from_secs(limits.compile_seconds),
        compile_memory_bytes: limits.compile_memory.0,
        memory_bytes: bytes(limits.memory),
        returned_bytes: bytes(limits.returned),
        fuel_base: limits.fuel_base,
        fuel_per_item: limits.fuel_per_item,
        fuel_per_byte: limits.fuel_per_byte,
        watchdog: Duration::from_millis(limits.watchdog),
        calls: limits.calls,
        sparing: false,
    }
}

/// What nodes agree on of them where running out is an answer.
fn bounds(limits: &Limits) -> Bounds {
    Bounds {
        fuel_base: limits.fuel_base,
        fuel_per_item: limits.fuel_per_item,
        fuel_per_byte: limits.fuel_per_byte,
        memory: limits.memory_bytes as u64,
        returned: limits.returned_bytes as u64,
        meter: antiphon_plugin::METER,
    }
}

/// The limits that nodes have agreed on, and for the rest those of this node.
///
/// # Errors
/// When this program counts otherwise than those nodes.
pub fn limits_of(bounds: &Bounds, rest: &Limits) -> Result<Limits, String> {
    if bounds.meter != antiphon_plugin::METER {
        return Err(format!(
            "what its components use up is counted another way (meter {}) than by this program (meter {}); run the version \
             of it that the other nodes run",
            bounds.meter,
            antiphon_plugin::METER
        ));
    }
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    Ok(Limits {
        fuel_base: bounds.fuel_base,
        fuel_per_item: bounds.fuel_per_item,
        fuel_per_byte: bounds.fuel_per_byte,
        memory_bytes: bytes(bounds.memory),
        returned_bytes: bytes(bounds.returned),
        ..rest.clone()
    })
}

pub(crate) fn official(world: World, name: &str) -> Result<Source<'static>, Failure> {
    let component = antiphon_bundle::find(world, name).ok_or_else(|| {
        Failure::config(format!("there is no official component `{name}`"))
            .hint("`antiphon plugin list` names those there are")
    })?;
    Ok(Source { name: name.to_owned(), origin: Origin::Official, bytes: Cow::Borrowed(component.bytes) })
}

fn file(name: &str, plugin: &Plugin, limits: &Limits, pins: Pins) -> Result<Source<'static>, Failure> {
    let path = plugin.source.strip_prefix("file:").unwrap_or(&plugin.source);
    let bytes = read(name, Path::new(path), limits.component_bytes)?;
    let found = sha256(&bytes);
    if plugin.sha256.is_empty() {
        if pins == Pins::Required {
            return Err(Failure::config(format!(
                "`plugin.{name}.sha256` is not set, and a component of your own runs only with the digest that was \
                 approved"
            ))
            .hint(format!("add this line under `[plugin.{name}]`: `sha256 = \"{found}\"`"))
            .hint(format!("or let `antiphon plugin pin {name}` write it"))
            .hint("while you work on the component, `antiphon run --dev` does without"));
        }
        tracing::warn!(
            plugin = name,
            "`--dev`: a component of your own runs without a digest; before anybody relies on it, add \
             `sha256 = \"{found}\"` under `[plugin.{name}]`"
        );
    }
    Ok(Source { name: name.to_owned(), origin: Origin::Custom(format!("file:{path}")), bytes: Cow::Owned(bytes) })
}

/// Whether the bytes are those that were approved.
fn compare(name: &str, plugin: &Plugin, source: &Source<'_>) -> Result<(), Failure> {
    let (wanted, found) = (plugin.sha256.to_ascii_lowercase(), sha256(&source.bytes));
    if wanted.is_empty() || wanted == found {
        return Ok(());
    }
    Err(Failure::config(format!(
        "`{}` is not the component that was approved: `plugin.{name}.sha256` is {wanted}, and the sha256 of its bytes is \
         {found}",
        plugin.source
    ))
    .hint(format!("if the change is yours, write `sha256 = \"{found}\"` under `[plugin.{name}]`, on all nodes"))
    .hint("if it is not, bring back the file that was approved, as from another node"))
}

/// The bytes of a component's file, no more of them than may be compiled.
fn read(name: &str, path: &Path, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let unread = |error: &std::io::Error| {
        Failure::caused(
            Kind::Missing,
            format!("cannot read the component of `[plugin.{name}]`, `{}`", path.display()),
            error,
        )
        .hint(format!("see that `source` under `[plugin.{name}]` names it; a path is relative to the configuration"))
    };
    let found = std::fs::metadata(path).map_err(|error| unread(&error))?;
    if !found.is_file() {
        return Err(unread(&std::io::Error::other("it is not a file")));
    }
    crate::privacy::check_file(path, &found)?;
    let too_large = |size: u64| {
        Failure::config(format!(
            "the component of `[plugin.{name}]`, `{}`, has {size} bytes, and the most allowed are {bytes_max}",
            path.display()
        ))
        .hint(format!("build it without debug information, or raise `component_bytes` under `[plugin.{name}.limits]`"))
    };
    let most = bytes_max as u64;
    if found.len() > most {
        return Err(too_large(found.len()));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| unread(&error))?;
    // It may grow while it is read.
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| unread(&error))?;
    if bytes.len() as u64 > most { Err(too_large(bytes.len() as u64)) } else { Ok(bytes) }
}
