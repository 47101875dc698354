//! Databases as they were at points in time, put together once and kept for a while in this user's cache.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Found;
use super::point::Point;
use crate::components;
use crate::failure::{Failure, Kind};
use crate::snapshot::{Arrived, Plan, Wanted};
use antiphon_core::snapshot::id::SnapshotId;
use antiphon_core::snapshot::manifest::{Manifest, Position};
use antiphon_core::snapshot::reach::Target;

/// Most of them that are kept,
const FILES_MAX: usize = 8;
/// and the most bytes of them.
const BYTES_MAX: u64 = 2 << 30;
/// What they end with,
const IMAGE: &str = "db";
/// and what is known of them.
const NOTE: &str = "json";

/// Which database is meant.
#[derive(Clone, Debug)]
pub(in crate::cli) enum Which {
    /// That of a snapshot.
    Snapshot(SnapshotId),
    /// As it was at a point in time.
    Point(Point),
    /// The one that is in use.
    Live,
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("live") {
            return Ok(Self::Live);
        }
        if let Ok(id) = text.parse() {
            return Ok(Self::Snapshot(id));
        }
        Point::of(text).map(Self::Point).map_err(|error| format!("give a snapshot's name, `live`, or a point: {error}"))
    }
}

/// A database as it was.
#[derive(Debug)]
pub(in crate::cli) struct Past {
    /// The file.
    pub(in crate::cli) path: PathBuf,
    /// How far each shard was read.
    pub(in crate::cli) positions: BTreeMap<u32, Position>,
    /// Nothing before the point can be missing.
    pub(in crate::cli) is_complete: bool,
    /// Where it lies, if it is not kept.
    _aside: Option<tempfile::TempDir>,
}

/// Where they are kept.
#[derive(Debug)]
pub(in crate::cli) struct Points(PathBuf);

#[derive(Serialize, Deserialize)]
struct Note {
    positions: BTreeMap<u32, Position>,
}

impl Points {
    /// The cache of this user, or one beside the database.
    pub(in crate::cli) fn open(found: &Found) -> Result<Self, Failure> {
        let beside = || found.config.state_dir().join("points");
        let of_user = components::user_cache().and_then(|components| Some(components.parent()?.join("points")));
        let folder = of_user.unwrap_or_else(beside);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.and_then(|()| std::fs::set_permissions(&folder, Permissions::from_mode(0o700)))
            .map_err(|error| unwritten(&folder, &error))?;
        Ok(Self(folder))
    }

    /// Puts a database together, unless it is there.
    pub(in crate::cli) fn get(&self, found: &Found, which: &Which, allow_hole: bool) -> Result<Past, Failure> {
        let (wanted, exact) = match which {
            Which::Live => return Err(Failure::usage("`live` is no point in time")),
            Which::Snapshot(id) => {
                let manifest = found.manifest(Some(*id))?;
                let target = Target::Seq(manifest.positions.iter().map(|(shard, at)| (*shard, at.seq)).collect());
                let base = manifest.is_full().then_some(*id);
                (Wanted { target, base, allow_hole, with_state: false }, Some(manifest))
            }
            Which::Point(point) => {
                (Wanted { target: point.target(found.shards()?)?, base: None, allow_hole, with_state: false }, None)
            }
        };
        let look = if exact.is_some() { None } else { found.look() };
        let mut travel = found.travel(look.as_ref());
        let plan = travel.plan(&wanted)?;
        let key = key(found, &plan, &wanted);
        if let Some(past) = self.kept(&key) {
            return Ok(past);
        }
        let aside =
            tempfile::Builder::new().prefix(".new-").tempdir_in(&self.0).map_err(|error| unwritten(&self.0, &error))?;
        let fold = |manifest: &Manifest| found.fold(manifest);
        let arrived = travel.go(&wanted, aside.path(), &fold)?;
        if let Some(manifest) = exact.filter(|manifest| manifest.positions != arrived.positions) {
            let why = format!("the archive does not lead to where snapshot {} stands", manifest.id);
            return Err(Failure::new(Kind::Data, why));
        }
        // What the log itself said may still grow, or get lost.
        let is_settled = arrived.logged == 0 && arrived.is_complete && plan.base.id == arrived.base.id;
        if !is_settled {
            let Arrived { image, positions, is_complete, .. } = arrived;
            return Ok(Past { path: image, positions, is_complete, _aside: Some(aside) });
        }
        self.keep(&key, &arrived)?;
        self.shrink(&key);
        let (path, positions) = (self.file(&key, IMAGE), arrived.positions);
        Ok(Past { path, positions, is_complete: true, _aside: None })
    }

