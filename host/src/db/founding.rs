//! How a database comes to belong to a cluster, and stays apart from others.

use super::catalog::Tracked;
use super::drain::LOGGED;
use super::harmonylite::forget_adoption;
use super::ledger::Ledger;
use super::own::ours;
use super::ruling::Rulings;
use super::values::owned;
use super::{Cluster, Database, Doing as _, Error, identity, own};
use crate::log::Shard;
use antiphon_core::capture::{PREFIX, change_log};
use antiphon_core::entry::{Body, ClusterId, Entry, Genesis, Origin, Policy};
use antiphon_core::hash::{Hash, PackedKeys, PluginError};
use antiphon_core::schema::{Table, quote};
use rusqlite::Connection;

/// Where nothing is sealed, nothing is hashed.
struct Unhashed;

impl Hash for Unhashed {
    fn configure(&mut self, _: &[Table]) -> Result<(), PluginError> {
        Ok(())
    }

    fn hash(&mut self, _: u32, _: &PackedKeys) -> Result<Vec<u64>, PluginError> {
        Err(PluginError("this database only follows the log".to_owned()))
    }
}

/// Whether a database belongs to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// To none yet.
    Apart,
    /// To this one; with `founding`, the rows it had are still on their way into the log.
    Member {
        /// The cluster.
        cluster: ClusterId,
        /// The rows it had are still on their way.
        founding: bool,
    },
}

impl Database {
    /// Whether this database belongs to a cluster.
    ///
    /// # Errors
    /// When the host's tables can't be read.
    pub fn standing(&self) -> Result<Standing, Error> {
        Ok(match self.cluster {
            None => Standing::Apart,
            Some(cluster) => Standing::Member { cluster: cluster.id, founding: identity::founding(&self.conn)? },
        })
    }

    /// The genesis this node would write, as bytes.
    ///
    /// # Errors
    /// When it can't be encoded.
    pub fn genesis(&mut self, cluster: ClusterId, genesis: Genesis) -> Result<Vec<u8>, Error> {
        let entry = Entry { cluster, origin: self.origin, number: 0, clock: 0, body: Body::Genesis(genesis) };
        self.encoder.encode(&entry).map_err(Error::Encode)
    }

