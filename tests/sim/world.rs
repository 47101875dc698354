//! One history: a cluster, its log, what goes wrong, and the trace of it all.

use crate::checker::{self, Witness};
use crate::coverage::Coverage;
use crate::oracle::changes_of;
use crate::plan::{Act, Plan, Step};
use crate::random::Random;
use crate::rule::{Rule, Rules, other, rules_of};
use crate::schema::{DDL, LATE_DDL, STOCK, TABLES, WATCH_DDL, WIDEN_DDL};
use crate::workload;
use antiphon::clock::testing as clock;
use antiphon::flaw::testing::on_fault;
use antiphon::log::{Log as _, Memory, Placement};
use antiphon::{publish, subscribe};
use antiphon_core::codec::decode;
use antiphon_core::entry::{Body, Bounds, Entry, InForce, OnFailure, Origin};
use antiphon_harness::{Node, Setup, decision};
use futures::executor::block_on;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

mod anew;
mod copying;
mod death;
mod host;
mod loss;
mod rescue;

use copying::Copy;
use death::Death;
use loss::Refusal;
use rescue::Image;

/// How a history ended.
pub(crate) struct Outcome {
    pub(crate) trace: Vec<String>,
    pub(crate) coverage: Coverage,
    pub(crate) failure: Option<String>,
}

/// Rounds in which a cluster without faults must come to rest; each lets everybody do all it can.
const ROUNDS_MAX: usize = 40;
/// Steps of one kind in which a node must have done all it can.
const STEPS_MAX: usize = 2000;

/// When every history begins, in milliseconds since 1970: what the machine's clock says must not decide who wins.
const BEGINNING_MS: u64 = 1_700_000_000_000;

/// Lets a history happen.
pub(crate) fn run(plan: &Plan) -> Outcome {
    let mut trace = Vec::new();
    let mut coverage = Coverage::default();
    // What the product does wrong may also be a panic; the trace must survive it.
    clock::set(Some(BEGINNING_MS));
    let done = catch_unwind(AssertUnwindSafe(|| World::new(plan, &mut trace, &mut coverage)?.live(plan)));
    on_fault(|_| false);
    clock::set(None);
    let failure = match done {
        Ok(done) => done.err(),
        Err(panic) => Some(match panic.downcast::<String>() {
            Ok(text) => format!("panic: {text}"),
            Err(panic) => format!("panic: {:?}", panic.downcast_ref::<&str>()),
        }),
    };
    if let Some(failure) = &failure {
        trace.push(format!("FAILED: {failure}"));
    }
    coverage.end();
    Outcome { trace, coverage, failure }
}

/// Entries of a shard, and where each of them stands.
type Lineage = (Vec<Entry>, Vec<Placement>);

struct World<'a> {
    nodes: Vec<Node>,
    witnesses: Vec<Witness>,
    log: Arc<Memory>,
    /// The log, decoded, shard by shard.
    entries: Vec<Vec<Entry>>,
    /// Where each of them stands in it, and stood in what it goes on from.
    places: Vec<Vec<Placement>>,
    death: Death,
    /// Whether a node's subscriber of a shard has read the log since the last start or error.
    checked: Vec<Vec<bool>>,
    /// What all clocks say that are not off, in milliseconds since 1970.
    now_ms: u64,
    /// How far each clock is off.
    offsets: Vec<i64>,
    /// Where a node stood in a shard whose log is no longer the one it applied: there it must stay.
    stranded: Vec<Vec<Option<u64>>>,
    /// The log has lost something.
    has_lost: bool,
    has_rolled: bool,
    /// What each node had applied of a shard that lost it since, with what came after.
    lineages: Vec<Vec<Option<Lineage>>>,
    /// The log has lost all it held, and has not begun again.
    is_emptied: bool,
    has_begun_again: bool,
    /// Another cluster has it.
    is_anothers: bool,
    /// A node needs entries that were rolled out, and says so.
    is_stuck: bool,
    /// The last clock of each origin in each shard.
    clocks: BTreeMap<(usize, Origin), (u64, u64)>,
    sticky: bool,
    /// Which policy each table begins with.
    rules: Rules,
    /// Copies of files on their way to be L, a node.
    copies: Vec<Option<Copy>>,
    /// Copies that became L.
    images: Vec<Image>,
    /// Policies change in this history.
    switches: bool,
    trace: &'a mut Vec<String>,
    coverage: &'a mut Coverage,
}

