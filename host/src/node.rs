//! A node: its database, its log, the tasks between them, and an orderly end.

use crate::announce::Announcer;
use crate::db::{self, Database, Db, Filter, Options, Policies, Standing};
use crate::failure::{Failure, Kind};
use crate::guard::{Activity, Guard};
use crate::housekeeping::{Housekeeper, Keep};
use crate::join::{self, Entered};
use crate::life::{Life, Provenance};
use crate::lock::Lock;
use crate::log::{self, Claim, Log, Shard};
use crate::place::Place;
use crate::publish::{self, Publisher};
use crate::report::{Board, Report};
use crate::subscribe::{self, Progress, Subscriber};
use crate::watch::Watch;
use antiphon_core::entry::Genesis;
use antiphon_core::hash::Hash;
use futures::FutureExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, info_span, warn};

/// What a node is made from.
pub struct Parts {
    /// The application's database.
    pub database: PathBuf,
    /// This node's number; 0 = one drawn once and kept in the file.
    pub node: u64,
    /// The directory of the embedded log.
    pub log: PathBuf,
    /// Which tables are replicated.
    pub filter: Filter,
    /// Most changes in one transaction of ours.
    pub changes_max: usize,
    /// Compress batches.
    pub compress: bool,
    /// Note what is written here, for the others.
    pub publish: bool,
    /// Apply what others wrote.
    pub replicate: bool,
    /// How long nothing happens before the program ends; zero: it does not.
    pub sleep_timeout: Duration,
    /// Bytes of changes that may wait before it is an alarm; 0: what the disk has room for.
    pub outbox_bytes_max: u64,
    /// How long a missed file event may go unnoticed.
    pub poll_interval: Duration,
    /// For how long batches are kept that the log has.
    pub keep: Keep,
    /// What this node would agree to.
    pub agreed: Genesis,
    /// Where a key goes.
    pub hasher: Box<dyn Hash>,
    /// Who wins a clash, table by table.
    pub policies: Policies,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("database", &self.database).field("log", &self.log).finish_non_exhaustive()
    }
}

/// A database opened for good: locked, found sound, and not yet a member of anything.
#[derive(Debug)]
pub struct Opened {
    /// The database.
    pub db: Database,
    /// The log.
    pub log: Arc<dyn Log>,
    agreed: Genesis,
    poll_interval: Duration,
    sleep_timeout: Duration,
    outbox_bytes_max: u64,
    provenance: Provenance,
    keep: Keep,
    log_directory: PathBuf,
    state: PathBuf,
    place: Place,
    /// The last to go: see [`Lock`].
    lock: Lock,
}

/// A member of a cluster, ready to run.
#[derive(Debug)]
pub struct Node {
    db: Db,
    log: Arc<dyn Log>,
    shards: u32,
    watch: Watch,
    poll_interval: Duration,
    sleep_timeout: Duration,
    outbox_bytes_max: u64,
    number: u64,
    incarnation: u64,
    reached: Arc<AtomicU64>,
    keep: Keep,
    board: Board,
    state: PathBuf,
    place: Place,
    _claim: Claim,
    /// The last to go: see [`Lock`].
    _lock: Lock,
}

/// The least time from one seal to the next, and between two pieces: what comes in between shares a batch, and the
/// application gets its lock.
const SEAL_INTERVAL: Duration = Duration::from_millis(2);
/// How long to wait before a refused step is tried again; doubled up to the maximum.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often a shard that can't go on looks whether it can.
const BLOCKED_POLL: Duration = Duration::from_millis(500);
const BLOCKED_FIRST_POLL: Duration = Duration::from_millis(20);
/// How long a stop waits for the batch in hand to reach the log.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// The host's own directory beside a database.
#[must_use]
pub fn state_directory(database: &Path) -> PathBuf {
    let mut name = database.file_name().unwrap_or_default().to_owned();
    name.push(".antiphon");
    database.with_file_name(name)
}

