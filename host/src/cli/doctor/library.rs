//! The SQLite that the application uses, as far as the file shows it.

use std::fs::File;
use std::io::Read as _;

use super::{Failed, Found, Patient};

/// The first library with WAL, and the first without the fault that two connections can meet in it.
const WAL_SINCE: u32 = 3_007_000;
const WAL_SOUND: u32 = 3_051_003;

fn header(patient: &Patient) -> std::io::Result<[u8; 100]> {
    let mut header = [0; 100];
    File::open(&patient.path)?.read_exact(&mut header)?;
    Ok(header)
}

/// Bytes 18 and 19: how the file is written and read. 2 is WAL.
fn is_wal(header: &[u8; 100]) -> bool {
    matches!(header.get(18..20), Some([2, 2]))
}

/// Without WAL readers wait for writers and writers for readers.
pub(super) fn journal(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    if patient.path.metadata()?.len() > 0 && !is_wal(&header(patient)?) {
        found.warning(
            None,
            "the journal mode is not WAL",
            "it works, but whoever writes makes all readers wait, and whoever reads makes Antiphon wait with what came from others",
            format!("`sqlite3 {} 'PRAGMA journal_mode = WAL'`, once; the file keeps it", patient.path.display()),
        );
    }
    Ok(())
}

/// Bytes 96 to 99: the number of the library that last wrote the first page.
pub(super) fn version(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    if patient.path.metadata()?.len() == 0 {
        return Ok(());
    }
    let header = header(patient)?;
    let number = header.get(96..100).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    let shown = format!("{}.{}.{}", number / 1_000_000, number / 1000 % 1000, number % 1000);
    if is_wal(&header) && (WAL_SINCE..WAL_SOUND).contains(&number) {
        found.warning(
            None,
            format!("SQLite {shown} last wrote the file"),
            "SQLite 3.7.0 to 3.51.2 can damage a file in WAL mode when two connections write and checkpoint at once, and with \
             Antiphon there are always two",
            "build the application with SQLite 3.51.3 or later",
        );
    }
    Ok(())
}
