//! One snapshot: what is written of it, and what can be read.

use super::pieces::{Pieces, stopped, stride};
use super::repo::{Repo, unreadable};
use super::{stored, unwritten};
use crate::db;
use crate::failure::{Failure, Kind};
use antiphon_core::snapshot::frame::{self, Packing};
use antiphon_core::snapshot::id::SnapshotId;
use antiphon_core::snapshot::layout::{Object, Part};
use antiphon_core::snapshot::manifest::{self, Image, Index, Manifest, Stored};
use antiphon_core::store::{LIST_MAX, Name, Put, Store};
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// How thoroughly a snapshot is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    /// Its manifest and index, and the sizes of all objects.
    Quick,
    /// All bytes.
    #[default]
    Hash,
    /// All bytes, put together and read by SQLite, table by table.
    Restore,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Objects, the manifest and the index among them.
    pub objects: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// Bytes of the database in them, where they were read.
    pub bytes: u64,
    /// Rows that were counted, where it was put together.
    pub rows: u64,
}

/// What is put into a store, and how.
pub(super) struct Writing<'a> {
    pub(super) repo: Repo<'a>,
    pub(super) packing: Packing,
    pub(super) parallel: usize,
    pub(super) stop: &'a AtomicBool,
    /// A part of it may be stored already.
    pub(super) goes_on: bool,
}

impl Writing<'_> {
    /// Stores the image and the state of a snapshot and then its manifest, which lacks only what is known by now.
    pub(super) fn write(&self, mut manifest: Manifest, image: &Path, state: &Path) -> Result<(Manifest, u64), Failure> {
        let (bytes, blake3) = hash(image)?;
        let put = self.put(manifest.id, image, state);
        // Who was stopped goes on with what he has put. Behind this, whether there is a manifest may not be known.
        if put.is_err() && !self.stop.load(Ordering::Relaxed) {
            self.take_back(manifest.id);
        }
        let (stored, total) = put?;
        manifest.image = Some(Image {
            bytes,
            blake3,
            method: self.packing.method,
            level: self.packing.level,
            sqlite: rusqlite::version().to_owned(),
        });
        manifest.index = Some(stored);
        manifest.took_ms = crate::clock::unix_ms().saturating_sub(manifest.created_ms);
        self.repo.commit(&manifest)?;
        // All of it was read back. That this is not noted takes nothing from it.
        if let Err(failure) = self.repo.vouch(manifest.id) {
            tracing::warn!(%failure, "a snapshot was found whole, and that can't be noted");
        }
        Ok((manifest, total))
    }

    /// Puts all that a manifest leads to; gives where that begins, and its bytes.
    fn put(&self, snapshot: SnapshotId, image: &Path, state: &Path) -> Result<(Stored, u64), Failure> {
        let traits = self.repo.store().traits();
        let traits = traits.map_err(|error| stored("cannot use the storage of snapshots", &error))?;
        let stride = stride(traits.max_object);
        let pieces = |part| Pieces {
            repo: self.repo,
            snapshot,
            part,
            parallel: self.parallel,
            stop: self.stop,
            goes_on: self.goes_on,
        };
        let index = Index {
            stride,
            image: pieces(Part::Image).store(image, stride, &self.packing)?,
            state: pieces(Part::State).store(state, stride, &self.packing)?,
        };
        let stored = pieces(Part::Index).put(0, &pack_index(&index)?)?;
        let total = index.image.iter().chain(&index.state).chain([&stored]).map(|stored| stored.bytes).sum();
        Ok((stored, total))
    }

    /// Makes room again where a part of a snapshot was put and the rest can't be: a store that is full would stay so. What
    /// can't be removed now belongs to nothing, and goes when that is old enough.
    fn take_back(&self, snapshot: SnapshotId) {
        let removed = self.repo.sizes(snapshot).and_then(|sizes| {
            let names: Vec<Name> = sizes.into_keys().collect();
            let remove = |names| self.repo.store().delete(names);
            names
                .chunks(LIST_MAX as usize)
                .try_for_each(remove)
                .map_err(|error| stored("cannot remove objects", &error))
        });
        if let Err(failure) = removed {
            tracing::debug!(%failure, "what was put of a snapshot is left there for a while");
        }
    }
}

