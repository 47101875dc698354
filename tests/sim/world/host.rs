//! What a node's host does in a step, and what it may wait for.

use super::World;
use super::loss::Refusal;
use crate::plan::{Act, Step};
use crate::random::Random;
use antiphon::db::{self, Obstacle, ObstacleKind, Stop};
use antiphon::log::{Faults, Log as _};
use antiphon::subscribe;
use futures::executor::block_on;

impl World<'_> {
    /// A step of the host's, in which the process may die or the log fail.
    pub(super) fn host(&mut self, step: &Step) -> Result<(), String> {
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
        } else if self.switches && random.chance(25) {
            let point = match step.act {
                Act::Apply => random.pick(&["decided", "in-force", "recaptured"]),
                _ => random.pick(&["covered", "covered", "turn", "turned"]),
            };
            self.death.wanted.set(Some(point));
        }
        if self.stranded[step.node].iter().any(Option::is_some) && random.chance(40) {
            let said = self.rescue(step.node)?;
            let died = self.death.at.take();
            self.death.avert();
            if let Some(point) = died {
                self.coverage.see(&format!("die at {point}"));
            }
            if let Some(said) = said {
                self.note(step, &said);
                return Ok(());
            }
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
            Err(refusal) => {
                said +=
                    &format!(" => {}{}", refusal.words, died.map(|point| format!(" at {point}")).unwrap_or_default());
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
            Err(refusal) if !may_fail && !self.stops_honestly(step.node, &refusal) => {
                Err(format!("step {} failed: {}", step.mark, refusal.words))
            }
            _ => Ok(()),
        }
    }

    fn do_host(&mut self, step: &Step, shard: usize, direct: bool) -> Result<String, Refusal> {
        let node = &mut self.nodes[step.node];
        match step.act {
            Act::Seal => {
                let sealed = block_on(node.db.call(db::Database::seal))?;
                Ok(format!("more: {sealed}"))
            }
            Act::Publish => {
                let done = block_on(node.publisher.step())?;
                Ok(format!("{done:?}"))
            }
            Act::Housekeep => {
                let room = if direct { 1 } else { u64::MAX };
                let due = db::Due { before_ms: u64::MAX, excess_bytes: 0 };
                let pruned = node.with(move |db| db.prune(due, room))?;
                if pruned.batches > 0 {
                    self.coverage.see("pruned");
                }
                Ok(format!("anything: {}", pruned.batches > 0))
            }
            // The same without the subscriber, which would otherwise see all there is at its first read.
            Act::Apply if direct && self.checked[step.node][shard - 1] => {
                let shard = u32::try_from(shard).unwrap();
                // Some of them once more: what has been applied must not be again.
                let position = block_on(node.db.call(move |db| Ok(db.position(shard).seq)))?;
                let after = position.saturating_sub(2);
                let entries = block_on(node.log.read(shard, after, usize::MAX))?;
                let applied = block_on(node.db.call(move |db| db.apply(shard, &entries)));
                let applied = applied?;
                match applied.stop {
                    Some(Stop::Blocked(obstacle)) => self.blocked(step.node, &obstacle),
                    stop => Ok(format!("{} entries, {stop:?}", applied.entries)),
                }
            }
            _ => {
                let stepped = block_on(node.subscribers[shard - 1].step());
                self.checked[step.node][shard - 1] = stepped.is_ok();
                match stepped? {
                    subscribe::Progress::Blocked(obstacle) => self.blocked(step.node, &obstacle),
                    done => Ok(format!("{done:?}")),
                }
            }
        }
    }

    /// A node may wait for what only its user can do, or for another shard; for nothing else.
    pub(super) fn blocked(&mut self, node: usize, obstacle: &Obstacle) -> Result<String, Refusal> {
        let witness = &self.witnesses[node];
        let excused = match obstacle.kind() {
            ObstacleKind::Table(table) => table == "late" && !witness.has_late,
            ObstacleKind::Column { column, .. } => column == "extra" && !witness.is_wide,
            ObstacleKind::Route | ObstacleKind::Undecided => self.entries.len() > 1,
            ObstacleKind::Uncovered { stuck } => !stuck || self.has_rolled,
            ObstacleKind::Cluster => self.stranded[node].contains(&Some(0)),
            ObstacleKind::Component | ObstacleKind::Other => false,
        };
        if excused {
            self.coverage.see("blocked");
            if let ObstacleKind::Uncovered { stuck } = obstacle.kind() {
                self.coverage.see("a policy waits");
                self.is_stuck |= stuck;
            }
            Ok(format!("blocked: {obstacle}"))
        } else {
            Err(obstacle.into())
        }
    }
}
