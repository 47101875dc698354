//! Apply: entries of the log become rows, position and watermarks included, in one transaction.

use super::obstacle::{Obstacle, ObstacleKind};
use super::own::{meta, set_meta};
use super::recent::{Keys, Recalled};
use super::trial::Next;
use super::unit::Unit;
use super::{Database, Doing as _, Error, outbox};
use crate::log::{Placed, Sender, Shard};
use antiphon_core::codec;
use antiphon_core::entry::{Body, Changes, Chunk, Entry, Origin};
use antiphon_core::key::COLLATIONS;
use antiphon_core::value::Value;

/// Under which name the host's state counts entries that were forged.
const FORGED: &str = "forged";
/// When entries of one transaction are more than this once they are unpacked, the next one waits for the next transaction.
const APPLY_BYTES_MAX: usize = 16 << 20;

/// What one call of [`Database::apply`] came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Entries dealt with.
    pub entries: usize,
    /// Changes applied.
    pub changes: usize,
    /// Those of them that are this node's own, which came back.
    pub own_changes: usize,
    /// When the log took the last entry of this node's own among them, and the last of another's; 0: there is none.
    pub own_time: u64,
    /// See `own_time`.
    pub others_time: u64,
    /// They are a slice of a large unit: whoever else wants to write needs time before the next one.
    pub sliced: bool,
    /// Why it ended before the last entry, if it did.
    pub stop: Option<Stop>,
}

/// Why entries were left unapplied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// There is room for more in the next transaction.
    Full,
    /// Local changes had to be sealed first, and more of them are left.
    Unsealed,
    /// The next entry can't be applied here before something changes.
    Blocked(Obstacle),
    /// Entries are missing before this position.
    Gap {
        /// The position that should have come.
        expected: u64,
        /// The one that did.
        found: u64,
    },
}

/// Why one entry is not applied now.
enum Refusal {
    /// See [`Stop::Blocked`].
    Blocked(Obstacle),
    /// It ends a unit that is too large for one transaction.
    Large,
}

impl Database {
    /// Applies entries of one shard in one transaction, as many as fit.
    ///
    /// Nothing is applied while a committed local write is in no batch yet: marks are sealed first.
    ///
    /// # Errors
    /// When SQLite or a component fails; then nothing of it has happened.
    pub fn apply(&mut self, shard: Shard, entries: &[Placed]) -> Result<Applied, Error> {
        // A table's rows are committed writes in no batch, until its triggers are in place and those rows are marked.
        if self.captures {
            self.install(true)?;
            if !crate::flaw!(ScanSkipped) && self.scan()? {
                return Ok(Applied { stop: Some(Stop::Unsealed), ..Applied::default() });
            }
        }
        self.refresh_schema()?;
        if self.policies.find_missing() {
            self.configure_policies()?;
        }
        let entries = match self.on_trial(shard, entries)? {
            Next::Apply(entries) => entries,
            Next::Done(applied) => return Ok(applied),
        };
        match self.apply_or_slice(shard, entries) {
            Err(Error::Undecided) => self.try_clashes(shard),
            Err(Error::Sqlite { source, .. }) if is_constraint(&source) => self.misfit(shard, entries, &source),
            applied => applied,
        }
    }

    fn apply_or_slice(&mut self, shard: Shard, entries: &[Placed]) -> Result<Applied, Error> {
        if self.ledger.cursor(shard).is_none() {
            let (applied, is_large) = self.try_apply(shard, entries)?;
            if !is_large {
                return Ok(applied);
            }
        }
        let next = self.position(shard).seq + 1;
        match entries.iter().find(|placed| placed.seq == next) {
            Some(last) => self.apply_slice(shard, last),
            None => Ok(Applied::default()),
        }
    }

    /// Whether local changes have to be sealed further before anything is applied: in the transaction at hand.
    pub(super) fn is_unsealed(&mut self) -> Result<bool, Error> {
        // The schema may have changed before the lock was ours: captured or not, sealed or not, must be asked again.
        Ok(self.refresh_schema()? || !crate::flaw!(SealSkipped) && self.is_dirty()? && self.seal_piece()?)
    }

