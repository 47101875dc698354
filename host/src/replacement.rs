//! Another file in the place of a database: only while nobody has that open, and what was there is kept beside it.
//!
//! SQLite's own way into a database needs one that it can read. Where it can't, or where there is none, another file gets the
//! name. Whoever had the old one open would go on writing to that, so nobody may.

use crate::db;
use crate::failure::{Failure, Kind};
use crate::lock::Lock;
use crate::node::state_directory;
use crate::place::Place;
use rustix::fs::{FlockOperation, fcntl_lock};
use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

/// What SQLite keeps beside a database, by how its name ends.
const COMPANIONS: [&str; 3] = ["-wal", "-journal", "-shm"];

/// Where a database's file counts its changes.
const COUNTER: u64 = 24;

/// Whoever holds a lock, and is not known.
const SOMEBODY: &str = "another process";

/// A database that no host runs beside, until another has its name.
#[derive(Debug)]
pub struct Replacement {
    path: PathBuf,
    /// The name under which what is there is kept.
    kept: PathBuf,
    state: PathBuf,
    /// The file that is there.
    place: Option<Place>,
    /// The last to go: see [`Lock`].
    _lock: Lock,
}

/// What was found in a file's own place.
enum Rest {
    /// A database, and all that was committed to it is in the file itself now.
    Whole {
        /// Whether it says that it has a `-wal`.
        wal: bool,
    },
    /// Nothing that SQLite could read.
    Damaged,
}

impl Replacement {
    /// Sees that no host runs there, and nobody has the file open.
    ///
    /// # Errors
    /// When somebody does.
    pub fn of(named: &Path) -> Result<Self, Failure> {
        let shown = named.display().to_string();
        if named.symlink_metadata().is_ok() {
            let place = Place::find(named)?;
            let lock = Lock::take(&place, &state_directory(place.path()), &shown)?;
            place.has_one_name()?;
            is_unused(&place)?;
            return Ok(Self::new(place.path().to_owned(), Some(place), lock));
        }
        let folder = named.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let cannot = |error: io::Error| crate::unread::missing(named, &error);
        let name = named.file_name().ok_or_else(|| crate::unread::missing(named, "it is not a file"))?;
        let path = folder.canonicalize().map_err(cannot)?.join(name);
        let lock = Lock::without_file(&state_directory(&path), &shown)?;
        Ok(Self::new(path, None, lock))
    }

    fn new(path: PathBuf, place: Option<Place>, lock: Lock) -> Self {
        let kept = crate::place::kept(&path, &crate::clock::unix_ms().to_string());
        Self { kept, state: state_directory(&path), path, place, _lock: lock }
    }

    /// The database's path, without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The host's directory.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Gives `new`, a database beside it, the name; says where what was there is now. `may` looks at the database once more:
    /// somebody may have written to it since. `before` is called when nothing stands in the way any more: what it does counts,
    /// if this process ends right then.
    ///
    /// # Errors
    /// When the file is open somewhere, or the disk does not take it: what is there is the old one then, whole. Of a
    /// database that SQLite can't read there may be nothing in its place if this process ends in the middle, and all of it
    /// under the other name.
    pub fn put(
        self,
        new: &Path,
        may: impl FnOnce() -> Result<(), Failure>,
        before: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Option<PathBuf>, Failure> {
        let Some(place) = &self.place else {
            alone(new, true)?;
            self.own(new, None)?;
            let kept = self.set_aside()?;
            before()?;
            self.name(new)?;
            return Ok(kept);
        };
        is_unused(place)?;
        let rest = come_to_rest(&self.path)?;
        let open = || OpenOptions::new().read(true).write(true).open(&self.path);
        let looked_at = open().and_then(|file| commits(&file)).map_err(|error| self.unread(&error))?;
        may()?;
        // From here on nobody can read it, nor write to it.
        let file = open().map_err(|error| self.unread(&error))?;
        fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| in_use(&self.path, SOMEBODY))?;
        is_unused(place)?;
        place.check()?;
        if commits(&file).map_err(|error| self.unread(&error))? != looked_at {
            return Err(in_use(&self.path, SOMEBODY));
        }
        let wal = matches!(rest, Rest::Whole { wal: true } | Rest::Damaged);
        let put = || {
            alone(new, wal)?;
            self.own(new, Some(&file))?;
            match rest {
                Rest::Whole { .. } if with(&self.path, "-wal").exists() => Err(in_use(&self.path, SOMEBODY)),
                Rest::Whole { .. } => {
                    let kept = self.keep("")?;
                    self.sync()?;
                    fault!("offline-kept");
                    before()?;
                    std::fs::rename(new, &self.path).map_err(|error| self.unwritten(&error))?;
                    fault!("offline-named");
                    self.sync()?;
                    Ok(Some(kept))
                }
                Rest::Damaged => {
                    let kept = self.set_aside()?;
                    before()?;
                    self.name(new)?;
                    Ok(kept)
                }
            }
        };
        put().inspect_err(|_| {
            if matches!(rest, Rest::Whole { wal: true }) {
                // As it was; whoever opens it next can do so as well.
                let _ = db::set_journal(&self.path, true);
            }
        })
    }