fn pack_index(index: &Index) -> Result<Vec<u8>, Failure> {
    let cannot =
        |error: &(dyn std::error::Error + 'static)| Failure::caused(Kind::General, "cannot pack a snapshot", error);
    let text = serde_json::to_vec(index).map_err(|error| cannot(&error))?;
    let mut packed = Vec::new();
    for raw in text.chunks(frame::FRAME_BYTES) {
        frame::pack(raw, &Packing::default(), &mut packed).map_err(|error| cannot(&error))?;
    }
    Ok(packed)
}

/// Size and hash of a file.
fn hash(path: &Path) -> Result<(u64, String), Failure> {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path).map_err(|error| unwritten(path, &error))?;
    let bytes = std::io::copy(&mut file, &mut hasher).map_err(|error| unwritten(path, &error))?;
    Ok((bytes, hasher.finalize().to_hex().to_string()))
}

/// A snapshot that is read.
struct Reading<'a> {
    repo: Repo<'a>,
    manifest: &'a Manifest,
    parallel: usize,
}

/// Nobody stops what a command waits for.
static NEVER: AtomicBool = AtomicBool::new(false);

impl Reading<'_> {
    fn pieces(&self, part: Part) -> Pieces<'_> {
        let snapshot = self.manifest.id;
        Pieces { repo: self.repo, snapshot, part, parallel: self.parallel, stop: &NEVER, goes_on: false }
    }

    fn image(&self) -> Result<(&Image, &Stored), Failure> {
        self.manifest.image.as_ref().zip(self.manifest.index.as_ref()).ok_or_else(|| {
            Failure::new(Kind::Data, format!("snapshot {} holds no database of its own", self.manifest.id))
        })
    }

    fn index(&self) -> Result<Index, Failure> {
        let (_, stored) = self.image()?;
        let packed = self.pieces(Part::Index).get(0, stored)?;
        let bad =
            |error: String| Failure::new(Kind::Data, format!("the index of snapshot {}: {error}", self.manifest.id));
        let mut text = Vec::new();
        frame::unpack(&packed, |raw| {
            text.extend_from_slice(raw);
            Ok::<_, frame::Error>(())
        })
        .map_err(|error| bad(error.to_string()))?;
        serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))
    }

    /// Puts one part together in a new file.
    fn fetch(&self, part: Part, index: &Index, path: &Path) -> Result<(), Failure> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| unwritten(path, &error))?;
        self.pieces(part).fetch(index.of(part), index.stride, Some((path, &file)))?;
        file.sync_all().map_err(|error| unwritten(path, &error))
    }

    /// Puts the database together in a new file, and compares the whole.
    fn fetch_image(&self, index: &Index, path: &Path) -> Result<u64, Failure> {
        let (image, _) = self.image()?;
        self.fetch(Part::Image, index, path)?;
        fault!("snapshot-fetched");
        let (bytes, got) = hash(path)?;
        if bytes != image.bytes || got != image.blake3 {
            let error = manifest::Error::Hash { expected: image.blake3.clone(), got };
            return Err(unreadable(&error).context(format!("failed to download snapshot {}", self.manifest.id)));
        }
        Ok(bytes)
    }
}

