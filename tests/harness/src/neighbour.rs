//! An application beside a host, each of whose writes is timed; and the same writes on a file that nobody else has open,
//! by which it shows what of the time is the machine's.

use crate::process::{Place, Site};
use rusqlite::Connection;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// For so long a host may hold the write lock in its usual work,
const USUAL_MAX: Duration = Duration::from_millis(50);
/// and in the worst step of all.
const WORST_MAX: Duration = Duration::from_millis(500);
/// Between two writes.
const PAUSE: Duration = Duration::from_millis(2);
/// How often a write is tried in that time of a millisecond each before it fails, as an application's would.
const TRIES: i32 = 10_000;

/// How long writes took.
#[derive(Debug, Default)]
pub struct Waits {
    beside: Vec<Duration>,
    alone: Vec<Duration>,
    /// How many times as long the host took for its work as it would have with a processor of its own.
    slowed: f64,
}

/// A writer, and its two files.
#[derive(Debug)]
pub struct Neighbour {
    beside: Connection,
    alone: Connection,
    host: u32,
}

impl Neighbour {
    /// One that writes into the table `t`, of a whole number and a value, beside this host.
    pub fn of(place: &Place, site: &Site) -> Self {
        let mut beside = site.connect();
        // Not SQLite's own way to wait, which sleeps for longer and longer: it is to be seen when the lock is free.
        let wait = |tries: i32| {
            std::thread::sleep(Duration::from_millis(1));
            tries < TRIES
        };
        beside.busy_handler(Some(wait)).unwrap();
        let name = site.database.file_stem().unwrap().to_str().unwrap();
        let alone = Connection::open(place.path(&format!("alone-{name}.db"))).unwrap();
        alone
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v)")
            .unwrap();
        Self { beside, alone, host: site.pid() }
    }

    /// Writes until it is told to stop, rows from this one on; no write may fail.
    pub fn write(&self, first: i64, stop: &AtomicBool) -> Waits {
        let insert = "INSERT INTO t (id, v) VALUES (?1, 'beside')";
        let mut waits = Waits::default();
        let (ran, waited) = processor(self.host);
        let mut id = first;
        while !stop.load(Ordering::Acquire) {
            for (conn, took) in [(&self.beside, &mut waits.beside), (&self.alone, &mut waits.alone)] {
                let begun = Instant::now();
                conn.execute(insert, [id]).unwrap();
                took.push(begun.elapsed());
            }
            id += 1;
            std::thread::sleep(PAUSE);
        }
        let (ran, waited) = (processor(self.host).0.saturating_sub(ran), processor(self.host).1.saturating_sub(waited));
        waits.slowed = 1.0 + waited as f64 / (ran.max(1)) as f64;
        waits
    }
}

/// For how many nanoseconds the threads of a process had a processor, and for how many they could have used one.
fn processor(pid: u32) -> (u64, u64) {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return (0, 0) };
    let of = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let mut words = text.split_whitespace().map(|word| word.parse().unwrap_or(0));
        (words.next().unwrap_or(0), words.next().unwrap_or(0))
    };
    tasks.flatten().map(of).fold((0, 0), |all, task| (all.0 + task.0, all.1 + task.1))
}

impl Waits {
    /// How many rows were written.
    pub fn rows(&self) -> i64 {
        self.beside.len() as i64
    }

    /// Nobody held the lock for longer than a host may in its usual work, nor in its worst step.
    #[track_caller]
    pub fn are_short(self) {
        self.stay_below("99 of 100 writes", 99, USUAL_MAX);
        self.are_bounded();
    }

    /// Nobody held it for longer than a host may in its worst step.
    #[track_caller]
    pub fn are_bounded(self) {
        self.stay_below("the longest write", 100, WORST_MAX);
    }

    /// As far as it is not the machine that stood still, or had no processor for the host.
    #[track_caller]
    fn stay_below(&self, what: &str, of_100: usize, most: Duration) {
        assert!(!self.beside.is_empty(), "nothing was written");
        let at = |took: &[Duration]| {
            let mut took = took.to_vec();
            took.sort_unstable();
            took[(took.len() * of_100 / 100).min(took.len() - 1)]
        };
        let (beside, alone) = (at(&self.beside), at(&self.alone));
        let Self { slowed, .. } = self;
        let said = format!("{what}: {beside:?} beside a host, {alone:?} without one; it was slowed {slowed:.1} times");
        eprintln!("{said}; {} writes", self.beside.len());
        assert!(beside <= most.mul_f64(*slowed) + alone, "{said}");
    }
}

/// Ends the writers of a test however the test ends.
#[derive(Debug)]
pub struct Stopping<'a>(pub &'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
