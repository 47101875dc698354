//! How a node is, seen from outside its process: from the database, the log's directory and `status.json`.
//!
//! Everything is only looked at. No write lock is taken, nothing is made, and no read transaction stands longer than
//! the few statements it holds together.

use crate::db;
use crate::failure::{Failure, Kind};
use crate::lock::Lock;
use crate::log::{self, AWAY_AFTER, Announced, Glance, Shard};
use crate::node::{Carrier, state_directory};
use crate::report::{LastError, Report};
use antiphon_core::capture::PREFIX;
use antiphon_core::codec;
use antiphon_core::entry::Body;
use antiphon_core::schema::quote;
use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A node that is behind for longer than this is not well.
pub const BEHIND_MAX_SECONDS: f64 = 60.0;
/// Changes are counted in so many entries of a shard and no further.
const COUNTED_MAX: u64 = 1000;
const COUNTED_BYTES_MAX: usize = 4 << 20;
/// Batches of the outbox measured in one read transaction.
const MEASURED_MAX: u32 = 10_000;

/// How a node is. The names of its fields are those of `antiphon status --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// In one word.
    pub verdict: Verdict,
    /// In one sentence more, where the word needs one.
    pub why: Option<String>,
    /// Whether nobody has to do anything.
    pub well: bool,
    /// The database's path.
    pub database: String,
    /// This node, if it was ever started.
    pub node: Option<u64>,
    /// Which of its lives.
    pub incarnation: Option<u64>,
    /// The cluster it belongs to.
    pub cluster: Option<String>,
    /// The process beside the database.
    pub host: Host,
    /// Where the log is: a directory, or servers.
    pub log: Log,
    /// Where it stands.
    pub shards: Vec<ShardStatus>,
    /// What has not come back from the log.
    pub pending: Pending,
    /// Batches kept in the database.
    pub outbox: Outbox,
    /// Who takes part.
    pub members: Vec<Member>,
    /// What was overruled, by policy.
    pub clashes: Vec<Clashes>,
    /// Units that were too large to be applied at once.
    pub sliced: Sliced,
    /// Tables that are replicated.
    pub tables: Vec<String>,
    /// Tables that can't be, and why.
    pub refused: BTreeMap<String, String>,
    /// What is not well, by part: `publish`, `shard 1`.
    pub troubles: BTreeMap<String, Trouble>,
    /// The last error, though it may be over.
    pub last_error: Option<LastError>,
    /// How long ago that was.
    pub last_error_seconds_ago: Option<f64>,
}

/// How a node is, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It has applied all there is, and the log has all it wrote.
    InStep,
    /// Changes are on their way.
    Behind,
    /// A part waits for something that only its user can change.
    Paused,
    /// A part meets errors, and tries again.
    Failing,
    /// The process has not got as far as replicating.
    Starting,
    /// No process runs beside the database.
    #[default]
    NotRunning,
    /// None ever did.
    NeverRan,
}

/// The process beside the database.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Host {
    /// Whether it is there.
    pub running: bool,
    /// Its number, or that of the last one.
    pub pid: Option<u32>,
    /// Its version.
    pub version: Option<String>,
    /// How long ago it began to replicate.
    pub started_seconds_ago: Option<f64>,
    /// How old `status.json` is, which is written when something changes.
    pub report_seconds_ago: Option<f64>,
    /// Why that file can't be read.
    pub report_error: Option<String>,
    /// How long ago it ended, if it had the time to say so.
    pub ended_seconds_ago: Option<f64>,
    /// What ended it, if nobody asked it to stop.
    pub ended_by: Option<String>,
    /// Changes applied a second, of late.
    pub applied_per_second: f64,
    /// Batches sent a second, of late.
    pub sent_per_second: f64,
}

/// Where the log is: a directory, or servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Log {
    /// Where it is.
    pub directory: String,
    /// Whether there is a log in it.
    pub found: bool,
    /// Why it can't be read.
    pub error: Option<String>,
}

/// Where a node stands in one shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ShardStatus {
    /// Its number.
    pub shard: Shard,
    /// The last entry applied.
    pub position: u64,
    /// The newest entry there is, if the log can be read.
    pub end: Option<u64>,
    /// What is between.
    pub behind: Option<Behind>,
}

/// What a node has not applied.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Behind {
    /// Entries.
    pub entries: u64,
    /// Changes in them; none if there are too many to count.
    pub changes: Option<u64>,
    /// How long the oldest of them has been in the log.
    pub seconds: f64,
}

