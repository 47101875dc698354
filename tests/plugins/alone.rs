//! A guest in a process of its own, so that what it costs the host can be told.
//!
//! The process is this very test, run again: it meets the guest where the test itself only reads what it reports.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use antiphon_core::hash::Hash as _;
use antiphon_core::resolve::{Cause, Clash, Resolve as _, Side};
use antiphon_plugin::{Error, Hasher, HostOptions, Limits, PluginHost, Resolver};

use super::{custom, guests, packed, table};

/// What a guest may cost: processor time of one call, and memory of the host besides what it had before.
const CPU_MS_MAX: u64 = 3_000;
const MEMORY_KIB_MAX: u64 = 64 << 10;

/// Says that this process is the one that meets the guest.
const ALONE: &str = "ANTIPHON_TEST_ALONE";
const REPORT: &str = "what the guest cost: ";

/// A guest with something wrong with it, and what sets it off.
pub(crate) enum Guest {
    /// The bytes themselves: it goes wrong before it can be asked anything.
    Loaded(Vec<u8>),
    /// A hasher that does this for table 1, and counts for table 0.
    Hashing(Vec<u8>),
    /// A hasher that does this when it is configured.
    Configuring(Vec<u8>),
    /// A resolver that does this when there is a clash.
    Resolving(Vec<u8>),
}

