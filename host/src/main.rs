//! The `antiphon` program: everything it can do is in the library.

use std::process::ExitCode;

/// Rows are many small pieces of memory that come and go in batches, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match antiphon::cli::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
