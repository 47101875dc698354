//! One host per database: a lock that ends with the process, however it ends.

use crate::failure::{Failure, Kind};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Held as long as this object lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "closing the file is what ends the lock")] File);

impl Lock {
    /// Takes the lock in the host's directory of a database, and makes that directory.
    ///
    /// # Errors
    /// When another host has it, or the directory can't be made.
    pub fn take(state: &Path, shown: &str) -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::new(Kind::General, format!("cannot use the directory `{}`: {error}", state.display()))
                .hint("the host keeps a lock and its log there; make it writable for this user")
        };
        DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(cannot)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(state.join("lock"))
            .map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                Err(Failure::new(Kind::Busy, format!("another Antiphon runs on `{shown}` already"))
                    .hint("one is enough: stop the other one first"))
            }
            Err(TryLockError::Error(error)) => Err(cannot(error)),
        }
    }
}
