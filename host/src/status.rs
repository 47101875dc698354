//! How a node is, seen from outside its process: from the database, the log's directory and `status.json`.
//!
//! Everything is only looked at. No write lock is taken, nothing is made, and no read transaction stands longer than
//! the few statements it holds together.

use crate::failure::Failure;
use crate::lock::Lock;
use crate::log::Shard;
use crate::node::{Carrier, state_directory};
use crate::report::{LastError, Report};
use crate::unread;
use crate::words::count;
use antiphon_core::codec;
use antiphon_core::entry::Body;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mod logged;
mod stored;

pub(crate) use logged::members_of;

/// A node that is behind for longer than this is not well.
pub const BEHIND_MAX_SECONDS: f64 = 60.0;
/// Changes are counted in so many entries of a shard and no further.
const COUNTED_MAX: u64 = 1000;
const COUNTED_BYTES_MAX: usize = 4 << 20;

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
    /// What it does without, though it goes on: `connection`, `durability`, `transport`; and what was `forged`.
    pub degraded: BTreeMap<String, String>,
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

impl Status {
    /// Looks at the node of a database, whose log lies where its process said, or else where `carrier` has it.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn of(database: &Path, carrier: &Carrier, log_is_asked_for: bool) -> Result<Self, Failure> {
        unread::file(database)?;
        let path = database.canonicalize().map_err(|error| unread::missing(database, &error))?;
        let state = state_directory(&path);
        // Before all else: what is read after it is at least as new.
        let running = Lock::is_held(&state);
        let (report, report_error) = match Report::read(&state) {
            Ok(report) => (report, None),
            Err(error) => (None, Some(format!("cannot read `{}`: {error}", state.join(crate::report::FILE).display()))),
        };
        let now_ms = crate::clock::unix_ms();
        let stored = stored::read(&path, now_ms).map_err(|error| unread::by_sqlite(database, &error))?;
        let outbox = match stored.node {
            Some(_) => {
                stored::measure(&path, stored.outbox_oldest).map_err(|error| unread::by_sqlite(database, &error))?
            }
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
        status.note_forged(stored.forged);
        if let Some(report) = report {
            status.take(report, now_ms);
        }
        status.judge();
        Ok(status)
    }

    /// Takes over what the process says of itself.
    pub(crate) fn take(&mut self, report: Report, now_ms: u64) {
        self.tables = report.tables;
        if self.host.running {
            self.degraded.extend(report.degraded);
        }
        self.refused = report.refused;
        self.last_error_seconds_ago = report.last_error.as_ref().map(|last| ago(last.at_ms, now_ms));
        self.last_error = report.last_error;
        self.troubles = report
            .troubles
            .into_iter()
            .map(|(part, trouble)| {
                let seconds = ago(trouble.since_ms, now_ms);
                (part, Trouble { paused: trouble.paused, reason: trouble.reason, seconds })
            })
            .collect();
    }

    /// Entries that were left out, for another sent them than they said.
    pub(crate) fn note_forged(&mut self, forged: u64) {
        if forged > 0 {
            let entries = count(forged, "entry", "entries");
            let words = format!(
                "{entries} of the log said that another node wrote it than the one that sent it, and was left out; see who \
                 may publish to the log's subjects"
            );
            self.degraded.insert("forged".to_owned(), words);
        }
    }

    /// Comes to a verdict over all that is known.
    pub(crate) fn judge(&mut self) {
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

#[expect(clippy::cast_precision_loss, reason = "an age for people")]
pub(crate) fn ago(then_ms: u64, now_ms: u64) -> f64 {
    now_ms.saturating_sub(then_ms) as f64 / 1000.0
}

pub(crate) fn host(running: bool, report: Option<&Report>, report_error: Option<String>, now_ms: u64) -> Host {
    let Some(report) = report.filter(|report| report.is_of_a_process()) else {
        return Host { running, report_error, ..Host::default() };
    };
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

pub(crate) fn changes_in(frame: &[u8]) -> u64 {
    let Ok(entry) = codec::decode(frame) else { return 0 };
    let Body::Changes(changes) = entry.body else { return 0 };
    changes.chunks.iter().map(|chunk| (chunk.written.len() + chunk.gone.len()) as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(change: impl FnOnce(&mut Status)) -> (Verdict, bool) {
        let mut status = Status {
            node: Some(7),
            host: Host { running: true, pid: Some(1), ..Host::default() },
            shards: vec![ShardStatus { shard: 1, position: 5, end: Some(5), behind: None }],
            ..Status::default()
        };
        change(&mut status);
        status.judge();
        (status.verdict, status.well)
    }

    fn behind(status: &mut Status, seconds: f64) {
        status.shards[0].behind = Some(Behind { entries: 1, changes: Some(1), seconds });
    }

    fn trouble(status: &mut Status, paused: bool) {
        status.troubles.insert("shard 1".to_owned(), Trouble { paused, ..Trouble::default() });
    }

    #[test]
    fn a_verdict_is_that_of_the_worst_part() {
        assert_eq!(judged(|_| {}), (Verdict::InStep, true));
        assert_eq!(judged(|status| status.pending.marks = 1), (Verdict::Behind, true));
        assert_eq!(judged(|status| status.pending.batches = 1), (Verdict::Behind, true));
        assert_eq!(judged(|status| behind(status, 1.0)), (Verdict::Behind, true));
        assert_eq!(judged(|status| status.shards[0].end = None), (Verdict::Behind, true));
        assert_eq!(judged(|status| trouble(status, false)), (Verdict::Failing, false));
        assert_eq!(judged(|status| trouble(status, true)), (Verdict::Paused, false));
        assert_eq!(judged(|status| status.log.error = Some("no".to_owned())), (Verdict::Failing, false));
        assert_eq!(judged(|status| status.host.pid = None), (Verdict::Starting, false));
        assert_eq!(judged(|status| status.host.running = false), (Verdict::NotRunning, false));
        assert_eq!(judged(|status| (status.host.running, status.node) = (false, None)), (Verdict::NeverRan, false));
    }

    /// What has been on its way for longer than a minute is not well, in either direction.
    #[test]
    fn behind_for_long_is_not_well() {
        assert_eq!(judged(|status| behind(status, BEHIND_MAX_SECONDS + 0.1)), (Verdict::Behind, false));
        let waits = Pending { batches: 1, seconds: Some(BEHIND_MAX_SECONDS + 0.1), ..Pending::default() };
        assert_eq!(judged(|status| status.pending = waits), (Verdict::Behind, false));
    }
}
