//! One history: a cluster, its log, what goes wrong, and the trace of it all.

use crate::checker::{self, Witness};
use crate::coverage::Coverage;
use crate::oracle::changes_of;
use crate::plan::{Act, Plan, Step};
use crate::random::Random;
use crate::rule::Rule;
use crate::schema::{DDL, LATE_DDL, TABLES, WATCH_DDL, WIDEN_DDL};
use crate::workload;
use antiphon::clock::testing as clock;
use antiphon::db::{self, Stop};
use antiphon::flaw::testing::on_fault;
use antiphon::log::{Faults, Log as _, Memory};
use antiphon::{publish, subscribe};
use antiphon_core::codec::Encoder;
use antiphon_core::codec::decode;
use antiphon_core::entry::{Body, Bounds, Changes, Entry, Genesis, OnFailure, Origin};
use antiphon_harness::{Node, Setup};
use futures::executor::block_on;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

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

/// Where the process dies next: so many fault points from now on, or at the next one of a name.
#[derive(Clone, Default)]
struct Death {
    countdown: Rc<Cell<u64>>,
    /// What is passed after it fails as well, as on a disk that is broken.
    sticky: Rc<Cell<bool>>,
    wanted: Rc<Cell<Option<&'static str>>>,
    at: Rc<Cell<Option<&'static str>>>,
    again: Rc<Cell<Option<&'static str>>>,
}

impl Death {
    /// Whether the process dies at this point.
    fn comes(&self, point: &'static str) -> bool {
        let left = self.countdown.get();
        self.countdown.set(left.saturating_sub(1));
        if left == 1 || self.wanted.get() == Some(point) {
            self.avert();
            self.at.set(Some(point));
            return true;
        }
        let fails_again = self.sticky.get() && self.at.get().is_some();
        if fails_again {
            self.again.set(Some(point));
        }
        fails_again
    }

    fn avert(&self) {
        self.countdown.set(0);
        self.wanted.set(None);
    }
}

