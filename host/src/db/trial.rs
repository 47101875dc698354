//! Clashes that a resolver failed over: put to it once more in ever smaller numbers, and at last one by one, outside of
//! any transaction.
//!
//! Which clashes come to a resolver together differs from node to node. So what becomes of one that it fails at is
//! decided by that clash alone, put to a resolver that was just made and knows nothing else ([`Alone`]): it fails there
//! on every node, or on none.

use super::clash::cause_name;
use super::foresight::Heir;
use super::policy::{Answer, Decision, Policy};
use super::{Applied, Database, Error, Stop};
use crate::log::{Placed, Shard};
use crate::replay::{Place, Replay};
use antiphon_core::codec;
use antiphon_core::entry::Halted;
use antiphon_core::resolve::{Clash, Failed, Needs, Verdict};
use antiphon_core::schema::Table;
use rustc_hash::FxHashMap;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// For how long clashes are tried before others get their turn.
const TURN: Duration = Duration::from_millis(100);
/// How long until a resolver is asked again that failed for a reason that may pass.
const AGAIN: Duration = Duration::from_secs(5);
/// Failures of one unit that are told in full.
const TOLD_MAX: usize = 3;

/// A clash as every node sees it: with the table and the nodes that it speaks of, and no others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alone {
    /// Names of its nodes, in the order of their numbers.
    pub nodes: Vec<String>,
    /// Its table, with the columns that both sides know.
    pub table: Table,
    /// The clash; its table has number 0.
    pub clash: Clash,
}

/// What is known of one unit's clashes.
#[derive(Debug, Default)]
pub(super) struct Trial {
    /// Where the unit takes effect.
    seq: u64,
    /// Clashes that are still to be tried, and whose they are.
    waiting: Vec<(usize, Vec<Alone>)>,
    decided: FxHashMap<(String, Vec<u8>), (Alone, Answer)>,
    stopped: Option<Stopped>,
    told: usize,
}

/// Why the shard can't go on, and when to try again if that may help.
#[derive(Debug)]
struct Stopped {
    reason: String,
    table: String,
    again: Option<Instant>,
}

/// What is to be done about a shard.
pub(super) enum Next<'a> {
    /// Apply these.
    Apply(&'a [Placed]),
    /// Nothing further now.
    Done(Applied),
}

impl Trial {
    pub(super) fn of(seq: u64) -> Self {
        Self { seq, ..Self::default() }
    }

    pub(super) fn is_of(&self, seq: u64) -> bool {
        self.seq == seq
    }

    /// What was decided about this clash, as it stands now.
    pub(super) fn answer(&self, alone: &Alone) -> Option<Answer> {
        let (known, answer) = self.decided.get(&id(alone))?;
        (known == alone).then(|| answer.clone())
    }

    /// Where it has stopped for good, of a shard that stands at this position.
    pub(super) fn halted(&self, position: u64) -> Option<Halted> {
        let Stopped { table, .. } = self.stopped.as_ref().filter(|stopped| stopped.again.is_none())?;
        (position < self.seq).then(|| Halted { seq: self.seq, table: table.clone() })
    }

    /// These have to be tried.
    pub(super) fn wait(&mut self, policy: usize, clashes: Vec<Alone>) {
        self.waiting.push((policy, clashes));
    }

    fn stop(&mut self, stopped: Stopped) {
        self.stopped = Some(stopped);
        self.waiting.clear();
    }

    fn decide(&mut self, alone: Alone, answer: Answer) {
        self.decided.insert(id(&alone), (alone, answer));
    }
}

fn id(alone: &Alone) -> (String, Vec<u8>) {
    (alone.table.name.clone(), codec::encode_row(&alone.clash.key))
}

