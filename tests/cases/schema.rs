//! Schemas that change while the host runs, on one node before the other.

use antiphon::flaw::testing::on_fault;
use antiphon::log::Memory;
use antiphon_harness::{Dice, Node, Setup, found, pair, pair_with, settle};
use rusqlite::functions::FunctionFlags;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v)";

/// A column this node lacks holds its shard up, with the remedy, until it is there; no value is dropped.
#[test]
fn c84_an_unknown_column_pauses_the_shard_until_it_exists() {
    let (mut a, mut b) = pair(TABLE);
    a.sql("INSERT INTO t VALUES (1, 'x')");
    settle(&mut [&mut a, &mut b]);
    a.sql("ALTER TABLE t ADD COLUMN extra; UPDATE t SET extra = 'e'; INSERT INTO t VALUES (2, 'y', 'f')");
    a.publish();
    let reason = b.apply().expect("an unknown column");
    assert!(reason.contains("`extra`") && reason.contains("ALTER TABLE"), "{reason}");
    // It goes on writing meanwhile, and what it writes arrives.
    b.sql("INSERT INTO t VALUES (3, 'z')");
    b.publish();
    assert_eq!(b.rows("SELECT * FROM t"), ["1|x", "3|z"]);
    b.sql("ALTER TABLE t ADD COLUMN extra");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|x|e", "2|y|f", "3|z|NULL"]);
}

/// A column that only the receiver has keeps its value, and takes its default in a new row.
#[test]
fn c84_a_column_only_this_node_has_keeps_its_value() {
    for unique in ["", " UNIQUE"] {
        let (mut a, mut b) = pair(&format!("CREATE TABLE t (id INTEGER PRIMARY KEY, v{unique})"));
        a.sql("INSERT INTO t VALUES (1, 'x')");
        settle(&mut [&mut a, &mut b]);
        for node in [&a, &b] {
            node.sql("ALTER TABLE t ADD COLUMN mine DEFAULT 'd'");
        }
        b.sql("UPDATE t SET mine = 'kept'");
        settle(&mut [&mut a, &mut b]);
        a.sql("ALTER TABLE t DROP COLUMN mine");
        a.sql("UPDATE t SET v = 'changed'; INSERT INTO t VALUES (2, 'y')");
        a.publish();
        assert_eq!(b.apply(), None);
        assert_eq!(b.rows("SELECT * FROM t"), ["1|changed|kept", "2|y|d"]);
    }
}

/// A table this node lacks holds its shard up, with the remedy, until it is there.
#[test]
fn c83_an_unknown_table_pauses_the_shard_until_it_exists() {
    let (mut a, mut b) = pair(TABLE);
    a.sql("CREATE TABLE late (id INTEGER PRIMARY KEY, v); INSERT INTO late VALUES (1, 'x')");
    a.publish();
    let reason = b.apply().expect("an unknown table");
    assert!(reason.contains("`late`") && reason.contains("exclude"), "{reason}");
    b.sql("CREATE TABLE late (id INTEGER PRIMARY KEY, v)");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM late"), ["1|x"]);
}

/// A table that appears while the host runs is captured, its rows included, with one shard and with several.
#[test]
fn c82_a_table_created_after_the_start_is_picked_up() {
    for shards in [1, 3] {
        let (mut a, mut b) = pair_with(&Setup { shards, ..Setup::default() }, TABLE);
        for node in [&a, &b] {
            node.sql("CREATE TABLE late (id INTEGER PRIMARY KEY, v)");
        }
        a.sql("INSERT INTO late VALUES (1, 'before the host saw it')");
        settle(&mut [&mut a, &mut b]);
        b.sql("INSERT INTO late VALUES (2, 'after')");
        settle(&mut [&mut a, &mut b]);
        assert_eq!(a.rows("SELECT * FROM late"), ["1|before the host saw it", "2|after"]);
    }
}

