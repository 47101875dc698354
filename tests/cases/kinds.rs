//! Kinds of tables, and what stands beside tables: generated columns, virtual tables, views, names of any shape.

use antiphon_harness::{pair, settle};

/// Every kind of table that SQLite has goes the same way.
#[test]
fn c95_every_kind_of_table() {
    for (ddl, keys) in [
        ("(k INTEGER PRIMARY KEY, v)", ["1", "2", "3"]),
        ("(k INTEGER PRIMARY KEY AUTOINCREMENT, v)", ["1", "2", "3"]),
        ("(k INTEGER PRIMARY KEY DESC, v)", ["1", "2", "3"]),
        ("(v, k TEXT PRIMARY KEY)", ["'a'", "'b'", "'c'"]),
        ("(k INTEGER PRIMARY KEY, v ANY) STRICT", ["1", "2", "3"]),
        ("(v TEXT, k ANY PRIMARY KEY) STRICT, WITHOUT ROWID", ["1", "'1'", "x'31'"]),
        ("(v, k TEXT PRIMARY KEY) WITHOUT ROWID", ["'a'", "'b'", "'c'"]),
        ("(v, k PRIMARY KEY)", ["1.5", "'1.5'", "x'01'"]),
        ("(l INTEGER DEFAULT 7, v, k TEXT, PRIMARY KEY (k, l))", ["'a'", "'b'", "'c'"]),
        ("(l INTEGER DEFAULT 7, v, k TEXT, PRIMARY KEY (k DESC, l)) WITHOUT ROWID", ["'a'", "'b'", "'c'"]),
        ("(k INTEGER NOT NULL UNIQUE, v, rowid TEXT PRIMARY KEY DEFAULT 'r')", ["1", "2", "3"]),
        ("(k REAL PRIMARY KEY, v)", ["1", "2.5", "-9e999"]),
    ] {
        let (mut a, mut b) = pair(&format!("CREATE TABLE t {ddl}"));
        if !ddl.contains("rowid TEXT") {
            a.sql(&format!("INSERT INTO t (k, v) VALUES ({}, 'one'), ({}, 'two')", keys[0], keys[1]));
        } else {
            a.sql(&format!(
                "INSERT INTO t (k, v, rowid) VALUES ({}, 'one', 'r1'), ({}, 'two', 'r2')",
                keys[0], keys[1]
            ));
        }
        settle(&mut [&mut a, &mut b]);
        b.sql(&format!("UPDATE t SET v = 'changed' WHERE k = {}", keys[0]));
        settle(&mut [&mut a, &mut b]);
        a.sql(&format!("UPDATE t SET k = {} WHERE k = {}", keys[2], keys[1]));
        settle(&mut [&mut a, &mut b]);
        a.sql(&format!("DELETE FROM t WHERE k = {}", keys[0]));
        settle(&mut [&mut a, &mut b]);
        assert_eq!(b.rows("SELECT v FROM t"), ["two"], "{ddl}");
        assert_eq!(b.one(&format!("SELECT count(*) FROM t WHERE k = {}", keys[2])), "1", "{ddl}");
    }
}

/// A table of nothing but its key is a table.
#[test]
fn c95_tables_of_keys_alone() {
    let (mut a, mut b) =
        pair("CREATE TABLE i (id INTEGER PRIMARY KEY); CREATE TABLE m (x, y, PRIMARY KEY (x, y)) WITHOUT ROWID");
    a.sql("INSERT INTO i VALUES (1), (2); INSERT INTO m VALUES (1, 'a'), (1, 'b')");
    settle(&mut [&mut a, &mut b]);
    a.sql("UPDATE i SET id = 3 WHERE id = 1; UPDATE m SET y = 'c' WHERE y = 'a'; DELETE FROM i WHERE id = 2");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM i"), ["3"]);
    assert_eq!(b.rows("SELECT * FROM m ORDER BY y"), ["1|b", "1|c"]);
}

/// Generated columns are computed wherever the row is, and never written.
#[test]
fn c96_generated_columns_are_computed_on_every_node() {
    let (mut a, mut b) = pair(
        "CREATE TABLE t (g AS (w + h) VIRTUAL, id INTEGER PRIMARY KEY, w, s AS (w * h) STORED, h, u UNIQUE);
         CREATE INDEX by_area ON t (s); CREATE UNIQUE INDEX by_h ON t (h, u)",
    );
    a.sql("INSERT INTO t (id, w, h, u) VALUES (1, 2, 3, 'x'), (2, 5, 7, 'y')");
    settle(&mut [&mut a, &mut b]);
    a.sql("UPDATE t SET h = 10 WHERE id = 1");
    b.sql("INSERT OR REPLACE INTO t (id, w, h, u) VALUES (3, 1, 1, 'y')");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT id, g, s FROM t ORDER BY id"), ["1|12|20", "3|2|1"]);
}

/// A virtual table can't be captured; it and what it stores its index in are left alone, and nothing fails.
#[test]
fn c97_full_text_tables_are_left_alone() {
    let (mut a, mut b) = pair(
        "CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT);
         CREATE VIRTUAL TABLE own USING fts5 (body);
         CREATE VIRTUAL TABLE search USING fts5 (body, content = 'docs', content_rowid = 'id');
         CREATE TRIGGER i AFTER INSERT ON docs BEGIN INSERT INTO search (rowid, body) VALUES (NEW.id, NEW.body); END;",
    );
    a.sql("INSERT INTO docs VALUES (1, 'the quick brown fox'); INSERT INTO own VALUES ('only here')");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT body FROM docs"), ["the quick brown fox"]);
    assert_eq!(a.rows("SELECT rowid FROM search WHERE search MATCH 'fox'"), ["1"]);
    assert_eq!(b.one("SELECT count(*) FROM own"), "0");
    assert_eq!(a.with(|db| db.table_names().map(str::to_owned).collect::<Vec<_>>()), ["docs"]);
    b.sql("INSERT INTO search (search) VALUES ('rebuild')");
    assert_eq!(b.rows("SELECT rowid FROM search WHERE search MATCH 'fox'"), ["1"]);
}

