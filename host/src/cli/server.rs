//! The hidden command that becomes a NATS server: the host starts itself with it.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::failure::Failure;

/// Become a NATS server that is killed with the process that asked for it
#[derive(Debug, clap::Args)]
pub(super) struct Server {
    /// The process to be killed with
    parent: u32,
    /// The server's program
    program: PathBuf,
    /// What it is told
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Server {
    pub(super) fn run(self) -> Result<(), Failure> {
        Err(crate::server::become_server(self.parent, &self.program, &self.arguments))
    }
}
