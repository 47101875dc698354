//! Opening what is only looked at, with words for what can be wrong with it.

use std::path::Path;

use crate::db::{self, Look};
use crate::failure::{Failure, Kind};
use crate::log;
use crate::node::Carrier;

/// Opens a database for reading alone.
pub(super) fn database(path: &Path) -> Result<Look, Failure> {
    crate::unread::file(path)?;
    Look::open(path).map_err(|error| unread(path, &error))
}

/// What was wrong with a database that was being read.
pub(super) fn unread(path: &Path, error: &db::Error) -> Failure {
    crate::unread::by_db(path, error)
}

/// No host ever ran on this file.
pub(super) fn never_ran(path: &Path) -> Failure {
    Failure::new(Kind::Missing, format!("`{}` was never replicated: nothing of Antiphon's is in it", path.display()))
        .hint("start with `antiphon run`; `antiphon doctor` looks at the file before")
}

/// Opens the log of a directory for reading alone.
pub(super) fn log(carrier: &Carrier) -> Result<log::Look, Failure> {
    carrier.look().map_err(|error| unread_log(&error))?.ok_or_else(|| {
        Failure::new(Kind::Missing, format!("there is no log in `{carrier}`"))
            .hint("name its directory with `--log DIR`, as `antiphon run` was given it")
    })
}

/// What was wrong with a log that was being read.
pub(super) fn unread_log(error: &log::Error) -> Failure {
    let kind = if matches!(error, log::Error::Unreachable(_)) { Kind::Busy } else { Kind::Data };
    Failure::caused(kind, "cannot read the log", error)
}
