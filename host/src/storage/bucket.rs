//! A bucket of NATS's object store, lent to the storage `nats`.
//!
//! It connects when it is first asked, with the login of `[nats]`, and apart from the connection of the log: what moves
//! gigabytes must not stand in the way of changes.

use std::time::Duration;

use antiphon_core::store::{ErrorKind, Name, OBJECT_BYTES_MAX, Object, StoreError};
use antiphon_plugin::Bucket;
use async_nats::jetstream::object_store::{
    Config, DeleteErrorKind, GetErrorKind, InfoErrorKind, ObjectInfo, ObjectStore,
};
use async_nats::jetstream::{Context, context};
use async_trait::async_trait;
use futures::StreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::OnceCell;

use crate::log::{Connection, Login};
use pieces::{PIECE, Pieces};

mod pieces;

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(10);

/// Where the bucket is, and what it is to be like if it is made.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) urls: Vec<String>,
    /// The same, fit to be shown.
    pub(super) shown: String,
    pub(super) name: String,
    pub(super) login: Login,
    pub(super) pause: Duration,
    pub(super) bucket: String,
    pub(super) replicas: usize,
}

/// The bucket.
pub(super) struct NatsBucket {
    place: Place,
    connection: OnceCell<Connection>,
    store: OnceCell<(ObjectStore, Pieces)>,
}

impl NatsBucket {
    pub(super) fn new(place: Place) -> Self {
        Self { place, connection: OnceCell::new(), store: OnceCell::new() }
    }

    async fn context(&self) -> Result<Context, StoreError> {
        let place = &self.place;
        let connection = self.connection.get_or_try_init(|| async {
            let opened = Connection::open(&place.urls, &place.name, place.login.clone(), place.pause).await;
            opened.map_err(|failure| StoreError::new(ErrorKind::Permanent, failure.to_string()))
        });
        let connection = connection.await?;
        if !connection.within(CONNECT).await {
            let why = format!("no NATS server can be reached at {}", place.shown);
            return Err(StoreError::new(ErrorKind::Temporary, why)
                .hint("see that the server runs, and that the login under `[nats]` is the one it knows"));
        }
        Ok(connection.context())
    }

    async fn store(&self) -> Result<&ObjectStore, StoreError> {
        self.opened().await.map(|(store, _)| store)
    }

    async fn opened(&self) -> Result<&(ObjectStore, Pieces), StoreError> {
        let made = self.store.get_or_try_init(|| async {
            let context = self.context().await?;
            let bucket = &self.place.bucket;
            let store = match context.get_object_store(bucket).await {
                Ok(store) => store,
                Err(error) if is_missing(&error) => {
                    let config = Config {
                        bucket: bucket.clone(),
                        description: Some("snapshots of Antiphon".to_owned()),
                        num_replicas: self.place.replicas,
                        ..Config::default()
                    };
                    let made = context.create_object_store(config).await;
                    made.map_err(|error| unreachable(bucket, &error))?
                }
                Err(error) => return Err(unreachable(bucket, &error)),
            };
            let stream = context.get_stream_no_info(Pieces::stream(bucket)).await;
            let stream = stream.map_err(|error| unreachable(bucket, &error))?;
            let pieces = Pieces::of(context, stream, bucket);
            Ok((store, pieces))
        });
        made.await
    }

    /// What is known of an object that is there.
    async fn info(&self, what: &str, name: &Name) -> Result<ObjectInfo, StoreError> {
        match self.store().await?.info(name.as_str()).await {
            Ok(info) if info.deleted => Err(missing(what, name)),
            Ok(info) => Ok(info),
            Err(error) if error.kind() == InfoErrorKind::NotFound => Err(missing(what, name)),
            Err(error) => Err(failed(what, name, &error)),
        }
    }
}

#[async_trait]
impl Bucket for NatsBucket {
    fn max_object(&self) -> u64 {
        OBJECT_BYTES_MAX
    }

    async fn check(&self) -> Result<(), StoreError> {
        let probe = Name::new(format!("antiphon-check-{:016x}", crate::clock::unix_ms()))
            .map_err(|error| StoreError::new(ErrorKind::Permanent, error.to_string()))?;
        self.put(&probe, b"check".to_vec()).await?;
        self.delete(&probe).await
    }

    async fn put(&self, name: &Name, body: Vec<u8>) -> Result<(), StoreError> {
        let (store, pieces) = self.opened().await?;
        // Asked before anything is sent: what it says is replaced then, whoever else puts an object of that name.
        let before = store.info(name.as_str()).await;
        pieces.put(name, body.into()).await?;
        if let Ok(before) = before {
            pieces.forget(&before.nuid).await;
        }
        Ok(())
    }

