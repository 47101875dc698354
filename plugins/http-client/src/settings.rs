//! Settings, each asked for by its name once; what is left then is a mistake.

use crate::{Error, Kind, Settings};

/// Settings that have not been asked for yet.
pub struct Given(Settings);

impl Given {
    /// What was set.
    pub fn new(settings: Settings) -> Self {
        Self(settings)
    }

    /// A setting, if there is one of that name with something in it.
    pub fn text(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(found, _)| found == name)?;
        Some(self.0.remove(at).1).filter(|value| !value.is_empty())
    }

    /// A setting that is `true` or `false`.
    pub fn flag(&mut self, name: &str) -> Result<Option<bool>, Error> {
        match self.text(name).as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(refused(format!("`{name}` is `true` or `false`, and not `{other}`"))),
        }
    }

    /// Whether all were asked for.
    pub fn none_left(self, known: &str) -> Result<(), Error> {
        match self.0.first() {
            Some((name, _)) => Err(refused(format!("there is no setting `{name}`; there are {known}"))),
            None => Ok(()),
        }
    }
}

/// A setting is refused.
pub fn refused(message: String) -> Error {
    Error { kind: Kind::Permanent, message, retry_after_ms: None }
}
