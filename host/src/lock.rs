//! One host per database: locks that end with the process, however it ends.

use crate::failure::{Failure, Kind};
use crate::place::Place;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

/// Whoever only asks whether a host runs holds the lock for a moment, and must not keep one from starting.
const TRIES: u32 = 20;
const TRY_PAUSE: Duration = Duration::from_millis(5);

/// Held as long as this object lives, which must be longer than any connection to the database.
#[derive(Debug)]
pub struct Lock {
    #[expect(dead_code, reason = "closing the file is what ends the lock")]
    state: File,
    /// The database's own file: by whatever name a second host comes to it, it finds this one. `flock` and the
    /// locks of SQLite, which are of another kind, take no notice of each other. But the system gives up all of a
    /// process's locks of SQLite's kind on a file when the process closes it, so this is closed after SQLite.
    #[expect(dead_code, reason = "closing the file is what ends the lock")]
    database: Option<File>,
}

impl Lock {
    /// Takes the locks of a database, and makes the host's directory.
    ///
    /// # Errors
    /// When another host has one of them, or the directory can't be made.
    pub fn take(place: &Place, state: &Path, shown: &str) -> Result<Self, Failure> {
        let database = File::open(place.path()).map_err(|error| {
            Failure::new(Kind::Missing, format!("cannot open database `{shown}`: {error}"))
                .hint("run this as the user the application runs as, or let that user's group read and write the file")
        })?;
        hold(&database, shown, &|error| unusable(state, &error))?;
        Ok(Self { database: Some(database), ..Self::without_file(state, shown)? })
    }

    /// The same where there is no file, or none of SQLite's.
    ///
    /// # Errors
    /// When another host has the directory, or it can't be made.
    pub fn without_file(state: &Path, shown: &str) -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| unusable(state, &error);
        DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(cannot)?;
        crate::privacy::check_directory(state)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(state.join("lock"))
            .map_err(cannot)?;
        hold(&file, shown, &cannot)?;
        Ok(Self { state: file, database: None })
    }

    /// Whether a host has the lock, asked without making anything.
    #[must_use]
    pub fn is_held(state: &Path) -> bool {
        // Shared, so that two that ask don't take each other for a host.
        File::open(state.join("lock")).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }
}

fn unusable(state: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Kind::General, format!("cannot use the directory `{}`: {error}", state.display()))
        .hint("the host keeps a lock and its log there; make it writable for this user, and see that the disk has room")
}

fn hold(file: &File, shown: &str, cannot: &dyn Fn(std::io::Error) -> Failure) -> Result<(), Failure> {
    let mut locked = file.try_lock();
    for _ in 1..TRIES {
        if !matches!(locked, Err(TryLockError::WouldBlock)) {
            break;
        }
        std::thread::sleep(TRY_PAUSE);
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::new(Kind::Busy, format!("another Antiphon runs on `{shown}` already"))
                .hint("one is enough: stop the other one first"))
        }
        Err(TryLockError::Error(error)) => Err(cannot(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_makes_nothing_and_sees_only_hosts() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("a.db.antiphon");
        assert!(!Lock::is_held(&state));
        assert!(!state.exists());
        let database = folder.path().join("a.db");
        File::create(&database).unwrap();
        let place = Place::find(&database).unwrap();
        let lock = Lock::take(&place, &state, "a.db").unwrap();
        assert!(Lock::is_held(&state) && Lock::is_held(&state));
        assert!(Lock::take(&place, &state, "a.db").is_err());
        drop(lock);
        assert!(!Lock::is_held(&state));
        let asking = File::open(state.join("lock")).unwrap();
        asking.lock_shared().unwrap();
        assert!(!Lock::is_held(&state), "somebody else who asks is no host");
    }
}
