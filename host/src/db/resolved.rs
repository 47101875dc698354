//! Tables with a policy of their own: concurrent changes are told by stamps, and the resolver decides on L's rows.

use super::clash::{Overruled, logged_row, stands};
use super::overlay::Image;
use super::policy::{Answer, Decision};
use super::rows::whole;
use super::ruling::PLAIN;
use super::stamp::{Stamped, Stamps};
use super::unit::{Change, TableChanges, Unit, image_of};
use super::{Database, Error};
use antiphon_core::entry::Origin;
use antiphon_core::resolve::{Cause, Clash, Side, Stamp, Verdict};
use antiphon_core::value::Row;

/// A change made unaware of another, and what stands in its place.
struct Concurrent {
    /// Which change of the unit.
    at: usize,
    stamp: Option<Stamped>,
    current: Option<Image>,
    /// Nobody is asked: its node did not note what it was made upon, so it goes by the order of the log.
    taken: bool,
}

impl Database {
    /// Decides the changes of one table, all upon L as it was before the unit, and writes what came of it.
    pub(super) fn apply_resolved(&mut self, unit: &Unit, mut table: TableChanges) -> Result<(), Error> {
        let concurrent = self.concurrent(unit, &table)?;
        let mut kept = vec![false; table.changes.len()];
        let mut moved = Vec::new();
        if !concurrent.is_empty() {
            let mut answers = self.verdicts(unit, &table, &concurrent)?.into_iter();
            for clash in &concurrent {
                let answer = if clash.taken { Some(Decision::Verdict(Verdict::Take).into()) } else { answers.next() };
                let Some(answer) = answer else { break };
                let Some(change) = table.changes.get_mut(clash.at) else { continue };
                let merged = self.carry_out(unit, table.index, &table.columns, clash, change, &answer)?;
                let stays = match answer.decision {
                    Decision::Parked(_) if crate::flaw!(StampOnPark) => {
                        moved.push((change.key.clone(), change.clock));
                        true
                    }
                    Decision::Parked(_) | Decision::Verdict(Verdict::Keep) => true,
                    Decision::Verdict(Verdict::Take) => false,
                    Decision::Verdict(Verdict::Merge(_) | Verdict::Remove) => {
                        change.image = merged;
                        false
                    }
                };
                if let Some(kept) = kept.get_mut(clash.at) {
                    *kept = stays;
                }
            }
        }
        let mut left_out = Vec::new();
        let mut kept = kept.into_iter();
        table.changes.retain_mut(|change| {
            let keep = kept.next() == Some(true);
            if keep && crate::flaw!(StampOnKeep) {
                moved.push((change.key.clone(), change.clock));
            }
            if keep {
                left_out.push(std::mem::take(&mut change.key));
            }
            !keep
        });
        if let Some(tracked) = self.tables.get(table.index) {
            let mut stamps = Stamps::new(&self.conn, tracked);
            for (key, clock) in moved {
                let before = stamps.get(&key)?;
                stamps.set(&key, &Stamped::moved(before, unit.seq, unit.origin, clock))?;
            }
        }
        self.settle(unit, table, left_out)
    }

    /// The changes whose origin had not seen another's latest change to the same key.
    fn concurrent(&mut self, unit: &Unit, table: &TableChanges) -> Result<Vec<Concurrent>, Error> {
        let floor = self.ledger.floor(unit.shard);
        let Some(tracked) = self.tables.get(table.index) else { return Ok(Vec::new()) };
        let since = tracked.rule(unit.shard).since;
        let forgotten = floor.max(since);
        let overlay = self.overlay.table(tracked.id);
        let mut stamps = Stamps::new(&self.conn, tracked);
        let mut found = Vec::new();
        for (at, change) in table.changes.iter().enumerate() {
            let stamp = stamps.get(&change.key)?;
            let last = Stamped::last_by_another(stamp, unit.origin);
            let taken = change.baseless && !crate::flaw!(BaselessResolved);
            let unseen = if last > forgotten {
                last > change.seen
            } else if since >= floor {
                // No stamp tells; whether anyone else changed the row is told by the row itself.
                change.seen < since && !taken
            } else {
                change.seen < floor
            };
            if !unseen {
                continue;
            }
            let current = if crate::flaw!(CurrentFromTable) {
                whole(&self.conn, tracked, &change.key_values)?.map(|row| row.into_iter().map(Some).collect())
            } else {
                logged_row(&self.conn, tracked, overlay, change)?
            };
            if last <= forgotten && since >= floor && !is_other(&table.columns, change.base.as_ref(), current.as_ref())
            {
                continue;
            }
            let stamp = stamp.filter(|stamp| stamp.seq > forgotten);
            found.push(Concurrent { at, stamp, current, taken });
        }
        Ok(found)
    }

