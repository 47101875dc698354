//! Writes of the application's that nobody captures, because its user wants that rather than an outbox without an end.
//!
//! The triggers are taken off. From then on a table's rows and the log's have nothing in common but what a comparison finds:
//! each table is noted as one to be compared, in the same transaction, and nothing of the log is applied to it before.

use super::attachment::State;
use super::own::{meta, set_meta};
use super::{Database, Error};
use rusqlite::Connection;

const NAME: &str = "unwatched";

/// Whether the file says that nothing is captured.
pub(super) fn is_noted(conn: &Connection) -> Result<bool, Error> {
    Ok(meta(conn, NAME)? == Some(1))
}

impl Database {
    /// Whether nothing of what the application writes is captured for a while.
    #[must_use]
    pub fn is_unwatched(&self) -> bool {
        self.unwatched
    }

    /// Captures nothing of what the application writes from now on. What was marked before is sealed first, or a unit would be
    /// torn; if that is too much for once, it is to be called again.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn unwatch(&mut self) -> Result<(), Error> {
        if self.unwatched {
            return Ok(());
        }
        self.transaction(|db| {
            if db.refresh_schema()? || (db.is_dirty()? || db.has_open_unit()) && db.seal_piece()? {
                return Ok(());
            }
            let here = db.here();
            for name in db.captured_tables() {
                db.drop_triggers(&name)?;
                let Self { conn, attachments, .. } = &mut *db;
                let state = attachments.state(&name).filter(|state| *state == State::Returned);
                attachments.set(conn, &name, state.unwrap_or(State::Rebuilt), &here)?;
            }
            set_meta(&db.conn, NAME, 1)
        })?;
        self.reload()
    }

    /// Captures all of it again: the triggers come back, and then tables are compared with the log.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn watch(&mut self) -> Result<(), Error> {
        if !self.unwatched {
            return Ok(());
        }
        self.transaction(|db| set_meta(&db.conn, NAME, 0))?;
        self.reload()
    }
}
