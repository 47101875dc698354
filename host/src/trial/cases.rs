//! Case files: questions for a component, and the answers that it must have.
//!
//! ```toml
//! table = "CREATE TABLE t (id INTEGER PRIMARY KEY, n, note)"   # or: columns = ["id INTEGER", "n", "note"]
//! nodes = ["1", "2"]
//! settings = { columns = "n" }
//!
//! [[case]]
//! why = "both added"
//! base = "1 | 10 | 'a'"
//! current = "1 | 13 | 'a'"
//! incoming = "1 | 8 | 'b'"
//! verdict = "merge 1 | 11 | 'b'"
//! ```
//!
//! A hasher's cases have `key` and `hash` instead. Values are written as [`super::notation`] says.

use super::dice::Dice;
use super::notation::{self, Brief, Shown, ShownVerdict};
use super::{draw, tables};
use crate::config::Settings;
use antiphon_core::hash::Hash as _;
use antiphon_core::key::KeyEncoder;
use antiphon_core::resolve::{Cause, Clash, Resolve as _, Side, Stamp, Verdict};
use antiphon_core::schema::{Column, Table};
use antiphon_core::value::{Row, Value};
use antiphon_plugin::{Hasher, Resolver};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// A file of cases.
#[derive(Clone, Debug)]
pub struct CaseFile {
    /// What the component is told, if the file says so.
    pub settings: Option<Vec<(String, String)>>,
    /// The names of the nodes.
    pub nodes: Vec<String>,
    /// The table that all cases are about.
    pub table: Table,
    /// The cases.
    pub cases: Cases,
    /// The sha256 of the verdicts on [`CaseFile::drawn`], if the file has it.
    pub drawn: Option<String>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Cases {
    /// Clashes, for a resolver.
    Clashes(Vec<Case<Clash, Verdict>>),
    /// Keys, for a hasher.
    Keys(Vec<Case<Row, u64>>),
}

/// One question and its answer.
#[derive(Clone, Debug)]
pub struct Case<Q, A> {
    /// What it is about.
    pub why: String,
    /// The question.
    pub question: Q,
    /// The only right answer.
    pub answer: A,
}

/// What a component made of one case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it is about.
    pub why: String,
    /// What was asked, in lines.
    pub question: Vec<String>,
    /// The only right answer.
    pub expected: String,
    /// What was answered, or why nothing was.
    pub got: Result<String, String>,
    /// Rows that were shown to it, or keys.
    pub rows: usize,
    /// Fuel that it took.
    pub fuel: u64,
    /// Time that it took.
    pub took: Duration,
}

impl Outcome {
    /// Whether the answer was right.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.got.as_ref() == Ok(&self.expected)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    settings: Option<Settings>,
    nodes: Option<Vec<String>>,
    table: Option<String>,
    columns: Option<Vec<String>>,
    strict: Option<bool>,
    drawn: Option<String>,
    #[serde(default)]
    case: Vec<Written>,
}

/// A case as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    why: Option<String>,
    cause: Option<String>,
    base: Option<String>,
    current: Option<String>,
    current_stamp: Option<String>,
    incoming: Option<String>,
    incoming_stamp: Option<String>,
    verdict: Option<String>,
    key: Option<String>,
    hash: Option<toml::Value>,
}

/// How many clashes are drawn for the digest of a file.
const DRAWN: usize = 4096;

