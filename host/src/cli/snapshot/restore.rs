//! `antiphon snapshot restore`: a database comes back, as it was at a point in time.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::back::{as_changes, in_place, may_go_back};
use super::offline;
use super::point::Point;
use super::{Found, Shown, Source, snapshot};
use crate::cli::json_line;
use crate::cli::shown::{bytes, count, utc};
use crate::failure::{Failure, Kind};
use crate::replacement::Replacement;
use crate::snapshot::{Arrived, Output, Plan, Wanted, is_sound, only, places, rows_of};
use antiphon_core::snapshot::id::SnapshotId;
use antiphon_core::snapshot::manifest::{Manifest, Position};
use antiphon_core::snapshot::reach::Target;

/// Bring a database back, as a new file: that of a snapshot, or as it was at any point since the oldest one
///
/// `--as-changes` brings the rows back into the database that is in use, as changes that all nodes follow.
///
/// Every byte is compared with what was put, what came after the snapshot is applied as nodes apply it, and SQLite looks at
/// the whole before the file gets its name. Only whole transactions come back: one that ends after the point is left out.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Restore {
    /// The snapshot to begin with; else the newest, or the best for the point
    #[arg(value_name = "ID", value_parser = snapshot)]
    id: Option<SnapshotId>,
    #[command(flatten)]
    point: Point,
    #[command(flatten)]
    place: Place,
    /// With `--in-place`: give up what was written here and is not in the log
    #[arg(long, requires = "in_place")]
    discard_local: bool,
    /// With `--in-place`: another file gets the name of the database, which nobody may have open; what was there is kept
    /// beside it, and may be damaged or missing
    #[arg(long, requires = "in_place")]
    offline: bool,
    /// Only this table; may be given several times
    #[arg(long, value_name = "TABLE")]
    table: Vec<String>,
    /// How thoroughly SQLite looks at the result
    #[arg(long, value_enum, default_value_t)]
    check: Check,
    /// Go on behind stretches of the log that nobody has: what was written in them is missing then
    #[arg(long)]
    allow_hole: bool,
    #[command(flatten)]
    source: Source,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Where the rows go.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// The file; it must not be there yet
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Into the database itself, in one transaction; no node may run beside it, and the application may
    #[arg(long)]
    in_place: bool,
    /// Into the database that is in use, as ordinary writes in one transaction: nodes follow
    #[arg(long)]
    as_changes: bool,
}

/// How thoroughly SQLite looks at what was restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Check {
    /// Not at all; hashes are compared all the same.
    None,
    /// `PRAGMA quick_check`.
    #[default]
    Quick,
    /// `PRAGMA integrity_check`.
    Full,
}

/// Where a shard was read to.
#[derive(Serialize)]
struct At {
    seq: u64,
    time_ms: u64,
}

#[derive(Serialize)]
struct Report<'a> {
    snapshot: Shown<'a>,
    output: String,
    dry_run: bool,
    positions: BTreeMap<u32, At>,
    /// The newest of the entries up to there.
    time_ms: u64,
    segments: u64,
    segment_bytes: u64,
    entries_of_the_log: u64,
    entries: u64,
    changes: u64,
    left_out: u64,
    complete: bool,
    rows: u64,
    bytes: u64,
    seconds: f64,
    stages: &'a BTreeMap<&'static str, f64>,
}

/// What would be done.
#[derive(Serialize)]
struct Planned<'a> {
    snapshot: Shown<'a>,
    output: String,
    dry_run: bool,
    segments: Vec<String>,
    shards_read_in_the_log: Vec<u32>,
    holes: Vec<(u32, u64, u64)>,
}

impl Restore {
    pub(super) fn run(self) -> Result<(), Failure> {
        let begun = Instant::now();
        let found = self.source.clone().open()?;
        let Some(file) = &self.place.output else { return self.go_back(&found) };
        if self.dry_run {
            return self.say_plan(&found, &format!("`{}`", file.display()));
        }
        let output = Output::at(file)?;
        let (arrived, end) = self.go(&found, output.aside())?;
        let mut stages = arrived.stages.clone();
        let checking = Instant::now();
        let image = if self.table.is_empty() {
            arrived.image.clone()
        } else {
            let single = output.aside().join("tables.db");
            only(&arrived.image, &self.table, &single)?;
            single
        };
        if self.check != Check::None {
            is_sound(&image, self.check == Check::Full)?;
        }
        stages.insert("check", checking.elapsed().as_secs_f64());
        let mut tables: Vec<String> = arrived.base.tables.iter().map(|table| table.name.clone()).collect();
        if !self.table.is_empty() {
            tables.clone_from(&self.table);
        }
        let rows = rows_of(&image, &tables)?;
        let size = image.metadata()?.len();
        output.name(&image)?;
        if !arrived.is_complete {
            writeln!(
                io::stderr().lock(),
                "the archive ends at {}, and the log can't be reached: what came after that is not in it",
                utc(reached(&arrived.positions))
            )?;
        }
        let mut out = io::stdout().lock();
        let seconds = begun.elapsed().as_secs_f64();
        let name = file.display().to_string();
        if self.json {
            return json_line(&mut out, &report(&arrived, &end, name, rows, size, seconds, &stages));
        }
        match &end {
            End::Snapshot(manifest) => writeln!(out, "`{name}` is the database of snapshot {}", manifest.id)?,
            End::Point => writeln!(out, "`{name}` is the database as of {}", utc(reached(&arrived.positions)))?,
        }
        writeln!(out, "  as of  {}, at {}", utc(end.made(&arrived)), places(&arrived.positions))?;
        if arrived.entries > 0 || end.is_point() {
            writeln!(
                out,
                "  from   snapshot {}, {}, {} of the log: {} with {}",
                arrived.base.id,
                count(arrived.segments, "segment", "segments"),
                count(arrived.logged, "entry", "entries"),
                count(arrived.entries, "entry applied", "entries applied"),
                count(arrived.changes, "change", "changes")
            )?;
        }
        if arrived.left_out > 0 {
            writeln!(out, "  left out: {} of transactions that end later", count(arrived.left_out, "piece", "pieces"))?;
        }
        if end.is_point() && arrived.positions.len() > 1 {
            writeln!(out, "  a transaction in several shards may be in one of them and not in another yet")?;
        }
        writeln!(out, "  holds  {rows} rows, {}", bytes(size))?;
        Ok(out.flush()?)
    }

