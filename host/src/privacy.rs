//! What this process makes is for its user alone, and what it believes is written by nobody else.

use crate::failure::{Failure, Kind};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Whatever the shell's habits: no file of ours is readable for others, and no secret reaches a disk in a core.
pub(crate) fn begin() {
    umask(Mode::from_raw_mode(0o077));
    // Lowering a limit needs no right.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), ..getrlimit(Resource::Core) });
}

/// Refuses what others on this machine may write: it says which programs are run, or is one.
///
/// # Errors
/// When others may.
pub(crate) fn check_file(path: &Path, file: &Metadata) -> Result<(), Failure> {
    let Some((whom, whose)) = writers(file.mode(), file.uid(), file.gid()) else { return Ok(()) };
    let shown = path.display();
    Err(Failure::config(format!("{whom} may write to `{shown}`"))
        .hint(format!("see that it says what you wrote, and then `chmod {whose}-w {}`", crate::words::shell(path))))
}

/// Who else may write to a file, and how `chmod` calls them. A group that has its user's number is his alone: there files
/// are writable for it by habit.
fn writers(mode: u32, owner: u32, group: u32) -> Option<(&'static str, char)> {
    match mode {
        _ if mode & 0o002 != 0 => Some(("everybody on this machine", 'o')),
        _ if mode & 0o020 != 0 && group != owner => Some(("a group of users", 'g')),
        _ => None,
    }
}

/// Refuses a directory for our own files that others may write to, or that is somebody else's: what lies there would lead
/// us where they want.
///
/// # Errors
/// When it is not this user's alone.
pub(crate) fn check_directory(path: &Path) -> Result<(), Failure> {
    check_directory_of(path, rustix::process::geteuid().as_raw())
}

fn check_directory_of(path: &Path, user: u32) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| {
        Failure::new(Kind::General, format!("cannot look at the directory `{}`: {error}", path.display()))
    };
    let (link, found) = (path.symlink_metadata().map_err(cannot)?, path.metadata().map_err(cannot)?);
    // Root may run what belongs to the application's user; nobody else's directory is used by another.
    let ours = |owner: u32| owner == user || user == 0 || owner == 0;
    let shown = path.display();
    if !ours(link.uid()) || !ours(found.uid()) {
        return Err(Failure::new(Kind::Refused, format!("the directory `{shown}` belongs to another user"))
            .hint("run this as the user the application runs as, or remove the directory if nobody needs it"));
    }
    if found.mode() & 0o022 != 0 {
        return Err(Failure::new(Kind::Refused, format!("others may write to the directory `{shown}`"))
            .hint(format!("see that nothing strange lies there, and then `chmod 700 {}`", crate::words::shell(path))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// X12: what others may write is not believed.
    #[test]
    fn x12_what_others_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (file, directory) = (folder.path().join("a.toml"), folder.path().join("a.db.antiphon"));
        std::fs::write(&file, "").unwrap();
        std::fs::create_dir(&directory).unwrap();
        let set = |path: &Path, mode: u32| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        for (mode, fits) in [(0o600, true), (0o644, true), (0o666, false), (0o602, false)] {
            set(&file, mode);
            assert_eq!(check_file(&file, &file.metadata().unwrap()).is_ok(), fits, "{mode:o}");
        }
        for (mode, group, whose) in [(0o664, 7, None), (0o664, 8, Some('g')), (0o644, 8, None), (0o666, 7, Some('o'))] {
            assert_eq!(writers(mode, 7, group).map(|(_, whose)| whose), whose, "{mode:o} {group}");
        }
        for (mode, fits) in [(0o700, true), (0o755, true), (0o770, false), (0o777, false), (0o1777, false)] {
            set(&directory, mode);
            assert_eq!(check_directory(&directory).is_ok(), fits, "{mode:o}");
        }
    }

    /// X12: nor is what somebody else has laid where ours would be, or a link of theirs to what is ours.
    #[test]
    fn x12_a_directory_of_another_users_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (directory, link) = (folder.path().join("a.db.antiphon"), folder.path().join("link"));
        std::fs::create_dir(&directory).unwrap();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(&directory, &link).unwrap();
        // Only root can give it away; whoever else tests this is its owner.
        let _ = std::os::unix::fs::chown(&directory, Some(4711), None);
        let _ = std::os::unix::fs::lchown(&link, Some(4712), None);
        let owner = directory.metadata().unwrap().uid();
        let refused = check_directory_of(&directory, owner + 1).unwrap_err().to_string();
        assert!(refused.contains("belongs to another user"), "{refused}");
        for user in [owner, 0] {
            assert!(check_directory_of(&directory, user).is_ok(), "{user}");
        }
        let theirs = link.symlink_metadata().unwrap().uid() != owner;
        assert_eq!(check_directory_of(&link, owner).is_err(), theirs);
    }
}
