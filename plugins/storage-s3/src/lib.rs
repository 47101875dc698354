//! The storage `s3`: objects in a bucket, under a prefix if one is set.
//!
//! The bucket's own language is opendal's. What it answers to what fails is looked at here, where it is still whole: its
//! code says more than a status does. A bucket in another region than was thought says which, and is asked there.

mod place;
mod trouble;

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::{Context, Waker};

use http_client::{
    Client, Describe, Error, GuestSession, Info, Kind, OBJECT_BYTES_MAX, Object, Settings, Storage, Traits, aside,
    came_back, failed, info, is_name, read, taken, wait,
};
use opendal_core::Operator;

use place::Place;
use trouble::{region, told};

/// What a listing of a thousand objects has, and some more.
const LISTING_BYTES_MAX: usize = 8 << 20;
/// How many requests a call may take, but for listings.
const REQUESTS_MAX: usize = 16;
/// A bucket may be full of what is no object of ours.
const PAGES_MAX: usize = 256;
/// How many keys are removed at once at most.
const DELETED_MAX: usize = 1000;

struct Plugin;

http_client::bindings::export!(Plugin with_types_in http_client::bindings);

impl Describe for Plugin {
    fn describe() -> Info {
        info("s3", env!("CARGO_PKG_VERSION"), "objects in a bucket of S3", include_str!("settings.json"))
    }
}

impl Storage for Plugin {
    type Session = Session;
}

struct Session {
    place: Place,
    client: Client,
    /// Made anew when the bucket turns out to be in another region.
    bucket: RefCell<Operator>,
    /// Whether the server keeps to `If-None-Match`, once that is known.
    if_absent: Cell<Option<bool>>,
}

impl Session {
    /// Asks the bucket, and asks again where it says that it is.
    fn ask<R>(
        &self,
        what: &str,
        (requests_max, bytes_max): (usize, usize),
        work: impl AsyncFn(&Operator) -> opendal_core::Result<R>,
    ) -> Result<R, Error> {
        let mut moved = false;
        loop {
            self.client.begin(requests_max, bytes_max);
            let bucket = self.bucket.borrow().clone();
            let error = match wait(work(&bucket)) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let elsewhere = self.client.seen().and_then(|seen| region(&seen));
            match elsewhere {
                Some(region) if !moved => {
                    moved = true;
                    let place = self.place.in_region(&region);
                    *self.bucket.borrow_mut() = place.open(&self.client)?;
                }
                _ => return Err(failed(&self.client, what, &error, |seen| told(&self.place, seen))),
            }
        }
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.place.prefix)
    }

    fn write(&self, what: &str, key: &str, body: Vec<u8>, if_absent: bool) -> Result<(), Error> {
        let (key, body) = (self.key(key), opendal_core::Buffer::from(body));
        let written = self.ask(what, (REQUESTS_MAX, LISTING_BYTES_MAX), async |bucket| {
            bucket.write_with(&key, body.clone()).if_not_exists(if_absent).await
        });
        let refused = || self.client.seen().is_some_and(|seen| seen.status == 412);
        match written {
            Err(_) if if_absent && refused() => Err(taken(what)),
            written => written.map(drop),
        }
    }

    fn remove(&self, what: &str, keys: &[String]) -> Result<(), Error> {
        let keys: Vec<String> = keys.iter().map(|key| self.key(key)).collect();
        for keys in keys.chunks(DELETED_MAX) {
            self.ask(what, (REQUESTS_MAX, LISTING_BYTES_MAX), async |bucket| match keys {
                [key] => bucket.delete(key).await,
                keys => bucket.delete_iter(keys.iter().cloned()).await,
            })?;
        }
        Ok(())
    }

    fn known(&self, what: &str, key: &str) -> Result<Object, Error> {
        let found = self.ask(what, (REQUESTS_MAX, LISTING_BYTES_MAX), {
            let key = self.key(key);
            async move |bucket: &Operator| bucket.stat(&key).await
        })?;
        Ok(Object {
            key: key.to_owned(),
            size: found.content_length(),
            modified_ms: found.last_modified().and_then(|time| u64::try_from(time.into_inner().as_millisecond()).ok()),
            etag: found.etag().map(str::to_owned),
        })
    }

    /// Whether of two that put an object only if there is none the second fails. Some servers take no notice of the
    /// condition, so it is tried.
    fn keeps_first(&self) -> Result<bool, Error> {
        if let Some(known) = self.if_absent.get() {
            return Ok(known);
        }
        let (what, key) = ("see whether the bucket puts objects only if there are none", aside());
        let first = self.write(what, &key, b"1".to_vec(), true);
        let keeps = match first {
            Ok(()) => match self.write(what, &key, b"2".to_vec(), true) {
                Ok(()) => Ok(false),
                Err(error) if error.kind == Kind::Exists => Ok(true),
                Err(error) => Err(error),
            },
            // It does not know the header, and says so.
            Err(error) if matches!(error.kind, Kind::Unsupported) => Ok(false),
            Err(error) => Err(error),
        };
        // What stays has a `~` in its name, and is no object.
        let _ = self.remove(what, &[key]);
        if let Ok(keeps) = keeps {
            self.if_absent.set(Some(keeps));
        }
        keeps
    }
}

