//! The `antiphon` program: everything it can do is in the library.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: antiphon::memory::Memory = antiphon::memory::Memory;

fn main() -> ExitCode {
    match antiphon::cli::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
