//! How many databases of one user are copied on a machine at once, so that those of fifty don't take all of its disks and
//! processors when their time has come. Locks that end with the process, however it ends.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A place among those that work, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot(#[expect(dead_code, reason = "closing the file is what ends the lock")] Option<File>);

impl Slot {
    /// Takes one of so many, if one is free.
    pub(super) fn take(most: Option<u32>) -> Option<Self> {
        let Some(most) = most else { return Some(Self(None)) };
        let uid = rustix::process::getuid().as_raw();
        Self::take_in(&std::env::temp_dir().join(format!("antiphon-jobs-{uid}")), uid, most)
    }

    /// The same in this folder, which must be this user's own. Where it can't be had, everybody works.
    fn take_in(folder: &Path, uid: u32, most: u32) -> Option<Self> {
        let slots = match slots(folder, uid, most) {
            Ok(slots) => slots,
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "`max_concurrent` has no effect");
                return Some(Self(None));
            }
        };
        slots.into_iter().find(|slot| slot.try_lock().is_ok()).map(|slot| Self(Some(slot)))
    }
}

fn slots(folder: &Path, uid: u32, most: u32) -> std::io::Result<Vec<File>> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let meta = std::fs::symlink_metadata(folder)?;
    if !meta.is_dir() || meta.uid() != uid {
        return Err(std::io::Error::other("it is not a folder of this user"));
    }
    let open = |path: PathBuf| OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    (0..most).map(|number| open(folder.join(number.to_string()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_work_at_once_than_may() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = folder.path().join("jobs");
        let uid = rustix::process::getuid().as_raw();
        let take = || Slot::take_in(&jobs, uid, 2);
        let (first, second) = (take().unwrap(), take().unwrap());
        assert!(take().is_none());
        drop(first);
        let third = take().unwrap();
        assert!(take().is_none());
        drop((second, third));
        assert!(Slot::take(None).is_some());
        // Somebody else's folder is of no use, and hinders nobody.
        assert!(Slot::take_in(&jobs, uid + 1, 0).is_some());
    }
}
