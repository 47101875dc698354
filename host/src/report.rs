//! What only the running process knows, for `antiphon status`: why a shard is paused and since when, the last error,
//! how fast it goes.
//!
//! It is kept in `status.json` in the host's own directory, written when it changes and at most once a second, aside
//! and then renamed: whoever reads it reads a whole one. All that a start reads back is where the log of the last one was.

use crate::alarm::OnFull;
use crate::metrics::Metrics;
use crate::snapshot::Survey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The name of the sending task.
pub(crate) const PUBLISH: &str = "publish";

/// The file's name within the host's own directory.
pub const FILE: &str = "status.json";
const ASIDE: &str = "status.json.new";
/// The least time between two writings.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// What a process says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// When it was written, in milliseconds since 1970, as all times here.
    pub written_ms: u64,
    /// The process's number.
    pub pid: u32,
    /// The program's version.
    pub version: String,
    /// When it began to replicate.
    pub started_ms: u64,
    /// The directory of its log.
    pub log: String,
    /// Tables it replicates.
    pub tables: Vec<String>,
    /// Tables it can't, and why.
    pub refused: BTreeMap<String, String>,
    /// What is not well, by part: `publish`, `shard 1`.
    pub troubles: BTreeMap<String, Trouble>,
    /// What this node does without, though it goes on: `connection`, `durability`, `transport`.
    pub degraded: BTreeMap<String, String>,
    /// The last error of any part, though it may be over.
    pub last_error: Option<LastError>,
    /// Changes of other nodes and echoes applied a second, of late.
    pub applied_per_second: f64,
    /// Batches sent a second, of late.
    pub sent_per_second: f64,
    /// How it ended, if it had the time to say so.
    pub ended: Option<Ended>,
}

/// What is not well with a part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trouble {
    /// It waits for something to change; else it is tried again and again.
    pub paused: bool,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since_ms: u64,
    /// What has to change is a table or a column that is not here.
    pub schema: bool,
}

/// The last error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastError {
    /// Which part met it.
    pub part: String,
    /// Its words.
    pub error: String,
    /// When it was met last.
    pub at_ms: u64,
}

/// How a process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ended {
    /// When.
    pub at_ms: u64,
    /// What ended it, if nobody asked it to stop.
    pub error: Option<String>,
}

impl Report {
    /// The report in this directory, if there is one.
    ///
    /// # Errors
    /// When there is one that can't be read.
    pub fn read(state: &Path) -> std::io::Result<Option<Self>> {
        match std::fs::read(state.join(FILE)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes away what an earlier process wrote; gives the directory of its log. That alone stays, for a start that
    /// ends before it replicates: `status` goes on looking there.
    pub fn begin(state: &Path) -> Option<PathBuf> {
        let log = Self::read(state).ok().flatten().map(|earlier| earlier.log).filter(|log| !log.is_empty());
        let begun = match &log {
            Some(log) => Self { log: log.clone(), ..Self::default() }.write(state),
            None => std::fs::remove_file(state.join(FILE)),
        };
        if let Err(error) = begun
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "cannot replace the status of an earlier start");
        }
        log.map(PathBuf::from)
    }

    /// Whether a process wrote it that has begun to replicate.
    #[must_use]
    pub fn is_of_a_process(&self) -> bool {
        self.pid != 0
    }

    /// Replaces the file. It is its owner's alone, for errors may quote rows.
    fn write(&self, state: &Path) -> std::io::Result<()> {
        // Always the same one: what a killed process leaves is written over, and they don't add up.
        let aside = state.join(ASIDE);
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(&aside, state.join(FILE))
    }
}

/// Where the parts of a node note how they are.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    noted: Mutex<Noted>,
    changed: Notify,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Noted {
    report: Report,
    applied: u64,
    sent: u64,
    asides: Asides,
}

/// What only those ask who look from within the process.
#[derive(Clone, Debug, Default)]
pub struct Asides {
    /// Bytes that wait for the log.
    pub waiting_bytes: u64,
    /// The share of its room that the outbox has used, in percent, once that is much.
    pub filled_percent: u64,
    /// What comes of a full outbox at the moment.
    pub full: OnFull,
    /// Batches in the outbox, and their bytes.
    pub outbox: (u64, u64),
    /// When the log took the newest entry of this node's own that came back, in milliseconds since 1970.
    pub last_own_ms: u64,
    /// The same for the newest of another's.
    pub last_others_ms: u64,
    /// What this machine's clock said when this node announced itself last, in milliseconds since 1970.
    pub announced_ms: u64,
    /// Shards that were read to their end once.
    pub caught_up: std::collections::BTreeSet<crate::log::Shard>,
    /// Snapshots; none if none are made here.
    pub snapshots: Option<Survey>,
}