/// What has not come back from the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pending {
    /// Rows that were written and are in no batch yet. A row written twice may count twice.
    pub marks: u64,
    /// Batches that were not read back from the log.
    pub batches: u64,
    /// Changes in them; none if there are too many to count.
    pub changes: Option<u64>,
    /// Their bytes.
    pub bytes: u64,
    /// How long the oldest has been waiting.
    pub seconds: Option<f64>,
}

/// Batches kept in the database.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outbox {
    /// How many.
    pub batches: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How old the oldest is.
    pub seconds: Option<f64>,
}

/// One who takes part.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Member {
    /// Its number.
    pub node: u64,
    /// Which of its lives.
    pub incarnation: u64,
    /// It is the node asked about.
    pub this: bool,
    /// The version of its program.
    pub version: String,
    /// Whether it is there.
    pub state: MemberState,
    /// How long ago it was heard of.
    pub seen_seconds_ago: f64,
    /// Where it said that it stands.
    pub positions: BTreeMap<Shard, u64>,
    /// Entries it had not applied then, of those there are now.
    pub behind: Option<u64>,
    /// Tables that are not as they are here.
    pub other_tables: Vec<String>,
}

/// Whether a member is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// It was heard of a moment ago.
    #[default]
    Here,
    /// It was not heard of for a while.
    Away,
    /// It stopped in order.
    Left,
}

/// Clashes that were decided alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Clashes {
    /// The policy.
    pub resolver: String,
    /// What it said.
    pub verdict: String,
    /// What clashed: `same-key`, `unique-index`.
    pub cause: String,
    /// How many are kept.
    pub count: u64,
}

/// Units that were applied in slices, for they have more changes than `atomic_max`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sliced {
    /// How many.
    pub units: u64,
    /// Changes in them.
    pub changes: u64,
    /// Shards in which one is being applied now: rows are ahead of the position there.
    pub under_way: Vec<Shard>,
}

/// What is not well with a part.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Trouble {
    /// It waits for something to change; else it is tried again and again.
    pub paused: bool,
    /// Why.
    pub reason: String,
    /// For how long.
    pub seconds: f64,
}

/// What a database says of its node.
#[derive(Default)]
struct Stored {
    node: Option<u64>,
    incarnation: Option<u64>,
    cluster: Option<String>,
    positions: BTreeMap<Shard, u64>,
    pending: Pending,
    outbox_oldest: Option<f64>,
    clashes: Vec<Clashes>,
    sliced: Sliced,
}