impl Database {
    /// What can be done about a shard whose resolver failed: clashes to try first, entries to apply before, or nothing.
    pub(super) fn on_trial<'a>(&mut self, shard: Shard, entries: &'a [Placed]) -> Result<Next<'a>, Error> {
        let position = self.position(shard).seq;
        self.forget_foreseen(shard);
        let Some(trial) = self.trials.get(&shard) else { return Ok(Next::Apply(entries)) };
        if position >= trial.seq {
            self.trials.remove(&shard);
            return Ok(Next::Apply(entries));
        }
        if !trial.waiting.is_empty() {
            return self.try_clashes(shard).map(Next::Done);
        }
        // What was found out holds for this unit alone, so it is committed before another one may fail.
        let up_to = |end: u64| entries.get(..entries.partition_point(|placed| placed.seq < end)).unwrap_or(entries);
        let Some(stopped) = &trial.stopped else { return Ok(Next::Apply(up_to(trial.seq + 1))) };
        if stopped.again.is_some_and(|again| Instant::now() >= again) {
            self.trials.remove(&shard);
            return Ok(Next::Apply(entries));
        }
        let before = up_to(trial.seq);
        if before.iter().any(|placed| placed.seq > position) {
            return Ok(Next::Apply(before));
        }
        let mut reason = stopped.reason.clone();
        if let Some(version) = self.overtaken(shard, trial.seq) {
            let _ = write!(
                reason,
                "; a node that decided this has put version {version} of the policies in force behind: give the plugin the \
                 limits here that it has there"
            );
        }
        Ok(Next::Done(Applied { stop: Some(Stop::Blocked(reason.into())), ..Applied::default() }))
    }

    /// Tries clashes that a resolver failed over, for a while.
    pub(super) fn try_clashes(&mut self, shard: Shard) -> Result<Applied, Error> {
        let begun = Instant::now();
        let Some(mut trial) = self.trials.remove(&shard) else { return Ok(Applied::default()) };
        while begun.elapsed() < TURN
            && let Some((index, mut clashes)) = trial.waiting.pop()
        {
            let Some(policy) = self.policies.get_mut(index) else { continue };
            if clashes.len() > 1 {
                match policy.try_together(&clashes) {
                    Some(verdicts) => {
                        for (alone, verdict) in clashes.into_iter().zip(verdicts) {
                            trial.decide(alone, Decision::Verdict(verdict).into());
                        }
                    }
                    None => {
                        let rest = clashes.split_off(clashes.len() / 2);
                        trial.waiting.extend([(index, rest), (index, clashes)]);
                    }
                }
                continue;
            }
            for alone in clashes {
                self.try_alone(&mut trial, shard, index, alone);
            }
        }
        if trial.waiting.is_empty() && trial.told > TOLD_MAX {
            tracing::warn!(
                shard,
                seq = trial.seq,
                clashes = trial.told,
                "clashes were parked, not all are told in full"
            );
        }
        self.trials.insert(shard, trial);
        // It was told of other tables than its own.
        self.configure_policies()?;
        Ok(Applied { stop: Some(Stop::Full), ..Applied::default() })
    }
}

impl Database {
    /// Tries one clash: by its table's policy, and if that gives no verdict by those that come into force further on.
    fn try_alone(&mut self, trial: &mut Trial, shard: Shard, index: usize, alone: Alone) {
        let place = Place { shard, seq: trial.seq };
        let heirs = self.heirs(shard, trial.seq, &alone.table.name);
        let mut first = None;
        for heir in std::iter::once(None).chain(heirs.into_iter().map(Some)) {
            let Some(policy) = self.policies.get_mut(heir.map_or(index, |heir| heir.policy)) else { continue };
            let failed = match policy.try_alone(&alone) {
                Ok(verdict) => {
                    told_of(heir, &alone, place);
                    return trial.decide(alone, Answer { decision: Decision::Verdict(verdict), heir });
                }
                Err(failed) => failed,
            };
            let parked = policy.parks() && failed.is_verdict;
            if !parked && failed.is_verdict {
                let replay = Replay::new(policy, &alone, place, &failed);
                first.get_or_insert((failed, replay));
                continue;
            }
            if trial.told < TOLD_MAX || !parked {
                let folder = self.options.replays.as_deref();
                let kept = folder.and_then(|folder| Replay::new(policy, &alone, place, &failed).keep(folder));
                tell(&failed, &alone, place, parked, kept.as_deref());
                if !parked {
                    return trial.stop(stopped(&failed, &alone, place, kept.as_deref()));
                }
            }
            trial.told += 1;
            told_of(heir, &alone, place);
            return trial.decide(alone, Answer { decision: Decision::Parked(failed.why), heir });
        }
        if let Some((failed, replay)) = first {
            let kept = self.options.replays.as_deref().and_then(|folder| replay.keep(folder));
            tell(&failed, &alone, place, false, kept.as_deref());
            trial.stop(stopped(&failed, &alone, place, kept.as_deref()));
        }
    }
}

/// Says that a policy decides which did not hold yet.
fn told_of(heir: Option<Heir>, alone: &Alone, Place { shard, seq }: Place) {
    if let Some(Heir { version, .. }) = heir {
        let (table, key) = (&alone.table.name, shown_key(alone));
        tracing::info!(
            shard,
            seq,
            version,
            table,
            key,
            "a clash is decided by policies that come into force later, for its resolver gives no verdict"
        );
    }
}

