//! Pages of the guide that are made from the code: the table that they share, and the test that compares them.

use std::fmt::Write as _;

/// One row of a table: what stands in a cell can't end it.
pub(crate) fn row(page: &mut String, cells: &[&str]) {
    let cells = cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect::<Vec<_>>();
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}

/// The page of this name is what the code says. `UPDATE_DOCS=1 cargo test` writes it.
#[cfg(test)]
pub(crate) fn compare(name: &str, page: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), page, "write it with UPDATE_DOCS=1");
}
