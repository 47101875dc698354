//! The log in memory, for tests and the simulator: it can be made to fail as a broker does.

use super::{Announced, Appended, Bounds, Error, Lease, Log, Member, Placed, Shard};
use antiphon_core::entry::Origin;
use async_trait::async_trait;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
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
    shards: HashMap<Shard, Entries>,
    last_numbers: HashMap<(Shard, Origin), u64>,
    members: BTreeMap<Origin, Announced>,
    leases: HashMap<String, Lease>,
    faults: Faults,
    clock: u64,
    /// The newest entries of each shard that whoever answers does not know of, and for how long that is borne.
    behind: u64,
    patience: Duration,
}

/// One shard.
#[derive(Debug, Default)]
struct Entries {
    /// How many of the oldest are gone.
    rolled: u64,
    /// The others, each with the number its origin gave it; the genesis has none.
    held: Vec<(Placed, Option<(Origin, u64)>)>,
}

impl Entries {
    fn last(&self) -> u64 {
        self.rolled + self.held.len() as u64
    }
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

    /// Is answered for by a copy that lacks so many of the newest entries, as long as this is not said otherwise.
    pub fn lag(&self, behind: u64, patience: Duration) {
        let mut state = self.state();
        (state.behind, state.patience) = (behind, patience);
    }

    /// Loses the newest entries of a shard, as a broker does that had not synced them; fences go back with them.
    pub fn lose_tail(&self, shard: Shard, count: u64) {
        let mut state = self.state();
        let State { shards, last_numbers, .. } = &mut *state;
        let Some(entries) = shards.get_mut(&shard) else { return };
        let lost = usize::try_from(count).unwrap_or(usize::MAX);
        entries.held.truncate(entries.held.len().saturating_sub(lost));
        let mut known: HashMap<Origin, u64> = HashMap::new();
        for (origin, number) in entries.held.iter().filter_map(|(_, whose)| *whose) {
            let last = known.entry(origin).or_default();
            *last = number.max(*last);
        }
        for ((_, origin), last) in last_numbers.iter_mut().filter(|((at, _), _)| *at == shard) {
            *last = known.get(origin).copied().unwrap_or(0);
        }
    }

    /// Lets go of the oldest entries of a shard up to a position.
    pub fn roll_over(&self, shard: Shard, up_to: u64) {
        if let Some(entries) = self.state().shards.get_mut(&shard) {
            let gone = up_to.min(entries.last()).saturating_sub(entries.rolled);
            entries.held.drain(..usize::try_from(gone).unwrap_or(0).min(entries.held.len()));
            entries.rolled += gone;
        }
    }

    /// Is deleted and made anew: empty, and nothing known of anybody.
    pub fn recreate(&self) {
        let mut state = self.state();
        state.shards.clear();
        state.last_numbers.clear();
        state.members.clear();
        state.leases.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked while it held the lock has failed already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, shard: Shard, frame: Vec<u8>, whose: Option<(Origin, u64)>) -> u64 {
        self.clock += 1;
        let time = self.clock;
        let entries = self.shards.entry(shard).or_default();
        let seq = entries.last() + 1;
        entries.held.push((Placed::whole(seq, time, frame), whose));
        seq
    }

    fn last(&self, shard: Shard) -> u64 {
        self.shards.get(&shard).map_or(0, Entries::last)
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
            for (number, frame) in (first..).zip(frames) {
                at = state.push(shard, frame.clone(), Some((origin, number)));
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
        state.push(shard, frame.to_vec(), None);
        drop(state);
        self.grown.notify_waiters();
        Ok(true)
    }

    async fn begin_again(
        &self,
        shard: Shard,
        at: u64,
        frame: &[u8],
        numbers: &[(Origin, u64)],
    ) -> Result<Option<u64>, Error> {
        let mut state = self.state();
        let entries = state.shards.entry(shard).or_default();
        if !entries.held.is_empty() {
            return Ok(None);
        }
        entries.rolled = entries.rolled.max(at - 1);
        let at = state.push(shard, frame.to_vec(), None);
        state.last_numbers.retain(|(of, _), _| *of != shard);
        state.last_numbers.extend(numbers.iter().map(|(origin, number)| ((shard, *origin), *number)));
        drop(state);
        self.grown.notify_waiters();
        Ok(Some(at))
    }

    async fn clear(&self, shard: Shard) -> Result<(), Error> {
        self.roll_over(shard, u64::MAX);
        Ok(())
    }

    fn patience(&self) -> Duration {
        self.state().patience
    }

    async fn last_number(&self, shard: Shard, origin: Origin) -> Result<u64, Error> {
        let state = self.state();
        if state.behind > 0 {
            let seen = state.last(shard).saturating_sub(state.behind);
            let held = state.shards.get(&shard).into_iter().flat_map(|entries| &entries.held);
            let of = held.filter(|(placed, _)| placed.seq <= seen).filter_map(|(_, whose)| *whose);
            return Ok(of.filter(|(who, _)| *who == origin).map(|(_, number)| number).max().unwrap_or(0));
        }
        Ok(state.last_numbers.get(&(shard, origin)).copied().unwrap_or(0))
    }

    async fn read(&self, shard: Shard, after: u64, bytes_max: usize) -> Result<Vec<Placed>, Error> {
        let mut state = self.state();
        if std::mem::take(&mut state.faults.refuse_read) {
            return Err(Error::Unreachable("refused".to_owned()));
        }
        let behind = state.behind + std::mem::take(&mut state.faults.delay);
        let visible = state.last(shard).saturating_sub(behind);
        let mut bytes = 0;
        let Some(entries) = state.shards.get(&shard) else { return Ok(Vec::new()) };
        // A start below the first entry begins there.
        let skipped = usize::try_from(after.saturating_sub(entries.rolled)).unwrap_or(usize::MAX);
        let held = entries.held.get(skipped..).unwrap_or_default();
        let wanted = held.iter().map(|(placed, _)| placed).take_while(|placed| placed.seq <= visible);
        let room = wanted.take_while(|placed| {
            let first = bytes == 0;
            bytes += placed.frame.len();
            first || bytes <= bytes_max
        });
        Ok(room.cloned().collect())
    }

    async fn bounds(&self, shard: Shard) -> Result<Bounds, Error> {
        let state = self.state();
        let first = state.shards.get(&shard).map_or(0, |entries| entries.rolled) + 1;
        Ok(Bounds { first, last: state.last(shard).saturating_sub(state.behind) })
    }

    async fn truncate(&self, shard: Shard, up_to: u64) -> Result<(), Error> {
        let last = self.state().last(shard);
        self.roll_over(shard, up_to.min(last.saturating_sub(1)));
        Ok(())
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
