//! `antiphon storage`: where snapshots are kept, looked at and tried by hand.

use std::path::PathBuf;

use crate::cli::Dev;
use crate::components;
use crate::config::{Config, Environment, Overrides, Sources};
use crate::custom::Pins;
use crate::failure::{Failure, Kind};
use crate::storage::{Opened, open};
use antiphon_core::store::Name;
use antiphon_plugin::{HostOptions, PluginHost};

mod bench;
mod check;
mod get;
mod ls;
mod put;
mod rm;

/// Look at the storage of snapshots, try it, and move objects by hand
///
/// Nothing of this touches a database or a log.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    Check(check::Check),
    Ls(ls::Ls),
    Get(get::Get),
    Put(put::Put),
    Rm(rm::Rm),
    Bench(bench::Bench),
}

impl Command {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Check(check) => check.run(),
            Self::Ls(ls) => ls.run(),
            Self::Get(get) => get.run(),
            Self::Put(put) => put.run(),
            Self::Rm(rm) => rm.run(),
            Self::Bench(bench) => bench.run(),
        }
    }
}

/// Which storage.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Which {
    /// The NAME of a `[plugin.NAME]`, or a storage that comes with the program; else that of `snapshot.store`
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    /// The configuration file; without one, defaults and environment hold
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The application's database; overrides `db_path`
    #[arg(long, value_name = "DB")]
    db: Option<PathBuf>,
    #[command(flatten)]
    dev: Dev,
}

impl Which {
    pub(super) fn open(self) -> Result<Opened, Failure> {
        self.open_with().map(|(opened, ..)| opened)
    }

    /// The same, with the configuration that says so, and whether components need a pin.
    pub(super) fn open_with(self) -> Result<(Opened, Config, Pins), Failure> {
        let config = Config::unjudged(Sources {
            file: self.config,
            environment: Environment::of_process(),
            overrides: Overrides { db_path: self.db, ..Overrides::default() },
        })?;
        let host =
            PluginHost::new(&HostOptions { cache_dir: components::user_cache(), compiler: components::compiler() })
                .map_err(|error| Failure::caused(Kind::General, "cannot start the engine for components", &error))?;
        let pins = self.dev.pins();
        let opened = open(&config, &host, self.plugin.as_deref(), pins)?;
        Ok((opened, config, pins))
    }
}

/// The name of an object, as an argument.
fn object(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|error| error.to_string())
}
