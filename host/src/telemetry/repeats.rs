//! The same warning at most once a minute: what is tried again and again would bury everything else. How often it was held
//! back stands in the next one, as `repeated`. And of one place at most [`BURST_MAX`] a minute, however they differ: who
//! sends very much that is wrong writes no log for it.
//!
//! The same is what comes from the same place with the same fields; how long something took or will take is no difference.
//! A line of good news from the same module ends it: what comes after that is news again.

use rustc_hash::FxHasher;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash as _, Hasher as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// How long a warning is held back.
const PAUSE: Duration = Duration::from_secs(60);
/// So many different ones are remembered.
const KNOWN_MAX: usize = 1024;
/// So many different ones come from one place within the pause.
const BURST_MAX: u32 = 100;

/// Writes lines as `inner` does, and holds back those that repeat themselves.
pub(super) struct Sparing<F> {
    inner: F,
    known: Mutex<HashMap<u64, Known>>,
    /// By the place that they come from.
    bursts: Mutex<HashMap<Identifier, Burst>>,
}

/// What came from one place.
struct Burst {
    begun: Instant,
    written: u32,
    held: u64,
}

/// A warning that was written.
struct Known {
    at: Instant,
    target: &'static str,
    held: u64,
}

impl<F> Sparing<F> {
    pub(super) fn new(inner: F) -> Self {
        Self { inner, known: Mutex::default(), bursts: Mutex::default() }
    }

    /// How often this was held back before; none if it is held back now.
    fn pass(&self, event: &Event<'_>, now: Instant) -> Option<u64> {
        let metadata = event.metadata();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if *metadata.level() > Level::WARN {
            if *metadata.level() == Level::INFO && !known.is_empty() {
                known.retain(|_, known| known.target != metadata.target());
            }
            return Some(0);
        }
        let mut fields = Fields(FxHasher::default());
        metadata.callsite().hash(&mut fields.0);
        event.record(&mut fields);
        let key = fields.0.finish();
        if let Some(known) = known.get_mut(&key)
            && now.saturating_duration_since(known.at) < PAUSE
        {
            known.held += 1;
            return None;
        }
        let held = self.admit(metadata.callsite(), now)?;
        if known.len() >= KNOWN_MAX {
            known.retain(|_, known| now.saturating_duration_since(known.at) < PAUSE);
        }
        let before = known.insert(key, Known { at: now, target: metadata.target(), held: 0 });
        Some(before.map_or(0, |before| before.held) + held)
    }

    /// How many of this place were held back before; none if too many have come from it.
    fn admit(&self, place: Identifier, now: Instant) -> Option<u64> {
        let mut bursts = self.bursts.lock().unwrap_or_else(PoisonError::into_inner);
        let burst = bursts.entry(place).or_insert(Burst { begun: now, written: 0, held: 0 });
        if now.saturating_duration_since(burst.begun) >= PAUSE {
            (burst.begun, burst.written) = (now, 0);
        }
        if burst.written >= BURST_MAX {
            burst.held += 1;
            return None;
        }
        burst.written += 1;
        Some(std::mem::take(&mut burst.held))
    }
}

/// What tells one warning from another.
struct Fields(FxHasher);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if !field.name().ends_with("_ms") {
            field.name().hash(&mut self.0);
            format!("{value:?}").hash(&mut self.0);
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for Sparing<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let repeated = match self.pass(event, Instant::now()) {
            None => return Ok(()),
            Some(0) => return self.inner.format_event(context, out, event),
            Some(repeated) => repeated,
        };
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        writeln!(out, "{}", with_count(line.trim_end(), repeated))
    }
}