/// Rows that came from the log into a new table are no changes of this node's: sent again, they undo later ones.
#[test]
fn c82_rows_applied_to_a_new_table_are_not_sent_again() {
    let (mut a, mut b) = pair(TABLE);
    a.sql("CREATE TABLE late (id INTEGER PRIMARY KEY, v); INSERT INTO late VALUES (1, 'v1')");
    a.publish();
    b.sql("CREATE TABLE late (id INTEGER PRIMARY KEY, v)");
    // The subscriber comes upon the table before the publisher does.
    assert_eq!(b.apply(), None);
    a.sql("UPDATE late SET v = 'v2'");
    a.publish();
    b.publish();
    settle(&mut [&mut a, &mut b]);
    assert_eq!(a.rows("SELECT * FROM late"), ["1|v2"]);
}

/// Rows of a new table that no trigger has seen yet are committed writes like any other: not to be written over.
#[test]
fn c82_rows_of_a_new_table_are_not_written_over() {
    let (mut a, mut b) = pair(TABLE);
    let late = "CREATE TABLE late (id INTEGER PRIMARY KEY, v);";
    a.sql(&format!("{late} INSERT INTO late VALUES (1, 'a')"));
    a.publish();
    b.sql(&format!("{late} INSERT INTO late VALUES (1, 'b')"));
    assert_eq!(b.apply(), None);
    assert_eq!(b.rows("SELECT * FROM late"), ["1|b"]);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(a.rows("SELECT * FROM late"), ["1|b"]);
}

/// While triggers await renewal, marks that are there already still protect their rows.
#[test]
fn c82_marks_count_while_triggers_await_renewal() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, u, v); CREATE UNIQUE INDEX by_u ON t (u)");
    a.sql("INSERT INTO t VALUES (1, 1, 'old')");
    settle(&mut [&mut a, &mut b]);
    a.sql("UPDATE t SET v = 'a'");
    a.publish();
    b.sql("UPDATE t SET v = 'b'; DROP INDEX by_u");
    assert_eq!(b.apply(), None);
    assert_eq!(b.rows("SELECT v FROM t"), ["b"]);
    a.sql("DROP INDEX by_u");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(a.rows("SELECT v FROM t"), ["b"]);
}

/// One UNIQUE index in place of another: the triggers follow, or REPLACE hides deletes again.
#[test]
fn c82_a_unique_index_that_changes_its_columns_is_followed() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, x, y); CREATE UNIQUE INDEX u ON t (x)");
    a.sql("INSERT INTO t VALUES (1, 1, 1), (2, 2, 2)");
    settle(&mut [&mut a, &mut b]);
    for node in [&a, &b] {
        node.sql("DROP INDEX u; CREATE UNIQUE INDEX u ON t (y)");
    }
    settle(&mut [&mut a, &mut b]);
    // By the time of the seal the value is free again: only a mark knows that row 1 went for its sake.
    a.sql("INSERT OR REPLACE INTO t VALUES (3, 3, 1); UPDATE t SET y = 9 WHERE id = 3");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT id FROM t ORDER BY id"), ["2", "3"]);
}

/// A key column under a new name keeps its table captured, marks from before included.
#[test]
fn c81_a_renamed_key_column_is_followed() {
    let (mut a, mut b) = pair(TABLE);
    a.sql("INSERT INTO t VALUES (1, 'x'), (2, 'y')");
    settle(&mut [&mut a, &mut b]);
    b.sql("ALTER TABLE t RENAME COLUMN id TO key");
    a.sql("UPDATE t SET v = 'before' WHERE id = 1; ALTER TABLE t RENAME COLUMN id TO key; UPDATE t SET v = 'after' WHERE key = 2");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|before", "2|after"]);
}

/// Columns come, go and change their names by plain ALTER TABLE.
#[test]
fn c81_plain_alter_table_succeeds() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, v, w)");
    a.sql("INSERT INTO t VALUES (1, 'x', 'w')");
    settle(&mut [&mut a, &mut b]);
    for ddl in
        ["ALTER TABLE t ADD COLUMN n DEFAULT 5", "ALTER TABLE t RENAME COLUMN v TO vv", "ALTER TABLE t DROP COLUMN w"]
    {
        a.sql(ddl);
        b.sql(ddl);
        a.sql("UPDATE t SET id = id + 1");
        settle(&mut [&mut a, &mut b]);
    }
    assert_eq!(b.rows("SELECT id, vv, n FROM t"), ["4|x|5"]);
}

