//! What is looked after while a node runs: the file under its name, the note of its life, room for the outbox, and
//! whether anything happens at all.

use crate::alarm::{Alarm, Ceiling, OnFull};
use crate::apart::apart;
use crate::db::Db;
use crate::errand::{self, Errand};
use crate::failure::{Failure, Kind};
use crate::life::Life;
use crate::log::{Log, Shard};
use crate::place::Place;
use crate::reload::Reload;
use crate::report::{Board, PUBLISH};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long a file that was put in place of the database may go unnoticed.
const LOOK: Duration = Duration::from_millis(200);
/// How often the outbox is measured.
const MEASURE: Duration = Duration::from_secs(1);
/// How far the note of a life may lag behind. What lies between can't be told from a backup's return.
const NOTE: Duration = Duration::from_secs(5);

/// When something last happened.
#[derive(Debug)]
pub struct Activity {
    begun: Instant,
    last: AtomicU64,
}

impl Activity {
    /// It begins now.
    #[must_use]
    pub fn new() -> Self {
        Self { begun: Instant::now(), last: AtomicU64::new(0) }
    }

    /// Something happened.
    pub fn note(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }

    /// How long nothing has.
    #[must_use]
    pub fn quiet(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.last.load(Ordering::Relaxed)))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Default for Activity {
    fn default() -> Self {
        Self::new()
    }
}

/// The task.
pub(crate) struct Guard {
    pub(crate) db: Db,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) board: Board,
    pub(crate) place: Place,
    pub(crate) state: PathBuf,
    pub(crate) incarnation: u64,
    /// How far the database has come: also when it was replaced, and answers no more.
    pub(crate) reached: Arc<AtomicU64>,
    pub(crate) shards: u32,
    pub(crate) activity: Arc<Activity>,
    pub(crate) sleep_timeout: Duration,
    pub(crate) outbox: Ceiling,
    pub(crate) reload: Option<Reload>,
    /// Somebody makes snapshots here.
    pub(crate) snapshots: bool,
}

/// Bytes that wait in a shard: of numbers above the one that came back last, up to this one.
#[derive(Clone, Copy, Default)]
struct Waiting {
    echoed: u64,
    counted: u64,
    bytes: u64,
}

