//! C118, F11: the clock of one node's machine jumps while the node runs.

use antiphon_harness::health::{is_unwell, is_well, serving};
use antiphon_harness::{Clock, settled};

use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v)";
const DAY: i64 = 86_400;

/// Rows go on both ways whatever a clock says; that it is wrong is told, and taken back when it is right.
#[test]
fn c118_a_clock_that_jumps_is_told_and_changes_no_row() {
    let place = place();
    let clock = Clock::new(&place, "clock");
    let quick = |name: &str| serving(place.site(name, TABLE)).with("ANTIPHON_HEALTH_CHECK__LOG_GRACE", "500");
    let (mut a, mut b) = (clock.tells(quick("a")), quick("b"));
    a.start();
    b.start();
    for (round, ahead) in [0, DAY, -DAY, 0].into_iter().enumerate() {
        clock.set(ahead);
        for (site, id) in [(&a, 0), (&b, 1), (&a, 2)] {
            site.sql(&format!("INSERT OR REPLACE INTO t VALUES ({}, 'round {round}')", round * 2 + id));
        }
        settled(&[&a, &b]);
        match ahead {
            0 => {
                is_well(&a);
                is_well(&b);
            }
            // Who stands a day back sees words that come from tomorrow.
            ahead => {
                let what = is_unwell(if ahead > 0 { &b } else { &a }, "clock");
                assert!(what.starts_with("this machine's clock is 86") && what.ends_with("behind the log's"), "{what}");
            }
        }
    }
    // A start goes by what is in the file, not by when that was.
    clock.set(-DAY);
    a.term();
    a.start();
    a.sql("INSERT INTO t VALUES (100, 'of yesterday')");
    settled(&[&a, &b]);
    clock.set(0);
    is_well(&a);
    a.term();
    b.term();
}
