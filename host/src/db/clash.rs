//! Clashes: found, put to the resolver component, and recorded.

use super::catalog::Tracked;
use super::overlay::{Image, TableOverlay};
use super::own::ours;
use super::policy::Decision;
use super::rows::whole;
use super::unit::{Change, TableChanges, Unit, whole_row};
use super::{Database, Doing as _, Error};
pub(super) use crate::replay::cause_name;
use antiphon_core::codec;
use antiphon_core::entry::Origin;
use antiphon_core::hash::PluginError;
use antiphon_core::resolve::{Cause, Clash, Side, Stamp, Verdict};
use antiphon_core::value::{Row, Value};
use rusqlite::Connection;

impl Database {
    /// Changes whose origin had not seen another's latest change to the same key.
    pub(super) fn clashes(&mut self, unit: &Unit, table: &TableChanges) -> Result<Vec<(usize, Origin)>, Error> {
        let Some(tracked) = self.tables.get(table.index) else { return Ok(Vec::new()) };
        // What was there before the policy was the default one is not remembered on all nodes.
        let since = tracked.rule(unit.shard).since;
        let lowest = table.changes.iter().map(|change| change.seen).min().unwrap_or(unit.seq).max(since);
        if !self.recent.unseen(unit.shard, unit.origin, lowest) {
            return Ok(Vec::new());
        }
        let recent = &mut self.recent;
        let found = table.changes.iter().enumerate().filter_map(|(index, change)| {
            let unseen = recent.clash(unit.shard, unit.origin, change.seen.max(since), tracked.id, &change.key)?;
            // Two deletes agree. The log alone says so: of a pending key this node may not know L's row.
            (!unseen.gone || change.image.is_some()).then_some((index, unseen.origin))
        });
        Ok(found.collect())
    }

    /// Asks the resolver about every clash over a key, and records what was overruled.
    pub(super) fn resolve(
        &mut self,
        unit: &Unit,
        table: &TableChanges,
        clashes: &[(usize, Origin)],
    ) -> Result<(), Error> {
        let clashing: Vec<_> =
            clashes.iter().filter_map(|(at, loser)| Some((table.changes.get(*at)?, loser.node))).collect();
        self.ask(unit, table.index, Cause::SameKey, clashing.iter().map(|(change, _)| *change))?;
        for (change, loser) in clashing {
            let Some(tracked) = self.tables.get(table.index) else { continue };
            let mut current = logged_row(&self.conn, tracked, self.overlay.table(tracked.id), change)?;
            if let Some(current) = &mut current {
                // A row behind a pending one may come from a node without some column; where it stands in T, it has
                // the default there, and both must see the same clash.
                tracked.fill(current);
            }
            // Where both wrote the same, nobody was overruled.
            if !stands(current.as_ref(), change.image.as_ref()) {
                let record = Overruled {
                    cause: Cause::SameKey,
                    resolver: self.policy_name(tracked.rule(unit.shard).policy),
                    verdict: &Verdict::Take,
                    parked: None,
                    key: &change.key_values,
                    winner: (unit.origin.node, change.image.as_ref()),
                    loser: (loser, current.as_ref()),
                    merged: None,
                };
                record.store(&self.conn, unit, tracked)?;
            }
        }
        Ok(())
    }

    /// Puts clashes to the resolver component. The default one needs to see neither row.
    pub(super) fn ask<'a>(
        &mut self,
        unit: &Unit,
        index: usize,
        cause: Cause,
        changes: impl Iterator<Item = &'a Change>,
    ) -> Result<(), Error> {
        let Some(tracked) = self.tables.get(index) else { return Ok(()) };
        let columns: Vec<usize> = (0..tracked.table.columns.len()).collect();
        let answers = self.decide(unit, index, &columns, &[unit.origin.node], |seen| {
            let incoming = Stamp { node: seen.node(unit.origin.node), clock: 0, seq: unit.seq };
            changes
                .map(|change| Clash {
                    table: seen.table,
                    key: change.key_values.clone(),
                    cause,
                    base: None,
                    current: Side::default(),
                    incoming: Side { stamp: incoming, row: change.image.as_ref().map(whole_row) },
                })
                .collect()
        })?;
        // Clashes of such tables are found by a bounded memory, so their outcome must not depend on being asked.
        if answers.iter().any(|answer| answer.decision != Decision::Verdict(Verdict::Take)) {
            let text = "the resolver of default tables overruled the order of the log, and only `take` is sound there";
            return Err(PluginError(text.to_owned()).into());
        }
        Ok(())
    }
}

