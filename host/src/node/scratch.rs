//! Folders for L built aside, in the host's own directory.

use crate::failure::{Failure, Kind};
use std::path::{Path, PathBuf};
use tracing::warn;

/// What folders for L built aside begin with.
pub(crate) const SCRATCH: &str = "scratch-";

/// A folder for L built aside; gone when it is done with.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new(state: &Path) -> Result<Self, Failure> {
        tempfile::Builder::new().prefix(SCRATCH).tempdir_in(state).map(Self).map_err(|error| {
            Failure::new(Kind::General, format!("cannot make a folder in `{}`: {error}", state.display()))
                .hint("make it writable for this user, and see that the disk has room")
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn file(&self) -> PathBuf {
        self.0.path().join("log.db")
    }
}

/// Removes folders that an earlier life left when it was killed. The lock is ours, so nobody uses them.
pub(super) fn sweep(state: &Path) {
    let Ok(entries) = std::fs::read_dir(state) else { return };
    let left = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(SCRATCH));
    for entry in left {
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            warn!(folder = %entry.path().display(), %error, "cannot remove a folder of an earlier start");
        }
    }
}
