//! One shard's stream: made by whoever appends first, and looked at before it is believed.

use super::append::Own;
use super::bell::Bell;
use super::{Names, Settings};
use crate::log::{Bounds, Error, Shard};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, ErrorCode, response::Response};
use async_nats::{Client, RequestErrorKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::{Mutex, OnceCell};

/// The first version whose atomic batches keep the parts of a frame together.
const SERVER: (i64, i64, i64) = (2, 12, 0);

/// What is to go of a stream: all before this message.
#[derive(Serialize)]
struct Purge {
    seq: u64,
}

/// What became of that.
#[derive(Deserialize)]
struct Purged {
    success: bool,
}

/// One shard.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) context: Context,
    pub(super) client: Client,
    pub(super) settings: Arc<Settings>,
    pub(super) shard: Shard,
    pub(super) name: String,
    /// Whether the stream was there, and as it should be.
    made: OnceCell<()>,
    /// The last message of our own subject. Held while an append is on its way: one at a time.
    pub(super) own: Mutex<Option<Own>>,
    pub(super) bell: Bell,
}

impl Stream {
    pub(super) fn new(context: &Context, settings: &Arc<Settings>, shard: Shard) -> Self {
        let name = settings.names.stream(shard);
        Self {
            context: context.clone(),
            client: context.client(),
            settings: settings.clone(),
            shard,
            bell: Bell::new(context.clone(), name.clone()),
            name,
            made: OnceCell::new(),
            own: Mutex::default(),
        }
    }

    pub(super) fn names(&self) -> &Names {
        &self.settings.names
    }

    /// Sees to it that the stream is there.
    pub(super) async fn make(&self) -> Result<(), Error> {
        self.made
            .get_or_try_init(|| async {
                let (major, minor, patch) = SERVER;
                if self.client.try_server_info().is_none() {
                    return Err(Error::Unreachable("no server was reached yet".to_owned()));
                }
                if !self.client.is_server_compatible(major, minor, patch) {
                    let version = self.client.server_info().version;
                    let said = format!("the NATS server is of version {version}, and {major}.{minor} is the oldest that keeps the parts of a large entry together; update it");
                    return Err(Error::Broken(said));
                }
                match self.context.get_stream(&self.name).await {
                    Ok(stream) => return self.suits(stream.cached_info()).await,
                    Err(error) if is_missing(&error.kind()) => {}
                    Err(error) => return Err(unreachable(&error)),
                }
                // Of several that try at once all make the same.
                let made = self.context.create_stream(self.config()).await;
                let info = made.map_err(|error| unreachable(&error))?.cached_info().clone();
                tracing::info!(stream = self.name, replicas = self.settings.replicas, "stream made");
                self.suits(&info).await
            })
            .await
            .copied()
    }

    fn config(&self) -> Config {
        Config {
            name: self.name.clone(),
            description: Some("changes of a database, kept by Antiphon".to_owned()),
            subjects: vec![self.names().subjects(self.shard)],
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            discard: if self.settings.limit.drops { DiscardPolicy::Old } else { DiscardPolicy::New },
            max_bytes: match self.settings.limit.bytes {
                0 => -1,
                bytes => i64::try_from(bytes).unwrap_or(i64::MAX),
            },
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            num_replicas: self.settings.replicas,
            allow_direct: true,
            deny_delete: true,
            allow_atomic_publish: true,
            ..Config::default()
        }
    }