/// What a clash came to: who was overruled, by whom, and all rows that were at stake.
pub(super) struct Overruled<'a> {
    pub(super) cause: Cause,
    pub(super) resolver: &'a str,
    pub(super) verdict: &'a Verdict,
    /// Why it gave no verdict, if it gave none: then what stands stays.
    pub(super) parked: Option<&'a str>,
    pub(super) key: &'a Row,
    /// Whose row stands, and the row.
    pub(super) winner: (u64, Option<&'a Image>),
    /// Whose does not, or not alone.
    pub(super) loser: (u64, Option<&'a Image>),
    /// The row that was made of both.
    pub(super) merged: Option<&'a Image>,
}

impl Overruled<'_> {
    /// Keeps it, the same on every node but for the time when it was noted there.
    pub(super) fn store(&self, conn: &Connection, unit: &Unit, tracked: &Tracked) -> Result<(), Error> {
        let columns: Vec<Value> =
            tracked.table.columns.iter().map(|column| Value::from(column.name.as_str())).collect();
        let stored = |image: Option<&Image>| image.map(|image| codec::encode_row(&whole_row(image)));
        let cause = cause_name(self.cause);
        let verdict = match (self.parked, self.verdict) {
            (Some(_), _) => "park",
            (None, Verdict::Keep) => "keep",
            (None, Verdict::Take) => "take",
            (None, Verdict::Merge(_)) => "merge",
            (None, Verdict::Remove) => "remove",
        };
        conn.prepare_cached(concat!(
            "INSERT INTO ",
            ours!("conflict"),
            " (shard, seq, clock, noted, tbl, key, cause, resolver, verdict, winner_node, loser_node,
             columns, winner, loser, merged, reason)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)"
        ))
        .and_then(|mut statement| {
            statement.execute((
                unit.shard,
                unit.seq.cast_signed(),
                unit.clock.cast_signed(),
                // For how long it is kept here is this node's own affair; nothing else goes by it.
                crate::clock::unix_ms().cast_signed(),
                &tracked.table.name,
                codec::encode_row(self.key),
                cause,
                self.resolver,
                verdict,
                self.winner.0.cast_signed(),
                self.loser.0.cast_signed(),
                codec::encode_row(&columns),
                stored(self.winner.1),
                stored(self.loser.1),
                stored(self.merged),
                self.parked,
            ))
        })
        .doing("record a clash")?;
        let (winner, loser) = (self.winner.0, self.loser.0);
        tracing::debug!(table = tracked.table.name, cause, verdict, winner, loser, "clash resolved");
        Ok(())
    }
}

/// L's row of a key: the shadow if there is one, else T's row; but T's row of a pending key is P, and then L's is
/// not known here.
pub(super) fn logged_row(
    conn: &Connection,
    tracked: &Tracked,
    overlay: &TableOverlay,
    change: &Change,
) -> Result<Option<Image>, Error> {
    match overlay.shadows.get(&change.key) {
        Some(shadow) => Ok(shadow.image.clone()),
        None if overlay.pending.contains_key(&change.key) => Ok(None),
        None => Ok(whole(conn, tracked, &change.key_values)?.map(|row| row.into_iter().map(Some).collect())),
    }
}

/// Whether a row is there as it comes, in the columns that come.
pub(super) fn stands(current: Option<&Image>, image: Option<&Image>) -> bool {
    let (Some(current), Some(image)) = (current, image) else { return false };
    image.iter().zip(current).all(|(wanted, found)| wanted.is_none() || wanted == found)
}
