//! Applications that write beside every node, and know what they have committed.

use antiphon_harness::{Site, settled};
use rusqlite::{Connection, params};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an application may wait for its own database's lock, beside a host that behaves.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an application has committed.
#[derive(Default)]
pub(crate) struct Committed {
    items: BTreeMap<String, (i64, String)>,
    counted: u64,
}

/// Writers, one beside each site, until they are told to end.
#[derive(Default)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    commits: Vec<Arc<AtomicU64>>,
    writers: Vec<JoinHandle<Committed>>,
}

impl Load {
    /// Begins to write beside these sites.
    pub(crate) fn beside<'a>(sites: impl IntoIterator<Item = &'a Site>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut load = Self { stop, commits: Vec::new(), writers: Vec::new() };
        for (number, site) in (1..).zip(sites) {
            let commits = Arc::new(AtomicU64::new(0));
            let (conn, stop, counter) = (site.connect(), load.stop.clone(), commits.clone());
            load.commits.push(commits);
            load.writers.push(std::thread::spawn(move || write(&conn, number, &stop, &counter)));
        }
        load
    }

    /// Waits until every writer has committed so many times more: no fault of a network stops an application.
    #[track_caller]
    pub(crate) fn more(&self, commits: u64) {
        for counter in &self.commits {
            let enough = counter.load(Ordering::Relaxed) + commits;
            let begun = Instant::now();
            while counter.load(Ordering::Relaxed) < enough {
                assert!(begun.elapsed() < PATIENCE, "an application can't write");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// Ends it; gives what was committed.
    pub(crate) fn end(mut self) -> Vec<Committed> {
        self.stop.store(true, Ordering::Release);
        std::mem::take(&mut self.writers).into_iter().map(|writer| writer.join().unwrap()).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// Inserts, updates and deletes rows of its own, counts, and quarrels over a few shared rows.
fn write(conn: &Connection, writer: u64, stop: &AtomicBool, commits: &AtomicU64) -> Committed {
    let mut random = Random(writer.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut known = Committed::default();
    let mut next_id = 0;
    while !stop.load(Ordering::Acquire) {
        let mut items = known.items.clone();
        let transaction = conn.unchecked_transaction().unwrap();
        for _ in 0..=random.below(4) {
            let some = items.keys().nth(random.below(items.len().max(1) as u64) as usize).cloned();
            match (random.below(10), some) {
                (0, Some(id)) => {
                    transaction.execute("DELETE FROM item WHERE id = ?1", [&id]).unwrap();
                    items.remove(&id);
                }
                (1..=4, Some(id)) => {
                    transaction.execute("UPDATE item SET v = v + 1 WHERE id = ?1", [&id]).unwrap();
                    items.get_mut(&id).unwrap().0 += 1;
                }
                _ => {
                    next_id += 1;
                    let (id, note) = (format!("{writer}-{next_id}"), "x".repeat(random.below(300) as usize));
                    transaction
                        .execute("INSERT INTO item (id, v, note) VALUES (?1, 0, ?2)", params![id, note])
                        .unwrap();
                    items.insert(id, (0, note));
                }
            }
        }
        transaction.execute("UPDATE tally SET n = n + 1 WHERE id = 1", []).unwrap();
        if random.below(4) == 0 {
            let text = format!("{writer} at {}", known.counted);
            transaction
                .execute("REPLACE INTO shared (id, v) VALUES (?1, ?2)", params![random.below(5).cast_signed(), text])
                .unwrap();
        }
        transaction.commit().unwrap();
        known = Committed { items, counted: known.counted + 1 };
        commits.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2 + random.below(4)));
    }
    known
}

/// Every site has exactly what the applications have committed, and all have the same.
#[track_caller]
pub(crate) fn check(sites: &[&Site], committed: &[Committed]) {
    check_rows(sites, committed);
    let counted: u64 = committed.iter().map(|writer| writer.counted).sum();
    for site in sites {
        assert_eq!(site.one("SELECT n FROM tally"), counted.to_string());
    }
}

/// The same where there is no counter.
#[track_caller]
pub(crate) fn check_rows(sites: &[&Site], committed: &[Committed]) {
    settled(sites);
    let mut expected: Vec<String> = committed
        .iter()
        .flat_map(|writer| writer.items.iter().map(|(id, (v, note))| format!("{id}|{v}|{note}")))
        .collect();
    expected.sort();
    for site in sites {
        let mut found = site.rows("SELECT id, v, note FROM item");
        found.sort();
        assert!(found == expected, "{} items are there, {} were committed", found.len(), expected.len());
        assert_eq!(site.one("PRAGMA integrity_check"), "ok");
    }
}

/// Small, seeded, and good enough for a load.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
