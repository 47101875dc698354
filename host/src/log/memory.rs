//! The log in memory, for tests and the simulator: it can be made to fail as a broker does.

use super::{Announced, Appended, Bounds, Error, Lease, Log, Member, Placed, Shard};
use antiphon_core::entry::Origin;
use async_trait::async_trait;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What goes wrong at the next calls; each fault is used up when it strikes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The next append is refused.
    pub refuse_append: bool,
    /// The next append is done, and its answer lost.
    pub lose_ack: bool,
    /// The next append is done twice, as by a retry of the client's that the fence does not see.
    pub redeliver: bool,
    /// The next read fails.
    pub refuse_read: bool,
    /// Readers see this many of the newest entries only later.
    pub delay: u64,
}

#[derive(Debug, Default)]
struct State {
    shards: HashMap<Shard, Vec<Placed>>,
    last_numbers: HashMap<(Shard, Origin), u64>,
    members: BTreeMap<Origin, Announced>,
    leases: HashMap<String, Lease>,
    faults: Faults,
    clock: u64,
}

/// The log in memory.
#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<State>,
    grown: Notify,
}

impl Memory {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next calls fail.
    pub fn fail(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Faults that have not struck yet.
    #[must_use]
    pub fn left(&self) -> Faults {
        self.state().faults
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked while it held the lock has failed already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, shard: Shard, frame: Vec<u8>) -> u64 {
        self.clock += 1;
        let time = self.clock;
        let entries = self.shards.entry(shard).or_default();
        let seq = entries.len() as u64 + 1;
        entries.push(Placed { seq, time, frame });
        seq
    }

    fn last(&self, shard: Shard) -> u64 {
        self.shards.get(&shard).map_or(0, |entries| entries.len() as u64)
    }
}

#[async_trait]
impl Log for Memory {
    async fn append(&self, shard: Shard, origin: Origin, first: u64, frames: &[Vec<u8>]) -> Result<Appended, Error> {
        let mut state = self.state();
        if std::mem::take(&mut state.faults.refuse_append) {
            return Err(Error::Unreachable("refused".to_owned()));
        }
        let last = state.last_numbers.get(&(shard, origin)).copied().unwrap_or(0);
        if last + 1 != first {
            return Ok(Appended::Fenced { last });
        }
        let times = 1 + usize::from(std::mem::take(&mut state.faults.redeliver));
        let mut at = state.last(shard);
        for _ in 0..times {
            for frame in frames {
                at = state.push(shard, frame.clone());
            }
        }
        state.last_numbers.insert((shard, origin), last + frames.len() as u64);
        let lost = std::mem::take(&mut state.faults.lose_ack);
        drop(state);
        self.grown.notify_waiters();
        if lost { Err(Error::Unreachable("the answer was lost".to_owned())) } else { Ok(Appended::At(at)) }
    }

    async fn begin(&self, shard: Shard, frame: &[u8]) -> Result<bool, Error> {
        let mut state = self.state();
        if state.last(shard) > 0 {
            return Ok(false);
        }
        state.push(shard, frame.to_vec());
        drop(state);
        self.grown.notify_waiters();
        Ok(true)
    }

    async fn read(&self, shard: Shard, after: u64, bytes_max: usize) -> Result<Vec<Placed>, Error> {
        let mut state = self.state();
        if std::mem::take(&mut state.faults.refuse_read) {
            return Err(Error::Unreachable("refused".to_owned()));
        }
        let visible = state.last(shard).saturating_sub(std::mem::take(&mut state.faults.delay));
        let mut bytes = 0;
        let skipped = usize::try_from(after).unwrap_or(usize::MAX);
        let entries = state.shards.get(&shard).and_then(|entries| entries.get(skipped..)).unwrap_or_default();
        let wanted = entries.iter().take_while(|placed| placed.seq <= visible);
        let room = wanted.take_while(|placed| {
            let first = bytes == 0;
            bytes += placed.frame.len();
            first || bytes <= bytes_max
        });
        Ok(room.cloned().collect())
    }

    async fn bounds(&self, shard: Shard) -> Result<Bounds, Error> {
        let last = self.state().last(shard);
        Ok(Bounds { first: 1, last })
    }

    async fn changed(&self, shard: Shard, after: u64) {
        let grown = self.grown.notified();
        if self.state().last(shard) > after {
            return;
        }
        grown.await;
    }
    async fn announce(&self, member: &Member) -> Result<(), Error> {
        let mut state = self.state();
        state.clock += 1;
        let announced = Announced { member: member.clone(), time: state.clock };
        state.members.insert(member.origin(), announced);
        Ok(())
    }

    async fn members(&self) -> Result<Vec<Announced>, Error> {
        Ok(self.state().members.values().cloned().collect())
    }

    async fn lease(&self, name: &str) -> Result<Lease, Error> {
        Ok(self.state().leases.get(name).copied().unwrap_or_default())
    }

    async fn set_lease(&self, name: &str, lease: Lease, over: u64) -> Result<(bool, Lease), Error> {
        let mut state = self.state();
        let standing = state.leases.entry(name.to_owned()).or_default();
        if standing.term != over {
            return Ok((false, *standing));
        }
        *standing = Lease { term: over + 1, ..lease };
        Ok((true, *standing))
    }
}
