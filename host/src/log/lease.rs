//! Leases: one node at a time does what only one should. Correctness never rests on it, for a lease is a habit and
//! not a lock: a holder that was asleep may still believe in it.
//!
//! The log keeps a value for each name and changes it only for whoever knows the newest one. Whether a holder is gone
//! is judged here, by how long its value has not changed on the observer's own monotonic clock: the clocks of two
//! machines are never compared.

use super::{Error, Log};
use antiphon_core::entry::Origin;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::time::Duration;

/// What stands in the log under a lease's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Grows whenever the lease is taken, renewed or released; 0 = it never was.
    pub term: u64,
    /// Who holds it; nobody after a release.
    pub holder: Option<(u64, u64)>,
    /// Milliseconds after which the holder may be taken for gone if it does not renew.
    pub ttl_ms: u64,
}

impl Lease {
    /// Who holds it, as far as the log knows.
    #[must_use]
    pub fn held_by(&self) -> Option<Origin> {
        self.holder.map(|(node, incarnation)| Origin { node, incarnation })
    }
}

/// What came of asking for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It is ours, from now on for the time that was asked for.
    Held,
    /// Another has it.
    HeldBy(Origin),
}

/// What an observer makes of a value it has just read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    /// Nobody's, ours, or that of a holder that has been silent for too long.
    Free,
    HeldBy(Origin),
}

/// One node's view of one lease: what it saw there and for how long.
#[derive(Debug)]
pub struct Claimant {
    name: String,
    me: Origin,
    ttl: Duration,
    /// The newest value seen, and when it was first seen.
    seen: Option<(Lease, Duration)>,
    /// When the claim was sent by which the lease is ours.
    renewed: Option<Duration>,
}

impl Claimant {
    /// A node that would like to hold this lease, for `ttl` at a time.
    #[must_use]
    pub fn new(name: impl Into<String>, me: Origin, ttl: Duration) -> Self {
        Self { name: name.into(), me, ttl, seen: None, renewed: None }
    }

    /// Takes or renews the lease if it is free, ours, or its holder is gone. To be called about three times in `ttl`.
    ///
    /// `now` is the time of a monotonic clock of this process, with any beginning.
    ///
    /// # Errors
    /// When the log can't be asked. What was held before is held on until its time is over.
    pub async fn hold(&mut self, log: &dyn Log, now: Duration) -> Result<Hold, Error> {
        let standing = log.lease(&self.name).await?;
        if let Judgement::HeldBy(origin) = self.judge(standing, now) {
            self.renewed = None;
            return Ok(Hold::HeldBy(origin));
        }
        let ttl_ms = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
        let wanted = Lease { term: 0, holder: Some((self.me.node, self.me.incarnation)), ttl_ms };
        let (done, standing) = log.set_lease(&self.name, wanted, standing.term).await?;
        if done {
            self.seen = Some((standing, now));
            // From before it was sent: the log may have taken it at once, and answered late.
            self.renewed = Some(now);
            return Ok(Hold::Held);
        }
        // Somebody was faster.
        self.renewed = None;
        Ok(match self.judge(standing, now) {
            Judgement::HeldBy(origin) => Hold::HeldBy(origin),
            Judgement::Free => Hold::HeldBy(standing.held_by().unwrap_or(self.me)),
        })
    }

    /// Whether the lease is ours as far as this node can know: the time it was last taken for is not over.
    #[must_use]
    pub fn is_held(&self, now: Duration) -> bool {
        self.renewed.is_some_and(|renewed| now.saturating_sub(renewed) < self.ttl)
    }

