//! Antiphon: runs beside an application's SQLite file and keeps every other node's file the same.
//!
//! ```text
//!  app ─writes─▶ SQLite ─triggers─▶ dirty keys ─seal─▶ outbox ─append─▶ log
//!                  ▲                                                     │
//!                  └──────── apply: one transaction, position included ◀─┘
//! ```
//!
//! | module | noun |
//! |---|---|
//! | [`cli`] | the command line: one file a verb |
//! | [`config`] | what the user may say, and what it means |
//! | `pages` | pages of the guide that are made from the code |
//! | [`components`], [`custom`] | from the configuration to what a node runs with; one component of it |
//! | [`node`] | a node: its parts, its tasks, and an orderly end |
//! | [`join`] | founding a cluster, or joining one |
//! | [`repair`] | what differs from the log and is not on its way becomes a change |
//! | [`publish`] | from the application's commits to the log |
//! | [`subscribe`] | from the log to the application's file |
//! | [`placement`] | whether the log is still the one that was applied |
//! | [`announce`], [`report`], [`status`] | what a node tells the others, and whoever asks for its status |
//! | [`seq_map`] | how far each shard was applied, for other tools |
//! | [`replay`] | clashes that a resolver failed at, as files |
//! | [`housekeeping`] | what nobody needs any more goes, in short steps |
//! | [`db`] | the application's file: capture, seal, apply |
//! | [`log`] | one total order, in memory or in a directory |
//! | [`server`] | a NATS server of this node's own |
//! | `privacy` | what this process makes is its user's alone |
//! | [`watch`], [`lock`], [`clock`] | file events, one host per database, the time of day |
//! | [`place`], [`life`] | where a database lies; what tells it from a copy of it |
//! | [`guard`], [`alarm`] | what is looked after while a node runs; an outbox that fills |
//! | [`trial`] | components tried out without a node |
//! | [`errand`] | what another process asks of a running node |
//! | [`failure`] | what went wrong, as the user reads it |
//! | [`memory`] | where the program's memory comes from |
//! | [`storage`] | where snapshots are kept |
//! | [`snapshot`] | how they are made, and how a database comes back from one |
//! | [`vitals`], [`health`] | how a node is, seen from within; what is wrong with it, and what to do |
//! | `bill` | what a job costs |
//! | [`metrics`], [`web`], [`alerts`] | the same for Prometheus, over HTTP, and for whoever wants to be told |
//! | [`telemetry`] | log lines |
//! | [`template`] | what a component of the user's own starts from |
//! | [`flaw`] | planted bugs, for tests alone |

#[macro_use]
pub mod flaw;
pub mod alarm;
pub mod alerts;
pub mod anew;
pub mod announce;
mod apart;
mod aside;
mod bill;
pub mod cli;
pub mod clock;
pub mod components;
pub mod config;
pub mod custom;
pub mod db;
pub mod errand;
pub mod failure;
pub mod guard;
pub mod health;
pub mod housekeeping;
pub mod join;
pub mod life;
pub mod lock;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod node;
mod pages;
pub mod place;
pub mod placement;
mod policies;
mod privacy;
pub mod publish;
mod reattach;
pub mod reload;
pub mod repair;
pub mod replacement;
pub mod replay;
pub mod report;
pub mod rescuer;
pub mod seq_map;
pub mod server;
pub mod snapshot;
pub mod status;
pub mod storage;
pub mod subscribe;
pub mod telemetry;
pub mod template;
pub mod trial;
mod unread;
pub mod vitals;
pub mod watch;
pub mod web;
mod words;
