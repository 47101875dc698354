//! Real processes: databases with the program beside them, started, killed and asked from outside.
//!
//! Nothing here knows the host's insides but the names of its tables and the log's file: what a user could see.
//! A suite says which program to run with [`program!`](crate::program), for only a suite's own crate knows it.

use crate::node::{dump, rows};
use crate::planted;
use antiphon_core::codec;
use antiphon_core::entry::Entry;
use rusqlite::{Connection, OpenFlags};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longest wait for something that takes milliseconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// The program under test.
#[derive(Clone, Debug)]
pub struct Program {
    executable: PathBuf,
    /// Compiled components, kept from one process to the next as a user's are.
    cache: PathBuf,
}

impl Program {
    pub fn new(executable: &str, temporary: &str) -> Self {
        Self { executable: executable.into(), cache: Path::new(temporary).join("cache") }
    }
}

/// The program that cargo built for this suite.
#[macro_export]
macro_rules! program {
    () => {
        $crate::Program::new(env!("CARGO_BIN_EXE_antiphon"), env!("CARGO_TARGET_TMPDIR"))
    };
}

/// A temporary folder with a log that several sites share.
#[derive(Clone, Debug)]
pub struct Place {
    program: Program,
    folder: Arc<Folder>,
}

/// A folder, which is searched for planted secrets before it goes.
#[derive(Debug)]
struct Folder {
    folder: tempfile::TempDir,
    /// What a test wrote for the program to read, and may hold some.
    given: Mutex<Vec<PathBuf>>,
}

impl Drop for Folder {
    fn drop(&mut self) {
        planted::settle(planted::search(self.folder.path(), self.given.get_mut().unwrap()));
    }
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The exit code it must have had, and words it must have said on stderr.
    #[track_caller]
    pub fn expect(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not in:\n{}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }
}

impl Place {
    pub fn new(program: Program) -> Self {
        planted::watch();
        let folder = tempfile::Builder::new().prefix("antiphon-test-").tempdir().unwrap();
        Self { program, folder: Arc::new(Folder { folder, given: Mutex::default() }) }
    }

    /// The same folder, where another build of the program is run.
    pub fn with_program(&self, executable: &str) -> Self {
        let program = Program { executable: executable.into(), ..self.program.clone() };
        Self { program, folder: Arc::clone(&self.folder) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.folder.path().join(name)
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        self.folder.given.lock().unwrap().push(path.clone());
        path
    }

    /// A site named `name` whose application has run this SQL on its new database.
    pub fn site(&self, name: &str, sql: &str) -> Site {
        let site = self.bare(name);
        app(&site.database, true).execute_batch(&format!("PRAGMA journal_mode = WAL; {sql}")).unwrap();
        site
    }

    /// Two members at rest, `a` and `b`, which have all that the application of either wrote.
    pub fn pair(&self, tables: &str, of_a: &str, of_b: &str) -> (Site, Site) {
        let (mut a, mut b) = (self.site("a", tables), self.site("b", tables));
        a.start();
        b.start();
        a.sql(of_a);
        b.sql(of_b);
        settled(&[&a, &b]);
        (a, b)
    }

    /// A site on a file that the test makes itself, or does not make.
    pub fn bare(&self, name: &str) -> Site {
        Site {
            place: self.clone(),
            name: name.to_owned(),
            database: self.path(&format!("{name}.db")),
            log: self.path("log"),
            arguments: None,
            variables: Vec::new(),
            child: None,
            started_at: 0,
        }
    }

    /// A site whose file is a copy of another's, as `VACUUM INTO` or an orderly `cp` makes it.
    pub fn copy(&self, name: &str, of: &Site) -> Site {
        let site = self.bare(name);
        of.sql("PRAGMA wal_checkpoint(TRUNCATE)");
        std::fs::copy(&of.database, &site.database).unwrap();
        site
    }

    /// The program with these arguments, run in the folder.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program.executable);
        command.args(arguments).current_dir(self.path("")).env_clear().stdin(Stdio::null());
        command.env("XDG_CACHE_HOME", &self.program.cache).envs(planted::all());
        command
    }

    /// Runs a command to its end.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ended {
        finish(&mut self.command(arguments))
    }

    /// Entries of a shard of the shared log, decoded.
    pub fn entries(&self, shard: u32) -> Vec<Entry> {
        entries(&self.path("log"), shard)
    }

    /// How many entries of the log this node wrote, in all shards.
    pub fn written_by(&self, node: u64) -> usize {
        (1..=16).map(|shard| self.entries(shard).iter().filter(|entry| entry.origin.node == node).count()).sum()
    }
}

