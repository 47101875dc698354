//! A component's folder: what is in it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Kind as Failed};
use crate::template::{Kind, Language};

/// A component's folder, understood.
#[derive(Debug)]
pub(super) struct Project {
    /// Where it is.
    pub(super) folder: PathBuf,
    /// What the component is called.
    pub(super) name: String,
    /// What it is written in.
    pub(super) language: Language,
    /// The file to begin with, without its ending, and the world it is for. Rust's sources say both themselves.
    pub(super) entry: Option<Entry>,
}

/// Where a script begins.
#[derive(Debug)]
pub(super) struct Entry {
    /// The name of its file, without the ending.
    pub(super) stem: &'static str,
    /// The world it is for.
    pub(super) world: String,
}

/// The file that names a component, by language.
const MANIFESTS: [(&str, Language); 3] =
    [("Cargo.toml", Language::Rust), ("pyproject.toml", Language::Python), ("package.json", Language::JavaScript)];

impl Project {
    /// What is in `folder`; `world` is the user's word on it.
    pub(super) fn find(folder: &Path, world: Option<String>) -> Result<Self, Failure> {
        let found: Vec<_> = MANIFESTS.iter().filter(|(manifest, _)| folder.join(manifest).is_file()).collect();
        let (manifest, language) = match found.as_slice() {
            [(manifest, language)] => (*manifest, *language),
            [] => {
                return Err(Failure::new(Failed::Missing, format!("there is no component in `{}`", folder.display()))
                    .hint("run it in a folder with a Cargo.toml, a pyproject.toml or a package.json; `antiphon plugin new` writes one"));
            }
            _ => {
                return Err(Failure::new(Failed::General, "this folder is of two languages")
                    .hint("leave one of Cargo.toml, pyproject.toml and package.json in it"));
            }
        };
        let (name, own_world) = named(&folder.join(manifest), language)?;
        let given = world.is_some();
        let world = world.or(own_world);
        let entry = match language {
            Language::Rust if given => {
                return Err(Failure::usage("a component in Rust says its world in its source")
                    .hint("change `world` in `wit_bindgen::generate!`"));
            }
            Language::Rust => None,
            Language::Python => Some(entry(folder, "py", world)?),
            Language::JavaScript => Some(entry(folder, "js", world)?),
        };
        Ok(Self { folder: folder.to_path_buf(), name, language, entry })
    }
}

/// The name in a manifest, and the world if it says that: `[tool.antiphon] world`, or `antiphon.world` in JSON.
fn named(manifest: &Path, language: Language) -> Result<(String, Option<String>), Failure> {
    let failed = |why: &str| {
        let file = manifest.file_name().unwrap_or_default().display().to_string();
        Failure::new(Failed::Data, format!("cannot read `{file}`: {why}"))
    };
    let text = fs::read_to_string(manifest).map_err(|error| failed(&error.to_string()))?;
    let table: toml::Table = match language {
        Language::JavaScript => serde_json::from_str(&text).map_err(|error| failed(&error.to_string()))?,
        _ => toml::from_str(&text).map_err(|error| {
            let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or_default();
            failed(&format!("line {}: {}", before.matches('\n').count() + 1, error.message().replace('\n', ", ")))
        })?,
    };
    let section = match language {
        Language::Rust => table.get("package").and_then(toml::Value::as_table),
        Language::Python => table.get("project").and_then(toml::Value::as_table),
        Language::JavaScript => Some(&table),
    };
    let name = section.and_then(|section| section.get("name")).and_then(toml::Value::as_str).unwrap_or_default();
    // It becomes that of a file.
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if name.is_empty() || !name.bytes().all(good) {
        return Err(failed("it has no name, or one that is no plain word"));
    }
    let tools =
        if language == Language::Python { table.get("tool").and_then(toml::Value::as_table) } else { Some(&table) };
    let world = tools.and_then(|tools| tools.get("antiphon")?.get("world")?.as_str());
    Ok((name.to_owned(), world.map(str::to_owned)))
}

/// The file a script begins with: it is called as its kind.
fn entry(folder: &Path, ending: &str, world: Option<String>) -> Result<Entry, Failure> {
    let found: Vec<_> = [Kind::Resolver, Kind::Hasher, Kind::Storage]
        .into_iter()
        .filter(|kind| folder.join(format!("{}.{ending}", kind.word())).is_file())
        .collect();
    let &[kind] = found.as_slice() else {
        return Err(Failure::new(Failed::Missing, "it can't be seen what this component is asked").hint(format!(
            "its source is called `resolver.{ending}`, `hasher.{ending}` or `storage.{ending}`, and there is one of these"
        )));
    };
    let world = world.unwrap_or_else(|| match kind {
        Kind::Storage => "storage-file".to_owned(),
        kind => kind.word().to_owned(),
    });
    Ok(Entry { stem: kind.word(), world })
}
