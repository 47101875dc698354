//! `antiphon doctor`: what stands between a database and being replicated, before anything goes wrong.
//!
//! One file a family of checks; [`CHECKS`] is the list. A check looks at the [`Patient`], which is only read, and adds
//! what it finds. One that fails is a finding itself and keeps no other from being made.

use std::io::{self, Write};
use std::path::PathBuf;

use antiphon_core::schema::Table;
use serde::Serialize;

use super::shown::{count, name};
use super::{Node, look};
use crate::db::{self, Filter, Look, NodeState, Refused};
use crate::failure::{Failure, Kind};
use crate::node::Carrier;

mod broker;
mod file;
mod library;
mod log;
mod place;
mod rows;
mod schema;

/// Look for what keeps a database from being replicated, or makes it go wrong later
///
/// Nothing is changed, and the node may be running or never have run. Each finding says why it matters and what to do.
/// Exit code 0 if there is no error, 65 if there is one; warnings and notes don't count.
#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    node: Node,
    /// Directory of the embedded log
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// How bad it is. An error: something is not replicated, or is in danger. A warning: it will hurt one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Error,
    Warning,
    Note,
}

/// What a check found.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    severity: Severity,
    check: &'static str,
    table: Option<String>,
    what: String,
    why: String,
    remedy: String,
}

/// What is looked at.
struct Patient {
    /// As the user named it.
    shown: String,
    /// As the user named it, links and all.
    named: PathBuf,
    /// Where the file is.
    path: PathBuf,
    log: Carrier,
    /// What is written here is noted, for the others.
    publishes: bool,
    look: Look,
    tables: Vec<Table>,
    refused: Vec<Refused>,
    node: Option<NodeState>,
}

/// Why a check could not be made.
type Failed = Box<dyn std::error::Error>;
type Check = fn(&Patient, &mut Found) -> Result<(), Failed>;

/// Every check, and the name its findings go by.
const CHECKS: &[(&str, Check)] = &[
    ("sound", file::sound),
    ("links", place::links),
    ("file-system", place::file_system),
    ("permissions", place::permissions),
    ("free-space", place::free_space),
    ("journal", library::journal),
    ("sqlite-version", library::version),
    ("tables", schema::refused),
    ("null-keys", schema::null_keys),
    ("keys", schema::drawn_keys),
    ("partial-unique", schema::partial_uniques),
    ("columns", schema::columns),
    ("triggers", schema::triggers),
    ("harmonylite", schema::leftovers),
    ("foreign-keys", rows::orphans),
    ("row-size", rows::sizes),
    ("log", log::reachable),
    ("clock", log::clock),
    ("answers", log::answers),
    ("transport", broker::transport),
    ("durability", broker::durability),
];

/// Findings, as they are made.
struct Found {
    check: &'static str,
    findings: Vec<Finding>,
}

impl Found {
    fn add(
        &mut self,
        severity: Severity,
        table: Option<&str>,
        what: impl Into<String>,
        why: &str,
        remedy: impl Into<String>,
    ) {
        self.findings.push(Finding {
            severity,
            check: self.check,
            table: table.map(str::to_owned),
            what: what.into(),
            why: why.to_owned(),
            remedy: remedy.into(),
        });
    }

    fn error(&mut self, table: Option<&str>, what: impl Into<String>, why: &str, remedy: impl Into<String>) {
        self.add(Severity::Error, table, what, why, remedy);
    }

    fn warning(&mut self, table: Option<&str>, what: impl Into<String>, why: &str, remedy: impl Into<String>) {
        self.add(Severity::Warning, table, what, why, remedy);
    }

    fn note(&mut self, table: Option<&str>, what: impl Into<String>, why: &str, remedy: impl Into<String>) {
        self.add(Severity::Note, table, what, why, remedy);
    }
}

