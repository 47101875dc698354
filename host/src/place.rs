//! Where a database lies, and whether it still lies there.
//!
//! SQLite goes on with the file it has opened, whatever becomes of its name. The application doesn't: it opens what
//! the name leads to. When the two are no longer the same, replicating either would be wrong.

use crate::failure::{Failure, Kind};
use crate::unread;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A database's file, by name and by what the name leads to.
#[derive(Clone, Debug)]
pub struct Place {
    /// As the user names it: a symbolic link may lead elsewhere tomorrow.
    named: PathBuf,
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// File systems that several machines share: SQLite's locks don't reach from one machine to the next there, and its
/// shared memory never does. By the numbers of `statfs(2)`.
const SHARED: &[(u64, &str)] = &[
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x0102_1997, "9P"),
    (0x786f_4256, "VirtualBox's shared folders"),
    (0x7375_7245, "Coda"),
    (0x564c, "NCP"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x4750_4653, "GPFS"),
];

impl Place {
    /// Follows the name to its file.
    ///
    /// # Errors
    /// When there is none, or it lies where SQLite can't be shared.
    pub fn find(named: &Path) -> Result<Self, Failure> {
        let shown = named.display();
        let cannot = |error: std::io::Error| unread::missing(named, &error);
        let path = named.canonicalize().map_err(cannot)?;
        let file = path.metadata().map_err(cannot)?;
        if !file.is_file() {
            return Err(unread::missing(named, "it is not a file"));
        }
        if let Some(kind) = rustix::fs::statfs(&path).ok().and_then(|found| shared(found.f_type.cast_unsigned())) {
            return Err(Failure::new(
                Kind::Data,
                format!(
                    "`{shown}` lies on a file system that machines share ({kind}), where SQLite can't be used safely"
                ),
            )
            .hint("keep a database on each machine's own disk, with an Antiphon beside each: that is what it is for"));
        }
        let named = std::path::absolute(named).map_err(cannot)?;
        Ok(Self { named, path, device: file.dev(), inode: file.ino() })
    }

    /// The file's own path, without symbolic links: SQLite names its companions after it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's device and inode.
    #[must_use]
    pub fn file(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Whether the file has no other name: under another one it would have another `-wal`, and be damaged.
    ///
    /// # Errors
    /// When it has.
    pub fn has_one_name(&self) -> Result<(), Failure> {
        let _ = self.forget_kept();
        match self.path.metadata() {
            Ok(file) if file.nlink() > 1 => Err(Failure::new(
                Kind::Data,
                format!("`{}` has {} names (hard links)", self.named.display(), file.nlink()),
            )
            .hint("whoever opens it by another name damages it, for SQLite keeps a `-wal` by each name; make a copy of it and remove the other names")),
            _ => Ok(()),
        }
    }

    /// Takes away names that a replacement gave this file, and had no time to give its own to another.
    fn forget_kept(&self) -> std::io::Result<()> {
        if self.path.metadata()?.nlink() < 2 {
            return Ok(());
        }
        let kept = kept(&self.path, "").into_os_string();
        for entry in self.path.parent().unwrap_or(Path::new("/")).read_dir()? {
            let path = entry?.path();
            let file = path.symlink_metadata()?;
            let is_ours = path.as_os_str().as_bytes().starts_with(kept.as_bytes());
            if is_ours && (file.dev(), file.ino()) == self.file() {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Whether the name still leads to the file that was opened.
    ///
    /// # Errors
    /// When it leads nowhere, or to another.
    pub fn check(&self) -> Result<(), Failure> {
        let shown = self.named.display();
        match self.named.metadata() {
            Ok(file) if (file.dev(), file.ino()) == self.file() => Ok(()),
            Ok(_) => Err(Failure::new(Kind::Data, format!("another file has taken the place of `{shown}`"))
                .hint("nothing of it was sent; `antiphon run` looks at the new file and says how it can go on")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Failure::new(Kind::Missing, format!("`{shown}` was deleted or moved away"))
                    .hint("nothing of it was sent as deleted; bring the file back and start again, with its directory `.antiphon` where the file goes")
                    .hint("or start on a new database with the same tables: its rows come from the log"))
            }
            // Who may not look now may look again later; the file that is open is still the right one.
            Err(_) => Ok(()),
        }
    }
}

/// Under which name a file is kept in whose place another comes.
pub(crate) fn kept(path: &Path, stamp: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".before-restore-");
    name.push(stamp);
    name.into()
}

/// Gives a file another name, if nothing has that.
///
/// # Errors
/// When something has, or the disk does not take it.
pub(crate) fn rename_new(file: &Path, name: &Path) -> std::io::Result<()> {
    match renameat_with(CWD, file, CWD, name, RenameFlags::NOREPLACE) {
        // Not every file system can. Hard links refuse what is there, as well.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            std::fs::hard_link(file, name)?;
            std::fs::remove_file(file)
        }
        renamed => Ok(renamed?),
    }
}

/// The name of a file system that machines share.
pub(crate) fn shared(number: u64) -> Option<&'static str> {
    // On some systems the number is kept with a sign.
    SHARED.iter().find(|(known, _)| *known == number & 0xffff_ffff).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C117: what machines share is known by its number; disks are none of it.
    #[test]
    fn c117_network_file_systems_are_known() {
        assert_eq!(shared(0x6969), Some("NFS"));
        assert_eq!(shared(0xffff_ffff_ff53_4d42), Some("CIFS"));
        for disk in [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0x2fc1_2fc1] {
            assert_eq!(shared(disk), None, "{disk:x}");
        }
    }
}
