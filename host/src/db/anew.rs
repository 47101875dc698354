//! A shard of the log that has lost all it held begins again where one node stands.
//!
//! What was in it is gone, and what that node made of it, L, becomes what comes next is made upon: others take it as a
//! snapshot. Whatever they had sent and it had not read is still in their outboxes, and is on its way once more.

use super::own::ours;
use super::values::unsigned;
use super::{Database, Doing as _, Error};
use crate::log::{Placement, Shard};
use antiphon_core::entry::{Anew, Body, Entry, Origin};

const READING: &str = "read where the log began again";

impl Database {
    /// Why no shard can begin again with what stands here, if so.
    ///
    /// # Errors
    /// When SQLite can't tell.
    pub fn cannot_begin_again(&self) -> Result<Option<&'static str>, Error> {
        Ok(if !self.options.publish {
            Some("it only listens: `publish` is off")
        } else if !self.options.replicate || self.has_unread() {
            Some("it has passed over what others wrote")
        } else if self.ledger.is_slicing() {
            Some("a large unit is applied by half, and the rest of it was in the log")
        } else if self.is_held_back()? {
            // No snapshot could be made of it either, and whoever is waited for needs one to go on.
            Some("what it sends waits for changes that the log lost before, and that another node is to send again")
        } else {
            None
        })
    }

    /// What this node would let a shard begin again with, as bytes.
    ///
    /// # Errors
    /// When it can't be encoded.
    pub fn anew(&mut self, shard: Shard) -> Result<Vec<u8>, Error> {
        let Placement { seq, time, checksum } = self.position(shard);
        let Some(cluster) = self.cluster() else {
            return Err(Error::Inconsistent("there is no cluster whose log could begin again".to_owned()));
        };
        let body = Body::Anew(Anew { seq, time, checksum });
        let entry = Entry { cluster, origin: self.origin, number: 0, clock: self.ledger.clock, body };
        self.encoder.encode(&entry).map_err(Error::Encode)
    }

    /// The last number of an origin's that was read of a shard.
    #[must_use]
    pub fn received(&self, shard: Shard, origin: Origin) -> u64 {
        self.ledger.received(shard, origin)
    }

    /// The same of each origin: there its numbering goes on.
    #[must_use]
    pub fn numbers(&self, shard: Shard) -> Vec<(Origin, u64)> {
        self.ledger.numbers(shard)
    }

    /// Stands at the first entries of shards that began again with what is here.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn begin_again(&mut self, places: &[(Shard, Placement)]) -> Result<(), Error> {
        const BEGINNING: &str = "stand where the log begins again";
        self.transaction(|db| {
            for &(shard, place) in places {
                let before = db.position(shard);
                db.conn
                    .prepare_cached(concat!("INSERT INTO ", ours!("anew"), " VALUES (?1, ?2, ?3, ?4, ?5)"))
                    .and_then(|mut statement| {
                        statement.execute((
                            shard,
                            place.seq.cast_signed(),
                            before.seq.cast_signed(),
                            before.time.cast_signed(),
                            before.checksum.cast_signed(),
                        ))
                    })
                    .doing(BEGINNING)?;
                db.ledger.advance(shard, place);
                db.ledger.write(&db.conn, shard, &[])?;
            }
            if crate::flaw!(AnewForgets) {
                db.conn.execute(concat!("DELETE FROM ", ours!("shadow")), []).doing(BEGINNING)?;
            }
            fault!("anew");
            Ok(())
        })?;
        self.reload()
    }

    /// Where a shard began again last, and the time of what stood before that.
    pub(super) fn began_again(&self, shard: Shard) -> Result<Option<(u64, u64)>, Error> {
        const LAST: &str =
            concat!("SELECT seq, before_time FROM ", ours!("anew"), " WHERE shard = ?1 ORDER BY seq DESC LIMIT 1");
        let mut statement = self.conn.prepare_cached(LAST).doing(READING)?;
        let mut rows = statement.query([shard]).doing(READING)?;
        let Some(row) = rows.next().doing(READING)? else { return Ok(None) };
        Ok(Some((unsigned(row, 0).doing(READING)?, unsigned(row, 1).doing(READING)?)))
    }

    /// Whether what stood at `at` is part of what leads up to this node's place. `there` is what the log has in that place
    /// now, or the first that it has behind it.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn leads_through(&self, shard: Shard, at: Placement, there: Option<Placement>) -> Result<bool, Error> {
        match there {
            _ if at.seq == 0 => return Ok(true),
            None => return Ok(false),
            Some(there) if there.seq == at.seq => return Ok(there == at),
            // It was let go of, which tells nothing, unless all was lost with it.
            Some(_) => {}
        }
        if crate::flaw!(AnewUnnoticed) {
            return Ok(true);
        }
        let next = concat!(
            "SELECT before_seq, before_time, before_checksum FROM ",
            ours!("anew"),
            " WHERE shard = ?1 AND seq > ?2 ORDER BY seq LIMIT 1"
        );
        let mut statement = self.conn.prepare_cached(next).doing(READING)?;
        let mut rows = statement.query((shard, at.seq.cast_signed())).doing(READING)?;
        let Some(row) = rows.next().doing(READING)? else { return Ok(true) };
        let number = |column| unsigned(row, column).doing(READING);
        let before = Placement { seq: number(0)?, time: number(1)?, checksum: number(2)? };
        // Of any other place nobody knows any more whether it was the same log.
        Ok(before == at)
    }
}
