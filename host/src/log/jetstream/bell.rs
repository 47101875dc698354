//! What says that something came: an ordered consumer that is sent headers and no payload.

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::push::OrderedConfig;
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy};
use futures::StreamExt as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A message that the consumer missed costs this much.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Between two tries to listen.
const PAUSE: Duration = Duration::from_millis(500);
/// How long whoever is told of what it can't read yet is held up.
const BEHIND: Duration = Duration::from_millis(2);

/// Tells how far a stream reaches.
#[derive(Debug)]
pub(super) struct Bell {
    context: Context,
    stream: String,
    last: Arc<watch::Sender<u64>>,
    listener: OnceLock<Listener>,
}

/// Listens as long as anybody may want to know.
#[derive(Debug)]
struct Listener(JoinHandle<()>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Bell {
    pub(super) fn new(context: Context, stream: String) -> Self {
        Self { context, stream, last: Arc::new(watch::Sender::new(0)), listener: OnceLock::new() }
    }

    /// Something stands at this position.
    pub(super) fn ring(&self, seq: u64) {
        ring(&self.last, seq);
    }

    /// Whether something was said to stand at this position.
    pub(super) fn has_rung_for(&self, seq: u64) -> bool {
        *self.last.borrow() >= seq
    }

    /// Returns when something may stand after a position.
    pub(super) async fn past(&self, after: u64) {
        self.listener.get_or_init(|| {
            Listener(tokio::spawn(listen(self.context.clone(), self.stream.clone(), self.last.clone())))
        });
        let mut told = self.last.subscribe();
        if *told.borrow() > after {
            // It was read just now, from a copy that is behind.
            tokio::time::sleep(BEHIND).await;
            return;
        }
        let _ = tokio::time::timeout(POLL_INTERVAL, told.wait_for(|last| *last > after)).await;
    }
}

fn ring(last: &watch::Sender<u64>, seq: u64) {
    last.send_if_modified(|last| {
        let later = seq > *last;
        *last = seq.max(*last);
        later
    });
}

/// Listens for ever: whatever ends it, it is begun again.
async fn listen(context: Context, stream: String, last: Arc<watch::Sender<u64>>) {
    loop {
        if let Err(error) = hear(&context, &stream, &last).await {
            tracing::debug!(stream, error, "cannot listen to the stream");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn hear(context: &Context, stream: &str, last: &watch::Sender<u64>) -> Result<(), String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let mut stream = context.get_stream(stream).await.map_err(|error| said(&error))?;
    let config = OrderedConfig {
        deliver_subject: context.client().new_inbox(),
        deliver_policy: DeliverPolicy::New,
        replay_policy: ReplayPolicy::Instant,
        headers_only: true,
        ..OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(|error| said(&error))?;
    let mut messages = consumer.messages().await.map_err(|error| said(&error))?;
    // What came before there was a consumer, it is not told of.
    ring(last, stream.info().await.map_err(|error| said(&error))?.state.last_sequence);
    while let Some(message) = messages.next().await {
        let message = message.map_err(|error| said(&error))?;
        ring(last, message.info().map_err(|error| said(&error))?.stream_sequence);
    }
    Ok(())
}
