//! Where a process dies, or a step fails.

use std::cell::Cell;
use std::rc::Rc;

/// Where the process dies next: so many fault points from now on, or at the next one of a name.
#[derive(Clone, Default)]
pub(super) struct Death {
    pub(super) countdown: Rc<Cell<u64>>,
    /// What is passed after it fails as well, as on a disk that is broken.
    pub(super) sticky: Rc<Cell<bool>>,
    pub(super) wanted: Rc<Cell<Option<&'static str>>>,
    pub(super) at: Rc<Cell<Option<&'static str>>>,
    pub(super) again: Rc<Cell<Option<&'static str>>>,
}

impl Death {
    /// Whether the process dies at this point.
    pub(super) fn comes(&self, point: &'static str) -> bool {
        let left = self.countdown.get();
        self.countdown.set(left.saturating_sub(1));
        if left == 1 || self.wanted.get() == Some(point) {
            self.avert();
            self.at.set(Some(point));
            return true;
        }
        let fails_again = self.sticky.get() && self.at.get().is_some();
        if fails_again {
            self.again.set(Some(point));
        }
        fails_again
    }

    pub(super) fn avert(&self) {
        self.countdown.set(0);
        self.wanted.set(None);
    }
}
