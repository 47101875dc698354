//! The log: one total order for everything that can touch the same row.

pub mod conformance;
mod embedded;
mod jetstream;
mod lease;
mod local;
mod look;
mod member;
mod memory;

pub(crate) use jetstream::durability;
pub use jetstream::{Connection, Durability, JetStream, Limit, Login, Names, Settings};
pub use lease::{Claimant, Hold, Lease};
pub use local::Local;
pub use look::{Extent, Look};
pub use member::{ANNOUNCE_INTERVAL, AWAY_AFTER, Announced, Difference, Member, Sample, clock_of, there};
pub use memory::{Faults, Memory};

pub use antiphon_core::snapshot::segment::Sender;

use antiphon_core::codec;
use antiphon_core::entry::{Body, Entry, Origin};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::time::Duration;

/// A shard's number, from 1.
pub type Shard = u32;

/// One entry in one place of the log: a stream that was made anew, or rolled back, has another one there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Position in the shard; 0 = before the first entry.
    pub seq: u64,
    /// When the log took it, by the log's own clock.
    pub time: u64,
    /// The entry's checksum.
    pub checksum: u64,
}

/// One entry in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Position in the shard: that of its last part.
    pub seq: u64,
    /// How many positions it takes: 1, unless the log had to cut it into parts.
    pub parts: u32,
    /// When the log took it, in nanoseconds of the log's own clock. With the frame's checksum it tells one
    /// placement from another that came to stand at the same position later.
    pub time: u64,
    /// Who appended it, as far as the log itself knows.
    pub from: Sender,
    /// The bytes that were appended.
    pub frame: Vec<u8>,
}

impl Placed {
    /// An entry in one part, by whoever it says.
    #[must_use]
    pub fn whole(seq: u64, time: u64, frame: Vec<u8>) -> Self {
        Self { seq, parts: 1, time, from: Sender::Untold, frame }
    }

    /// What tells it from another that may come to stand in its place.
    #[must_use]
    pub fn placement(&self) -> Placement {
        Placement { seq: self.seq, time: self.time, checksum: codec::checksum(&self.frame) }
    }

    /// Whether the entry in it may be by whom it says. Anybody may found a cluster, and nothing else without a name.
    #[must_use]
    pub fn may_say(&self, entry: &Entry) -> bool {
        match self.from {
            Sender::Untold => true,
            Sender::Anyone => self.first() == 1 && matches!(entry.body, Body::Genesis(_)) || is_anew(&entry.body),
            // What has no number is said by a voice of the origin's own, which is another subject.
            Sender::Origin(origin) if entry.body.is_unnumbered() => {
                origin == entry.origin || origin == entry.origin.voice()
            }
            Sender::Origin(origin) => origin == entry.origin,
        }
    }

    /// The position that its first part has.
    #[must_use]
    pub fn first(&self) -> u64 {
        (self.seq + 1).saturating_sub(self.parts.into())
    }
}

/// It says nothing to whoever reads on from before; and where a log begins, everybody looks whose entry it is.
fn is_anew(body: &Body) -> bool {
    matches!(body, Body::Anew(_))
}

/// How far a shard reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Position of the oldest entry that is still there; `last + 1` if there is none.
    pub first: u64,
    /// Position of the newest entry; 0 if there never was one.
    pub last: u64,
}

/// What became of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// All frames are in the log and survive a crash of this process; the last one stands here.
    At(u64),
    /// Nothing was appended: the last frame of this origin in the log has another number than expected.
    Fenced {
        /// That number; 0 if the origin has no frame there.
        last: u64,
    },
}

/// Shows that an origin is in use, as long as this object and its process live.
#[derive(Default)]
pub struct Claim(#[expect(dead_code, reason = "dropping it is what ends the claim")] Option<Box<dyn Send + Sync>>);

impl Claim {
    /// A claim that ends when this is dropped.
    pub(crate) fn held(by: impl Send + Sync + 'static) -> Self {
        Self(Some(Box::new(by)))
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Claim").finish_non_exhaustive()
    }
}

/// Why the log did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be reached now; the same call may succeed later. Whether an append took place is unknown.
    #[error("cannot reach the log: {0}")]
    Unreachable(String),
    /// It is not what it should be, and will not become so by waiting.
    #[error("the log is broken: {0}")]
    Broken(String),
}

/// An ordered, durable sequence of frames, one a shard, that every node reads and every node may append to.
///
/// - Positions of a shard start at 1. An entry takes the next one, or the next few if it had to be cut into parts, and
///   none is left out; an entry never moves and never changes.
/// - [`Log::append`] takes all of its frames, in their order and without another's between them, or none.
/// - It takes them only if the origin's last frame in that shard has the number before the first one's. So a
///   retried append can't double anything, and nothing can land after its successor.
/// - When it returns [`Appended::At`], the frames survive a crash of any process. When it returns an error,
///   they may be in the log or not: the fence answers at the next try.
/// - [`Log::read`] gives entries in order and without holes, from the one after `after` on; it may give
///   fewer than there are, but not none while there is one.
/// - What one node has read, every other node can read, at the same position.
/// - [`Log::members`] gives each origin that ever announced itself once, with what it said last. The fold never asks.
/// - A lease's value changes only for whoever names the term that stands there, and its term grows at each change.
///   So of two that saw the same value, one changes it. Who may take it is [`Claimant`]'s to judge, not the log's.
#[async_trait]
pub trait Log: Send + Sync + std::fmt::Debug {
    /// Appends frames of one origin, numbered from `first` on without a hole.
    async fn append(&self, shard: Shard, origin: Origin, first: u64, frames: &[Vec<u8>]) -> Result<Appended, Error>;

