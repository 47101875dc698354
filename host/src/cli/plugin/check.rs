//! `antiphon plugin check`: whether a component may be trusted with a cluster.

use std::io::{self, Write};
use std::path::PathBuf;

use antiphon_plugin::{Anatomy, Fate, PluginHost, World, sha256};
use serde::Serialize;

use super::progress::Progress;
use super::subject::{Loaded, Subject, Told, Which, configuration, describe, host};
use crate::cli::shown::{self, bytes, count};
use crate::custom::Pins;
use crate::failure::{Failure, Kind};
use crate::storage::open;
use crate::trial::dice::Dice;
use crate::trial::draw::Field;
use crate::trial::probe::{Ask, Difference, Probed, Unasked, probe};
use crate::trial::tables;

/// Check a component: what it is, what it wants, and whether it answers the same questions alike
///
/// Drawn questions are asked in fresh instances, in another order, one at a time, in other batches, after others, and
/// with other numbers for nodes and tables. A component that only computes gives the same answers each time; one that
/// does not would make nodes differ. A storage is asked what it is, and with `--config` whether it is granted what it
/// wants; `antiphon plugin test` tries what it does with objects. Exit code 0 if all is well, 3 if not.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Check {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    told: Told,
    /// Draw the same questions as another run did
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many questions are drawn
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    questions: u64,
    /// Tables to draw questions about, as a file of CREATE TABLE statements; else tables of all shapes are made up
    #[arg(long, value_name = "SQL")]
    schema: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was looked at, and how it is.
#[derive(Serialize)]
struct Point {
    what: &'static str,
    ok: bool,
    /// How it is, or what is wrong.
    found: String,
    /// More lines of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

#[derive(Serialize)]
struct Report {
    name: String,
    source: String,
    sha256: String,
    ok: bool,
    points: Vec<Point>,
    seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    questions_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answers_sha256: Option<String>,
}

impl Report {
    fn good(&mut self, what: &'static str, found: impl Into<String>) {
        self.points.push(Point { what, ok: true, found: found.into(), detail: Vec::new(), hint: None });
    }

    fn bad(&mut self, what: &'static str, found: impl Into<String>) {
        self.points.push(Point { what, ok: false, found: found.into(), detail: Vec::new(), hint: None });
    }

    fn hint(&mut self, hint: impl Into<String>) {
        if let Some(point) = self.points.last_mut() {
            point.hint = Some(hint.into());
        }
    }

    fn unloaded(&mut self, error: &antiphon_plugin::Error) {
        self.bad("load", error.reason().to_string());
        if let Some(hint) = error.hint() {
            self.hint(hint);
        }
    }

    fn detail(&mut self, detail: Vec<String>) {
        if let Some(point) = self.points.last_mut() {
            point.detail = detail;
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "`{}` ({})", shown::name(&self.name), shown::name(&self.source))?;
        for point in &self.points {
            let mark = if point.ok { "ok  " } else { "FAIL" };
            writeln!(out, "{mark}  {:9}  {}", point.what, shown::name(&point.found))?;
            for line in &point.detail {
                writeln!(out, "                   {}", shown::name(line))?;
            }
            if let Some(hint) = &point.hint {
                writeln!(out, "                   hint: {hint}")?;
            }
        }
        if let (Some(questions), Some(answers)) = (&self.questions_sha256, &self.answers_sha256) {
            writeln!(out, "\nquestions  sha256 {questions}")?;
            writeln!(out, "answers    sha256 {answers}")?;
            writeln!(out, "the same on every machine with `--seed {}`", self.seed)?;
        }
        let failed = self.points.iter().filter(|point| !point.ok).count();
        match failed {
            0 => writeln!(out, "\nall is well"),
            failed => writeln!(out, "\n{} of {} failed", failed, count(self.points.len() as u64, "check", "checks")),
        }
    }
}

impl Check {
    pub(in crate::cli) fn run(self) -> Result<(), Failure> {
        let seed = seed(self.seed)?;
        let which = self.which.clone();
        let subject = self.which.find(self.told)?;
        let statements = match &self.schema {
            Some(file) => vec![schema(file)?],
            None => tables::statements(&subject.settings),
        };
        let tables = tables::of_sql(&statements).map_err(|wrong| match &self.schema {
            Some(file) => Failure::new(Kind::Data, format!("no tables can be made of `{}`: {wrong}", file.display())),
            None => Failure::new(Kind::General, format!("no tables can be made: {wrong}")),
        })?;
        // Numbers as nodes have, and not all in a row.
        let nodes = ["1", "2", "30"].map(str::to_owned).to_vec();
        let host = host()?;
        let mut report = Report {
            name: subject.source.name.clone(),
            source: subject.source.origin.to_string(),
            sha256: sha256(&subject.source.bytes),
            ok: false,
            points: Vec::new(),
            seed,
            questions_sha256: None,
            answers_sha256: None,
        };
        let questions = usize::try_from(self.questions).unwrap_or(usize::MAX);
        examine(&mut report, &host, &which, &subject, &Field { nodes, tables }, seed, questions);
        report.ok = report.points.iter().all(|point| point.ok);
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &report).map_err(|error| Failure::from(io::Error::from(error)))?;
            writeln!(out)?;
        } else {
            report.write(&mut out)?;
        }
        out.flush()?;
        if report.ok { Ok(()) } else { Err(Failure::new(Kind::Unwell, "it is not well")) }
    }
}

