//! The log between machines: NATS JetStream, one stream a shard.
//!
//! A frame is one message, or several if it is larger than the server takes; the parts of a frame and the frames of one
//! append stand together, for they are published as one atomic batch. The position of an entry is the sequence of its
//! last part. A message's subject says whose it is: only the connection that may publish there speaks for that origin,
//! and the server refuses what does not follow the subject's last message.

mod append;
mod bell;
mod bucket;
mod connection;
mod extent;
mod names;
mod read;
mod stream;

pub use connection::{Connection, Login};
pub use names::Names;

use super::{Announced, Appended, Bounds, Claim, Error, Lease, Log, Member, Placed, Shard};
use antiphon_core::entry::Origin;
use async_trait::async_trait;
use bucket::Bucket;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use stream::Stream;

/// What streams are made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What streams, subjects and buckets are called.
    pub names: Names,
    /// How many servers keep a copy.
    pub replicas: usize,
    /// Change streams that are there and have other settings.
    pub update_existing: bool,
    /// Where in the world this process runs: the machine as it was booted, and the database's own file.
    pub place: String,
}

/// A log in NATS JetStream.
#[derive(Debug)]
pub struct JetStream {
    context: async_nats::jetstream::Context,
    settings: Arc<Settings>,
    streams: Mutex<BTreeMap<Shard, Arc<Stream>>>,
    bucket: Bucket,
}

impl JetStream {
    /// A log on a connection; nothing is asked of the server yet.
    #[must_use]
    pub fn new(connection: &Connection, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let context = connection.context();
        let bucket = Bucket::new(context.clone(), settings.clone());
        Self { context, settings, streams: Mutex::default(), bucket }
    }

    fn stream(&self, shard: Shard) -> Arc<Stream> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let stream =
            streams.entry(shard).or_insert_with(|| Arc::new(Stream::new(&self.context, &self.settings, shard)));
        Arc::clone(stream)
    }
}

#[async_trait]
impl Log for JetStream {
    async fn append(&self, shard: Shard, origin: Origin, first: u64, frames: &[Vec<u8>]) -> Result<Appended, Error> {
        self.bucket.is_ours()?;
        self.stream(shard).append(origin, first, frames).await
    }

    async fn begin(&self, shard: Shard, frame: &[u8]) -> Result<bool, Error> {
        self.stream(shard).begin(frame).await
    }

    async fn read(&self, shard: Shard, after: u64, bytes_max: usize) -> Result<Vec<Placed>, Error> {
        self.bucket.is_ours()?;
        self.stream(shard).read(after, bytes_max).await
    }

    async fn bounds(&self, shard: Shard) -> Result<Bounds, Error> {
        self.stream(shard).bounds().await
    }

    async fn claim(&self, origin: Origin) -> Result<Option<Claim>, Error> {
        self.bucket.claim(origin).await
    }

    async fn changed(&self, shard: Shard, after: u64) {
        self.stream(shard).changed(after).await;
    }

    async fn announce(&self, member: &Member) -> Result<(), Error> {
        self.bucket.announce(member).await
    }

    async fn members(&self) -> Result<Vec<Announced>, Error> {
        self.bucket.members().await
    }

    async fn lease(&self, name: &str) -> Result<Lease, Error> {
        self.bucket.lease(name).await
    }

    async fn set_lease(&self, name: &str, lease: Lease, over: u64) -> Result<(bool, Lease), Error> {
        self.bucket.set_lease(name, lease, over).await
    }
}