impl Status {
    /// Looks at the node of a database, whose log lies where its process said, or else where `carrier` has it.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn of(database: &Path, carrier: &Carrier, log_is_asked_for: bool) -> Result<Self, Failure> {
        let shown = database.display().to_string();
        let path = database.canonicalize().map_err(|error| {
            Failure::new(Kind::Missing, format!("cannot open database `{shown}`: {error}"))
                .hint("name the file your application uses")
        })?;
        let state = state_directory(&path);
        // Before all else: what is read after it is at least as new.
        let running = Lock::is_held(&state);
        let (report, report_error) = match Report::read(&state) {
            Ok(report) => (report, None),
            Err(error) => (None, Some(format!("cannot read `{}`: {error}", state.join(crate::report::FILE).display()))),
        };
        let now_ms = crate::clock::unix_ms();
        let stored = read(&path, now_ms).map_err(|error| unreadable(&shown, &error))?;
        let outbox = match stored.node {
            Some(_) => measure(&path, stored.outbox_oldest).map_err(|error| unreadable(&shown, &error))?,
            None => Outbox::default(),
        };
        let said = report.as_ref().map(|report| PathBuf::from(&report.log)).filter(|said| said.exists());
        let carrier = match (carrier, said) {
            (Carrier::Embedded(_), Some(said)) if !log_is_asked_for => &Carrier::Embedded(said),
            _ => carrier,
        };
        let mut status = Self {
            database: path.display().to_string(),
            node: stored.node,
            incarnation: stored.incarnation,
            cluster: stored.cluster,
            pending: stored.pending,
            outbox,
            clashes: stored.clashes,
            sliced: stored.sliced,
            host: host(running, report.as_ref(), report_error, now_ms),
            ..Self::default()
        };
        status.look_at_log(carrier, &stored.positions, now_ms);
        if let Some(report) = report {
            status.tables = report.tables;
            status.refused = report.refused;
            status.last_error_seconds_ago = report.last_error.as_ref().map(|last| ago(last.at_ms, now_ms));
            status.last_error = report.last_error;
            status.troubles = report
                .troubles
                .into_iter()
                .map(|(part, trouble)| {
                    let seconds = ago(trouble.since_ms, now_ms);
                    (part, Trouble { paused: trouble.paused, reason: trouble.reason, seconds })
                })
                .collect();
        }
        status.judge();
        Ok(status)
    }

    /// Ends of shards and members, from the log itself. A log that can't be read is said to be so, and the rest
    /// is known all the same.
    fn look_at_log(&mut self, carrier: &Carrier, positions: &BTreeMap<Shard, u64>, now_ms: u64) {
        self.log.directory = match carrier {
            Carrier::Embedded(directory) => directory.display().to_string(),
            Carrier::Nats(nats) => nats.shown.clone(),
        };
        let mut members = Vec::new();
        let mut shards = BTreeMap::new();
        let looked = carrier.glance().and_then(|glance| {
            let Some(glance) = glance else { return Ok(()) };
            self.log.found = true;
            members = glance.members()?;
            for (&shard, &position) in positions {
                let end = glance.bounds(shard)?.last;
                let behind = if end > position { Some(behind(&glance, shard, position, end, now_ms)?) } else { None };
                shards.insert(shard, (end, behind));
            }
            Ok(())
        });
        self.log.error = looked.err().map(|error| error.to_string());
        self.shards = positions
            .iter()
            .map(|(&shard, &position)| {
                let (end, behind) = shards.remove(&shard).map_or((None, None), |(end, behind)| (Some(end), behind));
                ShardStatus { shard, position, end, behind }
            })
            .collect();
        let me = (self.node, self.incarnation);
        let this = |member: &log::Member| (Some(member.node), Some(member.incarnation)) == me;
        let here = members.iter().find(|announced| this(&announced.member)).map(|own| own.member.schemas.clone());
        self.members = members
            .into_iter()
            .map(|announced| {
                let this = this(&announced.member);
                member(announced, this, here.as_ref(), &self.shards, now_ms)
            })
            .collect();
    }

    fn judge(&mut self) {
        let first = |paused: bool| {
            let found = self.troubles.iter().find(|(_, trouble)| trouble.paused == paused);
            found.map(|(part, trouble)| format!("{part}: {}", trouble.reason))
        };
        let (verdict, why) = if !self.host.running {
            match (self.node, &self.host.ended_by) {
                (None, _) => (Verdict::NeverRan, None),
                (Some(_), Some(error)) => (Verdict::NotRunning, Some(format!("it ended: {error}"))),
                (Some(_), None) => (Verdict::NotRunning, None),
            }
        } else if self.host.pid.is_none() && self.host.report_error.is_none() {
            (Verdict::Starting, None)
        } else if let Some(why) = first(true) {
            (Verdict::Paused, Some(why))
        } else if let Some(why) = first(false).or_else(|| self.log.error.clone()) {
            (Verdict::Failing, Some(why))
        } else if self.is_behind() {
            (Verdict::Behind, None)
        } else {
            (Verdict::InStep, None)
        };
        let late = self.shards.iter().filter_map(|shard| shard.behind.as_ref()).map(|behind| behind.seconds);
        let late = late.chain(self.pending.seconds).any(|seconds| seconds > BEHIND_MAX_SECONDS);
        self.well = matches!(verdict, Verdict::InStep | Verdict::Behind) && !late;
        self.verdict = verdict;
        self.why = why;
    }

    fn is_behind(&self) -> bool {
        self.pending.marks + self.pending.batches > 0
            || self.shards.iter().any(|shard| shard.behind.is_some() || shard.end.is_none())
    }
}

fn unreadable(shown: &str, error: &rusqlite::Error) -> Failure {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseCorrupt, DatabaseLocked, NotADatabase};
    let kind = match error.sqlite_error_code() {
        Some(NotADatabase | DatabaseCorrupt) => Kind::Data,
        Some(DatabaseBusy | DatabaseLocked) => Kind::Busy,
        _ => Kind::General,
    };
    Failure::new(kind, format!("cannot read database `{shown}`: {error}"))
}

#[expect(clippy::cast_precision_loss, reason = "an age for people")]
fn ago(then_ms: u64, now_ms: u64) -> f64 {
    now_ms.saturating_sub(then_ms) as f64 / 1000.0
}

