//! One host per database: locks that end with the process, however it ends.

use crate::failure::{Failure, Kind};
use crate::place::Place;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Held as long as this object lives, which must be longer than any connection to the database.
#[derive(Debug)]
pub struct Lock {
    #[expect(dead_code, reason = "closing the file is what ends the lock")]
    state: File,
    /// The database's own file: by whatever name a second host comes to it, it finds this one. `flock` and the
    /// locks of SQLite, which are of another kind, take no notice of each other. But the system gives up all of a
    /// process's locks of SQLite's kind on a file when the process closes it, so this is closed after SQLite.
    #[expect(dead_code, reason = "closing the file is what ends the lock")]
    database: File,
}

impl Lock {
    /// Takes the locks of a database, and makes the host's directory.
    ///
    /// # Errors
    /// When another host has one of them, or the directory can't be made.
    pub fn take(place: &Place, state: &Path, shown: &str) -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::new(Kind::General, format!("cannot use the directory `{}`: {error}", state.display()))
                .hint("the host keeps a lock and its log there; make it writable for this user, and see that the disk has room")
        };
        let database = File::open(place.path()).map_err(|error| {
            Failure::new(Kind::Missing, format!("cannot open database `{shown}`: {error}"))
                .hint("run this as the user the application runs as, or let that user's group read and write the file")
        })?;
        hold(&database, shown, &cannot)?;
        DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(cannot)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(state.join("lock"))
            .map_err(cannot)?;
        hold(&file, shown, &cannot)?;
        Ok(Self { state: file, database })
    }
}

fn hold(file: &File, shown: &str, cannot: &dyn Fn(std::io::Error) -> Failure) -> Result<(), Failure> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::new(Kind::Busy, format!("another Antiphon runs on `{shown}` already"))
                .hint("one is enough: stop the other one first"))
        }
        Err(TryLockError::Error(error)) => Err(cannot(error)),
    }
}
