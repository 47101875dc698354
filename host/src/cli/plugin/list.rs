//! `antiphon plugin list`: the components there are.

use std::io::{self, Write};

use antiphon_bundle::World;

use crate::failure::Failure;

/// List the components that come with the program
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct List {}

impl List {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self {} = self;
        let mut out = io::stdout().lock();
        for component in antiphon_bundle::ALL {
            let world = match component.world {
                World::Resolver => "resolver",
                World::Hasher => "hasher",
            };
            writeln!(out, "{world:10} {:18} sha256 {}", component.name, antiphon_plugin::sha256(component.bytes))?;
        }
        Ok(out.flush()?)
    }
}