    /// Appends the very first entry of a shard; `false` if the shard has one already.
    async fn begin(&self, shard: Shard, frame: &[u8]) -> Result<bool, Error>;

    /// Appends the first entry of a shard that has lost all it held, at position `at`, or at a later one if it has held
    /// as much. `numbers` are the last of each origin: each goes on behind its own. Gives the position, or nothing if the
    /// shard has an entry: of several who try, one succeeds; where they name different positions, what the others
    /// appended may be lost again.
    async fn begin_again(
        &self,
        shard: Shard,
        at: u64,
        frame: &[u8],
        numbers: &[(Origin, u64)],
    ) -> Result<Option<u64>, Error>;

    /// Lets go of all that a shard holds, its newest entry as well: nobody can go on from it.
    async fn clear(&self, shard: Shard) -> Result<(), Error>;

    /// Entries after a position, about `bytes_max` of them.
    async fn read(&self, shard: Shard, after: u64, bytes_max: usize) -> Result<Vec<Placed>, Error>;

    /// What stands at a position of a shard, or the first that comes after it if that is gone; `None` if nothing does.
    async fn stands(&self, shard: Shard, at: u64) -> Result<Option<Placement>, Error> {
        let there = self.read(shard, at.saturating_sub(1), 1).await?;
        Ok(there.first().map(Placed::placement))
    }

    /// What [`Log::stands`] at a position, and what [`Log::read`] gives after it. The entries are never older than the
    /// answer: if another entry stands there by now, that is seen.
    async fn read_on(
        &self,
        shard: Shard,
        at: u64,
        bytes_max: usize,
    ) -> Result<(Option<Placement>, Vec<Placed>), Error> {
        let entries = self.read(shard, at, bytes_max).await?;
        Ok((self.stands(shard, at).await?, entries))
    }

    /// How far a shard reaches.
    async fn bounds(&self, shard: Shard) -> Result<Bounds, Error>;

    /// For how long it may say that it ends before what it has shown: of several copies, the one that has just begun to lead
    /// may hear of the last entries a moment after the others.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// The share of its room that a shard has used; nothing where nobody has to wait for want of room.
    async fn used(&self, _shard: Shard) -> Result<Option<f64>, Error> {
        Ok(None)
    }

    /// Lets go of the oldest entries of a shard, up to a position; never of the newest one. Others keep their places, and
    /// origins their numbers. Whoever asks has to know that nobody needs them any more. If this ends in an error, some of
    /// them may be gone, and those are the oldest.
    async fn truncate(&self, shard: Shard, up_to: u64) -> Result<(), Error>;

    /// The number of an origin's last frame in a shard; 0 if it has none there.
    async fn last_number(&self, shard: Shard, origin: Origin) -> Result<u64, Error> {
        // No number follows this one, so the fence answers and nothing is appended.
        match self.append(shard, origin, u64::MAX, &[]).await? {
            Appended::Fenced { last } => Ok(last),
            Appended::At(_) => Err(Error::Broken("it took a frame that does not follow the last".to_owned())),
        }
    }

    /// The highest number of an origin in a shard, if that is not its last one: somebody may have put an older frame there
    /// once more. Asked where the last number is less than what was acknowledged. What is appended next comes behind it.
    async fn highest_number(&self, shard: Shard, origin: Origin) -> Result<u64, Error> {
        self.last_number(shard, origin).await
    }

    /// Claims an origin for this process; `None` if another process that lives has it. Of two files that are in all
    /// the same life, only one may speak.
    async fn claim(&self, _origin: Origin) -> Result<Option<Claim>, Error> {
        Ok(Some(Claim::default()))
    }

    /// Returns when something may have come after `after`; may also return for no reason.
    async fn changed(&self, shard: Shard, after: u64);

    /// What is not as it should be with the log or the way to it, though it can be used: subject and words.
    fn degraded(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Says what a node says of itself, in place of what this origin said before.
    async fn announce(&self, member: &Member) -> Result<(), Error>;

    /// Every origin that announced itself, by node and incarnation.
    async fn members(&self) -> Result<Vec<Announced>, Error>;

    /// What stands under the name of a lease; the default value if nothing ever did.
    async fn lease(&self, name: &str) -> Result<Lease, Error>;

    /// Sets a lease if the term that stands there is `over`. Its new term is the log's to give. Says whether it was
    /// set, and what stands there now.
    async fn set_lease(&self, name: &str, lease: Lease, over: u64) -> Result<(bool, Lease), Error>;
}
