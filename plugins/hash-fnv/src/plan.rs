//! What is known of a table before its first key comes.

use hasher::cbor;

use crate::bindings::exports::antiphon::plugin::rowhash::Table;
use crate::time;

const OFFSET: u64 = 14_695_981_039_346_656_037;
const PRIME: u64 = 1_099_511_628_211;
const NULL: u8 = 0xf6;

/// FNV-1: multiply, then xor. (FNV-1a, the other way round, is more common and is not what is wanted here.)
fn feed(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |state, &byte| state.wrapping_mul(PRIME) ^ u64::from(byte))
}

/// How keys of one table are hashed.
pub struct Plan {
    table: String,
    /// The hash of the empty key, which stands for the whole table.
    whole: u64,
    /// The state right before the first value.
    start: u64,
    /// The key's columns in order of their names.
    columns: Vec<Column>,
}

struct Column {
    /// Where the column's value stands in a key.
    position: usize,
    /// What stands before its value.
    head: Vec<u8>,
    kind: Kind,
}

/// What a column is declared as: a few declarations change what HarmonyLite's driver makes of a value.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    Boolean,
    Time,
}

impl Kind {
    fn of(decl_type: &str) -> Self {
        let is = |name: &&str| decl_type.eq_ignore_ascii_case(name);
        if is(&"boolean") {
            Self::Boolean
        } else if ["timestamp", "datetime", "date"].iter().any(is) {
            Self::Time
        } else {
            Self::Plain
        }
    }
}

impl Plan {
    pub fn new(table: &Table) -> Self {
        let mut key: Vec<_> = table.columns.iter().filter(|column| column.pk_position > 0).collect();
        key.sort_by_key(|column| column.pk_position);
        let mut named: Vec<(&str, usize, Kind)> = key
            .iter()
            .enumerate()
            .map(|(position, column)| (column.name.as_str(), position, Kind::of(&column.decl_type)))
            .collect();
        if named.is_empty() {
            // Without a primary key, it is the rowid that tells rows apart.
            named.push(("rowid", 0, Kind::Plain));
        }
        named.sort_by_key(|(name, ..)| *name);

        let columns: Vec<Column> = named
            .into_iter()
            .map(|(name, position, kind)| {
                let mut head = vec![0x82];
                cbor::write_text(name, &mut head);
                Column { position, head, kind }
            })
            .collect();
        let mut before = vec![0x9f];
        cbor::write_text(&table.name, &mut before);
        let before = feed(OFFSET, &before);
        Self {
            table: table.name.clone(),
            whole: feed(before, &[0xff]),
            start: columns.first().map_or(before, |first| feed(before, &first.head)),
            columns,
        }
    }

    /// The hash of a key; none if its bytes are not the values of this table's key.
    pub fn hash(&self, key: &[u8]) -> Option<u64> {
        if key.is_empty() {
            return Some(self.whole);
        }
        let state = match self.columns.as_slice() {
            [column] => {
                let (value, rest) = cbor::split(key)?;
                rest.is_empty().then(|| column.feed_value(self.start, value))?
            }
            columns => {
                let mut values = Vec::with_capacity(columns.len());
                let mut rest = key;
                while !rest.is_empty() {
                    let (value, after) = cbor::split(rest)?;
                    values.push(value);
                    rest = after;
                }
                if values.len() != columns.len() {
                    return None;
                }
                let mut state = self.start;
                for (index, column) in columns.iter().enumerate() {
                    if index > 0 {
                        state = feed(state, &column.head);
                    }
                    state = column.feed_value(state, values.get(column.position)?);
                }
                state
            }
        };
        Some(feed(state, &[0xff]))
    }

    /// Says that a key is not one of this table.
    pub fn malformed(&self, index: usize) -> String {
        format!("key {index} is not the {} values of table `{}`'s key", self.columns.len(), self.table)
    }
}

impl Column {
    fn feed_value(&self, state: u64, value: &[u8]) -> u64 {
        if self.kind == Kind::Plain {
            return feed(state, value);
        }
        match (self.kind, cbor::integer(value), cbor::text(value)) {
            (Kind::Boolean, Some(number), _) => feed(state, &[if number > 0 { 0xf5 } else { 0xf4 }]),
            (Kind::Time, Some(number), _) => feed_seconds(state, time::of_integer(number)),
            (Kind::Time, _, Some(text)) => feed_seconds(state, time::of_text(text)),
            // TEXT that is not UTF-8 is no time either.
            (Kind::Time, ..) if value.first().is_some_and(|first| first >> 5 == 6) => feed_seconds(state, None),
            _ => feed(state, value),
        }
    }
}

fn feed_seconds(state: u64, seconds: Option<i64>) -> u64 {
    let Some(seconds) = seconds else { return feed(state, &[NULL]) };
    let mut item = Vec::with_capacity(9);
    cbor::write_integer(seconds, &mut item);
    feed(state, &item)
}
