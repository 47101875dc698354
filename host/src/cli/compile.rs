//! `antiphon compile-component`: what the program starts itself with to compile a component that somebody wrote. It is
//! nothing for people, so no help shows it.

use std::io::Write as _;
use std::path::PathBuf;

use crate::failure::{Failure, Kind};

/// Compile one component from stdin into a cache, within caps
#[derive(Debug, clap::Args)]
pub(super) struct Compile {
    /// The cache's folder
    folder: PathBuf,
    /// Most processor time, in seconds
    cpu_seconds: u64,
    /// Most memory, in bytes
    memory_bytes: u64,
}

impl Compile {
    pub(super) fn run(self) -> Result<(), Failure> {
        let compiled = antiphon_plugin::compile_here(&self.folder, self.cpu_seconds, self.memory_bytes)
            .map_err(|error| Failure::caused(Kind::General, "cannot compile", &error))?;
        let (code, why) = compiled.said();
        let mut out = std::io::stdout().lock();
        out.write_all(why.as_bytes())?;
        out.flush()?;
        if code == 0 { Ok(()) } else { std::process::exit(code) }
    }
}
