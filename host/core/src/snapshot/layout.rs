//! Names of objects in a store.
//!
//! Everything is written once, under a name of its own, and nothing is ever overwritten. Numbers in names have as many
//! digits as their largest, so that a listing is sorted by them: newest snapshots first, segments by their place. What
//! a segment holds, up to the millisecond, is told by its name alone.

use super::id::SnapshotId;
use std::fmt;

/// The object that makes a place in a store ours.
pub const REPOSITORY: &str = "antiphon-repo.json";

/// The largest time that has thirteen digits: in the year 2286.
const LAST_MILLIS: u64 = 9_999_999_999_999;

/// A stretch of one shard's log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Which log it is of: a log that was made anew counts from 1 again.
    pub epoch: u64,
    /// The shard.
    pub shard: u32,
    /// The first entry.
    pub first: u64,
    /// The last entry.
    pub last: u64,
    /// When the first came into the log, in milliseconds since 1970.
    pub from_ms: u64,
    /// When the last did.
    pub to_ms: u64,
    /// The first bytes of the content's hash: the same stretch with another content has another name.
    pub hash: u64,
    /// The term of who archived it; 0 from before there were terms.
    pub term: u64,
    /// How often it was merged out of smaller ones.
    pub level: u8,
}

/// Since when somebody archives a shard: what others who began earlier store behind this place does not count. They may
/// have read it of a log that has lost it since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Term {
    /// Which log.
    pub epoch: u64,
    /// The shard.
    pub shard: u32,
    /// Its number: later ones have higher ones, and no two nodes the same.
    pub term: u64,
    /// The last entry that was archived when it began, and was the log's.
    pub after: u64,
}

/// Somebody is about to begin a term: what he finds in the archive now decides where. Until it is said where, nothing may
/// go that only he who archived before has told of. A term counts as long as its claim is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Which log.
    pub epoch: u64,
    /// The shard.
    pub shard: u32,
    /// The term's number.
    pub term: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// What an object is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A part of a snapshot's content.
    Payload {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Which part.
        part: Part,
        /// Its number within that, from 0.
        number: u32,
    },
    /// What makes a snapshot real.
    Manifest(SnapshotId),
    /// What a user said of a snapshot later, and when.
    Note(SnapshotId, u64),
    /// A snapshot that is to go, and when that was said.
    Tombstone(SnapshotId, u64),
    /// A snapshot that was whole when it was read again, and when.
    Verified(SnapshotId, u64),
    /// A snapshot that was put together and read, row by row, and when.
    Restored(SnapshotId, u64),
    /// A snapshot that is not what was put there, and when that was seen.
    Damaged(SnapshotId, u64),
    /// A snapshot whose objects lie in a cheaper class of storage, and since when.
    Aged(SnapshotId, u64),
    /// A node that can't go on without a new snapshot asks for one: when, and which node.
    Asked(u64, u64),
    /// A stretch of the log.
    Segment(Segment),
    /// A part of a stretch of the log that is larger than an object may be, by its number from 0.
    SegmentPart(Segment, u32),
    /// A stretch of the log that does not count: what is in it the log has lost.
    Void(Segment),
    /// Somebody is about to archive a shard.
    Claim(Claim),
    /// Somebody begins to archive a shard.
    Term(Term),
    /// Of a shard, segments up to this entry were let go of: points up to there are those of snapshots alone.
    Floor {
        /// Which log.
        epoch: u64,
        /// The shard.
        shard: u32,
        /// The entry.
        seq: u64,
    },
    /// A stretch of the log that nobody has any more.
    Hole {
        /// Which log.
        epoch: u64,
        /// The shard.
        shard: u32,
        /// The first entry that is missing.
        first: u64,
        /// The last.
        last: u64,
    },
}

/// What a part of a snapshot's content is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The database file.
    Image,
    /// What the host knows of it: where it stands in the log, stamps, what waits for its last piece.
    State,
    /// Hashes and sizes of all other objects.
    Index,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::State => "state",
            Self::Index => "index",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Image, Self::State, Self::Index].into_iter().find(|part| part.name() == name)
    }
}