/// Makes the index of a snapshot anew, if it is damaged or gone: it says the hashes of all objects, which are read for that,
/// and the manifest knows its own. Says whether that was needed.
///
/// # Errors
/// When the objects are not those that it was made of.
pub fn repair_index(repo: Repo<'_>, manifest: &Manifest, parallel: usize) -> Result<bool, Failure> {
    let reading = Reading { repo, manifest, parallel };
    let (_, wanted) = reading.image()?;
    match reading.index() {
        Ok(_) => return Ok(false),
        Err(failure) if matches!(failure.kind(), Kind::Data | Kind::Missing) => {}
        Err(failure) => return Err(failure),
    }
    let read = |part: Part| {
        let numbers = repo.numbers(manifest.id, part)?;
        numbers.into_iter().map(|number| reading.pieces(part).read(number)).collect::<Result<Vec<_>, Failure>>()
    };
    let image = read(Part::Image)?;
    let of = |objects: &[(Stored, u64)]| objects.iter().map(|(stored, _)| stored.clone()).collect::<Vec<_>>();
    let state = of(&read(Part::State)?);
    let traits = repo.store().traits().map_err(|error| stored("cannot use the storage of snapshots", &error))?;
    // All objects but the last hold as much; where there is but one, nobody knows how much it might have held.
    let strides = [image.first().map_or(0, |(_, bytes)| *bytes), stride(traits.max_object), stride(u64::MAX)];
    for stride in strides {
        let packed = pack_index(&Index { stride, image: of(&image), state: state.clone() })?;
        if wanted.check(&packed).is_ok() {
            reading.pieces(Part::Index).put(0, &packed)?;
            return Ok(true);
        }
    }
    Err(Failure::new(
        Kind::Data,
        format!("the index of snapshot {} can't be made anew: objects of it are not as they were", manifest.id),
    )
    .hint("use another snapshot: `antiphon snapshot list`; a copy of the storage may have what is missing here"))
}

/// Puts all objects of a snapshot again, each as it was made, by way of `to`, which is the store that it lies in; gives their
/// bytes.
///
/// # Errors
/// When one of them is not as it was made, or the store refuses; those before it were put.
pub(super) fn put_again(
    repo: Repo<'_>,
    manifest: &Manifest,
    to: &dyn Store,
    stop: &AtomicBool,
) -> Result<u64, Failure> {
    let reading = Reading { repo, manifest, parallel: 1 };
    let index = reading.index()?;
    let (_, of_index) = reading.image()?;
    let mut bytes = 0;
    let parts =
        [(Part::Image, &*index.image), (Part::State, &*index.state), (Part::Index, std::slice::from_ref(of_index))];
    for (part, objects) in parts {
        for (number, wanted) in (0..).zip(objects) {
            if stop.load(Ordering::Relaxed) {
                return Err(stopped());
            }
            // What was damaged on its way here must not take the place of what is whole there.
            let object = reading.pieces(part).get(number, wanted)?;
            let name = repo.name(&Object::Payload { snapshot: manifest.id, part, number })?;
            fault!("snapshot-age");
            crate::storage::put(to, &name, &object, Put::Replace)
                .map_err(|error| stored(format!("cannot put `{name}` again"), &error))?;
            bytes += wanted.bytes;
        }
    }
    fault!("snapshot-aged");
    Ok(bytes)
}

/// Looks at a snapshot without changing anything; `scratch` is a folder where one can be put together.
///
/// # Errors
/// When something of it is not as it was made.
pub fn check(
    repo: Repo<'_>,
    manifest: &Manifest,
    level: Level,
    parallel: usize,
    scratch: &Path,
) -> Result<Checked, Failure> {
    let reading = Reading { repo, manifest, parallel };
    let index = reading.index()?;
    let objects = index.image.iter().chain(&index.state);
    let mut checked = Checked {
        objects: index.image.len() as u64 + index.state.len() as u64 + 2,
        stored_bytes: objects.map(|stored| stored.bytes).sum(),
        ..Checked::default()
    };
    match level {
        Level::Quick => sizes(&reading, &index)?,
        Level::Hash => {
            for part in [Part::Image, Part::State] {
                checked.bytes += reading.pieces(part).fetch(index.of(part), index.stride, None)?;
            }
        }
        Level::Restore => {
            let (image, state) = (scratch.join("image.db"), scratch.join("state.db"));
            checked.bytes = reading.fetch_image(&index, &image)?;
            reading.fetch(Part::State, &index, &state)?;
            checked.rows = count(&manifest.tables, &named(manifest), &image, true)?;
            db::assemble(&image, &state).map_err(|error| unassembled(&error))?;
        }
    }
    Ok(checked)
}

