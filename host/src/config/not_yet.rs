//! Keys that are understood and without effect in this version.
//!
//! A configuration file from elsewhere goes on working, and its owner learns which parts of it do nothing yet. When a
//! part is built, its line here goes, and nothing else.

use std::fmt;

use figment::value::Value;

use super::keys::Leaf;

/// A key or a whole table, the value at which this version does what it says (none: there is no such value), and
/// what it will do.
struct NotYet {
    path: &'static str,
    fine: Option<&'static str>,
    what: &'static str,
}

const fn not_yet(path: &'static str, fine: Option<&'static str>, what: &'static str) -> NotYet {
    NotYet { path, fine, what }
}

/// The first entry that covers a key holds.
const NOT_YET: &[NotYet] = &[not_yet("replication_log.max_entries", None, "no entry is dropped")];

/// Keys that were set and have no effect in this version, for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The keys, as whole paths.
    pub keys: Vec<String>,
    /// What happens instead, or will happen.
    pub what: &'static str,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, key) in self.keys.iter().enumerate() {
            write!(f, "{}`{key}`", if position == 0 { "" } else { ", " })?;
        }
        let has = if self.keys.len() == 1 { "has" } else { "have" };
        write!(f, " {has} no effect in this version: {}", self.what)
    }
}

/// One notice a reason, in the order of the table.
pub(super) fn notices(leaves: &[Leaf]) -> Vec<Notice> {
    let mut notices: Vec<Notice> = Vec::new();
    for entry in NOT_YET {
        let keys: Vec<String> = leaves
            .iter()
            .filter(|leaf| {
                NOT_YET.iter().find(|entry| covers(entry.path, &leaf.pattern)).is_some_and(|e| e.path == entry.path)
            })
            .filter(|leaf| entry.fine.is_none_or(|fine| plain(&leaf.value) != fine))
            .map(|leaf| leaf.shown.clone())
            .collect();
        match notices.last_mut().filter(|last| last.what == entry.what) {
            Some(last) => last.keys.extend(keys),
            None => notices.push(Notice { keys, what: entry.what }),
        }
    }
    notices.retain(|notice| !notice.keys.is_empty());
    notices
}

fn covers(path: &str, key: &str) -> bool {
    key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.clone(),
        Value::Char(_, char) => char.to_string(),
        Value::Bool(_, flag) => flag.to_string(),
        Value::Num(_, number) => number.to_i128().map(|number| number.to_string()).unwrap_or_default(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::SECTIONS;
    use super::*;

    #[test]
    fn every_entry_names_a_key_or_a_table() {
        let known: Vec<String> =
            SECTIONS.iter().flat_map(|section| section.keys).map(super::super::section::Key::path).collect();
        for entry in NOT_YET {
            assert!(known.iter().any(|key| covers(entry.path, key)), "{}", entry.path);
        }
    }
}
