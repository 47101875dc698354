//! How far something is that takes its time, for whoever waits at a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How long nothing is said, and how seldom it is said again.
const PAUSE: Duration = Duration::from_secs(1);

/// One line on a terminal's stderr, written over; elsewhere nothing.
pub(super) struct Progress {
    what: String,
    said: Instant,
    done: u64,
    shown: bool,
    terminal: bool,
}

impl Progress {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), said: Instant::now(), done: 0, shown: false, terminal: io::stderr().is_terminal() }
    }

    /// Something begins that may take a while.
    pub(super) fn say(&mut self, what: &str) {
        if self.terminal {
            self.shown = true;
            // Progress that can't be shown is no reason to stop.
            let _ = write!(io::stderr().lock(), "\r\x1b[K{what} …");
        }
    }

    /// One more piece of the work is done.
    pub(super) fn tick(&mut self) {
        self.done += 1;
        if self.terminal && self.said.elapsed() >= PAUSE {
            self.said = Instant::now();
            self.shown = true;
            let _ = write!(io::stderr().lock(), "\r\x1b[K{}: {}", self.what, self.done);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}