    fn verdicts(&mut self, unit: &Unit, table: &TableChanges, concurrent: &[Concurrent]) -> Result<Vec<Answer>, Error> {
        let mut nodes: Vec<u64> =
            concurrent.iter().filter_map(|clash| clash.stamp.map(|stamp| stamp.origin.node)).collect();
        nodes.push(unit.origin.node);
        nodes.sort_unstable();
        nodes.dedup();
        self.decide(unit, table.index, &table.columns, &nodes, |seen| {
            let side = |clock: u64, seq: u64, origin: Origin, image: Option<&Image>| Side {
                stamp: Stamp { node: seen.node(origin.node), clock, seq },
                row: image.map(|image| seen.row(image)),
            };
            let clash = |clash: &Concurrent| {
                let change = table.changes.get(clash.at)?;
                Some(Clash {
                    table: seen.table,
                    key: change.key_values.clone(),
                    cause: Cause::SameKey,
                    base: change.base.as_ref().filter(|_| seen.needs.base).map(|base| seen.row(base)),
                    current: match clash.stamp {
                        Some(stamp) => side(stamp.clock, stamp.seq, stamp.origin, clash.current.as_ref()),
                        None => Side { row: clash.current.as_ref().map(|image| seen.row(image)), ..Side::default() },
                    },
                    incoming: side(change.clock, unit.seq, unit.origin, change.image.as_ref()),
                })
            };
            concurrent.iter().filter(|clash| !clash.taken).filter_map(clash).collect()
        })
    }

    /// Records what a verdict overrules; gives the row that it makes.
    fn carry_out(
        &mut self,
        unit: &Unit,
        index: usize,
        columns: &[usize],
        clash: &Concurrent,
        change: &Change,
        Answer { decision, heir }: &Answer,
    ) -> Result<Option<Image>, Error> {
        let Some(tracked) = self.tables.get(index) else { return Ok(None) };
        let (verdict, parked) = match decision {
            Decision::Verdict(verdict) => (verdict, None),
            Decision::Parked(why) => (&Verdict::Keep, Some(why.as_str())),
        };
        let merged = match verdict {
            Verdict::Merge(row) => Some(merge(image_of(tracked, columns, row.iter().cloned()), clash, change)),
            _ => None,
        };
        let agree = match (&clash.current, &change.image) {
            (None, None) => true,
            (current, image) => stands(current.as_ref(), image.as_ref()),
        };
        // That nobody decided is worth a word even where nobody lost.
        if !agree || parked.is_some() {
            let before = (clash.stamp.map_or(0, |stamp| stamp.origin.node), clash.current.as_ref());
            let after = (unit.origin.node, change.image.as_ref());
            let (winner, loser) = if *verdict == Verdict::Keep { (before, after) } else { (after, before) };
            let policy = heir.map_or(tracked.rule(unit.shard).policy, |heir| heir.policy);
            let record = Overruled {
                cause: Cause::SameKey,
                resolver: if clash.taken { PLAIN } else { self.policy_name(policy) },
                verdict,
                parked,
                key: &change.key_values,
                winner,
                loser,
                merged: merged.as_ref(),
            };
            record.store(&self.conn, unit, tracked)?;
        }
        Ok(merged)
    }
}

/// Whether a row is another than the one a change was made upon, in the columns that its node has.
fn is_other(columns: &[usize], base: Option<&Image>, current: Option<&Image>) -> bool {
    match (base, current) {
        (None, None) => false,
        (Some(base), Some(current)) => columns.iter().any(|&column| base.get(column) != current.get(column)),
        _ => true,
    }
}

/// Columns that the resolver did not see keep what stands, or else what came.
fn merge(mut merged: Image, clash: &Concurrent, change: &Change) -> Image {
    let rest = clash.current.as_ref().or(change.image.as_ref());
    for (slot, value) in merged.iter_mut().zip(rest.into_iter().flatten()) {
        if slot.is_none() {
            slot.clone_from(value);
        }
    }
    merged
}

/// A base in local terms.
pub(super) fn base_of(tracked: &super::catalog::Tracked, columns: &[usize], base: Option<Row>) -> Option<Image> {
    base.map(|row| {
        let mut image = image_of(tracked, columns, row.into_iter());
        tracked.fill(&mut image);
        image
    })
}
