//! The storage `webdav`: objects are files in a folder of a WebDAV server.
//!
//! An object is put beside its place, under a name with a `~`, which no object's name has, and moved there. Whether a
//! server moves in one step is its own affair, and so is what it does with two that want to be the first: nothing is
//! promised of either. Folders are made when they are missing and never removed, for removing one removes all in it.

mod folder;
mod multistatus;
mod place;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use http::Response;
use http::request::Builder;
use http_client::{
    Client, Describe, Error, GuestSession, Info, Kind, OBJECT_BYTES_MAX, Object, Seen, Settings, Storage, Traits,
    aside, came_back, failed, info, read, taken, wait,
};
use opendal_core::{Buffer, ErrorKind, Operator};

use folder::Wanted;
use place::{Place, permanent};

/// What is told of a folder with some ten thousand objects.
const LISTING_BYTES_MAX: usize = 16 << 20;
/// How many requests one step may take; redirects are among them.
const REQUESTS_MAX: usize = 16;
/// How often a move is tried where others move things to the same place.
const MOVES_MAX: usize = 8;
/// How often an object is read that is being replaced.
const READS_MAX: usize = 4;
/// After so many milliseconds nobody writes any more what lies beside its place.
const LEFT_BEHIND_MS: u64 = 24 * 3600 * 1000;

struct Plugin;

http_client::bindings::export!(Plugin with_types_in http_client::bindings);

impl Describe for Plugin {
    fn describe() -> Info {
        info("webdav", env!("CARGO_PKG_VERSION"), "objects as files on a WebDAV server", include_str!("settings.json"))
    }
}

impl Storage for Plugin {
    type Session = Session;
}

struct Session {
    place: Place,
    client: Client,
    files: Operator,
}

/// What a request is about: what its failures mean depends on that.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// What is there; that nothing is, is an answer.
    Look,
    /// To make a folder; that there is one already is fine.
    Make,
    /// To move something there; who can't says why by a status.
    Move,
}

impl Session {
    /// Sends a request that opendal knows nothing of.
    pub(crate) fn send(
        &self,
        what: &str,
        request: Builder,
        body: Buffer,
        ask: Ask,
    ) -> Result<Response<bytes::Bytes>, Error> {
        self.client.begin(REQUESTS_MAX, LISTING_BYTES_MAX);
        let request = request.body(body).map_err(|error| permanent(format!("cannot {what}: {error}")))?;
        let answer = self.client.send(request).map_err(|error| failed(&self.client, what, &error, told))?;
        let fine = match (ask, answer.status().as_u16()) {
            (_, 200..=299) | (Ask::Look, 400 | 404) | (Ask::Make, 405 | 409) => true,
            (Ask::Move, 404 | 409 | 412 | 423 | 500) => true,
            _ => false,
        };
        if fine {
            return Ok(answer);
        }
        let error = opendal_core::Error::new(ErrorKind::Unexpected, "it failed");
        Err(failed(&self.client, what, &error, told))
    }

    /// Asks by way of opendal.
    fn ask<R>(
        &self,
        what: &str,
        bytes_max: usize,
        work: impl AsyncFnOnce(&Operator) -> opendal_core::Result<R>,
    ) -> Result<R, Error> {
        self.client.begin(REQUESTS_MAX, bytes_max);
        wait(work(&self.files)).map_err(|error| failed(&self.client, what, &error, told))
    }

    fn read(&self, what: &str, key: &str, offset: u64, length: Option<u64>) -> Result<Vec<u8>, Error> {
        let read =
            self.ask(what, OBJECT_BYTES_MAX + 1, async |files| read(&self.client, files, key, offset, length).await);
        read.map(|body| Vec::from(body.to_bytes()))
    }