    /// Whether a stream that is there is one of ours, with what we need.
    async fn suits(&self, info: &Info) -> Result<(), Error> {
        let (found, wanted) = (&info.config, self.config());
        if found.subjects != wanted.subjects {
            return Err(Error::Broken(format!(
                "the stream `{}` takes the subjects {:?} and not `{}`: it is HarmonyLite's or another program's; \
                 choose another `stream_prefix` under `[nats]`, or delete that stream",
                self.name,
                found.subjects,
                self.names().subjects(self.shard)
            )));
        }
        // A stream that refuses what is too much loses nothing; one that drops may, if that is what was asked for.
        let drops = found.discard == DiscardPolicy::Old && found.max_bytes > 0 && !self.settings.limit.drops;
        let may_lose = found.max_messages > 0 || !found.max_age.is_zero() || drops;
        let lacks = !found.allow_direct || !found.allow_atomic_publish || may_lose;
        let differs = lacks
            || found.num_replicas != wanted.num_replicas
            || found.max_bytes.max(0) != wanted.max_bytes.max(0)
            || (wanted.max_bytes > 0 && found.discard != wanted.discard);
        if differs && self.settings.update_existing {
            let updated = self.context.update_stream(&wanted).await.map_err(|error| unreachable(&error))?;
            tracing::info!(stream = self.name, replicas = updated.config.num_replicas, "stream updated");
            return Ok(());
        }
        if lacks {
            return Err(Error::Broken(format!(
                "the stream `{}` was made with other settings, which would lose entries or tear large ones apart; \
                 set `update_existing = true` under `[replication_log]` once",
                self.name
            )));
        }
        if differs {
            let said = |config: &Config| {
                let bytes = if config.max_bytes > 0 { config.max_bytes.to_string() } else { "any".to_owned() };
                let full = if config.discard == DiscardPolicy::Old { "drop" } else { "block" };
                format!("replicas {}, bytes {bytes}, on_full {full}", config.num_replicas)
            };
            tracing::warn!(
                stream = self.name,
                found = said(found),
                wanted = said(&wanted),
                "the stream was made with other settings than configured; `update_existing = true` changes them"
            );
        }
        Ok(())
    }

    pub(super) async fn bounds(&self) -> Result<Bounds, Error> {
        let info: Option<Info> = self.ask("STREAM.INFO", &()).await?;
        Ok(info.map_or(Bounds { first: 1, last: 0 }, |info| {
            let last = info.state.last_sequence;
            let first = if info.state.messages == 0 { last + 1 } else { info.state.first_sequence };
            Bounds { first, last }
        }))
    }

    /// The share of its room that it has used, unless what is too much is dropped.
    pub(super) async fn used(&self) -> Result<Option<f64>, Error> {
        if self.settings.limit.bytes == 0 || self.settings.limit.drops {
            return Ok(None);
        }
        let info: Option<Info> = self.ask("STREAM.INFO", &()).await?;
        Ok(info.and_then(|info| {
            let room = u64::try_from(info.config.max_bytes).ok().filter(|room| *room > 0)?;
            Some(info.state.bytes as f64 / room as f64)
        }))
    }

    /// Lets go of the oldest messages. An entry in parts has the place of its last one, so it goes whole.
    pub(super) async fn truncate(&self, up_to: u64) -> Result<(), Error> {
        let Bounds { first, last } = self.bounds().await?;
        let up_to = up_to.min(last.saturating_sub(1));
        if up_to < first {
            return Ok(());
        }
        self.purge_before(up_to + 1).await
    }

    /// Lets go of all messages.
    pub(super) async fn clear(&self) -> Result<(), Error> {
        let Bounds { first, last } = self.bounds().await?;
        *self.own.lock().await = None;
        if first <= last { self.purge_before(last + 1).await } else { Ok(()) }
    }

    /// Lets go of all before this place, which may be one that is still to come.
    pub(super) async fn purge_before(&self, seq: u64) -> Result<(), Error> {
        let purged: Option<Purged> = self.ask("STREAM.PURGE", &Purge { seq }).await?;
        match purged {
            Some(Purged { success: false }) => {
                Err(Error::Unreachable(format!("stream `{}` did not let go of its oldest entries", self.name)))
            }
            _ => Ok(()),
        }
    }

    /// Asks the stream's leader; nothing if there is no such stream, or no such message in it.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        what: &str,
        request: &(impl Serialize + Sync),
    ) -> Result<Option<T>, Error> {
        let answer = self.context.request(format!("{what}.{}", self.name), request).await;
        match answer.map_err(|error| unreachable(&error))? {
            Response::Ok(answer) => Ok(Some(answer)),
            Response::Err { error } => match error.error_code() {
                ErrorCode::STREAM_NOT_FOUND | ErrorCode::NO_MESSAGE_FOUND => Ok(None),
                _ => Err(Error::Unreachable(error.to_string())),
            },
        }
    }

    pub(super) async fn changed(&self, after: u64) {
        self.bell.past(after).await;
    }
}

fn is_missing(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// All that a server can say about not doing something now may be over later.
pub(super) fn unreachable(error: &dyn std::error::Error) -> Error {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_said = cause.to_string();
        if !said.contains(&cause_said) {
            said = format!("{said}: {cause_said}");
        }
        source = cause.source();
    }
    Error::Unreachable(said)
}

/// Whether nobody listens where a request went: the stream is not there, or no server has it at the moment.
pub(super) fn is_unheard(error: &async_nats::RequestError) -> bool {
    error.kind() == RequestErrorKind::NoResponders
}
