//! Size and hash of an object. No store is believed: what was put is read back, and what is read is compared.

use antiphon_core::store::{ErrorKind, Name, Put, Store, StoreError};

/// What an object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its size in bytes.
    pub size: u64,
    /// The BLAKE3 hash of its bytes.
    pub hash: blake3::Hash,
}

impl Content {
    /// What these bytes are.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        Self { size: body.len() as u64, hash: blake3::hash(body) }
    }
}

/// Writes an object, reads it back and compares. Gives what it holds.
///
/// # Errors
/// When it can't be written or read, or what is read is not what was written.
pub fn put(store: &dyn Store, name: &Name, body: &[u8], put: Put) -> Result<Content, StoreError> {
    let content = Content::of(body);
    store.put(name, body, put)?;
    crate::bill::stored(body.len());
    get(store, name, &content)?;
    Ok(content)
}

/// Reads an object that must hold this.
///
/// # Errors
/// When it can't be read, or holds anything else.
pub fn get(store: &dyn Store, name: &Name, content: &Content) -> Result<Vec<u8>, StoreError> {
    let body = store.get(name, None)?;
    let found = Content::of(&body);
    if found == *content {
        return Ok(body);
    }
    let why = if found.size == content.size {
        format!("`{name}` is not what was put there: its {} bytes have another hash", found.size)
    } else {
        format!("`{name}` is not what was put there: it has {} bytes, and {} were put", found.size, content.size)
    };
    Err(StoreError::new(ErrorKind::Permanent, why))
}
