//! `antiphon init`: look at a database, and write the configuration that fits it.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::shown::{name, shell};
use crate::config::example;
use crate::failure::{Failure, Kind};
use crate::words::count;

mod survey;

use survey::Survey;

/// Look at a database and write a commented configuration file for it
///
/// The database is only read.
#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// The application's database
    #[arg(value_name = "DB")]
    db: PathBuf,
    /// Where to write the file
    #[arg(long, value_name = "FILE", default_value = "antiphon.toml")]
    output: PathBuf,
    /// Write over a file that is there already
    #[arg(long)]
    force: bool,
}

impl Init {
    pub(super) fn run(self) -> Result<(), Failure> {
        let survey = Survey::of(&self.db)?;
        if !self.force && self.output.symlink_metadata().is_ok() {
            return Err(self.taken());
        }
        let text = example::file(&self.db_path()?, Some(&capture(&survey)));
        self.write(&text)?;

        let mut out = io::stdout().lock();
        let found = count(survey.tables.len() as u64, "table", "tables");
        let taken = survey.tables.iter().filter(|table| table.obstacle.is_none()).count();
        let output = self.output.display();
        writeln!(out, "wrote `{output}`: {taken} of {found} will be replicated")?;
        for table in &survey.tables {
            if let Some(obstacle) = &table.obstacle {
                writeln!(out, "left out: `{}`, because {obstacle}", name(&table.name))?;
            }
        }
        writeln!(out, "next: `antiphon run --config {}`", shell(&self.output))?;
        Ok(out.flush()?)
    }

    /// The database as the file has to name it, which is read relative to the file.
    fn db_path(&self) -> Result<String, Failure> {
        let beside = self.output.parent().is_none_or(|folder| folder.as_os_str().is_empty());
        let path = if beside || self.db.is_absolute() {
            self.db.clone()
        } else {
            self.db.canonicalize().map_err(|error| {
                Failure::caused(Kind::Missing, format!("cannot find `{}`", self.db.display()), &error)
            })?
        };
        path.into_os_string().into_string().map_err(|path| {
            Failure::config(format!("the path `{}` is not UTF-8, and a TOML file can hold no other", path.display()))
                .hint("do without a file: `antiphon run DB` takes any path")
        })
    }

    fn write(&self, text: &str) -> Result<(), Failure> {
        let folder = self.output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let failed = |error: &io::Error| {
            // The name of the file aside says nothing to the user.
            let error = error.to_string();
            let error = error.split(" at path ").next().unwrap_or_default();
            Failure::new(Kind::General, format!("cannot write `{}`: {error}", self.output.display()))
                .hint("name a folder that is there, and that this user may write to, with `--output FILE`")
        };
        // Aside and renamed, so that nobody reads half a file. Such a file is its owner's alone (0600): passwords may
        // be written into it.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| failed(&error))?;
        file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(|error| failed(&error))?;
        if self.force {
            file.persist(&self.output).map_err(|error| failed(&error.error))?;
            return Ok(());
        }
        match file.persist_noclobber(&self.output) {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(self.taken()),
            Err(error) => Err(failed(&error.error)),
        }
    }

    fn taken(&self) -> Failure {
        Failure::new(Kind::General, format!("`{}` is there already", self.output.display()))
            .hint("write over it with `--force`, or write elsewhere with `--output FILE`")
    }
}

/// What was found, as comments, and the key `exclude`.
fn capture(survey: &Survey) -> String {
    let mut text = String::from("# Found in the database:\n");
    for table in &survey.tables {
        let mut line = format!("`{}`", name(&table.name));
        if !table.key.is_empty() {
            let key: Vec<String> = table.key.iter().map(|column| name(column)).collect();
            let _ = write!(line, ", primary key ({})", key.join(", "));
        }
        if table.uniques > 0 {
            line.push_str(", UNIQUE besides its key: all of it goes to one shard");
        }
        let _ = writeln!(text, "#   table {line}");
    }
    for (kind, other) in &survey.others {
        let _ = writeln!(text, "#   {kind} `{}`, never replicated", name(other));
    }
    let left_out: Vec<_> =
        survey.tables.iter().filter_map(|table| Some((&table.name, table.obstacle.as_ref()?))).collect();
    if left_out.is_empty() {
        text.push_str("#exclude = []\n");
        return text;
    }
    text.push_str("exclude = [\n");
    for (name, obstacle) in left_out {
        let _ = writeln!(text, "    {}, # {obstacle}", example::quoted(&globset::escape(name)));
    }
    text.push_str("]\n");
    text
}
