//! What storages reached over HTTP are made with: the bindings of their world, a client on `wasi:http`, and from an
//! answer to the kind of failure it is.
//!
//! An instance does one call at a time, so nothing here waits for two things at once but a request for its answer: a
//! future that is polled blocks until it is done, and [`wait`] has nothing to do in between.

mod client;
mod exchange;
mod failure;
mod names;
mod settings;

/// The world, as the toolchain sees it.
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "storage-http",
        pub_export_macro: true,
        default_bindings_module: "http_client::bindings",
    });
}

pub use bindings::antiphon::plugin::objects::{Error, Kind, Object};
pub use bindings::antiphon::plugin::types::Settings;
pub use bindings::exports::antiphon::plugin::metadata::{Guest as Describe, Info};
pub use bindings::exports::antiphon::plugin::storage::{Guest as Storage, GuestSession, Session, Traits};
pub use client::{Client, Seen};
pub use failure::{by_name, clock_skew, failed, seconds};
pub use names::{aside, is_name};
pub use settings::Given;

/// The largest object there can be.
pub const OBJECT_BYTES_MAX: usize = 32 << 20;

/// Runs a future to its end. What it waits for it waits for itself.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
}
