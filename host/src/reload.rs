//! A configuration looked into again while a node runs: what of its components may change without a word of the others.
//!
//! What a component may use up is each node's own affair, as long as running out is no answer, and so is where its
//! snapshots go; anything that can change an answer is all nodes' affair and refused here, with the way that there is.

use crate::config::{Config, Plugin, PluginLimits};
use crate::failure::Failure;
use std::sync::Arc;

/// Looks into the configuration again and takes up what may change; says what did. Resolvers are to be made anew then.
#[derive(Clone)]
pub struct Reload(Arc<dyn Fn() -> Result<Vec<String>, Failure> + Send + Sync>);

impl Reload {
    /// One that does it like this.
    pub fn new(reload: impl Fn() -> Result<Vec<String>, Failure> + Send + Sync + 'static) -> Self {
        Self(Arc::new(reload))
    }

    /// Does it.
    ///
    /// # Errors
    /// When the configuration can't be read, or something differs that can't change here alone.
    pub fn run(&self) -> Result<Vec<String>, Failure> {
        (self.0)()
    }
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reload")
    }
}

/// What of one component is another now.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    words: String,
    /// Why it can't change here alone.
    refused: Option<&'static str>,
}

const APPLY: &str = "`antiphon policy apply` changes policies, and what their components are told, on all nodes at one place of the log";
const START: &str = "snapshots are turned on and off at a start";
const RESTART: &str = "a hasher goes by other limits from the next start on";
const HASH: &str = "the hasher, its settings and the number of shards hold for as long as the cluster does";

