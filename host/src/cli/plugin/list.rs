//! `antiphon plugin list`: the components there are, and which of them a configuration uses.

use std::io::{self, Write};
use std::path::PathBuf;

use antiphon_plugin::{Limits, Origin, PluginHost, Source, sha256};
use serde::Serialize;

use super::inspect::{settings, settings_line};
use super::progress::Progress;
use super::subject::{configuration, configured, describe, host, unusable, world_of};
use crate::cli::{json_line, shown};
use crate::config::Config;
use crate::custom;
use crate::failure::Failure;

/// List the components that come with the program, and those of a configuration
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct List {
    /// List the components of this configuration as well, whether their files are as pinned, and where they are used
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// A component, as one line.
#[derive(Serialize)]
struct Line {
    name: String,
    source: String,
    world: Option<String>,
    version: Option<String>,
    laws: Option<u32>,
    sha256: Option<String>,
    /// What the configuration pins.
    pinned: Option<String>,
    state: State,
    /// Why it can't be used.
    error: Option<String>,
    settings: Option<serde_json::Value>,
    used_by: Vec<String>,
}

/// Whether the bytes are those that may run.
#[derive(Clone, Copy, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum State {
    /// It comes with the program.
    Builtin,
    /// The file is the one that was pinned.
    AsPinned,
    /// Nothing is pinned.
    NotPinned,
    /// The file is another.
    Differs,
    /// There is no file, or none that can be read.
    Missing,
}

impl List {
    pub(in crate::cli) fn run(self) -> Result<(), Failure> {
        let config = self.config.as_deref().map(configuration).transpose()?;
        let host = host()?;
        let mut lines = Vec::new();
        let mut progress = Progress::new("listed");
        for component in antiphon_bundle::ALL {
            progress.say(&format!("compiling {}", component.name));
            let world = world_of(component.world);
            let source = configured(component.name, &format!("builtin:{}", component.name), &Limits::default())?;
            let info = describe(&host, &source, &Limits::default(), world).map_err(|error| unusable(&error))?;
            lines.push(Line {
                name: component.name.to_owned(),
                source: format!("builtin:{}", component.name),
                world: Some(world.name().to_owned()),
                version: Some(info.version.clone()),
                laws: Some(info.laws),
                sha256: Some(info.sha256.clone()),
                pinned: None,
                state: State::Builtin,
                error: None,
                settings: Some(settings(&info.settings_schema)),
                used_by: config.as_ref().map(|config| used_by(config, component.name)).unwrap_or_default(),
            });
        }
        for (name, plugin) in config.iter().flat_map(|config| &config.plugin) {
            progress.say(&format!("compiling {}", shown::name(name)));
            let used_by = config.as_ref().map(|config| used_by(config, name)).unwrap_or_default();
            let mut line = Line {
                name: name.clone(),
                source: plugin.source.clone(),
                world: None,
                version: None,
                laws: None,
                sha256: None,
                pinned: Some(plugin.sha256.clone()).filter(|pinned| !pinned.is_empty()),
                state: State::Missing,
                error: None,
                settings: None,
                used_by,
            };
            let limits = custom::limits(&plugin.limits);
            match configured(name, &plugin.source, &limits) {
                Ok(source) => line.fill(&host, &source, &limits),
                Err(failure) => line.error = Some(failure.to_string()),
            }
            lines.push(line);
        }
        drop(progress);
        let mut out = io::stdout().lock();
        if self.json {
            lines.iter().try_for_each(|line| json_line(&mut out, line))?;
        } else {
            for line in lines.iter().filter(|line| line.state == State::Builtin && line.pinned.is_none()) {
                line.write(&mut out)?;
            }
            if let Some(file) = &self.config {
                writeln!(out, "\nin {}", file.display())?;
                let own: Vec<&Line> = lines.iter().skip(antiphon_bundle::ALL.len()).collect();
                for line in &own {
                    line.write(&mut out)?;
                }
                if own.is_empty() {
                    writeln!(out, "  there is no `[plugin.NAME]`")?;
                }
            }
        }
        Ok(out.flush()?)
    }
}

impl Line {
    /// What the bytes say.
    fn fill(&mut self, host: &PluginHost, source: &Source<'_>, limits: &Limits) {
        let digest = sha256(&source.bytes);
        self.state = match (&source.origin, &self.pinned) {
            (Origin::Official, _) => State::Builtin,
            (_, None) => State::NotPinned,
            (_, Some(pinned)) if pinned.eq_ignore_ascii_case(&digest) => State::AsPinned,
            _ => State::Differs,
        };
        self.sha256 = Some(digest);
        let examined = host.examine(source, limits);
        let world = match &examined {
            Ok(anatomy) => anatomy.world,
            Err(error) => {
                self.error = Some(error.reason().to_string());
                None
            }
        };
        self.world = world.map(|world| world.name().to_owned());
        if let Ok(anatomy) = &examined
            && let Some(reason) = &anatomy.unfit
        {
            self.error = Some(reason.to_string());
        }
        // It is asked what it is only if it is what was pinned.
        let asked = world.filter(|_| self.error.is_none() && self.state != State::Differs);
        if let Some(world) = asked {
            match describe(host, source, limits, world) {
                Ok(info) => {
                    self.version = Some(info.version.clone());
                    self.laws = Some(info.laws);
                    self.settings = Some(settings(&info.settings_schema));
                }
                Err(error) => self.error = Some(error.reason().to_string()),
            }
        }
    }

    fn write(&self, out: &mut impl Write) -> Result<(), Failure> {
        let world = self.world.as_deref().unwrap_or("?");
        let version = self.version.as_deref().unwrap_or("");
        let laws = self.laws.map(|laws| format!("laws {laws}")).unwrap_or_default();
        writeln!(out, "{}", format!("{:18} {world:10} {version:8} {laws}", shown::name(&self.name)).trim_end())?;
        let digest = self.sha256.as_deref().unwrap_or("");
        match self.state {
            State::Builtin => writeln!(out, "  sha256    {digest}")?,
            State::AsPinned => writeln!(out, "  sha256    {digest}, as pinned")?,
            State::NotPinned => {
                writeln!(out, "  sha256    {digest}, not pinned: run `antiphon plugin pin {}`", self.name)?;
            }
            State::Differs => {
                writeln!(out, "  pinned    {}", self.pinned.as_deref().unwrap_or(""))?;
                writeln!(out, "  sha256    {digest}: it is another file, and is not run")?;
            }
            State::Missing => {}
        }
        if !self.source.starts_with("builtin:") || self.source != format!("builtin:{}", self.name) {
            writeln!(out, "  source    {}", shown::name(&self.source))?;
        }
        if let Some(error) = &self.error {
            writeln!(out, "  error     {}", shown::name(error))?;
        }
        if let Some(settings) = &self.settings {
            writeln!(out, "  settings  {}", settings_line(settings))?;
        }
        if !self.used_by.is_empty() {
            writeln!(out, "  used by   {}", self.used_by.join(", "))?;
        }
        Ok(())
    }
}

/// The settings that name a component.
fn used_by(config: &Config, name: &str) -> Vec<String> {
    let mut uses = Vec::new();
    if config.hash.r#use == name {
        uses.push("`hash.use`".to_owned());
    }
    if config.conflict.default == name {
        uses.push("`conflict.default`".to_owned());
    }
    for table in config.conflict.table.iter().filter(|table| table.r#use == name) {
        uses.push(format!("`conflict.table` for `{}`", shown::name(&table.r#match)));
    }
    if config.snapshot.store.strip_prefix("plugin:") == Some(name) {
        uses.push("`snapshot.store`".to_owned());
    }
    uses
}