/// Opens a database: one host at a time, and only if SQLite finds it sound.
///
/// # Errors
/// When it does not exist, is in use, is damaged, or the log can't be opened.
pub fn open(parts: Parts) -> Result<Opened, Failure> {
    let shown = parts.database.display().to_string();
    let place = Place::find(&parts.database)?;
    let path = place.path().to_owned();
    let state = state_directory(&path);
    let lock = Lock::take(&place, &state, &shown)?;
    place.has_one_name()?;
    sweep(&state);
    Report::remove(&state);
    db::check(&path).map_err(|error| damaged(&shown, &error))?;
    fault!("checked");
    let options = Options {
        path,
        node: parts.node,
        filter: parts.filter,
        changes_max: parts.changes_max,
        compress: parts.compress,
        publish: parts.publish,
        replicate: parts.replicate,
    };
    let mut db = Database::open(options, parts.hasher, parts.policies).map_err(|error| unopened(&shown, &error))?;
    let log = log::Local::open(&parts.log).map_err(|error| lost_log("cannot open the log", &error))?;
    fault!("opened");
    let note = Life::read(&state);
    let provenance = Life::judge(note.as_ref(), &Life::of(&place, db.origin().incarnation, db.reached()));
    if provenance != Provenance::Same && db.standing().map_err(|error| unopened(&shown, &error))? == Standing::Apart {
        // It has said nothing in the name it has, and a copy of it may have that name as well.
        db.begin_life().map_err(|error| unopened(&shown, &error))?;
        note_life(&place, &state, &db)?;
    }
    fault!("judged");
    Ok(Opened {
        db,
        log: Arc::new(log),
        agreed: parts.agreed,
        poll_interval: parts.poll_interval,
        sleep_timeout: parts.sleep_timeout,
        outbox_bytes_max: parts.outbox_bytes_max,
        provenance,
        keep: parts.keep,
        log_directory: parts.log,
        state,
        place,
        lock,
    })
}

/// Writes beside the database whose life it is.
fn note_life(place: &Place, state: &Path, db: &Database) -> Result<(), Failure> {
    Life::of(place, db.origin().incarnation, db.reached()).write(state).map_err(|error| {
        Failure::new(Kind::General, format!("cannot write to the directory `{}`: {error}", state.display()))
            .hint("make it writable for this user, and see that the disk has room")
    })
}

fn damaged(shown: &str, error: &db::Error) -> Failure {
    match error {
        db::Error::Damaged(_) => Failure::caused(Kind::Data, format!("nothing of `{shown}` is replicated"), error)
            .hint("restore the file from a backup, or save what can be read: `sqlite3 DAMAGED .recover | sqlite3 NEW`"),
        _ => unopened(shown, error),
    }
}

fn unopened(shown: &str, error: &db::Error) -> Failure {
    let text = format!("cannot open database `{shown}`");
    if error.is_transient() {
        return Failure::caused(Kind::Busy, text, error)
            .hint("start again when the application has ended its transaction");
    }
    Failure::caused(Kind::General, text, error)
}

/// The log can't be had, or is not what this node knows of it.
pub(crate) fn lost_log(text: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::caused(Kind::Data, text, error)
        .hint("the rows of the database are safe; bring the log's directory back as it was, or let `--log` name the right one")
        .hint(
            "if the log is lost: stop all nodes, `antiphon cleanup` each database, remove the log's directory, and \
             `antiphon run` the one with the latest rows first; the others follow it, with `antiphon join` where rows differ",
        )
}

/// Removes folders that an earlier life left when it was killed. The lock is ours, so nobody uses them.
fn sweep(state: &Path) {
    let Ok(entries) = std::fs::read_dir(state) else { return };
    let left = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(SCRATCH));
    for entry in left {
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            warn!(folder = %entry.path().display(), %error, "cannot remove a folder of an earlier start");
        }
    }
}

