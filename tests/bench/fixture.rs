//! Rows made from a fixed seed, so that a figure means the same everywhere.

use rusqlite::{Connection, params};
use std::path::Path;

pub const ITEMS: &str =
    "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL, qty INTEGER, price REAL, note TEXT)";
/// Rows a transaction.
pub const TRANSACTION: usize = 1000;

pub const WORDS: [&str; 24] = [
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "iris", "jade", "kelp", "larch", "maple",
    "north", "ochre", "pine", "quartz", "reed", "slate", "thorn", "umber", "vale", "willow", "yarrow",
];

/// Small, seeded, and good enough for fixtures.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Puts keys into another order.
    pub fn shuffle(&mut self, keys: &mut [i64]) {
        for at in (1..keys.len()).rev() {
            keys.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}

/// The application's connection to a new database.
pub fn create(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    conn.pragma_update(None, "synchronous", "NORMAL").unwrap();
    conn.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    conn.execute_batch(ITEMS).unwrap();
    conn
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ordinary,
    Random,
}

/// Writes rows `from + 1 ..= to`, `TRANSACTION` of them at a time.
pub fn fill(conn: &Connection, kind: Kind, from: usize, to: usize, verb: &str) {
    let mut random = Random::new(from as u64 + 1);
    let mut insert = conn.prepare_cached(verb).unwrap();
    for first in (from + 1..=to).step_by(TRANSACTION) {
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        for id in first..(first + TRANSACTION).min(to + 1) {
            let name = format!("name-{id}");
            let qty = random.below(1000) as i64;
            match kind {
                Kind::Ordinary => {
                    let price = random.below(100_000) as f64 / 100.0;
                    insert.execute(params![id as i64, name, qty, price, WORDS[random.below(24) as usize]]).unwrap();
                }
                Kind::Random => {
                    let price = f64::from_bits(random.next() >> 2);
                    let note: Vec<u8> = (0..8).flat_map(|_| random.next().to_le_bytes()).collect();
                    insert.execute(params![id as i64, name, qty, price, note]).unwrap();
                }
            }
        }
        conn.execute_batch("COMMIT").unwrap();
    }
}

pub const INSERT: &str = "INSERT INTO items VALUES (?1, ?2, ?3, ?4, ?5)";
pub const UPSERT: &str = "INSERT INTO items VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, qty = excluded.qty, price = excluded.price, note = excluded.note";

/// Adds `step` to every row's quantity, `TRANSACTION` of them at a time.
pub fn step(conn: &Connection, rows: usize, step: i64) {
    let mut update = conn.prepare_cached("UPDATE items SET qty = qty + ?1 WHERE id BETWEEN ?2 AND ?3").unwrap();
    for first in (1..=rows).step_by(TRANSACTION) {
        update.execute(params![step, first as i64, (first + TRANSACTION - 1).min(rows) as i64]).unwrap();
    }
}

/// Changes each of these rows once, in this order, `TRANSACTION` of them at a time.
pub fn change(conn: &Connection, keys: &[i64]) {
    let mut update = conn.prepare_cached("UPDATE items SET qty = qty + 1 WHERE id = ?1").unwrap();
    for keys in keys.chunks(TRANSACTION) {
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        for key in keys {
            update.execute([key]).unwrap();
        }
        conn.execute_batch("COMMIT").unwrap();
    }
}
