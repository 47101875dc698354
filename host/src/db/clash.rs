//! Clashes: found, put to the resolver component, and recorded.

use super::catalog::Tracked;
use super::ledger::ours;
use super::overlay::{Image, TableOverlay};
use super::rows::whole;
use super::unit::{Change, TableChanges, Unit, whole_row};
use super::{Database, Doing as _, Error};
use antiphon_core::codec;
use antiphon_core::entry::Origin;
use antiphon_core::hash::PluginError;
use antiphon_core::resolve::{Cause, Clash, Side, Stamp, Verdict};
use antiphon_core::value::Value;
use rusqlite::Connection;

/// Clashes put to the resolver in one call.
const CLASHES_MAX: usize = 512;

impl Database {
    /// Changes whose origin had not seen another's latest change to the same key.
    pub(super) fn clashes(&mut self, unit: &Unit, table: &TableChanges) -> Result<Vec<(usize, Origin)>, Error> {
        let Some(tracked) = self.tables.get(table.index) else { return Ok(Vec::new()) };
        let lowest = table.changes.iter().map(|change| change.seen).min().unwrap_or(unit.seq);
        if !self.recent.unseen(unit.shard, unit.origin, lowest) {
            return Ok(Vec::new());
        }
        let recent = &mut self.recent;
        let found = table.changes.iter().enumerate().filter_map(|(index, change)| {
            let unseen = recent.clash(unit.shard, unit.origin, change.seen, tracked.id, &change.key)?;
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
            let current = logged_row(&self.conn, tracked, self.overlay.table(tracked.id), change)?;
            // Where both wrote the same, nobody was overruled.
            if !stands(current.as_ref(), change.image.as_ref()) {
                record(&self.conn, unit, tracked, Cause::SameKey, change, loser, current.as_ref())?;
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
        let table = u32::try_from(index).map_err(|_| Error::Inconsistent("more tables than numbers".to_owned()))?;
        let incoming = Stamp { node: 1, clock: 0, seq: unit.seq };
        let clashes: Vec<Clash> = changes
            .map(|change| Clash {
                table,
                key: change.key_values.clone(),
                cause,
                base: None,
                current: Side::default(),
                incoming: Side { stamp: incoming, row: change.image.as_ref().map(whole_row) },
            })
            .collect();
        for batch in clashes.chunks(CLASHES_MAX) {
            let verdicts = self.resolver.resolve(batch)?;
            // Clashes of such tables are found by a bounded memory, so their outcome must not depend on being asked.
            if verdicts.len() != batch.len() || verdicts.iter().any(|verdict| *verdict != Verdict::Take) {
                return Err(PluginError(format!(
                    "the resolver of default tables gave {} answers to {} clashes, and only `take` is sound there",
                    verdicts.len(),
                    batch.len()
                ))
                .into());
            }
        }
        Ok(())
    }
}

/// Keeps what was overruled, by whom, and both rows.
pub(super) fn record(
    conn: &Connection,
    unit: &Unit,
    tracked: &Tracked,
    cause: Cause,
    change: &Change,
    loser: u64,
    overruled: Option<&Image>,
) -> Result<(), Error> {
    let columns: Vec<Value> = tracked.table.columns.iter().map(|column| Value::from(column.name.as_str())).collect();
    let stored = |image: Option<&Image>| image.map(|image| codec::encode_row(&whole_row(image)));
    let cause = match cause {
        Cause::SameKey => "same-key",
        Cause::UniqueIndex => "unique-index",
    };
    conn.prepare_cached(concat!(
        "INSERT INTO ",
        ours!("conflict"),
        " (shard, seq, tbl, key, cause, resolver, verdict, winner_node, loser_node,
         columns, winner, loser) VALUES (?1, ?2, ?3, ?4, ?5, 'last-write-wins', 'take', ?6, ?7, ?8, ?9, ?10)"
    ))
    .and_then(|mut statement| {
        statement.execute((
            unit.shard,
            unit.seq.cast_signed(),
            &tracked.table.name,
            codec::encode_row(&change.key_values),
            cause,
            unit.origin.node.cast_signed(),
            loser.cast_signed(),
            codec::encode_row(&columns),
            stored(change.image.as_ref()),
            stored(overruled),
        ))
    })
    .doing("record a clash")?;
    tracing::debug!(table = tracked.table.name, cause, winner = unit.origin.node, loser, "clash resolved");
    Ok(())
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
fn stands(current: Option<&Image>, image: Option<&Image>) -> bool {
    let (Some(current), Some(image)) = (current, image) else { return false };
    image.iter().zip(current).all(|(wanted, found)| wanted.is_none() || wanted == found)
}
