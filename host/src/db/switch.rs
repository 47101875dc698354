//! Policies change while the cluster runs: a decision is read, its policies come into force, shard by shard.
//!
//! Between the two every node notes what rows are made upon, while the order of the log still decides. So when a policy
//! comes into force that has to know L's rows, they are known here behind every row that is on its way. Where one went
//! before the decision was read, they are built aside.

use super::catalog::Tracked;
use super::inspect::Look;
use super::obstacle::{Obstacle, ObstacleKind};
use super::overlay::{Image, OVERSIZED, store_shadow};
use super::own::{meta, ours};
use super::reconcile::{Reattached, picked, places};
use super::rows::whole;
use super::ruling::{Rulings, deciding, is_plain};
use super::shadows::Shadow;
use super::unique::key_values;
use super::unit::whole_row;
use super::{Database, Doing as _, Error};
use crate::log::Shard;
use antiphon_core::codec::encode_row;
use antiphon_core::entry::{Body, Decision, Entry, Halted, InForce, Origin, Policy as Agreed};
use antiphon_core::hash::{PackedKeys, shard_of};
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};

/// What is still to be done here before policies can come into force.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Tables whose rows behind pending ones are to be built, and why they could not be.
    uncovered: BTreeMap<String, Option<String>>,
    /// Policies that are in force somewhere, and whose decision the first shard does not hold.
    undecided: Option<Decision>,
}

/// What a node would say of policies, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The entry, as bytes.
    pub frame: Vec<u8>,
    /// Whoever is there should have read the first shard up to here before.
    pub after: u64,
}

/// Which policies a database knows of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The last that were decided on.
    pub decided: Decision,
    /// The version that holds in each shard.
    pub in_force: BTreeMap<Shard, u64>,
}

impl Look {
    /// Which policies it knows of; `None` if it belongs to no cluster.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn policies(&self) -> Result<Option<Known>, Error> {
        let shards = self.node()?.and_then(|node| node.cluster).map(|(_, shards)| shards);
        let (Some(shards), true) = (shards, self.has("decided")? && self.has("in_force")?) else { return Ok(None) };
        let rulings = Rulings::read(self.conn())?;
        let known = rulings.newest().map(|(version, policies)| Known {
            decided: Decision { version, policies: policies.to_vec() },
            in_force: (1..=shards).map(|shard| (shard, rulings.version(shard))).collect(),
        });
        Ok(known)
    }
}

impl Database {
    /// The last version of the policies that was decided on, and the policies; nothing before there is a cluster.
    #[must_use]
    pub fn decided(&self) -> Option<Decision> {
        let (version, policies) = self.rulings.newest()?;
        Some(Decision { version, policies: policies.to_vec() })
    }

    /// The version of the policies that holds in a shard.
    #[must_use]
    pub fn version_in_force(&self, shard: Shard) -> u64 {
        self.rulings.version(shard)
    }

    /// The policies that this node is configured for.
    #[must_use]
    pub fn own_policies(&self) -> &[Agreed] {
        self.policies.own()
    }

    /// Why this node can't decide by one of these policies, if so.
    #[must_use]
    pub fn lacks(&mut self, policies: &[Agreed]) -> Option<String> {
        self.policies.missing(policies)
    }

    /// The name in which this node appends entries without a number: the log fences its batches by its own.
    #[must_use]
    pub fn voice(&self) -> Origin {
        self.origin.voice()
    }

    /// An entry that has no number, as bytes.
    ///
    /// # Errors
    /// When it can't be encoded.
    pub fn unnumbered(&mut self, body: Body) -> Result<Vec<u8>, Error> {
        let cluster = self.cluster.map(|cluster| cluster.id).unwrap_or_default();
        let entry = Entry { cluster, origin: self.origin, number: 0, clock: 0, body };
        self.encoder.encode(&entry).map_err(Error::Encode)
    }

    /// What is to be said in a shard, which has been read to its end: that decided policies are in force, or what was
    /// decided, should the log have lost that.
    ///
    /// # Errors
    /// When the database can't be read, or the entry not be encoded.
    pub fn due(&mut self, shard: Shard) -> Result<Option<Notice>, Error> {
        self.refresh_schema()?;
        let Some(decision) = self.decided().filter(|_| self.options.publish) else { return Ok(None) };
        let undecided = self.waiting.undecided.take_if(|undecided| undecided.version <= decision.version || shard == 1);
        if let Some(undecided) = undecided.filter(|undecided| undecided.version == decision.version + 1) {
            let frame = self.unnumbered(Body::Decided(undecided))?;
            return Ok(Some(Notice { frame, after: 0 }));
        }
        if decision.version <= self.rulings.version(shard)
            || self.policies.missing(&decision.policies).is_some()
            || self.uncovered_by(shard, &decision.policies)?.is_some()
        {
            return Ok(None);
        }
        let after = self.rulings.decided_at(decision.version);
        let frame = self.unnumbered(Body::InForce(decision.into()))?;
        Ok(Some(Notice { frame, after }))
    }

