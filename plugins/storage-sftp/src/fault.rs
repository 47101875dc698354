//! What goes wrong, and what the host is told of it.

use crate::bindings::antiphon::plugin::objects::{Error, Kind};

/// The most of a server's own words that is passed on.
const WORDS_BYTES_MAX: usize = 200;

/// What a server answers when it did not do it.
pub(crate) mod code {
    pub(crate) const OK: u32 = 0;
    pub(crate) const EOF: u32 = 1;
    pub(crate) const NO_SUCH_FILE: u32 = 2;
    pub(crate) const PERMISSION_DENIED: u32 = 3;
    pub(crate) const FAILURE: u32 = 4;
    pub(crate) const NO_CONNECTION: u32 = 6;
    pub(crate) const CONNECTION_LOST: u32 = 7;
    pub(crate) const UNSUPPORTED: u32 = 8;
    // Of later versions; some servers say them all the same.
    pub(crate) const EXISTS: u32 = 11;
    pub(crate) const WRITE_PROTECT: u32 = 12;
    pub(crate) const NO_SPACE: u32 = 14;
    pub(crate) const QUOTA: u32 = 15;
}

/// Why there is no answer, or none that helps.
pub(crate) enum Fault {
    /// The channel is gone, or was never there.
    Broken(Error),
    /// What came is not SFTP.
    Nonsense(String),
    /// The server did not do it.
    Status { code: u32, words: String },
}

impl Fault {
    pub(crate) fn nonsense(why: impl Into<String>) -> Self {
        Self::Nonsense(why.into())
    }

    pub(crate) fn status(code: u32, words: &[u8]) -> Self {
        let words = words.get(..WORDS_BYTES_MAX).unwrap_or(words);
        Self::Status { code, words: String::from_utf8_lossy(words).into_owned() }
    }

    /// Whether nothing more can be asked on this channel.
    pub(crate) fn ends_it(&self) -> bool {
        match self {
            Self::Broken(_) | Self::Nonsense(_) => true,
            Self::Status { code, .. } => [code::NO_CONNECTION, code::CONNECTION_LOST].contains(code),
        }
    }

    pub(crate) fn is(&self, wanted: u32) -> bool {
        matches!(self, Self::Status { code, .. } if *code == wanted)
    }

    /// What the host is told. Its kind decides whether it tries again.
    pub(crate) fn told(self, what: &str, which: &str) -> Error {
        let (kind, why) = match self {
            Self::Broken(error) => return error,
            Self::Nonsense(why) => (Kind::Permanent, format!("what the server says is not SFTP: {why}")),
            Self::Status { code, words } => {
                let (kind, usual) = match code {
                    code::NO_SUCH_FILE => (Kind::NotFound, "there is no such file"),
                    code::PERMISSION_DENIED => (Kind::Denied, "the server does not allow it"),
                    code::WRITE_PROTECT => (Kind::Denied, "the server's disk may not be written"),
                    code::EXISTS => (Kind::Exists, "there is one already"),
                    code::NO_SPACE => (Kind::Temporary, "no space is left on the server"),
                    code::QUOTA => (Kind::Temporary, "the server allows no more space"),
                    code::NO_CONNECTION | code::CONNECTION_LOST => (Kind::Temporary, "the server lost its connection"),
                    code::UNSUPPORTED => (Kind::Unsupported, "the server can't do it"),
                    // It is all that OpenSSH says of a full disk, among other things.
                    _ => (Kind::Temporary, "the server failed at it"),
                };
                let words = words.trim();
                (kind, if words.is_empty() { usual.to_owned() } else { format!("{usual} ({words})") })
            }
        };
        Error { kind, message: format!("cannot {what} {which}: {why}"), retry_after_ms: None }
    }
}
