//! What a correct build survives, one test a case, by its id.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs, reason = "tests fail loudly")]

mod deletes;
mod echo;
mod formats;
mod halting;
mod hostile;
mod identity;
mod kinds;
mod large;
mod machine;
mod neighbours;
mod outbox;
mod policies;
mod reconcile;
mod schema;
mod statements;
mod switching;
mod tables;
mod values;
