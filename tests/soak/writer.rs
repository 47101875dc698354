//! One application: writes at its pace and knows what it has committed.

use rusqlite::Connection;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) const TABLES: &str =
    "CREATE TABLE item (writer INTEGER, slot INTEGER, n INTEGER NOT NULL, note TEXT, PRIMARY KEY (writer, slot));
                      CREATE TABLE total (writer INTEGER PRIMARY KEY, n INTEGER NOT NULL);";
/// Each application's writes in a second.
pub(crate) const PACE: u64 = 500;
/// Rows that each of them writes again and again, so that the files stay as large as they are.
const SLOTS: u64 = 4_000;

/// What an application has committed, as others may ask while it writes on.
pub(crate) struct Acknowledged {
    slots: Vec<AtomicU64>,
    total: AtomicU64,
}

impl Acknowledged {
    pub(crate) fn none() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(), total: AtomicU64::new(0) }
    }

    /// The newest write of each row, by its slot; none of those that were never written.
    pub(crate) fn rows(&self) -> Vec<(i64, i64)> {
        let newest = self.slots.iter().map(|slot| slot.load(Ordering::Acquire).cast_signed());
        (0..).zip(newest).filter(|(_, n)| *n > 0).collect()
    }

    /// The newest write of its counter.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Acquire)
    }
}

/// How much was written, and in which time.
pub(crate) struct Written {
    pub(crate) writes: u64,
    pub(crate) took: Duration,
}

pub(crate) fn write(conn: &Connection, writer: u64, known: &Acknowledged, stop: &AtomicBool) -> Written {
    let mut item = conn
        .prepare(
            "INSERT INTO item VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET n = excluded.n, note = excluded.note",
        )
        .unwrap();
    let mut total = conn.prepare("INSERT INTO total VALUES (?1, ?2) ON CONFLICT DO UPDATE SET n = excluded.n").unwrap();
    let begun = Instant::now();
    let mut n = 0;
    while !stop.load(Ordering::Acquire) {
        // Behind its pace, as after a stall of the machine, it makes up for that.
        let due = begun.elapsed().as_millis() as u64 * PACE / 1000;
        while n < due && !stop.load(Ordering::Acquire) {
            n += 1;
            let slot = n.wrapping_mul(2_654_435_761) % SLOTS;
            if n % 50 == 0 {
                total.execute([writer.cast_signed(), n.cast_signed()]).unwrap();
                known.total.store(n, Ordering::Release);
            } else {
                let note = "note ".repeat((n % 20) as usize);
                item.execute((writer.cast_signed(), slot.cast_signed(), n.cast_signed(), note)).unwrap();
                known.slots[slot as usize].store(n, Ordering::Release);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Written { writes: n, took: begun.elapsed() }
}
