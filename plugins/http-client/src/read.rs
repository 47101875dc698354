//! An object, or a part of it.

use opendal_core::{Buffer, ErrorKind, Operator, Result};

use crate::client::Client;

/// Reads `length` bytes from `offset` on, or all that is left; fewer where the object ends before.
pub async fn read(client: &Client, from: &Operator, key: &str, offset: u64, length: Option<u64>) -> Result<Buffer> {
    let read = from.read_with(key);
    let read = match length {
        Some(length) => read.range(offset..offset.saturating_add(length)),
        None if offset > 0 => read.range(offset..),
        None => read,
    };
    match (read.await, length) {
        // It ends before that.
        (Err(error), _) if error.kind() == ErrorKind::RangeNotSatisfied => Ok(Buffer::new()),
        // It ends within that: all was answered, and less came than was asked for.
        (Err(_), Some(length)) if client.seen().is_none() => {
            let size = from.stat(key).await?.content_length();
            let end = offset.saturating_add(length).min(size);
            match offset < end {
                true => from.read_with(key).range(offset..end).await,
                false => Ok(Buffer::new()),
            }
        }
        (read, _) => read,
    }
}
