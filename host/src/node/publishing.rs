//! The task that sends what was committed.

use super::failing::{chain, is_lasting_db, lost_log, unable};
use super::retry::Retry;
use crate::db::{Database, Db, Owed};
use crate::failure::Failure;
use crate::guard::Activity;
use crate::log;
use crate::metrics::table::Id;
use crate::publish::{self, Publisher};
use crate::report::{Board, PUBLISH};
use crate::watch::Watch;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The least time from one seal to the next, and between two pieces: what comes in between shares a batch, and the
/// application gets its lock.
const SEAL_INTERVAL: Duration = Duration::from_millis(2);
/// How long a stop waits for the batch in hand to reach the log.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// How often it is looked how far others have read.
const OTHERS_POLL: Duration = Duration::from_millis(500);

/// The name of what the log lost and others are to send again.
const LOST: &str = "lost changes";

/// What it needs.
pub(super) struct Publishing {
    pub(super) publisher: Publisher,
    pub(super) db: Db,
    pub(super) watch: Watch,
    pub(super) moved: Arc<tokio::sync::Notify>,
    pub(super) activity: Arc<Activity>,
    pub(super) poll_interval: Duration,
    pub(super) board: Board,
}

impl Publishing {
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), Failure> {
        let mut retry = Retry::default();
        loop {
            let mut last = Instant::now();
            let stepped = self.publisher.step().await;
            self.note();
            match stepped {
                Ok(publish::Progress::More) => {
                    last = Instant::now();
                    retry.reset();
                    self.activity.note();
                    self.board.well(PUBLISH);
                }
                Ok(publish::Progress::Idle) => {
                    retry.reset();
                    self.board.well(PUBLISH);
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        () = self.wait() => {}
                        () = tokio::time::sleep(OTHERS_POLL), if self.publisher.waits() => {}
                    }
                }
                Err(error) if is_lasting(&error) => {
                    return Err(match &error {
                        publish::Error::Db(_) => unable("cannot publish", &error),
                        publish::Error::Log(_) => lost_log("cannot publish", &error),
                        publish::Error::Broken { .. } | publish::Error::TailLost { .. } => {
                            lost_log("cannot publish", &error).of_a_lost_log()
                        }
                    });
                }
                Err(error) => {
                    let error = chain(&error);
                    warn!(error, retry_in_ms = retry.pause().as_millis(), "Unable to publish");
                    self.board.failing(PUBLISH, &error);
                    self.board.metrics().count(Id::PublishErrors, 1);
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        () = retry.wait() => {}
                    }
                }
            }
            if stop.is_cancelled() {
                break;
            }
            if let Some(rest) = SEAL_INTERVAL.checked_sub(last.elapsed()) {
                tokio::time::sleep(rest).await;
            }
        }
        fault!("stopping");
        // What is committed by now still goes out, if the log takes it soon.
        let last = tokio::time::timeout(SHUTDOWN_GRACE, async {
            while self.publisher.step().await? == publish::Progress::More {}
            Ok::<_, publish::Error>(())
        });
        match last.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => info!(error = chain(&error), "what waits goes out after the next start"),
            Err(_) => info!("the log does not answer; what waits goes out after the next start"),
        }
        Ok(())
    }

    /// Counts what the last step did, and says what it still waits for.
    fn note(&mut self) {
        match owing(self.publisher.owed()) {
            Some(words) => self.board.paused(LOST, &words),
            None => self.board.well(LOST),
        }
        let done = self.publisher.take_done();
        self.board.count(0, done.batches);
        let metrics = self.board.metrics();
        metrics.count(Id::PublishedBatches, done.batches);
        metrics.count(Id::PublishedBytes, done.bytes);
        if let Some(looked) = done.costs.looked {
            metrics.took(Id::CountChanges, looked);
        }
        if let Some(sealed) = done.costs.sealed {
            metrics.took(Id::ScanChanges, sealed);
        }
    }

    /// Returns when another connection has committed, or an entry was applied, or the file can't be looked at.
    async fn wait(&self) {
        let has_changed = || async { self.db.call(Database::has_changed).await.unwrap_or(true) };
        tokio::select! {
            () = self.moved.notified() => {}
            () = self.watch.until(self.poll_interval, has_changed) => {}
        }
    }
}

/// Who is to send again what the log lost, in words.
fn owing(owed: &Owed) -> Option<String> {
    let nodes: BTreeSet<u64> = owed.keys().map(|(_, origin)| origin.node).collect();
    let (first, last) = (nodes.first()?, nodes.last()?);
    let all = nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let (noun, sends) = if first == last { ("node", "sends") } else { ("nodes", "send") };
    Some(format!(
        "the log lost changes of {noun} {all}, which {sends} them again once running; what was made upon them waits. If a \
         node is gone for good: `antiphon give-up --node NUMBER`"
    ))
}

fn is_lasting(error: &publish::Error) -> bool {
    match error {
        publish::Error::Db(error) => is_lasting_db(error),
        publish::Error::Log(log::Error::Unreachable(_)) => false,
        publish::Error::Log(log::Error::Broken(_))
        | publish::Error::Broken { .. }
        | publish::Error::TailLost { .. } => true,
    }
}
