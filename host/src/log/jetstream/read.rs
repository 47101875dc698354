//! Out of the stream: messages by their sequence, put together to frames.
//!
//! Any server that has a copy may answer, and one may be behind. So a read that finds nothing proves nothing where there
//! are several copies: then the stream's leader is asked how far it reaches.

use super::Names;
use super::append::PART;
use super::stream::{Stream, unreachable};
use crate::log::{Error, Placed};
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

#[derive(Serialize)]
struct Wanted<'a> {
    seq: u64,
    batch: usize,
    max_bytes: usize,
    next_by_subj: &'a str,
}

/// The newest message of every subject that matches.
#[derive(Serialize)]
pub(super) struct LastOf<'a> {
    pub(super) multi_last: [&'a str; 1],
}

impl Stream {
    pub(super) async fn read(&self, after: u64, bytes_max: usize) -> Result<Vec<Placed>, Error> {
        let bytes_max = bytes_max.min(64 << 20);
        let mut messages = self.messages_from(after + 1, bytes_max).await?;
        if let Some((part, _)) = messages.first().and_then(part_of)
            && part > 1
        {
            // The position stands within an entry: it is given whole.
            let begin = (after + 2).saturating_sub(part).max(1);
            messages = self.messages_from(begin, bytes_max).await?;
        }
        loop {
            let (placed, rest) = assemble(&messages)?;
            if rest == 0 || !placed.is_empty() {
                return Ok(placed);
            }
            // An entry larger than what is read at once.
            let next = messages.last().map_or(after, |message| message.sequence) + 1;
            let more = self.messages_from(next, bytes_max).await?;
            if more.is_empty() {
                return Ok(placed);
            }
            messages.extend(more);
        }
    }

    async fn messages_from(&self, seq: u64, bytes_max: usize) -> Result<Vec<StreamMessage>, Error> {
        let begun = tokio::time::Instant::now();
        loop {
            let messages = self.try_messages(seq, bytes_max).await?;
            if !messages.is_empty() || self.settings.replicas < 2 || self.bounds().await?.last < seq {
                return Ok(messages);
            }
            if begun.elapsed() > CATCH_UP {
                return Err(Error::Unreachable(format!("the copies of stream `{}` do not catch up", self.name)));
            }
            tokio::time::sleep(AGAIN).await;
        }
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
    Some((part.parse().ok()?, of.parse().ok()?))
}

/// Entries out of messages, and how many messages at the end belong to one that is not complete.
fn assemble(messages: &[StreamMessage]) -> Result<(Vec<Placed>, usize), Error> {
    let mut placed = Vec::new();
    let mut open: Vec<&StreamMessage> = Vec::new();
    for message in messages {
        let (part, of) = part_of(message).unwrap_or((1, 1));
        let follows = open.last().map_or(0, |last| last.sequence) + 1 == message.sequence;
        if part != open.len() as u64 + 1 || (part > 1 && !follows) {
            return Err(Error::Broken(format!("part {part} of an entry stands alone at {}", message.sequence)));
        }
        open.push(message);
        if part < of {
            continue;
        }
        let frame = match open.as_slice() {
            [whole] => whole.payload.to_vec(),
            parts => parts.iter().flat_map(|part| part.payload.iter().copied()).collect(),
        };
        let parts = u32::try_from(open.len()).unwrap_or(u32::MAX);
        open.clear();
        let time = u64::try_from(message.time.unix_timestamp_nanos()).unwrap_or(0);
        let from = Names::origin(message.subject.as_str());
        placed.push(Placed { seq: message.sequence, parts, time, from, frame });
    }
    Ok((placed, open.len()))
}
