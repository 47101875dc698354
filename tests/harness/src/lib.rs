//! What the test suites share: nodes in one process over the memory log, driven step by step; real processes; and the
//! policies without their components.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test that can't go on should fail loudly"
)]

mod apart;
mod broker;
pub mod browser;
mod certificates;
mod clock;
mod dav;
mod faulty;
mod guests;
pub mod harmonylite;
pub mod health;
pub mod http;
mod neighbour;
pub mod nested;
mod node;
pub mod planted;
mod policies;
mod process;
mod proxy;
mod refusing;
mod s3;
pub mod seeds;
mod sshd;
mod storages;
pub mod vfs;

pub use antiphon::db::Make;
pub use apart::{is_root, mounts_apart, network_apart};
pub use broker::{Broker, Brokers};
pub use certificates::Authority;
pub use clock::Clock;
pub use dav::DavServer;
pub use faulty::{Answer, Asked, Faulty, Manner};
pub use guests::{resolver_guest, resolver_guest_with};
pub use neighbour::{Neighbour, Stopping, Waits};
pub use node::{
    Dice, Mishap, Node, Setup, agreed, append_floor, append_foreign, decision, dump, dump_of, foreign, found, mishap,
    pair, pair_with, policy, settle, trio, trio_with,
};
pub use policies::{ColumnMerge, Counter, FirstWriteWins, Fussy, NewestWins, NodePriority};
pub use process::{Ended, Place, Program, Site, entries, eventually, finish, goes_on, settled};
pub use proxy::{Flow, Proxy};
pub use refusing::Refusing;
pub use rustix::io::Errno;
pub use rustix::process::{Resource, Signal};
pub use s3::{S3Server, S3Ways};
pub use sshd::{SshAgent, Sshd};
pub use storages::storage_guest;
