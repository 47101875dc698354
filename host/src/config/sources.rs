//! Where settings come from: the file, the environment, the flags; and who said what.
//!
//! Nothing is judged here but the syntax. The environment is a value that is passed in, so that a test needs no
//! variables of its own process.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider, Source};

use super::Config;
use super::keys::{self, Place};
use super::secret::Url;
use super::section::Kind;
use crate::failure::{self, Failure};

/// What every variable that is a setting starts with.
const PREFIX: &str = "ANTIPHON_";

/// The variable that says what the flag `--dev` does.
pub const DEV: &str = "ANTIPHON_DEV";

/// Variables with the prefix that are no settings: the filter of log lines, and in tests the point to die at.
const NO_SETTINGS: &[&str] = &[
    "ANTIPHON_LOG",
    DEV,
    #[cfg(feature = "testing")]
    crate::flaw::testing::DIE_AT,
];

/// Everything a configuration is made of; what comes later in this list wins.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Variables: `ANTIPHON_REPLICATION_LOG__SHARDS=4`.
    pub environment: Environment,
    /// Flags.
    pub overrides: Overrides,
}

/// The settings that flags can make.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The application's database.
    pub db_path: Option<PathBuf>,
    /// The number of this node; 0 says nothing, as with HarmonyLite's flag.
    pub node_id: Option<u64>,
    /// The embedded log's directory.
    pub log_path: Option<PathBuf>,
    /// Where the server that is started reaches others of its cluster; empty, as with HarmonyLite's flag, says nothing.
    pub cluster_addr: Option<String>,
    /// Where it reaches them.
    pub cluster_peers: Vec<String>,
}

impl Overrides {
    pub(super) fn apply(self, config: &mut Config) {
        if let Some(path) = self.db_path {
            config.db_path = path;
        }
        if let Some(id) = self.node_id.filter(|&id| id != 0) {
            config.node_id = id;
        }
        if let Some(path) = self.log_path {
            config.log.path = path;
        }
        if let Some(address) = self.cluster_addr.filter(|address| !address.is_empty()) {
            config.nats.cluster_addr = address;
            config.nats.start_server = true;
        }
        let peers: Vec<Url> = self.cluster_peers.into_iter().filter(|peer| !peer.is_empty()).map(Url::from).collect();
        if !peers.is_empty() {
            config.nats.cluster_peers = peers;
            config.nats.start_server = true;
        }
    }
}

/// The variables that are settings, by name.
#[derive(Clone, Default)]
pub struct Environment(Vec<(String, OsString)>);

/// Names only: a value may be a password.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Environment {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::of(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))))
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those among `variables`.
    pub fn of<N: Into<String>, V: Into<OsString>>(variables: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut settings: Vec<(String, OsString)> = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .filter(|(name, _)| name.starts_with(PREFIX) && !NO_SETTINGS.contains(&name.as_str()))
            .collect();
        // The order of the environment is nobody's choice; messages should not depend on it.
        settings.sort();
        Self(settings)
    }
}

/// The path of a key as the variable's name: `log.path` is `ANTIPHON_LOG__PATH`.
pub(super) fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.to_ascii_uppercase().replace('.', "__"))
}

/// Who said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    File(PathBuf),
    Variable(String),
}

/// What file and environment say, merged, each value with its origin.
pub(super) struct Given {
    figment: Figment,
    merged: Value,
}

impl Given {
    pub(super) fn read(file: Option<&Path>, environment: &Environment) -> Result<Self, Failure> {
        let mut figment = Figment::new();
        if let Some(path) = file {
            figment = figment.merge(read_file(path)?);
        }
        for (name, value) in &environment.0 {
            figment = figment.merge(read_variable(name, value)?);
        }
        let merged = figment.find_value("").map_err(|error| internal(&error))?;
        Ok(Self { figment, merged })
    }

    pub(super) fn value(&self) -> &Value {
        &self.merged
    }

    pub(super) fn origin(&self, tag: Tag) -> Option<Origin> {
        let metadata = self.figment.get_metadata(tag)?;
        Some(match &metadata.source {
            Some(Source::File(path)) => Origin::File(path.clone()),
            _ => Origin::Variable(metadata.name.to_string()),
        })
    }

    /// The typed configuration. Names, types and ranges were checked before; what fails here was overlooked there,
    /// and is reported without the value, which may be a secret.
    pub(super) fn extract(&self) -> Result<Config, Failure> {
        self.figment.extract().map_err(|error| internal(&error))
    }
}

