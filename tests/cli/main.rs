//! The command line as its users meet it: words, exit codes, files.
//!
//! Each test has a folder of its own and runs the real program in it. Replication is tested elsewhere.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that can't go on ends there")]

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use insta::assert_snapshot;

mod inspect;

/// A folder to run the program in.
struct Dir {
    folder: tempfile::TempDir,
    variables: Vec<(&'static str, &'static str)>,
}

impl Dir {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.push((name, value));
        self
    }

    fn file(self, name: &str, text: &str) -> Self {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn database(self, name: &str, sql: &str) -> Self {
        rusqlite::Connection::open(self.folder.path().join(name)).unwrap().execute_batch(sql).unwrap();
        self
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
        command.current_dir(self.folder.path()).env_clear().stdin(Stdio::null()).envs(self.variables.iter().copied());
        command
    }

    /// Exit code, stdout, stderr, as one text without the folder's name.
    fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let output = self.command().args(args).output().unwrap();
        let mut text = format!("exit {}\n", output.status.code().unwrap());
        for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
            if !bytes.is_empty() {
                text.push_str(&format!("--- {name}\n{}", String::from_utf8(bytes).unwrap()));
            }
        }
        // The folder's real path too: a temporary folder may be a link.
        let real = self.folder.path().canonicalize().unwrap();
        text.replace(real.to_str().unwrap(), "[DIR]").replace(self.folder.path().to_str().unwrap(), "[DIR]")
    }

    fn words(&self, line: &str) -> String {
        self.run(line.split_whitespace())
    }
}

