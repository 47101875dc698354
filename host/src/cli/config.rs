//! `antiphon config`: look at a configuration without running anything.

use std::io::{self, Write};
use std::path::PathBuf;

use super::shown::count;
use crate::config::{Config, Environment, Loaded, Overrides, Sources, example};
use crate::custom;
use crate::failure::{Failure, Kind};
use crate::node::Carrier;

/// Look at a configuration without running anything
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Say whether a configuration is good
    Check {
        #[command(flatten)]
        file: File,
    },
    /// Print the settings in effect, the environment's and the defaults included; secrets are not shown
    Show {
        #[command(flatten)]
        file: File,
        /// Print JSON instead of TOML
        #[arg(long)]
        json: bool,
    },
    /// Print a commented file with every key and its default
    Example,
}

/// The file, with or without the flag that other commands need.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(super) struct File {
    /// The configuration file; without one, the environment is looked at
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The same, as other commands take it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl File {
    /// What is configured, and what to call it.
    fn load(self) -> Result<(String, Loaded), Failure> {
        let (file, environment) = (self.file.or(self.config), Environment::of_process());
        let shown = match &file {
            Some(file) => format!("`{}`", file.display()),
            None if environment.is_empty() => {
                return Err(Failure::usage("no configuration file is named, and no `ANTIPHON_…` variable is set")
                    .hint(
                        "name the file, as in `antiphon config check antiphon.toml`; `antiphon init DB` writes one",
                    ));
            }
            None => "the environment".to_owned(),
        };
        let loaded = Config::load(Sources { file, environment, overrides: Overrides::default() })?;
        Ok((shown, loaded))
    }
}

impl Command {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        match self {
            Self::Check { file } => {
                let (shown, loaded) = file.load()?;
                custom::check(&loaded.config, super::Dev::default().pins())?;
                let Config { db_path, replication_log, .. } = &loaded.config;
                let carrier = match crate::components::carrier(&loaded.config)? {
                    Carrier::Embedded(directory) => format!("embedded log in `{}`", directory.display()),
                    Carrier::Nats(nats) => format!("log on {}", nats.shown),
                };
                writeln!(
                    out,
                    "{shown} is good: `{}`, {carrier}, {}",
                    db_path.display(),
                    count(replication_log.shards.into(), "shard", "shards")
                )?;
            }
            Self::Show { file, json } => {
                let (_, loaded) = file.load()?;
                let text = if json { as_json(&loaded.config) } else { as_toml(&loaded.config) };
                out.write_all(text?.as_bytes())?;
            }
            Self::Example => out.write_all(example::file("app.db", None).as_bytes())?,
        }
        Ok(out.flush()?)
    }
}

fn as_json(config: &Config) -> Result<String, Failure> {
    let mut text = serde_json::to_string_pretty(config).map_err(|error| unprintable(&error))?;
    text.push('\n');
    Ok(text)
}

fn as_toml(config: &Config) -> Result<String, Failure> {
    // TOML's numbers end at 2^63 - 1, those of nodes do not; such a one is shown as a text.
    let beyond = i64::try_from(config.node_id).is_err();
    if !beyond {
        return toml::to_string(config).map_err(|error| unprintable(&error));
    }
    let small = Config { node_id: 0, ..config.clone() };
    let text = toml::to_string(&small).map_err(|error| unprintable(&error))?;
    Ok(text.replacen("node_id = 0", &format!("node_id = \"{}\"", config.node_id), 1))
}

fn unprintable(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::caused(Kind::General, "cannot print the configuration", error)
}