    /// Does what may take longer than the lease is held for, and renews it meanwhile, as long as it is ours.
    pub async fn during<T>(&mut self, log: &dyn Log, clock: impl Fn() -> Duration, work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            done = work => done,
            never = self.renew(log, clock) => match never {},
        }
    }

    /// Renews it again and again, as long as it is ours.
    async fn renew(&mut self, log: &dyn Log, clock: impl Fn() -> Duration) -> Infallible {
        loop {
            tokio::time::sleep(self.ttl / 3).await;
            if self.is_held(clock()) {
                // If the log can't be asked, what is held is held on until its time is over.
                let _ = self.hold(log, clock()).await;
            }
        }
    }

    /// Gives it back, if it is ours.
    ///
    /// # Errors
    /// When the log can't be asked; then it ends by itself.
    pub async fn release(&mut self, log: &dyn Log) -> Result<(), Error> {
        self.renewed = None;
        let standing = log.lease(&self.name).await?;
        if standing.held_by() == Some(self.me) {
            log.set_lease(&self.name, Lease::default(), standing.term).await?;
        }
        Ok(())
    }

    fn judge(&mut self, standing: Lease, now: Duration) -> Judgement {
        let since = match self.seen {
            Some((seen, since)) if seen == standing => since,
            _ => now,
        };
        self.seen = Some((standing, since));
        match standing.held_by() {
            Some(holder) if holder != self.me && now.saturating_sub(since) < Duration::from_millis(standing.ttl_ms) => {
                Judgement::HeldBy(holder)
            }
            _ => Judgement::Free,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Memory;
    use futures::executor::block_on;

    const TTL: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    fn origin(node: u64) -> Origin {
        Origin { node, incarnation: 1 }
    }

    fn claimant(node: u64) -> Claimant {
        Claimant::new("work", origin(node), TTL)
    }

    fn ask(claimant: &mut Claimant, log: &Memory, now: Duration) -> Hold {
        block_on(claimant.hold(log, now)).unwrap()
    }

    #[test]
    fn a_silent_holder_is_gone_after_its_time_on_the_observers_clock() {
        let log = Memory::new();
        let (mut one, mut two) = (claimant(1), claimant(2));
        assert_eq!(ask(&mut one, &log, at(0)), Hold::Held);
        // Another machine: its clock has nothing to do with the first one's.
        assert_eq!(ask(&mut two, &log, at(500)), Hold::HeldBy(origin(1)));
        assert_eq!(ask(&mut two, &log, at(529)), Hold::HeldBy(origin(1)));
        assert_eq!(ask(&mut two, &log, at(530)), Hold::Held);
        assert_eq!(ask(&mut one, &log, at(31)), Hold::HeldBy(origin(2)));
    }

    #[test]
    fn a_holder_that_renews_is_never_taken_for_gone() {
        let log = Memory::new();
        let (mut one, mut two) = (claimant(1), claimant(2));
        for round in 0..20 {
            assert_eq!(ask(&mut one, &log, at(round * 10)), Hold::Held);
            assert_eq!(ask(&mut two, &log, at(round * 10 + 5)), Hold::HeldBy(origin(1)));
        }
    }

    #[test]
    fn an_observer_that_just_came_waits_the_whole_time() {
        let log = Memory::new();
        assert_eq!(ask(&mut claimant(1), &log, at(0)), Hold::Held);
        let mut late = claimant(2);
        assert_eq!(ask(&mut late, &log, at(10_000)), Hold::HeldBy(origin(1)));
        assert_eq!(ask(&mut late, &log, at(10_030)), Hold::Held);
    }

    #[test]
    fn the_holders_time_counts_not_the_observers() {
        let log = Memory::new();
        let mut long = Claimant::new("work", origin(1), Duration::from_secs(300));
        assert_eq!(ask(&mut long, &log, at(0)), Hold::Held);
        let mut short = claimant(2);
        assert_eq!(ask(&mut short, &log, at(0)), Hold::HeldBy(origin(1)));
        assert_eq!(ask(&mut short, &log, at(299)), Hold::HeldBy(origin(1)));
        assert_eq!(ask(&mut short, &log, at(300)), Hold::Held);
    }

    #[test]
    fn who_was_asleep_knows_that_its_time_is_over() {
        let log = Memory::new();
        let mut one = claimant(1);
        assert!(!one.is_held(at(0)));
        assert_eq!(ask(&mut one, &log, at(0)), Hold::Held);
        assert!(one.is_held(at(29)));
        assert!(!one.is_held(at(30)));
        // Nobody took it meanwhile: it is renewed.
        assert_eq!(ask(&mut one, &log, at(90)), Hold::Held);
        assert!(one.is_held(at(91)));
    }

    /// Ends when the lease's value has changed so often.
    async fn changed(log: &Memory, times: u64) {
        while log.lease("work").await.unwrap().term <= times {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn who_works_for_long_renews_it_all_the_while() {
        let log = Memory::new();
        let mut one = Claimant::new("work", origin(1), Duration::from_millis(30));
        assert_eq!(one.hold(&log, at(0)).await.unwrap(), Hold::Held);
        one.during(&log, || at(0), changed(&log, 5)).await;
        assert_eq!(log.lease("work").await.unwrap().held_by(), Some(origin(1)));
    }

    #[tokio::test]
    async fn who_does_not_hold_it_does_not_take_it_by_working() {
        let log = Memory::new();
        let mut one = Claimant::new("work", origin(1), Duration::from_millis(3));
        one.during(&log, || at(0), tokio::time::sleep(Duration::from_millis(30))).await;
        assert_eq!(log.lease("work").await.unwrap(), Lease::default());
    }

    #[test]
    fn a_released_lease_is_free_at_once() {
        let log = Memory::new();
        let (mut one, mut two) = (claimant(1), claimant(2));
        assert_eq!(ask(&mut one, &log, at(0)), Hold::Held);
        assert_eq!(ask(&mut two, &log, at(1)), Hold::HeldBy(origin(1)));
        // Only the holder can.
        block_on(two.release(&log)).unwrap();
        assert_eq!(ask(&mut two, &log, at(1)), Hold::HeldBy(origin(1)));
        block_on(one.release(&log)).unwrap();
        assert!(!one.is_held(at(1)));
        assert_eq!(ask(&mut two, &log, at(1)), Hold::Held);
    }
}
