//! `antiphon conflicts`: what was overruled, by whom and when.

use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::path::PathBuf;

use serde::Serialize;

use super::shown::{Fields, Json, JsonRow, SHORT, count, moment, name, utc};
use super::{Node, look};
use crate::db::{self, Conflicts, Look, Record};
use crate::failure::{Failure, Kind};
use crate::log;
use antiphon_core::value::Row;

/// Look at what was overruled when two nodes changed one row, and delete old records of it
///
/// Every node keeps the same records, with the row that stands and the row that was overruled. They are only
/// read, and the node may be running.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    List(List),
    Show(Show),
    Purge(Purge),
}

impl Command {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run(),
            Self::Show(show) => show.run(),
            Self::Purge(purge) => purge.run(),
        }
    }
}

/// Which file, and where times come from.
#[derive(Debug, clap::Args)]
struct Source {
    #[command(flatten)]
    node: Node,
    /// Directory of the embedded log, which knows when each change came; without it some times may be unknown
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
}

/// List the records, in the order of the log
#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    source: Source,
    /// Only records of this table
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// Only records since then: a date in UTC, or an age as in `12h` or `7d`
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<u64>,
    /// Values in full, however long
    #[arg(long)]
    full: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Show one record with both rows, column by column
#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// The record, as `list` names it: SHARD/SEQ#N
    #[arg(value_name = "ID", value_parser = Id::parse)]
    id: Id,
    #[command(flatten)]
    source: Source,
    /// Values in full, however long
    #[arg(long)]
    full: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Delete records in this file
///
/// Other nodes keep theirs, and no row of the application's changes. Records are deleted a few at a time, so that the
/// application and a running node are not held up.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["before", "all", "table"]))]
pub(super) struct Purge {
    #[command(flatten)]
    source: Source,
    /// Records from before then: a date in UTC, or an age as in `12h` or `7d`
    #[arg(long, value_name = "TIME", value_parser = moment)]
    before: Option<u64>,
    /// Only records of this table; the numbers after `#` of records that stay may move
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// All records
    #[arg(long, conflicts_with_all = ["before", "table"])]
    all: bool,
    /// Say how many there are, and delete none
    #[arg(long)]
    dry_run: bool,
    /// Don't ask
    #[arg(long)]
    yes: bool,
}

/// What a record is called, on all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Id {
    shard: u32,
    seq: u64,
    n: u64,
}

impl Id {
    fn parse(text: &str) -> Result<Self, String> {
        let parsed = || {
            let (shard, rest) = text.split_once('/')?;
            let (seq, n) = rest.split_once(['#', '/']).unwrap_or((rest, "1"));
            Some(Self { shard: shard.parse().ok()?, seq: seq.parse().ok()?, n: n.parse().ok()? })
        };
        parsed().ok_or_else(|| "it is SHARD/SEQ#N, as in 1/42#1".to_owned())
    }

    fn of(record: &Record) -> Self {
        Self { shard: record.shard, seq: record.seq, n: record.n }
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}#{}", self.shard, self.seq, self.n)
    }
}

/// A file's records, and the log that knows their times, if it can be read.
struct Opened {
    path: PathBuf,
    look: Look,
    log: Option<log::Look>,
}

impl Opened {
    fn new(source: Source) -> Result<Self, Failure> {
        let asked = source.log.is_some();
        let config = source.node.load(source.log, None)?.config;
        let opened = look::database(&config.db_path)?;
        let log = match look::log(&crate::components::carrier(&config)?) {
            Ok(log) => Some(log),
            Err(failure) if asked => return Err(failure),
            Err(_) => None,
        };
        Ok(Self { path: config.db_path, look: opened, log })
    }

    /// When: as the log says, else as the record does.
    fn time(&self, record: &Record) -> Option<u64> {
        let logged = self.log.as_ref().and_then(|log| log.time(record.shard, record.seq).ok().flatten());
        logged.map(|ns| ns / 1_000_000).or(record.time_ms)
    }

    fn each(&self, mut each: impl FnMut(Record) -> Result<bool, Failure>) -> Result<(), Failure> {
        let unread = |error: &db::Error| look::unread(&self.path, error);
        let Some(conflicts) = Conflicts::of(&self.look).map_err(|error| unread(&error))? else {
            return Err(look::never_ran(&self.path));
        };
        conflicts.each(|record| each(record).map_err(Stopped::Failure)).map_err(|stopped| match stopped {
            Stopped::Failure(failure) => failure,
            Stopped::Db(error) => unread(&error),
        })
    }
}

