//! The engine that all plugins share, and the clock that bounds their calls.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, WasmBacktraceDetails};

use crate::cache::Cache;
use crate::compile::Compiler;
use crate::inert::{self, State};
use crate::usage::{Usage, Used};

/// How long an epoch lasts: how exactly a watchdog can be set.
const TICK: Duration = Duration::from_millis(50);

/// Stack of a guest. Threads that call plugins have 2 MiB at least, the standard library's default.
const WASM_STACK_BYTES: usize = 512 << 10;

/// What outlives every plugin: the engine, what it has compiled, and what guests can import.
pub(crate) struct Runtime {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<State>,
    pub(crate) cache: Option<Cache>,
    pub(crate) compiler: Option<Compiler>,
    /// What was compiled or read in this process, by the sha256 of the bytes.
    compiled: Mutex<BTreeMap<String, Component>>,
    /// What plugins cost. A handful: one for each that was ever loaded.
    usages: Mutex<Vec<Arc<Usage>>>,
    _ticker: Ticker,
}

impl Runtime {
    pub(crate) fn new(cache: Option<Cache>, compiler: Option<Compiler>) -> wasmtime::Result<Self> {
        let engine = Engine::new(&config())?;
        let linker = inert::linker(&engine)?;
        let ticker = Ticker::start(&engine)?;
        Ok(Self {
            engine,
            linker,
            cache,
            compiler,
            compiled: Mutex::default(),
            usages: Mutex::default(),
            _ticker: ticker,
        })
    }

    /// Where it is counted what a plugin costs.
    pub(crate) fn usage(&self, name: &str, kind: &'static str, origin: String, sha256: &str) -> Arc<Usage> {
        let mut usages = self.usages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = usages.iter().find(|usage| usage.is_of(name, kind, sha256)) {
            return Arc::clone(known);
        }
        let usage = Usage::new(name, kind, origin, sha256);
        usages.push(Arc::clone(&usage));
        usage
    }

    /// What plugins have cost so far.
    pub(crate) fn used(&self) -> Vec<Used> {
        let usages = self.usages.lock().unwrap_or_else(PoisonError::into_inner);
        let mut used: Vec<Used> = usages.iter().map(|usage| usage.used()).collect();
        used.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        used
    }

    /// The component of these bytes, if this process had it before.
    pub(crate) fn known(&self, sha256: &str) -> Option<Component> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner).get(sha256).cloned()
    }

    pub(crate) fn know(&self, sha256: &str, component: &Component) {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        compiled.insert(sha256.to_owned(), component.clone());
    }
}

pub(crate) fn config() -> Config {
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::OnDemand)
        .concurrency_support(false)
        .max_wasm_stack(WASM_STACK_BYTES)
        // Both are needed: fuel ends a call at the same instruction on every node, an epoch ends it in time.
        .consume_fuel(true)
        .epoch_interruption(true)
        // The same input has the same answer on every node, whatever its processor.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .wasm_shared_everything_threads(false)
        .wasm_memory64(false)
        .wasm_stack_switching(false)
        .wasm_gc(false)
        // A trap is reported with the names of the functions it went through.
        .wasm_backtrace_max_frames(NonZeroUsize::new(16))
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    // Threads proper need no switch: wasmtime is built without them.
    config
}

/// Epochs that `duration` is at least.
pub(crate) fn ticks(duration: Duration) -> u64 {
    let ticks = duration.as_millis() / TICK.as_millis() + 1;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

/// Advances the epoch, on a thread of its own: a guest that spins may hold any worker of an async runtime, and
/// the one with the timer among them.
struct Ticker {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: &Engine) -> std::io::Result<Self> {
        let engine = engine.weak();
        let (stop, stopped) = sync_channel::<()>(0);
        let thread = thread::Builder::new().name("plugin-epochs".into()).spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(TICK) {
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        // The thread ends as soon as nobody can tell it to.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It can't have panicked, and if it had there would be nothing to do about it here.
            let _ = thread.join();
        }
    }
}
