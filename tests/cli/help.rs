//! What each command says of itself.

use insta::assert_snapshot;

use super::Dir;

#[test]
fn alone_it_prints_its_help() {
    assert_snapshot!(Dir::new().words(""), @r"
    exit 0
    --- stdout
    Replicates an application's SQLite file: every node may write, nothing is lost

    Usage: antiphon [COMMAND]

    Commands:
      run          Replicate a database until told to stop
      init         Look at a database and write a commented configuration file for it
      join         Join a cluster with a database whose rows differ from the cluster's
      adopt        Take a database over from HarmonyLite
      status       Say how a node is: where it stands, what waits, who takes part
      cleanup      Remove every trigger and table of ours from a database
      doctor       Look for what keeps a database from being replicated, or makes it go wrong later
      verify       Compare two database files, row by row and value by value
      conflicts    Look at what was overruled when two nodes changed one row, and delete old records of
                   it
      log          Look at the log: which changes it holds, from whom, and how far it reaches
      repair       Compare a database with the log, and send what differs
      give-up      Give up on nodes that are gone for good, and whose last changes the log lost
      plugin       Make components, look at them, try them out, and pin them
      storage      Look at the storage of snapshots, try it, and move objects by hand
      snapshot     Make snapshots of a cluster's rows, look at them, and bring a database back from one
      at           Ask a query of the database as it was at a point in time
      repo         Look after all that a storage keeps of a cluster
      schema       Compare the tables of all nodes of a cluster
      policy       Look at who decides clashes in a cluster, and change it for all nodes
      demo         Show replication at work: two nodes, and one clash under two policies
      config       Look at a configuration without running anything
      completions  Print what a shell needs to complete commands and flags
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help (see more with '--help')
      -V, --version  Print version
    ");
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

          --dev
              Run components of your own that have no `sha256`, while you work on them; `ANTIPHON_DEV=1`
              says the same

          --log <DIR>
              Directory of the embedded log; nodes that name the same one replicate with each other

          --node-id <N>
              Number of this node, different on every node; 0 or none: from the configuration, else made
              once at random

          --cluster-addr <ADDR>
              Start a NATS server, which others of its cluster reach at this `host:port`

          --cluster-peers <URLS>
              Addresses of those others, as `nats://host:4248`, joined by commas

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

          --dev
              Run components of your own that have no `sha256`, while you work on them; `ANTIPHON_DEV=1`
              says the same

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
    assert_snapshot!(Dir::new().words("config --help"), @r"
    exit 0
    --- stdout
    Look at a configuration without running anything

    Usage: antiphon config <COMMAND>

    Commands:
      check    Say whether a configuration is good
      show     Print the settings in effect, the environment's and the defaults included; secrets are
               not shown
      example  Print a commented file with every key and its default
      help     Print this message or the help of the given subcommand(s)

    Options:
      -h, --help  Print help
    ");
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
fn help_of_the_commands_that_look_inside() {
    let dir = Dir::new();
    for line in ["doctor", "verify", "repair", "conflicts", "conflicts list", "conflicts purge", "log", "log peek"] {
        let help = dir.words(&format!("{line} --help"));
        assert!(help.starts_with("exit 0\n--- stdout\n"), "{help}");
        assert!(help.contains("Usage: antiphon "), "{help}");
    }
    assert_snapshot!(dir.words("verify --help"), @r#"
    exit 0
    --- stdout
    Compare two database files, row by row and value by value

    Every table that both can replicate is compared in the order of its keys: neither rowids nor the
    order of insertion count, and 1 is not 1.0. The files may be in use; each is read as it stands at
    one moment. Exit code 0 if they are equal, 65 if not.

    Usage: antiphon verify [OPTIONS] <A> <B>

    Arguments:
      <A>
              A database file

      <B>
              The one to compare it with

    Options:
          --config <FILE>
              A configuration file, whose `[capture]` says which tables count

          --table <TABLE>
              Only this table; may be given several times

          --limit <N>
              Most differing rows to print of a table
              
              [default: 10]

          --full
              Values in full, however long

          --json
              One JSON object

      -h, --help
              Print help (see a summary with '-h')
    "#);
    assert_snapshot!(dir.words("repair --help"), @r#"
    exit 0
    --- stdout
    Compare a database with the log, and send what differs

    For a file that was changed while no trigger saw it: triggers were dropped, another program wrote
    with triggers off, rows were brought back from elsewhere. Missing triggers are put back, the rows
    are compared with what the log says, and each that differs becomes this node's change, deletions
    included. This database's rows win: look first with `--dry-run`, and if the log's rows are the right
    ones, use `antiphon cleanup` and `antiphon join --discard-local`.

    The node must not be running; the application may.

    Usage: antiphon repair [OPTIONS] [DB]

    Arguments:
      [DB]
              The application's database; overrides `db_path`

    Options:
          --config <FILE>
              The configuration file; without one, defaults and environment hold

          --dev
              Run components of your own that have no `sha256`, while you work on them; `ANTIPHON_DEV=1`
              says the same

          --log <DIR>
              Directory of the embedded log

          --table <TABLE>
              Only this table; may be given several times

          --dry-run
              Say what differs, and change nothing

      -h, --help
              Print help (see a summary with '-h')
    "#);
}

#[test]
fn adopt_help() {
    assert_snapshot!(Dir::new().words("adopt --help"), @r"
    exit 0
    --- stdout
    Take a database over from HarmonyLite

    Its configuration is read as it is. What it had still to send becomes changes of this node, and then
    its triggers and tables go: all of it in one transaction, or none. Stop HarmonyLite before, on every
    node; the application may go on. After it, `antiphon run` with the same configuration goes on from
    there. Doing it twice does no harm.

    Usage: antiphon adopt [OPTIONS] [DB]

    Arguments:
      [DB]
              The application's database; overrides `db_path`

    Options:
          --config <FILE>
              The configuration file; without one, defaults and environment hold

          --dev
              Run components of your own that have no `sha256`, while you work on them; `ANTIPHON_DEV=1`
              says the same

          --dry-run
              Say what would be done, and change nothing

          --forget-unsent
              Give up changes that can't become this node's; without it nothing is done if there are any

          --json
              One JSON object

      -h, --help
              Print help (see a summary with '-h')
    ");
}

/// Each shell's script is one, and knows the commands; a reader that goes away is no failure.
#[test]
fn completions_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let said = Dir::new().words(&format!("completions {shell}"));
        assert!(said.starts_with("exit 0") && said.contains("snapshot") && said.contains("adopt"), "{said}");
        assert!(!said.contains("compile-component"), "a hidden command is completed");
    }
    assert!(Dir::new().words("completions cmd").starts_with("exit 2"));
}