    /// The point that is wanted, and how it is named.
    fn wanted(&self, found: &Found, manifest: Option<&Manifest>) -> Result<(Wanted, End), Failure> {
        if let Some(manifest) = manifest {
            let target = Target::Seq(manifest.positions.iter().map(|(shard, at)| (*shard, at.seq)).collect());
            // A full one is itself, and nothing else will do; what leads to another lies in the archive.
            let base = manifest.is_full().then_some(manifest.id);
            return Ok((
                Wanted { target, base, allow_hole: self.allow_hole, with_state: self.place.in_place },
                End::Snapshot(Box::new(manifest.clone())),
            ));
        }
        let target = self.point.target(found.shards()?)?;
        Ok((Wanted { target, base: self.id, allow_hole: self.allow_hole, with_state: self.place.in_place }, End::Point))
    }

    /// Goes there. Of a snapshot that was not named, the one before it does, if it turns out to be damaged, or to lie
    /// behind a hole.
    fn go(&self, found: &Found, aside: &Path) -> Result<(Arrived, End), Failure> {
        let _shown = found.progress("fetching");
        let fold = |manifest: &Manifest| found.fold(manifest);
        if !self.point.is_none() {
            let (wanted, end) = self.wanted(found, None)?;
            let look = found.look();
            return Ok((found.travel(look.as_ref()).go(&wanted, aside, &fold)?, end));
        }
        let mut manifest = found.manifest(self.id)?;
        for turn in 0_u32.. {
            let (wanted, end) = self.wanted(found, Some(&manifest))?;
            let folder = aside.join(format!("try-{turn}"));
            std::fs::create_dir(&folder)?;
            let arrived = found.travel(None).go(&wanted, &folder, &fold).and_then(|arrived| {
                if arrived.positions == manifest.positions { Ok(arrived) } else { Err(elsewhere(&manifest)) }
            });
            let failure = match arrived {
                Ok(arrived) => return Ok((arrived, end)),
                Err(failure) => failure,
            };
            // One that lies behind a hole is no better than a damaged one.
            let may_pass = matches!(failure.kind(), Kind::Data | Kind::Missing | Kind::NoSuchPoint | Kind::Refused);
            if self.id.is_some() || !may_pass {
                return Err(failure);
            }
            let Some(older) = found.older(manifest.id)? else { return Err(failure) };
            tracing::warn!(%failure, "snapshot {} is passed over, and {} taken", manifest.id, older.id);
            std::fs::remove_dir_all(&folder)?;
            manifest = older;
        }
        Err(Failure::new(Kind::Missing, "there is no snapshot"))
    }

    /// Brings the rows back into the database that is there.
    fn go_back(&self, found: &Found) -> Result<(), Failure> {
        if self.place.in_place {
            if !self.table.is_empty() {
                return Err(Failure::usage(
                    "a place in the log is one of all tables: `--table` does not go with `--in-place`",
                )
                .hint("`--as-changes` brings single tables back"));
            }
            if self.offline {
                offline::may_replace(found, self.discard_local)?;
            } else {
                may_go_back(found, self.discard_local)?;
            }
            if self.dry_run {
                return self.say_plan(found, &format!("`{}`", found.config.db_path.display()));
            }
        }
        // Held from here on: what is fetched is not to be in vain.
        let replacement = self.offline.then(|| offline::hold(found)).transpose()?;
        let path = replacement.as_ref().map_or(found.config.db_path.as_path(), Replacement::path);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let aside =
            tempfile::Builder::new().prefix(".antiphon-restore-").tempdir_in(folder.unwrap_or(Path::new(".")))?;
        let (arrived, _) = self.go(found, aside.path())?;
        if self.check != Check::None {
            is_sound(&arrived.image, self.check == Check::Full)?;
        }
        if !arrived.is_complete {
            return Err(Failure::new(
                Kind::Refused,
                format!("the archive ends at {}, and the log can't be reached", utc(reached(&arrived.positions))),
            )
            .hint("what came after that would be missing; `--output FILE` brings back what there is"));
        }
        if let Some(replacement) = replacement {
            offline::replace(found, replacement, &arrived, self.discard_local, self.json)
        } else if self.place.in_place {
            in_place(found, &arrived, aside.path(), self.json)
        } else {
            as_changes(found, &arrived, &self.table, self.dry_run, self.json)
        }
    }

