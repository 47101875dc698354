//! Into the stream: one message, or an atomic batch of them, and only behind our own last one.

use super::stream::{Stream, is_unheard, unreachable};
use crate::log::{Appended, Bounds, Error};
use antiphon_core::entry::Origin;
use async_nats::client::Request;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::{HeaderMap, Message, header};
use bytes::Bytes;
use std::time::Duration;

/// The number of a frame.
pub(super) const NUMBER: &str = "Antiphon-Number";
/// Which part of a frame it is, and of how many, as `2/5`.
pub(super) const PART: &str = "Antiphon-Part";

const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// What headers and subject take of a message, at most.
const OVERHEAD: usize = 4096;
/// Messages that the server takes in one batch.
pub(super) const BATCH_MAX: usize = 1000;
/// How long the server may take to answer, besides a second for each megabyte.
const ANSWER: Duration = Duration::from_secs(5);
/// How soon a message is handed over again that no server listened to.
const AGAIN: Duration = Duration::from_millis(50);
/// Among so many of an origin's last messages one is looked for that has a higher number than the last.
const LOOK_BACK: usize = 64;

/// The last message of an origin's subject.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    origin: Origin,
    /// Its sequence; 0 if there is none.
    seq: u64,
    /// The number of the frame that it ends; 0 if there is none.
    number: u64,
}

/// What the server made of messages.
enum Answer {
    At(u64),
    /// Another message than expected is the last one.
    Overtaken,
}

/// The same messages, to be taken only if the last one of their subject is this.
fn behind(mut messages: Vec<Outgoing>, last: u64) -> Vec<Outgoing> {
    if let Some(message) = messages.first_mut() {
        message.headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, last.to_string().as_str());
    }
    messages
}

impl Stream {
    pub(super) async fn append(&self, origin: Origin, first: u64, frames: &[Vec<u8>]) -> Result<Appended, Error> {
        if !frames.is_empty() {
            self.make().await?;
        }
        let mut own = self.own.lock().await;
        let known = match *own {
            Some(known) if known.origin == origin => known,
            _ => self.last_of(origin).await?,
        };
        if known.number + 1 != first {
            // Whoever asks after the last number wants what the server has, and not what was remembered of it.
            let known = self.last_of(origin).await?;
            *own = Some(known);
            if known.number + 1 != first && !(known.seq == 0 && !frames.is_empty() && self.is_cut().await?) {
                return Ok(Appended::Fenced { last: known.number });
            }
        }
        // Until the answer is there, what stands last is not known.
        *own = None;
        let subject = self.names().subject(self.shard, origin);
        let mut last = known;
        for Batch { number, mut messages } in self.batches(first, frames) {
            if let [message] = messages.as_mut_slice() {
                // A server remembers for a while what it was given. What it has lost since is to be taken again: behind
                // another message, or in a stream that begins elsewhere.
                let behind = if last.seq > 0 { last.seq } else { self.bounds().await?.first };
                let id = format!("{}.{}.{number}.{behind}", origin.node, origin.incarnation);
                message.headers.insert(header::NATS_MESSAGE_ID, id.as_str());
            }
            let mut answer = self.publish(&subject, behind(messages.clone(), last.seq)).await?;
            if matches!(answer, Answer::Overtaken) && last.seq > 0 && self.has_none_left(origin).await? {
                // The stream has let go of what was the last one.
                answer = self.publish(&subject, behind(messages, 0)).await?;
            }
            match answer {
                Answer::At(seq) => {
                    last = Own { origin, seq, number };
                    self.bell.ring(seq);
                }
                Answer::Overtaken => {
                    let known = self.last_of(origin).await?;
                    *own = Some(known);
                    return Ok(Appended::Fenced { last: known.number });
                }
            }
        }
        *own = Some(last);
        Ok(Appended::At(last.seq))
    }

    /// Whether there is nothing of an origin any more in a stream that was cut.
    async fn has_none_left(&self, origin: Origin) -> Result<bool, Error> {
        Ok(self.last_of(origin).await?.seq == 0 && self.is_cut().await?)
    }

    /// Whether the stream begins later than it did. Then nothing tells any more where an origin is that has not said
    /// anything since; but it knows that itself, for it has read all there was. Of two that are the same origin the
    /// server still takes only one.
    async fn is_cut(&self) -> Result<bool, Error> {
        let bounds = self.bounds().await?;
        Ok(bounds.first > 1 && bounds.last >= bounds.first)
    }

    pub(super) async fn begin(&self, frame: &[u8]) -> Result<bool, Error> {
        self.make().await?;
        Ok(self.begin_behind(0, frame).await?.is_some())
    }