fn host(running: bool, report: Option<&Report>, report_error: Option<String>, now_ms: u64) -> Host {
    let Some(report) = report else { return Host { running, report_error, ..Host::default() } };
    Host {
        running,
        pid: Some(report.pid),
        version: Some(report.version.clone()),
        started_seconds_ago: Some(ago(report.started_ms, now_ms)),
        report_seconds_ago: Some(ago(report.written_ms, now_ms)),
        report_error,
        ended_seconds_ago: report.ended.as_ref().map(|ended| ago(ended.at_ms, now_ms)),
        ended_by: report.ended.as_ref().and_then(|ended| ended.error.clone()),
        applied_per_second: if running { report.applied_per_second } else { 0.0 },
        sent_per_second: if running { report.sent_per_second } else { 0.0 },
    }
}

/// What lies between a position and the end of a shard.
fn behind(glance: &Glance, shard: Shard, position: u64, end: u64, now_ms: u64) -> Result<Behind, log::Error> {
    let entries = end - position;
    let mut after = position;
    let mut changes = 0;
    let mut seconds = None;
    while after < end && after - position < COUNTED_MAX {
        let placed = glance.read(shard, after, COUNTED_BYTES_MAX)?;
        let Some(last) = placed.last() else { break };
        after = last.seq;
        seconds = seconds.or_else(|| placed.first().map(|first| ago(first.time / 1_000_000, now_ms)));
        changes += placed.iter().map(|placed| changes_in(&placed.frame)).sum::<u64>();
    }
    Ok(Behind { entries, changes: (after >= end).then_some(changes), seconds: seconds.unwrap_or_default() })
}

fn changes_in(frame: &[u8]) -> u64 {
    let Ok(entry) = codec::decode(frame) else { return 0 };
    let Body::Changes(changes) = entry.body else { return 0 };
    changes.chunks.iter().map(|chunk| (chunk.written.len() + chunk.gone.len()) as u64).sum()
}

fn member(
    announced: Announced,
    this: bool,
    here: Option<&BTreeMap<String, u64>>,
    shards: &[ShardStatus],
    now_ms: u64,
) -> Member {
    let Announced { member, time } = announced;
    let seen_seconds_ago = ago(time / 1_000_000, now_ms);
    let state = if member.left {
        MemberState::Left
    } else if seen_seconds_ago > AWAY_AFTER.as_secs_f64() {
        MemberState::Away
    } else {
        MemberState::Here
    };
    let missing = shards.iter().map(|shard| {
        let position = member.positions.get(&shard.shard).copied().unwrap_or(0);
        Some(shard.end?.saturating_sub(position))
    });
    let mut other_tables: Vec<String> = Vec::new();
    if let Some(here) = here.filter(|_| !member.left) {
        let names =
            here.keys().chain(member.schemas.keys()).filter(|name| here.get(*name) != member.schemas.get(*name));
        other_tables.extend(names.cloned());
        other_tables.sort_unstable();
        other_tables.dedup();
    }
    Member {
        node: member.node,
        incarnation: member.incarnation,
        this,
        version: member.version,
        state,
        seen_seconds_ago,
        behind: missing.sum(),
        positions: member.positions,
        other_tables,
    }
}

