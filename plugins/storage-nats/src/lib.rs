//! The storage `nats`: objects in the one bucket of NATS's object store that the host lends.
//!
//! The host holds the connection and the credentials. An object replaces another at one message, so it is seen whole or
//! not at all; of two writers that want to be the first the store knows no first, and `if-absent` only looks before.

mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "storage-nats" });
    use super::Plugin;
    export!(Plugin);
}

use bindings::antiphon::plugin::nats_bucket as bucket;
use bindings::antiphon::plugin::objects::{Error, Kind, Object};
use bindings::antiphon::plugin::types::Settings;
use bindings::exports::antiphon::plugin::metadata::{self, Info};
use bindings::exports::antiphon::plugin::storage::{self, Traits};

struct Plugin;

impl metadata::Guest for Plugin {
    fn describe() -> Info {
        Info {
            name: "nats".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            description: "objects in a bucket of NATS".into(),
            settings_schema: r#"{
  "type": "object",
  "properties": {
    "bucket": { "type": "string", "description": "name of the bucket" },
    "replicas": { "type": "string", "default": "1", "description": "how many servers keep a copy, if it is made" }
  },
  "additionalProperties": false
}"#
            .into(),
            laws: 1,
        }
    }
}

impl storage::Guest for Plugin {
    type Session = Session;
}

/// There is nothing to remember: the bucket is the host's.
struct Session;

impl storage::GuestSession for Session {
    fn open(settings: Settings) -> Result<storage::Session, Error> {
        match settings.first() {
            // The bucket is lent by the host, which is told its name.
            Some((name, _)) => Err(Error {
                kind: Kind::Permanent,
                message: format!("there is no setting `{name}`; there are only `bucket` and `replicas`"),
                retry_after_ms: None,
            }),
            None => Ok(storage::Session::new(Self)),
        }
    }

    fn traits(&self) -> Traits {
        Traits { max_object: bucket::max_object(), put_if_absent: false, ranged_get: false, atomic_put: true }
    }

    fn check(&self) -> Result<(), Error> {
        bucket::check()
    }

    fn put(&self, key: String, body: Vec<u8>, if_absent: bool) -> Result<(), Error> {
        if if_absent {
            match bucket::stat(&key) {
                Err(error) if error.kind == Kind::NotFound => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    let message = format!("cannot put `{key}`: there is one already");
                    return Err(Error { kind: Kind::Exists, message, retry_after_ms: None });
                }
            }
        }
        bucket::put(&key, &body)
    }

    fn get(&self, key: String, offset: u64, length: Option<u64>) -> Result<Vec<u8>, Error> {
        bucket::get(&key, offset, length)
    }

    fn stat(&self, key: String) -> Result<Object, Error> {
        bucket::stat(&key)
    }

    fn list_keys(&self, prefix: String, after: Option<String>, limit: u32) -> Result<Vec<Object>, Error> {
        bucket::list_keys(&prefix, after.as_deref(), limit)
    }

    fn delete(&self, keys: Vec<String>) -> Result<(), Error> {
        keys.iter().try_for_each(|key| bucket::delete(key))
    }
}
