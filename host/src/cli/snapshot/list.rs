//! `antiphon snapshot list`: which there are.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use super::point::Seqs;
use super::{Shown, ShownMarks, Source};
use crate::cli::json_line;
use crate::cli::shown::{bytes, moment, utc};
use crate::failure::Failure;
use crate::snapshot::{Listed, places};

/// List snapshots, the newest first: name, time, rows, size, and where each stands in the log
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct List {
    /// Only those with this tag
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Only those made at this time or later: a date as 2026-11-21T12:00, or an age as 12h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<u64>,
    /// Only those made at this time or earlier
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<u64>,
    /// Only those that stand at this place in the log or later: `1:200,2:180` by shard, or one number where there is one
    #[arg(long, value_name = "S:N")]
    from_seq: Option<Seqs>,
    /// Only those that stand at this place in the log or earlier
    #[arg(long, value_name = "S:N")]
    to_seq: Option<Seqs>,
    /// Which points in time can be reached, shard by shard, and which can't
    #[arg(long, conflicts_with_all = ["tag", "since", "until", "from_seq", "to_seq"])]
    pitr: bool,
    #[command(flatten)]
    source: Source,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) fn run(self) -> Result<(), Failure> {
        let found = self.source.open()?;
        if self.pitr {
            return super::pitr::run(&found, self.json);
        }
        let Listed { snapshots, damaged } = found.repo().all()?;
        let mut out = io::stdout().lock();
        for (manifest, marks) in &snapshots {
            let at = |shard: &u32| manifest.positions.get(shard).map_or(0, |at| at.seq);
            let wanted = |seqs: &Option<Seqs>, argument: &str| match seqs {
                Some(seqs) => seqs.among(manifest.positions.len(), argument),
                None => Ok(BTreeMap::new()),
            };
            let (from, to) = (wanted(&self.from_seq, "--from-seq")?, wanted(&self.to_seq, "--to-seq")?);
            let is_meant = from.iter().all(|(shard, seq)| at(shard) >= *seq)
                && to.iter().all(|(shard, seq)| at(shard) <= *seq)
                && self.tag.as_ref().is_none_or(|tag| marks.note.tags.contains(tag))
                && self.since.is_none_or(|since| manifest.created_ms >= since)
                && self.until.is_none_or(|until| manifest.created_ms <= until);
            if !is_meant {
                continue;
            }
            let marks = ShownMarks::of(marks);
            let said = marks.words();
            let shown = Shown { marks: Some(marks), ..Shown::of(manifest) };
            if self.json {
                json_line(&mut out, &shown)?;
                continue;
            }
            let holds = if manifest.is_full() {
                format!("{:>10} rows  {:>10}", shown.rows, bytes(shown.bytes))
            } else {
                format!("{:>27}", "what changed")
            };
            let (id, at) = (&shown.id, utc(shown.created_ms));
            let line = format!("{id}  {at}  {holds}  {}  {said}", places(&manifest.positions));
            writeln!(out, "{}", line.trim_end())?;
        }
        out.flush()?;
        for (id, failure) in damaged {
            writeln!(io::stderr().lock(), "{id} does not count: {failure}")?;
        }
        Ok(())
    }
}
