//! Leaves out of a failing history what it does not need to fail.

use crate::plan::Plan;
use crate::world::run;

/// What kind of failure it is: a shorter history that fails in another way explains nothing.
fn class(failure: &str) -> String {
    let said = failure.split_once(": ").map_or(failure, |(_, said)| said);
    said.chars().filter(|c| c.is_alphabetic()).take(20).collect()
}

/// The shortest plan found that still fails in the same way.
pub(crate) fn shrink(plan: &Plan) -> Plan {
    let Some(wanted) = run(plan).failure.map(|failure| class(&failure)) else { return plan.clone() };
    let mut best = plan.clone();
    let mut size = best.steps.len().max(2) / 2;
    while size > 0 {
        let mut from = 0;
        let before = best.steps.len();
        while from < best.steps.len() {
            let mut shorter = best.clone();
            shorter.steps.drain(from..(from + size).min(best.steps.len()));
            if run(&shorter).failure.is_some_and(|failure| class(&failure) == wanted) {
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
