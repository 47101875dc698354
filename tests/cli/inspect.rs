//! The commands that look inside: words for what is wrong, before any host ever ran.

use insta::assert_snapshot;

use super::Dir;

/// What is kept of a database's bytes, to see that they are the same after.
fn bytes(dir: &Dir, name: &str) -> Vec<u8> {
    std::fs::read(dir.folder.path().join(name)).unwrap()
}

/// Gives the file the marks of a library: bytes 96 to 99 hold its number.
fn written_by(dir: &Dir, name: &str, version: u32) {
    let mut file = bytes(dir, name);
    file[96..100].copy_from_slice(&version.to_be_bytes());
    std::fs::write(dir.folder.path().join(name), file).unwrap();
}

fn doctor(dir: &Dir, arguments: &str) -> String {
    dir.words(&format!("doctor {arguments}"))
}

#[test]
fn what_was_never_replicated_has_nothing_to_show() {
    let dir = Dir::new().database("app.db", "create table t (id integer primary key)");
    assert_snapshot!(dir.words("conflicts list app.db"), @r#"
    exit 66
    --- stderr
    error: `app.db` was never replicated: nothing of Antiphon's is in it

    hint: start with `antiphon run`; `antiphon doctor` looks at the file before
    "#);
    assert_snapshot!(dir.words("log info app.db"), @r#"
    exit 66
    --- stderr
    error: there is no log in `app.db.antiphon/log`

    hint: name its directory with `--log DIR`, as `antiphon run` was given it
    "#);
    assert_snapshot!(dir.words("log peek app.db --pending"), @r#"
    exit 66
    --- stderr
    error: `app.db` was never replicated: nothing of Antiphon's is in it

    hint: start with `antiphon run`; `antiphon doctor` looks at the file before
    "#);
    assert_snapshot!(dir.words("log peek --log app.db.antiphon/log --pending"), @r#"
    exit 2
    --- stderr
    error: `--pending` needs the database whose changes are on their way

    hint: name it: `antiphon log peek app.db --pending`
    "#);
    assert_snapshot!(dir.words("repair app.db"), @r#"
    exit 66
    --- stderr
    error: there is no log in `app.db.antiphon/log`

    hint: name its directory with `--log DIR`, as `antiphon run` was given it
    "#);
    assert_snapshot!(dir.words("conflicts purge app.db"), @r#"
    exit 2
    --- stderr
    error: the following required arguments were not provided: <--before <TIME>|--all|--table <TABLE>>

    hint: usage is `antiphon conflicts purge [OPTIONS] <--before <TIME>|--all|--table <TABLE>> [DB]`; see `antiphon conflicts purge --help`
    "#);
    assert_snapshot!(dir.words("conflicts list app.db --since yesterday"), @r#"
    exit 2
    --- stderr
    error: invalid value `yesterday` for `--since <TIME>`: give a date as in 2026-11-21 or 2026-11-21T12:05:41Z (UTC, or with +01:00), or an age as in 90s, 15m, 12h or 7d

    hint: usage is `antiphon conflicts list [OPTIONS] [DB]`; see `antiphon conflicts list --help`
    "#);
    assert!(!dir.folder.path().join("app.db.antiphon").exists(), "looking makes nothing");
}

/// A file of which all is well, and the file after it.
#[test]
fn the_doctor_finds_nothing_in_a_sound_schema() {
    let dir = Dir::new().database(
        "app.db",
        "pragma journal_mode = wal; create table t (id text primary key not null, v); insert into t values ('a', 1)",
    );
    let before = bytes(&dir, "app.db");
    assert_snapshot!(doctor(&dir, "app.db"), @r#"
    exit 0
    --- stdout
    app.db: nothing found; 1 table can be replicated
    "#);
    assert_eq!(bytes(&dir, "app.db"), before);
    let files = std::fs::read_dir(dir.folder.path()).unwrap().count();
    assert_eq!(files, 1, "nothing is left beside it");
}

#[test]
fn the_doctor_names_each_table_that_is_left_out_and_the_remedy() {
    let dir = Dir::new().database(
        "app.db",
        "pragma journal_mode = wal;
         create table scratch (note);
         create table tags (tag text primary key);
         insert into tags values (null), (null), ('a');
         create table users (id text primary key not null, mail text, gone integer);
         create unique index users_mail on users (mail) where gone = 0;
         create table __harmonylite___change_log_global (id text primary key not null);",
    );
    assert_snapshot!(doctor(&dir, "app.db"), @r#"
    exit 65
    --- stdout
    app.db: 3 errors, 1 warning; 1 table can be replicated

    error: table scratch: it has no primary key
      why: none of its rows leaves this file, and none comes in
      do:  add one, or exclude it with `exclude` under `[capture]`

    error: table tags: 2 rows have a NULL in the primary key
      why: nothing tells such rows apart: they are not replicated, and a table that has them is not taken up
      do:  give each a key, and declare tag NOT NULL; or exclude the table with `exclude` under `[capture]`

    error: 1 table or trigger is of HarmonyLite's left
      why: its triggers note every change a second time, in tables that are not replicated and that nobody empties
      do:  `harmonylite -config FILE -cleanup`, with the file it ran with, while neither it nor Antiphon runs

    warning: table users: its UNIQUE index `users_mail` is partial or holds an expression
      why: which of two rows keeps such a value is not decided by the log: a row that comes in against the index stops its shard until one of the two is changed
      do:  make it an index over plain columns and all rows, or let one node alone write these rows
    --- stderr
    error: the doctor found 3 errors in `app.db`
    "#);
    let json = dir.words("doctor app.db --json");
    let json = json.strip_prefix("exit 65\n--- stdout\n").unwrap();
    let json: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    let checks: Vec<_> =
        json["findings"].as_array().unwrap().iter().map(|finding| finding["check"].as_str().unwrap()).collect();
    assert_eq!(checks, ["tables", "null-keys", "harmonylite", "partial-unique"]);
    // What is excluded is nobody's error.
    let dir = dir.file("a.toml", "db_path = 'app.db'\n[capture]\nexclude = ['scratch', 'tags', '__harmony*']\n");
    let said = doctor(&dir, "--config a.toml");
    assert!(!said.contains("scratch") && !said.contains("tags"), "{said}");
}

/// Two nodes both draw 7: the doctor says so before it happens.
#[test]
fn c27_the_doctor_warns_of_keys_that_two_nodes_draw_alike() {
    let dir = Dir::new().database(
        "app.db",
        "pragma journal_mode = wal; create table a (id integer primary key autoincrement, v);
         create table b (id integer primary key, v); create table c (id text primary key not null)",
    );
    assert_snapshot!(doctor(&dir, "app.db"), @r#"
    exit 0
    --- stdout
    app.db: 2 warnings; 3 tables can be replicated

    warning: table a: its key is INTEGER PRIMARY KEY AUTOINCREMENT
      why: two nodes that insert without a key before they have heard of each other draw the same number for two different rows; one of the rows is overruled, and only `antiphon conflicts` still has it
      do:  if several nodes insert there, let the application make keys that are different everywhere: a ULID or UUID as TEXT or BLOB PRIMARY KEY. If one node inserts, all is well

    warning: table b: its key is INTEGER PRIMARY KEY
      why: two nodes that insert without a key before they have heard of each other draw the same number for two different rows; one of the rows is overruled, and only `antiphon conflicts` still has it
      do:  if several nodes insert there, let the application make keys that are different everywhere: a ULID or UUID as TEXT or BLOB PRIMARY KEY. If one node inserts, all is well
    "#);
}

#[test]
fn c103_the_doctor_recommends_wal() {
    let dir = Dir::new().database("app.db", "create table c (id text primary key not null)");
    assert_snapshot!(doctor(&dir, "app.db"), @r#"
    exit 0
    --- stdout
    app.db: 1 warning; 1 table can be replicated

    warning: the journal mode is not WAL
      why: it works, but whoever writes makes all readers wait, and whoever reads makes Antiphon wait with what came from others
      do:  `sqlite3 [DIR]/app.db 'PRAGMA journal_mode = WAL'`, once; the file keeps it
    "#);
}

/// The first and last versions that are warned of, and their neighbours.
#[test]
fn c113_the_doctor_warns_of_an_old_sqlite() {
    let dir = Dir::new()
        .database("app.db", "pragma journal_mode = wal; create table c (id text primary key not null)")
        .database("delete.db", "create table c (id text primary key not null)");
    for (version, warned) in
        [(3_006_023, false), (3_007_000, true), (3_040_001, true), (3_051_002, true), (3_051_003, false)]
    {
        written_by(&dir, "app.db", version);
        let said = doctor(&dir, "app.db");
        assert_eq!(said.contains("last wrote the file"), warned, "{version}: {said}");
        assert!(said.starts_with("exit 0\n"), "{said}");
    }
    written_by(&dir, "app.db", 3_040_001);
    assert_snapshot!(doctor(&dir, "app.db"), @r#"
    exit 0
    --- stdout
    app.db: 1 warning; 1 table can be replicated

    warning: SQLite 3.40.1 last wrote the file
      why: SQLite 3.7.0 to 3.51.2 can damage a file in WAL mode when two connections write and checkpoint at once, and with Antiphon there are always two
      do:  build the application with SQLite 3.51.3 or later
    "#);
    // It takes WAL.
    written_by(&dir, "delete.db", 3_040_001);
    assert!(!doctor(&dir, "delete.db").contains("last wrote the file"));
}

#[test]
fn c44_the_doctor_reports_orphans() {
    let dir = Dir::new().database(
        "app.db",
        "pragma journal_mode = wal; pragma foreign_keys = off; create table p (id text primary key not null);
         create table c (id text primary key not null, p references p);
         insert into p values ('a'); insert into c values ('1', 'a'), ('2', 'b'), ('3', 'c'), ('4', null);",
    );
    assert_snapshot!(doctor(&dir, "app.db"), @r#"
    exit 0
    --- stdout
    app.db: 1 warning; 2 tables can be replicated

    warning: table c: 2 rows refer to no row of p
      why: one node deleted the parent while another added the child, or foreign keys were off; every node has the same orphans
      do:  see them with `PRAGMA foreign_key_check("c")`, and delete them or bring the parents back, on one node
    "#);
}

#[test]
fn c117_the_doctor_sees_links() {
    let dir = Dir::new().database("app.db", "pragma journal_mode = wal; create table c (id text primary key not null)");
    let path = |name: &str| dir.folder.path().join(name);
    std::os::unix::fs::symlink(path("app.db"), path("link.db")).unwrap();
    assert_snapshot!(doctor(&dir, "link.db"), @r#"
    exit 0
    --- stdout
    link.db: 1 note; 1 table can be replicated

    note: it is a symbolic link to `[DIR]/app.db`
      why: the `-wal` file and the directory of Antiphon's are kept beside the file itself, not beside the link
      do:  nothing; copy and back up the file where it is
    "#);
    std::fs::hard_link(path("app.db"), path("hard.db")).unwrap();
    let said = doctor(&dir, "hard.db");
    assert!(said.starts_with("exit 65\n") && said.contains("several names (hard links)"), "{said}");
}

#[test]
fn c101_the_doctor_finds_rows_that_cannot_travel() {
    let dir = Dir::new().database(
        "app.db",
        "pragma journal_mode = wal; create table c (id text primary key not null, v);
         insert into c values ('small', zeroblob(1000)), ('large', zeroblob(134217728));",
    );
    let said = doctor(&dir, "app.db");
    assert!(said.starts_with("exit 65\n"), "{said}");
    assert!(said.contains("table c: 1 row is larger than 128.0 MiB, the largest 128.0 MiB"), "{said}");
}

/// Clocks are compared with the log's, so that a log read late makes nobody's clock wrong.
#[test]
fn c118_the_doctor_sees_a_clock_that_is_ahead() {
    let dir = Dir::new().database("app.db", "pragma journal_mode = wal; create table c (id text primary key not null)");
    std::fs::create_dir(dir.folder.path().join("log")).unwrap();
    let now = antiphon::clock::unix_ms();
    let log = rusqlite::Connection::open(dir.folder.path().join("log/log.db")).unwrap();
    log.execute_batch(
        "create table meta (name text primary key, value); insert into meta values ('format', 1);
         create table fence (shard, node, incarnation, number);
         create table shard_1 (seq integer primary key autoincrement, time integer not null, frame blob not null)",
    )
    .unwrap();
    let write = |node: u64, clock: u64, taken: u64| {
        let origin = antiphon_core::entry::Origin { node, incarnation: 1 };
        let body = antiphon_core::entry::Body::Founded;
        let entry = antiphon_core::entry::Entry { cluster: [1; 16], origin, number: 1, clock, body };
        let frame = antiphon_core::codec::Encoder::new(None).encode(&entry).unwrap();
        log.execute("insert into shard_1 (time, frame) values (?1, ?2)", (taken as i64 * 1_000_000, frame)).unwrap();
    };
    write(1, now - 3_600_000, now - 3_600_000);
    write(2, now + 30_000, now);
    assert!(doctor(&dir, "app.db --log log").contains("app.db: nothing found"));
    write(3, now + 3_600_000, now);
    let said = doctor(&dir, "app.db --log log");
    assert!(said.starts_with("exit 0\n") && said.contains("the clock of node 3 is 3"), "{said}");
    assert!(!said.contains("node 1") && !said.contains("node 2"), "{said}");
    write(3, now + 3_600_000, now + 3_600_000);
    let said = doctor(&dir, "app.db --log log");
    assert!(!said.contains("the clock of node"), "{said}");
    assert!(said.contains("this machine's clock is 3") && said.contains("behind the newest entry"), "{said}");
}

/// 1 is not 1.0, a text no blob, and the order of insertion nothing.
#[test]
fn verify_compares_values_and_their_classes() {
    let ddl = "create table t (id integer primary key, v); create table u (a text, b text collate nocase, c, primary key (a, b)) without rowid;";
    let dir = Dir::new()
        .database("a.db", &format!("{ddl} insert into t values (1, 'x'), (2, 1), (3, 'only a'), (5, x'61'), (6, -0.0);
                   insert into u values ('k', 'A', 1), ('k', 'b', 2), ('j', 'b', 2);"))
        .database("same.db", &format!("{ddl} insert into t values (6, -0.0), (5, x'61'); insert into t values (3, 'only a'), (2, 1), (1, 'x');
                   insert into u values ('j', 'b', 2), ('k', 'b', 2), ('k', 'A', 1); delete from t where id = 100;"))
        .database("b.db", &format!("{ddl} insert into t values (1, 'x'), (2, 1.0), (4, 'only' || char(10) || 'b'), (5, 'a'), (6, 0.0);
                   insert into u values ('k', 'a', 1), ('k', 'B', 2), ('j', 'b', 2); create table w (id text primary key);"));
    assert_snapshot!(dir.words("verify a.db same.db"), @r#"
    exit 0
    --- stdout
    A is a.db
    B is same.db
    table t: equal, 5 rows, digest 40613914eede76ad1028032d22f2a1b0
    table u: equal, 3 rows, digest a6205f6e77da7f69cadcab185bf3a80c
    "#);
    assert_snapshot!(dir.words("verify a.db b.db"), @r#"
    exit 65
    --- stdout
    A is a.db
    B is b.db
    table t: differs: 1 only in A, 1 only in B, 3 with other values; 5 in A and 5 in B
      digest 40613914eede76ad1028032d22f2a1b0 in A, 95e24364088c9ca1d85ce694073e850e in B
      id = 2
        v: A has 1, B has 1.0
      id = 3
        only A: id = 3, v = 'only a'
      id = 4
        only B: id = 4, v = 'only' || char(10) || 'b'
      id = 5
        v: A has x'61', B has 'a'
      id = 6
        v: A has -0.0, B has 0.0
    table u: differs: 0 only in A, 0 only in B, 2 with other values; 3 in A and 3 in B
      digest a6205f6e77da7f69cadcab185bf3a80c in A, 0d2ecc750e07622f08c429693f131d10 in B
      a = 'k', b = 'A'
        b: A has 'A', B has 'a'
      a = 'k', b = 'b'
        b: A has 'b', B has 'B'
    table w: only B has it
    --- stderr
    error: `a.db` and `b.db` are not the same
    "#);
    assert_snapshot!(dir.words("verify a.db b.db --table t --limit 1"), @r#"
    exit 65
    --- stdout
    A is a.db
    B is b.db
    table t: differs: 1 only in A, 1 only in B, 3 with other values; 5 in A and 5 in B
      digest 40613914eede76ad1028032d22f2a1b0 in A, 95e24364088c9ca1d85ce694073e850e in B
      id = 2
        v: A has 1, B has 1.0
      … and 4 more
    --- stderr
    error: `a.db` and `b.db` are not the same
    "#);
    let json = dir.words("verify a.db b.db --json");
    let json = json.strip_prefix("exit 65\n--- stdout\n").unwrap();
    let json: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(json["equal"], false);
    assert_eq!(json["only_b"][0], "w");
    assert_eq!(json["tables"][0]["differing"][1]["a"]["v"], "only a");
    assert_eq!(json["tables"][0]["differing"][1]["b"], serde_json::Value::Null);
}

/// What one file alone has is named and not compared; keys that differ can't be.
#[test]
fn verify_names_what_differs_in_the_schemas() {
    let dir = Dir::new()
        .database("a.db", "create table t (id integer primary key, v text, mine); create table k (id text primary key); insert into t values (1, 'x', 2);")
        .database("b.db", "create table t (v varchar unique, id integer primary key); create table k (id text collate nocase primary key); insert into t values ('x', 1);");
    assert_snapshot!(dir.words("verify a.db b.db"), @r#"
    exit 65
    --- stdout
    A is a.db
    B is b.db
    table k: can't be compared: the primary keys are not the same: (id) and (id COLLATE NOCASE)
    table t: equal, 1 row, digest c0e98cde083f9251af432ba6e6dd2689
      only A has the columns mine: not compared
      column v is declared TEXT in A and varchar in B
      UNIQUE (v) is in B alone
    --- stderr
    error: `a.db` and `b.db` are not the same
    "#);
}

/// SQLite orders text of UTF-16 files by other bytes; both are walked in that order.
#[test]
fn verify_walks_files_of_utf16() {
    let sql = "pragma encoding = 'UTF-16le'; create table t (k text primary key) without rowid;
               insert into t values ('a'), ('é'), ('Ā'), ('ā'), ('語'), ('😀'), (''), ('ab')";
    let dir = Dir::new()
        .database("a.db", sql)
        .database("b.db", &format!("{sql}; delete from t where k = 'Ā'"))
        .database("c.db", "create table t (k text primary key) without rowid");
    let said = dir.words("verify a.db b.db");
    assert!(said.contains("1 only in A, 0 only in B, 0 with other values"), "{said}");
    assert!(dir.words("verify a.db c.db").contains("different encodings"));
}
