//! Snapshots as far as they can be thought through without a file: what they are called, what is said of them, which
//! are due, which are kept, which reach a point in time, and how much of the log they make superfluous.
//!
//! | module | noun |
//! |---|---|
//! | [`id`] | a snapshot's name |
//! | [`layout`] | names of objects in a store |
//! | [`manifest`] | the one small object that makes a snapshot real |
//! | [`frame`] | a stretch of a file, compressed and told by its hash |
//! | [`due`] | when the next one is made |
//! | [`keep`] | which stay, and for which reason |
//! | [`segment`] | a stretch of the log in the archive |
//! | [`merge`] | which segments become one |
//! | [`reach`] | from which snapshot and which segments a point in time is reached |
//! | [`truncate`] | how far a log may be forgotten |

pub mod due;
pub mod frame;
pub mod id;
pub mod keep;
pub mod layout;
pub mod manifest;
pub mod merge;
pub mod reach;
pub mod segment;
pub mod truncate;

mod calendar;
