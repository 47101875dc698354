//! A database that was brought back gets its name: whole, or not at all, and never in the place of another file.

use super::unwritten;
use crate::failure::{Failure, Kind};
use antiphon_core::capture::PREFIX;
use antiphon_core::schema::quote;
use rusqlite::{Connection, OpenFlags};
use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A file that is to come, and a folder beside it where it is made.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    folder: PathBuf,
    aside: tempfile::TempDir,
}

impl Output {
    /// Makes the folder.
    ///
    /// # Errors
    /// When there is a file of that name already, or none can be made there.
    pub fn at(path: &Path) -> Result<Self, Failure> {
        if path.symlink_metadata().is_ok() {
            return Err(there(path));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let aside = tempfile::Builder::new()
            .prefix(".antiphon-restore-")
            .tempdir_in(folder)
            .map_err(|error| unwritten(folder, &error))?;
        Ok(Self { path: path.to_owned(), folder: folder.to_owned(), aside })
    }

    /// Where it is made.
    #[must_use]
    pub fn aside(&self) -> &Path {
        self.aside.path()
    }

    /// Gives a file that lies in that folder its name.
    ///
    /// # Errors
    /// When there is one by now, or the disk does not take it.
    pub fn name(self, image: &Path) -> Result<(), Failure> {
        // It is its owner's alone, as the folder that it was made in.
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(image, private).map_err(|error| unwritten(image, &error))?;
        File::open(image).and_then(|file| file.sync_all()).map_err(|error| unwritten(image, &error))?;
        fault!("snapshot-linked");
        crate::place::rename_new(image, &self.path).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => there(&self.path),
            _ => unwritten(&self.path, &error),
        })?;
        let folder = &self.folder;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| unwritten(folder, &error))
    }
}

fn there(path: &Path) -> Failure {
    Failure::new(Kind::General, format!("`{}` is there already", path.display()))
        .hint("name a file that is not there; nothing is ever overwritten")
}

/// How many rows these tables have together, those of them that are there.
///
/// # Errors
/// When SQLite refuses.
pub fn rows_of(image: &Path, tables: &[String]) -> Result<u64, Failure> {
    let bad = |error: rusqlite::Error| Failure::caused(Kind::Data, "what was restored can't be read", &error);
    let conn = Connection::open_with_flags(image, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(bad)?;
    let mut rows = 0;
    for table in tables {
        let is_there = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE)";
        if conn.query_row(is_there, [table], |row| row.get::<_, bool>(0)).map_err(bad)? {
            let sql = format!("SELECT count(*) FROM main.{}", quote(table));
            rows += conn.query_row(&sql, [], |row| row.get::<_, i64>(0)).map_err(bad)?.unsigned_abs();
        }
    }
    Ok(rows)
}

/// Tables of a database that have rows, and are none of these and none of ours.
///
/// # Errors
/// When SQLite refuses.
pub fn others_with_rows(database: &Path, tables: &[String]) -> rusqlite::Result<Vec<String>> {
    let conn = crate::db::look(database)?;
    let others = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
                  AND substr(name, 1, length(?1)) <> ?1 ORDER BY name";
    let names = conn
        .prepare(others)?
        .query_map([PREFIX], |row| row.get::<_, String>(0))?
        .filter(|name| !name.as_ref().is_ok_and(|name| tables.iter().any(|table| table.eq_ignore_ascii_case(name))))
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut found = Vec::new();
    for name in names {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM main.{})", quote(&name));
        if conn.query_row(&sql, [], |row| row.get(0))? {
            found.push(name);
        }
    }
    Ok(found)
}

/// Leaves only these tables in a database, with their indexes: views and triggers go, for they may speak of others.
///
/// # Errors
/// When one of them is not there, or SQLite refuses.
pub fn only(image: &Path, tables: &[String], into: &Path) -> Result<(), Failure> {
    let bad = |error: rusqlite::Error| Failure::caused(Kind::General, "cannot take out single tables", &error);
    let conn = Connection::open_with_flags(image, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(bad)?;
    conn.pragma_update(None, "trusted_schema", "OFF").map_err(bad)?;
    conn.pragma_update(None, "synchronous", "OFF").map_err(bad)?;
    let there: Vec<(String, String)> = conn
        .prepare(
            "SELECT type, name FROM sqlite_schema WHERE type IN ('table', 'view', 'trigger')
             AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
             ORDER BY CASE type WHEN 'trigger' THEN 1 WHEN 'view' THEN 2 ELSE 3 END, sql LIKE 'CREATE VIRTUAL%' DESC",
        )
        .and_then(|mut statement| {
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()
        })
        .map_err(bad)?;
    if let Some(missing) = tables
        .iter()
        .find(|wanted| !there.iter().any(|(kind, name)| kind == "table" && name.eq_ignore_ascii_case(wanted)))
    {
        return Err(Failure::new(Kind::Missing, format!("there is no table `{missing}` at this point")));
    }
    for (kind, name) in there {
        let is_wanted = kind == "table" && tables.iter().any(|wanted| wanted.eq_ignore_ascii_case(&name));
        if is_wanted {
            continue;
        }
        // Tables of a virtual one go with it.
        let is_there = conn
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = ?1 AND name = ?2)",
                [&kind, &name],
                |row| row.get::<_, bool>(0),
            )
            .map_err(bad)?;
        if is_there {
            conn.execute_batch(&format!("DROP {kind} main.{}", quote(&name))).map_err(bad)?;
        }
    }
    conn.execute("VACUUM INTO ?1", [into.to_string_lossy()]).map_err(bad)?;
    Ok(())
}