/// What can't be applied is not passed over: the position stays before it, over a start as well, and all of it comes
/// once the table is as it must be.
#[test]
fn c80_the_position_waits_with_the_entry() {
    let (mut a, mut b) = pair(TABLE);
    a.sql("INSERT INTO t VALUES (1, 'x')");
    settle(&mut [&mut a, &mut b]);
    a.sql("INSERT INTO t VALUES (2, 'before')");
    a.publish();
    a.sql("ALTER TABLE t ADD COLUMN extra DEFAULT 'd'; INSERT INTO t VALUES (3, 'y', 'e')");
    a.publish();
    a.sql("DELETE FROM t WHERE id = 1; UPDATE t SET extra = 'f' WHERE id = 2");
    a.publish();
    let last = b.with(|db| db.position(1).seq);
    for round in 0..3 {
        let reason = b.apply().unwrap_or_default();
        assert!(reason.contains("`extra`"), "{reason}");
        // The entry before it is applied, and nothing of those after.
        assert_eq!(b.rows("SELECT * FROM t ORDER BY id").len(), 2 + round);
        assert_eq!(b.with(|db| db.position(1).seq), last + 1);
        b.crash();
        b.sql(&format!("INSERT INTO t VALUES ({round} + 10, 'of b')"));
    }
    b.sql("ALTER TABLE t ADD COLUMN extra DEFAULT 'd'");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(a.rows("SELECT * FROM t ORDER BY id"), ["2|before|f", "3|y|e", "10|of b|d", "11|of b|d", "12|of b|d"]);
}

/// Three nodes get a column one after the other while all of them write. No value of it becomes NULL, and no row of a
/// node that had to wait is missing.
#[test]
fn c84_a_rolling_upgrade_of_three_nodes() {
    for seed in 1..=30 {
        let log = Arc::new(Memory::new());
        let shards = 1 + u32::try_from(seed % 3).unwrap();
        let setup = |node| Setup { node, shards, changes_max: 6, ..Setup::default() };
        let mut nodes = [1, 2, 3].map(|node| Node::new(&log, setup(node), TABLE));
        {
            let [a, b, c] = &mut nodes;
            found(&mut [a, b, c]);
        }
        let mut dice = Dice::new(seed);
        let mut upgraded = [false; 3];
        let mut shared: BTreeSet<u64> = BTreeSet::new();
        // What each node's own rows were last given.
        let mut own: BTreeMap<u64, (u64, Option<u64>)> = BTreeMap::new();
        for step in 0..240 {
            let at = usize::try_from(dice.below(3)).unwrap();
            let (node, id) = (&mut nodes[at], 100 * at as u64 + dice.below(8));
            if step > 50 && dice.below(40) == 0 && !upgraded[at] {
                upgraded[at] = true;
                // A row that is read with the new column says NULL of it, and was written so: here none is.
                node.seal();
                node.sql("ALTER TABLE t ADD COLUMN extra");
            }
            if upgraded[at] {
                node.sql(&format!("INSERT INTO t VALUES ({id}, {step}, {step}) ON CONFLICT (id) DO UPDATE SET v = {step}, extra = {step}"));
                own.insert(id, (step, Some(step)));
            } else {
                node.sql(&format!("INSERT INTO t VALUES ({id}, {step}) ON CONFLICT (id) DO UPDATE SET v = {step}"));
                own.insert(id, (step, None));
            }
            // A row that all of them write: whoever does not know the column leaves it as it is.
            let common = 1000 + dice.below(4);
            if dice.below(2) == 0 && upgraded[at] {
                node.sql(&format!("INSERT INTO t VALUES ({common}, {step}, 'x') ON CONFLICT (id) DO UPDATE SET v = {step}, extra = 'x'"));
                shared.insert(common);
            } else if !upgraded[at] {
                node.sql(&format!("INSERT INTO t VALUES ({common}, {step}) ON CONFLICT (id) DO UPDATE SET v = {step}"));
            }
            match dice.below(8) {
                0 | 1 => drop(node.publish_step()),
                2 => node.publish(),
                3 | 4 => drop(node.apply()),
                5 if dice.below(3) == 0 => node.crash(),
                _ => {}
            }
        }
        for (node, upgraded) in nodes.iter().zip(upgraded) {
            if !upgraded {
                node.seal();
                node.sql("ALTER TABLE t ADD COLUMN extra");
            }
        }
        let [a, b, c] = &mut nodes;
        settle(&mut [a, b, c]);
        for id in shared {
            assert_eq!(a.one(&format!("SELECT extra FROM t WHERE id = {id}")), "x", "seed {seed}");
        }
        for (id, (v, extra)) in own {
            let extra = extra.map_or_else(|| "NULL".to_owned(), |extra| extra.to_string());
            assert_eq!(
                a.rows(&format!("SELECT v, extra FROM t WHERE id = {id}")),
                [format!("{v}|{extra}")],
                "seed {seed}"
            );
        }
    }
}

