//! How long it takes, and what follows from that.

use std::time::Duration;

pub(crate) const KILL_EVERY: Duration = Duration::from_secs(10);

pub(crate) struct Course {
    pub(crate) whole: Duration,
    pub(crate) drill_every: Duration,
    /// Between two snapshots of all rows.
    pub(crate) interval: Duration,
    /// Between two snapshots of any kind.
    pub(crate) incremental: Duration,
    /// The share of their pace that writers keep at least: what is missing is what they were behind when they were stopped.
    pub(crate) pace_min: f64,
    /// Whether those of what changed are held to their interval as well.
    pub(crate) holds_increments: bool,
    /// Over how long a process is looked at for the least memory that it has.
    pub(crate) window: Duration,
    /// Bytes in a minute by which that may grow in the second half.
    pub(crate) slope_max: f64,
}

const MIB: f64 = 1_048_576.0;

impl Course {
    pub(crate) fn chosen() -> Self {
        let seconds = Duration::from_secs;
        if std::env::var_os("FULL").is_some_and(|value| value != "0") {
            return Self {
                whole: seconds(600),
                drill_every: seconds(60),
                interval: seconds(60),
                incremental: seconds(30),
                pace_min: 0.98,
                holds_increments: true,
                window: seconds(10),
                slope_max: MIB,
            };
        }
        Self {
            whole: seconds(60),
            drill_every: seconds(20),
            interval: seconds(20),
            incremental: seconds(7),
            pace_min: 0.9,
            // A tenth of seven seconds is less than a maker that was killed needs to be back.
            holds_increments: false,
            window: seconds(2),
            // In its first minute a process fills caches that have an end, and an allocator takes memory by steps of a few
            // MiB: two of those within half a minute are a slope of 15 MiB. What a minute shows is a leak of a few hundred
            // bytes for each of the 45,000 writes in it; less takes the long run to see.
            slope_max: 32.0 * MIB,
        }
    }

    /// How often something comes that comes so often.
    pub(crate) fn times(&self, every: Duration) -> u32 {
        u32::try_from(self.whole.as_millis() / every.as_millis()).unwrap()
    }
}
