//! The application beside the host: its triggers, its settings, its savepoints, its writes while the host is down.

use antiphon_harness::{Dice, Node, pair, settle};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// A trigger of the application's runs where the row was written; elsewhere its effect arrives as a row.
#[test]
fn c45_audit_triggers_fire_once() {
    let (mut a, mut b) = pair(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v);
         CREATE TABLE audit (id INTEGER PRIMARY KEY, what);
         CREATE TRIGGER i AFTER INSERT ON t BEGIN INSERT INTO audit (what) VALUES ('insert ' || NEW.id); END;
         CREATE TRIGGER u AFTER UPDATE ON t BEGIN INSERT INTO audit (what) VALUES ('update ' || NEW.id); END;
         CREATE TRIGGER d BEFORE DELETE ON t BEGIN INSERT INTO audit (what) VALUES ('delete ' || OLD.id); END;",
    );
    for id in 1..=20 {
        a.sql(&format!("INSERT INTO t VALUES ({id}, 0)"));
        if id % 3 == 0 {
            settle(&mut [&mut a, &mut b]);
        }
    }
    a.sql("UPDATE t SET v = 1; DELETE FROM t WHERE id > 10");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(a.one("SELECT count(*) FROM audit"), "50");
    assert_eq!(b.one("SELECT count(*) FROM audit"), "50");
}

/// A trigger that rewrites its own row runs before or after capture, by its age; the row as it ends is what counts.
#[test]
fn c46_updated_at_triggers_of_any_age() {
    let trigger =
        "CREATE TRIGGER touch AFTER UPDATE OF v ON t BEGIN UPDATE t SET touched = touched + 1 WHERE id = NEW.id; END;
         CREATE TRIGGER born AFTER INSERT ON t BEGIN UPDATE t SET touched = 100 WHERE id = NEW.id; END;";
    for before_install in [true, false] {
        let ddl = "CREATE TABLE t (id INTEGER PRIMARY KEY, v, touched INTEGER);";
        let (mut a, mut b) = pair(&if before_install { format!("{ddl}{trigger}") } else { ddl.to_owned() });
        if !before_install {
            a.sql(trigger);
            b.sql(trigger);
        }
        a.sql("INSERT INTO t (id, v) VALUES (1, 'x'), (2, 'y')");
        settle(&mut [&mut a, &mut b]);
        a.sql("UPDATE t SET v = 'z' WHERE id = 2");
        a.publish();
        b.sql("UPDATE t SET v = 'w' WHERE id = 1");
        settle(&mut [&mut a, &mut b]);
        assert_eq!(a.rows("SELECT * FROM t"), ["1|w|101", "2|z|101"]);
    }
}

/// What an application reads about its own writes, it reads as if there were no capture.
#[test]
fn c47_last_insert_rowid_and_changes_are_the_applications() {
    let (mut a, _) = pair(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE, v); CREATE TABLE w (k TEXT PRIMARY KEY, u UNIQUE) WITHOUT ROWID",
    );
    let alone = Connection::open_in_memory().unwrap();
    alone.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE, v); CREATE TABLE w (k TEXT PRIMARY KEY, u UNIQUE) WITHOUT ROWID").unwrap();
    for sql in [
        "INSERT INTO t VALUES (98, 1, 'x')",
        "INSERT INTO t (u, v) VALUES (2, 'y')",
        "UPDATE t SET v = 'z'",
        "INSERT INTO w VALUES ('a', 1), ('b', 2)",
        "INSERT OR REPLACE INTO t VALUES (7, 1, 'replaces')",
        "INSERT INTO t VALUES (8, 1, 'q') ON CONFLICT (u) DO UPDATE SET v = 'q'",
        "INSERT OR IGNORE INTO t VALUES (9, 1, 'ignored')",
        "UPDATE t SET id = id + 100",
        "DELETE FROM t WHERE id > 1000",
        "DELETE FROM t",
    ] {
        let counts = |conn: &Connection| (conn.execute(sql, []).unwrap(), conn.last_insert_rowid(), conn.changes());
        assert_eq!(counts(&a.app), counts(&alone), "{sql}");
        a.publish();
    }
}

