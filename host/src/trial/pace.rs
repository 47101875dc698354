//! How long a component takes, and what it uses up.

use super::draw::packed;
use antiphon_core::hash::{Hash, PluginError};
use antiphon_core::key::KeyEncoder;
use antiphon_core::resolve::{Cause, Clash, Resolve, Side, Stamp};
use antiphon_core::schema::{Column, Table};
use antiphon_core::value::Value;
use std::time::{Duration, Instant};

/// Questions in one call, as they are measured.
pub const BATCHES: [usize; 3] = [1, 64, 512];

/// How many questions a second, at one size of batches.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Questions in one call.
    pub batch: usize,
    /// Questions a second.
    pub per_second: f64,
}

/// The table that all questions are about: five columns, and whichever ones the settings name among them.
#[must_use]
pub fn table(named: &[String]) -> Table {
    let column = |name: &str, pk_position| Column {
        name: name.to_owned(),
        decl_type: if pk_position > 0 { "INTEGER".to_owned() } else { String::new() },
        pk_position,
        collation: "BINARY".to_owned(),
        not_null: pk_position > 0,
    };
    let mut columns = vec![column("id", 1)];
    let usual = ["name", "qty", "price", "note"].map(str::to_owned);
    columns.extend(named.iter().chain(&usual).take(4).map(|name| column(name, 0)));
    Table { name: "items".to_owned(), columns, rowid_key: true, ..Table::default() }
}

/// Clashes of two rows of five columns, each changed by one side.
fn clashes(table: &Table, count: usize) -> Vec<Clash> {
    let row = |id: i64, name: &str, quantity: i64| {
        let values = [id.into(), name.into(), quantity.into(), Value::Real(1.5), "willow".into()];
        values.into_iter().take(table.columns.len()).collect::<Vec<Value>>()
    };
    let clash = |id: i64| {
        let side =
            |node, name, quantity| Side { stamp: Stamp { node, clock: 1, seq: 1 }, row: Some(row(id, name, quantity)) };
        Clash {
            table: 0,
            key: vec![id.into()],
            cause: Cause::SameKey,
            base: Some(row(id, "name-1", 7)),
            current: side(0, "name-2", 7),
            incoming: side(1, "name-1", 8),
        }
    };
    (1..).take(count).map(clash).collect()
}

/// Measures a resolver, for about so long at each size of batches.
///
/// # Errors
/// When it fails.
pub fn of_resolver(resolver: &mut dyn Resolve, table: &Table, long: Duration) -> Result<Vec<Pace>, PluginError> {
    resolver.configure(&["1".to_owned(), "2".to_owned()], std::slice::from_ref(table))?;
    let measure = |batch: usize| {
        let clashes = clashes(table, batch);
        let per_second = per_second(long, batch, || resolver.resolve(&clashes).map(drop))?;
        Ok(Pace { batch, per_second })
    };
    BATCHES.into_iter().map(measure).collect()
}

/// Measures a hasher, for about so long at each size of batches.
///
/// # Errors
/// When it fails.
pub fn of_hasher(hasher: &mut dyn Hash, table: &Table, long: Duration) -> Result<Vec<Pace>, PluginError> {
    hasher.configure(std::slice::from_ref(table))?;
    let encoder = KeyEncoder::new(table);
    let key = |id: usize| {
        let mut bytes = Vec::new();
        let id = i64::try_from(id).unwrap_or(i64::MAX).wrapping_mul(7919);
        encoder.write(&mut bytes, [Value::Integer(id)].iter());
        bytes
    };
    let measure = |batch: usize| {
        let keys = packed(&(0..batch).map(key).collect::<Vec<_>>());
        let per_second = per_second(long, batch, || hasher.hash(0, &keys).map(drop))?;
        Ok(Pace { batch, per_second })
    };
    BATCHES.into_iter().map(measure).collect()
}

fn per_second(
    long: Duration,
    batch: usize,
    mut ask: impl FnMut() -> Result<(), PluginError>,
) -> Result<f64, PluginError> {
    // The first call makes an instance.
    ask()?;
    let start = Instant::now();
    let mut calls: u32 = 0;
    // The clock is asked seldom: a call may take less than that.
    while start.elapsed() < long {
        for _ in 0..16 {
            ask()?;
        }
        calls = calls.saturating_add(16);
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of calls within seconds")]
    let questions = f64::from(calls) * batch as f64;
    Ok(questions / start.elapsed().as_secs_f64())
}

/// The middle one of some times.
///
/// # Errors
/// Whatever the work says.
pub fn median<E>(times: usize, mut work: impl FnMut() -> Result<(), E>) -> Result<Duration, E> {
    let mut took = Vec::with_capacity(times);
    for _ in 0..times.max(1) {
        let start = Instant::now();
        work()?;
        took.push(start.elapsed());
    }
    took.sort_unstable();
    Ok(took.get(took.len() / 2).copied().unwrap_or_default())
}