fn internal(error: &figment::Error) -> Failure {
    Failure::config(format!("cannot make sense of `{}` in the configuration", error.path.join(".")))
}

/// Settings with one origin.
struct Part {
    metadata: Metadata,
    settings: Dict,
}

impl Provider for Part {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.settings.clone()))
    }
}

fn read_file(path: &Path) -> Result<Part, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let failure =
            Failure::caused(failure::Kind::Config, format!("cannot read the configuration `{shown}`"), &error);
        if error.kind() != std::io::ErrorKind::NotFound {
            return failure;
        }
        failure.hint("write one with `antiphon init app.db`, where `app.db` is the application's database")
    })?;
    if let Ok(file) = path.metadata() {
        crate::privacy::check_file(path, &file)?;
    }
    let mut table: toml::Table = toml::from_str(&text).map_err(|error| {
        // The parser's own text quotes the line, and with it whatever password stands there.
        let (line, column) = position(&text, error.span().map_or(0, |span| span.start));
        let what = error.message().replace('\n', ", ");
        Failure::config(format!("`{shown}` is not TOML: line {line}, column {column}: {what}"))
            .hint("see how it is written with `antiphon config example`")
    })?;
    rebase(&mut table, path.parent().unwrap_or(Path::new("")), &mut Vec::new());
    let value = Value::serialize(&table).map_err(|error| internal(&error))?;
    let settings = value.into_dict().unwrap_or_default();
    Ok(Part { metadata: Metadata::from("file", path), settings })
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before.chars().count() - before.get(..start).map_or(0, |t| t.chars().count()) + 1,
    )
}

/// Makes relative paths in the file relative to the file's folder.
fn rebase(table: &mut toml::Table, folder: &Path, at: &mut Vec<String>) {
    for (name, value) in table.iter_mut() {
        at.push(name.clone());
        match (keys::place(at), value) {
            (Place::Key(key), toml::Value::String(text)) if key.kind == Kind::Path && !text.is_empty() => {
                *text = under(folder, text);
            }
            (Place::Key(key), toml::Value::String(text)) if key.path() == "plugin.*.source" => {
                if let Some(path) = text.strip_prefix("file:") {
                    *text = format!("file:{}", under(folder, path));
                }
            }
            (Place::Table, toml::Value::Table(inner)) => rebase(inner, folder, at),
            _ => {}
        }
        at.pop();
    }
}

fn under(folder: &Path, path: &str) -> String {
    // A folder that is not UTF-8 can't be joined to a text; then the path stays as the user wrote it.
    folder.join(path).into_os_string().into_string().unwrap_or_else(|_| path.to_owned())
}

fn read_variable(name: &str, value: &std::ffi::OsStr) -> Result<Part, Failure> {
    let text =
        value.to_str().ok_or_else(|| Failure::config(format!("the environment variable `{name}` is not UTF-8")))?;
    let path: Vec<String> =
        name.trim_start_matches(PREFIX).to_ascii_lowercase().split("__").map(str::to_owned).collect();
    let kind = match keys::place(&path) {
        Place::Key(key) => Some(key.kind),
        Place::InFree => Some(Kind::Text), // a plugin gets texts in any case; `007` must stay what it is
        _ => None,
    };
    let mut value = match kind {
        // A password may be all digits: what must be a text is not parsed.
        Some(Kind::Text | Kind::Secret | Kind::Path) => Value::from(text),
        Some(Kind::List) => Value::from(list(text)),
        Some(Kind::Flag | Kind::Integer { .. } | Kind::Size | Kind::Free) | None => parse(text),
    };
    for segment in path.iter().rev() {
        value = Value::from(Map::from([(segment.as_str(), value)]));
    }
    Ok(Part { metadata: Metadata::named(name.to_owned()), settings: value.into_dict().unwrap_or_default() })
}

fn parse(text: &str) -> Value {
    match text.parse() {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

/// `[a, b]`, or just `a, b`.
fn list(text: &str) -> Vec<String> {
    if text.trim_start().starts_with('[')
        && let Ok(toml::Value::Array(items)) = text.parse::<toml::Value>()
        && let Some(items) = items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
    {
        return items;
    }
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    inner.split(',').map(|item| item.trim().trim_matches('"').to_owned()).filter(|item| !item.is_empty()).collect()
}
