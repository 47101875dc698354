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
    fn request(self) -> &'static str {
        match self {
            Self::Reload => "reload.request",
            Self::Snapshot => "snapshot.request",
            Self::LookAtLog => "look-at-log.request",
            Self::CutLog => "cut-log.request",
            Self::Increment => "increment.request",
        }
    }

    fn answer(self) -> &'static str {
        match self {
            Self::Reload => "reload.answer",
            Self::Snapshot => "snapshot.answer",
            Self::LookAtLog => "look-at-log.answer",
            Self::CutLog => "cut-log.answer",
            Self::Increment => "increment.answer",
        }
    }
}

/// What came of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Answer {
    /// The request that it is about.
    of: String,
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

/// The request that somebody left, if there is one; it is taken away.
pub(crate) fn requested(state: &Path, errand: Errand) -> Option<String> {
    let path = state.join(errand.request());
    let asked = std::fs::read_to_string(&path).ok()?;
    std::fs::remove_file(&path).ok()?;
    Some(asked)
}

/// Leaves the answer to a request.
pub(crate) fn answer(state: &Path, errand: Errand, of: String, done: Result<Vec<String>, Failure>) {
    let (said, refused) = match done {
        Ok(said) => (said, None),
        Err(failure) => {
            let refused = Refused { kind: failure.kind(), why: failure.to_string(), hints: failure.hints().to_vec() };
            (Vec::new(), Some(refused))
        }
    };
    let written = serde_json::to_vec(&Answer { of, said, refused }).map_err(std::io::Error::from);
    if let Err(error) = written.and_then(|bytes| write(state, errand.answer(), &bytes)) {
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
    let id = format!("{} {}", std::process::id(), crate::clock::unix_ms());
    write(state, errand.request(), id.as_bytes()).map_err(|error| {
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
            let _ = std::fs::remove_file(state.join(errand.request()));
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
    let path = state.join(errand.answer());
    let answer: Answer = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
    if answer.of != id {
        return None;
    }
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
