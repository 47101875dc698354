//! The command line as its users meet it: words, exit codes, files.
//!
//! Each test has a folder of its own and runs the real program in it. Replication is tested elsewhere.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that can't go on ends there")]

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use antiphon_harness::planted;
use insta::assert_snapshot;

mod config;
mod help;
mod init;
mod inspect;
mod plugin;
mod plugin_new;

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
        command.current_dir(self.folder.path()).env_clear().stdin(Stdio::null());
        // What is a setting as well would be in what is shown here.
        command.envs(planted::all().filter(|(name, _)| !name.starts_with("ANTIPHON_")));
        command.envs(self.variables.iter().copied());
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
        planted::look("a command", "commands", &text);
        // The folder's real path too: a temporary folder may be a link.
        let real = self.folder.path().canonicalize().unwrap();
        text.replace(real.to_str().unwrap(), "[DIR]").replace(self.folder.path().to_str().unwrap(), "[DIR]")
    }

    fn words(&self, line: &str) -> String {
        self.run(line.split_whitespace())
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        planted::settle(planted::search(self.folder.path(), &[]));
    }
}

#[test]
fn the_status_of_a_database_that_never_was_replicated() {
    let dir = Dir::new().database("app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    assert_snapshot!(dir.words("status app.db"), @r#"
    exit 3
    --- stdout
    not running: nothing of Antiphon's is in this database
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
      "sliced": {
        "units": 0,
        "changes": 0,
        "under_way": []
      },
      "tables": [],
      "refused": {},
      "troubles": {},
      "degraded": {},
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

    hint: name the file your application uses; it has to exist already
    "#);
}

/// Whoever looks at it, what is wrong with a file is said in the same words, and nothing is left beside it.
#[test]
fn what_is_no_database_is_called_so_by_every_command() {
    let garbage = "this is no database, whatever its name says";
    let dir = Dir::new().file("app.db", garbage).file("folder.db/x", "").database("b.db", "CREATE TABLE t (id)");
    for line in [
        "status app.db",
        "init app.db",
        "doctor app.db",
        "verify app.db b.db",
        "conflicts list app.db",
        "cleanup app.db",
    ] {
        let expected = "exit 65\n--- stderr\nerror: cannot read database `app.db`: it is not a SQLite database\n\n\
                        hint: name the file your application uses\n";
        assert_eq!(dir.words(line), expected, "{line}");
    }
    for (file, why) in [("folder.db", "it is not a file"), ("none.db", "No such file or directory (os error 2)")] {
        for command in ["status", "init", "doctor", "verify b.db", "conflicts list", "cleanup", "run", "repair"] {
            let said = dir.words(&format!("{command} {file}"));
            let expected = format!(
                "exit 66\n--- stderr\nerror: cannot open database `{file}`: {why}\n\nhint: name the file your application uses; it has to exist already\n"
            );
            assert_eq!(said, expected, "{command}");
        }
    }
    assert_eq!(dir.read("app.db"), garbage);
    assert_eq!(std::fs::read_dir(dir.folder.path()).unwrap().count(), 3, "nothing was made");
}

/// A log that can't be made is nothing that was lost.
#[test]
fn a_log_that_cannot_be_made_says_where() {
    let dir = Dir::new().file("taken", "").database("app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    assert_snapshot!(dir.words("run app.db --log taken/log"), @r#"
    exit 75
    --- stderr
    error: cannot open the log: cannot reach the log: `taken/log`: Not a directory (os error 20)

    hint: name a directory with `--log`, or `path` under `[log]`, that this user can make or write to, on a disk with room
    "#);
}

/// Nothing is copied, and no log made, for a join that can't be.
#[test]
fn a_join_without_a_log_leaves_nothing() {
    let dir = Dir::new().database("app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    assert_snapshot!(dir.words("join app.db --discard-local"), @r#"
    exit 66
    --- stderr
    error: there is no log in `app.db.antiphon/log`

    hint: name its directory with `--log DIR`, as `antiphon run` was given it
    "#);
    assert_eq!(std::fs::read_dir(dir.folder.path()).unwrap().count(), 1);
}

#[test]
fn a_command_line_that_makes_no_sense_exits_2() {
    let dir = Dir::new();
    let cases = [
        ("rnu app.db", "there is no command `rnu`; did you mean `run`?", "antiphon [COMMAND]", "antiphon"),
        ("frobnicate", "there is no command `frobnicate`", "antiphon [COMMAND]", "antiphon"),
        (
            "config shwo",
            "there is no command `shwo`; did you mean `show`?",
            "antiphon config <COMMAND>",
            "antiphon config",
        ),
        (
            "run app.db --lgo x",
            "there is no flag `--lgo`; did you mean `--log`?",
            "antiphon run [OPTIONS] [DB]",
            "antiphon run",
        ),
        (
            "run --lgo=x",
            "there is no flag `--lgo`; did you mean `--log`?",
            "antiphon run [OPTIONS] [DB]",
            "antiphon run",
        ),
        (
            "log peek --pendign",
            "there is no flag `--pendign`; did you mean `--pending`?",
            "antiphon log peek [OPTIONS] [DB]",
            "antiphon log peek",
        ),
        ("run -q", "there is no flag `-q`", "antiphon run [OPTIONS] [DB]", "antiphon run"),
        ("run a.db b.db", "`b.db` is one argument too many", "antiphon run [OPTIONS] [DB]", "antiphon run"),
        (
            "run --node-id x",
            "invalid value `x` for `--node-id <N>`: invalid digit found in string",
            "antiphon run [OPTIONS] [DB]",
            "antiphon run",
        ),
        (
            "join app.db",
            "the following required arguments were not provided: <--discard-local|--publish-local>",
            "antiphon join [OPTIONS] <--discard-local|--publish-local> [DB]",
            "antiphon join",
        ),
        (
            "join app.db --discard-local --publish-local",
            "the argument `--discard-local` cannot be used with `--publish-local`",
            "antiphon join [OPTIONS] <--discard-local|--publish-local> [DB]",
            "antiphon join",
        ),
    ];
    for (line, error, usage, see) in cases {
        let expected = format!("exit 2\n--- stderr\nerror: {error}\n\nhint: usage is `{usage}`; see `{see} --help`\n");
        assert_eq!(dir.words(line), expected, "{line}");
    }
    assert_snapshot!(dir.words("config check"), @r#"
    exit 2
    --- stderr
    error: no configuration file is named, and no `ANTIPHON_…` variable is set

    hint: name the file, as in `antiphon config check antiphon.toml`; `antiphon init DB` writes one
    "#);
    assert_snapshot!(dir.words("log"), @r"
    exit 2
    --- stderr
    error: `antiphon log` alone does nothing: it takes a command of its own

    hint: `antiphon log peek`: Print the changes in the log, one a line
    hint: `antiphon log info`: Say how far each shard reaches, what the cluster agreed to, and who wrote
    hint: `antiphon log truncate`: Have the running node let go of entries that nobody needs any more
    hint: `antiphon log reseed`: Begin a log again that was lost, with the rows of this database
    ");
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
    assert_eq!(dir.words("-config c.toml -save-snapshot"), dir.words("snapshot create --config c.toml"));
    assert_snapshot!(dir.words("-config c.toml -leaf-servers nats://h:7422"), @r#"
    exit 69
    --- stderr
    error: the flag `-leaf-servers` is not part of this version

    hint: name leaf servers in a file of the NATS server's own, `server_config` under `[nats]`: `leafnodes { … }`
    "#);
    assert_snapshot!(dir.words("-config"), @r#"
    exit 2
    --- stderr
    error: the flag `-config` needs a value

    hint: see `antiphon --help`
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