/// Whether all objects are there, and as large as they should be.
fn sizes(reading: &Reading<'_>, index: &Index) -> Result<(), Failure> {
    let id = reading.manifest.id;
    let found = reading.repo.sizes(id)?;
    for part in [Part::Image, Part::State] {
        for (number, stored) in (0..).zip(index.of(part)) {
            let name = reading.repo.name(&Object::Payload { snapshot: id, part, number })?;
            match found.get(&name) {
                Some(size) if *size == stored.bytes => {}
                Some(size) => {
                    return Err(Failure::new(
                        Kind::Data,
                        format!("object `{name}` of snapshot {id} has {size} bytes, and {} were put", stored.bytes),
                    ));
                }
                None => {
                    return Err(Failure::new(Kind::Data, format!("object `{name}` of snapshot {id} is missing"))
                        .hint("use another snapshot: `antiphon snapshot list`"));
                }
            }
        }
    }
    Ok(())
}

/// What SQLite makes of the database: its rows, table by table, are as many as they were.
pub(super) fn count(tables: &[manifest::Table], what: &str, image: &Path, thoroughly: bool) -> Result<u64, Failure> {
    let bad =
        |source| unusable(format!("{what} can't be read"), &db::Error::Sqlite { doing: "count its rows", source });
    // Whoever can write to the storage may have made it, with hashes that hold.
    let conn = db::distrusting(image).map_err(|error| unusable(format!("{what} can't be read"), &error))?;
    let sql = if thoroughly { "PRAGMA integrity_check(1)" } else { "PRAGMA quick_check(1)" };
    let said: String = conn.query_row(sql, [], |row| row.get(0)).map_err(bad)?;
    if said != "ok" {
        return Err(Failure::new(Kind::Data, format!("{what} is damaged: {said}")));
    }
    let mut rows = 0;
    for table in tables {
        let is_table = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
        if !conn.query_row(is_table, [&table.name], |row| row.get::<_, bool>(0)).map_err(bad)? {
            return Err(Failure::new(Kind::Data, format!("{what} has no table `{}`", table.name)));
        }
        let sql = format!("SELECT count(*) FROM main.{}", antiphon_core::schema::quote(&table.name));
        let found: i64 = conn.query_row(&sql, [], |row| row.get(0)).map_err(bad)?;
        let found = u64::try_from(found).unwrap_or_default();
        if found != table.rows {
            return Err(Failure::new(
                Kind::Data,
                format!("table `{}` of {what} has {found} rows, and {} were put", table.name, table.rows),
            ));
        }
        rows += found;
    }
    Ok(rows)
}

/// What SQLite can't do with a snapshot: that lies in the snapshot, or in the machine that reads it, which says nothing of it.
fn unusable(what: impl Into<String>, error: &db::Error) -> Failure {
    let kind = if error.is_of_file() { Kind::Data } else { Kind::General };
    Failure::caused(kind, what, error)
}

fn unassembled(error: &db::Error) -> Failure {
    unusable("a snapshot can't be put together", error)
}

/// As people read it amid a sentence.
fn named(manifest: &Manifest) -> String {
    format!("snapshot {}", manifest.id)
}

/// Fetches the database of a full snapshot into a new file, and what goes with its rows into another, if there is one to
/// be; gives how many rows there are.
///
/// # Errors
/// When something of the snapshot is not as it was made.
pub(super) fn fetch(
    repo: Repo<'_>,
    manifest: &Manifest,
    parallel: usize,
    image: &Path,
    state: Option<&Path>,
) -> Result<u64, Failure> {
    let reading = Reading { repo, manifest, parallel };
    let index = reading.index()?;
    reading.fetch_image(&index, image)?;
    if let Some(state) = state {
        reading.fetch(Part::State, &index, state)?;
    }
    count(&manifest.tables, &named(manifest), image, false)
}

/// Puts a snapshot together in a folder, with all that goes with its rows; gives the file.
///
/// # Errors
/// When something of it is not as it was made.
pub(super) fn assemble(
    repo: Repo<'_>,
    manifest: &Manifest,
    parallel: usize,
    folder: &Path,
) -> Result<PathBuf, Failure> {
    let (image, state) = (folder.join("image.db"), folder.join("state.db"));
    let reading = Reading { repo, manifest, parallel };
    let index = reading.index()?;
    reading.fetch_image(&index, &image)?;
    reading.fetch(Part::State, &index, &state)?;
    count(&manifest.tables, &named(manifest), &image, false)?;
    db::assemble(&image, &state).map_err(|error| unassembled(&error))?;
    Ok(image)
}

