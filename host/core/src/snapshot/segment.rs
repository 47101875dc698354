//! A stretch of one shard's log as it lies in the archive: entries as they stood there, each with its place.
//!
//! The same stretch always comes to the same bytes, whoever archives it: nothing of a maker or of a clock of his is in
//! it. What stood before its first entry is named, for a log that lost its end may have another entry there by now.

use super::manifest::{Position, Stored};
use crate::entry::Origin;
use serde::{Deserialize, Serialize};

/// What the content of a segment begins with.
const WHOLE: &[u8; 8] = b"ANTISEG1";
/// What it begins with if it lies in other objects, for it is larger than one may be.
const PARTED: &[u8; 8] = b"ANTISEGP";
/// The newest form that this version knows.
const FORMAT: u32 = 1;
/// Bytes of an entry besides its frame, at most.
pub const ENTRY_BYTES: usize = 8 + 4 + 8 + 1 + 16 + 4;

/// Who appended an entry, as far as the log itself knows: what the entry says of it is the writer's own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The log doesn't look: whoever can write to it may say anything.
    Untold,
    /// It stands where any node may write, which is where a shard's first entry goes.
    Anyone,
    /// It came by the way that only this origin has.
    Origin(Origin),
}

/// One entry of the log in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Its position: that of its last part.
    pub seq: u64,
    /// How many positions it takes.
    pub parts: u32,
    /// When the log took it, in nanoseconds of the log's own clock.
    pub time: u64,
    /// Who appended it.
    pub sender: Sender,
    /// The bytes that were appended.
    pub frame: Vec<u8>,
}

/// What a segment says of itself before its entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its form.
    pub format: u32,
    /// The cluster whose log it is of.
    pub cluster: String,
    /// Which log.
    pub epoch: u64,
    /// The shard.
    pub shard: u32,
    /// The first position in it.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// How many entries it holds.
    pub entries: u64,
    /// What stands before the first entry; unknown if the log began with that one when it was archived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Position>,
    /// Nodes whose entries are in it.
    pub nodes: Vec<u64>,
    /// The term of who archived it.
    #[serde(default, skip_serializing_if = "is_none")]
    pub term: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_none(term: &u64) -> bool {
    *term == 0
}

/// What an object under a segment's name holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The segment.
    Whole(Head, Vec<Logged>),
    /// The names of nothing: the segment lies in these objects, one after the other.
    Parted(Vec<Stored>),
}

/// Why bytes are no segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It was cut off or changed.
    #[error("a segment of the archive is damaged: {0}")]
    Damaged(&'static str),
    /// A later version wrote it.
    #[error("a segment of the archive is of format {0}, and this version knows {FORMAT}; use a newer one")]
    Newer(u32),
}

/// A segment's head.
#[must_use]
pub fn head(cluster: &str, at: (u64, u32), term: u64, entries: &[Logged], before: Option<Position>) -> Head {
    let mut nodes: Vec<u64> = entries
        .iter()
        .filter_map(|entry| if let Sender::Origin(origin) = entry.sender { Some(origin.node) } else { None })
        .collect();
    nodes.sort_unstable();
    nodes.dedup();
    Head {
        format: FORMAT,
        cluster: cluster.to_owned(),
        epoch: at.0,
        shard: at.1,
        first: entries.first().map_or(0, Logged::first),
        last: entries.last().map_or(0, |entry| entry.seq),
        entries: entries.len() as u64,
        before,
        nodes,
        term,
    }
}

impl Logged {
    /// The position that its first part has.
    #[must_use]
    pub fn first(&self) -> u64 {
        (self.seq + 1).saturating_sub(self.parts.into())
    }
}

