//! `antiphon plugin test`: whether a component answers as its author means it to.

mod suite;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use antiphon_core::hash::PluginError;
use antiphon_core::resolve::Resolve;
use antiphon_plugin::Resolver;
use serde::Serialize;

use super::check::{schema, seed};
use super::progress::Progress;
use super::replay;
use super::subject::{Loaded, Told, Which, host, unusable};
use crate::cli::shown::{self, bytes, count};
use crate::db::Make;
use crate::failure::{Failure, Kind};
use crate::trial::cases::{CaseFile, Outcome};
use crate::trial::history::History;

/// Test a component: its cases, histories of a cluster, or what every storage promises
///
/// A history lets several nodes write the same few rows, send and read; afterwards all nodes must hold the same rows.
/// One that goes wrong is shown as short as one was found. Exit code 0 if all is well, 3 if not.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Test {
    /// A component's file, the name of an official one, or with `--config` the NAME of a `[plugin.NAME]`
    #[arg(value_name = "FILE", required_unless_present = "replay")]
    plugin: Option<String>,
    /// The configuration that has a `[plugin.NAME]`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    told: Told,
    /// A file of cases, or a folder of such `.toml` files
    #[arg(long, value_name = "DIR")]
    cases: Option<PathBuf>,
    /// How many histories a resolver has to fold
    #[arg(long, value_name = "N", default_value_t = 32)]
    histories: u64,
    /// Draw the same histories as another run did
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Tables for the histories, as a file of CREATE TABLE statements; else some of every shape are made up
    #[arg(long, value_name = "SQL")]
    schema: Option<PathBuf>,
    /// Put one clash to the resolver again, and nothing else: a file that a node wrote when the resolver failed
    ///
    /// The component is the one that failed, with its settings and limits, unless another is named.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cases", "settings", "schema"])]
    replay: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Default, Serialize)]
struct Report {
    passed: usize,
    failed: usize,
    rows: usize,
    fuel: u64,
    fuel_per_row: u64,
    memory_peak_bytes: usize,
    nanoseconds_per_row: u64,
    #[serde(skip)]
    took: Duration,
    cases: Vec<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    histories: Option<Folded>,
}

/// A case, and what came of it.
#[derive(Serialize)]
struct Shown {
    file: String,
    case: String,
    ok: bool,
    question: Vec<String>,
    expected: String,
    got: Option<String>,
    error: Option<String>,
    fuel: u64,
    nanoseconds: u64,
}

/// What came of the histories.
#[derive(Serialize)]
struct Folded {
    seed: u64,
    count: u64,
    clashes: u64,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rows: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<String>,
}

/// How long a history that went wrong is shortened.
const SHRINK: Duration = Duration::from_secs(10);

impl Test {
    pub(in crate::cli) fn run(self) -> Result<(), Failure> {
        let which = self.plugin.map(|plugin| Which { plugin, config: self.config });
        if let Some(file) = &self.replay {
            return replay::run(file, which, self.json);
        }
        let which = which.ok_or_else(|| Failure::usage("no component is named"))?;
        let seed = seed(self.seed)?;
        let subject = which.clone().find(self.told)?;
        let host = host()?;
        let anatomy = subject.examine(&host).map_err(|error| unusable(&error))?;
        let Some(world) = anatomy.world else {
            let why = format!("`{}` is a component of no world of ours", subject.source.name);
            return Err(Failure::new(Kind::Data, why));
        };
        if !world.is_pure() {
            return suite::run(&host, &which, &subject, self.json);
        }
        let mut loaded = subject.load(&host, world).map_err(|error| unusable(&error))?;
        let files = self.cases.as_deref().map(read).transpose()?.unwrap_or_default();
        let mut report = Report::default();
        for (name, file) in &files {
            ask(&mut report, &mut loaded, &subject.settings, name, file);
        }
        report.memory_peak_bytes = report.memory_peak_bytes.max(loaded.memory_peak());
        match &loaded {
            Loaded::Resolver(resolver) if self.histories > 0 => {
                // Whoever keeps settings beside the cases need not give them twice.
                let of_cases = files.iter().find_map(|(_, file)| file.as_ref().ok()?.settings.clone());
                let settings =
                    if subject.settings.is_empty() { of_cases.unwrap_or_default() } else { subject.settings.clone() };
                let schema = self.schema.as_deref().map(schema).transpose()?;
                report.histories = Some(fold(resolver, &settings, schema.as_deref(), seed, self.histories)?);
            }
            Loaded::Hasher(_) if files.is_empty() => {
                return Err(Failure::usage("a hasher is tested by cases, and none are named")
                    .hint("name them with `--cases DIR`; `antiphon plugin check` needs none"));
            }
            _ => {}
        }
        report.sum();
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &report).map_err(|error| Failure::from(io::Error::from(error)))?;
            writeln!(out)?;
        } else {
            report.write(&mut out)?;
        }
        out.flush()?;
        if report.failed == 0 { Ok(()) } else { Err(Failure::new(Kind::Unwell, "it is not well")) }
    }
}

