//! What guests say, on its way to the log of the host: bounded, one line each, nothing a terminal would obey.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::bindings::log::{Host, Level};
use crate::inert::State;
use crate::lent::Lent;

const LINE_BYTES_MAX: usize = 1 << 10;
const BURST_BYTES: f64 = 65_536.0;
const BYTES_PER_SECOND: f64 = 10_240.0;

/// One plugin's way to the log. It outlives the plugin's instances, or a crash would buy a new burst.
#[derive(Clone, Debug)]
pub(crate) struct GuestLog {
    plugin: Arc<str>,
    bucket: Arc<Mutex<Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    bytes: f64,
    filled: Instant,
    dropped: u64,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self { bytes: BURST_BYTES, filled: now, dropped: 0 }
    }

    /// Takes room for a line of `len` bytes; gives how many lines were dropped since the last one that had room.
    fn take(&mut self, len: usize, now: Instant) -> Option<u64> {
        let waited = now.saturating_duration_since(self.filled).as_secs_f64();
        self.bytes = (self.bytes + waited * BYTES_PER_SECOND).min(BURST_BYTES);
        self.filled = now;
        // An empty line costs something too.
        let len = f64::from(u32::try_from(len).unwrap_or(u32::MAX)) + 64.0;
        if self.bytes < len {
            self.dropped += 1;
            return None;
        }
        self.bytes -= len;
        Some(std::mem::take(&mut self.dropped))
    }
}

impl GuestLog {
    pub(crate) fn new(plugin: &str) -> Self {
        Self { plugin: plugin.into(), bucket: Arc::new(Mutex::new(Bucket::new(Instant::now()))) }
    }

    fn write(&self, level: Level, message: &str) {
        let line = printable(message, LINE_BYTES_MAX);
        let taken = self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(line.len(), Instant::now());
        let Some(dropped) = taken else { return };
        let plugin = &*self.plugin;
        if dropped > 0 {
            tracing::warn!(plugin, dropped, "plugin says too much, lines dropped");
        }
        match level {
            Level::Trace => tracing::trace!(plugin, line, "plugin says"),
            Level::Debug => tracing::debug!(plugin, line, "plugin says"),
            Level::Info => tracing::info!(plugin, line, "plugin says"),
            Level::Warn => tracing::warn!(plugin, line, "plugin says"),
            Level::Error => tracing::error!(plugin, line, "plugin says"),
        }
    }
}

impl Host for Lent {
    fn write(&mut self, level: Level, message: String) {
        self.log.write(level, &self.secrets.hidden(&message));
    }
}

impl Host for State {
    fn write(&mut self, level: Level, message: String) {
        self.meter.host_call(message.len());
        self.log.write(level, &message);
    }
}

/// A guest's text as one line of at most `len_max` bytes, control characters escaped.
pub(crate) fn printable(text: &str, len_max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(len_max));
    for c in text.chars() {
        let start = line.len();
        if c.is_control() || is_format(c) {
            // Writing to a String can't fail.
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
        if line.len() > len_max {
            line.truncate(start);
            line.push('…');
            break;
        }
    }
    line
}

/// Characters that reorder or hide the text around them, and the two line ends that are no control characters.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_line_is_one_line() {
        assert_eq!(printable("a\r\nb\u{1b}[31mc\u{202e}", 1024), "a\\r\\nb\\u{1b}[31mc\\u{202e}");
        assert_eq!(printable("ééé", 4), "éé…");
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let written = (0..1_000_000).filter(|_| bucket.take(960, start).is_some()).count();
        assert_eq!(written, 64);
        assert_eq!(bucket.take(960, start + Duration::from_secs(1)), Some(1_000_000 - 64));
    }
}
