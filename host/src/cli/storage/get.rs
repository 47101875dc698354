//! `antiphon storage get`: an object, fetched.

use std::io::{self, Write};
use std::path::PathBuf;

use antiphon_core::store::{Name, Store as _};
use tempfile::NamedTempFile;

use super::{Which, object};
use crate::failure::{Failure, Kind};
use crate::storage::failure;

/// Write an object to stdout, or into a file
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Get {
    /// Its name
    #[arg(value_name = "NAME", value_parser = object)]
    name: Name,
    /// The file; it must not be there yet
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
}

impl Get {
    pub(super) fn run(self) -> Result<(), Failure> {
        let opened = self.which.open()?;
        let body = opened.store.get(&self.name, None).map_err(|error| failure(&error))?;
        let Some(path) = self.output else {
            let mut out = io::stdout().lock();
            out.write_all(&body)?;
            return Ok(out.flush()?);
        };
        let unwritten =
            |error: io::Error| Failure::caused(Kind::General, format!("cannot write `{}`", path.display()), &error);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut file = NamedTempFile::new_in(folder.unwrap_or(std::path::Path::new("."))).map_err(unwritten)?;
        file.write_all(&body).and_then(|()| file.as_file().sync_all()).map_err(unwritten)?;
        file.persist_noclobber(&path).map_err(|error| unwritten(error.error))?;
        Ok(())
    }
}
