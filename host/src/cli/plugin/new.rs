//! `antiphon plugin new`: a folder to start a component from.

use std::io::{self, Write};
use std::path::Path;

use crate::cli::shown;
use crate::failure::{Failure, Kind as Failed};
use crate::template::{Kind, Language, Template};

/// Write a component to start from: its source, cases to try it with, and what it says to the host
///
/// It works as it is. Nothing is fetched, and nothing that is there is written over.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct New {
    /// What it is called, and its folder: lower-case letters, digits and hyphens
    #[arg(value_name = "NAME")]
    name: String,
    /// What it is asked
    #[arg(long, value_enum)]
    kind: Kind,
    /// What it is written in
    #[arg(long, value_enum)]
    lang: Language,
}

/// As long as a name in a configuration may be.
const NAME_BYTES_MAX: usize = 64;

impl New {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { name, kind, lang } = self;
        check_name(&name)?;
        let template = Template::of(kind, lang).ok_or_else(|| Failure::usage("there is no such template"))?;
        template.write(&name, Path::new(&name)).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::new(Failed::General, format!("`{name}` is there already"))
                .hint("choose another name; nothing is ever written over"),
            _ => Failure::caused(Failed::General, format!("cannot write `{name}`"), &error),
        })?;

        let mut out = io::stdout().lock();
        writeln!(out, "wrote `{name}`: a {} in {}, as `{}` in the examples", kind.word(), lang.name(), template.name)?;
        writeln!(out, "next: `cd {name}`, `antiphon plugin build`; its README.md says how to go on")?;
        Ok(out.flush()?)
    }
}

/// A name that can be a folder, a crate, a package, and a key of the configuration.
fn check_name(name: &str) -> Result<(), Failure> {
    let letter = name.starts_with(|char: char| char.is_ascii_lowercase());
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if letter && name.bytes().all(word) && !name.ends_with('-') && name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(Failure::usage(format!("`{}` can't be the name of a component", shown::name(name)))
        .hint("a name is lower-case letters, digits and hyphens, and begins with a letter: `my-policy`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_everywhere() {
        for name in ["a", "my-policy", "x2"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "-a", "2x", "a-", "A", "a_b", "a/b", "..", "a b", "é", &"a".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
