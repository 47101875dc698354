//! `antiphon plugin reload`: what components may use up, changed while the node runs.

use std::io::Write as _;
use std::time::Duration;

use super::super::Node;
use crate::errand::{self, Errand};
use crate::failure::{Failure, Kind};

/// How long a node has for its answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Have the running node look into its configuration again for its plugins
///
/// New `[plugin.NAME.limits]` hold from then on, and what had stopped for the old ones is tried again; a `[plugin.NAME]` that
/// nothing uses yet is taken up. What can change an answer is refused, and nothing is changed then: policies, components,
/// their settings, and limits under `on_failure = "park"` change on all nodes at once, by `antiphon policy apply`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Reload {
    #[command(flatten)]
    node: Node,
}

impl Reload {
    pub(in crate::cli) fn run(self) -> Result<(), Failure> {
        // Whoever asks learns here already what can't be read.
        let loaded = self.node.load(None, None)?;
        let path = &loaded.config.db_path;
        let state = loaded.config.state_dir();
        let changed = errand::ask(path, &state, Errand::Reload, PATIENCE, |_| {}).map_err(|failure| {
            if failure.kind() != Kind::General {
                return failure;
            }
            failure.hint("there is nothing to reload: a start reads the configuration")
        })?;
        let mut out = std::io::stdout().lock();
        if changed.is_empty() {
            writeln!(out, "nothing of the plugins has changed")?;
        }
        for change in changed {
            writeln!(out, "{change}")?;
        }
        Ok(())
    }
}
