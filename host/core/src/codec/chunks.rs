//! A table's part of an entry as bytes: columns one after the other.

use crate::cbor::{self, Malformed, Reader};
use crate::entry::{Chunk, Made, Rows};
use crate::value::Value;

/// Most values one table's rows may have in one entry: a value in memory is larger than on the wire.
const VALUES_MAX: usize = 16 << 20;
/// Most columns a table can have in SQLite as anyone builds it.
const COLUMNS_MAX: usize = 32_767;

pub(super) fn write_chunk(out: &mut Vec<u8>, chunk: &Chunk) {
    cbor::write_array(out, 8);
    cbor::write_text(out, &chunk.table);
    cbor::write_array(out, chunk.columns.len());
    for column in &chunk.columns {
        cbor::write_text(out, column);
    }
    cbor::write_array(out, chunk.key.len());
    for &position in &chunk.key {
        cbor::write_uint(out, position as u64);
    }
    cbor::write_array(out, chunk.uniques.len());
    for unique in &chunk.uniques {
        cbor::write_array(out, unique.len());
        for (position, collation) in unique {
            cbor::write_array(out, 2);
            cbor::write_uint(out, *position as u64);
            cbor::write_text(out, collation);
        }
    }
    write_rows(out, &chunk.written);
    write_rows(out, &chunk.gone);
    cbor::write_array(out, chunk.seen.len());
    for (change, seen) in &chunk.seen {
        cbor::write_array(out, 2);
        cbor::write_uint(out, *change as u64);
        cbor::write_uint(out, *seen);
    }
    write_made(out, chunk);
}

/// The bases that are there as rows, which of the changes have none, and the clocks above the least of them.
fn write_made(out: &mut Vec<u8>, chunk: &Chunk) {
    if chunk.made.is_empty() {
        cbor::write_array(out, 0);
        return;
    }
    cbor::write_array(out, 4);
    let mut bases = Rows::new(chunk.columns.len());
    chunk.made.iter().filter_map(|made| made.base.clone()).for_each(|base| bases.push(base));
    write_rows(out, &bases);
    let without: Vec<usize> =
        chunk.made.iter().enumerate().filter(|(_, made)| made.base.is_none()).map(|(change, _)| change).collect();
    cbor::write_array(out, without.len());
    for change in without {
        cbor::write_uint(out, change as u64);
    }
    let least = chunk.made.iter().map(|made| made.clock).min().unwrap_or(0);
    cbor::write_uint(out, least);
    cbor::write_array(out, chunk.made.len());
    for made in &chunk.made {
        cbor::write_uint(out, made.clock - least);
    }
}

/// Column after column: values of one kind stand together, which is what a compressor likes.
fn write_rows(out: &mut Vec<u8>, rows: &Rows) {
    cbor::write_array(out, if rows.is_empty() { 0 } else { rows.width() });
    if rows.is_empty() {
        return;
    }
    for column in 0..rows.width() {
        cbor::write_array(out, rows.len());
        for value in rows.column(column) {
            cbor::write_value(out, value);
        }
    }
}

pub(super) fn read_chunk(reader: &mut Reader<'_>) -> Result<Chunk, Malformed> {
    reader.array_of(8)?;
    let table = reader.text()?.to_owned();
    let width = reader.array()?;
    if width > COLUMNS_MAX {
        return Err(Malformed::OutOfBounds(width as u64));
    }
    let columns = (0..width).map(|_| reader.text().map(str::to_owned)).collect::<Result<Vec<_>, _>>()?;
    let key = (0..reader.array()?).map(|_| reader.index(width)).collect::<Result<Vec<_>, _>>()?;
    if key.is_empty() || key.len() > width {
        return Err(Malformed::OutOfBounds(key.len() as u64));
    }
    let uniques = (0..reader.array()?).map(|_| read_unique(reader, width)).collect::<Result<_, _>>()?;
    let written = read_rows(reader, width)?;
    let gone = read_rows(reader, key.len())?;
    let count = written.len() + gone.len();
    let seen = (0..reader.array()?)
        .map(|_| {
            reader.array_of(2)?;
            Ok((reader.index(count)?, reader.uint()?))
        })
        .collect::<Result<_, Malformed>>()?;
    let made = read_made(reader, width, count)?;
    Ok(Chunk { table, columns, key, uniques, written, gone, seen, made })
}

fn read_made(reader: &mut Reader<'_>, width: usize, count: usize) -> Result<Vec<Made>, Malformed> {
    match reader.array()? {
        0 => return Ok(Vec::new()),
        4 => {}
        other => return Err(Malformed::OutOfBounds(other as u64)),
    }
    let bases = read_rows(reader, width)?;
    let mut has_base = vec![true; count];
    for _ in 0..reader.array()? {
        let change = reader.index(count)?;
        if let Some(has) = has_base.get_mut(change) {
            *has = false;
        }
    }
    let with = has_base.iter().filter(|has| **has).count();
    let least = reader.uint()?;
    let clocks = reader.array()?;
    if with != bases.len() || clocks != count {
        return Err(Malformed::OutOfBounds(clocks as u64));
    }
    let mut values = bases.into_values().into_iter();
    has_base
        .into_iter()
        .map(|has| {
            let base = has.then(|| values.by_ref().take(width).collect());
            let offset = reader.uint()?;
            let clock = least.checked_add(offset).ok_or(Malformed::OutOfBounds(offset))?;
            Ok(Made { base, clock })
        })
        .collect()
}

fn read_unique(reader: &mut Reader<'_>, width: usize) -> Result<Vec<(usize, String)>, Malformed> {
    (0..reader.array()?)
        .map(|_| {
            reader.array_of(2)?;
            Ok((reader.index(width)?, reader.text()?.to_owned()))
        })
        .collect()
}

fn read_rows(reader: &mut Reader<'_>, width: usize) -> Result<Rows, Malformed> {
    let columns = reader.array()?;
    if columns == 0 {
        return Ok(Rows::new(width));
    }
    if columns != width {
        return Err(Malformed::OutOfBounds(columns as u64));
    }
    let mut values: Vec<Value> = Vec::new();
    let mut count = 0;
    for column in 0..width {
        let length = reader.array()?;
        if column == 0 {
            // Each value of each column still to come takes a byte at least: more rows than that are a lie.
            if length == 0 || length.saturating_mul(width) > reader.remaining().min(VALUES_MAX) {
                return Err(Malformed::OutOfBounds(length as u64));
            }
            count = length;
            values.resize_with(count * width, Value::default);
        } else if length != count {
            return Err(Malformed::OutOfBounds(length as u64));
        }
        for slot in values.iter_mut().skip(column).step_by(width) {
            *slot = reader.value()?;
        }
    }
    Ok(Rows::from_values(width, values))
}
