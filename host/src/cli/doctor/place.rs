//! Where the file lies: names, file system, permissions, room.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::super::shown::bytes;
use super::{Failed, Found, Patient};

/// Less room than this is little, whatever the file's size.
const FREE_MIN: u64 = 256 << 20;

/// A file of several names: SQLite derives the names of the files beside it from the one it was opened by.
pub(super) fn links(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    if patient.named.symlink_metadata()?.is_symlink() {
        found.note(
            None,
            format!("it is a symbolic link to `{}`", patient.path.display()),
            "the `-wal` file and the directory of Antiphon's are kept beside the file itself, not beside the link",
            "nothing; copy and back up the file where it is",
        );
    }
    if patient.path.metadata()?.nlink() > 1 {
        found.error(
            None,
            "the file has several names (hard links)",
            "a program that opens it by another name uses another `-wal` and other locks, which damages the file",
            format!("keep one name: `cp {0} {0}.new && mv {0}.new {0}` while nobody uses it", patient.path.display()),
        );
    }
    Ok(())
}

/// A local disk may come by it, or another machine's.
const FUSE: u64 = 0x6573_5546;

/// What a file system that other machines share is called, and whether it certainly is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shared {
    name: &'static str,
    surely: bool,
}

/// What `statfs` calls a file system, if locks and shared memory don't work on it as SQLite needs them.
fn shared(magic: u64) -> Option<Shared> {
    match crate::place::shared(magic) {
        Some(name) => Some(Shared { name, surely: true }),
        None if magic == FUSE => Some(Shared { name: "FUSE, as sshfs and some shared folders are", surely: false }),
        None => None,
    }
}

/// Locks of network file systems don't hold what they promise, and WAL needs memory that all users share.
pub(super) fn file_system(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    for (what, path) in [("the file", Some(patient.path.as_path())), ("the log", patient.log.directory())] {
        let Some(path) = path else { continue };
        let Some(path) = path.ancestors().find(|path| path.exists()) else { continue };
        let Some(shared) = kind(path)? else { continue };
        let text = format!("{what} is on {}", shared.name);
        let why = "SQLite's locks and its WAL need a file system of this machine; elsewhere files get damaged";
        let remedy = "move it to a local disk; the nodes of several machines each have a file of their own";
        if shared.surely { found.error(None, text, why, remedy) } else { found.warning(None, text, why, remedy) }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn kind(path: &Path) -> Result<Option<Shared>, Failed> {
    let magic = rustix::fs::statfs(path)?.f_type;
    // The kernel's numbers have 32 bits; some platforms sign-extend them.
    Ok(shared(u64::from(u32::try_from(magic & 0xFFFF_FFFF).unwrap_or_default())))
}

#[cfg(not(target_os = "linux"))]
fn kind(_: &Path) -> Result<Option<Shared>, Failed> {
    Ok(None)
}

/// Triggers and tables go into the file, a `-wal` and a directory beside it.
pub(super) fn permissions(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    // By the rights that writing would go by, which need not be those of who started the program.
    let writable = |path: &Path| match accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::ROFS | rustix::io::Errno::PERM) => Ok(false),
        Err(error) => Err(error),
    };
    let remedy = "run as the user that the application runs as, or give that user the right to write";
    if !writable(&patient.path)? {
        found.error(None, "this user may not write the file", "changes of other nodes could not be stored", remedy);
    }
    if let Some(folder) = patient.path.parent()
        && !writable(folder)?
    {
        found.error(
            None,
            format!("this user may not write the folder `{}`", folder.display()),
            "SQLite keeps its `-wal` there, and Antiphon a directory with its lock",
            remedy,
        );
    }
    let mode = patient.path.metadata()?;
    let me = rustix::process::geteuid().as_raw();
    if me == 0 && mode.uid() != 0 {
        found.note(
            None,
            format!("the file belongs to user {}, and this is root", mode.uid()),
            "what root makes beside the file may be closed to the application",
            "run Antiphon as the user that the application runs as",
        );
    }
    Ok(())
}

/// A full disk stops everything, the application first.
pub(super) fn free_space(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    let size = patient.path.metadata()?.len();
    for (what, path) in [("file", Some(patient.path.as_path())), ("log", patient.log.directory())] {
        let Some(path) = path else { continue };
        let Some(path) = path.ancestors().find(|path| path.exists()) else { continue };
        let room = rustix::fs::statvfs(path)?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        if free < size.max(FREE_MIN) {
            found.warning(
                None,
                format!(
                    "there are {} left on the disk of the {what}, and the database has {}",
                    bytes(free),
                    bytes(size)
                ),
                "changes are kept in the database until they are in the log, and the log grows with every change",
                "make room: as much as the database is large, and more where much is written",
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c117_network_file_systems_are_told_from_local_ones() {
        assert_eq!(shared(0x6969), Some(Shared { name: "NFS", surely: true }));
        assert!(shared(0xFF53_4D42).is_some_and(|shared| shared.surely));
        assert!(shared(0x6573_5546).is_some_and(|shared| !shared.surely));
        // ext4, xfs, btrfs, tmpfs, overlay
        for local in [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630] {
            assert_eq!(shared(local), None, "{local:x}");
        }
    }
}
