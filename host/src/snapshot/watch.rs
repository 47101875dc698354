//! Which snapshots there are is looked at now and then, beside whatever is being made.

use super::keeper::Keeper;
use super::scratch::Scratch;
use super::survey::{Survey, Surveyor};
use crate::apart::apart;
use crate::metrics::table::Id;
use crate::words::hex;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often that is, if nothing has changed.
const PAUSE: Duration = Duration::from_secs(60);
/// So long a store may take for its answer.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

impl Keeper {
    /// Looks which there are whenever that has `changed`, and now and then, until `stop`; if somebody watches over them.
    pub(super) async fn watch(&self, stop: &CancellationToken, changed: &Notify) {
        if !self.watched {
            return;
        }
        let mut surveyor = Surveyor::default();
        loop {
            let mut looking = pin!(self.survey(surveyor));
            surveyor = loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    looked = &mut looking => break looked,
                    () = tokio::time::sleep(PATIENCE) => self.says_nothing(),
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = changed.notified() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// The store neither answers nor refuses.
    fn says_nothing(&self) {
        let why = format!("it has not answered for {} minutes", PATIENCE.as_secs() / 60);
        self.board.aside(|asides| asides.snapshots.get_or_insert_default().error = Some(why));
    }

    /// Looks which snapshots there are, and notes it.
    async fn survey(&self, mut surveyor: Surveyor) -> Surveyor {
        let Ok(Some(cluster)) = self.live.db.call(|db| Ok(db.cluster())).await else { return surveyor };
        let (shelf, cluster) = (self.shelf.clone(), hex(cluster));
        let looked = apart(move || {
            let found = surveyor.look(&shelf, &cluster);
            (surveyor, found)
        });
        let (surveyor, found) = match looked.await {
            Ok((surveyor, found)) => (surveyor, found),
            Err(failure) => (Surveyor::default(), Err(failure)),
        };
        if found.is_err() {
            self.board.metrics().count(Id::StorageErrors, 1);
        }
        let room = || Scratch::of_database(&self.path, &self.state, self.shelf.habits().scratch_max);
        let scratch = self.live.publishes.then(room);
        self.board.aside(|asides| {
            let survey = asides.snapshots.get_or_insert_default();
            match found {
                Ok(found) => {
                    let (running, leader) = (survey.running, survey.leader);
                    *survey = Survey { running, leader, listed_ms: crate::clock::unix_ms(), ..found };
                }
                Err(failure) => survey.error = Some(failure.to_string()),
            }
            survey.scratch = scratch;
        });
        surveyor
    }
}
