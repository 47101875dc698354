//! `antiphon plugin test --replay`: one clash that a resolver failed at on a node, put to it again.

use std::io::{self, Write};
use std::path::Path;

use antiphon_core::resolve::Failed;
use antiphon_plugin::sha256;
use serde::Serialize;

use super::subject::{Told, Which, host, unusable};
use crate::cli::shown;
use crate::failure::{Failure, Kind};
use crate::replay::Replay;
use crate::trial::cases::shown_clash;
use crate::trial::notation::ShownVerdict;

#[derive(Serialize)]
struct Replayed {
    plugin: String,
    sha256: String,
    /// The bytes are those that failed.
    same_bytes: bool,
    shard: u32,
    entry: u64,
    table: String,
    clash: Vec<String>,
    /// Why it failed then.
    then: String,
    verdict: Option<String>,
    /// Why it fails now.
    error: Option<String>,
    details: Vec<(String, String)>,
    hint: Option<String>,
}

/// The name of the official component that has this digest.
fn official(digest: &str) -> Option<&'static str> {
    antiphon_bundle::ALL.iter().find(|component| sha256(component.bytes) == digest).map(|component| component.name)
}

/// Puts the clash to the component that is named, else to the one that failed.
pub(super) fn run(file: &Path, which: Option<Which>, json: bool) -> Result<(), Failure> {
    let replay = Replay::read(file)?;
    let recorded = match replay.plugin.source.as_str() {
        // The configuration may have called it otherwise.
        "builtin" => format!("builtin:{}", official(&replay.plugin.sha256).unwrap_or(&replay.plugin.name)),
        source => source.to_owned(),
    };
    let named = which.is_some();
    let which = which.unwrap_or(Which { plugin: recorded, config: None });
    let subject = which.find(Told::default()).map_err(|failure| {
        if named { failure } else { failure.hint("name the component: `antiphon plugin test FILE --replay REPLAY`") }
    })?;
    let sha256 = sha256(&subject.source.bytes);
    let outcome = replay.run(&host()?, &subject.source.bytes).map_err(|error| unusable(&error))?;
    let alone = &replay.alone;
    let mut replayed = Replayed {
        plugin: subject.source.name,
        same_bytes: sha256 == replay.plugin.sha256,
        sha256,
        shard: replay.place.shard,
        entry: replay.place.seq,
        table: alone.table.name.clone(),
        clash: shown_clash(&alone.clash, &alone.nodes),
        then: replay.why.clone(),
        verdict: None,
        error: None,
        details: Vec::new(),
        hint: None,
    };
    match outcome {
        Ok(verdict) => replayed.verdict = Some(ShownVerdict(&verdict).to_string()),
        Err(Failed { why, details, hint, .. }) => {
            replayed.error = Some(why);
            replayed.details = details;
            replayed.hint = hint;
        }
    }
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &replayed).map_err(|error| Failure::from(io::Error::from(error)))?;
        writeln!(out)?;
    } else {
        replayed.write(&mut out, &replay.plugin.sha256)?;
    }
    out.flush()?;
    match replayed.error {
        None => Ok(()),
        Some(why) => Err(Failure::new(Kind::Unwell, why)),
    }
}

impl Replayed {
    fn write(&self, out: &mut impl Write, failed: &str) -> io::Result<()> {
        let Self { shard, entry, .. } = self;
        writeln!(out, "a clash in table {}, entry {entry} of shard {shard}", shown::name(&self.table))?;
        for line in &self.clash {
            writeln!(out, "  {}", shown::name(line))?;
        }
        if !self.same_bytes {
            writeln!(out, "\nthe component is another than the one that failed")?;
            writeln!(out, "  then    sha256 {}", shown::name(failed))?;
            writeln!(out, "  now     sha256 {}", self.sha256)?;
        }
        writeln!(out, "\nthen      {}", shown::name(&self.then))?;
        if let Some(verdict) = &self.verdict {
            writeln!(out, "now       {}", shown::name(verdict))?;
        }
        if let Some(error) = &self.error {
            writeln!(out, "now       {}", shown::name(error))?;
        }
        for (name, value) in &self.details {
            for (at, line) in value.lines().enumerate() {
                writeln!(out, "  {:10}{}", if at == 0 { name.as_str() } else { "" }, shown::name(line))?;
            }
        }
        if let Some(hint) = &self.hint {
            writeln!(out, "hint: {hint}")?;
        }
        Ok(())
    }
}
