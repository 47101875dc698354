//! What plugins cost: calls, failures, fuel and time, counted once a call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

/// What one plugin has cost so far.
#[derive(Debug)]
pub(crate) struct Usage {
    name: String,
    kind: &'static str,
    origin: String,
    sha256: String,
    calls: AtomicU64,
    failures: AtomicU64,
    fuel: AtomicU64,
    nanos: AtomicU64,
    memory_peak: AtomicU64,
}

/// What one plugin has cost so far, as it stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Used {
    /// What the configuration calls it.
    pub name: String,
    /// `resolver`, `hasher` or `storage`.
    pub kind: &'static str,
    /// Where it comes from: `builtin`, or `file:PATH`.
    pub origin: String,
    /// The SHA-256 of its bytes.
    pub sha256: String,
    /// Calls, those that failed among them.
    pub calls: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Fuel used; storages have as much as there is.
    pub fuel: u64,
    /// Seconds spent in it.
    pub seconds: f64,
    /// The most bytes of memory that an instance of it had.
    pub memory_peak: u64,
}

impl Usage {
    pub(crate) fn new(name: &str, kind: &'static str, origin: String, sha256: &str) -> Arc<Self> {
        let zero = AtomicU64::default;
        Arc::new(Self {
            name: name.to_owned(),
            kind,
            origin,
            sha256: sha256.to_owned(),
            calls: zero(),
            failures: zero(),
            fuel: zero(),
            nanos: zero(),
            memory_peak: zero(),
        })
    }

    /// Whether it counts for this plugin.
    pub(crate) fn is_of(&self, name: &str, kind: &str, sha256: &str) -> bool {
        self.name == name && self.kind == kind && self.sha256 == sha256
    }

    /// A call that began then has ended.
    pub(crate) fn note(&self, begun: Instant, fuel: u64, memory: usize, failed: bool) {
        let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.failures.fetch_add(u64::from(failed), Ordering::Relaxed);
        self.fuel.fetch_add(fuel, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.memory_peak.fetch_max(memory as u64, Ordering::Relaxed);
    }

    /// What was answered can't be used.
    pub(crate) fn note_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> Used {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Used {
            name: self.name.clone(),
            kind: self.kind,
            origin: self.origin.clone(),
            sha256: self.sha256.clone(),
            calls: read(&self.calls),
            failures: read(&self.failures),
            fuel: read(&self.fuel),
            seconds: Duration::from_nanos(read(&self.nanos)).as_secs_f64(),
            memory_peak: read(&self.memory_peak),
        }
    }
}