    fn write(&self, what: &str, key: &str, body: &Buffer) -> Result<(), Error> {
        let written = |body: Buffer| self.ask(what, LISTING_BYTES_MAX, async |files| files.write(key, body).await);
        let Err(error) = written(body.clone()) else { return Ok(()) };
        // There is no folder to put it in; of most servers that is a conflict.
        match self.client.seen().map(|seen| seen.status) {
            Some(404 | 409 | 403) => {
                let made = self.make_folders(what, key);
                made.and_then(|()| written(body.clone()).map(drop)).map_err(|error| match error.kind {
                    // It is not the object that there is not.
                    Kind::NotFound => {
                        let message = format!("{}; see `url`", error.message);
                        Error { kind: Kind::Permanent, message, ..error }
                    }
                    _ => error,
                })
            }
            _ => Err(error),
        }
    }

    fn make_folders(&self, what: &str, key: &str) -> Result<(), Error> {
        for folder in self.place.folders(key) {
            let made = self.send(what, self.place.about_folder("MKCOL", &folder), Buffer::new(), Ask::Make);
            let Err(error) = made else { continue };
            // Of two that make it at once, some servers refuse one.
            let there = self.place.about_folder("PROPFIND", &folder).header("depth", "0");
            match self.send(what, there, Buffer::new(), Ask::Look) {
                Ok(answer) if answer.status().is_success() => {}
                _ => return Err(error),
            }
        }
        Ok(())
    }

    /// Moves what was put beside its place to its place. Gives whether that was free, where that matters.
    fn shift(&self, what: &str, from: &str, to: &str, if_absent: bool) -> Result<bool, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let request = self.place.request("MOVE", from).header("destination", self.place.address(to));
            let request = request.header("overwrite", if if_absent { "F" } else { "T" });
            let answer = self.send(what, request, Buffer::new(), Ask::Move)?;
            match answer.status().as_u16() {
                200..=299 => return Ok(true),
                412 if if_absent => return Ok(false),
                // Somebody else has just taken away what it was to replace, or put something there.
                _ if tries < MOVES_MAX => {}
                _ => {
                    let error = opendal_core::Error::new(ErrorKind::Unexpected, "it failed");
                    let error = failed(&self.client, what, &error, told);
                    let kind = if error.kind == Kind::NotFound { Kind::Temporary } else { error.kind };
                    return Err(Error { kind, ..error });
                }
            }
        }
    }

    fn discard(&self, what: &str, key: &str) -> Result<(), Error> {
        self.ask(what, LISTING_BYTES_MAX, async |files| files.delete(key).await)
    }

    /// Removes what those left behind who were cut off.
    fn sweep(&self, what: &str, folder: &str, now_ms: u64) -> Result<(), Error> {
        for entry in self.folder(what, folder)? {
            let name = entry.key.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            if entry.folder {
                // Names of objects lead through such folders only; and no folder holds itself for ever.
                if http_client::is_name(entry.key.trim_end_matches('/')) {
                    self.sweep(what, &entry.key, now_ms)?;
                }
            } else if name.starts_with('~')
                && name.len() == 33
                && entry.object.modified_ms.is_some_and(|at| at.saturating_add(LEFT_BEHIND_MS) < now_ms)
            {
                self.discard(what, &entry.key)?;
            }
        }
        Ok(())
    }
}

impl GuestSession for Session {
    fn open(settings: Settings) -> Result<http_client::Session, Error> {
        let place = Place::new(settings)?;
        let client = Client::default();
        let files = place.open(&client)?;
        Ok(http_client::Session::new(Self { place, client, files }))
    }

    fn traits(&self) -> Traits {
        Traits { max_object: OBJECT_BYTES_MAX as u64, put_if_absent: false, ranged_get: true, atomic_put: false }
    }

    fn check(&self) -> Result<(), Error> {
        let (what, key) = ("write to the folder", aside());
        self.write(what, &key, &Buffer::from("check"))?;
        let read = self.get(key.clone(), 0, None);
        self.discard("remove an object from the folder", &key)?;
        came_back("read from the folder", read, b"check")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.sweep("look through the folder", "", u64::try_from(now.as_millis()).unwrap_or_default())
    }

