//! Finds what touched a key without looking at each entry: touches whose keys have one short hash are a chain, the
//! latest first.
//!
//! A touch is known by its place among those that are remembered, the oldest being 0. Nothing is removed from a chain:
//! it ends where it leads to what is no longer remembered.

use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Chains {
    /// The last touch of each chain. Touches are numbered as they come, and a number may come again after four
    /// billion: it leads into another chain at worst, where whoever looks for a key passes by.
    heads: Vec<u32>,
    /// For each touch that is remembered, the one before it in its chain.
    earlier: VecDeque<u32>,
    /// The number of the touch that comes next.
    next: u32,
}

impl Chains {
    /// Chains with room for so many touches, and some more.
    pub(super) fn with_room(touches: usize) -> Self {
        // The number before the first: it is never remembered.
        Self { heads: vec![0; (touches + 1).next_power_of_two()], earlier: VecDeque::new(), next: 1 }
    }

    /// Whether chains are getting long.
    pub(super) fn are_full(&self) -> bool {
        self.earlier.len() >= self.heads.len()
    }

    /// Adds a touch. If it `hides` the last one of its chain, nobody who comes past it needs that one.
    pub(super) fn push(&mut self, hash: u64, hides: impl FnOnce(usize) -> bool) {
        let chain = self.chain(hash);
        let Some(&head) = self.heads.get(chain) else { return };
        let place = self.place(head).filter(|&place| hides(place));
        self.earlier.push_back(place.and_then(|place| self.earlier.get(place).copied()).unwrap_or(head));
        if let Some(head) = self.heads.get_mut(chain) {
            *head = self.next;
        }
        self.next = self.next.wrapping_add(1);
    }

    /// Forgets the oldest touches.
    pub(super) fn forget(&mut self, touches: usize) {
        self.earlier.drain(..touches.min(self.earlier.len()));
    }

    /// The places of touches that may have been of the key with this hash, the latest first.
    pub(super) fn places(&self, hash: u64) -> impl Iterator<Item = usize> {
        let mut number = self.heads.get(self.chain(hash)).copied();
        let mut below = self.earlier.len();
        std::iter::from_fn(move || {
            below = self.place(number?).filter(|&place| place < below)?;
            number = self.earlier.get(below).copied();
            Some(below)
        })
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower bits are what is wanted")]
    fn chain(&self, hash: u64) -> usize {
        hash as usize & (self.heads.len() - 1)
    }

    /// Where a touch stands, if it is remembered.
    fn place(&self, number: u32) -> Option<usize> {
        self.earlier.len().checked_sub(self.next.wrapping_sub(number) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(chains: &Chains, hash: u64) -> Vec<usize> {
        chains.places(hash).collect()
    }

    #[test]
    fn a_chain_ends_where_touches_are_forgotten() {
        let mut chains = Chains::with_room(3);
        for hash in [1, 2, 1, 3, 1] {
            chains.push(hash, |_| false);
        }
        assert_eq!(places(&chains, 1), [4, 2, 0]);
        assert_eq!(places(&chains, 2), [1]);
        assert!(places(&chains, 0).is_empty());
        chains.forget(2);
        assert_eq!(places(&chains, 1), [2, 0]);
        assert!(places(&chains, 2).is_empty());
        chains.forget(9);
        assert!(places(&chains, 1).is_empty());
    }

    #[test]
    fn what_is_hidden_is_passed_over() {
        let mut chains = Chains::with_room(4);
        chains.push(1, |_| true);
        chains.push(1, |_| false);
        chains.push(1, |place| place == 1);
        assert_eq!(places(&chains, 1), [2, 0]);
        chains.push(1, |place| place == 2);
        assert_eq!(places(&chains, 1), [3, 0]);
    }

    #[test]
    fn numbers_that_come_again_end_no_look() {
        let mut chains = Chains::with_room(1);
        chains.next = u32::MAX - 2;
        for _ in 0..6 {
            chains.push(1, |_| false);
        }
        assert_eq!(places(&chains, 1), [5, 4, 3, 2, 1, 0]);
        // Number 0, with which every chain begins, is remembered now: it is of another chain.
        assert_eq!(places(&chains, 0), [3, 2, 1, 0]);
        assert!(chains.are_full());
        // A link that leads to what came later.
        *chains.earlier.front_mut().unwrap() = u32::MAX;
        assert_eq!(places(&chains, 1), [5, 4, 3, 2, 1, 0]);
    }
}
