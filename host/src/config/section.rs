//! How a table of the configuration is declared: once, with its types, defaults and words.
//!
//! The macro makes the serde type and, from the same lines, the description that the commented example, the list
//! of known keys and the messages use. So they can't say different things.

use std::path::PathBuf;

use super::secret::{Secret, Settings, Url};
use super::size::Size;

/// A table of the configuration file.
pub struct Section {
    /// Where it is: empty for the top level, `snapshot.s3`, `plugin.*` for any name, `conflict.table[]` for a list.
    pub path: &'static str,
    /// What it is for, line by line.
    pub about: &'static [&'static str],
    /// Its keys in the order of reading.
    pub keys: &'static [Key],
    /// The values its keys have when nobody sets them.
    pub defaults: fn() -> toml::Table,
}

/// A key of a [`Section`].
pub struct Key {
    /// The table it belongs to.
    pub section: &'static str,
    raw_name: &'static str,
    /// What it means, line by line.
    pub about: &'static [&'static str],
    /// What may stand there.
    pub kind: Kind,
}

impl Key {
    #[doc(hidden)]
    pub(super) const fn new(
        section: &'static str,
        raw_name: &'static str,
        about: &'static [&'static str],
        kind: Kind,
    ) -> Self {
        Self { section, raw_name, about, kind }
    }

    /// Its name as the file spells it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        // A key named like a Rust keyword is a raw identifier in the declaration.
        self.raw_name.trim_start_matches("r#")
    }

    /// Section and name, joined by a dot.
    #[must_use]
    pub fn path(&self) -> String {
        join(self.section, self.name())
    }
}

/// `section.name`, or `name` at the top level.
pub(super) fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// What may stand at a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number within these bounds.
    Integer {
        /// The smallest.
        least: i128,
        /// The largest.
        most: i128,
    },
    /// An amount of bytes: a number, or a text as `64 MiB`.
    Size,
    /// A text.
    Text,
    /// A text that is never shown.
    Secret,
    /// The path of a file or a folder; from the file, relative to the file.
    Path,
    /// A list of texts.
    List,
    /// A table with whatever keys.
    Free,
}

impl Kind {
    /// The kind as a message names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Flag => "true or false",
            Self::Integer { .. } => "a whole number",
            Self::Size => "an amount of bytes, as `\"64 MiB\"`",
            Self::Text | Self::Secret => "a text",
            Self::Path => "a path",
            Self::List => "a list of texts",
            Self::Free => "a table",
        }
    }
}

/// A type that may stand at a key.
pub(super) trait Setting {
    const KIND: Kind;
}

macro_rules! settings {
    ($($type:ty => $kind:expr,)*) => { $(impl Setting for $type { const KIND: Kind = $kind; })* };
}
settings! {
    bool => Kind::Flag,
    i32 => Kind::Integer { least: i32::MIN as i128, most: i32::MAX as i128 },
    u32 => Kind::Integer { least: 0, most: u32::MAX as i128 },
    u64 => Kind::Integer { least: 0, most: u64::MAX as i128 },
    Size => Kind::Size,
    String => Kind::Text,
    Url => Kind::Text,
    Secret => Kind::Secret,
    PathBuf => Kind::Path,
    Vec<String> => Kind::List,
    Vec<Url> => Kind::List,
    Settings => Kind::Free,
}

/// Declares a table: the doc comments are the reference, the values are the defaults.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        $name:ident at $path:literal {
            $( $(#[doc = $doc:literal])* $key:ident: $type:ty = $default:expr, )*
        }
        $( tables { $( $(#[doc = $table_doc:literal])* $table:ident: $inner:ty, )* } )?
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $( $(#[doc = $doc])* pub $key: $type, )*
            $( $( $(#[doc = $table_doc])* pub $table: $inner, )* )?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $( $key: $default, )*
                    $( $( $table: Default::default(), )* )?
                }
            }
        }

        impl $name {
            pub(super) const SECTION: $crate::config::section::Section = $crate::config::section::Section {
                path: $path,
                about: &[$($about),*],
                keys: &[$(
                    $crate::config::section::Key::new(
                        $path,
                        stringify!($key),
                        &[$($doc),*],
                        <$type as $crate::config::section::Setting>::KIND,
                    ),
                )*],
                defaults: || toml::Table::try_from(Self::default()).unwrap_or_default(),
            };
        }
    };
}
pub(super) use section;
