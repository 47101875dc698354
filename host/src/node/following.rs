//! The task that follows one shard of the log.

use super::failing::{chain, is_lasting_db, lost_log, unable};
use super::retry::Retry;
use crate::db::ObstacleKind;
use crate::failure::Failure;
use crate::guard::Activity;
use crate::log::{self, Log, Shard};
use crate::metrics::table::Id;
use crate::report::Board;
use crate::seq_map::SeqMap;
use crate::subscribe::{self, Progress, Subscriber};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often a shard that can't go on looks whether it can.
const BLOCKED_POLL: Duration = Duration::from_millis(500);
const BLOCKED_FIRST_POLL: Duration = Duration::from_millis(20);

/// What it needs.
pub(super) struct Following {
    pub(super) subscriber: Subscriber,
    pub(super) log: Arc<dyn Log>,
    pub(super) shard: Shard,
    pub(super) moved: Arc<tokio::sync::Notify>,
    pub(super) activity: Arc<Activity>,
    pub(super) board: Board,
    pub(super) seq_map: SeqMap,
    /// It has read all there was once.
    pub(super) is_at_end: bool,
}

impl Following {
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), Failure> {
        let mut retry = Retry::default();
        let mut blocked: Option<String> = None;
        let mut said: Option<String> = None;
        let part = format!("shard {}", self.shard);
        while !stop.is_cancelled() {
            let stepped = self.subscriber.step().await;
            self.note();
            if let Some(reached) = self.subscriber.take_reached() {
                self.seq_map.note([(self.shard, reached)]);
            }
            match stepped {
                Ok(Progress::More) => {
                    retry.reset();
                    self.activity.note();
                    self.board.well(&part);
                    self.moved.notify_one();
                }
                Ok(Progress::Idle(position)) => {
                    retry.reset();
                    self.board.well(&part);
                    blocked = None;
                    if !self.is_at_end {
                        self.is_at_end = true;
                        let shard = self.shard;
                        self.board.aside(|asides| asides.caught_up.extend([shard]));
                    }
                    if said.take().is_some() {
                        info!("resumed");
                    }
                    self.moved.notify_one();
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        () = self.log.changed(self.shard, position) => {}
                    }
                }
                Ok(Progress::Blocked(obstacle)) => {
                    let reason = obstacle.to_string();
                    // What ends by itself at once, as a route that comes by another shard does, is not worth a word.
                    let again = blocked.as_ref() == Some(&reason);
                    if again && said.as_ref() != Some(&reason) {
                        warn!(reason, "paused until this changes; capture goes on");
                        said = Some(reason.clone());
                    }
                    if again && matches!(obstacle.kind(), ObstacleKind::Table(_) | ObstacleKind::Column { .. }) {
                        self.board.paused_over_schema(&part, &reason);
                    } else if again {
                        self.board.paused(&part, &reason);
                    }
                    blocked = Some(reason);
                    // What ends it may be the publisher's to do, who had looked before there was anything.
                    self.moved.notify_one();
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(if again { BLOCKED_POLL } else { BLOCKED_FIRST_POLL }) => {}
                    }
                }
                Err(error) if is_broken(&error) => {
                    return Err(match &error {
                        subscribe::Error::Db(_) => unable("cannot follow the log", &error),
                        subscribe::Error::Log(_) => lost_log("cannot follow the log", &error),
                        subscribe::Error::Broken { .. } => lost_log("cannot follow the log", &error).of_a_lost_log(),
                    });
                }
                Err(error) => {
                    let error = chain(&error);
                    warn!(error, retry_in_ms = retry.pause().as_millis(), "cannot apply, will retry");
                    self.board.failing(&part, &error);
                    self.board.metrics().count(Id::ApplyErrors, 1);
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        () = retry.wait() => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Counts what the last step did.
    fn note(&mut self) {
        let done = self.subscriber.take_done();
        self.board.count(done.changes, 0);
        if done.entries == 0 && done.changes == 0 {
            return;
        }
        let metrics = self.board.metrics();
        metrics.count(Id::Published, done.own_changes);
        metrics.count(Id::Applied, done.changes.saturating_sub(done.own_changes));
        metrics.count(Id::AppliedEntries, done.entries);
        metrics.count(Id::AppliedBytes, done.bytes);
        self.board.aside(|asides| {
            asides.last_own_ms = asides.last_own_ms.max(done.own_time / 1_000_000);
            asides.last_others_ms = asides.last_others_ms.max(done.others_time / 1_000_000);
        });
    }
}

fn is_broken(error: &subscribe::Error) -> bool {
    match error {
        subscribe::Error::Db(error) => is_lasting_db(error),
        subscribe::Error::Log(error) => matches!(error, log::Error::Broken(_)),
        subscribe::Error::Broken { .. } => true,
    }
}