/// A column that is added between the look at the schema and the seal is sealed, or waits for the next one.
#[test]
fn c80_a_column_added_right_before_a_seal_is_not_lost() {
    let (mut a, mut b) = pair(TABLE);
    a.sql("INSERT INTO t VALUES (1, 'x')");
    settle(&mut [&mut a, &mut b]);
    a.sql("UPDATE t SET v = 'y'");
    let app = a.connect();
    let mut altered = false;
    on_fault(move |point| {
        if point == "begin" && !altered {
            altered = true;
            app.execute_batch("ALTER TABLE t ADD COLUMN extra; UPDATE t SET extra = 'e'").unwrap();
        }
        false
    });
    a.publish();
    on_fault(|_| false);
    b.sql("ALTER TABLE t ADD COLUMN extra");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|y|e"]);
}

/// A table that appears while a unit is open is proposed once the unit is closed, and holds nothing up.
#[test]
fn c82_a_table_that_appears_while_a_unit_is_open() {
    let setup = Setup { shards: 2, changes_max: 5, ..Setup::default() };
    let (mut a, mut b) = pair_with(&setup, TABLE);
    a.sql("WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 50) INSERT INTO t SELECT i, i FROM n");
    assert!(a.publish_step(), "one piece of several");
    for node in [&a, &b] {
        node.sql("CREATE TABLE late (id INTEGER PRIMARY KEY, v)");
    }
    a.sql("INSERT INTO late VALUES (1, 'x')");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM late"), ["1|x"]);
    assert_eq!(b.one("SELECT count(*) FROM t"), "50");
}

/// Triggers follow a renamed table under their old names; its rows are known already, and its marks still count.
#[test]
fn c81_a_renamed_table_is_followed() {
    let (mut a, mut b) = pair(TABLE);
    a.sql("INSERT INTO t VALUES (1, 'x'), (2, 'y')");
    settle(&mut [&mut a, &mut b]);
    a.sql("UPDATE t SET v = 'before' WHERE id = 1; ALTER TABLE t RENAME TO t2; UPDATE t2 SET v = 'after' WHERE id = 2");
    b.sql("ALTER TABLE t RENAME TO t2");
    settle(&mut [&mut a, &mut b]);
    for node in [&a, &b] {
        assert_eq!(node.rows("SELECT * FROM t2"), ["1|before", "2|after"]);
        assert_eq!(
            node.one("SELECT count(*) FROM sqlite_schema WHERE name LIKE '%antiphon\\_\\_t\\_%' ESCAPE '\\'"),
            "0"
        );
    }
}

/// A renamed table's old name is free for another, whose rows are new ones.
#[test]
fn c82_a_table_made_anew_beside_its_renamed_forerunner() {
    let (mut a, mut b) = pair(TABLE);
    a.sql("INSERT INTO t VALUES (1, 'x')");
    settle(&mut [&mut a, &mut b]);
    let ddl = "ALTER TABLE t RENAME TO t_old; CREATE TABLE t (id INTEGER PRIMARY KEY, v)";
    b.sql(ddl);
    a.sql(ddl);
    a.sql("INSERT INTO t SELECT id + 10, v FROM t_old; UPDATE t_old SET v = 'old'");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM t"), ["11|x"]);
    assert_eq!(b.rows("SELECT * FROM t_old"), ["1|old"]);
}