/// A view is no table; what its INSTEAD OF triggers write is.
#[test]
fn c98_views_are_seen_through() {
    let (mut a, mut b) = pair(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v);
         CREATE VIEW shown AS SELECT id, upper(v) AS v FROM t;
         CREATE TRIGGER i INSTEAD OF INSERT ON shown BEGIN INSERT INTO t VALUES (NEW.id, lower(NEW.v)); END;
         CREATE TRIGGER d INSTEAD OF DELETE ON shown BEGIN DELETE FROM t WHERE id = OLD.id; END;",
    );
    a.sql("INSERT INTO shown VALUES (1, 'X'), (2, 'Y')");
    settle(&mut [&mut a, &mut b]);
    b.sql("DELETE FROM shown WHERE id = 1");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(a.rows("SELECT * FROM t"), ["2|y"]);
}

/// Names nobody should use, and somebody does.
pub(crate) const NAMES: &[&str] = &[
    "select",
    "a\"b;--",
    "été",
    "9lives",
    "sqlitex",
    "sqlit_e",
    "it's",
    "[x]",
    "`x`",
    "a b",
    "tab\there",
    "line\nbreak",
    "%_%",
    "new",
    "old",
    "t",
    "l",
    "excluded",
    "rowid_",
    "val_x",
    "op",
    "main.x",
    "?1",
    ":p",
    "$p",
    "\"",
    "\"\"",
    "'",
    ";",
    "--",
    "/*",
    "on_insert",
    "x_change_log",
    "_antiphon",
    "meta",
    "NULL",
    "🦀",
    "\u{202e}rtl",
];

/// Any name goes, for tables, columns, keys and UNIQUE values.
#[test]
fn c99_names_of_any_shape_replicate() {
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let long = "n".repeat(64 << 10);
    let mut names: Vec<&str> = NAMES.to_vec();
    names.push(&long);
    let ddl: String = names
        .iter()
        .map(|name| {
            format!(
                "CREATE TABLE {0} ({0} TEXT PRIMARY KEY, {1} UNIQUE, {2});",
                quote(name),
                quote(&format!("u {name}")),
                quote(&format!("v {name}"))
            )
        })
        .collect();
    let (mut a, mut b) = pair(&ddl);
    for name in &names {
        a.sql(&format!("INSERT INTO {} VALUES ('a', 1, 'x'), ('b', 2, 'y')", quote(name)));
    }
    settle(&mut [&mut a, &mut b]);
    for name in &names {
        b.sql(&format!(
            "INSERT OR REPLACE INTO {0} VALUES ('c', 1, 'z'); UPDATE {0} SET {0} = 'd' WHERE {0} = 'b'",
            quote(name)
        ));
    }
    settle(&mut [&mut a, &mut b]);
    for name in &names {
        assert_eq!(a.rows(&format!("SELECT * FROM {0} ORDER BY 1", quote(name))), ["c|1|z", "d|2|y"], "{name}");
    }
    // Triggers are known again by their text, so none is taken for stale and made anew.
    assert_eq!(a.with(|db| db.install(true).unwrap()), [""; 0]);
}

/// In a trigger, a table called `new` must not be taken for the new row: every row would be marked at every write.
#[test]
fn c99_a_table_called_new_marks_only_what_collides() {
    let (a, _) = pair("CREATE TABLE new (id INTEGER PRIMARY KEY, u UNIQUE)");
    a.sql("WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 50) INSERT INTO new SELECT i, i FROM n");
    a.seal();
    a.sql("INSERT INTO new VALUES (100, 100); UPDATE new SET u = 101 WHERE id = 100");
    assert_eq!(a.rows("SELECT op, val_id FROM __antiphon__new_change_log WHERE op <> 4"), ["1|100", "2|100"]);
    assert_eq!(a.one("SELECT count(*) FROM __antiphon__new_change_log WHERE op = 4"), "0");
}

/// A name means the table of the main database, however it is spelled, and whatever else is called the same.
#[test]
fn c100_names_mean_the_main_databases_table() {
    let (mut a, mut b) = pair("CREATE TABLE Items (id INTEGER PRIMARY KEY, u UNIQUE, v)");
    a.sql("INSERT INTO iTEMS VALUES (1, 'x', 'main')");
    a.sql(
        "CREATE TEMP TABLE items (id INTEGER PRIMARY KEY, u UNIQUE, v); INSERT INTO items VALUES (7, 'x', 'temp');
         ATTACH ':memory:' AS other; CREATE TABLE other.items (id INTEGER PRIMARY KEY, u, v); INSERT INTO other.items VALUES (8, 'x', 'other')",
    );
    a.sql(
        "INSERT INTO main.items VALUES (2, 'y', 'main'); INSERT OR REPLACE INTO main.ITEMS VALUES (3, 'x', 'replaces')",
    );
    a.publish();
    assert_eq!(b.apply(), None);
    assert_eq!(b.rows("SELECT * FROM items ORDER BY id"), ["2|y|main", "3|x|replaces"]);
    b.sql("UPDATE items SET v = 'of b'");
    b.publish();
    assert_eq!(a.apply(), None);
    assert_eq!(a.rows("SELECT v FROM main.items"), ["of b", "of b"]);
    assert_eq!(a.rows("SELECT v FROM items"), ["temp"]);
    assert_eq!(a.rows("SELECT v FROM other.items"), ["other"]);
}
