//! Out of the stream: messages by their sequence, put together to frames.
//!
//! Any server that has a copy may answer, and one may be behind. So a read that finds nothing proves nothing where there
//! are several copies: then the stream's leader is asked how far it reaches. If it says that there is more and does not have
//! it either, somebody removed what was acknowledged.

use super::Names;
use super::append::{BATCH_MAX, PART};
use super::stream::{Stream, unreachable};
use crate::log::{Bounds, Error, Placed, Placement};
use antiphon_core::codec;
use async_nats::StatusCode;
use async_nats::jetstream::message::StreamMessage;
use futures::StreamExt as _;
use serde::Serialize;
use std::time::Duration;

/// How long the next message may take.
const NEXT: Duration = Duration::from_secs(5);
/// How long a copy that is behind is waited for, and how often it is asked.
const CATCH_UP: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(5);
/// The status that says that no more messages follow.
const END: u16 = 204;
/// Messages asked for at once.
const MESSAGES_MAX: usize = 4096;
/// Bytes asked for at once, at most.
const READ_MAX: usize = 64 << 20;
/// The largest frame there can be: a body, and what stands around it.
const FRAME_MAX: usize = codec::BODY_BYTES_MAX + (1 << 10);

#[derive(Serialize)]
struct Wanted<'a> {
    seq: u64,
    batch: usize,
    max_bytes: usize,
    next_by_subj: &'a str,
}

/// The first message from this sequence on.
#[derive(Serialize)]
struct Next<'a> {
    seq: u64,
    next_by_subj: &'a str,
}

/// The newest message of every subject that matches.
#[derive(Serialize)]
pub(super) struct LastOf<'a> {
    pub(super) multi_last: [&'a str; 1],
}

/// Frames out of messages, in their order.
#[derive(Default)]
struct Assembled {
    placed: Vec<Placed>,
    /// Messages at the end that belong to an entry whose last part was not among them.
    open: usize,
}

impl Stream {
    pub(super) async fn read(&self, after: u64, bytes_max: usize) -> Result<Vec<Placed>, Error> {
        let bytes_max = bytes_max.min(READ_MAX);
        let messages = self.messages_from(after + 1, bytes_max).await?;
        if let Some((part, _)) = messages.first().and_then(part_of)
            && part > 1
        {
            // The position stands within an entry: it is given whole, if that is what it is.
            let begin = (after + 2).saturating_sub(part).max(1);
            let around = self.messages_from(begin, bytes_max).await?;
            let entries = self.whole(around, begin - 1, bytes_max).await?;
            if entries.first().is_some_and(|entry| entry.first() == begin && entry.seq > after) {
                return Ok(entries);
            }
        }
        self.whole(messages, after, bytes_max).await
    }

    /// In one request: the message at the position, and the messages after it.
    pub(super) async fn read_on(&self, at: u64, bytes_max: usize) -> Result<(Option<Placement>, Vec<Placed>), Error> {
        let bytes_max = bytes_max.min(READ_MAX);
        let mut messages = self.messages_from(at, bytes_max).await?;
        if messages.is_empty() {
            return Ok((None, Vec::new()));
        }
        let first = messages.remove(0);
        let there = match ending(&first) {
            Some(there) => there,
            None => match self.stands(at).await? {
                Some(there) => there,
                None => return Ok((None, Vec::new())),
            },
        };
        if there.seq != at {
            return Ok((Some(there), Vec::new()));
        }
        if messages.is_empty() && self.reaches_past(at).await? {
            // The next one is larger than what was left of the answer. It comes after what stands there now.
            let entries = self.read(at, bytes_max).await?;
            return Ok((self.stands(at).await?, entries));
        }
        Ok((Some(there), self.whole(messages, at, bytes_max).await?))
    }