    async fn get(&self, name: &Name, offset: u64, length: Option<u64>) -> Result<Vec<u8>, StoreError> {
        let passing = |why: String| StoreError::new(ErrorKind::Temporary, format!("cannot get `{name}`: {why}"));
        let (store, pieces) = self.opened().await?;
        let info = self.info("get", name).await?;
        sized(name, &info)?;
        // The whole of it is read in any case, for then it is compared with its digest.
        // A link, which others may put there, is followed by who knows them.
        let is_link = info.options.as_ref().is_some_and(|options| options.link.is_some());
        let whole = if is_link { None } else { pieces.get(&info).await.map_err(passing)? };
        let mut body = match whole {
            Some(body) => body,
            None => match store.get(name.as_str()).await {
                Ok(mut object) => {
                    let size = sized(name, object.info())?;
                    read(&mut object, size).await.map_err(passing)?
                }
                Err(error) if error.kind() == GetErrorKind::NotFound => return Err(missing("get", name)),
                Err(error) => return Err(failed("get", name, &error)),
            },
        };
        let size = body.len() as u64;
        let begin = usize::try_from(offset.min(size)).unwrap_or(usize::MAX);
        let end = usize::try_from(offset.saturating_add(length.unwrap_or(size)).min(size)).unwrap_or(usize::MAX);
        body.truncate(end);
        body.drain(..begin.min(body.len()));
        Ok(body)
    }

    async fn stat(&self, name: &Name) -> Result<Object, StoreError> {
        Ok(known(name.clone(), &self.info("stat", name).await?))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Object>, StoreError> {
        let store = self.store().await?;
        let failed = |error: &dyn std::fmt::Display| {
            StoreError::new(ErrorKind::Temporary, format!("cannot list the bucket `{}`: {error}", self.place.bucket))
        };
        let mut listing = store.list().await.map_err(|error| failed(&error))?;
        let mut found = Vec::new();
        while let Some(info) = listing.next().await {
            let info = info.map_err(|error| failed(&error))?;
            if info.name.starts_with(prefix) && after.is_none_or(|after| info.name.as_str() > after) {
                // What has another kind of name is not ours.
                if let Ok(name) = Name::new(info.name.as_str()) {
                    found.push(known(name, &info));
                }
            }
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        found.dedup_by(|one, other| one.name == other.name);
        found.truncate(limit);
        Ok(found)
    }

    async fn delete(&self, name: &Name) -> Result<(), StoreError> {
        match self.info("delete", name).await {
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
            known => known?,
        };
        match self.store().await?.delete(name.as_str()).await {
            Err(error) if error.kind() == DeleteErrorKind::NotFound => Ok(()),
            done => done.map_err(|error| failed("delete", name, &error)),
        }
    }
}

/// How large an object is, if it can be one.
fn sized(name: &Name, info: &ObjectInfo) -> Result<u64, StoreError> {
    let size = info.size as u64;
    if size > OBJECT_BYTES_MAX {
        let why = format!("cannot get `{name}`: its {size} bytes are more than an object may have");
        return Err(StoreError::new(ErrorKind::Permanent, why));
    }
    Ok(size)
}

/// All of an object, or why not. Who reads one that is replaced meanwhile waits for pieces that are gone.
async fn read(object: &mut (impl AsyncRead + Unpin), size: u64) -> Result<Vec<u8>, String> {
    let mut body = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    loop {
        match tokio::time::timeout(PIECE, object.read_buf(&mut body)).await {
            Ok(Ok(0)) => break,
            Ok(Ok(_)) if body.len() as u64 > size => return Err("it has more bytes than it says".to_owned()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("after {} of {size} bytes no more came", body.len())),
        }
    }
    if (body.len() as u64) < size {
        return Err(format!("it ended after {} of {size} bytes", body.len()));
    }
    Ok(body)
}

fn known(name: Name, info: &ObjectInfo) -> Object {
    let modified_ms = info.modified.and_then(|time| u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok());
    Object { name, size: info.size as u64, modified_ms, etag: info.digest.clone() }
}

fn is_missing(error: &context::ObjectStoreError) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<context::GetStreamError>()
            && let context::GetStreamErrorKind::JetStream(said) = found.kind()
        {
            return said.error_code() == async_nats::jetstream::ErrorCode::STREAM_NOT_FOUND;
        }
        next = error.source();
    }
    false
}

fn unreachable(bucket: &str, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::new(ErrorKind::Temporary, format!("cannot use the bucket `{bucket}`: {error}"))
        .hint("see that the login under `[nats]` may use JetStream and its object store")
}

fn missing(what: &str, name: &Name) -> StoreError {
    StoreError::new(ErrorKind::NotFound, format!("cannot {what} `{name}`: there is no such object"))
}

/// It may be the connection, and then it works later.
fn failed(what: &str, name: &Name, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::new(ErrorKind::Temporary, format!("cannot {what} `{name}`: {error}"))
}
