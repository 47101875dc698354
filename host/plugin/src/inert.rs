//! What a pure plugin can import: the log, and a WASI that leads nowhere.
//!
//! The runtimes of Rust, Python and JavaScript import clocks, files and sockets whether a plugin uses them or
//! not. All are linked, and none tells one node from another: clocks stand still, randomness is the same each
//! time, there is no file to open and no address to reach.

use std::time::Duration;

use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime::{CallHook, Engine, Result, StoreContextMut, Trap, bail, ensure};
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::random::Deterministic;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView};

use crate::bindings;
use crate::limits::{HANDED_BYTES_MAX, HOST_CALL_FUEL, Limits, Meter};
use crate::log::GuestLog;
use crate::words::Words;

/// 2026-01-01T00:00:00Z. Some guests take a clock at zero for one that is not set.
const NOW: Duration = Duration::from_secs(1_767_225_600);

const RESOURCES_MAX: usize = 1_000;

/// What the host keeps for one instance of a pure plugin.
pub(crate) struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    pub(crate) meter: Meter,
    pub(crate) log: GuestLog,
    pub(crate) words: Words,
}

impl State {
    pub(crate) fn new(limits: &Limits, log: GuestLog) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let words = Words::default();
        let wasi = WasiCtx::builder()
            .wall_clock(Stopped)
            .monotonic_clock(Stopped)
            .secure_random(fixed_randomness())
            .insecure_random(fixed_randomness())
            .insecure_random_seed(0)
            .max_random_size(1 << 12)
            .stdout(words.clone())
            .stderr(words.clone())
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        Self { wasi, table, meter: Meter::new(limits), log, words }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        // Every function of WASI begins here.
        self.meter.host_call(0);
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// Clocks that stand still.
struct Stopped;

impl HostWallClock for Stopped {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        NOW
    }
}

impl HostMonotonicClock for Stopped {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        0
    }
}

/// The same bytes for every instance; enough of them that sampling by rejection comes to an end.
fn fixed_randomness() -> Deterministic {
    let mut bytes = vec![0; 4096];
    blake3::Hasher::new_derive_key("antiphon: the randomness of pure plugins").finalize_xof().fill(&mut bytes);
    Deterministic::new(bytes)
}

/// Everything a pure plugin can import.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
    bindings::log::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;

    // A guest asleep in the host uses no fuel and sees no epoch, and the clock it waits for stands still.
    linker.allow_shadowing(true);
    let mut clock = linker.instance(MONOTONIC_CLOCK)?;
    clock.func_wrap("subscribe-instant", no_waiting)?;
    clock.func_wrap("subscribe-duration", no_waiting)?;
    linker.instance(POLL)?.func_wrap("poll", no_polling)?;
    linker.allow_shadowing(false);
    Ok(linker)
}

const MONOTONIC_CLOCK: &str = "wasi:clocks/monotonic-clock@0.2.12";

const POLL: &str = "wasi:io/poll@0.2.12";

fn no_polling(_: StoreContextMut<'_, State>, _: (Vec<Resource<DynPollable>>,)) -> Result<(Vec<u32>,)> {
    bail!(CANNOT_WAIT);
}

const CANNOT_WAIT: &str = "a plugin that only computes can't wait";

fn no_waiting(_: StoreContextMut<'_, State>, _: (u64,)) -> Result<(Resource<DynPollable>,)> {
    bail!(CANNOT_WAIT);
}

/// Charges what the host did for a guest, and bounds what either hands the other.
pub(crate) fn account(mut store: StoreContextMut<'_, State>, hook: CallHook, returned_bytes: usize) -> Result<()> {
    match hook {
        CallHook::CallingWasm => store.set_hostcall_fuel(HANDED_BYTES_MAX),
        CallHook::ReturningFromWasm => store.set_hostcall_fuel(returned_bytes),
        CallHook::CallingHost => {}
        CallHook::ReturningFromHost => {
            // In between, the guest may have been asked for memory.
            store.set_hostcall_fuel(HANDED_BYTES_MAX);
            // The engine's own work for a guest, such as growing its memory, comes by here too and has its fuel.
            let calls = store.data_mut().meter.take_host_calls();
            if calls > 0 {
                let left = store.get_fuel()?.checked_sub(calls.saturating_mul(HOST_CALL_FUEL));
                store.set_fuel(left.unwrap_or(0))?;
                ensure!(left.is_some(), Trap::OutOfFuel);
            }
        }
    }
    Ok(())
}

/// The packages of which everything is linked here, as name and version; a later version of the same line serves too.
const LINKED: [&str; 6] = ["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:io", "wasi:random", "wasi:sockets"];

/// Whether an import can be had at all; the linker has the last word on its version and type.
pub(crate) fn is_linked(import: &str) -> bool {
    let interface = import.split_once('@').map_or(import, |(name, _)| name);
    let package = interface.split_once('/').map_or(interface, |(package, _)| package);
    LINKED.contains(&package) || ["antiphon:plugin/log", "antiphon:plugin/types"].contains(&interface)
}