impl CaseFile {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// Where it is wrong, and how.
    pub fn read(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| {
            let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or_default();
            format!("line {}: {}", before.matches('\n').count() + 1, error.message().replace('\n', ", "))
        })?;
        let table = table(&file)?;
        let nodes = file.nodes.unwrap_or_else(|| vec!["1".to_owned(), "2".to_owned()]);
        if file.case.is_empty() {
            return Err("it holds no `[[case]]`".to_owned());
        }
        let keys = file.case.iter().any(|case| case.hash.is_some() || case.key.is_some());
        let numbered = || file.case.iter().zip(1..).map(|(case, number)| (case, case.title(number)));
        let cases = if keys {
            let read = |(case, why): (&Written, String)| {
                case.key(&table, &why).map_err(|wrong| format!("case `{why}`: {wrong}"))
            };
            Cases::Keys(numbered().map(read).collect::<Result<_, _>>()?)
        } else {
            let read = |(case, why): (&Written, String)| {
                case.clash(&table, &nodes, &why).map_err(|wrong| format!("case `{why}`: {wrong}"))
            };
            Cases::Clashes(numbered().map(read).collect::<Result<_, _>>()?)
        };
        Ok(Self { settings: file.settings.map(|settings| settings.reveal()), nodes, table, cases, drawn: file.drawn })
    }

    /// Clashes from a sequence of numbers that is always the same.
    #[must_use]
    pub fn drawn(&self) -> Vec<Clash> {
        let mut dice = Dice::new(0);
        (0..DRAWN).map(|_| self.draw(&mut dice)).collect()
    }

    fn draw(&self, dice: &mut Dice) -> Clash {
        let [mut base, mut current, mut incoming] = [(); 3].map(|()| Row::new());
        for column in &self.table.columns {
            let value = drawn_value(dice, column);
            // A key is one, and other values change every other time.
            let changed = |dice: &mut Dice| {
                if column.pk_position > 0 || dice.once_in(2) { value.clone() } else { drawn_value(dice, column) }
            };
            current.push(changed(dice));
            incoming.push(changed(dice));
            base.push(value);
        }
        let [there, stands, came] = [(); 3].map(|()| !dice.once_in(8));
        let stamp = |dice: &mut Dice| Stamp {
            node: u32::try_from(dice.place(self.nodes.len())).unwrap_or(0),
            clock: dice.below(4),
            seq: dice.below(100),
        };
        Clash {
            table: 0,
            key: key_of(&self.table, &base),
            cause: if dice.once_in(20) { Cause::UniqueIndex } else { Cause::SameKey },
            base: there.then_some(base),
            current: Side { stamp: stamp(dice), row: stands.then_some(current) },
            incoming: Side { stamp: stamp(dice), row: came.then_some(incoming) },
        }
    }

    /// Puts the cases to a resolver that has this file's settings, one at a time.
    ///
    /// # Errors
    /// When it can't be configured, or the cases are a hasher's.
    pub fn ask_resolver(&self, resolver: &mut Resolver) -> Result<Vec<Outcome>, String> {
        let Cases::Clashes(cases) = &self.cases else {
            return Err("these are keys for a hasher, and the component is a resolver".to_owned());
        };
        resolver.configure(&self.nodes, std::slice::from_ref(&self.table)).map_err(|error| error.to_string())?;
        let mut outcomes = Vec::new();
        for Case { why, question, answer } in cases {
            let start = Instant::now();
            let verdicts = resolver.resolve(std::slice::from_ref(question));
            let got =
                verdicts.map(|verdicts| verdicts.first().map(|v| ShownVerdict(v).to_string()).unwrap_or_default());
            outcomes.push(Outcome {
                why: why.clone(),
                question: self.shown_clash(question),
                expected: ShownVerdict(answer).to_string(),
                got: got.map_err(|error| error.to_string()),
                rows: 1,
                fuel: resolver.fuel_used(),
                took: start.elapsed(),
            });
        }
        if let Some(expected) = &self.drawn {
            let start = Instant::now();
            let verdicts = resolver.resolve(&self.drawn());
            let got = verdicts.map(|verdicts| antiphon_plugin::sha256(notation::exact(&verdicts).as_bytes()));
            outcomes.push(Outcome {
                why: format!("{DRAWN} drawn clashes"),
                question: Vec::new(),
                expected: expected.clone(),
                got: got.map_err(|error| error.to_string()),
                rows: DRAWN,
                fuel: resolver.fuel_used(),
                took: start.elapsed(),
            });
        }
        Ok(outcomes)
    }

    /// Puts the cases to a hasher that has this file's settings, one at a time.
    ///
    /// # Errors
    /// When it can't be configured, or the cases are a resolver's.
    pub fn ask_hasher(&self, hasher: &mut Hasher) -> Result<Vec<Outcome>, String> {
        let Cases::Keys(cases) = &self.cases else {
            return Err("these are clashes for a resolver, and the component is a hasher".to_owned());
        };
        hasher.configure(std::slice::from_ref(&self.table)).map_err(|error| error.to_string())?;
        let encoder = KeyEncoder::new(&self.table);
        let ask = |Case { why, question, answer }: &Case<Row, u64>| {
            let mut key = Vec::new();
            encoder.write(&mut key, question.iter());
            let start = Instant::now();
            let hashes = hasher.hash(0, &draw::packed(&[key]));
            let got = hashes.map(|hashes| hashes.first().map(|hash| shown_hash(*hash)).unwrap_or_default());
            Outcome {
                why: why.clone(),
                question: vec![format!("key       {}", Shown(question))],
                expected: shown_hash(*answer),
                got: got.map_err(|error| error.to_string()),
                rows: 1,
                fuel: hasher.fuel_used(),
                took: start.elapsed(),
            }
        };
        Ok(cases.iter().map(ask).collect())
    }

    fn shown_clash(&self, clash: &Clash) -> Vec<String> {
        shown_clash(clash, &self.nodes)
    }
}