/// What is rolled back, in whole or to a savepoint, was never captured; what stays was.
#[test]
fn c48_savepoints_and_failed_statements_leave_what_sqlite_leaves() {
    let ddl = "CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE, v CHECK (v < 90))";
    for seed in 1..=20 {
        let (mut a, mut b) = pair(ddl);
        let oracle = Connection::open_in_memory().unwrap();
        oracle.execute_batch(ddl).unwrap();
        let mut dice = Dice::new(seed);
        for _ in 0..120 {
            let (id, u, v) = (dice.below(12), dice.below(12), dice.below(100));
            let clause = *dice.pick(&["", "OR FAIL", "OR ROLLBACK", "OR IGNORE", "OR REPLACE", "OR ABORT"]);
            let name = dice.below(3);
            let sql = match dice.below(12) {
                0 => "BEGIN".to_owned(),
                1 => "COMMIT".to_owned(),
                2 => "ROLLBACK".to_owned(),
                3 => format!("SAVEPOINT s{name}"),
                4 => format!("ROLLBACK TO s{name}"),
                5 => format!("RELEASE s{name}"),
                6 => format!("DELETE FROM t WHERE id > {id}"),
                7 => format!("UPDATE {clause} t SET u = u + 1, v = v + 5 WHERE id >= {id}"),
                8 => format!("UPDATE {clause} t SET id = id + {} WHERE u < {u}", 1 + dice.below(3)),
                _ => format!(
                    "INSERT {clause} INTO t VALUES ({id}, {u}, {v}), ({}, {}, {})",
                    id + 1,
                    u + 1,
                    (v * 7) % 100
                ),
            };
            let (here, there) = (a.app.execute_batch(&sql), oracle.execute_batch(&sql));
            assert_eq!(here.is_ok(), there.is_ok(), "seed {seed}: {sql}: {here:?}");
            if a.app.is_autocommit() && dice.below(4) == 0 {
                a.publish();
            }
        }
        let _ = (a.app.execute_batch("COMMIT"), oracle.execute_batch("COMMIT"));
        settle(&mut [&mut a, &mut b]);
        let mut statement = oracle.prepare("SELECT id || '|' || u || '|' || v FROM t ORDER BY id").unwrap();
        let rows: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(b.rows("SELECT * FROM t ORDER BY id"), rows, "seed {seed}");
    }
}

/// Triggers use nothing that a cautious application forbids.
#[test]
fn c86_cautious_applications_can_write() {
    let (mut a, mut b) = pair(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE, v); CREATE TABLE w (k TEXT PRIMARY KEY, v) WITHOUT ROWID",
    );
    for recursive in [0, 1] {
        let app = a.connect();
        app.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).unwrap();
        app.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false).unwrap();
        app.execute_batch(&format!("PRAGMA trusted_schema = OFF; PRAGMA recursive_triggers = {recursive}")).unwrap();
        for sql in [
            "INSERT INTO t VALUES (1, 1, 'x'), (2, 2, 'y') ON CONFLICT DO NOTHING",
            "INSERT OR REPLACE INTO t VALUES (3, 1, 'z')",
            "UPDATE t SET id = id + 10, v = 'w'",
            "INSERT OR REPLACE INTO w VALUES ('a', 1), ('b', 2)",
            "DELETE FROM t WHERE u = 2",
        ] {
            app.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        settle(&mut [&mut a, &mut b]);
        b.sql("DELETE FROM t");
        settle(&mut [&mut a, &mut b]);
    }
    assert_eq!(b.rows("SELECT * FROM w"), ["a|1", "b|2"]);
}

/// Triggers stay in the file, so a host that is down misses nothing.
#[test]
fn c110_writes_while_the_host_is_down_are_published_at_its_start() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    a.sql("WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t SELECT i, 'old' FROM n");
    settle(&mut [&mut a, &mut b]);
    let other = a.connect();
    for id in 501..=1500 {
        other.execute("INSERT INTO t VALUES (?1, 'new')", [id]).unwrap();
    }
    other.execute_batch("UPDATE t SET v = 'changed' WHERE id % 2; DELETE FROM t WHERE id % 5 = 0; UPDATE t SET id = -id WHERE id % 7 = 0").unwrap();
    drop(other);
    assert_eq!(b.one("SELECT count(*) FROM t"), "500");
    a.crash();
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.one("SELECT count(*) FROM t"), "1200");
    assert_eq!(b.one("SELECT count(*) FROM t WHERE id < 0"), a.one("SELECT count(*) FROM t WHERE id < 0"));
}

/// A connection that reads meanwhile sees the table as it was, and holds nobody up for good.
#[test]
fn c110_several_connections_write_in_turn() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, who)");
    let connections: Vec<Connection> = (0..5).map(|_| a.connect()).collect();
    for (id, app) in (0..200).zip(connections.iter().cycle()) {
        app.execute("INSERT INTO t VALUES (?1, ?2)", (id, id % 5)).unwrap();
        if id % 17 == 0 {
            a.publish();
        }
    }
    settle(&mut [&mut a, &mut b]);
    let counts = |node: &Node| node.rows("SELECT who, count(*) FROM t GROUP BY who");
    assert_eq!(counts(&b), ["0|40", "1|40", "2|40", "3|40", "4|40"]);
}
