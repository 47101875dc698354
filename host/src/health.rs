//! What is wrong with a node, since when, and what to do about it.
//!
//! [`Limits::findings`] looks at the vitals and finds what is wrong at this moment: values in, values out. [`Conditions`]
//! remembers since when, so that what lasts a moment makes nobody unhealthy, and what comes and goes does not flicker.

mod snapshots;

use crate::alarm::OnFull;
use crate::config::HealthCheck;
use crate::vitals::{Phase, Vitals};
use crate::words::{count, shell};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// What has been over for so long is over: within it, it has only paused.
const CLEAR_MS: u64 = 10_000;
/// So far clocks may differ: times in records say little beyond that.
const CLOCK_OFF_MAX_MS: u64 = 60_000;
/// When so much of its room is used, the log is nearly full.
const LOG_USED_MAX: f64 = 0.8;
/// With fewer files left than this, one can be too many.
const FREE_FILES_MIN: u64 = 64;

/// What is well, and what is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long the log may be out of reach, and a part may meet errors.
    pub log_grace: Duration,
    /// How long a change may be on its way.
    pub lag_max: Duration,
    /// Room that there is to be on the disk.
    pub disk_free_min: u64,
    /// How long ago a snapshot may have been found whole at most; zero: it does not matter.
    pub snapshot_verified_within: Duration,
    /// This node, as commands are told which one: `--config FILE`, or the database.
    pub node: String,
}

impl Limits {
    /// Those of a configuration.
    #[must_use]
    pub fn of(health: &HealthCheck, file: Option<&Path>, database: &Path) -> Self {
        Self {
            log_grace: Duration::from_millis(health.log_grace),
            lag_max: Duration::from_millis(health.lag_max),
            disk_free_min: health.disk_free_min.0,
            snapshot_verified_within: Duration::from_millis(health.snapshot_verified_within),
            node: file.map_or_else(|| shell(database), |file| format!("--config {}", shell(file))),
        }
    }
}

/// Something that is wrong at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name, the same at each time: `log`, `shard 1`.
    pub name: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
    /// For how long it is not worth a word.
    pub grace: Duration,
}

/// Something that is wrong and has been for long enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reason {
    /// Its name, the same at each time: `log`, `shard 1`.
    pub name: String,
    /// What is wrong.
    pub what: String,
    /// Since when, in UTC.
    pub since: Option<String>,
    /// What to do.
    pub remedy: String,
}

/// Whether a node is well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Nothing is wrong.
    pub healthy: bool,
    /// What is.
    pub reasons: Vec<Reason>,
}

impl Health {
    /// In a word, as HarmonyLite says it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        if self.healthy { "healthy" } else { "unhealthy" }
    }

    /// Whether a node can serve its application: it has read what there was, and none of its shards has stopped.
    #[must_use]
    pub fn is_ready(&self, vitals: &Vitals) -> bool {
        let stops = |reason: &Reason| reason.name.starts_with("shard ") || reason.name == "database";
        vitals.phase == Phase::Running && vitals.caught_up && !self.reasons.iter().any(stops)
    }
}

impl Limits {
    /// What is wrong, without regard to how long it has been.
    #[must_use]
    pub fn at_once(&self, vitals: &Vitals) -> Health {
        let mut conditions = Conditions::default();
        let findings = self.findings(vitals).into_iter().map(|found| Finding { grace: Duration::ZERO, ..found });
        conditions.judge(findings.collect(), vitals.at_ms)
    }

    /// What is wrong at this moment.
    #[must_use]
    pub fn findings(&self, vitals: &Vitals) -> Vec<Finding> {
        let mut found = Findings { all: Vec::new(), db: &self.node, log_grace: self.log_grace };
        match vitals.phase {
            Phase::Running => {}
            Phase::Starting => {
                let what = "this node has not begun to replicate";
                found.now("starting", what, "wait; if it goes on, the process's log says what it waits for".to_owned());
                return found.all;
            }
            Phase::Stopping => {
                found.now("stopping", "this node stops", "start it again: `antiphon run`".to_owned());
                return found.all;
            }
        }
        found.machine(self, vitals);
        found.parts(vitals);
        found.way(self, vitals);
        found.snapshots(self, vitals);
        found.all
    }
}

struct Findings<'a> {
    all: Vec<Finding>,
    db: &'a str,
    log_grace: Duration,
}