    /// Moves what is there to another name, with all that SQLite keeps beside it: it would be taken for the new file's.
    fn set_aside(&self) -> Result<Option<PathBuf>, Failure> {
        let mut kept = None;
        let there: Vec<&str> = self.companions().collect();
        for end in there.iter().copied().filter(|end| *end != "-shm").chain(self.place.as_ref().map(|_| "")) {
            let name = self.keep(end)?;
            kept = Some(name);
        }
        self.sync()?;
        fault!("offline-aside");
        if self.place.is_some() {
            std::fs::remove_file(&self.path).map_err(|error| self.unwritten(&error))?;
        }
        for end in there {
            std::fs::remove_file(with(&self.path, end)).map_err(|error| self.unwritten(&error))?;
        }
        self.sync()?;
        fault!("offline-cleared");
        Ok(kept)
    }

    /// Gives a file of this database another name besides.
    fn keep(&self, end: &str) -> Result<PathBuf, Failure> {
        let kept = with(&self.kept, end);
        std::fs::hard_link(with(&self.path, end), &kept).map_err(|error| self.unwritten(&error))?;
        Ok(kept)
    }

    /// Gives the new file its name where there is none.
    fn name(&self, new: &Path) -> Result<(), Failure> {
        // Somebody may have made one meanwhile.
        crate::place::rename_new(new, &self.path).map_err(|error| self.unwritten(&error))?;
        fault!("offline-put");
        self.sync()
    }

    /// The new file is for whom the old one is.
    fn own(&self, new: &Path, old: Option<&File>) -> Result<(), Failure> {
        let owned = || {
            let Some(old) = old else { return std::fs::set_permissions(new, Permissions::from_mode(0o600)) };
            let (old, now) = (old.metadata()?, new.metadata()?);
            if (old.uid(), old.gid()) != (now.uid(), now.gid()) {
                chown(new, Some(old.uid()), Some(old.gid()))?;
            }
            std::fs::set_permissions(new, old.permissions())
        };
        owned().and_then(|()| File::open(new)?.sync_all()).map_err(|error| {
            Failure::caused(Kind::General, format!("cannot make a file like `{}`", self.path.display()), &error)
                .hint("run this as the user to whom it belongs, or as root")
        })
    }

    fn companions(&self) -> impl Iterator<Item = &'static str> {
        COMPANIONS.into_iter().filter(|end| with(&self.path, end).exists())
    }

    fn sync(&self) -> Result<(), Failure> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| self.unwritten(&error))
    }

    fn unread(&self, error: &io::Error) -> Failure {
        Failure::caused(Kind::General, format!("cannot open `{}`", self.path.display()), error)
            .hint("run this as the user to whom it belongs, or as root")
    }

    fn unwritten(&self, error: &io::Error) -> Failure {
        Failure::caused(
            Kind::General,
            format!("cannot put another file in the place of `{}`", self.path.display()),
            error,
        )
        .hint("nothing of what was there is gone: look for the names that begin with this one in its folder")
    }
}

