//! The task that looks how the node is, every few seconds. It looks up and waits for nothing: what does not answer in time
//! is said not to.

use super::machine::{Files, Process};
use super::{Lookout, Phase, Rows, Vitals};
use crate::db::{self, Db, Figures};
use crate::health::Conditions;
use crate::log::{self, ANNOUNCE_INTERVAL, Announced, Log, Shard};
use crate::metrics::table::Id;
use crate::report::Board;
use crate::snapshot::{Stretch, Survey};
use crate::status::{self, Behind, Clashes, Outbox, Pending, ShardStatus, Sliced, Status};
use antiphon_core::codec;
use antiphon_core::entry::Origin;
use antiphon_plugin::PluginHost;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);
/// The same while somebody looks at the page.
const PAUSE_VIEWED: Duration = Duration::from_secs(1);
/// A look that kept the database's thread for long is followed by a pause so many times as long.
const PAUSE_TIMES: u32 = 20;
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long the database and the log may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of what waits, so many bytes are looked into.
const SOME_BYTES: usize = 256 << 10;
/// The same once they are unpacked: a little may be packed that is much.
const SOME_BYTES_UNPACKED: usize = 8 << 20;
/// How often rows are counted while somebody looks at the page, and how long that may take, for a table and in all.
const COUNT_PAUSE: Duration = Duration::from_secs(60);
const COUNT_TABLE: Duration = Duration::from_millis(20);
const COUNT_ALL: Duration = Duration::from_millis(200);

/// The task.
pub(crate) struct Observer {
    lookout: Lookout,
    db: Db,
    log: Arc<dyn Log>,
    board: Board,
    plugins: Option<PluginHost>,
    database: PathBuf,
    begun: Instant,
    conditions: Conditions,
    /// A question that the database has not answered yet. It is not asked again before it has.
    asked: Option<JoinHandle<Result<(Figures, Duration), db::Error>>>,
    /// What it answered last, and how long that took it.
    figures: Figures,
    took: Duration,
    /// The last record of a clash that was counted; none before the first look.
    last_clash: Option<i64>,
    /// Clashes since the start, and records that are kept.
    clashes: BTreeMap<(String, String, String), u64>,
    records: BTreeMap<(String, String, String), u64>,
    members: Vec<Announced>,
    heard: Option<Instant>,
    rows: BTreeMap<String, u64>,
    counted: Option<Instant>,
}

/// What the log says.
#[derive(Default)]
struct Logged {
    ends: BTreeMap<Shard, (u64, Option<Behind>)>,
    used: BTreeMap<Shard, f64>,
    error: Option<String>,
}

impl Observer {
    pub(crate) fn new(
        lookout: Lookout,
        db: Db,
        log: Arc<dyn Log>,
        board: Board,
        plugins: Option<PluginHost>,
        database: PathBuf,
    ) -> Self {
        Self {
            lookout,
            db,
            log,
            board,
            plugins,
            database,
            begun: Instant::now(),
            conditions: Conditions::default(),
            asked: None,
            figures: Figures::default(),
            took: Duration::ZERO,
            last_clash: None,
            clashes: BTreeMap::new(),
            records: BTreeMap::new(),
            members: Vec::new(),
            heard: None,
            rows: BTreeMap::new(),
            counted: None,
        }
    }

