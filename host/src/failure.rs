//! What went wrong, as the user reads it: a sentence, its causes, and the next step.
//!
//! Kinds and hints are attached here, once, at the edge of the program; the parts below have errors of their
//! own that know nothing of exit codes. Nothing is logged here: a failure ends the command, and stderr is where
//! the user looks.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// What kind of thing went wrong. It decides the exit code, so that scripts can tell the kinds apart.
///
/// The codes from 64 on are those of `sysexits.h` where one fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
#[repr(u8)]
pub enum Kind {
    /// Whoever read our output has gone, as `head` does. That is success: exit code 0, and nothing is said.
    ReaderGone = 0,
    /// Anything without a code of its own.
    General = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// What was asked about is not well. The answer itself went to stdout, so nothing more is said.
    Unwell = 3,
    /// There is no such point in time, or nothing leads to it.
    NoSuchPoint = 4,
    /// A storage can't be reached.
    Unreachable = 5,
    /// It would do harm: rows would be lost, or two nodes come apart.
    Refused = 6,
    /// What was read is not what was put there. Its exit code is that of [`Kind::Unwell`], and it is said why.
    Unverified = 7,
    /// The configuration is wrong, be it in the file, the environment or a flag.
    Config = 64,
    /// A database or a log is damaged, or two of them differ that must agree.
    Data = 65,
    /// A file that must exist does not, or can't be read.
    Missing = 66,
    /// It is not part of this version.
    NotBuilt = 69,
    /// Something else holds what we need; trying again later can help.
    Busy = 75,
}

/// The end of a command that did not work out.
///
/// The message is one lower-case clause without full stop, made to be joined with its causes by `: `. A hint is a
/// sentence of its own that says what to do, with the command or the setting in backticks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    kind: Kind,
    message: String,
    hints: Vec<String>,
    /// The log is not the one that was applied: a snapshot may lead on.
    lost_log: bool,
}

impl Failure {
    /// A failure of any kind.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hints: Vec::new(), lost_log: false }
    }

    /// The configuration is wrong.
    #[must_use]
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(Kind::Config, message)
    }

    /// The command line makes no sense.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// What was being done fell over `cause`, and so did `cause` over its own causes.
    #[must_use]
    pub fn caused(kind: Kind, message: impl Into<String>, cause: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = message.into();
        let mut next = Some(cause);
        while let Some(error) = next {
            let sentence = error.to_string();
            // Some errors say their cause themselves; once is enough.
            if !text.ends_with(&sentence) {
                text.push_str(": ");
                text.push_str(&sentence);
            }
            next = error.source();
        }
        Self::new(kind, text)
    }

    /// The same, of another kind.
    #[must_use]
    pub fn of_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// What the user can do about it. Several hints are several ways.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same, before what was said already.
    #[must_use]
    pub fn hint_first(mut self, hint: impl Into<String>) -> Self {
        self.hints.insert(0, hint.into());
        self
    }

    /// Puts what was being done in front of the message.
    #[must_use]
    pub fn context(mut self, attempted: impl fmt::Display) -> Self {
        self.message = format!("{attempted}: {}", self.message);
        self
    }

    /// The log is not the one that was applied.
    #[must_use]
    pub(crate) fn of_a_lost_log(mut self) -> Self {
        self.lost_log = true;
        self
    }

    /// Whether the log is not the one that was applied, so that a snapshot may lead on.
    #[must_use]
    pub(crate) fn is_of_a_lost_log(&self) -> bool {
        self.lost_log
    }

    /// The kind, and with it the exit code.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What the user can do, most useful first.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Says it on stderr and gives the exit code.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        if !matches!(self.kind, Kind::ReaderGone | Kind::Unwell) {
            // If stderr is gone as well there is nobody left to tell; the exit code still says it.
            let _ = self.write(&mut io::stderr().lock());
        }
        ExitCode::from(match self.kind {
            Kind::Unverified => Kind::Unwell as u8,
            kind => kind as u8,
        })
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "error: {}", self.message)?;
        for (position, hint) in self.hints.iter().enumerate() {
            if position == 0 {
                writeln!(out)?;
            }
            writeln!(out, "hint: {hint}")?;
        }
        out.flush()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Writing to stdout failed.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Kind::ReaderGone, "nobody reads the output"),
            _ => Self::new(Kind::General, error.to_string()),
        }
    }
}

/// A failure that passed through `anyhow` keeps its kind and hints; the contexts added on the way come first.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let message = format!("{error:#}");
        let known = error.downcast_ref::<Self>().or_else(|| error.chain().find_map(|cause| cause.downcast_ref()));
        match known {
            Some(failure) => Self { message, ..failure.clone() },
            None => Self::new(Kind::General, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(failure: &Failure) -> String {
        let mut out = Vec::new();
        failure.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hints_follow_after_one_blank_line() {
        let failure = Failure::config("no database").hint("name it with `db_path`").hint("or run `antiphon init`");
        assert_eq!(
            text(&failure),
            "error: no database\n\nhint: name it with `db_path`\nhint: or run `antiphon init`\n"
        );
    }

    #[test]
    fn without_hints_it_is_one_line() {
        assert_eq!(text(&Failure::usage("bad flag")), "error: bad flag\n");
    }

    #[test]
    fn causes_are_joined() {
        let cause = io::Error::from(io::ErrorKind::NotFound);
        let failure = Failure::caused(Kind::Missing, "cannot read `a.toml`", &cause);
        assert_eq!(failure.to_string(), "cannot read `a.toml`: entity not found");
    }

    #[test]
    fn anyhow_keeps_kind_and_hints() {
        let inner = Failure::new(Kind::Busy, "another host runs on `app.db`").hint("stop it");
        let outer = anyhow::Error::new(inner).context("cannot start");
        let failure = Failure::from(outer);
        assert_eq!(failure.kind(), Kind::Busy);
        assert_eq!(failure.hints(), ["stop it"]);
        assert_eq!(failure.to_string(), "cannot start: another host runs on `app.db`");
    }

    #[test]
    fn a_closed_pipe_is_success() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.kind() as u8, 0);
    }
}
