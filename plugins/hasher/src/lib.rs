//! What the hashers share: reading canonical keys.

pub mod cbor;
