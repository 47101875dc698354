//! `antiphon plugin`: components looked at and tried out, sound ones and others.

use std::os::unix::fs::PermissionsExt as _;

use antiphon_harness::{resolver_guest, resolver_guest_with};
use insta::assert_snapshot;

use super::Dir;

/// Digests and sizes that differ from build to build are left out.
fn masked(text: &str) -> String {
    let digest = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let mut masked = String::new();
        for (at, word) in line.split(|char: char| !char.is_ascii_alphanumeric()).enumerate() {
            let end = word.as_ptr() as usize - line.as_ptr() as usize;
            if at > 0 {
                masked.push(line[..end].chars().next_back().unwrap());
            }
            masked.push_str(if digest(word) { "[sha256]" } else { word });
        }
        for (before, after) in [("ok    form       a component of ", ";"), ("  \"size\": ", ",")] {
            if let Some((_, rest)) = masked.strip_prefix(before).and_then(|rest| rest.split_once(after)) {
                masked = format!("{before}[size]{after}{rest}");
            }
        }
        if masked.starts_with("  size       ") && !masked.ends_with(" MiB") {
            masked = "  size       [size]".to_owned();
        }
        lines.push(masked);
    }
    lines.join("\n")
}

impl Dir {
    fn bytes(self, name: &str, bytes: &[u8]) -> Self {
        std::fs::write(self.folder.path().join(name), bytes).unwrap();
        self
    }

    fn masked(&self, line: &str) -> String {
        masked(&self.words(line))
    }
}

/// Takes whatever comes.
const TAKE: &str = "(i32.const 1)";

fn mine() -> Dir {
    Dir::new().bytes("mine.wasm", &resolver_guest(TAKE))
}

/// A component with nothing in it but its type.
fn shape(imports: &[&str], exports: &[&str]) -> Vec<u8> {
    let imports: String = imports.iter().map(|name| format!("(import \"{name}\" (instance))")).collect();
    let exports: String = exports.iter().map(|name| format!("(export \"{name}\" (instance $none))")).collect();
    let text = format!("(component {imports} (component $empty) (instance $none (instantiate $empty)) {exports})");
    wat::parse_str(text).unwrap()
}

