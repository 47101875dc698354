//! A point in time: the newest snapshot that does not stand after it, and what came after that in the log, folded aside by
//! the same rules as on any node.
//!
//! What is to be done is thought out first ([`Plan`]), by names alone, and then done. If something of it turns out to be
//! damaged, gone or of a story that the log lost, another way is looked for.

use super::applying::{Applying, Done, unapplied, unread_log};
use super::archive::{Archive, placement};
use super::history::{Cut, History, Trouble};
use super::repo::Repo;
use super::saved::{assemble, count};
use super::unwritten;
use crate::db::{Database, Fold};
use crate::failure::{Failure, Kind};
use crate::log::{Look, Placed, Placement, Shard};
use antiphon_core::entry::ClusterId;
use antiphon_core::snapshot::id::SnapshotId;
use antiphon_core::snapshot::layout::Segment;
use antiphon_core::snapshot::manifest::{Manifest, Position};
use antiphon_core::snapshot::reach::{self, Base, Hole, Target, Unreachable, Way};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Ways that are tried, at most.
const WAYS_MAX: u32 = 8;
/// The level of what is no segment but the log itself.
const LOG: u8 = u8::MAX;

/// Where somebody wants to go.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The point.
    pub target: Target,
    /// With which snapshot to begin; else the best one.
    pub base: Option<SnapshotId>,
    /// Go on behind stretches of the log that nobody has.
    pub allow_hole: bool,
    /// Fetch what goes with the rows as well: where they stand, stamps, policies.
    pub with_state: bool,
}

/// How a point is reached.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The snapshot it begins with.
    pub base: Manifest,
    /// The point.
    pub target: Target,
    way: Way,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// The snapshot it began with.
    pub base: Manifest,
    /// How far each shard was read.
    pub positions: BTreeMap<u32, Position>,
    /// Segments of the archive that were read,
    pub segments: u64,
    /// bytes of the log in them,
    pub segment_bytes: u64,
    /// entries that were read of the log itself,
    pub logged: u64,
    /// entries that were applied, of both,
    pub entries: u64,
    /// and changes in them.
    pub changes: u64,
    /// Pieces of transactions that end only after the point: they are left out.
    pub left_out: u64,
    /// Whether something after the point was seen, or all there is was read: else there may be more before it.
    pub is_complete: bool,
    /// Seconds, by what was done in them.
    pub stages: BTreeMap<&'static str, f64>,
    /// The database.
    pub image: PathBuf,
    /// What goes with its rows; nothing if nothing had to be applied.
    pub state: Option<PathBuf>,
    /// Rows in its tables; unknown where something was applied.
    pub rows: Option<u64>,
}

/// From where to where.
pub struct Travel<'a> {
    /// The snapshots and the archive.
    pub repo: Repo<'a>,
    /// The log itself, if it can be reached.
    pub look: Option<&'a Look>,
    /// Objects that are fetched at once.
    pub parallel: usize,
    excluded: BTreeSet<Segment>,
    passed_over: BTreeSet<SnapshotId>,
}

impl std::fmt::Debug for Travel<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Travel").field("repo", &self.repo).finish_non_exhaustive()
    }
}

impl Plan {
    /// Stretches that nobody has, on the way.
    #[must_use]
    pub fn holes(&self) -> &[Hole] {
        &self.way.holes
    }

    /// Segments of the archive that are read.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.way.segments.values().flatten().filter(|segment| segment.level != LOG)
    }

    /// Shards that are read on in the log itself.
    pub fn logged(&self) -> impl Iterator<Item = Shard> {
        self.way
            .segments
            .iter()
            .filter(|(_, on)| on.iter().any(|segment| segment.level == LOG))
            .map(|(shard, _)| *shard)
    }

    /// Reads all segments and compares them; gives the bytes of the log in them.
    ///
    /// # Errors
    /// When one of them is not what was put there.
    pub fn read(&self, repo: Repo<'_>) -> Result<u64, Failure> {
        let mut bytes = 0;
        for segment in self.segments() {
            let (_, entries) = repo.segment(segment)?;
            bytes += entries.iter().map(|placed| placed.frame.len() as u64).sum::<u64>();
        }
        Ok(bytes)
    }

    /// Whether nothing comes after the snapshot.
    #[must_use]
    pub fn is_at_base(&self) -> bool {
        self.way.segments.values().all(Vec::is_empty)
    }
}

