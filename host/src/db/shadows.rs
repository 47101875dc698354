//! L's rows of keys whose rows in T may differ, and who of them holds which UNIQUE value.
//!
//! SQLite's own indexes can't tell that, for these rows are not in T. Looking through all of them for every unit would
//! cost more the more of them wait; so they are kept in order as they come and go.

use super::keyed::Keyed;
use super::overlay::Image;
use antiphon_core::key::write_folded;
use antiphon_core::value::Value;
use rustc_hash::FxHashMap;

/// L's row of a key whose row in T may differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shadow {
    /// `None` = L has no such row.
    pub(super) image: Option<Image>,
    /// The last position at which T was L here.
    pub(super) seen: u64,
}

/// UNIQUE indexes: positions of columns, with collations.
pub(super) type Uniques = [Vec<(usize, String)>];

/// A UNIQUE value: which index, and the bytes it compares by.
type Slot = (usize, Vec<u8>);

/// The shadows of one table.
#[derive(Debug, Default)]
pub(super) struct Shadows {
    rows: Keyed<Shadow>,
    /// The indexes that [`Shadows::holders`] goes by.
    uniques: Vec<Vec<(usize, String)>>,
    /// Who holds a value: one key, or several where an index is younger than the rows.
    held: FxHashMap<Slot, Vec<Box<[u8]>>>,
}

impl Shadows {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Shadow> {
        self.rows.get(key)
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.rows.contains_key(key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.keys()
    }

    /// Puts a shadow in, in the place of one that is there.
    pub(super) fn insert(&mut self, key: Box<[u8]>, shadow: Shadow) {
        self.remove(&key);
        for slot in slots(&self.uniques, shadow.image.as_ref()) {
            self.held.entry(slot).or_default().push(key.clone());
        }
        self.rows.insert(key, shadow);
    }

    /// Takes a shadow out.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Shadow> {
        let shadow = self.rows.remove(key)?;
        for slot in slots(&self.uniques, shadow.image.as_ref()) {
            if let Some(holders) = self.held.get_mut(&slot) {
                holders.retain(|holder| **holder != *key);
                if holders.is_empty() {
                    self.held.remove(&slot);
                }
            }
        }
        Some(shadow)
    }

    /// L's row of this key is this, from now on.
    pub(super) fn set(&mut self, key: &[u8], image: Option<Image>, seq: u64) {
        let seen = self.rows.get(key).map_or(seq - 1, |shadow| shadow.seen);
        self.insert(key.into(), Shadow { image, seen });
    }

    /// Keys and rows of those that hold one of the image's UNIQUE values.
    pub(super) fn holders(&mut self, uniques: &Uniques, image: &Image) -> Vec<(Box<[u8]>, Image)> {
        if self.rows.is_empty() || uniques.is_empty() {
            return Vec::new();
        }
        if self.uniques != uniques {
            self.order_by(uniques);
        }
        let mut found: Vec<(Box<[u8]>, Image)> = Vec::new();
        for slot in slots(uniques, Some(image)) {
            for key in self.held.get(&slot).into_iter().flatten() {
                let row = self.rows.get(key).and_then(|shadow| shadow.image.clone());
                if let Some(row) = row.filter(|_| !found.iter().any(|(known, _)| known == key)) {
                    found.push((key.clone(), row));
                }
            }
        }
        found
    }

    fn order_by(&mut self, uniques: &Uniques) {
        self.uniques = uniques.to_vec();
        self.held.clear();
        for (key, shadow) in self.rows.iter() {
            for slot in slots(uniques, shadow.image.as_ref()) {
                self.held.entry(slot).or_default().push(key.into());
            }
        }
    }
}

/// The UNIQUE values of a row; NULLs are never equal.
fn slots(uniques: &Uniques, image: Option<&Image>) -> Vec<Slot> {
    let Some(image) = image else { return Vec::new() };
    let slot = |(index, unique): (usize, &Vec<(usize, String)>)| {
        let mut bytes = Vec::new();
        for (position, collation) in unique {
            let value = image.get(*position)?.as_ref().filter(|value| **value != Value::Null)?;
            write_folded(&mut bytes, collation, value);
        }
        Some((index, bytes))
    };
    uniques.iter().enumerate().filter_map(slot).collect()
}
