//! `antiphon snapshot verify`: whether what is kept is what was put there.

use std::io::{self, Write as _};

use serde::Serialize;

use super::{Found, PARALLEL, Source, snapshot};
use crate::cli::json_line;
use crate::cli::shown::bytes;
use crate::failure::{Failure, Kind};
use crate::snapshot::{Checked, Level, Wanted, check, is_sound, rows_of};
use antiphon_core::snapshot::id::SnapshotId;
use antiphon_core::snapshot::manifest::Manifest;
use antiphon_core::snapshot::reach::Target;
use std::path::Path;

/// Verify that a snapshot is what was put there
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Verify {
    /// Its name; else the newest
    #[arg(value_name = "ID", value_parser = snapshot, conflicts_with = "all")]
    id: Option<SnapshotId>,
    /// All of them
    #[arg(long)]
    all: bool,
    /// How thoroughly
    #[arg(long, value_enum, default_value_t)]
    level: Level,
    #[command(flatten)]
    source: Source,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    id: String,
    ok: bool,
    why: Option<String>,
    #[serde(flatten)]
    checked: Checked,
}

impl Found {
    /// Looks at a snapshot that holds no rows: whether the archive leads to it from the full one before.
    fn increment(&self, manifest: &Manifest, level: Level, scratch: &Path) -> Result<Checked, Failure> {
        let target = Target::Seq(manifest.positions.iter().map(|(shard, at)| (*shard, at.seq)).collect());
        let wanted = Wanted { target, base: None, allow_hole: false, with_state: false };
        let mut travel = self.travel(None);
        if level == Level::Restore {
            let arrived = travel.go(&wanted, scratch, &|base| self.fold(base))?;
            if arrived.positions != manifest.positions {
                return Err(Failure::new(Kind::Data, format!("the archive does not lead to snapshot {}", manifest.id)));
            }
            is_sound(&arrived.image, true)?;
            let tables: Vec<String> = arrived.base.tables.iter().map(|table| table.name.clone()).collect();
            let rows = rows_of(&arrived.image, &tables)?;
            let bytes = arrived.image.metadata()?.len();
            return Ok(Checked { objects: arrived.segments + 1, stored_bytes: arrived.segment_bytes, bytes, rows });
        }
        let plan = travel.plan(&wanted)?;
        let mut checked = check(self.repo(), &plan.base, level, PARALLEL, scratch)?;
        checked.objects += plan.segments().count() as u64 + 1;
        if level == Level::Hash {
            checked.stored_bytes += plan.read(self.repo())?;
        }
        Ok(checked)
    }
}

impl Verify {
    pub(super) fn run(self) -> Result<(), Failure> {
        let found = self.source.open()?;
        let repo = found.repo();
        let ids =
            if self.all { repo.ids()? } else { vec![self.id.map_or_else(|| found.manifest(None).map(|m| m.id), Ok)?] };
        let mut out = io::stdout().lock();
        let mut bad = None;
        for id in ids {
            let scratch = tempfile::tempdir()?;
            let shown = found.progress("reading");
            let manifest = repo.manifest(id);
            // Of one that holds no rows the archive may lead up to it again in a moment, when another node goes on with it.
            let has_objects = manifest.as_ref().map_or(true, Manifest::is_full);
            let checked = manifest.and_then(|manifest| {
                if manifest.is_full() {
                    check(repo, &manifest, self.level, PARALLEL, scratch.path())
                } else {
                    found.increment(&manifest, self.level, scratch.path())
                }
            });
            drop(shown);
            // It was removed since it was listed.
            if self.all && checked.is_err() && !repo.ids()?.contains(&id) {
                continue;
            }
            // A store that is away says nothing of what it keeps.
            if let Err(failure) = &checked
                && !matches!(failure.kind(), Kind::Data | Kind::Missing | Kind::NoSuchPoint | Kind::Refused)
            {
                return Err(failure.clone());
            }
            if (checked.is_ok() || has_objects)
                && let Err(failure) = repo.note_found(id, self.level, checked.as_ref().map(drop))
            {
                // Whoever may only read the store can look, too.
                tracing::warn!(%failure, "how a snapshot was found can't be noted, and nodes don't hear of it");
            }
            let why = checked.as_ref().err().map(ToString::to_string);
            if self.json {
                let checked = checked.as_ref().copied().unwrap_or_default();
                json_line(&mut out, &Report { id: id.to_string(), ok: why.is_none(), why, checked })?;
            } else {
                match &checked {
                    Ok(checked) => {
                        let read = if checked.bytes > 0 {
                            format!(", {} of database", bytes(checked.bytes))
                        } else {
                            String::new()
                        };
                        writeln!(
                            out,
                            "{id}  ok: {} objects, {} stored{read}",
                            checked.objects,
                            bytes(checked.stored_bytes)
                        )?;
                    }
                    Err(failure) => writeln!(out, "{id}  BAD: {failure}")?,
                }
            }
            if let Err(failure) = checked {
                bad.get_or_insert(failure);
            }
        }
        out.flush()?;
        bad.map_or(Ok(()), |_| Err(Failure::new(Kind::Unwell, "a snapshot is not what was put there")))
    }
}
