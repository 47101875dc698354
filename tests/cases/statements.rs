//! Statements that remove or spare rows by conflict clauses: any of them, on any table, leaves both ends equal.

use antiphon_harness::{Dice, pair, settle};

/// Columns that a conflict can be over, in the generated tables.
const UNIQUES: [&str; 3] = ["u", "v", "w"];

/// A table with `count` UNIQUE indexes besides its key, some of which decide conflicts by themselves.
fn table(dice: &mut Dice, count: usize) -> String {
    let clause =
        |dice: &mut Dice| *dice.pick(&["", "", " ON CONFLICT REPLACE", " ON CONFLICT IGNORE", " ON CONFLICT FAIL"]);
    let key = *dice.pick(&[
        "k INTEGER PRIMARY KEY",
        "k TEXT PRIMARY KEY NOT NULL",
        "k PRIMARY KEY NOT NULL",
        "k INT COLLATE NOCASE PRIMARY KEY NOT NULL",
    ]);
    let mut columns = vec![format!("{key}{}", clause(dice))];
    for (at, name) in UNIQUES.iter().enumerate() {
        let unique = if at < count { format!(" UNIQUE{}", clause(dice)) } else { String::new() };
        columns.push(format!("{name}{unique}"));
    }
    // A clause for the key is part of its declaration, and NOT NULL before it would be read as the clause's own.
    let columns = columns.join(", ").replace("NOT NULL ON CONFLICT", "ON CONFLICT");
    let without_rowid = if dice.below(4) == 0 { " WITHOUT ROWID" } else { "" };
    format!("CREATE TABLE t ({columns}, x){without_rowid}")
}

fn value(dice: &mut Dice) -> String {
    if dice.below(8) == 0 { "NULL".to_owned() } else { dice.below(6).to_string() }
}

fn statement(dice: &mut Dice, uniques: usize) -> String {
    let verb = *dice.pick(&["REPLACE", "IGNORE", "ABORT", "FAIL", "ROLLBACK"]);
    let rows = |dice: &mut Dice| {
        let row = |dice: &mut Dice| {
            let values: Vec<String> = UNIQUES.iter().map(|_| value(dice)).collect();
            format!("({}, {}, {})", dice.below(8), values.join(", "), dice.below(1000))
        };
        (0..=dice.below(3)).map(|_| row(dice)).collect::<Vec<_>>().join(", ")
    };
    let set = |dice: &mut Dice| {
        let column = *dice.pick(&["k", "u", "v", "w", "x"]);
        let value = if column == "k" { dice.below(8).to_string() } else { value(dice) };
        format!("{column} = {value}")
    };
    match dice.below(6) {
        0 | 1 => format!("INSERT OR {verb} INTO t (k, u, v, w, x) VALUES {}", rows(dice)),
        2 => format!("UPDATE OR {verb} t SET {}, x = {} WHERE k = {}", set(dice), dice.below(1000), dice.below(8))
            .replace("x = 0, ", ""),
        3 => format!("UPDATE OR {verb} t SET k = k + 1, u = v WHERE k > {}", dice.below(8)),
        4 => {
            let over = [vec!["k"], UNIQUES[..uniques].to_vec()].concat();
            let target = *dice.pick(&over);
            let action = match dice.below(3) {
                0 => "NOTHING".to_owned(),
                1 => "UPDATE SET x = excluded.x".to_owned(),
                _ => format!("UPDATE SET {} WHERE x < 700", set(dice)),
            };
            format!("INSERT INTO t (k, u, v, w, x) VALUES {} ON CONFLICT ({target}) DO {action}", rows(dice))
        }
        _ => format!("DELETE FROM t WHERE k = {} OR u = {}", dice.below(8), dice.below(6)),
    }
}

/// One node writes, and what its file holds is what the other's holds, however rows came to go there.
#[test]
fn c21_every_form_of_replace_and_upsert() {
    let mut done = 0;
    for seed in 1..=120 {
        let mut dice = Dice::new(seed);
        let uniques = usize::try_from(dice.below(4)).unwrap();
        let ddl = table(&mut dice, uniques);
        let (mut a, mut b) = pair(&ddl);
        a.sql(&format!("PRAGMA recursive_triggers = {}", dice.below(2)));
        for _ in 0..40 {
            let statement = statement(&mut dice, uniques);
            // Many are refused, in whole or half-way: what they leave is what counts.
            done += usize::from(a.app.execute_batch(&statement).is_ok());
            if dice.below(3) == 0 {
                settle(&mut [&mut a, &mut b]);
            }
        }
        settle(&mut [&mut a, &mut b]);
        assert_eq!(a.rows("SELECT * FROM t ORDER BY k"), b.rows("SELECT * FROM t ORDER BY k"), "seed {seed}: {ddl}");
    }
    assert!(done > 1000, "only {done} statements were taken");
}