impl Findings<'_> {
    fn add(&mut self, name: impl Into<String>, what: impl Into<String>, remedy: String, grace: Duration) {
        self.all.push(Finding { name: name.into(), what: what.into(), remedy, grace });
    }

    fn now(&mut self, name: impl Into<String>, what: impl Into<String>, remedy: String) {
        self.add(name, what, remedy, Duration::ZERO);
    }

    /// The file, its disk, and the database behind them.
    fn machine(&mut self, limits: &Limits, vitals: &Vitals) {
        let (db, grace) = (self.db, self.log_grace);
        if let Some(why) = &vitals.db_error {
            let remedy = format!(
                "see who keeps it locked or what is wrong with its disk: `antiphon doctor {db}`; this node goes on by itself"
            );
            self.add("database", format!("the database does not answer: {why}"), remedy, grace);
        }
        if vitals.files.read_only {
            let remedy = format!(
                "make them writable for the user that runs this: {}; this node goes on by itself when they are",
                vitals.status.database
            );
            self.now("read-only", "the database or its folder can't be written", remedy);
        }
        let (free, least) = (vitals.files.disk_free, limits.disk_free_min);
        if free < least {
            let what =
                format!("the disk of the database is nearly full: {free} bytes are free, and {least} are asked for");
            let remedy = "make room; nothing is lost, and this node goes on by itself. What it keeps: `outbox_keep_bytes`; \
                          what is enough: `disk_free_min` under `[health_check]`";
            self.now("disk", what, remedy.to_owned());
        }
        if let Some(files) = vitals.files.free_files.filter(|files| *files < FREE_FILES_MIN) {
            let what = format!("the disk of the database has room for {} more", count(files, "file", "files"));
            self.now("files", what, "remove files from that disk; `df -i` shows what is left".to_owned());
        }
        let bring = "bring the log back, and this ends by itself; or raise `outbox_bytes_max` under `[capture]`, or set \
                     `outbox_on_full = \"grow\"` there, and start this node again";
        match vitals.full {
            OnFull::Refuse => {
                let what =
                    "changes that wait for the log have used all their room, and the application's writes are refused";
                self.now("outbox", what, bring.to_owned());
            }
            OnFull::Stop => {
                let what = "changes that wait for the log have used all their room, and what the application writes is not \
                            captured: its tables are compared with the log after it";
                self.now("outbox", what, bring.to_owned());
            }
            OnFull::Grow if vitals.outbox_percent >= 80 => {
                let what = format!("changes that wait for the log have used {} % of their room", vitals.outbox_percent);
                let remedy = "bring the log back, or make room; all is kept, and the application writes on while the disk \
                              has room";
                self.now("outbox", what, remedy.to_owned());
            }
            OnFull::Grow => {}
        }
        let process = &vitals.process;
        if process.descriptors_max > 0
            && process.descriptors.saturating_mul(10) >= process.descriptors_max.saturating_mul(9)
        {
            let what = format!(
                "the process has {} files and connections open, of {} that it may",
                process.descriptors, process.descriptors_max
            );
            self.now("descriptors", what, "raise its limit, as `LimitNOFILE=` of systemd or `ulimit -n`".to_owned());
        }
    }

    /// What parts of the node say of themselves.
    fn parts(&mut self, vitals: &Vitals) {
        let (db, grace) = (self.db, self.log_grace);
        let mut tables = Vec::new();
        for (part, trouble) in &vitals.status.troubles {
            let reason = &trouble.reason;
            if let Some(table) = part.strip_prefix("table ") {
                tables.push(format!("`{table}`: {reason}"));
            } else if part.starts_with("shard ") && trouble.paused {
                let remedy = format!(
                    "do what it says; it looks again twice a second, and goes on by itself. Changes are kept: `antiphon \
                     status {db}`"
                );
                self.now(part, format!("{part} is paused: {reason}"), remedy);
            } else if part.starts_with("shard ") {
                let remedy =
                    format!("it is tried again and again; `antiphon doctor {db}` looks at all that can be wrong");
                self.add(part, format!("{part} can't be applied: {reason}"), remedy, grace);
            } else if part == "publish" {
                let remedy = format!(
                    "it is tried again and again, and what waits is kept; `antiphon doctor {db}` looks at all that can be \
                     wrong"
                );
                self.add(part, format!("changes can't be sent: {reason}"), remedy, grace);
            } else if part == "snapshots" {
                let remedy = format!("`antiphon storage check {}` says what it lacks; it is tried again", store(db));
                self.add(part, format!("no snapshot can be made: {reason}"), remedy, grace);
            } else {
                self.add(part, format!("{part}: {reason}"), format!("see `antiphon status {db}`"), grace);
            }
        }
        if !tables.is_empty() {
            let what = format!("{} not as on other nodes: {}", tables_are(tables.len()), tables.join("; "));
            self.now(
                "tables",
                what,
                format!("do what it says; all else goes on. `antiphon status {db}` shows the same"),
            );
        }
        if let Some(forged) = vitals.status.degraded.get("forged") {
            self.now("forged", forged, "see who may publish to the log's subjects".to_owned());
        }
    }

    /// The way to the log and back.
    fn way(&mut self, limits: &Limits, vitals: &Vitals) {
        let db = self.db;
        if !vitals.log_connected {
            let why = vitals.status.log.error.as_ref().or_else(|| vitals.status.degraded.get("connection"));
            let why = why.map_or("it does not answer", String::as_str);
            let remedy = format!(
                "bring it back, or the way to it; nothing is lost meanwhile. `antiphon doctor {db}` tries the way itself"
            );
            self.add("log", format!("the log is out of reach: {why}"), remedy, limits.log_grace);
        }
        let fullest = vitals.log_used.iter().max_by(|(_, one), (_, other)| one.total_cmp(other));
        if let Some((shard, used)) = fullest.filter(|(_, used)| **used >= LOG_USED_MAX) {
            let what = format!("shard {shard} of the log has used {:.0} % of its room", used * 100.0);
            let remedy = format!(
                "raise `log_bytes_max` under `[replication_log]`, or see which node or snapshot it is kept for: `antiphon log \
                 truncate {db} --dry-run`; once it is full nothing is sent any more, and what waits is kept"
            );
            self.now("log-room", what, remedy);
        }
        let off = vitals.clock_ahead_ms;
        if off.unsigned_abs() > CLOCK_OFF_MAX_MS {
            let what = format!(
                "this machine's clock is {} seconds {} the log's",
                off.unsigned_abs() / 1000,
                if off > 0 { "ahead of" } else { "behind" }
            );
            let remedy = format!(
                "set the clocks of all machines, as by NTP; `antiphon doctor {db}` says which one differs. Rows go by the log's \
                 order, so none is lost; under `newest-wins` the clock that is ahead wins meanwhile"
            );
            self.add("clock", what, remedy, limits.log_grace);
        }
        let most = limits.lag_max.as_secs_f64();
        let behind = vitals.status.shards.iter().filter_map(|shard| Some((shard.shard, shard.behind.as_ref()?)));
        let worst = behind.max_by(|(_, a), (_, b)| a.seconds.total_cmp(&b.seconds));
        if let Some((shard, behind)) = worst.filter(|(_, behind)| behind.seconds > most) {
            let what = format!(
                "this node is behind: {} of shard {shard}, the oldest {:.0} seconds old",
                count(behind.entries, "entry", "entries"),
                behind.seconds
            );
            let remedy = format!("if it does not get less, see what holds it up: `antiphon status {db} --watch`");
            self.now("behind", what, remedy);
        }
        let pending = &vitals.status.pending;
        if let Some(seconds) = pending.seconds.filter(|seconds| *seconds > most) {
            let what = format!(
                "{} written here did not come back from the log, the oldest after {seconds:.0} seconds",
                count(pending.batches, "batch", "batches")
            );
            let remedy = format!("they are kept and sent again; see what holds them up: `antiphon status {db}`");
            self.now("unsent", what, remedy);
        }
    }
}