    /// The first entry of the cluster's log, if it was kept here.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn kept_genesis(&self) -> Result<Option<Vec<u8>>, Error> {
        identity::genesis(&self.conn)
    }

    /// Keeps the first entry of the cluster's log, unless it is kept already.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn keep_genesis(&mut self, frame: &[u8]) -> Result<(), Error> {
        if self.kept_genesis()?.is_some() {
            return Ok(());
        }
        self.transaction(|db| identity::keep_genesis(&db.conn, frame))
    }

    /// Belongs to a cluster from now on, at the beginning of its log. The founder's rows become its first changes.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn enter(&mut self, cluster: ClusterId, genesis: &Genesis, founder: bool) -> Result<(), Error> {
        self.transaction(|db| {
            let cluster = Cluster { id: cluster, shards: genesis.shards };
            // Triggers of an earlier try, or of a file that was taken over, are put in anew: only then are all rows sent.
            db.remove_capture()?;
            db.forget_tables()?;
            forget_adoption(&db.conn)?;
            identity::set_cluster(&db.conn, cluster, founder)?;
            Rulings::begin(&db.conn, &genesis.all_policies())?;
            fault!("enter");
            db.cluster = Some(cluster);
            Ok(())
        })?;
        self.reload()?;
        // Whoever joins here was found empty: what is there by now was written meanwhile, where no trigger saw it.
        self.install(true)?;
        Ok(())
    }

    /// Belongs to a cluster, and captures nothing: a place to build L in.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn enter_quietly(&mut self, cluster: ClusterId, genesis: &Genesis) -> Result<(), Error> {
        self.enter_with(Cluster { id: cluster, shards: genesis.shards }, &genesis.all_policies())
    }

    /// Belongs to the cluster whose rows, and all that goes with them, are here already.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn enter_as_it_is(&mut self, cluster: ClusterId, shards: u32) -> Result<(), Error> {
        self.transaction(|db| identity::set_cluster(&db.conn, Cluster { id: cluster, shards }, false))?;
        self.reload()
    }

    /// The same for good, as a node: what is written from now on is noted.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then, or it is done again.
    pub fn begin_as_it_is(&mut self, cluster: ClusterId, shards: u32, genesis: Option<&[u8]>) -> Result<(), Error> {
        self.transaction(|db| {
            identity::set_cluster(&db.conn, Cluster { id: cluster, shards }, false)?;
            genesis.map_or(Ok(()), |frame| identity::keep_genesis(&db.conn, frame))?;
            identity::settle(&db.conn)
        })?;
        self.reload()?;
        self.install(false).map(drop)
    }

    /// The same, by what another member knows.
    pub(super) fn enter_with(&mut self, cluster: Cluster, policies: &[Policy]) -> Result<(), Error> {
        self.transaction(|db| {
            identity::set_cluster(&db.conn, cluster, false)?;
            Rulings::begin(&db.conn, policies)
        })?;
        self.reload()
    }

    /// Opens another file as this one was opened, with components of their own kind for reading alone.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn reopen(&self, path: &std::path::Path) -> Result<Self, Error> {
        self.reopen_as(path, self.options.filter.clone())
    }

    /// The same, for other tables.
    pub(super) fn reopen_as(&self, path: &std::path::Path, filter: super::Filter) -> Result<Self, Error> {
        let options = super::Options { path: path.to_owned(), node: 0, filter, ..self.options.clone() };
        // Nothing is sealed there, so nothing is hashed; clashes are decided as anywhere.
        let mut db = Self::open(options, Box::new(Unhashed), self.policies.again())?;
        db.captures = false;
        db.options.replicate = true;
        self.copy_attachments(&db)?;
        db.reload()?;
        db.conn.pragma_update(None, "synchronous", "OFF").doing("set how commits are synced")?;
        Ok(db)
    }

    /// The founder says that all rows it had are in the log, once they are in the outbox.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn finish_founding(&mut self) -> Result<(), Error> {
        let is_unrouted = |tracked: &Tracked| !tracked.captured;
        // It is asked all the time, and nearly always nobody founds anything.
        if !identity::founding(&self.conn)?
            || self.tables.iter().any(is_unrouted)
            || self.is_scanning()?
            || self.is_dirty()?
        {
            return Ok(());
        }
        self.transaction(|db| {
            // As in a seal: the schema may have changed before the lock was ours. The next round asks again.
            if db.refresh_schema()? || (db.is_dirty()? && db.seal_piece()?) {
                return Ok(());
            }
            fault!("founding");
            for shard in 1..=db.shards() {
                let number = db.ledger.next_number(shard, db.origin);
                db.enqueue(shard, number, false, Body::Founded)?;
            }
            own::set_meta(&db.conn, "founding", 0)?;
            fault!("founded");
            Ok(())
        })
    }

    /// Whether no replicated table has a row.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn is_empty(&self) -> Result<bool, Error> {
        for tracked in &self.tables {
            let sql = format!("SELECT 1 FROM main.{} LIMIT 1", quote(&tracked.table.name));
            if self.conn.prepare(&sql).and_then(|mut statement| statement.exists([])).doing("look for rows")? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// An empty database with the same tables, to build L in.
    ///
    /// UNIQUE indexes over some rows or over expressions are no part of the fold and are left out: the log may hold
    /// fights over them, which nodes have settled by hand since.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn copy_schema(&self, path: &std::path::Path) -> Result<(), Error> {
        const COPYING: &str = "copy the schema";
        let copy = Connection::open(path).doing(COPYING)?;
        let encoding: String = self.conn.query_row("PRAGMA main.encoding", [], |row| row.get(0)).doing(COPYING)?;
        copy.pragma_update(None, "encoding", encoding).doing(COPYING)?;
        copy.pragma_update(None, "journal_mode", "WAL").doing(COPYING)?;
        for tracked in &self.tables {
            let mut statement = self
                .conn
                .prepare_cached(
                    "SELECT sql FROM main.sqlite_schema WHERE tbl_name = ?1 COLLATE NOCASE AND sql IS NOT NULL
                     AND (type = 'table' OR type = 'index'
                          AND name IN (SELECT name FROM pragma_index_list(?1) WHERE \"unique\" AND NOT partial)
                          AND NOT EXISTS (SELECT 1 FROM pragma_index_xinfo(sqlite_schema.name) WHERE key AND cid = -2))
                     ORDER BY type DESC",
                )
                .doing(COPYING)?;
            let mut rows = statement.query([&tracked.table.name]).doing(COPYING)?;
            while let Some(row) = rows.next().doing(COPYING)? {
                copy.execute_batch(&row.get::<_, String>(0).doing(COPYING)?).doing(COPYING)?;
            }
        }
        Ok(())
    }

    /// Takes where `other` stands for this node's own place, for its rows are the same: in the transaction at hand.
    pub(super) fn adopt(&mut self, other: &Self) -> Result<(), Error> {
        const ADOPTING: &str = "take over a place in the log";
        let Some(cluster) = other.cluster else {
            return Err(Error::Inconsistent("there is no cluster to join".to_owned()));
        };
        if other.ledger.is_slicing() {
            return Err(Error::Inconsistent("a large unit is applied by half where rows are taken from".to_owned()));
        }
        for table in [ours!("slice"), ours!("displaced")] {
            self.conn.execute(&format!("DELETE FROM {table}"), []).doing(ADOPTING)?;
        }
        identity::set_cluster(&self.conn, cluster, false)?;
        for table in LOGGED {
            let table = format!("main.{}", quote(&format!("{PREFIX}_{table}")));
            self.conn.execute(&format!("DELETE FROM {table}"), []).doing(ADOPTING)?;
            let mut read = other.conn.prepare(&format!("SELECT * FROM {table}")).doing(ADOPTING)?;
            let width = read.column_count();
            let places = (1..=width).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
            // By name: a file of an earlier build has its columns in another order.
            let names = read.column_names().map(quote).collect::<Vec<_>>().join(", ");
            let mut write =
                self.conn.prepare(&format!("INSERT INTO {table} ({names}) VALUES ({places})")).doing(ADOPTING)?;
            let mut rows = read.query([]).doing(ADOPTING)?;
            while let Some(row) = rows.next().doing(ADOPTING)? {
                for column in 0..width {
                    let value = owned(row.get_ref(column).doing(ADOPTING)?);
                    write.raw_bind_parameter(column + 1, super::values::Bound(&value)).doing(ADOPTING)?;
                }
                write.raw_execute().doing(ADOPTING)?;
            }
        }
        identity::settle(&self.conn)?;
        self.cluster = Some(cluster);
        self.ledger = Ledger::read(&self.conn)?;
        Ok(())
    }

    /// Joins where `other` stands: its tables and these are the same, but for rows that are marked here.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn join_at(&mut self, other: &Self) -> Result<(), Error> {
        self.transaction(|db| {
            db.adopt(other)?;
            fault!("adopted");
            Ok(())
        })?;
        self.reload()?;
        self.install(false)?;
        Ok(())
    }

    /// Joins where `image` stands, with its rows: this database has none.
    ///
    /// # Errors
    /// When SQLite refuses, or the image has rows that there is no place for; nothing has changed then.
    pub fn join_with(&mut self, image: &Self) -> Result<u64, Error> {
        const JOINING: &str = "take the rows of a snapshot";
        self.has_place_for(image)?;
        // What is written from now on is marked.
        self.install(false)?;
        self.conn.execute("ATTACH ?1 AS \"antiphon image\"", [image.options.path.to_string_lossy()]).doing(JOINING)?;
        let taken = self.transaction(|db| {
            if !db.is_empty()? {
                return Err(Error::Inconsistent("rows were written here meanwhile".to_owned()));
            }
            let mut rows = 0;
            for here in &db.tables {
                let there = image.tracked_exactly(&here.table.name).and_then(|index| image.tables.get(index));
                let Some(there) = there else { continue };
                let is_there = |name: &&str| there.table.column(name).is_some();
                let names = here.table.columns.iter().map(|column| column.name.as_str()).filter(is_there);
                let names = names.map(quote).collect::<Vec<_>>().join(", ");
                let (to, from) = (quote(&here.table.name), quote(&there.table.name));
                let sql =
                    format!("INSERT OR ABORT INTO main.{to} ({names}) SELECT {names} FROM \"antiphon image\".{from}");
                rows += db.conn.execute(&sql, []).doing(JOINING)? as u64;
            }
            fault!("filled");
            db.adopt(image)?;
            Ok(rows)
        });
        self.conn.execute_batch("DETACH \"antiphon image\"").doing(JOINING)?;
        let rows = taken?;
        self.reload()?;
        self.install(false)?;
        Ok(rows)
    }

    /// Forgets all marks: in the transaction at hand.
    pub(super) fn clear_marks(&self) -> Result<(), Error> {
        for tracked in self.tables.iter().filter(|tracked| tracked.captured) {
            let log = quote(&change_log(&tracked.table.name));
            self.conn.execute(&format!("DELETE FROM main.{log}"), []).doing("clear the marks")?;
        }
        Ok(())
    }

    /// How far each shard has been applied.
    #[must_use]
    pub fn positions(&self) -> Vec<(Shard, u64)> {
        (1..=self.shards()).map(|shard| (shard, self.position(shard).seq)).collect()
    }

    /// Whether an origin is this node, in this life.
    #[must_use]
    pub fn is_me(&self, origin: Origin) -> bool {
        origin == self.origin
    }
}