impl GuestSession for Session {
    fn open(settings: Settings) -> Result<http_client::Session, Error> {
        let place = Place::new(settings)?;
        let client = Client::default();
        let bucket = RefCell::new(place.open(&client)?);
        Ok(http_client::Session::new(Self { place, client, bucket, if_absent: Cell::new(None) }))
    }

    fn traits(&self) -> Traits {
        Traits {
            max_object: OBJECT_BYTES_MAX as u64,
            // What can't be seen now is not promised.
            put_if_absent: self.keeps_first().unwrap_or(false),
            ranged_get: true,
            atomic_put: true,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let key = aside();
        self.write("write to the bucket", &key, b"check".to_vec(), false)?;
        let read = self.get(key.clone(), 0, None);
        self.remove("remove an object from the bucket", &[key])?;
        came_back("read from the bucket", read, b"check")
    }

    fn put(&self, key: String, body: Vec<u8>, if_absent: bool) -> Result<(), Error> {
        let what = format!("put `{key}`");
        if if_absent && !self.keeps_first()? {
            match self.known(&what, &key) {
                Err(error) if error.kind == Kind::NotFound => {}
                Err(error) => return Err(error),
                Ok(_) => return Err(taken(&what)),
            }
            return self.write(&what, &key, body, false);
        }
        self.write(&what, &key, body, if_absent)
    }

    fn get(&self, key: String, offset: u64, length: Option<u64>) -> Result<Vec<u8>, Error> {
        let what = format!("get `{key}`");
        if length == Some(0) {
            return self.known(&what, &key).map(|_| Vec::new());
        }
        let full = self.key(&key);
        // A little more than an object may have, so that one that has too much is seen as that.
        let read = self.ask(&what, (REQUESTS_MAX, OBJECT_BYTES_MAX + 1), async |bucket| {
            read(&self.client, bucket, &full, offset, length).await
        });
        read.map(|body| Vec::from(body.to_bytes()))
    }

    fn stat(&self, key: String) -> Result<Object, Error> {
        self.known(&format!("look at `{key}`"), &key)
    }

    fn list_keys(&self, prefix: String, after: Option<String>, limit: u32) -> Result<Vec<Object>, Error> {
        let (from, start) = (self.key(&prefix), after.map(|after| self.key(&after)));
        let limit = limit as usize;
        self.ask(&format!("list what begins with `{prefix}`"), (PAGES_MAX, LISTING_BYTES_MAX), async |bucket| {
            let mut listing = bucket.lister_with(&from).recursive(true).limit(limit);
            if let Some(start) = &start {
                listing = listing.start_after(start);
            }
            let mut listing = listing.await?;
            let mut found = Vec::new();
            while found.len() < limit {
                let Some(entry) = next(&mut listing) else { break };
                let entry = entry?;
                let Some(key) = entry.path().strip_prefix(self.place.prefix.as_str()) else { continue };
                if !is_name(key) || !key.starts_with(&prefix) {
                    continue;
                }
                let known = entry.metadata();
                found.push(Object {
                    key: key.to_owned(),
                    size: known.content_length(),
                    modified_ms: known
                        .last_modified()
                        .and_then(|time| u64::try_from(time.into_inner().as_millisecond()).ok()),
                    etag: known.etag().map(str::to_owned),
                });
            }
            Ok(found)
        })
    }

    fn delete(&self, keys: Vec<String>) -> Result<(), Error> {
        let what = match &keys[..] {
            [] => return Ok(()),
            [key] => format!("delete `{key}`"),
            keys => format!("delete {} objects", keys.len()),
        };
        self.remove(&what, &keys)
    }
}

/// The next entry of a listing: what it waits for it waits for itself.
fn next(listing: &mut opendal_core::Lister) -> Option<opendal_core::Result<opendal_core::Entry>> {
    use futures_core::Stream as _;
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let std::task::Poll::Ready(next) = Pin::new(&mut *listing).poll_next(&mut context) {
            return next;
        }
    }
}
