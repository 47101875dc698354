//! Tables held to no UNIQUE index besides the key: one upsert or delete a change, none for an undisturbed echo.

use super::catalog::Tracked;
use super::overlay::{Image, TableOverlay, drop_shadow, store_shadow};
use super::rows::Writer;
use super::shadows::Shadow;
use super::unit::{TableChanges, Unit, image_of};
use super::{Database, Error};
use antiphon_core::entry::Chunk;
use antiphon_core::hash::PackedKeys;
use rusqlite::Connection;

impl Database {
    /// Applies a chunk as it came: nothing of it clashes, and each of its keys stands in it once.
    pub(super) fn apply_chunk(
        &mut self,
        unit: &Unit,
        index: usize,
        chunk: &Chunk,
        columns: &[usize],
        keys: &PackedKeys,
    ) -> Result<(), Error> {
        let Self { conn, overlay, tables, origin, .. } = self;
        let Some(tracked) = tables.get(index) else { return Ok(()) };
        let own = unit.origin == *origin;
        let mut settler = Settler { conn, tracked, overlay: overlay.table(tracked.id), unit, own };
        let mut writer = Writer::new(conn, tracked);
        let mut keys = keys.iter();
        for (row, key) in chunk.written.iter().zip(keys.by_ref()) {
            if settler.writes(key, || Some(image_of(tracked, columns, row.iter().cloned())))? {
                writer.upsert(columns, row.iter())?;
            }
        }
        for (gone, key) in chunk.gone.iter().zip(keys) {
            if settler.writes(key, || None)? {
                writer.delete(gone)?;
            }
        }
        Ok(())
    }

    /// Applies changes gathered from several pieces.
    pub(super) fn apply_plain(&mut self, unit: &Unit, table: TableChanges) -> Result<(), Error> {
        let Self { conn, overlay, tables, origin, .. } = self;
        let Some(tracked) = tables.get(table.index) else { return Ok(()) };
        let own = unit.origin == *origin;
        let mut settler = Settler { conn, tracked, overlay: overlay.table(tracked.id), unit, own };
        let mut writer = Writer::new(conn, tracked);
        for change in table.changes {
            if settler.writes(&change.key, || change.image.clone())? {
                match &change.image {
                    None => writer.delete(&change.key_values)?,
                    Some(image) => writer.upsert(&present(image), image.iter().flatten())?,
                }
            }
        }
        Ok(())
    }
}

/// Positions of the columns that an image has.
pub(super) fn present(image: &Image) -> Vec<usize> {
    image.iter().enumerate().filter(|(_, value)| value.is_some()).map(|(position, _)| position).collect()
}

/// Decides for each key whether its change is written now.
struct Settler<'a> {
    conn: &'a Connection,
    tracked: &'a Tracked,
    overlay: &'a mut TableOverlay,
    unit: &'a Unit,
    own: bool,
}

impl Settler<'_> {
    /// Whether the change to `key` goes to T; if not, it is known there already, or goes behind a pending row.
    fn writes(&mut self, key: &[u8], image: impl FnOnce() -> Option<Image>) -> Result<bool, Error> {
        let TableOverlay { pending, shadows, clocks, .. } = &mut *self.overlay;
        if pending.is_empty() && shadows.is_empty() {
            return Ok(true);
        }
        let mut echoed = false;
        if let Some(&number) = pending.get(key) {
            if self.own && number <= self.unit.number && !crate::flaw!(EchoIgnored) {
                pending.remove(key);
                clocks.remove(key);
                echoed = true;
            } else if !crate::flaw!(NoShadow) {
                let seen = shadows.get(key).map_or(self.unit.seq - 1, |shadow| shadow.seen);
                let shadow = Shadow { image: image(), seen };
                store_shadow(self.conn, self.tracked, key, &shadow)?;
                shadows.insert(key.into(), shadow);
                return Ok(false);
            }
        }
        if !shadows.is_empty() && shadows.remove(key).is_some() {
            drop_shadow(self.conn, self.tracked, key)?;
            return Ok(true);
        }
        // T shows an echo's image since it was sealed, and nothing came between.
        Ok(!echoed)
    }
}