/// The hours, days and years that clocks are set by.
const JUMPS: [i64; 6] = [0, -3_600_000, 3_600_000, -86_400_000, 86_400_000, 10 * 365 * 86_400_000];

impl<'a> World<'a> {
    fn new(plan: &Plan, trace: &'a mut Vec<String>, coverage: &'a mut Coverage) -> Result<Self, String> {
        let config = plan.config;
        trace.push(format!("{config:?}"));
        for rule in config.rules.iter().filter(|rule| **rule != Rule::Plain) {
            coverage.see(rule.name());
        }
        coverage.see(match config.shards {
            1 => "one shard",
            2 => "two shards",
            _ => "three shards",
        });
        let log = Arc::new(Memory::new());
        let setup = |node: usize| Setup {
            node: node as u64 + 1,
            shards: config.shards,
            changes_max: config.changes_max[node],
            atomic_max: config.atomic_max[node],
            policies: TABLES
                .iter()
                .zip(config.rules)
                .filter(|(_, rule)| *rule != Rule::Plain)
                .map(|(shape, rule)| (shape.name, rule.name(), rule.make()))
                .collect(),
            on_failure: OnFailure::Park(Bounds::default()),
            resolvers: Rule::ALL.iter().map(|rule| (rule.name(), rule.make())).collect(),
            ..Setup::default()
        };
        let nodes: Vec<Node> = (0..config.nodes).map(|node| Node::new(&log, setup(node), DDL)).collect();
        let shards = config.shards as usize;
        let counts = config.switches || config.rules[STOCK] != Rule::Plain;
        let witnesses = nodes.iter().map(|node| Witness::new(node, shards, config.rules, counts)).collect();
        for node in &nodes {
            node.app.execute_batch("PRAGMA foreign_keys = ON").unwrap();
            node.app.execute_batch(WATCH_DDL).unwrap();
            node.app.set_prepared_statement_cache_capacity(64);
        }
        let death = Death::default();
        let hook = death.clone();
        on_fault(move |point| hook.comes(point));
        let mut world = Self {
            nodes,
            witnesses,
            log,
            entries: vec![Vec::new(); shards],
            places: vec![Vec::new(); shards],
            death,
            checked: vec![vec![false; shards]; config.nodes],
            now_ms: BEGINNING_MS,
            offsets: vec![0; config.nodes],
            stranded: vec![vec![None; shards]; config.nodes],
            has_lost: false,
            has_rolled: false,
            lineages: vec![vec![None; shards]; config.nodes],
            is_emptied: false,
            has_begun_again: false,
            is_anothers: false,
            is_stuck: false,
            clocks: BTreeMap::new(),
            sticky: config.sticky,
            rules: config.rules,
            copies: (0..config.nodes).map(|_| None).collect(),
            images: Vec::new(),
            switches: config.switches,
            trace,
            coverage,
        };
        for index in 0..config.before {
            let seed = plan.steps.first().map_or(0, |step| step.seed) ^ index;
            world.write(&Step { mark: 900 + index, node: 0, act: Act::Write, seed });
            world.coverage.see("rows before the cluster");
        }
        for node in &mut world.nodes {
            node.enter();
        }
        for node in 0..world.nodes.len() {
            world.observe(node)?;
        }
        Ok(world)
    }

