//! The answers of every laws version, kept as files: a resolver that answers otherwise needs the next version.
//!
//! `laws/NAME@LAWS.toml` holds cases that somebody thought of, and under `drawn` the hash of the answers to thousands
//! that were drawn. A file never changes once its laws were released. A new version gets a new file; the old one stays,
//! for whoever wants to know what a cluster of that time decides.

use std::fmt::Write as _;
use std::path::PathBuf;

use antiphon_bundle::World;
use antiphon_core::resolve::{Cause, Clash, Resolve as _, Side, Stamp, Verdict};
use antiphon_core::schema::{Column, Table};
use antiphon_core::value::{Row, Value};
use antiphon_plugin::{Limits, Resolver};

use super::{HOST, official};

/// How many clashes are drawn.
const DRAWN: usize = 4096;

/// Every file.
fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "tests", "plugins", "laws"].iter().collect()
}

/// Cases of one laws version.
struct Laws {
    settings: Vec<(String, String)>,
    nodes: Vec<String>,
    table: Table,
    cases: Vec<Case>,
    drawn: String,
}

struct Case {
    why: String,
    clash: Clash,
    verdict: Verdict,
}

impl Laws {
    fn read(identity: &str) -> Self {
        let path = folder().join(format!("{identity}.toml"));
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|err| panic!("{}: {err}; new laws need cases of their own", path.display()));
        let file: toml::Table = text.parse().unwrap();
        let nodes: Vec<String> = list(&file["nodes"]).map(ToOwned::to_owned).collect();
        let settings = file["settings"].as_table().unwrap();
        let cases = file["case"].as_array().unwrap().iter();
        Self {
            settings: settings.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect(),
            table: Table {
                name: "t".into(),
                columns: list(&file["columns"]).map(column).collect(),
                strict: file.get("strict").is_some_and(|strict| strict.as_bool().unwrap()),
                ..Table::default()
            },
            cases: cases.map(|case| Case::read(case.as_table().unwrap(), &nodes)).collect(),
            drawn: file["drawn"].as_str().unwrap().to_owned(),
            nodes,
        }
    }

    fn resolver(&self, name: &str) -> Resolver {
        let source = official(World::Resolver, name);
        let mut resolver = HOST.resolver(&source, &self.settings, Limits::default()).unwrap();
        resolver.configure(&self.nodes, std::slice::from_ref(&self.table)).unwrap();
        resolver
    }

    /// Clashes from a sequence of numbers that is always the same.
    fn drawn(&self) -> Vec<Clash> {
        let mut dice = Dice(0);
        (0..DRAWN).map(|_| self.draw(&mut dice)).collect()
    }

    fn draw(&self, dice: &mut Dice) -> Clash {
        let [mut base, mut current, mut incoming] = [(); 3].map(|()| Row::new());
        for column in &self.table.columns {
            let value = dice.value(column);
            // A key is one, and other values change every other time.
            let changed = |dice: &mut Dice| {
                if column.pk_position > 0 || dice.below(2) == 0 { value.clone() } else { dice.value(column) }
            };
            current.push(changed(dice));
            incoming.push(changed(dice));
            base.push(value);
        }
        let [there, stands, came] = [(); 3].map(|()| dice.below(8) > 0);
        let stamp = |dice: &mut Dice| Stamp {
            node: u32::try_from(dice.below(self.nodes.len() as u64)).unwrap(),
            clock: dice.below(4),
            seq: dice.below(100),
        };
        Clash {
            table: 0,
            key: self.table.key_columns().into_iter().map(|at| base[at].clone()).collect(),
            cause: if dice.below(20) == 0 { Cause::UniqueIndex } else { Cause::SameKey },
            base: there.then_some(base),
            current: Side { stamp: stamp(dice), row: stands.then_some(current) },
            incoming: Side { stamp: stamp(dice), row: came.then_some(incoming) },
        }
    }
}

/// Numbers that no library can change: SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (number ^ (number >> 31)) % end
    }

    fn of<const N: usize, T: Clone>(&mut self, some: &[T; N]) -> T {
        let at = usize::try_from(self.below(N as u64)).unwrap();
        some[at].clone()
    }

    fn value(&mut self, column: &Column) -> Value {
        let whole = [0, 1, 2, 3, -1, 1000, i64::MAX, i64::MIN];
        if column.pk_position > 0 {
            return Value::Integer(self.below(100).cast_signed());
        }
        let real = [0.0, -0.0, 0.5, 1.0, 2.5, 1e300, 9_007_199_254_740_992.0, f64::INFINITY, f64::NEG_INFINITY];
        match self.below(8) {
            0 => Value::Null,
            1..=4 => Value::Integer(self.of(&whole)),
            5 => Value::Real(self.of(&real)),
            6 => self.of(&["", "a", "A", "1"]).into(),
            _ => self.of(&[Value::Blob(b"a".to_vec()), Value::Text(vec![0xff])]),
        }
    }
}

