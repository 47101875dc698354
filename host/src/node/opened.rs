//! A database opened for good: locked, found sound, judged whose it is, and then a member of a cluster.

use super::carrier::Carrier;
use super::failing::lost_log;
use super::scratch::{Scratch, sweep};
use super::{Node, Parts, state_directory};
use crate::alarm::{Ceiling, OnFull};
use crate::anew::{self, Leave};
use crate::db::{self, Database, Db, Standing};
use crate::failure::{Failure, Kind};
use crate::housekeeping::Keep;
use crate::join::{self, Entered};
use crate::life::{Life, Provenance, unnoted};
use crate::lock::Lock;
use crate::log::{self, Claim, Log};
use crate::place::Place;
use crate::report::{Board, Report};
use crate::rescuer::Rescuer;
use crate::seq_map::SeqMap;
use crate::snapshot::Rescue;
use crate::watch::Watch;
use antiphon_core::entry::Genesis;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two tries to use a log that is away.
const PAUSE: Duration = Duration::from_secs(1);
/// How long somebody who waits for an end of it is made to wait for servers.
const PATIENCE: Duration = Duration::from_secs(30);

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
    outbox: Ceiling,
    reload: Option<crate::reload::Reload>,
    shelf: Option<crate::snapshot::Shelf>,
    plugins: Option<antiphon_plugin::PluginHost>,
    lookout: Option<crate::vitals::Lookout>,
    leave: Leave,
    provenance: Provenance,
    keep: Keep,
    seq_map: SeqMap,
    carrier: Carrier,
    state: PathBuf,
    place: Place,
    /// The last to go: see [`Lock`].
    lock: Lock,
}

/// Opens a database: one host at a time, and only if SQLite finds it sound.
///
/// # Errors
/// When it does not exist, is in use, is damaged, or the log can't be opened.
pub async fn open(parts: Parts) -> Result<Opened, Failure> {
    let shown = parts.database.display().to_string();
    let place = Place::find(&parts.database)?;
    let path = place.path().to_owned();
    let state = state_directory(&path);
    let lock = Lock::take(&place, &state, &shown)?;
    place.has_one_name()?;
    sweep(&state);
    crate::errand::forget_answers(&state);
    let logged = Report::begin(&state);
    db::check(&path).map_err(|error| damaged(&shown, &error))?;
    fault!("checked");
    let options = parts.options(&path, &state);
    let mut db = Database::open(options, parts.hasher, parts.policies).map_err(|error| unopened(&shown, &error))?;
    take_writes(&mut db, parts.outbox).map_err(|error| unopened(&shown, &error))?;
    if let Carrier::Embedded(directory) = &parts.log
        && db.standing().map_err(|error| unopened(&shown, &error))? != Standing::Apart
        && !log::Local::file(directory).exists()
        && parts.leave != Leave::Told
    {
        return Err(elsewhere(no_log(directory), logged.as_deref(), &shown));
    }
    let mut carrier = parts.log;
    let log = carrier.open(&place).await?;
    fault!("opened");
    let life = Life::of(&place, db.origin().incarnation, db.reached());
    if life.is_next(&state) {
        Life::begin(&state).map_err(|error| unnoted(&state, &error))?;
    }
    let mut provenance = Life::judge(Life::read(&state).as_ref(), &life);
    if provenance != Provenance::Same && db.standing().map_err(|error| unopened(&shown, &error))? == Standing::Apart {
        // It has said nothing in the name it has, and a copy of it may have that name as well.
        db.begin_life().map_err(|error| unopened(&shown, &error))?;
        note_life(&place, &state, &db)?;
        // As after another start: once it is a member, and the log then stops answering, it must not be taken for a copy.
        provenance = Provenance::Same;
    }
    fault!("judged");
    Ok(Opened {
        db,
        log,
        agreed: parts.agreed,
        poll_interval: parts.poll_interval,
        sleep_timeout: parts.sleep_timeout,
        outbox: parts.outbox,
        reload: parts.reload,
        shelf: parts.shelf,
        plugins: parts.plugins,
        lookout: parts.lookout,
        leave: parts.leave,
        provenance,
        keep: parts.keep,
        seq_map: parts.seq_map,
        carrier,
        state,
        place,
        lock,
    })
}

/// What an earlier start had refused is taken again, unless it still is to be refused, and captured: before anything is
/// waited for.
fn take_writes(db: &mut Database, outbox: Ceiling) -> Result<(), db::Error> {
    if outbox.on_full != OnFull::Stop && db.is_unwatched() {
        db.watch()?;
        db.install(true)?;
    }
    if db.refuses_writes()? && !outbox.is_reached(db.all_waiting_bytes()?, true) {
        db.refuse_writes(false)?;
    }
    Ok(())
}

