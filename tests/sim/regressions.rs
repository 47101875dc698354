//! Seeds that once found a bug, and must never find it again: histories change with the workload, so each bug
//! can also be planted (see `flaws`), and these are only the quickest way to see it.

use crate::plan::Plan;
use crate::world::run;

/// What was wrong, and seeds that showed it.
const SEEDS: &[(&str, &[u64])] = &[
    ("entries were applied over rows that no trigger had seen, which then went out again as this node's", &[0]),
    ("a column that the origin lacked was filled from T, not from the shadow", &[62, 249, 356, 405]),
    ("a row that stood as it came was taken for a clash, for want of a column", &[114, 248, 318]),
    (
        "the serial fold showed a resolver other columns than the fold where a column came amid a unit",
        &[12078, 16116, 48584],
    ),
    ("clashes remembered entries that had been rolled back", &[177]),
    ("a clash was seen with a row that a piece had deleted which was rolled out before a start", &[92370]),
    ("the rest of a unit that was sealed by half was sealed in a copy as another unit", &[472]),
];

/// The same, of histories with all that can happen.
const WITH_ALL: &[(&str, &[u64])] = &[(
    "the log began again with a node that waited for another, which needed a snapshot of it to go on",
    &[5423, 5516],
)];

pub(crate) fn what_was_fixed_stays_fixed() {
    stays_fixed(SEEDS, Plan::first);
    stays_fixed(WITH_ALL, Plan::new);
}

fn stays_fixed(known: &[(&str, &[u64])], plan: fn(u64) -> Plan) {
    for (what, seeds) in known {
        for seed in *seeds {
            assert_eq!(run(&plan(*seed)).failure, None, "seed {seed}: {what}");
        }
    }
}
