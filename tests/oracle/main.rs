//! Random SQL programs on one node: the other node must end as a plain SQLite does that ran the same program.
//!
//! And the program must not notice us: every statement succeeds or fails as it does there, with the same words,
//! rows, `changes()` and `last_insert_rowid()`. `ORACLE_SEEDS=a..b` runs a range, a single seed prints its program.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "tests fail loudly, and say what they ran"
)]

mod program;
mod run;

use antiphon::flaw::Flaw;
use antiphon::flaw::testing::plant;
use antiphon_harness::seeds;
use program::Program;
use run::{Tally, run};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

const SEEDS: Range<u64> = 0..1000;

/// Runs a program; what it does wrong may also be a panic.
fn try_run(program: &Program) -> Result<Tally, String> {
    catch_unwind(AssertUnwindSafe(|| run(program))).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref().copied());
        Err(format!("panic: {}", said.unwrap_or("without a word")))
    })
}

/// What kind of failure it is: a shorter program that fails in another way explains nothing.
fn class(failure: &str) -> String {
    failure.chars().filter(|c| c.is_alphabetic()).take(16).collect()
}

/// The shortest program found that still fails in the same way.
fn shrink(program: &Program, failure: &str) -> (Program, String) {
    let wanted = class(failure);
    let (mut best, mut said) = (program.clone(), failure.to_owned());
    let mut size = best.steps.len().max(2) / 2;
    while size > 0 {
        let (mut from, before) = (0, best.steps.len());
        while from < best.steps.len() {
            let mut shorter = best.clone();
            shorter.steps.drain(from..(from + size).min(best.steps.len()));
            match try_run(&shorter) {
                Err(failure) if class(&failure) == wanted => (best, said) = (shorter, failure),
                _ => from += size,
            }
        }
        if size > 1 || best.steps.len() == before {
            size /= 2;
        }
    }
    (best, said)
}

/// Replication changes nothing for the application, and loses nothing of what it did.
#[test]
fn programs_end_as_on_plain_sqlite() {
    let seeds = seeds::asked_by("ORACLE_SEEDS", SEEDS);
    let (failures, tallies) = seeds::each(&seeds, |seed, tally: &mut Tally| {
        tally.add(&try_run(&Program::new(seed))?);
        Ok(())
    });
    let mut tally = Tally::default();
    tallies.iter().for_each(|done| tally.add(done));
    eprintln!("{} programs: {tally:?}", seeds.end - seeds.start);
    for (seed, failure) in &failures {
        eprintln!("seed {seed}: {failure}");
    }
    if let Some((seed, failure)) = failures.first() {
        let (program, failure) = shrink(&Program::new(*seed), failure);
        panic!(
            "seed {seed}, shrunk:\n{program}\n{failure}\n\nrepeat it with `ORACLE_SEEDS={seed}..{} cargo test --release \
             --workspace --test oracle`",
            seed + 1
        );
    }
    if seeds == SEEDS {
        assert!(tally.refused > 1000 && tally.done > 10_000 && tally.ddl > 500 && tally.rows > 5000, "{tally:?}");
    }
}

/// A test that finds no planted bug proves nothing. These are the ones that one writer alone can show.
#[test]
fn planted_bugs_are_found() {
    let flaws = [
        Flaw::MoveForgotten,
        Flaw::FloatForInteger,
        Flaw::TriggersWhileApplying,
        Flaw::PassOneSkipped,
        Flaw::UnitAtOnce,
    ];
    for flaw in flaws {
        plant(Some(flaw));
        let found = SEEDS.into_iter().find_map(|seed| Some((seed, try_run(&Program::new(seed)).err()?)));
        plant(None);
        match found {
            Some((seed, _)) => eprintln!("{flaw:?}: seed {seed}"),
            None => panic!("planted and not found: {flaw:?}"),
        }
    }
}