    fn put(&self, key: String, body: Vec<u8>, if_absent: bool) -> Result<(), Error> {
        let what = format!("put `{key}`");
        let folder = key.rfind('/').map_or("", |at| key.split_at(at + 1).0);
        let beside = format!("{folder}{}", aside());
        let moved =
            self.write(&what, &beside, &Buffer::from(body)).and_then(|()| self.shift(&what, &beside, &key, if_absent));
        match moved {
            Ok(true) => Ok(()),
            Ok(false) => {
                // If that fails, the next check removes it.
                let _ = self.discard(&what, &beside);
                Err(taken(&what))
            }
            Err(error) => {
                let _ = self.discard(&what, &beside);
                Err(error)
            }
        }
    }

    fn get(&self, key: String, offset: u64, length: Option<u64>) -> Result<Vec<u8>, Error> {
        let what = format!("get `{key}`");
        if length == Some(0) {
            return self.stat(key).map(|_| Vec::new());
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.read(&what, &key, offset, length) {
                Ok(body) => return Ok(body),
                Err(error) => error,
            };
            match self.client.seen().map(|seen| seen.status) {
                // It ends before that.
                Some(416) => return Ok(Vec::new()),
                // Of a folder, which is no object, servers say this and that.
                Some(300..=399 | 403 | 405 | 409 | 501) => match self.look(&what, &key) {
                    // It was being replaced just then.
                    Ok(Some(entry)) if !entry.folder && tries < READS_MAX => {}
                    Ok(Some(entry)) if !entry.folder => return Err(error),
                    Ok(_) => return Err(missing(&what)),
                    Err(_) => return Err(error),
                },
                _ => return Err(error),
            }
        }
    }

    fn stat(&self, key: String) -> Result<Object, Error> {
        let what = format!("look at `{key}`");
        match self.look(&what, &key)? {
            Some(entry) if !entry.folder => Ok(entry.object),
            _ => Err(missing(&what)),
        }
    }

    fn list_keys(&self, prefix: String, after: Option<String>, limit: u32) -> Result<Vec<Object>, Error> {
        let folder = prefix.rfind('/').map_or("", |at| prefix.split_at(at + 1).0);
        let wanted = Wanted { prefix: &prefix, after: after.as_deref(), limit: limit as usize };
        let mut found = Vec::new();
        self.walk(&format!("list what begins with `{prefix}`"), folder, &wanted, &mut found)?;
        found.truncate(limit as usize);
        Ok(found)
    }

    fn delete(&self, keys: Vec<String>) -> Result<(), Error> {
        // To delete a folder is to delete all in it: only what is seen to be an object is deleted.
        let mut folders: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
        for key in &keys {
            folders.entry(key.rfind('/').map_or("", |at| key.split_at(at + 1).0)).or_default().push(key);
        }
        for (folder, keys) in folders {
            let there: BTreeSet<String> = match keys[..] {
                [key] => {
                    let found = self.look(&format!("delete `{key}`"), key)?;
                    found.into_iter().filter(|entry| !entry.folder).map(|entry| entry.key).collect()
                }
                _ => {
                    let found = self.folder(&format!("delete objects in `{folder}`"), folder)?;
                    found.into_iter().filter(|entry| !entry.folder).map(|entry| entry.key).collect()
                }
            };
            for key in keys.into_iter().filter(|key| there.contains(*key)) {
                self.discard(&format!("delete `{key}`"), key)?;
            }
        }
        Ok(())
    }
}

fn missing(what: &str) -> Error {
    Error { kind: Kind::NotFound, message: format!("cannot {what}: there is no such object"), retry_after_ms: None }
}

/// What an answer means, if WebDAV gives it a meaning of its own.
fn told(seen: &Seen) -> Option<(Kind, String)> {
    let status = seen.status;
    let (kind, why) = match status {
        401 => (Kind::Denied, "does not know this login; see `login` and `secret`, or `token`"),
        403 => (Kind::Denied, "does not allow this login to do that"),
        405 => (Kind::Permanent, "speaks no WebDAV there; see `url`"),
        409 => (Kind::Permanent, "has no folder for that, and makes none; see `url` and `dir`"),
        _ => return None,
    };
    Some((kind, format!("{why} (status {status})")))
}
