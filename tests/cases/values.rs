//! Values, bit for bit: what SQLite holds on one node, every node holds.

use antiphon_harness::{Node, pair, settle};
use rusqlite::ToSql;

/// Puts every value into every column, as a new row and over every other value.
fn round_trip(ddl: &str, values: &[&dyn ToSql]) -> (Node, Node) {
    let (mut a, mut b) = pair(ddl);
    let width = a.one("SELECT count(*) - 1 FROM pragma_table_info('t')").parse::<usize>().unwrap();
    let places = (0..width).map(|_| "?1").collect::<Vec<_>>().join(", ");
    for value in values {
        a.app.execute(&format!("INSERT INTO t VALUES (NULL, {places})"), [value]).unwrap();
    }
    settle(&mut [&mut a, &mut b]);
    let sets = a.rows("SELECT name || ' = ?1' FROM pragma_table_info('t') WHERE pk = 0").join(", ");
    for value in values {
        a.app.execute(&format!("UPDATE t SET {sets} WHERE id % 2"), [value]).unwrap();
        settle(&mut [&mut a, &mut b]);
        b.app.execute(&format!("UPDATE t SET {sets}"), [value]).unwrap();
        settle(&mut [&mut a, &mut b]);
    }
    for value in values {
        a.app.execute(&format!("INSERT INTO t VALUES (NULL, {places})"), [value]).unwrap();
    }
    settle(&mut [&mut a, &mut b]);
    (a, b)
}

const COLUMNS: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, untyped, i INTEGER, r REAL, n NUMERIC, x TEXT, b BLOB)";

/// NaN is NULL to SQLite; infinities and -0.0 stay what they are where SQLite keeps them.
#[test]
fn c90_nan_infinity_and_negative_zero() {
    let numbers =
        [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0, f64::MIN_POSITIVE, 5e-324, f64::MAX, 1.0, 1e300, 0.1];
    let values: Vec<&dyn ToSql> = numbers.iter().map(|number| number as &dyn ToSql).collect();
    let (_, b) = round_trip(COLUMNS, &values);
    let infinite = b.one("SELECT count(*) FROM t WHERE untyped = 9e999 AND r = 9e999 AND typeof(untyped) = 'real'");
    assert_ne!(infinite, "0");
    let zero: Vec<f64> = b
        .app
        .prepare("SELECT untyped FROM t WHERE untyped = 0")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(zero.iter().any(|zero| zero.is_sign_negative()), "-0.0 lost its sign: {zero:?}");
}

/// No integer becomes a float on its way.
#[test]
fn c91_integers_to_their_edges() {
    let numbers = [
        i64::MIN,
        i64::MIN + 1,
        i64::MAX,
        i64::MAX - 1,
        (1 << 53) + 1,
        -(1 << 53) - 1,
        0,
        1,
        -1,
        127,
        128,
        -129,
        1 << 32,
    ];
    let values: Vec<&dyn ToSql> = numbers.iter().map(|number| number as &dyn ToSql).collect();
    let (mut a, mut b) = round_trip(COLUMNS, &values);
    a.sql("DELETE FROM t");
    for number in numbers {
        a.app.execute("INSERT INTO t (id, i) VALUES (?1, ?1)", [number]).unwrap();
    }
    settle(&mut [&mut a, &mut b]);
    let there: Vec<i64> = b
        .app
        .prepare("SELECT i FROM t ORDER BY id")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let mut sorted = numbers;
    sorted.sort_unstable();
    assert_eq!(there, sorted);
}

/// TEXT is bytes with a length: neither bad UTF-8 nor a NUL ends or changes it, in a key as little as elsewhere.
#[test]
fn c92_text_that_is_not_utf8_and_text_with_nul() {
    let (mut a, mut b) = pair(
        "CREATE TABLE t (k TEXT PRIMARY KEY, v TEXT); CREATE TABLE u (k TEXT PRIMARY KEY COLLATE NOCASE, v UNIQUE) WITHOUT ROWID",
    );
    let texts = [
        "CAST(x'FFFE' AS TEXT)",
        "CAST(x'C3' AS TEXT)",
        "CAST(x'EDA080' AS TEXT)",
        "CAST(x'610062' AS TEXT)",
        "CAST(x'6100' AS TEXT)",
        "CAST(x'00' AS TEXT)",
        // Not 'a' and two NULs: NOCASE looks at nothing but the length after the first one.
        "'b' || char(0) || char(0)",
        "'été' || char(0x10FFFF)",
    ];
    for (number, text) in texts.iter().enumerate() {
        a.sql(&format!("INSERT INTO t VALUES ({text}, {text}); INSERT INTO u VALUES ({text}, {text})"));
        if number == 3 {
            settle(&mut [&mut a, &mut b]);
        }
    }
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.one("SELECT count(*) FROM t"), "8");
    assert_eq!(b.one("SELECT hex(v) FROM t WHERE k = CAST(x'610062' AS TEXT)"), "610062");
    assert_eq!(b.one("SELECT hex(v) || typeof(v) FROM u WHERE k = CAST(x'FFFE' AS TEXT)"), "FFFEtext");
    a.sql("UPDATE t SET v = v || CAST(x'FF00' AS TEXT); DELETE FROM u WHERE length(CAST(k AS BLOB)) = 2");
    settle(&mut [&mut a, &mut b]);
    a.sql("DELETE FROM t");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.one("SELECT count(*) FROM t"), "0");
}

