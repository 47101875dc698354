//! The log between machines, on real NATS servers.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test that can't go on ends there"
)]

mod admin;
mod builds;
mod cases;
mod cluster;
mod contract;
mod durability;
mod entering;
mod faults;
mod floods;
mod gone;
mod hostile;
mod identity;
mod large;
mod limits;
mod load;
mod lost;
mod managed;
mod nemesis;
mod observed;
mod points;
mod rescued;
mod reseeded;
mod scenario;
mod secrets;
mod security;
mod site;
mod whole;
mod world;

/// A file that nobody listed would be a test that nobody runs.
#[test]
fn no_file_is_forgotten() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/broker");
    for file in std::fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let module = name.trim_end_matches(".rs");
        assert!(
            module == "main" || include_str!("main.rs").contains(&format!("mod {module};")),
            "{name} is not listed"
        );
    }
}