#[test]
fn help_of_the_commands_for_components() {
    let dir = Dir::new();
    assert_snapshot!(dir.words("plugin --help"), @r"
    exit 0
    --- stdout
    Make components, look at them, try them out, and pin them

    Nothing of this touches a database or a log; `reload` asks the node that runs.

    Usage: antiphon plugin <COMMAND>

    Commands:
      list     List the components that come with the program, and those of a configuration
      new      Write a component to start from: its source, cases to try it with, and what it says to
               the host
      build    Make a component of the source in a folder, with the tool of its language
      inspect  Say what a component is, what it imports and what becomes of that, and which limits it
               has
      check    Check a component: what it is, what it wants, and whether it answers the same questions
               alike
      test     Test a component: its cases, histories of a cluster, or what every storage promises
      bench    Measure a component: questions a second, fuel, memory, and what a start costs
      pin      Pin a component: write the sha256 of its file into the configuration
      reload   Have the running node look into its configuration again for its plugins
      help     Print this message or the help of the given subcommand(s)

    Options:
      -h, --help
              Print help (see a summary with '-h')
    ");
    assert_snapshot!(dir.words("plugin check --help"), @r"
    exit 0
    --- stdout
    Check a component: what it is, what it wants, and whether it answers the same questions alike

    Drawn questions are asked in fresh instances, in another order, one at a time, in other batches,
    after others, and with other numbers for nodes and tables. A component that only computes gives the
    same answers each time; one that does not would make nodes differ. A storage is asked what it is,
    and with `--config` whether it is granted what it wants; `antiphon plugin test` tries what it does
    with objects. Exit code 0 if all is well, 3 if not.

    Usage: antiphon plugin check [OPTIONS] <FILE>

    Arguments:
      <FILE>
              A component's file, the name of an official one, or with `--config` the NAME of a
              `[plugin.NAME]`

    Options:
          --config <FILE>
              The configuration that has a `[plugin.NAME]`

          --settings <NAME=VALUE>
              A setting, as in `columns=quantity`; may be given several times, and comes before the
              configuration's

          --seed <N>
              Draw the same questions as another run did

          --questions <N>
              How many questions are drawn
              
              [default: 2000]

          --schema <SQL>
              Tables to draw questions about, as a file of CREATE TABLE statements; else tables of all
              shapes are made up

          --json
              Print JSON

      -h, --help
              Print help (see a summary with '-h')
    ");
    assert_snapshot!(dir.words("plugin test --help"), @r"
    exit 0
    --- stdout
    Test a component: its cases, histories of a cluster, or what every storage promises

    A history lets several nodes write the same few rows, send and read; afterwards all nodes must hold
    the same rows. One that goes wrong is shown as short as one was found. Exit code 0 if all is well, 3
    if not.

    Usage: antiphon plugin test [OPTIONS] [FILE]

    Arguments:
      [FILE]
              A component's file, the name of an official one, or with `--config` the NAME of a
              `[plugin.NAME]`

    Options:
          --config <FILE>
              The configuration that has a `[plugin.NAME]`

          --settings <NAME=VALUE>
              A setting, as in `columns=quantity`; may be given several times, and comes before the
              configuration's

          --cases <DIR>
              A file of cases, or a folder of such `.toml` files

          --histories <N>
              How many histories a resolver has to fold
              
              [default: 32]

          --seed <N>
              Draw the same histories as another run did

          --schema <SQL>
              Tables for the histories, as a file of CREATE TABLE statements; else some of every shape
              are made up

          --replay <FILE>
              Put one clash to the resolver again, and nothing else: a file that a node wrote when the
              resolver failed
              
              The component is the one that failed, with its settings and limits, unless another is
              named.

          --json
              Print JSON

      -h, --help
              Print help (see a summary with '-h')
    ");
    assert_snapshot!(dir.words("plugin pin --help"), @r"
    exit 0
    --- stdout
    Pin a component: write the sha256 of its file into the configuration

    The file that `[plugin.NAME]` names is looked at as `antiphon plugin inspect` does, and refused if
    it is no component that can be used. Nothing else in the configuration changes. Every node of the
    cluster needs the same bytes.

    Usage: antiphon plugin pin [OPTIONS] <NAME>

    Arguments:
      <NAME>
              The NAME of a `[plugin.NAME]`

    Options:
          --config <FILE>
              The configuration file
              
              [default: antiphon.toml]

      -h, --help
              Print help (see a summary with '-h')
    ");
}

#[test]
fn the_official_components_are_listed() {
    let dir = Dir::new();
    assert_snapshot!(dir.masked("plugin list"), @r"
    exit 0
    --- stdout
    last-write-wins    resolver   0.1.0    laws 1
      sha256    [sha256]
      settings  none described
    newest-wins        resolver   0.1.0    laws 1
      sha256    [sha256]
      settings  none
    first-write-wins   resolver   0.1.0    laws 1
      sha256    [sha256]
      settings  none
    column-merge       resolver   0.1.0    laws 1
      sha256    [sha256]
      settings  none
    counter            resolver   0.1.0    laws 1
      sha256    [sha256]
      settings  columns (string, required): names of columns joined by commas
    node-priority      resolver   0.1.0    laws 1
      sha256    [sha256]
      settings  order (string, required): node numbers joined by commas, the strongest first
    fnv                hasher     0.1.0    laws 1
      sha256    [sha256]
      settings  none described
    xxh3               hasher     0.1.0    laws 1
      sha256    [sha256]
      settings  columns (string): names of key columns joined by commas: rows alike in them share a shard; seed (string): a whole number; another one spreads keys otherwise
    file               storage    0.1.0    laws 1
      sha256    [sha256]
      settings  path (string): the folder
    nats               storage    0.1.0    laws 1
      sha256    [sha256]
      settings  bucket (string): name of the bucket; replicas (string): how many servers keep a copy, if it is made
    s3                 storage    0.1.0    laws 1
      sha256    [sha256]
      settings  access_key (string): name of the key to log in with; anonymous (string): log in with nothing; bucket (string, required); ca_file (string): certificates of those who sign the service's, as PEM, besides the system's; endpoint (string): address of the service, as `https://host:port`; without one it is AWS; force_path_style (string): name the bucket in the path, and not in the host; path (string): folder within the bucket; region (string); secret (string): the key itself; session_token (string): token of a session, if the key belongs to one; storage_class (string): class of what is put, as `STANDARD_IA`; use_ssl (string): speak HTTPS, where `endpoint` does not say which
    sftp               storage    0.1.0    laws 1
      sha256    [sha256]
      settings  agent (string): ask the agent at SSH_AUTH_SOCK for keys; key_file (string): file of a private key; known_hosts (string): file of the servers' keys that are known; passphrase (string): what opens the private key; password (string): the password, if it is not in the url; url (string, required): sftp://user:password@host:port/folder
    webdav             storage    0.1.0    laws 1
      sha256    [sha256]
      settings  ca_file (string): certificates of those who sign the server's, as PEM, besides the system's; dir (string): folder on the server; login (string); secret (string): password that belongs to `login`; token (string): token to log in with, instead; url (string, required): address of the server, as `https://host/folder`, with `dir`, `login` and `secret` after `?` if they are not set apart
    ");
    let json = dir.words("plugin list --json");
    let lines: Vec<serde_json::Value> = json.lines().skip(2).map(|line| serde_json::from_str(line).unwrap()).collect();
    let fnv = lines.iter().find(|line| line["name"] == "fnv").unwrap();
    assert_eq!((&fnv["world"], &fnv["laws"], &fnv["state"]), (&"hasher".into(), &1.into(), &"builtin".into()));
    assert_eq!(fnv["sha256"].as_str().unwrap().len(), 64);
    let counter = lines.iter().find(|line| line["name"] == "counter").unwrap();
    assert_eq!(counter["settings"]["required"][0], "columns");
}

#[test]
fn the_components_of_a_configuration_are_listed_with_their_pins() {
    let bytes = resolver_guest(TAKE);
    let good = antiphon_plugin::sha256(&bytes);
    let config = format!(
        "db_path = 'app.db'\n[conflict]\ndefault = 'good'\n[[conflict.table]]\nmatch = 'order_*'\nuse = 'open'\n\
         [plugin.good]\nsource = 'file:mine.wasm'\nsha256 = '{good}'\n\
         [plugin.open]\nsource = 'file:mine.wasm'\n\
         [plugin.other]\nsource = 'file:mine.wasm'\nsha256 = '{}'\n\
         [plugin.gone]\nsource = 'file:gone.wasm'\n\
         [plugin.text]\nsource = 'file:c.toml'\n\
         [plugin.sum]\nsource = 'builtin:counter'\n",
        "0".repeat(64)
    );
    let dir = mine().file("c.toml", &config);
    let text = dir.masked("plugin list --config c.toml");
    assert_snapshot!(text.split("\n\n").nth(1).unwrap().replace(&"0".repeat(64), "[zeros]"), @r"
    in c.toml
    gone               ?
      source    file:gone.wasm
      error     cannot read the component `gone.wasm`: No such file or directory (os error 2)
    good               resolver   1        laws 1
      sha256    [sha256], as pinned
      source    file:mine.wasm
      settings  none described
      used by   `conflict.default`
    open               resolver   1        laws 1
      sha256    [sha256], not pinned: run `antiphon plugin pin open`
      source    file:mine.wasm
      settings  none described
      used by   `conflict.table` for `order_*`
    other              resolver
      pinned    [sha256]
      sha256    [sha256]: it is another file, and is not run
      source    file:mine.wasm
    sum                resolver   0.1.0    laws 1
      sha256    [sha256]
      source    builtin:counter
      settings  columns (string, required): names of columns joined by commas
    text               ?
      sha256    [sha256], not pinned: run `antiphon plugin pin text`
      source    file:c.toml
      error     it is a text, not a WebAssembly component
    ");
}

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

#[test]
fn official_components_are_well() {
    let dir = Dir::new();
    for component in antiphon_bundle::ALL {
        let settings = match component.name {
            "counter" => "--settings columns=n,x,amount",
            "node-priority" => "--settings order=2,1",
            _ => "",
        };
        let checked = dir.words(&format!("plugin check {} --questions 500 {settings}", component.name));
        assert!(checked.starts_with("exit 0\n") && checked.ends_with("\nall is well\n"), "{checked}");
        if component.world == antiphon_bundle::World::Resolver {
            let tested = dir.words(&format!("plugin test {} --histories 8 {settings}", component.name));
            assert!(tested.starts_with("exit 0\n") && tested.contains("all nodes hold the same rows"), "{tested}");
        }
    }
}

#[test]
fn a_check_draws_the_same_from_the_same_seed() {
    let dir = mine();
    let text = dir.masked("plugin check mine.wasm --seed 7 --questions 500");
    assert_snapshot!(text, @r"
    exit 0
    --- stdout
    `mine` (file:mine.wasm)
    ok    form       a component of [size]; 64.0 MiB are allowed
    ok    world      resolver, antiphon:plugin@0.1.0
    ok    imports    1 satisfied
                       satisfied    antiphon:plugin/types@0.1.0
    ok    load       it is `mine` 1, laws 1
    ok    configure  it takes its settings and 7 tables
    ok    answers    to 500 clashes
    ok    the same   in another fresh instance
    ok    the same   in another order
    ok    the same   one at a time
    ok    the same   in batches of other sizes
    ok    the same   after it has served others
    ok    the same   with other numbers for nodes and tables
    ok    limits     the last batch took 74226 fuel; memory 1.1 MiB of 64.0 MiB

    questions  sha256 [sha256]
    answers    sha256 [sha256]
    the same on every machine with `--seed 7`

    all is well
    ");
    assert_eq!(dir.words("plugin check mine.wasm --seed 7"), dir.words("plugin check mine.wasm --seed 7"));
    let digests = |seed: &str| dir.words(&format!("plugin check mine.wasm --seed {seed}"));
    assert_ne!(digests("7"), digests("8"));
}

/// What `check` says of a resolver written as text.
fn checked(verdict: &str, more: &str) -> String {
    let dir = Dir::new().bytes("mine.wasm", &resolver_guest_with(verdict, more));
    let text = dir.masked("plugin check mine.wasm --seed 1");
    let failed = text.lines().skip_while(|line| !line.starts_with("FAIL"));
    let failed: Vec<&str> = failed.take_while(|line| !line.is_empty()).collect();
    format!("{}\n{}", text.lines().next().unwrap(), failed.join("\n"))
}

#[test]
fn t10_a_resolver_that_keeps_state_is_found() {
    let count = "(global.set $n (i32.add (global.get $n) (i32.const 1))) (i32.and (global.get $n) (i32.const 1))";
    let text = checked(count, "(global $n (mut i32) (i32.const 0))");
    assert!(text.starts_with("exit 3\n"), "{text}");
    assert!(text.contains("an answer depends on what else is asked"), "{text}");
}

#[test]
fn t10_a_resolver_that_goes_by_the_order_of_a_batch_is_found() {
    // Whether the clash before this one lay right before it in memory.
    let place = "(local $follows i32)
        (local.set $follows (i32.eq (local.get $clash) (i32.add (global.get $last) (i32.const 112))))
        (global.set $last (local.get $clash))
        (local.get $follows)";
    let text = checked(place, "(global $last (mut i32) (i32.const 0))");
    assert_snapshot!(text, @r"
    exit 3
    FAIL  the same   not in another order: an answer depends on what else is asked
                       table     by_number
                       base      -534904783426661026 | -2262517385565684571 | t'6e756c00696e73696465' | 'été'
                       current   -534904783426661026 | 1216750802008901446 | t'6e756c00696e73696465' | '1'   (1767225600006 of 1)
                       incoming  -534904783426661026 | -7625973610476762694 | 1e300 | -9223372036854775808   (1767225600004 of 30)
                       first     keep
                       then      take
                       so with 8 of 2000 clashes
    FAIL  the same   not one at a time: an answer depends on what else is asked
                       table     strict_two
                       base      'key 69391' | 1e300 | 2 | 0 | 1.0 | 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'… (4013 bytes)
                       current   none   (1767225600003 of 1)
                       incoming  none   (1767225600001 of 30)
                       first     take
                       then      keep
                       so with 1996 of 2000 clashes
    FAIL  the same   not in batches of other sizes: an answer depends on what else is asked
                       table     by_number
                       base      none
                       current   -5689746676983205034 | NULL | -3.75 | 'it''s'   (1767225600004 of 30)
                       incoming  -5689746676983205034 | NULL | -3.75 | 'it''s'   (1767225600003 of 1)
                       first     take
                       then      keep
                       so with 47 of 2000 clashes
    ok    the same   after it has served others
    ok    the same   with other numbers for nodes and tables
    ok    limits     the last batch took 70963 fuel; memory 4.1 MiB of 64.0 MiB
    ");
}

#[test]
fn t10_a_resolver_that_goes_by_the_numbers_of_tables_is_found() {
    assert_snapshot!(checked("(i32.and (i32.load (local.get $clash)) (i32.const 1))", ""), @r"
    exit 3
    FAIL  the same   not with other numbers for nodes and tables: an answer depends on numbers that differ from node to node, and not on the names
                       table     by_number
                       base      -534904783426661026 | -2262517385565684571 | t'6e756c00696e73696465' | 'été'
                       current   -534904783426661026 | 1216750802008901446 | t'6e756c00696e73696465' | '1'   (1767225600006 of 1)
                       incoming  -534904783426661026 | -7625973610476762694 | 1e300 | -9223372036854775808   (1767225600004 of 30)
                       first     keep
                       then      take
                       so with 2000 of 2000 clashes
    ok    limits     the last batch took 68643 fuel; memory 4.1 MiB of 64.0 MiB
    ");
}

#[test]
fn t11_a_resolver_that_changes_its_mind_is_found() {
    // No instance is asked so much but the one that serves on.
    let bomb = "(global.set $n (i32.add (global.get $n) (i32.const 1))) (i32.gt_u (global.get $n) (i32.const 3000))";
    assert_snapshot!(checked(bomb, "(global $n (mut i32) (i32.const 0))"), @r"
    exit 3
    FAIL  the same   not after it has served others: an answer depends on what was asked before
                       table     by_bytes
                       base      x'f0' | NULL | NULL | 1e300 | 'a'
                       current   x'f0' | x'' | -6871137321086019114 | 0.1 | 'a'   (1767225600007 of 30)
                       incoming  x'f0' | NULL | NULL | 2.5 | ''   (1767225600004 of 30)
                       first     keep
                       then      take
                       so with 1000 of 2000 clashes
    ok    the same   with other numbers for nodes and tables
    ok    limits     the last batch took 70035 fuel; memory 4.1 MiB of 64.0 MiB
    ");
}

#[test]
fn a_resolver_that_fails_is_shown_with_what_it_fails_at() {
    let picky =
        "(if (i32.eq (call $kind (local.get $clash) (i32.const 1)) (i32.const 2)) (then unreachable)) (i32.const 1)";
    assert_snapshot!(checked(picky, ""), @r"
    exit 3
    FAIL  answers    cannot resolve clashes with plugin `mine` (file:mine.wasm, sha256 [sha256]): it panicked in `decide`, called by `resolve`
                       table     by_bytes
                       base      x'8d7bf3d7fd506763' | x'880545e9f6' | -7444912782845518387 | inf | -9223372036854775808
                       current   x'8d7bf3d7fd506763' | x'880545e9f6' | -7444912782845518387 | inf | t'6c696e650a627265616b'   (1767225600006 of 2)
                       incoming  x'8d7bf3d7fd506763' | 2.5 | NULL | -0.0 | -9223372036854775808   (1767225600007 of 30)
    ");
}

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

#[test]
fn a_component_is_measured_beside_another() {
    let dir = mine();
    let json = dir.words("plugin bench mine.wasm --json");
    let json: serde_json::Value = serde_json::from_str(json.split_once("--- stdout\n").unwrap().1).unwrap();
    assert_eq!(json["beside"], "last-write-wins");
    for (at, batch) in [1, 64, 512].into_iter().enumerate() {
        let line = &json["paces"][at];
        assert_eq!(line["batch"], batch);
        assert!(line["per_second"].as_f64().unwrap() > 0.0 && line["times"].as_f64().unwrap() > 0.0, "{json}");
    }
    for figure in ["compile_cold_ms", "compile_cached_ms", "instantiate_us", "memory_peak_bytes", "fuel_per_row"] {
        assert!(json[figure].as_f64().unwrap() > 0.0, "{figure}: {json}");
    }
    let text = dir.words("plugin bench fnv");
    assert!(text.starts_with("exit 0\n") && text.contains("native twin"), "{text}");
    let text = dir.words("plugin bench counter --settings columns=stock");
    assert!(text.starts_with("exit 0\n") && text.contains(" last-write-wins\n"), "{text}");
}

#[test]
fn a_pin_is_written_and_nothing_else_changes() {
    let config = "# ours\ndb_path = 'app.db' # the file\n\n[plugin.mine]\nsource = \"file:mine.wasm\" # built here\n\n\
                  [plugin.mine.settings]\na = 1\n";
    let dir = mine().file("deep/antiphon.toml", config);
    std::fs::rename(dir.folder.path().join("mine.wasm"), dir.folder.path().join("deep/mine.wasm")).unwrap();
    let path = dir.folder.path().join("deep/antiphon.toml");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("deep/antiphon.toml", dir.folder.path().join("antiphon.toml")).unwrap();

    // Through a link that stays one, to a file whose folder `source` is relative to: that of the link as it was named.
    assert_snapshot!(dir.masked("plugin pin mine --config deep/antiphon.toml"), @r"
    exit 0
    --- stdout
    `plugin.mine.sha256` in `deep/antiphon.toml`
      is   [sha256]
    ");
    let digest = antiphon_plugin::sha256(&resolver_guest(TAKE));
    let source = "source = \"file:mine.wasm\" # built here\n";
    let expected = config.replace(source, &format!("{source}sha256 = \"{digest}\"\n"));
    assert_eq!(dir.read("deep/antiphon.toml"), expected);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(std::fs::read_dir(dir.folder.path().join("deep")).unwrap().count(), 2, "nothing is left aside");

    assert_snapshot!(dir.masked("plugin pin mine --config deep/antiphon.toml"), @r"
    exit 0
    --- stdout
    `plugin.mine` is pinned already: [sha256]
    ");
    std::fs::write(dir.folder.path().join("deep/mine.wasm"), resolver_guest("(i32.const 0)")).unwrap();
    let checked = dir.masked("plugin check mine --config deep/antiphon.toml");
    assert!(checked.contains("FAIL  pin "), "{checked}");
    assert_snapshot!(dir.masked("plugin pin mine --config deep/antiphon.toml"), @r"
    exit 0
    --- stdout
    `plugin.mine.sha256` in `deep/antiphon.toml`
      was  [sha256]
      is   [sha256]
    ");
    let checked = dir.masked("plugin check mine --config deep/antiphon.toml --questions 10");
    assert!(checked.starts_with("exit 0\n") && checked.contains("ok    pin "), "{checked}");

    std::fs::write(dir.folder.path().join("mine.wasm"), resolver_guest(TAKE)).unwrap();
    let linked = dir.masked("plugin pin mine");
    assert!(linked.starts_with("exit 0\n"), "{linked}");
    assert!(std::fs::symlink_metadata(dir.folder.path().join("antiphon.toml")).unwrap().is_symlink());
    assert_eq!(dir.read("deep/antiphon.toml"), expected);
}

#[test]
fn what_can_not_be_used_is_not_pinned() {
    let config = "[plugin.text]\nsource = 'file:antiphon.toml'\n[plugin.gone]\nsource = 'file:gone.wasm'\n\
                  [plugin.sum]\nsource = 'builtin:counter'\n";
    let dir = Dir::new().file("antiphon.toml", config);
    assert_snapshot!(dir.masked("plugin pin text"), @r"
    exit 65
    --- stderr
    error: cannot load plugin `text` (file:antiphon.toml, sha256 [sha256]): it is a text, not a WebAssembly component

    hint: Compile it to a component first, and name the `.wasm` file that this gives.
    ");
    assert_snapshot!(dir.masked("plugin pin gone"), @r"
    exit 66
    --- stderr
    error: cannot read the component `gone.wasm`: No such file or directory (os error 2)

    hint: name a `.wasm` file, or an official component: `antiphon plugin list` names them
    ");
    assert_snapshot!(dir.masked("plugin pin sum"), @r"
    exit 64
    --- stderr
    error: `plugin.sum` is `builtin:counter`, which comes with the program

    hint: only a component of your own is pinned
    ");
    assert_snapshot!(dir.masked("plugin pin none"), @r"
    exit 64
    --- stderr
    error: there is no `[plugin.none]` in `antiphon.toml`

    hint: it has `gone`, `sum`, `text`
    ");
    assert_eq!(dir.read("antiphon.toml"), config);
    assert_snapshot!(Dir::new().masked("plugin pin none"), @r"
    exit 64
    --- stderr
    error: cannot read the configuration `antiphon.toml`: No such file or directory (os error 2)

    hint: write one with `antiphon init app.db`, where `app.db` is the application's database
    ");
}

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
