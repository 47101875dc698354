//! A command line that makes no sense: what is wrong with it, what was probably meant, and how it is written.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _};

use super::Cli;
use crate::failure::Failure;
use crate::words::did_you_mean;

/// The failure for what the parser says of these arguments, the first of which is the program's own name.
pub(super) fn failure(error: &clap::Error, args: &[OsString]) -> Failure {
    let mut all = Cli::command();
    all.build();
    let mut command = meant(&all, args);
    let name = command.get_bin_name().unwrap_or("antiphon").to_owned();
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return unfinished(&command, &name);
    }
    Failure::usage(sentence(error, &command)).hint(format!(
        "usage is `{}`; see `{name} --help`",
        command.render_usage().to_string().trim_start_matches("Usage: ")
    ))
}

/// The command that the arguments lead to.
fn meant(all: &Command, args: &[OsString]) -> Command {
    let mut command = all;
    for arg in args.iter().skip(1) {
        match command.find_subcommand(arg) {
            Some(further) => command = further,
            None => break,
        }
    }
    command.clone()
}

/// A command that has others below it, and none of them is named.
fn unfinished(command: &Command, name: &str) -> Failure {
    let mut failure = Failure::usage(format!("`{name}` alone does nothing: it takes a command of its own"));
    for further in command.get_subcommands().filter(|further| further.get_name() != "help") {
        let about = further.get_about().map(|about| format!(": {about}")).unwrap_or_default();
        failure = failure.hint(format!("`{name} {}`{about}", further.get_name()));
    }
    failure
}

fn sentence(error: &clap::Error, command: &Command) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    if let Some(name) = text(ContextKind::InvalidSubcommand) {
        let known = command.get_subcommands().map(Command::get_name);
        return format!("there is no command `{name}`{}", did_you_mean(name, known));
    }
    if let (ErrorKind::UnknownArgument, Some(arg)) = (error.kind(), text(ContextKind::InvalidArg)) {
        if !arg.starts_with('-') {
            return format!("`{arg}` is one argument too many");
        }
        let flags: Vec<String> =
            command.get_arguments().filter_map(|arg| arg.get_long()).map(|long| format!("--{long}")).collect();
        return format!("there is no flag `{arg}`{}", did_you_mean(arg, flags.iter().map(String::as_str)));
    }
    // The parser's own words, without its usage and tips.
    let whole = error.render().to_string();
    let whole = whole.trim_start_matches("error: ");
    let first = whole.split_once("\n\n").map_or(whole, |(first, _)| first);
    first.lines().map(str::trim).collect::<Vec<_>>().join(" ").replace('\'', "`")
}
