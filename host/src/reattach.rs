//! Tables that come back: L of each is built aside from the log, and the rows compared with it.
//!
//! In steps between which the application's writes are sealed as ever: what it writes meanwhile is marked.

use crate::aside::{self, Read};
use crate::db::{self, Database, Db, Reattached};
use crate::failure::Failure;
use crate::join;
use crate::log::{self, Log, Shard};
use crate::publish::{Error, Progress};
use crate::snapshot::{Fetched, Rescue, Shelf};
use antiphon_core::entry::ClusterId;
use antiphon_core::snapshot::id::SnapshotId;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// One table and its L, as far as it has been built.
struct Aside {
    table: String,
    /// The schema it was made from.
    schema: i64,
    /// Never shared; the lock lets the task that holds it move between threads.
    db: Mutex<Database>,
    /// The folder it lies in; gone with it.
    _folder: tempfile::TempDir,
}

/// Compares tables that came back with the log, one after the other.
pub(crate) struct Reattach {
    db: Db,
    log: Arc<dyn Log>,
    /// Where folders for L are made.
    scratch: PathBuf,
    /// Where L begins if the log was cut.
    rescue: Rescue,
    aside: Option<Box<Aside>>,
}

impl Reattach {
    pub(crate) fn new(db: Db, log: Arc<dyn Log>, scratch: PathBuf, shelf: Option<Shelf>) -> Self {
        let rescue = Rescue::new(shelf, &scratch);
        Self { db, log, scratch, rescue, aside: None }
    }

    /// Does a part of the work, if there is any.
    pub(crate) async fn step(&mut self) -> Result<Progress, Error> {
        let Some(Next { table, schema, positions, covers }) = self.next().await? else {
            self.aside = None;
            return Ok(Progress::Idle);
        };
        // A table whose schema changed meanwhile is begun with again, for what lies aside has the old one.
        let mut aside = match self.aside.take().filter(|aside| aside.table == table && aside.schema == schema) {
            Some(aside) => aside,
            None => match self.begin(&table, schema).await? {
                Ok(aside) => aside,
                Err(why) => return self.give_up(table, why, covers).await,
            },
        };
        for (shard, position) in positions {
            let logged = aside.db.get_mut().unwrap_or_else(PoisonError::into_inner);
            match aside::read(logged, &*self.log, shard, position).await? {
                Read::All => {}
                Read::Some => {
                    self.aside = Some(aside);
                    return Ok(Progress::More);
                }
                Read::Stuck(why) => return self.give_up(table, why, covers).await,
            }
        }
        let compared = self
            .db
            .call(move |db| {
                let compared = {
                    let logged = aside.db.lock().unwrap_or_else(PoisonError::into_inner);
                    if covers { db.cover(&logged, &aside.table)? } else { db.reattach(&logged, &aside.table)? }
                };
                Ok((compared, aside))
            })
            .await?;
        match compared {
            (Reattached::Done, _) if covers => Ok(Progress::More),
            (Reattached::Done, _) => {
                tracing::info!(table, "table compared with the log; it follows it again");
                Ok(Progress::More)
            }
            (Reattached::Again, aside) => {
                self.aside = Some(aside);
                Ok(Progress::More)
            }
            (Reattached::Lacks(column), _) => {
                let why = format!("the log has values in column `{column}`, which the table lacks");
                self.give_up(table, why, covers).await
            }
        }
    }

    async fn next(&self) -> Result<Option<Next>, db::Error> {
        let next = |db: &mut Database| {
            let (table, covers) = match db.to_compare()? {
                Some(table) => (Some(table), false),
                None => (db.to_cover()?, true),
            };
            Ok(table.map(|table| Next { table, schema: db.schema_version(), positions: db.positions(), covers }))
        };
        self.db.call(next).await
    }

    async fn begin(&mut self, table: &str, schema: i64) -> Result<Result<Box<Aside>, String>, Error> {
        let (shards, places) = self.db.call(|db| Ok((db.shards(), db.positions()))).await?;
        tracing::info!(table, "building what the log says of a table");
        let folder = tempfile::Builder::new().prefix(crate::node::SCRATCH).tempdir_in(&self.scratch);
        let folder = match folder {
            Ok(folder) => folder,
            Err(error) => return Ok(Err(format!("cannot make a folder in `{}`: {error}", self.scratch.display()))),
        };
        let cut = join::cut_at(&*self.log, shards).await.map_err(unasked)?;
        let mut tries = 0;
        let made = loop {
            tries += 1;
            let ground = match cut {
                None => None,
                Some((shard, first)) => match self.ground(&places).await? {
                    Some(ground) => Some(ground),
                    None => {
                        return Ok(Err(format!(
                            "shard {shard} of the log begins at entry {first}, and no snapshot leads up to it"
                        )));
                    }
                },
            };
            let (path, name) = (folder.path().join(format!("log-{tries}.db")), [table.to_owned()]);
            match self.db.call(move |db| db.aside(&path, &name).and_then(|aside| built(aside, ground))).await? {
                Built::Unfit(id, error) => self.rescue.pass_over_for(id, error)?,
                Built::Without(why) => return Ok(Err(why)),
                Built::Upon(aside) => break *aside,
            }
        };
        let table = table.to_owned();
        Ok(Ok(Box::new(Aside { table, schema, db: Mutex::new(made), _folder: folder })))
    }

    /// A snapshot to begin with, of no later place than this node's.
    async fn ground(&mut self, places: &[(Shard, u64)]) -> Result<Option<(ClusterId, Fetched)>, Error> {
        let (cluster, scope) = self.db.call(|db| Ok((db.cluster(), db.scope()))).await?;
        let Some(cluster) = cluster else { return Ok(None) };
        let fetched = self.rescue.fetch_before(&*self.log, cluster, &scope, places).await.map_err(unasked)?;
        Ok(fetched.map(|fetched| (cluster, fetched)))
    }

    async fn give_up(&mut self, table: String, why: String, covers: bool) -> Result<Progress, Error> {
        self.aside = None;
        if covers {
            self.db
                .call(move |db| {
                    db.cannot_cover(&table, &why);
                    Ok(())
                })
                .await?;
            return Ok(Progress::Idle);
        }
        let sends = self.db.call(move |db| db.cannot_compare(&table, &why)).await?;
        Ok(if sends { Progress::More } else { Progress::Idle })
    }
}

/// What L is built in.
enum Built {
    Upon(Box<Database>),
    /// This snapshot is none.
    Unfit(SnapshotId, db::Error),
    /// Nothing can be built, for this reason.
    Without(String),
}

/// Has L begin with a snapshot, if there is one.
fn built(mut aside: Database, ground: Option<(ClusterId, Fetched)>) -> Result<Built, db::Error> {
    let Some((cluster, fetched)) = ground else { return Ok(Built::Upon(Box::new(aside))) };
    let id = fetched.id();
    match fetched.open(cluster, &aside) {
        Err(error) => Ok(Built::Unfit(id, error)),
        Ok(image) => match image.fill(&mut aside) {
            Ok(()) => Ok(Built::Upon(Box::new(aside))),
            Err(db::Error::Inconsistent(why)) => Ok(Built::Without(why)),
            Err(error) => Err(error),
        },
    }
}

/// A store or a log that does not answer may do so later.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` takes")]
fn unasked(failure: Failure) -> Error {
    log::Error::Unreachable(failure.to_string()).into()
}

/// What is to be done next.
struct Next {
    table: String,
    schema: i64,
    positions: Vec<(Shard, u64)>,
    /// It is not compared: only the rows behind pending ones are wanted.
    covers: bool,
}