impl Guard {
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), Failure> {
        let mut alarm = Alarm::default();
        let mut waiting: BTreeMap<Shard, Waiting> = BTreeMap::new();
        let (mut measured, mut noted) = (Instant::now(), Instant::now());
        let mut written = None;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(LOOK) => {}
            }
            self.place.check()?;
            fault!("looked");
            if let Some(asked) = errand::requested(&self.state, Errand::Reload) {
                self.reload(&asked).await;
            }
            for errand in [Errand::Snapshot, Errand::Increment].into_iter().filter(|_| !self.snapshots) {
                let Some(asked) = errand::requested(&self.state, errand) else { continue };
                let off = Failure::config("this node was started with `snapshot.enabled` off");
                let refused = Err(off.hint("turn it on under `[snapshot]`, and start the node again"));
                errand::answer(&self.state, errand, &asked, refused);
            }
            if measured.elapsed() >= MEASURE {
                self.measure(&mut alarm, &mut waiting).await;
                self.board.degraded(self.log.degraded());
                fault!("measured");
                measured = Instant::now();
            }
            if noted.elapsed() >= NOTE {
                self.note(&mut written);
                noted = Instant::now();
            }
            if !self.sleep_timeout.is_zero() && self.activity.quiet() >= self.sleep_timeout && self.is_at_rest().await {
                info!("nothing happened for as long as `sleep_timeout` says; stopping");
                return Ok(());
            }
        }
        self.note(&mut written);
        Ok(())
    }

    /// Looks into the configuration again, for whoever asked.
    async fn reload(&self, asked: &str) {
        let reloaded = match &self.reload {
            Some(reload) => {
                let reload = reload.clone();
                apart(move || reload.run()).await.and_then(|reloaded| reloaded)
            }
            None => Err(Failure::config("this node was started without a configuration")),
        };
        let reloaded = match reloaded {
            Ok(changed) if !changed.is_empty() => {
                let renewed = self.db.call(|db| db.renew_policies()).await;
                renewed.map(|()| changed).map_err(|error| {
                    Failure::caused(
                        Kind::General,
                        "the limits have changed, and a resolver can't be made with them",
                        &error,
                    )
                })
            }
            reloaded => reloaded,
        };
        match &reloaded {
            Ok(changed) => info!(changed = changed.join("; "), "plugins reloaded"),
            Err(failure) => warn!(%failure, "plugins not reloaded"),
        }
        errand::answer(&self.state, Errand::Reload, asked, reloaded);
    }

    /// Whether nothing waits for the log: while it is away nothing happens, and that is no rest.
    async fn is_at_rest(&self) -> bool {
        match self.db.call(|db| db.unsent_count()).await {
            Ok(waits) => waits == (0, false),
            // Whoever needs the database says what is wrong with it.
            Err(_) => false,
        }
    }

    /// Notes how far this life has come, if it has moved.
    fn note(&self, written: &mut Option<u64>) {
        let reached = self.reached.load(Ordering::Relaxed);
        // What lies under the name now may be another file, which this note must not vouch for.
        if *written == Some(reached) || self.place.check().is_err() {
            return;
        }
        match Life::of(&self.place, self.incarnation, reached).write(&self.state) {
            Ok(()) => *written = Some(reached),
            Err(error) => warn!(directory = %self.state.display(), %error, "cannot note how far this node has come"),
        }
    }

    /// Does what its user wants of a full outbox.
    async fn fill(&self, waiting: u64) {
        match self.outbox.on_full {
            OnFull::Grow => {}
            OnFull::Refuse => self.refuse(waiting).await,
            OnFull::Stop => self.unwatch(waiting).await,
        }
    }

    /// Has nothing of what the application writes captured, or all of it again.
    async fn unwatch(&self, waiting: u64) {
        let Ok(before) = self.db.call(|db| Ok(db.is_unwatched())).await else { return };
        // How much waits says nothing then: what the log has may be read back only after tables were compared.
        let is_away = self.board.is_failing(PUBLISH);
        let now = is_away && (before || self.outbox.is_reached(waiting, false));
        let changed = self.db.call(move |db| {
            if now { db.unwatch() } else { db.watch() }?;
            Ok(db.is_unwatched())
        });
        let now = match changed.await {
            Ok(now) => now,
            // It is tried again in a second; whoever needs the database says what is wrong with it.
            Err(error) => {
                tracing::debug!(%error, "cannot change whether writes are captured");
                return;
            }
        };
        match (before, now) {
            (false, true) => warn!(
                waiting_bytes = waiting,
                "the outbox is full: what the application writes is not captured until the log takes some of it"
            ),
            (true, false) => {
                info!("the log takes changes again: writes are captured, and tables are compared with it");
            }
            _ => {}
        }
        self.board.aside(|asides| asides.full = if now { OnFull::Stop } else { OnFull::Grow });
    }

    /// Has the application's writes refused, or taken again.
    async fn refuse(&self, waiting: u64) {
        let ceiling = self.outbox;
        let refused = self
            .db
            .call(move |db| {
                let refused = db.refuses_writes()?;
                let refuse = ceiling.is_reached(waiting, refused);
                // Where they are refused there may be tables that are new.
                if refuse || refused {
                    db.refuse_writes(refuse)?;
                }
                Ok((refused, refuse))
            })
            .await;
        match refused {
            Ok((false, true)) => warn!(
                waiting_bytes = waiting,
                "the outbox is full: the application's writes are refused until the log has taken some of it"
            ),
            Ok((true, false)) => info!("the outbox has room again: the application's writes are taken"),
            Ok(_) => {}
            // It is tried again in a second; whoever needs the database says what is wrong with it.
            Err(error) => {
                tracing::debug!(%error, "cannot change which writes are refused");
                return;
            }
        }
        let refuses = refused.is_ok_and(|(_, refuses)| refuses);
        self.board.aside(|asides| asides.full = if refuses { OnFull::Refuse } else { OnFull::Grow });
    }

    async fn measure(&self, alarm: &mut Alarm, waiting: &mut BTreeMap<Shard, Waiting>) {
        let mut bytes = 0;
        for shard in 1..=self.shards {
            let known = waiting.entry(shard).or_default();
            let before = *known;
            let measured = self
                .db
                .call(move |db| {
                    let echoed = db.echoed(shard);
                    // Only what came since is counted, unless something has gone.
                    let (from, so_far) =
                        if echoed == before.echoed { (before.counted.max(echoed), before.bytes) } else { (echoed, 0) };
                    let (more, counted) = db.waiting_bytes(shard, from)?;
                    Ok(Waiting { echoed, counted, bytes: so_far + more })
                })
                .await;
            // Whoever needs the outbox says what is wrong with it.
            let Ok(now) = measured else { return };
            *known = now;
            bytes += now.bytes;
        }
        let free =
            rustix::fs::statvfs(self.place.path()).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        let was_on = alarm.is_on();
        let filled = alarm.measure(bytes, self.outbox.bytes, free);
        self.board.aside(|asides| (asides.waiting_bytes, asides.filled_percent) = (bytes, alarm.percent()));
        self.fill(bytes).await;
        if let Some(filled) = filled {
            warn!(
                percent = filled.percent,
                waiting_bytes = filled.waiting,
                room_bytes = filled.room,
                "the outbox fills: changes wait for the log; all are kept, and the application writes on while the disk has room"
            );
        } else if was_on && !alarm.is_on() {
            info!("the outbox has emptied");
        }
    }
}
