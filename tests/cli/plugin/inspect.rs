//! `antiphon plugin inspect`: what a component is, wants and may; and what is none.

use insta::assert_snapshot;

use super::{mine, shape};
use crate::Dir;

#[test]
fn a_component_is_inspected() {
    let dir = mine();
    assert_snapshot!(dir.masked("plugin inspect mine.wasm"), @r"
    exit 0
    --- stdout
    resolver `mine`
      says       x
      name       mine, version 1, laws 1
      identity   sha256:[sha256]: nodes of one cluster must have the same
      settings   none described
      interface  antiphon:plugin@0.1.0
      source     file:mine.wasm
      size       [size]
      sha256     [sha256]

    imports
      satisfied   antiphon:plugin/types@0.1.0

    exports
      antiphon:plugin/metadata@0.1.0
      antiphon:plugin/conflict@0.1.0

    limits
      size       64.0 MiB
      compiling  120 s of processor time, 2.0 GiB of memory
      memory     64.0 MiB an instance
      returned   16.0 MiB a call
      fuel       200000000 a call, and 500000 for each row or key and 200 for each byte of it
      watchdog   5000 ms a call
      instance   replaced after 1000000 calls
    ");
    assert_snapshot!(dir.masked("plugin inspect mine.wasm --json"), @r#"
    exit 0
    --- stdout
    {
      "name": "mine",
      "source": "file:mine.wasm",
      "size": [size],
      "sha256": "[sha256]",
      "world": "resolver",
      "interface": "0.1.0",
      "error": null,
      "says": {
        "name": "mine",
        "version": "1",
        "description": "x",
        "laws": 1,
        "identity": "sha256:[sha256]",
        "settings": null
      },
      "imports": [
        {
          "name": "antiphon:plugin/types@0.1.0",
          "fate": "satisfied"
        }
      ],
      "exports": [
        "antiphon:plugin/metadata@0.1.0",
        "antiphon:plugin/conflict@0.1.0"
      ],
      "limits": {
        "component_bytes": 67108864,
        "compile_seconds": 120,
        "compile_memory_bytes": 2147483648,
        "memory_bytes": 67108864,
        "returned_bytes": 16777216,
        "fuel_base": 200000000,
        "fuel_per_item": 500000,
        "fuel_per_byte": 200,
        "watchdog_ms": 5000,
        "calls": 1000000
      }
    }
    "#);
    // A name of the configuration has limits of its own.
    let dir =
        dir.file("c.toml", "[plugin.tight]\nsource = 'file:mine.wasm'\n[plugin.tight.limits]\nmemory = '1 MiB'\n");
    let text = dir.words("plugin inspect tight --config c.toml");
    assert!(text.contains("  memory     1.0 MiB an instance\n"), "{text}");
}

#[test]
fn imports_are_said_to_be_had_or_not() {
    let resolver = ["antiphon:plugin/metadata@0.1.0", "antiphon:plugin/conflict@0.1.0"];
    let wanting = shape(&["antiphon:plugin/log@0.1.0", "wasi:http/outgoing-handler@0.2.0"], &resolver);
    let storage = ["antiphon:plugin/metadata@0.1.0", "antiphon:plugin/storage@0.1.0"];
    let nats = shape(&["antiphon:plugin/nats-bucket@0.1.0", "wasi:sockets/tcp@0.2.0"], &storage);
    let dir = Dir::new().bytes("wanting.wasm", &wanting).bytes("nats.wasm", &nats);
    let start = |line: &str| dir.masked(line).split("\n\nlimits").next().unwrap().to_owned();
    assert_snapshot!(start("plugin inspect wanting.wasm"), @r"
    exit 3
    --- stdout
    resolver `wanting`
      interface  antiphon:plugin@0.1.0
      source     file:wanting.wasm
      size       [size]
      sha256     [sha256]
      error      it imports `wasi:http/outgoing-handler@0.2.0`, and a resolver only computes: it can't have the network

    imports
      satisfied   antiphon:plugin/log@0.1.0
      refused     wasi:http/outgoing-handler@0.2.0

    exports
      antiphon:plugin/metadata@0.1.0
      antiphon:plugin/conflict@0.1.0
    ");
    assert_snapshot!(start("plugin inspect nats.wasm"), @r"
    exit 3
    --- stdout
    storage-nats `nats`
      interface  antiphon:plugin@0.1.0
      source     file:nats.wasm
      size       [size]
      sha256     [sha256]
      error      what it exports is not as `antiphon:plugin@0.1.0` has it: instance export `antiphon:plugin/metadata@0.1.0` does not have export `describe`

    imports
      satisfied   antiphon:plugin/nats-bucket@0.1.0
      needs grant wasi:sockets/tcp@0.2.0

    exports
      antiphon:plugin/metadata@0.1.0
      antiphon:plugin/storage@0.1.0
    ");
    assert_snapshot!(dir.masked("plugin check wanting.wasm"), @r"
    exit 3
    --- stdout
    `wanting` (file:wanting.wasm)
    ok    form       a component of [size]; 64.0 MiB are allowed
    ok    world      resolver, antiphon:plugin@0.1.0
    FAIL  imports    1 is refused
                       satisfied    antiphon:plugin/log@0.1.0
                       refused      wasi:http/outgoing-handler@0.2.0: it imports `wasi:http/outgoing-handler@0.2.0`, and a resolver only computes: it can't have the network

    1 of 3 checks failed
    ");
    assert_snapshot!(dir.masked("plugin check nats.wasm"), @r"
    exit 3
    --- stdout
    `nats` (file:nats.wasm)
    ok    form       a component of [size]; 64.0 MiB are allowed
    ok    world      storage-nats, antiphon:plugin@0.1.0
    ok    imports    1 satisfied, 1 needs grant
                       satisfied    antiphon:plugin/nats-bucket@0.1.0
                       needs grant  wasi:sockets/tcp@0.2.0
    FAIL  load       what it exports is not as `antiphon:plugin@0.1.0` has it: instance export `antiphon:plugin/metadata@0.1.0` does not have export `describe`
                       hint: Build the plugin again with this release's `wit` folder, or use the release that it was made for.

    1 of 4 checks failed
    ");
}

/// A storage is asked what it is, and told what it lacks; the suite is for `test`.
#[test]
fn a_storage_is_checked_as_far_as_it_can_be_without_objects() {
    let lines = "db_path = 'app.db'\n[plugin.mine]\nsource = 'file:mine.wasm'\n";
    let bytes = antiphon_bundle::find(antiphon_bundle::World::Storage, "s3").unwrap().bytes;
    let dir = Dir::new().bytes("mine.wasm", bytes).file("poor.toml", lines);
    let dir = dir.file("rich.toml", &format!("{lines}[plugin.mine.grants]\nhttp = ['https://s3.example.org']\n"));
    let checked = |line: &str, words: &[&str]| {
        let said = dir.masked(line);
        for word in words {
            assert!(said.contains(word), "`{word}` is not in:\n{said}");
        }
    };
    let alike = "ok    the same   in a fresh instance\n";
    checked("plugin check file", &["exit 0", "it is `file` ", alike, "`antiphon plugin test file` tries all"]);
    let suite = "ok    objects    not asked for here: `antiphon plugin test NAME --config FILE` tries all";
    checked("plugin check mine.wasm", &["exit 0", "it is `s3` ", alike, suite, "all is well"]);
    let refused = "FAIL  grants     cannot load plugin `mine`";
    checked("plugin check mine --config poor.toml", &["exit 3", alike, refused, "`plugin.mine.grants.http`"]);
    let granted = "ok    grants     it is granted what it wants\n";
    let suite = "`antiphon plugin test mine --config rich.toml` tries all";
    checked("plugin check mine --config rich.toml", &["exit 0", alike, granted, suite]);
    let inspected = dir.masked("plugin inspect mine.wasm");
    assert!(inspected.contains("  says       objects in a bucket of S3\n"), "{inspected}");
    assert!(inspected.contains("  name       s3, version"), "{inspected}");
    assert!(!inspected.contains("identity"), "{inspected}");
}

#[test]
fn what_is_no_component_is_said_to_be_none() {
    let module = wat::parse_str("(module)").unwrap();
    let dir = Dir::new().bytes("core.wasm", &module).bytes("other.wasm", &shape(&[], &["acme:x/y@1.0.0"]));
    let dir = dir.file("text.wasm", "fn main() {}").file("empty.wasm", "");
    for file in ["core", "text", "empty"] {
        let inspected = dir.words(&format!("plugin inspect {file}.wasm"));
        assert!(inspected.starts_with("exit 65\n--- stderr\nerror: cannot load plugin"), "{inspected}");
    }
    assert_snapshot!(dir.masked("plugin inspect core.wasm"), @r"
    exit 65
    --- stderr
    error: cannot load plugin `core` (file:core.wasm, sha256 [sha256]): it is a core WebAssembly module, not a component

    hint: Build it for `wasm32-wasip2`, or make a component of it with `wasm-tools component new`.
    ");
    assert_snapshot!(dir.masked("plugin check text.wasm --seed 1"), @r"
    exit 3
    --- stdout
    `text` (file:text.wasm)
    FAIL  form       it is a text, not a WebAssembly component
                       hint: Compile it to a component first, and name the `.wasm` file that this gives.

    1 of 1 check failed
    ");
    assert_snapshot!(dir.masked("plugin check other.wasm --seed 1"), @r"
    exit 3
    --- stdout
    `other` (file:other.wasm)
    ok    form       a component of [size]; 64.0 MiB are allowed
    FAIL  world      it is no plugin: it exports `acme:x/y@1.0.0`, and none of `antiphon:plugin/conflict`, `antiphon:plugin/rowhash` and `antiphon:plugin/storage`

    1 of 2 checks failed
    ");
    assert_snapshot!(dir.masked("plugin test core.wasm"), @r"
    exit 65
    --- stderr
    error: cannot load plugin `core` (file:core.wasm, sha256 [sha256]): it is a core WebAssembly module, not a component

    hint: Build it for `wasm32-wasip2`, or make a component of it with `wasm-tools component new`.
    ");
    assert_snapshot!(dir.masked("plugin bench core.wasm"), @r"
    exit 65
    --- stderr
    error: cannot load plugin `core` (file:core.wasm, sha256 [sha256]): it is a core WebAssembly module, not a component

    hint: Build it for `wasm32-wasip2`, or make a component of it with `wasm-tools component new`.
    ");
    assert_snapshot!(dir.words("plugin inspect there-is-none"), @r"
    exit 66
    --- stderr
    error: cannot read the component `there-is-none`: No such file or directory (os error 2)

    hint: name a `.wasm` file, or an official component: `antiphon plugin list` names them
    ");
}