/// What the host's tables say, in one short read transaction.
fn read(path: &Path, now_ms: u64) -> rusqlite::Result<Stored> {
    let mut conn = db::look(path)?;
    let look = conn.transaction()?;
    let has_tables = look.prepare("SELECT 1 FROM main.sqlite_schema WHERE name = '__antiphon___meta'")?.exists([])?;
    if !has_tables {
        return Ok(Stored::default());
    }
    let meta = |name: &str| -> rusqlite::Result<Option<u64>> {
        let value = look
            .query_row("SELECT value FROM main.\"__antiphon___meta\" WHERE name = ?1", [name], |row| row.get(0))
            .optional()?;
        Ok(value.map(i64::cast_unsigned))
    };
    let cluster: Option<Vec<u8>> = look
        .query_row("SELECT value FROM main.\"__antiphon___meta\" WHERE name = 'cluster'", [], |row| row.get(0))
        .optional()?;
    let node = meta("node")?;
    let incarnation = meta("incarnation")?;
    let shards = meta("shards")?.and_then(|shards| Shard::try_from(shards).ok()).unwrap_or(0);
    let mut positions: BTreeMap<Shard, u64> = (1..=shards).map(|shard| (shard, 0)).collect();
    let mut statement = look.prepare("SELECT shard, seq FROM main.\"__antiphon___position\"")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        positions.insert(row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned());
    }
    let clashes = look
        .prepare(
            "SELECT resolver, verdict, cause, count(*) FROM main.\"__antiphon___conflict\"
             GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        )?
        .query_map([], |row| {
            let count: i64 = row.get(3)?;
            Ok(Clashes {
                resolver: row.get(0)?,
                verdict: row.get(1)?,
                cause: row.get(2)?,
                count: count.cast_unsigned(),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let sliced = Sliced {
        units: meta("sliced-units")?.unwrap_or(0),
        changes: meta("sliced-changes")?.unwrap_or(0),
        under_way: look
            .prepare("SELECT shard FROM main.\"__antiphon___slice\" ORDER BY shard")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?,
    };
    let outbox_oldest: Option<f64> = look
        .query_row("SELECT created_at FROM main.\"__antiphon___global_change_log\" ORDER BY id LIMIT 1", [], |row| {
            row.get(0)
        })
        .optional()?;
    let pending = pending(&look, (node, incarnation), &positions, now_ms)?;
    Ok(Stored {
        node,
        incarnation,
        cluster: cluster.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()),
        pending,
        positions,
        outbox_oldest: outbox_oldest.map(|then| since(then, now_ms)),
        clashes,
        sliced,
    })
}

/// Seconds since a time that SQLite computed.
#[expect(clippy::cast_precision_loss, reason = "an age for people")]
fn since(then_ms: f64, now_ms: u64) -> f64 {
    ((now_ms as f64 - then_ms) / 1000.0).max(0.0)
}

fn pending(
    look: &Connection,
    (node, incarnation): (Option<u64>, Option<u64>),
    positions: &BTreeMap<Shard, u64>,
    now_ms: u64,
) -> rusqlite::Result<Pending> {
    let mut pending = Pending { changes: Some(0), ..Pending::default() };
    let mut logs = look.prepare(
        "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND substr(name, 1, length(?1)) = ?1
         AND name LIKE '%\\_change\\_log' ESCAPE '\\' AND name <> '__antiphon___global_change_log'",
    )?;
    let mut names = logs.query([PREFIX])?;
    while let Some(row) = names.next()? {
        let name: String = row.get(0)?;
        let count: i64 =
            look.query_row(&format!("SELECT count(*) FROM main.{}", quote(&name)), [], |row| row.get(0))?;
        pending.marks += count.cast_unsigned();
    }
    let mut received = look.prepare(
        "SELECT number FROM main.\"__antiphon___received\" WHERE shard = ?1 AND node = ?2 AND incarnation = ?3",
    )?;
    // By number and not by `state`: so the index finds them, however long the outbox is.
    let mut waiting = look.prepare(
        "SELECT created_at, length(batch), batch FROM main.\"__antiphon___global_change_log\"
         WHERE shard = ?1 AND number > ?2 ORDER BY number",
    )?;
    let me = (node.unwrap_or(0).cast_signed(), incarnation.unwrap_or(0).cast_signed());
    // A node without a cluster has sealed nothing.
    for &shard in positions.keys() {
        let number: Option<i64> = received.query_row((shard, me.0, me.1), |row| row.get(0)).optional()?;
        let mut rows = waiting.query((shard, number.unwrap_or(0)))?;
        while let Some(row) = rows.next()? {
            let seconds = since(row.get(0)?, now_ms);
            pending.seconds = Some(pending.seconds.map_or(seconds, |oldest| oldest.max(seconds)));
            pending.batches += 1;
            pending.bytes += row.get::<_, i64>(1)?.cast_unsigned();
            pending.changes = match pending.changes {
                Some(changes) if pending.batches <= COUNTED_MAX && pending.bytes <= COUNTED_BYTES_MAX as u64 => {
                    Some(changes + changes_in(row.get_ref(2)?.as_blob().unwrap_or_default()))
                }
                _ => None,
            };
        }
    }
    Ok(pending)
}

/// The whole outbox, a stretch at a time, so that no read transaction stands for long.
fn measure(path: &Path, oldest: Option<f64>) -> rusqlite::Result<Outbox> {
    let conn = db::look(path)?;
    let mut outbox = Outbox { seconds: oldest, ..Outbox::default() };
    let mut last = 0;
    loop {
        let measured = db::measure_outbox(&conn, last, MEASURED_MAX)?;
        outbox.batches += u64::from(measured.batches);
        outbox.bytes += measured.bytes;
        last = measured.last;
        if measured.batches < MEASURED_MAX {
            return Ok(outbox);
        }
    }
}
