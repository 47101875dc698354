//! `antiphon verify`: are two database files the same?

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::look;
use super::shown::{Fields, JsonRow, SHORT, count, name};
use crate::config::{Config, Environment, Overrides, Sources};
use crate::db::{Compared, Comparison, Differing, Filter, Look, NodeState, changed_columns, compare_files};
use crate::failure::{Failure, Kind};

/// Compare two database files, row by row and value by value
///
/// Every table that both can replicate is compared in the order of its keys: neither rowids nor the order of insertion
/// count, and 1 is not 1.0. The files may be in use; each is read as it stands at one moment. Exit code 0 if they are
/// equal, 65 if not.
#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// A database file
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The one to compare it with
    #[arg(value_name = "B")]
    b: PathBuf,
    /// A configuration file, whose `[capture]` says which tables count
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only this table; may be given several times
    #[arg(long, value_name = "TABLE")]
    table: Vec<String>,
    /// Most differing rows to print of a table
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: usize,
    /// Values in full, however long
    #[arg(long)]
    full: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), Failure> {
        let filter = self.filter()?;
        let (a, b) = (look::database(&self.a)?, look::database(&self.b)?);
        let unread = |path: &Path| {
            let path = path.to_owned();
            move |error: crate::db::Error| look::unread(&path, &error)
        };
        let states = [a.node().map_err(unread(&self.a))?, b.node().map_err(unread(&self.b))?];
        let comparison = compare_files(&a, &b, &filter, self.limit)
            .map_err(|error| Failure::caused(Kind::General, "cannot compare the files", &error))?;
        for (look, path) in [(&a, &self.a), (&b, &self.b)] {
            if look.was_disturbed() {
                return Err(Failure::new(Kind::Busy, format!("`{}` came into use while it was read", path.display()))
                    .hint("run it again"));
            }
        }
        for table in &self.table {
            let known = comparison.tables.iter().any(|compared| compared.table.eq_ignore_ascii_case(table));
            let alone = comparison.only_a.iter().chain(&comparison.only_b).any(|name| name.eq_ignore_ascii_case(table));
            let left_out = comparison.left_out.iter().any(|(_, name, _)| name.eq_ignore_ascii_case(table));
            if !(known || alone || left_out) {
                return Err(Failure::new(Kind::Missing, format!("neither file has a table `{table}`")));
            }
        }
        let causes = causes(&states);
        let mut out = io::BufWriter::new(io::stdout().lock());
        if self.json {
            super::json_line(&mut out, &shown(&comparison, &causes))?;
        } else {
            self.say(&mut out, &comparison, &causes, [&a, &b])?;
        }
        out.flush()?;
        if comparison.is_equal() {
            return Ok(());
        }
        let failure =
            Failure::new(Kind::Data, format!("`{}` and `{}` are not the same", self.a.display(), self.b.display()));
        Err(if causes.is_empty() {
            failure
        } else {
            failure.hint("the nodes were not in step, which may be all there is to it: run it again when they are")
        })
    }

    fn filter(&self) -> Result<Filter, Failure> {
        let config = Config::load(Sources {
            file: self.config.clone(),
            environment: Environment::of_process(),
            overrides: Overrides { db_path: Some(self.a.clone()), ..Overrides::default() },
        })?
        .config;
        let wrong = |error| Failure::caused(Kind::Config, "a pattern under `[capture]` is no glob", &error);
        if self.table.is_empty() {
            return config.capture.filter().map_err(wrong);
        }
        Ok(Filter::of_names(&self.table))
    }

    fn say(&self, out: &mut impl Write, all: &Comparison, causes: &[String], looks: [&Look; 2]) -> Result<(), Failure> {
        let most = if self.full { usize::MAX } else { SHORT };
        for (letter, look) in ["A", "B"].iter().zip(looks) {
            writeln!(out, "{letter} is {}", look.path().display())?;
        }
        say_comparison(out, all, most)?;
        for (at, (letter, table, reason)) in all.left_out.iter().enumerate() {
            let same = |(_, name, why): &&(char, String, String)| name.eq_ignore_ascii_case(table) && why == reason;
            if all.left_out.iter().take(at).any(|earlier| same(&earlier)) {
                continue;
            }
            let both = all.left_out.iter().filter(same).count() > 1;
            let which = if both { String::new() } else { format!("in {letter} ") };
            writeln!(out, "table {}: not compared: {which}{reason}", name(table))?;
        }
        for cause in causes {
            writeln!(out, "note: {cause}")?;
        }
        Ok(())
    }
}

