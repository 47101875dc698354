//! A log that was written to by someone who means harm.

use crate::kinds::NAMES;
use antiphon::db::Stop;
use antiphon::log::{Placed, Sender};
use antiphon_core::entry::{Chunk, Origin, Rows};
use antiphon_core::value::Value;
use antiphon_harness::{Dice, Node, append_foreign, foreign, pair, settle};

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v)";

/// Two nodes with a row to lose.
fn victims(ddl: &str) -> (Node, Node) {
    let (mut a, mut b) = pair(&format!("{TABLE};{ddl}"));
    a.sql("INSERT INTO t VALUES (1, 'safe')");
    settle(&mut [&mut a, &mut b]);
    (a, b)
}

/// A change to this table, in these columns.
fn chunk(table: &str, columns: &[&str], collation: Option<&str>) -> Chunk {
    let mut written = Rows::new(columns.len());
    written.push((0..columns.len()).map(|n| Value::Integer(i64::try_from(n).unwrap())).collect());
    Chunk {
        table: table.to_owned(),
        columns: columns.iter().map(|&name| name.to_owned()).collect(),
        key: vec![0],
        uniques: collation.map(|collation| vec![(0, collation.to_owned())]).into_iter().collect(),
        written,
        gone: Rows::new(1),
        seen: Vec::new(),
        made: Vec::new(),
    }
}

/// Everything in the file that a change must not touch.
fn everything(node: &Node) -> Vec<String> {
    let mut all = node.rows("SELECT type, name, sql FROM sqlite_schema ORDER BY name");
    all.extend(node.dump());
    all
}

/// Applies the chunk as the log's next entry; gives the reason it was refused for.
fn refusal(node: &Node, chunk: Chunk) -> Option<String> {
    let seq = node.with(|db| db.position(1).seq) + 1;
    let frame = foreign(1, vec![chunk]);
    let applied = node.apply_placed(1, vec![Placed::whole(seq, 1, frame)]);
    assert_eq!(applied.changes, 0);
    match applied.stop {
        Some(Stop::Blocked(reason)) => Some(reason.to_string()),
        _ => None,
    }
}

/// A name in an entry is looked up in the local schema and goes no further: no SQL is ever made of it.
#[test]
fn x04_names_from_the_log_are_never_sql() {
    let injected = "a) VALUES(1); DROP TABLE t;--";
    for hostile in [
        chunk("t", &["id", injected], None),
        chunk(injected, &["id"], None),
        chunk("t\"; DROP TABLE t;--", &["id", "v"], None),
    ] {
        let (a, mut b) = victims("");
        let before = everything(&b);
        append_foreign(&a.log, 1, 1, vec![hostile]);
        let reason = b.apply().expect("no such name here");
        assert!(reason.contains("which this database does not have"), "{reason}");
        assert_eq!(everything(&b), before);
    }
}

/// The host's own tables, SQLite's and views are no tables of the application's, whatever an entry says.
#[test]
fn x04_only_replicated_tables_can_be_written() {
    let (a, _) = victims("CREATE VIEW shown AS SELECT * FROM t; CREATE TABLE loose (id)");
    let before = everything(&a);
    let meta = a.rows("SELECT * FROM __antiphon___meta");
    for table in [
        "__antiphon___meta",
        "__antiphon___global_change_log",
        "__antiphon__t_change_log",
        "sqlite_schema",
        "sqlite_master",
        "shown",
        "loose",
        "main.t",
        "",
    ] {
        assert!(refusal(&a, chunk(table, &["id"], None)).is_some(), "{table}");
    }
    assert_eq!(everything(&a), before);
    assert_eq!(a.rows("SELECT * FROM __antiphon___meta"), meta);
}

/// A collation is a name, too.
#[test]
fn x04_unknown_collations_are_refused() {
    let (a, _) = victims("");
    let reason = refusal(&a, chunk("t", &["id", "v"], Some("x\" OR 1; DROP TABLE t;--"))).expect("no such collation");
    assert!(reason.contains("collation"), "{reason}");
}

/// Ten thousand names out of the pieces that injections are made of: none is executed, every one is refused.
#[test]
fn x04_ten_thousand_nasty_names() {
    let (a, _) = victims("");
    let before = everything(&a);
    let pieces = [
        "\"",
        "'",
        "`",
        "]",
        "[",
        ")",
        "(",
        ";",
        "--",
        "/*",
        "*/",
        " ",
        "\n",
        "\0",
        ",",
        "?1",
        "x",
        "t",
        "id",
        "v",
        "DROP TABLE t",
        "VALUES(1)",
        "UNION SELECT",
        "OR 1=1",
        "main.",
        "\\",
        "%",
        "\u{ff07}",
        "\u{202e}",
        "COLLATE",
        "=",
    ];
    let mut dice = Dice::new(4);
    for n in 0..10_000 {
        let mut name: String = (0..=dice.below(8)).map(|_| *dice.pick(&pieces)).collect();
        if dice.below(4) == 0 {
            name.push_str(dice.pick::<&str>(NAMES));
        }
        // Now and then the dice make a name that exists.
        if ["t", "id", "v"].iter().any(|known| known.eq_ignore_ascii_case(&name)) {
            name.push('"');
        }
        let hostile = match n % 4 {
            0 => chunk(&name, &["id", "v"], None),
            1 => chunk("t", &["id", &name], None),
            2 => chunk("t", &[&name, "v"], None),
            _ => chunk("t", &["id", "v"], Some(&name)),
        };
        assert!(refusal(&a, hostile).is_some(), "{name:?}");
    }
    assert_eq!(everything(&a), before);
}

/// Who speaks in another's name is not heard, on any node, and the number that he took is not taken.
#[test]
fn x01_an_entry_in_anothers_name_is_left_out() {
    let (a, mut b) = victims("");
    let seq = b.with(|db| db.position(1).seq) + 1;
    let claimed = Origin { node: 99, incarnation: 1 };
    let says = |number: u64, id: i64| {
        let mut chunk = chunk("t", &["id", "v"], None);
        chunk.written = Rows::new(2);
        chunk.written.push(vec![Value::Integer(id), Value::Integer(7)]);
        foreign(number, vec![chunk])
    };
    let placed = |seq, from, number, id| Placed { from, ..Placed::whole(seq, seq, says(number, id)) };
    let other = Origin { node: 98, incarnation: 1 };
    let entries = vec![
        placed(seq, Sender::Origin(other), 1, 1),
        placed(seq + 1, Sender::Anyone, 1, 1),
        placed(seq + 2, Sender::Origin(Origin { incarnation: 2, ..claimed }), 1, 1),
        placed(seq + 3, Sender::Origin(claimed), 1, 5),
        placed(seq + 4, Sender::Untold, 2, 6),
    ];
    for node in [&a, &b] {
        let applied = node.apply_placed(1, entries.clone());
        assert_eq!((applied.entries, applied.changes, applied.stop), (5, 2, None));
        assert_eq!(node.rows("SELECT id, v FROM t ORDER BY id"), ["1|safe", "5|7", "6|7"]);
        assert_eq!(node.one("SELECT value FROM __antiphon___meta WHERE name = 'forged'"), "3");
        assert_eq!(node.rows("SELECT count(*) FROM __antiphon___received WHERE node = 98"), ["0"]);
    }
    b.crash();
    assert_eq!(b.with(|db| db.position(1).seq), seq + 4);
}
