//! The part of Antiphon that only computes.
//!
//! Values in, values out: what a change is, how it is written to bytes, which SQL captures it, which shard
//! it belongs to, and who wins a clash. There is no file, socket, clock or thread in this crate, and its
//! manifest has nothing to make one with; so every line of it can be tested with plain values.
//!
//! | module | noun |
//! |---|---|
//! | [`value`] | a value of SQLite, with its storage class |
//! | [`schema`] | tables and columns as replication sees them |
//! | [`key`] | the canonical bytes of a primary key: equal for SQLite = equal here |
//! | [`cbor`] | the bounded reader and the writer of the wire's encoding |
//! | [`entry`] | one entry of the log: genesis, changes, notices |
//! | [`codec`] | an entry as bytes: magic, version, CBOR, zstd, checksum |
//! | [`capture`] | schema -> SQL text of change tables and triggers |
//! | [`hash`] | key -> 64-bit number -> shard |
//! | [`resolve`] | who wins a clash |
//! | [`snapshot`] | what can be thought through of snapshots without a file |
//! | [`store`] | objects by name; what a storage is asked |

pub mod capture;
pub mod cbor;
pub mod codec;
pub mod entry;
pub mod hash;
pub mod key;
pub mod resolve;
pub mod schema;
pub mod snapshot;
pub mod store;
pub mod value;
