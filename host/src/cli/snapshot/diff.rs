//! `antiphon snapshot diff`: what changed between two points in time, or since one.

use std::io::{self, Write as _};

use super::points::{Past, Points, Which};
use super::{Source, reached};
use crate::cli::look;
use crate::cli::shown::utc;
use crate::cli::verify::{say_comparison, shown};
use crate::db::{Filter, Look, compare_files};
use crate::failure::{Failure, Kind};
use crate::snapshot::places;

/// Compare two points in time, or one with the database that is in use
///
/// Tables are compared in the order of their keys: rows only in the first were removed, rows only in the second were added.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Diff {
    /// A snapshot's name, a time, or a place in the log
    #[arg(value_name = "A")]
    a: Which,
    /// The same, or `live`: the database that is in use
    #[arg(value_name = "B")]
    b: Which,
    /// Only this table; may be given several times
    #[arg(long, value_name = "TABLE")]
    table: Vec<String>,
    /// Print the rows that differ
    #[arg(long)]
    rows: bool,
    /// Most rows to print of a table
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    source: Source,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Diff {
    pub(super) fn run(self) -> Result<(), Failure> {
        let found = self.source.clone().open()?;
        let points = Points::open(&found)?;
        let live = found.config.db_path.clone();
        let mut kept: Vec<Option<Past>> = Vec::new();
        for which in [&self.a, &self.b] {
            kept.push(match which {
                Which::Live => None,
                which => Some(points.get(&found, which, false)?),
            });
        }
        let path = |past: &Option<Past>| past.as_ref().map_or_else(|| live.clone(), |past| past.path.clone());
        let paths: Vec<_> = kept.iter().map(path).collect();
        let [a, b] = paths.as_slice() else { return Err(Failure::usage("two are compared")) };
        let looks: [Look; 2] = [look::database(a)?, look::database(b)?];
        let [look_a, look_b] = &looks;
        let filter = if self.table.is_empty() {
            let wrong = |error| Failure::caused(Kind::Config, "a pattern under `[capture]` is no glob", &error);
            found.config.capture.filter().map_err(wrong)?
        } else {
            Filter::of_names(&self.table)
        };
        let limit = if self.rows { self.limit } else { 0 };
        let comparison = compare_files(look_a, look_b, &filter, limit)
            .map_err(|error| Failure::caused(Kind::General, "cannot compare", &error))?;
        for table in &self.table {
            let is_there = comparison.tables.iter().any(|compared| compared.table.eq_ignore_ascii_case(table))
                || comparison.only_a.iter().chain(&comparison.only_b).any(|name| name.eq_ignore_ascii_case(table));
            if !is_there {
                return Err(Failure::new(Kind::Missing, format!("neither has a table `{table}` that is compared")));
            }
        }
        let mut out = io::BufWriter::new(io::stdout().lock());
        if self.json {
            crate::cli::json_line(&mut out, &shown(&comparison, &[]))?;
            return Ok(out.flush()?);
        }
        for (letter, past) in ["A", "B"].iter().zip(&kept) {
            match past {
                Some(past) => {
                    writeln!(out, "{letter} is of {}, at {}", utc(reached(&past.positions)), places(&past.positions))?;
                }
                None => writeln!(out, "{letter} is {}, as it stands", live.display())?,
            }
        }
        say_comparison(&mut out, &comparison, crate::cli::shown::SHORT)?;
        Ok(out.flush()?)
    }
}
