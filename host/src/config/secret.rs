//! Values that must not be seen: they print and serialise as `***`, and only [`Secret::reveal`] gives them away.
//!
//! Redaction sits in the types, so that no log line, `Debug` or `config show` has to remember it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// What stands for a value that is not shown.
const HIDDEN: &str = "***";

/// A password, key or token.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the one place that sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Nothing was set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value, be it here or where this says that it stands: `${file:PATH}`, `${env:NAME}`.
    ///
    /// # Errors
    /// When it can't be had from there.
    pub fn resolve(&self) -> Result<String, String> {
        let Some(place) = self.0.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
            return Ok(self.0.clone());
        };
        match place.split_once(':') {
            Some(("file", path)) => std::fs::read_to_string(path)
                .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
                .map_err(|error| format!("cannot read `{path}`: {error}")),
            Some(("env", name)) => std::env::var(name).map_err(|_| format!("the variable `{name}` is not set")),
            _ => Err(format!(
                "`${{{place}}}` names neither a file, as `${{file:PATH}}`, nor a variable, as `${{env:NAME}}`"
            )),
        }
    }

    fn shown(&self) -> &'static str {
        if self.is_empty() { "" } else { HIDDEN }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

/// An address that may carry a user name, a password or a token.
///
/// Shown without its user part, and without the query's values: HarmonyLite's WebDAV address carries `secret=` there.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Url(String);

impl From<String> for Url {
    fn from(address: String) -> Self {
        Self(address)
    }
}

impl Url {
    /// The address with all its secrets, for the one place that connects.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Nothing was set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_secrets(&self.0))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `scheme://user:password@host/path?a=b` as `scheme://***@host/path?a=***`.
pub(super) fn without_secrets(address: &str) -> String {
    let (body, query) = match address.split_once('?') {
        Some((body, query)) => (body, Some(query)),
        None => (address, None),
    };
    let (scheme, rest) = match body.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), body),
    };
    // The user part ends at the last `@`: a password may hold one, and may hold a `/` too if nobody escaped it.
    let mut shown = match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}{HIDDEN}@{host}"),
        None => format!("{scheme}{rest}"),
    };
    for (position, pair) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        shown.push(if position == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name, "")) => shown.push_str(&format!("{name}=")),
            Some((name, _)) => shown.push_str(&format!("{name}={HIDDEN}")),
            None => shown.push_str(HIDDEN),
        }
    }
    shown
}

/// A plugin's own table. The host passes it on; only the plugin knows its keys.
///
/// A value whose name speaks of a secret, a password, a key or a token is not shown, unless it only says where the
/// secret is, as `${file:/run/secrets/s3}` does.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Settings(BTreeMap<String, toml::Value>);

impl Settings {
    /// Nothing was set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The settings as a plugin gets them, secrets included: texts as they are, anything else as TOML writes it.
    #[must_use]
    pub fn reveal(&self) -> Vec<(String, String)> {
        self.0
            .iter()
            .map(|(name, value)| match value {
                toml::Value::String(text) => (name.clone(), text.clone()),
                other => (name.clone(), other.to_string()),
            })
            .collect()
    }

    /// What is set.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The setting of this name, if it is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    fn shown(&self) -> BTreeMap<&String, toml::Value> {
        self.0.iter().map(|(name, value)| (name, shown(name, value))).collect()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shown(), f)
    }
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.shown().serialize(serializer)
    }
}

fn shown(name: &str, value: &toml::Value) -> toml::Value {
    match value {
        toml::Value::Table(table) => {
            toml::Value::Table(table.iter().map(|(inner, value)| (inner.clone(), shown(inner, value))).collect())
        }
        toml::Value::String(text) if text.starts_with("${") && text.ends_with('}') => value.clone(),
        _ if speaks_of_a_secret(name) => toml::Value::String(HIDDEN.to_owned()),
        toml::Value::Array(items) => toml::Value::Array(items.iter().map(|item| shown(name, item)).collect()),
        toml::Value::String(text) if text.contains("://") => toml::Value::String(without_secrets(text)),
        _ => value.clone(),
    }
}

pub(crate) fn speaks_of_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["secret", "password", "passwd", "passphrase", "key", "token", "credential"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(address: &str, shown: &str) {
        assert_eq!(Url(address.into()).to_string(), shown);
    }

    #[test]
    fn a_plain_address_is_shown() {
        url("nats://n1.example.org:4222", "nats://n1.example.org:4222");
    }

    #[test]
    fn user_and_password_are_not() {
        url("nats://bob:s3cr@t/x@n1:4222/a", "nats://***@n1:4222/a");
        url("bob:pw@n1:4222", "***@n1:4222");
    }

    #[test]
    fn nor_is_what_the_query_says() {
        url("https://dav/?dir=&login=bob&secret=x&y", "https://dav/?dir=&login=***&secret=***&***");
    }

    #[test]
    fn a_secret_prints_as_stars() {
        let secret = Secret("hunter2".into());
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
        assert_eq!(format!("{:?}", Secret::default()), "");
    }

    #[test]
    fn a_secret_may_stand_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "s3cret\n").unwrap();
        let resolve = |text: &str| Secret(text.to_owned()).resolve();
        assert_eq!(resolve("plain ${x}").as_deref(), Ok("plain ${x}"));
        assert_eq!(resolve(&format!("${{file:{}}}", file.display())).as_deref(), Ok("s3cret"));
        assert!(resolve("${file:/nowhere}").unwrap_err().starts_with("cannot read `/nowhere`"));
        assert!(resolve("${env:ANTIPHON_NO_SUCH}").unwrap_err().ends_with("is not set"));
        assert!(resolve("${vault:x}").is_err());
    }

    #[test]
    fn settings_hide_what_is_named_like_a_secret() {
        let settings: Settings = toml::from_str(
            "endpoint = 'https://u:p@s3'\nsecret_key = 'x'\nfrom = '${file:/a}'\ntoken = '${file:/t}'\nretries = 3\n\
             [auth]\nPassword = 'y'\nuser = 'z'",
        )
        .unwrap();
        insta::assert_snapshot!(toml::to_string(&settings).unwrap(), @r#"
        endpoint = "https://***@s3"
        from = "${file:/a}"
        retries = 3
        secret_key = "***"
        token = "${file:/t}"

        [auth]
        Password = "***"
        user = "z"
        "#);
        assert!(!format!("{settings:?}").contains("'x'"));
        assert!(settings.reveal().contains(&("retries".into(), "3".into())));
    }
}