type Files = Vec<(String, Result<CaseFile, String>)>;

/// The files of cases, in the order of their names.
fn read(path: &Path) -> Result<Files, Failure> {
    let unread = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| {
            Failure::caused(Kind::Missing, format!("cannot read the cases in `{}`", path.display()), &error)
        }
    };
    let mut files = Vec::new();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).map_err(unread(path))? {
            let file = entry.map_err(unread(path))?.path();
            if file.extension().is_some_and(|extension| extension == "toml") {
                files.push(file);
            }
        }
        files.sort();
        if files.is_empty() {
            return Err(Failure::new(
                Kind::Missing,
                format!("there is no `.toml` file of cases in `{}`", path.display()),
            ));
        }
    } else {
        files.push(path.to_owned());
    }
    let one = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).map_err(unread(&file))?;
        Ok((file.display().to_string(), CaseFile::read(&text)))
    };
    files.into_iter().map(one).collect()
}

/// Puts the cases of a file to the component.
fn ask(
    report: &mut Report,
    loaded: &mut Loaded,
    settings: &[(String, String)],
    name: &str,
    file: &Result<CaseFile, String>,
) {
    let outcomes = file.as_ref().map_err(Clone::clone).and_then(|file| {
        let settings = file.settings.as_deref().unwrap_or(settings);
        match loaded {
            Loaded::Resolver(resolver) => {
                let mut resolver = resolver.again(settings);
                let outcomes = file.ask_resolver(&mut resolver);
                report.memory_peak_bytes = report.memory_peak_bytes.max(resolver.memory_peak());
                outcomes
            }
            Loaded::Hasher(hasher) => {
                let mut hasher = hasher.again(settings);
                let outcomes = file.ask_hasher(&mut hasher);
                report.memory_peak_bytes = report.memory_peak_bytes.max(hasher.memory_peak());
                outcomes
            }
        }
    });
    match outcomes {
        Ok(outcomes) => {
            for outcome in outcomes {
                report.rows += outcome.rows;
                report.fuel = report.fuel.saturating_add(outcome.fuel);
                report.took += outcome.took;
                report.cases.push(Shown::of(name, outcome));
            }
        }
        Err(why) => report.cases.push(Shown {
            file: name.to_owned(),
            case: "the file".to_owned(),
            ok: false,
            question: Vec::new(),
            expected: String::new(),
            got: None,
            error: Some(why),
            fuel: 0,
            nanoseconds: 0,
        }),
    }
}

