//! `antiphon snapshot forget`: snapshots that are to go.

use std::io::{self, Write as _};

use serde::Serialize;

use super::{Source, snapshot};
use crate::cli::json_line;
use crate::cli::shown::{moment, utc};
use crate::failure::{Failure, Kind};
use crate::snapshot::{Grace, Listed, kept};
use antiphon_core::snapshot::id::SnapshotId;
use antiphon_core::snapshot::keep::{Reason, Wish, sort_out};

/// Say which snapshots are to go: these, those before a time, or all that need not stay
///
/// They stay readable for a day, and go with `antiphon snapshot prune` after it.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Forget {
    /// Their names
    #[arg(value_name = "ID", value_parser = snapshot)]
    ids: Vec<SnapshotId>,
    /// All made before this time: a date as 2026-11-21T12:00, or an age as 12h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    before: Option<u64>,
    /// Keep the newest ones
    #[arg(long, value_name = "N")]
    keep_last: Option<usize>,
    /// Keep the newest of each of so many hours
    #[arg(long, value_name = "N")]
    keep_hourly: Option<usize>,
    /// Keep the newest of each of so many days
    #[arg(long, value_name = "N")]
    keep_daily: Option<usize>,
    /// Keep the newest of each of so many weeks
    #[arg(long, value_name = "N")]
    keep_weekly: Option<usize>,
    /// Keep the newest of each of so many months
    #[arg(long, value_name = "N")]
    keep_monthly: Option<usize>,
    /// Keep all that are younger: an age as 12h, or a date
    #[arg(long, value_name = "AGE", value_parser = moment)]
    keep_within: Option<u64>,
    /// Keep all with this tag
    #[arg(long, value_name = "TAG")]
    keep_tag: Vec<String>,
    /// Remove at once what was forgotten a day ago or earlier
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    source: Source,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line {
    id: String,
    created_ms: u64,
    forgotten: bool,
    why: Vec<String>,
}

impl Forget {
    pub(super) fn run(self) -> Result<(), Failure> {
        let keeps = self.keeps();
        if self.ids.is_empty() && self.before.is_none() && keeps.is_none() {
            return Err(Failure::usage("it is not said which snapshots are to go")
                .hint("name them, or say `--before TIME`, or which are to stay: `--keep-last 7`"));
        }
        let found = self.source.open()?;
        let repo = found.repo();
        let Listed { snapshots: all, damaged } = repo.all()?;
        // Nothing else is known of these, so they go only when they are named.
        let is_damaged = |id: &SnapshotId| damaged.iter().any(|(damaged, _)| damaged == id);
        let known = |id: &SnapshotId| all.iter().any(|(manifest, _)| manifest.id == *id) || is_damaged(id);
        if let Some(unknown) = self.ids.iter().find(|id| !known(id)) {
            return Err(Failure::new(Kind::Missing, format!("there is no snapshot {unknown}"))
                .hint("`antiphon snapshot list` says which there are"));
        }
        let standing: Vec<_> = all.iter().filter(|(_, marks)| marks.forgotten_ms.is_none()).collect();
        let mut lines: Vec<Line> = Vec::new();
        let sorted = match &keeps {
            Some(wish) => {
                let standing: Vec<_> = standing.iter().map(|both| kept(both)).collect();
                let sorted = sort_out(&standing, wish, crate::clock::unix_ms());
                sorted.map_err(|error| refused(&error.to_string()))?
            }
            None => standing.iter().map(|(manifest, _)| (manifest.id, vec![Reason::Last])).collect(),
        };
        for (id, why) in sorted {
            let Some((manifest, marks)) = standing.iter().find(|(manifest, _)| manifest.id == id) else { continue };
            let named = self.ids.contains(&id) || self.before.is_some_and(|before| manifest.created_ms < before);
            let goes = if keeps.is_some() { why.is_empty() || named } else { named };
            let why: Vec<String> = match (goes, keeps.is_some()) {
                (true, _) => Vec::new(),
                (false, true) => why.iter().map(ToString::to_string).collect(),
                (false, false) => vec!["not named".to_owned()],
            };
            if goes && marks.note.pinned {
                return Err(refused(&format!("snapshot {id} is pinned"))
                    .hint("take the pin off first: `antiphon snapshot unpin`"));
            }
            lines.push(Line { id: id.to_string(), created_ms: manifest.created_ms, forgotten: goes, why });
        }
        if !lines.is_empty() && lines.iter().all(|line| line.forgotten) {
            return Err(refused("this would remove every snapshot"));
        }
        let unreadable = self.ids.iter().filter(|id| is_damaged(id));
        lines.extend(unreadable.map(|id| Line {
            id: id.to_string(),
            created_ms: id.millis(),
            forgotten: true,
            why: Vec::new(),
        }));
        let mut out = io::stdout().lock();
        for line in &lines {
            if line.forgotten && !self.dry_run {
                let id: SnapshotId = snapshot(&line.id).map_err(Failure::usage)?;
                repo.forget(id)?;
            }
            if self.json {
                json_line(&mut out, line)?;
            } else {
                let what = if line.forgotten { "goes".to_owned() } else { format!("stays: {}", line.why.join(", ")) };
                writeln!(out, "{}  {}  {what}", line.id, utc(line.created_ms))?;
            }
        }
        if self.prune && !self.dry_run {
            super::prune::say(&mut out, &repo.prune(Grace::of(&found.config), false)?, false, self.json)?;
        }
        Ok(out.flush()?)
    }

    /// Which are to stay, if that is said.
    fn keeps(&self) -> Option<Wish> {
        let Self { keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_within, keep_tag, .. } = self;
        let counts = [keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly];
        let is_said = counts.iter().any(|count| count.is_some()) || keep_within.is_some() || !keep_tag.is_empty();
        let of = |count: &Option<usize>| count.unwrap_or(0);
        is_said.then(|| Wish {
            last: of(keep_last),
            hourly: of(keep_hourly),
            daily: of(keep_daily),
            weekly: of(keep_weekly),
            monthly: of(keep_monthly),
            within_ms: keep_within.map(|since| crate::clock::unix_ms().saturating_sub(since)),
            tags: keep_tag.clone(),
            ..Wish::default()
        })
    }
}

fn refused(why: &str) -> Failure {
    Failure::new(Kind::General, format!("nothing was forgotten: {why}"))
}