/// The line with how often it was held back.
fn with_count(line: &str, repeated: u64) -> String {
    match line.strip_suffix('}').filter(|_| line.starts_with('{')) {
        Some(object) => format!("{object},\"repeated\":{repeated}}}"),
        None => format!("{line} repeated={repeated}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tracing_subscriber::layer::{Context, SubscriberExt as _};

    /// What passes, as text; a clock that the test moves.
    #[derive(Clone)]
    struct Passing {
        sparing: Arc<Sparing<()>>,
        now: Arc<Mutex<Instant>>,
        passed: Arc<Mutex<Vec<Option<u64>>>>,
    }

    impl<S: Subscriber> tracing_subscriber::Layer<S> for Passing {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let passed = self.sparing.pass(event, *self.now.lock().unwrap());
            self.passed.lock().unwrap().push(passed);
        }
    }

    fn passed(lines: impl FnOnce(&dyn Fn(u64))) -> Vec<Option<u64>> {
        let passing = Passing {
            sparing: Arc::new(Sparing::new(())),
            now: Arc::new(Mutex::new(Instant::now())),
            passed: Arc::default(),
        };
        let clock = Arc::clone(&passing.now);
        let wait = move |seconds| *clock.lock().unwrap() += Duration::from_secs(seconds);
        let subscriber = tracing_subscriber::registry().with(passing.clone());
        tracing::subscriber::with_default(subscriber, || lines(&wait));
        passing.passed.lock().unwrap().clone()
    }

    fn warn(error: &str, retry_in_ms: u64) {
        tracing::warn!(error, retry_in_ms, "Unable to publish");
    }

    #[test]
    fn the_same_warning_comes_once_a_minute_with_a_count() {
        let lines = |wait: &dyn Fn(u64)| {
            warn("no", 50);
            warn("no", 100);
            warn("no", 200);
            wait(59);
            warn("no", 5000);
            wait(1);
            warn("no", 5000);
            warn("no", 5000);
        };
        assert_eq!(passed(lines), [Some(0), None, None, None, Some(3), None]);
    }

    #[test]
    fn other_words_and_other_lines_are_not_the_same() {
        let lines = |_: &dyn Fn(u64)| {
            warn("no", 50);
            warn("another", 50);
            tracing::error!(error = "no", "Unable to publish");
            tracing::info!("a");
            tracing::info!("a");
        };
        assert_eq!(passed(lines), [Some(0); 5]);
    }

    #[test]
    fn x16_of_one_place_only_so_many_come_however_they_differ() {
        let flood = |wait: &dyn Fn(u64)| {
            for entry in 0..1_000 {
                tracing::error!(entry, "a forged entry was left out");
            }
            warn("of another place", 50);
            wait(60);
            tracing::error!(entry = 1_000, "a forged entry was left out");
            for entry in 1_001..1_003 {
                tracing::error!(entry, "from elsewhere again");
            }
        };
        let passed = passed(flood);
        let written = BURST_MAX as usize;
        assert!(passed[..written].iter().all(|held| *held == Some(0)));
        assert!(passed[written..1_000].iter().all(Option::is_none));
        assert_eq!(passed[1_000..], [Some(0); 4], "other places are other places");
    }

    #[test]
    fn what_one_place_held_back_is_counted() {
        let lines = |wait: &dyn Fn(u64)| {
            for entry in 0..u64::from(BURST_MAX) + 7 {
                if entry == u64::from(BURST_MAX) + 5 {
                    wait(60);
                }
                tracing::error!(entry, "a forged entry was left out");
            }
        };
        let passed = passed(lines);
        assert_eq!(passed[BURST_MAX as usize..], [None, None, None, None, None, Some(5), Some(0)]);
    }

    #[test]
    fn after_good_news_it_is_news_again() {
        let lines = |_: &dyn Fn(u64)| {
            warn("no", 50);
            tracing::info!("resumed");
            warn("no", 50);
        };
        assert_eq!(passed(lines), [Some(0); 3]);
    }

    #[test]
    fn the_count_stands_in_lines_for_people_and_for_machines() {
        assert_eq!(with_count("WARN Unable to publish error=no", 3), "WARN Unable to publish error=no repeated=3");
        assert_eq!(with_count("{\"level\":\"warn\"}", 3), "{\"level\":\"warn\",\"repeated\":3}");
    }
}
