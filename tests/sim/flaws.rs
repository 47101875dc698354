//! Planted bugs: a simulator that does not find them would not find others.

use crate::SEEDS;
use crate::plan::Plan;
use crate::world::run;
use antiphon::flaw::Flaw;
use antiphon::flaw::testing::plant;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The first seed that fails with this bug planted, and how. Without it every one of these seeds passes:
/// `histories` runs them.
fn find(flaw: Flaw) -> Option<(u64, String)> {
    plant(Some(flaw));
    let found = antiphon_harness::seeds::asked_by("FLAW_SEEDS", SEEDS)
        .find_map(|seed| Some((seed, run(&Plan::new(seed)).failure?)));
    plant(None);
    found
}

/// A bug by its name shows.
pub(crate) fn one_is_found(name: &str) {
    let flaw = Flaw::ALL.into_iter().find(|flaw| format!("{flaw:?}") == name).expect("a bug that can be planted");
    let (seed, failure) = find(flaw).expect("planted and not found");
    eprintln!("{flaw:?}: seed {seed}: {failure}");
}

/// Every bug that can be planted shows, within the seeds of a usual run.
pub(crate) fn every_planted_bug_is_found() {
    let next = AtomicUsize::new(0);
    let search = || {
        let mut missed = Vec::new();
        while let Some(flaw) = Flaw::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            match find(*flaw) {
                Some((seed, failure)) => {
                    let failure: String = failure.chars().take(160).collect();
                    eprintln!("{flaw:?}: seed {seed}: {failure}");
                }
                None => missed.push(*flaw),
            }
        }
        missed
    };
    let missed: Vec<Flaw> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..antiphon_harness::seeds::THREADS).map(|_| scope.spawn(search)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(missed.is_empty(), "planted and not found: {missed:?}");
}