    /// What stands at a position, or the first that comes after it.
    pub(super) async fn stands(&self, at: u64) -> Result<Option<Placement>, Error> {
        // The end of an entry is enough to know it by; one message is asked for, however large it is.
        let messages = self.messages_from(at, 1).await?;
        if let Some(there) = messages.first().and_then(ending).filter(|there| there.seq == at) {
            return Ok(Some(there));
        }
        Ok(self.read(at.saturating_sub(1), 1).await?.first().map(Placed::placement))
    }

    /// Entries out of messages that follow a position, and of further ones if the first entry is not complete.
    async fn whole(
        &self,
        mut messages: Vec<StreamMessage>,
        after: u64,
        bytes_max: usize,
    ) -> Result<Vec<Placed>, Error> {
        let mut waited = None;
        loop {
            let Assembled { mut placed, open } = assemble(&messages);
            placed.retain(|placed| placed.seq > after);
            let Some(last) = messages.last().map(|message| message.sequence).filter(|_| placed.is_empty()) else {
                return Ok(placed);
            };
            // An entry larger than what is read at once.
            messages.drain(..messages.len() - open);
            let more = self.messages_from(last + 1, bytes_max).await?;
            if more.is_empty() {
                let begun = *waited.get_or_insert_with(tokio::time::Instant::now);
                if messages.is_empty() || begun.elapsed() > CATCH_UP {
                    // All parts of an entry come at once: what ends without its last part is none.
                    placed.extend(messages.iter().map(alone));
                    return Ok(placed);
                }
                tokio::time::sleep(AGAIN).await;
            }
            messages.extend(more);
        }
    }

    async fn reaches_past(&self, seq: u64) -> Result<bool, Error> {
        // Who follows was told of whatever came; only a bell that was not heard yet costs a question.
        Ok(self.bell.has_rung_for(seq + 1) || self.bounds().await?.last > seq)
    }

