//! `antiphon plugin pin`: writes down which bytes a configuration means.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use antiphon_plugin::{Origin, sha256};
use toml_edit::{DocumentMut, Item, TableLike, Value};

use super::subject::{configuration, configured, host, load, unusable};
use crate::custom;
use crate::failure::{Failure, Kind};

/// Pin a component: write the sha256 of its file into the configuration
///
/// The file that `[plugin.NAME]` names is looked at as `antiphon plugin inspect` does, and refused if it is no component
/// that can be used. Nothing else in the configuration changes. Every node of the cluster needs the same bytes.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Pin {
    /// The NAME of a `[plugin.NAME]`
    #[arg(value_name = "NAME")]
    name: String,
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "antiphon.toml")]
    config: PathBuf,
}

impl Pin {
    pub(in crate::cli) fn run(self) -> Result<(), Failure> {
        let Self { name, config: file } = self;
        let config = configuration(&file)?;
        let Some(plugin) = config.plugin.get(&name) else {
            let known: Vec<String> = config.plugin.keys().map(|name| format!("`{name}`")).collect();
            let failure = Failure::config(format!("there is no `[plugin.{name}]` in `{}`", file.display()));
            return Err(match known.as_slice() {
                [] => failure.hint(format!("add one, with `source = \"file:{name}.wasm\"`")),
                known => failure.hint(format!("it has {}", known.join(", "))),
            });
        };
        let limits = custom::limits(&plugin.limits);
        let source = configured(&name, &plugin.source, &limits)?;
        if source.origin == Origin::Official {
            return Err(Failure::config(format!(
                "`plugin.{name}` is `{}`, which comes with the program",
                plugin.source
            ))
            .hint("only a component of your own is pinned"));
        }
        let host = host()?;
        let anatomy = host.examine(&source, &limits).map_err(|error| unusable(&error))?;
        if let Some(reason) = &anatomy.unfit {
            return Err(Failure::new(Kind::Data, format!("`{name}` can't be used ({}): {reason}", source.origin)));
        }
        if let Some(world) = anatomy.world.filter(|world| world.is_pure()) {
            load(&host, &source, &[], &limits, world).map_err(|error| unusable(&error))?;
        }
        let new = sha256(&source.bytes);
        let old = write(&file, &name, &new)?;
        let mut out = io::stdout().lock();
        match old {
            Some(old) if old == new => writeln!(out, "`plugin.{name}` is pinned already: {new}")?,
            Some(old) => {
                writeln!(out, "`plugin.{name}.sha256` in `{}`\n  was  {old}\n  is   {new}", file.display())?;
            }
            None => writeln!(out, "`plugin.{name}.sha256` in `{}`\n  is   {new}", file.display())?,
        }
        Ok(out.flush()?)
    }
}

/// Writes the digest into the file and gives what stood there.
fn write(file: &Path, name: &str, digest: &str) -> Result<Option<String>, Failure> {
    let failed = |error: io::Error| {
        Failure::caused(Kind::Missing, format!("cannot change the configuration `{}`", file.display()), &error)
    };
    // A link stays one: what it leads to is replaced.
    let target = fs::canonicalize(file).map_err(failed)?;
    let text = fs::read_to_string(&target).map_err(failed)?;
    let (changed, old) = pinned(&text, name, digest)
        .map_err(|why| Failure::config(format!("cannot change the configuration `{}`: {why}", file.display())))?;
    if old.as_deref() == Some(digest) {
        return Ok(old);
    }
    let folder = target.parent().unwrap_or(Path::new("."));
    let mut aside = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    aside.write_all(changed.as_bytes()).map_err(failed)?;
    let permissions = fs::metadata(&target).map_err(failed)?.permissions();
    aside.as_file().set_permissions(permissions).map_err(failed)?;
    aside.as_file().sync_all().map_err(failed)?;
    aside.persist(&target).map_err(|error| failed(error.error))?;
    Ok(old)
}

/// The text with the digest in it, and the digest that it had.
fn pinned(text: &str, name: &str, digest: &str) -> Result<(String, Option<String>), String> {
    let mut document: DocumentMut = text.parse().map_err(|_| "it is not TOML".to_owned())?;
    let plugin: Option<&mut dyn TableLike> = document
        .get_mut("plugin")
        .and_then(Item::as_table_like_mut)
        .and_then(|plugins| plugins.get_mut(name))
        .and_then(Item::as_table_like_mut);
    // The environment can name a plugin as well, and has no file to change.
    let plugin = plugin.ok_or_else(|| format!("`[plugin.{name}]` does not stand in this file"))?;
    let old = plugin.get("sha256").and_then(Item::as_str).filter(|old| !old.is_empty()).map(str::to_owned);
    match plugin.get_mut("sha256").and_then(Item::as_value_mut) {
        Some(value) => {
            let mut new = Value::from(digest);
            // Spaces and comments around it are the user's.
            *new.decor_mut() = value.decor().clone();
            *value = new;
        }
        None => {
            plugin.insert("sha256", toml_edit::value(digest));
        }
    }
    Ok((document.to_string(), old))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str, old: Option<&str>) {
        let (changed, found) = pinned(text, "mine", "abc").unwrap();
        assert_eq!(changed, expected);
        assert_eq!(found.as_deref(), old);
    }

    #[test]
    fn nothing_else_changes() {
        check(
            "# mine\n[plugin.mine] # here\nsource   =  'file:a.wasm' # the file\n\n[plugin.mine.settings]\na = 1\n",
            "# mine\n[plugin.mine] # here\nsource   =  'file:a.wasm' # the file\nsha256 = \"abc\"\n\n[plugin.mine.settings]\na = 1\n",
            None,
        );
        check(
            "[plugin.mine]\nsha256 =  'old'  # pinned in May\nsource = 'file:a.wasm'\n",
            "[plugin.mine]\nsha256 =  \"abc\"  # pinned in May\nsource = 'file:a.wasm'\n",
            Some("old"),
        );
        check("plugin.mine.source = 'file:a'\n", "plugin.mine.source = 'file:a'\nplugin.mine.sha256 = \"abc\"\n", None);
        check(
            "[plugin]\nmine = { source = 'file:a' }\n",
            "[plugin]\nmine = { source = 'file:a' , sha256 = \"abc\" }\n",
            None,
        );
    }

    #[test]
    fn a_plugin_of_the_environment_has_no_file() {
        assert!(pinned("[plugin.other]\nsource = 'file:a'\n", "mine", "abc").is_err());
    }
}