    /// What to do about changes that are still unsealed: to come again, unless all that is left waits for its table to be
    /// compared with the log.
    pub(super) fn unsealed(&self) -> Result<Stop, Error> {
        let mut stop = Stop::Unsealed;
        for tracked in self.marked_tables()?.into_iter().filter_map(|index| self.tables.get(index)) {
            match self.attachments.obstacle(&tracked.table.name).filter(|_| self.is_held(tracked)) {
                Some(obstacle) => stop = Stop::Blocked(obstacle.into()),
                None => return Ok(Stop::Unsealed),
            }
        }
        Ok(stop)
    }

    /// Applies what fits; says whether the next entry ends a unit that is too large, and nothing comes before it.
    fn try_apply(&mut self, shard: Shard, entries: &[Placed]) -> Result<(Applied, bool), Error> {
        self.transaction(|db| {
            if db.is_unsealed()? {
                return Ok((Applied { stop: Some(db.unsealed()?), ..Applied::default() }, false));
            }
            fault!("apply");
            if crate::flaw!(PositionFirst) {
                db.store_position_first(shard, entries)?;
            }
            let next = db.up_to_the_loss(shard, entries)?;
            let (mut applied, is_large) = db.apply_entries(shard, next)?;
            if next.len() < entries.len() && applied.stop.is_none() {
                applied.stop = Some(Stop::Full);
            }
            fault!("applied");
            Ok((applied, is_large))
        })
    }

    /// A row breaks a rule that only this database has. What comes before it is applied, entry by entry; at the entry
    /// that holds it the shard stops, for leaving it out would lose a row.
    fn misfit(&mut self, shard: Shard, entries: &[Placed], refusal: &rusqlite::Error) -> Result<Applied, Error> {
        let position = self.position(shard).seq;
        let mut left = entries.iter().filter(|placed| placed.seq > position);
        let (Some(first), Some(_)) = (left.next(), left.next()) else {
            let reason = format!(
                "entry {} of shard {shard} has a row that this database does not take: {refusal}; make the table as it is on \
                 the other nodes, or change the row that stands in its way, or drop an index that forbids it until this \
                 shard has caught up",
                position + 1
            );
            return Ok(Applied { stop: Some(Stop::Blocked(reason.into())), ..Applied::default() });
        };
        self.apply(shard, std::slice::from_ref(first))
    }

    /// Commits the position and then begins the transaction of the rows: a planted bug, and nothing else calls it.
    fn store_position_first(&mut self, shard: Shard, entries: &[Placed]) -> Result<(), Error> {
        let before = self.ledger.clone();
        let mut moved = Vec::new();
        for placed in entries.iter().filter(|placed| placed.seq > before.position(shard).seq) {
            let Ok(entry) = codec::decode(&placed.frame) else { break };
            let number = self.ledger.received(shard, entry.origin).max(entry.number);
            self.ledger.receive(shard, entry.origin, number);
            self.ledger.advance(shard, placed.placement());
            moved.push(entry.origin);
        }
        self.ledger.write(&self.conn, shard, &moved)?;
        self.ledger = before;
        self.conn.execute_batch("COMMIT; BEGIN IMMEDIATE").doing("plant a bug")
    }

