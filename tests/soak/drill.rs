//! A database is brought back as it was at one place in the log, and compared with what a node had there.

use crate::writer::Acknowledged;
use antiphon_harness::{Place, Site, eventually};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::time::Instant;

/// What brings databases back, and knows what must be in them.
pub(crate) struct Drill<'a> {
    pub(crate) place: &'a Place,
    /// What each application has committed.
    pub(crate) known: &'a [Acknowledged],
    /// The nodes' files.
    files: Vec<Connection>,
}

/// Rows by writer and slot.
type Rows = BTreeMap<(i64, i64), (i64, String)>;

impl<'a> Drill<'a> {
    pub(crate) fn new(place: &'a Place, sites: &[Site], known: &'a [Acknowledged]) -> Self {
        Self { place, known, files: sites.iter().map(Site::connect).collect() }
    }

    /// By the file of one node, each time another's. Of what another application wrote, that file holds what the log says
    /// up to the position beside it, and nothing else: so it must all come back, and no newer row.
    pub(crate) fn hold(&self, number: u32) {
        let begun = Instant::now();
        let at = number as usize % self.files.len();
        let (file, own) = (&self.files[at], at as i64);
        let others = || (0..).zip(self.known).filter(|(writer, _): &(i64, _)| *writer != own);
        let floor: Vec<(i64, Vec<(i64, i64)>)> = others().map(|(writer, known)| (writer, known.rows())).collect();
        eventually("what was acknowledged before the drill is here", || {
            let found = rows(file, own);
            let has =
                |writer: i64, (slot, n): &(i64, i64)| found.get(&(writer, *slot)).is_some_and(|(has, _)| has >= n);
            floor.iter().all(|(writer, rows)| rows.iter().all(|row| has(*writer, row)))
        });
        file.execute_batch("BEGIN").unwrap();
        let places = places(file);
        let expected = rows(file, own);
        file.execute_batch("COMMIT").unwrap();

        let output = format!("drill-{number}.db");
        let arguments = ["snapshot", "restore", "--output", &output, "--to-seq", &places, "--config", "c.toml"];
        let ended = self.place.run(arguments);
        assert_eq!(ended.code, Some(0), "no database came back at {places}: {}{}", ended.stdout, ended.stderr);
        let restored = Connection::open(self.place.path(&output)).unwrap();
        let sound: String = restored.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
        let found = rows(&restored, own);
        let differ = expected.iter().filter(|(key, row)| found.get(key) != Some(row)).count();
        assert!(found == expected, "{} rows at {places}, {} came back, {differ} differ", expected.len(), found.len());
        let least: usize = floor.iter().map(|(_, rows)| rows.len()).sum();
        assert!(found.len() >= least && least > 0, "{} of {least} rows", found.len());
        println!("drill {number}: {} rows as of {places} in {:?}", found.len(), begun.elapsed());
        drop(restored);
        std::fs::remove_file(self.place.path(&output)).unwrap();
    }
}

/// Where a file stands in the log, as a user would write it.
fn places(file: &Connection) -> String {
    let mut statement = file.prepare("SELECT shard, seq FROM __antiphon___position ORDER BY shard").unwrap();
    let place = |row: &rusqlite::Row<'_>| Ok(format!("{}:{}", row.get::<_, u32>(0)?, row.get::<_, i64>(1)?));
    statement.query_map([], place).unwrap().collect::<Result<Vec<_>, _>>().unwrap().join(",")
}

/// What the applications beside the other nodes wrote.
fn rows(file: &Connection, but_of: i64) -> Rows {
    let mut statement = file
        .prepare_cached(
            "SELECT writer, slot, n, note FROM item WHERE writer <> ?1
             UNION ALL SELECT writer, -1, n, '' FROM total WHERE writer <> ?1",
        )
        .unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok(((row.get(0)?, row.get(1)?), (row.get(2)?, row.get(3)?)));
    statement.query_map([but_of], row).unwrap().collect::<Result<_, _>>().unwrap()
}
