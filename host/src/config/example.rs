//! The commented configuration file, made from the declarations of the tables.
//!
//! Each key stands there with its default behind a `#` without a space; prose has a space. So taking those `#` away
//! leaves a file that says what holds anyway.

use std::fmt::Write;

use super::SECTIONS;
use super::section::{Key, Kind, Section};

const HEAD: &str = "\
# Configuration of Antiphon.
#
# Take the `#` in front of a key away to set it. What stands there is its default.
# Relative paths are relative to this file.
# Each key can come from the environment instead: ANTIPHON_REPLICATION_LOG__SHARDS=4.
";

/// The whole file, for the database at `db_path`, with `excluded` as lines that follow the key `exclude`.
#[must_use]
pub fn file(db_path: &str, excluded: Option<&str>) -> String {
    let mut text = HEAD.to_owned();
    for section in SECTIONS {
        text.push('\n');
        if section.path.is_empty() {
            top(&mut text, section, db_path);
        } else if section.path.contains(['*', '[']) {
            sample(&mut text, section);
        } else {
            prose(&mut text, section.about);
            let _ = writeln!(text, "[{}]", section.path);
            for key in section.keys {
                prose(&mut text, key.about);
                match excluded {
                    Some(lines) if key.path() == "capture.exclude" => text.push_str(lines),
                    _ => preset(&mut text, section, key),
                }
            }
        }
    }
    text
}

fn top(text: &mut String, section: &Section, db_path: &str) {
    for key in section.keys {
        prose(text, key.about);
        if key.name() == "db_path" {
            let _ = writeln!(text, "db_path = {}", quoted(db_path));
        } else {
            preset(text, section, key);
        }
    }
}

fn preset(text: &mut String, section: &Section, key: &Key) {
    // Every default can be written down: a test compares the file with the types.
    if let Some(default) = (section.defaults)().get(key.name()) {
        let _ = writeln!(text, "#{} = {default}", key.name());
    }
}

/// A table with a name of the user's own, or one of a list, has no default to show: all of it is prose.
fn sample(text: &mut String, section: &Section) {
    prose(text, section.about);
    let header = match section.path.strip_suffix("[]") {
        Some(path) => format!("[[{path}]]"),
        None => format!("[{}]", section.path.replace('*', "NAME")),
    };
    let _ = writeln!(text, "#     {header}");
    for key in section.keys {
        for line in key.about {
            let _ = writeln!(text, "#     # {}", line.trim());
        }
        let value = match key.kind {
            Kind::Free => "{}".to_owned(),
            _ => (section.defaults)().get(key.name()).map(ToString::to_string).unwrap_or_default(),
        };
        let _ = writeln!(text, "#     {} = {value}", key.name());
    }
}

fn prose(text: &mut String, lines: &[&str]) {
    for line in lines {
        let _ = writeln!(text, "# {}", line.trim());
    }
}

/// A text as TOML writes it, whatever is in it.
#[must_use]
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn uncommented() -> String {
        let text = file("", None);
        let keys = text.lines().filter_map(|line| match line.strip_prefix('#') {
            None => Some(line),
            Some(rest) if rest.starts_with(|first: char| first.is_ascii_alphabetic()) => Some(rest),
            Some(_) => None,
        });
        keys.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn without_its_comment_signs_it_says_the_defaults() {
        let config: Config = toml::from_str(&uncommented()).unwrap();
        assert_eq!(config, Config::default());
    }

    #[test]
    fn as_it_is_it_says_the_defaults_too() {
        let config: Config = toml::from_str(&file("", None)).unwrap();
        assert_eq!(config, Config::default());
    }

    #[test]
    fn every_key_stands_in_it_with_its_words() {
        let text = file("app.db", None);
        for key in SECTIONS.iter().flat_map(|section| section.keys) {
            assert!(text.contains(&format!("{} = ", key.name())), "{}", key.path());
            assert!(!key.about.is_empty(), "{} has no words", key.path());
        }
    }

    /// The declarations name exactly the fields serde knows.
    #[test]
    fn the_declarations_are_the_types() {
        let config = Config {
            conflict: toml::from_str("[[table]]").unwrap(),
            plugin: [("x".to_owned(), toml::from_str("").unwrap())].into(),
            ..Config::default()
        };
        let mut found = Vec::new();
        paths(&toml::Value::try_from(config).unwrap(), String::new(), &mut found);
        found.sort();
        let mut declared: Vec<String> = SECTIONS.iter().flat_map(|section| section.keys).map(Key::path).collect();
        declared.sort();
        let shown: Vec<String> =
            declared.iter().map(|path| path.replace("plugin.*", "plugin.x").replace("[]", "")).collect();
        assert_eq!(found, shown);
    }

    fn paths(value: &toml::Value, at: String, found: &mut Vec<String>) {
        match value {
            toml::Value::Table(table) if !at.ends_with("settings") => {
                for (name, inner) in table {
                    let below = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                    paths(inner, below, found);
                }
            }
            toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
                for item in items {
                    paths(item, at.clone(), found);
                }
            }
            _ => found.push(at),
        }
    }

    #[test]
    fn a_path_with_quotes_survives() {
        let path = "it's \"a\" \\ b\n.db";
        let config: Config = toml::from_str(&file(path, None)).unwrap();
        assert_eq!(config.db_path.to_str(), Some(path));
    }
}