    fn file(&self, key: &str, ending: &str) -> PathBuf {
        self.0.join(format!("{key}.{ending}"))
    }

    /// One that is there already.
    fn kept(&self, key: &str) -> Option<Past> {
        let note: Note = serde_json::from_slice(&std::fs::read(self.file(key, NOTE)).ok()?).ok()?;
        let path = self.file(key, IMAGE);
        let file = File::options().append(true).open(&path).ok()?;
        // It was of use just now.
        let _ = file.set_modified(SystemTime::now());
        Some(Past { path, positions: note.positions, is_complete: true, _aside: None })
    }

    /// The file gets its name when it is whole, and what is known of it after that: by both it is found again.
    fn keep(&self, key: &str, arrived: &Arrived) -> Result<(), Failure> {
        let image = self.file(key, IMAGE);
        let done = std::fs::set_permissions(&arrived.image, Permissions::from_mode(0o600))
            .and_then(|()| File::open(&arrived.image)?.sync_all())
            .and_then(|()| std::fs::rename(&arrived.image, &image));
        done.map_err(|error| unwritten(&image, &error))?;
        let note = Note { positions: arrived.positions.clone() };
        let text = serde_json::to_vec(&note).map_err(std::io::Error::from);
        let path = self.file(key, NOTE);
        let mut file =
            tempfile::Builder::new().prefix(".new-").tempfile_in(&self.0).map_err(|error| unwritten(&path, &error))?;
        text.and_then(|text| std::io::Write::write_all(&mut file, &text)).map_err(|error| unwritten(&path, &error))?;
        file.persist(&path).map_err(|error| unwritten(&path, &error.error))?;
        Ok(())
    }

    /// Those that were not of use for longest go, until few are left.
    fn shrink(&self, newest: &str) {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|ending| ending == IMAGE)
                && let Ok(file) = entry.metadata()
            {
                files.push((file.modified().unwrap_or(SystemTime::UNIX_EPOCH), file.len(), path));
            }
        }
        files.sort_unstable_by(|a, b| b.cmp(a));
        let (mut count, mut bytes) = (0, 0);
        for (_, size, path) in files {
            (count, bytes) = (count + 1, bytes + size);
            let is_newest = path.file_stem().is_some_and(|stem| stem == newest);
            if (count > FILES_MAX || bytes > BYTES_MAX) && !is_newest {
                let _ = std::fs::remove_file(path.with_extension(NOTE));
                let _ = std::fs::remove_file(&path);
            }
        }
    }
}

/// A name for what comes of a plan: the same for the same.
fn key(found: &Found, plan: &Plan, wanted: &Wanted) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut say = |text: &str| {
        hasher.update(text.as_bytes());
        hasher.update(b"\n");
    };
    say(env!("CARGO_PKG_VERSION"));
    say(found.repo().cluster());
    say(&plan.base.id.to_string());
    say(&format!("{:?} {}", wanted.target, wanted.allow_hole));
    plan.segments().for_each(|segment| say(&segment.to_string()));
    hasher.finalize().to_hex().chars().take(32).collect()
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::caused(Kind::General, format!("cannot write `{}`", path.display()), error)
        .hint("see that the disk has room for another copy of the database")
}
