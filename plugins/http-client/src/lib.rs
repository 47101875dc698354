//! What storages reached over HTTP are made with: the bindings of their world, a client on `wasi:http`, and from an
//! answer to the kind of failure it is.
//!
//! An instance does one call at a time, so nothing here waits for two things at once but a request for its answer: a
//! future that is polled blocks until it is done, and [`wait`] has nothing to do in between.

mod client;
mod exchange;
mod failure;
mod names;
mod read;
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
pub use read::read;
pub use settings::Given;

/// The largest object there can be.
pub const OBJECT_BYTES_MAX: usize = 32 << 20;

/// What a storage says of itself.
pub fn info(name: &str, version: &str, description: &str, settings_schema: &str) -> Info {
    let [name, version, description] = [name, version, description].map(str::to_owned);
    Info { name, version, description, settings_schema: settings_schema.to_owned(), laws: 1 }
}

/// There is an object already, and it was not to be replaced.
pub fn taken(what: &str) -> Error {
    Error { kind: Kind::Exists, message: format!("cannot {what}: there is one already"), retry_after_ms: None }
}

/// Whether what was put for a trial came back as it was.
pub fn came_back(what: &str, read: Result<Vec<u8>, Error>, put: &[u8]) -> Result<(), Error> {
    if read? == put {
        return Ok(());
    }
    let message = format!("cannot {what}: what was put there comes back as something else");
    Err(Error { kind: Kind::Permanent, message, retry_after_ms: None })
}

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
