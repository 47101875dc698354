//! Random histories of a small cluster, checked after every step against a serial model.
//!
//! A seed makes a history: applications that write against one another, hosts that seal, publish, apply and
//! die, a log that fails. `SIM_SEED=n` runs one and prints its trace, `SIM_SEEDS=a..b` runs a range.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "tests fail loudly, and say how far they are"
)]

mod checker;
mod coverage;
mod flaws;
mod oracle;
mod plan;
mod random;
mod regressions;
mod rule;
mod schema;
mod shrink;
mod workload;
mod world;

use coverage::Coverage;
use plan::Plan;
use std::ops::Range;
use std::time::Instant;

/// Seeds of a full run.
const SEEDS: Range<u64> = 0..1000;
/// Threads that split the seeds.
const THREADS: u64 = 2;

/// Seeds asked for, or the usual ones.
fn seeds() -> Range<u64> {
    let Ok(asked) = std::env::var("SIM_SEEDS") else { return SEEDS };
    let (from, to) = asked.split_once("..").expect("SIM_SEEDS is `from..to`");
    from.parse().unwrap()..to.parse().unwrap()
}

/// Runs every seed; the first failure of each thread with its seed, and what happened in all.
fn run_all(seeds: &Range<u64>) -> (Vec<(u64, String)>, Coverage) {
    let run_some = |first: u64| {
        let mut coverage = Coverage::default();
        let mut failures = Vec::new();
        for seed in (seeds.start + first..seeds.end).step_by(usize::try_from(THREADS).unwrap()) {
            let outcome = world::run(&Plan::new(seed));
            coverage.add(&outcome.coverage);
            if let Some(failure) = outcome.failure {
                failures.push((seed, failure));
                if failures.len() >= 5 {
                    break;
                }
            }
        }
        (failures, coverage)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|first| scope.spawn(move || run_some(first))).collect();
        let mut all = (Vec::new(), Coverage::default());
        for thread in threads {
            let (failures, coverage) = thread.join().unwrap();
            all.0.extend(failures);
            all.1.add(&coverage);
        }
        all
    })
}

/// Whatever applications, crashes and the log do: nodes show what the log and their own writes say, and end equal.
#[test]
fn histories() {
    if let Ok(seed) = std::env::var("SIM_SEED") {
        return one(seed.parse().unwrap());
    }
    let seeds = seeds();
    let begun = Instant::now();
    let (mut failures, coverage) = run_all(&seeds);
    let took = begun.elapsed().as_secs_f64();
    eprintln!("{} seeds in {took:.1} s: {coverage}", seeds.end - seeds.start);
    failures.sort();
    for (seed, failure) in &failures {
        eprintln!("seed {seed}: {failure}");
    }
    if let Some((seed, _)) = failures.first() {
        panic!(
            "repeat it with `SIM_SEED={seed} cargo test --release -p antiphon-harness --test sim -- --nocapture histories`"
        );
    }
    if seeds == SEEDS {
        assert_eq!(coverage.missing(), Vec::<&str>::new(), "never happened in all these histories");
    }
}

/// One seed, with its trace; a failing one is shrunk first.
fn one(seed: u64) {
    let plan = Plan::new(seed);
    let outcome = world::run(&plan);
    if outcome.failure.is_none() {
        return eprintln!("{}", outcome.trace.join("\n"));
    }
    eprintln!("{}\n\nshrunk:", outcome.failure.unwrap_or_default());
    let outcome = world::run(&shrink::shrink(&plan));
    eprintln!("{}", outcome.trace.join("\n"));
    panic!("seed {seed}: {}", outcome.failure.unwrap_or_default());
}

/// A seed that does not repeat its history is no help to anyone.
#[test]
fn one_seed_is_one_history() {
    for seed in 0..20 {
        let plan = Plan::new(seed);
        assert_eq!(world::run(&plan).trace, world::run(&plan).trace, "seed {seed}");
    }
}
