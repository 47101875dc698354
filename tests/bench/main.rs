//! The marks: what capture, seal, fold, log and components cost, as ratios to limits measured in the same run.
//!
//! `cargo bench` prints them; `-- --rows N` takes another number of rows, `-- --part local` one part of nine, `-- --full` writes
//! a large transaction of a million rows and not of a hundred thousand. A mark that is missed ends with exit code 1, unless `--only-look` says that this is no machine to judge by.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    unreachable_pub,
    reason = "a bench that can't go on should fail loudly, and its figures are for reading"
)]

mod broker;
mod components;
mod fixture;
mod large;
mod local;
mod natively;
mod processes;
mod report;
mod snapshots;
mod storages;

use report::Report;

/// As in the program itself.
#[global_allocator]
static ALLOCATOR: antiphon::memory::Memory = antiphon::memory::Memory;

type Part = fn(&mut Report, usize);

fn main() {
    if components::measured_idle() {
        return;
    }
    let args: Vec<String> = std::env::args().collect();
    // `cargo test --benches` runs every bench once to see that it runs.
    let quick = args.iter().any(|arg| arg == "--test");
    let asked = args.iter().position(|arg| arg == "--rows").and_then(|at| args.get(at + 1)?.parse().ok());
    let rows = asked.unwrap_or(if quick { 2_000 } else { 300_000 });
    let part = args.iter().position(|arg| arg == "--part").and_then(|at| args.get(at + 1));
    let mut report = Report::default();
    let full = args.iter().any(|arg| arg == "--full");
    let large = if full { 1_000_000 } else { 100_000 };
    let parts: [(&str, Part); 9] = [
        ("local", local::run),
        ("components", components::run),
        ("processes", processes::run),
        ("counter", processes::run_counter),
        ("broker", broker::run),
        ("large", large::run),
        ("storages", storages::run),
        ("snapshots", snapshots::run),
        ("beside", snapshots::latency),
    ];
    for (name, run) in parts.iter().filter(|(name, _)| part.is_none_or(|part| part == name)) {
        run(&mut report, if *name == "large" && !quick { large } else { rows });
    }
    let judge = !quick && !args.iter().any(|arg| arg == "--only-look");
    std::process::exit(i32::from(!report.print() && judge));
}
