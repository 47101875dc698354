//! Random histories of a small cluster, checked after every step against a serial model.
//!
//! A seed makes a history: applications that write against one another, hosts that seal, publish, apply and
//! die, a log that fails. It has a front of its own, and can be asked by `cargo sim`:
//!
//! ```text
//! cargo sim                       everything that a test run asks
//! cargo sim --seeds 0..50000      a range of seeds
//! cargo sim --seeds 0..50000 --switching   those of them in which policies change
//! cargo sim --seed 17             one seed, with its trace
//! cargo sim --seed 17 --shrink    the same without the steps that it does not need to fail
//! cargo sim --flaw NoShadow       the first seed that finds this planted bug
//! ```
//!
//! `SIM_SEEDS=a..b` says the range where no argument can.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    missing_docs,
    reason = "tests fail loudly, and say how far they are"
)]

mod arguments;
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

use antiphon_harness::seeds;
use arguments::{Arguments, Asked};
use coverage::Coverage;
use plan::Plan;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds of a full run.
const SEEDS: Range<u64> = 0..1000;
/// Runs every seed; which failed, and what happened in all.
fn run_all(seeds: &Range<u64>, switching: bool) -> (Vec<(u64, String)>, Coverage) {
    let (failures, coverages) = seeds::each(seeds, |seed, coverage: &mut Coverage| {
        let plan = Plan::new(seed);
        if switching && !plan.config.switches {
            return Ok(());
        }
        let outcome = world::run(&plan);
        coverage.add(&outcome.coverage);
        outcome.failure.map_or(Ok(()), Err)
    });
    let mut all = Coverage::default();
    coverages.iter().for_each(|coverage| all.add(coverage));
    (failures, all)
}

/// What a run without a filter does, by name.
const TESTS: &[(&str, fn())] = &[
    ("what_was_fixed_stays_fixed", regressions::what_was_fixed_stays_fixed),
    ("one_seed_is_one_history", one_seed_is_one_history),
    ("histories", || histories(&seeds::asked_by("SIM_SEEDS", SEEDS), false)),
    ("every_planted_bug_is_found", flaws::every_planted_bug_is_found),
];

fn main() -> ExitCode {
    let Arguments { asked, shrink, switching } = match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(wrong) => {
            eprintln!("{wrong}\n\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    let names: Vec<&str> = TESTS.iter().map(|(name, _)| *name).collect();
    match asked {
        Asked::Help => eprintln!("{}", arguments::USAGE),
        Asked::List => names.iter().for_each(|name| println!("{name}: test")),
        Asked::Seed(seed) => one(seed, shrink),
        Asked::Seeds(seeds) => histories(&seeds, switching),
        Asked::Flaw(name) => flaws::one_is_found(&name),
        Asked::Tests(filter) => {
            let wanted =
                TESTS.iter().filter(|(name, _)| filter.is_empty() || filter.iter().any(|f| name.contains(f.as_str())));
            for (name, test) in wanted {
                test();
                eprintln!("test {name} ... ok");
            }
        }
    }
    ExitCode::SUCCESS
}

/// Whatever applications, crashes and the log do: nodes show what the log and their own writes say, and end equal.
fn histories(seeds: &Range<u64>, switching: bool) {
    let begun = Instant::now();
    let (failures, coverage) = run_all(seeds, switching);
    let took = begun.elapsed().as_secs_f64();
    eprintln!("{} seeds in {took:.1} s: {coverage}", seeds.end - seeds.start);
    let (possible, never) = coverage.pairs();
    eprintln!("{} of {possible} pairs met in one history; never: {never:?}", possible - never.len());
    for (seed, failure) in &failures {
        eprintln!("seed {seed}: {failure}");
    }
    if let Some((seed, _)) = failures.first() {
        panic!("repeat it with `cargo sim --seed {seed} --shrink`");
    }
    if *seeds == SEEDS && !switching {
        assert_eq!(coverage.missing(), Vec::<&str>::new(), "never happened in all these histories");
        assert_eq!(coverage.strangers(), Vec::new(), "never met in all these histories");
    }
}

/// One seed, with its trace; a failing one is shrunk first if that is asked for.
fn one(seed: u64, shrink: bool) {
    let plan = Plan::new(seed);
    let mut outcome = world::run(&plan);
    if outcome.failure.is_some() && shrink {
        eprintln!("{}\n\nshrunk:", outcome.failure.unwrap_or_default());
        outcome = world::run(&shrink::shrink(&plan));
    }
    eprintln!("{}", outcome.trace.join("\n"));
    if let Some(failure) = outcome.failure {
        panic!("seed {seed}: {failure}");
    }
}

/// A seed that does not repeat its history is no help to anyone.
fn one_seed_is_one_history() {
    for seed in 0..20 {
        let plan = Plan::new(seed);
        assert_eq!(world::run(&plan).trace, world::run(&plan).trace, "seed {seed}");
    }
}