fn in_use(path: &Path, who: &str) -> Failure {
    Failure::new(Kind::Refused, format!("{who} has `{}` open", path.display()))
        .hint("end it first: it would go on writing to the file that is put aside")
        .hint("`--in-place` without `--offline` goes back while the application runs, if SQLite can read the file")
}

/// Sees that no process has the file open, as far as this user may know.
fn is_unused(place: &Place) -> Result<(), Failure> {
    let me = std::process::id().to_string();
    let Ok(processes) = std::fs::read_dir("/proc") else { return Ok(()) };
    for process in processes.flatten() {
        let id = process.file_name().to_string_lossy().into_owned();
        if id == me || !id.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // Of another user's, or gone by now: what locks it has is seen below.
        let Ok(open) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let is_it = |file: std::fs::Metadata| (file.dev(), file.ino()) == place.file();
        if open.flatten().any(|entry| entry.path().metadata().is_ok_and(is_it)) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Err(in_use(place.path(), &format!("process {id} ({})", name.trim())));
        }
    }
    Ok(())
}

/// Has SQLite bring into the file what was committed and lies beside it, which it does only if nobody else has it open.
fn come_to_rest(path: &Path) -> Result<Rest, Failure> {
    match db::set_journal(path, false) {
        Ok(wal) => Ok(Rest::Whole { wal }),
        Err(error) if error.is_of_file() => Ok(Rest::Damaged),
        Err(error) if error.is_transient() => Err(in_use(path, SOMEBODY)),
        Err(error) => Err(crate::unread::by_db(path, &error)),
    }
}

/// What changes in a database that keeps no `-wal` with each commit: its length, and the counter in its head.
fn commits(file: &File) -> io::Result<(u64, [u8; 4])> {
    let mut counter = [0; 4];
    let length = file.metadata()?.len();
    if length >= COUNTER + counter.len() as u64 {
        file.read_exact_at(&mut counter, COUNTER)?;
    }
    Ok((length, counter))
}

/// Sees to it that a new database is one file, and has a `-wal` in future or has none.
fn alone(new: &Path, wal: bool) -> Result<(), Failure> {
    let cannot = |error: db::Error| Failure::caused(Kind::General, "cannot finish the new database", &error);
    db::set_journal(new, wal).map_err(cannot)?;
    let left = COMPANIONS.iter().find(|end| with(new, end).exists());
    left.map_or(Ok(()), |end| Err(Failure::new(Kind::General, format!("the new database still has its `{end}`"))))
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    fn database(path: &Path, value: i64) {
        let sql = format!("PRAGMA journal_mode = WAL; CREATE TABLE t (v); INSERT INTO t VALUES ({value})");
        Connection::open(path).unwrap().execute_batch(&sql).unwrap();
    }

    fn sum(path: &Path) -> i64 {
        Connection::open(path).unwrap().query_row("SELECT sum(v) FROM t", [], |row| row.get(0)).unwrap()
    }

    /// Whoever writes between the last look at the database and its lock has written to the file that stays.
    #[test]
    fn what_is_written_after_the_last_look_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("a.db"), folder.path().join("new.db"));
        database(&old, 1);
        database(&new, 2);
        for mode in ["DELETE", "WAL"] {
            let late = || {
                let sql = format!("PRAGMA journal_mode = {mode}; INSERT INTO t VALUES (10)");
                Connection::open(&old).unwrap().execute_batch(&sql).unwrap();
                Ok(())
            };
            let refused = Replacement::of(&old).unwrap().put(&new, late, || panic!("it is not replaced"));
            assert_eq!(refused.unwrap_err().kind(), Kind::Refused);
        }
        assert_eq!((sum(&old), sum(&new)), (21, 2));
        let kept = Replacement::of(&old).unwrap().put(&new, || Ok(()), || Ok(())).unwrap().unwrap();
        assert_eq!((sum(&old), sum(&kept), new.exists()), (2, 21, false));
    }
}