/// Why reading ended early.
enum Stopped {
    Db(db::Error),
    Failure(Failure),
}

impl From<db::Error> for Stopped {
    fn from(error: db::Error) -> Self {
        Self::Db(error)
    }
}

impl List {
    fn run(self) -> Result<(), Failure> {
        let opened = Opened::new(self.source)?;
        let most = if self.full { usize::MAX } else { SHORT };
        let mut out = io::BufWriter::new(io::stdout().lock());
        let (mut found, mut undated) = (0, 0);
        opened.each(|record| {
            if self.table.as_ref().is_some_and(|table| !table.eq_ignore_ascii_case(&record.table)) {
                return Ok(true);
            }
            let time = opened.time(&record);
            if self.since.is_some_and(|since| time.is_some_and(|time| time < since)) {
                return Ok(true);
            }
            undated += u64::from(time.is_none());
            found += 1;
            if self.json {
                json(&mut out, &record, time)?;
            } else {
                line(&mut out, &record, time, most)?;
            }
            Ok(true)
        })?;
        out.flush()?;
        drop(out);
        let mut talk = io::stderr().lock();
        if found == 0 {
            writeln!(talk, "no record: nothing was overruled")?;
        }
        if undated > 0 && (self.since.is_some() || !self.json) {
            writeln!(
                talk,
                "{} of unknown time: name the log with `--log DIR`",
                count(undated, "record is", "records are")
            )?;
        }
        Ok(())
    }
}

