//! Antiphon: runs beside an application's SQLite file and keeps every other node's file the same.

#[macro_use]
pub mod flaw;
pub mod clock;
pub mod db;
pub mod failure;
pub mod join;
pub mod lock;
pub mod node;
pub mod log;
pub mod publish;
pub mod subscribe;
pub mod watch;

#[allow(unused_imports, reason = "used by the modules through the crate root")]
use flaw::fault;
