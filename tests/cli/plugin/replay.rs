//! `antiphon plugin test --replay`: a clash that was kept is put to a resolver again.

use antiphon_harness::resolver_guest;
use insta::assert_snapshot;

use super::TAKE;
use crate::Dir;

/// A clash as a node keeps it when a resolver failed at it.
fn replay(sha256: &str) -> String {
    format!(
        r#"{{
  "format": "antiphon replay 1",
  "plugin": {{
    "name": "mine", "source": "file:mine.wasm", "sha256": "{sha256}", "settings": {{}},
    "limits": {{
      "fuel_base": 200000000, "fuel_per_item": 500000, "fuel_per_byte": 200,
      "memory": 67108864, "returned": 16777216, "watchdog": 5000
    }}
  }},
  "place": {{ "shard": 1, "seq": 12 }},
  "nodes": ["1", "2"],
  "table": {{
    "name": "t",
    "columns": [
      {{ "name": "id", "decl_type": "INTEGER", "pk_position": 1, "collation": "BINARY", "not_null": false }},
      {{ "name": "v", "decl_type": "", "pk_position": 0, "collation": "BINARY", "not_null": false }}
    ],
    "without_rowid": false, "strict": false
  }},
  "needs": {{ "current": true, "base": false, "stamps": false }},
  "clash": {{
    "key": ["1"], "cause": "same-key", "base": null,
    "current": {{ "node": 0, "clock": 0, "seq": 0, "row": ["1", "'it''s'"] }},
    "incoming": {{ "node": 0, "clock": 0, "seq": 0, "row": ["1", "666"] }}
  }},
  "why": "it panicked in `decide`, called by `resolve`",
  "details": []
}}"#
    )
}

#[test]
fn a_clash_that_a_resolver_failed_at_is_put_to_it_again() {
    let fussy = "(if (i64.eq (call $number (local.get $clash) (i32.const 1)) (i64.const 666)) (then unreachable)) (i32.const 1)";
    let guest = resolver_guest(fussy);
    let dir = Dir::new().bytes("mine.wasm", &guest).file("one.json", &replay(&antiphon_plugin::sha256(&guest)));
    let dir = dir.bytes("mended.wasm", &resolver_guest(TAKE)).file("no.json", "{}");
    assert_snapshot!(dir.masked("plugin test --replay one.json"), @r"
    exit 3
    --- stdout
    a clash in table t, entry 12 of shard 1
      base      none
      current   1 | 'it''s'
      incoming  1 | 666

    then      it panicked in `decide`, called by `resolve`
    now       it panicked in `decide`, called by `resolve`
      plugin    mine
      source    file:mine.wasm
      sha256    [sha256]
      function  resolve
      backtrace decide < resolve
      fuel      180 of 200509000
      memory    131072 of 67108864 bytes
    ");
    assert_snapshot!(dir.masked("plugin test mended.wasm --replay one.json"), @r"
    exit 0
    --- stdout
    a clash in table t, entry 12 of shard 1
      base      none
      current   1 | 'it''s'
      incoming  1 | 666

    the component is another than the one that failed
      then    sha256 [sha256]
      now     sha256 [sha256]

    then      it panicked in `decide`, called by `resolve`
    now       take
    ");
    let json = dir.words("plugin test mended.wasm --replay one.json --json");
    let json: serde_json::Value = serde_json::from_str(json.split_once("--- stdout\n").unwrap().1).unwrap();
    assert_eq!((&json["verdict"], &json["same_bytes"]), (&"take".into(), &false.into()));
    assert_snapshot!(dir.words("plugin test --replay no.json"), @r"
    exit 65
    --- stderr
    error: `no.json` is no replay of a clash: missing field `format` at line 1 column 2

    hint: a node writes them into `failed-clashes` in the directory beside its database
    ");
    std::fs::remove_file(dir.folder.path().join("mine.wasm")).unwrap();
    assert_snapshot!(dir.words("plugin test --replay one.json"), @r"
    exit 66
    --- stderr
    error: cannot read the component `mine.wasm`: No such file or directory (os error 2)

    hint: name a `.wasm` file, or an official component: `antiphon plugin list` names them
    hint: name the component: `antiphon plugin test FILE --replay REPLAY`
    ");
    assert_snapshot!(dir.words("plugin test"), @r"
    exit 2
    --- stderr
    error: the following required arguments were not provided: <FILE>

    hint: usage is `antiphon plugin test [OPTIONS] [FILE]`; see `antiphon plugin test --help`
    ");
}
