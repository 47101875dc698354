//! Names and types: which keys there are, whether what was given is one of them and of its type, and which one was
//! meant if not.

use figment::value::{Num, Tag, Value};

use super::SECTIONS;
use super::section::{Key, Kind, Section, join};
use super::size::Size;
use super::sources::{Given, Origin, variable};
use crate::failure::Failure;
use crate::words::closest;

/// Names that HarmonyLite's documentation has and its program does not, with what to say here instead.
const DOCUMENTED: &[(&str, &str)] = &[
    ("sharding.ignore_tables", "capture.exclude"),
    ("nats.tls_ca_file", "nats.ca_file"),
    ("nats.tls_cert_file", "nats.cert_file"),
    ("nats.tls_key_file", "nats.key_file"),
];

/// What a path leads to. Parts of a path are names; `[]` after a name stands for an element of a list.
pub(super) enum Place {
    Table,
    /// A list of tables.
    Tables,
    Key(&'static Key),
    /// Within a table whose keys are somebody else's.
    InFree,
    Unknown,
}

/// A setting that somebody made.
#[derive(Debug)]
pub(super) struct Leaf {
    /// With `*` and `[]`: `plugin.*.source`.
    pub(super) pattern: String,
    /// As the user knows it: `plugin.backup.source`.
    pub(super) shown: String,
    pub(super) origin: Option<Origin>,
}

/// Looks up what `path` leads to.
pub(super) fn place(path: &[String]) -> Place {
    for section in SECTIONS {
        let parts = parts(section);
        if agree(&parts, path) {
            return Place::Table;
        }
        for key in section.keys {
            let mut whole = parts.clone();
            whole.push(key.name());
            if agree(&whole, path) {
                return Place::Key(key);
            }
            if key.kind == Kind::Free && path.len() > whole.len() && begins(path, &whole) {
                return Place::InFree;
            }
        }
    }
    for section in SECTIONS {
        let parts = parts(section);
        if let Some((last, before)) = parts.split_last()
            && let Some((name, above)) = path.split_last()
            && last.strip_suffix("[]") == Some(name)
            && agree(before, above)
        {
            return Place::Tables;
        }
    }
    // `plugin` has no keys of its own, but `plugin.*` has.
    if SECTIONS.iter().any(|section| begins_with(&parts(section), path)) { Place::Table } else { Place::Unknown }
}

fn parts(section: &Section) -> Vec<&'static str> {
    section.path.split('.').filter(|part| !part.is_empty()).collect()
}

fn agree(parts: &[&str], path: &[String]) -> bool {
    parts.len() == path.len() && begins(path, parts)
}

/// `path` starts with `parts`.
fn begins(path: &[String], parts: &[&str]) -> bool {
    path.len() >= parts.len() && parts.iter().zip(path).all(|(part, name)| *part == "*" || part == name)
}

/// `parts` starts with `path`.
fn begins_with(parts: &[&str], path: &[String]) -> bool {
    parts.len() >= path.len() && parts.iter().zip(path).all(|(part, name)| *part == "*" || part == name)
}

/// Checks every name and type that was given.
pub(super) fn check(given: &Given) -> Result<Vec<Leaf>, Failure> {
    let mut walk = Walk { given, leaves: Vec::new() };
    walk.visit(given.value(), &[], "")?;
    Ok(walk.leaves)
}

struct Walk<'a> {
    given: &'a Given,
    leaves: Vec<Leaf>,
}

