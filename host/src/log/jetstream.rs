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
pub(crate) mod durability;
mod extent;
mod login;
mod names;
mod read;
mod stream;
mod transport;

pub use connection::Connection;
pub use durability::Durability;
pub use login::Login;
pub use names::Names;

use super::{Announced, Appended, Bounds, Claim, Error, Lease, Log, Member, Placed, Placement, Shard};
use crate::server::Server;
use antiphon_core::entry::Origin;
use async_trait::async_trait;
use bucket::Bucket;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use stream::Stream;

/// How long one of several servers that begins to lead may take until it knows all that was acknowledged.
const LEADER_CATCHES_UP: Duration = Duration::from_secs(5);

/// What streams are made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What streams, subjects and buckets are called.
    pub names: Names,
    /// How many servers keep a copy.
    pub replicas: usize,
    /// Change streams that are there and have other settings.
    pub update_existing: bool,
    /// How much a shard may hold.
    pub limit: Limit,
    /// Where in the world this process runs: the machine as it was booted, and the database's own file.
    pub place: String,
}

/// How much a shard may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Bytes; 0 = as many as there is room for.
    pub bytes: u64,
    /// What is beyond it makes the oldest entries go; else it is not taken.
    pub drops: bool,
}

/// A log in NATS JetStream.
#[derive(Debug)]
pub struct JetStream {
    connection: Connection,
    context: async_nats::jetstream::Context,
    settings: Arc<Settings>,
    streams: Mutex<BTreeMap<Shard, Arc<Stream>>>,
    bucket: Bucket,
    /// The server that carries it, if this node started one; the last to go.
    #[expect(dead_code, reason = "dropping it is what ends the server")]
    server: Option<Server>,
}

impl JetStream {
    /// A log on a connection; nothing is asked of the server yet.
    #[must_use]
    pub fn new(connection: &Connection, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let context = connection.context();
        let bucket = Bucket::new(context.clone(), settings.clone());
        Self { connection: connection.clone(), context, settings, streams: Mutex::default(), bucket, server: None }
    }

    /// The same, kept by a server that ends with it.
    #[must_use]
    pub fn kept_by(self, server: Option<Server>) -> Self {
        Self { server, ..self }
    }

    /// What is wrong with the way to the servers, in words.
    #[must_use]
    pub fn transport(&self) -> Option<String> {
        self.connection.transport()
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

    async fn begin_again(
        &self,
        shard: Shard,
        at: u64,
        frame: &[u8],
        _numbers: &[(Origin, u64)],
    ) -> Result<Option<u64>, Error> {
        self.bucket.is_ours()?;
        // Who has no message in a stream that begins late knows himself where he is.
        self.stream(shard).begin_again(at, frame).await
    }

    async fn clear(&self, shard: Shard) -> Result<(), Error> {
        self.bucket.is_ours()?;
        self.stream(shard).clear().await
    }

    async fn read(&self, shard: Shard, after: u64, bytes_max: usize) -> Result<Vec<Placed>, Error> {
        self.bucket.is_ours()?;
        self.stream(shard).read(after, bytes_max).await
    }

    async fn stands(&self, shard: Shard, at: u64) -> Result<Option<Placement>, Error> {
        self.stream(shard).stands(at.max(1)).await
    }

    async fn read_on(
        &self,
        shard: Shard,
        at: u64,
        bytes_max: usize,
    ) -> Result<(Option<Placement>, Vec<Placed>), Error> {
        self.bucket.is_ours()?;
        self.stream(shard).read_on(at.max(1), bytes_max).await
    }

    async fn bounds(&self, shard: Shard) -> Result<Bounds, Error> {
        self.stream(shard).bounds().await
    }

    fn patience(&self) -> Duration {
        if self.settings.replicas < 2 { Duration::ZERO } else { LEADER_CATCHES_UP }
    }

    async fn used(&self, shard: Shard) -> Result<Option<f64>, Error> {
        self.stream(shard).used().await
    }

    async fn truncate(&self, shard: Shard, up_to: u64) -> Result<(), Error> {
        self.bucket.is_ours()?;
        self.stream(shard).truncate(up_to).await
    }

    async fn highest_number(&self, shard: Shard, origin: Origin) -> Result<u64, Error> {
        self.stream(shard).highest(origin).await
    }

    async fn claim(&self, origin: Origin) -> Result<Option<Claim>, Error> {
        self.bucket.claim(origin).await
    }

    async fn changed(&self, shard: Shard, after: u64) {
        self.stream(shard).changed(after).await;
    }

    fn degraded(&self) -> BTreeMap<String, String> {
        self.connection.degraded()
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