/// A clash as a person reads it, in lines.
#[must_use]
pub fn shown_clash(clash: &Clash, nodes: &[String]) -> Vec<String> {
    let row = |row: Option<&Row>| row.map_or_else(|| "none".to_owned(), |row| Brief(row).to_string());
    let side = |side: &Side| {
        let by = if side.stamp == Stamp::default() {
            String::new()
        } else {
            let node = nodes.get(side.stamp.node as usize).map_or("?", String::as_str);
            format!("   ({} of {node})", side.stamp.clock)
        };
        format!("{}{by}", row(side.row.as_ref()))
    };
    let mut lines = vec![
        format!("base      {}", row(clash.base.as_ref())),
        format!("current   {}", side(&clash.current)),
        format!("incoming  {}", side(&clash.incoming)),
    ];
    if clash.cause == Cause::UniqueIndex {
        lines.insert(0, "cause     unique-index".to_owned());
    }
    lines
}

/// A hash as case files write it.
#[must_use]
pub fn shown_hash(hash: u64) -> String {
    format!("0x{hash:016x}")
}

impl Written {
    fn title(&self, number: usize) -> String {
        self.why.clone().unwrap_or_else(|| format!("number {number}"))
    }

    fn clash(&self, table: &Table, nodes: &[String], why: &str) -> Result<Case<Clash, Verdict>, String> {
        let whole = |key: &str, text: &Option<String>| {
            let Some(text) = text else { return Ok(None) };
            let row = notation::row(text).map_err(|wrong| format!("`{key}`: {wrong}"))?;
            fits(table, &row).map_err(|wrong| format!("`{key}` {wrong}"))?;
            Ok::<_, String>(Some(row))
        };
        let base = whole("base", &self.base)?;
        let current = whole("current", &self.current)?;
        let incoming = whole("incoming", &self.incoming)?;
        let key = [&current, &incoming, &base].into_iter().flatten().next();
        let verdict = self.verdict.as_ref().ok_or("`verdict` is missing")?;
        let answer = notation::verdict(verdict).map_err(|wrong| format!("`verdict`: {wrong}"))?;
        if let Verdict::Merge(row) = &answer {
            fits(table, row).map_err(|wrong| format!("the row of `verdict` {wrong}"))?;
        }
        let question = Clash {
            table: 0,
            // Where no row is left, any key will do.
            key: key.map_or_else(|| table.key_columns().iter().map(|_| 1.into()).collect(), |row| key_of(table, row)),
            cause: match self.cause.as_deref() {
                None | Some("same-key") => Cause::SameKey,
                Some("unique-index") => Cause::UniqueIndex,
                Some(cause) => return Err(format!("`cause` is `same-key` or `unique-index`, and not `{cause}`")),
            },
            current: Side { stamp: stamp("current_stamp", self.current_stamp.as_deref(), nodes)?, row: current },
            incoming: Side { stamp: stamp("incoming_stamp", self.incoming_stamp.as_deref(), nodes)?, row: incoming },
            base,
        };
        Ok(Case { why: why.to_owned(), question, answer })
    }

    fn key(&self, table: &Table, why: &str) -> Result<Case<Row, u64>, String> {
        let key = self.key.as_ref().ok_or("`key` is missing")?;
        let question = notation::row(key).map_err(|wrong| format!("`key`: {wrong}"))?;
        let width = table.key_columns().len();
        if question.len() != width {
            return Err(format!("`key` has {} values, and the table's key has {width} columns", question.len()));
        }
        let answer = match self.hash.as_ref().ok_or("`hash` is missing")? {
            toml::Value::Integer(number) => u64::try_from(*number).ok(),
            toml::Value::String(text) => match text.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                None => text.parse().ok(),
            },
            _ => None,
        };
        let answer = answer.ok_or("`hash` is a number from 0 on: write it as \"0x00ff\" or \"255\"")?;
        Ok(Case { why: why.to_owned(), question, answer })
    }
}

/// Whether a row has as many values as its table has columns.
fn fits(table: &Table, row: &[Value]) -> Result<(), String> {
    if row.len() == table.columns.len() {
        return Ok(());
    }
    Err(format!("has {} values, and the table has {} columns", row.len(), table.columns.len()))
}

/// `CLOCK of NODE`.
fn stamp(key: &str, text: Option<&str>, nodes: &[String]) -> Result<Stamp, String> {
    let Some(text) = text else { return Ok(Stamp::default()) };
    let (clock, node) = text.split_once(" of ").ok_or_else(|| format!("`{key}` is written `CLOCK of NODE`"))?;
    let clock = clock.parse().map_err(|_| format!("`{key}`: `{clock}` is no clock"))?;
    let at = nodes.iter().position(|name| name == node).ok_or_else(|| format!("`{key}`: there is no node `{node}`"))?;
    Ok(Stamp { node: u32::try_from(at).unwrap_or(u32::MAX), clock, seq: 0 })
}

