//! What somebody was told, and what he was not told yet.

use super::message;
use crate::health::Reason;
use crate::vitals::Vitals;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The name of what is wrong when a process has ended by itself.
pub(super) const ENDED: &str = "ended";

/// What somebody was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    /// What is wrong, by name.
    pub(super) reasons: BTreeMap<String, Reason>,
    /// That the node is not well.
    pub(super) unhealthy: bool,
}

impl Told {
    /// What is to be told now, in order; each with what will have been told then. Before a start has `settled`, nothing but
    /// the end of the process before is taken back: what was wrong may only not have been found again.
    pub(super) fn news(&self, vitals: &Vitals, settled: bool) -> Vec<(Value, Self)> {
        let mut news = Vec::new();
        let mut after = self.clone();
        for reason in &vitals.health.reasons {
            if !after.reasons.contains_key(&reason.name) {
                after.reasons.insert(reason.name.clone(), reason.clone());
                news.push((message(vitals, "condition", "firing", Some(reason)), after.clone()));
            }
        }
        for (name, reason) in &self.reasons {
            let is_over = vitals.health.reasons.iter().all(|now| now.name != *name);
            if is_over && (settled || name == ENDED) {
                after.reasons.remove(name);
                news.push((message(vitals, "condition", "resolved", Some(reason)), after.clone()));
            }
        }
        let unhealthy = !vitals.health.healthy;
        if after.unhealthy != unhealthy && (unhealthy || after.reasons.is_empty()) {
            after.unhealthy = unhealthy;
            news.push((message(vitals, "health", vitals.health.word(), None), after.clone()));
        }
        news
    }

    fn file(state: &Path, way: &str) -> PathBuf {
        state.join(format!("told-{way}.json"))
    }

    /// What was told before this start; nothing if that can't be known.
    pub(super) fn read(state: &Path, way: &str) -> Self {
        let bytes = std::fs::read(Self::file(state, way)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Keeps it. Its owner's alone, for reasons may name tables and rows.
    pub(super) fn write(&self, state: &Path, way: &str) {
        let file = Self::file(state, way);
        let aside = file.with_extension("json.new");
        let write = || -> std::io::Result<()> {
            let mut out = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
            out.write_all(&serde_json::to_vec_pretty(self)?)?;
            std::fs::rename(&aside, &file)
        };
        if let Err(error) = write() {
            tracing::warn!(file = %file.display(), %error, "cannot keep who was told what; a start may tell it again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;

    fn vitals(names: &[&str]) -> Vitals {
        let reasons = names.iter().map(|name| Reason { name: (*name).to_owned(), ..Reason::default() });
        Vitals { health: Health { healthy: names.is_empty(), reasons: reasons.collect() }, ..Vitals::default() }
    }

    /// Tells all there is to tell; gives it in short.
    fn tell(told: &mut Told, names: &[&str]) -> Vec<String> {
        tell_if(told, names, true)
    }

    fn tell_if(told: &mut Told, names: &[&str], settled: bool) -> Vec<String> {
        let news = told.news(&vitals(names), settled);
        if let Some((_, after)) = news.last() {
            *told = after.clone();
        }
        let short = |value: &Value| {
            let text = |key: &str| value[key].as_str().unwrap_or("-").to_owned();
            format!("{} {} {}", text("event"), text("state"), text("name"))
        };
        news.iter().map(|(value, _)| short(value)).collect()
    }

    #[test]
    fn each_condition_is_told_once_and_taken_back_once() {
        let mut told = Told::default();
        let none: [&str; 0] = [];
        assert_eq!(tell(&mut told, &[]), none);
        assert_eq!(tell(&mut told, &["log"]), ["condition firing log", "health unhealthy -"]);
        assert_eq!(tell(&mut told, &["log"]), none);
        assert_eq!(tell(&mut told, &["log", "disk"]), ["condition firing disk"]);
        assert_eq!(tell(&mut told, &["disk"]), ["condition resolved log"]);
        assert_eq!(tell(&mut told, &[]), ["condition resolved disk", "health healthy -"]);
        assert_eq!(tell(&mut told, &[]), none);
    }

    /// A start that has not looked everywhere yet takes nothing back, but that the process before it ended.
    #[test]
    fn a_start_takes_nothing_back_too_early() {
        let mut told = Told::default();
        tell(&mut told, &["shard 1"]);
        told.reasons.insert(ENDED.to_owned(), Reason { name: ENDED.to_owned(), ..Reason::default() });
        assert_eq!(tell_if(&mut told, &[], false), ["condition resolved ended"]);
        let none: [&str; 0] = [];
        assert_eq!(tell_if(&mut told, &[], false), none);
        assert_eq!(tell_if(&mut told, &["disk"], false), ["condition firing disk"]);
        assert_eq!(tell_if(&mut told, &["shard 1"], true), ["condition resolved disk"]);
        assert_eq!(tell_if(&mut told, &[], true), ["condition resolved shard 1", "health healthy -"]);
    }

    #[test]
    fn what_was_told_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let mut told = Told::read(folder.path(), "webhook");
        assert_eq!(told, Told::default());
        tell(&mut told, &["log"]);
        told.write(folder.path(), "webhook");
        let mut again = Told::read(folder.path(), "webhook");
        assert_eq!(again, told);
        assert_eq!(Told::read(folder.path(), "command"), Told::default());
        assert_eq!(tell(&mut again, &[]), ["condition resolved log", "health healthy -"]);
        std::fs::write(folder.path().join("told-webhook.json"), "{\"reasons\": ").unwrap();
        assert_eq!(Told::read(folder.path(), "webhook"), Told::default(), "half a file is none");
    }
}
