//! The program as it is run: real processes, real files, real signals.
//!
//! Each test has a folder of its own with a log in it and a few databases. A test waits for what must come true and
//! never for a time to pass; where a promise has a bound, the bound is the promise's, not the machine's.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test that can't go on ends there"
)]

use antiphon_harness::Place;

mod adopt;
mod alerts;
mod back;
mod callers;
mod clocks;
mod components;
mod configured;
mod copies;
mod cut;
mod damage;
mod drills;
mod faults;
mod floods;
mod hostile;
mod joining;
mod looking;
mod modes;
mod observed;
mod offline;
mod page;
mod pins;
mod policies;
mod private;
mod rescue;
mod reseed;
mod room;
mod schema;
mod skew;
mod snapshots;
mod state;
mod status;
mod stopping;
mod travel;
mod trouble;
mod unsound;

fn place() -> Place {
    Place::new(antiphon_harness::program!())
}

/// A file that nobody listed would be a test that nobody runs.
#[test]
fn no_file_is_forgotten() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/e2e");
    for file in std::fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let module = name.trim_end_matches(".rs");
        assert!(
            module == "main" || include_str!("main.rs").contains(&format!("mod {module};")),
            "{name} is not listed"
        );
    }
}
