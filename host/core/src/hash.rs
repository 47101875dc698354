//! Key -> 64-bit number -> shard.

pub mod fnv;
pub mod xxh3;

use crate::schema::Table;

/// The canonical bytes of many keys, back to back: what crosses to a hash component in one piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedKeys {
    /// Every key's canonical bytes (see [`crate::key`]), one after the other.
    pub bytes: Vec<u8>,
    /// Where each key ends in `bytes`.
    pub ends: Vec<u32>,
}

impl PackedKeys {
    /// Ends the key whose bytes were just appended to `bytes`.
    ///
    /// # Panics
    /// If the keys of one batch exceed 4 GiB; batches are bounded far below.
    pub fn end(&mut self) {
        let end = u32::try_from(self.bytes.len());
        assert!(end.is_ok(), "keys of one batch exceed 4 GiB");
        self.ends.push(end.unwrap_or(u32::MAX));
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// A key's bytes.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let start = index.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.bytes.get(start as usize..*self.ends.get(index)? as usize)
    }

    /// Forgets all keys and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Each key's bytes.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.ends.iter().scan(0usize, |start, &end| {
            let key = self.bytes.get(*start..end as usize);
            *start = end as usize;
            key
        })
    }
}

/// What a plugin could not do, in words for the person who reads the log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PluginError(pub String);

/// Spreads keys over shards. A hasher is pure: the same table and key give the same number on every node.
pub trait Hash: Send {
    /// Tells the hasher the tables, in the order of the numbers [`Hash::hash`] will use. Called again when they change.
    ///
    /// # Errors
    /// When the hasher refuses these tables or its settings.
    fn configure(&mut self, tables: &[Table]) -> Result<(), PluginError>;

    /// One number a key, in the order of the keys.
    ///
    /// # Errors
    /// When the hasher failed; nothing may be assumed of any key then.
    fn hash(&mut self, table: u32, keys: &PackedKeys) -> Result<Vec<u64>, PluginError>;
}

/// The shard, from 1, that a key with this hash belongs to.
#[must_use]
pub fn shard_of(hash: u64, shards: u32) -> u32 {
    let shard = hash % u64::from(shards.max(1)) + 1;
    u32::try_from(shard).unwrap_or(1)
}