    /// Policies are to follow those of now. The first of each version counts, wherever it comes from; the inner error
    /// says why this node has to wait.
    pub(super) fn take_decision(
        &mut self,
        shard: Shard,
        seq: u64,
        decision: &Decision,
    ) -> Result<Result<(), Obstacle>, Error> {
        let next = self.rulings.newest().map_or(0, |(version, _)| version) + 1;
        if shard != 1 || decision.version != next {
            return Ok(Ok(()));
        }
        // What such a row was made upon has to be known when it is sent.
        let held_back = |db: &Self, tracked: &Tracked| {
            db.overlay.peek(tracked.id).is_some_and(|overlay| {
                let held = overlay.pending.iter().filter(|(_, number)| **number == OVERSIZED);
                held.into_iter().any(|(key, _)| !overlay.shadows.contains(key))
            })
        };
        let asks = |table: &str| deciding(&decision.policies, table).is_some_and(|policy| !is_plain(policy));
        let uncovered = self.tables.iter().find(|tracked| {
            !tracked.table.resolved && asks(&tracked.table.name) && held_back(self, tracked) && self.has_rows_of_log()
        });
        if let Some(tracked) = uncovered {
            let table = tracked.table.name.clone();
            return Ok(Err(self.wait_for_cover(&table)));
        }
        self.rulings.decide(&self.conn, decision, seq)?;
        fault!("decided");
        self.retry_halted(shard);
        tracing::info!(
            version = decision.version,
            "other policies were decided on; they come into force shard by shard"
        );
        self.recapture()?;
        Ok(Ok(()))
    }

    /// Decided policies hold in a shard from here on; the inner error says why this node has to wait.
    pub(super) fn take_in_force(
        &mut self,
        shard: Shard,
        seq: u64,
        InForce { decision, halted }: &InForce,
    ) -> Result<Result<(), Obstacle>, Error> {
        let version = decision.version;
        if version <= self.rulings.version(shard) {
            return Ok(Ok(()));
        }
        match self.rulings.policies(version) {
            None => {
                self.waiting.undecided = Some(decision.clone());
                let words = format!(
                    "version {version} of the policies holds from here on, and shard 1 has not come to where it was decided \
                     on; this goes on by itself"
                );
                return Ok(Err(Obstacle::new(ObstacleKind::Undecided, words)));
            }
            Some(policies) if *policies != decision.policies => return Ok(Ok(())),
            Some(_) => {}
        }
        if let Some(missing) = self.policies.missing(&decision.policies) {
            let words = format!("version {version} of the policies holds from here on, and {missing}");
            return Ok(Err(Obstacle::new(ObstacleKind::Component, words)));
        }
        if let Some(table) = self.uncovered_by(shard, &decision.policies)?
            && !crate::flaw!(PolicyUncovered)
        {
            return Ok(Err(self.wait_for_cover(&table)));
        }
        if let Some(halted) = halted
            && self.decided_alone(shard, halted)?
        {
            let Halted { seq, table } = halted;
            let words = format!(
                "other nodes could not decide a clash of table `{table}` at entry {seq} by the policy of then, and went by \
                 version {version}; this node decided it, so its rows may be others: were the limits of its plugin higher \
                 here? `antiphon join --discard-local` takes the cluster's rows"
            );
            return Ok(Err(words.into()));
        }
        let had_stamps: BTreeSet<String> = self.stamped().map(str::to_owned).collect();
        self.rulings.put_in_force(&self.conn, shard, version, seq)?;
        fault!("in-force");
        self.recapture()?;
        let has_stamps: BTreeSet<String> = self.stamped().map(str::to_owned).collect();
        for table in had_stamps.difference(&has_stamps) {
            self.conn
                .execute(concat!("DELETE FROM ", ours!("stamp"), " WHERE tbl = ?1 COLLATE NOCASE"), [table])
                .doing("forget stamps")?;
        }
        self.fill_hidden()?;
        tracing::info!(shard, version, "other policies hold from here on");
        Ok(Ok(()))
    }