/// A column and the UNIQUE index over it go at once: a trigger names the column until the host has seen the index gone.
/// Without waiting for the host, the two triggers go first.
#[test]
fn c81_an_index_and_its_column_go_together() {
    let ddl = "CREATE TABLE t (id INTEGER PRIMARY KEY, u, v); CREATE UNIQUE INDEX by_u ON t (u)";
    let go = "DROP INDEX by_u; ALTER TABLE t DROP COLUMN u";
    for wait in [true, false] {
        let (mut a, mut b) = pair(ddl);
        a.sql("INSERT INTO t VALUES (1, 1, 'x')");
        settle(&mut [&mut a, &mut b]);
        let refused = a.app.execute_batch(&format!("BEGIN; {go}; COMMIT")).unwrap_err().to_string();
        assert!(refused.contains("__antiphon__t_before_insert"), "{refused}");
        a.sql("ROLLBACK");
        for node in [&mut a, &mut b] {
            if wait {
                node.sql("DROP INDEX by_u");
                node.publish();
                node.sql("ALTER TABLE t DROP COLUMN u");
            } else {
                node.sql(&format!(
                    "BEGIN; DROP TRIGGER __antiphon__t_before_insert; DROP TRIGGER __antiphon__t_before_update; {go}; COMMIT"
                ));
            }
        }
        a.sql("UPDATE t SET v = 'y'");
        b.sql("INSERT INTO t VALUES (2, 'z')");
        settle(&mut [&mut a, &mut b]);
        assert_eq!(a.rows("SELECT * FROM t"), ["1|y", "2|z"]);
    }
}

/// All that the host puts into a file is read by the application's library at each start, however old it is: one word
/// it does not know, and nothing in the file can be read any more.
#[test]
fn c85_only_words_that_old_sqlites_know() {
    let (mut a, mut b) = pair(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE, v);
         CREATE TABLE w (a TEXT COLLATE NOCASE, b, u UNIQUE, PRIMARY KEY (b, a)) WITHOUT ROWID;
         CREATE TABLE s (k TEXT PRIMARY KEY, v ANY) STRICT;
         CREATE TABLE g (k PRIMARY KEY NOT NULL, v, d AS (v + 1) STORED, UNIQUE (k, v))",
    );
    a.sql("INSERT INTO t VALUES (1, 1, 1); INSERT INTO w VALUES ('a', 1, 1); INSERT INTO s VALUES ('k', 1); INSERT INTO g VALUES (1, 1)");
    settle(&mut [&mut a, &mut b]);
    // Words of SQLite 3.7.0, of its grammar for tables and triggers.
    let known = [
        "CREATE", "TABLE", "TRIGGER", "PRIMARY", "KEY", "UNIQUE", "INTEGER", "TEXT", "COLLATE", "NOCASE", "AFTER",
        "BEFORE", "INSERT", "UPDATE", "DELETE", "ON", "FOR", "EACH", "ROW", "WHEN", "BEGIN", "END", "INTO", "VALUES",
        "SELECT", "FROM", "AS", "WHERE", "AND", "OR", "IS", "NOT", "NEW", "OLD", "IF", "EXISTS",
    ];
    let ours = a.rows("SELECT sql FROM sqlite_schema WHERE substr(name, 1, 12) = '__antiphon__' AND sql IS NOT NULL");
    assert!(ours.len() > 20, "{}", ours.len());
    for sql in ours {
        // What is quoted is a name; what is in small letters is one of ours.
        let bare: String = sql.split('"').step_by(2).collect::<Vec<_>>().join(" ");
        for word in bare.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_') {
            let name =
                word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_' || letter.is_ascii_digit());
            assert!(name || known.contains(&word), "`{word}` in {sql}");
        }
        assert!(!bare.contains("RAISE") && !bare.contains("->") && !bare.contains("FILTER"), "{sql}");
        // The names in small letters: none is a function, or it would be followed by its arguments.
        for call in ["strftime(", "unixepoch(", "julianday(", "json", "printf(", "coalesce("] {
            let resolved = sql.contains("created_at");
            assert!(!bare.contains(call) || (resolved && call == "julianday("), "`{call}` in {sql}");
        }
    }
}

