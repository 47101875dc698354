//! One host per database: a lock that ends with the process, however it ends.

use crate::failure::{Failure, Kind};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

/// Whoever only asks whether a host runs holds the lock for a moment, and must not keep one from starting.
const TRIES: u32 = 20;
const TRY_PAUSE: Duration = Duration::from_millis(5);

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
        let mut locked = file.try_lock();
        for _ in 1..TRIES {
            if !matches!(locked, Err(TryLockError::WouldBlock)) {
                break;
            }
            std::thread::sleep(TRY_PAUSE);
            locked = file.try_lock();
        }
        match locked {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                Err(Failure::new(Kind::Busy, format!("another Antiphon runs on `{shown}` already"))
                    .hint("one is enough: stop the other one first"))
            }
            Err(TryLockError::Error(error)) => Err(cannot(error)),
        }
    }

    /// Whether a host has the lock, asked without making anything.
    #[must_use]
    pub fn is_held(state: &Path) -> bool {
        // Shared, so that two that ask don't take each other for a host.
        File::open(state.join("lock")).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
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
        let lock = Lock::take(&state, "a.db").unwrap();
        assert!(Lock::is_held(&state) && Lock::is_held(&state));
        assert!(Lock::take(&state, "a.db").is_err());
        drop(lock);
        assert!(!Lock::is_held(&state));
        let asking = File::open(state.join("lock")).unwrap();
        asking.lock_shared().unwrap();
        assert!(!Lock::is_held(&state), "somebody else who asks is no host");
    }
}
