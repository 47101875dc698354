//! Opening what is only looked at, with words for what can be wrong with it.

use std::path::Path;

use crate::db::{self, Look};
use crate::failure::{Failure, Kind};
use crate::log;

/// Opens a database for reading alone.
pub(super) fn database(path: &Path) -> Result<Look, Failure> {
    let shown = path.display();
    let missing = |why: &str| {
        Failure::new(Kind::Missing, format!("cannot open database `{shown}`: {why}"))
            .hint("name the file your application uses; it has to exist already")
    };
    match path.metadata() {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Err(missing("it is not a file")),
        Err(error) => return Err(missing(&error.to_string())),
    }
    Look::open(path).map_err(|error| unread(path, &error))
}

/// What SQLite said of a file that was being read.
pub(super) fn unread(path: &Path, error: &db::Error) -> Failure {
    use rusqlite::ErrorCode;
    let text = format!("cannot read database `{}`", path.display());
    let code = match error {
        db::Error::Sqlite { source, .. } => source.sqlite_error_code(),
        _ => None,
    };
    let hint = match code {
        Some(ErrorCode::NotADatabase) => {
            return Failure::new(Kind::Data, format!("{text}: it is not a SQLite database"))
                .hint("name the file your application uses");
        }
        Some(ErrorCode::DatabaseCorrupt) => (
            Kind::Data,
            "restore the file from a backup, or save what can be read: `sqlite3 DAMAGED .recover | sqlite3 NEW`",
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
    Failure::caused(hint.0, text, error).hint(hint.1)
}

/// No host ever ran on this file.
pub(super) fn never_ran(path: &Path) -> Failure {
    Failure::new(Kind::Missing, format!("`{}` was never replicated: nothing of Antiphon's is in it", path.display()))
        .hint("start with `antiphon run`; `antiphon doctor` looks at the file before")
}

/// Opens the log of a directory for reading alone.
pub(super) fn log(directory: &Path) -> Result<log::Look, Failure> {
    log::Look::open(directory).map_err(|error| unread_log(&error))?.ok_or_else(|| {
        Failure::new(Kind::Missing, format!("there is no log in `{}`", directory.display()))
            .hint("name its directory with `--log DIR`, as `antiphon run` was given it")
    })
}

/// What was wrong with a log that was being read.
pub(super) fn unread_log(error: &log::Error) -> Failure {
    let kind = if matches!(error, log::Error::Unreachable(_)) { Kind::Busy } else { Kind::Data };
    Failure::caused(kind, "cannot read the log", error)
}