/// A member's log is not where it should be. Nothing is made in its place, which would only look like it.
fn no_log(directory: &Path) -> Failure {
    Failure::new(
        Kind::Data,
        format!(
            "this database belongs to a cluster, and there is no log in `{}`: it was deleted or is another one",
            directory.display()
        ),
    )
    .hint("point `--log`, or `path` under `[log]`, at the log it was run with before")
    .hint(anew::REMEDY)
}

/// Names the log that the last start used, if it is still there.
fn elsewhere(failure: Failure, logged: Option<&Path>, shown: &str) -> Failure {
    match logged.filter(|logged| log::Local::file(logged).exists()) {
        Some(logged) => {
            failure.hint_first(format!("it ran last with `antiphon run {shown} --log {}`", logged.display()))
        }
        None => failure,
    }
}

pub(super) fn closed_log(error: &log::Error) -> Failure {
    match error {
        log::Error::Unreachable(_) => Failure::caused(Kind::Busy, "cannot open the log", error).hint(
            "name a directory with `--log`, or `path` under `[log]`, that this user can make or write to, on a disk with room",
        ),
        log::Error::Broken(_) => lost_log("cannot open the log", error),
    }
}

/// Writes beside the database whose life it is.
fn note_life(place: &Place, state: &Path, db: &Database) -> Result<(), Failure> {
    Life::of(place, db.origin().incarnation, db.reached()).write(state).map_err(|error| unnoted(state, &error))
}

