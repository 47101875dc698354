//! What a component of the user's own starts from: the folders of `examples/`, with another name.
//!
//! So whatever is written here was built and tried as an example.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// What a component is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Who wins when two nodes changed one row
    Resolver,
    /// Which shard a row goes to
    Hasher,
    /// Where snapshots are kept
    Storage,
}

/// What it is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// Built with cargo
    Rust,
    /// Built with componentize-py
    Python,
    /// Built with jco
    #[value(name = "javascript", alias = "js")]
    JavaScript,
}

impl Kind {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Resolver => "resolver",
            Self::Hasher => "hasher",
            Self::Storage => "storage",
        }
    }

    /// The files of `wit/` that describe its world.
    fn wit(self) -> &'static [File] {
        match self {
            Self::Resolver => &[TYPES, METADATA, LOG, ("wit/conflict.wit", include_str!("../../wit/conflict.wit"))],
            Self::Hasher => &[TYPES, METADATA, LOG, ("wit/hash.wit", include_str!("../../wit/hash.wit"))],
            // Its worlds lend each other's interfaces, and stand in one file.
            Self::Storage => &[
                TYPES,
                METADATA,
                LOG,
                ("wit/storage.wit", include_str!("../../wit/storage.wit")),
                ("wit/nats.wit", include_str!("../../wit/nats.wit")),
                ("wit/ssh.wit", include_str!("../../wit/ssh.wit")),
            ],
        }
    }
}

impl Language {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Python => "Python",
            Self::JavaScript => "JavaScript",
        }
    }
}

/// A path within the folder, and what stands there.
type File = (&'static str, &'static str);

const TYPES: File = ("wit/types.wit", include_str!("../../wit/types.wit"));
const METADATA: File = ("wit/metadata.wit", include_str!("../../wit/metadata.wit"));
const LOG: File = ("wit/log.wit", include_str!("../../wit/log.wit"));

/// What building and running leaves behind.
const IGNORED: File = (".gitignore", "*.wasm\n.antiphon/\n__pycache__/\nlog/\nnode_modules/\ntarget/\n");

/// The page about all examples; how to go on is the same for each.
const PAGE: &str = include_str!("../../examples/README.md");

/// An example.
#[derive(Debug)]
pub struct Template {
    /// What it is called where it stands.
    pub name: &'static str,
    /// Its folder in `examples/`.
    pub folder: &'static str,
    /// What it is asked.
    pub kind: Kind,
    /// What it is written in.
    pub language: Language,
    files: &'static [File],
}

macro_rules! template {
    ($folder:literal, $name:literal, $kind:ident, $language:ident, [$($path:literal),*]) => {
        Template {
            name: $name,
            folder: $folder,
            kind: Kind::$kind,
            language: Language::$language,
            files: &[$(($path, include_str!(concat!("../../examples/", $folder, "/", $path)))),*],
        }
    };
}

/// Every example.
pub const ALL: &[Template] = &[
    template!(
        "resolver-rust",
        "furthest-status",
        Resolver,
        Rust,
        ["README.md", "Cargo.toml", "src/lib.rs", "cases/orders.toml", "cases/tickets.toml", "antiphon.toml"]
    ),
    template!(
        "resolver-python",
        "merged-tags",
        Resolver,
        Python,
        ["README.md", "pyproject.toml", "resolver.py", "cases/products.toml", "antiphon.toml"]
    ),
    template!(
        "resolver-javascript",
        "longest-text",
        Resolver,
        JavaScript,
        ["README.md", "package.json", "resolver.js", "cases/notes.toml", "cases/all-texts.toml", "antiphon.toml"]
    ),
    template!(
        "hasher-rust",
        "by-tenant",
        Hasher,
        Rust,
        ["README.md", "Cargo.toml", "src/lib.rs", "cases/orders.toml", "antiphon.toml"]
    ),
    template!(
        "hasher-python",
        "by-tenant",
        Hasher,
        Python,
        ["README.md", "pyproject.toml", "hasher.py", "cases/orders.toml", "antiphon.toml"]
    ),
    template!(
        "hasher-javascript",
        "by-tenant",
        Hasher,
        JavaScript,
        ["README.md", "package.json", "hasher.js", "cases/orders.toml", "antiphon.toml"]
    ),
    template!(
        "storage-rust",
        "shelf-store",
        Storage,
        Rust,
        ["README.md", "Cargo.toml", "src/lib.rs", "server.rs", "antiphon.toml"]
    ),
    template!(
        "storage-python",
        "web-shelf",
        Storage,
        Python,
        ["README.md", "pyproject.toml", "storage.py", "server.py", "antiphon.toml"]
    ),
    template!(
        "storage-javascript",
        "memory-store",
        Storage,
        JavaScript,
        ["README.md", "package.json", "storage.js", "antiphon.toml"]
    ),
];

