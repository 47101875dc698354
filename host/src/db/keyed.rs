//! A map by key that grows without a pause.
//!
//! A table of hashes that is full moves all it holds at once, and whoever puts a key in here holds the write lock: with
//! millions of keys the application would wait for seconds. So a large map is many small ones. Their shares differ, up
//! to twice, so that they are not full at one time either.

use super::overlay::hash;
use rustc_hash::FxHashMap;
use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

type Map<T> = FxHashMap<Kept, T>;

/// One map has no more keys than that.
const WHOLE_MAX: usize = 1 << 16;
/// So many it becomes then.
const SHARES: usize = 256;

#[derive(Debug)]
pub(super) struct Keyed<T> {
    /// None, one, or [`SHARES`].
    maps: Vec<Map<T>>,
    len: usize,
}

impl<T> Default for Keyed<T> {
    fn default() -> Self {
        Self { maps: Vec::new(), len: 0 }
    }
}

impl<T> Keyed<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&T> {
        self.maps.get(self.place(key))?.get(key)
    }

    pub(super) fn contains_key(&self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &T)> {
        self.maps.iter().flatten().map(|(key, value)| (key.bytes(), value))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.iter().map(|(key, _)| key)
    }

    /// Puts a value in, in the place of one that is there.
    pub(super) fn insert(&mut self, key: Box<[u8]>, value: T) {
        let key = Kept::from(key);
        if self.maps.is_empty() {
            self.maps.push(Map::default());
        } else if self.len == WHOLE_MAX && self.maps.len() == 1 {
            self.split();
        }
        let place = self.place(key.bytes());
        if let Some(map) = self.maps.get_mut(place) {
            self.len += usize::from(map.insert(key, value).is_none());
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<T> {
        let place = self.place(key);
        let removed = self.maps.get_mut(place)?.remove(key)?;
        self.len -= 1;
        self.shrink();
        Some(removed)
    }

    pub(super) fn retain(&mut self, mut stays: impl FnMut(&T) -> bool) {
        self.maps.iter_mut().for_each(|map| map.retain(|_, value| stays(value)));
        self.len = self.maps.iter().map(Map::len).sum();
        self.shrink();
    }

    /// Gives the memory of many maps back when nothing is left in them.
    fn shrink(&mut self) {
        if self.len == 0 && self.maps.len() > 1 {
            self.maps = Vec::new();
        }
    }

    fn split(&mut self) {
        let whole = std::mem::take(&mut self.maps);
        self.maps.resize_with(SHARES, Map::default);
        for (key, value) in whole.into_iter().flatten() {
            let place = self.place(key.bytes());
            if let Some(map) = self.maps.get_mut(place) {
                map.insert(key, value);
            }
        }
    }

    /// The map that this key is in.
    fn place(&self, key: &[u8]) -> usize {
        if self.maps.len() < SHARES { 0 } else { share(hash(0, key)) }
    }
}

impl<T> Extend<(Box<[u8]>, T)> for Keyed<T> {
    fn extend<I: IntoIterator<Item = (Box<[u8]>, T)>>(&mut self, pairs: I) {
        pairs.into_iter().for_each(|(key, value)| self.insert(key, value));
    }
}

/// Bytes of a key. They are in place if they are few, as most keys' are: millions of them are kept, and looked at anew
/// where a map grows.
#[derive(Debug)]
enum Kept {
    Short(u8, [u8; SHORT_MAX]),
    Long(Box<[u8]>),
}

/// What there is room for beside a length, where three words are taken.
const SHORT_MAX: usize = 22;

impl Kept {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

impl From<Box<[u8]>> for Kept {
    fn from(key: Box<[u8]>) -> Self {
        let mut bytes = [0; SHORT_MAX];
        match (bytes.get_mut(..key.len()), u8::try_from(key.len())) {
            (Some(short), Ok(len)) => {
                short.copy_from_slice(&key);
                Self::Short(len, bytes)
            }
            _ => Self::Long(key),
        }
    }
}

impl Borrow<[u8]> for Kept {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

impl Hash for Kept {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Kept {}

/// The share of a key with this hash. Of bits in the middle, for a map itself goes by those at both ends.
fn share(hash: u64) -> usize {
    const ONE: u64 = 1 << 16;
    let at = hash >> 32 & (ONE - 1);
    // With `at` from 0 to 1, at · (4 - at) / 3: it climbs half as fast at its end, so the shares there are twice as large.
    let spread = at * (4 * ONE - at) / 3;
    (spread * SHARES as u64 / (ONE * ONE)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn key(number: u64) -> Box<[u8]> {
        number.to_be_bytes().into()
    }

    #[test]
    fn it_is_a_map() {
        let (mut keyed, mut model) = (Keyed::default(), BTreeMap::new());
        assert!(keyed.is_empty() && keyed.get(&key(1)).is_none() && keyed.remove(&key(1)).is_none());
        let most = 3 * WHOLE_MAX as u64;
        for number in 0..2 * most {
            let put = key(number * 7 % most);
            keyed.insert(put.clone(), number);
            model.insert(put, number);
            let gone = key(number * 13 % most);
            if number % 3 == 0 {
                assert_eq!(keyed.remove(&gone), model.remove(&gone));
            }
            assert_eq!(keyed.get(&gone), model.get(&gone));
            assert_eq!(keyed.len(), model.len());
        }
        assert!(keyed.len() > WHOLE_MAX);
        assert_eq!(
            keyed.iter().collect::<BTreeMap<_, _>>(),
            model.iter().map(|(key, value)| (&**key, value)).collect()
        );
        assert_eq!(keyed.keys().count(), model.len());
        for gone in model.keys() {
            assert!(keyed.contains_key(gone));
            keyed.remove(gone);
        }
        assert!(keyed.is_empty() && keyed.maps.is_empty());
        keyed.extend([(key(1), 1), (key(1), 2), (key(2), 3)]);
        keyed.retain(|number| *number < 3);
        assert_eq!((keyed.len(), keyed.get(&key(1)), keyed.get(&key(2))), (1, Some(&2), None));
    }

    #[test]
    fn keys_of_any_length_are_kept() {
        assert_eq!(size_of::<Kept>(), 24);
        let keys: Vec<Box<[u8]>> = (0..100).map(|len| vec![7; len].into()).collect();
        let mut keyed = Keyed::default();
        keyed.extend(keys.iter().cloned().zip(0..));
        assert_eq!(keyed.len(), keys.len());
        assert!(keys.iter().zip(0..).all(|(key, number)| keyed.get(key) == Some(&number)));
        assert!(keyed.keys().all(|key| keys.iter().any(|known| **known == *key)));
    }

    /// What is moved while it grows, for some thousand keys that are put in at a time.
    #[test]
    fn it_never_moves_much_at_once() {
        const STEP: u64 = 10_000;
        let mut keyed = Keyed::default();
        for step in 0..100 {
            let before: Vec<usize> = keyed.maps.iter().map(Map::capacity).collect();
            keyed.extend((step * STEP..(step + 1) * STEP).map(|number| (key(number), ())));
            if keyed.maps.len() == before.len() {
                let grown = keyed.maps.iter().zip(before).filter(|(map, before)| map.capacity() != *before);
                let moved: usize = grown.map(|(map, _)| map.len()).sum();
                assert!(moved <= WHOLE_MAX.max(keyed.len() / 8), "{moved} of {}", keyed.len());
            }
        }
        let sizes = keyed.maps.iter().map(Map::len);
        let (least, most) = (sizes.clone().min().unwrap(), sizes.max().unwrap());
        assert!(least * 2 > keyed.len() / SHARES && most < keyed.len() / SHARES * 2, "{least} to {most}");
    }
}
