//! Errors that waiting does not mend, in words for the user.

use crate::db;
use crate::failure::{Failure, Kind};
use crate::{publish, subscribe};

/// The log can't be had, or is not what this node knows of it.
pub(crate) fn lost_log(text: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::caused(Kind::Data, text, error)
        .hint("the rows of the database are safe; bring the log back as it was, its directory or its streams, or name the right one")
        .hint(
            "if the log is lost: stop all nodes, `antiphon cleanup` each database, remove the log's directory or streams, and \
             `antiphon run` the one with the latest rows first; the others follow it, with `antiphon join` where rows differ",
        )
}

/// Whether trying again in this process is in vain.
pub(super) fn is_lasting_db(error: &db::Error) -> bool {
    // SQLite's refusals can end without a restart: a lock, a full disk, a read-only file. The others can't.
    matches!(error, db::Error::Closed | db::Error::Damaged(_) | db::Error::Inconsistent(_) | db::Error::Replaced(_))
}

/// The database's part of it can't go on.
pub(super) fn unable(text: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    if let Some(db::Error::Replaced(_)) = [
        error.downcast_ref::<publish::Error>().and_then(of_publisher),
        error.downcast_ref::<subscribe::Error>().and_then(of_subscriber),
    ]
    .into_iter()
    .flatten()
    .next()
    {
        return Failure::caused(Kind::Data, text, error)
            .hint("nothing of the other file was sent; `antiphon run` looks at it and says how it can go on");
    }
    Failure::caused(Kind::General, text, error)
        .hint("start again; if it ends the same way, `antiphon cleanup` makes the file a database like any other, which can join anew")
}

fn of_publisher(error: &publish::Error) -> Option<&db::Error> {
    if let publish::Error::Db(error) = error { Some(error) } else { None }
}

fn of_subscriber(error: &subscribe::Error) -> Option<&db::Error> {
    if let subscribe::Error::Db(error) = error { Some(error) } else { None }
}

/// An error and its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
