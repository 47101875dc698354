//! `antiphon storage put`: an object, sent, read back and compared.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::PathBuf;

use antiphon_core::store::{Name, OBJECT_BYTES_MAX, Put as How};

use super::{Which, object};
use crate::cli::shown::bytes;
use crate::failure::{Failure, Kind};
use crate::storage::{failure, put};

/// Store a file as an object, read it back and compare
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Put {
    /// The file; `-` reads stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The name of the object
    #[arg(value_name = "NAME", value_parser = object)]
    name: Name,
    /// Fail if there is an object of that name
    #[arg(long)]
    if_absent: bool,
    #[command(flatten)]
    which: Which,
}

impl Put {
    pub(super) fn run(self) -> Result<(), Failure> {
        let shown = self.file.display();
        let unread = |error: &io::Error| Failure::caused(Kind::Missing, format!("cannot read `{shown}`"), error);
        let mut body = Vec::new();
        // One byte more than is allowed shows that it is too large; no more than that is read.
        let most = OBJECT_BYTES_MAX + 1;
        if self.file.as_os_str() == "-" {
            io::stdin().lock().take(most).read_to_end(&mut body).map_err(|error| unread(&error))?;
        } else {
            let read = File::open(&self.file).and_then(|file| file.take(most).read_to_end(&mut body));
            read.map_err(|error| unread(&error))?;
        }
        if body.len() as u64 > OBJECT_BYTES_MAX {
            let most = bytes(OBJECT_BYTES_MAX);
            return Err(Failure::new(Kind::Data, format!("`{shown}` is larger than an object may be, {most}")));
        }
        let opened = self.which.open()?;
        let how = if self.if_absent { How::IfAbsent } else { How::Replace };
        let content = put(&opened.store, &self.name, &body, how).map_err(|error| failure(&error))?;
        let mut out = io::stdout().lock();
        writeln!(out, "{}  blake3 {}  {}", content.size, content.hash.to_hex(), self.name)?;
        Ok(out.flush()?)
    }
}
