//! C07: whatever happens to the files beside the database, the rows in it are safe and the next step is said.

use antiphon_harness::{Place, Site, eventually, settled};
use std::path::{Path, PathBuf};

use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    Overwritten,
    Truncated,
    Emptied,
    Deleted,
}

const ALL: [Damage; 4] = [Damage::Overwritten, Damage::Truncated, Damage::Emptied, Damage::Deleted];

impl Damage {
    fn on(self, file: &Path) {
        let bytes = std::fs::read(file).unwrap();
        match self {
            Damage::Overwritten => {
                let noise: Vec<u8> = (0..bytes.len()).map(|n| u8::try_from(n * 7919 % 251).unwrap()).collect();
                std::fs::write(file, noise).unwrap();
            }
            Damage::Truncated => std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap(),
            Damage::Emptied => std::fs::write(file, b"").unwrap(),
            Damage::Deleted => std::fs::remove_file(file).unwrap(),
        }
    }
}

fn files_under(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_under(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// A founder that keeps its log in its own directory, and a second node; both were killed with rows on the way.
struct Killed {
    place: Place,
    a: Site,
    b: Site,
}

impl Killed {
    fn new(cache: &str) -> Self {
        let place = place();
        let log = place.path("a.db.antiphon/log");
        let cache = place.path(cache).to_str().unwrap().to_owned();
        let mut a = place.site("a", TABLE).log(log.clone()).with("XDG_CACHE_HOME", &cache);
        let mut b = place.site("b", TABLE).log(log).with("XDG_CACHE_HOME", &cache);
        a.start();
        b.start();
        for id in 0..20 {
            a.sql(&format!("INSERT INTO t VALUES ({id}, 'a')"));
            b.sql(&format!("INSERT INTO t VALUES ({id} + 100, 'b')"));
        }
        settled(&[&a, &b]);
        a.kill9();
        b.kill9();
        a.sql("INSERT INTO t VALUES (50, 'while down')");
        Self { place, a, b }
    }

    /// It starts and replicates, or it refuses and says what to do; the rows are there either way.
    fn check(&mut self, what: &str) {
        let before = self.a.dump();
        assert_eq!(before.len(), 41);
        self.a.spawn();
        let a = &mut self.a;
        eventually("it starts or ends", || a.said().contains("replicating ") || !a.is_running());
        // A start that says it replicates may find out a little later that it can't.
        if a.is_running() {
            let id = 1_000;
            a.sql(&format!("INSERT INTO t VALUES ({id}, 'after')"));
            eventually("a row goes through or it ends", || {
                !a.is_running() || a.is_quiet() || a.said().contains("paused until this changes")
            });
        }
        let said = a.said();
        println!("{what}: {}", said.lines().find(|line| line.starts_with("error: ")).unwrap_or("it runs"));
        assert!(!said.contains("panicked"), "{what}: {said}");
        if !a.is_running() {
            let status = a.wait();
            assert!(matches!(status.code(), Some(1 | 65)), "{what}: {status} {said}");
            assert!(said.contains("hint: "), "{what}: it ended and did not say what to do:\n{said}");
        }
        let after = a.dump();
        for row in &before {
            assert!(after.contains(row), "{what}: lost {row}");
        }
        assert_eq!(a.one("PRAGMA integrity_check"), "ok", "{what}");
    }
}

/// Each file of the host's directory, in each way it can go wrong, one at a time.
#[test]
fn c07_every_file_of_the_state_directory() {
    let names: Vec<PathBuf> = {
        let killed = Killed::new("cache");
        let state = killed.a.state();
        files_under(&state).iter().map(|file| file.strip_prefix(&state).unwrap().to_owned()).collect()
    };
    for file in ["life", "lock", "log/log.db", "log/log.db-wal", "log/log.db-shm"] {
        assert!(names.contains(&file.into()), "{file} is not among {names:?}");
    }
    for at in 0..names.len() {
        for damage in ALL {
            let mut killed = Killed::new("cache");
            // Some are named after nodes, which have other numbers each time.
            let file = files_under(&killed.a.state()).remove(at);
            damage.on(&file);
            killed.check(&format!("{} {damage:?}", file.display()));
        }
    }
}

/// The lock's file says nothing; whatever is in it, the node starts.
#[test]
fn c07_a_damaged_lock_file_is_no_obstacle() {
    for damage in ALL {
        let mut killed = Killed::new("cache");
        damage.on(&killed.a.state().join("lock"));
        killed.a.start();
        killed.b.start();
        eventually("the row arrives", || killed.b.one("SELECT count(*) FROM t WHERE id = 50") == "1");
    }
}

/// What was compiled before is only ever a help.
#[test]
fn c07_every_file_of_the_compile_cache() {
    let mut killed = Killed::new("own-cache");
    let cache = killed.place.path("own-cache").join("antiphon");
    let count = files_under(&cache).len();
    assert!(count >= 3, "a secret and two components");
    for damage in ALL {
        for at in 0..count {
            let Some(file) = files_under(&cache).get(at).cloned() else { continue };
            damage.on(&file);
            killed.a.start();
            killed.a.term();
            assert_eq!(files_under(&cache).len(), count, "it is made again");
        }
    }
    std::fs::remove_dir_all(&cache).unwrap();
    std::fs::write(&cache, "a file where a folder should be").unwrap();
    killed.a.start();
    killed.b.start();
    settled(&[&killed.a, &killed.b]);
}

/// Everything but the database and the log may go: the directory is made again and nothing is lost.
#[test]
fn c07_the_whole_directory_of_a_follower() {
    let mut killed = Killed::new("cache");
    std::fs::remove_dir_all(killed.b.state()).unwrap();
    killed.a.start();
    killed.b.start();
    assert_eq!(settled(&[&killed.a, &killed.b]).len(), 41);
}

/// What a crash left half done in the host's directory does not pile up.
#[test]
fn folders_of_an_earlier_life_are_swept() {
    let place = place();
    let mut a = place.site("a", TABLE);
    std::fs::create_dir_all(a.state().join("scratch-0")).unwrap();
    std::fs::write(a.state().join("scratch-0/log.db"), "half").unwrap();
    a.start();
    assert!(!a.state().join("scratch-0").exists());
}
