//! `antiphon plugin`: components, official ones and your own, looked at and tried without a node.

use crate::failure::Failure;

mod build;
mod list;
mod new;

/// Look at components, try them out, and pin them
///
/// Nothing of this touches a database or a log.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    List(list::List),
    New(new::New),
    Build(build::Build),
}

impl Command {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run(),
            Self::New(new) => new.run(),
            Self::Build(build) => build.run(),
        }
    }
}