/// The same node for commands that only need where its snapshots are.
fn store(node: &str) -> String {
    if node.starts_with("--") { node.to_owned() } else { format!("--db {node}") }
}

fn tables_are(tables: usize) -> String {
    format!("{} {}", count(tables as u64, "table", "tables"), if tables == 1 { "is" } else { "are" })
}

/// Since when what is wrong, or was a moment ago.
#[derive(Clone, Debug, Default)]
pub struct Conditions(BTreeMap<String, Condition>);

#[derive(Clone, Debug)]
struct Condition {
    finding: Finding,
    since_ms: u64,
    seen_ms: u64,
    /// It has been said.
    said: bool,
}

impl Conditions {
    /// What is wrong and has been for long enough, now that this was found.
    pub fn judge(&mut self, findings: Vec<Finding>, now_ms: u64) -> Health {
        for finding in findings {
            let known = self.0.entry(finding.name.clone());
            let condition = known.or_insert_with(|| Condition {
                finding: finding.clone(),
                since_ms: now_ms,
                seen_ms: now_ms,
                said: false,
            });
            (condition.finding, condition.seen_ms) = (finding, now_ms);
            // A clock that was set back must not make it begin in the future.
            condition.since_ms = condition.since_ms.min(now_ms);
        }
        // What was said stays a while, lest it flicker; what was not is gone at once.
        self.0.retain(|_, condition| {
            let gone_ms = now_ms.checked_sub(condition.seen_ms);
            gone_ms == Some(0) || condition.said && gone_ms.is_some_and(|gone_ms| gone_ms < CLEAR_MS)
        });
        let mut reasons = Vec::new();
        for condition in self.0.values_mut() {
            let lasted = Duration::from_millis(now_ms.saturating_sub(condition.since_ms));
            if lasted < condition.finding.grace && !condition.said {
                continue;
            }
            condition.said = true;
            reasons.push(Reason {
                name: condition.finding.name.clone(),
                what: condition.finding.what.clone(),
                since: Some(crate::clock::utc(condition.since_ms)),
                remedy: condition.finding.remedy.clone(),
            });
        }
        Health { healthy: reasons.is_empty(), reasons }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::status::{Behind, ShardStatus, Trouble};
    use crate::vitals::{Files, Process};

    fn limits() -> Limits {
        let mut limits = Limits::of(&HealthCheck::default(), None, Path::new("app.db"));
        limits.snapshot_verified_within = Duration::from_secs(3600);
        limits
    }

    pub(super) fn well() -> Vitals {
        Vitals {
            at_ms: 1_000_000_000,
            phase: Phase::Running,
            db_connected: true,
            log_connected: true,
            captured: true,
            caught_up: true,
            uptime_seconds: 10_000.0,
            files: Files { disk_free: 1 << 40, free_files: Some(1_000), ..Files::default() },
            process: Process { descriptors: 10, descriptors_max: 1024, ..Process::default() },
            ..Vitals::default()
        }
    }

    pub(super) fn names(change: impl FnOnce(&mut Vitals)) -> Vec<String> {
        let mut vitals = well();
        change(&mut vitals);
        limits().findings(&vitals).into_iter().map(|found| found.name).collect()
    }

    fn trouble(vitals: &mut Vitals, part: &str, paused: bool) {
        vitals.status.troubles.insert(part.to_owned(), Trouble { paused, reason: "no".to_owned(), seconds: 1.0 });
    }

    #[test]
    fn each_thing_that_is_wrong_has_its_name() {
        let none: [&str; 0] = [];
        assert_eq!(names(|_| {}), none);
        assert_eq!(names(|vitals| vitals.phase = Phase::Starting), ["starting"]);
        assert_eq!(names(|vitals| vitals.db_error = Some("locked".to_owned())), ["database"]);
        assert_eq!(names(|vitals| vitals.files.read_only = true), ["read-only"]);
        assert_eq!(names(|vitals| vitals.files.disk_free = 1), ["disk"]);
        assert_eq!(names(|vitals| vitals.files.free_files = Some(1)), ["files"]);
        assert_eq!(names(|vitals| vitals.files.free_files = None), none);
        assert_eq!(names(|vitals| vitals.outbox_percent = 80), ["outbox"]);
        assert_eq!(names(|vitals| vitals.clock_ahead_ms = 60_000), none);
        assert_eq!(names(|vitals| vitals.clock_ahead_ms = 60_001), ["clock"]);
        assert_eq!(names(|vitals| vitals.clock_ahead_ms = -60_001), ["clock"]);
        assert_eq!(names(|vitals| (vitals.outbox_percent, vitals.full) = (95, OnFull::Refuse)), ["outbox"]);
        assert_eq!(names(|vitals| vitals.full = OnFull::Stop), ["outbox"]);
        assert_eq!(names(|vitals| vitals.process.descriptors = 1000), ["descriptors"]);
        assert_eq!(names(|vitals| trouble(vitals, "shard 1", true)), ["shard 1"]);
        assert_eq!(names(|vitals| trouble(vitals, "publish", false)), ["publish"]);
        assert_eq!(names(|vitals| trouble(vitals, "table x", true)), ["tables"]);
        assert_eq!(names(|vitals| trouble(vitals, "snapshots", false)), ["snapshots"]);
        assert_eq!(names(|vitals| vitals.log_connected = false), ["log"]);
        assert_eq!(names(|vitals| vitals.status.pending.seconds = Some(61.0)), ["unsent"]);
        let behind = |vitals: &mut Vitals, seconds: f64| {
            let behind = Some(Behind { entries: 1, changes: Some(1), seconds });
            vitals.status.shards = vec![ShardStatus { shard: 1, position: 1, end: Some(2), behind }];
        };
        assert_eq!(names(|vitals| behind(vitals, 61.0)), ["behind"]);
        assert_eq!(names(|vitals| behind(vitals, 59.0)), none);
        assert_eq!(names(|vitals| vitals.log_used = BTreeMap::from([(1, 0.1), (2, 0.81)])), ["log-room"]);
        assert_eq!(names(|vitals| vitals.log_used = BTreeMap::from([(1, 0.79)])), none);
    }

    fn finding(grace_ms: u64) -> Vec<Finding> {
        let text = String::new;
        let grace = Duration::from_millis(grace_ms);
        vec![Finding { name: "log".to_owned(), what: text(), remedy: text(), grace }]
    }

    #[test]
    fn commands_name_the_node_as_it_was_started() {
        let of =
            |file: Option<&str>| Limits::of(&HealthCheck::default(), file.map(Path::new), Path::new("app.db")).node;
        assert_eq!((of(None).as_str(), of(Some("my a.toml")).as_str()), ("app.db", "--config 'my a.toml'"));
        assert_eq!((store("app.db").as_str(), store("--config a.toml").as_str()), ("--db app.db", "--config a.toml"));
    }

    #[test]
    fn what_lasts_a_moment_is_not_worth_a_word() {
        let mut conditions = Conditions::default();
        assert!(conditions.judge(finding(30_000), 1_000).healthy);
        assert!(conditions.judge(finding(30_000), 30_999).healthy);
        assert!(conditions.judge(Vec::new(), 31_000).healthy);
        assert!(conditions.judge(finding(30_000), 32_000).healthy, "it began anew");
        let health = conditions.judge(finding(30_000), 62_000);
        assert!(!health.healthy);
        assert_eq!(health.reasons[0].since.as_deref(), Some("1970-01-01T00:00:32.000Z"));
    }

    #[test]
    fn what_comes_and_goes_does_not_flicker() {
        let mut conditions = Conditions::default();
        assert!(!conditions.judge(finding(0), 1_000).healthy);
        assert!(!conditions.judge(Vec::new(), 10_999).healthy);
        assert!(!conditions.judge(finding(0), 11_000).healthy);
        let health = conditions.judge(Vec::new(), 20_000);
        assert_eq!(health.reasons[0].since.as_deref(), Some("1970-01-01T00:00:01.000Z"));
        assert!(conditions.judge(Vec::new(), 21_000).healthy);
    }

    #[test]
    fn a_clock_that_is_set_back_ends_nothing_and_begins_nothing_in_the_future() {
        let mut conditions = Conditions::default();
        conditions.judge(finding(0), 100_000);
        let health = conditions.judge(finding(0), 50_000);
        assert_eq!(health.reasons[0].since.as_deref(), Some("1970-01-01T00:00:50.000Z"));
        assert!(conditions.judge(Vec::new(), 40_000).healthy, "what is over is not kept by a clock");
    }

    #[test]
    fn a_node_is_ready_when_it_has_read_what_there_was() {
        let ready = |change: fn(&mut Vitals)| {
            let mut vitals = well();
            change(&mut vitals);
            limits().at_once(&vitals).is_ready(&vitals)
        };
        assert!(ready(|_| {}));
        assert!(!ready(|vitals| vitals.caught_up = false));
        assert!(!ready(|vitals| vitals.phase = Phase::Starting));
        assert!(!ready(|vitals| trouble(vitals, "shard 1", true)));
        assert!(ready(|vitals| vitals.log_connected = false), "what is there can be read");
    }
}
