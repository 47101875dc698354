//! Where the last vitals are: one writes them, whoever asks reads them.

use super::{History, Moment, Phase, Vitals};
use crate::health::Limits;
use crate::metrics::Metrics;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The last vitals of a node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lookout(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    vitals: watch::Sender<Arc<Vitals>>,
    history: Mutex<History>,
    /// Those of the node that runs now: each start begins anew.
    metrics: Mutex<Option<Metrics>>,
    limits: Limits,
    /// When it was last seen how the node is.
    shown: Mutex<Instant>,
    /// Each who looks at the page holds one.
    viewers: Arc<()>,
}

/// Somebody looks at the page, as long as this lives.
#[derive(Clone, Debug)]
pub struct Viewer(#[expect(dead_code, reason = "that it is there is what counts")] Arc<()>);

impl Lookout {
    /// One that has seen nothing, of a node that starts.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let mut vitals = Vitals { at_ms: crate::clock::unix_ms(), ..Vitals::default() };
        vitals.health = limits.at_once(&vitals);
        let (vitals, _) = watch::channel(Arc::new(vitals));
        Self(Arc::new(Inner {
            vitals,
            history: Mutex::default(),
            metrics: Mutex::default(),
            limits,
            shown: Mutex::new(Instant::now()),
            viewers: Arc::default(),
        }))
    }

    /// What is well, and what is not.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The last vitals.
    #[must_use]
    pub fn vitals(&self) -> Arc<Vitals> {
        self.0.vitals.borrow().clone()
    }

    /// Tells of each that follows.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Arc<Vitals>> {
        self.0.vitals.subscribe()
    }

    /// How long ago it was last seen how the node is.
    #[must_use]
    pub fn shown_ago(&self) -> Duration {
        self.0.shown.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Somebody looks at the page.
    #[must_use]
    pub fn view(&self) -> Viewer {
        Viewer(Arc::clone(&self.0.viewers))
    }

    /// How many look at the page.
    #[must_use]
    pub fn viewers(&self) -> usize {
        Arc::strong_count(&self.0.viewers) - 1
    }

    /// The last minutes.
    #[must_use]
    pub fn history(&self) -> Vec<Moment> {
        self.history_of().moments()
    }

    /// The metrics of the node that runs, if one does.
    #[must_use]
    pub fn metrics(&self) -> Option<Metrics> {
        self.0.metrics.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A node begins to replicate, whose metrics are these.
    pub(crate) fn begin(&self, metrics: Metrics) {
        *self.0.metrics.lock().unwrap_or_else(PoisonError::into_inner) = Some(metrics);
    }

    /// How it is now.
    pub(crate) fn show(&self, vitals: Vitals) {
        self.history_of().note(&vitals);
        *self.0.shown.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.vitals.send_replace(Arc::new(vitals));
    }

    /// The node stops, or starts again.
    pub(crate) fn leave(&self, phase: Phase) {
        let mut vitals = (*self.vitals()).clone();
        (vitals.phase, vitals.at_ms) = (phase, crate::clock::unix_ms());
        vitals.health = self.limits().at_once(&vitals);
        self.show(vitals);
    }

    fn history_of(&self) -> std::sync::MutexGuard<'_, History> {
        self.0.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
