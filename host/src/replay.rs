//! A clash that a resolver failed at, as a file from which it can be put to the resolver again without any node.
//!
//! The file is JSON: `format` (`antiphon replay 1`), `plugin` (name, source, sha256, settings, limits), `place` (shard and
//! entry), `nodes`, `table`, `needs`, `clash`, and what came of it: `why` and `details`. Values are written as SQL writes
//! them: `NULL`, `1`, `1.0`, `'text'` with `'` doubled, `x'00'` for a blob; besides, `t'ff'` is text that is not UTF-8,
//! and the two infinities are `9e999` and `-9e999`. It holds rows of the application, so it is its owner's alone.
//!
//! [`Replay::read`] reads one, [`Replay::run`] puts the clash to a resolver: `antiphon plugin test --replay FILE`.

use crate::db::{Alone, Policy};
use crate::failure::{Failure, Kind};
use crate::words::hex;
use antiphon_core::resolve::{Cause, Clash, Failed, Needs, Resolve as _, Side, Stamp, Verdict};
use antiphon_core::schema::{Column, Table};
use antiphon_core::value::{Row, Value};
use antiphon_plugin::{Limits, Origin, PluginHost, Source};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The folder for such files, in the host's own directory beside a database.
pub const FOLDER: &str = "failed-clashes";
/// Files that are kept; the oldest make room.
const FILES_MAX: usize = 32;
/// The first words of a file, and the version of its form.
const FORMAT: &str = "antiphon replay 1";

/// A component, as a replay has to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// What the configuration called it.
    pub name: String,
    /// Where it came from: `file:PATH`, or `builtin` for an official one.
    pub source: String,
    /// The sha256 of its bytes.
    pub sha256: String,
    /// What it was told.
    pub settings: BTreeMap<String, String>,
    /// What it could use up, as far as that decides whether it fails.
    pub limits: Amounts,
}

/// What a resolver could use up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amounts {
    /// See the setting of this name.
    pub fuel_base: u64,
    /// See the setting of this name.
    pub fuel_per_item: u64,
    /// See the setting of this name.
    pub fuel_per_byte: u64,
    /// Bytes of memory.
    pub memory: usize,
    /// Bytes handed over in one call.
    pub returned: usize,
    /// Milliseconds until the watchdog ends a call.
    pub watchdog: u64,
}

impl Amounts {
    /// Those among `limits`.
    #[must_use]
    pub fn of(limits: &Limits) -> Self {
        Self {
            fuel_base: limits.fuel_base,
            fuel_per_item: limits.fuel_per_item,
            fuel_per_byte: limits.fuel_per_byte,
            memory: limits.memory_bytes,
            returned: limits.returned_bytes,
            watchdog: u64::try_from(limits.watchdog.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn limits(self) -> Limits {
        Limits {
            fuel_base: self.fuel_base,
            fuel_per_item: self.fuel_per_item,
            fuel_per_byte: self.fuel_per_byte,
            memory_bytes: self.memory,
            returned_bytes: self.returned,
            watchdog: Duration::from_millis(self.watchdog),
            ..Limits::default()
        }
    }
}

/// Which entry of the log brought a clash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The shard.
    pub shard: u32,
    /// The entry.
    pub seq: u64,
}

/// A clash that a resolver failed at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The resolver.
    pub plugin: Plugin,
    /// Where the clash came from.
    pub place: Place,
    /// What the resolver wanted to see.
    pub needs: Needs,
    /// The clash, with its table and its nodes.
    pub alone: Alone,
    /// Why it failed.
    pub why: String,
    /// What else was known.
    pub details: Vec<(String, String)>,
}

impl Replay {
    /// The replay of a clash that this policy failed at.
    pub(crate) fn new(policy: &Policy, alone: &Alone, place: Place, failed: &Failed) -> Self {
        Self {
            plugin: policy.plugin().clone(),
            place,
            needs: policy.needs(),
            alone: alone.clone(),
            why: failed.why.clone(),
            details: failed.details.clone(),
        }
    }

