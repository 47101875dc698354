//! X08 and X12: what the host makes is its user's alone, and what others could have written is not believed.

use antiphon_harness::{Place, Program, Site, eventually, harmonylite};
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";

fn set(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A folder whose programs are started by a shell that keeps nothing from anybody.
fn careless(folder: &tempfile::TempDir) -> Place {
    let shell = folder.path().join("antiphon");
    std::fs::write(&shell, format!("#!/bin/sh\numask 000\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_antiphon"))).unwrap();
    set(&shell, 0o700);
    Place::new(Program::new(shell.to_str().unwrap(), folder.path().to_str().unwrap()))
}

/// Everything below a folder that somebody else may read or write, but for what is not ours.
fn open_to_others(folder: &Path, ours: &dyn Fn(&Path) -> bool, found: &mut (Vec<String>, usize)) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let kind = path.symlink_metadata().unwrap();
        if ours(&path) {
            found.1 += 1;
            let most = if kind.is_file() { 0o600 } else { 0o700 };
            if !kind.is_symlink() && kind.mode() & 0o7777 & !most != 0 {
                found.0.push(format!("{} {:o}", path.display(), kind.mode() & 0o7777));
            }
        }
        if kind.is_dir() {
            open_to_others(&path, ours, found);
        }
    }
}

/// A run of nearly everything that writes a file, under an umask that keeps nothing back.
#[test]
fn x08_files_are_their_users_alone_whatever_the_umask() {
    let folder = tempfile::tempdir().unwrap();
    let place = careless(&folder);
    place.file(
        "a.toml",
        "db_path = 'a.db'\n[log]\npath = 'log'\n[snapshot]\narchive_interval = 100\ninterval = 500\n\
         [alerts]\ncommand = ['true']\n[health_check]\nenable = true\nbind = '127.0.0.1:0'\n",
    );
    let mut a = place.site("a", TABLE).arguments(["run", "--config", "a.toml"]);
    let mut b = place.site("b", TABLE);
    a.start();
    b.start();
    a.sql("WITH RECURSIVE i(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM i WHERE i < 3000) INSERT INTO t SELECT i, hex(randomblob(50)) FROM i");
    eventually("rows arrive", || b.one("SELECT count(*) FROM t") == "3000");
    // Nor does a core show to others what is in memory.
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", a.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().nth(4) == Some("0"), "{core}");
    let run = |arguments: &[&str]| {
        let ended = place.run(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}{}", ended.stdout, ended.stderr);
    };
    run(&["snapshot", "create", "--config", "a.toml"]);
    run(&["snapshot", "forget", "--config", "a.toml", "--keep-last", "1"]);
    run(&["snapshot", "verify", "--config", "a.toml", "--level", "restore"]);
    run(&["snapshot", "restore", "--config", "a.toml", "--output", "back.db"]);
    run(&["init", "a.db", "--output", "written.toml"]);
    run(&["status", "--config", "a.toml"]);
    b.term();
    // A file that differs, taken back, with a copy of what it was beside it.
    let c = place.site("c", TABLE);
    c.sql("INSERT INTO t VALUES (1, 'another')");
    c.verb("join", &["--discard-local"]).expect(0, &[]);
    let d = place.site("d", TABLE);
    harmonylite::install(&d.connect(), &["t"]);
    run(&["adopt", "d.db"]);
    a.kill9();

    // The databases and what SQLite lays beside them are as open as the application made them.
    let made_here = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy();
        let inside = path.strip_prefix(place.path("")).unwrap().components().count() > 1;
        let given = ["a.db", "b.db", "c.db", "d.db", "a.toml"].iter().any(|given| name.starts_with(given));
        inside || !(given && !name.ends_with(".antiphon") || name.ends_with(".stderr"))
    };
    let mut found = (Vec::new(), 0);
    open_to_others(&place.path(""), &made_here, &mut found);
    // Compiled components.
    open_to_others(&folder.path().join("cache"), &|_| true, &mut found);
    assert!(found.1 > 30, "only {} files were looked at", found.1);
    assert!(found.0.is_empty(), "open to others:\n{}", found.0.join("\n"));
}

