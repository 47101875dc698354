//! Which node makes the snapshots that nobody asked for, and when it does.
//!
//! The lease spares work and decides nothing: two leaders make two snapshots, and both count.

use super::habits::Habits;
use super::repo::Repo;
use super::shelf::Shelf;
use crate::apart::apart;
use crate::clock::is_to_come;
use crate::db::Db;
use crate::failure::{Failure, Kind};
use crate::join::unreachable_log;
use crate::log::{Claimant, Hold, Log};
use antiphon_core::entry::Origin;
use antiphon_core::snapshot::due::{self, Kind as What, Since, Standing, Trigger};
use antiphon_core::snapshot::manifest::Manifest;
use antiphon_core::store::Name;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The lease's name in the log.
const LEASE: &str = "snapshot-leader";
/// How often it is looked whether one is due, at most.
const CHECK: Duration = Duration::from_secs(10);

/// How often it is looked how much of the log is superfluous.
const CUT: Duration = Duration::from_secs(600);
/// How often it is looked whether a snapshot is to be tried out.
const DRILL: Duration = Duration::from_secs(600);
/// How often what there is gets sorted out, though no snapshot is made.
const TIDY: Duration = Duration::from_secs(3600);
/// The longest pause after tries that failed.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// Of a snapshot, what the next one goes by.
#[derive(Clone, Copy, Debug)]
struct Last {
    created_ms: u64,
    entries: u64,
}

/// What is known of those that there are.
#[derive(Clone, Debug)]
struct Known {
    /// The newest.
    any: Last,
    /// The newest that holds all rows.
    full: Last,
    /// Tables of that one.
    schemas: BTreeMap<String, u64>,
    /// So many were made since, of what changed.
    steps: u64,
    /// Bytes of that one's database.
    bytes: u64,
    /// Bytes of the log since it that were archived when this was looked up,
    log_bytes: u64,
    /// and what this node had read of the log by then.
    read_bytes: u64,
    /// Chosen once for the newest: by which part of the jitter the next one comes later.
    rolled: u64,
}

impl Last {
    fn of(manifest: &Manifest) -> Self {
        Self { created_ms: manifest.created_ms, entries: manifest.positions.values().map(|at| at.seq).sum() }
    }

    fn since(self, entries: u64) -> Since {
        Since {
            age_ms: age_ms(self.created_ms, crate::clock::unix_ms()),
            changes: entries.saturating_sub(self.entries),
            ..Since::default()
        }
    }
}

/// How old a snapshot is. One of a time that is still far off was made by a clock that was wrong: it is old, for else
/// nobody would make another until then.
fn age_ms(created_ms: u64, now_ms: u64) -> u64 {
    if is_to_come(created_ms, now_ms) { u64::MAX } else { now_ms.saturating_sub(created_ms) }
}

impl Known {
    fn of(full: &Manifest, read_bytes: u64) -> Self {
        let last = Last::of(full);
        let schemas = full.tables.iter().map(|table| (table.name.clone(), table.schema)).collect();
        let bytes = full.image.as_ref().map_or(0, |image| image.bytes);
        Self { any: last, full: last, schemas, steps: 0, bytes, log_bytes: 0, read_bytes, rolled: full.id.chance() }
    }
}

/// A node that would like to be the one.
pub(super) struct Leader {
    claimant: Claimant,
    begun: Instant,
    ttl: Duration,
    looked: Instant,
    /// The last snapshot, once it was looked for.
    last: Option<Option<Known>>,
    /// When the log is looked at next.
    cut: Instant,
    /// When it is looked next whether a snapshot is to be tried out.
    drill: Instant,
    /// When what there is gets sorted out next.
    tidy: Instant,
    /// So many tries in a row failed,
    failures: u32,
    /// and the next one waits until then.
    again: Instant,
    /// Nodes that asked for one: what stands for it in the store.
    asked: BTreeSet<Name>,
    /// The same for those that have got one since.
    answered: BTreeSet<Name>,
}