    /// Puts the clash to the resolver once more, as it was put to it then; `bytes` are the component's.
    ///
    /// # Errors
    /// The outer one when the component can't be loaded, the inner one when it gives no verdict.
    pub fn run(&self, host: &PluginHost, bytes: &[u8]) -> Result<Result<Verdict, Failed>, antiphon_plugin::Error> {
        let Plugin { name, source, settings, limits, .. } = &self.plugin;
        let settings: Vec<(String, String)> = settings.clone().into_iter().collect();
        let source = Source { name: name.clone(), origin: Origin::Custom(source.clone()), bytes: Cow::Borrowed(bytes) };
        let mut resolver = host.resolver(&source, &settings, limits.limits())?;
        Ok(resolver.resolve_alone(&self.alone.nodes, &self.alone.table, &self.alone.clash))
    }

    /// Writes it into a folder, where the oldest make room; gives the file. What can't be written is only logged: the
    /// failure itself is worse.
    pub(crate) fn keep(&self, folder: &Path) -> Option<PathBuf> {
        let kept = self.write(folder);
        if let Err(error) = &kept {
            tracing::warn!(folder = %folder.display(), %error, "cannot keep a clash that a resolver failed at");
        }
        kept.ok()
    }

    fn write(&self, folder: &Path) -> std::io::Result<PathBuf> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let text = serde_json::to_vec_pretty(&Written::of(self))?;
        let digest = antiphon_plugin::sha256(&text);
        // The same clash has the same name: whoever starts again and again keeps one file of it.
        let name = format!("{}-{}-{}.json", self.place.shard, self.place.seq, digest.get(..8).unwrap_or_default());
        let path = folder.join(name);
        // Made for its owner alone, and there whole or not at all.
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
        file.write_all(&text)?;
        file.persist(&path).map_err(|error| error.error)?;
        let mut files: Vec<(std::time::SystemTime, PathBuf)> = std::fs::read_dir(folder)?
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json"))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        files.sort();
        for (_, old) in files.iter().take(files.len().saturating_sub(FILES_MAX)) {
            std::fs::remove_file(old)?;
        }
        Ok(path)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it can't be read, or is none that a host wrote.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let text = std::fs::read(path)
            .map_err(|error| Failure::caused(Kind::Missing, format!("cannot read the replay `{shown}`"), &error))?;
        let written: Written = serde_json::from_slice(&text).map_err(|error| {
            Failure::caused(Kind::Data, format!("`{shown}` is no replay of a clash"), &error)
                .hint(format!("a node writes them into `{FOLDER}` in the directory beside its database"))
        })?;
        written.replay().ok_or_else(|| {
            Failure::new(Kind::Data, format!("`{shown}` is no replay that this version reads"))
                .hint(format!("it begins with `\"format\": \"{FORMAT}\"`, and its values are as SQL writes them"))
        })
    }
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: String,
    plugin: Plugin,
    place: Place,
    nodes: Vec<String>,
    table: WrittenTable,
    needs: WrittenNeeds,
    clash: WrittenClash,
    why: String,
    details: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTable {
    name: String,
    columns: Vec<WrittenColumn>,
    without_rowid: bool,
    strict: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenColumn {
    name: String,
    decl_type: String,
    pk_position: u16,
    collation: String,
    not_null: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenNeeds {
    current: bool,
    base: bool,
    stamps: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenClash {
    key: Vec<String>,
    cause: String,
    base: Option<Vec<String>>,
    current: WrittenSide,
    incoming: WrittenSide,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSide {
    node: u32,
    clock: u64,
    seq: u64,
    row: Option<Vec<String>>,
}

impl Written {
    fn of(replay: &Replay) -> Self {
        let Replay { plugin, place, needs, alone: Alone { nodes, table, clash }, why, details } = replay;
        let row = |row: &Row| row.iter().map(literal).collect::<Vec<_>>();
        let side = |side: &Side| {
            let Stamp { node, clock, seq } = side.stamp;
            WrittenSide { node, clock, seq, row: side.row.as_ref().map(row) }
        };
        let column = |column: &Column| WrittenColumn {
            name: column.name.clone(),
            decl_type: column.decl_type.clone(),
            pk_position: column.pk_position,
            collation: column.collation.clone(),
            not_null: column.not_null,
        };
        Self {
            format: FORMAT.to_owned(),
            plugin: plugin.clone(),
            place: *place,
            nodes: nodes.clone(),
            table: WrittenTable {
                name: table.name.clone(),
                columns: table.columns.iter().map(column).collect(),
                without_rowid: table.without_rowid,
                strict: table.strict,
            },
            needs: WrittenNeeds { current: needs.current, base: needs.base, stamps: needs.stamps },
            clash: WrittenClash {
                key: row(&clash.key),
                cause: cause_name(clash.cause).to_owned(),
                base: clash.base.as_ref().map(row),
                current: side(&clash.current),
                incoming: side(&clash.incoming),
            },
            why: why.clone(),
            details: details.clone(),
        }
    }

    fn replay(self) -> Option<Replay> {
        let Self { format, plugin, place, nodes, table, needs, clash, why, details } = self;
        if format != FORMAT {
            return None;
        }
        let row = |row: &Vec<String>| row.iter().map(|text| value(text)).collect::<Option<Row>>();
        let some_row = |some: &Option<Vec<String>>| match some {
            Some(values) => row(values).map(Some),
            None => Some(None),
        };
        let side = |side: &WrittenSide| {
            let stamp = Stamp { node: side.node, clock: side.clock, seq: side.seq };
            Some(Side { stamp, row: some_row(&side.row)? })
        };
        let columns = table.columns.into_iter().map(|column| Column {
            name: column.name,
            decl_type: column.decl_type,
            pk_position: column.pk_position,
            collation: column.collation,
            not_null: column.not_null,
        });
        let clash = Clash {
            table: 0,
            key: row(&clash.key)?,
            cause: match clash.cause.as_str() {
                "same-key" => Cause::SameKey,
                "unique-index" => Cause::UniqueIndex,
                _ => return None,
            },
            base: some_row(&clash.base)?,
            current: side(&clash.current)?,
            incoming: side(&clash.incoming)?,
        };
        let table = Table {
            name: table.name,
            columns: columns.collect(),
            without_rowid: table.without_rowid,
            strict: table.strict,
            ..Table::default()
        };
        let needs = Needs { current: needs.current, base: needs.base, stamps: needs.stamps };
        Some(Replay { plugin, place, needs, alone: Alone { nodes, table, clash }, why, details })
    }
}

/// What a cause is called.
#[must_use]
pub fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::SameKey => "same-key",
        Cause::UniqueIndex => "unique-index",
    }
}

/// A value as SQL writes it.
#[must_use]
pub fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) if number.is_infinite() => if *number > 0.0 { "9e999" } else { "-9e999" }.to_owned(),
        // As many digits as it takes to read the same number, and always a point or an exponent.
        Value::Real(number) => format!("{number:?}"),
        Value::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => format!("'{}'", text.replace('\'', "''")),
            Err(_) => format!("t'{}'", hex(bytes)),
        },
        Value::Blob(bytes) => format!("x'{}'", hex(bytes)),
    }
}

