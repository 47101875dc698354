//! How much there is, for those who look.

use super::append::number_of;
use super::read::{LastOf, direct};
use super::stream::Stream;
use super::{JetStream, Names};
use crate::log::{Bounds, Error, Extent, Log as _, Shard};
use antiphon_core::entry::Origin;
use async_nats::jetstream::stream::Info;

impl JetStream {
    /// Shards that have a stream.
    pub(in crate::log) async fn shards(&self) -> Result<Vec<Shard>, Error> {
        // They are numbered from 1 on; one that nobody wrote to yet has none.
        let mut shards = Vec::new();
        let mut shard = 1;
        while self.bounds(shard).await?.last > 0 {
            shards.push(shard);
            shard += 1;
        }
        Ok(shards)
    }

    pub(in crate::log) async fn extent(&self, shard: Shard) -> Result<Extent, Error> {
        self.stream(shard).extent().await
    }

    pub(in crate::log) async fn origins(&self) -> Result<Vec<(Shard, Origin, u64)>, Error> {
        let mut origins = Vec::new();
        for shard in self.shards().await? {
            origins.extend(self.stream(shard).origins().await?);
        }
        Ok(origins)
    }
}

impl Stream {
    async fn extent(&self) -> Result<Extent, Error> {
        let info: Option<Info> = self.ask("STREAM.INFO", &()).await?;
        let Some(state) = info.map(|info| info.state) else {
            return Ok(Extent { bounds: Bounds { first: 1, last: 0 }, ..Extent::default() });
        };
        let last = state.last_sequence;
        let first = if state.messages == 0 { last + 1 } else { state.first_sequence };
        let ns = |time: async_nats::datetime::DateTime| u64::try_from(time.unix_timestamp_nanos()).unwrap_or(0);
        let times = (state.messages > 0).then(|| (ns(state.first_timestamp), ns(state.last_timestamp)));
        Ok(Extent { bounds: Bounds { first, last }, entries: state.messages, bytes: state.bytes, times })
    }

    async fn origins(&self) -> Result<Vec<(Shard, Origin, u64)>, Error> {
        let subjects = self.names().subjects(self.shard);
        let newest = direct(&self.client, &self.name, &LastOf { multi_last: [&subjects] }).await?.unwrap_or_default();
        let mut origins: Vec<_> = newest
            .iter()
            .filter_map(|message| Some((self.shard, Names::origin(message.subject.as_str())?, number_of(message)?)))
            .collect();
        origins.sort_unstable();
        Ok(origins)
    }
}