impl<'a> Travel<'a> {
    /// One by this store, and by this log if there is one.
    #[must_use]
    pub fn new(repo: Repo<'a>, look: Option<&'a Look>, parallel: usize) -> Self {
        Self { repo, look, parallel, excluded: BTreeSet::new(), passed_over: BTreeSet::new() }
    }

    /// How a point is reached.
    ///
    /// # Errors
    /// When it is not, or the store or the log can't be asked.
    pub fn plan(&self, wanted: &Wanted) -> Result<Plan, Failure> {
        let snapshots = self.repo.all()?;
        let mut fulls: Vec<Manifest> = Vec::new();
        for (manifest, _) in snapshots.snapshots {
            let is_meant = wanted.base.is_none_or(|base| base == manifest.id);
            if is_meant && manifest.is_full() && !self.passed_over.contains(&manifest.id) {
                fulls.push(manifest);
            }
        }
        let shards: BTreeSet<u32> = fulls.iter().flat_map(|full| full.positions.keys().copied()).collect();
        if let Target::Seq(seqs) = &wanted.target
            && let Some(shard) = seqs.keys().find(|shard| !shards.contains(shard) && !shards.is_empty())
        {
            return Err(Failure::new(
                Kind::NoSuchPoint,
                format!("there is no shard {shard}: there are {}", shards.len()),
            ));
        }
        let mut archive = self.repo.archive()?;
        archive.segments.retain(|segment| !self.excluded.contains(segment));
        let bases: Vec<Base> =
            fulls.iter().map(|full| Base { id: full.id, positions: full.positions.clone() }).collect();
        let way = self.way(&bases, &archive, &wanted.target)?;
        let unknown = || Failure::new(Kind::General, "the snapshot of the way is not known");
        let base = fulls.into_iter().find(|full| full.id == way.base).ok_or_else(unknown)?;
        if let Some(Hole { shard, first, last }) = way.holes.first().filter(|_| !wanted.allow_hole) {
            return Err(Failure::new(
                Kind::Refused,
                format!("entries {first} to {last} of shard {shard} are neither in the archive nor in the log"),
            )
            .hint("choose a point before them, or after the next full snapshot: `antiphon snapshot list --pitr`")
            .hint(
                "`--allow-hole` goes on behind them: what was written in them is missing then, and rows may be wrong",
            ));
        }
        Ok(Plan { base, target: wanted.target.clone(), way })
    }

    /// By segments as far as they reach, and the log behind them; by more of the log if there are holes else.
    fn way(&self, bases: &[Base], archive: &Archive, target: &Target) -> Result<Way, Failure> {
        let tail = self.logged(bases, archive, true)?;
        let behind = [archive.segments.as_slice(), tail.as_slice()].concat();
        match reach::find(bases, &behind, target) {
            Ok(way) if way.holes.is_empty() => Ok(way),
            found => {
                let whole = self.logged(bases, archive, false)?;
                let both = [archive.segments.as_slice(), whole.as_slice()].concat();
                match reach::find(bases, &both, target) {
                    Ok(way) => Ok(way),
                    Err(unreachable) => found.map_err(|_| self.unreachable(unreachable)),
                }
            }
        }
    }

    /// The log itself, as if it were a segment of each shard.
    fn logged(&self, bases: &[Base], archive: &Archive, behind: bool) -> Result<Vec<Segment>, Failure> {
        let (Some(look), Some(newest)) = (self.look, bases.first()) else { return Ok(Vec::new()) };
        let mut segments = Vec::new();
        for (&shard, at) in &newest.positions {
            let bounds = look.bounds(shard).map_err(|error| unread_log(&error))?;
            let archived = archive.of(at.epoch, shard).iter().map(|segment| segment.last).max().unwrap_or(0);
            let first = if behind { bounds.first.max(archived + 1) } else { bounds.first };
            if bounds.last >= first {
                let (epoch, last) = (at.epoch, bounds.last);
                segments.push(Segment {
                    epoch,
                    shard,
                    first,
                    last,
                    from_ms: 0,
                    to_ms: 0,
                    hash: 0,
                    term: 0,
                    level: LOG,
                });
            }
        }
        Ok(segments)
    }

    fn unreachable(&self, unreachable: Unreachable) -> Failure {
        let failure = Failure::new(Kind::NoSuchPoint, unreachable.to_string());
        match unreachable {
            Unreachable::TooLate { .. } if self.look.is_none() => failure
                .hint("what came later may be in the log itself, which can't be reached from here")
                .hint("`antiphon snapshot list --pitr` says which points there are"),
            _ => failure.hint("`antiphon snapshot list --pitr` says which points there are"),
        }
    }