impl Show {
    fn run(self) -> Result<(), Failure> {
        let opened = Opened::new(self.source)?;
        let most = if self.full { usize::MAX } else { 4 * SHORT };
        let mut found = None;
        opened.each(|record| {
            let here = Id::of(&record) == self.id;
            if here {
                found = Some(record);
            }
            Ok(!here)
        })?;
        let Some(record) = found else {
            return Err(Failure::new(Kind::Missing, format!("there is no record {}", self.id))
                .hint("`antiphon conflicts list` names those there are"));
        };
        let time = opened.time(&record);
        let mut out = io::stdout().lock();
        if self.json {
            return json(&mut out, &record, time);
        }
        writeln!(out, "record     {}", self.id)?;
        writeln!(out, "time       {}", time.map_or_else(|| "unknown".to_owned(), utc))?;
        writeln!(out, "table      {}", name(&record.table))?;
        writeln!(out, "cause      {}", name(&record.cause))?;
        writeln!(out, "resolver   {}, which answered {}", name(&record.resolver), name(&record.verdict))?;
        for (what, value) in &record.more {
            writeln!(out, "{:<10} {}", name(what), super::shown::Literal { value, most })?;
        }
        for (word, node, row) in images(&record) {
            let of = node.map_or_else(|| "made of both".to_owned(), |node| format!("of node {node}"));
            writeln!(out, "{word:<10} {of}")?;
            match row {
                None => writeln!(out, "    {}", absent(word))?,
                Some(row) => {
                    for (at, value) in row.iter().enumerate() {
                        let column = record.columns.get(at).map_or("?", String::as_str);
                        writeln!(out, "    {} = {}", name(column), super::shown::Literal { value, most })?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What stands, and what it was made of or put in place of.
fn images(record: &Record) -> Vec<(&'static str, Option<u64>, Option<&Row>)> {
    let winner = (record.winner_node, record.winner.as_ref());
    let loser = (record.loser_node, record.loser.as_ref());
    match &record.merged {
        Some(merged) => {
            vec![("stands", None, Some(merged)), ("merged", winner.0, winner.1), ("merged", loser.0, loser.1)]
        }
        None => vec![("stands", winner.0, winner.1), ("overruled", loser.0, loser.1)],
    }
}

fn absent(word: &str) -> &'static str {
    if word == "stands" { "no row: it was deleted" } else { "no row: a deletion, or a row that this node never saw" }
}

fn line(out: &mut impl Write, record: &Record, time: Option<u64>, most: usize) -> Result<(), Failure> {
    let node = |node: Option<u64>| node.map_or_else(|| "?".to_owned(), |node| node.to_string());
    let key = keyed(record);
    writeln!(
        out,
        "{}  {}  {} ({})  {}: node {} over node {}; {} answered {}",
        Id::of(record),
        time.map_or_else(|| "time unknown".to_owned(), utc),
        name(&record.table),
        Fields { columns: &key, values: &record.key, most },
        name(&record.cause),
        node(record.winner_node),
        node(record.loser_node),
        name(&record.resolver),
        name(&record.verdict),
    )?;
    for (word, _, row) in images(record) {
        match row {
            Some(values) => {
                writeln!(out, "    {word:<9}  {}", Fields { columns: &record.columns, values, most })?;
            }
            None => writeln!(out, "    {word:<9}  {}", absent(word))?,
        }
    }
    Ok(())
}

/// Names of the key's columns: the record holds the key's values alone, and the row that has them all the names.
fn keyed(record: &Record) -> Vec<String> {
    let row = record.winner.as_ref().or(record.loser.as_ref());
    let found = |value| {
        let at = row?.iter().position(|held| held == value)?;
        record.columns.get(at).cloned()
    };
    record.key.iter().map(found).collect::<Option<_>>().unwrap_or_default()
}

#[derive(Serialize)]
struct Shown<'a> {
    id: String,
    shard: u32,
    seq: u64,
    n: u64,
    time: Option<String>,
    table: &'a str,
    key: Vec<Json<'a>>,
    cause: &'a str,
    resolver: &'a str,
    verdict: &'a str,
    winner_node: Option<u64>,
    loser_node: Option<u64>,
    winner: Option<JsonRow<'a>>,
    loser: Option<JsonRow<'a>>,
    merged: Option<JsonRow<'a>>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    more: std::collections::BTreeMap<&'a str, Json<'a>>,
}

fn json(out: &mut impl Write, record: &Record, time: Option<u64>) -> Result<(), Failure> {
    let shown = Shown {
        id: Id::of(record).to_string(),
        shard: record.shard,
        seq: record.seq,
        n: record.n,
        time: time.map(utc),
        table: &record.table,
        key: record.key.iter().map(Json).collect(),
        cause: &record.cause,
        resolver: &record.resolver,
        verdict: &record.verdict,
        winner_node: record.winner_node,
        loser_node: record.loser_node,
        winner: record.winner.as_ref().map(|values| JsonRow { columns: &record.columns, values }),
        loser: record.loser.as_ref().map(|values| JsonRow { columns: &record.columns, values }),
        merged: record.merged.as_ref().map(|values| JsonRow { columns: &record.columns, values }),
        more: record.more.iter().map(|(name, value)| (name.as_str(), Json(value))).collect(),
    };
    super::json_line(out, &shown)
}

impl Purge {
    fn run(self) -> Result<(), Failure> {
        let opened = Opened::new(self.source)?;
        let shown = opened.path.display().to_string();
        let (mut rowids, mut undated) = (Vec::new(), 0);
        opened.each(|record| {
            if self.table.as_ref().is_some_and(|table| !table.eq_ignore_ascii_case(&record.table)) {
                return Ok(true);
            }
            match (self.before, opened.time(&record)) {
                (Some(before), Some(time)) if time >= before => {}
                (Some(_), None) => undated += 1,
                _ => rowids.push(record.rowid),
            }
            Ok(true)
        })?;
        let path = opened.path.clone();
        drop(opened);
        let many = count(rowids.len() as u64, "record", "records");
        let mut talk = io::stderr().lock();
        if undated > 0 {
            writeln!(
                talk,
                "{} of unknown time and stay; name the log with `--log DIR`",
                count(undated, "record is", "records are")
            )?;
        }
        if rowids.is_empty() || self.dry_run {
            writeln!(talk, "{many} would be deleted from {shown}")?;
            return Ok(());
        }
        if !self.yes {
            if !io::stdin().is_terminal() {
                return Err(Failure::usage(format!("{many} would be deleted from `{shown}`, and nobody can be asked"))
                    .hint("say it beforehand with `--yes`, or look first with `--dry-run`"));
            }
            write!(talk, "delete {many} from {shown}? [y/N] ")?;
            talk.flush()?;
            let mut answer = String::new();
            io::stdin().lock().read_line(&mut answer)?;
            if !matches!(answer.trim(), "y" | "Y" | "yes") {
                writeln!(talk, "nothing was deleted")?;
                return Ok(());
            }
        }
        let deleted = db::purge(&path, &rowids).map_err(|error| {
            let kind = if error.is_transient() { Kind::Busy } else { Kind::General };
            Failure::caused(kind, format!("cannot delete records from `{shown}`"), &error)
                .hint("run it again: what was deleted so far stays deleted")
        })?;
        writeln!(talk, "{} deleted from {shown}", count(deleted, "record", "records"))?;
        Ok(())
    }
}