impl Opened {
    /// Founds the log's cluster or joins it.
    ///
    /// # Errors
    /// When the log can't be read, or only the user can decide.
    pub async fn enter(mut self) -> Result<(Node, Entered), Failure> {
        let scratch = Scratch::new(&self.state)?;
        // Of two files that are in all the same life, the one that runs is the one to go on.
        let claim = self.claim().await?;
        let entered = join::enter(&mut self.db, &*self.log, &self.agreed, &scratch.file(), self.provenance).await?;
        fault!("entered");
        let claim =
            if entered == Entered::Copied || entered == Entered::CaughtUp { self.claim().await? } else { claim };
        note_life(&self.place, &self.state, &self.db)?;
        fault!("noted");
        let (shards, origin) = (self.db.shards(), self.db.origin());
        let watch = Watch::new(self.db.path());
        let reached = self.db.watch_reached();
        let db = Db::spawn(self.db)
            .map_err(|error| Failure::new(Kind::General, format!("cannot start the database thread: {error}")))?;
        let log_directory = self.log_directory.canonicalize().unwrap_or(self.log_directory);
        let node = Node {
            db,
            log: self.log,
            shards,
            watch,
            poll_interval: self.poll_interval,
            sleep_timeout: self.sleep_timeout,
            outbox_bytes_max: self.outbox_bytes_max,
            number: origin.node,
            incarnation: origin.incarnation,
            reached,
            keep: self.keep,
            board: Board::new(log_directory.display().to_string()),
            state: self.state,
            place: self.place,
            _claim: claim,
            _lock: self.lock,
        };
        Ok((node, entered))
    }

    async fn claim(&self) -> Result<Claim, Failure> {
        let origin = self.db.origin();
        if self.provenance == Provenance::Copy && self.db.standing().is_ok_and(|standing| standing != Standing::Apart) {
            // It will have another name when it speaks.
            return Ok(Claim::default());
        }
        let claimed = self.log.claim(origin).await.map_err(|error| lost_log("cannot use the log", &error))?;
        claimed.ok_or_else(|| {
            Failure::new(Kind::Busy, format!("node {} runs already, on another copy of this file", origin.node))
                .hint("to make this a node of its own, remove the directory beside it whose name ends in `.antiphon`, and start again")
        })
    }

    /// Joins as the user decided.
    ///
    /// # Errors
    /// When the log can't be read.
    pub async fn force(&mut self, rows: join::Rows) -> Result<Vec<db::Difference>, Failure> {
        let scratch = Scratch::new(&self.state)?;
        let differences =
            join::force(&mut self.db, &*self.log, &self.agreed, &scratch.file(), rows, self.provenance).await?;
        note_life(&self.place, &self.state, &self.db)?;
        Ok(differences)
    }

    /// Marks what differs from the log and is not on its way; with `dry_run`, only counts it.
    ///
    /// # Errors
    /// When the log can't be read, or no longer holds everything.
    pub async fn repair(&mut self, tables: &[String], dry_run: bool) -> Result<Vec<db::Reconciled>, Failure> {
        let scratch = Scratch::new(&self.state)?;
        crate::repair::repair(&mut self.db, &*self.log, &scratch.file(), tables, dry_run, self.provenance).await
    }
}

/// What folders for L built aside begin with.
pub(crate) const SCRATCH: &str = "scratch-";

/// A folder for L built aside; gone when it is done with.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new(state: &Path) -> Result<Self, Failure> {
        tempfile::Builder::new().prefix(SCRATCH).tempdir_in(state).map(Self).map_err(|error| {
            Failure::new(Kind::General, format!("cannot make a folder in `{}`: {error}", state.display()))
        })
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("log.db")
    }
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
        let publisher = Publisher::with_scratch(self.db.clone(), self.log.clone(), self.state.clone());
        let moved = Arc::new(tokio::sync::Notify::new());
        let activity = Arc::new(Activity::new());
        let guard = Guard {
            db: self.db.clone(),
            place: self.place.clone(),
            state: self.state.clone(),
            incarnation: self.incarnation,
            reached: self.reached,
            shards: self.shards,
            activity: Arc::clone(&activity),
            sleep_timeout: self.sleep_timeout,
            outbox_bytes_max: self.outbox_bytes_max,
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
            };
            tasks.spawn(following.run(stop.clone()).instrument(info_span!("apply", shard)));
        }
        let done = |()| Ok(());
        let housekeeper = Housekeeper::new(self.db.clone(), self.keep);
        tasks.spawn(housekeeper.run(stop.clone()).map(done).instrument(info_span!("housekeeping")));
        let announcer = || Announcer::new(self.db.clone(), self.log.clone(), self.board.clone());
        tasks.spawn(announcer().run(stop.clone()).map(done));
        tasks.spawn(self.board.clone().run(self.state.clone(), stop.clone()).map(done));
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