impl Object {
    /// The object's name under the folder of its database.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Payload { snapshot, part, number } => format!("base/{snapshot}/{}-{number:06}.frm", part.name()),
            Self::Manifest(id) => format!("snap/{:013}-{id}.json", LAST_MILLIS.saturating_sub(id.millis())),
            Self::Note(id, at) => format!("note/{id}-{at:013}.json"),
            Self::Tombstone(id, at) => format!("tomb/{id}-{at:013}.json"),
            Self::Verified(id, at) => format!("verify/{id}-{at:013}.json"),
            Self::Restored(id, at) => format!("restored/{id}-{at:013}.json"),
            Self::Damaged(id, at) => format!("damaged/{id}-{at:013}.json"),
            Self::Aged(id, at) => format!("aged/{id}-{at:013}.json"),
            Self::Asked(at, node) => format!("ask/{at:013}-{node:016x}.json"),
            Self::Segment(segment) => segment.to_string(),
            Self::SegmentPart(segment, number) => format!("part/{segment}/{number:06}.frm"),
            Self::Void(segment) => format!("void/{segment}"),
            Self::Claim(Claim { epoch, shard, term, at_ms }) => {
                format!("term/{epoch:016x}/{shard}/{term:016x}-claim-{at_ms:013}.json")
            }
            Self::Term(Term { epoch, shard, term, after }) => {
                format!("term/{epoch:016x}/{shard}/{term:016x}-{after:020}.json")
            }
            Self::Floor { epoch, shard, seq } => format!("floor/{epoch:016x}/{shard}/{seq:020}.json"),
            Self::Hole { epoch, shard, first, last } => {
                format!("hole/{epoch:016x}/{shard}/{first:020}-{last:020}.json")
            }
        }
    }

    /// What an object under the folder of a database is; none if its name is not one of ours.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let object = Self::read(name)?;
        // One object, one name: what only looks like it is not ours.
        (object.name() == name).then_some(object)
    }

    fn read(name: &str) -> Option<Self> {
        let (folder, rest) = name.split_once('/')?;
        let noted = |rest: &str| {
            let (id, at) = rest.strip_suffix(".json")?.split_once('-')?;
            Some((id.parse().ok()?, at.parse().ok()?))
        };
        match folder {
            "base" => {
                let (id, file) = rest.split_once('/')?;
                let (part, number) = file.strip_suffix(".frm")?.split_once('-')?;
                let (part, number) = (Part::named(part)?, number.parse().ok()?);
                Some(Self::Payload { snapshot: id.parse().ok()?, part, number })
            }
            "snap" => {
                let (_, id) = rest.strip_suffix(".json")?.split_once('-')?;
                Some(Self::Manifest(id.parse().ok()?))
            }
            "note" => noted(rest).map(|(id, at)| Self::Note(id, at)),
            "tomb" => noted(rest).map(|(id, at)| Self::Tombstone(id, at)),
            "verify" => noted(rest).map(|(id, at)| Self::Verified(id, at)),
            "restored" => noted(rest).map(|(id, at)| Self::Restored(id, at)),
            "damaged" => noted(rest).map(|(id, at)| Self::Damaged(id, at)),
            "aged" => noted(rest).map(|(id, at)| Self::Aged(id, at)),
            "ask" => {
                let (at, node) = rest.strip_suffix(".json")?.split_once('-')?;
                Some(Self::Asked(at.parse().ok()?, u64::from_str_radix(node, 16).ok()?))
            }
            "void" => Segment::whole(rest).map(Self::Void),
            "part" => {
                let (segment, number) = rest.strip_suffix(".frm")?.rsplit_once('/')?;
                Some(Self::SegmentPart(Segment::whole(segment)?, number.parse().ok()?))
            }
            "term" => {
                let (epoch, shard, rest) = of_shard(rest.strip_suffix(".json")?)?;
                let (term, rest) = rest.split_once('-')?;
                let term = u64::from_str_radix(term, 16).ok()?;
                Some(match rest.strip_prefix("claim-") {
                    Some(at_ms) => Self::Claim(Claim { epoch, shard, term, at_ms: at_ms.parse().ok()? }),
                    None => Self::Term(Term { epoch, shard, term, after: rest.parse().ok()? }),
                })
            }
            "floor" => {
                let (epoch, shard, seq) = of_shard(rest.strip_suffix(".json")?)?;
                Some(Self::Floor { epoch, shard, seq: seq.parse().ok()? })
            }
            "hole" => {
                let (epoch, shard, rest) = of_shard(rest.strip_suffix(".json")?)?;
                let (first, last) = rest.split_once('-')?;
                Some(Self::Hole { epoch, shard, first: first.parse().ok()?, last: last.parse().ok()? })
            }
            _ => Segment::read(folder, rest).map(Self::Segment),
        }
    }
}

/// The log and the shard that a name begins with, and the rest of it.
fn of_shard(name: &str) -> Option<(u64, u32, &str)> {
    let (epoch, rest) = name.split_once('/')?;
    let (shard, rest) = rest.split_once('/')?;
    Some((u64::from_str_radix(epoch, 16).ok()?, shard.parse().ok()?, rest))
}

impl Segment {
    fn whole(name: &str) -> Option<Self> {
        let (folder, rest) = name.split_once('/')?;
        Self::read(folder, rest)
    }