/// The empty text, the empty blob and NULL are three values, in every column and in a key.
#[test]
fn c93_empty_text_empty_blob_and_null() {
    let blob: Vec<u8> = Vec::new();
    let values: [&dyn ToSql; 3] = [&"", &blob, &rusqlite::types::Null];
    let (a, b) = round_trip(COLUMNS, &values);
    let kinds = "SELECT DISTINCT typeof(untyped) || ' ' || typeof(x) || ' ' || typeof(b) FROM t ORDER BY 1";
    assert_eq!(b.rows(kinds), ["blob blob blob", "null null null", "text text text"]);
    assert_eq!(a.rows(kinds), b.rows(kinds));
    let (mut a, mut b) = pair("CREATE TABLE t (k PRIMARY KEY NOT NULL, v)");
    a.sql("INSERT INTO t VALUES ('', x''), (x'', ''), (0, NULL)");
    settle(&mut [&mut a, &mut b]);
    a.sql("DELETE FROM t WHERE k = ''; UPDATE t SET v = NULL WHERE k = x''");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT typeof(k), typeof(v) FROM t ORDER BY 1"), ["blob|null", "integer|null"]);
}

/// What has no affinity must not get one on its way: '007' is no number.
#[test]
fn c94_no_affinity_is_added() {
    let values: [&dyn ToSql; 5] = [&"007", &"1e3", &7_i64, &7.0_f64, &" 7"];
    let (_, b) = round_trip(COLUMNS, &values);
    assert_ne!(b.one("SELECT count(*) FROM t WHERE untyped = '007' AND typeof(untyped) = 'text'"), "0");
    let (mut a, mut b) = pair("CREATE TABLE t (k PRIMARY KEY, v)");
    a.sql("INSERT INTO t VALUES ('007', 'a'), ('7', 'b'), (7, 'c'), (x'37', 'd')");
    settle(&mut [&mut a, &mut b]);
    a.sql("DELETE FROM t WHERE k = '7'; UPDATE t SET v = 'e' WHERE k = '007'");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT v FROM t ORDER BY v"), ["c", "d", "e"]);
}

/// The same values under a UNIQUE index, where rows are compared before they are written, and as keys of BLOBs.
#[test]
fn c90_values_beside_a_unique_index_and_in_blob_keys() {
    let ddl = "CREATE TABLE t (k BLOB PRIMARY KEY, u UNIQUE, v, r REAL)";
    let values = [
        "-0.0",
        "0.0",
        "0",
        "9e999",
        "-9e999",
        "9007199254740993",
        "9007199254740992.0",
        "CAST(x'FF00' AS TEXT)",
        "CAST(x'ED' AS TEXT)",
        "x''",
        "x'00'",
        "''",
        "'a' || char(0)",
        "'a'",
        "NULL",
    ];
    let (mut a, mut b) = pair(ddl);
    for (at, value) in values.iter().enumerate() {
        a.sql(&format!("INSERT INTO t VALUES (CAST(x'00{at:02x}00' AS BLOB), 'u' || {at}, {value}, {value})"));
    }
    settle(&mut [&mut a, &mut b]);
    // Each of them over each, so that neighbours that SQLite calls equal follow one another.
    for (round, value) in values.iter().enumerate() {
        let node = if round % 2 == 0 { &mut a } else { &mut b };
        node.sql(&format!("UPDATE t SET v = {value}, r = {value}"));
        settle(&mut [&mut a, &mut b]);
        b.sql(&format!(
            "UPDATE t SET v = CASE v WHEN 0 THEN -0.0 ELSE v END, k = CAST(k || x'00' AS BLOB) WHERE u = 'u{round}'"
        ));
        settle(&mut [&mut a, &mut b]);
    }
    assert_eq!(b.one("SELECT count(*) FROM t WHERE typeof(k) = 'blob' AND length(k) = 4"), values.len().to_string());
    a.sql("UPDATE OR REPLACE t SET u = 'one' WHERE u IN ('u0', 'u1'); DELETE FROM t WHERE k > x'000500'");
    settle(&mut [&mut a, &mut b]);
}
