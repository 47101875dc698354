//! What went wrong with a plugin: which one, what was tried, why, and what to do about it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use antiphon_core::hash::PluginError;
use wasmtime::{Trap, WasmBacktrace};

use crate::limits::{HANDED_BYTES_MAX, Limits, Meter};
use crate::log::printable;
use crate::{Source, sha256};

/// The WebAssembly engine does not start: nothing of any plugin.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the WebAssembly engine: {0}")]
pub struct EngineError(pub(crate) String);

/// A plugin failed.
///
/// Displayed, it says what was tried with which plugin; its source says why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {} plugin {}", .0.attempt, .0.subject)]
pub struct Error(#[source] Box<Failure>);

#[derive(Debug)]
struct Failure {
    subject: Arc<Subject>,
    attempt: Attempt,
    reason: Reason,
    spent: Option<Spent>,
}

/// What a call had used up when it failed, and what its guest had written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Fuel used.
    pub fuel: u64,
    /// Fuel given.
    pub fuel_max: u64,
    /// Bytes of memory.
    pub memory_bytes: usize,
    /// Bytes of memory it may have.
    pub memory_bytes_max: usize,
    /// The last lines it wrote to stdout and stderr.
    pub words: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl std::error::Error for Failure {}

impl Error {
    pub(crate) fn new(subject: &Arc<Subject>, attempt: Attempt, reason: Reason) -> Self {
        Self(Box::new(Failure { subject: Arc::clone(subject), attempt, reason, spent: None }))
    }

    /// The same error, with what the call had used up.
    pub(crate) fn after(mut self, spent: Spent) -> Self {
        self.0.spent = Some(spent);
        self
    }

    /// What the call had used up, if it came to one.
    #[must_use]
    pub fn spent(&self) -> Option<&Spent> {
        self.0.spent.as_ref()
    }

    /// Whether it came of a question about clashes, and not of getting ready for one.
    pub(crate) fn is_about_clashes(&self) -> bool {
        self.0.attempt == Attempt::Resolve
    }

    /// Everything there is to say, by name: what a report shows one below the other.
    #[must_use]
    pub fn details(&self) -> Vec<(String, String)> {
        let Failure { subject, attempt, reason, spent } = &*self.0;
        let mut details = vec![
            ("plugin".to_owned(), subject.name.clone()),
            ("source".to_owned(), subject.origin.clone()),
            ("sha256".to_owned(), subject.sha256.clone()),
            ("function".to_owned(), attempt.function().to_owned()),
        ];
        let mut add = |name: &str, value: String| details.push((name.to_owned(), value));
        if let Some(trace) = reason.trace().filter(|trace| !trace.0.is_empty()) {
            add("backtrace", trace.0.join(" < "));
        }
        if let Some(spent) = spent {
            add("fuel", format!("{} of {}", spent.fuel, spent.fuel_max));
            add("memory", format!("{} of {} bytes", spent.memory_bytes, spent.memory_bytes_max));
            for line in &spent.words {
                add("it wrote", line.clone());
            }
        }
        details
    }

    /// The engine failed before there was anything of the plugin.
    pub(crate) fn engine(source: &Source<'_>, why: String) -> Self {
        let sha256 = sha256(&source.bytes);
        let subject = Subject { name: source.name.clone(), origin: source.origin.to_string(), sha256 };
        Self::new(&Arc::new(subject), Attempt::Load, Reason::Engine(why))
    }

    /// Why it failed.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.0.reason
    }

    /// What to do about it, as a sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        self.0.reason.hint()
    }
}

impl From<Error> for PluginError {
    fn from(err: Error) -> Self {
        Self(format!("{err}: {}", err.reason()))
    }
}

/// Which plugin it is about.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) origin: String,
    pub(crate) sha256: String,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({}, sha256 {})", self.name, self.origin, self.sha256)
    }
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    Load,
    Configure,
    Hash,
    Resolve,
    /// What is asked of a storage.
    Store(&'static str),
}

impl Attempt {
    /// The function of the guest that it is about.
    fn function(self) -> &'static str {
        match self {
            Self::Load => "describe",
            Self::Configure => "configure",
            Self::Hash => "hash",
            Self::Resolve => "resolve",
            Self::Store(_) => "session",
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Load => "load",
            Self::Configure => "configure",
            Self::Hash => "hash keys with",
            Self::Resolve => "resolve clashes with",
            Self::Store(what) => what,
        })
    }
}

/// What a component exports has other types than its world.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct OtherTypes(pub(crate) String);

