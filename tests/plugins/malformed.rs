//! T09: answers that make no sense, from a generator. None of them is believed, and no node applies any.

use std::sync::{Arc, LazyLock};

use antiphon_core::hash::PluginError;
use antiphon_core::resolve::{Clash, Resolve, Verdict};
use antiphon_core::schema::{Column, Table};
use antiphon_core::value::Value;
use antiphon_harness::{Make, Setup, pair_with};
use antiphon_plugin::{Limits, Resolver};

use super::alone::clash;
use super::{HOST, custom, guests};

/// The answers lie in the guest's memory, where its allocator does not go. Which one is given is the clash's key.
const RESULTS: usize = 4096;
const DATA: usize = 8192;
const MEMORY: usize = 65536;

/// The table that the answers are about.
const DDL: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, n INTEGER NOT NULL) STRICT";

fn table() -> Table {
    let column = |name: &str, decl_type: &str, pk_position, not_null| Column {
        name: name.into(),
        decl_type: decl_type.into(),
        pk_position,
        collation: "BINARY".into(),
        not_null,
    };
    let columns =
        vec![column("id", "INTEGER", 1, false), column("v", "TEXT", 0, false), column("n", "INTEGER", 0, true)];
    Table { name: "t".into(), columns, strict: true, rowid_key: true, ..Table::default() }
}

/// A piece of the guest's memory that grows.
struct Layout(Vec<u8>);

/// Where a list lies, and how long it says it is.
type List = (u32, u32);

impl Layout {
    fn put(&mut self, bytes: &[u8]) -> u32 {
        while !self.0.len().is_multiple_of(8) {
            self.0.push(0);
        }
        let at = DATA + self.0.len();
        self.0.extend(bytes);
        assert!(DATA + self.0.len() < MEMORY, "the answers don't fit");
        u32::try_from(at).unwrap()
    }

    /// A value as a case and eight bytes.
    fn value(case: u8, payload: [u8; 8]) -> [u8; 16] {
        let mut value = [0; 16];
        value[0] = case;
        value[8..].copy_from_slice(&payload);
        value
    }

    fn bytes(&mut self, case: u8, bytes: &[u8]) -> [u8; 16] {
        let at = self.put(bytes);
        Self::pointed(case, (at, u32::try_from(bytes.len()).unwrap()))
    }

    fn pointed(case: u8, (at, len): List) -> [u8; 16] {
        Self::value(case, [at.to_le_bytes(), len.to_le_bytes()].concat().try_into().unwrap())
    }

    fn row(&mut self, values: &[[u8; 16]]) -> List {
        (self.put(&values.concat()), u32::try_from(values.len()).unwrap())
    }

    fn verdict(case: u8, (at, len): List) -> [u8; 12] {
        let mut verdict = [0; 12];
        verdict[0] = case;
        verdict[4..8].copy_from_slice(&at.to_le_bytes());
        verdict[8..].copy_from_slice(&len.to_le_bytes());
        verdict
    }

    fn result(case: u8, list: List) -> [u8; 12] {
        Self::verdict(case, list)
    }

    fn verdicts(&mut self, verdicts: &[[u8; 12]]) -> [u8; 12] {
        let at = self.put(&verdicts.concat());
        Self::result(0, (at, u32::try_from(verdicts.len()).unwrap()))
    }

    fn merged(&mut self, values: &[[u8; 16]]) -> [u8; 12] {
        let row = self.row(values);
        self.verdicts(&[Self::verdict(MERGE, row)])
    }
}

const KEEP: u8 = 0;
const MERGE: u8 = 2;
const NULL: [u8; 16] = [0; 16];

fn integer(number: i64) -> [u8; 16] {
    Layout::value(1, number.to_le_bytes())
}

fn real(number: f64) -> [u8; 16] {
    Layout::value(2, number.to_le_bytes())
}

/// What each answer is, and the guest that gives it for the clash over its number. Number 0 is `keep`.
struct Answers {
    names: Vec<String>,
    guest: Vec<u8>,
}

