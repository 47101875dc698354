//! One history: a cluster, its log, what goes wrong, and the trace of it all.

use crate::checker::{self, Witness};
use crate::coverage::Coverage;
use crate::oracle::changes_of;
use crate::plan::{Act, Plan, Step};
use crate::random::Random;
use crate::rule::Rule;
use crate::schema::{DDL, LATE_DDL, TABLES, WIDEN_DDL};
use crate::workload;
use antiphon::db::{self, Stop};
use antiphon::flaw::testing::on_fault;
use antiphon::log::{Faults, Log as _, Memory};
use antiphon::{publish, subscribe};
use antiphon_core::codec::decode;
use antiphon_core::entry::{Body, Entry};
use antiphon_harness::{Node, Setup};
use futures::executor::block_on;
use std::cell::Cell;
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

/// Lets a history happen.
pub(crate) fn run(plan: &Plan) -> Outcome {
    let mut trace = Vec::new();
    let mut coverage = Coverage::default();
    // What the product does wrong may also be a panic; the trace must survive it.
    let done = catch_unwind(AssertUnwindSafe(|| World::new(plan, &mut trace, &mut coverage)?.live(plan)));
    on_fault(|_| false);
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
    Outcome { trace, coverage, failure }
}

/// Where the process dies next: so many fault points from now on.
#[derive(Clone, Default)]
struct Death {
    countdown: Rc<Cell<u64>>,
    at: Rc<Cell<Option<&'static str>>>,
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
    trace: &'a mut Vec<String>,
    coverage: &'a mut Coverage,
}

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
            policies: TABLES
                .iter()
                .zip(config.rules)
                .filter(|(_, rule)| *rule != Rule::Plain)
                .map(|(shape, rule)| (shape.name, rule.name(), rule.make()))
                .collect(),
            ..Setup::default()
        };
        let nodes: Vec<Node> = (0..config.nodes).map(|node| Node::new(&log, setup(node), DDL)).collect();
        let shards = config.shards as usize;
        let witnesses = nodes.iter().map(|node| Witness::new(node, shards, config.rules)).collect();
        for node in &nodes {
            node.app.execute_batch("PRAGMA foreign_keys = ON").unwrap();
            node.app.set_prepared_statement_cache_capacity(64);
        }
        let death = Death::default();
        let hook = death.clone();
        on_fault(move |point| {
            let left = hook.countdown.get();
            hook.countdown.set(left.saturating_sub(1));
            let dies = left == 1;
            if dies {
                hook.at.set(Some(point));
            }
            dies
        });
        let mut world = Self {
            nodes,
            witnesses,
            log,
            entries: vec![Vec::new(); shards],
            death,
            checked: vec![vec![false; shards]; config.nodes],
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

    fn step(&mut self, step: &Step) -> Result<(), String> {
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
            Act::Seal | Act::Publish | Act::Apply | Act::Housekeep => return self.host(step),
        }
        Ok(())
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
            let count = random.weighted(&[(40, 1), (20, 2), (15, 3), (25, u64::MAX)]);
            faults.delay = (last - position).saturating_sub(count);
            faults.refuse_read = random.chance(4);
            said += &format!(
                " {} of shard {shard}{}",
                count.min(last - position),
                if faults.refuse_read { " (refuse read)" } else { "" }
            );
        }
        if random.chance(12) {
            self.death.countdown.set(random.within(1, 5));
        }
        let direct = random.chance(30);
        let lives_on = random.chance(35);
        self.log.fail(faults);
        let done = self.do_host(step, usize::try_from(shard).unwrap(), direct);
        let left = self.log.left();
        self.log.fail(Faults::default());
        self.death.countdown.set(0);
        let died = self.death.at.take();
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
            Err(error) if !may_fail => Err(format!("step {} failed: {error}", step.mark)),
            _ => Ok(()),
        }
    }

    fn do_host(&mut self, step: &Step, shard: usize, direct: bool) -> Result<String, String> {
        let node = &mut self.nodes[step.node];
        match step.act {
            Act::Seal => {
                let sealed = node.with(db::Database::seal).map_err(|error| error.to_string())?;
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
                let after = node.with(move |db| db.position(shard).seq).saturating_sub(2);
                let entries = block_on(node.log.read(shard, after, usize::MAX)).map_err(|error| error.to_string())?;
                let applied = node.with(move |db| db.apply(shard, &entries)).map_err(|error| error.to_string())?;
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
            || self.entries.len() > 1 && reason.contains("route");
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
                entries.push(decode(&placed.frame).map_err(|error| error.to_string())?);
            }
        }
        let seen = self.witnesses[node].observe(&self.nodes[node], &self.entries)?;
        for (saw, what) in [
            (seen.hidden, "hidden row"),
            (seen.pieces, "unit in pieces"),
            (seen.staged, "staged piece"),
            (seen.shadows, "shadow"),
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
        for _ in 0..ROUNDS_MAX {
            for node in 0..self.nodes.len() {
                self.drain(node)?;
                self.observe(node)?;
            }
            if self.nodes.iter().zip(&self.witnesses).all(|(node, witness)| witness.is_at_rest(node, &self.entries)) {
                for node in 0..self.nodes.len() {
                    self.observe(node)?;
                }
                for (_, _, unique) in self.witnesses[0].folds.iter().flat_map(|fold| &fold.clashes) {
                    self.coverage.see(if *unique { "clash over a unique value" } else { "clash over a key" });
                }
                return checker::at_rest(&self.nodes, &self.witnesses, &self.entries);
            }
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
