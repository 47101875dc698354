//! `antiphon plugin inspect`: what a component is, what it wants, and what it would get.

use std::io::{self, Write};

use antiphon_plugin::{Anatomy, Fate, Info, Limits, sha256};
use serde::Serialize;

use super::progress::Progress;
use super::subject::{Subject, Told, Which, describe, host, unusable};
use crate::cli::shown::{self, bytes};
use crate::failure::{Failure, Kind};

/// Say what a component is, what it imports and what becomes of that, and which limits it has
///
/// It is run so far as to ask what it is.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Inspect {
    #[command(flatten)]
    which: Which,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Inspected<'a> {
    name: &'a str,
    source: String,
    size: usize,
    sha256: String,
    world: Option<&'static str>,
    interface: Option<&'a str>,
    /// Why it can't be run.
    error: Option<String>,
    says: Option<Says<'a>>,
    imports: Vec<Imported<'a>>,
    exports: &'a [String],
    limits: Allowed,
}

/// What it says of itself.
#[derive(Serialize)]
struct Says<'a> {
    name: &'a str,
    version: &'a str,
    description: &'a str,
    laws: u32,
    /// What nodes have to agree on; they need not have the same storage.
    identity: Option<&'a str>,
    settings: serde_json::Value,
}

#[derive(Serialize)]
struct Imported<'a> {
    name: &'a str,
    fate: &'static str,
}

#[derive(Serialize)]
struct Allowed {
    component_bytes: usize,
    compile_seconds: u64,
    compile_memory_bytes: u64,
    memory_bytes: usize,
    returned_bytes: usize,
    fuel_base: u64,
    fuel_per_item: u64,
    fuel_per_byte: u64,
    watchdog_ms: u128,
    calls: u64,
}

impl Inspect {
    pub(in crate::cli) fn run(self) -> Result<(), Failure> {
        let subject = self.which.find(Told::default())?;
        let host = host()?;
        let mut progress = Progress::new("inspected");
        progress.say("compiling");
        let anatomy = subject.examine(&host).map_err(|error| unusable(&error))?;
        let described = match anatomy.world.filter(|_| anatomy.unfit.is_none()) {
            Some(world) if world.is_pure() => {
                let loaded = subject.load(&host, world);
                Some(loaded.map(|loaded| (loaded.info().clone(), Some(loaded.identity().to_owned()))))
            }
            Some(world) => Some(describe(&host, &subject.source, &subject.limits, world).map(|info| (info, None))),
            None => None,
        };
        drop(progress);
        let (described, error) = match described {
            Some(Ok(described)) => (Some(described), None),
            Some(Err(error)) => (None, Some(error.reason().to_string())),
            None => (None, anatomy.unfit.as_ref().map(ToString::to_string)),
        };
        let says = described.as_ref().map(|(info, identity)| Says::of(info, identity.as_deref()));
        let inspected = Inspected::of(&subject, &anatomy, says, error);
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &inspected)
                .map_err(|error| Failure::from(io::Error::from(error)))?;
            writeln!(out)?;
        } else {
            inspected.write(&mut out)?;
        }
        out.flush()?;
        // What it is was said; that it can't be run is for the exit code to say.
        if inspected.error.is_some() { Err(Failure::new(Kind::Unwell, "it can't be run")) } else { Ok(()) }
    }
}

impl<'a> Says<'a> {
    fn of(info: &'a Info, identity: Option<&'a str>) -> Self {
        Self {
            name: &info.name,
            version: &info.version,
            description: &info.description,
            laws: info.laws,
            identity,
            settings: settings(&info.settings_schema),
        }
    }
}