    /// A stream that holds nothing goes on at a later place.
    pub(super) async fn begin_again(&self, at: u64, frame: &[u8]) -> Result<Option<u64>, Error> {
        self.make().await?;
        let Bounds { first, last } = self.bounds().await?;
        if first <= last {
            return Ok(None);
        }
        let at = at.max(last + 1);
        if at > last + 1 {
            self.purge_before(at).await?;
        }
        self.begin_behind(at - 1, frame).await
    }

    /// The first message of a stream, if nothing came after this one.
    async fn begin_behind(&self, last: u64, frame: &[u8]) -> Result<Option<u64>, Error> {
        let mut messages = self.messages(0, &[frame.to_vec()]);
        if let Some(message) = messages.first_mut() {
            message.headers.insert(header::NATS_EXPECTED_LAST_SEQUENCE, last.to_string().as_str());
        }
        let answer = self.publish(&self.names().begin(self.shard), messages).await?;
        Ok(match answer {
            Answer::At(seq) => {
                self.bell.ring(seq);
                Some(seq)
            }
            Answer::Overtaken => None,
        })
    }

    /// The last message of an origin, as the stream's leader knows it.
    async fn last_of(&self, origin: Origin) -> Result<Own, Error> {
        let stream = self.context.get_stream_no_info(&self.name).await.map_err(|error| unreachable(&error))?;
        let subject = self.names().subject(self.shard, origin);
        let found = match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(found) => found,
            Err(error) => {
                use async_nats::jetstream::stream::LastRawMessageErrorKind::{JetStream, NoMessageFound};
                return match error.kind() {
                    NoMessageFound => Ok(Own { origin, seq: 0, number: 0 }),
                    JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                        Ok(Own { origin, seq: 0, number: 0 })
                    }
                    _ => Err(unreachable(&error)),
                };
            }
        };
        let number = number_of(&found).ok_or_else(|| {
            Error::Broken(format!("message {} of stream `{}` bears no number", found.sequence, self.name))
        })?;
        Ok(Own { origin, seq: found.sequence, number })
    }

    /// The highest number of an origin. Numbers climb, unless somebody put an older message there once more: then that is
    /// the one that others are to come behind, and not the number to go on from.
    pub(super) async fn highest(&self, origin: Origin) -> Result<u64, Error> {
        let mut own = self.own.lock().await;
        let last = self.last_of(origin).await?;
        let (mut highest, mut at) = (last.number, last);
        for _ in 0..LOOK_BACK {
            // Parts of one frame have one number.
            let Some(earlier) = self.before(&at).await?.filter(|earlier| earlier.number >= at.number) else { break };
            highest = highest.max(earlier.number);
            at = earlier;
        }
        if highest > last.number {
            tracing::warn!(
                shard = self.shard,
                again = last.number,
                highest,
                "an older batch of this node stands in the log once more, behind a newer one; it is left out"
            );
            *own = Some(Own { number: highest, ..last });
        }
        Ok(highest)
    }

    /// The message of an origin before this one, as the stream's leader knows it.
    async fn before(&self, last: &Own) -> Result<Option<Own>, Error> {
        let stream = self.context.get_stream_no_info(&self.name).await.map_err(|error| unreachable(&error))?;
        let subject = self.names().subject(self.shard, last.origin);
        let (mut from, mut to) = (self.bounds().await?.first, last.seq);
        let mut found = None;
        while from < to {
            let middle = from + (to - from) / 2;
            let next = stream.get_first_raw_message_by_subject(&subject, middle).await;
            let next = next.map_err(|error| unreachable(&error))?;
            if next.sequence < last.seq {
                from = next.sequence + 1;
                found = number_of(&next).map(|number| Own { seq: next.sequence, number, ..*last });
            } else {
                to = middle;
            }
        }
        Ok(found)
    }

    /// Frames as messages, as many together as the server takes; none is divided between two batches.
    fn batches(&self, first: u64, frames: &[Vec<u8>]) -> Vec<Batch> {
        let mut batches: Vec<Batch> = Vec::new();
        for (number, frame) in (first..).zip(frames) {
            let messages = self.messages(number, std::slice::from_ref(frame));
            match batches.last_mut() {
                Some(batch) if batch.messages.len() + messages.len() <= BATCH_MAX => {
                    batch.number = number;
                    batch.messages.extend(messages);
                }
                _ => batches.push(Batch { number, messages }),
            }
        }
        batches
    }

    /// Frames as messages, cut where the server takes no larger ones.
    fn messages(&self, first: u64, frames: &[Vec<u8>]) -> Vec<Outgoing> {
        let room = self.client.max_payload().saturating_sub(OVERHEAD).max(1);
        let mut messages = Vec::with_capacity(frames.len());
        for (number, frame) in (first..).zip(frames) {
            let parts = frame.len().div_ceil(room).max(1);
            for (part, bytes) in (1..).zip(frame.chunks(room)) {
                let mut headers = HeaderMap::new();
                headers.insert(NUMBER, number.to_string().as_str());
                if parts > 1 {
                    headers.insert(PART, format!("{part}/{parts}").as_str());
                }
                messages.push(Outgoing { headers, payload: Bytes::copy_from_slice(bytes) });
            }
        }
        messages
    }

    /// Publishes all of these messages or none; gives the sequence of the last.
    async fn publish(&self, subject: &str, messages: Vec<Outgoing>) -> Result<Answer, Error> {
        let count = messages.len();
        if count > BATCH_MAX {
            return Err(Error::Broken(format!(
                "a row of {count} messages is more than the server takes at once; raise `max_payload` of the server"
            )));
        }
        let bytes: usize = messages.iter().map(|message| message.payload.len()).sum();
        let patience = ANSWER + Duration::from_secs((bytes >> 20) as u64);
        let batch = self.client.new_inbox();
        let mut last = Answer::At(0);
        for (position, mut message) in (1..).zip(messages) {
            let is_last = position == count;
            if count > 1 {
                message.headers.insert(BATCH_ID, batch.rsplit('.').next().unwrap_or(&batch));
                message.headers.insert(BATCH_SEQUENCE, position.to_string().as_str());
                if is_last {
                    message.headers.insert(BATCH_COMMIT, "1");
                }
            }
            if position > 1 && !is_last {
                // What is wrong with it is said in the answer to the last one.
                let sent = self.client.publish_with_headers(subject.to_owned(), message.headers, message.payload);
                sent.await.map_err(|error| unreachable(&error))?;
                continue;
            }
            let answer = self.hand_over(subject, message, patience, position == 1).await?;
            if answer.payload.is_empty() && !is_last {
                continue;
            }
            last = answered(&answer.payload)?;
            if matches!(last, Answer::Overtaken) {
                return Ok(last);
            }
        }
        Ok(last)
    }

    /// Publishes a message, and waits for its answer. Where no server listens nothing was taken. A stream that was just
    /// made, or whose leader is gone, has one soon: the first message of a batch is handed over until it is heard.
    async fn hand_over(
        &self,
        subject: &str,
        message: Outgoing,
        patience: Duration,
        is_first: bool,
    ) -> Result<Message, Error> {
        let begun = tokio::time::Instant::now();
        loop {
            let Outgoing { headers, payload } = message.clone();
            let request = Request::new().headers(headers).payload(payload).timeout(Some(patience));
            match self.client.send_request(subject.to_owned(), request).await {
                Ok(answer) => return Ok(answer),
                Err(error) if !is_unheard(&error) => return Err(unreachable(&error)),
                Err(_) if is_first && begun.elapsed() < patience => tokio::time::sleep(AGAIN).await,
                Err(_) => {
                    return Err(Error::Unreachable(format!("no server has the stream `{}` at the moment", self.name)));
                }
            }
        }
    }
}