    fn live(mut self, plan: &Plan) -> Result<(), String> {
        for step in &plan.steps {
            self.step(step)?;
            self.observe(step.node).map_err(|failure| format!("after step {}: {failure}", step.mark))?;
        }
        let rested = self.rest().map_err(|failure| format!("at rest: {failure}"));
        if rested.is_err() {
            self.trace_log();
        }
        rested?;
        let rows = self.witnesses[0].rows.clone();
        self.trace.push(format!("at rest: {rows:?}"));
        Ok(())
    }

    fn note(&mut self, step: &Step, what: &str) {
        let positions: Vec<u64> = self.witnesses[step.node].folds.iter().map(|fold| fold.position).collect();
        self.trace.push(format!("{:3} n{} at {positions:?} {what}", step.mark, step.node + 1));
    }

    /// Often no time passes: two writes in one millisecond must have a winner, too.
    fn pass_time(&mut self, step: &Step) {
        self.now_ms += Random::new(!step.seed).weighted(&[(50, 0), (30, 1), (15, 3), (5, 1000)]);
        self.set_clock(step.node);
    }

    /// It is now what this node's clock says.
    fn set_clock(&self, node: usize) {
        clock::set(Some(self.now_ms.saturating_add_signed(self.offsets[node])));
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        self.pass_time(step);
        match step.act {
            Act::Write => self.write(step),
            Act::Create => {
                if !self.witnesses[step.node].has_late {
                    self.coverage.see("late table");
                    self.nodes[step.node].app.execute_batch(LATE_DDL).unwrap();
                    self.witnesses[step.node].has_late = true;
                    self.note(step, LATE_DDL);
                }
            }
            Act::Widen => {
                if !self.witnesses[step.node].is_wide {
                    self.coverage.see("late column");
                    self.widen(step.node);
                    self.note(step, WIDEN_DDL);
                }
            }
            Act::Crash => {
                self.coverage.see("crash between steps");
                self.crash(step.node);
                self.note(step, "crash");
            }
            Act::Jump => {
                self.coverage.see("clock jump");
                let offset = Random::new(step.seed).pick(&JUMPS);
                self.offsets[step.node] = offset;
                self.note(step, &format!("clock off by {offset} ms"));
            }
            Act::Propose => self.propose(step),
            Act::Copy => return self.copy(step),
            Act::LoseTail | Act::RollOver | Act::Recreate | Act::Empty => self.lose(step),
            Act::Anew => return self.begin_again(step),
            Act::Seal | Act::Publish | Act::Apply | Act::Housekeep => return self.host(step),
        }
        Ok(())
    }

    /// Other policies are proposed upon those that this node knows of; another may have been quicker.
    fn propose(&mut self, step: &Step) {
        if self.stranded[step.node].iter().any(Option::is_some) {
            return;
        }
        let mut random = Random::new(step.seed);
        let (node, witness) = (&self.nodes[step.node], &self.witnesses[step.node]);
        let newest = witness.decisions.newest();
        let before = witness.decisions.rules(newest).unwrap_or(witness.folds[0].rules);
        let rules = other(&mut random, before);
        let named = TABLES.iter().zip(rules).filter(|(_, rule)| *rule != Rule::Plain);
        let named: Vec<(&str, &str)> = named.map(|(shape, rule)| (shape.name, rule.name())).collect();
        let mut decision = decision(newest + 1, &named);
        for policy in &mut decision.policies {
            policy.on_failure = OnFailure::Park(Bounds::default());
        }
        node.propose(decision);
        self.coverage.see("policies proposed");
        self.note(step, &format!("proposes version {} of the policies: {named:?}", newest + 1));
    }

    fn widen(&mut self, node: usize) {
        self.nodes[node].app.execute_batch(WIDEN_DDL).unwrap();
        self.witnesses[node].is_wide = true;
    }

    fn crash(&mut self, node: usize) {
        self.nodes[node].crash();
        self.checked[node].fill(false);
    }

