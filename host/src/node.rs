//! A node: its database, its log, the tasks between them, and an orderly end.

use crate::alarm::Ceiling;
use crate::announce::Announcer;
use crate::db::Db;
use crate::failure::{Failure, Kind};
use crate::guard::{Activity, Guard};
use crate::housekeeping::{Housekeeper, Keep};
use crate::lock::Lock;
use crate::log::{Claim, Log};
use crate::place::Place;
use crate::publish::Publisher;
use crate::report::Board;
use crate::seq_map::SeqMap;
use crate::snapshot::{Archivist, Keeper, LiveParts, Shelf, Signals};
use crate::subscribe::Subscriber;
use crate::vitals::{Lookout, Observer};
use crate::watch::Watch;
use antiphon_core::entry::Origin;
use antiphon_plugin::PluginHost;
use following::Following;
use futures::FutureExt as _;
use publishing::Publishing;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, info_span};

mod carrier;
mod failing;
mod following;
mod furnished;
mod opened;
mod parts;
mod publishing;
mod retry;
mod scratch;

pub(crate) use carrier::NEVER_STARTED;
pub use carrier::{Carrier, Nats};
pub(crate) use failing::lost_log;
pub(crate) use furnished::furnish;
pub(crate) use opened::damaged;
pub use opened::{Opened, open};
pub use parts::Parts;
pub(crate) use scratch::{SCRATCH, Scratch};

/// A member of a cluster, ready to run.
#[derive(Debug)]
pub struct Node {
    db: Db,
    log: Arc<dyn Log>,
    shards: u32,
    watch: Watch,
    poll_interval: Duration,
    sleep_timeout: Duration,
    outbox: Ceiling,
    reload: Option<crate::reload::Reload>,
    shelf: Option<Shelf>,
    plugins: Option<PluginHost>,
    lookout: Option<Lookout>,
    publishes: bool,
    number: u64,
    incarnation: u64,
    reached: Arc<AtomicU64>,
    keep: Keep,
    seq_map: SeqMap,
    board: Board,
    state: PathBuf,
    place: Place,
    _claim: Claim,
    /// The last to go: see [`Lock`].
    _lock: Lock,
}

/// The host's own directory beside a database.
#[must_use]
pub fn state_directory(database: &Path) -> PathBuf {
    let mut name = database.file_name().unwrap_or_default().to_owned();
    name.push(".antiphon");
    database.with_file_name(name)
}

impl Node {
    /// The handle on the database, for those who look in.
    #[must_use]
    pub fn db(&self) -> Db {
        self.db.clone()
    }

    /// This node's number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Replicates until `stop`, or until something fails that waiting does not mend.
    ///
    /// # Errors
    /// What failed.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Failure> {
        let mut tasks: JoinSet<Result<(), Failure>> = JoinSet::new();
        let (scratch, shelf) = (self.state.clone(), self.shelf.clone());
        let publisher = Publisher::with_scratch(self.db.clone(), self.log.clone(), scratch, shelf);
        let moved = Arc::new(tokio::sync::Notify::new());
        let activity = Arc::new(Activity::new());
        let guard = Guard {
            db: self.db.clone(),
            log: self.log.clone(),
            board: self.board.clone(),
            place: self.place.clone(),
            state: self.state.clone(),
            incarnation: self.incarnation,
            reached: self.reached,
            shards: self.shards,
            activity: Arc::clone(&activity),
            sleep_timeout: self.sleep_timeout,
            outbox: self.outbox,
            reload: self.reload,
            snapshots: self.shelf.is_some(),
        };
        tasks.spawn(guard.run(stop.clone()).instrument(info_span!("guard")));
        let publishing = Publishing {
            publisher,
            db: self.db.clone(),
            watch: self.watch,
            moved: Arc::clone(&moved),
            activity: Arc::clone(&activity),
            poll_interval: self.poll_interval,
            board: self.board.clone(),
        };
        tasks.spawn(publishing.run(stop.clone()).instrument(info_span!("publish")));
        for shard in 1..=self.shards {
            let following = Following {
                subscriber: Subscriber::new(self.db.clone(), self.log.clone(), shard),
                log: self.log.clone(),
                shard,
                moved: Arc::clone(&moved),
                activity: Arc::clone(&activity),
                board: self.board.clone(),
                seq_map: self.seq_map.clone(),
                is_at_end: false,
            };
            tasks.spawn(following.run(stop.clone()).instrument(info_span!("apply", shard)));
        }
        let done = |()| Ok(());
        if let Some(shelf) = self.shelf {
            let (node, incarnation) = (self.number, self.incarnation);
            let origin = Origin { node, incarnation };
            let publishes = self.publishes;
            let signals = Arc::new(Signals::default());
            if publishes {
                let archivist = Archivist {
                    db: self.db.clone(),
                    log: self.log.clone(),
                    origin,
                    shelf: shelf.clone(),
                    board: self.board.clone(),
                    signals: Arc::clone(&signals),
                };
                tasks.spawn(archivist.run(stop.clone()).map(done).instrument(info_span!("archive")));
            }
            let keeper = Keeper {
                live: LiveParts {
                    db: self.db.clone(),
                    log: self.log.clone(),
                    moved: Arc::clone(&moved),
                    origin,
                    publishes,
                },
                shelf,
                state: self.state.clone(),
                board: self.board.clone(),
                path: self.place.path().to_owned(),
                signals,
                watched: self.lookout.is_some(),
            };
            tasks.spawn(keeper.run(stop.clone()).map(done).instrument(info_span!("snapshots")));
        }
        if let Some(lookout) = self.lookout {
            let (db, log, path) = (self.db.clone(), self.log.clone(), self.place.path().to_owned());
            let observer = Observer::new(lookout, db, log, self.board.clone(), self.plugins, path);
            tasks.spawn(observer.run(stop.clone()).map(done).instrument(info_span!("observe")));
        }
        let housekeeper = Housekeeper::new(self.db.clone(), self.keep).telling(self.board.clone());
        tasks.spawn(housekeeper.run(stop.clone()).map(done).instrument(info_span!("housekeeping")));
        let announcer = || Announcer::new(self.db.clone(), self.log.clone(), self.board.clone());
        tasks.spawn(announcer().run(stop.clone()).map(done).instrument(info_span!("announce")));
        let reporting = self.board.clone().run(self.state.clone(), stop.clone());
        tasks.spawn(reporting.map(done).instrument(info_span!("report")));
        let mut ended = Ok(());
        while let Some(done) = tasks.join_next().await {
            let done = done
                .unwrap_or_else(|error| Err(Failure::new(Kind::General, format!("a task ended in a panic: {error}"))));
            // The first to fail ends the others, in the same orderly way as a signal does.
            stop.cancel();
            if ended.is_ok() {
                ended = done;
            }
        }
        announcer().leave().await;
        self.db.close();
        self.board.end(&self.state, ended.as_ref().err().map(ToString::to_string));
        info!("stopped");
        ended
    }
}
