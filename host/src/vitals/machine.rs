//! The database's files, the disk they lie on, and the process itself, as the system tells of them.

use serde::Serialize;
use std::ffi::OsString;
use std::path::Path;

/// The database's files and their disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Files {
    /// Bytes of the database.
    pub database_bytes: u64,
    /// Bytes of its write-ahead log.
    pub wal_bytes: u64,
    /// Bytes that are free on the disk, for this user.
    pub disk_free: u64,
    /// Bytes of the disk.
    pub disk_size: u64,
    /// Files that can still be made there; none if the file system does not count them.
    pub free_files: Option<u64>,
    /// The database or its folder can't be written.
    pub read_only: bool,
}

impl Files {
    /// Those of this database. Nothing is opened: closing the file would end SQLite's locks on it.
    #[must_use]
    pub fn of(database: &Path) -> Self {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let mut wal = OsString::from(database);
        wal.push("-wal");
        let folder = database.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let disk = rustix::fs::statvfs(database).ok();
        let writable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
        Self {
            database_bytes: size(database),
            wal_bytes: size(Path::new(&wal)),
            disk_free: disk.as_ref().map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            disk_size: disk.as_ref().map_or(0, |disk| disk.f_blocks.saturating_mul(disk.f_frsize)),
            free_files: disk.filter(|disk| disk.f_files > 0).map(|disk| disk.f_favail),
            read_only: !(writable(database) && writable(folder)),
        }
    }
}

/// The process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Process {
    /// Bytes of memory that it has.
    pub resident_bytes: u64,
    /// Seconds of processor time that it used.
    pub cpu_seconds: f64,
    /// Files and connections that it has open.
    pub descriptors: u64,
    /// How many it may have open.
    pub descriptors_max: u64,
    /// Its threads.
    pub threads: u64,
}

impl Process {
    /// This one. What the system does not tell is 0.
    #[must_use]
    pub fn of_this() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        #[expect(clippy::cast_precision_loss, reason = "seconds, for people")]
        let cpu_seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        let descriptors_max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(0);
        Self {
            resident_bytes: field(&status, "VmRSS:").saturating_mul(1024),
            cpu_seconds,
            // To count them takes one more. Where there is none, as many are open as may be.
            descriptors: std::fs::read_dir("/proc/self/fd").map_or_else(
                |error| if error.raw_os_error() == Some(libc::EMFILE) { descriptors_max } else { 0 },
                |open| open.count() as u64,
            ),
            descriptors_max,
            threads: field(&status, "Threads:"),
        }
    }
}

/// The number after a name.
fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_files() {
        let process = Process::of_this();
        assert!(process.resident_bytes > 1 << 20 && process.threads >= 1 && process.descriptors >= 3);
        assert!(process.descriptors_max >= process.descriptors);
    }

    #[test]
    fn a_file_has_a_size_and_a_disk() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        std::fs::write(&file, [0; 4096]).unwrap();
        let files = Files::of(&file);
        assert_eq!((files.database_bytes, files.wal_bytes, files.read_only), (4096, 0, false));
        assert!(files.disk_free > 0 && files.disk_size >= files.disk_free);
        assert!(Files::of(&folder.path().join("none")).read_only);
    }
}
