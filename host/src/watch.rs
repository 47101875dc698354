//! Notices that a SQLite file may have changed: by file events, and by looking anyway now and then.
//!
//! An event can arrive before the commit it belongs to is visible, and some file systems report none; so an
//! event is followed by a short burst of looks, and a wait without events ends by itself.

use notify::{RecursiveMode, Watcher as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;

/// The pauses between looks after an event: commits become visible within this, or the next poll finds them.
const BURST: [Duration; 6] = [
    Duration::from_micros(200),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(4),
    Duration::from_millis(8),
];

/// The end of the name of a file that says *now*: see [`Bell`].
const BELL: &str = "-bell";

/// Tells who watches a file that a commit of ours can be seen.
///
/// The write to the WAL is an event, and comes before the disk has it; that the commit is done is none.
#[derive(Debug)]
pub struct Bell(std::fs::File);

impl Bell {
    /// The bell beside `file`.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn new(file: &Path) -> std::io::Result<Self> {
        let mut name = file.as_os_str().to_owned();
        name.push(BELL);
        std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(name).map(Self)
    }

    /// Rings it. That fails nobody: whoever does not hear it looks a moment later.
    pub fn ring(&self) {
        if let Err(error) = self.0.set_modified(SystemTime::now()) {
            tracing::debug!(%error, "cannot ring the bell");
        }
    }
}

/// Watches a SQLite file and its companions.
pub struct Watch {
    touched: Arc<Touched>,
    /// Ends with this object; `None` where the system offers no events and polling must do.
    _watcher: Option<notify::RecommendedWatcher>,
}

/// Counts events, so that no waiter misses one that came while it was looking.
#[derive(Default)]
struct Touched {
    events: AtomicU64,
    notify: Notify,
}

impl Touched {
    fn touch(&self) {
        self.events.fetch_add(1, Ordering::Release);
        self.notify.notify_waiters();
    }

    fn count(&self) -> u64 {
        self.events.load(Ordering::Acquire)
    }

    /// Returns after an event past the first `events`, or after `at_most`.
    async fn changed(&self, events: u64, at_most: Duration) {
        let notified = self.notify.notified();
        if self.count() == events {
            let _ = tokio::time::timeout(at_most, notified).await;
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// Watches `file`, its `-wal`, its `-journal` and its bell.
    #[must_use]
    pub fn new(file: &Path) -> Self {
        let touched = Arc::new(Touched::default());
        let watcher = watcher(file, Arc::clone(&touched))
            .inspect_err(|error| tracing::debug!(%error, "no file events, polling instead"))
            .ok();
        Self { touched, _watcher: watcher }
    }

    /// Looks until `look` says yes: at once, after every event and in a burst of looks then, and after `at_most` in any
    /// case. Whoever stops waiting early has to look himself.
    pub async fn until<L: Future<Output = bool>>(&self, at_most: Duration, mut look: impl FnMut() -> L) {
        let mut events = self.touched.count();
        let mut pauses = BURST.iter();
        while !look().await {
            self.touched.changed(events, pauses.next().copied().unwrap_or(at_most)).await;
            let now = self.touched.count();
            if now != events {
                events = now;
                pauses = BURST.iter();
            }
        }
    }
}

fn watcher(file: &Path, touched: Arc<Touched>) -> notify::Result<notify::RecommendedWatcher> {
    let names: Vec<_> = ["", "-wal", "-journal", BELL]
        .iter()
        .map(|end| {
            let mut name = file.file_name().unwrap_or_default().to_owned();
            name.push(end);
            name
        })
        .collect();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let ours = event.paths.iter().any(|path| names.iter().any(|name| path.file_name() == Some(name)));
        if ours && !event.kind.is_access() {
            touched.touch();
        }
    })?;
    // The directory, not the file: `-wal` comes and goes.
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
