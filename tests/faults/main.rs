//! Errors at every n-th call of the file system, once and until the disk is sound again, in everything a node does.
//!
//! Each scenario runs once on a sound disk, and its calls are counted; then once for each call that fails, in each
//! way it can. `FAULTS_STRIDE=1` tries every call; without it, as many as a minute has room for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "tests fail loudly, and say what they tried"
)]

mod scenarios;
mod world;

use antiphon_harness::vfs::{Call, Disk, Fault};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use world::World;

/// What a node does while the disk fails.
pub(crate) struct Scenario {
    pub(crate) journal: &'static str,
    /// Before it fails; both are members of a cluster then.
    pub(crate) before: fn(&mut World),
    pub(crate) during: fn(&mut World),
    /// There is a cluster before.
    pub(crate) members: bool,
}

/// Calls of a scenario that are tried one by one; further ones only now and then.
const CALLS_MAX: usize = 400;
/// Runs of a scenario without `FAULTS_STRIDE`, about.
const RUNS: usize = 500;

/// How one run goes.
#[derive(Clone, Copy, Debug)]
struct Try {
    nth: usize,
    fault: Fault,
    /// It goes on failing until the disk is healed.
    sticky: bool,
    /// Hosts and applications are started anew when it is.
    restart: bool,
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Runs it once upon a copy of what was prepared; gives the calls it made while the disk might fail.
fn run(scenario: &Scenario, prepared: &Path, attempt: Option<Try>) -> Result<(Vec<Call>, u64), String> {
    let folder = tempfile::tempdir().unwrap();
    copy(prepared, folder.path());
    let disk = Disk::watch(folder.path());
    let done = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::open(&folder.path().canonicalize().unwrap());
        world.take_stock();
        if scenario.members {
            world.crash(0);
            world.crash(1);
        }
        match attempt {
            Some(attempt) => disk.fail(attempt.nth, attempt.fault, attempt.sticky),
            None => disk.begin(),
        }
        (scenario.during)(&mut world);
        let calls = disk.calls();
        disk.heal();
        if attempt.is_some_and(|attempt| attempt.restart) {
            world.crash_all();
        }
        world.settle(!scenario.members).map(|()| (calls, disk.struck()))
    }));
    disk.forget();
    done.unwrap_or_else(|panic| {
        Err(format!(
            "panic: {:?}",
            panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref().copied())
        ))
    })
}

/// Fails every call of a scenario in every way.
pub(crate) fn each_call(name: &str, scenario: &Scenario) {
    let prepared = tempfile::tempdir().unwrap();
    {
        let mut world = World::create(prepared.path(), scenario.journal);
        if scenario.members {
            assert!(
                world.enter_patiently(0) && world.publish(0) && world.apply(0) && world.publish(0),
                "{:?}",
                world.errors
            );
            world.sql(1, "DELETE FROM tally");
            assert!(world.enter_patiently(1) && world.apply(1), "{:?}", world.errors);
        }
        (scenario.before)(&mut world);
        assert_eq!(world.errors, Vec::<String>::new());
        world.crash_all();
    }
    let (calls, _) = run(scenario, prepared.path(), None).expect("on a sound disk");
    let mut tries = Vec::new();
    for nth in (1..=calls.len()).filter(|nth| *nth <= CALLS_MAX || nth % 7 == 0) {
        for fault in Fault::ALL.into_iter().filter(|fault| fault.strikes(calls[nth - 1])) {
            for sticky in [false, true] {
                tries.extend([false, true].map(|restart| Try { nth, fault, sticky, restart }));
            }
        }
    }
    let all = tries.len();
    let stride = std::env::var("FAULTS_STRIDE")
        .map_or_else(|_| all.div_ceil(RUNS), |stride| stride.parse().expect("FAULTS_STRIDE is a number"));
    let (mut runs, mut struck) = (0, 0);
    let mut failures = Vec::new();
    // An even number of steps would leave out the same ways of failing every time.
    for attempt in tries.into_iter().step_by(stride | 1) {
        runs += 1;
        let done = run(scenario, prepared.path(), Some(attempt));
        match done {
            Ok((_, faults)) => struck += u64::from(faults > 0),
            Err(failure) => failures.push(format!("{attempt:?} at {:?}: {failure}", calls[attempt.nth - 1])),
        }
    }
    eprintln!("{name}: {} calls, {runs} of {all} ways to fail tried, {struck} struck", calls.len());
    assert!(struck * 10 >= runs * 8, "{struck} of {runs} faults struck: this tests nothing");
    assert!(
        failures.is_empty(),
        "{name}: {} of {runs} failed:\n{}",
        failures.len(),
        failures[..failures.len().min(8)].join("\n")
    );
}
