//! `antiphon completions`: what a shell needs to complete our commands.

use clap::Command;
use clap_complete::Shell;

use crate::failure::Failure;

/// Print what a shell needs to complete commands and flags
///
/// For bash: `antiphon completions bash > /etc/bash_completion.d/antiphon`; for zsh, into a folder of `$fpath` as
/// `_antiphon`; for fish, as `~/.config/fish/completions/antiphon.fish`.
#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<(), Failure> {
        // What is hidden from people is nothing to complete.
        let all = super::declaration();
        let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
        let mut shown = Command::new("antiphon").version(env!("CARGO_PKG_VERSION")).subcommands(shown);
        // Into memory first: it panics over a reader that has gone.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut shown, "antiphon", &mut script);
        Ok(std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?)
    }
}
