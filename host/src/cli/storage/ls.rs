//! `antiphon storage ls`: what is kept.

use std::io::{self, BufWriter, Write};

use antiphon_core::store::{LIST_MAX, Name, Object, Store as _, is_prefix};
use serde::Serialize;

use super::Which;
use crate::cli::json_line;
use crate::cli::shown::utc;
use crate::failure::Failure;
use crate::storage::failure;

/// List objects in the order of their names: size, time, name
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Ls {
    /// Only those whose names begin with this
    #[arg(value_name = "PREFIX", default_value = "", value_parser = prefix)]
    prefix: String,
    #[command(flatten)]
    which: Which,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

fn prefix(text: &str) -> Result<String, String> {
    if is_prefix(text) { Ok(text.to_owned()) } else { Err("no name begins like that".to_owned()) }
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    size: u64,
    modified_ms: Option<u64>,
    etag: Option<&'a str>,
}

impl Ls {
    pub(super) fn run(self) -> Result<(), Failure> {
        let opened = self.which.open()?;
        let mut out = BufWriter::new(io::stdout().lock());
        let mut after: Option<Name> = None;
        loop {
            let page = opened.store.list(&self.prefix, after.as_ref(), LIST_MAX).map_err(|error| failure(&error))?;
            for object in &page {
                if self.json { json_line(&mut out, &line(object))? } else { write(&mut out, object)? }
            }
            if page.len() < LIST_MAX as usize {
                return Ok(out.flush()?);
            }
            after = page.last().map(|last| last.name.clone());
        }
    }
}

fn line(object: &Object) -> Line<'_> {
    Line {
        name: object.name.as_str(),
        size: object.size,
        modified_ms: object.modified_ms,
        etag: object.etag.as_deref(),
    }
}

fn write(out: &mut impl Write, object: &Object) -> io::Result<()> {
    let time = object.modified_ms.map(utc).unwrap_or_default();
    writeln!(out, "{:>12}  {time:24}  {}", object.size, object.name)
}
