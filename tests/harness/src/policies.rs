//! Native twins of the policies that are components: written from their laws, and sharing no line with them.

use antiphon_core::hash::PluginError;
use antiphon_core::resolve::{Cause, Clash, Needs, Resolve, Stamp, Verdict};
use antiphon_core::schema::Table;
use antiphon_core::value::{Row, Value};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// What merges look at.
const ROWS: Needs = Needs { base: true, current: true, stamps: false };
const STAMPS: Needs = Needs { base: false, current: false, stamps: true };

fn each(batch: &[Clash], decide: impl Fn(&Clash) -> Verdict) -> Vec<Verdict> {
    batch.iter().map(|clash| if clash.cause == Cause::UniqueIndex { Verdict::Take } else { decide(clash) }).collect()
}

/// Twin of `first-write-wins`: what came first in the log stays.
#[derive(Clone, Debug, Default)]
pub struct FirstWriteWins;

impl Resolve for FirstWriteWins {
    fn configure(&mut self, _: &[String], _: &[Table]) -> Result<Needs, PluginError> {
        Ok(Needs::default())
    }

    fn resolve(&mut self, batch: &[Clash]) -> Result<Vec<Verdict>, PluginError> {
        Ok(each(batch, |_| Verdict::Keep))
    }
}

/// What names of nodes compare by: numbers by their value, and before anything else.
fn sortable(name: &str) -> (bool, u128, &str) {
    // `parse` would take a sign as well.
    let digits = name.chars().all(|letter| letter.is_ascii_digit());
    name.parse().ok().filter(|_| digits).map_or((true, 0, name), |number| (false, number, ""))
}

/// Twin of `newest-wins`: the later stamp stands, wherever it is in the log.
#[derive(Clone, Debug, Default)]
pub struct NewestWins {
    nodes: Vec<String>,
}

impl Resolve for NewestWins {
    fn configure(&mut self, nodes: &[String], _: &[Table]) -> Result<Needs, PluginError> {
        nodes.clone_into(&mut self.nodes);
        Ok(STAMPS)
    }

    fn resolve(&mut self, batch: &[Clash]) -> Result<Vec<Verdict>, PluginError> {
        // A clock of 0 is nobody's.
        let age = |stamp: Stamp| (stamp.clock, (stamp.clock > 0).then(|| sortable(&self.nodes[stamp.node as usize])));
        Ok(each(batch, |clash| match age(clash.incoming.stamp) > age(clash.current.stamp) {
            true => Verdict::Take,
            false => Verdict::Keep,
        }))
    }
}

/// Twin of `node-priority`: the change of the node that is named first stands.
#[derive(Clone, Debug)]
pub struct NodePriority {
    order: Vec<String>,
    nodes: Vec<String>,
}

impl NodePriority {
    /// With these nodes before all others, the strongest first.
    #[must_use]
    pub fn new(order: &[&str]) -> Self {
        Self { order: order.iter().map(|name| (*name).to_owned()).collect(), nodes: Vec::new() }
    }

    fn strength(&self, stamp: Stamp) -> usize {
        let is = |name: &String| stamp.clock > 0 && sortable(name) == sortable(&self.nodes[stamp.node as usize]);
        self.order.iter().rev().position(is).map_or(0, |weaker| weaker + 1)
    }
}

impl Resolve for NodePriority {
    fn configure(&mut self, nodes: &[String], _: &[Table]) -> Result<Needs, PluginError> {
        nodes.clone_into(&mut self.nodes);
        Ok(STAMPS)
    }

    fn resolve(&mut self, batch: &[Clash]) -> Result<Vec<Verdict>, PluginError> {
        Ok(each(batch, |clash| {
            if self.strength(clash.incoming.stamp) >= self.strength(clash.current.stamp) {
                Verdict::Take
            } else {
                Verdict::Keep
            }
        }))
    }
}

/// What a merge does with one column, from base, current and incoming value.
type Column<'a> = &'a dyn Fn(usize, &Value, &Value, &Value) -> Value;

fn merged(clash: &Clash, column: Column<'_>) -> Verdict {
    let Some(current) = &clash.current.row else { return Verdict::Take };
    let Some(incoming) = &clash.incoming.row else { return Verdict::Keep };
    let nothing: Row = vec![Value::Null; current.len()];
    let base = clash.base.as_ref().unwrap_or(&nothing);
    let columns = 0..current.len();
    Verdict::Merge(columns.map(|at| column(at, &base[at], &current[at], &incoming[at])).collect())
}

fn changed_last(base: &Value, current: &Value, incoming: &Value) -> Value {
    let latest = [incoming, current].into_iter().find(|value| *value != base);
    latest.unwrap_or(base).clone()
}

/// Twin of `column-merge`: each column has the value of whoever changed it.
#[derive(Clone, Debug, Default)]
pub struct ColumnMerge;

impl Resolve for ColumnMerge {
    fn configure(&mut self, _: &[String], _: &[Table]) -> Result<Needs, PluginError> {
        Ok(ROWS)
    }