/// What only the application's connections know can't be written by the host: the table is refused by name, with the
/// function's or the collation's, and others go on.
#[test]
fn c87_functions_and_collations_of_the_applications_own() {
    let make = |ddl: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let app = rusqlite::Connection::open(&path).unwrap();
        let flags = FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
        app.create_scalar_function("mine", 1, flags, |call| call.get::<Option<i64>>(0)).unwrap();
        app.create_collation("ours", |a, b| a.cmp(b)).unwrap();
        app.execute_batch(ddl).unwrap();
        (folder, app, path)
    };
    for (name, ddl) in [
        ("ours", "CREATE TABLE bad (k TEXT COLLATE ours PRIMARY KEY, v)"),
        ("ours", "CREATE TABLE bad (k INTEGER PRIMARY KEY, v TEXT COLLATE ours UNIQUE)"),
        ("ours", "CREATE TABLE bad (k INTEGER PRIMARY KEY, v); CREATE INDEX i ON bad (v COLLATE ours)"),
        ("mine", "CREATE TABLE bad (k INTEGER PRIMARY KEY, v CHECK (mine(v) > 0))"),
        ("mine", "CREATE TABLE bad (k INTEGER PRIMARY KEY, v, g AS (mine(v)))"),
        ("mine", "CREATE TABLE bad (k INTEGER PRIMARY KEY, v, g AS (mine(v)) STORED)"),
        ("mine", "CREATE TABLE bad (k INTEGER PRIMARY KEY, v, d DEFAULT (mine(1)))"),
        ("mine", "CREATE TABLE bad (k INTEGER PRIMARY KEY, v); CREATE INDEX i ON bad (mine(v))"),
        ("mine", "CREATE TABLE bad (k INTEGER PRIMARY KEY, v); CREATE INDEX i ON bad (v) WHERE mine(v) > 0"),
        ("mine", "CREATE TABLE bad (k INTEGER PRIMARY KEY, v); CREATE UNIQUE INDEX i ON bad (v) WHERE mine(v) > 0"),
    ] {
        let (_folder, app, path) = make(&format!("{ddl}; CREATE TABLE good (id INTEGER PRIMARY KEY, v)"));
        let mut a = Node::over(&Arc::new(Memory::new()), Setup::default(), app, path);
        a.sql("INSERT INTO good VALUES (1, 'x'); INSERT INTO bad (k, v) VALUES (1, 1)");
        let refused = a.with(|db| db.refused().to_vec());
        assert_eq!(refused.len(), 1, "{ddl}");
        assert!(refused[0].table == "bad" && refused[0].reason.contains(name), "{ddl}: {}", refused[0].reason);
        a.enter();
        a.publish();
        assert_eq!(a.with(|db| db.table_names().map(str::to_owned).collect::<Vec<_>>()), ["good"], "{ddl}");
        assert_eq!(a.apply(), None);
    }
}

/// Whatever SQLite takes for a default, a table with it is replicated: words without quotes, too.
#[test]
fn c84_any_default_is_understood() {
    for default in
        ["abc", "\"abc\"", "[a b]", "true", "-5", "(1 + 1)", "x'00'", "CURRENT_TIMESTAMP", "(datetime('now'))", "null"]
    {
        let (mut a, mut b) = pair(&format!("CREATE TABLE t (id INTEGER PRIMARY KEY, v DEFAULT {default})"));
        a.sql("INSERT INTO t (id) VALUES (1)");
        settle(&mut [&mut a, &mut b]);
    }
}

