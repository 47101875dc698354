//! What a plugin may use up, and the meter of its memory.

use std::time::Duration;

use wasmtime::{Error, ResourceLimiter, Result, bail};

const MIB: usize = 1 << 20;

/// How fuel, memory and returned bytes are counted. Raised when the same call can use up another amount of any of them,
/// as with another engine: where running out is an answer, nodes that count otherwise don't agree.
pub const METER: u32 = 1;

/// What a plugin may use up before it is stopped.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest component that is compiled.
    pub component_bytes: usize,
    /// Processor time for compiling it.
    pub compile_cpu: Duration,
    /// Memory for compiling it.
    pub compile_memory_bytes: u64,
    /// Memory of one instance, all its linear memories together.
    pub memory_bytes: usize,
    /// Bytes a plugin may hand over in one call.
    pub returned_bytes: usize,
    /// Fuel of a call, whatever it is about. A unit is about one instruction.
    pub fuel_base: u64,
    /// Fuel on top for each key, clash, table or column.
    pub fuel_per_item: u64,
    /// Fuel on top for each byte handed to the plugin.
    pub fuel_per_byte: u64,
    /// When a call is ended though fuel is left. Fuel decides the same on every node and this does not, so it is
    /// far above what fuel allows.
    pub watchdog: Duration,
    /// Calls after which an instance is replaced by a new one.
    pub calls: u64,
    /// What a resolver succeeds at among others, it must succeed at alone: a batch may use up no more than half of what
    /// each of its clashes may use up alone, in an instance that was just made.
    pub sparing: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            component_bytes: 64 * MIB,
            compile_cpu: Duration::from_secs(120),
            compile_memory_bytes: 2048 * MIB as u64,
            memory_bytes: 64 * MIB,
            returned_bytes: 16 * MIB,
            fuel_base: 200_000_000,
            fuel_per_item: 500_000,
            fuel_per_byte: 200,
            watchdog: Duration::from_secs(5),
            calls: 1_000_000,
            sparing: false,
        }
    }
}

impl Limits {
    /// The fuel of a call about so many items of so many bytes.
    pub(crate) fn fuel(&self, items: usize, bytes: usize) -> u64 {
        let items = self.fuel_per_item.saturating_mul(items as u64);
        let bytes = self.fuel_per_byte.saturating_mul(bytes as u64);
        self.fuel_base.saturating_add(items).saturating_add(bytes)
    }
}

// Python's and JavaScript's components are a dozen modules sharing one memory, so these are not the smallest numbers
// that Rust's would do with.
const INSTANCES_MAX: usize = 64;
const TABLES_MAX: usize = 8;
const TABLE_ELEMENTS_MAX: usize = 100_000;
const MEMORIES_MAX: usize = 4;

/// Fuel of a call into the host, whatever it does: as many instructions as would take about as long. Without it a guest
/// could keep the host busy for as long as the watchdog lets it, and that is not the same on every node.
pub(crate) const HOST_CALL_FUEL: u64 = 10_000;
/// What a guest may hand to the host in one call: words for the log, and hardly ever more than a few.
pub(crate) const HANDED_BYTES_MAX: usize = 256 << 10;
/// What counts as a call of its own when the host is handed more.
const BYTES_PER_HOST_CALL: usize = 4 << 10;

/// Counts what one store has, and refuses more than it may have.
#[derive(Debug)]
pub(crate) struct Meter {
    host_calls: u64,
    memory_bytes_max: usize,
    memory_bytes: usize,
    exceeded: bool,
    starved: bool,
}

impl Meter {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { host_calls: 0, memory_bytes_max: limits.memory_bytes, memory_bytes: 0, exceeded: false, starved: false }
    }

    /// Counts a call into the host, which was handed so many bytes.
    pub(crate) fn host_call(&mut self, bytes: usize) {
        self.host_calls += 1 + (bytes / BYTES_PER_HOST_CALL) as u64;
    }

    /// Calls into the host since this was asked the last time.
    pub(crate) fn take_host_calls(&mut self) -> u64 {
        std::mem::take(&mut self.host_calls)
    }

    /// Bytes of all its linear memories: what it took, for they never shrink.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Whether it was refused memory.
    pub(crate) fn exceeded(&self) -> bool {
        self.exceeded
    }

    /// Whether this machine had no memory for it: that says nothing about the plugin.
    pub(crate) fn starved(&self) -> bool {
        self.starved
    }

    /// Whether so little is left that a new instance is better. Linear memory never shrinks.
    pub(crate) fn nearly_full(&self) -> bool {
        self.memory_bytes > self.memory_bytes_max / 4 * 3
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let total = self.memory_bytes.saturating_sub(current).saturating_add(desired);
        // A trap and not the -1 that guests may ignore: what follows a failed allocation differs between them.
        if total > self.memory_bytes_max {
            self.exceeded = true;
            bail!("memory of {total} bytes is more than allowed");
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        if desired > TABLE_ELEMENTS_MAX {
            bail!("a table of {desired} elements is more than allowed");
        }
        Ok(true)
    }

    // Guests would be told -1, and what follows would differ from a machine with more memory.
    fn memory_grow_failed(&mut self, error: Error) -> Result<()> {
        // More than a memory can ever have is the guest's own mistake.
        if error.to_string().contains("memory type's limits") {
            self.exceeded = true;
        } else {
            self.starved = true;
        }
        Err(error)
    }

    fn table_grow_failed(&mut self, error: Error) -> Result<()> {
        self.starved = true;
        Err(error)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}
