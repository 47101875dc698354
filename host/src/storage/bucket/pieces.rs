//! An object as messages of its bucket's stream: its pieces, and the message that names them.
//!
//! NATS's own client sends a piece when the one before is stored, has all pieces of an object come at once, and takes back
//! nothing of an object that failed. Here a few are on their way at a time in either direction, and what is stored is the
//! same: other clients read it, and theirs is read here.

use std::collections::VecDeque;
use std::time::Duration;

use antiphon_core::store::{ErrorKind, Name, StoreError};
use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::object_store::ObjectInfo;
use async_nats::jetstream::{Context, ErrorCode, stream::Stream};
use async_nats::{HeaderMap, Message, StatusCode};
use bytes::Bytes;
use data_encoding::BASE64URL;
use futures::StreamExt as _;
use ring::digest::{self, SHA256};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long the next piece may take, on its way here.
pub(super) const PIECE: Duration = Duration::from_secs(10);
/// How long all that is on its way to the server may take.
const STORED: Duration = Duration::from_secs(30);
/// Objects are cut into messages of so many bytes; larger ones than the usual 128 KiB cost fewer round trips.
const PIECE_BYTES: usize = 512 << 10;
/// How many pieces of an object are on their way to the server at a time.
const PIECES_AT_ONCE: usize = 8;
/// How many bytes of an object are asked for at a time,
const TURN_BYTES: usize = 4 << 20;
/// and of how many objects: a server gives up a client for which 64 MiB wait.
const TURNS_AT_ONCE: usize = 8;

/// The stream of a bucket.
pub(super) struct Pieces {
    context: Context,
    stream: Stream<()>,
    bucket: String,
    turns: Semaphore,
}

impl Pieces {
    pub(super) fn of(mut context: Context, stream: Stream<()>, bucket: &str) -> Self {
        context.set_timeout(STORED);
        Self { context, stream, bucket: bucket.to_owned(), turns: Semaphore::new(TURNS_AT_ONCE) }
    }

    /// The stream of this bucket.
    pub(super) fn stream(bucket: &str) -> String {
        format!("OBJ_{bucket}")
    }

    fn subject(&self, nuid: &str) -> String {
        format!("$O.{}.C.{nuid}", self.bucket)
    }

    /// Stores an object whole, or nothing of it. The pieces of the one before stay: see `forget`.
    pub(super) async fn put(&self, name: &Name, body: Bytes) -> Result<(), StoreError> {
        let mut word = [0; 16];
        let random = getrandom::fill(&mut word);
        random
            .map_err(|error| StoreError::new(ErrorKind::Permanent, format!("the system gives no chance: {error}")))?;
        let nuid = data_encoding::HEXLOWER.encode(&word);
        let put = async {
            let info = self.send(&nuid, name, body).await?;
            let subject = format!("$O.{}.M.{}", self.bucket, BASE64URL.encode(name.as_str().as_bytes()));
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Rollup", "sub");
            self.context.publish_with_headers(subject, headers, info).await?.await
        };
        if let Err(error) = put.await {
            self.forget(&nuid).await;
            return Err(failed(name, &error));
        }
        Ok(())
    }

    /// Sends the pieces; gives the message that names them.
    async fn send(&self, nuid: &str, name: &Name, body: Bytes) -> Result<Bytes, PublishError> {
        let (size, subject) = (body.len(), self.subject(nuid));
        let piece_bytes = PIECE_BYTES.min(self.context.client().server_info().max_payload).max(1);
        let mut digest = digest::Context::new(&SHA256);
        let mut sent: VecDeque<PublishAckFuture> = VecDeque::new();
        let (mut rest, mut chunks, mut stored) = (body, 0, Ok(()));
        while !rest.is_empty() && stored.is_ok() {
            let piece = rest.split_to(piece_bytes.min(rest.len()));
            match self.context.publish(subject.clone(), piece.clone()).await {
                Ok(acknowledged) => sent.push_back(acknowledged),
                Err(error) => stored = Err(error),
            }
            // While it is on its way.
            digest.update(&piece);
            chunks += 1;
            if sent.len() >= PIECES_AT_ONCE
                && let Some(first) = sent.pop_front()
            {
                stored = stored.and(first.await.map(drop));
            }
        }
        // Who fails waits for all the same: what is stored later than it is taken back stays.
        for acknowledged in sent {
            stored = stored.and(acknowledged.await.map(drop));
        }
        stored?;
        let digest = format!("SHA-256={}", BASE64URL.encode(digest.finish().as_ref()));
        let info = json!({
            "name": name.as_str(),
            "bucket": self.bucket,
            "nuid": nuid,
            "size": size,
            "chunks": chunks,
            "digest": digest,
            "mtime": crate::clock::utc(crate::clock::unix_ms()),
            "options": { "max_chunk_size": piece_bytes },
        });
        Ok(info.to_string().into())
    }