/// A node's own conflict clauses must not pass a row over that it doesn't take, nor put another value in its place, nor
/// remove another row: the shard stops, as it does where such a rule has no clause.
#[test]
fn c84_conflict_clauses_of_one_node_pass_nothing_over() {
    for clause in [
        "NOT NULL ON CONFLICT IGNORE",
        "NOT NULL ON CONFLICT REPLACE DEFAULT 7",
        "UNIQUE ON CONFLICT IGNORE",
        "UNIQUE ON CONFLICT REPLACE",
    ] {
        let log = Arc::new(Memory::new());
        let mut a = Node::new(&log, Setup::default(), TABLE);
        let ddl = format!("CREATE TABLE t (id INTEGER PRIMARY KEY, v {clause})");
        let mut b = Node::new(&log, Setup { node: 2, ..Setup::default() }, &ddl);
        found(&mut [&mut a, &mut b]);
        a.sql("INSERT INTO t VALUES (1, 1), (2, NULL), (3, 1)");
        a.publish();
        let reason = b.apply().unwrap_or_default();
        assert!(reason.contains("constraint failed"), "{clause}: {reason}");
        assert_eq!(b.one("SELECT count(*) FROM t"), "0", "{clause}");
        a.sql("UPDATE t SET v = id");
        a.publish();
        b.sql(&rebuilt_without_rules());
        settle(&mut [&mut a, &mut b]);
    }
}

fn rebuilt_without_rules() -> String {
    "BEGIN; CREATE TABLE n (id INTEGER PRIMARY KEY, v); INSERT INTO n SELECT * FROM t; DROP TABLE t;
     ALTER TABLE n RENAME TO t; COMMIT"
        .to_owned()
}

/// A table or a key under its old name in other letters is what it was, with its marks and with what stands behind it.
#[test]
fn c81_names_in_other_letters() {
    let (mut a, mut b) = pair(TABLE);
    a.sql("INSERT INTO t VALUES (1, 'x'), (2, 'y')");
    settle(&mut [&mut a, &mut b]);
    a.sql("UPDATE t SET v = 'pending' WHERE id = 2");
    a.seal();
    b.sql("UPDATE t SET v = 'b' WHERE id = 2");
    b.publish();
    assert_eq!(a.apply(), None);
    assert_eq!(a.one("SELECT count(*) FROM __antiphon___shadow"), "1");
    a.sql("UPDATE t SET v = 'before' WHERE id = 1; ALTER TABLE t RENAME TO tmp; ALTER TABLE tmp RENAME TO T");
    a.sql("UPDATE t SET v = v || ' after' WHERE id = 1");
    for _ in 0..3 {
        a.publish();
        assert_eq!(a.apply(), None);
        assert_eq!(b.apply(), None);
    }
    for node in [&a, &b] {
        assert_eq!(node.rows("SELECT * FROM t"), ["1|before after", "2|pending"]);
        assert_eq!(node.one("SELECT count(*) FROM __antiphon___shadow"), "0");
    }
    a.crash();
    a.sql("DROP TABLE T; CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'anew'), (2, 'pending')");
    settle(&mut [&mut a, &mut b]);
    a.sql("ALTER TABLE t RENAME COLUMN id TO tmp; ALTER TABLE t RENAME COLUMN tmp TO ID; UPDATE t SET v = 'again'");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|again", "2|again"]);
}

/// Rows that are still to be marked when their table is renamed are marked all the same.
#[test]
fn c81_a_table_renamed_while_its_rows_are_marked() {
    for shards in [1, 2] {
        let log = Arc::new(Memory::new());
        let setup = |node| Setup { node, shards, ..Setup::default() };
        let mut a = Node::new(&log, setup(1), TABLE);
        let mut b = Node::new(&log, setup(2), "CREATE TABLE t2 (id INTEGER PRIMARY KEY, v)");
        a.sql("WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 25000) INSERT INTO t SELECT i, 'v' FROM n");
        a.enter();
        for _ in 0..10 {
            a.with(|db| db.install(true)).unwrap();
            if a.one("SELECT count(*) FROM __antiphon___scan") == "1" {
                break;
            }
            a.publish_step();
            a.apply_next(1, 1);
        }
        a.with(|db| db.scan()).unwrap();
        assert_eq!(a.one("SELECT count(*) FROM __antiphon___scan WHERE key IS NOT NULL"), "1", "one page of several");
        a.sql("ALTER TABLE t RENAME TO t2");
        b.enter();
        settle(&mut [&mut a, &mut b]);
        assert_eq!(b.one("SELECT count(*) FROM t2"), "25000", "{shards} shards");
    }
}