    /// Goes there: the database is put together in this folder.
    ///
    /// # Errors
    /// When there is no way, or none that is whole.
    pub fn go(
        &mut self,
        wanted: &Wanted,
        folder: &Path,
        fold: &dyn Fn(&Manifest) -> Result<Fold, Failure>,
    ) -> Result<Arrived, Failure> {
        let mut first_failure: Option<Failure> = None;
        for turn in 0..WAYS_MAX {
            let planned = Instant::now();
            let plan = match self.plan(wanted) {
                Ok(plan) => plan,
                // What stood in the way of the first is what is wrong.
                Err(failure) => return Err(first_failure.unwrap_or(failure)),
            };
            let planned = planned.elapsed().as_secs_f64();
            let aside = folder.join(format!("way-{turn}"));
            std::fs::create_dir(&aside).map_err(|error| unwritten(&aside, &error))?;
            let trouble = match self.follow(&plan, wanted, &aside, fold) {
                Ok(mut arrived) => {
                    arrived.stages.insert("plan", planned);
                    return Ok(arrived);
                }
                Err(trouble) => trouble,
            };
            // Room for the next.
            std::fs::remove_dir_all(&aside).map_err(|error| unwritten(&aside, &error))?;
            let failure = match trouble {
                Trouble::Failed(failure) => return Err(failure),
                Trouble::Segment(segment, failure) => {
                    self.excluded.insert(*segment);
                    failure
                }
                Trouble::Base(failure) => {
                    self.passed_over.insert(plan.base.id);
                    failure
                }
            };
            tracing::warn!(%failure, "another way is looked for");
            first_failure.get_or_insert(failure);
        }
        Err(first_failure.unwrap_or_else(|| Failure::new(Kind::Data, "no way to this point is whole")))
    }