impl Doctor {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.node.load(self.log, None)?.config;
        let filter = config
            .capture
            .filter()
            .map_err(|error| Failure::caused(Kind::Config, "a pattern under `[capture]` is no glob", &error))?;
        let carrier = crate::components::carrier(&config)?;
        let patient = Patient::examine(config.db_path, carrier, config.publish, &filter)?;
        let findings = patient.findings();
        let verdict = verdict(&patient, &findings);
        let mut out = io::stdout().lock();
        if self.json {
            super::json_line(
                &mut out,
                &Shown {
                    verdict: &verdict,
                    database: &patient.shown,
                    tables: patient.tables.iter().map(|table| table.name.as_str()).collect(),
                    findings: &findings,
                },
            )?;
        } else {
            say(&mut out, &verdict, &findings)?;
        }
        match number(&findings, Severity::Error) {
            0 => Ok(()),
            errors => Err(Failure::new(
                Kind::Data,
                format!("the doctor found {} in `{}`", count(errors, "error", "errors"), patient.shown),
            )),
        }
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    verdict: &'a str,
    database: &'a str,
    tables: Vec<&'a str>,
    findings: &'a [Finding],
}

impl Patient {
    fn examine(named: PathBuf, log: Carrier, publishes: bool, filter: &Filter) -> Result<Self, Failure> {
        let shown = named.display().to_string();
        let look = look::database(&named)?;
        let unread = |error: db::Error| look::unread(&named, &error);
        let path = named
            .canonicalize()
            .map_err(|error| Failure::caused(Kind::Missing, format!("cannot find `{shown}`"), &error))?;
        let node = look.node().map_err(unread)?;
        let (tables, refused) = look.tables(filter).map_err(unread)?;
        Ok(Self { shown, named, path, log, publishes, look, tables, refused, node })
    }

    /// Whether a host has made this file a member of a cluster.
    fn is_member(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.cluster.is_some())
    }

    /// What all checks find, the worst first.
    fn findings(&self) -> Vec<Finding> {
        let mut found = Found { check: "", findings: Vec::new() };
        for (name, check) in CHECKS {
            found.check = name;
            if let Err(error) = check(self, &mut found) {
                found.warning(
                    None,
                    format!("this could not be looked at: {error}"),
                    "what it would have found is not known",
                    "see what the reason says, and run `antiphon doctor` again",
                );
            }
        }
        found.findings.sort_by_key(|finding| finding.severity);
        found.findings
    }
}

fn number(findings: &[Finding], severity: Severity) -> u64 {
    findings.iter().filter(|finding| finding.severity == severity).count() as u64
}

/// The first line: what it comes to.
fn verdict(patient: &Patient, findings: &[Finding]) -> String {
    let of = |severity, one, many| match number(findings, severity) {
        0 => None,
        some => Some(count(some, one, many)),
    };
    let counts: Vec<String> = [
        of(Severity::Error, "error", "errors"),
        of(Severity::Warning, "warning", "warnings"),
        of(Severity::Note, "note", "notes"),
    ]
    .into_iter()
    .flatten()
    .collect();
    // A table with an error of its own is not as it should be, whatever part of it would work.
    let spoiled = |table: &&Table| {
        let about = |finding: &&Finding| finding.table.as_ref().is_some_and(|name| name == &table.name);
        findings.iter().filter(about).any(|finding| finding.severity == Severity::Error)
    };
    let tables = match patient.tables.iter().filter(|table| !spoiled(table)).count() as u64 {
        0 => "no table can be replicated".to_owned(),
        some => format!("{} can be replicated", count(some, "table", "tables")),
    };
    let found = if counts.is_empty() { "nothing found".to_owned() } else { counts.join(", ") };
    format!("{}: {found}; {tables}", patient.shown)
}

fn say(out: &mut impl Write, verdict: &str, findings: &[Finding]) -> Result<(), Failure> {
    writeln!(out, "{verdict}")?;
    for finding in findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let table = finding.table.as_ref().map(|table| format!("table {}: ", name(table))).unwrap_or_default();
        writeln!(out, "\n{severity}: {table}{}", finding.what)?;
        writeln!(out, "  why: {}", finding.why)?;
        writeln!(out, "  do:  {}", finding.remedy)?;
    }
    Ok(())
}
