//! `antiphon plugin`: components listed, looked at, tried out and measured, sound ones and others.

use antiphon_harness::resolver_guest;
use insta::assert_snapshot;

use super::Dir;

mod cases;
mod check;
mod inspect;
mod pin;
mod replay;

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
