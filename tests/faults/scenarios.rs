//! What nodes do while the disk fails.

use crate::world::World;
use crate::{Scenario, each_call};

fn nothing(_: &mut World) {}

/// Committed rows become batches.
#[test]
fn f05_seal() {
    let during = |world: &mut World| {
        for rows in 1..4 {
            world.write(0, rows);
            world.seal(0);
        }
        world.write(1, 2);
        world.seal(1);
    };
    each_call("seal", &Scenario { journal: "WAL", before: nothing, during, members: true });
}

/// The same in an application's file that is not in WAL mode.
#[test]
fn f05_seal_and_apply_with_a_rollback_journal() {
    let during = |world: &mut World| {
        world.write(0, 2);
        world.publish(0);
        world.write(1, 1);
        world.apply(1);
    };
    each_call("rollback journal", &Scenario { journal: "DELETE", before: nothing, during, members: true });
}

/// Batches go into the embedded log.
#[test]
fn f05_publish() {
    let during = |world: &mut World| {
        for _ in 0..3 {
            world.write(0, 2);
            world.publish(0);
            world.apply(0);
        }
    };
    each_call("publish", &Scenario { journal: "WAL", before: nothing, during, members: true });
}

/// Entries of another node become rows, beside what the application writes meanwhile.
#[test]
fn f05_apply() {
    let before = |world: &mut World| {
        for rows in 1..5 {
            world.write(0, rows);
            world.publish(0);
        }
    };
    let during = |world: &mut World| {
        world.apply(1);
        world.write(1, 2);
        world.apply(1);
        world.publish(1);
    };
    each_call("apply", &Scenario { journal: "WAL", before, during, members: true });
}

/// A row is hidden behind a pending one, comes out again, and two rows change their UNIQUE values.
#[test]
fn f05_unique_values() {
    let before = |world: &mut World| {
        world.sql(0, "INSERT INTO item VALUES (1, 'x', 'one'), (2, 'y', 'two'), (3, 'z', 'three')");
        world.publish(0);
        world.apply(1);
        world.apply(0);
        world.sql(0, "UPDATE item SET u = 'mine' WHERE id = 1");
        world.seal(0);
        world.sql(
            1,
            "BEGIN; INSERT INTO item VALUES (4, 'mine', 'hidden'); UPDATE item SET u = NULL WHERE id = 2;
             UPDATE item SET u = 'y' WHERE id = 3; UPDATE item SET u = 'z' WHERE id = 2; COMMIT",
        );
        world.publish(1);
    };
    let during = |world: &mut World| {
        world.apply(0);
        world.publish(0);
        world.apply(1);
        world.apply(0);
        world.sql(1, "INSERT OR REPLACE INTO item VALUES (5, 'mine', 'last')");
        world.publish(1);
        world.apply(0);
    };
    each_call("unique values", &Scenario { journal: "WAL", before, during, members: true });
}

/// One transaction goes out in pieces, and takes effect whole.
#[test]
fn f05_unit_in_pieces() {
    let before = |world: &mut World| world.changes_max(0, 2);
    let during = |world: &mut World| {
        world.changes_max(0, 2);
        world.write(0, 7);
        for _ in 0..3 {
            world.publish(0);
            world.apply(1);
        }
        world.write(1, 1);
        world.apply(1);
    };
    each_call("unit in pieces", &Scenario { journal: "WAL", before, during, members: true });
}

/// A table is made, and has rows before there are triggers.
#[test]
fn f05_triggers_and_rows_before_them() {
    let before = |world: &mut World| {
        for node in 0..2 {
            world.sql(node, "CREATE TABLE late (id INTEGER PRIMARY KEY, v UNIQUE)");
        }
        world.sql(0, "INSERT INTO late VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'), (5, 'e')");
        world.write(0, 1);
    };
    let during = |world: &mut World| {
        world.publish(0);
        world.write(0, 2);
        world.apply(1);
        world.publish(0);
        world.apply(1);
    };
    each_call("triggers and a scan", &Scenario { journal: "WAL", before, during, members: true });
}

/// A cluster is founded with rows, and joined by a database that has the same.
#[test]
fn f05_founding_and_joining() {
    let before = |world: &mut World| {
        world.write(0, 2);
        world.sql(1, "INSERT INTO note VALUES (1000, 'note 1000'), (1001, 'note 1001')");
        world.sql(1, "UPDATE tally SET notes = 2 WHERE node = 1");
    };
    let during = |world: &mut World| {
        world.enter(0);
        world.publish(0);
        world.apply(0);
        world.publish(0);
        if world.errors.is_empty() {
            world.enter(1);
            world.apply(1);
        }
    };
    each_call("founding and joining", &Scenario { journal: "WAL", before, during, members: false });
}

/// Hosts die in the middle, and the application checkpoints.
#[test]
fn f05_crashes_and_checkpoints() {
    let during = |world: &mut World| {
        world.write(0, 2);
        world.crash(0);
        world.publish(0);
        world.sql(0, "PRAGMA wal_checkpoint(TRUNCATE)");
        world.write(0, 1);
        world.seal(0);
        world.crash(0);
        world.apply(1);
        world.crash(1);
        world.publish(0);
        world.apply(1);
        world.sql(1, "PRAGMA wal_checkpoint(TRUNCATE)");
    };
    each_call("crashes and checkpoints", &Scenario { journal: "WAL", before: nothing, during, members: true });
}
