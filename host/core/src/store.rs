//! Somewhere to keep objects: what they are called, what can go wrong, and the trait [`Store`].
//!
//! Objects are whole and bounded, so nothing streams: who has gigabytes to keep has many objects in flight.

use std::fmt;
use std::time::Duration;

/// The longest name of an object, in bytes.
pub const NAME_BYTES_MAX: usize = 400;

/// The largest object there can be anywhere.
pub const OBJECT_BYTES_MAX: u64 = 32 << 20;

/// The name of an object: letters, digits, `.`, `_`, `-`, and `/` between parts.
///
/// No part is empty, `.` or `..`: whatever a store makes of names, a path among it, one stays below where it began.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A text that is no name of an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no name of an object: {why}", shown(.name))]
pub struct BadName {
    name: String,
    why: &'static str,
}

impl Name {
    /// The name that a text is.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(text: impl Into<String>) -> Result<Self, BadName> {
        let name = text.into();
        let why = if name.is_empty() {
            "it is empty"
        } else if name.len() > NAME_BYTES_MAX {
            "it is longer than 400 bytes"
        } else if !name.bytes().all(is_plain) {
            "it has other signs than letters, digits, `.`, `_`, `-` and `/`"
        } else if name.split('/').any(str::is_empty) {
            "it begins or ends with `/`, or has two of them together"
        } else if name.split('/').any(|part| part == "." || part == "..") {
            "a part of it is `.` or `..`"
        } else {
            return Ok(Self(name));
        };
        Err(BadName { name, why })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text can be what names begin with. The empty one is: all names do.
#[must_use]
pub fn is_prefix(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && text.bytes().all(is_plain)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-/".contains(&byte)
}

/// A text fit to be printed: it may be anything.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(80).flat_map(char::escape_default).collect();
    if text.chars().nth(80).is_some() {
        shown.push('…');
    }
    shown
}

/// The most objects of one listing; who asks for more is given as many.
pub const LIST_MAX: u32 = 1000;

/// What kind of failure it was: it decides whether a retry can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no such object.
    NotFound,
    /// There is one already, and it was not to be replaced.
    Exists,
    /// The credentials are wrong or may not do this.
    Denied,
    /// This store can't do it.
    Unsupported,
    /// It may work later.
    Temporary,
    /// It will not work later either.
    Permanent,
}

/// A store could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// What kind of failure it was.
    pub kind: ErrorKind,
    /// What was tried and why it failed: one lower-case clause without secrets.
    pub message: String,
    /// When the other side asked to be tried again.
    pub retry_after: Option<Duration>,
    /// What to do about it, as a sentence.
    pub hint: Option<String>,
}

impl StoreError {
    /// A failure of this kind.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, hint: None }
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What is known of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub name: Name,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last written, in milliseconds since 1970, by the other side's clock.
    pub modified_ms: Option<u64>,
    /// What the other side calls its content.
    pub etag: Option<String>,
}

/// What a store can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// The largest object it takes, in bytes.
    pub max_object: u64,
    /// Of two that put the same name at once, each only if there is none, one fails.
    pub put_if_absent: bool,
    /// Reading a part moves only that part.
    pub ranged_get: bool,
    /// An object is seen whole or not at all, even if putting it is cut off.
    pub atomic_put: bool,
}

/// Whether an object may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It may.
    Replace,
    /// It may not.
    IfAbsent,
}

/// A part of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it begins.
    pub offset: u64,
    /// How long it is; it ends where the object does in any case.
    pub length: u64,
}

/// Somewhere to keep objects.
///
/// - A call blocks its thread until it is done: call it on a thread of your own, never on one that runs tasks.
/// - Calls may come from many threads. How many are under way at once is the store's to bound; the others wait.
/// - A failed `put` may have stored the object, or will yet: only a later `get` tells.
/// - A store is not believed. What matters is hashed before and compared after, by whoever asks.
pub trait Store: Send + Sync {
    /// What it can do.
    ///
    /// # Errors
    /// When it can't be asked.
    fn traits(&self) -> Result<Traits, StoreError>;

    /// Whether it is reachable, the credentials are good, and it may be written.
    ///
    /// # Errors
    /// What stands in the way.
    fn check(&self) -> Result<(), StoreError>;

    /// Writes an object, whole.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] if there is one and it may not be replaced; else why it was not written.
    fn put(&self, name: &Name, body: &[u8], put: Put) -> Result<(), StoreError>;

    /// Reads an object, or a part of it. A part that begins where the object ends, or later, is empty.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none; else why it was not read.
    fn get(&self, name: &Name, part: Option<Part>) -> Result<Vec<u8>, StoreError>;

    /// What is known of an object.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none; else why that is not known.
    fn stat(&self, name: &Name) -> Result<Object, StoreError>;

    /// Objects whose names begin with `prefix` and come after `after`: the first `limit` in the order of their bytes.
    /// Fewer than `limit`, or than [`LIST_MAX`], means there are no more.
    ///
    /// # Errors
    /// Why they were not listed.
    fn list(&self, prefix: &str, after: Option<&Name>, limit: u32) -> Result<Vec<Object>, StoreError>;

    /// Removes objects. That one is missing already is fine.
    ///
    /// # Errors
    /// Why one was not removed; others may have been.
    fn delete(&self, names: &[Name]) -> Result<(), StoreError>;
}

impl<S: Store + ?Sized> Store for Box<S> {
    fn traits(&self) -> Result<Traits, StoreError> {
        (**self).traits()
    }

    fn check(&self) -> Result<(), StoreError> {
        (**self).check()
    }

    fn put(&self, name: &Name, body: &[u8], put: Put) -> Result<(), StoreError> {
        (**self).put(name, body, put)
    }

    fn get(&self, name: &Name, part: Option<Part>) -> Result<Vec<u8>, StoreError> {
        (**self).get(name, part)
    }

    fn stat(&self, name: &Name) -> Result<Object, StoreError> {
        (**self).stat(name)
    }

    fn list(&self, prefix: &str, after: Option<&Name>, limit: u32) -> Result<Vec<Object>, StoreError> {
        (**self).list(prefix, after, limit)
    }

    fn delete(&self, names: &[Name]) -> Result<(), StoreError> {
        (**self).delete(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn t13_names_that_lead_elsewhere_are_refused() {
        let long = "a".repeat(401);
        let bad = [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "../a",
            "a/..",
            "a/../b",
            "a/./b",
            "a\0b",
            "a\\b",
            "%2e%2e/a",
            "a b",
            "a\nb",
            "‥/a",
            "ａ",
            "a:b",
            "a~",
            "~",
            "a?b",
            "a*b",
            "\u{202e}a",
            &long,
        ];
        for name in bad {
            let error = Name::new(name).unwrap_err().to_string();
            assert!(error.chars().all(|c| !c.is_control()) && error.len() < 700, "{error}");
        }
        for name in ["a", "a/b", "A-1._", ".a", "a..b/...", "-", &long[..400]] {
            assert_eq!(Name::new(name).unwrap().as_str(), name);
        }
    }

    proptest! {
        #[test]
        fn t13_a_name_stays_below_where_it_began(text in r"[a./\\%~ \x00-]{0,12}") {
            if let Ok(name) = Name::new(text) {
                let path = std::path::Path::new(name.as_str());
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
                prop_assert_eq!(path.components().count(), name.as_str().split('/').count());
            }
        }
    }
}
