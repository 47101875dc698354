//! How much went into a store and came out of it, for people who wait.

use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often what is shown is renewed.
const TICK: Duration = Duration::from_millis(100);

/// Bytes of objects, both ways.
#[derive(Debug, Default)]
pub struct Moved(AtomicU64);

impl Moved {
    /// So many more.
    pub(super) fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How many by now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Shows on a terminal how far something is, until it is dropped. Where standard error is no terminal, nothing is shown.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    ended: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

impl Progress {
    /// Of moving `total` bytes, as far as that is known, counted from now on.
    #[must_use]
    pub fn of(moved: &Arc<Moved>, what: &'static str, total: Option<u64>) -> Self {
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let template = if total.is_some() {
            "{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left"
        } else {
            "{spinner} {msg} {bytes}, {bytes_per_sec}"
        };
        // What can't be shown so is shown plainly.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        let ended = Arc::new(AtomicBool::new(false));
        if bar.is_hidden() {
            return Self { bar, ended, watcher: None };
        }
        let begun = moved.bytes();
        let (moved, shown, is_over) = (Arc::clone(moved), bar.clone(), Arc::clone(&ended));
        let watch = move || {
            while !is_over.load(Ordering::Relaxed) {
                shown.set_position(moved.bytes() - begun);
                std::thread::park_timeout(TICK);
            }
        };
        let watcher = std::thread::Builder::new().name("progress".to_owned()).spawn(watch).ok();
        Self { bar, ended, watcher }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            watcher.thread().unpark();
            // It has nothing that could fail.
            let _ = watcher.join();
        }
        self.bar.finish_and_clear();
    }
}
