//! `antiphon status`: how a node is, asked from outside its process.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use super::Node;
use crate::failure::{Failure, Kind};
use crate::status::Status as Found;

mod text;

/// Between two pictures of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Makes a terminal begin anew at its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Say how a node is: where it stands, what waits, who takes part
///
/// It only looks, whether the host runs, is stopped, or never ran. Exit code 0 if all is well, that is `in step` or
/// `behind` for less than a minute; 3 if not.
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    #[command(flatten)]
    node: Node,
    /// Directory of the embedded log; without it, the one that the host used last, else the configuration's
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Print JSON, with every figure
    #[arg(long)]
    json: bool,
    /// Look again each second, until interrupted
    #[arg(long)]
    watch: bool,
}

impl Status {
    pub(super) fn run(self) -> Result<(), Failure> {
        let log_is_asked_for = self.log.is_some();
        let config = self.node.load(self.log, None)?.config;
        let carrier = crate::components::carrier(&config)?;
        let mut out = std::io::stdout().lock();
        let clears = out.is_terminal() && !self.json;
        loop {
            let found = Found::of(&config.db_path, &carrier, log_is_asked_for)?;
            let shown = match (self.json, self.watch) {
                (false, _) => text::of(&found),
                (true, false) => format!("{}\n", json(serde_json::to_string_pretty(&found))?),
                (true, true) => format!("{}\n", json(serde_json::to_string(&found))?),
            };
            match (self.watch, clears) {
                (true, true) => write!(out, "{CLEAR}{shown}")?,
                (true, false) if !self.json => writeln!(out, "{shown}")?,
                _ => write!(out, "{shown}")?,
            }
            out.flush()?;
            if !self.watch {
                return if found.well { Ok(()) } else { Err(Failure::new(Kind::Unwell, "not well")) };
            }
            std::thread::sleep(WATCH_INTERVAL);
        }
    }
}

fn json(made: serde_json::Result<String>) -> Result<String, Failure> {
    made.map_err(|error| Failure::new(Kind::General, format!("cannot write the status as JSON: {error}")))
}
