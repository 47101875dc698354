//! Schemas that come and go while nodes run, and the database as the application likes it.

use antiphon_harness::{eventually, settled};

use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";

/// A table made while the host runs is replicated without a restart.
#[test]
fn a_table_created_while_running_is_picked_up() {
    let place = place();
    let mut a = place.site("a", TABLE);
    let mut b = place.site("b", TABLE);
    a.start();
    b.start();
    let create = "CREATE TABLE later (name TEXT PRIMARY KEY, n INTEGER)";
    a.sql(&format!("{create}; INSERT INTO later VALUES ('a', 1), ('b', 2)"));
    b.wait_for_words("which this database does not have; create it here");
    assert!(b.said().contains("`later`"), "{}", b.said());
    b.sql(create);
    eventually("its rows arrive", || b.one("SELECT count(*) FROM later") == "2");
    b.sql("INSERT INTO later VALUES ('c', 3); UPDATE later SET n = 20 WHERE name = 'b'");
    eventually("and go back", || a.rows("SELECT * FROM later ORDER BY name") == ["a|1", "b|20", "c|3"]);
    settled(&[&a, &b]);
}

/// A row that came from the log before the table was captured here is not this node's to send.
#[test]
fn a_table_created_later_sends_nothing_back() {
    let place = place();
    let mut a = place.site("a", TABLE);
    let mut b = place.site("b", TABLE);
    a.start();
    b.start();
    for table in 0..10 {
        let create = format!("CREATE TABLE t{table} (id INTEGER PRIMARY KEY)");
        a.sql(&format!("{create}; INSERT INTO t{table} VALUES (1), (2), (3)"));
        b.sql(&create);
    }
    eventually("all rows arrive", || (0..10).all(|table| b.one(&format!("SELECT count(*) FROM t{table}")) == "3"));
    settled(&[&a, &b]);
    assert_eq!(place.written_by(b.node()), 0);
}

/// A column that one node lacks pauses it in words, and nothing is dropped meanwhile.
#[test]
fn an_unknown_column_pauses_and_resumes() {
    let place = place();
    let mut a = place.site("a", TABLE);
    let mut b = place.site("b", TABLE);
    a.start();
    b.start();
    a.sql("ALTER TABLE t ADD COLUMN extra; INSERT INTO t VALUES (1, 'v', 'more')");
    b.wait_for_words("it sets column `extra` of table `t`, which this database does not have");
    assert!(b.said().contains("ALTER TABLE … ADD COLUMN"), "{}", b.said());
    b.sql("INSERT INTO t (id, v) VALUES (2, 'captured all the same')");
    assert_eq!(b.one("SELECT count(*) FROM t WHERE id = 1"), "0");
    b.sql("ALTER TABLE t ADD COLUMN extra");
    eventually("it resumes", || b.rows("SELECT * FROM t ORDER BY id") == ["1|v|more", "2|captured all the same|NULL"]);
    eventually("both have both", || a.one("SELECT count(*) FROM t") == "2");
    b.wait_for_words("resumed");
    settled(&[&a, &b]);
}

/// A database without a write-ahead log is replicated as well.
#[test]
fn a_rollback_journal_works() {
    let place = place();
    let mut a = place.site("a", &format!("PRAGMA journal_mode = DELETE; {TABLE} INSERT INTO t VALUES (0, 'before')"));
    let mut b = place.site("b", &format!("PRAGMA journal_mode = DELETE; {TABLE}"));
    a.start();
    b.start();
    for id in 1..=50 {
        a.sql(&format!("INSERT INTO t VALUES ({id}, 'a')"));
        b.sql(&format!("INSERT INTO t VALUES ({id} + 100, 'b')"));
    }
    eventually("all rows are everywhere", || [&a, &b].iter().all(|site| site.one("SELECT count(*) FROM t") == "101"));
    settled(&[&a, &b]);
    for site in [&a, &b] {
        assert_eq!(site.one("PRAGMA journal_mode"), "delete");
        assert!(!site.database.with_extension("db-wal").exists());
    }
    a.kill9();
    a.start();
    b.sql("INSERT INTO t VALUES (999, 'after')");
    eventually("and after a crash", || a.one("SELECT count(*) FROM t") == "102");
}

/// Nothing of ours stays behind, and nothing of the application's goes.
#[test]
fn cleanup_removes_every_trace() {
    let place = place();
    let tables = "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v UNIQUE);
                  CREATE TABLE \"a\"\"b;-- é\" (\"select\" TEXT PRIMARY KEY) WITHOUT ROWID;
                  CREATE TABLE audit (id INTEGER PRIMARY KEY, what);
                  CREATE TRIGGER on_t AFTER INSERT ON t BEGIN INSERT INTO audit (what) VALUES (new.v); END;
                  CREATE VIEW seen AS SELECT * FROM audit; CREATE INDEX by_what ON audit (what);
                  INSERT INTO t (v) VALUES ('x'), ('y'); INSERT INTO \"a\"\"b;-- é\" VALUES ('k');";
    let mut a = place.site("a", tables);
    let schema = a.schema();
    a.start();
    a.sql("INSERT INTO t (v) VALUES ('z')");
    eventually("it is captured", || a.is_quiet());
    a.term();
    let with_ours = a.schema();
    assert_ne!(with_ours, schema);
    let rows = a.dump();

    let dry = a.verb("cleanup", &["--dry-run"]);
    dry.expect(0, &["objects would be removed"]);
    assert_eq!(a.schema(), with_ours, "a dry run removes nothing");
    let wet = a.verb("cleanup", &[]);
    wet.expect(0, &["objects removed"]);
    assert_eq!(dry.stdout, wet.stdout, "the dry run said what was to come");
    assert_eq!(a.schema(), schema);
    assert_eq!(a.dump(), rows);
    a.verb("cleanup", &[]).expect(0, &["there is no trace of Antiphon"]);
    assert_eq!(a.one("PRAGMA integrity_check"), "ok");
}

/// An unordered end leaves triggers and marks; they go, too.
#[test]
fn cleanup_works_after_a_crash() {
    let place = place();
    let mut a = place.site("a", &format!("{TABLE} INSERT INTO t VALUES (1, 'x')"));
    let schema = a.schema();
    a.start();
    eventually("the row that was there is sent", || a.is_quiet());
    a.kill9();
    a.sql("INSERT INTO t VALUES (2, 'marked')");
    a.verb("cleanup", &["--dry-run"])
        .expect(0, &["changes would be given up: ", " and 1 marked row had not come back"]);
    a.verb("cleanup", &[])
        .expect(0, &["changes were given up: ", " and 1 marked row had not come back", "objects removed"]);
    assert_eq!(a.schema(), schema);
    assert_eq!(a.one("SELECT count(*) FROM t"), "2");
    a.sql("INSERT INTO t VALUES (3, 'free')");
}
