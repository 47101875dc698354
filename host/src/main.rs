//! The `antiphon` program: everything it can do is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    match antiphon::cli::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
