//! What the test suites share: nodes in one process over the memory log, driven step by step.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that can't go on should fail loudly"
)]

mod node;

pub use node::{Dice, Node, Setup, append_foreign, foreign, found, pair, pair_with, settle, trio};