/// What may change between two configurations of a node that runs, in words.
///
/// # Errors
/// When something differs that a node can't change for itself; all of that.
pub fn plan(running: &Config, now: &Config) -> Result<Vec<String>, Failure> {
    let mut changes = Vec::new();
    if (&running.hash.r#use, running.hash.settings.reveal()) != (&now.hash.r#use, now.hash.settings.reveal()) {
        changes.push(Change { words: "`[hash]` is another".to_owned(), refused: Some(HASH) });
    }
    let policies = |config: &Config| {
        let tables = config.conflict.table.iter();
        let tables: Vec<_> =
            tables.map(|table| (table.r#match.clone(), table.r#use.clone(), table.settings.reveal())).collect();
        (config.conflict.default.clone(), tables)
    };
    if policies(running) != policies(now) {
        changes.push(Change { words: "`[conflict]` is another".to_owned(), refused: Some(APPLY) });
    }
    for (name, plugin) in &running.plugin {
        let refusal = if uses(running, name) { Some(APPLY) } else { None };
        let hashes = running.hash.r#use == *name;
        let refusal = if hashes { Some(HASH) } else { refusal };
        match now.plugin.get(name) {
            Some(now) => changes.extend(between(name, plugin, now, refusal, hashes)),
            None if refusal.is_some() => {
                changes.push(Change { words: format!("`[plugin.{name}]` is gone, and in use"), refused: refusal });
            }
            None => changes.push(Change { words: format!("`[plugin.{name}]` is gone"), refused: None }),
        }
    }
    for name in now.plugin.keys().filter(|name| !running.plugin.contains_key(*name)) {
        changes.push(Change { words: format!("`[plugin.{name}]` is new"), refused: None });
    }
    if running.snapshot.enabled != now.snapshot.enabled {
        changes.push(Change { words: "`snapshot.enabled` is another".to_owned(), refused: Some(START) });
    } else if running.snapshot != now.snapshot {
        changes.push(Change { words: "`[snapshot]` is another".to_owned(), refused: None });
    }
    let refused: Vec<&Change> = changes.iter().filter(|change| change.refused.is_some()).collect();
    if refused.is_empty() {
        return Ok(changes.into_iter().map(|change| change.words).collect());
    }
    let words: Vec<&str> = refused.iter().map(|change| change.words.as_str()).collect();
    let failure = Failure::config(format!(
        "nothing was reloaded, for this can change what becomes of rows: {}",
        words.join("; ")
    ));
    let mut hints: Vec<&str> = refused.iter().filter_map(|change| change.refused).collect();
    hints.dedup();
    Err(hints.into_iter().fold(failure, |failure, hint| failure.hint(hint)))
}

/// Whether snapshots go to another store now, or to the same by another component.
pub(crate) fn keeps_elsewhere(running: &Config, now: &Config) -> bool {
    let plugin = |config: &Config| {
        let name = config.snapshot.store.strip_prefix("plugin:")?;
        config.plugin.get(name).cloned()
    };
    running.snapshot != now.snapshot || plugin(running) != plugin(now)
}

/// Whether a policy is decided by it.
fn uses(config: &Config, name: &str) -> bool {
    config.conflict.default == name || config.conflict.table.iter().any(|table| table.r#use == name)
}

fn between(name: &str, was: &Plugin, now: &Plugin, refusal: Option<&'static str>, hashes: bool) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut differs = |differs: bool, what: &str, refused: Option<&'static str>| {
        if differs {
            changes.push(Change { words: format!("`{what}` of `[plugin.{name}]` is another"), refused });
        }
    };
    differs(was.source != now.source, "source", refusal);
    differs(was.sha256 != now.sha256, "sha256", refusal);
    differs(was.settings.reveal() != now.settings.reveal(), "settings", refusal);
    differs(was.on_failure != now.on_failure, "on_failure", refusal);
    // Where a failure is an answer, so is what a component may use up before it fails.
    let parks = now.on_failure == "park" || was.on_failure == "park";
    for (what, differing, is_answer) in limits(&was.limits, &now.limits) {
        let refused = if hashes { Some(RESTART) } else { refusal.filter(|_| parks && is_answer) };
        differs(differing, &format!("limits.{what}"), refused);
    }
    changes
}

/// Each limit by name, whether it is another, and whether it decides if a component fails.
fn limits(was: &PluginLimits, now: &PluginLimits) -> [(&'static str, bool, bool); 10] {
    [
        ("component_bytes", was.component_bytes != now.component_bytes, false),
        ("compile_seconds", was.compile_seconds != now.compile_seconds, false),
        ("compile_memory", was.compile_memory != now.compile_memory, false),
        ("memory", was.memory != now.memory, true),
        ("returned", was.returned != now.returned, true),
        ("fuel_base", was.fuel_base != now.fuel_base, true),
        ("fuel_per_item", was.fuel_per_item != now.fuel_per_item, true),
        ("fuel_per_byte", was.fuel_per_byte != now.fuel_per_byte, true),
        ("watchdog", was.watchdog != now.watchdog, false),
        ("calls", was.calls != now.calls, false),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(rest: &str) -> Config {
        let text = format!(
            "[[conflict.table]]\nmatch = \"t\"\nuse = \"mine\"\n[hash]\nuse = \"spread\"\n[plugin.spread]\nsource = \"file:spread.wasm\"\n\
             [plugin.mine]\nsource = \"file:mine.wasm\"\n{rest}"
        );
        toml::from_str(&text).unwrap()
    }

    fn planned(was: &str, now: &str) -> String {
        match plan(&config(was), &config(now)) {
            Ok(changed) => changed.join("; "),
            Err(failure) => format!("{failure}; {}", failure.hints().join("; ")),
        }
    }

    #[test]
    fn what_can_change_an_answer_is_refused() {
        let mine = "of `[plugin.mine]` is another";
        assert_eq!(planned("", ""), "");
        assert_eq!(planned("", "limits = { memory = 1048576 }"), format!("`limits.memory` {mine}"));
        let parks = "on_failure = \"park\"\n";
        let calls = format!("{parks}limits = {{ calls = 3 }}");
        assert_eq!(planned(parks, &calls), format!("`limits.calls` {mine}"));
        for (was, now, what) in [
            (parks, format!("{parks}limits = {{ memory = 1048576 }}"), "limits.memory"),
            ("", parks.to_owned(), "on_failure"),
            (parks, String::new(), "on_failure"),
            ("", "settings = { a = \"b\" }".to_owned(), "settings"),
            ("", "sha256 = \"00\"".to_owned(), "sha256"),
        ] {
            assert_eq!(
                planned(was, &now),
                format!("nothing was reloaded, for this can change what becomes of rows: `{what}` {mine}; {APPLY}")
            );
        }
        let table = "[[conflict.table]]\nmatch = \"u\"\nuse = \"mine\"\n";
        assert!(planned("", table).contains("`[conflict]` is another"));
    }

    #[test]
    fn what_nothing_uses_may_come_and_go() {
        let spare = "[plugin.spare]\nsource = \"file:spare.wasm\"\n";
        assert_eq!(planned("", spare), "`[plugin.spare]` is new");
        assert_eq!(planned(spare, ""), "`[plugin.spare]` is gone");
        assert_eq!(planned(spare, &spare.replace("spare.wasm", "x.wasm")), "`source` of `[plugin.spare]` is another");
        let mut without = config("");
        without.plugin.remove("mine");
        assert!(plan(&config(""), &without).unwrap_err().to_string().contains("`[plugin.mine]` is gone, and in use"));
    }

    #[test]
    fn a_hasher_stays_as_it_is() {
        let with = |limits: &str| {
            let text = format!("[hash]\nuse = \"spread\"\n[plugin.spread]\nsource = \"file:spread.wasm\"\n{limits}");
            toml::from_str::<Config>(&text).unwrap()
        };
        let failure = plan(&with(""), &with("limits = { calls = 3 }")).unwrap_err();
        assert_eq!(failure.hints(), [RESTART]);
        let failure = plan(&with(""), &with("settings = { a = \"b\" }")).unwrap_err();
        assert_eq!(failure.hints(), [HASH]);
    }
}
