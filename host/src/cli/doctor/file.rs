//! Whether the file is a sound database.

use super::{Failed, Found, Patient};

/// SQLite's own check of the structure.
pub(super) fn sound(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    let answer: String = patient.look.conn().query_row("PRAGMA main.quick_check(1)", [], |row| row.get(0))?;
    if answer != "ok" {
        found.error(
            None,
            format!("the file is damaged: {answer}"),
            "nothing of a damaged file is replicated, so that the damage doesn't spread",
            "restore it from a backup, or save what can be read: `sqlite3 DAMAGED .recover | sqlite3 NEW`, or `.dump` where `sqlite3` lacks `.recover`",
        );
    }
    Ok(())
}