/// A segment as bytes, not compressed yet.
#[must_use]
pub fn write(head: &Head, entries: &[Logged]) -> Vec<u8> {
    let frames: usize = entries.iter().map(|entry| entry.frame.len() + ENTRY_BYTES).sum();
    let mut out = Vec::with_capacity(frames + 512);
    begin(&mut out, WHOLE, head);
    for entry in entries {
        out.extend(entry.seq.to_le_bytes());
        out.extend(entry.parts.to_le_bytes());
        out.extend(entry.time.to_le_bytes());
        match entry.sender {
            Sender::Untold => out.push(0),
            Sender::Anyone => out.push(1),
            Sender::Origin(origin) => {
                out.push(2);
                out.extend(origin.node.to_le_bytes());
                out.extend(origin.incarnation.to_le_bytes());
            }
        }
        // No log takes an entry of 4 GiB.
        out.extend(u32::try_from(entry.frame.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend(&entry.frame);
    }
    out
}

/// What stands in the place of a segment that lies in other objects.
#[must_use]
pub fn write_parted(parts: &[Stored]) -> Vec<u8> {
    let mut out = Vec::new();
    begin(&mut out, PARTED, parts);
    out
}

fn begin(out: &mut Vec<u8>, magic: &[u8; 8], head: &(impl Serialize + ?Sized)) {
    // Numbers and texts: there is nothing in it that JSON can't say.
    let text = serde_json::to_vec(head).unwrap_or_default();
    out.extend(magic);
    out.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(text);
}

/// Reads what [`write()`] or [`write_parted`] wrote.
///
/// # Errors
/// When it is anything else.
pub fn read(bytes: &[u8]) -> Result<Content, Error> {
    let mut rest = Rest(bytes);
    let magic = rest.take(8)?;
    let length = rest.u32()? as usize;
    let text = rest.take(length)?;
    if magic == PARTED {
        let parts = serde_json::from_slice(text).map_err(|_| Error::Damaged("its head cannot be read"))?;
        return if rest.0.is_empty() { Ok(Content::Parted(parts)) } else { Err(Error::Damaged("it is too long")) };
    }
    if magic != WHOLE {
        return Err(Error::Damaged("it does not begin as one"));
    }
    /// All that every form has.
    #[derive(Deserialize)]
    struct Form {
        format: u32,
    }
    let form: Form = serde_json::from_slice(text).map_err(|_| Error::Damaged("its head cannot be read"))?;
    if form.format > FORMAT {
        return Err(Error::Newer(form.format));
    }
    let head: Head = serde_json::from_slice(text).map_err(|_| Error::Damaged("its head cannot be read"))?;
    let mut entries = Vec::new();
    let mut next = head.first;
    while !rest.0.is_empty() {
        let (seq, parts, time) = (rest.u64()?, rest.u32()?, rest.u64()?);
        let sender = match rest.take(1)? {
            [0] => Sender::Untold,
            [1] => Sender::Anyone,
            [2] => Sender::Origin(Origin { node: rest.u64()?, incarnation: rest.u64()? }),
            _ => return Err(Error::Damaged("a sender in it is of no kind")),
        };
        let length = rest.u32()? as usize;
        let frame = rest.take(length)?.to_vec();
        let entry = Logged { seq, parts, time, sender, frame };
        if parts == 0 || entry.first() != next || seq == u64::MAX {
            return Err(Error::Damaged("an entry in it is out of its place"));
        }
        next = seq + 1;
        entries.push(entry);
    }
    if entries.len() as u64 != head.entries || entries.is_empty() || next != head.last + 1 {
        return Err(Error::Damaged("entries of it are missing"));
    }
    Ok(Content::Whole(head, entries))
}

/// What is still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Error::Damaged("it is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        let bytes = self.take(4)?.try_into().map_err(|_| Error::Damaged("it is cut off"))?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn u64(&mut self) -> Result<u64, Error> {
        let bytes = self.take(8)?.try_into().map_err(|_| Error::Damaged("it is cut off"))?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// The first bytes of a content's hash: what the segment's name has of it.
#[must_use]
pub fn short_hash(content: &[u8]) -> u64 {
    let hash = blake3::hash(content);
    hash.as_bytes().iter().take(8).fold(0, |short, byte| short << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn logged(seq: u64, parts: u32, sender: Sender, frame: &[u8]) -> Logged {
        Logged { seq, parts, time: seq * 1_000, sender, frame: frame.to_vec() }
    }

    fn entries() -> Vec<Logged> {
        let origin = Origin { node: 7, incarnation: u64::MAX };
        vec![
            logged(11, 1, Sender::Untold, b""),
            logged(14, 3, Sender::Origin(origin), b"a frame"),
            logged(15, 1, Sender::Anyone, &[0; 300]),
        ]
    }

    fn written() -> Vec<u8> {
        let before = Some(Position { epoch: 9, seq: 10, time: 4, checksum: 5 });
        write(&head("c0ffee", (9, 2), 3, &entries(), before), &entries())
    }

    #[test]
    fn a_segment_is_read_as_it_was_written() {
        let Content::Whole(head, read) = read(&written()).unwrap() else { panic!("it is whole") };
        assert_eq!(read, entries());
        assert_eq!((head.first, head.last, head.entries, head.shard), (11, 15, 3, 2));
        assert_eq!((head.nodes, head.term), (vec![7], 3));
        let parts = vec![Stored::of(b"one"), Stored::of(b"two")];
        assert_eq!(super::read(&write_parted(&parts)), Ok(Content::Parted(parts)));
    }

    #[test]
    fn a_cut_one_is_none() {
        let bytes = written();
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "cut at {length}");
        }
        assert!(read(&[bytes, vec![0]].concat()).is_err());
    }

    #[test]
    fn what_is_out_of_its_place_is_found() {
        for wrong in [
            vec![logged(11, 1, Sender::Untold, b""), logged(13, 1, Sender::Untold, b"")],
            vec![logged(11, 1, Sender::Untold, b""), logged(11, 1, Sender::Untold, b"")],
        ] {
            assert!(read(&write(&head("c", (1, 1), 0, &wrong, None), &wrong)).is_err());
        }
        let later = Head { format: FORMAT + 1, ..head("c", (1, 1), 0, &entries(), None) };
        assert_eq!(read(&write(&later, &entries())), Err(Error::Newer(FORMAT + 1)));
    }

    proptest! {
        #[test]
        fn nothing_that_comes_in_does_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&[&WHOLE[..], &bytes].concat());
            let _ = read(&bytes);
        }
    }
}
