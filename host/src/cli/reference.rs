//! The command line as a page of the guide, made from the declarations of the commands.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};

use crate::pages::row;

const HEAD: &str = "\
# Command line

Made from the declarations in `host/src/cli/`, with which a test compares it; `antiphon help COMMAND` says the same.

What a command answers goes to stdout, and what it says besides to stderr. Flags of HarmonyLite's are understood as well:
[moving from HarmonyLite](from-harmonylite.md).

| exit code | meaning |
|---|---|
| 0 | it is done, or all is well |
| 1 | it could not be done |
| 2 | the command line makes no sense |
| 3 | what was asked about is not well, differs, or is not what was stored |
| 4 | there is no such point in time, or nothing leads to it |
| 5 | a storage can't be reached |
| 6 | it was refused, for it would do harm |
| 64 | the configuration is wrong |
| 65 | a database or a log is damaged, or two differ that must agree |
| 66 | a file is missing or can't be read |
| 69 | it is not part of this version |
| 75 | something else holds what is needed; trying again later can help |
";

/// The page.
#[must_use]
pub(super) fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut program = super::declaration();
    program.build();
    for command in program.get_subcommands().filter(|command| is_shown(command)) {
        describe(&mut page, command);
    }
    page
}

fn is_shown(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

fn describe(page: &mut String, command: &Command) {
    let below: Vec<&Command> = command.get_subcommands().filter(|command| is_shown(command)).collect();
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let about = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(page, "\n## `{name}`\n\n{}", about.trim_end());
    if !below.is_empty() {
        let _ = writeln!(page);
        for command in &below {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(page, "- `{}`: {about}", command.get_bin_name().unwrap_or_default());
        }
        below.into_iter().for_each(|command| describe(page, command));
        return;
    }
    let usage = command.clone().render_usage().to_string();
    let _ = writeln!(page, "\n```text\n{}\n```", usage.trim_start_matches("Usage: ").trim_end());
    let arguments: Vec<&Arg> = command.get_arguments().filter(|arg| !arg.is_hide_set() && is_own(arg)).collect();
    if !arguments.is_empty() {
        page.push_str("\n| argument | meaning |\n|---|---|\n");
        for arg in arguments {
            row(page, &[&format!("`{}`", written(arg)), &meaning(arg)]);
        }
    }
}

fn is_own(arg: &Arg) -> bool {
    !matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version)
}

/// As somebody types it.
fn written(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default().join(" ");
    let value = if arg.get_action().takes_values() { names } else { String::new() };
    match (arg.get_long(), arg.get_short()) {
        (Some(long), _) => format!("--{long} {value}"),
        (None, Some(short)) => format!("-{short} {value}"),
        (None, None) => value,
    }
    .trim_end()
    .to_owned()
}

fn meaning(arg: &Arg) -> String {
    let mut text = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let values: Vec<String> = arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if arg.get_action().takes_values() && !values.is_empty() {
        let _ = write!(text, "; one of {}", values.join(", "));
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if arg.get_action().takes_values() && !defaults.is_empty() {
        let _ = write!(text, " (default: `{}`)", defaults.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_of_the_guide_is_the_declarations() {
        crate::pages::compare("command-line.md", &super::page());
    }
}