impl Case {
    fn read(case: &toml::Table, nodes: &[String]) -> Self {
        let text = |key: &str| case.get(key).map(|value| value.as_str().unwrap());
        let stamp = |key: &str| {
            text(key).map_or_else(Stamp::default, |stamp| {
                let (clock, node) = stamp.split_once(" of ").unwrap();
                let node = nodes.iter().position(|name| name == node).unwrap();
                Stamp { node: u32::try_from(node).unwrap(), clock: clock.parse().unwrap(), seq: 0 }
            })
        };
        let [base, current, incoming] = ["base", "current", "incoming"].map(|key| text(key).map(row));
        let any = [&current, &incoming, &base].into_iter().flatten().next();
        Self {
            why: text("why").unwrap().to_owned(),
            clash: Clash {
                table: 0,
                key: vec![any.map_or_else(|| 1.into(), |row| row[0].clone())],
                cause: if text("cause") == Some("unique-index") { Cause::UniqueIndex } else { Cause::SameKey },
                current: Side { stamp: stamp("current_stamp"), row: current },
                incoming: Side { stamp: stamp("incoming_stamp"), row: incoming },
                base,
            },
            verdict: match text("verdict").unwrap().split_once(' ') {
                Some(("merge", merged)) => Verdict::Merge(row(merged)),
                _ if text("verdict") == Some("keep") => Verdict::Keep,
                _ if text("verdict") == Some("take") => Verdict::Take,
                _ => panic!("no verdict: {case}"),
            },
        }
    }
}

fn list(value: &toml::Value) -> impl Iterator<Item = &str> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap())
}

/// `NAME TYPE`; the first one of a table is its key.
fn column(text: &str) -> Column {
    let (name, decl_type) = text.split_once(' ').unwrap_or((text, ""));
    let pk_position = u16::from(name == "id");
    Column { name: name.into(), decl_type: decl_type.into(), pk_position, collation: "BINARY".into(), not_null: false }
}

/// Values joined by ` | `: NULL, 1, 1.0, 'text', x'00' for a blob, t'ff' for text that is not UTF-8.
fn row(text: &str) -> Row {
    text.split(" | ").map(value).collect()
}

fn value(text: &str) -> Value {
    let quoted = |prefix: &str| text.strip_prefix(prefix)?.strip_suffix('\'');
    let bytes = |hex: &str| {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect::<Vec<_>>()
    };
    if text == "NULL" {
        return Value::Null;
    }
    if let Some(text) = quoted("'") {
        return text.into();
    }
    if let Some(hex) = quoted("x'") {
        return Value::Blob(bytes(hex));
    }
    if let Some(hex) = quoted("t'") {
        return Value::Text(bytes(hex));
    }
    text.parse().map(Value::Integer).unwrap_or_else(|_| Value::Real(text.parse().unwrap()))
}

/// Every answer in a line of its own, bit for bit.
fn written(verdicts: &[Verdict]) -> String {
    let mut text = String::new();
    for verdict in verdicts {
        match verdict {
            Verdict::Keep => text.push_str("keep"),
            Verdict::Take => text.push_str("take"),
            Verdict::Remove => text.push_str("remove"),
            Verdict::Merge(row) => {
                text.push_str("merge");
                for value in row {
                    let _ = match value {
                        Value::Null => write!(text, " null"),
                        Value::Integer(number) => write!(text, " integer {number}"),
                        Value::Real(number) => write!(text, " real {:016x}", number.to_bits()),
                        Value::Text(bytes) => write!(text, " text {bytes:02x?}"),
                        Value::Blob(bytes) => write!(text, " blob {bytes:02x?}"),
                    };
                }
            }
        }
        text.push('\n');
    }
    text
}

fn resolvers() -> impl Iterator<Item = &'static str> {
    antiphon_bundle::ALL.iter().filter(|component| component.world == World::Resolver).map(|component| component.name)
}

fn identity(name: &str) -> String {
    HOST.resolver(&official(World::Resolver, name), &[], Limits::default()).unwrap().identity().to_owned()
}

#[test]
fn every_resolver_answers_as_its_laws_say() {
    let mut wrong = Vec::new();
    for name in resolvers() {
        let laws = Laws::read(&identity(name));
        let mut resolver = laws.resolver(name);
        for Case { why, clash, verdict } in &laws.cases {
            let answer = resolver.resolve(std::slice::from_ref(clash)).unwrap().remove(0);
            if answer != *verdict {
                wrong.push(format!("{name}: {why}: {answer:?}, and the laws say {verdict:?}"));
            }
        }
        let drawn = antiphon_plugin::sha256(written(&resolver.resolve(&laws.drawn()).unwrap()).as_bytes());
        if drawn != laws.drawn {
            wrong.push(format!("{name}: drawn clashes: {drawn}, and the laws say {}", laws.drawn));
        }
    }
    assert!(wrong.is_empty(), "an answer changed; raise the laws of the component\n{}", wrong.join("\n"));
}

/// A file that nobody runs protects nothing, and one that is gone can't be compared with.
#[test]
fn every_version_of_every_resolvers_laws_is_kept() {
    let mut expected: Vec<String> = Vec::new();
    for name in resolvers() {
        let identity = identity(name);
        let latest: u32 = identity.rsplit_once('@').unwrap().1.parse().unwrap();
        expected.extend((1..=latest).map(|laws| format!("{name}@{laws}.toml")));
    }
    let files = std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = files.collect();
    files.sort();
    expected.sort();
    assert_eq!(files, expected);
}