    async fn messages_from(&self, seq: u64, bytes_max: usize) -> Result<Vec<StreamMessage>, Error> {
        let begun = tokio::time::Instant::now();
        loop {
            let messages = self.try_messages(seq, bytes_max).await?;
            // One copy alone is not behind itself.
            let is_all = self.settings.replicas < 2 && seq > 1 && !self.bell.has_rung_for(seq);
            if !messages.is_empty() || is_all || self.bounds().await?.last < seq {
                return Ok(messages);
            }
            if begun.elapsed() > CATCH_UP {
                let Bounds { first, last } = self.bounds().await?;
                if first > last {
                    // All of it is gone. Whoever has read any of that finds it missing.
                    return Ok(messages);
                }
                return Err(if self.leader_has(seq).await? {
                    Error::Unreachable(format!("the copies of stream `{}` do not catch up", self.name))
                } else {
                    Error::Broken(format!(
                        "the stream `{}` had message {seq}, and has lost it and all behind it",
                        self.name
                    ))
                });
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Whether the stream's leader has this message, or one behind it.
    async fn leader_has(&self, seq: u64) -> Result<bool, Error> {
        let wanted = Next { seq, next_by_subj: &self.names().subjects(self.shard) };
        let found: Option<serde_json::Value> = self.ask("STREAM.MSG.GET", &wanted).await?;
        Ok(found.is_some())
    }

    async fn try_messages(&self, seq: u64, bytes_max: usize) -> Result<Vec<StreamMessage>, Error> {
        let subjects = self.names().subjects(self.shard);
        let wanted = Wanted { seq, batch: MESSAGES_MAX, max_bytes: bytes_max.max(1), next_by_subj: &subjects };
        let messages = direct(&self.client, &self.name, &wanted).await?;
        match messages {
            Some(messages) => Ok(messages),
            // Nobody answers for a stream that is not there.
            None if self.bounds().await?.last == 0 => Ok(Vec::new()),
            None => Err(Error::Unreachable(format!("no server answers for the stream `{}`", self.name))),
        }
    }
}

/// Asks any server that has a copy of a stream; nothing if none does.
pub(super) async fn direct(
    client: &async_nats::Client,
    stream: &str,
    wanted: &impl Serialize,
) -> Result<Option<Vec<StreamMessage>>, Error> {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| unreachable(&error))?;
    let request = serde_json::to_vec(wanted).map_err(|error| Error::Broken(error.to_string()))?;
    let subject = format!("$JS.API.DIRECT.GET.{stream}");
    client.publish_with_reply(subject, inbox, request.into()).await.map_err(|error| unreachable(&error))?;
    let mut messages = Vec::new();
    loop {
        let answer = tokio::time::timeout(NEXT, answers.next()).await;
        let Ok(Some(answer)) = answer else {
            return Err(Error::Unreachable(format!("stream `{stream}` does not answer")));
        };
        match answer.status {
            None | Some(StatusCode::OK) => {}
            // The end, or nothing at all.
            Some(status) if status.as_u16() == END || status == StatusCode::NOT_FOUND => return Ok(Some(messages)),
            Some(StatusCode::NO_RESPONDERS) => return Ok(None),
            Some(status) => {
                let said = answer.description.unwrap_or_default();
                return Err(Error::Unreachable(format!("stream `{stream}` refuses to be read: {status} {said}")));
            }
        }
        messages.push(StreamMessage::try_from(answer).map_err(|error| unreachable(&error))?);
    }
}

/// Which part of how many a message is, if it is no whole frame.
fn part_of(message: &StreamMessage) -> Option<(u64, u64)> {
    let (part, of) = message.headers.get(PART)?.as_str().split_once('/')?;
    let (part, of) = (part.parse().ok()?, of.parse().ok()?);
    (0 < part && part <= of && of <= BATCH_MAX as u64).then_some((part, of))
}

/// What tells an entry from others, by its last message alone; `None` if that message is not the last, or too short.
fn ending(message: &StreamMessage) -> Option<Placement> {
    let tells = match part_of(message) {
        None => true,
        Some((part, of)) => part >= of && message.payload.len() >= size_of::<u64>(),
    };
    let checksum = codec::checksum(&message.payload);
    tells.then(|| Placement { seq: message.sequence, time: time_of(message), checksum })
}

fn time_of(message: &StreamMessage) -> u64 {
    u64::try_from(message.time.unix_timestamp_nanos()).unwrap_or(0)
}

/// A message as an entry of its own, whatever it says of parts.
fn alone(message: &StreamMessage) -> Placed {
    Placed {
        seq: message.sequence,
        parts: 1,
        time: time_of(message),
        from: Names::sender(message.subject.as_str()),
        frame: message.payload.to_vec(),
    }
}

/// Entries out of messages.
///
/// No node leaves a part alone, for all of one entry are taken together. One that somebody else put there is given as an
/// entry of its own, which can't be read: whoever applies stops at it, and skips nothing.
fn assemble(messages: &[StreamMessage]) -> Assembled {
    let mut placed = Vec::new();
    let mut open: Vec<&StreamMessage> = Vec::new();
    let mut bytes = 0;
    for message in messages {
        let (part, of) = part_of(message).unwrap_or((1, 1));
        let follows = bytes + message.payload.len() <= FRAME_MAX
            && open.last().is_none_or(|last| {
                last.sequence + 1 == message.sequence
                    && last.subject == message.subject
                    && part_of(last).is_some_and(|(_, before)| before == of)
            });
        if part != open.len() as u64 + 1 || !follows {
            placed.extend(open.drain(..).map(alone));
            bytes = 0;
        }
        if part != open.len() as u64 + 1 {
            placed.push(alone(message));
            continue;
        }
        bytes += message.payload.len();
        open.push(message);
        if part == of {
            placed.push(match open.as_slice() {
                [whole] => alone(whole),
                parts => {
                    let frame = parts.iter().flat_map(|part| part.payload.iter().copied()).collect();
                    Placed { parts: u32::try_from(parts.len()).unwrap_or(u32::MAX), frame, ..alone(message) }
                }
            });
            open.clear();
            bytes = 0;
        }
    }
    Assembled { placed, open: open.len() }
}
