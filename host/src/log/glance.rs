//! A log looked at from outside the processes that use it: how far it reaches, and who is in it.

use super::local::{self, FILE, FORMAT};
use super::{Announced, Bounds, Error, JetStream, Log as _, Placed, Shard};
use rusqlite::Connection;
use std::path::Path;
use tokio::runtime::Runtime;

/// A log that is only read.
#[derive(Debug)]
pub struct Glance(Kind);

#[derive(Debug)]
enum Kind {
    Embedded(Connection),
    Nats(Box<JetStream>, Runtime),
}

impl Glance {
    /// Opens the log in this directory; `None` if there is none.
    ///
    /// # Errors
    /// When it is there and can't be read.
    pub fn open(directory: &Path) -> Result<Option<Self>, Error> {
        let file = directory.join(FILE);
        if !file.exists() {
            return Ok(None);
        }
        let broken = |why: &dyn std::fmt::Display| Error::Broken(format!("`{}`: {why}", file.display()));
        let look = || {
            let conn = crate::db::look(&file)?;
            let format: u32 = conn.query_row("SELECT value FROM meta WHERE name = 'format'", [], |row| row.get(0))?;
            Ok((conn, format))
        };
        let (conn, format) = look().map_err(|error: rusqlite::Error| broken(&error))?;
        if format != FORMAT {
            return Err(broken(&format_args!("it has format {format}, and this build reads format {FORMAT}")));
        }
        Ok(Some(Self(Kind::Embedded(conn))))
    }

    /// A log on NATS servers, asked on the runtime that its connection lives on.
    #[must_use]
    pub fn on_nats(log: JetStream, runtime: Runtime) -> Self {
        Self(Kind::Nats(Box::new(log), runtime))
    }

    /// How far a shard reaches.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn bounds(&self, shard: Shard) -> Result<Bounds, Error> {
        match &self.0 {
            Kind::Embedded(conn) => local::bounds(conn, shard).map_err(|error| local::classify(&error)),
            Kind::Nats(log, runtime) => runtime.block_on(log.bounds(shard)),
        }
    }

    /// Entries after a position, about `bytes_max` of them.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn read(&self, shard: Shard, after: u64, bytes_max: usize) -> Result<Vec<Placed>, Error> {
        match &self.0 {
            Kind::Embedded(conn) => local::read(conn, shard, after, bytes_max).map_err(|error| local::classify(&error)),
            Kind::Nats(log, runtime) => runtime.block_on(log.read(shard, after, bytes_max)),
        }
    }

    /// Every origin that announced itself, by node and incarnation.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn members(&self) -> Result<Vec<Announced>, Error> {
        match &self.0 {
            Kind::Embedded(conn) => local::members(conn).map_err(|error| local::classify(&error)),
            Kind::Nats(log, runtime) => runtime.block_on(log.members()),
        }
    }
}