/// A file that is no sound database.
pub(crate) fn damaged(shown: &str, error: &db::Error) -> Failure {
    match error {
        db::Error::Damaged(_) => Failure::caused(Kind::Data, format!("nothing of `{shown}` is replicated"), error)
            .hint("bring it back from a snapshot: `antiphon snapshot restore --in-place --offline --discard-local`")
            .hint(
                "or restore the file from a backup, or save what can be read: `sqlite3 DAMAGED .recover | sqlite3 NEW`, or `.dump` where `sqlite3` lacks `.recover`",
            ),
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

impl Opened {
    /// Founds the log's cluster or joins it.
    ///
    /// # Errors
    /// When the log can't be read, or only the user can decide.
    pub async fn enter(mut self) -> Result<(Node, Entered), Failure> {
        let scratch = Scratch::new(&self.state)?;
        // Of two files that are in all the same life, the one that runs is the one to go on.
        let claim = self.claim().await?;
        let mut rescuer =
            Rescuer::new(Rescue::new(self.shelf.clone(), &self.state), &self.place, &self.state, self.leave);
        let entered = loop {
            let (log, agreed) = (&*self.log, &self.agreed);
            match join::enter(&mut self.db, log, agreed, &scratch.file(), self.provenance, &mut rescuer).await {
                Err(failure) if failure.kind() == Kind::Busy && self.waits() => self.pause(&failure).await,
                entered => break entered?,
            }
        };
        fault!("entered");
        let claim =
            if entered == Entered::Copied || entered == Entered::CaughtUp { self.claim().await? } else { claim };
        note_life(&self.place, &self.state, &self.db)?;
        fault!("noted");
        let (shards, origin) = (self.db.shards(), self.db.origin());
        let watch = Watch::new(self.db.path());
        let reached = self.db.watch_reached();
        self.seq_map.note(self.db.positions().into_iter().filter(|(_, position)| *position > 0));
        let publishes = self.db.publishes();
        let db = Db::spawn(self.db)
            .map_err(|error| Failure::new(Kind::General, format!("cannot start the database thread: {error}")))?;
        let node = Node {
            db,
            log: self.log,
            shards,
            watch,
            poll_interval: self.poll_interval,
            sleep_timeout: self.sleep_timeout,
            outbox: self.outbox,
            reload: self.reload,
            shelf: self.shelf,
            plugins: self.plugins,
            lookout: self.lookout,
            publishes,
            number: origin.node,
            incarnation: origin.incarnation,
            reached,
            keep: self.keep,
            seq_map: self.seq_map,
            board: Board::new(self.carrier.to_string()),
            state: self.state,
            place: self.place,
            _claim: claim,
            _lock: self.lock,
        };
        Ok((node, entered))
    }

    /// Servers that are away come back; a directory that can't be used is for the user to see.
    fn waits(&self) -> bool {
        matches!(self.carrier, Carrier::Nats(_))
    }

    async fn pause(&self, why: &(dyn std::fmt::Display + Sync)) {
        tracing::warn!(error = %why, "cannot use the log, will retry; what is written meanwhile is kept");
        tokio::time::sleep(PAUSE).await;
    }

    /// What carries the log, as people read it.
    #[must_use]
    pub fn carrier(&self) -> &Carrier {
        &self.carrier
    }

    async fn claim(&self) -> Result<Claim, Failure> {
        let origin = self.db.origin();
        if self.provenance == Provenance::Copy && self.db.standing().is_ok_and(|standing| standing != Standing::Apart) {
            // It will have another name when it speaks.
            return Ok(Claim::default());
        }
        let claimed = loop {
            match self.log.claim(origin).await {
                Err(error @ log::Error::Unreachable(_)) if self.waits() => self.pause(&error).await,
                claimed => break claimed.map_err(|error| closed_log(&error))?,
            }
        };
        claimed.ok_or_else(|| {
            Failure::new(Kind::Busy, format!("node {} runs already, on another copy of this file", origin.node))
                .hint("to make this a node of its own, remove the directory beside it whose name ends in `.antiphon`, and start again")
        })
    }

    /// Joins as the user decided; `before` is called when nothing stands in the way, and nothing has been changed.
    ///
    /// # Errors
    /// When the log can't be read, or `before` fails.
    pub async fn force(
        &mut self,
        rows: join::Rows,
        before: &mut dyn FnMut(&Database) -> Result<(), Failure>,
    ) -> Result<Vec<db::Difference>, Failure> {
        let scratch = Scratch::new(&self.state)?;
        let (log, agreed) = (&*self.log, &self.agreed);
        let mut rescue = Rescue::new(self.shelf.clone(), &self.state);
        let differences =
            join::force(&mut self.db, log, agreed, &scratch.file(), rows, self.provenance, &mut rescue, before).await?;
        note_life(&self.place, &self.state, &self.db)?;
        Ok(differences)
    }

    /// Begins the log again with what this database has, if it holds nothing, or once all that it holds was let go of.
    /// Says whether it did.
    ///
    /// # Errors
    /// When the log can't be asked, or it is not for this database to begin it.
    pub async fn reseed(&mut self, clear: bool) -> Result<bool, Failure> {
        if self.provenance != Provenance::Same || self.db.standing().map_err(join::database)? == Standing::Apart {
            return Err(Failure::new(Kind::Refused, "this database is not what a node ran on last").hint(
                "choose the database of a node that took part until the log was lost, where that node ran on it",
            ));
        }
        if let Some(why) = self.db.cannot_begin_again().map_err(join::database)? {
            return Err(Failure::new(Kind::Refused, format!("the log can't begin again with this database: {why}"))
                .hint("choose another node's")
                .hint("if a node that is waited for is gone for good, say so with `antiphon give-up`"));
        }
        let _claim = self.claim().await?;
        if clear {
            anew::clear(&self.db, &*self.log).await?;
        }
        let asked = Instant::now();
        let begun = loop {
            match anew::begin(&mut self.db, &*self.log, Leave::Told).await {
                // Servers that have just come up leave a question unanswered. What was begun is known again.
                Err(failure) if failure.kind() == Kind::Busy && self.waits() && asked.elapsed() < PATIENCE => {
                    self.pause(&failure).await;
                }
                begun => break begun?,
            }
        };
        note_life(&self.place, &self.state, &self.db)?;
        Ok(begun)
    }

    /// Takes the rows of a snapshot that was put together, and its place in the log, in one transaction: what is here and
    /// not there is gone.
    ///
    /// # Errors
    /// When the snapshot does not fit, or SQLite refuses; nothing has changed then.
    pub(crate) fn go_back(
        &mut self,
        image: &Path,
        cluster: antiphon_core::entry::ClusterId,
        shards: u32,
    ) -> Result<Vec<db::Difference>, Failure> {
        let cannot = |error: db::Error| Failure::caused(Kind::General, "the database does not go back", &error);
        let mut past = self.db.reopen(image).map_err(cannot)?;
        past.enter_as_it_is(cluster, shards).map_err(cannot)?;
        if past.schemas() != self.db.schemas() {
            return Err(Failure::new(Kind::Refused, "its tables have other columns than they had")
                .hint("bring the rows back as a file of their own: `--output FILE`")
                .hint("`--as-changes` brings back what the tables of now have a place for"));
        }
        // The triggers go in first: a row written from now on is marked.
        self.db.watch().map_err(cannot)?;
        self.db.install(false).map_err(cannot)?;
        fault!("in-place-ready");
        let differences = self.db.go_back_to(&past).map_err(cannot)?;
        fault!("in-place-done");
        note_life(&self.place, &self.state, &self.db)?;
        fault!("in-place-noted");
        Ok(differences)
    }

    /// Marks what differs from the log and is not on its way; with `dry_run`, only counts it.
    ///
    /// # Errors
    /// When the log can't be read, or no longer holds everything.
    pub async fn repair(&mut self, tables: &[String], dry_run: bool) -> Result<Vec<db::Reconciled>, Failure> {
        let scratch = Scratch::new(&self.state)?;
        let mut rescue = Rescue::new(self.shelf.clone(), &self.state);
        let (log, scratch) = (&*self.log, scratch.file());
        crate::repair::repair(&mut self.db, log, &scratch, tables, dry_run, self.provenance, &mut rescue).await
    }
}