static ANSWERS: LazyLock<Answers> = LazyLock::new(|| {
    let mut made = Layout(Vec::new());
    let mut answers: Vec<(String, [u8; 12])> = vec![("keep".into(), made.verdicts(&[[0; 12]]))];
    // Each takes its own key to be right in all but one thing.
    let key = |answers: &Vec<_>| integer(i64::try_from(answers.len()).unwrap());

    for count in [0, 2, 3, 100] {
        let verdicts = vec![Layout::verdict(KEEP, (0, 0)); count];
        answers.push((format!("{count} verdicts"), made.verdicts(&verdicts)));
    }
    for case in [4, 5, 127, 255] {
        answers.push((format!("verdict {case}"), made.verdicts(&[Layout::verdict(case, (0, 0))])));
    }
    for case in [2, 255] {
        answers.push((format!("result {case}"), Layout::result(case, (0, 0))));
    }
    for width in [0, 1, 2, 4, 5, 100] {
        let mut row = vec![key(&answers); width];
        row.iter_mut().skip(1).step_by(2).for_each(|value| *value = NULL);
        answers.push((format!("a row of {width} values"), made.merged(&row)));
    }
    for (what, list) in [
        ("verdicts past the end", (0xffff_fff0, 1)),
        ("verdicts out of line", (4097, 1)),
        ("too many verdicts to count", (4096, 0x1555_5556)),
        ("more verdicts than memory", (4096, 1_000_000)),
    ] {
        answers.push((what.into(), Layout::result(0, list)));
    }
    for (what, list) in [
        ("a row past the end", (0xffff_fff0, 3)),
        ("a row out of line", (4100, 3)),
        ("a row too long to count", (4096, 0x1000_0001)),
        ("a row longer than memory", (4096, 1_000_000)),
    ] {
        answers.push((what.into(), made.verdicts(&[Layout::verdict(MERGE, list)])));
    }
    for number in [-1, i64::MIN, i64::MAX, 1_000] {
        answers.push((format!("key {number}"), made.merged(&[integer(number), NULL, integer(1)])));
    }
    let own = answers.len() as f64;
    let keys = [
        ("NULL", NULL),
        ("a real", real(own)),
        ("NaN", real(f64::NAN)),
        ("infinity", real(f64::INFINITY)),
        ("a text", made.bytes(3, own.to_string().as_bytes())),
        ("a blob", made.bytes(5, &[1])),
        ("nothing", Layout::value(6, [0; 8])),
    ];
    for (what, value) in keys {
        answers.push((format!("{what} for a key"), made.merged(&[value, NULL, integer(1)])));
    }
    let texts = [
        ("an integer", integer(1)),
        ("a real", real(1.5)),
        ("NaN", real(f64::NAN)),
        ("a blob", made.bytes(5, b"x")),
        ("a text that is none", made.bytes(3, &[0xff, 0xfe])),
        ("a text past the end", Layout::pointed(3, (0xffff_ff00, 9))),
        ("a text longer than memory", Layout::pointed(3, (4096, 0x7fff_ffff))),
        ("a raw text past the end", Layout::pointed(4, (0xffff_ff00, 9))),
        ("a blob past the end", Layout::pointed(5, (0x7fff_ff00, 0x1000))),
        ("case 200", Layout::value(200, [0; 8])),
    ];
    for (what, value) in texts {
        let row = [key(&answers), value, integer(1)];
        answers.push((format!("{what} for a text"), made.merged(&row)));
    }
    let numbers = [
        ("NULL", NULL),
        ("a real", real(1.5)),
        ("minus infinity", real(f64::NEG_INFINITY)),
        ("NaN", real(-f64::NAN)),
        ("a text", made.bytes(3, b"1")),
        ("a raw text", made.bytes(4, b"1")),
        ("an empty blob", made.bytes(5, b"")),
        ("case 6", Layout::value(6, [1; 8])),
    ];
    for (what, value) in numbers {
        let row = [key(&answers), NULL, value];
        answers.push((format!("{what} for a number"), made.merged(&row)));
    }
    let reason = made.put(&[0xc3, 0x28]);
    answers.push(("a reason that is no text".into(), Layout::result(1, (reason, 2))));
    answers.push(("a reason past the end".into(), Layout::result(1, (0x7fff_ffff, 9))));

    let data = |at: usize, bytes: &[u8]| {
        let hex: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
        format!(r#"(data (i32.const {at}) "{hex}")"#)
    };
    let results: Vec<u8> = answers.iter().flat_map(|(_, result)| [&result[..], &[0; 4]].concat()).collect();
    assert!(results.len() < DATA - RESULTS);
    // A clash begins with its table's number, then its key, a list of values: the first one's eight bytes are the number.
    let find = format!(
        "(i32.add (i32.const {RESULTS}) (i32.shl (i32.wrap_i64 (i64.load offset=8 (i32.load offset=4 (local.get 0)))) (i32.const 4)))"
    );
    let guest = guests::resolver(&find, &format!("{}{}", data(RESULTS, &results), data(DATA, &made.0)));
    Answers { names: answers.into_iter().map(|(name, _)| name).collect(), guest }
});

fn resolver() -> Resolver {
    HOST.resolver(&custom(&ANSWERS.guest), &[], Limits::default()).unwrap()
}

fn about(number: usize) -> Clash {
    Clash { key: vec![Value::Integer(i64::try_from(number).unwrap())], ..clash() }
}

#[test]
fn t09_no_malformed_answer_is_believed() {
    let mut resolver = resolver();
    resolver.configure(&["1".into()], &[table()]).unwrap();
    assert!(ANSWERS.names.len() > 50, "{} answers", ANSWERS.names.len());
    let mut all = Vec::new();
    for (number, name) in ANSWERS.names.iter().enumerate().skip(1) {
        let error = resolver.resolve(&[about(number)]).expect_err(name).to_string();
        all.push(format!("{name}: {}", error.split_once("): ").unwrap().1));
        assert_eq!(resolver.resolve(&[about(0)]).unwrap(), [Verdict::Keep], "after {name}");
    }
    insta::assert_snapshot!(all.join("\n"), @r"
    0 verdicts: its answer makes no sense: 0 verdicts for 1 clashes
    2 verdicts: its answer makes no sense: 2 verdicts for 1 clashes
    3 verdicts: its answer makes no sense: 3 verdicts for 1 clashes
    100 verdicts: its answer makes no sense: 100 verdicts for 1 clashes
    verdict 4: it crashed with `unexpected discriminant: 4`
    verdict 5: it crashed with `unexpected discriminant: 5`
    verdict 127: it crashed with `unexpected discriminant: 127`
    verdict 255: it crashed with `unexpected discriminant: 255`
    result 2: it crashed with `invalid expected discriminant`
    result 255: it crashed with `invalid expected discriminant`
    a row of 0 values: its answer makes no sense: the row it merged for clash 0 of table `t` has 0 values for 3 columns
    a row of 1 values: its answer makes no sense: the row it merged for clash 0 of table `t` has 1 values for 3 columns
    a row of 2 values: its answer makes no sense: the row it merged for clash 0 of table `t` has 2 values for 3 columns
    a row of 4 values: its answer makes no sense: the row it merged for clash 0 of table `t` has 4 values for 3 columns
    a row of 5 values: its answer makes no sense: the row it merged for clash 0 of table `t` has 5 values for 3 columns
    a row of 100 values: its answer makes no sense: the row it merged for clash 0 of table `t` has 100 values for 3 columns
    verdicts past the end: it crashed with `list pointer/length out of bounds of memory`
    verdicts out of line: it crashed with `list pointer is not aligned`
    too many verdicts to count: it crashed with `list pointer/length out of bounds of memory`
    more verdicts than memory: it crashed with `list pointer/length out of bounds of memory`
    a row past the end: it crashed with `list pointer/length out of bounds of memory`
    a row out of line: it crashed with `list pointer is not aligned`
    a row too long to count: it crashed with `list pointer/length out of bounds of memory`
    a row longer than memory: it crashed with `list pointer/length out of bounds of memory`
    key -1: its answer makes no sense: the row it merged for clash 0 of table `t` has another key
    key -9223372036854775808: its answer makes no sense: the row it merged for clash 0 of table `t` has another key
    key 9223372036854775807: its answer makes no sense: the row it merged for clash 0 of table `t` has another key
    key 1000: its answer makes no sense: the row it merged for clash 0 of table `t` has another key
    NULL for a key: its answer makes no sense: the row it merged for clash 0 of table `t` has another key
    a real for a key: its answer makes no sense: the row it merged for clash 0 of table `t` has real where integer belongs in column `id`
    NaN for a key: its answer makes no sense: the row it merged for clash 0 of table `t` has a NaN in column `id`
    infinity for a key: its answer makes no sense: the row it merged for clash 0 of table `t` has real where integer belongs in column `id`
    a text for a key: its answer makes no sense: the row it merged for clash 0 of table `t` has text where integer belongs in column `id`
    a blob for a key: its answer makes no sense: the row it merged for clash 0 of table `t` has blob where integer belongs in column `id`
    nothing for a key: it crashed with `unexpected discriminant: 6`
    an integer for a text: its answer makes no sense: the row it merged for clash 0 of table `t` has integer where text belongs in column `v`
    a real for a text: its answer makes no sense: the row it merged for clash 0 of table `t` has real where text belongs in column `v`
    NaN for a text: its answer makes no sense: the row it merged for clash 0 of table `t` has a NaN in column `v`
    a blob for a text: its answer makes no sense: the row it merged for clash 0 of table `t` has blob where text belongs in column `v`
    a text that is none for a text: it crashed with `invalid utf-8 sequence of 1 bytes from index 0`
    a text past the end for a text: it crashed with `string pointer/length out of bounds of memory`
    a text longer than memory for a text: it crashed with `string pointer/length out of bounds of memory`
    a raw text past the end for a text: it crashed with `list pointer/length out of bounds of memory`
    a blob past the end for a text: it crashed with `list pointer/length out of bounds of memory`
    case 200 for a text: it crashed with `unexpected discriminant: 200`
    NULL for a number: its answer makes no sense: the row it merged for clash 0 of table `t` has NULL in column `n`
    a real for a number: its answer makes no sense: the row it merged for clash 0 of table `t` has real where integer belongs in column `n`
    minus infinity for a number: its answer makes no sense: the row it merged for clash 0 of table `t` has real where integer belongs in column `n`
    NaN for a number: its answer makes no sense: the row it merged for clash 0 of table `t` has a NaN in column `n`
    a text for a number: its answer makes no sense: the row it merged for clash 0 of table `t` has text where integer belongs in column `n`
    a raw text for a number: its answer makes no sense: the row it merged for clash 0 of table `t` has text where integer belongs in column `n`
    an empty blob for a number: its answer makes no sense: the row it merged for clash 0 of table `t` has blob where integer belongs in column `n`
    case 6 for a number: it crashed with `unexpected discriminant: 6`
    a reason that is no text: it crashed with `invalid utf-8 sequence of 1 bytes from index 0`
    a reason past the end: it crashed with `string pointer/length out of bounds of memory`
    ");
}

/// Two nodes change a row without knowing of each other; the resolver's answer makes no sense. Nothing moves.
#[test]
fn t09_no_malformed_answer_is_applied() {
    // Compiled once: each node makes its resolver anew.
    let make: Make = Arc::new(|| {
        static CACHED: LazyLock<antiphon_plugin::PluginHost> = LazyLock::new(super::cached);
        let resolver = CACHED.resolver(&custom(&ANSWERS.guest), &[], Limits::default()).map_err(PluginError::from)?;
        Ok(Box::new(resolver) as Box<dyn Resolve>)
    });
    let setup = Setup { policies: vec![("t", "mine", make)], ..Setup::default() };
    for (number, name) in ANSWERS.names.iter().enumerate() {
        let (mut a, mut b) = pair_with(&setup, DDL);
        a.sql(&format!("INSERT INTO t VALUES ({number}, 'a', 1)"));
        b.sql(&format!("INSERT INTO t VALUES ({number}, 'b', 2)"));
        a.publish();
        b.publish();
        let before = b.rows("SELECT * FROM t");
        let stopped = [a.try_apply(), b.try_apply()];
        if number == 0 {
            assert_eq!(stopped, [None, None]);
            assert_eq!(a.rows("SELECT * FROM t"), b.rows("SELECT * FROM t"));
            continue;
        }
        for stopped in stopped {
            let reason = stopped.unwrap_or_else(|| panic!("{name} was applied"));
            assert!(reason.contains("mine"), "{name}: {reason}");
        }
        assert_eq!(b.rows("SELECT * FROM t"), before, "{name}");
        let position = b.with(|db| db.position(1).seq);
        let end = b.log_entries(1).len() as u64;
        assert!(position < end, "{name}: the shard went on to {position} of {end}");
        assert_eq!(b.conflicts(), [""; 0], "{name}");
        // And it stops again, at the same place.
        assert!(b.try_apply().is_some(), "{name}");
    }
}
