//! Room on the disk where snapshots are made and tried out.

use crate::failure::{Failure, Kind};
use serde::Serialize;
use std::path::Path;

/// Room on that disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Scratch {
    /// So many the next one takes.
    pub needed: u64,
    /// So many it may have.
    pub free: u64,
}

impl Scratch {
    /// For so many bytes of database in a folder, where it may take so much at most.
    pub(super) fn of(bytes: u64, folder: &Path, most: Option<u64>) -> Self {
        let free = rustix::fs::statvfs(folder).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        // It and a copy lie beside each other for a while.
        Self { needed: bytes.saturating_mul(22) / 10, free: free.min(most.unwrap_or(u64::MAX)) }
    }

    /// The same for a database that is in use.
    pub(super) fn of_database(path: &Path, folder: &Path, most: Option<u64>) -> Self {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        Self::of(size(path) + size(Path::new(&wal)), folder, most)
    }

    /// Refuses where the folder has less.
    pub(super) fn check(self, folder: &Path) -> Result<(), Failure> {
        let Self { needed, free } = self;
        if free >= needed {
            return Ok(());
        }
        let what = format!("a snapshot needs {needed} bytes of room in `{}`, and may have {free}", folder.display());
        Err(Failure::new(Kind::Busy, what).hint(
            "make room on that disk, or raise `scratch_max` under `[snapshot]` if that is set; the application is not \
             affected",
        ))
    }
}

/// Bytes of the files in a folder.
pub(super) fn used(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}
