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
}

/// A writer, and its two files.
#[derive(Debug)]
pub struct Neighbour {
    beside: Connection,
    alone: Connection,
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
        alone.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, v)").unwrap();
        Self { beside, alone }
    }

    /// Writes until it is told to stop, rows from this one on; no write may fail.
    pub fn write(&self, first: i64, stop: &AtomicBool) -> Waits {
        let insert = "INSERT INTO t (id, v) VALUES (?1, 'beside')";
        let mut waits = Waits::default();
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
        waits
    }
}

impl Waits {
    /// How many rows were written.
    pub fn rows(&self) -> i64 {
        self.beside.len() as i64
    }

    /// Nobody held the lock for longer than a host may, as far as it is not the machine that stood still.
    #[track_caller]
    pub fn are_short(mut self) {
        assert!(!self.beside.is_empty(), "nothing was written");
        self.beside.sort_unstable();
        self.alone.sort_unstable();
        let at = |took: &[Duration], of_100: usize| took[(took.len() * of_100 / 100).min(took.len() - 1)];
        for (what, of_100, most) in [("99 of 100 writes", 99, USUAL_MAX), ("the longest write", 100, WORST_MAX)] {
            let (beside, alone) = (at(&self.beside, of_100), at(&self.alone, of_100));
            println!("{what} of {}: {beside:?} beside a host, {alone:?} alone", self.beside.len());
            assert!(beside <= most + alone, "{what}: {beside:?} beside a host, {alone:?} without one");
        }
    }
}
