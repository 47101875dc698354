//! What comes after a snapshot becomes part of it, by the same rules as on any node.
//!
//! Of each shard a piece in turn: one may wait for what another says of policies.

use super::history::{History, Stretch, Trouble};
use super::keeper::places;
use super::repo::Repo;
use crate::db::{Applied, Database, Stop};
use crate::failure::{Failure, Kind};
use crate::log::{Look, Placed, Shard};
use antiphon_core::snapshot::manifest::Manifest;

/// Calls that apply nothing, one after the other, at most: clashes may be tried one by one.
const FRUITLESS_MAX: u32 = 1_000_000;
/// Entries read at once in search of a verdict.
const AHEAD_MAX: usize = 1_000;

/// A snapshot that was put together, and what is to come into it.
pub(super) struct Applying<'a, 'h> {
    pub(super) repo: Repo<'a>,
    pub(super) look: Option<&'a Look>,
    pub(super) db: &'h mut Database,
    pub(super) allow_hole: bool,
}

/// How much was applied.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    pub(super) entries: u64,
    pub(super) changes: u64,
}

impl Applying<'_, '_> {
    /// Applies all that there is.
    pub(super) fn run(mut self, histories: &mut [History<'_>]) -> Result<Done, Trouble> {
        let mut done = Done::default();
        loop {
            let (mut moved, mut blocked) = (false, None);
            for history in histories.iter_mut() {
                let shard = history.shard;
                let Some(next) = self.next(history)? else { continue };
                let before = self.db.position(shard).seq;
                let (changes, why) = self.apply_some(shard, &next)?;
                let after = self.db.position(shard).seq;
                let is_applied = |placed: &&Placed| placed.seq > before && placed.seq <= after;
                done.entries += next.iter().filter(is_applied).count() as u64;
                done.changes += changes;
                moved |= after > before || why.is_none();
                if let Some(why) = why {
                    blocked = Some((shard, why));
                    history.waiting = Some(next);
                }
            }
            match blocked {
                Some((shard, why)) if !moved => return Err(self.obstacle(shard, &why).into()),
                _ if !moved => return Ok(done),
                _ => {}
            }
        }
    }

    fn obstacle(&self, shard: Shard, why: &str) -> Failure {
        let at = self.db.position(shard).seq;
        let words = format!("entry {} of shard {shard} can't be applied to this snapshot: {why}", at + 1);
        let failure = Failure::new(Kind::NoSuchPoint, words)
            .hint(format!("where the schema has changed, `--to-seq {shard}:{at}` is the last point before it"));
        match self.next_base(shard, at) {
            Some(next) => failure.hint(format!(
                "the first point behind it is that of snapshot {}, `--to-seq {}`",
                next.id,
                places(&next.positions).replace(' ', ",")
            )),
            None => failure.hint(
                "the next full snapshot is the first point behind it, and a node makes one when the schema has changed: \
                 `antiphon snapshot list`",
            ),
        }
    }

    /// The first full snapshot that stands behind this entry.
    fn next_base(&self, shard: Shard, seq: u64) -> Option<Manifest> {
        let epoch = self.db.cluster().map(super::keeper::epoch);
        let is_behind = |full: &Manifest| {
            let at = full.positions.get(&shard);
            full.is_full() && at.is_some_and(|at| Some(at.epoch) == epoch && at.seq > seq)
        };
        // It is for a hint alone: a store that can't be asked now has been asked before.
        let all = self.repo.all().ok()?.snapshots.into_iter().map(|(manifest, _)| manifest);
        all.filter(is_behind).min_by_key(|full| full.positions.get(&shard).map(|at| at.seq))
    }

    /// What comes next in a shard.
    fn next(&mut self, history: &mut History<'_>) -> Result<Option<Vec<Placed>>, Trouble> {
        if let Some(waiting) = history.waiting.take() {
            return Ok(Some(waiting));
        }
        let Some(Stretch { hole, entries }) = history.next()? else { return Ok(None) };
        let shard = history.shard;
        if let Some(last) = hole {
            if !self.allow_hole {
                let words = format!("shard {shard} lacks the entries before {}", last + 1);
                return Err(Failure::new(Kind::Refused, words)
                    .hint("`--allow-hole` goes on behind them: what was written in them is missing then")
                    .into());
            }
            self.db.pass_hole(shard, last).map_err(|error| unapplied(&error))?;
            history.is_holed = true;
        }
        if history.is_holed {
            self.db.forgive(shard, &entries).map_err(|error| unapplied(&error))?;
        }
        Ok(Some(entries))
    }

    /// Applies entries of a shard; gives how many changes they held, and why not all could be applied.
    fn apply_some(&mut self, shard: Shard, next: &[Placed]) -> Result<(u64, Option<String>), Failure> {
        let Some(last) = next.last() else { return Ok((0, None)) };
        let (mut changes, mut fruitless) = (0, 0);
        while self.db.position(shard).seq < last.seq {
            let Applied { changes: more, stop, entries, sliced, .. } =
                self.db.apply(shard, next).map_err(|error| unapplied(&error))?;
            changes += more as u64;
            fruitless = if entries > 0 || sliced { 0 } else { fruitless + 1 };
            if fruitless > FRUITLESS_MAX {
                return Err(Failure::new(Kind::General, format!("shard {shard} can't be applied to this snapshot")));
            }
            match stop {
                None | Some(Stop::Full | Stop::Unsealed) => {}
                Some(Stop::Gap { expected, .. }) => {
                    return Err(Failure::new(Kind::Data, format!("the log lacks entry {expected} of shard {shard}")));
                }
                Some(Stop::Blocked(why)) => {
                    if !self.foresee(shard)? {
                        return Ok((changes, Some(why.to_string())));
                    }
                }
            }
        }
        Ok((changes, None))
    }

    /// Where a resolver gave no verdict, what comes later may say who gives it. Says whether it does.
    fn foresee(&mut self, shard: Shard) -> Result<bool, Failure> {
        let Some(cluster) = self.db.cluster() else { return Ok(false) };
        let epoch = super::keeper::epoch(cluster);
        while let Some(after) = self.db.foresees_after(shard) {
            let archive = self.repo.archive()?;
            let next =
                archive.of(epoch, shard).into_iter().find(|segment| segment.first <= after + 1 && segment.last > after);
            let entries = match (next, self.look) {
                (Some(segment), _) => self.repo.segment(&segment)?.1,
                (None, Some(look)) => {
                    let mut entries = Vec::new();
                    look.each(shard, after + 1, |placed| {
                        entries.push(placed);
                        Ok::<_, crate::log::Error>(entries.len() < AHEAD_MAX)
                    })
                    .map_err(|error| unread_log(&error))?;
                    entries
                }
                (None, None) => Vec::new(),
            };
            if entries.is_empty() {
                return Ok(false);
            }
            if self.db.foresee(shard, &entries) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

pub(super) fn unapplied(error: &crate::db::Error) -> Failure {
    Failure::caused(Kind::General, "cannot apply the log to a snapshot", error)
}

pub(super) fn unread_log(error: &crate::log::Error) -> Failure {
    let kind = if matches!(error, crate::log::Error::Unreachable(_)) { Kind::Busy } else { Kind::Data };
    Failure::caused(kind, "cannot read the log", error)
}
