//! A table's rows become those of a snapshot, and what is on its way stays in front of them.

use super::catalog::Tracked;
use super::compare::{each_row, key_of};
use super::merge::{Encoding, KeyOrder, Pair, Side, merge};
use super::overlay::Image;
use super::plain::present;
use super::restore::{Mine, OnTheWay};
use super::rows::{Writer, whole};
use super::shadows::Shadow;
use super::stamp::Stamps;
use super::stray::Kept;
use super::unique::{holders, key_values, same};
use super::{Database, Error};
use antiphon_core::value::{Row, Value};
use std::collections::BTreeSet;

type Key = Box<[u8]>;

/// How a table differs from that of a snapshot.
#[derive(Default)]
struct Found {
    /// The snapshot's rows of keys with changes on their way.
    behind: Vec<(Key, Option<Image>)>,
    /// The snapshot's rows of other keys, where they differ.
    free: Vec<(Key, Option<Image>)>,
}

impl Database {
    /// Brings one table to the image's rows, but for what is pending: there they come behind. Gives how many others
    /// differed.
    pub(super) fn restore_table(
        &mut self,
        image: &Self,
        here: &Tracked,
        mine: &OnTheWay,
        kept: &Kept,
    ) -> Result<u64, Error> {
        let Found { behind, free } = self.find_differing(image, here)?;
        let own = |(key, _): &(Key, Option<Image>)| {
            let mine = mine.get(&(here.id, key.clone()))?;
            Some((key.clone(), mine.image.clone()))
        };
        self.keep_strays(here, free.iter().cloned().chain(behind.iter().filter_map(own)), kept)?;
        let differing = free.len() as u64;
        let alone = if let [(_, seq)] = self.positions().as_slice() { *seq } else { 0 };
        let mut touched = Vec::with_capacity(free.len() + behind.len());
        let mut own: Vec<(&Key, &Mine)> = Vec::new();
        let mut shadows = Vec::with_capacity(free.len() + behind.len());
        for (key, image) in behind {
            let seen = match mine.get_key_value(&(here.id, key.clone())) {
                Some(((_, key), mine)) => {
                    own.push((key, mine));
                    mine.seen.min(self.position(mine.shard).seq)
                }
                None => alone,
            };
            shadows.push((key, Shadow { image, seen }));
        }
        let mut stamps = Stamps::new(&self.conn, here);
        for (key, image) in free {
            // Where there is no room for it now, the application has never seen the last change of it.
            let seen = stamps.get(&key)?.map_or(alone, |stamp| stamp.seq.saturating_sub(1));
            shadows.push((key, Shadow { image, seen }));
        }
        drop(stamps);
        let overlay = self.overlay.table(here.id);
        for (key, shadow) in shadows {
            touched.push(key.clone());
            overlay.shadows.insert(key, shadow);
        }
        self.show_again(here, own, alone, &mut touched)?;
        self.materialise(here, touched)?;
        Ok(differing)
    }

    fn find_differing(&mut self, image: &Self, here: &Tracked) -> Result<Found, Error> {
        let mut found = Found::default();
        let mut unmet: BTreeSet<Key> = self.overlay.table(here.id).pending.keys().map(Key::from).collect();
        if crate::flaw!(RestoredOver) {
            unmet.clear();
        }
        let mut note = |key: &Row, row: Option<&Row>, logged: Option<Image>| {
            let mut canonical = Vec::new();
            here.encoder.write(&mut canonical, key.iter());
            let canonical = canonical.into_boxed_slice();
            if unmet.remove(&canonical) {
                found.behind.push((canonical, logged));
            } else if !same(logged.as_ref(), row) {
                found.free.push((canonical, logged));
            }
        };
        match image.tracked_exactly(&here.table.name).and_then(|index| image.tables.get(index)) {
            None => each_row(self, here, &mut |row| {
                note(&key_of(here, &row), Some(&row), None);
                Ok(())
            })?,
            Some(there) => {
                let columns: Vec<usize> = (0..here.table.columns.len()).collect();
                // An older image may lack columns that are here.
                let place = |column: &antiphon_core::schema::Column| there.table.column(&column.name);
                let common: Vec<(usize, usize)> = here
                    .table
                    .columns
                    .iter()
                    .enumerate()
                    .filter_map(|(at, column)| Some((at, place(column)?)))
                    .collect();
                let places: Vec<usize> = common.iter().map(|(_, place)| *place).collect();
                let ours = Side { conn: &self.conn, table: &here.table, columns: &columns };
                let theirs = Side { conn: &image.conn, table: &there.table, columns: &places };
                let order = KeyOrder::new(&here.table, Encoding::of(&self.conn)?);
                merge(ours, theirs, &order, |Pair { key, here: row, there: logged }| {
                    note(&key, row.as_ref(), logged.map(|logged| spread(here, &common, logged)));
                    Ok(())
                })?;
            }
        }
        // Rows that are deleted here, and that the image has neither.
        found.behind.extend(unmet.into_iter().map(|key| (key, None)));
        Ok(found)
    }

    /// Of what is on its way T shows the newest. Whoever holds a UNIQUE value of it makes room: until the log is read
    /// again, if it is L's row, and for good, if it is an older one of our own.
    fn show_again(
        &mut self,
        here: &Tracked,
        mut own: Vec<(&Key, &Mine)>,
        alone: u64,
        touched: &mut Vec<Key>,
    ) -> Result<(), Error> {
        own.sort_unstable_by_key(|(_, mine)| mine.number);
        let conn = &self.conn;
        let overlay = self.overlay.table(here.id);
        let mut writer = Writer::new(conn, here);
        for (key, Mine { image, .. }) in own {
            let values = key_values(key)?;
            if same(image.as_ref(), whole(conn, here, &values)?.as_ref()) {
                continue;
            }
            let Some(image) = image else {
                writer.delete(&values)?;
                continue;
            };
            for unique in &here.table.uniques {
                for holder in holders(conn, here, &unique.columns, image)? {
                    let mut canonical = Vec::new();
                    here.encoder.write(&mut canonical, holder.iter());
                    let canonical = canonical.into_boxed_slice();
                    if canonical == *key {
                        continue;
                    }
                    let row = whole(conn, here, &holder)?;
                    if !overlay.pending.contains_key(&canonical) && !overlay.shadows.contains(&canonical) {
                        let image = row.map(|row| row.into_iter().map(Some).collect());
                        overlay.shadows.insert(canonical.clone(), Shadow { image, seen: alone });
                        touched.push(canonical);
                    }
                    writer.delete(&holder)?;
                }
            }
            writer.upsert(&present(image), image.iter().flatten())?;
        }
        Ok(())
    }
}

/// A row of the image in the order of the columns here; one that it lacks holds its default.
fn spread(here: &Tracked, common: &[(usize, usize)], row: Vec<Value>) -> Image {
    let mut image: Image = vec![None; here.table.columns.len()];
    for ((at, _), value) in common.iter().zip(row) {
        if let Some(slot) = image.get_mut(*at) {
            *slot = Some(value);
        }
    }
    here.fill(&mut image);
    image
}