    /// Looks until told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        self.lookout.begin(self.board.metrics().clone());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                vitals = self.look() => self.lookout.show(vitals),
            }
            let usual = if self.lookout.viewers() > 0 { PAUSE_VIEWED } else { PAUSE };
            let pause = usual.max((self.took * PAUSE_TIMES).min(PAUSE_MAX));
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
                () = self.somebody_comes(), if self.lookout.viewers() == 0 => {}
            }
        }
        self.lookout.leave(Phase::Stopping);
    }

    /// Returns when somebody begins to look at the page.
    async fn somebody_comes(&self) {
        while self.lookout.viewers() == 0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn look(&mut self) -> Vitals {
        let db_error = self.ask_database().await;
        let logged = tokio::time::timeout(PATIENCE, self.ask_log()).await;
        let logged = logged.unwrap_or_else(|_| Logged {
            error: Some(format!("it did not answer for {} seconds", PATIENCE.as_secs())),
            ..Logged::default()
        });
        if self.lookout.viewers() > 0 && self.counted.is_none_or(|at| at.elapsed() >= COUNT_PAUSE) {
            self.count_rows().await;
        }
        let mut vitals = self.vitals(db_error, logged);
        let findings = self.lookout.limits().findings(&vitals);
        vitals.health = self.conditions.judge(findings, vitals.at_ms);
        vitals
    }

    /// Asks the database; gives why it did not answer.
    async fn ask_database(&mut self) -> Option<String> {
        let mut asked = self.asked.take().unwrap_or_else(|| {
            let (db, after) = (self.db.clone(), self.last_clash);
            let ask = move |db: &mut db::Database| {
                let begun = Instant::now();
                Ok((db.figures(after.unwrap_or(0), SOME_BYTES)?, begun.elapsed()))
            };
            tokio::spawn(async move { db.call(ask).await })
        });
        match tokio::time::timeout(PATIENCE, &mut asked).await {
            Ok(Ok(Ok((figures, took)))) => {
                self.took = took;
                let is_first = self.last_clash.is_none();
                for clashed in &figures.clashed {
                    let of = (clashed.resolver.clone(), clashed.verdict.clone(), clashed.cause.clone());
                    *self.records.entry(of.clone()).or_default() += clashed.count;
                    if !is_first {
                        *self.clashes.entry(of).or_default() += clashed.count;
                    }
                }
                self.last_clash = Some(figures.last_clash);
                self.figures = figures;
                None
            }
            Ok(Ok(Err(error))) => Some(error_words(&error)),
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => {
                self.asked = Some(asked);
                Some(format!("it did not answer for {} seconds", PATIENCE.as_secs()))
            }
        }
    }

    async fn ask_log(&mut self) -> Logged {
        let mut logged = Logged::default();
        let now_ms = crate::clock::unix_ms();
        let log = &*self.log;
        // All at once: however many there are, each has the whole time for its answer.
        let asked = self.figures.positions.iter().map(|&(shard, position)| async move {
            let found = async {
                let end = log.bounds(shard).await?.last;
                let behind = if end > position { Some(behind(log, shard, position, end, now_ms).await?) } else { None };
                Ok::<_, log::Error>(((end, behind), log.used(shard).await?))
            };
            (shard, found.await)
        });
        for (shard, found) in futures::future::join_all(asked).await {
            match found {
                Ok((found, used)) => {
                    logged.ends.insert(shard, found);
                    logged.used.extend(used.map(|used| (shard, used)));
                }
                Err(error) => {
                    logged.error = Some(error.to_string());
                    return logged;
                }
            }
        }
        if self.heard.is_none_or(|heard| heard.elapsed() >= ANNOUNCE_INTERVAL)
            && let Ok(members) = self.log.members().await
        {
            (self.members, self.heard) = (members, Some(Instant::now()));
        }
        logged
    }

    async fn count_rows(&mut self) {
        self.counted = Some(Instant::now());
        let begun = Instant::now();
        let counted = self.db.call(move |db| {
            let tables: Vec<String> = db.table_names().map(str::to_owned).collect();
            let mut rows = BTreeMap::new();
            for table in tables {
                if begun.elapsed() > COUNT_ALL {
                    break;
                }
                if let Some(count) = db.count_rows(&table, COUNT_TABLE)? {
                    rows.insert(table, count);
                }
            }
            Ok(rows)
        });
        if let Ok(Ok(rows)) = tokio::time::timeout(PATIENCE, counted).await {
            self.rows = rows;
        }
    }

    fn vitals(&self, db_error: Option<String>, logged: Logged) -> Vitals {
        let now_ms = crate::clock::unix_ms();
        let (figures, asides, report) = (&self.figures, self.board.asides(), self.board.report());
        let log_error = logged.error.clone();
        let schema_paused = report.troubles.values().any(|trouble| trouble.schema);
        let metrics = self.board.metrics();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count that was made of whole numbers"
        )]
        let counted = |id: Id| metrics.value(id) as u64;
        let mut status = Status {
            database: self.database.display().to_string(),
            node: Some(figures.origin.node),
            incarnation: Some(figures.origin.incarnation),
            cluster: figures.cluster.map(crate::words::hex),
            host: status::host(true, Some(&report), None, now_ms),
            log: status::Log { directory: report.log.clone(), found: true, error: logged.error },
            shards: shards(&figures.positions, logged.ends),
            pending: pending(figures, asides.waiting_bytes, now_ms),
            outbox: Outbox {
                batches: asides.outbox.0,
                bytes: asides.outbox.1,
                seconds: figures.kept_ms.map(|kept| since(kept, now_ms)),
            },
            clashes: listed(&self.records),
            sliced: Sliced { units: figures.sliced.0, changes: figures.sliced.1, under_way: Vec::new() },
            ..Status::default()
        };
        let me = (status.node, status.incarnation);
        status.members = status::members_of(self.members.clone(), me, &status.shards, now_ms);
        status.note_forged(figures.forged);
        status.take(report, now_ms);
        // What the database has now; the report hears of it later.
        status.tables.clone_from(&figures.tables);
        status.judge();
        let known = figures.positions.iter().all(|(shard, _)| asides.caught_up.contains(shard));
        Vitals {
            at_ms: now_ms,
            phase: Phase::Running,
            db_connected: db_error.is_none(),
            db_error,
            log_connected: log_error.is_none() && !status.degraded.contains_key("connection"),
            captured: figures.captured > 0,
            caught_up: known && !figures.positions.is_empty(),
            schema_paused,
            uptime_seconds: self.begun.elapsed().as_secs_f64(),
            published: counted(Id::Published),
            applied: counted(Id::Applied),
            last_published_ms: asides.last_own_ms,
            last_replicated_ms: asides.last_others_ms,
            outbox_percent: asides.filled_percent,
            full: asides.full,
            clock_ahead_ms: clock_ahead_ms(&self.members, figures.origin, asides.announced_ms, now_ms),
            clashes: listed(&self.clashes),
            rows: self.rows_of(&status.tables, asides.snapshots.as_ref()),
            log_used: logged.used,
            reachable: asides.snapshots.as_ref().map(|survey| reachable(survey, &status, now_ms)).unwrap_or_default(),
            snapshots: asides.snapshots,
            saved: counted(Id::SnapshotsSaved),
            unsaved: counted(Id::SnapshotsFailed),
            plugins: self.plugins.iter().flat_map(PluginHost::used).collect(),
            files: Files::of(&self.database),
            process: Process::of_this(),
            status,
            ..Vitals::default()
        }
    }

    /// Rows as counted, or else as the newest snapshot has them.
    fn rows_of(&self, tables: &[String], snapshots: Option<&Survey>) -> BTreeMap<String, Rows> {
        let newest = snapshots.and_then(|survey| survey.full.as_ref());
        let rows = tables.iter().filter_map(|table| {
            let rows = match self.rows.get(table) {
                Some(&count) => Rows { count, exact: true },
                None => Rows { count: *newest?.tables.get(table)?, exact: false },
            };
            Some((table.clone(), rows))
        });
        rows.collect()
    }
}