    /// The application writes; SQLite may refuse, and then the application goes on.
    fn write(&mut self, step: &Step) {
        let mut random = Random::new(step.seed);
        let (node, witness) = (&self.nodes[step.node], &mut self.witnesses[step.node]);
        let has = workload::Has { late: witness.has_late, wide: witness.is_wide, stock: witness.counts() };
        let work = workload::work(&mut random, step.mark, &witness.rows, has);
        let mut said = Vec::new();
        for (name, sql) in &work.statements {
            let before = node.app.total_changes();
            let done = node.app.execute_batch(sql);
            if done.is_err() {
                self.coverage.see("refused by SQLite");
            } else if !name.is_empty() && (node.app.total_changes() > before || *name == "rollback to") {
                self.coverage.see(name);
            }
            said.push(format!("{sql}{}", if done.is_err() { " -- refused" } else { "" }));
        }
        if witness.committed(node) {
            self.coverage.see(work.kind);
        } else if work.kind == "rollback" {
            self.coverage.see("rollback");
        }
        self.note(step, &said.join("; "));
    }

    fn observe(&mut self, node: usize) -> Result<(), String> {
        for (index, entries) in self.entries.iter_mut().enumerate() {
            let shard = u32::try_from(index).unwrap() + 1;
            for placed in block_on(self.log.read(shard, entries.len() as u64, usize::MAX)).unwrap() {
                let entry = decode(&placed.frame).map_err(|error| error.to_string())?;
                let writer = self.witnesses.iter().position(|witness| witness.origin == entry.origin);
                if let Some(writer) = writer.filter(|writer| self.stranded[*writer][index].is_some()) {
                    return Err(format!("node {} appended to a log that is not the one it applied", writer + 1));
                }
                let (number, clock) = self.clocks.entry((index, entry.origin)).or_default();
                if entry.number > *number {
                    if entry.clock < *clock {
                        return Err(format!("the clock of node {} went back", entry.origin.node));
                    }
                    (*number, *clock) = (entry.number, entry.clock);
                }
                entries.push(entry);
                self.places[index].push(placed.placement());
            }
        }
        for (shard, at) in self.stranded[node].iter().enumerate().filter_map(|(shard, at)| Some((shard, (*at)?))) {
            let shard = u32::try_from(shard).unwrap() + 1;
            let position = self.nodes[node].with(move |db| db.position(shard).seq);
            if position != at {
                return Err(format!("node {} applied from {at} to {position} what came after a loss", node + 1));
            }
        }
        let seen = self.witnesses[node].observe(&self.nodes[node], &self.entries)?;
        for (saw, what) in [
            (seen.hidden, "hidden row"),
            (seen.pieces, "unit in pieces"),
            (seen.staged, "staged piece"),
            (seen.shadows, "shadow"),
            (seen.sliced, "unit in slices"),
            (seen.displaced, "row makes room"),
        ] {
            if saw {
                self.coverage.see(what);
            }
        }
        Ok(())
    }

