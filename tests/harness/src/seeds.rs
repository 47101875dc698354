//! Ranges of seeds: as they are asked for, and split among threads.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Threads that split the seeds.
pub const THREADS: usize = 2;
/// A thread that has found so many failures looks for no more.
const FAILURES_MAX: usize = 5;

/// `0..1000`; nothing for an empty range.
pub fn range(text: &str) -> Option<Range<u64>> {
    let (from, to) = text.split_once("..")?;
    let range = from.parse().ok()?..to.parse().ok()?;
    (!range.is_empty()).then_some(range)
}

/// The seeds that a variable of the environment asks for, or the usual ones.
pub fn asked_by(variable: &str, usual: Range<u64>) -> Range<u64> {
    match std::env::var(variable) {
        Ok(asked) => range(&asked).unwrap_or_else(|| panic!("{variable} is a range such as `0..1000`")),
        Err(_) => usual,
    }
}

/// Runs every seed; gives those that failed, in order, and what each thread has gathered.
pub fn each<T: Default + Send>(
    seeds: &Range<u64>,
    run: impl Fn(u64, &mut T) -> Result<(), String> + Sync,
) -> (Vec<(u64, String)>, Vec<T>) {
    let next = AtomicU64::new(seeds.start);
    let search = || {
        let (mut gathered, mut failures) = (T::default(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || failures.len() >= FAILURES_MAX {
                return (gathered, failures);
            }
            if let Err(failure) = run(seed, &mut gathered) {
                failures.push((seed, failure));
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(search)).collect();
        let (mut all, mut failures) = (Vec::new(), Vec::new());
        for thread in threads {
            let (gathered, failed) = thread.join().unwrap();
            all.push(gathered);
            failures.extend(failed);
        }
        failures.sort();
        (failures, all)
    })
}