    fn say_plan(&self, found: &Found, name: &str) -> Result<(), Failure> {
        let named = self.point.is_none().then(|| found.manifest(self.id)).transpose()?;
        let (wanted, _) = self.wanted(found, named.as_ref())?;
        let look = if named.is_none() { found.look() } else { None };
        let plan = found.travel(look.as_ref()).plan(&wanted)?;
        let mut out = io::stdout().lock();
        if self.json {
            let planned = Planned {
                snapshot: Shown::of(&plan.base),
                output: name.trim_matches('`').to_owned(),
                dry_run: true,
                segments: plan.segments().map(ToString::to_string).collect(),
                shards_read_in_the_log: plan.logged().collect(),
                holes: holes(&plan),
            };
            return json_line(&mut out, &planned);
        }
        match &named {
            Some(manifest) => writeln!(out, "{name} would be the database of snapshot {}", manifest.id)?,
            None => writeln!(out, "{name} would be the database at {}", target(&wanted.target))?,
        }
        let shown = Shown::of(&plan.base);
        writeln!(out, "  as of  {}, at {}", utc(shown.created_ms), places(&plan.base.positions))?;
        writeln!(out, "  holds  {} rows, {}", shown.rows, bytes(shown.bytes))?;
        if !plan.is_at_base() {
            writeln!(out, "  begins with snapshot {}", plan.base.id)?;
            for segment in plan.segments() {
                writeln!(
                    out,
                    "  applies entries {} to {} of shard {}, archived",
                    segment.first, segment.last, segment.shard
                )?;
            }
            for shard in plan.logged() {
                writeln!(out, "  applies what follows of shard {shard} in the log itself")?;
            }
        }
        for (shard, first, last) in holes(&plan) {
            writeln!(out, "  lacks entries {first} to {last} of shard {shard}")?;
        }
        Ok(out.flush()?)
    }
}

/// What somebody wanted to go to.
enum End {
    Snapshot(Box<Manifest>),
    Point,
}

impl End {
    fn is_point(&self) -> bool {
        matches!(self, Self::Point)
    }

    /// When what is there was made, or written.
    fn made(&self, arrived: &Arrived) -> u64 {
        match self {
            Self::Snapshot(manifest) => manifest.created_ms,
            Self::Point => reached(&arrived.positions),
        }
    }
}

/// When the newest of these entries came into the log, in milliseconds since 1970.
pub(in crate::cli) fn reached(positions: &BTreeMap<u32, Position>) -> u64 {
    positions.values().map(|at| at.time / 1_000_000).max().unwrap_or(0)
}

/// A point as people read it.
fn target(target: &Target) -> String {
    match target {
        Target::Newest => "the end of the log".to_owned(),
        Target::Time(millis) => utc(*millis),
        Target::Seq(seqs) => seqs.iter().map(|(shard, seq)| format!("{shard}:{seq}")).collect::<Vec<_>>().join(" "),
    }
}

fn holes(plan: &Plan) -> Vec<(u32, u64, u64)> {
    plan.holes().iter().map(|hole| (hole.shard, hole.first, hole.last)).collect()
}

fn elsewhere(manifest: &Manifest) -> Failure {
    Failure::new(Kind::Data, format!("the archive does not lead to where snapshot {} stands", manifest.id))
        .hint("the log has lost what it was made of; use another snapshot: `antiphon snapshot list`")
}

fn report<'a>(
    arrived: &'a Arrived,
    end: &'a End,
    output: String,
    rows: u64,
    size: u64,
    seconds: f64,
    stages: &'a BTreeMap<&'static str, f64>,
) -> Report<'a> {
    let place = |at: &Position| At { seq: at.seq, time_ms: at.time / 1_000_000 };
    let snapshot = match end {
        End::Snapshot(manifest) => manifest,
        End::Point => &arrived.base,
    };
    Report {
        snapshot: Shown::of(snapshot),
        output,
        dry_run: false,
        positions: arrived.positions.iter().map(|(shard, at)| (*shard, place(at))).collect(),
        time_ms: reached(&arrived.positions),
        segments: arrived.segments,
        segment_bytes: arrived.segment_bytes,
        entries_of_the_log: arrived.logged,
        entries: arrived.entries,
        changes: arrived.changes,
        left_out: arrived.left_out,
        complete: arrived.is_complete,
        rows,
        bytes: size,
        seconds,
        stages,
    }
}
