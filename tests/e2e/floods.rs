//! X16: very much, and very large, of what an application may do by itself.

use antiphon_harness::health::{is_well, serving};
use antiphon_harness::http::get;
use antiphon_harness::{Neighbour, Site, Stopping, eventually, settled};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::observed::at;
use super::place;

/// What a node may have at its peak.
const MEMORY_MAX: u64 = 300 << 20;

fn stays_small(site: &Site) {
    stays_below(site, MEMORY_MAX);
}

#[track_caller]
fn stays_below(site: &Site, most: u64) {
    let peak = site.peak_memory();
    println!("{} MiB at the peak", peak >> 20);
    assert!(peak < most, "{peak}");
}

/// The log is away while very many rows are written: they wait, nobody holds up the application, and all of them arrive.
#[test]
fn x16_an_outbox_of_very_many_keys() {
    let is_full = std::env::var("FULL").is_ok();
    let (keys, step): (i64, i64) = if is_full { (10_000_000, 20_000) } else { (400_000, 5_000) };
    // What is on its way is known by its keys.
    let memory = if is_full { MEMORY_MAX + 64 * keys.cast_unsigned() } else { MEMORY_MAX };
    let place = place();
    let table = "CREATE TABLE t (id INTEGER PRIMARY KEY, v)";
    let (a, b) = place.pair(table, "INSERT INTO t VALUES (0, 'a')", "INSERT INTO t VALUES (-1, 'b')");
    let log = rusqlite::Connection::open(place.path("log/log.db")).unwrap();
    log.busy_timeout(Duration::from_secs(20)).unwrap();
    log.execute_batch("BEGIN IMMEDIATE").unwrap();
    let conn = a.connect();
    // As long as an application may wait beside a host.
    conn.busy_timeout(Duration::from_secs(1)).unwrap();
    for first in (1..=keys).step_by(usize::try_from(step).unwrap()) {
        let last = first + step - 1;
        conn.execute(
            "WITH RECURSIVE i(i) AS (VALUES (?1) UNION ALL SELECT i + 1 FROM i WHERE i < ?2)
             INSERT INTO t SELECT i, 'row ' || i FROM i",
            [first, last],
        )
        .unwrap();
    }
    stays_small(&a);
    log.execute_batch("ROLLBACK").unwrap();
    // P5: such a mass is no usual work, but no step of it may take long.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stopping = Stopping(&stop);
        let writers = [(&a, 0), (&b, 1)].map(|(site, at)| {
            let (neighbour, stop) = (Neighbour::of(&place, site), &stop);
            scope.spawn(move || neighbour.write((10 + at) * 10_000_000, stop))
        });
        // What comes last is behind all the others, on a machine of any speed.
        for share in 1..=20 {
            let count = format!("SELECT count(*) FROM t WHERE id > 0 AND id <= {}", keys * share / 20);
            eventually("a further share arrives", || b.one(&count) == (keys * share / 20).to_string());
        }
        stop.store(true, Ordering::Release);
        writers.into_iter().for_each(|writer| writer.join().unwrap().are_bounded());
    });
    settled(&[&a, &b]);
    stays_below(&a, memory);
    stays_small(&b);
}

/// Names as long as SQLite takes them are names like any others.
#[test]
fn x16_giant_names_of_tables_and_columns() {
    let place = place();
    let (table, column) = ("n".repeat(200_000), "c".repeat(100_000));
    let ddl = format!("CREATE TABLE \"{table}\" (id INTEGER PRIMARY KEY, \"{column}\" UNIQUE)");
    let (mut a, mut b) = (serving(place.site("a", &ddl)), serving(place.site("b", &ddl)));
    a.start();
    b.start();
    a.sql(&format!("INSERT INTO \"{table}\" VALUES (1, 'of a')"));
    b.sql(&format!("INSERT INTO \"{table}\" VALUES (2, 'of b')"));
    eventually("both arrive", || {
        [&a, &b].iter().all(|site| site.one(&format!("SELECT count(*) FROM \"{table}\"")) == "2")
    });
    settled(&[&a, &b]);
    for site in [&a, &b] {
        is_well(site);
        stays_small(site);
        let metrics = get(at(site, "metrics"), "/metrics").body;
        assert!(!metrics.contains("nnnnnnnn"), "no label is made of what somebody else chose");
    }
    a.term();
    b.term();
}