impl Walk<'_> {
    fn visit(&mut self, value: &Value, path: &[String], shown: &str) -> Result<(), Failure> {
        match (place(path), value) {
            (Place::Table, Value::Dict(_, table)) => {
                for (name, inner) in table {
                    let mut below = path.to_vec();
                    below.push(name.clone());
                    self.visit(inner, &below, &join(shown, name))?;
                }
                Ok(())
            }
            (Place::Tables, Value::Array(_, items)) => {
                let mut below = path.to_vec();
                if let Some(last) = below.last_mut() {
                    last.push_str("[]");
                }
                for (position, item) in items.iter().enumerate() {
                    self.visit(item, &below, &format!("{shown}[{position}]"))?;
                }
                Ok(())
            }
            (Place::Table, other) => Err(self.wrong(other, path, shown, "a table", &show(other))),
            (Place::Tables, other) => Err(self.wrong(other, path, shown, "a list of tables", &show(other))),
            (Place::Key(key), value) => {
                if let Err(fault) = fits(key.kind, value) {
                    return Err(self.wrong(fault.value, path, shown, &fault.expected, &fault.found));
                }
                self.leaves.push(Leaf {
                    pattern: key.path(),
                    shown: shown.to_owned(),
                    origin: self.given.origin(leaf_tag(value)),
                });
                Ok(())
            }
            (Place::InFree, _) => Ok(()),
            (Place::Unknown, value) => Err(self.unknown(value, path, shown)),
        }
    }

    fn wrong(&self, value: &Value, path: &[String], shown: &str, expected: &str, found: &str) -> Failure {
        let name = match self.given.origin(leaf_tag(value)) {
            Some(Origin::Variable(name)) => format!("the environment variable `{name}`"),
            Some(Origin::File(file)) => format!("`{shown}` in `{}`", file.display()),
            None => format!("`{shown}`"),
        };
        let failure = Failure::config(format!("{name} must be {expected}, found {found}"));
        match place(path) {
            Place::Key(key) if key.kind == Kind::Flag => failure.hint("write `true` or `false`, without quotes"),
            _ => failure,
        }
    }

    fn unknown(&self, value: &Value, path: &[String], shown: &str) -> Failure {
        // A table nobody knows is named itself if its name is nearly right, else by the first key in it: that one may
        // have only lost its way.
        let table = matches!(value, Value::Dict(..));
        let mut path = path.to_vec();
        let mut shown = shown.to_owned();
        let mut meant = nearest(&path, table);
        let mut inner = value;
        while meant.is_none() {
            let Value::Dict(_, entries) = inner else { break };
            let Some((name, below)) = entries.iter().next() else { break };
            path.push(name.clone());
            shown = join(&shown, name);
            inner = below;
            meant = nearest(&path, matches!(below, Value::Dict(..)));
        }
        let table = matches!(inner, Value::Dict(..));
        match self.given.origin(leaf_tag(value)) {
            Some(Origin::Variable(name)) => {
                let meant = meant.map(|meant| format!("; did you mean `{}`?", variable(&meant))).unwrap_or_default();
                Failure::config(format!("unknown environment variable `{name}`{meant}"))
            }
            origin => {
                let what = if table { "table" } else { "key" };
                let file = match origin {
                    Some(Origin::File(file)) => format!(" in `{}`", file.display()),
                    _ => String::new(),
                };
                let parent = path.split_last().map(|(_, above)| above.join(".")).unwrap_or_default();
                let meant = meant.map(|meant| match meant.rsplit_once('.') {
                    Some((section, name)) if section == parent => format!("; did you mean `{name}`?"),
                    _ => format!("; did you mean `{meant}`?"),
                });
                Failure::config(format!("unknown {what} `{shown}`{file}{}", meant.unwrap_or_default()))
            }
        }
        .hint("see every key with `antiphon config example`")
    }
}

/// Why a value does not fit.
struct Misfit<'a> {
    value: &'a Value,
    expected: String,
    found: String,
}

fn fits(kind: Kind, value: &Value) -> Result<(), Misfit<'_>> {
    let misfit = |value, expected: &str| {
        // A secret is not quoted, not even when it is wrong.
        let found = if kind == Kind::Secret { class(value).to_owned() } else { show(value) };
        Err(Misfit { value, expected: expected.to_owned(), found })
    };
    match (kind, value) {
        (Kind::Flag, Value::Bool(..))
        | (Kind::Text | Kind::Secret | Kind::Path, Value::String(..) | Value::Char(..))
        | (Kind::Free, Value::Dict(..)) => Ok(()),
        (Kind::Size, Value::String(_, text)) if Size::parse(text).is_some() => Ok(()),
        (Kind::Size, Value::Num(_, number)) if whole(number).is_some_and(|bytes| u64::try_from(bytes).is_ok()) => {
            Ok(())
        }
        (Kind::Integer { least, most }, Value::Num(_, number)) => match whole(number) {
            Some(whole) if (least..=most).contains(&whole) => Ok(()),
            Some(_) if most > u32::MAX.into() => misfit(value, &format!("a whole number, at least {least}")),
            Some(_) => misfit(value, &format!("a whole number from {least} to {most}")),
            None => misfit(value, kind.name()),
        },
        (Kind::List, Value::Array(_, items)) => {
            match items.iter().find(|item| !matches!(item, Value::String(..) | Value::Char(..))) {
                Some(item) => misfit(item, kind.name()),
                None => Ok(()),
            }
        }
        _ => misfit(value, kind.name()),
    }
}