/// What others may write to says nothing that we would do, and holds nothing that we would run.
#[test]
fn x12_what_others_may_write_is_refused() {
    let place = place();
    let config = place.file("a.toml", "db_path = 'a.db'\n[log]\npath = 'log'\n");
    let mut a = place.site("a", TABLE).arguments(["run", "--config", "a.toml"]);
    set(&config, 0o666);
    a.refused().expect(64, &["everybody on this machine may write to `a.toml`", "chmod o-w"]);
    set(&config, 0o644);
    // A directory that somebody else has laid where ours would be.
    std::fs::create_dir(a.state()).unwrap();
    set(&a.state(), 0o777);
    a.refused().expect(6, &["others may write to the directory", "chmod 700"]);
    set(&a.state(), 0o700);
    a.start();
    a.term();
    let plugin = place.file("mine.wasm", "no component, but that is not what is asked first");
    place.file(
        "a.toml",
        "db_path = 'a.db'\n[log]\npath = 'log'\n[plugin.mine]\nsource = 'file:mine.wasm'\n[hash]\nuse = 'mine'\n",
    );
    set(&plugin, 0o666);
    let said = place.run(["run", "--config", "a.toml", "--dev"]);
    said.expect(64, &["everybody on this machine may write to", "mine.wasm"]);
}

/// X12: a link that leads elsewhere does not make us write there.
#[test]
fn x12_a_link_among_our_files_leads_nowhere() {
    let place = place();
    let mut a = place.site("a", TABLE);
    a.start();
    a.sql("INSERT INTO t VALUES (1, 'x')");
    a.term();
    let victim = place.file("victim", "nothing of this may change");
    for name in ["life", "status.json", "seq-map.cbor"] {
        let file = a.state().join(name);
        let _ = std::fs::remove_file(&file);
        std::os::unix::fs::symlink(&victim, &file).unwrap();
    }
    a.spawn();
    eventually("it runs or says why not", || a.said().contains("cluster  ") || !a.is_running());
    if a.is_running() {
        a.sql("INSERT INTO t VALUES (2, 'y')");
        eventually("it is sent", || a.is_quiet());
        a.term();
    }
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "nothing of this may change");
}

/// X15: what stands in rows and names is data: in no statement, no label, no line of its own.
#[test]
fn x15_data_is_never_more_than_data() {
    const EVIL: &str = "x'); DROP TABLE t; --\n# HELP evil 1\nevil{a=\"b\"} 1\n\u{1b}[2J<script>alert(1)</script>";
    let place = place();
    let tables =
        format!("{TABLE} CREATE TABLE \"ev'il\"\";--\n{{x=\"\"1\"\"}}\" (\"k'; --\" TEXT PRIMARY KEY, \"<b>\" TEXT);");
    let serving = |site: Site| super::observed::serving(site);
    let (mut a, mut b) = (serving(place.site("a", &tables)), serving(place.site("b", &tables)));
    a.start();
    b.start();
    let conn = a.connect();
    conn.execute("INSERT INTO t VALUES (1, ?1)", [EVIL]).unwrap();
    conn.execute("INSERT INTO \"ev'il\"\";--\n{x=\"\"1\"\"}\" VALUES (?1, ?1)", [EVIL]).unwrap();
    // Both write one key, so that the value comes by the records of clashes as well.
    b.connect().execute("INSERT OR REPLACE INTO t VALUES (1, ?1)", [format!("{EVIL} of b")]).unwrap();
    antiphon_harness::settled(&[&a, &b]);
    assert_eq!(b.one("SELECT count(*) FROM \"ev'il\"\";--\n{x=\"\"1\"\"}\""), "1");
    for site in [&a, &b] {
        let metrics = antiphon_harness::http::get(super::observed::at(site, "metrics"), "/metrics").body;
        assert!(metrics.contains("harmonylite_published"), "{metrics}");
        assert!(!metrics.contains("evil") && !metrics.contains("ev'il") && !metrics.contains("DROP"), "{metrics}");
        for line in site.said().lines() {
            assert!(!line.starts_with("evil") && !line.starts_with("{x=") && !line.contains("\u{1b}[2J"), "{line}");
        }
    }
    let (database, log) = (b.database.to_str().unwrap(), b.log.to_str().unwrap());
    let commands: [&[&str]; 4] = [
        &["status", database, "--log", log],
        &["conflicts", "list", database],
        &["doctor", database, "--log", log],
        &["log", "peek", "--log", log],
    ];
    for command in commands {
        let said = place.run(command);
        assert!(
            !said.stdout.contains("\u{1b}[2J") && !said.stderr.contains("panicked"),
            "{}{}",
            said.stdout,
            said.stderr
        );
        assert!(
            !said.stdout.lines().any(|line| line.starts_with("evil") || line.starts_with("{x=")),
            "{}",
            said.stdout
        );
    }
    assert_eq!(a.one("PRAGMA integrity_check"), "ok");
    a.term();
    b.term();
}