/// The value that a text says, if it is one as [`literal`] writes it.
#[must_use]
pub fn value(text: &str) -> Option<Value> {
    let quoted = |text: &str| Some(text.strip_prefix('\'')?.strip_suffix('\'')?.to_owned());
    let bytes = |hex: String| {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pairs = hex.as_bytes().chunks(2).map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        });
        pairs.collect::<Option<Vec<u8>>>()
    };
    match text.as_bytes().first()? {
        b'N' => (text == "NULL").then_some(Value::Null),
        b'\'' => {
            let inner = quoted(text)?;
            // Each quote in it is doubled; one that is not ended the text.
            let lone = inner.replace("''", "").contains('\'');
            (!lone).then(|| Value::Text(inner.replace("''", "'").into_bytes()))
        }
        b'x' => bytes(quoted(text.get(1..)?)?).map(Value::Blob),
        b't' => bytes(quoted(text.get(1..)?)?).map(Value::Text),
        _ => match text.parse() {
            Ok(number) => Some(Value::Integer(number)),
            Err(_) => text.parse().ok().filter(|number: &f64| !number.is_nan()).map(Value::Real),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn values() -> Vec<Value> {
        let reals = [0.0, -0.0, 1.0, 1e300, -2.5e-300, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, 0.1];
        let integers = [0, -1, i64::MAX, i64::MIN];
        let texts: [&[u8]; 7] = [b"", b"'", b"''", b"it's", "é\n\0".as_bytes(), &[0xff, 0], b"NULL"];
        let mut values = vec![Value::Null, Value::Blob(Vec::new()), Value::Blob(vec![0, 255, 39])];
        values.extend(reals.map(Value::Real));
        values.extend(integers.map(Value::Integer));
        values.extend(texts.map(|bytes| Value::Text(bytes.to_vec())));
        values
    }

    #[test]
    fn every_value_is_read_as_it_was_written() {
        for one in values() {
            assert_eq!(value(&literal(&one)), Some(one.clone()), "{}", literal(&one));
        }
        for text in ["", "null", "'", "'a'b'", "x'0'", "x'0g'", "nan", "NaN", "1 ", "t'ff", "y'00'"] {
            assert_eq!(value(text), None, "{text}");
        }
    }

    fn replay(seq: u64) -> Replay {
        let column = |name: &str, pk_position| Column { name: name.into(), pk_position, ..Column::default() };
        let side = |row| Side { stamp: Stamp { node: 1, clock: 7, seq: 9 }, row };
        Replay {
            plugin: Plugin { name: "mine".into(), settings: [("a".into(), "b".into())].into(), ..Plugin::default() },
            place: Place { shard: 2, seq },
            needs: Needs { current: true, base: false, stamps: true },
            alone: Alone {
                nodes: vec!["3".into(), "14".into()],
                table: Table { name: "t".into(), columns: vec![column("id", 1), column("v", 0)], ..Table::default() },
                clash: Clash {
                    table: 0,
                    key: vec![1.into()],
                    cause: Cause::SameKey,
                    base: None,
                    current: side(Some(values())),
                    incoming: side(None),
                },
            },
            why: "it panicked".into(),
            details: vec![("fuel".into(), "1 of 2".into())],
        }
    }

    #[test]
    fn a_file_is_its_owners_alone_and_says_all_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = replay(5).keep(&folder.path().join(FOLDER)).unwrap();
        assert_eq!(Replay::read(&path).unwrap(), replay(5));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(path.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(replay(5).keep(&folder.path().join(FOLDER)).unwrap(), path, "the same clash has one file");
    }

    #[test]
    fn there_are_never_many_of_them() {
        let folder = tempfile::tempdir().unwrap();
        for seq in 0..FILES_MAX as u64 + 9 {
            replay(seq).keep(folder.path()).unwrap();
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), FILES_MAX);
    }

    #[test]
    fn what_is_no_replay_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let refused = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Replay::read(&path).unwrap_err().to_string()
        };
        assert!(refused("").contains("is no replay of a clash"));
        let whole = serde_json::to_string(&Written::of(&replay(1))).unwrap();
        assert!(refused(&whole.replace("replay 1", "replay 2")).contains("no replay that this version reads"));
        assert!(refused(&whole.replace("\"NULL\"", "\"nothing\"")).contains("no replay that this version reads"));
        assert!(Replay::read(&folder.path().join("b")).unwrap_err().to_string().contains("cannot read the replay"));
    }
}
