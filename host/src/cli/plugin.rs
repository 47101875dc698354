//! `antiphon plugin`: components, official ones and your own, made, looked at and tried without a node.

use crate::failure::Failure;

mod bench;
mod build;
mod check;
mod inspect;
mod list;
mod new;
mod pin;
mod progress;
mod reload;
mod replay;
mod subject;
mod test;

/// Make components, look at them, try them out, and pin them
///
/// Nothing of this touches a database or a log; `reload` asks the node that runs.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    List(list::List),
    New(new::New),
    Build(build::Build),
    Inspect(inspect::Inspect),
    Check(check::Check),
    Test(test::Test),
    Bench(bench::Bench),
    Pin(pin::Pin),
    Reload(reload::Reload),
}

impl Command {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run(),
            Self::New(new) => new.run(),
            Self::Build(build) => build.run(),
            Self::Inspect(inspect) => inspect.run(),
            Self::Check(check) => check.run(),
            Self::Test(test) => test.run(),
            Self::Bench(bench) => bench.run(),
            Self::Pin(pin) => pin.run(),
            Self::Reload(reload) => reload.run(),
        }
    }
}
