//! What another process asks of a running node: a file in the host's own directory, and another with the answer.
//!
//! Whoever can write there may ask; nobody else can, and no port is open for it.

use crate::failure::{Failure, Kind};
use crate::lock::Lock;
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often it is looked for an answer.
const POLL: Duration = Duration::from_millis(50);

const REQUEST: &str = ".request";
const ANSWER: &str = ".answer";

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Look into the configuration again.
    Reload,
    /// Make a snapshot.
    Snapshot,
    /// Say how much of the log nobody needs any more.
    LookAtLog,
    /// Let go of that.
    CutLog,
    /// Make a snapshot of what changed since the last one.
    Increment,
}

impl Errand {
    fn name(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Snapshot => "snapshot",
            Self::LookAtLog => "look-at-log",
            Self::CutLog => "cut-log",
            Self::Increment => "increment",
        }
    }

    /// The file of a request. Each has one of its own: several may ask for the same.
    fn request(self, id: &str) -> String {
        format!("{}-{id}{REQUEST}", self.name())
    }

    fn answer(self, id: &str) -> String {
        format!("{}-{id}{ANSWER}", self.name())
    }

    /// The request that a file is, if it is one of these.
    fn asked(self, file: &str) -> Option<&str> {
        file.strip_prefix(self.name())?.strip_prefix('-')?.strip_suffix(REQUEST)
    }
}

/// What came of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Answer {
    /// What was done, in words.
    said: Vec<String>,
    /// Why nothing was, if so.
    refused: Option<Refused>,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Refused {
    kind: Kind,
    why: String,
    hints: Vec<String>,
}

/// The first request that somebody left, if there is one; it is taken away.
pub(crate) fn requested(state: &Path, errand: Errand) -> Option<String> {
    let names = std::fs::read_dir(state).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let asked = names.filter_map(|name| errand.asked(&name).map(str::to_owned)).min()?;
    std::fs::remove_file(state.join(errand.request(&asked))).ok()?;
    Some(asked)
}

/// Takes away answers that nobody has waited for: whoever waits for one sees it when the node ends.
pub(crate) fn forget_answers(state: &Path) {
    for entry in std::fs::read_dir(state).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().ends_with(ANSWER) {
            // If it stays it is in nobody's way.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Leaves the answer to a request.
pub(crate) fn answer(state: &Path, errand: Errand, of: &str, done: Result<Vec<String>, Failure>) {
    let (said, refused) = match done {
        Ok(said) => (said, None),
        Err(failure) => {
            let refused = Refused { kind: failure.kind(), why: failure.to_string(), hints: failure.hints().to_vec() };
            (Vec::new(), Some(refused))
        }
    };
    let written = serde_json::to_vec(&Answer { said, refused }).map_err(std::io::Error::from);
    if let Err(error) = written.and_then(|bytes| write(state, &errand.answer(of), &bytes)) {
        tracing::warn!(%error, "cannot answer whoever asked something of this node");
    }
}

/// Asks the node that runs beside a database, and waits for its answer; `waiting` is called while there is none.
///
/// # Errors
/// When no node runs there, or it refuses, or does not answer in this time.
pub(crate) fn ask(
    database: &Path,
    state: &Path,
    errand: Errand,
    patience: Duration,
    mut waiting: impl FnMut(Duration),
) -> Result<Vec<String>, Failure> {
    let alive = || {
        if Lock::is_held(state) {
            return Ok(());
        }
        Err(Failure::new(Kind::General, format!("no node runs beside `{}`", database.display())))
    };
    alive()?;
    // Those that came first are answered first.
    let id = format!("{:013}-{}", crate::clock::unix_ms(), std::process::id());
    write(state, &errand.request(&id), b"").map_err(|error| {
        Failure::caused(Kind::General, format!("cannot leave a request in `{}`", state.display()), &error)
    })?;
    let begun = Instant::now();
    loop {
        if let Some(answer) = answered(state, errand, &id) {
            return answer.refused.map_or(Ok(answer.said), |refused| {
                let failure = Failure::new(refused.kind, refused.why);
                Err(refused.hints.into_iter().fold(failure, Failure::hint))
            });
        }
        // It may have ended before it saw the request; nobody is to find it at the next start.
        if let Err(gone) = alive() {
            let _ = std::fs::remove_file(state.join(errand.request(&id)));
            return Err(gone);
        }
        if begun.elapsed() > patience {
            return Err(Failure::new(Kind::Busy, "the node does not answer")
                .hint("see with `antiphon status` how it is; it answers when it can, or ask again"));
        }
        waiting(begun.elapsed());
        std::thread::sleep(POLL);
    }
}

/// The answer to a request, if it is there; it is taken away.
fn answered(state: &Path, errand: Errand, id: &str) -> Option<Answer> {
    let path = state.join(errand.answer(id));
    let answer = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
    std::fs::remove_file(&path).ok()?;
    Some(answer)
}

/// Whole or not at all, and its owner's alone.
fn write(state: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let aside = state.join(format!("{name}.new"));
    let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
    file.write_all(bytes)?;
    std::fs::rename(&aside, state.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_that_asks_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        for id in ["2-a", "1-b"] {
            write(state, &Errand::Snapshot.request(id), b"").unwrap();
        }
        write(state, &Errand::Increment.request("0-c"), b"").unwrap();
        std::fs::write(state.join("snapshot-0-d.request.new"), "").unwrap();
        assert_eq!(requested(state, Errand::Snapshot).as_deref(), Some("1-b"));
        assert_eq!(requested(state, Errand::Snapshot).as_deref(), Some("2-a"));
        assert_eq!(requested(state, Errand::Snapshot), None);
        assert_eq!(requested(state, Errand::Reload), None);
        for id in ["1-b", "2-a"] {
            answer(state, Errand::Snapshot, id, Ok(vec![id.to_owned()]));
        }
        assert_eq!(answered(state, Errand::Snapshot, "2-a").unwrap().said, ["2-a"]);
        assert_eq!(answered(state, Errand::Snapshot, "2-a"), None);
        forget_answers(state);
        assert_eq!(answered(state, Errand::Snapshot, "1-b"), None);
    }
}