    fn apply_entries(&mut self, shard: Shard, entries: &[Placed]) -> Result<(Applied, bool), Error> {
        let mut applied = Applied::default();
        let mut is_large = false;
        let mut moved: Vec<Origin> = Vec::new();
        let mut bytes = 0;
        for placed in entries {
            let expected = self.ledger.position(shard).seq + 1;
            if placed.seq < expected {
                continue;
            }
            if placed.first() != expected {
                applied.stop = Some(Stop::Gap { expected, found: placed.first() });
                break;
            }
            // What is left out, and counts as no change, has to be read all the same while the lock is held.
            bytes += codec::body_bytes(&placed.frame);
            if applied.changes >= self.options.changes_max || (bytes > APPLY_BYTES_MAX && applied.entries > 0) {
                applied.stop = Some(Stop::Full);
                break;
            }
            match self.apply_entry(shard, placed)? {
                Ok((origin, changes)) => {
                    moved.extend(origin);
                    applied.entries += 1;
                    applied.changes += changes;
                    if origin == Some(self.origin) {
                        applied.own_changes += changes;
                        applied.own_time = placed.time;
                    } else if changes > 0 {
                        applied.others_time = placed.time;
                    }
                }
                Err(Refusal::Blocked(reason)) => {
                    applied.stop = Some(Stop::Blocked(reason));
                    break;
                }
                Err(Refusal::Large) => {
                    is_large = applied.entries == 0;
                    applied.stop = Some(Stop::Full);
                    break;
                }
            }
        }
        if applied.entries > 0 {
            moved.sort_unstable();
            moved.dedup();
            self.retry_hidden(shard)?;
            fault!("rows");
            self.ledger.write(&self.conn, shard, &moved)?;
            fault!("placed");
            if moved.contains(&self.origin) {
                outbox::confirm(&self.conn, shard, self.ledger.received(shard, self.origin))?;
                fault!("confirmed");
            }
        }
        Ok((applied, is_large))
    }

    /// Applies one entry; the inner error says why it can't be applied here and now, and then nothing of it was.
    fn apply_entry(
        &mut self,
        shard: Shard,
        placed: &Placed,
    ) -> Result<Result<(Option<Origin>, usize), Refusal>, Error> {
        let at = placed.placement();
        let blocked = |why: Obstacle| Ok(Err(Refusal::Blocked(why.at(shard, placed.seq))));
        let entry = match codec::decode(&placed.frame) {
            Ok(entry) => entry,
            Err(error) => return blocked(error.to_string().into()),
        };
        if !placed.may_say(&entry) {
            // All nodes see the same sender, so all of them leave it out: whoever wrote it spoke in another's name.
            self.note_forged(shard, placed, entry.origin)?;
            self.ledger.advance(shard, at);
            return Ok(Ok((None, 0)));
        }
        if Some(entry.cluster) != self.cluster() {
            return blocked(Obstacle::new(ObstacleKind::Cluster, "it belongs to another cluster"));
        }
        fault!("decoded");
        let Entry { origin, number, clock, body, .. } = entry;
        let received = self.ledger.received(shard, origin);
        let is_numbered = !body.is_unnumbered();
        if origin == self.origin && !outbox::is_mine(&self.conn, shard, number, at.checksum)? {
            let why = format!(
                "it has this node's name and number {number}, and other content than this file's outbox; \
                 the file is an old copy, or another copy of it is running"
            );
            return blocked(why.into());
        }
        if is_numbered && number > received + 1 {
            let why = format!(
                "node {} sent number {number} after {received}; what lies between is missing in the log",
                origin.node
            );
            return blocked(why.into());
        }
        let repeated = number <= received && !crate::flaw!(WatermarkSkipped);
        let mut changes = 0;
        if !is_numbered || !repeated {
            let unit = Unit { shard, seq: placed.seq, origin, number, clock, sliced: false };
            match body {
                Body::Genesis(_) | Body::Founded | Body::Anew(_) => {}
                Body::Decided(decision) => {
                    if let Err(reason) = self.take_decision(shard, placed.seq, &decision)? {
                        return blocked(reason);
                    }
                }
                Body::InForce(in_force) => {
                    if let Err(reason) = self.take_in_force(shard, placed.seq, &in_force)? {
                        return blocked(reason);
                    }
                }
                Body::Floor(floor) => self.ledger.raise_floor(shard, floor),
                Body::Route(route) => {
                    if self.ledger.set_route(&self.conn, &route.table, route.whole)? {
                        self.read_schema()?;
                    }
                }
                Body::Changes(_) if !self.options.replicate && origin != self.origin => {
                    self.ledger.pass_over(&self.conn, shard, placed.seq)?;
                }
                Body::Changes(last) => match self.apply_changes(&unit, placed, last)? {
                    Ok(count) => changes = count,
                    Err(Refusal::Blocked(reason)) => return blocked(reason),
                    Err(Refusal::Large) => return Ok(Err(Refusal::Large)),
                },
            }
            if is_numbered {
                self.ledger.receive(shard, origin, number);
            }
        }
        self.ledger.clock = self.ledger.clock.max(clock);
        self.ledger.advance(shard, at);
        Ok(Ok((is_numbered.then_some(origin), changes)))
    }

