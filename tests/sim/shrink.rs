//! Leaves out of a failing history what it does not need to fail.

use crate::plan::Plan;
use crate::world::run;

/// The shortest plan found that still fails.
pub(crate) fn shrink(plan: &Plan) -> Plan {
    let mut best = plan.clone();
    let mut size = best.steps.len().max(2) / 2;
    while size > 0 {
        let mut from = 0;
        let before = best.steps.len();
        while from < best.steps.len() {
            let mut shorter = best.clone();
            shorter.steps.drain(from..(from + size).min(best.steps.len()));
            if run(&shorter).failure.is_some() {
                best = shorter;
            } else {
                from += size;
            }
        }
        if size > 1 || best.steps.len() == before {
            size /= 2;
        }
    }
    best
}
