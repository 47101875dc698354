//! `antiphon plugin`: components, official ones and your own, looked at and tried without a node.

use crate::failure::Failure;

mod bench;
mod check;
mod inspect;
mod list;
mod pin;
mod progress;
mod subject;
mod test;

/// Look at components, try them out, and pin them
///
/// Nothing of this touches a database or a log.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    List(list::List),
    Inspect(inspect::Inspect),
    Check(check::Check),
    Test(test::Test),
    Bench(bench::Bench),
    Pin(pin::Pin),
}

impl Command {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run(),
            Self::Inspect(inspect) => inspect.run(),
            Self::Check(check) => check.run(),
            Self::Test(test) => test.run(),
            Self::Bench(bench) => bench.run(),
            Self::Pin(pin) => pin.run(),
        }
    }
}