struct World<'a> {
    nodes: Vec<Node>,
    witnesses: Vec<Witness>,
    log: Arc<Memory>,
    /// The log, decoded, shard by shard.
    entries: Vec<Vec<Entry>>,
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
    /// The last clock of each origin in each shard.
    clocks: BTreeMap<(usize, Origin), (u64, u64)>,
    sticky: bool,
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
            ..Setup::default()
        };
        let nodes: Vec<Node> = (0..config.nodes).map(|node| Node::new(&log, setup(node), DDL)).collect();
        let shards = config.shards as usize;
        let witnesses = nodes.iter().map(|node| Witness::new(node, shards, config.rules)).collect();
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
            death,
            checked: vec![vec![false; shards]; config.nodes],
            now_ms: BEGINNING_MS,
            offsets: vec![0; config.nodes],
            stranded: vec![vec![None; shards]; config.nodes],
            has_lost: false,
            has_rolled: false,
            clocks: BTreeMap::new(),
            sticky: config.sticky,
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
            Act::LoseTail | Act::RollOver | Act::Recreate => self.lose(step),
            Act::Seal | Act::Publish | Act::Apply | Act::Housekeep => return self.host(step),
        }
        Ok(())
    }

    /// The log is no longer what was applied: each node that had read what is gone, or had not read it yet, stays
    /// where it is. Nodes that lost nothing go on.
    fn lose(&mut self, step: &Step) {
        let mut random = Random::new(step.seed);
        let shard = usize::try_from(random.below(self.entries.len() as u64)).unwrap();
        let number = u32::try_from(shard).unwrap() + 1;
        let last = self.entries[shard].len() as u64;
        // The genesis stays, and one entry: without them it is a log made anew.
        let count = random.within(1, 6).min(last.saturating_sub(1));
        if step.act != Act::Recreate && count == 0 || self.has_lost {
            return;
        }
        self.has_lost = true;
        match step.act {
            Act::LoseTail => {
                self.log.lose_tail(number, count);
                let left = last - count;
                self.entries[shard].truncate(usize::try_from(left).unwrap());
                self.clocks.retain(|(at, _), _| *at != shard);
                self.strand(shard, |position| position > left);
                self.coverage.see("lost tail");
                self.note(step, &format!("shard {number} loses its last {count} entries of {last}"));
            }
            Act::RollOver => {
                let up_to = random.within(1, last - 1);
                self.log.roll_over(number, up_to);
                self.has_rolled = true;
                self.strand(shard, |position| position <= up_to);
                self.coverage.see("rolled over");
                self.note(step, &format!("shard {number} lets go of its entries up to {up_to} of {last}"));
            }
            _ => {
                self.log.recreate();
                for shard in 0..self.entries.len() {
                    self.entries[shard].clear();
                    self.strand(shard, |_| true);
                }
                self.clocks.clear();
                self.coverage.see("recreated");
                let grown = random.pick(&[0, 1, 20]);
                self.found_another(grown);
                self.note(step, &format!("the log is made anew, with {grown} entries of another cluster"));
            }
        }
    }

    fn strand(&mut self, shard: usize, gone: impl Fn(u64) -> bool) {
        for ((witness, node), stranded) in self.witnesses.iter().zip(&self.nodes).zip(&mut self.stranded) {
            let position = witness.folds[shard].position;
            let number = u32::try_from(shard).unwrap() + 1;
            // Of what a unit in slices ends with, a part has been applied.
            if gone(node.with(move |db| db.anchor(number).seq)) {
                stranded[shard] = Some(position);
            }
        }
    }

    /// Somebody else uses the log that was made anew.
    fn found_another(&self, entries: u64) {
        let origin = Origin { node: 77, incarnation: 1 };
        let frame = |number, body| {
            Encoder::new(None).encode(&Entry { cluster: [8; 16], origin, number, clock: 1, body }).unwrap()
        };
        let shards = u32::try_from(self.entries.len()).unwrap();
        if entries > 0 {
            let genesis = Genesis {
                shards,
                hasher: "test".into(),
                hasher_settings: Vec::new(),
                resolver: "test".into(),
                wire: 1,
                ..Genesis::default()
            };
            assert!(block_on(self.log.begin(1, &frame(0, Body::Genesis(genesis)))).unwrap());
        }
        for shard in 1..=shards {
            for number in 1..entries {
                let changes = Changes { more: false, seen: 0, chunks: Vec::new() };
                let frame = frame(number, Body::Changes(changes));
                block_on(self.log.append(shard, origin, number, &[frame])).unwrap();
            }
        }
    }

    /// A node that lost something says so and stops; what it says, and whether it may.
    fn stops_honestly(&mut self, node: usize, said: &str) -> bool {
        let stranded = self.stranded[node].iter().any(Option::is_some);
        // What was acknowledged to a node and lost before it came back is sent again after a start.
        let unsent = self.has_lost && said.contains("was acknowledged; its tail is lost");
        let lost =
            ["its tail is lost", "begins at entry", "another entry at position", "rolled out", "another cluster"];
        let honest = unsent || stranded && lost.iter().any(|lost| said.contains(lost));
        if honest {
            self.coverage.see(if stranded { "honest stop" } else { "sent again after a loss" });
            self.crash(node);
        }
        honest
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

    /// A step of the host's, in which the process may die or the log fail.
    fn host(&mut self, step: &Step) -> Result<(), String> {
        let mut random = Random::new(step.seed);
        let shard = random.within(1, self.entries.len() as u64);
        let position = self.witnesses[step.node].folds[usize::try_from(shard).unwrap() - 1].position;
        let last = block_on(self.log.bounds(u32::try_from(shard).unwrap())).unwrap().last;
        let mut faults = Faults::default();
        let mut said = format!("{:?}", step.act).to_lowercase();
        if step.act == Act::Publish && random.chance(20) {
            let fault = random.pick(&["refuse append", "lose ack", "redeliver"]);
            match fault {
                "refuse append" => faults.refuse_append = true,
                "lose ack" => faults.lose_ack = true,
                _ => faults.redeliver = true,
            }
            said += &format!(" ({fault})");
        }
        if step.act == Act::Apply {
            let count = random.weighted(&[(30, 1), (20, 2), (15, 3), (35, u64::MAX)]);
            faults.delay = last.saturating_sub(position).saturating_sub(count);
            faults.refuse_read = random.chance(4);
            said += &format!(
                " {} of shard {shard}{}",
                count.min(last.saturating_sub(position)),
                if faults.refuse_read { " (refuse read)" } else { "" }
            );
        }
        if random.chance(12) {
            // Most points are passed once an entry: those behind the first of several lie far.
            let last = random.pick(&[5, 12]);
            self.death.countdown.set(random.within(1, last));
        } else if step.act == Act::Apply && random.chance(20) {
            // What was done is undone, and done again with other entries beside it.
            self.death.wanted.set(Some(random.pick(&["applied", "commit"])));
        }
        let direct = random.chance(30) && self.stranded[step.node].iter().all(Option::is_none);
        let lives_on = random.chance(50);
        self.death.sticky.set(self.sticky && random.chance(30));
        self.log.fail(faults);
        let done = self.do_host(step, usize::try_from(shard).unwrap(), direct);
        let left = self.log.left();
        self.log.fail(Faults::default());
        self.death.avert();
        self.death.sticky.set(false);
        let died = self.death.at.take();
        if let Some(point) = self.death.again.take() {
            self.coverage.see(&format!("die at {point}"));
            self.coverage.see("a step of failures");
        }
        let failed_log = [
            (faults.refuse_append && !left.refuse_append, "refuse append"),
            (faults.lose_ack && !left.lose_ack, "lose ack"),
            (faults.redeliver && !left.redeliver, "redeliver"),
            (faults.refuse_read && !left.refuse_read, "refuse read"),
            (faults.delay > 0 && left.delay == 0, "delay"),
        ];
        for (_, fault) in failed_log.iter().filter(|(struck, _)| *struck) {
            self.coverage.see(fault);
        }
        let may_fail = died.is_some()
            || failed_log.iter().any(|(struck, fault)| *struck && !matches!(*fault, "delay" | "redeliver"));
        if let Some(point) = died {
            self.coverage.see(&format!("die at {point}"));
        }
        match &done {
            Ok(what) => said += &format!(" => {what}"),
            Err(error) => {
                said += &format!(" => {error}{}", died.map(|point| format!(" at {point}")).unwrap_or_default());
            }
        }
        if died.is_some() {
            if lives_on {
                self.coverage.see("error survived");
            } else {
                self.crash(step.node);
                said += ", crash";
            }
        }
        self.note(step, &said);
        match done {
            Err(error) if !may_fail && !self.stops_honestly(step.node, &error) => {
                Err(format!("step {} failed: {error}", step.mark))
            }
            _ => Ok(()),
        }
    }

    fn do_host(&mut self, step: &Step, shard: usize, direct: bool) -> Result<String, String> {
        let node = &mut self.nodes[step.node];
        match step.act {
            Act::Seal => {
                let sealed = block_on(node.db.call(db::Database::seal)).map_err(|error| error.to_string())?;
                Ok(format!("more: {sealed}"))
            }
            Act::Publish => {
                let done = block_on(node.publisher.step()).map_err(|error| error.to_string())?;
                Ok(format!("{done:?}"))
            }
            Act::Housekeep => {
                let room = if direct { 1 } else { u64::MAX };
                let due = db::Due { before_ms: u64::MAX, excess_bytes: 0 };
                let pruned = node.with(move |db| db.prune(due, room)).map_err(|error| error.to_string())?;
                if pruned.batches > 0 {
                    self.coverage.see("pruned");
                }
                Ok(format!("anything: {}", pruned.batches > 0))
            }
            // The same without the subscriber, which would otherwise see all there is at its first read.
            Act::Apply if direct && self.checked[step.node][shard - 1] => {
                let shard = u32::try_from(shard).unwrap();
                // Some of them once more: what has been applied must not be again.
                let position = block_on(node.db.call(move |db| Ok(db.position(shard).seq)));
                let after = position.map_err(|error| error.to_string())?.saturating_sub(2);
                let entries = block_on(node.log.read(shard, after, usize::MAX)).map_err(|error| error.to_string())?;
                let applied = block_on(node.db.call(move |db| db.apply(shard, &entries)));
                let applied = applied.map_err(|error| error.to_string())?;
                match applied.stop {
                    Some(Stop::Blocked(reason)) => self.blocked(step.node, &reason),
                    stop => Ok(format!("{} entries, {stop:?}", applied.entries)),
                }
            }
            _ => {
                let stepped = block_on(node.subscribers[shard - 1].step());
                self.checked[step.node][shard - 1] = stepped.is_ok();
                match stepped.map_err(|error| error.to_string())? {
                    subscribe::Progress::Blocked(reason) => self.blocked(step.node, &reason),
                    done => Ok(format!("{done:?}")),
                }
            }
        }
    }

    /// A node may wait for what only its user can do, or for another shard; for nothing else.
    fn blocked(&mut self, node: usize, reason: &str) -> Result<String, String> {
        let excused = reason.contains("`late`") && !self.witnesses[node].has_late
            || reason.contains("`extra`") && !self.witnesses[node].is_wide
            || self.entries.len() > 1 && reason.contains("agreed over which shards")
            || reason.contains("another cluster") && self.stranded[node].contains(&Some(0));
        if excused {
            self.coverage.see("blocked");
            Ok(format!("blocked: {reason}"))
        } else {
            Err(format!("blocked: {reason}"))
        }
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
        let is_stranded = |stranded: &[Option<u64>]| stranded.iter().any(Option::is_some);
        let sound: Vec<usize> = (0..self.nodes.len()).filter(|node| !is_stranded(&self.stranded[*node])).collect();
        for node in (0..self.nodes.len()).filter(|node| !sound.contains(node)) {
            self.must_stop(node)?;
        }
        for _ in 0..ROUNDS_MAX {
            for &node in &sound {
                self.set_clock(node);
                match self.drain(node) {
                    Err(error) if self.stops_honestly(node, &error) => {}
                    done => done?,
                }
                self.observe(node)?;
            }
            if sound.iter().all(|node| self.witnesses[*node].is_at_rest(&self.nodes[*node], &self.entries)) {
                for node in 0..self.nodes.len() {
                    self.observe(node)?;
                }
                for (_, _, unique) in self.witnesses[0].folds.iter().flat_map(|fold| &fold.clashes) {
                    self.coverage.see(if *unique { "clash over a unique value" } else { "clash over a key" });
                }
                return checker::at_rest(&self.nodes, &self.witnesses, &sound, self.has_rolled, &self.entries);
            }
        }
        let log: Vec<usize> = self.entries.iter().map(Vec::len).collect();
        let places: Vec<Vec<u64>> =
            self.witnesses.iter().map(|witness| witness.folds.iter().map(|fold| fold.position).collect()).collect();
        Err(format!("the cluster does not come to rest: the log ends at {log:?}, and nodes stand at {places:?}"))
    }

    /// A node whose log is lost stays where it is, and says why: the subscriber of that shard, at every try.
    fn must_stop(&mut self, node: usize) -> Result<(), String> {
        for shard in 0..self.entries.len() {
            let Some(at) = self.stranded[node][shard] else { continue };
            self.crash(node);
            let mut stepped = block_on(self.nodes[node].subscribers[shard].step());
            // Rows are marked and sealed before anything is looked at.
            for _ in 0..STEPS_MAX {
                if !matches!(stepped, Ok(subscribe::Progress::More)) {
                    break;
                }
                stepped = block_on(self.nodes[node].subscribers[shard].step());
            }
            let published = block_on(self.nodes[node].publisher.step()).map_err(|error| error.to_string());
            self.observe(node)?;
            if let Err(error) = published.as_ref()
                && !self.stops_honestly(node, error)
            {
                return Err(format!("node {} cannot publish: {error}", node + 1));
            }
            match stepped {
                Err(error) if self.stops_honestly(node, &error.to_string()) => {}
                // Who had read nothing has lost nothing: it waits for a genesis of its own cluster.
                Ok(subscribe::Progress::Blocked(reason)) if at == 0 && reason.contains("another cluster") => {}
                Ok(subscribe::Progress::Idle(0)) if at == 0 => {}
                stepped => return Err(format!("node {} does not stop, and its log is lost: {stepped:?}", node + 1)),
            }
        }
        Ok(())
    }

    /// What is in the log, for whoever reads the trace.
    fn trace_log(&mut self) {
        for (shard, entries) in self.entries.iter().enumerate() {
            for (index, entry) in entries.iter().enumerate() {
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
    fn drain(&mut self, node: usize) -> Result<(), String> {
        let mut steps = 0;
        while block_on(self.nodes[node].publisher.step()).map_err(|error| error.to_string())? == publish::Progress::More
        {
            steps += 1;
            if steps > STEPS_MAX {
                return Err(format!("node {} never stops sealing", node + 1));
            }
        }
        for shard in 0..self.entries.len() {
            loop {
                match block_on(self.nodes[node].subscribers[shard].step()).map_err(|error| error.to_string())? {
                    subscribe::Progress::More => {}
                    subscribe::Progress::Idle(_) => break,
                    subscribe::Progress::Blocked(reason) => {
                        self.blocked(node, &reason)?;
                        break;
                    }
                }
                steps += 1;
                if steps > STEPS_MAX {
                    return Err(format!("node {} never stops applying", node + 1));
                }
            }
        }
        Ok(())
    }
}
