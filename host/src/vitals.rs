//! How a node is, seen from within its process: the one model that the health answer, the page, the metrics and the alerts
//! show, each in its way.
//!
//! Its heart is the [`Status`] that `antiphon status` prints; around it is what only the process can know. An observer
//! makes one every few seconds, if somebody asks for them at all, and [`Lookout`] keeps the last.

mod history;
mod lookout;
mod machine;
mod observer;

pub use history::{History, Moment};
pub use lookout::{Lookout, Viewer};
pub use machine::{Files, Process};
pub(crate) use observer::Observer;

use crate::alarm::OnFull;
use crate::health::Health;
use crate::snapshot::{Stretch, Survey};
use crate::status::Status;
use antiphon_plugin::Used;
use serde::Serialize;
use std::collections::BTreeMap;

/// How a node is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Vitals {
    /// As of when, in milliseconds since 1970.
    pub at_ms: u64,
    /// How far it has come.
    pub phase: Phase,
    /// The same as `antiphon status` says from outside.
    pub status: Status,
    /// The database answers.
    pub db_connected: bool,
    /// Why it does not, if it said so.
    pub db_error: Option<String>,
    /// The log answers.
    pub log_connected: bool,
    /// Triggers are in place.
    pub captured: bool,
    /// All that was in the log was read once since the start.
    pub caught_up: bool,
    /// A shard waits for a table or a column that is not here.
    pub schema_paused: bool,
    /// How long it has replicated.
    pub uptime_seconds: f64,
    /// Changes of its own that came back since the start.
    pub published: u64,
    /// Changes of other nodes that were applied since the start.
    pub applied: u64,
    /// When the log took the newest of its own, in milliseconds since 1970; 0: none since the start.
    pub last_published_ms: u64,
    /// The same for those of others.
    pub last_replicated_ms: u64,
    /// The share of its room that the outbox has used, in percent, once that is much.
    pub outbox_percent: u64,
    /// What comes of a full outbox at the moment.
    pub full: OnFull,
    /// How far this machine's clock is ahead of the log's, in milliseconds; below zero: behind it.
    pub clock_ahead_ms: i64,
    /// Clashes since the start, by policy.
    pub clashes: Vec<crate::status::Clashes>,
    /// Rows of tables, as far as they are known.
    pub rows: BTreeMap<String, Rows>,
    /// The share of its room that each shard of the log has used, where it has a bound.
    pub log_used: BTreeMap<u32, f64>,
    /// Snapshots; none if none are made.
    pub snapshots: Option<Survey>,
    /// From when to when any point in time can be reached.
    pub reachable: Vec<Stretch>,
    /// Snapshots that this node made, and those it could not make, since the start.
    pub saved: u64,
    /// See `saved`.
    pub unsaved: u64,
    /// What plugins cost.
    pub plugins: Vec<Used>,
    /// The database's files and their disk.
    pub files: Files,
    /// The process.
    pub process: Process,
    /// What is wrong.
    pub health: Health,
}

/// How far a node has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It has not begun to replicate.
    #[default]
    Starting,
    /// It replicates.
    Running,
    /// It stops.
    Stopping,
}

/// How many rows a table has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rows {
    /// As many.
    pub count: u64,
    /// They were counted; else it is what the newest snapshot says.
    pub exact: bool,
}
