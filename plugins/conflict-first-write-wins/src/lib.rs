//! The resolver `first-write-wins`: what came first in the log stays.
//!
//! # Laws, version 1
//! 1. A clash over a key is answered `keep`, whatever the rows are: also where one of them is gone.
//! 2. A clash over a UNIQUE index is answered `take`.
//! 3. It sees neither rows nor stamps, and has no settings.
//!
//! Any change of these answers needs the next version.

use resolver::{Clash, Info, NO_SETTINGS, Needs, Policy, Settings, Table, Verdict, none};

resolver::component!(FirstWriteWins);

const NAME: &str = "first-write-wins";

struct FirstWriteWins;

impl Policy for FirstWriteWins {
    fn describe() -> Info {
        Info {
            name: NAME.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            description: "of changes made without knowing of each other, the first in the log stays".into(),
            settings_schema: NO_SETTINGS.into(),
            laws: 1,
        }
    }

    fn needs() -> Needs {
        Needs::empty()
    }

    fn configure(settings: &Settings, _: &[String], _: &[Table]) -> Result<Self, String> {
        none(NAME, settings)?;
        Ok(Self)
    }

    fn decide(&self, _: Clash) -> Result<Verdict, String> {
        Ok(Verdict::Keep)
    }
}