    fn resolve(&mut self, batch: &[Clash]) -> Result<Vec<Verdict>, PluginError> {
        let column: Column<'_> = &|_, base, current, incoming| changed_last(base, current, incoming);
        Ok(each(batch, |clash| merged(clash, column)))
    }
}

/// Twin of `counter`: what nodes add to some columns is added up; the others are merged.
#[derive(Clone, Debug)]
pub struct Counter {
    columns: Vec<String>,
    tables: Vec<Table>,
}

impl Counter {
    /// With these columns as counters, in every table that has them.
    #[must_use]
    pub fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(|name| (*name).to_owned()).collect(), tables: Vec::new() }
    }

    fn is_counter(&self, table: &Table, at: usize) -> bool {
        let mut named = self.columns.iter().filter_map(|name| table.column(name));
        named.any(|position| position == at) && table.columns[at].pk_position == 0
    }
}

impl Resolve for Counter {
    fn configure(&mut self, _: &[String], tables: &[Table]) -> Result<Needs, PluginError> {
        tables.clone_into(&mut self.tables);
        Ok(ROWS)
    }

    fn resolve(&mut self, batch: &[Clash]) -> Result<Vec<Verdict>, PluginError> {
        Ok(each(batch, |clash| {
            let table = &self.tables[clash.table as usize];
            merged(clash, &|at, base, current, incoming| {
                let sum = self.is_counter(table, at).then(|| added_up(table, at, base, current, incoming));
                sum.flatten().unwrap_or_else(|| changed_last(base, current, incoming))
            })
        }))
    }
}

/// A value that can be added.
#[derive(Clone, Copy)]
enum Number {
    None,
    Whole(i64),
    Real(f64),
}

impl Number {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(Self::None),
            Value::Integer(number) => Some(Self::Whole(*number)),
            Value::Real(number) => Some(Self::Real(*number)),
            Value::Text(_) | Value::Blob(_) => None,
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "the law says reals, and this is what SQLite does, too")]
    fn real(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Whole(number) => number as f64,
            Self::Real(number) => number,
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a sum is taken modulo 2^64, or known to be a 64-bit integer")]
fn added_up(table: &Table, at: usize, base: &Value, current: &Value, incoming: &Value) -> Option<Value> {
    use Number::{None as Null, Real, Whole};
    let whole = |number| if let Whole(number) = number { i128::from(number) } else { 0 };
    match (Number::of(base)?, Number::of(current)?, Number::of(incoming)?) {
        (Null, Null, Null) => Some(Value::Null),
        (b @ (Null | Whole(_)), c @ (Null | Whole(_)), i @ (Null | Whole(_))) => {
            Some(Value::Integer((whole(c) + whole(i) - whole(b)) as i64))
        }
        _ if base == current || base == incoming => Some(changed_last(base, current, incoming)),
        (Null | Whole(_) | Real(_), Null | Whole(_) | Real(_), Null | Whole(_) | Real(_)) => {
            let [base, current, incoming] = [base, current, incoming].map(|value| Number::of(value).map(Number::real));
            let sum = current? + (incoming? - base?);
            if sum.is_nan() {
                return None;
            }
            let whole = sum as i64;
            #[allow(clippy::cast_precision_loss, reason = "a sum that changes by it is no integer")]
            let is_whole = whole as f64 == sum && whole != i64::MIN && whole != i64::MAX;
            Some(if is_whole && makes_integers(table, at) {
                Value::Integer(whole)
            } else {
                Value::Real(if sum == 0.0 { 0.0 } else { sum })
            })
        }
    }
}

/// Whether SQLite stores 3.0 as 3 in this column.
fn makes_integers(table: &Table, at: usize) -> bool {
    let declared = table.columns[at].decl_type.to_lowercase();
    if table.strict {
        return declared.starts_with("int");
    }
    let contains = |words: &[&str]| words.iter().any(|word| declared.contains(word));
    contains(&["int"]) || !(declared.is_empty() || contains(&["char", "clob", "text", "blob", "real", "floa", "doub"]))
}

/// A merge that fails at some clashes, always the same: at a third of the rows that come, whichever.
#[derive(Clone, Debug, Default)]
pub struct Fussy;

impl Fussy {
    fn fails_at(clash: &Clash) -> bool {
        let Some(row) = &clash.incoming.row else { return false };
        let mut hasher = DefaultHasher::new();
        format!("{row:?}").hash(&mut hasher);
        hasher.finish().is_multiple_of(3)
    }
}

impl Resolve for Fussy {
    fn configure(&mut self, nodes: &[String], tables: &[Table]) -> Result<Needs, PluginError> {
        ColumnMerge.configure(nodes, tables)
    }

    fn resolve(&mut self, batch: &[Clash]) -> Result<Vec<Verdict>, PluginError> {
        if batch.iter().any(Self::fails_at) {
            return Err(PluginError("it does not like a row".to_owned()));
        }
        ColumnMerge.resolve(batch)
    }
}
