//! What is known of a table before its first key comes.

use hasher::cbor;
use twox_hash::XxHash3_64;

use crate::bindings::exports::antiphon::plugin::rowhash::Table;
use crate::settings::Chosen;

/// How keys of one table are hashed.
pub struct Plan {
    table: String,
    /// How many values a key has.
    width: usize,
    /// The seed of keys that are hashed whole.
    seed: u64,
    group: Option<Group>,
}

/// The part of a key that decides alone.
struct Group {
    seed: u64,
    /// Which values, in the order they are hashed in.
    positions: Vec<usize>,
}

impl Plan {
    pub fn new(table: &Table, chosen: &Chosen) -> Self {
        let mut key: Vec<_> = table.columns.iter().filter(|column| column.pk_position > 0).collect();
        key.sort_by_key(|column| column.pk_position);
        let position = |name: &String| key.iter().position(|column| column.name.eq_ignore_ascii_case(name));
        let positions: Option<Vec<usize>> = chosen.columns.iter().map(position).collect();
        let name = table.name.to_ascii_lowercase();
        Self {
            seed: XxHash3_64::oneshot_with_seed(chosen.seed, name.as_bytes()),
            table: table.name.clone(),
            // Without a primary key, it is the rowid that tells rows apart.
            width: key.len().max(1),
            group: positions
                .filter(|positions| !positions.is_empty())
                .map(|positions| Group { seed: chosen.seed, positions }),
        }
    }

    /// Whether only some columns of the key decide.
    pub fn is_grouped(&self) -> bool {
        self.group.is_some()
    }

    /// The hashes of keys that lie back to back and end at `ends`.
    pub fn hash_all(&self, keys: &[u8], ends: &[u32]) -> Result<Vec<u64>, String> {
        let mut hashes = Vec::with_capacity(ends.len());
        let mut start = 0;
        let mut part = Vec::new();
        for end in ends {
            let end = *end as usize;
            let key = keys.get(start..end).ok_or_else(|| format!("key {} ends where there is none", hashes.len()))?;
            hashes.push(match &self.group {
                Some(group) if !key.is_empty() => {
                    self.pick(key, group, &mut part).ok_or_else(|| self.malformed(hashes.len()))?;
                    XxHash3_64::oneshot_with_seed(group.seed, &part)
                }
                _ => XxHash3_64::oneshot_with_seed(self.seed, key),
            });
            start = end;
        }
        Ok(hashes)
    }

    /// Puts the values of a key that decide into `part`; none if its bytes are not the values of this table's key.
    fn pick(&self, key: &[u8], group: &Group, part: &mut Vec<u8>) -> Option<()> {
        let mut values = Vec::with_capacity(self.width);
        let mut rest = key;
        while !rest.is_empty() {
            let (value, after) = cbor::split(rest)?;
            values.push(value);
            rest = after;
        }
        if values.len() != self.width {
            return None;
        }
        part.clear();
        for position in &group.positions {
            part.extend_from_slice(values.get(*position)?);
        }
        Some(())
    }

    fn malformed(&self, index: usize) -> String {
        format!("key {index} is not the {} values of table `{}`'s key", self.width, self.table)
    }
}