    /// Tables whose rows have stamps in some shard.
    fn stamped(&self) -> impl Iterator<Item = &str> {
        let stamped = self.tables.iter().filter(|tracked| tracked.rules.iter().any(|rule| rule.resolved));
        stamped.map(|tracked| tracked.table.name.as_str())
    }

    /// Whether the rows here are those of the log, so that it makes sense to say what stands behind a pending one.
    fn has_rows_of_log(&self) -> bool {
        self.captures && self.options.replicate && !self.has_unread()
    }

    /// Reads again which policies hold, and has triggers note what they need: in the transaction at hand, which has
    /// left no mark.
    fn recapture(&mut self) -> Result<(), Error> {
        let before = self.captured_tables();
        self.read_schema()?;
        self.renew_triggers(&before)
    }

    /// Tables whose triggers are those that they need.
    pub(super) fn captured_tables(&self) -> BTreeSet<String> {
        let captured = self.tables.iter().filter(|tracked| tracked.captured);
        captured.map(|tracked| tracked.table.name.clone()).collect()
    }

    /// Gives these tables the triggers that they need now: in the transaction at hand, which has left no mark.
    pub(super) fn renew_triggers(&mut self, before: &BTreeSet<String>) -> Result<(), Error> {
        if !self.captures {
            return Ok(());
        }
        let mut renewed = false;
        for index in 0..self.tables.len() {
            let is_other = |tracked: &Tracked| !tracked.captured && before.contains(&tracked.table.name);
            if self.tables.get(index).is_some_and(is_other) {
                renewed |= self.install_table(index, true, &BTreeSet::new())?;
            }
        }
        if renewed {
            fault!("recaptured");
            self.read_schema()?;
        }
        Ok(())
    }

    /// A table that gets a policy in this shard while rows are on their way behind which L's are not known.
    fn uncovered_by(&self, shard: Shard, policies: &[Agreed]) -> Result<Option<String>, Error> {
        if !self.has_rows_of_log() {
            return Ok(None);
        }
        for tracked in &self.tables {
            let asks = deciding(policies, &tracked.table.name).is_some_and(|policy| !is_plain(policy));
            if asks && !tracked.rule(shard).resolved && self.is_uncovered(tracked)? {
                return Ok(Some(tracked.table.name.clone()));
            }
        }
        Ok(None)
    }

    fn is_uncovered(&self, tracked: &Tracked) -> Result<bool, Error> {
        let Some(overlay) = self.overlay.peek(tracked.id).filter(|overlay| !overlay.pending.is_empty()) else {
            return Ok(false);
        };
        Ok(overlay.pending.keys().any(|key| !overlay.shadows.contains(key))
            || meta(&self.conn, &open(&tracked.table.name))?.is_some())
    }

    fn wait_for_cover(&mut self, table: &str) -> Obstacle {
        let why = self.waiting.uncovered.entry(table.to_owned()).or_default();
        let rest = match why {
            None => "; that is being built from the log, and this goes on by itself".to_owned(),
            Some(why) => format!(", and that can't be built: {why}"),
        };
        let words = format!(
            "table `{table}` gets another policy, which has to know what the log says of rows that are on their way{rest}"
        );
        Obstacle::new(ObstacleKind::Uncovered { stuck: why.is_some() }, words)
    }