    /// Somebody spoke in another's name: an alarm, which lasts.
    fn note_forged(&self, shard: Shard, placed: &Placed, claimed: Origin) -> Result<(), Error> {
        let sender = match placed.from {
            Sender::Origin(origin) => origin.node.to_string(),
            Sender::Untold | Sender::Anyone => "nobody".to_owned(),
        };
        tracing::error!(
            shard,
            entry = placed.seq,
            claimed = claimed.node,
            sender,
            "a forged entry was left out: it says that another node wrote it than the one that sent it"
        );
        let known = meta(&self.conn, FORGED)?.unwrap_or(0);
        set_meta(&self.conn, FORGED, known + 1)
    }

    /// Remembers what entries before the position touched, as if they had just been applied.
    pub fn remember(&mut self, shard: Shard, entries: &[Placed]) {
        let position = self.position(shard).seq;
        if let Some(first) = entries.first() {
            self.recent.recall_from(shard, first.first());
        }
        for placed in entries.iter().filter(|placed| placed.seq <= position) {
            let Some(entry) = codec::decode(&placed.frame).ok().filter(|entry| placed.may_say(entry)) else { continue };
            let Entry { origin, number, body: Body::Changes(changes), .. } = entry else { continue };
            let touched = changes.chunks.iter().filter_map(|chunk| {
                let tracked = self.tracked(&chunk.table).and_then(|index| self.tables.get(index))?;
                Some(Keys::of(tracked, chunk))
            });
            let touched = touched.collect();
            self.recent.recall(shard, &Recalled { seq: placed.seq, origin, number, more: changes.more }, touched);
        }
    }

    fn apply_changes(
        &mut self,
        unit: &Unit,
        placed: &Placed,
        mut last: Changes,
    ) -> Result<Result<usize, Refusal>, Error> {
        let Unit { shard, origin, number, .. } = *unit;
        self.adapt(&mut last);
        if let Err(reason) = self.readable(shard, &last) {
            return Ok(Err(Refusal::Blocked(reason)));
        }
        let changes: usize = last.chunks.iter().map(Chunk::len).sum();
        if last.more && !crate::flaw!(UnitAtOnce) {
            self.ledger.stage(&self.conn, shard, origin, number, (changes, &placed.frame))?;
            fault!("staged");
            return Ok(Ok(0));
        }
        if self.ledger.staged_changes(shard, origin) + changes > self.options.atomic_max {
            return Ok(Err(Refusal::Large));
        }
        let mut pieces = Vec::new();
        for frame in self.ledger.staged(&self.conn, shard, origin)? {
            let staged = codec::decode(&frame)
                .map_err(|error| Error::Inconsistent(format!("a staged piece cannot be read: {error}")))?;
            if let Body::Changes(mut changes) = staged.body {
                self.adapt(&mut changes);
                // Its table may have gone since it was staged.
                if let Err(reason) = self.readable(shard, &changes) {
                    return Ok(Err(Refusal::Blocked(reason)));
                }
                pieces.push(changes);
            }
        }
        for piece in pieces.iter().chain([&last]) {
            self.note_skipped(piece)?;
        }
        pieces.push(last);
        self.ledger.unstage(&self.conn, shard, origin)?;
        fault!("unstaged");
        let count = self.apply_unit(unit, pieces)?;
        fault!("unit");
        Ok(Ok(count))
    }