impl Board {
    /// A board of this process, which begins to replicate now.
    #[must_use]
    pub fn new(log: String) -> Self {
        let report = Report {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_ms: crate::clock::unix_ms(),
            log,
            ..Report::default()
        };
        let noted = Mutex::new(Noted { report, ..Noted::default() });
        Self(Arc::new(Inner { noted, changed: Notify::new(), metrics: Metrics::default() }))
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// What is noted, as of now. Speeds are those of the last report.
    #[must_use]
    pub fn report(&self) -> Report {
        self.noted().report.clone()
    }

    /// What is noted besides.
    #[must_use]
    pub fn asides(&self) -> Asides {
        self.noted().asides.clone()
    }

    /// Notes something besides.
    pub fn aside(&self, note: impl FnOnce(&mut Asides)) {
        note(&mut self.noted().asides);
    }

    /// This part goes on as it should.
    pub fn well(&self, part: &str) {
        let mut noted = self.noted();
        // Once a batch; worth nothing unless something was wrong.
        if noted.report.troubles.remove(part).is_some() {
            drop(noted);
            self.0.changed.notify_one();
        }
    }

    /// This part waits for something to change.
    pub fn paused(&self, part: &str, reason: &str) {
        self.trouble(part, reason, true, false);
    }

    /// This part waits for a table or a column.
    pub fn paused_over_schema(&self, part: &str, reason: &str) {
        self.trouble(part, reason, true, true);
    }

    /// This part met an error, and tries again.
    pub fn failing(&self, part: &str, error: &str) {
        let last = LastError { part: part.to_owned(), error: error.to_owned(), at_ms: crate::clock::unix_ms() };
        self.noted().report.last_error = Some(last);
        self.trouble(part, error, false, false);
    }

    /// Whether this part does not go on.
    #[must_use]
    pub fn is_failing(&self, part: &str) -> bool {
        self.noted().report.troubles.get(part).is_some_and(|trouble| !trouble.paused)
    }

    fn trouble(&self, part: &str, reason: &str, paused: bool, schema: bool) {
        let mut noted = self.noted();
        let since_ms = match noted.report.troubles.get(part) {
            Some(known) if known.reason == reason => known.since_ms,
            _ => crate::clock::unix_ms(),
        };
        let trouble = Trouble { paused, reason: reason.to_owned(), since_ms, schema };
        if noted.report.troubles.insert(part.to_owned(), trouble.clone()) != Some(trouble) {
            drop(noted);
            self.0.changed.notify_one();
        }
    }

    /// Which tables are replicated, and which can't be.
    pub fn tables(&self, tables: Vec<String>, refused: BTreeMap<String, String>) {
        let mut noted = self.noted();
        if noted.report.tables != tables || noted.report.refused != refused {
            noted.report.tables = tables;
            noted.report.refused = refused;
            drop(noted);
            self.0.changed.notify_one();
        }
    }

    /// What this node does without, though it goes on. Whoever knows of it has said it.
    pub fn degraded(&self, degraded: BTreeMap<String, String>) {
        let mut noted = self.noted();
        if noted.report.degraded == degraded {
            return;
        }
        noted.report.degraded = degraded;
        drop(noted);
        self.0.changed.notify_one();
    }

    /// What stays behind, by table; of all other tables nothing does any more.
    pub fn shortfalls(&self, tables: &BTreeMap<String, String>) {
        const PART: &str = "table ";
        let over: Vec<String> = {
            let noted = self.noted();
            let named = noted.report.troubles.keys().filter_map(|part| Some((part, part.strip_prefix(PART)?)));
            named.filter(|(_, table)| !tables.contains_key(*table)).map(|(part, _)| part.clone()).collect()
        };
        for part in over {
            self.well(&part);
        }
        for (table, reason) in tables {
            self.paused(&format!("{PART}{table}"), reason);
        }
    }

    /// So many changes were applied, and so many batches sent.
    pub fn count(&self, applied: u64, sent: u64) {
        if applied + sent == 0 {
            return;
        }
        let mut noted = self.noted();
        noted.applied += applied;
        noted.sent += sent;
        drop(noted);
        self.0.changed.notify_one();
    }

    /// Writes what is noted whenever it changes, until told to stop.
    pub async fn run(self, state: PathBuf, stop: CancellationToken) {
        let mut said = false;
        let mut written = Instant::now();
        loop {
            let report = self.measure(written.elapsed());
            written = Instant::now();
            let is_moving = report.applied_per_second > 0.0 || report.sent_per_second > 0.0;
            if let Err(error) = report.write(&state)
                && !std::mem::replace(&mut said, true)
            {
                tracing::warn!(%error, "cannot write what `antiphon status` reads");
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(WRITE_INTERVAL) => {}
            }
            // What moved must be seen to have stopped.
            if !is_moving {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = self.0.changed.notified() => {}
                }
            }
        }
    }

