//! Replicates an application's SQLite file: every node may write, nothing is lost.
//!
//! | module | noun |
//! |---|---|
//! | [`cli`] | the command line: one file a verb |
//! | [`config`] | what the user may say, and what it means |
//! | [`failure`] | what went wrong, as the user reads it |
//! | [`telemetry`] | log lines |

pub mod cli;
pub mod config;
pub mod failure;
pub mod telemetry;
