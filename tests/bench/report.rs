//! What was measured, and whether it reaches its mark.

use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Report {
    lines: Vec<String>,
    missed: Vec<String>,
}

impl Report {
    /// A figure with nothing to reach.
    pub fn figure(&mut self, what: &str, value: &str) {
        println!("  {what:<52} {value}");
        self.lines.push(format!("{what}: {value}"));
    }

    /// A figure and whether it reaches its mark.
    pub fn mark(&mut self, what: &str, value: &str, mark: &str, reached: bool) {
        let word = if reached { "ok" } else { "MISSED" };
        println!("  {what:<52} {value:<28} mark {mark}: {word}");
        if !reached {
            self.missed.push(what.to_owned());
        }
    }

    /// Whether every mark was reached.
    pub fn print(&self) -> bool {
        println!("{} figures, {} marks missed {}", self.lines.len(), self.missed.len(), self.missed.join(", "));
        self.missed.is_empty()
    }
}

/// How long `work` took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let done = work();
    (start.elapsed(), done)
}

pub fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

pub fn rate(count: usize, took: Duration) -> String {
    format!("{:.0} rows/s", per_second(count, took))
}