    /// The last report: how it ended.
    pub fn end(&self, state: &Path, error: Option<String>) {
        let report = {
            let mut noted = self.noted();
            let at_ms = crate::clock::unix_ms();
            noted.report.ended = Some(Ended { at_ms, error });
            Report { written_ms: at_ms, applied_per_second: 0.0, sent_per_second: 0.0, ..noted.report.clone() }
        };
        if let Err(error) = report.write(state) {
            tracing::debug!(%error, "cannot write what `antiphon status` reads");
        }
    }

    /// The report as it is now, with what moved since the last one.
    fn measure(&self, since: Duration) -> Report {
        let mut noted = self.noted();
        let seconds = since.as_secs_f64().max(0.001);
        let (applied, sent) = (std::mem::take(&mut noted.applied), std::mem::take(&mut noted.sent));
        #[expect(clippy::cast_precision_loss, reason = "a speed for people")]
        let a_second = |count: u64| (count as f64 / seconds).round();
        noted.report.applied_per_second = a_second(applied);
        noted.report.sent_per_second = a_second(sent);
        noted.report.written_ms = crate::clock::unix_ms();
        noted.report.clone()
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_is_written_can_be_read_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Report::read(folder.path()).unwrap(), None);
        let board = Board::new("log".to_owned());
        board.failing("publish", "no");
        board.end(folder.path(), Some("the log is gone".to_owned()));
        let report = Report::read(folder.path()).unwrap().unwrap();
        assert_eq!(report.last_error.unwrap().error, "no");
        assert_eq!(report.ended.unwrap().error.unwrap(), "the log is gone");
        let mode = folder.path().join(FILE).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left there");
        assert_eq!(Report::begin(folder.path()), Some(PathBuf::from("log")));
        assert_eq!(Report::read(folder.path()).unwrap(), Some(Report { log: "log".to_owned(), ..Report::default() }));
        assert_eq!(Report::begin(folder.path()), Some(PathBuf::from("log")), "it outlives many a start");
    }

    /// A process that was killed while it wrote leaves something; many of them leave no more.
    #[test]
    fn what_a_killed_process_left_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(ASIDE), "{\"pid\": 1234567890123456789012345678901234567890").unwrap();
        Report::default().write(folder.path()).unwrap();
        assert_eq!(Report::read(folder.path()).unwrap(), Some(Report::default()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn half_a_file_is_no_report() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "{\"pid\": ").unwrap();
        assert!(Report::read(folder.path()).is_err());
        assert_eq!(Report::begin(folder.path()), None);
        assert_eq!(Report::read(folder.path()).unwrap(), None);
    }

    #[test]
    fn a_trouble_keeps_its_beginning_and_goes_when_the_part_is_well() {
        let board = Board::new(String::new());
        board.paused("shard 1", "no table");
        board.noted().report.troubles.get_mut("shard 1").unwrap().since_ms = 1_000;
        let first = board.measure(Duration::from_secs(1)).troubles["shard 1"].clone();
        board.paused("shard 1", "no table");
        assert_eq!(board.measure(Duration::from_secs(1)).troubles["shard 1"], first);
        assert_eq!(first.since_ms, 1_000);
        board.well("shard 2");
        assert_eq!(board.measure(Duration::from_secs(1)).troubles.len(), 1);
        board.well("shard 1");
        assert!(board.measure(Duration::from_secs(1)).troubles.is_empty());
    }

    #[test]
    fn an_error_that_is_over_is_still_the_last_one() {
        let board = Board::new(String::new());
        board.failing("publish", "the disk is full");
        board.well("publish");
        let report = board.measure(Duration::from_secs(1));
        assert!(report.troubles.is_empty());
        assert_eq!(report.last_error.unwrap().error, "the disk is full");
    }

    #[test]
    fn speeds_are_of_late() {
        let board = Board::new(String::new());
        board.count(1000, 10);
        let report = board.measure(Duration::from_secs(2));
        assert!((report.applied_per_second - 500.0).abs() < 1e-9 && (report.sent_per_second - 5.0).abs() < 1e-9);
        let report = board.measure(Duration::from_secs(2));
        assert!(report.applied_per_second.abs() < 1e-9);
    }
}
