//! The storage `file`: objects are files in the one folder that the host lends.
//!
//! An object is written beside its place under a name with a `~`, which no object's name has, made durable, and then
//! moved there: it is seen whole or not at all, and what was acknowledged survives a power cut. Who is cut off leaves
//! such a file behind, and `check` removes those that are old.

mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "storage-file" });
    use super::Plugin;
    export!(Plugin);
}
mod durable;
mod listing;

use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bindings::antiphon::plugin::objects::{Error, Kind, Object};
use bindings::antiphon::plugin::types::Settings;
use bindings::exports::antiphon::plugin::metadata::{self, Info};
use bindings::exports::antiphon::plugin::storage::{self, Traits};
use durable::{read, write};

/// The folder that the host lends.
const ROOT: &str = "/";

/// After this long nobody writes a file any more that lies beside its place.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);

/// How often a folder may be removed, empty, between being made and being written to.
const TRIES: u32 = 8;

struct Plugin;

impl metadata::Guest for Plugin {
    fn describe() -> Info {
        Info {
            name: "file".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            description: "objects as files in one folder".into(),
            settings_schema: r#"{
  "type": "object",
  "properties": { "path": { "type": "string", "description": "the folder" } },
  "additionalProperties": false
}"#
            .into(),
            laws: 1,
        }
    }
}

impl storage::Guest for Plugin {
    type Session = Session;
}

/// There is nothing to remember: the folder is where it is.
struct Session;

impl storage::GuestSession for Session {
    fn open(settings: Settings) -> Result<storage::Session, Error> {
        match settings.first() {
            // The folder is lent by the host, which is told where it is.
            Some((name, _)) => Err(permanent(format!("there is no setting `{name}`; there is only `path`"))),
            None => Ok(storage::Session::new(Self)),
        }
    }

    fn traits(&self) -> Traits {
        Traits { max_object: 32 << 20, put_if_absent: true, ranged_get: true, atomic_put: true }
    }

    fn check(&self) -> Result<(), Error> {
        let aside = beside(Path::new(ROOT));
        write(&aside, b"check").map_err(|err| failed("write to", "the folder", &err))?;
        fs::remove_file(&aside).map_err(|err| failed("remove a file from", "the folder", &err))?;
        sweep(Path::new(ROOT)).map_err(|err| failed("look through", "the folder", &err))
    }

    fn put(&self, key: String, body: Vec<u8>, if_absent: bool) -> Result<(), Error> {
        let path = place(&key);
        let folder = path.parent().unwrap_or(Path::new(ROOT));
        let mut tries = 0;
        loop {
            match put(&path, folder, &body, if_absent) {
                // Who removes the last object of a folder removes the folder.
                Err(err) if err.kind() == io::ErrorKind::NotFound && tries < TRIES => tries += 1,
                put => return put.map_err(|err| failed("put", &quoted(&key), &err)),
            }
        }
    }

    fn get(&self, key: String, offset: u64, length: Option<u64>) -> Result<Vec<u8>, Error> {
        read(&place(&key), offset, length).map_err(|err| missing("get", &key, &err))
    }

    fn stat(&self, key: String) -> Result<Object, Error> {
        listing::object(key.clone(), &place(&key)).map_err(|err| missing("stat", &key, &err))
    }

    fn list_keys(&self, prefix: String, after: Option<String>, limit: u32) -> Result<Vec<Object>, Error> {
        listing::list(Path::new(ROOT), &prefix, after.as_deref(), limit as usize)
            .map_err(|err| failed("list", &quoted(&prefix), &err))
    }

    fn delete(&self, keys: Vec<String>) -> Result<(), Error> {
        let mut folders: Vec<PathBuf> = Vec::new();
        for key in keys {
            let path = place(&key);
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(err) if is_missing(&err) => continue,
                Err(err) => return Err(failed("delete", &quoted(&key), &err)),
            }
            if let Some(folder) = path.parent().filter(|folder| folders.last().is_none_or(|last| last != folder)) {
                folders.push(folder.to_path_buf());
            }
        }
        for folder in folders {
            prune(&folder);
        }
        Ok(())
    }
}

fn place(key: &str) -> PathBuf {
    Path::new(ROOT).join(key)
}

/// A name beside others that nothing else has.
fn beside(folder: &Path) -> PathBuf {
    // Each of these has a seed of its own, from the host's randomness.
    let (one, two) = (RandomState::new().hash_one(0), RandomState::new().hash_one(1));
    folder.join(format!("~{one:016x}{two:016x}"))
}

fn put(path: &Path, folder: &Path, body: &[u8], if_absent: bool) -> io::Result<()> {
    make(folder)?;
    let aside = beside(folder);
    let placed = write(&aside, body).and_then(|()| {
        if if_absent {
            // A link fails if the name is taken, a rename doesn't.
            fs::hard_link(&aside, path)?;
            fs::remove_file(&aside)
        } else {
            fs::rename(&aside, path)
        }
    });
    if placed.is_err() {
        // If that fails as well, the next check removes it.
        let _ = fs::remove_file(&aside);
        return placed;
    }
    sync(folder)
}

/// Makes a folder and those above it, each durable before anything is put into it.
fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().unwrap_or(Path::new(ROOT));
    make(above)?;
    match fs::create_dir(folder) {
        Err(err) if err.kind() != io::ErrorKind::AlreadyExists => Err(err),
        _ => sync(above),
    }
}

/// Names in a folder outlast a power cut once the folder itself was synced.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes a folder and those above it, as far as they are empty.
fn prune(folder: &Path) {
    let mut folder = folder;
    while folder != Path::new(ROOT) && fs::remove_dir(folder).is_ok() {
        let Some(above) = folder.parent() else { return };
        folder = above;
    }
}

/// Removes what those left behind who were cut off.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            sweep(&path)?;
        } else if listing::is_aside(&entry.file_name()) {
            let old = entry.metadata()?.modified()?;
            if SystemTime::now().duration_since(old).is_ok_and(|age| age > LEFT_BEHIND) {
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}

fn milliseconds(time: SystemTime) -> Option<u64> {
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

fn quoted(key: &str) -> String {
    format!("`{key}`")
}

/// A name that leads through an object is the name of none.
fn is_missing(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory)
}

fn missing(what: &str, key: &str, err: &io::Error) -> Error {
    let mut error = failed(what, &quoted(key), err);
    if is_missing(err) {
        error.kind = Kind::NotFound;
    }
    error
}

/// The kind decides whether the host tries again.
fn failed(what: &str, which: &str, err: &io::Error) -> Error {
    let kind = match err.kind() {
        io::ErrorKind::NotFound => Kind::NotFound,
        io::ErrorKind::AlreadyExists => Kind::Exists,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
        io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::Interrupted
        | io::ErrorKind::ResourceBusy => Kind::Temporary,
        _ => Kind::Permanent,
    };
    Error { kind, message: format!("cannot {what} {which}: {err}"), retry_after_ms: None }
}

fn permanent(message: String) -> Error {
    Error { kind: Kind::Permanent, message, retry_after_ms: None }
}