impl Leader {
    pub(super) fn new(me: Origin, habits: &Habits) -> Self {
        let now = Instant::now();
        let claimant = Claimant::new(LEASE, me, habits.ttl);
        Self {
            claimant,
            begun: now,
            ttl: habits.ttl,
            looked: now,
            last: None,
            cut: now,
            drill: now,
            tidy: now + TIDY,
            failures: 0,
            again: now,
            asked: BTreeSet::new(),
            answered: BTreeSet::new(),
        }
    }

    /// Whether it is time to look again.
    pub(super) fn is_time(&self) -> bool {
        self.looked.elapsed() >= self.pause() && self.may_try()
    }

    fn pause(&self) -> Duration {
        CHECK.min(self.ttl / 3)
    }

    /// One could not be made: the next try waits, ever longer. Meanwhile the lease may run out, for another node to try.
    pub(super) fn failed(&mut self) {
        self.again = Instant::now() + backed_off(self.pause(), self.failures);
        self.failures += 1;
    }

    /// Whether the last failure was long enough ago.
    pub(super) fn may_try(&self) -> bool {
        Instant::now() >= self.again
    }

    /// Does what may take longer than this node leads for, and renews that meanwhile.
    pub(super) async fn during<T>(&mut self, log: &Arc<dyn Log>, work: impl Future<Output = T>) -> T {
        let begun = self.begun;
        self.claimant.during(&**log, move || begun.elapsed(), work).await
    }

    /// Why a snapshot is to be made here now, if one is.
    pub(super) async fn due(
        &mut self,
        db: &Db,
        log: &Arc<dyn Log>,
        shelf: &Shelf,
        habits: &Habits,
        read_bytes: u64,
    ) -> Result<Option<(What, Trigger)>, Failure> {
        self.looked = Instant::now();
        if self.claimant.hold(&**log, self.begun.elapsed()).await.map_err(unreachable_log)? != Hold::Held {
            // Whoever has it makes snapshots that this node does not know of.
            self.last = None;
            return Ok(None);
        }
        let cluster = db.call(|db| Ok(db.cluster())).await.map_err(|error| unasked(&error))?;
        let cluster = cluster.map(crate::words::hex).unwrap_or_default();
        let last = match &self.last {
            Some(last) => last.clone(),
            None => {
                let (shelf, cluster) = (shelf.clone(), cluster.clone());
                let sized = habits.due.full.log_bytes.is_some();
                let last = apart(move || newest(&shelf, &cluster, sized, read_bytes)).await??;
                self.last.insert(last).clone()
            }
        };
        let shelf = shelf.clone();
        self.asked = apart(move || Repo::new(&shelf.open()?.0.store, &cluster).asked()).await??;
        if !self.asked.is_subset(&self.answered) {
            return Ok(Some((What::Full, Trigger::Asked)));
        }
        let Some(last) = last else { return Ok(Some((What::Full, Trigger::First))) };
        let (entries, schemas, used_bytes) = db
            .call(|db| Ok((db.positions().iter().map(|(_, seq)| seq).sum::<u64>(), db.schemas(), db.used_bytes()?)))
            .await
            .map_err(|error| unasked(&error))?;
        let altered = schemas != last.schemas;
        let due = habits.calendar.as_ref().and_then(|calendar| calendar.after(last.full.created_ms));
        let scheduled = due.is_some_and(|due| due <= crate::clock::unix_ms());
        let standing = Standing {
            full: Some(Since {
                log_bytes: last.log_bytes + read_bytes.saturating_sub(last.read_bytes),
                growth_bytes: used_bytes.saturating_sub(last.bytes),
                ..last.full.since(entries)
            }),
            any: Some(last.any.since(entries)),
            steps: last.steps,
            altered,
            scheduled,
        };
        let jittered = |limits: due::Limits| limits.jittered(habits.jitter_percent, last.rolled);
        let wish =
            due::Wish { full: jittered(habits.due.full), incremental: jittered(habits.due.incremental), ..habits.due };
        Ok(due::next(&standing, &wish))
    }

    /// Whether it is this node that makes them.
    pub(super) fn leads(&self) -> bool {
        self.claimant.is_held(self.begun.elapsed())
    }

