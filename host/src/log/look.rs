//! A log looked into from outside: nothing is written, nothing is made, and nodes may run meanwhile.

use super::embedded::Embedded;
use super::{Announced, Bounds, Error, JetStream, Log as _, Placed, Shard};
use antiphon_core::entry::Origin;
use std::path::Path;
use tokio::runtime::Runtime;

/// Bytes of entries read at once.
const READ_BYTES_MAX: usize = 1 << 20;

/// A log that is only read.
#[derive(Debug)]
pub struct Look(Kind);

#[derive(Debug)]
enum Kind {
    Embedded(Embedded),
    /// On the runtime that its connection lives on.
    Nats(Box<JetStream>, Runtime),
}

/// A shard, as far as the log itself says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// From where to where it reaches.
    pub bounds: Bounds,
    /// Entries that are there.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the log took the first and the last of them, in nanoseconds since 1970.
    pub times: Option<(u64, u64)>,
}

impl Look {
    /// Opens the log of a directory; `None` if there is none.
    ///
    /// # Errors
    /// When it can't be read, or is of another format.
    pub fn open(directory: &Path) -> Result<Option<Self>, Error> {
        Ok(Embedded::open(directory)?.map(|embedded| Self(Kind::Embedded(embedded))))
    }

    /// A log on NATS servers.
    #[must_use]
    pub fn on_nats(log: JetStream, runtime: Runtime) -> Self {
        Self(Kind::Nats(Box::new(log), runtime))
    }

    /// What is wrong with the way to the log, in words.
    #[must_use]
    pub fn transport(&self) -> Option<String> {
        match &self.0 {
            Kind::Embedded(_) => None,
            Kind::Nats(log, _) => log.transport(),
        }
    }

    /// Numbers of the shards that have an entry.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn shards(&self) -> Result<Vec<Shard>, Error> {
        match &self.0 {
            Kind::Embedded(log) => log.shards(),
            Kind::Nats(log, runtime) => runtime.block_on(log.shards()),
        }
    }

    /// How far a shard reaches, and how much it holds.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn extent(&self, shard: Shard) -> Result<Extent, Error> {
        match &self.0 {
            Kind::Embedded(log) => log.extent(shard),
            Kind::Nats(log, runtime) => runtime.block_on(log.extent(shard)),
        }
    }

    /// How far a shard reaches.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn bounds(&self, shard: Shard) -> Result<Bounds, Error> {
        match &self.0 {
            Kind::Embedded(log) => log.bounds(shard),
            Kind::Nats(log, runtime) => runtime.block_on(log.bounds(shard)),
        }
    }

    /// Calls `each` for the entries of a shard from a position on, until it says that it is enough.
    ///
    /// # Errors
    /// When the log can't be read, or `each` fails.
    pub fn each<E: From<Error>>(
        &self,
        shard: Shard,
        from: u64,
        mut each: impl FnMut(Placed) -> Result<bool, E>,
    ) -> Result<(), E> {
        let (log, runtime) = match &self.0 {
            Kind::Embedded(log) => return log.each(shard, from, each),
            Kind::Nats(log, runtime) => (log, runtime),
        };
        let mut after = from.saturating_sub(1);
        loop {
            let entries = runtime.block_on(log.read(shard, after, READ_BYTES_MAX))?;
            let Some(last) = entries.last() else { return Ok(()) };
            after = last.seq;
            for placed in entries {
                if !each(placed)? {
                    return Ok(());
                }
            }
        }
    }

    /// When the log took an entry, in nanoseconds since 1970; `None` if it is not there.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn time(&self, shard: Shard, seq: u64) -> Result<Option<u64>, Error> {
        let (log, runtime) = match &self.0 {
            Kind::Embedded(log) => return log.time(shard, seq),
            Kind::Nats(log, runtime) => (log, runtime),
        };
        let entries = runtime.block_on(log.read(shard, seq.saturating_sub(1), 1))?;
        Ok(entries.first().filter(|placed| placed.seq == seq).map(|placed| placed.time))
    }

    /// Every origin that announced itself, by node and incarnation.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn members(&self) -> Result<Vec<Announced>, Error> {
        match &self.0 {
            Kind::Embedded(log) => log.members(),
            Kind::Nats(log, runtime) => runtime.block_on(log.members()),
        }
    }

    /// The last number of each origin in each shard.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn origins(&self) -> Result<Vec<(Shard, Origin, u64)>, Error> {
        let mut origins = match &self.0 {
            Kind::Embedded(log) => log.origins(),
            Kind::Nats(log, runtime) => runtime.block_on(log.origins()),
        }?;
        origins.retain(|(_, origin, _)| !origin.is_voice());
        Ok(origins)
    }
}