    /// The next table for which L's rows behind pending ones are to be built.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn to_cover(&mut self) -> Result<Option<String>, Error> {
        if self.ledger.is_slicing() {
            // Rows are ahead of the position, and L can only be built up to that.
            return Ok(None);
        }
        let wanted: Vec<String> = self.waiting.uncovered.keys().cloned().collect();
        for table in wanted {
            let tracked = self.tracked_exactly(&table).and_then(|index| self.tables.get(index));
            if !tracked.is_some_and(|tracked| self.is_uncovered(tracked).unwrap_or(true)) {
                self.waiting.uncovered.remove(&table);
                continue;
            }
            if self.waiting.uncovered.get(&table) == Some(&None) {
                return Ok(Some(table));
            }
        }
        Ok(None)
    }

    /// Says why L's rows behind pending ones of a table can't be built.
    pub fn cannot_cover(&mut self, table: &str, why: &str) {
        tracing::warn!(table, why, "cannot build what the log says of rows that are on their way");
        self.waiting.uncovered.insert(table.to_owned(), Some(why.to_owned()));
    }

    /// Puts L's rows behind pending ones of a table, out of `aside`, which stands where this database does.
    ///
    /// # Errors
    /// When SQLite refuses; nothing is lost then, and the round can be tried again.
    pub fn cover(&mut self, aside: &Self, table: &str) -> Result<Reattached, Error> {
        if self.refresh_schema()? || aside.positions() != self.positions() {
            return Ok(Reattached::Again);
        }
        let found =
            |db: &Self| db.tracked_exactly(table).and_then(|index| Some((index, db.tables.get(index)?.clone())));
        let (Some((index, here)), Some((_, there))) = (found(self), found(aside)) else { return Ok(Reattached::Again) };
        self.transaction(|db| {
            // What is not sealed yet is on its way as well.
            if db.refresh_schema()? || db.is_dirty()? && db.seal_piece()? {
                return Ok(Reattached::Again);
            }
            let is_open = meta(&db.conn, &open(table))?.is_some();
            let overlay = db.overlay.table(here.id);
            let uncovered = overlay.pending.keys().filter(|key| is_open || !overlay.shadows.contains(key));
            let mut keys: Vec<Box<[u8]>> = uncovered.map(Box::from).collect();
            keys.sort_unstable();
            let places = places(&here, &there)?;
            let shards = db.shards_of(index, &keys)?;
            for (key, shard) in keys.into_iter().zip(shards) {
                let row = whole(&aside.conn, &there, &key_values(&key)?)?;
                let image: Option<Image> = row.map(|row| picked(&row, &places).into_iter().map(Some).collect());
                let position = db.position(shard).seq;
                let overlay = db.overlay.table(here.id);
                if overlay.pending.get(&key) == Some(&OVERSIZED) {
                    cover_oversized(&db.conn, table, &key, image.as_ref())?;
                }
                // No other's change came since the key became pending, or there would be a shadow.
                let seen = overlay.shadows.get(&key).map_or(position, |shadow| shadow.seen);
                let shadow = Shadow { image, seen };
                store_shadow(&db.conn, &here, &key, &shadow)?;
                overlay.shadows.insert(key, shadow);
            }
            fault!("covered");
            close(&db.conn, table)?;
            db.waiting.uncovered.remove(table);
            Ok(Reattached::Done)
        })
    }

    /// Which shard each key's row goes to.
    pub(super) fn shards_of(&mut self, index: usize, keys: &[Box<[u8]>]) -> Result<Vec<Shard>, Error> {
        let shards = self.shards();
        if shards == 1 {
            return Ok(vec![1; keys.len()]);
        }
        let whole = self.tables.get(index).is_some_and(|tracked| tracked.whole);
        let mut packed = PackedKeys::default();
        for key in keys {
            if !whole {
                packed.bytes.extend(key);
            }
            packed.end();
        }
        let table = u32::try_from(index).map_err(|_| Error::Inconsistent("more tables than numbers".to_owned()))?;
        let hashes = self.hasher.hash(table, &packed)?;
        Ok(hashes.into_iter().map(|hash| shard_of(hash, shards)).collect())
    }

    /// A row that has no place in its table has the default in columns that its writer lacked, as it would have there.
    fn fill_hidden(&mut self) -> Result<(), Error> {
        let Self { conn, overlay, tables, .. } = self;
        for tracked in tables.iter().filter(|tracked| tracked.rules.iter().any(|rule| rule.resolved)) {
            let overlay = overlay.table(tracked.id);
            let keys: Vec<Box<[u8]>> = overlay.shadows.keys().map(Box::from).collect();
            for key in keys {
                let Some(mut shadow) = overlay.shadows.get(&key).cloned() else { continue };
                let Some(image) = shadow.image.as_mut().filter(|image| image.contains(&None)) else { continue };
                tracked.fill(image);
                store_shadow(conn, tracked, &key, &shadow)?;
                overlay.shadows.insert(key, shadow);
            }
        }
        Ok(())
    }
}

/// The note that some row of the log behind a pending one of a table is known in part.
pub(super) fn open(table: &str) -> String {
    format!("open:{}", table.to_ascii_lowercase())
}

fn close(conn: &Connection, table: &str) -> Result<(), Error> {
    conn.execute(concat!("DELETE FROM ", ours!("meta"), " WHERE name = ?1"), [open(table)])
        .doing("note that all rows are known")?;
    Ok(())
}

/// A row that is held back for its size was made upon this one.
fn cover_oversized(conn: &Connection, table: &str, key: &[u8], image: Option<&Image>) -> Result<(), Error> {
    let base = image.map(|image| encode_row(&whole_row(image)));
    conn.execute(
        concat!("UPDATE ", ours!("oversized"), " SET base = ?3 WHERE tbl = ?1 AND key = ?2 AND base IS NULL"),
        (table, key, base),
    )
    .doing("note what a row was")?;
    Ok(())
}