/// Gives how often this instance was called for any key of table 0; for table 1, does `hostile`.
pub(crate) fn hashing(imports: &str, hostile: &str, more: &str) -> Guest {
    let text = format!(
        "(local $n i32) (local $m i32)
         (if (local.get 0) (then {hostile}))
         (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
         (i64.store (i32.const 512) (i64.extend_i32_u (global.get $calls)))
         (i32.store (i32.const 260) (i32.const 512))
         (i32.store (i32.const 264) (i32.const 1))
         (i32.const 256)"
    );
    Guest::Hashing(guests::hasher_importing(&text, imports, more))
}

/// Decides nothing when there is nothing to decide; else does `hostile`.
pub(crate) fn resolving(hostile: &str, more: &str) -> Guest {
    let text = format!("(if (local.get 1) (then {hostile})) (i32.const 128)");
    Guest::Resolving(guests::resolver(&text, more))
}

/// Meets the guest twice in a process of its own; gives what a person would read.
///
/// Both times it must fail in the same way after the same fuel, within the time and the memory that it may cost, and the
/// next call and all other plugins must go on.
pub(crate) fn fails_alone(make: impl FnOnce() -> Guest) -> String {
    let report = alone(|| meet(make()));
    let parts: Vec<&str> = report.split('\t').collect();
    let [first, second, cpu_ms, memory_kib] = parts[..] else { panic!("{report}") };
    assert_eq!(first, second, "the verdict is not exact");
    let (cpu_ms, memory_kib): (u64, u64) = (cpu_ms.parse().unwrap(), memory_kib.parse().unwrap());
    eprintln!("{cpu_ms} ms, {memory_kib} KiB: {first}");
    assert!(cpu_ms <= CPU_MS_MAX, "it took {cpu_ms} ms: {first}");
    assert!(memory_kib <= MEMORY_KIB_MAX, "it took {memory_kib} KiB: {first}");
    first.to_owned()
}

/// What `work` reports, done in a process of its own that does nothing else.
pub(crate) fn alone(work: impl FnOnce() -> String) -> String {
    let test = std::thread::current().name().unwrap().to_owned();
    if std::env::var_os(ALONE).is_some() {
        let report = work();
        // On a line of its own, whatever the test runner has written before it.
        println!("\n{REPORT}{report}");
        std::process::exit(0);
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args([&test, "--exact", "--nocapture", "--test-threads", "1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success(), "the host did not survive: {}\n{out}\n{err}", child.status);
    assert!(!err.contains("panicked"), "{err}");
    let report = out.lines().find_map(|line| line.strip_prefix(REPORT)).unwrap_or_else(|| panic!("{out}\n{err}"));
    report.to_owned()
}

/// The verdicts and fuel of two attempts, the longest time of one, and the memory at the peak.
fn meet(guest: Guest) -> String {
    let host = PluginHost::new(&HostOptions::default()).unwrap();
    let mut other = Harmless::new(&host);
    other.goes_on();
    let before = status_kib("VmRSS");
    // From now on the peak is that of what follows.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let mut subject = Subject::new(&host, guest);
    let mut report = String::new();
    let mut longest = 0;
    for _ in 0..2 {
        let start = cpu_ns();
        let verdict = subject.fails();
        longest = longest.max((cpu_ns() - start) / 1_000_000);
        assert!(!verdict.contains(['\n', '\t']), "{verdict}");
        let _ = write!(report, "{verdict}\t");
        subject.goes_on();
        other.goes_on();
    }
    let peak = status_kib("VmHWM").saturating_sub(before);
    let _ = write!(report, "{longest}\t{peak}");
    report
}

/// Lets a hasher trap a thousand times; gives how much memory is left behind by the last nine hundred of them.
pub(crate) fn after_a_thousand_traps(guest: Guest) -> u64 {
    let host = PluginHost::new(&HostOptions::default()).unwrap();
    let mut subject = Subject::new(&host, guest);
    let mut before = 0;
    for turn in 0..1000 {
        if turn == 100 {
            before = status_kib("VmRSS");
        }
        subject.fails();
    }
    subject.goes_on();
    status_kib("VmRSS").saturating_sub(before)
}

/// Another plugin of the same host.
struct Harmless(Hasher);

impl Harmless {
    fn new(host: &PluginHost) -> Self {
        let Guest::Hashing(bytes) = hashing("", "(unreachable)", "") else { unreachable!() };
        let mut hasher = host.hasher(&custom(&bytes), &[], Limits::default()).unwrap();
        hasher.configure(&[table("t", &[("id", "INTEGER")])]).unwrap();
        Self(hasher)
    }

    fn goes_on(&mut self) {
        self.0.hash(0, &packed(&[&[1]])).unwrap();
    }
}

/// The guest as a plugin, if it gets as far as that.
enum Subject {
    Loaded(PluginHost, Vec<u8>),
    Hashing(Hasher),
    Configuring(Hasher),
    Resolving(Resolver),
}

impl Subject {
    fn new(host: &PluginHost, guest: Guest) -> Self {
        let limits = Limits::default();
        match guest {
            Guest::Loaded(bytes) => Self::Loaded(host.clone(), bytes),
            Guest::Hashing(bytes) => {
                let mut hasher =
                    host.hasher(&custom(&bytes), &[], limits).unwrap_or_else(|err| panic!("{}", why(&err)));
                hasher.configure(&[table("t", &[("id", "INTEGER")])]).unwrap();
                Self::Hashing(hasher)
            }
            Guest::Configuring(bytes) => Self::Configuring(host.hasher(&custom(&bytes), &[], limits).unwrap()),
            Guest::Resolving(bytes) => {
                let mut resolver = host.resolver(&custom(&bytes), &[], limits).unwrap();
                resolver.configure(&["1".into()], &[table("t", &[("id", "INTEGER")])]).unwrap();
                Self::Resolving(resolver)
            }
        }
    }

    /// What befalls it, with the fuel it took where there is a call.
    fn fails(&mut self) -> String {
        let told = |error: String| error.split_once("): ").map(|(_, why)| why.to_owned()).unwrap_or(error);
        match self {
            Self::Loaded(host, bytes) => match host.hasher(&custom(bytes), &[], Limits::default()) {
                Ok(_) => panic!("it was taken"),
                Err(error) => why(&error),
            },
            Self::Hashing(hasher) => {
                let error = hasher.hash(1, &packed(&[&[1]])).unwrap_err().to_string();
                format!("{}, fuel {}", told(error), hasher.fuel_used())
            }
            Self::Configuring(hasher) => {
                let error = hasher.configure(&[]).unwrap_err().to_string();
                format!("{}, fuel {}", told(error), hasher.fuel_used())
            }
            Self::Resolving(resolver) => {
                let error = resolver.resolve(&[clash()]).unwrap_err().to_string();
                format!("{}, fuel {}", told(error), resolver.fuel_used())
            }
        }
    }

    /// The next call, in a new instance.
    fn goes_on(&mut self) {
        match self {
            Self::Loaded(..) | Self::Configuring(_) => {}
            Self::Hashing(hasher) => assert_eq!(hasher.hash(0, &packed(&[&[1]])).unwrap(), [1]),
            Self::Resolving(resolver) => assert_eq!(resolver.resolve(&[]).unwrap(), []),
        }
    }
}

fn why(error: &Error) -> String {
    error.reason().to_string()
}

/// A clash over key 7 of the first table.
pub(crate) fn clash() -> Clash {
    Clash {
        table: 0,
        key: vec![7.into()],
        cause: Cause::SameKey,
        base: None,
        current: Side::default(),
        incoming: Side::default(),
    }
}

/// Nanoseconds for which this thread had a processor: a machine that is busy with other things makes them no more.
fn cpu_ns() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split_whitespace().next().unwrap().parse().unwrap()
}

/// A line of what the kernel says of this process's memory.
pub(crate) fn status_kib(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
