//! What only whoever runs the servers can do to a log.

use crate::world::World;
use antiphon_core::codec;
use antiphon_core::entry::Entry;
use async_nats::header::NATS_EXPECTED_LAST_SEQUENCE;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::{self, Context};
use async_nats::{ConnectOptions, HeaderMap};
use std::collections::BTreeSet;

/// What the streams are called if nobody says otherwise.
pub(crate) const STREAM: &str = "harmonylite-changes-1";

/// The server's own client.
pub(crate) struct Admin {
    runtime: tokio::runtime::Runtime,
    context: Context,
}

impl Admin {
    pub(crate) fn of(world: &World) -> Self {
        Self::with(world, ConnectOptions::new())
    }

    pub(crate) fn with(world: &World, options: ConnectOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let connect = async { jetstream::new(options.connect(world.servers.urls()).await.unwrap()) };
        Self { context: runtime.block_on(connect), runtime }
    }

    /// Does this to the stream of the first shard.
    pub(crate) fn stream<T>(&self, what: impl AsyncFnOnce(jetstream::stream::Stream) -> T) -> T {
        self.runtime.block_on(async { what(self.context.get_stream(STREAM).await.unwrap()).await })
    }

    /// Changes the settings of the stream of the first shard.
    pub(crate) fn set(&self, change: impl FnOnce(&mut jetstream::stream::Config)) {
        let mut config = self.stream(async |stream| stream.cached_info().config.clone());
        change(&mut config);
        self.runtime.block_on(self.context.update_stream(&config)).unwrap();
    }

    pub(crate) fn delete(&self) {
        self.runtime.block_on(self.context.delete_stream(STREAM)).unwrap();
    }

    /// Whether the first shard has a stream with anything in it.
    pub(crate) fn exists(&self) -> bool {
        let stream = self.runtime.block_on(self.context.get_stream(STREAM));
        stream.is_ok_and(|stream| stream.cached_info().state.messages > 0)
    }

    /// Publishes anything.
    pub(crate) fn publish(&self, subject: &str, headers: &[(&str, &str)], payload: &[u8]) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        self.runtime.block_on(async {
            let sent = self.context.publish_with_headers(subject.to_owned(), map, payload.to_vec().into()).await;
            sent.unwrap().await.unwrap();
        });
    }

    /// The last entry of the first shard comes a second time, if nothing came behind it meanwhile and servers that have chosen
    /// no leader yet let it.
    pub(crate) fn say_again(&self) -> Result<(), Box<dyn std::error::Error>> {
        self.runtime.block_on(async {
            let stream = self.context.get_stream(STREAM).await?;
            let last = stream.get_raw_message(stream.cached_info().state.last_sequence).await?;
            self.repeat(last, true).await
        })
    }

    /// Whoever wrote the last entry of the first shard has the one he wrote before come a second time, behind it.
    pub(crate) fn say_older_again(&self) {
        self.runtime.block_on(async {
            let stream = self.context.get_stream(STREAM).await.unwrap();
            let mut seq = stream.cached_info().state.last_sequence;
            let subject = stream.get_raw_message(seq).await.unwrap().subject;
            let older = loop {
                seq -= 1;
                let message = stream.get_raw_message(seq).await.unwrap();
                if message.subject == subject {
                    break message;
                }
            };
            self.repeat(older, false).await.unwrap();
        });
    }

    async fn repeat(&self, message: StreamMessage, is_last: bool) -> Result<(), Box<dyn std::error::Error>> {
        let mut headers = HeaderMap::new();
        for (name, values) in message.headers.iter() {
            // The server's own would have it refused.
            if name.to_string().starts_with("Antiphon-") {
                headers.insert(name.clone(), values[0].clone());
            }
        }
        if is_last {
            headers.insert(NATS_EXPECTED_LAST_SEQUENCE, message.sequence.to_string().as_str());
        }
        self.context.publish_with_headers(message.subject, headers, message.payload).await?.await?;
        Ok(())
    }

    /// All entries of the first shard that fit one message.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.stream(async |stream| {
            let last = stream.cached_info().state.last_sequence;
            let mut entries = Vec::new();
            for seq in 1..=last {
                let message = stream.get_raw_message(seq).await.unwrap();
                entries.extend(codec::decode(&message.payload));
            }
            entries
        })
    }

    /// No number comes twice, whoever copied whose outbox.
    #[track_caller]
    pub(crate) fn no_number_twice(&self) {
        let mut seen = BTreeSet::new();
        for entry in self.entries().iter().skip(1) {
            let Entry { origin, number, .. } = entry;
            assert!(seen.insert((origin.node, origin.incarnation, *number)), "{origin:?} {number}");
        }
    }
}
