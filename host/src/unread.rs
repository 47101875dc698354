//! What keeps a database from being looked at, in words: the same ones whoever looks.

use crate::db;
use crate::failure::{Failure, Kind};
use rusqlite::ErrorCode;
use std::error::Error;
use std::path::Path;

/// Whether there is a file by this name.
///
/// # Errors
/// When there is none, or it is something else.
pub(crate) fn file(path: &Path) -> Result<(), Failure> {
    match path.metadata() {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(missing(path, "it is not a file")),
        Err(error) => Err(missing(path, &error)),
    }
}

/// There is no such database.
pub(crate) fn missing(path: &Path, why: &(impl std::fmt::Display + ?Sized)) -> Failure {
    Failure::new(Kind::Missing, format!("cannot open database `{}`: {why}", path.display()))
        .hint("name the file your application uses; it has to exist already")
}

/// What our own part said of a file that was being read.
pub(crate) fn by_db(path: &Path, error: &db::Error) -> Failure {
    match error {
        db::Error::Sqlite { source, .. } => said(path, source.sqlite_error_code(), error),
        _ => said(path, None, error),
    }
}

/// What SQLite said of a file that was being read.
pub(crate) fn by_sqlite(path: &Path, error: &rusqlite::Error) -> Failure {
    said(path, error.sqlite_error_code(), error)
}

fn said(path: &Path, code: Option<ErrorCode>, error: &(dyn Error + 'static)) -> Failure {
    let text = format!("cannot read database `{}`", path.display());
    let (kind, hint) = match code {
        Some(ErrorCode::NotADatabase) => {
            return Failure::new(Kind::Data, format!("{text}: it is not a SQLite database"))
                .hint("name the file your application uses");
        }
        Some(ErrorCode::DatabaseCorrupt) => (
            Kind::Data,
            "restore the file from a backup, or save what can be read: `sqlite3 DAMAGED .recover | sqlite3 NEW`, or `.dump` where `sqlite3` lacks `.recover`",
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (Kind::Busy, "try again when the application has ended its transaction")
        }
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen) => (
            Kind::Missing,
            "if a writer was interrupted, let the application open the file once; else look at the permissions of the file and its folder",
        ),
        _ => return Failure::caused(Kind::General, text, error),
    };
    Failure::caused(kind, text, error).hint(hint)
}
