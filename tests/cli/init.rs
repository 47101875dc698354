//! `init`: the configuration it writes for a database, and what it leaves alone.

use std::os::unix::fs::PermissionsExt as _;

use insta::assert_snapshot;

use super::Dir;

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
    error: cannot read database `notes.txt`: it is not a SQLite database

    hint: name the file your application uses
    "#);
    assert!(!dir.folder.path().join("nowhere.db").exists());
    assert!(!dir.folder.path().join("antiphon.toml").exists());
}
