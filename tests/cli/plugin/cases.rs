//! `antiphon plugin test`: cases, and histories of several nodes.

use antiphon_harness::resolver_guest_with;
use insta::assert_snapshot;

use super::mine;
use crate::Dir;

const CASES: &str = r#"
table = "CREATE TABLE t (id INTEGER PRIMARY KEY, n, note TEXT)"

[[case]]
why = "what comes is taken"
base = "1 | 1 | 'a'"
current = "1 | 2 | 'a'"
incoming = "1 | 1 | 'it''s'"
verdict = "take"

[[case]]
why = "a larger number stays"
current = "1 | 5 | NULL"
current_stamp = "10 of 2"
incoming = "1 | 4 | x'00ff'"
incoming_stamp = "11 of 1"
verdict = "merge 1 | 5 | x'00ff'"
"#;

/// Figures of time and fuel are left out.
fn timeless(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix("  ok    ") {
        Some(rest) => format!("  ok    {}", rest.split("   ").next().unwrap()),
        None => line.split("; ").next().unwrap().to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn cases_are_put_to_a_component() {
    let dir = mine().file("cases/own.toml", CASES).file("cases/broken.toml", "[[case]]\nverdit = 'keep'\n");
    let dir = dir.file("cases/readme.txt", "no cases");
    assert_snapshot!(timeless(&dir.masked("plugin test mine.wasm --cases cases --histories 0")), @r"
    exit 3
    --- stdout
    cases/broken.toml
      FAIL  the file
              line 2: unknown field `verdit`, expected one of `why`, `cause`, `base`, `current`, `current_stamp`, `incoming`, `incoming_stamp`, `verdict`, `key`, `hash`
    cases/own.toml
      ok    what comes is taken
      FAIL  a larger number stays
              base      none
              current   1 | 5 | NULL   (10 of 2)
              incoming  1 | 4 | x'00ff'   (11 of 1)
              expected  merge 1 | 5 | x'00ff'
              got       take

    1 passed, 2 failed
    ");
    let json = dir.words("plugin test mine.wasm --cases cases/own.toml --histories 0 --json");
    let json: serde_json::Value = serde_json::from_str(json.split_once("--- stdout\n").unwrap().1).unwrap();
    assert_eq!((&json["passed"], &json["failed"], &json["rows"]), (&1.into(), &1.into(), &2.into()));
    assert_eq!(json["cases"][1]["got"], "take");
    assert!(json["cases"][0]["fuel"].as_u64().unwrap() > 0);
    assert_snapshot!(dir.words("plugin test fnv"), @r"
    exit 2
    --- stderr
    error: a hasher is tested by cases, and none are named

    hint: name them with `--cases DIR`; `antiphon plugin check` needs none
    ");
    assert_snapshot!(dir.words("plugin test mine.wasm --cases nowhere"), @r"
    exit 66
    --- stderr
    error: cannot read the cases in `nowhere`: No such file or directory (os error 2)
    ");
}

#[test]
fn cases_of_a_hasher_are_keys_and_hashes() {
    let cases = "columns = ['id INTEGER', 'v']\n\
                 [[case]]\nwhy = 'one'\nkey = '1'\nhash = 1\n[[case]]\nwhy = 'a text'\nkey = \"'a'\"\nhash = '0x00ff'\n";
    let dir = Dir::new().file("keys.toml", cases).file("clashes.toml", CASES);
    assert_snapshot!(timeless(&dir.words("plugin test fnv --cases keys.toml")), @r"
    exit 3
    --- stdout
    keys.toml
      FAIL  one
              key       1
              expected  0x0000000000000001
              got       0x24403a977a05c34c
      FAIL  a text
              key       'a'
              expected  0x00000000000000ff
              got       0xa02d616458e08089

    0 passed, 2 failed
    ");
    let other = dir.words("plugin test fnv --cases clashes.toml");
    assert!(other.contains("these are clashes for a resolver, and the component is a hasher"), "{other}");
    let other = dir.words("plugin test last-write-wins --histories 0 --cases keys.toml");
    assert!(other.contains("these are keys for a hasher, and the component is a resolver"), "{other}");
}

/// Settings that stand in the cases need not be given again for the histories.
#[test]
fn histories_have_the_settings_of_the_cases() {
    let cases = "columns = ['id INTEGER', 'stock']\nsettings = { columns = 'stock' }\n\
                 [[case]]\nbase = '1 | 1'\ncurrent = '1 | 3'\nincoming = '1 | 2'\nverdict = 'merge 1 | 4'\n";
    let dir = Dir::new().file("c.toml", cases);
    let text = dir.words("plugin test counter --cases c.toml --histories 4 --seed 1");
    assert!(text.starts_with("exit 0\n"), "{text}");
    // Without any, it refuses.
    let text = dir.words("plugin test counter --histories 4");
    assert!(text.starts_with("exit 3\n") && text.contains("the setting `columns` is missing"), "{text}");
}

#[test]
fn histories_are_of_the_users_own_tables() {
    let dir = Dir::new().file("tables.sql", "CREATE TABLE stock (sku TEXT PRIMARY KEY NOT NULL, left_over INTEGER);");
    let text = dir.words("plugin test counter --settings columns=left_over --schema tables.sql --histories 4");
    assert!(text.starts_with("exit 0\n"), "{text}");
    let text = dir.words("plugin check counter --settings columns=left_over --schema tables.sql --questions 100");
    assert!(text.contains("ok    configure  it takes its settings and 1 table\n"), "{text}");
    let dir = dir.file("none.sql", "CREATE TABLE t (v);");
    assert_snapshot!(dir.words("plugin check counter --schema none.sql"), @r"
    exit 65
    --- stderr
    error: no tables can be made of `none.sql`: table `t` can't be replicated: it has no primary key; add one, or exclude it with `exclude` under `[capture]`
    ");
}

/// A resolver with a memory of its own: one node has asked it about more clashes since its start than another.
#[test]
fn a_history_in_which_nodes_differ_is_shown_short() {
    let count = "(global.set $n (i32.add (global.get $n) (i32.const 1))) (i32.and (global.get $n) (i32.const 1))";
    let guest = resolver_guest_with(count, "(global $n (mut i32) (i32.const 0))");
    let dir = Dir::new().bytes("mine.wasm", &guest);
    let text = dir.words("plugin test mine.wasm --histories 200 --seed 1");
    assert!(text.starts_with("exit 3\n"), "{text}");
    assert!(text.contains("  FAIL  the nodes have read the same log and hold different rows\n"), "{text}");
    assert!(text.contains("          only on node "), "{text}");
    let steps = text.lines().filter(|line| line.trim_start().starts_with("node ")).count();
    assert!((2..=16).contains(&steps), "{text}");
    let seed = text.lines().find_map(|line| line.strip_prefix("histories, from seed ")).unwrap();
    let again = dir.words(&format!("plugin test mine.wasm --histories 1 --seed {seed}"));
    assert!(again.contains("hold different rows"), "{again}");
}