    /// Nothing fails any more, everybody does all it can: the cluster must come to rest, and then be equal.
    fn rest(&mut self) -> Result<(), String> {
        for node in 0..self.nodes.len() {
            if self.witnesses.iter().any(|witness| witness.has_late) && !self.witnesses[node].has_late {
                self.nodes[node].app.execute_batch(LATE_DDL).unwrap();
                self.witnesses[node].has_late = true;
            }
        }
        if self.witnesses.iter().any(|witness| witness.is_wide) {
            for node in 0..self.nodes.len() {
                if !self.witnesses[node].is_wide {
                    self.widen(node);
                }
            }
        }
        self.lead_on()?;
        let is_stranded = |stranded: &[Option<u64>]| stranded.iter().any(Option::is_some);
        for node in 0..self.nodes.len() {
            if is_stranded(&self.stranded[node])
                && let Some(said) = self.rescue(node)?
            {
                self.trace.push(format!("at rest: n{} {said}", node + 1));
                self.observe(node)?;
            }
        }
        let sound: Vec<usize> = (0..self.nodes.len()).filter(|node| !is_stranded(&self.stranded[*node])).collect();
        for node in (0..self.nodes.len()).filter(|node| !sound.contains(node)) {
            self.must_stop(node)?;
        }
        for _ in 0..ROUNDS_MAX {
            for &node in &sound {
                self.set_clock(node);
                match self.drain(node) {
                    Err(refusal) if self.stops_honestly(node, &refusal) => {}
                    done => done.map_err(|refusal| refusal.words)?,
                }
                self.observe(node)?;
            }
            if sound.iter().all(|node| self.witnesses[*node].is_at_rest(&self.nodes[*node], &self.entries)) {
                for node in 0..self.nodes.len() {
                    self.observe(node)?;
                }
                if sound.first().is_some_and(|node| self.witnesses[*node].decisions.newest() > 0) {
                    self.coverage.see("policies in force");
                }
                for (_, _, unique) in self.witnesses[0].folds.iter().flat_map(|fold| &fold.clashes) {
                    self.coverage.see(if *unique { "clash over a unique value" } else { "clash over a key" });
                }
                self.finish_copies()?;
                if sound.len() == self.nodes.len() {
                    self.must_owe_nothing()?;
                }
                let has = (self.has_rolled, self.has_begun_again);
                return checker::at_rest(&self.nodes, &self.witnesses, &sound, has, &self.entries);
            }
        }
        if self.is_stuck {
            return Ok(());
        }
        let log: Vec<usize> = self.entries.iter().map(Vec::len).collect();
        let places: Vec<Vec<u64>> =
            self.witnesses.iter().map(|witness| witness.folds.iter().map(|fold| fold.position).collect()).collect();
        Err(format!("the cluster does not come to rest: the log ends at {log:?}, and nodes stand at {places:?}"))
    }

    /// What is in the log, for whoever reads the trace.
    fn trace_log(&mut self) {
        for (shard, entries) in self.entries.iter().enumerate() {
            for (index, entry) in entries.iter().enumerate() {
                if let Body::Decided(decision) | Body::InForce(InForce { decision, .. }) = &entry.body {
                    let which = if matches!(entry.body, Body::Decided(_)) { "decided" } else { "in force" };
                    let said = format!("version {} {which}: {:?}", decision.version, rules_of(&decision.policies));
                    self.trace.push(format!("log {}/{} n{} {said}", shard + 1, index + 1, entry.origin.node));
                    continue;
                }
                let Body::Changes(changes) = &entry.body else { continue };
                let said: Vec<String> = changes_of(changes)
                    .into_iter()
                    .map(|((table, key), image, seen)| {
                        format!("{}{key:?} := {image:?} seen {seen}", TABLES[table].name)
                    })
                    .collect();
                self.trace.push(format!(
                    "log {}/{} n{} number {}{}: {}",
                    shard + 1,
                    index + 1,
                    entry.origin.node,
                    entry.number,
                    if changes.more { ", more" } else { "" },
                    said.join("; ")
                ));
            }
        }
    }

    /// A node publishes and applies until it has nothing to do.
    fn drain(&mut self, node: usize) -> Result<(), Refusal> {
        let mut steps = 0;
        while block_on(self.nodes[node].publisher.step())? == publish::Progress::More {
            steps += 1;
            if steps > STEPS_MAX {
                return Err(format!("node {} never stops sealing", node + 1).into());
            }
        }
        for shard in 0..self.entries.len() {
            loop {
                match block_on(self.nodes[node].subscribers[shard].step())? {
                    subscribe::Progress::More => {}
                    subscribe::Progress::Idle(_) => break,
                    subscribe::Progress::Blocked(obstacle) => {
                        self.blocked(node, &obstacle)?;
                        break;
                    }
                }
                steps += 1;
                if steps > STEPS_MAX {
                    return Err(format!("node {} never stops applying", node + 1).into());
                }
            }
        }
        Ok(())
    }
}
