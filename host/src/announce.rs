//! A node tells the others that it is there, and where it stands.
//!
//! For `status` and for housekeeping of the log. Nothing in the fold depends on it, so an announcement that fails is
//! worth no more than a word.

use crate::db::{Database, Db};
use crate::log::{ANNOUNCE_INTERVAL, Difference, Log, Member};
use crate::report::Board;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

/// How often it is looked whether resolvers were asked anything.
const LOOK: Duration = Duration::from_millis(400);
/// How long a stop waits for the last words to reach the log.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Says every few seconds where a node stands.
#[derive(Debug)]
pub struct Announcer {
    db: Db,
    log: Arc<dyn Log>,
    board: Board,
}

impl Announcer {
    /// One that has said nothing yet.
    #[must_use]
    pub fn new(db: Db, log: Arc<dyn Log>, board: Board) -> Self {
        Self { db, log, board }
    }

    /// Announces itself until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let sampled = self.db.call(|db| Ok(db.sampled())).await.unwrap_or_default();
        loop {
            let told = sampled.load(Ordering::Relaxed);
            self.say(false).await;
            let begun = Instant::now();
            // What resolvers answered is told soon, so that one which goes its own way does no more harm than it must.
            while begun.elapsed() < ANNOUNCE_INTERVAL && sampled.load(Ordering::Relaxed) == told {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        }
    }

    /// The last words: this node stops in order.
    pub async fn leave(self) {
        if tokio::time::timeout(LEAVE_TIMEOUT, self.say(true)).await.is_err() {
            debug!("the log does not answer; this node leaves without a word");
        }
    }

    async fn say(&self, left: bool) {
        let known = self.db.call(|db| {
            let member = member_of(db);
            let tables: Vec<String> = db.table_names().map(str::to_owned).collect();
            let refused = db.refused().iter().map(|refused| (refused.table.clone(), refused.reason.clone())).collect();
            Ok((member, tables, refused, db.shortfalls()?))
        });
        let (member, tables, refused, shortfalls) = match known.await {
            Ok(known) => known,
            Err(error) => {
                debug!(%error, "cannot tell where this node stands");
                return;
            }
        };
        self.board.tables(tables, refused);
        self.board.shortfalls(&shortfalls);
        let troubles = self.board.report().troubles.into_iter().filter(|(_, trouble)| trouble.schema);
        let waits = troubles.map(|(part, trouble)| (part, trouble.reason)).collect();
        let now_ms = crate::clock::unix_ms();
        if let Err(error) = self.log.announce(&Member { left, waits, ..member }).await {
            debug!(%error, "cannot announce this node");
        } else if !left {
            self.board.aside(|asides| asides.announced_ms = now_ms);
            self.compare().await;
        }
    }

    /// Looks whether other nodes' resolvers answer as those here do.
    async fn compare(&self) {
        let members = match self.log.members().await {
            Ok(members) => members,
            Err(error) => {
                debug!(%error, "cannot hear of the other nodes");
                return;
            }
        };
        let found = self.db.call(move |db| Ok((db.origin().node, db.compare_samples(&members)))).await;
        let Ok((here, found)) = found else { return };
        for Difference { node, shard, seq, table, policy } in found {
            error!(
                policy,
                table,
                shard,
                seq,
                nodes = format!("{here} and {node}"),
                "a resolver answered the same clash otherwise on two nodes, so their rows may differ; \
                 `antiphon plugin check` tells whether it only computes"
            );
        }
    }
}

/// What a node says of itself.
pub(crate) fn member_of(db: &Database) -> Member {
    let origin = db.origin();
    Member {
        node: origin.node,
        incarnation: origin.incarnation,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        positions: db.positions().into_iter().collect(),
        schemas: db.schemas(),
        waits: BTreeMap::new(),
        samples: db.samples(),
        differences: db.differences().to_vec(),
        left: false,
    }
}
