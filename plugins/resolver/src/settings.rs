//! What settings resolvers have: none, or one list of names.

use crate::Settings;

/// The schema of the settings of a resolver that has none.
pub const NO_SETTINGS: &str = r#"{ "type": "object", "additionalProperties": false }"#;

/// Refuses any setting.
pub fn none(resolver: &str, settings: &Settings) -> Result<(), String> {
    match settings.first() {
        Some((name, _)) => Err(format!("there is no setting `{name}`: {resolver} has none")),
        None => Ok(()),
    }
}

/// The names in the one setting of a resolver: joined by commas, with or without spaces around them.
pub fn names(resolver: &str, setting: &str, settings: &Settings) -> Result<Vec<String>, String> {
    if let Some((name, _)) = settings.iter().find(|(name, _)| name != setting) {
        return Err(format!("there is no setting `{name}`: {resolver} has only `{setting}`"));
    }
    let list = match settings.as_slice() {
        [] => return Err(format!("the setting `{setting}` is missing, and {resolver} can't do without it")),
        [(_, list)] => list,
        _ => return Err(format!("the setting `{setting}` is given twice")),
    };
    let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().any(String::is_empty) {
        return Err(format!("the setting `{setting}` holds an empty name: `{list}`"));
    }
    Ok(names)
}
