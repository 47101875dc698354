//! `antiphon snapshot schedule`: when snapshots are made, when the last was, and whether they came in time.

use std::io::{self, Write as _};

use serde::Serialize;

use super::Source;
use crate::cli::json_line;
use crate::cli::shown::utc;
use crate::failure::{Failure, Kind};
use crate::snapshot::{Rhythm, Run, rhythms};

/// Print when snapshots are made: what makes one due, the last and the next, and how many came in time
///
/// In time is what came within a tenth of its interval. Only what is still kept counts.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Schedule {
    #[command(flatten)]
    source: Source,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line {
    when: String,
    last_ms: Option<u64>,
    next_ms: Option<u64>,
    runs: u64,
    on_time: u64,
    on_time_percent: Option<f64>,
}

impl Schedule {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.source.which().config()?;
        let made = match self.source.open() {
            Ok(found) => found.repo().all()?.snapshots.into_iter().map(|(manifest, _)| Run::of(&manifest)).collect(),
            Err(failure) if failure.kind() == Kind::Missing => Vec::new(),
            Err(failure) => return Err(failure),
        };
        let mut out = io::stdout().lock();
        for Rhythm { when, last_ms, next_ms, runs, on_time } in rhythms(&config, made) {
            let on_time_percent = (runs > 0).then(|| on_time as f64 * 100.0 / runs as f64);
            let line = Line { when, last_ms, next_ms, runs, on_time, on_time_percent };
            if self.json {
                json_line(&mut out, &line)?;
                continue;
            }
            let time = |at: Option<u64>, none: &str| at.map_or_else(|| none.to_owned(), utc);
            let share = on_time_percent.map(|share| format!(", {share:.0}% of {runs} in time")).unwrap_or_default();
            let (last, next) = (time(line.last_ms, "never"), time(line.next_ms, "not by the clock"));
            writeln!(out, "{}\n  last {last}, next {next}{share}", line.when)?;
        }
        Ok(out.flush()?)
    }
}
