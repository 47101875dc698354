//! `antiphon storage rm`: objects, removed.

use antiphon_core::store::{Name, Store as _};

use super::{Which, object};
use crate::failure::Failure;
use crate::storage::failure;

/// Remove objects; one that is missing already is fine
///
/// Objects of a snapshot that is still to be used must stay: this asks nobody.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Rm {
    /// Their names
    #[arg(value_name = "NAME", required = true, value_parser = object)]
    names: Vec<Name>,
    #[command(flatten)]
    which: Which,
}

impl Rm {
    pub(super) fn run(self) -> Result<(), Failure> {
        let opened = self.which.open()?;
        opened.store.delete(&self.names).map_err(|error| failure(&error))
    }
}