/// The name of the sending task in the status.
const PUBLISH: &str = "publish";

/// The task that sends.
struct Publishing {
    publisher: Publisher,
    db: Db,
    watch: Watch,
    moved: Arc<tokio::sync::Notify>,
    activity: Arc<Activity>,
    poll_interval: Duration,
    board: Board,
}

impl Publishing {
    async fn run(mut self, stop: CancellationToken) -> Result<(), Failure> {
        let mut retry = Retry::default();
        loop {
            let mut last = Instant::now();
            let stepped = self.publisher.step().await;
            self.board.count(0, self.publisher.take_appended());
            match stepped {
                Ok(publish::Progress::More) => {
                    last = Instant::now();
                    retry.reset();
                    self.activity.note();
                    self.board.well(PUBLISH);
                }
                Ok(publish::Progress::Idle) => {
                    retry.reset();
                    self.board.well(PUBLISH);
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        () = self.wait() => {}
                    }
                }
                Err(error) if is_lasting(&error) => {
                    return Err(match &error {
                        publish::Error::Db(_) => unable("cannot publish", &error),
                        publish::Error::Log(_) | publish::Error::Broken { .. } | publish::Error::TailLost { .. } => {
                            lost_log("cannot publish", &error)
                        }
                    });
                }
                Err(error) => {
                    let error = chain(&error);
                    warn!(error, retry_in_ms = retry.pause().as_millis(), "Unable to publish");
                    self.board.failing(PUBLISH, &error);
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        () = retry.wait() => {}
                    }
                }
            }
            if stop.is_cancelled() {
                break;
            }
            if let Some(rest) = SEAL_INTERVAL.checked_sub(last.elapsed()) {
                tokio::time::sleep(rest).await;
            }
        }
        fault!("stopping");
        // What is committed by now still goes out, if the log takes it soon.
        let last = tokio::time::timeout(SHUTDOWN_GRACE, async {
            while matches!(self.publisher.step().await, Ok(publish::Progress::More)) {}
        });
        if last.await.is_err() {
            info!("the log does not answer; what waits goes out after the next start");
        }
        Ok(())
    }

    /// Returns when another connection has committed, or an entry was applied, or the file can't be looked at.
    async fn wait(&self) {
        let has_changed = || async { self.db.call(Database::has_changed).await.unwrap_or(true) };
        tokio::select! {
            () = self.moved.notified() => {}
            () = self.watch.until(self.poll_interval, has_changed) => {}
        }
    }
}

fn is_lasting(error: &publish::Error) -> bool {
    match error {
        publish::Error::Db(error) => is_lasting_db(error),
        publish::Error::Log(log::Error::Unreachable(_)) => false,
        publish::Error::Log(log::Error::Broken(_))
        | publish::Error::Broken { .. }
        | publish::Error::TailLost { .. } => true,
    }
}

fn is_lasting_db(error: &db::Error) -> bool {
    // SQLite's refusals can end without a restart: a lock, a full disk, a read-only file. The others can't.
    matches!(error, db::Error::Closed | db::Error::Damaged(_) | db::Error::Inconsistent(_) | db::Error::Replaced(_))
}