/// The seed that was given, or one that nobody knows before.
pub(super) fn seed(given: Option<u64>) -> Result<u64, Failure> {
    if let Some(seed) = given {
        return Ok(seed);
    }
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(Kind::General, format!("the system gives no random numbers: {error}")))?;
    Ok(u32::from_le_bytes(bytes).into())
}

/// Statements in a file.
pub(super) fn schema(file: &std::path::Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| {
        Failure::caused(Kind::Missing, format!("cannot read the tables in `{}`", file.display()), &error)
    })
}

/// Goes on until something is wrong that makes the rest pointless.
fn examine(
    report: &mut Report,
    host: &PluginHost,
    which: &Which,
    subject: &Subject,
    field: &Field,
    seed: u64,
    questions: usize,
) {
    if let Some(pinned) = &subject.pinned {
        if pinned.eq_ignore_ascii_case(&report.sha256) {
            report.good("pin", "the bytes are those that the configuration pins");
        } else {
            report.bad("pin", format!("the file has sha256 {}, and the configuration pins {pinned}", report.sha256));
            report.hint(format!(
                "if the file is meant to be another now, `antiphon plugin pin {}` writes it down",
                subject.source.name
            ));
            return;
        }
    }
    let mut progress = Progress::new("questions asked");
    progress.say("compiling");
    let anatomy = match subject.examine(host) {
        Ok(anatomy) => anatomy,
        Err(error) => {
            report.bad("form", error.reason().to_string());
            if let Some(hint) = error.hint() {
                report.hint(hint);
            }
            return;
        }
    };
    let most = bytes(subject.limits.component_bytes as u64);
    report.good("form", format!("a component of {}; {most} are allowed", bytes(subject.source.bytes.len() as u64)));
    let Some(world) = shape(report, &anatomy) else { return };
    if !world.is_pure() {
        drop(progress);
        store(report, host, which, subject, world);
        return;
    }
    let loaded = match subject.load(host, world) {
        Ok(loaded) => loaded,
        Err(error) => return report.unloaded(&error),
    };
    let info = loaded.info();
    report.good("load", format!("it is `{}` {}, laws {}", info.name, info.version, info.laws));
    let mut dice = Dice::new(seed);
    match loaded {
        Loaded::Resolver(mut resolver) => {
            let clashes = field.clashes(&mut dice, questions);
            ask(report, &mut resolver, field, &clashes, &mut dice, &mut progress, ["clash", "clashes"]);
            let (fuel, memory) = (resolver.fuel_used(), resolver.memory_peak());
            limits(report, subject, fuel, memory);
        }
        Loaded::Hasher(mut hasher) => {
            let keys = field.keys(&mut dice, questions);
            let keys: Vec<_> =
                (0..).zip(keys).flat_map(|(table, keys)| keys.into_iter().map(move |key| (table, key))).collect();
            ask(report, &mut hasher, field, &keys, &mut dice, &mut progress, ["key", "keys"]);
            let (fuel, memory) = (hasher.fuel_used(), hasher.memory_peak());
            limits(report, subject, fuel, memory);
        }
    }
}

