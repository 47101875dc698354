//! What `xxh3` is told.

use crate::bindings::exports::antiphon::plugin::rowhash::Settings;

/// What can be told.
pub const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {
    "seed": { "type": "string", "pattern": "^[0-9]+$", "description": "a whole number; another one spreads keys otherwise" },
    "columns": { "type": "string", "description": "names of key columns joined by commas: rows alike in them share a shard" }
  },
  "additionalProperties": false
}"#;

/// The settings, read.
pub struct Chosen {
    pub seed: u64,
    /// Columns that keep rows together.
    pub columns: Vec<String>,
}

impl Chosen {
    pub fn read(settings: &Settings) -> Result<Self, String> {
        let (mut seed, mut columns) = (None, None);
        for (name, value) in settings {
            let again = match name.as_str() {
                "seed" => seed.replace(number(value)?).is_some(),
                "columns" => columns.replace(names(value)?).is_some(),
                _ => return Err(format!("there is no setting `{name}`: xxh3 has `seed` and `columns`")),
            };
            if again {
                return Err(format!("the setting `{name}` is given twice"));
            }
        }
        Ok(Self { seed: seed.unwrap_or_default(), columns: columns.unwrap_or_default() })
    }
}

fn number(value: &str) -> Result<u64, String> {
    // Rust would take a sign as well.
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    value
        .parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| format!("the setting `seed` is `{value}`, and it is a whole number from 0 to {}", u64::MAX))
}

fn names(list: &str) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    for name in list.split(',').map(str::trim) {
        if name.is_empty() {
            return Err(format!("the setting `columns` holds an empty name: `{list}`"));
        }
        if names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return Err(format!("the setting `columns` names `{name}` twice"));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}