fn error_words(error: &db::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// From when to when any point in time can be reached, as far as the log's ends are known.
fn reachable(survey: &Survey, status: &Status, now_ms: u64) -> Vec<Stretch> {
    let end = |shard: u32| status.shards.iter().find(|of| of.shard == shard)?.end;
    survey.reachable(end, now_ms)
}

fn listed(counts: &BTreeMap<(String, String, String), u64>) -> Vec<Clashes> {
    let listed = counts.iter().map(|((resolver, verdict, cause), &count)| Clashes {
        resolver: resolver.clone(),
        verdict: verdict.clone(),
        cause: cause.clone(),
        count,
    });
    listed.collect()
}

fn shards(positions: &[(Shard, u64)], mut ends: BTreeMap<Shard, (u64, Option<Behind>)>) -> Vec<ShardStatus> {
    let shards = positions.iter().map(|&(shard, position)| {
        let (end, behind) = ends.remove(&shard).map_or((None, None), |(end, behind)| (Some(end), behind));
        ShardStatus { shard, position, end, behind }
    });
    shards.collect()
}

/// How far this machine's clock is ahead of the log's, by what nodes have said of themselves and when the log took that.
///
/// When it took this node's own word is known by both clocks. An embedded log has no other clock than the nodes'; what
/// another of them said tells of a difference only if that has not come to pass here yet.
fn clock_ahead_ms(members: &[Announced], own: Origin, announced_ms: u64, now_ms: u64) -> i64 {
    let taken_ms = |announced: &Announced| announced.time / 1_000_000;
    let difference = |here: u64, there: u64| here.cast_signed().saturating_sub(there.cast_signed());
    let newest = members.iter().map(taken_ms).max().map_or(0, |newest| difference(now_ms, newest).min(0));
    let own = members.iter().find(|announced| announced.member.origin() == own).filter(|_| announced_ms > 0);
    let ahead = own.map_or(0, |own| difference(announced_ms, taken_ms(own)));
    if ahead > 0 && newest == 0 { ahead } else { ahead.min(newest) }
}

/// Seconds since a time that SQLite computed.
fn since(then_ms: f64, now_ms: u64) -> f64 {
    ((crate::metrics::figure(now_ms) - then_ms) / 1000.0).max(0.0)
}

/// What has not come back. Beyond the batches that were looked into, changes are reckoned from these.
fn pending(figures: &Figures, bytes: u64, now_ms: u64) -> Pending {
    let looked_into: u64 = figures.some.iter().map(|frame| status::changes_in(frame)).sum();
    let changes = reckoned(looked_into, figures.some.len() as u64, figures.batches);
    let seconds = figures.oldest_ms.map(|oldest| since(oldest, now_ms));
    Pending { marks: figures.marks, batches: figures.batches, changes: Some(changes), bytes, seconds }
}

/// So many changes in some, so many in all.
fn reckoned(changes: u64, some: u64, all: u64) -> u64 {
    if some == 0 || some >= all {
        return changes;
    }
    u64::try_from(u128::from(changes) * u128::from(all) / u128::from(some)).unwrap_or(u64::MAX)
}

/// What lies between a position and the end of a shard.
async fn behind(log: &dyn Log, shard: Shard, position: u64, end: u64, now_ms: u64) -> Result<Behind, log::Error> {
    let some = log.read(shard, position, SOME_BYTES).await?;
    let seconds = some.first().map_or(0.0, |first| status::ago(first.time / 1_000_000, now_ms));
    let mut unpacked = 0;
    let looked_into = some.iter().take_while(|placed| {
        unpacked += codec::body_bytes(&placed.frame);
        unpacked <= SOME_BYTES_UNPACKED
    });
    let (mut reached, mut changes) = (position, 0);
    for placed in looked_into {
        reached = placed.seq;
        changes += status::changes_in(&placed.frame);
    }
    let changes = reckoned(changes, reached.saturating_sub(position), end.saturating_sub(position));
    Ok(Behind { entries: end - position, changes: Some(changes), seconds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Member;

    #[test]
    fn clocks_that_differ_are_told_by_what_the_log_took() {
        let check = |announced_ms, now_ms, taken: &[(u64, u64)], ahead| {
            let said = |&(node, taken_ms): &(u64, u64)| Announced {
                member: Member { node, incarnation: 1, ..Member::default() },
                time: taken_ms * 1_000_000,
            };
            let members: Vec<Announced> = taken.iter().map(said).collect();
            let own = Origin { node: 1, incarnation: 1 };
            assert_eq!(clock_ahead_ms(&members, own, announced_ms, now_ms), ahead, "{taken:?}");
        };
        check(0, 900, &[], 0);
        check(500, 900, &[(2, 100)], 0);
        check(500, 900, &[(1, 501), (2, 100)], -1);
        check(90_500, 91_000, &[(1, 501), (2, 900)], 89_999);
        check(500, 900, &[(1, 90_500), (2, 90_600)], -90_000);
        // The log has no clock but those of the nodes, and another node's is ahead.
        check(500, 900, &[(1, 500), (2, 90_900)], -90_000);
        check(0, 900, &[(2, 90_900)], -90_000);
    }

    #[test]
    fn what_was_not_looked_into_is_reckoned() {
        assert_eq!(reckoned(10, 2, 2), 10);
        assert_eq!(reckoned(10, 2, 20), 100);
        assert_eq!(reckoned(0, 0, 20), 0);
        assert_eq!(reckoned(u64::MAX, 1, u64::MAX), u64::MAX);
    }
}