/// What two files have in common and what not, table by table.
pub(super) fn say_comparison(out: &mut impl Write, all: &Comparison, most: usize) -> Result<(), Failure> {
    for compared in &all.tables {
        say_table(out, compared, most)?;
    }
    for (letter, tables) in [("A", &all.only_a), ("B", &all.only_b)] {
        for table in tables {
            writeln!(out, "table {}: only {letter} has it", name(table))?;
        }
    }
    Ok(())
}

fn say_table(out: &mut impl Write, compared: &Compared, most: usize) -> Result<(), Failure> {
    let [rows_a, rows_b] = compared.rows;
    let [digest_a, digest_b] = &compared.digests;
    let table = name(&compared.table);
    if let Some(obstacle) = &compared.obstacle {
        writeln!(out, "table {table}: can't be compared: {obstacle}")?;
    } else if compared.is_equal() {
        writeln!(out, "table {table}: equal, {}, digest {digest_a}", count(rows_a, "row", "rows"))?;
    } else {
        writeln!(
            out,
            "table {table}: differs: {} only in A, {} only in B, {} with other values; {rows_a} in A and {rows_b} in B",
            compared.only_a, compared.only_b, compared.changed
        )?;
        writeln!(out, "  digest {digest_a} in A, {digest_b} in B")?;
    }
    for (letter, columns) in ["A", "B"].iter().zip(&compared.local) {
        if !columns.is_empty() {
            let columns = columns.iter().map(|column| name(column)).collect::<Vec<_>>().join(", ");
            writeln!(out, "  only {letter} has the columns {columns}: not compared")?;
        }
    }
    for (letter, rows) in ["A", "B"].iter().zip(compared.keyless) {
        if rows > 0 {
            writeln!(out, "  {} without a key in {letter}: not replicated, not compared", count(rows, "row", "rows"))?;
        }
    }
    for remark in &compared.remarks {
        writeln!(out, "  {remark}")?;
    }
    for differing in &compared.differing {
        say_row(out, compared, differing, most)?;
    }
    let more = compared.only_a + compared.only_b + compared.changed;
    let shown = compared.differing.len() as u64;
    if shown > 0 && more > shown {
        writeln!(out, "  … and {} more", more - shown)?;
    }
    Ok(())
}

fn say_row(out: &mut impl Write, compared: &Compared, differing: &Differing, most: usize) -> Result<(), Failure> {
    let key = Fields { columns: &compared.key, values: &differing.key, most };
    match &differing.rows {
        [Some(a), Some(b)] => {
            writeln!(out, "  {key}")?;
            for column in changed_columns(&compared.columns, a, b) {
                let at = compared.columns.iter().position(|name| name == column);
                let (Some(a), Some(b)) = (at.and_then(|at| a.get(at)), at.and_then(|at| b.get(at))) else { continue };
                let literal = |value| super::shown::Literal { value, most };
                writeln!(out, "    {}: A has {}, B has {}", name(column), literal(a), literal(b))?;
            }
        }
        [Some(row), None] => {
            writeln!(out, "  {key}\n    only A: {}", Fields { columns: &compared.columns, values: row, most })?;
        }
        [_, Some(row)] => {
            writeln!(out, "  {key}\n    only B: {}", Fields { columns: &compared.columns, values: row, most })?;
        }
        [None, None] => {}
    }
    Ok(())
}