    /// One was made here, where so much was read of the log.
    pub(super) fn made(&mut self, manifest: &Manifest, read_bytes: u64) {
        if manifest.is_full() {
            self.last = Some(Some(Known::of(manifest, read_bytes)));
        } else if let Some(Some(last)) = &mut self.last {
            (last.any, last.steps, last.rolled) = (Last::of(manifest), last.steps + 1, manifest.id.chance());
        }
        (self.cut, self.tidy) = (Instant::now(), Instant::now() + TIDY);
        (self.failures, self.again) = (0, Instant::now());
        // Those who asked later are still to be seen.
        self.answered.clone_from(&self.asked);
    }

    /// Who has got what he asked for.
    pub(super) fn answered(&self) -> &BTreeSet<Name> {
        &self.answered
    }

    /// Whether it is for this node now to see how much of the log is superfluous.
    pub(super) async fn cuts(&mut self, log: &Arc<dyn Log>) -> Result<bool, Failure> {
        if Instant::now() < self.cut || !self.claimant.is_held(self.begun.elapsed()) {
            return Ok(false);
        }
        self.cut = Instant::now() + CUT;
        Ok(self.claimant.hold(&**log, self.begun.elapsed()).await.map_err(unreachable_log)? == Hold::Held)
    }

    /// Whether it is for this node now to see if a snapshot is to be tried out, as one is after so long.
    pub(super) fn drills(&mut self, after: Duration) -> bool {
        if Instant::now() < self.drill || !self.leads() {
            return false;
        }
        self.drill = Instant::now() + DRILL.min(after / 4);
        true
    }

    /// Whether it is for this node now to sort out what there is.
    pub(super) fn tidies(&mut self) -> bool {
        if Instant::now() < self.tidy || !self.leads() {
            return false;
        }
        self.tidy = Instant::now() + TIDY;
        true
    }

    /// This node stops.
    pub(super) async fn leave(&mut self, log: &Arc<dyn Log>) {
        if self.leads() {
            // If the log can't be asked it ends by itself.
            let _ = self.claimant.release(&**log).await;
        }
    }
}

/// How long it is waited after so many failures before.
fn backed_off(pause: Duration, failures: u32) -> Duration {
    pause.saturating_mul(2_u32.saturating_pow(failures)).min(PAUSE_MAX)
}

fn newest(shelf: &Shelf, cluster: &str, sized: bool, read_bytes: u64) -> Result<Option<Known>, Failure> {
    let (opened, _) = shelf.open()?;
    let repo = Repo::new(&opened.store, cluster);
    let (mut any, mut steps, mut rolled) = (None, 0, None);
    let now_ms = crate::clock::unix_ms();
    // One of a time to come would be the newest until then, whatever is made.
    for id in repo.ids()?.into_iter().filter(|id| !is_to_come(id.millis(), now_ms)) {
        match repo.manifest(id) {
            Ok(manifest) if manifest.is_full() => {
                let known = Known::of(&manifest, read_bytes);
                let log_bytes = if sized { repo.archived_bytes(&manifest.positions)? } else { 0 };
                let rolled = rolled.unwrap_or(known.rolled);
                return Ok(Some(Known { any: any.unwrap_or(known.full), steps, log_bytes, rolled, ..known }));
            }
            Ok(manifest) => {
                any.get_or_insert(Last::of(&manifest));
                rolled.get_or_insert(manifest.id.chance());
                steps += 1;
            }
            Err(failure) if matches!(failure.kind(), Kind::Data | Kind::Missing) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(None)
}

fn unasked(error: &crate::db::Error) -> Failure {
    Failure::caused(Kind::General, "cannot see whether a snapshot is due", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_each_failure_the_pause_is_longer() {
        let pause = |failures| backed_off(CHECK, failures).as_secs();
        assert_eq!([0, 1, 2, 4, 5, 40].map(pause), [10, 20, 40, 160, 300, 300]);
    }

    /// F11: a clock that is right again is not waited for until it says what it said when it was wrong.
    #[test]
    fn f11_a_snapshot_of_a_time_to_come_is_old() {
        const NOW: u64 = 1 << 40;
        assert_eq!(age_ms(NOW - 5, NOW), 5);
        assert_eq!(age_ms(NOW + 5, NOW), 0);
        assert_eq!(age_ms(NOW + 86_400_000, NOW), u64::MAX);
    }
}
