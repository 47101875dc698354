//! A storage, put through what every store promises.

use std::io::{self, Write};

use antiphon_core::store::Store;
use antiphon_plugin::{Grants, Pace, PluginHost};
use serde::Serialize;

use super::super::subject::{Subject, Which, configuration, unusable};
use crate::cli::json_line;
use crate::cli::shown::{self, bytes};
use crate::custom::Pins;
use crate::failure::{Failure, Kind};
use crate::storage::conformance::{self, Extent, Step};
use crate::storage::{MEMORY_BYTES_MIN, open};

#[derive(Serialize)]
struct Report<'a> {
    passed: usize,
    failed: usize,
    memory_peak_bytes: usize,
    steps: Vec<Shown<'a>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    what: &'a str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    milliseconds: u128,
}

/// Runs the suite against a storage: where the configuration says, or in a folder that is there for this alone.
pub(super) fn run(host: &PluginHost, which: &Which, subject: &Subject, json: bool) -> Result<(), Failure> {
    if let Some((name, file)) = which.configured() {
        let opened = open(&configuration(file)?, host, Some(name), Pins::Optional)?;
        return report(&opened.store, json, || opened.component.memory_peak());
    }
    let folder = tempfile::tempdir()?;
    let grants = Grants { folder: Some(folder.path().to_owned()), ..Grants::default() };
    let mut limits = subject.limits.clone();
    limits.memory_bytes = limits.memory_bytes.max(MEMORY_BYTES_MIN);
    let storage = host.storage(&subject.source, &subject.settings, grants, limits, Pace::default());
    let storage = storage.map_err(|error| {
        unusable(&error).hint("with `--config FILE` it is tried with what `[plugin.NAME]` says and grants")
    })?;
    report(&storage, json, || storage.memory_peak())
}

fn report(store: &dyn Store, json: bool, memory_peak: impl Fn() -> usize) -> Result<(), Failure> {
    // Two that try at once don't meet.
    let word = format!("antiphon-test-{:016x}", crate::clock::unix_ns());
    let mut broken = None;
    let steps = conformance::run(store, &word, Extent::default(), |step| {
        if !json && broken.is_none() {
            broken = write(&mut io::stdout().lock(), step).err();
        }
    });
    if let Some(error) = broken {
        return Err(error.into());
    }
    let failed = steps.iter().filter(|step| step.outcome.is_err()).count();
    let passed = steps.len() - failed;
    let memory_peak_bytes = memory_peak();
    let mut out = io::stdout().lock();
    if json {
        let steps = steps.iter().map(|step| Shown {
            what: step.what,
            ok: step.outcome.is_ok(),
            error: step.outcome.as_ref().err().map(String::as_str),
            milliseconds: step.took.as_millis(),
        });
        json_line(&mut out, &Report { passed, failed, memory_peak_bytes, steps: steps.collect() })?;
    } else {
        writeln!(out, "\n{passed} passed, {failed} failed; memory {} at most", bytes(memory_peak_bytes as u64))?;
    }
    out.flush()?;
    if failed == 0 { Ok(()) } else { Err(Failure::new(Kind::Unwell, "it is not well")) }
}

fn write(out: &mut impl Write, step: &Step) -> io::Result<()> {
    match &step.outcome {
        Ok(()) => writeln!(out, "  ok    {:64} {:>7} ms", step.what, step.took.as_millis()),
        Err(why) => writeln!(out, "  FAIL  {}\n          {}", step.what, shown::name(why)),
    }
}