fn whole(number: &Num) -> Option<i128> {
    number.to_i128().or_else(|| number.to_u128().and_then(|number| i128::try_from(number).ok()))
}

/// A value as a message quotes it.
fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("the text `{}`", super::secret::without_secrets(text)),
        Value::Char(_, char) => format!("the text `{char}`"),
        Value::Bool(_, flag) => format!("`{flag}`"),
        Value::Num(_, number) => match (number.to_i128(), number.to_u128(), number.to_f64()) {
            (Some(whole), _, _) => format!("the number {whole}"),
            (_, Some(whole), _) => format!("the number {whole}"),
            (_, _, Some(real)) => format!("the number {real}"),
            _ => "a number".to_owned(),
        },
        other => class(other).to_owned(),
    }
}

fn class(value: &Value) -> &'static str {
    match value {
        Value::String(..) | Value::Char(..) => "a text",
        Value::Bool(..) => "true or false",
        Value::Num(..) => "a number",
        Value::Empty(..) => "nothing",
        Value::Dict(..) => "a table",
        Value::Array(..) => "a list",
    }
}

/// The tag of a value that somebody wrote: a table's own tag may be that of another source it was merged with.
fn leaf_tag(value: &Value) -> Tag {
    match value {
        Value::Dict(_, table) => table.values().next().map_or_else(|| value.tag(), leaf_tag),
        _ => value.tag(),
    }
}

/// The known name that was probably meant, as a whole path.
fn nearest(path: &[String], table: bool) -> Option<String> {
    let (name, above) = path.split_last()?;
    let whole = path.join(".");
    if let Some((_, instead)) = DOCUMENTED.iter().find(|(documented, _)| *documented == whole) {
        return Some((*instead).to_owned());
    }
    let parent = above.join(".");
    let siblings = names(above, table);
    let sibling = |name: &str| Some(join(&parent, name));
    if let Some(close) = closest(name, siblings.iter().map(String::as_str)) {
        return sibling(&close);
    }
    if table {
        return siblings.iter().find(|known| known.starts_with(name.as_str())).and_then(|known| sibling(known));
    }
    let keys = || SECTIONS.iter().flat_map(|section| section.keys);
    if let Some(key) = keys().find(|key| key.name() == name && !key.section.contains(['*', '['])) {
        return Some(key.path());
    }
    if let Some(part) = siblings.iter().find(|known| name.contains(known.as_str()) || known.contains(name.as_str())) {
        return sibling(part);
    }
    let paths: Vec<String> = keys().map(Key::path).filter(|path| !path.contains(['*', '['])).collect();
    closest(&whole, paths.iter().map(String::as_str))
}

/// The names that may stand in the table at `path`: of tables, or of keys.
fn names(path: &[String], tables: bool) -> Vec<String> {
    if !tables {
        let here = SECTIONS.iter().find(|section| agree(&parts(section), path));
        return here.into_iter().flat_map(|section| section.keys).map(|key| key.name().to_owned()).collect();
    }
    let mut names: Vec<String> = SECTIONS
        .iter()
        .map(parts)
        .filter(|parts| begins_with(parts, path))
        .filter_map(|parts| parts.get(path.len()).map(|name| name.trim_end_matches("[]").to_owned()))
        .filter(|name| name != "*")
        .collect();
    names.dedup();
    names
}