/// Why a plugin failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// There are no bytes.
    #[error("it is empty")]
    Empty,
    /// The bytes are a text.
    #[error("it is a text, not a WebAssembly component")]
    Text,
    /// The bytes are something else.
    #[error("it is no WebAssembly: it begins with {0:02x?}")]
    Foreign(Vec<u8>),
    /// The bytes are a core module.
    #[error("it is a core WebAssembly module, not a component")]
    CoreModule,
    /// The bytes are compiled already.
    #[error("it is machine code compiled ahead (`.cwasm`), which can do anything and is never loaded")]
    Precompiled,
    /// The bytes end too early.
    #[error("it ends in the middle: the file is truncated")]
    Truncated,
    /// The component is too large to be compiled.
    #[error("its {size} bytes are more than the {size_max} allowed")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The largest allowed.
        size_max: usize,
    },
    /// Compiling the component takes longer than it may.
    #[error("compiling it takes more than {} seconds of processor time", .0.as_secs())]
    CompileTime(Duration),
    /// Compiling the component takes more memory than it may.
    #[error("compiling it takes more than {0} bytes of memory")]
    CompileMemory(u64),
    /// The component is malformed, or uses a feature of WebAssembly that is off.
    #[error("it is no valid component: {0}")]
    Invalid(String),
    /// The component exports something else.
    #[error("it is no {world}: it exports {}, and a {world} exports {}", list(.exports), list(.needed))]
    OtherWorld {
        /// What was wanted.
        world: &'static str,
        /// What it exports.
        exports: Vec<String>,
        /// What it would have to.
        needed: Vec<String>,
    },
    /// The component exports nothing that a plugin does.
    #[error("it is no plugin: it exports {}, and none of `antiphon:plugin/conflict`, `antiphon:plugin/rowhash` and `antiphon:plugin/storage`", list(.exports))]
    NoWorld {
        /// What it exports.
        exports: Vec<String>,
    },
    /// The component is made for another version of the interface.
    #[error("it exports `{found}`, and this Antiphon knows `{known}`")]
    OtherVersion {
        /// What it exports.
        found: String,
        /// What is known here.
        known: String,
        /// It is made for a later Antiphon, not an earlier one.
        newer: bool,
    },
    /// The component exports functions by the right names, and of other types.
    #[error("what it exports is not as `antiphon:plugin@{known}` has it: {0}", known = crate::bindings::VERSION)]
    OtherTypes(String),
    /// The component wants the network.
    #[error("it imports `{import}`, and a {world} only computes: it can't have the network")]
    Network {
        /// What was wanted.
        world: &'static str,
        /// What it imports.
        import: String,
    },
    /// The component wants something that there is not.
    #[error("it imports `{0}`, which is not to be had here")]
    UnknownImport(String),
    /// An import is there, but not of that version or type.
    #[error("an import does not fit: {0}")]
    Unlinkable(String),
    /// The call took more instructions than it may.
    #[error("it ran out of fuel after {0} instructions")]
    Fuel(u64),
    /// The plugin wanted more memory than it may have.
    #[error("it wanted more than its {0} bytes of memory")]
    Memory(usize),
    /// The plugin called itself too deeply.
    #[error("its stack overflowed{0}")]
    Stack(Trace),
    /// The call took too long though it had fuel left.
    #[error("it gave no answer within {0:?}")]
    Watchdog(Duration),
    /// The plugin gave itself up: a panic, an abort, an assertion.
    #[error("it panicked{0}")]
    Panic(Trace),
    /// The plugin did what WebAssembly does not allow.
    #[error("it crashed with `{what}`{at}")]
    Crash {
        /// What it did.
        what: String,
        /// Where.
        at: Trace,
    },
    /// The plugin handed over more than it may.
    #[error("it returned more than {0} bytes at once")]
    Returned(usize),
    /// The plugin itself said why.
    #[error("it says: {0}")]
    Said(String),
    /// The answer can't be used.
    #[error("its answer makes no sense: {0}")]
    Answer(String),
    /// It took too long.
    #[error("it was not done after {0:?}")]
    TimeOut(Duration),
    /// It wants what the configuration does not grant.
    #[error("it imports `{import}`, and `{grant}` grants it nothing of that")]
    NotGranted {
        /// What it imports.
        import: String,
        /// The setting that would grant it.
        grant: String,
    },
    /// What the configuration grants can't be lent.
    #[error("cannot lend it {what}: {why}")]
    Unlendable {
        /// What was to be lent.
        what: String,
        /// Why that can't be.
        why: String,
    },
    /// It was called before it was configured with success.
    #[error("it is not configured")]
    NotConfigured,
    /// The engine failed, not the plugin.
    #[error("the engine failed: {0}")]
    Engine(String),
}

/// The functions a trap went through, innermost first, as far as they have names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace(Vec<String>);

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, function) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { " in " } else { ", called by " })?;
            write!(f, "`{function}`")?;
        }
        Ok(())
    }
}

const FRAMES_MAX: usize = 5;
const NAME_BYTES_MAX: usize = 120;
const SAID_BYTES_MAX: usize = 1024;

impl Trace {
    fn of(err: &wasmtime::Error) -> Self {
        // Printed rather than walked: only what is printed is demangled. A frame is `  0:  0x1234 - MODULE!FUNCTION`.
        let printed = err.downcast_ref::<WasmBacktrace>().map(ToString::to_string).unwrap_or_default();
        let names = printed.lines().filter_map(|line| Some(line.split_once(" - ")?.1.split_once('!')?.1));
        // The names are the guest's own words too.
        Self(names.take(FRAMES_MAX).map(|name| printable(name, NAME_BYTES_MAX)).collect())
    }
}