impl Shown {
    fn of(file: &str, outcome: Outcome) -> Self {
        let ok = outcome.passed();
        let (got, error) = match outcome.got {
            Ok(got) => (Some(got), None),
            Err(error) => (None, Some(error)),
        };
        Self {
            file: file.to_owned(),
            case: outcome.why,
            ok,
            question: outcome.question,
            expected: outcome.expected,
            got,
            error,
            fuel: outcome.fuel,
            nanoseconds: nanoseconds(outcome.took),
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        if self.ok {
            let took = short(Duration::from_nanos(self.nanoseconds));
            return writeln!(out, "  ok    {:60} {:>9} fuel {took:>9}", shown::name(&self.case), self.fuel);
        }
        writeln!(out, "  FAIL  {}", shown::name(&self.case))?;
        for line in &self.question {
            writeln!(out, "          {}", shown::name(line))?;
        }
        if let Some(got) = &self.got {
            writeln!(out, "          expected  {}", shown::name(&self.expected))?;
            writeln!(out, "          got       {}", shown::name(got))?;
        }
        if let Some(error) = &self.error {
            writeln!(out, "          {}", shown::name(error))?;
        }
        Ok(())
    }
}

/// Lets clusters fold histories, until one goes wrong.
fn fold(
    resolver: &Resolver,
    settings: &[(String, String)],
    schema: Option<&str>,
    seed: u64,
    histories: u64,
) -> Result<Folded, Failure> {
    let mut progress = Progress::new("histories folded");
    let resolver = Arc::new(std::sync::Mutex::new(resolver.again(settings)));
    let own = settings.to_vec();
    let make: Make = Arc::new(move || {
        let resolver = resolver.lock().map_err(|_| PluginError("another instance failed".to_owned()))?;
        Ok(Box::new(resolver.again(&own)) as Box<dyn Resolve>)
    });
    let mut folded =
        Folded { seed, count: 0, clashes: 0, ok: true, error: None, rows: Vec::new(), history: Vec::new() };
    for number in 0..histories {
        let seed = seed.wrapping_add(number);
        let drawn = match schema {
            Some(sql) => History::of_tables(seed, vec![sql.to_owned()]),
            None => History::draw(seed, settings),
        };
        let history = drawn.map_err(|wrong| Failure::new(Kind::Data, format!("no tables can be made: {wrong}")))?;
        match history.run(&make) {
            Ok(run) => folded.clashes += run.clashes,
            Err(failed) if failed.before_all() => {
                folded.ok = false;
                folded.error = Some(failed.why);
                break;
            }
            Err(failed) => {
                progress.say("shortening the history that went wrong");
                let until = Instant::now() + SHRINK;
                let short = history.shrink(&make, &failed, until, &mut || {});
                // The shortest one has rows of its own.
                let failed = short.run(&make).err().unwrap_or(failed);
                folded.seed = seed;
                folded.ok = false;
                folded.error = Some(failed.why);
                folded.rows = failed.rows;
                folded.history = short.lines();
                break;
            }
        }
        folded.count += 1;
        progress.tick();
    }
    Ok(folded)
}

impl Report {
    fn sum(&mut self) {
        let failed = self.cases.iter().filter(|case| !case.ok).count();
        self.failed = failed + usize::from(self.histories.as_ref().is_some_and(|folded| !folded.ok));
        self.passed = self.cases.len() - failed + usize::from(self.histories.as_ref().is_some_and(|folded| folded.ok));
        let rows = self.rows.max(1) as u64;
        self.fuel_per_row = self.fuel / rows;
        self.nanoseconds_per_row = nanoseconds(self.took) / rows;
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut file = None;
        for case in &self.cases {
            if file != Some(&case.file) {
                file = Some(&case.file);
                writeln!(out, "{}", shown::name(&case.file))?;
            }
            case.write(out)?;
        }
        if let Some(folded) = &self.histories {
            folded.write(out)?;
        }
        write!(out, "\n{} passed, {} failed", self.passed, self.failed)?;
        if self.rows > 0 {
            let took = short(Duration::from_nanos(self.nanoseconds_per_row));
            write!(out, "; a row takes {} fuel and {took}", self.fuel_per_row)?;
        }
        writeln!(out, "; memory {} at most", bytes(self.memory_peak_bytes as u64))
    }
}

impl Folded {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "histories, from seed {}", self.seed)?;
        let Some(error) = &self.error else {
            let clashes = count(self.clashes, "clash", "clashes");
            return writeln!(out, "  ok    {} folded, {clashes}: all nodes hold the same rows", self.count);
        };
        writeln!(out, "  FAIL  {}", shown::name(error))?;
        for row in &self.rows {
            writeln!(out, "          {}", shown::name(row))?;
        }
        if !self.history.is_empty() {
            writeln!(out, "        after")?;
        }
        for line in &self.history {
            writeln!(out, "          {}", shown::name(line))?;
        }
        Ok(())
    }
}

fn nanoseconds(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

/// A short time as a person reads it.
pub(super) fn short(took: Duration) -> String {
    let nanoseconds = nanoseconds(took);
    match nanoseconds {
        0..10_000 => format!("{nanoseconds} ns"),
        10_000..10_000_000 => format!("{} µs", nanoseconds / 1000),
        _ => format!("{} ms", nanoseconds / 1_000_000),
    }
}
