//! The embedded log looked into: its file, opened for reading alone.

use super::local::{FILE, FORMAT};
use super::{Announced, Bounds, Error, Extent, Placed, Shard};
use antiphon_core::entry::Origin;
use rusqlite::{Connection, OptionalExtension as _};
use std::path::{Path, PathBuf};

/// The log of a directory, opened for reading alone.
#[derive(Debug)]
pub(super) struct Embedded {
    conn: Connection,
    file: PathBuf,
}

impl Embedded {
    /// Opens the log of a directory; `None` if there is none.
    ///
    /// # Errors
    /// When it can't be read, or is of another format.
    pub(super) fn open(directory: &Path) -> Result<Option<Self>, Error> {
        let file = directory.join(FILE);
        if !file.exists() {
            return Ok(None);
        }
        let conn = crate::db::look(&file).map_err(|error| broken(&file, &error))?;
        let look = Self { conn, file };
        let format: Option<u32> = look
            .conn
            .query_row("SELECT value FROM meta WHERE name = 'format'", [], |row| row.get(0))
            .optional()
            .map_err(|error| look.broken(&error))?;
        match format {
            Some(FORMAT) => Ok(Some(look)),
            Some(format) => Err(Error::Broken(format!(
                "`{}`: it has format {format}, and this build reads format {FORMAT}",
                look.file.display()
            ))),
            None => Err(Error::Broken(format!("`{}`: it says no format", look.file.display()))),
        }
    }

    fn broken(&self, error: &rusqlite::Error) -> Error {
        broken(&self.file, error)
    }

    /// Numbers of the shards that have an entry.
    ///
    /// # Errors
    /// When the log can't be read.
    pub(super) fn shards(&self) -> Result<Vec<Shard>, Error> {
        let read = || -> rusqlite::Result<Vec<String>> {
            self.conn
                .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'shard_[0-9]*'")?
                .query_map([], |row| row.get(0))?
                .collect()
        };
        let names = read().map_err(|error| self.broken(&error))?;
        let mut shards: Vec<Shard> =
            names.iter().filter_map(|name| name.strip_prefix("shard_")?.parse().ok()).collect();
        shards.sort_unstable();
        Ok(shards)
    }

    /// How far a shard reaches, and how much it holds.
    ///
    /// # Errors
    /// When the log can't be read.
    pub(super) fn extent(&self, shard: Shard) -> Result<Extent, Error> {
        let read = || -> rusqlite::Result<Extent> {
            if !self.exists(shard)? {
                return Ok(Extent { bounds: Bounds { first: 1, last: 0 }, ..Extent::default() });
            }
            let bounds = super::local::bounds(&self.conn, shard)?;
            let (entries, bytes) = self.conn.query_row(
                &format!("SELECT count(*), coalesce(sum(length(frame)), 0) FROM shard_{shard}"),
                [],
                |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)),
            )?;
            let time = |order: &str| {
                self.conn
                    .query_row(&format!("SELECT time FROM shard_{shard} ORDER BY seq {order} LIMIT 1"), [], |row| {
                        unsigned(row, 0)
                    })
                    .optional()
            };
            Ok(Extent { bounds, entries, bytes, times: time("ASC")?.zip(time("DESC")?) })
        };
        read().map_err(|error| self.broken(&error))
    }

    /// How far a shard reaches.
    ///
    /// # Errors
    /// When the log can't be read.
    pub(super) fn bounds(&self, shard: Shard) -> Result<Bounds, Error> {
        let read = || {
            if self.exists(shard)? { super::local::bounds(&self.conn, shard) } else { Ok(Bounds { first: 1, last: 0 }) }
        };
        read().map_err(|error| self.broken(&error))
    }

    fn exists(&self, shard: Shard) -> rusqlite::Result<bool> {
        super::local::exists(&self.conn, shard)
    }

    /// Calls `each` for the entries of a shard from a position on, until it says that it is enough.
    ///
    /// # Errors
    /// When the log can't be read, or `each` fails.
    pub(super) fn each<E: From<Error>>(
        &self,
        shard: Shard,
        from: u64,
        mut each: impl FnMut(Placed) -> Result<bool, E>,
    ) -> Result<(), E> {
        if !self.exists(shard).map_err(|error| self.broken(&error))? {
            return Ok(());
        }
        let mut statement = self
            .conn
            .prepare_cached(&format!("SELECT seq, time, frame FROM shard_{shard} WHERE seq >= ?1 ORDER BY seq"))
            .map_err(|error| self.broken(&error))?;
        let mut rows = statement.query([from.cast_signed()]).map_err(|error| self.broken(&error))?;
        while let Some(row) = rows.next().map_err(|error| self.broken(&error))? {
            let read = || Ok(Placed::whole(unsigned(row, 0)?, unsigned(row, 1)?, row.get(2)?));
            if !each(read().map_err(|error| self.broken(&error))?)? {
                break;
            }
        }
        Ok(())
    }

    /// When the log took an entry, in nanoseconds since 1970; `None` if it is not there.
    ///
    /// # Errors
    /// When the log can't be read.
    pub(super) fn time(&self, shard: Shard, seq: u64) -> Result<Option<u64>, Error> {
        let read = || {
            if !self.exists(shard)? {
                return Ok(None);
            }
            self.conn
                .prepare_cached(&format!("SELECT time FROM shard_{shard} WHERE seq = ?1"))?
                .query_row([seq.cast_signed()], |row| unsigned(row, 0))
                .optional()
        };
        read().map_err(|error| self.broken(&error))
    }

    /// Every origin that announced itself, by node and incarnation.
    ///
    /// # Errors
    /// When the log can't be read.
    pub(super) fn members(&self) -> Result<Vec<Announced>, Error> {
        super::local::members(&self.conn).map_err(|error| self.broken(&error))
    }

    /// The last number of each origin in each shard.
    ///
    /// # Errors
    /// When the log can't be read.
    pub(super) fn origins(&self) -> Result<Vec<(Shard, Origin, u64)>, Error> {
        let read = || -> rusqlite::Result<Vec<(Shard, Origin, u64)>> {
            self.conn
                .prepare("SELECT shard, node, incarnation, number FROM fence ORDER BY shard, node, incarnation")?
                .query_map([], |row| {
                    let origin = Origin { node: unsigned(row, 1)?, incarnation: unsigned(row, 2)? };
                    Ok((row.get(0)?, origin, unsigned(row, 3)?))
                })?
                .collect()
        };
        read().map_err(|error| self.broken(&error))
    }
}

fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

fn broken(file: &Path, error: &rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    let text = format!("`{}`: {error}", file.display());
    match error.sqlite_error_code() {
        Some(DatabaseBusy | DatabaseLocked) => Error::Unreachable(text),
        _ => Error::Broken(text),
    }
}