/// Asks a storage what it is, and sees whether it is granted what it wants. What it does with objects is for the suite,
/// which needs a place for them.
fn store(report: &mut Report, host: &PluginHost, which: &Which, subject: &Subject, world: World) {
    let ask = || describe(host, &subject.source, &subject.limits, world);
    let info = match ask() {
        Ok(info) => info,
        Err(error) => return report.unloaded(&error),
    };
    report.good("load", format!("it is `{}` {}, laws {}", info.name, info.version, info.laws));
    match ask() {
        Ok(again) if again == info => report.good("the same", "in a fresh instance"),
        Ok(again) => {
            report.bad("the same", "not in a fresh instance: it says of itself now this, now that");
            report.detail(vec![format!("first     {info:?}"), format!("then      {again:?}")]);
        }
        Err(error) => report.bad("the same", format!("not in a fresh instance: {}", error.reason())),
    }
    let suite = match which.configured() {
        Some((name, file)) => {
            let opened = configuration(file).and_then(|config| open(&config, host, Some(name), Pins::Optional));
            match opened {
                Ok(_) => report.good("grants", "it is granted what it wants"),
                Err(failure) => report.bad("grants", failure.to_string()),
            }
            format!("antiphon plugin test {name} --config {}", file.display())
        }
        // A folder it is lent there without being granted one.
        None if world == World::Storage => format!("antiphon plugin test {}", which.named()),
        None => "antiphon plugin test NAME --config FILE".to_owned(),
    };
    report.good("objects", format!("not asked for here: `{suite}` tries all that a storage promises"));
}

/// Its world, its version and its imports.
fn shape(report: &mut Report, anatomy: &Anatomy) -> Option<World> {
    let refused: Vec<String> = anatomy
        .imports
        .iter()
        .filter_map(|import| match &import.fate {
            Fate::Refused(reason) => Some(reason.to_string()),
            _ => None,
        })
        .collect();
    let version = anatomy.version.as_deref().unwrap_or("?");
    match (anatomy.world, &anatomy.unfit) {
        (Some(world), None) => report.good("world", format!("{world}, antiphon:plugin@{version}")),
        // What is wrong with the imports is said below.
        (Some(world), Some(_)) if !refused.is_empty() => {
            report.good("world", format!("{world}, antiphon:plugin@{version}"));
        }
        (_, Some(reason)) => {
            report.bad("world", reason.to_string());
            return None;
        }
        (None, None) => return None,
    }
    let imports = anatomy.imports.iter().map(|import| match &import.fate {
        Fate::Refused(reason) => format!("refused      {}: {reason}", import.name),
        fate => format!("{:12} {}", super::inspect::fate(fate), import.name),
    });
    let imports: Vec<String> = imports.collect();
    if !refused.is_empty() {
        report.bad("imports", format!("{} refused", count(refused.len() as u64, "is", "are")));
        report.detail(imports);
        return None;
    }
    let number =
        |wanted: &str| anatomy.imports.iter().filter(|import| super::inspect::fate(&import.fate) == wanted).count();
    let fates = ["satisfied", "inert", "needs grant"].map(|fate| (number(fate), fate));
    let fates: Vec<String> =
        fates.iter().filter(|(number, _)| *number > 0).map(|(number, fate)| format!("{number} {fate}")).collect();
    report.good("imports", if fates.is_empty() { "none".to_owned() } else { fates.join(", ") });
    report.detail(imports);
    anatomy.world
}

fn limits(report: &mut Report, subject: &Subject, fuel: u64, memory: usize) {
    if report.points.iter().any(|point| point.what == "answers" && point.ok) {
        let most = bytes(subject.limits.memory_bytes as u64);
        let found = format!("the last batch took {fuel} fuel; memory {} of {most}", bytes(memory as u64));
        report.good("limits", found);
    }
}

fn ask<A: Ask>(
    report: &mut Report,
    asked: &mut A,
    field: &Field,
    questions: &[A::Question],
    dice: &mut Dice,
    progress: &mut Progress,
    [one, many]: [&str; 2],
) {
    let tables = count(field.tables.len() as u64, "table", "tables");
    let probed = match probe(asked, field, questions, dice, &mut || progress.tick()) {
        Ok(probed) => probed,
        Err(Unasked::Refused(why)) => {
            report.bad("configure", why);
            report.hint("give it settings with `--settings NAME=VALUE`, and tables of your own with `--schema FILE`");
            return;
        }
        Err(Unasked::Failed { why, question }) => {
            report.good("configure", format!("it takes its settings and {tables}"));
            report.bad("answers", why);
            report.detail(question);
            return;
        }
    };
    report.good("configure", format!("it takes its settings and {tables}"));
    let Probed { asked, digests: [questions, answers], ways } = probed;
    report.good("answers", format!("to {}", count(asked as u64, one, many)));
    for (way, compared) in ways {
        match compared {
            Ok(None) => report.good("the same", way.words()),
            Ok(Some(Difference { mut question, first, then, count })) => {
                report.bad("the same", format!("not {}: {}", way.words(), way.means()));
                question.push(format!("first     {first}"));
                question.push(format!("then      {then}"));
                question.push(format!("so with {count} of {asked} {many}"));
                report.detail(question);
            }
            Err(why) => report.bad("the same", format!("{}: {why}", way.words())),
        }
    }
    report.questions_sha256 = Some(questions);
    report.answers_sha256 = Some(answers);
}