/// Rows of each of these tables.
pub(super) fn rows(image: &Path, tables: &[(String, u64)]) -> Result<Vec<manifest::Table>, rusqlite::Error> {
    let conn = Connection::open_with_flags(image, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let count = |(name, schema): &(String, u64)| {
        let sql = format!("SELECT count(*) FROM main.{}", antiphon_core::schema::quote(name));
        let rows: i64 = conn.query_row(&sql, [], |row| row.get(0))?;
        Ok(manifest::Table { name: name.clone(), rows: u64::try_from(rows).unwrap_or_default(), schema: *schema })
    };
    tables.iter().map(count).collect()
}

/// Tables of the database that are none of these.
pub(super) fn others(image: &Path, tables: &[(String, u64)]) -> Result<Vec<String>, rusqlite::Error> {
    let conn = Connection::open_with_flags(image, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = conn.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
    )?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    Ok(names.into_iter().filter(|name| !tables.iter().any(|(table, _)| table == name)).collect())
}

/// A name for a snapshot that begins now.
pub(super) fn new_id() -> Result<SnapshotId, Failure> {
    let mut chance = [0; 16];
    getrandom::fill(&mut chance)
        .map_err(|error| Failure::new(Kind::General, format!("no randomness for the name of a snapshot: {error}")))?;
    Ok(SnapshotId::new(crate::clock::unix_ms(), u128::from_le_bytes(chance)))
}

#[cfg(test)]
mod tests {
    use super::super::expired::tests::manifest;
    use super::super::segment::tests::Small;
    use super::*;
    use antiphon_core::store::{self, ErrorKind, StoreError, Traits};
    use rusqlite::ffi;

    #[test]
    fn what_the_machine_lacks_says_nothing_of_a_snapshot() {
        let kind = |code| {
            let source = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            unusable("it", &db::Error::Sqlite { doing: "read it", source }).kind()
        };
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR, ffi::SQLITE_CANTOPEN, ffi::SQLITE_NOMEM, ffi::SQLITE_READONLY]
        {
            assert_eq!(kind(code), Kind::General, "{code}");
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB] {
            assert_eq!(kind(code), Kind::Data, "{code}");
        }
    }

    /// A store that has no room for a third object.
    #[derive(Default)]
    struct Full(Small);

    impl Store for Full {
        fn traits(&self) -> Result<Traits, StoreError> {
            self.0.traits()
        }

        fn check(&self) -> Result<(), StoreError> {
            Ok(())
        }

        fn put(&self, name: &Name, body: &[u8], put: Put) -> Result<(), StoreError> {
            if self.0.0.lock().unwrap().len() > 1 {
                return Err(StoreError::new(ErrorKind::Permanent, "there is no room"));
            }
            self.0.put(name, body, put)
        }

        fn get(&self, name: &Name, part: Option<store::Part>) -> Result<Vec<u8>, StoreError> {
            self.0.get(name, part)
        }

        fn stat(&self, name: &Name) -> Result<store::Object, StoreError> {
            self.0.stat(name)
        }

        fn list(&self, prefix: &str, after: Option<&Name>, limit: u32) -> Result<Vec<store::Object>, StoreError> {
            self.0.list(prefix, after, limit)
        }

        fn delete(&self, names: &[Name]) -> Result<(), StoreError> {
            self.0.delete(names)
        }
    }

    #[test]
    fn what_was_put_in_vain_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let (image, state) = (folder.path().join("image.db"), folder.path().join("state.db"));
        std::fs::write(&image, vec![7; 3 * usize::try_from(stride(u64::MAX)).unwrap()]).unwrap();
        std::fs::write(&state, b"rows").unwrap();
        let store = Full::default();
        let repo = Repo::new(&store, "c0ffee");
        let writing =
            Writing { repo, packing: Packing::default(), parallel: 1, stop: &AtomicBool::new(false), goes_on: false };
        let failure = writing.write(manifest(&repo, 1, 1, None), &image, &state).unwrap_err();
        assert!(failure.to_string().contains("there is no room"), "{failure}");
        assert_eq!(store.0.0.lock().unwrap().len(), 0);
    }
}