    /// Removes the pieces of an object that is none, or none any more. What fails at that leaves waste, and no object.
    pub(super) async fn forget(&self, nuid: &str) {
        if let Err(error) = self.stream.purge().filter(self.subject(nuid)).await {
            tracing::debug!(error = %error, "pieces of an object are left in the bucket");
        }
    }

    /// Reads an object. Nothing: it can't be had this way, which asks whichever server of a stream answers first, and old
    /// ones don't know.
    pub(super) async fn get(&self, info: &ObjectInfo) -> Result<Option<Vec<u8>>, String> {
        let client = self.context.client();
        let inbox = client.new_inbox();
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| text(&error))?;
        let (ask, subject) = (format!("$JS.API.DIRECT.GET.{}", Self::stream(&self.bucket)), self.subject(&info.nuid));
        let mut digest = digest::Context::new(&SHA256);
        let mut body = Vec::with_capacity(info.size);
        let mut next: u64 = 1;
        while body.len() < info.size {
            let _its_turn = self.turns.acquire().await.map_err(|error| text(&error))?;
            let turn =
                json!({ "seq": next, "next_by_subj": subject, "batch": info.chunks.max(1), "max_bytes": TURN_BYTES });
            let asked = client.publish_with_reply(ask.clone(), inbox.clone(), turn.to_string().into());
            asked.await.map_err(|error| text(&error))?;
            let before = body.len();
            loop {
                let Ok(answer) = timeout(PIECE, answers.next()).await else {
                    return Err(format!("after {} of {} bytes no more came", body.len(), info.size));
                };
                let answer = answer.ok_or("the connection was closed")?;
                // The end of a turn.
                if answer.status.is_some_and(|status| status.as_u16() == END_OF_TURN) {
                    break;
                }
                let Some(at) = place(&answer).filter(|_| body.len() + answer.payload.len() <= info.size) else {
                    return Ok(None);
                };
                next = at + 1;
                digest.update(&answer.payload);
                body.extend_from_slice(&answer.payload);
            }
            if body.len() == before {
                return Ok(None);
            }
        }
        let found = format!("SHA-256={}", BASE64URL.encode(digest.finish().as_ref()));
        match &info.digest {
            Some(digest) if *digest != found => Err("it has another digest than it says".to_owned()),
            _ => Ok(Some(body)),
        }
    }
}

const END_OF_TURN: u16 = 204;

/// Where in the stream a piece of a turn stands. An answer that is no such piece has no place.
fn place(answer: &Message) -> Option<u64> {
    let headers = answer.headers.as_ref().filter(|_| answer.status.is_none_or(|status| status == StatusCode::OK))?;
    // A server that knows no turns says nothing of what is left.
    headers.get("Nats-Num-Pending")?;
    headers.get("Nats-Sequence")?.as_str().parse().ok()
}

/// Why an object was not stored.
fn failed(name: &Name, error: &PublishError) -> StoreError {
    let code =
        std::error::Error::source(error).and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>());
    let full = code.map(async_nats::jetstream::Error::error_code).is_some_and(|code| {
        let full = [
            // The bucket has a bound of its own, which it has reached.
            ErrorCode::STREAM_STORE_FAILED,
            ErrorCode::STORAGE_RESOURCES_EXCEEDED,
            ErrorCode::MEMORY_RESOURCES_EXCEEDED,
            ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
            ErrorCode::INSUFFICIENT_RESOURCES,
        ];
        full.contains(&code)
    });
    // It may be the connection, and then it works later.
    let failed = StoreError::new(ErrorKind::Temporary, format!("cannot put `{name}`: {error}"));
    match error.kind() {
        _ if full => {
            StoreError::new(ErrorKind::Temporary, format!("cannot put `{name}`: there is no room left: {error}"))
                .hint("make room in the bucket or on the servers, or allow it more; then try again")
        }
        PublishErrorKind::MaxPayloadExceeded => StoreError { kind: ErrorKind::Permanent, ..failed },
        _ => failed,
    }
}
