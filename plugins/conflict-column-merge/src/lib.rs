//! The resolver `column-merge`: a row is merged column by column, against the row that the incoming change was made
//! on.
//!
//! # Laws, version 1
//! 1. If what stands is gone, the answer is `take`; else, if what came is gone, it is `keep`: a change beats a
//!    deletion.
//! 2. Else the answer is `merge`, also where the result is one of the two rows. Each column has the incoming value if
//!    that differs from the base's, else the current one. So what only one of the two changed is kept, and of two
//!    changes of one column the later in the log wins.
//! 3. Without a base, every value of it is NULL.
//! 4. Values are equal if their storage class and bytes are: 1 is not 1.0, `a` is not `A`, and 0.0 is not -0.0.
//! 5. A clash over a UNIQUE index is answered `take`.
//! 6. It sees base and current rows, and has no settings.
//!
//! So changes of different columns end in the same row, in whatever order they come. Any change of these answers needs
//! the next version.

use resolver::{Clash, Info, NO_SETTINGS, Needs, Policy, Settings, Table, Verdict, chosen, merge, none};

resolver::component!(ColumnMerge);

const NAME: &str = "column-merge";

struct ColumnMerge;

impl Policy for ColumnMerge {
    fn describe() -> Info {
        Info {
            name: NAME.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            description: "each column has the value of whoever changed it; of two, the later in the log".into(),
            settings_schema: NO_SETTINGS.into(),
            laws: 1,
        }
    }

    fn needs() -> Needs {
        Needs::BASE | Needs::CURRENT
    }

    fn configure(settings: &Settings, _: &[String], _: &[Table]) -> Result<Self, String> {
        none(NAME, settings)?;
        Ok(Self)
    }

    fn decide(&self, clash: Clash) -> Result<Verdict, String> {
        merge(clash, |_, base, current, incoming| chosen(base, current, incoming))
    }
}