#[test]
fn alone_it_prints_its_help() {
    assert_snapshot!(Dir::new().words(""), @r#"
    exit 0
    --- stdout
    Replicates an application's SQLite file: every node may write, nothing is lost

    Usage: antiphon [COMMAND]

    Commands:
      run        Replicate a database until told to stop
      init       Look at a database and write a commented configuration file for it
      join       Join a cluster with a database whose rows differ from the cluster's
      status     Say how a node is: where it stands, what waits, who takes part
      cleanup    Remove every trigger and table of ours from a database
      doctor     Look for what keeps a database from being replicated, or makes it go wrong later
      verify     Compare two database files, row by row and value by value
      conflicts  Look at what was overruled when two nodes changed one row, and delete old records of it
      log        Look at the embedded log: which changes it holds, from whom, and how far it reaches
      repair     Compare a database with the log, and send what differs
      demo       Show replication at work: two nodes, and one clash under two policies
      config     Look at a configuration without running anything
      help       Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help (see more with '--help')
      -V, --version  Print version
    "#);
}

#[test]
fn run_help() {
    assert_snapshot!(Dir::new().words("run --help"), @r#"
    exit 0
    --- stdout
    Replicate a database until told to stop

    Without a configuration file the log is kept beside the database, and all tables are replicated.

    Usage: antiphon run [OPTIONS] [DB]

    Arguments:
      [DB]
              The application's database; overrides `db_path`

    Options:
          --config <FILE>
              The configuration file; without one, defaults and environment hold

          --log <DIR>
              Directory of the embedded log; nodes that name the same one replicate with each other

          --node-id <N>
              Number of this node, different on every node; 0 or none: from the configuration, else made
              once at random

      -h, --help
              Print help (see a summary with '-h')
    "#);
}

#[test]
fn status_help() {
    assert_snapshot!(Dir::new().words("status --help"), @r#"
    exit 0
    --- stdout
    Say how a node is: where it stands, what waits, who takes part

    It only looks, whether the host runs, is stopped, or never ran. Exit code 0 if all is well, that is
    `in step` or `behind` for less than a minute; 3 if not.

    Usage: antiphon status [OPTIONS] [DB]

    Arguments:
      [DB]
              The application's database; overrides `db_path`

    Options:
          --config <FILE>
              The configuration file; without one, defaults and environment hold

          --log <DIR>
              Directory of the embedded log; without it, the one that the host used last, else the
              configuration's

          --json
              Print JSON, with every figure

          --watch
              Look again each second, until interrupted

      -h, --help
              Print help (see a summary with '-h')
    "#);
}

#[test]
fn the_status_of_a_database_that_never_was_replicated() {
    let dir = Dir::new().database("app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    assert_snapshot!(dir.words("status app.db"), @r#"
    exit 3
    --- stdout
    not running: it never ran on this database
      database   [DIR]/app.db
      host       does not run
      log        there is none in app.db.antiphon/log
    "#);
    assert_snapshot!(dir.words("status app.db --json"), @r#"
    exit 3
    --- stdout
    {
      "verdict": "never_ran",
      "why": null,
      "well": false,
      "database": "[DIR]/app.db",
      "node": null,
      "incarnation": null,
      "cluster": null,
      "host": {
        "running": false,
        "pid": null,
        "version": null,
        "started_seconds_ago": null,
        "report_seconds_ago": null,
        "report_error": null,
        "ended_seconds_ago": null,
        "ended_by": null,
        "applied_per_second": 0.0,
        "sent_per_second": 0.0
      },
      "log": {
        "directory": "app.db.antiphon/log",
        "found": false,
        "error": null
      },
      "shards": [],
      "pending": {
        "marks": 0,
        "batches": 0,
        "changes": null,
        "bytes": 0,
        "seconds": null
      },
      "outbox": {
        "batches": 0,
        "bytes": 0,
        "seconds": null
      },
      "members": [],
      "clashes": [],
      "tables": [],
      "refused": {},
      "troubles": {},
      "last_error": null,
      "last_error_seconds_ago": null
    }
    "#);
    assert_eq!(std::fs::read_dir(dir.folder.path()).unwrap().count(), 1, "nothing was made");
}

#[test]
fn there_is_no_status_without_a_database() {
    assert_snapshot!(Dir::new().words("status app.db"), @r#"
    exit 66
    --- stderr
    error: cannot open database `app.db`: No such file or directory (os error 2)

    hint: name the file your application uses
    "#);
    assert_snapshot!(Dir::new().file("app.db", "this is no database, whatever its name says").words("status app.db"), @r#"
    exit 65
    --- stderr
    error: cannot read database `app.db`: file is not a database
    "#);
}

#[test]
fn init_help() {
    assert_snapshot!(Dir::new().words("init --help"), @r#"
    exit 0
    --- stdout
    Look at a database and write a commented configuration file for it

    The database is only read.

    Usage: antiphon init [OPTIONS] <DB>

    Arguments:
      <DB>
              The application's database

    Options:
          --output <FILE>
              Where to write the file
              
              [default: antiphon.toml]

          --force
              Write over a file that is there already

      -h, --help
              Print help (see a summary with '-h')
    "#);
}

#[test]
fn cleanup_help() {
    assert_snapshot!(Dir::new().words("cleanup --help"), @r#"
    exit 0
    --- stdout
    Remove every trigger and table of ours from a database

    The application's own tables and rows stay as they are. Changes that no other node has seen yet are
    given up.

    Usage: antiphon cleanup [OPTIONS] [DB]

    Arguments:
      [DB]
              The application's database; overrides `db_path`

    Options:
          --config <FILE>
              The configuration file; without one, defaults and environment hold

          --dry-run
              Say what would be removed, and remove nothing

      -h, --help
              Print help (see a summary with '-h')
    "#);
}

#[test]
fn join_help() {
    assert_snapshot!(Dir::new().words("join --help"), @r#"
    exit 0
    --- stdout
    Join a cluster with a database whose rows differ from the cluster's

    `antiphon run` refuses such a database, because one side's rows have to give way. This says which.

    Usage: antiphon join [OPTIONS] <--discard-local|--publish-local> [DB]

    Arguments:
      [DB]
              The application's database; overrides `db_path`

    Options:
          --config <FILE>
              The configuration file; without one, defaults and environment hold

          --log <DIR>
              Directory of the embedded log

          --discard-local
              Take the cluster's rows; a copy of the database is kept beside it

          --publish-local
              Send this database's rows to the cluster, as changes made here

      -h, --help
              Print help (see a summary with '-h')
    "#);
}

#[test]
fn demo_help() {
    assert_snapshot!(Dir::new().words("demo --help"), @r#"
    exit 0
    --- stdout
    Show replication at work: two nodes, and one clash under two policies

    Usage: antiphon demo [OPTIONS]

    Options:
          --keep  Leave the folder and the nodes, and say how to go on by hand
      -h, --help  Print help
    "#);
}

#[test]
fn config_help() {
    assert_snapshot!(Dir::new().words("config --help"), @r#"
    exit 0
    --- stdout
    Look at a configuration without running anything

    Usage: antiphon config <COMMAND>

    Commands:
      check    Say whether a configuration is good, and what in it has no effect
      show     Print the settings in effect, the environment's and the defaults included; secrets are
               not shown
      example  Print a commented file with every key and its default
      help     Print this message or the help of the given subcommand(s)

    Options:
      -h, --help  Print help
    "#);
    assert_snapshot!(Dir::new().words("config show --help"), @r#"
    exit 0
    --- stdout
    Print the settings in effect, the environment's and the defaults included; secrets are not shown

    Usage: antiphon config show [OPTIONS] [FILE]

    Arguments:
      [FILE]  The configuration file; without one, the environment is looked at

    Options:
          --config <FILE>  The same, as other commands take it
          --json           Print JSON instead of TOML
      -h, --help           Print help
    "#);
}

#[test]
fn a_command_line_that_makes_no_sense_exits_2() {
    let dir = Dir::new();
    assert_snapshot!(dir.words("rum app.db"), @r#"
    exit 2
    --- stderr
    error: unrecognized subcommand 'rum'

    hint: a similar subcommand exists: `run`
    hint: usage is `antiphon [COMMAND]`; see `antiphon --help`
    "#);
    assert_snapshot!(dir.words("config check"), @r#"
    exit 2
    --- stderr
    error: no configuration file is named, and no `ANTIPHON_…` variable is set

    hint: name the file, as in `antiphon config check antiphon.toml`; `antiphon init DB` writes one
    "#);
    assert_snapshot!(dir.words("run --node-id x"), @r#"
    exit 2
    --- stderr
    error: invalid value 'x' for '--node-id <N>': invalid digit found in string

    hint: see `antiphon --help`
    "#);
    assert_snapshot!(dir.words("join app.db"), @r#"
    exit 2
    --- stderr
    error: the following required arguments were not provided: <--discard-local|--publish-local>

    hint: usage is `antiphon join <--discard-local|--publish-local> <DB>`; see `antiphon --help`
    "#);
    assert_snapshot!(dir.words("join app.db --discard-local --publish-local"), @r#"
    exit 2
    --- stderr
    error: the argument '--discard-local' cannot be used with '--publish-local'

    hint: usage is `antiphon join <--discard-local|--publish-local> <DB>`; see `antiphon --help`
    "#);
}

/// The example is a configuration, and a good one.
#[test]
fn the_example_is_good() {
    let dir = Dir::new();
    let example = dir.words("config example");
    let text = example.strip_prefix("exit 0\n--- stdout\n").unwrap();
    let dir = dir.file("antiphon.toml", text);
    assert_snapshot!(dir.words("config check antiphon.toml"), @r#"
    exit 0
    --- stdout
    `antiphon.toml` is good: `app.db`, embedded log in `app.db.antiphon/log`, 1 shard
    "#);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_name() {
    let dir = Dir::new().file("antiphon.toml", "db_path = 'app.db'\n[replication_log]\nshard = 4\n");
    assert_snapshot!(dir.words("config check antiphon.toml"), @r#"
    exit 64
    --- stderr
    error: unknown key `replication_log.shard` in `antiphon.toml`; did you mean `shards`?

    hint: see every key with `antiphon config example`
    "#);
    assert_snapshot!(dir.words("run --config antiphon.toml"), @r#"
    exit 64
    --- stderr
    error: unknown key `replication_log.shard` in `antiphon.toml`; did you mean `shards`?

    hint: see every key with `antiphon config example`
    "#);
    let dir = Dir::new().file("antiphon.toml", "db_path = 'app.db'").with("ANTIPHON_REPLICATION_LOG__SHARD", "4");
    assert_snapshot!(dir.words("config check --config antiphon.toml"), @r#"
    exit 64
    --- stderr
    error: unknown environment variable `ANTIPHON_REPLICATION_LOG__SHARD`; did you mean `ANTIPHON_REPLICATION_LOG__SHARDS`?

    hint: see every key with `antiphon config example`
    "#);
}

#[test]
fn a_wrong_type_is_refused() {
    let dir = Dir::new().file("antiphon.toml", "db_path = 'app.db'\n[replication_log]\nshards = 'four'\n");
    assert_snapshot!(dir.words("config check antiphon.toml"), @r#"
    exit 64
    --- stderr
    error: `replication_log.shards` in `antiphon.toml` must be a whole number, found the text `four`
    "#);
}

#[test]
fn a_missing_file_is_an_error() {
    assert_snapshot!(Dir::new().words("config check antiphon.toml"), @r#"
    exit 64
    --- stderr
    error: cannot read the configuration `antiphon.toml`: No such file or directory (os error 2)

    hint: write one with `antiphon init app.db`, where `app.db` is the application's database
    "#);
}

#[test]
fn the_environment_overrides_the_file() {
    let dir = Dir::new()
        .file("antiphon.toml", "db_path = 'app.db'\n[replication_log]\nshards = 2\n")
        .with("ANTIPHON_REPLICATION_LOG__SHARDS", "4");
    assert_snapshot!(dir.words("config check antiphon.toml"), @r#"
    exit 0
    --- stdout
    `antiphon.toml` is good: `app.db`, embedded log in `app.db.antiphon/log`, 4 shards
    "#);
}

#[test]
fn paths_are_relative_to_the_file_or_else_to_the_working_directory() {
    let dir = Dir::new().file("etc/antiphon.toml", "db_path = '../data/app.db'\n").with("ANTIPHON_LOG__PATH", "log");
    assert_snapshot!(dir.words("config check etc/antiphon.toml"), @r#"
    exit 0
    --- stdout
    `etc/antiphon.toml` is good: `etc/../data/app.db`, embedded log in `log`, 1 shard
    "#);
}

#[test]
fn what_has_no_effect_is_said() {
    let text = "db_path = 'app.db'\nseq_map_path = 'map'\n[snapshot]\nenabled = true\nstore = 's3'\n";
    let dir = Dir::new().file("antiphon.toml", text);
    assert_snapshot!(dir.words("config check antiphon.toml"), @r#"
    exit 0
    --- stdout
    `antiphon.toml` is good: `app.db`, embedded log in `app.db.antiphon/log`, 1 shard
    --- stderr
    warning: `seq_map_path` has no effect in this version: it will tell other tools how far each shard was applied
    warning: `snapshot.enabled`, `snapshot.store` have no effect in this version: no snapshot is taken or restored
    "#);
}

/// Running with the embedded log where servers are named would look like replication and be none.
#[test]
fn servers_that_would_not_be_used_are_refused() {
    let dir = Dir::new().file("antiphon.toml", "db_path = 'app.db'\n[nats]\nurls = ['nats://u:hunter2@n1:4222']\n");
    assert_snapshot!(dir.words("config check antiphon.toml"), @r#"
    exit 64
    --- stderr
    error: configuration `antiphon.toml`: the NATS log is not part of this version, and `nats.urls` is set

    hint: remove `urls` under `[nats]` to use the embedded log, which the nodes of one machine share
    "#);
}

/// Leaving needs the database alone, whatever else the file asks for.
#[test]
fn cleanup_takes_a_file_that_names_servers() {
    let dir = Dir::new()
        .database("app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY); CREATE TABLE __antiphon___meta (name, value)")
        .file("c.toml", "db_path = 'app.db'\n[nats]\nurls = ['nats://n1:4222']\n")
        .file("none.toml", "[nats]\nurls = ['nats://n1:4222']\n");
    assert_snapshot!(dir.words("cleanup --config c.toml"), @r#"
    exit 0
    --- stdout
    table __antiphon___meta
    --- stderr
    1 object removed from app.db; `[DIR]/app.db.antiphon` may go, too
    "#);
    assert_snapshot!(dir.words("cleanup --config none.toml"), @r#"
    exit 64
    --- stderr
    error: configuration `none.toml`: no database: `db_path` is not set

    hint: add `db_path = "app.db"` at the top of `none.toml`
    "#);
}

/// Without a file it is the environment that is configured.
#[test]
fn the_environment_alone_can_be_checked() {
    let dir = Dir::new().with("ANTIPHON_DB_PATH", "app.db").with("ANTIPHON_REPLICATION_LOG__SHARDS", "2");
    assert_snapshot!(dir.words("config check"), @r#"
    exit 0
    --- stdout
    the environment is good: `app.db`, embedded log in `app.db.antiphon/log`, 2 shards
    "#);
}

#[test]
fn show_hides_secrets() {
    let text = "db_path = 'app.db'\n[nats]\nuser_name = 'bob'\nuser_password = 'hunter2'\n[snapshot.s3]\n\
                access_key = 'hunter2'\nsecret = 'hunter2'\nsession_token = 'hunter2'\n[snapshot.sftp]\n\
                url = 'sftp://bob:hunter2@h:22/x'\n[snapshot.webdav]\nurl = 'https://h/?login=bob&secret=hunter2'\n\
                [plugin.backup]\nsource = 'builtin:s3'\n[plugin.backup.settings]\nregion = 'eu'\n\
                secret_key = 'hunter2'\nkey = '${file:/run/secrets/s3}'\n";
    let dir = Dir::new().file("antiphon.toml", text);
    let shown = dir.words("config show antiphon.toml");
    assert!(!shown.contains("hunter2"));
    assert_snapshot!(shown, @r#"
    exit 0
    --- stdout
    db_path = "app.db"
    node_id = 0
    publish = true
    replicate = true
    scan_max_changes = 16384
    cleanup_interval = 5000
    outbox_keep = 86400000
    outbox_keep_bytes = 1073741824
    sleep_timeout = 0
    polling_interval = 0
    seq_map_path = "app.db.antiphon/seq-map.cbor"

    [replication_log]
    shards = 1
    max_entries = 1024
    replicas = 1
    compress = true
    update_existing = false

    [capture]
    outbox_bytes_max = 0
    include = []
    exclude = []

    [log]
    path = "app.db.antiphon/log"

    [hash]
    use = "fnv"

    [conflict]
    default = "last-write-wins"
    keep = 2592000000
    table = []

    [plugin.backup]
    source = "builtin:s3"
    sha256 = ""

    [plugin.backup.settings]
    key = "${file:/run/secrets/s3}"
    region = "eu"
    secret_key = "***"

    [plugin.backup.grants]
    http = []
    private_networks = false

    [snapshot]
    enabled = true
    interval = 0
    leader_ttl = 0
    store = "nats"

    [snapshot.nats]
    replicas = 1
    bucket = ""

    [snapshot.s3]
    path = ""
    endpoint = ""
    access_key = "***"
    secret = "***"
    session_token = "***"
    bucket = ""
    use_ssl = false

    [snapshot.webdav]
    url = "https://h/?login=***&secret=***"

    [snapshot.sftp]
    url = "sftp://***@h:22/x"

    [snapshot.file]
    path = ""

    [nats]
    urls = []
    subject_prefix = "harmonylite-change-log"
    stream_prefix = "harmonylite-changes"
    server_config = ""
    seed_file = ""
    user_name = "bob"
    user_password = "***"
    ca_file = ""
    cert_file = ""
    key_file = ""
    bind_address = "127.0.0.1:-1"
    connect_retries = 5
    reconnect_wait_seconds = 2

    [logging]
    verbose = false
    format = "console"

    [prometheus]
    enable = false
    bind = "127.0.0.1:3010"
    namespace = "harmonylite"
    subsystem = ""

    [health_check]
    enable = false
    bind = "127.0.0.1:8090"
    path = "/health"
    detailed = true
    "#);
    let json = dir.words("config show --json --config antiphon.toml");
    assert!(!json.contains("hunter2"));
    let json = json.strip_prefix("exit 0\n--- stdout\n").unwrap();
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(json["nats"]["user_password"], "***");
    assert_eq!(json["replication_log"]["shards"], 1);
}

/// What `show` prints says the same again.
#[test]
fn what_is_shown_is_a_configuration() {
    let dir = Dir::new().file("antiphon.toml", "db_path = 'app.db'\nnode_id = 7\n[capture]\nexclude = ['a*']\n");
    let shown = dir.words("config show antiphon.toml");
    let dir = dir.file("shown.toml", shown.strip_prefix("exit 0\n--- stdout\n").unwrap());
    assert_eq!(dir.words("config show shown.toml"), shown);
}

#[test]
fn init_writes_what_fits_the_schema() {
    let dir = Dir::new().database(
        "app.db",
        "create table orders (id integer primary key, note);
         create table users (name text, realm text, mail text unique, primary key (realm, name));
         create table \"a\"\"b;--*\" (x);
         create table tags (tag text primary key);
         insert into tags values (null);
         create table __harmonylite___change_log_global (id integer primary key);
         create view v as select 1;",
    );
    assert_snapshot!(dir.words("init app.db"), @r#"
    exit 0
    --- stdout
    wrote `antiphon.toml`: 2 of 5 tables will be replicated
    left out: `__harmonylite___change_log_global`, because it is what HarmonyLite left behind
    left out: `a"b;--*`, because it has no primary key
    left out: `tags`, because there are rows with NULL in its primary key
    next: `antiphon run --config antiphon.toml`
    "#);
    let text = dir.read("antiphon.toml");
    let from = text.find("# Found").unwrap();
    let until = text.find("]\n\n# The embedded log").unwrap();
    assert_snapshot!(&text[from..until + 1], @r#"
    # Found in the database:
    #   table `__harmonylite___change_log_global`, primary key (id)
    #   table `a"b;--*`
    #   table `orders`, primary key (id)
    #   table `tags`, primary key (tag)
    #   table `users`, primary key (realm, name), UNIQUE besides its key: all of it goes to one shard
    #   view `v`, never replicated
    exclude = [
        "__harmonylite___change_log_global", # it is what HarmonyLite left behind
        'a"b;--[*]', # it has no primary key
        "tags", # there are rows with NULL in its primary key
    ]
    "#);
    assert_snapshot!(dir.words("config check antiphon.toml"), @r#"
    exit 0
    --- stdout
    `antiphon.toml` is good: `app.db`, embedded log in `app.db.antiphon/log`, 1 shard
    "#);
    let mode = std::fs::metadata(dir.folder.path().join("antiphon.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn init_does_not_write_over_a_file() {
    let dir = Dir::new().database("app.db", "create table t (id integer primary key)").file("antiphon.toml", "mine");
    assert_snapshot!(dir.words("init app.db"), @r#"
    exit 1
    --- stderr
    error: `antiphon.toml` is there already

    hint: write over it with `--force`, or write elsewhere with `--output FILE`
    "#);
    assert_eq!(dir.read("antiphon.toml"), "mine");
    assert!(dir.words("init app.db --force").starts_with("exit 0\n"));
    assert!(dir.read("antiphon.toml").contains("db_path = \"app.db\""));
}

/// The file is read relative to its own folder, wherever `init` was run.
#[test]
fn init_elsewhere_still_names_the_database() {
    let name = "it's \"my\" app?.db";
    let dir = Dir::new().database(name, "create table t (id integer primary key)").file("etc/x", "");
    assert_snapshot!(dir.run(["init", name, "--output", "etc/my conf.toml"]), @r#"
    exit 0
    --- stdout
    wrote `etc/my conf.toml`: 1 of 1 table will be replicated
    next: `antiphon run --config 'etc/my conf.toml'`
    "#);
    assert_snapshot!(dir.run(["config", "check", "etc/my conf.toml"]), @r#"
    exit 0
    --- stdout
    `etc/my conf.toml` is good: `[DIR]/it's "my" app?.db`, embedded log in `[DIR]/it's "my" app?.db.antiphon/log`, 1 shard
    "#);
}

/// A reader that leaves a `-wal` of its own may lock the application out.
#[test]
fn init_leaves_nothing_beside_a_database_in_wal_mode() {
    let name = "it's 100% mine?.db";
    let dir = Dir::new().database(name, "pragma journal_mode = wal; create table t (id integer primary key)");
    assert!(dir.run(["init", name]).starts_with("exit 0\n"));
    let mut files: Vec<_> = std::fs::read_dir(dir.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["antiphon.toml", name]);
}

/// What is only in the `-wal` belongs to the schema.
#[test]
fn init_sees_what_a_running_application_committed() {
    let dir = Dir::new();
    let app = rusqlite::Connection::open(dir.folder.path().join("app.db")).unwrap();
    app.execute_batch("pragma journal_mode = wal; create table t (id integer primary key)").unwrap();
    assert_snapshot!(dir.words("init app.db"), @r#"
    exit 0
    --- stdout
    wrote `antiphon.toml`: 1 of 1 table will be replicated
    next: `antiphon run --config antiphon.toml`
    "#);
}

#[test]
fn init_refuses_what_is_no_database() {
    let dir = Dir::new().file("notes.txt", &"these are no rows ".repeat(100));
    assert_snapshot!(dir.words("init nowhere.db"), @r#"
    exit 66
    --- stderr
    error: cannot open database `nowhere.db`: No such file or directory (os error 2)

    hint: name the file your application uses; it has to exist already
    "#);
    assert_snapshot!(dir.words("init notes.txt"), @r#"
    exit 65
    --- stderr
    error: cannot read database `notes.txt`: file is not a database
    "#);
    assert!(!dir.folder.path().join("nowhere.db").exists());
    assert!(!dir.folder.path().join("antiphon.toml").exists());
}

#[test]
fn a_node_without_a_database_says_how_to_name_one() {
    assert_snapshot!(Dir::new().words("run"), @r#"
    exit 64
    --- stderr
    error: no database: `db_path` is not set

    hint: name it: `antiphon run app.db`, or `antiphon run --config antiphon.toml`
    "#);
}

#[test]
fn flags_as_harmonylites_users_type_them() {
    let version = format!("exit 0\n--- stdout\nantiphon {}\n", env!("CARGO_PKG_VERSION"));
    let dir = Dir::new();
    assert_eq!(dir.words("-version"), version);
    assert_eq!(dir.words("--version"), version);
    let dir = dir.file("c.toml", "db_path = 'app.db'\nbogus = 1\n");
    assert_eq!(dir.words("-config c.toml"), dir.words("run --config c.toml"));
    assert_eq!(dir.words("-config=c.toml -cleanup"), dir.words("cleanup --config c.toml"));
    assert_snapshot!(dir.words("-config c.toml -save-snapshot"), @r#"
    exit 69
    --- stderr
    error: the flag `-save-snapshot` is not part of this version

    hint: `antiphon snapshot create` will take its place with the snapshots
    "#);
    assert_snapshot!(dir.words("-config c.toml -cluster-addr 127.0.0.1:4221"), @r#"
    exit 69
    --- stderr
    error: the flag `-cluster-addr` is not part of this version

    hint: name your NATS servers under `[nats]` as `urls` once the NATS log is built; until then the nodes of one machine share a log with `antiphon run --log DIR`
    "#);
    assert_snapshot!(dir.words("-config"), @r#"
    exit 2
    --- stderr
    error: the flag `-config` needs a value
    "#);
}

/// `antiphon config example | head` is no error.
#[test]
fn a_reader_that_leaves_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let dir = Dir::new();
    let output = dir.command().args(["config", "example"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