impl Template {
    /// The example of this kind in this language.
    #[must_use]
    pub fn of(kind: Kind, language: Language) -> Option<&'static Self> {
        ALL.iter().find(|template| template.kind == kind && template.language == language)
    }

    /// The files of a component called `name`: their paths within its folder, and their texts.
    pub fn files(&self, name: &str) -> impl Iterator<Item = (&'static str, String)> {
        let own = self.files.iter().map(move |&(path, text)| {
            let text = text.replace(self.name, name);
            (path, if path == "README.md" { format!("{text}\n{}", how_to_go_on(name)) } else { text })
        });
        let common = self.kind.wit().iter().chain([&IGNORED]).map(|&(path, text)| (path, text.to_owned()));
        own.chain(common)
    }

    /// Writes them into a folder, which must not be there yet.
    ///
    /// # Errors
    /// When the folder is there, or can't be written.
    pub fn write(&self, name: &str, folder: &Path) -> io::Result<()> {
        fs::create_dir(folder)?;
        for (path, text) in self.files(name) {
            let path = folder.join(path);
            if let Some(above) = path.parent() {
                fs::create_dir_all(above)?;
            }
            OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())?;
        }
        Ok(())
    }
}

/// The end of the page about all examples, for one of them.
fn how_to_go_on(name: &str) -> String {
    let at = PAGE.rfind("\n## ").map_or(0, |at| at + 1);
    PAGE.get(at..).unwrap_or_default().replace("NAME", name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    fn examples() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
    }

    /// A file that somebody adds to an example and forgets here would be missing in what users get.
    #[test]
    fn nothing_of_an_example_is_left_out() {
        for template in ALL {
            let folder = examples().join(template.folder);
            let listed: BTreeSet<PathBuf> = template.files.iter().map(|(path, _)| PathBuf::from(path)).collect();
            let mut found = BTreeSet::new();
            let mut folders = vec![folder.clone()];
            while let Some(above) = folders.pop() {
                for entry in fs::read_dir(above).unwrap() {
                    let path = entry.unwrap().path();
                    let name = path.file_name().unwrap().to_str().unwrap();
                    // What was built there by hand.
                    let made = ["target", "node_modules", "__pycache__", "Cargo.lock", "log"].contains(&name);
                    if made || name.starts_with('.') || name.ends_with(".wasm") || name == "wit" {
                        continue;
                    }
                    if path.is_dir() {
                        folders.push(path);
                    } else {
                        found.insert(path.strip_prefix(&folder).unwrap().to_path_buf());
                    }
                }
            }
            assert_eq!(found, listed, "{}", template.folder);
        }
    }

    #[test]
    fn there_is_one_of_each_kind_in_each_language() {
        for kind in [Kind::Resolver, Kind::Hasher, Kind::Storage] {
            for language in [Language::Rust, Language::Python, Language::JavaScript] {
                assert!(Template::of(kind, language).is_some(), "{kind:?} {language:?}");
            }
        }
        assert_eq!(ALL.len(), 9);
    }

    #[test]
    fn nothing_is_left_of_the_examples_name() {
        for template in ALL {
            for (path, text) in template.files("x-y") {
                assert!(!text.contains(template.name), "{} of {}", path, template.folder);
                let text = text.replace("CARGO_PKG_NAME", "");
                assert!(!text.contains("NAME"), "{} of {}", path, template.folder);
            }
        }
    }
}
