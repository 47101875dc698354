//! A database's life: what tells a file from a copy of it, and from what it was last week.
//!
//! A node's identity lies in its file, and is copied with it. So a second note of it lies outside, in the host's
//! directory: which life this is, which file it belongs to, and how far it had come. Where the two don't agree the
//! file is a copy, or was brought back from a backup, and must not speak in the other's name.

use crate::failure::{Failure, Kind};
use crate::place::Place;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The note beside the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Which life of the node.
    pub incarnation: u64,
    /// The file it is lived in.
    pub device: u64,
    /// The same.
    pub inode: u64,
    /// The boot of the machine in which this was written.
    pub boot: String,
    /// How many entries of the log had been applied, over all shards.
    pub reached: u64,
}

/// What a file is to the host that starts beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// The one it was.
    Same,
    /// A copy of another node's, or one that was moved without its directory.
    Copy,
    /// The one it was a while ago, brought back.
    Older {
        /// How far it had come.
        reached: u64,
    },
}

const NAME: &str = "life";
/// The note of the file that is about to take the place of the one that is there.
const NEXT: &str = "life.next";
const FIRST_LINE: &str = "antiphon life 1";

impl Life {
    /// The life of this file, as it stands.
    #[must_use]
    pub fn of(place: &Place, incarnation: u64, reached: u64) -> Self {
        let (device, inode) = place.file();
        Self { incarnation, device, inode, boot: boot(), reached }
    }

    /// Reads the note; one that can't be read is none.
    #[must_use]
    pub fn read(state: &Path) -> Option<Self> {
        Self::read_as(state, NAME)
    }

    /// Whether this is the life of the file that was about to come when nobody said any more that it had.
    #[must_use]
    pub fn is_next(&self, state: &Path) -> bool {
        Self::judge(Self::read_as(state, NEXT).as_ref(), self) == Provenance::Same
    }

    fn read_as(state: &Path, name: &str) -> Option<Self> {
        let text = std::fs::read_to_string(state.join(name)).ok()?;
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return None;
        }
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
        Some(Self {
            incarnation: value("incarnation")?.parse().ok()?,
            device: value("device")?.parse().ok()?,
            inode: value("inode")?.parse().ok()?,
            boot: value("boot")?,
            // The last line: a note that was cut off is none.
            reached: value("reached")?.parse().ok().filter(|_| text.ends_with('\n'))?,
        })
    }

    /// Writes the note, whole or not at all.
    ///
    /// # Errors
    /// When the directory can't be written to.
    pub fn write(&self, state: &Path) -> std::io::Result<()> {
        self.write_as(state, NAME)
    }

    /// Writes beside the note the one of a file that is about to come into the other's place: whichever is there after that
    /// is known.
    ///
    /// # Errors
    /// When the directory can't be written to.
    pub fn announce(&self, state: &Path) -> std::io::Result<()> {
        self.write_as(state, NEXT)
    }

    /// The file that was about to come is there.
    ///
    /// # Errors
    /// When the directory can't be written to.
    pub fn begin(state: &Path) -> std::io::Result<()> {
        std::fs::rename(state.join(NEXT), state.join(NAME))?;
        File::open(state)?.sync_all()
    }

    fn write_as(&self, state: &Path, name: &str) -> std::io::Result<()> {
        let aside = state.join("life.new");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
        let Self { incarnation, device, inode, boot, reached } = self;
        let text = format!(
            "{FIRST_LINE}\nincarnation {incarnation}\ndevice {device}\ninode {inode}\nboot {boot}\nreached {reached}\n"
        );
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&aside, state.join(name))?;
        File::open(state)?.sync_all()
    }

    /// What the file beside this note is, that says of itself who it is and how far it has come.
    #[must_use]
    pub fn judge(note: Option<&Self>, now: &Self) -> Provenance {
        let Some(note) = note.filter(|note| note.incarnation == now.incarnation) else { return Provenance::Copy };
        let same_boot = note.boot == now.boot;
        // Devices may be numbered anew at a boot.
        let same_file = note.inode == now.inode && (note.device == now.device || !same_boot);
        // A power cut takes SQLite's last commits with it, which is no return to a backup. It ends the boot, too.
        if now.reached < note.reached && (same_boot || !same_file) {
            return Provenance::Older { reached: note.reached };
        }
        if same_file { Provenance::Same } else { Provenance::Copy }
    }
}

/// The note could not be written.
pub(crate) fn unnoted(state: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Kind::General, format!("cannot write to the directory `{}`: {error}", state.display()))
        .hint("make it writable for this user, and see that the disk has room")
}

/// What tells one boot of the machine from the next.
pub(crate) fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "?".to_owned(), |id| id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life() -> Life {
        Life { incarnation: 7, device: 1, inode: 2, boot: "x".to_owned(), reached: 10 }
    }

    fn check(change: impl Fn(&mut Life), provenance: Provenance) {
        let mut now = life();
        change(&mut now);
        assert_eq!(Life::judge(Some(&life()), &now), provenance, "{now:?}");
    }

    #[test]
    fn a_file_is_what_it_was_a_copy_or_older() {
        check(|_| {}, Provenance::Same);
        check(|now| now.reached = 12, Provenance::Same);
        check(|now| now.inode = 3, Provenance::Copy);
        check(|now| now.device = 3, Provenance::Copy);
        check(|now| now.incarnation = 3, Provenance::Copy);
        check(|now| now.reached = 9, Provenance::Older { reached: 10 });
        check(|now| (now.inode, now.reached) = (3, 9), Provenance::Older { reached: 10 });
        assert_eq!(Life::judge(None, &life()), Provenance::Copy);
    }

    /// After a power cut the machine has booted anew, devices may have other numbers and the last commits be gone.
    #[test]
    fn a_power_cut_makes_no_copy() {
        check(|now| now.boot = "y".to_owned(), Provenance::Same);
        check(|now| (now.boot, now.device, now.reached) = ("y".to_owned(), 9, 8), Provenance::Same);
        check(|now| (now.boot, now.inode) = ("y".to_owned(), 9), Provenance::Copy);
    }

    #[test]
    fn a_note_is_read_as_it_was_written_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        life().write(folder.path()).unwrap();
        assert_eq!(Life::read(folder.path()), Some(life()));
        let file = folder.path().join(NAME);
        let text = std::fs::read(&file).unwrap();
        for length in 0..text.len() {
            std::fs::write(&file, &text[..length]).unwrap();
            assert_eq!(Life::read(folder.path()), None, "{length}");
        }
    }
}
