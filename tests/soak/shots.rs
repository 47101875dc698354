//! Snapshots as they come and go: each is verified while it is there, and when it came is noted.

use crate::course::Course;
use antiphon_harness::{Ended, Place};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const LOOK: Duration = Duration::from_secs(1);
/// How long an archive may end before a snapshot does.
const TAKE_OVER: Duration = Duration::from_secs(10);

/// One that was there.
#[derive(Clone, Debug)]
struct Shot {
    is_full: bool,
    created_ms: u64,
}

/// All that were there, by their names.
#[derive(Debug, Default)]
pub(crate) struct Shots {
    seen: BTreeMap<String, Shot>,
    verified: BTreeSet<String>,
    /// Those that are not there any more.
    gone: BTreeSet<String>,
    /// How long the slowest verifying took.
    slowest: Duration,
}

impl Shots {
    /// Looks until it is told to stop, and then once more.
    pub(crate) fn watched(place: &Place, stop: &AtomicBool) -> Self {
        let mut shots = Self::default();
        loop {
            let is_last = stop.load(Ordering::Acquire);
            shots.look(place);
            if is_last {
                return shots;
            }
            std::thread::sleep(LOOK);
        }
    }

    fn look(&mut self, place: &Place) {
        let said = snapshot(place, &["list", "--json"]);
        if self.seen.is_empty() && said.stderr.starts_with("error: there is no snapshot at ") {
            return;
        }
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        let there: BTreeMap<String, Shot> = said.stdout.lines().map(read).collect();
        for id in self.seen.keys().filter(|id| !there.contains_key(*id)) {
            self.gone.insert(id.clone());
        }
        self.seen.extend(there.clone());
        // Their names are in the order of their time: the oldest goes first.
        for id in there.keys() {
            if self.verified.contains(id) {
                continue;
            }
            let begun = Instant::now();
            let verify = || snapshot(place, &["verify", id, "--level", "restore"]);
            let mut said = verify();
            // Where another archivist takes over, what the one before put last does not count until this one has put it
            // again: a moment, as long as a node may take to be missed.
            while said.stdout.contains(" is archived up to entry ") && begun.elapsed() < TAKE_OVER {
                println!("{}", said.stdout.trim_end());
                std::thread::sleep(LOOK);
                said = verify();
            }
            assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
            assert!(said.stdout.starts_with(&format!("{id}  ok: ")), "{}", said.stdout);
            self.verified.insert(id.clone());
            self.slowest = self.slowest.max(begun.elapsed());
        }
    }

    /// All were verified, old ones went, and those that the clock makes due came when they were due, up to this moment.
    pub(crate) fn check(&self, course: &Course, end_ms: u64) {
        let full = self.seen.values().filter(|shot| shot.is_full).count();
        let (all, gone) = (self.seen.len(), self.gone.len());
        println!("{all} snapshots, {full} of all rows; {gone} were pruned; verifying took {:?} at most", self.slowest);
        assert!(self.seen.keys().all(|id| self.verified.contains(id)), "{self:?}");
        assert!(gone > 0, "nothing was pruned: {self:?}");
        assert!(full < all, "there was no increment: {self:?}");
        self.punctual("of all rows", |shot| shot.is_full, course, course.interval, end_ms);
        if course.holds_increments {
            self.punctual("of any kind", |_| true, course, course.incremental, end_ms);
        }
    }

    fn punctual(&self, what: &str, counts: fn(&Shot) -> bool, course: &Course, interval: Duration, end_ms: u64) {
        let mut shots: Vec<&Shot> = self.seen.values().filter(|shot| counts(shot)).collect();
        shots.sort_unstable_by_key(|shot| shot.created_ms);
        let most = interval.as_millis() as u64 * 11 / 10;
        let gaps: Vec<u64> = shots.windows(2).map(|pair| pair[1].created_ms - pair[0].created_ms).collect();
        // Early is no fault: two that both take themselves for the maker make two, and one that was killed makes its own
        // again.
        let on_time = gaps.iter().filter(|gap| **gap <= most).count();
        println!("snapshots {what}: {on_time} of {} within a tenth of {interval:?}: {gaps:?}", gaps.len());
        assert!(gaps.len() as u32 + 1 >= course.times(interval), "{gaps:?}");
        assert!(on_time * 100 >= gaps.len() * 99, "{gaps:?}");
        let age = end_ms.saturating_sub(shots.last().unwrap().created_ms);
        assert!(age <= most, "the last one {what} was {age} ms old");
    }
}

fn read(line: &str) -> (String, Shot) {
    let line: Value = serde_json::from_str(line).unwrap();
    let shot = Shot { is_full: line["kind"] == "full", created_ms: line["created_ms"].as_u64().unwrap() };
    (line["id"].as_str().unwrap().to_owned(), shot)
}

fn snapshot(place: &Place, arguments: &[&str]) -> Ended {
    place.run([&["snapshot"], arguments, &["--config", "c.toml"]].concat())
}

/// Now, as snapshots tell their time.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}
