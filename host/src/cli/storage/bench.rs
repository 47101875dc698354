//! `antiphon storage bench`: how fast the storage is.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use antiphon_core::store::{ErrorKind, Name, OBJECT_BYTES_MAX, Put, Store as _, StoreError};
use serde::Serialize;

use super::Which;
use crate::cli::json_line;
use crate::cli::shown::bytes;
use crate::config::Size;
use crate::failure::{Failure, Kind};
use crate::storage::conformance::noise;
use crate::storage::{Content, failure, get};

/// Measure how fast objects are put and fetched
///
/// What is fetched is compared with what was put, and all of it is removed at the end.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Bench {
    #[command(flatten)]
    which: Which,
    /// Size of an object
    #[arg(long, value_name = "SIZE", default_value = "8 MiB", value_parser = size)]
    size: Size,
    /// How many objects
    #[arg(long, value_name = "N", default_value_t = 32)]
    count: u32,
    /// How many at once
    #[arg(long, value_name = "N", default_value_t = 4)]
    parallel: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn size(text: &str) -> Result<Size, String> {
    Size::parse(text).filter(|size| size.0 <= OBJECT_BYTES_MAX).ok_or_else(|| "it is a size up to 32 MiB".to_owned())
}

#[derive(Serialize)]
struct Report {
    objects: u32,
    object_bytes: u64,
    parallel: u32,
    put_mib_per_second: f64,
    get_mib_per_second: f64,
    guest_memory_bytes: usize,
    host_memory_bytes: u64,
    process_memory_bytes: u64,
}

impl Bench {
    pub(super) fn run(self) -> Result<(), Failure> {
        let opened = self.which.open()?;
        let store = &opened.store;
        let word = format!("antiphon-bench-{:016x}", crate::clock::unix_ms());
        let names: Vec<Name> = (0..self.count)
            .map(|number| Name::new(format!("{word}/{number}")))
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::new(Kind::General, error.to_string()))?;
        let body = noise(1, usize::try_from(self.size.0).unwrap_or(usize::MAX));
        let content = Content::of(&body);
        let put = each(&names, self.parallel, |name| store.put(name, &body, Put::Replace));
        let got = put.as_ref().ok().map(|_| each(&names, self.parallel, |name| get(store, name, &content).map(drop)));
        // Memory of an instance never becomes less, so this is what they had all the time.
        let (process, instances) = (peak(), opened.component.memory() as u64);
        // Whatever came of it, nothing is left behind.
        let removed = store.delete(&names);
        let failed = |error: StoreError| failure(&error);
        let put = put.map_err(failed)?;
        let got = got.transpose().map_err(failed)?.unwrap_or_default();
        removed.map_err(failed)?;
        let rate = |took: Duration| {
            let moved = self.size.0 as f64 * f64::from(self.count) / f64::from(1 << 20);
            moved / took.as_secs_f64().max(1e-9)
        };
        let report = Report {
            objects: self.count,
            object_bytes: self.size.0,
            parallel: self.parallel,
            put_mib_per_second: rate(put),
            get_mib_per_second: rate(got),
            guest_memory_bytes: opened.component.memory_peak(),
            host_memory_bytes: process.saturating_sub(instances),
            process_memory_bytes: process,
        };
        let mut out = io::stdout().lock();
        if self.json {
            return json_line(&mut out, &report);
        }
        let objects = format!("{} objects of {}, {} at once", self.count, bytes(self.size.0), self.parallel);
        writeln!(out, "{} at {}: {objects}", opened.name, opened.place)?;
        writeln!(out, "  put     {:8.1} MiB/s", report.put_mib_per_second)?;
        writeln!(out, "  get     {:8.1} MiB/s", report.get_mib_per_second)?;
        let (instance, host) = (bytes(report.guest_memory_bytes as u64), bytes(report.host_memory_bytes));
        let process = bytes(report.process_memory_bytes);
        writeln!(out, "  memory  {instance:>8} an instance at most, {host} the host, and {process} all together")?;
        Ok(out.flush()?)
    }
}

/// The most memory that this process ever had, where the system tells.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    peak.map_or(0, |kib: u64| kib << 10)
}

/// Does this for all names, so many at once; gives how long it took.
fn each(
    names: &[Name],
    parallel: u32,
    work: impl Fn(&Name) -> Result<(), StoreError> + Sync,
) -> Result<Duration, StoreError> {
    let begun = Instant::now();
    let next = AtomicU32::new(0);
    let (work, next) = (&work, &next);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..parallel.max(1))
            .map(|_| {
                scope.spawn(move || {
                    while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                        work(name)?;
                    }
                    Ok(())
                })
            })
            .collect();
        for thread in threads {
            // A panic is shown where it happens; here it is one more reason not to go on.
            thread.join().unwrap_or_else(|_| Err(StoreError::new(ErrorKind::Permanent, "a thread panicked")))?;
        }
        Ok(begun.elapsed())
    })
}