/// Why the files may differ for now.
fn causes(states: &[Option<NodeState>; 2]) -> Vec<String> {
    let mut causes = Vec::new();
    for (letter, state) in ["A", "B"].iter().zip(states) {
        let Some(state) = state else { continue };
        if state.marks > 0 {
            causes.push(format!(
                "{letter} has {} that no batch holds yet",
                count(state.marks, "marked key", "marked keys")
            ));
        }
        if state.unconfirmed > 0 {
            causes.push(format!(
                "{letter} has {} that it has not read back from the log",
                count(state.unconfirmed, "batch", "batches")
            ));
        }
        if state.scans > 0 {
            causes.push(format!("{letter} is still taking in rows of {}", count(state.scans, "table", "tables")));
        }
    }
    let [Some(a), Some(b)] = states else { return causes };
    match (a.cluster, b.cluster) {
        (Some((one, _)), Some((other, _))) if one != other => {
            causes.push("A and B belong to different clusters".to_owned());
            return causes;
        }
        (Some(_), Some(_)) => {}
        (None, None) => return causes,
        (one, _) => {
            causes.push(format!("{} belongs to no cluster", if one.is_none() { "A" } else { "B" }));
            return causes;
        }
    }
    if a.origin.node == b.origin.node {
        causes.push(format!("A and B are both node {}: one is a copy of the other", a.origin.node));
    }
    for (shard, at) in &a.positions {
        let other = b.positions.iter().find(|(known, _)| known == shard).map_or(0, |(_, at)| *at);
        let of = if a.positions.len() > 1 { format!(" in shard {shard}") } else { String::new() };
        if *at != other {
            let behind = if *at < other { "A" } else { "B" };
            causes.push(format!(
                "{behind} is {} behind{of}; run again when in step",
                count(at.abs_diff(other), "entry", "entries")
            ));
        }
    }
    causes
}

/// What scripts are told of a comparison.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    equal: bool,
    tables: Vec<ShownTable<'a>>,
    only_a: &'a [String],
    only_b: &'a [String],
    left_out: Vec<ShownLeftOut<'a>>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct ShownLeftOut<'a> {
    file: char,
    table: &'a str,
    reason: &'a str,
}

#[derive(Serialize)]
struct ShownTable<'a> {
    table: &'a str,
    equal: bool,
    obstacle: Option<&'a str>,
    digest_a: &'a str,
    digest_b: &'a str,
    rows_a: u64,
    rows_b: u64,
    only_a: u64,
    only_b: u64,
    changed: u64,
    keyless_a: u64,
    keyless_b: u64,
    columns_only_a: &'a [String],
    columns_only_b: &'a [String],
    remarks: &'a [String],
    differing: Vec<ShownRow<'a>>,
}

#[derive(Serialize)]
struct ShownRow<'a> {
    key: JsonRow<'a>,
    a: Option<JsonRow<'a>>,
    b: Option<JsonRow<'a>>,
}

pub(super) fn shown<'a>(all: &'a Comparison, notes: &'a [String]) -> Shown<'a> {
    let table = |compared: &'a Compared| {
        let [digest_a, digest_b] = &compared.digests;
        let [rows_a, rows_b] = compared.rows;
        let [keyless_a, keyless_b] = compared.keyless;
        let [columns_only_a, columns_only_b] = &compared.local;
        let row = |differing: &'a Differing| {
            let [a, b] = &differing.rows;
            let row = |values: &'a Vec<_>| JsonRow { columns: &compared.columns, values };
            ShownRow {
                key: JsonRow { columns: &compared.key, values: &differing.key },
                a: a.as_ref().map(row),
                b: b.as_ref().map(row),
            }
        };
        ShownTable {
            table: &compared.table,
            equal: compared.is_equal(),
            obstacle: compared.obstacle.as_deref(),
            digest_a,
            digest_b,
            rows_a,
            rows_b,
            only_a: compared.only_a,
            only_b: compared.only_b,
            changed: compared.changed,
            keyless_a,
            keyless_b,
            columns_only_a,
            columns_only_b,
            remarks: &compared.remarks,
            differing: compared.differing.iter().map(row).collect(),
        }
    };
    Shown {
        equal: all.is_equal(),
        tables: all.tables.iter().map(table).collect(),
        only_a: &all.only_a,
        only_b: &all.only_b,
        left_out: all
            .left_out
            .iter()
            .map(|(file, table, reason)| ShownLeftOut { file: *file, table, reason })
            .collect(),
        notes,
    }
}
