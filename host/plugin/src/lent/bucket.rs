//! The one bucket of an object store that a plugin is lent; never the connection.

use std::sync::Arc;

use antiphon_core::store::{ErrorKind, Name, OBJECT_BYTES_MAX, Object, StoreError, is_prefix};
use async_trait::async_trait;

use super::Lent;
use crate::bindings::nats_bucket::Host;
use crate::bindings::objects;

/// A bucket that the host has, to be lent to a plugin. It is asked on threads of the plugins.
#[async_trait]
pub trait Bucket: Send + Sync {
    /// The largest object it takes, in bytes.
    fn max_object(&self) -> u64;

    /// Whether it is there and may be written; made if it is missing and may be made.
    async fn check(&self) -> Result<(), StoreError>;

    /// Writes an object, whole or not at all.
    async fn put(&self, name: &Name, body: Vec<u8>) -> Result<(), StoreError>;

    /// Reads an object from `offset`, `length` bytes of it or all that is left; never more than an object may have.
    async fn get(&self, name: &Name, offset: u64, length: Option<u64>) -> Result<Vec<u8>, StoreError>;

    /// What is known of an object.
    async fn stat(&self, name: &Name) -> Result<Object, StoreError>;

    /// Objects whose names begin with `prefix` and come after `after`: the first `limit` in the order of their bytes.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Object>, StoreError>;

    /// Removes an object. That it is missing already is fine.
    async fn delete(&self, name: &Name) -> Result<(), StoreError>;
}

/// What a plugin hears of a failure, without its hint.
pub(super) fn told(error: StoreError) -> objects::Error {
    let kind = match error.kind {
        ErrorKind::NotFound => objects::Kind::NotFound,
        ErrorKind::Exists => objects::Kind::Exists,
        ErrorKind::Denied => objects::Kind::Denied,
        ErrorKind::Unsupported => objects::Kind::Unsupported,
        ErrorKind::Temporary => objects::Kind::Temporary,
        ErrorKind::Permanent => objects::Kind::Permanent,
    };
    let retry_after_ms = error.retry_after.map(|after| u32::try_from(after.as_millis()).unwrap_or(u32::MAX));
    objects::Error { kind, message: error.message, retry_after_ms }
}

/// The name that a plugin gives, if it is one: what is no name of ours gets no further.
fn name(key: String) -> Result<Name, objects::Error> {
    Name::new(key).map_err(|error| told(StoreError::new(ErrorKind::Permanent, error.to_string())))
}

fn object(object: Object) -> objects::Object {
    objects::Object {
        key: object.name.as_str().to_owned(),
        size: object.size,
        modified_ms: object.modified_ms,
        etag: object.etag,
    }
}

impl Lent {
    fn bucket(&self) -> Result<Arc<dyn Bucket>, objects::Error> {
        let none = || told(StoreError::new(ErrorKind::Permanent, "no bucket is lent"));
        self.bucket.clone().ok_or_else(none)
    }

    /// What the plugin hears of a failure; its hint is kept for whoever hears of it from the plugin.
    pub(super) fn tell(&mut self, error: StoreError) -> objects::Error {
        if let Some(hint) = &error.hint {
            self.hinted = Some((error.message.clone(), hint.clone()));
        }
        told(error)
    }
}

impl Host for Lent {
    async fn max_object(&mut self) -> u64 {
        self.bucket().map_or(0, |bucket| bucket.max_object()).min(OBJECT_BYTES_MAX)
    }

    async fn check(&mut self) -> Result<(), objects::Error> {
        self.bucket()?.check().await.map_err(|error| self.tell(error))
    }

    async fn put(&mut self, key: String, body: Vec<u8>) -> Result<(), objects::Error> {
        self.bucket()?.put(&name(key)?, body).await.map_err(|error| self.tell(error))
    }

    async fn get(&mut self, key: String, offset: u64, length: Option<u64>) -> Result<Vec<u8>, objects::Error> {
        self.bucket()?.get(&name(key)?, offset, length).await.map_err(|error| self.tell(error))
    }

    async fn stat(&mut self, key: String) -> Result<objects::Object, objects::Error> {
        self.bucket()?.stat(&name(key)?).await.map(object).map_err(|error| self.tell(error))
    }

    async fn list_keys(
        &mut self,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<objects::Object>, objects::Error> {
        let after = after.as_deref();
        if !is_prefix(&prefix) || !after.is_none_or(is_prefix) {
            return Err(told(StoreError::new(ErrorKind::Permanent, "no name begins like that")));
        }
        let listed = self.bucket()?.list(&prefix, after, limit as usize).await;
        Ok(listed.map_err(|error| self.tell(error))?.into_iter().map(object).collect())
    }

    async fn delete(&mut self, key: String) -> Result<(), objects::Error> {
        self.bucket()?.delete(&name(key)?).await.map_err(|error| self.tell(error))
    }
}
