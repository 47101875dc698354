//! `antiphon plugin build`: a component from its source, by the tool of its language.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::{json_line, shown};
use crate::failure::{Failure, Kind};
use project::Project;

mod project;
mod tool;

/// Make a component of the source in a folder, with the tool of its language
///
/// The component is written into the folder, as NAME.wasm. What to add to a configuration is printed.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Build {
    /// The component's folder, as `antiphon plugin new` writes one
    #[arg(value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
    /// Fetch the tool first, into `.antiphon/tools`, in the version that this program was tried with
    #[arg(long)]
    install: bool,
    /// The world that it is made for, where its files leave a choice
    #[arg(long, value_name = "WORLD")]
    world: Option<String>,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

/// What was made.
#[derive(Serialize)]
struct Made<'a> {
    name: &'a str,
    file: PathBuf,
    bytes: usize,
    sha256: String,
}

impl Build {
    pub(super) fn run(self) -> Result<(), Failure> {
        let folder = self.folder.canonicalize().map_err(|error| {
            Failure::caused(Kind::Missing, format!("cannot open `{}`", self.folder.display()), &error)
        })?;
        let project = Project::find(&folder, self.world)?;
        let tool = tool::find(&project, self.install)?;
        let name = format!("{}.wasm", project.name);
        // Made beside its place, so that a node never reads half of it.
        let aside = folder.join(format!(".{name}"));
        if let Err(failure) = tool.build(&project, &aside) {
            // There may be nothing to remove.
            let _ = std::fs::remove_file(&aside);
            return Err(failure);
        }

        let failed = |error: io::Error| Failure::caused(Kind::General, format!("cannot write `{name}`"), &error);
        let bytes = std::fs::read(&aside).map_err(failed)?;
        std::fs::rename(&aside, folder.join(&name)).map_err(failed)?;
        let made = Made {
            name: &project.name,
            file: self.folder.join(&name),
            bytes: bytes.len(),
            sha256: antiphon_plugin::sha256(&bytes),
        };
        if self.json { json_line(&mut io::stdout().lock(), &made) } else { made.say() }
    }
}

impl Made<'_> {
    /// The lines for a configuration, and a word on them.
    fn say(&self) -> Result<(), Failure> {
        let file = Path::new(".").join(&self.file);
        let file = file.strip_prefix("./.").or_else(|_| file.strip_prefix(".")).unwrap_or(&file);
        note(&format!("\nwrote `{}`: {}", file.display(), shown::bytes(self.bytes as u64)))?;
        note("what nodes need to know of it:\n")?;
        let mut out = io::stdout().lock();
        writeln!(out, "[plugin.{}]\nsource = \"file:{}.wasm\"\nsha256 = \"{}\"", self.name, self.name, self.sha256)?;
        Ok(out.flush()?)
    }
}

/// A word to whoever looks on.
fn note(text: &str) -> Result<(), Failure> {
    Ok(writeln!(io::stderr().lock(), "{text}")?)
}
