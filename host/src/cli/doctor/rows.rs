//! What the rows themselves hold.

use antiphon_core::schema::quote;

use super::super::shown::{bytes, count};
use super::{Failed, Found, Patient};

/// Largest row that is sent: an entry holds it whole.
const ROW_BYTES_MAX: u64 = 128 << 20;

/// Children without a parent. Antiphon applies with foreign keys off, for each node's own checks hold for its own writes.
pub(super) fn orphans(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    let mut statement = patient
        .look
        .conn()
        .prepare("SELECT \"table\", parent, count(*) FROM pragma_foreign_key_check() GROUP BY 1, 2 ORDER BY 1, 2")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?.cast_unsigned()))
    })?;
    for row in rows {
        let (table, parent, orphans) = row?;
        found.warning(
            Some(&table),
            format!("{} to no row of {parent}", count(orphans, "row refers", "rows refer")),
            "one node deleted the parent while another added the child, or foreign keys were off; every node has the same orphans",
            format!("see them with `PRAGMA foreign_key_check({})`, and delete them or bring the parents back, on one node", quote(&table)),
        );
    }
    Ok(())
}

/// Rows that no entry can hold.
pub(super) fn sizes(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    // No row is larger than the file it is in.
    if patient.path.metadata()?.len() < ROW_BYTES_MAX {
        return Ok(());
    }
    for table in &patient.tables {
        let size = table
            .columns
            .iter()
            .map(|column| format!("coalesce(octet_length({}), 0)", quote(&column.name)))
            .collect::<Vec<_>>()
            .join(" + ");
        let sql = format!(
            "SELECT count(*), coalesce(max(size), 0) FROM (SELECT {size} AS size FROM main.{}) WHERE size > {ROW_BYTES_MAX}",
            quote(&table.name)
        );
        let (rows, largest): (i64, i64) =
            patient.look.conn().query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if rows > 0 {
            found.error(
                Some(&table.name),
                format!(
                    "{} larger than {}, the largest {}",
                    count(rows.cast_unsigned(), "row is", "rows are"),
                    bytes(ROW_BYTES_MAX),
                    bytes(largest.cast_unsigned())
                ),
                "a row travels whole, and one of that size can't: it stays on its node, and is sent when it is smaller; all other rows go on",
                "keep large contents in pieces, or in files beside the database",
            );
        }
    }
    Ok(())
}