impl Policy {
    /// The verdicts of a resolver that knows nothing else, if it gives one on each.
    fn try_together(&mut self, clashes: &[Alone]) -> Option<Vec<Verdict>> {
        let table = &clashes.first()?.table;
        let mut nodes: Vec<String> = clashes.iter().flat_map(|alone| alone.nodes.iter().cloned()).collect();
        nodes.sort_by_key(|name| name.parse::<u64>().unwrap_or(u64::MAX));
        nodes.dedup();
        let number = |alone: &Alone, node: u32| {
            let name = alone.nodes.get(node as usize)?;
            u32::try_from(nodes.iter().position(|known| known == name)?).ok()
        };
        let renumbered = clashes.iter().map(|alone| {
            let mut clash = alone.clash.clone();
            for side in [&mut clash.current, &mut clash.incoming] {
                side.stamp.node = number(alone, side.stamp.node).unwrap_or(side.stamp.node);
            }
            clash
        });
        let mut batch: Vec<Clash> = renumbered.collect();
        let resolver = self.resolver().ok()?;
        let needs = resolver.configure(&nodes, std::slice::from_ref(table)).ok()?;
        batch.iter_mut().for_each(|clash| withhold(clash, needs));
        resolver.resolve(&batch).ok().filter(|verdicts| verdicts.len() == batch.len())
    }

    fn try_alone(&mut self, alone: &Alone) -> Result<Verdict, Failed> {
        let resolver = self.resolver().map_err(|missing| Failed { why: missing.to_string(), ..Failed::default() })?;
        let mut clash = Cow::Borrowed(&alone.clash);
        if clash.base.is_some() {
            // What it needs may be another thing than what the one before needed.
            let needs = resolver.configure(&alone.nodes, std::slice::from_ref(&alone.table));
            if needs.is_ok_and(|needs| !needs.base) {
                clash.to_mut().base = None;
            }
        }
        resolver.resolve_alone(&alone.nodes, &alone.table, &clash)
    }
}

/// A resolver is given what it needs and no more.
pub(super) fn withhold(clash: &mut Clash, needs: Needs) {
    if !needs.base {
        clash.base = None;
    }
}

fn stopped(failed: &Failed, alone: &Alone, place: Place, replay: Option<&Path>) -> Stopped {
    let mut reason = format!(
        "entry {} of shard {}: the resolver{} gives no verdict on table `{}`, key {}: {}",
        place.seq,
        place.shard,
        named(failed),
        alone.table.name,
        shown_key(alone),
        failed.why
    );
    let table = alone.table.name.clone();
    if !failed.is_verdict {
        return Stopped { reason, table, again: Some(Instant::now() + AGAIN) };
    }
    if let Some(hint) = &failed.hint {
        let mut letters = hint.trim_end_matches('.').chars();
        let first = letters.next().map(|letter| letter.to_ascii_lowercase()).into_iter();
        let _ = write!(reason, "; {}", first.chain(letters).collect::<String>());
    }
    if let Some(path) = replay {
        let _ = write!(reason, "; `antiphon plugin test --replay {}` reproduces it", path.display());
    }
    reason.push_str("; `antiphon policy apply` goes on with a policy that decides it or parks it");
    Stopped { reason, table, again: None }
}

fn named(failed: &Failed) -> String {
    let name = failed.details.iter().find(|(name, _)| name == "plugin");
    name.map(|(_, name)| format!(" `{name}`")).unwrap_or_default()
}

/// One block with everything there is to know.
fn tell(failed: &Failed, alone: &Alone, place: Place, parked: bool, replay: Option<&Path>) {
    let mut block = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = write!(block, "\n    {name:<10} {value}");
    };
    line("why", &failed.why);
    line("table", &alone.table.name);
    line("key", &shown_key(alone));
    line("kind", cause_name(alone.clash.cause));
    for (name, value) in &failed.details {
        line(name, value);
    }
    if let Some(hint) = &failed.hint {
        line("next", hint);
    }
    match replay {
        Some(path) => line("next", &format!("`antiphon plugin test --replay {}` reproduces it", path.display())),
        None => line("next", "try the component out with `antiphon plugin test`"),
    }
    let Place { shard, seq } = place;
    if parked {
        tracing::warn!("a clash of entry {seq} of shard {shard} is parked: its resolver gives no verdict{block}");
    } else {
        tracing::error!("shard {shard} stops before entry {seq}: a resolver gives no verdict{block}");
    }
}

/// The key, as far as fits a line.
fn shown_key(alone: &Alone) -> String {
    let values: Vec<String> = alone.clash.key.iter().map(crate::replay::literal).collect();
    let all = values.join(", ");
    match all.char_indices().nth(KEY_CHARS_MAX) {
        Some((end, _)) => format!("{}…", all.get(..end).unwrap_or_default()),
        None => all,
    }
}

const KEY_CHARS_MAX: usize = 120;
