//! `antiphon cleanup`: leave no trace in a database.

use std::io::Write as _;

use super::Node;
use crate::db::Database;
use crate::failure::{Failure, Kind};
use crate::lock::Lock;
use crate::node;
use crate::place::Place;

/// Remove every trigger and table of ours from a database
///
/// The application's own tables and rows stay as they are. Changes that no other node has seen yet are given up.
#[derive(Debug, clap::Args)]
pub(super) struct Cleanup {
    #[command(flatten)]
    node: Node,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

impl Cleanup {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.node.load(None, None)?.config;
        let shown = config.db_path.display().to_string();
        let place = Place::find(&config.db_path)?;
        let path = place.path();
        let state = node::state_directory(path);
        // A host that runs would put everything back, and lose what it had marked.
        let _lock = if state.exists() { Some(Lock::take(&place, &state, &shown)?) } else { None };
        let removed = Database::cleanup(path, self.dry_run)
            .map_err(|error| Failure::caused(Kind::General, format!("cannot clean `{shown}`"), &error))?;
        let mut out = std::io::stdout().lock();
        for trace in &removed {
            writeln!(out, "{trace}")?;
        }
        let mut talk = std::io::stderr().lock();
        match (removed.len(), self.dry_run) {
            (0, _) => writeln!(talk, "there is no trace of Antiphon in {shown}")?,
            (count, true) => writeln!(talk, "{count} objects would be removed from {shown}")?,
            (count, false) => {
                writeln!(talk, "{count} objects removed from {shown}; `{}` may go, too", state.display())?;
            }
        }
        Ok(())
    }
}
