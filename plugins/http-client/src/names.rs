//! Names of objects, and of what lies beside them.

use std::hash::{BuildHasher as _, RandomState};

/// Whether a key can be the name of an object: the other side may hold what others put there.
pub fn is_name(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    key.len() <= 400 && key.bytes().all(plain) && key.split('/').all(part)
}

/// A name that nothing else has, and no object: a `~` is in no object's name.
pub fn aside() -> String {
    // Each of these has a seed of its own, from the host's randomness.
    let (one, two) = (RandomState::new().hash_one(0), RandomState::new().hash_one(1));
    format!("~{one:016x}{two:016x}")
}
