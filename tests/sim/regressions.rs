//! Seeds that once found a bug, and must never find it again.
