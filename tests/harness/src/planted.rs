//! Secrets that are planted wherever tests have a place for one, and the search for them wherever something comes to
//! light: what processes say, serve and write, and how they were started.
//!
//! Whoever starts a process or asks a server has what it says looked at, and a folder of a test's is searched before it
//! goes. So every test that uses them is one of secrets, too.

use memchr::memmem::Finder;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, Once};
use std::time::Duration;

/// All of them: a name and a value on each line.
const LIST: &str = include_str!("../../planted.env");
/// How each begins.
const BEGINNING: &str = "canary-";
/// The same, as logins to a web server have it on the wire.
const ENCODED: &str = "bob:canary-";
/// How often one looks at the processes there are.
const EVERY: Duration = Duration::from_millis(100);
/// Files are searched in pieces of this size.
const PIECE: usize = 1 << 20;
/// Longer than any of them, and than what is shown around one.
const OVERLAP: usize = 256;

static NEEDLES: LazyLock<[Finder<'static>; 2]> = LazyLock::new(|| {
    let encoded = data_encoding::BASE64.encode(ENCODED.as_bytes());
    // The last signs depend on what comes after.
    [Finder::new(BEGINNING).into_owned(), Finder::new(&encoded[..encoded.len() - 4]).into_owned()]
});
/// What came to light while nobody could be told.
static HITS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// How many of what were searched.
static SEARCHED: Mutex<BTreeMap<&str, u64>> = Mutex::new(BTreeMap::new());

/// Names and values.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    LIST.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_once('=').unwrap())
}

/// One of them, by its name.
#[track_caller]
pub fn named(name: &str) -> &'static str {
    all().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("there is no `{name}` in tests/planted.env")).1
}

/// Where a planted secret is in this, with what is around it.
fn hit(bytes: &[u8]) -> Option<String> {
    let at = NEEDLES.iter().find_map(|needle| needle.find(bytes))?;
    let around = &bytes[at.saturating_sub(100)..bytes.len().min(at + 40)];
    Some(String::from_utf8_lossy(around).into_owned())
}

fn count(what: &'static str, number: u64) {
    *SEARCHED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).entry(what).or_default() += number;
}

/// Looks at something that came to light.
#[track_caller]
pub fn look(place: &str, what: &'static str, bytes: impl AsRef<[u8]>) {
    count(what, 1);
    if let Some(around) = hit(bytes.as_ref()) {
        panic!("a planted secret is in {place}: …{around}…");
    }
}

/// Looks at every file below a folder, but those in which secrets were planted; gives what it found.
pub fn search(folder: &Path, planted: &[PathBuf]) -> Vec<String> {
    let mut hits = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return hits };
    for entry in entries.flatten() {
        let path = entry.path();
        // What is no file or folder itself leads to one that is looked at elsewhere.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            hits.extend(search(&path, planted));
        } else if kind.is_file() && !planted.contains(&path) {
            count("files", 1);
            hits.extend(in_file(&path).map(|around| format!("{}: …{around}…", path.display())));
        }
    }
    hits
}

/// A file that is gone by now, or that nobody may read, shows nothing.
fn in_file(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let mut piece = vec![0; PIECE];
    let mut kept = 0;
    loop {
        let read = file.read(&mut piece[kept..]).ok().filter(|read| *read > 0)?;
        let filled = kept + read;
        if let Some(around) = hit(&piece[..filled]) {
            return Some(around);
        }
        kept = filled.min(OVERLAP);
        piece.copy_within(filled - kept..filled, 0);
    }
}

/// The processes of this machine that were started with a planted secret.
pub fn processes() -> Vec<String> {
    let mut hits = Vec::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let started = process.path().join("cmdline");
        if let Some(around) = std::fs::read(&started).ok().and_then(|started| hit(&started)) {
            hits.push(format!("{}: {}", started.display(), around.replace('\0', " ")));
        }
    }
    count("looks at all processes", 1);
    hits
}

/// From here on somebody looks at the processes of this machine, again and again.
pub fn watch() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        std::thread::spawn(|| {
            loop {
                let hits = processes();
                HITS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(hits);
                std::thread::sleep(EVERY);
            }
        });
    });
}

/// At the end of a test: nothing came to light in these files, or anywhere else so far.
pub fn settle(mut hits: Vec<String>) {
    hits.append(&mut HITS.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    tell();
    // A test that failed has its own words.
    if !std::thread::panicking() {
        assert!(hits.is_empty(), "planted secrets came to light:\n{}", hits.join("\n"));
    }
}

/// Notes what this process has searched so far, for whoever runs all tests.
fn tell() {
    let Some(folder) = std::env::var_os("TEST_SEARCHED") else { return };
    let searched = SEARCHED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let lines: String = searched.iter().map(|(what, number)| format!("{number} {what}\n")).collect();
    std::fs::write(Path::new(&folder).join(std::process::id().to_string()), lines).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    #[test]
    fn there_are_twelve_at_least_and_each_is_found() {
        let values: Vec<&str> = all().map(|(_, value)| value).collect();
        assert!(values.len() >= 12);
        for value in values {
            assert!(value.starts_with(BEGINNING), "{value}");
            assert!(hit(format!("words before {value} and after").as_bytes()).is_some());
            let login = data_encoding::BASE64.encode(format!("bob:{value}").as_bytes());
            assert!(hit(login.as_bytes()).is_some(), "{login}");
        }
        assert_eq!(hit(b"canar, bob:canar"), None);
    }

    #[test]
    fn files_are_searched_wherever_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        let planted = write("config.toml", named("SECRET_OF_S3"));
        write("a/b/good", "nothing");
        assert_eq!(search(folder.path(), &[planted]), [""; 0]);
        // Between two pieces.
        for before in [0, PIECE - 10, PIECE - 1, PIECE, 3 * PIECE - 700] {
            write("a/b/bad", &format!("{}{}", "x".repeat(before), named("SECRET_OF_S3")));
            assert_eq!(search(&folder.path().join("a"), &[]).len(), 1, "after {before} bytes");
        }
    }

    #[test]
    fn processes_are_looked_at() {
        let mut child = Command::new("sleep").arg0(named("SECRET_OF_S3")).arg("60").spawn().unwrap();
        crate::eventually("it is found", || processes().len() == 1);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
