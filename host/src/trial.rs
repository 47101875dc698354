//! Components tried out without a node: what a user can find out about one before a cluster depends on it.
//!
//! Nothing here is part of replication. What is drawn comes from a seed, so that whatever is found is found again.
//!
//! | module | noun |
//! |---|---|
//! | [`dice`] | numbers from a seed |
//! | [`tables`] | tables of every shape that components meet |
//! | [`draw`] | clashes and keys of these tables |
//! | [`notation`] | values, rows and verdicts as case files write them |
//! | [`cases`] | case files: questions, and the answers that they must have |
//! | [`probe`] | the same questions asked in other ways |
//! | [`history`] | whole clusters that fold what a resolver decided |
//! | [`pace`] | how long a component takes |

pub mod cases;
pub mod dice;
pub mod draw;
pub mod history;
pub mod notation;
pub mod pace;
pub mod probe;
pub mod tables;
