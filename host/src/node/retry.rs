//! Pauses that grow while nothing works.

use std::time::Duration;

/// How long to wait before a refused step is tried again; doubled up to the maximum.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How often it has been tried in vain.
#[derive(Default)]
pub(super) struct Retry {
    tries: u32,
}

impl Retry {
    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }

    pub(super) fn pause(&self) -> Duration {
        RETRY_MIN.saturating_mul(1 << self.tries.min(16)).min(RETRY_MAX)
    }

    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.count()).await;
    }

    /// Once more in vain; gives the pause before the next try.
    fn count(&mut self) -> Duration {
        let pause = self.pause();
        self.tries = self.tries.saturating_add(1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew_when_something_works() {
        let mut retry = Retry::default();
        let pauses: Vec<_> = (0..9).map(|_| retry.count().as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        retry.tries = u32::MAX;
        assert_eq!(retry.pause(), RETRY_MAX);
        retry.reset();
        assert_eq!(retry.pause(), RETRY_MIN);
    }
}
