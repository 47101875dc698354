//! `folder-store`: keeps objects as files in one folder.
//!
//! The host lends one folder, and `/` is it. An object is written beside its place and linked there, so that it is seen
//! whole or not at all. Its file name has a `~` until then; the host puts none into a key.

mod bindings {
    // What the host and this component say to each other is described in `wit/`; this makes Rust of it.
    wit_bindgen::generate!({ path: "wit", world: "storage-file" });
    use super::Plugin;
    export!(Plugin);
}

use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use bindings::antiphon::plugin::objects::{Error, Kind, Object};
use bindings::antiphon::plugin::types::Settings;
use bindings::exports::antiphon::plugin::metadata::{self, Info};
use bindings::exports::antiphon::plugin::storage::{self, Traits};

struct Plugin;

impl metadata::Guest for Plugin {
    fn describe() -> Info {
        Info {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            description: env!("CARGO_PKG_DESCRIPTION").into(),
            settings_schema: r#"{
  "type": "object",
  "properties": { "folder": { "type": "string", "default": "/", "description": "where in the lent folder" } },
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

/// An open storage: where its files are.
struct Session {
    folder: PathBuf,
}

impl storage::GuestSession for Session {
    fn open(settings: Settings) -> Result<storage::Session, Error> {
        let mut folder = PathBuf::from("/");
        for (name, value) in settings {
            match name.as_str() {
                "folder" => folder.push(value),
                _ => return Err(permanent(format!("there is no setting `{name}`; there is only `folder`"))),
            }
        }
        Ok(storage::Session::new(Self { folder }))
    }

    fn traits(&self) -> Traits {
        Traits { max_object: 32 << 20, put_if_absent: true, ranged_get: true, atomic_put: true }
    }

    fn check(&self) -> Result<(), Error> {
        let probe = self.folder.join("check~");
        fs::create_dir_all(&self.folder)
            .and_then(|()| fs::write(&probe, ""))
            .map_err(|err| failed("write", "", &err))?;
        fs::remove_file(&probe).map_err(|err| failed("remove", "", &err))
    }

    fn put(&self, key: String, body: Vec<u8>, if_absent: bool) -> Result<(), Error> {
        let path = self.folder.join(&key);
        // Another instance may be writing the same object: each call has a name of its own.
        let aside = self.folder.join(format!("{key}~{:016x}", RandomState::new().hash_one(0)));
        let place = || {
            fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
            fs::write(&aside, body)?;
            // A link fails if the name is taken, a rename doesn't.
            if if_absent {
                fs::hard_link(&aside, &path).and_then(|()| fs::remove_file(&aside))
            } else {
                fs::rename(&aside, &path)
            }
        };
        place().map_err(|err| {
            let _ = fs::remove_file(&aside);
            failed("put", &key, &err)
        })
    }

    fn get(&self, key: String, offset: u64, length: Option<u64>) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        let mut read = || {
            let mut file = File::open(self.folder.join(&key))?;
            file.seek(SeekFrom::Start(offset))?;
            file.take(length.unwrap_or(u64::MAX)).read_to_end(&mut body)
        };
        read().map_err(|err| failed("get", &key, &err))?;
        Ok(body)
    }

    fn stat(&self, key: String) -> Result<Object, Error> {
        object(&self.folder, key.clone()).map_err(|err| failed("stat", &key, &err))
    }

    fn list_keys(&self, prefix: String, after: Option<String>, limit: u32) -> Result<Vec<Object>, Error> {
        let mut keys = Vec::new();
        walk(&self.folder, "", &mut keys).map_err(|err| failed("list", &prefix, &err))?;
        keys.retain(|key| key.starts_with(&prefix) && after.as_ref().is_none_or(|after| key > after));
        keys.sort();
        keys.truncate(limit as usize);
        keys.into_iter().map(|key| self.stat(key)).collect()
    }

    fn delete(&self, keys: Vec<String>) -> Result<(), Error> {
        for key in keys {
            match fs::remove_file(self.folder.join(&key)) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(failed("delete", &key, &err)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn object(folder: &Path, key: String) -> io::Result<Object> {
    let known = fs::metadata(folder.join(&key))?;
    if known.is_dir() {
        // Others have keys below it.
        return Err(io::ErrorKind::NotFound.into());
    }
    let modified = known.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Ok(Object { key, size: known.len(), modified_ms: modified.map(|time| time.as_millis() as u64), etag: None })
}

/// The keys of all files below a folder.
fn walk(folder: &Path, above: &str, keys: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let key = format!("{above}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &format!("{key}/"), keys)?;
        } else if !key.contains('~') {
            keys.push(key);
        }
    }
    Ok(())
}

/// The kind decides whether the host tries again.
fn failed(what: &str, key: &str, err: &io::Error) -> Error {
    let kind = match err.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => Kind::NotFound,
        io::ErrorKind::AlreadyExists => Kind::Exists,
        io::ErrorKind::PermissionDenied => Kind::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::Interrupted => Kind::Temporary,
        _ => Kind::Permanent,
    };
    Error { kind, message: format!("cannot {what} `{key}`: {err}"), retry_after_ms: None }
}

fn permanent(message: String) -> Error {
    Error { kind: Kind::Permanent, message, retry_after_ms: None }
}