impl<'a> Inspected<'a> {
    fn of(subject: &'a Subject, anatomy: &'a Anatomy, says: Option<Says<'a>>, error: Option<String>) -> Self {
        Self {
            name: &subject.source.name,
            source: subject.source.origin.to_string(),
            size: subject.source.bytes.len(),
            sha256: sha256(&subject.source.bytes),
            world: anatomy.world.map(antiphon_plugin::World::name),
            interface: anatomy.version.as_deref(),
            error,
            says,
            imports: anatomy
                .imports
                .iter()
                .map(|import| Imported { name: &import.name, fate: fate(&import.fate) })
                .collect(),
            exports: &anatomy.exports,
            limits: Allowed::of(&subject.limits),
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let world = self.world.unwrap_or("component of no world of ours");
        writeln!(out, "{world} `{}`", shown::name(self.name))?;
        if let Some(says) = &self.says {
            writeln!(out, "  says       {}", shown::name(says.description))?;
            writeln!(out, "  name       {}, version {}, laws {}", says.name, shown::name(says.version), says.laws)?;
            if let Some(identity) = says.identity {
                writeln!(out, "  identity   {identity}: nodes of one cluster must have the same")?;
            }
            writeln!(out, "  settings   {}", settings_line(&says.settings))?;
        }
        if let Some(interface) = self.interface {
            writeln!(out, "  interface  antiphon:plugin@{}", shown::name(interface))?;
        }
        writeln!(out, "  source     {}", shown::name(&self.source))?;
        writeln!(out, "  size       {}", bytes(self.size as u64))?;
        writeln!(out, "  sha256     {}", self.sha256)?;
        if let Some(error) = &self.error {
            writeln!(out, "  error      {}", shown::name(error))?;
        }
        writeln!(out, "\nimports")?;
        for import in &self.imports {
            writeln!(out, "  {:11} {}", import.fate, shown::name(import.name))?;
        }
        if self.imports.is_empty() {
            writeln!(out, "  none")?;
        }
        writeln!(out, "\nexports")?;
        for export in self.exports {
            writeln!(out, "  {}", shown::name(export))?;
        }
        if self.exports.is_empty() {
            writeln!(out, "  none")?;
        }
        writeln!(out, "\nlimits")?;
        self.limits.write(out)
    }
}

impl Allowed {
    fn of(limits: &Limits) -> Self {
        Self {
            component_bytes: limits.component_bytes,
            compile_seconds: limits.compile_cpu.as_secs(),
            compile_memory_bytes: limits.compile_memory_bytes,
            memory_bytes: limits.memory_bytes,
            returned_bytes: limits.returned_bytes,
            fuel_base: limits.fuel_base,
            fuel_per_item: limits.fuel_per_item,
            fuel_per_byte: limits.fuel_per_byte,
            watchdog_ms: limits.watchdog.as_millis(),
            calls: limits.calls,
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let size = |count: usize| bytes(count as u64);
        writeln!(out, "  size       {}", size(self.component_bytes))?;
        let memory = bytes(self.compile_memory_bytes);
        writeln!(out, "  compiling  {} s of processor time, {memory} of memory", self.compile_seconds)?;
        writeln!(out, "  memory     {} an instance", size(self.memory_bytes))?;
        writeln!(out, "  returned   {} a call", size(self.returned_bytes))?;
        writeln!(
            out,
            "  fuel       {} a call, and {} for each row or key and {} for each byte of it",
            self.fuel_base, self.fuel_per_item, self.fuel_per_byte
        )?;
        writeln!(out, "  watchdog   {} ms a call", self.watchdog_ms)?;
        writeln!(out, "  instance   replaced after {} calls", self.calls)
    }
}

/// What becomes of an import, in a word.
pub(super) fn fate(fate: &Fate) -> &'static str {
    match fate {
        Fate::Satisfied => "satisfied",
        Fate::Inert => "inert",
        Fate::NeedsGrant => "needs grant",
        Fate::Refused(_) => "refused",
    }
}

/// A schema as JSON if it is that, else as the text it is; `null` if there is none.
pub(super) fn settings(schema: &str) -> serde_json::Value {
    if schema.trim().is_empty() {
        return serde_json::Value::Null;
    }
    serde_json::from_str(schema).unwrap_or_else(|_| schema.into())
}

/// A schema as a person reads it: `columns (string, required): names of columns`.
pub(super) fn settings_line(schema: &serde_json::Value) -> String {
    if schema.is_null() {
        return "none described".to_owned();
    }
    let Some(object) = schema.as_object() else { return shown::name(&schema.to_string()) };
    let required: Vec<&str> = object
        .get("required")
        .and_then(|list| list.as_array())
        .into_iter()
        .flatten()
        .filter_map(|it| it.as_str())
        .collect();
    let Some(properties) = object.get("properties").and_then(|it| it.as_object()).filter(|it| !it.is_empty()) else {
        return "none".to_owned();
    };
    let settings = properties.iter().map(|(name, about)| {
        let text = |key: &str| about.get(key).and_then(|it| it.as_str());
        let kind = text("type").unwrap_or("any");
        let required = if required.contains(&name.as_str()) { ", required" } else { "" };
        let description = text("description").map(|text| format!(": {text}")).unwrap_or_default();
        format!("{name} ({kind}{required}){description}")
    });
    shown::name(&settings.collect::<Vec<_>>().join("; "))
}