/// Entries of a shard of the log in a directory, decoded; none if nobody appended to it.
pub fn entries(log: &Path, shard: u32) -> Vec<Entry> {
    let conn = Connection::open_with_flags(log.join("log.db"), OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    conn.busy_timeout(PATIENCE).unwrap();
    let Ok(mut statement) = conn.prepare(&format!("SELECT frame FROM shard_{shard} ORDER BY seq")) else {
        return Vec::new();
    };
    let frames = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    frames.map(|frame| codec::decode(&frame.unwrap()).unwrap()).collect()
}

/// Runs a command to its end, which must come.
pub fn finish(command: &mut Command) -> Ended {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read = |pipe: &mut dyn std::io::Read| {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    std::thread::scope(|scope| {
        let stderr = scope.spawn(move || read(&mut stderr));
        let stdout = scope.spawn(move || read(&mut stdout));
        let code = wait(&mut child, PATIENCE);
        let Some(code) = code else {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it does not end; it said:\n{}", stderr.join().unwrap());
        };
        let ended = Ended { code: code.code(), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() };
        let arguments: Vec<_> = command.get_args().collect();
        planted::look("a command", "commands", format!("{arguments:?}{}{}", ended.stdout, ended.stderr));
        ended
    })
}

fn wait(child: &mut Child, at_most: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + at_most;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A database and the process beside it. Sites end their own process, by its id, when they go.
#[derive(Debug)]
pub struct Site {
    place: Place,
    name: String,
    pub database: PathBuf,
    pub log: PathBuf,
    arguments: Option<Vec<String>>,
    variables: Vec<(String, String)>,
    child: Option<Child>,
    /// Where the words of the last start begin in the file of its stderr.
    started_at: u64,
}

impl Site {
    /// Sets a variable for every later start.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.set(name, Some(value));
        self
    }

    /// Sets or removes a variable for every later start.
    pub fn set(&mut self, name: &str, value: Option<impl Into<String>>) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.extend(value.map(|value| (name.to_owned(), value.into())));
    }

    /// Starts with these arguments instead of `run DB --log DIR`.
    pub fn arguments<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments = Some(arguments.into_iter().map(Into::into).collect());
        self
    }

    /// Is started from here from now on.
    pub fn moved(mut self, place: &Place) -> Self {
        self.runs_from(place);
        self
    }

    /// The same, of a site that stays what it is.
    pub fn runs_from(&mut self, place: &Place) {
        assert!(self.child.is_none(), "{} runs", self.name);
        self.place = place.clone();
    }

    /// Keeps the log elsewhere.
    pub fn log(mut self, log: PathBuf) -> Self {
        self.log = log;
        self
    }

    /// The host's own directory beside the database.
    pub fn state(&self) -> PathBuf {
        self.place.path(&format!("{}.db.antiphon", self.name))
    }

    fn stderr_path(&self) -> PathBuf {
        self.place.path(&format!("{}.stderr", self.name))
    }

    /// A command about this site's database.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.command(arguments);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn run_command(&self) -> Command {
        let (database, log) = (self.database.to_str().unwrap(), self.log.to_str().unwrap());
        match &self.arguments {
            Some(arguments) => self.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()),
            None => self.command(&["run", database, "--log", log]),
        }
    }

    /// Runs a verb on this site's database and log, to its end: `join`, with its flags.
    pub fn verb(&self, verb: &str, flags: &[&str]) -> Ended {
        let mut arguments = vec![verb, self.database.to_str().unwrap()];
        if verb != "cleanup" {
            arguments.extend(["--log", self.log.to_str().unwrap()]);
        }
        arguments.extend(flags);
        finish(&mut self.command(&arguments))
    }

    /// Starts the host and does not wait.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let stderr = OpenOptions::new().create(true).append(true).open(self.stderr_path()).unwrap();
        self.started_at = stderr.metadata().unwrap().len();
        let child = self.run_command().stdout(stderr.try_clone().unwrap()).stderr(stderr).spawn().unwrap();
        self.child = Some(child);
    }

    /// Starts the host and waits until it replicates; gives how long that took.
    pub fn start(&mut self) -> Duration {
        let started = Instant::now();
        self.spawn();
        // The last of what it says then, so that all of it can be looked at.
        self.wait_for_words("antiphon run OTHER.db");
        started.elapsed()
    }

    /// Starts the host, which must end by itself.
    pub fn refused(&mut self) -> Ended {
        self.spawn();
        let code = wait(self.child.as_mut().unwrap(), PATIENCE);
        let Some(code) = code else { panic!("{} runs, and must not", self.name) };
        self.child = None;
        Ended { code: code.code(), stdout: String::new(), stderr: self.said() }
    }

    /// What the host has said since its last start.
    pub fn said(&self) -> String {
        let Ok(mut file) = File::open(self.stderr_path()) else { return String::new() };
        file.seek(SeekFrom::Start(self.started_at)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the running host has said this since its start.
    #[track_caller]
    pub fn wait_for_words(&mut self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.said().contains(words) {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                panic!("{} ended with {status} instead of saying `{words}`", self.name);
            }
            assert!(Instant::now() < deadline, "{} does not say `{words}`", self.name);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether the host is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// The host's process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// The most memory that the host has had since its start, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Sends a signal to the host.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().unwrap());
        kill_process(pid, signal).unwrap();
    }

    /// Limits what the host may have of something; `None` = as much as whoever started it.
    pub fn limit(&self, what: Resource, to: Option<u64>) {
        let pid = Pid::from_child(self.child.as_ref().unwrap());
        let ours = getrlimit(what);
        prlimit(Some(pid), what, Rlimit { current: to.or(ours.current), ..ours }).unwrap();
    }

    /// Leaves the host so many bytes of memory more than it has.
    pub fn leave_memory(&self, bytes: u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
        let size: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
        self.limit(Resource::As, Some((size << 10) + bytes));
    }

    /// Ends the host as a power cut would: at once, wherever it is.
    pub fn kill9(&mut self) {
        self.signal(Signal::KILL);
        self.child.take().unwrap().wait().unwrap();
    }

    /// Waits for the host to end; gives its status.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let status = wait(self.child.as_mut().unwrap(), PATIENCE);
        let Some(status) = status else { panic!("{} does not end", self.name) };
        self.child = None;
        status
    }

    /// Asks the host to stop and waits; gives its exit code and how long it took.
    #[track_caller]
    pub fn stop(&mut self, signal: Signal) -> (Option<i32>, Duration) {
        let asked = Instant::now();
        self.signal(signal);
        (self.wait().code(), asked.elapsed())
    }

    /// Stops the host in order, which must succeed.
    #[track_caller]
    pub fn term(&mut self) {
        let (code, _) = self.stop(Signal::TERM);
        assert_eq!(code, Some(0), "{} did not stop in order", self.name);
    }

    /// A connection of the application's.
    pub fn connect(&self) -> Connection {
        app(&self.database, false)
    }

    /// Runs SQL as the application.
    #[track_caller]
    pub fn sql(&self, sql: &str) {
        self.connect().execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Every row of a query, values joined by `|`.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<String> {
        rows(&self.connect(), sql)
    }

    /// The first row of a query; words that are no value if it has none, as long as another's row has not come.
    #[track_caller]
    pub fn one(&self, sql: &str) -> String {
        self.rows(sql).into_iter().next().unwrap_or_else(|| "no row".to_owned())
    }

    /// Every row of every table of the application's, exactly.
    pub fn dump(&self) -> Vec<String> {
        dump(&self.connect())
    }

    /// The schema as the application knows it, and what the host added to it.
    pub fn schema(&self) -> Vec<String> {
        self.rows("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1, 2")
    }

    /// This node's number.
    pub fn node(&self) -> u64 {
        self.one("SELECT value FROM \"__antiphon___meta\" WHERE name = 'node'").parse().unwrap()
    }

    /// Whether nothing this node wrote is still on its way.
    pub fn is_quiet(&self) -> bool {
        let conn = self.connect();
        // As of one moment: between two looks, marks may become a batch.
        conn.execute_batch("BEGIN").unwrap();
        let marks = rows(
            &conn,
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE '\\_\\_antiphon\\_\\_%\\_change\\_log' ESCAPE '\\'
             AND name <> '__antiphon___global_change_log'",
        );
        let unmarked =
            |table: &String| rows(&conn, &format!("SELECT count(*) FROM \"{}\"", table.replace('"', "\"\""))) == ["0"];
        let waiting = "SELECT (SELECT count(*) FROM \"__antiphon___global_change_log\" WHERE state = 0),
                              (SELECT count(*) FROM \"__antiphon___scan\"),
                              (SELECT count(*) FROM \"__antiphon___meta\" WHERE name = 'founding' AND value = 1)";
        rows(&conn, waiting) == ["0|0|0"] && marks.iter().all(unmarked)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let said = std::fs::read(self.stderr_path()).unwrap_or_default();
            let tail = said.len().saturating_sub(8_000);
            eprintln!("--- {}\n{}", self.name, String::from_utf8_lossy(&said[tail..]));
        }
    }
}

fn app(database: &Path, create: bool) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let flags = if create { flags | OpenFlags::SQLITE_OPEN_CREATE } else { flags };
    let conn = Connection::open_with_flags(database, flags).unwrap();
    conn.busy_timeout(PATIENCE).unwrap();
    conn
}

/// Waits until `done` holds; panics with `what` if it never does.
#[track_caller]
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(POLL);
    }
}

/// A row each way, and all are equal after it. They have a table `t` of a whole number and a value.
#[track_caller]
pub fn goes_on(sites: &[&Site]) {
    let last = |site: &&Site| site.one("SELECT coalesce(max(id), 0) FROM t").parse::<u64>().unwrap();
    let last = sites.iter().map(last).max().unwrap_or_default();
    let word = format!("after {last}");
    for (site, id) in sites.iter().zip(last + 1..) {
        site.sql(&format!("INSERT INTO t VALUES ({id}, '{word}')"));
    }
    let there = format!("SELECT count(*) FROM t WHERE v = '{word}'");
    eventually("a row of every site is at every site", || {
        sites.iter().all(|site| site.one(&there) == sites.len().to_string())
    });
    settled(sites);
}

/// Waits until the sites have nothing on its way and hold the same rows; gives these.
#[track_caller]
pub fn settled(sites: &[&Site]) -> Vec<String> {
    let mut dump = Vec::new();
    eventually("all sites hold the same rows", || {
        if !sites.iter().all(|site| site.is_quiet()) {
            return false;
        }
        dump = sites[0].dump();
        sites.iter().skip(1).all(|site| site.dump() == dump)
    });
    dump
}