fn key_of(table: &Table, row: &Row) -> Row {
    table.key_columns().into_iter().filter_map(|at| row.get(at).cloned()).collect()
}

fn table(file: &File) -> Result<Table, String> {
    match (&file.table, &file.columns) {
        (Some(sql), None) => match tables::of_sql(&[sql]).map_err(|wrong| format!("`table`: {wrong}"))? {
            tables if tables.len() > 1 => Err("`table` creates more than one table".to_owned()),
            tables => tables.into_iter().next().ok_or_else(|| "`table` creates none".to_owned()),
        },
        (None, Some(columns)) => {
            let columns: Vec<Column> = columns.iter().map(|column| self::column(column)).collect();
            if !columns.iter().any(|column| column.pk_position > 0) {
                return Err("no column in `columns` is called `id`, which is the key; for another key write \
                            `table = \"CREATE TABLE …\"` instead"
                    .to_owned());
            }
            Ok(Table { name: "t".into(), columns, strict: file.strict.unwrap_or(false), ..Table::default() })
        }
        _ => Err("it needs either `table`, a statement that creates it, or `columns`".to_owned()),
    }
}

/// `NAME TYPE`; the one called `id` is the key.
fn column(text: &str) -> Column {
    let (name, decl_type) = text.split_once(' ').unwrap_or((text, ""));
    let pk_position = u16::from(name == "id");
    Column { name: name.into(), decl_type: decl_type.into(), pk_position, collation: "BINARY".into(), not_null: false }
}

/// What digests kept with the laws of resolvers depend on: neither the values nor their order may ever change.
fn drawn_value(dice: &mut Dice, column: &Column) -> Value {
    let whole = [0, 1, 2, 3, -1, 1000, i64::MAX, i64::MIN];
    if column.pk_position > 0 {
        return Value::Integer(dice.below(100).cast_signed());
    }
    let real = [0.0, -0.0, 0.5, 1.0, 2.5, 1e300, 9_007_199_254_740_992.0, f64::INFINITY, f64::NEG_INFINITY];
    match dice.below(8) {
        0 => Value::Null,
        1..=4 => Value::Integer(dice.of(&whole)),
        5 => Value::Real(dice.of(&real)),
        6 => dice.of(&["", "a", "A", "1"]).into(),
        _ => dice.of(&[Value::Blob(b"a".to_vec()), Value::Text(vec![0xff])]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        CaseFile::read(text).unwrap_err()
    }

    #[test]
    fn a_file_says_where_it_is_wrong() {
        let with = |case: &str| wrong(&format!("columns = [\"id\", \"v\"]\n[[case]]\nwhy = \"w\"\n{case}"));
        insta::assert_snapshot!(wrong("columns = 1"), @"line 1: invalid type: integer `1`, expected a sequence");
        insta::assert_snapshot!(wrong("columns = [\"id\"]"), @"it holds no `[[case]]`");
        insta::assert_snapshot!(wrong("[[case]]\nverdict = \"keep\""), @"it needs either `table`, a statement that creates it, or `columns`");
        insta::assert_snapshot!(with("verdit = \"keep\"").split(", expected").next().unwrap(), @"line 4: unknown field `verdit`");
        insta::assert_snapshot!(with("base = \"1\"\nverdict = \"keep\""), @"case `w`: `base` has 1 values, and the table has 2 columns");
        insta::assert_snapshot!(with("base = \"1 | x\"\nverdict = \"keep\""), @"case `w`: `base`: `x` is no value: write NULL, 1, 1.0, 'text', x'00' for a blob or t'ff' for a text by its bytes");
        insta::assert_snapshot!(with("base = \"1 | 2\""), @"case `w`: `verdict` is missing");
        insta::assert_snapshot!(with("current_stamp = \"5 of 9\"\nverdict = \"keep\""), @"case `w`: `current_stamp`: there is no node `9`");
        insta::assert_snapshot!(with("key = \"1\"\nhash = -1"), @r#"case `w`: `hash` is a number from 0 on: write it as "0x00ff" or "255""#);
        insta::assert_snapshot!(with("key = \"1 | 2\"\nhash = 1"), @"case `w`: `key` has 2 values, and the table's key has 1 columns");
        insta::assert_snapshot!(wrong("table = \"CREATE TABLE t (v)\"\n[[case]]"), @"`table`: table `t` can't be replicated: it has no primary key; add one, or exclude it with `exclude` under `[capture]`");
    }

    #[test]
    fn hashes_are_read_as_they_are_printed() {
        let file = CaseFile::read("columns = [\"id\"]\n[[case]]\nkey = \"1\"\nhash = \"0xffffffffffffffff\"").unwrap();
        let Cases::Keys(cases) = file.cases else { panic!("{file:?}") };
        assert_eq!(shown_hash(cases[0].answer), "0xffffffffffffffff");
    }
}