    /// Whether everything these changes name exists here; else what is missing, and what to do.
    pub(super) fn readable(&self, shard: Shard, changes: &Changes) -> Result<(), Obstacle> {
        for chunk in &changes.chunks {
            if !self.options.filter.wants(&chunk.table) {
                continue;
            }
            if self.attachments.is_gone(&chunk.table) {
                if !self.captures && self.tracked_exactly(&chunk.table).is_some() {
                    return Err(format!(
                        "table `{}` is here again, and what the log said of it meanwhile was passed over; start once with \
                         `publish = true`, which compares it with the log",
                        chunk.table
                    )
                    .into());
                }
                continue;
            }
            let Some(tracked) = self.tracked(&chunk.table).and_then(|index| self.tables.get(index)) else {
                let refused = self.refused.iter().find(|refused| refused.table.eq_ignore_ascii_case(&chunk.table));
                let words = match refused {
                    Some(refused) => format!("table `{}` can't be replicated here: {}", chunk.table, refused.reason),
                    None => format!(
                        "it changes table `{}`, which this database does not have; create it here as it is on the other \
                         nodes, or exclude it with `exclude` under `[capture]`",
                        chunk.table
                    ),
                };
                return Err(Obstacle::new(ObstacleKind::Table(chunk.table.clone()), words));
            };
            if self.unwatched && !tracked.captured {
                let words = format!(
                    "what the application writes to table `{}` is not captured, for what waits for the log has used all its \
                     room; this goes on by itself when the log has taken some of it",
                    chunk.table
                );
                return Err(words.into());
            }
            if let Some(obstacle) = self.attachments.obstacle(&tracked.table.name) {
                return Err(obstacle.into());
            }
            if let Some(missing) = self.policies.is_missing(tracked.rule(shard).policy) {
                let words = format!("it changes table `{}`, whose policy can't decide here: {missing}", chunk.table);
                return Err(Obstacle::new(ObstacleKind::Component, words));
            }
            if self.captures && !tracked.captured {
                let words = format!(
                    "changes to table `{}` are not captured here yet, for it is still being agreed over which shards its \
                     rows spread; this goes on by itself",
                    chunk.table
                );
                return Err(Obstacle::new(ObstacleKind::Route, words));
            }
            if let Some(column) = chunk.columns.iter().find(|column| tracked.table.column(column).is_none()) {
                let words = format!(
                    "it sets column `{column}` of table `{}`, which this database does not have; add it here with \
                     `ALTER TABLE … ADD COLUMN` as on the other nodes",
                    chunk.table
                );
                let kind = ObstacleKind::Column { table: chunk.table.clone(), column: column.clone() };
                return Err(Obstacle::new(kind, words));
            }
            if self.wide && has_broken_text(chunk) {
                return Err(format!(
                    "it holds text for table `{}` that is not Unicode, which this database would change, for it keeps text in \
                     UTF-16; make the file anew with text in UTF-8, as by `.dump` into one with `PRAGMA encoding = 'UTF-8'`",
                    chunk.table
                )
                .into());
            }
            let mut collations = chunk.uniques.iter().flatten().map(|(_, collation)| collation);
            if let Some(unknown) =
                collations.find(|name| !COLLATIONS.iter().any(|known| known.eq_ignore_ascii_case(name)))
            {
                return Err(format!(
                    "it holds table `{}` to a UNIQUE index of the unknown collation `{unknown}`",
                    chunk.table
                )
                .into());
            }
            let key: Vec<Option<usize>> = chunk
                .key
                .iter()
                .map(|&position| chunk.columns.get(position).and_then(|column| tracked.table.column(column)))
                .collect();
            if key.iter().flatten().ne(&tracked.key) {
                return Err(format!(
                    "table `{}` has another primary key here than on the node that wrote it; make them the same",
                    chunk.table
                )
                .into());
            }
        }
        Ok(())
    }
}

/// Whether SQLite refused a row for what it holds.
fn is_constraint(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
}

/// Whether any text of these changes is not UTF-8. SQLite puts other letters in its place where it has to turn it into
/// UTF-16, and two keys may become one.
fn has_broken_text(chunk: &Chunk) -> bool {
    let broken = |value: &Value| matches!(value, Value::Text(text) if std::str::from_utf8(text).is_err());
    let bases = chunk.made.iter().filter_map(|made| made.base.as_ref()).flatten();
    chunk.written.iter().chain(chunk.gone.iter()).flatten().chain(bases).any(broken)
}
