//! The command line: one file a verb, each with its arguments and a function. The doc comments are the help text.
//!
//! What comes in as HarmonyLite's users type it is rewritten first ([`legacy`]), so that no command has to know two
//! ways of being called.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{Config, DEV, Environment, Loaded, Overrides, Sources};
use crate::custom::Pins;
use crate::failure::{Failure, Kind};

mod adopt;
mod at;
mod cleanup;
mod compile;
mod completions;
mod config;
mod conflicts;
mod demo;
mod doctor;
mod give_up;
mod init;
mod join;
pub mod legacy;
mod log;
mod look;
mod misuse;
mod plugin;
mod policy;
#[cfg(test)]
mod reference;
mod repair;
mod repo;
mod run;
mod schema;
mod server;
mod shown;
mod snapshot;
mod status;
mod storage;
mod verify;

/// Replicates an application's SQLite file: every node may write, nothing is lost.
///
/// Start with `antiphon demo`, or with `antiphon run app.db` beside your application.
#[derive(Debug, Parser)]
#[command(name = "antiphon", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Init(init::Init),
    Join(join::Join),
    Adopt(adopt::Adopt),
    Status(status::Status),
    Cleanup(cleanup::Cleanup),
    Doctor(doctor::Doctor),
    Verify(verify::Verify),
    #[command(subcommand)]
    Conflicts(conflicts::Command),
    #[command(subcommand)]
    Log(log::Command),
    Repair(repair::Repair),
    GiveUp(give_up::GiveUp),
    #[command(subcommand)]
    Plugin(plugin::Command),
    #[command(subcommand)]
    Storage(storage::Command),
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    At(at::At),
    #[command(subcommand)]
    Repo(repo::Command),
    #[command(subcommand)]
    Schema(schema::Command),
    #[command(subcommand)]
    Policy(policy::Command),
    Demo(demo::Demo),
    #[command(subcommand)]
    Config(config::Command),
    Completions(completions::Completions),
    #[command(name = crate::components::COMPILE, hide = true)]
    Compile(compile::Compile),
    #[command(name = crate::server::COMMAND, hide = true)]
    Server(server::Server),
}

/// All commands, as they are declared.
fn declaration() -> clap::Command {
    Cli::command()
}

/// Does what the arguments say; the first is the program's own name.
///
/// # Errors
/// Whatever the command could not do.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    crate::privacy::begin();
    let args = legacy::rewrite(args.into_iter().collect())?;
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        // Help and version are an answer, and go to stdout.
        Err(answer) if !answer.use_stderr() => return Ok(answer.print()?),
        Err(error) => return Err(misuse::failure(&error, &args)),
    };
    match cli.command {
        None => Ok(write!(io::stdout().lock(), "{}", Cli::command().render_help())?),
        Some(Command::Run(run)) => run.run(),
        Some(Command::Init(init)) => init.run(),
        Some(Command::Join(join)) => join.run(),
        Some(Command::Adopt(adopt)) => adopt.run(),
        Some(Command::Status(status)) => status.run(),
        Some(Command::Cleanup(cleanup)) => cleanup.run(),
        Some(Command::Doctor(doctor)) => doctor.run(),
        Some(Command::Verify(verify)) => verify.run(),
        Some(Command::Conflicts(command)) => command.run(),
        Some(Command::Log(command)) => command.run(),
        Some(Command::Repair(repair)) => repair.run(),
        Some(Command::GiveUp(give_up)) => give_up.run(),
        Some(Command::Plugin(command)) => command.run(),
        Some(Command::Storage(command)) => command.run(),
        Some(Command::Snapshot(command)) => command.run(),
        Some(Command::Repo(command)) => command.run(),
        Some(Command::Schema(command)) => command.run(),
        Some(Command::At(at)) => at.run(),
        Some(Command::Policy(command)) => command.run(),
        Some(Command::Demo(demo)) => demo.run(),
        Some(Command::Config(command)) => command.run(),
        Some(Command::Completions(completions)) => completions.run(),
        Some(Command::Compile(compile)) => compile.run(),
        Some(Command::Server(server)) => server.run(),
    }
}

/// Which database, by which configuration: the arguments that several commands share.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Node {
    /// The application's database; overrides `db_path`
    #[arg(value_name = "DB")]
    db: Option<PathBuf>,
    /// The configuration file; without one, defaults and environment hold
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Node {
    /// The configuration these arguments mean.
    pub(crate) fn load(self, log: Option<PathBuf>, node_id: Option<u64>) -> Result<Loaded, Failure> {
        self.load_with(Overrides { node_id, log_path: log, ..Overrides::default() })
    }

    /// The same, with all that flags may say.
    pub(crate) fn load_with(self, overrides: Overrides) -> Result<Loaded, Failure> {
        Config::load(Sources {
            file: self.config,
            environment: Environment::of_process(),
            overrides: Overrides { db_path: self.db, ..overrides },
        })
    }

    /// The database these arguments mean, for a command that needs nothing else.
    pub(crate) fn database(self) -> Result<PathBuf, Failure> {
        Config::database(Sources {
            file: self.config,
            environment: Environment::of_process(),
            overrides: Overrides { db_path: self.db, ..Overrides::default() },
        })
    }
}

/// Whether components of one's own run without having been approved: the argument of commands that run components.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Dev {
    /// Run components of your own that have no `sha256`, while you work on them; `ANTIPHON_DEV=1` says the same
    #[arg(long)]
    dev: bool,
}

impl Dev {
    /// What that means for pins.
    pub(crate) fn pins(&self) -> Pins {
        let variable = std::env::var_os(DEV).is_some_and(|value| value == "1" || value == "true");
        if self.dev || variable { Pins::Optional } else { Pins::Required }
    }
}

/// Writes one object as a line of JSON.
fn json_line(out: &mut impl Write, object: &impl serde::Serialize) -> Result<(), Failure> {
    // A closed pipe is told from other failures by its kind, which serde_json keeps inside.
    serde_json::to_writer(&mut *out, object).map_err(|error| Failure::from(io::Error::from(error)))?;
    Ok(writeln!(out)?)
}

/// Where tasks run.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Kind::General, format!("cannot start the runtime: {error}")))
}

/// Waits for work that also calls components: on this plain thread, for they must not run on the runtime's.
fn wait<T>(runtime: &tokio::runtime::Runtime, work: impl Future<Output = T>) -> T {
    let _context = runtime.enter();
    futures::executor::block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declarations_are_sound() {
        Cli::command().debug_assert();
    }
}
