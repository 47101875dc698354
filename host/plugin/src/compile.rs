//! Compiling a component that somebody wrote, in a process of its own: it may be made to take for ever, or all memory
//! there is, and a compiler is large.
//!
//! The process is handed the bytes and a folder, holds itself to its caps, and leaves the code in the folder's cache.
//! Nothing else comes back: what is run is read from there, and believed only as any file of the cache is.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use wasmtime::Engine;

use crate::cache::Cache;
use crate::engine;
use crate::error::Reason;
use crate::limits::Limits;
use crate::log::printable;

/// How a process that compiles is started; it is given three further arguments, for [`compile_here`].
#[derive(Clone, Debug)]
pub struct Compiler {
    /// The program.
    pub program: PathBuf,
    /// Its first arguments.
    pub arguments: Vec<OsString>,
}

/// The largest component that is ever read.
const COMPONENT_BYTES_MAX: u64 = 64 << 20;
/// The exit code for a component that can't be compiled; stdout says why.
const UNCOMPILABLE: i32 = 3;
/// From when on, and how often, somebody who waits is told.
const TELL_AFTER: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);
/// How many times its processor time it may take by the clock, on a machine that has other work.
const PATIENCE: u32 = 20;
const WORDS_BYTES_MAX: u64 = 64 << 10;

/// How a process that compiles comes to its end.
#[derive(Debug)]
pub enum Compiled {
    /// The code is in the folder.
    Kept,
    /// It can't be compiled, for the reason on stdout.
    Refused(String),
}

impl Compiled {
    /// The exit code, and what goes to stdout.
    #[must_use]
    pub fn said(&self) -> (i32, &str) {
        match self {
            Self::Kept => (0, ""),
            Self::Refused(why) => (UNCOMPILABLE, why),
        }
    }
}

/// What the process does that was started to compile: caps itself, reads a component from stdin, and keeps its code in
/// `folder`.
///
/// # Errors
/// When it can't be capped, or the folder can't be written to.
pub fn compile_here(folder: &Path, cpu_seconds: u64, memory_bytes: u64) -> Result<Compiled, io::Error> {
    cap(Resource::Cpu, cpu_seconds)?;
    cap(Resource::As, memory_bytes)?;
    // No file of the host's, of whatever size, is its business.
    cap(Resource::Core, 0)?;
    let mut bytes = Vec::new();
    io::stdin().lock().take(COMPONENT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > COMPONENT_BYTES_MAX {
        return Ok(Compiled::Refused(format!("it has more than {COMPONENT_BYTES_MAX} bytes")));
    }
    let engine = Engine::new(&engine::config()).map_err(io::Error::other)?;
    let cache =
        Cache::open(folder).ok_or_else(|| io::Error::other("the folder for compiled components can't be had"))?;
    match engine.precompile_component(&bytes) {
        Ok(code) => {
            cache.keep(&engine, &crate::sha256(&bytes), &code)?;
            Ok(Compiled::Kept)
        }
        Err(error) => Ok(Compiled::Refused(error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": "))),
    }
}

/// Holds this process to `most`, and not wider than it is held already. The kernel warns at the first number, which
/// ends it, and kills at the second.
fn cap(resource: Resource, most: u64) -> io::Result<()> {
    let held = getrlimit(resource);
    let most = [held.current, held.maximum].into_iter().flatten().fold(most, u64::min);
    let maximum = held.maximum.unwrap_or(u64::MAX).min(most.saturating_add(1));
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(maximum) })?)
}

impl Compiler {
    /// Has `bytes` compiled into the cache in `folder`.
    pub(crate) fn compile(&self, name: &str, folder: &Path, bytes: &[u8], limits: &Limits) -> Result<(), Reason> {
        let failed = |what: &str, error: &io::Error| Reason::Engine(format!("cannot {what}: {error}"));
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .arg(folder)
            .arg(limits.compile_cpu.as_secs().max(1).to_string())
            .arg(limits.compile_memory_bytes.to_string())
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed("start the process that compiles", &error))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (status, said, complained) = thread::scope(|scope| {
            scope.spawn(move || {
                // If it ends before it has read all, how it ended says more.
                stdin.map(|mut stdin| stdin.write_all(bytes))
            });
            let said = scope.spawn(move || read(stdout));
            let complained = scope.spawn(move || read(stderr));
            let status = wait(&mut child, name, bytes.len(), limits);
            (status, said.join().unwrap_or_default(), complained.join().unwrap_or_default())
        });
        let status = status.map_err(|error| failed("wait for the process that compiles", &error))?;
        let Some(status) = status else { return Err(Reason::CompileTime(limits.compile_cpu)) };
        judge(status, &said, &complained, limits)
    }
}

fn read(from: Option<impl io::Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        let _ = from.by_ref().take(WORDS_BYTES_MAX).read_to_end(&mut bytes);
        // What is beyond is taken as well, or whoever writes it waits for ever.
        let _ = io::copy(&mut from, &mut io::sink());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for the end, and tells that it takes long; none if it took too long and was ended.
fn wait(child: &mut Child, name: &str, size: usize, limits: &Limits) -> io::Result<Option<ExitStatus>> {
    let begun = Instant::now();
    let mut tell = TELL_AFTER;
    loop {
        if let Some(status) = child.try_wait()? {
            if status.success() && begun.elapsed() > TELL_AFTER {
                tracing::info!(
                    plugin = name,
                    seconds = begun.elapsed().as_secs(),
                    "compiled; the next start takes it from the cache"
                );
            }
            return Ok(Some(status));
        }
        let waited = begun.elapsed();
        if waited > limits.compile_cpu.saturating_mul(PATIENCE) {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        if waited > tell {
            let mebibytes = size >> 20;
            tracing::info!(
                plugin = name,
                mebibytes,
                seconds = waited.as_secs(),
                "compiling a component, which happens once"
            );
            tell = waited + TELL_EVERY;
        }
        thread::sleep(POLL);
    }
}

fn judge(status: ExitStatus, said: &str, complained: &str, limits: &Limits) -> Result<(), Reason> {
    let limit_met = status.signal() == Some(Signal::XCPU.as_raw());
    let lacks = |text: &str| {
        ["memory allocation of", "Cannot allocate memory", "out of memory", "Resource temporarily unavailable"]
            .iter()
            .any(|words| text.contains(words))
    };
    if status.success() {
        return Ok(());
    }
    if limit_met {
        return Err(Reason::CompileTime(limits.compile_cpu));
    }
    if lacks(complained) || lacks(said) {
        return Err(Reason::CompileMemory(limits.compile_memory_bytes));
    }
    if status.code() == Some(UNCOMPILABLE) {
        return Err(Reason::uncompilable(said));
    }
    let last = complained.lines().last().unwrap_or_default();
    Err(Reason::Engine(format!("the process that compiles ended with {status}: {}", printable(last, 200))))
}
