//! `antiphon plugin reload`: what components may use up, changed while the node runs.

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::super::Node;
use crate::failure::{Failure, Kind};
use crate::lock::Lock;
use crate::reload;

/// How long a node has for its answer.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

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
        if !Lock::is_held(&state) {
            return Err(Failure::new(Kind::General, format!("no node runs beside `{}`", path.display()))
                .hint("there is nothing to reload: a start reads the configuration"));
        }
        let id = format!("{} {}", std::process::id(), crate::clock::unix_ms());
        reload::request(&state, &id).map_err(|error| {
            Failure::caused(Kind::General, format!("cannot leave a request in `{}`", state.display()), &error)
        })?;
        let begun = Instant::now();
        let answer = loop {
            if let Some(answer) = reload::answered(&state, &id) {
                break answer;
            }
            if begun.elapsed() > PATIENCE {
                return Err(Failure::new(Kind::Busy, "the node does not answer")
                    .hint("see with `antiphon status` how it is; it answers when it can, or ask again"));
            }
            std::thread::sleep(POLL);
        };
        if let Some(refused) = answer.refused {
            return Err(refused.failure());
        }
        let mut out = std::io::stdout().lock();
        if answer.changed.is_empty() {
            writeln!(out, "nothing of the plugins has changed")?;
        }
        for change in answer.changed {
            writeln!(out, "{change}")?;
        }
        Ok(())
    }
}
