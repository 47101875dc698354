//! `antiphon cleanup`: leave no trace in a database.

use std::io::Write as _;

use super::Node;
use super::shown::count;
use crate::db::{self, Database};
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
        // Nothing else of the configuration is needed, and what is wrong there must not keep anybody from leaving.
        let database = self.node.database()?;
        let shown = database.display().to_string();
        let place = Place::find(&database)?;
        // What can't be read any more must not keep anybody from leaving.
        let state_before = super::look::database(&database)?.node().ok().flatten();
        let path = place.path();
        let state = node::state_directory(path);
        // A host that runs would put everything back, and lose what it had marked.
        let _lock = if state.exists() { Some(Lock::take(&place, &state, &shown)?) } else { None };
        let removed = Database::cleanup(path, self.dry_run).map_err(|error| uncleaned(&shown, &error))?;
        let mut out = std::io::stdout().lock();
        for trace in &removed {
            writeln!(out, "{trace}")?;
        }
        let mut talk = std::io::stderr().lock();
        let objects = count(removed.len() as u64, "object", "objects");
        if let Some(node) = state_before.filter(|node| node.unconfirmed + node.marks > 0) {
            writeln!(
                talk,
                "changes {} given up: {} and {} had not come back from the log",
                if self.dry_run { "would be" } else { "were" },
                count(node.unconfirmed, "batch", "batches"),
                count(node.marks, "marked row", "marked rows")
            )?;
        }
        match (removed.len(), self.dry_run) {
            (0, _) => writeln!(talk, "there is no trace of Antiphon in {shown}")?,
            (_, true) => writeln!(talk, "{objects} would be removed from {shown}")?,
            (_, false) => {
                writeln!(talk, "{objects} removed from {shown}; `{}` may go, too", state.display())?;
            }
        }
        Ok(())
    }
}

fn uncleaned(shown: &str, error: &db::Error) -> Failure {
    let text = format!("cannot clean `{shown}`");
    if error.is_transient() {
        return Failure::caused(Kind::Busy, text, error)
            .hint("try again when the application has ended its transaction, and the disk has room");
    }
    Failure::caused(Kind::General, text, error)
        .hint("nothing was removed; see that this user may write to the file and its folder")
}