/// What is published at once.
struct Batch {
    /// Of its last frame.
    number: u64,
    messages: Vec<Outgoing>,
}

#[derive(Clone)]
struct Outgoing {
    headers: HeaderMap,
    payload: Bytes,
}

fn answered(payload: &[u8]) -> Result<Answer, Error> {
    let answer: Response<PublishAck> =
        serde_json::from_slice(payload).map_err(|error| Error::Unreachable(error.to_string()))?;
    match answer {
        Response::Ok(ack) => Ok(Answer::At(ack.sequence)),
        Response::Err { error } => match error.error_code() {
            ErrorCode::STREAM_WRONG_LAST_SEQUENCE | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => {
                Ok(Answer::Overtaken)
            }
            ErrorCode::STREAM_STORE_FAILED if error.to_string().contains("maximum bytes") => {
                let said = "it is full: `log_bytes_max` is reached, and `on_full` is `block`; raise it, with \
                            `update_existing = true` once; what is written meanwhile is kept";
                Err(Error::Unreachable(said.to_owned()))
            }
            _ => Err(Error::Unreachable(error.to_string())),
        },
    }
}

pub(super) fn number_of(message: &StreamMessage) -> Option<u64> {
    message.headers.get(NUMBER)?.as_str().parse().ok()
}