    /// Follows one way to its end.
    fn follow(
        &self,
        plan: &Plan,
        wanted: &Wanted,
        folder: &Path,
        fold: &dyn Fn(&Manifest) -> Result<Fold, Failure>,
    ) -> Result<Arrived, Trouble> {
        let base = &plan.base;
        let mut stages = BTreeMap::new();
        let begun = Instant::now();
        let of_no_use = |failure: Failure| match failure.kind() {
            Kind::Data | Kind::Missing => Trouble::Base(failure),
            _ => Trouble::Failed(failure),
        };
        // Who names a snapshot means that one, whatever the log has lost since.
        if wanted.base.is_none() {
            self.stands(plan)?;
        }
        if plan.is_at_base() {
            let (image, state) = (folder.join("image.db"), folder.join("state.db"));
            let state = wanted.with_state.then_some(state);
            let fetched = super::saved::fetch(self.repo, base, self.parallel, &image, state.as_deref());
            let rows = fetched.map_err(of_no_use)?;
            stages.insert("fetch", begun.elapsed().as_secs_f64());
            return Ok(Arrived {
                base: base.clone(),
                positions: base.positions.clone(),
                segments: 0,
                segment_bytes: 0,
                logged: 0,
                entries: 0,
                changes: 0,
                left_out: 0,
                is_complete: matches!(plan.target, Target::Seq(_)) || self.look.is_some(),
                stages,
                image,
                state,
                rows: Some(rows),
            });
        }
        let path = assemble(self.repo, base, self.parallel, folder).map_err(of_no_use)?;
        stages.insert("fetch", begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        let cluster = cluster_of(base)?;
        let shards = u32::try_from(base.positions.len()).unwrap_or(u32::MAX);
        let mut db = Database::open_image(&path, cluster, shards, &fold(base)?).map_err(|error| unapplied(&error))?;
        let mut histories: Vec<History<'_>> =
            base.positions.iter().map(|(shard, at)| self.history(plan, *shard, at)).collect();
        let applying = Applying { repo: self.repo, look: self.look, db: &mut db, allow_hole: wanted.allow_hole };
        let Done { entries, changes } = applying.run(&mut histories)?;
        if let Some(why) = db.is_between().map_err(|error| unapplied(&error))? {
            return Err(
                Failure::new(Kind::Data, format!("the log does not lead to rows that anybody had: {why}")).into()
            );
        }
        stages.insert("replay", begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        let mut positions = BTreeMap::new();
        for (shard, at) in &base.positions {
            positions.insert(*shard, super::archive::position(at.epoch, db.position(*shard)));
        }
        let left_out = db.staged_pieces().map_err(|error| unapplied(&error))?;
        let (image, state) = (folder.join("there.db"), folder.join("there-state.db"));
        db.export(&image, &state).map_err(|error| unapplied(&error))?;
        std::fs::remove_file(&path).map_err(|error| unwritten(&path, &error))?;
        stages.insert("write", begun.elapsed().as_secs_f64());
        let read = histories.iter().map(|history| history.read);
        let (mut segments, mut segment_bytes, mut logged) = (0, 0, 0);
        for counted in read {
            segments += counted.segments;
            segment_bytes += counted.bytes;
            logged += counted.logged;
        }
        Ok(Arrived {
            base: base.clone(),
            positions,
            segments,
            segment_bytes,
            logged,
            entries,
            changes,
            left_out,
            is_complete: histories.iter().all(|history| history.ended),
            stages,
            image,
            state: Some(state),
            rows: None,
        })
    }

    /// Whether the snapshot of a plan ends as the log went on, in shards where nothing comes after it that would tell.
    fn stands(&self, plan: &Plan) -> Result<(), Trouble> {
        let archive = self.repo.archive()?;
        let is_last = |shard: &Shard| plan.way.segments.get(shard).is_none_or(Vec::is_empty);
        for (shard, at) in plan.base.positions.iter().filter(|(shard, at)| is_last(shard) && at.seq > 0) {
            let around = |segment: &&Segment| segment.first <= at.seq + 1 && at.seq <= segment.last;
            let segments = archive.of(at.epoch, *shard);
            let there = match segments.iter().filter(around).find(|segment| !self.excluded.contains(segment)) {
                Some(segment) => {
                    let of_no_use = |failure: Failure| match failure.kind() {
                        Kind::Data | Kind::Missing => Trouble::Segment(Box::new(segment.clone()), failure),
                        _ => Trouble::Failed(failure),
                    };
                    let (head, entries) = self.repo.segment(segment).map_err(of_no_use)?;
                    let found = entries.iter().find(|placed| placed.seq == at.seq).map(Placed::placement);
                    found.or(head.before.as_ref().filter(|before| before.seq == at.seq).map(placement))
                }
                None => self.look.map(|look| logged(look, *shard, at.seq)).transpose()?.flatten(),
            };
            if there.is_some_and(|there| there != placement(at)) {
                let words = format!("snapshot {} ends with an entry of shard {shard} that the log lost", plan.base.id);
                return Err(Trouble::Base(Failure::new(Kind::Data, words)));
            }
        }
        Ok(())
    }

    fn history(&self, plan: &Plan, shard: Shard, at: &Position) -> History<'_> {
        let on = plan.way.segments.get(&shard).map_or(&[][..], Vec::as_slice);
        let cut = match &plan.target {
            Target::Newest => Cut::Newest,
            Target::Time(millis) => Cut::Time(*millis),
            Target::Seq(seqs) => seqs.get(&shard).map_or(Cut::Newest, |seq| Cut::Seq(*seq)),
        };
        History {
            repo: self.repo,
            look: self.look,
            shard,
            segments: on.iter().filter(|segment| segment.level != LOG).cloned().collect(),
            through_log: self.look.is_some(),
            cut,
            at: Some(placement(at)),
            after: at.seq,
            is_at_base: true,
            of: None,
            ended: false,
            waiting: None,
            is_holed: false,
            read: super::history::Counted::default(),
        }
    }
}

/// The entry that stands in a place of the log.
fn logged(look: &Look, shard: Shard, seq: u64) -> Result<Option<Placement>, crate::log::Error> {
    let mut there = None;
    look.each(shard, seq, |placed| {
        there = Some(placed.placement()).filter(|there| there.seq == seq);
        Ok::<_, crate::log::Error>(false)
    })?;
    Ok(there)
}

/// The cluster that a snapshot is of.
///
/// # Errors
/// When its manifest names none.
pub fn cluster_of(manifest: &Manifest) -> Result<ClusterId, Failure> {
    let bytes = data_encoding::HEXLOWER.decode(manifest.cluster.as_bytes()).unwrap_or_default();
    bytes.try_into().map_err(|_| {
        Failure::new(Kind::Data, format!("snapshot {} names no cluster: `{}`", manifest.id, manifest.cluster))
    })
}

/// Whether SQLite finds a database sound; gives nothing but that.
///
/// # Errors
/// When it does not.
pub fn is_sound(image: &Path, thoroughly: bool) -> Result<(), Failure> {
    count(&[], "what was restored", image, thoroughly).map(drop)
}