impl Reason {
    /// Whether any node finds the same, whatever its machine: the guest ran into it by itself. Where a stack ends
    /// depends on the processor, and how long a call takes on everything.
    #[must_use]
    pub fn is_verdict(&self) -> bool {
        match self {
            Self::Fuel(_)
            | Self::Memory(_)
            | Self::Panic(_)
            | Self::Crash { .. }
            | Self::Returned(_)
            | Self::Said(_)
            | Self::Answer(_) => true,
            Self::Empty
            | Self::Text
            | Self::Foreign(_)
            | Self::CoreModule
            | Self::Precompiled
            | Self::Truncated
            | Self::TooLarge { .. }
            | Self::CompileTime(_)
            | Self::CompileMemory(_)
            | Self::Invalid(_)
            | Self::NoWorld { .. }
            | Self::OtherTypes(_)
            | Self::OtherWorld { .. }
            | Self::OtherVersion { .. }
            | Self::Network { .. }
            | Self::UnknownImport(_)
            | Self::Unlinkable(_)
            | Self::Stack(_)
            | Self::Watchdog(_)
            | Self::TimeOut(_)
            | Self::NotGranted { .. }
            | Self::Unlendable { .. }
            | Self::NotConfigured
            | Self::Engine(_) => false,
        }
    }

    /// The functions it went through.
    fn trace(&self) -> Option<&Trace> {
        match self {
            Self::Panic(at) | Self::Stack(at) | Self::Crash { at, .. } => Some(at),
            _ => None,
        }
    }

    /// Why a call into a guest came back without an answer.
    pub(crate) fn of(err: &wasmtime::Error, meter: &Meter, limits: &Limits, fuel: u64) -> Self {
        // The engine reports this one only in words, from a type of its own.
        const RETURNED: &str = "fuel allocated for hostcalls has been exhausted";
        if meter.exceeded() {
            return Self::Memory(limits.memory_bytes);
        }
        if meter.starved() {
            return Self::Engine("this machine has no memory left".to_owned());
        }
        if let Some(OtherTypes(why)) = err.downcast_ref() {
            return Self::OtherTypes(why.clone());
        }
        let at = Trace::of(err);
        match err.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => Self::Fuel(fuel),
            Some(Trap::Interrupt) => Self::Watchdog(limits.watchdog),
            Some(Trap::StackOverflow) => Self::Stack(at),
            Some(Trap::UnreachableCodeReached) => Self::Panic(at),
            Some(trap) => {
                let what = trap.to_string();
                Self::Crash { what: what.strip_prefix("wasm trap: ").unwrap_or(&what).to_owned(), at }
            }
            None => {
                let what = err.root_cause().to_string();
                if what.contains(RETURNED) {
                    // Handed to the host while the guest was at work, or when it was done.
                    let at_work = err.downcast_ref::<WasmBacktrace>().is_some();
                    Self::Returned(if at_work { HANDED_BYTES_MAX } else { limits.returned_bytes })
                } else {
                    Self::Crash { what: printable(&what, SAID_BYTES_MAX), at }
                }
            }
        }
    }

    /// Why a component can't be compiled, in the engine's words.
    pub(crate) fn uncompilable(why: &str) -> Self {
        // The parser tells the two apart in words only.
        if why.contains("unexpected end") { Self::Truncated } else { Self::Invalid(printable(why, SAID_BYTES_MAX)) }
    }

    /// What a guest said, fit to be printed.
    pub(crate) fn said(text: &str) -> Self {
        Self::Said(printable(text, SAID_BYTES_MAX))
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Text => "Compile it to a component first, and name the `.wasm` file that this gives.",
            Self::CoreModule => {
                "Build it for `wasm32-wasip2`, or make a component of it with `wasm-tools component new`."
            }
            Self::Precompiled => "Name the component that it was compiled from.",
            Self::Empty | Self::Truncated | Self::Foreign(_) => "Copy the file again and compare its sha256.",
            Self::OtherVersion { newer: true, .. } => {
                "Use a later release of Antiphon, or an earlier build of the plugin."
            }
            Self::OtherVersion { newer: false, .. } => "Build the plugin again with this release's `wit` folder.",
            Self::NoWorld { .. } => "Build it with a world of this release's `wit` folder.",
            Self::OtherTypes(_) => {
                "Build the plugin again with this release's `wit` folder, or use the release that it was made for."
            }
            Self::OtherWorld { .. } => "See that the plugin is named under the setting that it is made for.",
            Self::Network { .. } | Self::UnknownImport(_) => "`wasm-tools component wit FILE` shows what it imports.",
            Self::CompileTime(_) => {
                "Make it smaller, or raise the plugin's `compile_seconds`, if you know where it comes from."
            }
            Self::CompileMemory(_) => {
                "Make it smaller, or raise the plugin's `compile_memory`, if you know where it comes from."
            }
            Self::Fuel(_) => "Raise the plugin's fuel, on all nodes alike, if its work is worth that.",
            Self::Memory(_) => "Raise the plugin's memory, on all nodes alike, if its work is worth that.",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

fn list(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    }
}
