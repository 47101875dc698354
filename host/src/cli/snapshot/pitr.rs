//! `antiphon snapshot list --pitr`: which points in time can be reached.

use std::io::{self, Write as _};

use serde::Serialize;

use super::Found;
use crate::cli::json_line;
use crate::cli::shown::utc;
use crate::failure::Failure;
use crate::snapshot::{Altered, Reachable, Window, windows};

/// What scripts are told of a shard.
#[derive(Serialize)]
struct Report {
    shard: u32,
    windows: Vec<Window>,
    /// Stretches of the log that nobody has.
    holes: Vec<(u64, u64)>,
    /// Where tables got another schema.
    altered: Vec<Altered>,
    /// Up to which entry the log itself goes on.
    log_to: Option<u64>,
}

pub(super) fn run(found: &Found, json: bool) -> Result<(), Failure> {
    let look = found.look();
    let mut out = io::stdout().lock();
    for (shard, Reachable { windows, holes, altered }) in windows(&found.repo())? {
        let end = windows.last().map_or(0, |window| window.to_seq);
        let log = look.as_ref().and_then(|look| look.bounds(shard).ok());
        let log_to = log.filter(|log| log.last > end && log.first <= end + 1).map(|log| log.last);
        if json {
            let holes = holes.iter().map(|hole| (hole.first, hole.last)).collect();
            json_line(&mut out, &Report { shard, windows, holes, altered, log_to })?;
            continue;
        }
        for Window { from_seq, from_ms, to_seq, to_ms } in &windows {
            writeln!(out, "shard {shard}  {} to {}  entries {from_seq} to {to_seq}", utc(*from_ms), utc(*to_ms))?;
        }
        for hole in &holes {
            writeln!(out, "shard {shard}  no point in entries {} to {}: nobody has them", hole.first, hole.last)?;
        }
        for Altered { after_seq, until_seq } in &altered {
            writeln!(
                out,
                "shard {shard}  the schema changed between entries {after_seq} and {until_seq}: no point from the first entry \
                 that needs the new one up to {}",
                until_seq - 1
            )?;
        }
        if let Some(last) = log_to {
            writeln!(out, "shard {shard}  and up to entry {last} in the log itself")?;
        }
    }
    Ok(out.flush()?)
}
