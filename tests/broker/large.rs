//! Transactions that no memory should hold at once.

use crate::scenario::is_full;
use crate::world::{World, count, start};
use antiphon_harness::{Site, eventually, settled};
use std::time::{Duration, Instant};

/// What a node's process had of memory at its peak, in MiB.
fn peak(site: &Site) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", site.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

/// C49: one transaction of a million rows arrives, neither node's memory grows with it, and another writer waits for no
/// longer than a step takes.
#[test]
fn c49_a_million_rows_in_one_transaction() {
    let rows = if is_full() { 1_000_000 } else { 150_000 };
    let world = World::one();
    let [mut a, mut b] = world.sites(["a", "b"]);
    start(&mut a);
    start(&mut b);
    a.sql(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO t SELECT i, 'row ' || i || ' of many', i FROM n"
    ));
    let (writer, mut longest, mut written) = (b.connect(), Duration::ZERO, 0);
    let deadline = Instant::now() + Duration::from_secs(300);
    while count(&b) < rows {
        assert!(Instant::now() < deadline, "{} of {rows} rows came", count(&b));
        let asked = Instant::now();
        writer.execute("INSERT INTO item VALUES (?1, 1, 'meanwhile')", [written]).unwrap();
        longest = longest.max(asked.elapsed());
        written += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    eventually("what was written meanwhile is there", || a.one("SELECT count(*) FROM item") == written.to_string());
    settled(&[&a, &b]);
    let peaks = [peak(&a), peak(&b)];
    println!("{peaks:?} MiB at the peak; a writer waited for {longest:?} at most");
    assert!(peaks.iter().all(|peak| *peak < 300), "{peaks:?} MiB");
}