/// The task that follows one shard.
struct Following {
    subscriber: Subscriber,
    log: Arc<dyn Log>,
    shard: Shard,
    moved: Arc<tokio::sync::Notify>,
    activity: Arc<Activity>,
    board: Board,
}

impl Following {
    async fn run(mut self, stop: CancellationToken) -> Result<(), Failure> {
        let mut retry = Retry::default();
        let mut blocked: Option<String> = None;
        let mut said: Option<String> = None;
        let part = format!("shard {}", self.shard);
        while !stop.is_cancelled() {
            let stepped = self.subscriber.step().await;
            self.board.count(self.subscriber.take_applied(), 0);
            match stepped {
                Ok(Progress::More) => {
                    retry.reset();
                    self.activity.note();
                    self.board.well(&part);
                    self.moved.notify_one();
                }
                Ok(Progress::Idle(position)) => {
                    retry.reset();
                    self.board.well(&part);
                    blocked = None;
                    if said.take().is_some() {
                        info!("resumed");
                    }
                    self.moved.notify_one();
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        () = self.log.changed(self.shard, position) => {}
                    }
                }
                Ok(Progress::Blocked(reason)) => {
                    // What ends by itself at once, as a route that comes by another shard does, is not worth a word.
                    let again = blocked.as_ref() == Some(&reason);
                    if again && said.as_ref() != Some(&reason) {
                        warn!(reason, "paused until this changes; capture goes on");
                        said = Some(reason.clone());
                    }
                    if again {
                        self.board.paused(&part, &reason);
                    }
                    blocked = Some(reason);
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(if again { BLOCKED_POLL } else { BLOCKED_FIRST_POLL }) => {}
                    }
                }
                Err(error) if is_broken(&error) => {
                    return Err(match &error {
                        subscribe::Error::Db(_) => unable("cannot follow the log", &error),
                        subscribe::Error::Log(_) | subscribe::Error::Broken { .. } => {
                            lost_log("cannot follow the log", &error)
                        }
                    });
                }
                Err(error) => {
                    let error = chain(&error);
                    warn!(error, retry_in_ms = retry.pause().as_millis(), "cannot apply, will retry");
                    self.board.failing(&part, &error);
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        () = retry.wait() => {}
                    }
                }
            }
        }
        Ok(())
    }
}

fn is_broken(error: &subscribe::Error) -> bool {
    match error {
        subscribe::Error::Db(error) => is_lasting_db(error),
        subscribe::Error::Log(error) => matches!(error, log::Error::Broken(_)),
        subscribe::Error::Broken { .. } => true,
    }
}

/// The database's part of it can't go on.
fn unable(text: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    if let Some(db::Error::Replaced(_)) = [
        error.downcast_ref::<publish::Error>().and_then(of_publisher),
        error.downcast_ref::<subscribe::Error>().and_then(of_subscriber),
    ]
    .into_iter()
    .flatten()
    .next()
    {
        return Failure::caused(Kind::Data, text, error)
            .hint("nothing of the other file was sent; `antiphon run` looks at it and says how it can go on");
    }
    Failure::caused(Kind::General, text, error)
        .hint("start again; if it ends the same way, `antiphon cleanup` makes the file a database like any other, which can join anew")
}

fn of_publisher(error: &publish::Error) -> Option<&db::Error> {
    if let publish::Error::Db(error) = error { Some(error) } else { None }
}

fn of_subscriber(error: &subscribe::Error) -> Option<&db::Error> {
    if let subscribe::Error::Db(error) = error { Some(error) } else { None }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Pauses that grow while nothing works.
#[derive(Default)]
struct Retry {
    tries: u32,
}

impl Retry {
    fn reset(&mut self) {
        self.tries = 0;
    }

    fn pause(&self) -> Duration {
        RETRY_MIN.saturating_mul(1 << self.tries.min(16)).min(RETRY_MAX)
    }

    async fn wait(&mut self) {
        let pause = self.pause();
        self.tries = self.tries.saturating_add(1);
        tokio::time::sleep(pause).await;
    }
}