    fn read(folder: &str, rest: &str) -> Option<Self> {
        let level = match folder.strip_prefix("log")? {
            "" => 0,
            level => level.parse().ok()?,
        };
        let (epoch, shard, rest) = of_shard(rest.strip_suffix(".seg")?)?;
        let mut numbers = rest.split('-');
        let mut next = || numbers.next();
        let first = next()?.parse().ok()?;
        let last = next()?.parse().ok()?;
        let from_ms = next()?.parse().ok()?;
        let to_ms = next()?.parse().ok()?;
        let hash = u64::from_str_radix(next()?, 16).ok()?;
        let term = next().map_or(Some(0), |term| u64::from_str_radix(term, 16).ok())?;
        Some(Self { epoch, shard, first, last, from_ms, to_ms, hash, term, level })
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, shard, first, last, from_ms, to_ms, hash, term, level } = self;
        match level {
            0 => write!(f, "log")?,
            level => write!(f, "log{level}")?,
        }
        write!(f, "/{epoch:016x}/{shard}/{first:020}-{last:020}-{from_ms:013}-{to_ms:013}-{hash:016x}")?;
        match term {
            0 => f.write_str(".seg"),
            term => write!(f, "-{term:016x}.seg"),
        }
    }
}

impl Term {
    /// The next one of a shard, for this node.
    #[must_use]
    pub fn after(highest: u64, node: u64) -> u64 {
        // Two nodes that begin at once have different ones all the same.
        ((highest >> 32) + 1) << 32 | node & 0xffff_ffff
    }

    /// Whether a term of this number is one of this node's.
    #[must_use]
    pub fn is_of(term: u64, node: u64) -> bool {
        term & 0xffff_ffff == node & 0xffff_ffff
    }

    /// Whether a segment does not count because of it.
    #[must_use]
    pub fn overrules(&self, segment: &Segment) -> bool {
        (self.epoch, self.shard) == (segment.epoch, segment.shard)
            && self.term > segment.term
            && self.after < segment.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(level: u8) -> Segment {
        let (first, last) = (1, u64::MAX);
        Segment { epoch: 7, shard: 12, first, last, from_ms: 1, to_ms: 1_700_000_000_000, hash: 0xabc, term: 0, level }
    }

    #[test]
    fn a_name_says_what_it_names() {
        let id = SnapshotId::new(1_700_000_000_000, 5);
        for object in [
            Object::Payload { snapshot: id, part: Part::Image, number: 0 },
            Object::Payload { snapshot: id, part: Part::State, number: 123_456 },
            Object::Payload { snapshot: id, part: Part::Index, number: 1 },
            Object::Manifest(id),
            Object::Note(id, 1_700_000_000_001),
            Object::Tombstone(id, 1_700_000_000_002),
            Object::Verified(id, 1_700_000_000_003),
            Object::Restored(id, 1_700_000_000_008),
            Object::Damaged(id, 1_700_000_000_007),
            Object::Aged(id, 1_700_000_000_005),
            Object::Asked(1_700_000_000_004, u64::MAX),
            Object::Segment(segment(0)),
            Object::Segment(segment(2)),
            Object::SegmentPart(segment(0), 17),
            Object::Segment(Segment { term: u64::MAX, ..segment(0) }),
            Object::Void(segment(1)),
            Object::Claim(Claim { epoch: 1, shard: 2, term: u64::MAX, at_ms: 1_700_000_000_006 }),
            Object::Term(Term { epoch: 1, shard: 2, term: u64::MAX, after: 4 }),
            Object::Floor { epoch: 1, shard: 2, seq: 3 },
            Object::Hole { epoch: 1, shard: 2, first: 3, last: 4 },
        ] {
            let name = object.name();
            assert_eq!(Object::named(&name), Some(object), "{name}");
            assert!(name.len() < 200, "{name}");
            assert!(name.bytes().all(|letter| letter.is_ascii_alphanumeric() || b"./_-".contains(&letter)), "{name}");
        }
    }

    #[test]
    fn the_newest_snapshot_is_listed_first() {
        let manifest = |millis| Object::Manifest(SnapshotId::new(millis, 0)).name();
        assert!(manifest(1_700_000_000_001) < manifest(1_700_000_000_000));
    }

    #[test]
    fn who_began_earlier_is_overruled_behind_the_place_where_another_began() {
        let (mine, other) = (Term::after(0, 5), Term::after(0, 1 << 40 | 9));
        assert!(mine != other && mine > 0 && Term::after(mine.max(other), 0) > mine.max(other));
        let of = |last, term| Segment { first: last, last, term, ..segment(0) };
        let begun = Term { epoch: 7, shard: 12, term: other, after: 10 };
        assert!(begun.overrules(&of(11, 0)) && begun.overrules(&of(11, mine)));
        assert!(
            !begun.overrules(&of(10, 0)) && !begun.overrules(&of(11, other)) && !begun.overrules(&of(11, other + 1))
        );
        assert!(!Term { epoch: 8, ..begun }.overrules(&of(11, 0)) && !Term { shard: 1, ..begun }.overrules(&of(11, 0)));
    }

    #[test]
    fn other_names_are_none_of_ours() {
        for name in [
            "snap/x.json",
            "snap/0000000000000-01HF7YAT00000000000000000A.json",
            "log/1/1/1-2-3-4-5.seg",
            "logx/0000000000000007/1/1-2-3-4-5.seg",
            "base/01HF7YAT00000000000000000A/image-1.frm",
            "somebody/else",
            "else",
        ] {
            assert_eq!(Object::named(name), None, "{name}");
        }
    }
}
