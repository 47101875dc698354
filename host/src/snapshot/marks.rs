//! What was said of snapshots after they were made: tags, pins, that one is to go, how one was found.
//!
//! A snapshot itself never changes. Each of these is an object of its own, with its time in its name; of two of a kind the
//! later one holds.

use super::expired::Expired;
use super::repo::Repo;
use super::saved::Level;
use super::stored;
use crate::failure::{Failure, Kind};
use antiphon_core::snapshot::id::SnapshotId;
use antiphon_core::snapshot::keep::{self, Kept};
use antiphon_core::snapshot::layout::Object;
use antiphon_core::snapshot::manifest::Manifest;
use antiphon_core::store::{ErrorKind, LIST_MAX, Name, Put};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What a user says of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Note {
    /// What he calls it.
    pub tags: BTreeSet<String>,
    /// It stays, whatever else is said.
    pub pinned: bool,
}

/// All that was said of one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// What a user says of it.
    pub note: Note,
    /// When it was said that it is to go, in milliseconds since 1970.
    pub forgotten_ms: Option<u64>,
    /// When it was last found whole.
    pub verified_ms: Option<u64>,
    /// When it was last put together and read by SQLite, row by row.
    pub restored_ms: Option<u64>,
    /// When it was last found not to be what was put there.
    pub damaged_ms: Option<u64>,
    /// Since when it lies in a cheaper class of storage.
    pub aged_ms: Option<u64>,
}

impl Marks {
    /// When it was found whole, if that is how it was found last.
    #[must_use]
    pub fn whole_ms(&self) -> Option<u64> {
        self.verified_ms.filter(|at| self.damaged_ms.is_none_or(|damaged| damaged < *at))
    }

    /// That it is not what was put there was seen last.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.damaged_ms.is_some() && self.whole_ms().is_none()
    }
}

/// What a prune did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Snapshots that are gone.
    pub snapshots: Vec<String>,
    /// Objects that belonged to none.
    pub orphans: u64,
    /// Segments of the archive that nobody needs: no snapshot leads up to them, a wider one holds what is in them, or they
    /// did not count.
    pub segments: u64,
    /// Objects that were removed, these and those of snapshots.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What there is.
#[derive(Debug, Default)]
pub struct Listed {
    /// Snapshots, the newest first, each with what was said of it.
    pub snapshots: Vec<(Manifest, Marks)>,
    /// Those that don't count, and why.
    pub damaged: Vec<(SnapshotId, Failure)>,
}

/// For how long what is to go stays after all.
#[derive(Clone, Copy, Debug)]
pub struct Grace {
    /// A snapshot that was forgotten: longer than the longest restore.
    pub forgotten_ms: u64,
    /// Objects that belong to none: longer than the longest upload.
    pub orphans_ms: u64,
    /// For so long back any point in time is reached; as far as snapshots lead, if nothing is said.
    pub window_ms: Option<u64>,
}

impl Default for Grace {
    fn default() -> Self {
        Self { forgotten_ms: 24 * 3_600_000, orphans_ms: 48 * 3_600_000, window_ms: None }
    }
}

impl Repo<'_> {
    /// All that was said, by snapshot.
    ///
    /// # Errors
    /// When the store can't be listed or read.
    pub fn marks(&self) -> Result<BTreeMap<SnapshotId, Marks>, Failure> {
        let mut all: BTreeMap<SnapshotId, Marks> = BTreeMap::new();
        // Listed by name, and in each name the later time comes later.
        let mut notes: BTreeMap<SnapshotId, Name> = BTreeMap::new();
        for (name, object, _) in self.objects("note/")? {
            if let Object::Note(id, _) = object {
                notes.insert(id, name);
            }
        }
        for (id, name) in notes {
            all.entry(id).or_default().note = self.note(&name)?;
        }
        for (_, object, _) in self.objects("tomb/")? {
            if let Object::Tombstone(id, at) = object {
                all.entry(id).or_default().forgotten_ms = Some(at);
            }
        }
        for (_, object, _) in self.objects("verify/")? {
            if let Object::Verified(id, at) = object {
                all.entry(id).or_default().verified_ms = Some(at);
            }
        }
        for (_, object, _) in self.objects("restored/")? {
            if let Object::Restored(id, at) = object {
                all.entry(id).or_default().restored_ms = Some(at);
            }
        }
        for (_, object, _) in self.objects("damaged/")? {
            if let Object::Damaged(id, at) = object {
                all.entry(id).or_default().damaged_ms = Some(at);
            }
        }
        for (_, object, _) in self.objects("aged/")? {
            if let Object::Aged(id, at) = object {
                all.entry(id).or_default().aged_ms = Some(at);
            }
        }
        Ok(all)
    }

    fn note(&self, name: &Name) -> Result<Note, Failure> {
        match self.store().get(name, None) {
            // A note that can't be read keeps what it may have kept.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or(Note { pinned: true, ..Note::default() })),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(Note::default()),
            Err(error) => Err(stored("cannot read a note on a snapshot", &error)),
        }
    }

    /// Says something of a snapshot, in place of what was said before.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn annotate(&self, id: SnapshotId, note: &Note) -> Result<(), Failure> {
        let text = serde_json::to_vec(note)
            .map_err(|error| Failure::caused(Kind::General, "cannot write a note on a snapshot", &error))?;
        self.say(&Object::Note(id, crate::clock::unix_ms()), &text)
    }

    /// Says that a snapshot is to go. It stays, for whoever reads it, until a prune after the grace.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn forget(&self, id: SnapshotId) -> Result<(), Failure> {
        self.say(&Object::Tombstone(id, crate::clock::unix_ms()), b"{}")
    }

    /// Says that a snapshot was found whole.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn vouch(&self, id: SnapshotId) -> Result<(), Failure> {
        self.say(&Object::Verified(id, crate::clock::unix_ms()), b"{}")
    }

    /// Notes how a snapshot was found that was looked at so thoroughly.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn note_found(&self, id: SnapshotId, level: Level, found: Result<(), &Failure>) -> Result<(), Failure> {
        match found {
            Ok(()) if level == Level::Quick => Ok(()),
            Ok(()) => {
                if level == Level::Restore {
                    self.say(&Object::Restored(id, crate::clock::unix_ms()), b"{}")?;
                }
                self.vouch(id)
            }
            // One that was removed meanwhile is not damaged.
            Err(_) if self.ids()?.contains(&id) => self.say(&Object::Damaged(id, crate::clock::unix_ms()), b"{}"),
            Err(_) => Ok(()),
        }
    }

    /// Asks whoever makes snapshots for a new one.
    ///
    /// # Errors
    /// When the store refuses.
    pub(super) fn ask(&self, node: u64) -> Result<(), Failure> {
        self.say(&Object::Asked(crate::clock::unix_ms(), node), b"{}")
    }

    /// Who asked for one, and when: what stands for it in the store.
    ///
    /// # Errors
    /// When the store can't be listed.
    pub(super) fn asked(&self) -> Result<BTreeSet<Name>, Failure> {
        let objects = self.objects("ask/")?.into_iter();
        Ok(objects.filter_map(|(name, object, _)| matches!(object, Object::Asked(..)).then_some(name)).collect())
    }

    /// They have what they asked for.
    ///
    /// # Errors
    /// When the store refuses.
    pub(super) fn answer(&self, asked: &BTreeSet<Name>) -> Result<(), Failure> {
        let names: Vec<Name> = asked.iter().cloned().collect();
        if names.is_empty() {
            return Ok(());
        }
        self.store().delete(&names).map_err(|error| stored("cannot remove a request for a snapshot", &error))
    }

    pub(super) fn say(&self, object: &Object, bytes: &[u8]) -> Result<(), Failure> {
        let name = self.name(object)?;
        crate::storage::put(self.store(), &name, bytes, Put::Replace)
            .map(drop)
            .map_err(|error| stored("cannot write a note on a snapshot", &error))
    }

    /// All snapshots.
    ///
    /// # Errors
    /// When the store can't be listed or read.
    pub fn all(&self) -> Result<Listed, Failure> {
        let mut marks = self.marks()?;
        let mut listed = Listed::default();
        for id in self.ids()? {
            match self.manifest(id) {
                Ok(manifest) => listed.snapshots.push((manifest, marks.remove(&id).unwrap_or_default())),
                Err(failure) if failure.kind() == Kind::Missing => {}
                Err(failure) if failure.kind() == Kind::Data => listed.damaged.push((id, failure)),
                Err(failure) => return Err(failure),
            }
        }
        Ok(listed)
    }

    /// Removes what was forgotten longer ago than the grace, and objects that belong to nothing. A manifest goes first:
    /// what is cut off leaves objects that nobody looks at, and no manifest that points at nothing.
    ///
    /// # Errors
    /// When the store can't be listed, for a part is not enough to know what may go; or when the newest snapshot is not
    /// whole.
    pub fn prune(&self, grace: Grace, dry_run: bool) -> Result<Pruned, Failure> {
        let now = crate::clock::unix_ms();
        let is_over = |at: u64, grace: u64| now.saturating_sub(at) >= grace;
        let marks = self.marks()?;
        let ids: BTreeSet<SnapshotId> = self.ids()?.into_iter().collect();
        let going: BTreeSet<SnapshotId> = marks
            .iter()
            .filter(|(_, marks)| !marks.note.pinned)
            .filter(|(_, marks)| marks.forgotten_ms.is_some_and(|at| is_over(at, grace.forgotten_ms)))
            .map(|(id, _)| *id)
            .collect();
        if let Some(newest) = ids.iter().rev().find(|id| !going.contains(id)) {
            self.manifest(*newest).map_err(|failure| {
                failure
                    .context("nothing was pruned, for the newest snapshot is not whole")
                    .hint("see `antiphon snapshot verify --all`, and make a new one first: `antiphon snapshot create`")
            })?;
        }
        let mut pruned = Pruned::default();
        let mut names: Vec<Name> = Vec::new();
        for (name, object, size) in self.objects("base/")? {
            let Object::Payload { snapshot, .. } = object else { continue };
            let is_orphan = !ids.contains(&snapshot) && is_over(snapshot.millis(), grace.orphans_ms);
            if going.contains(&snapshot) || is_orphan {
                pruned.orphans += u64::from(is_orphan && !going.contains(&snapshot));
                pruned.bytes += size;
                names.push(name);
            }
        }
        let from_ms = grace.window_ms.map(|window| now.saturating_sub(window));
        let left = ids.difference(&going).copied().collect();
        // One that is soon to go, or is not what was put there, leads to nothing for as long as the window is to last.
        let stays = |id| marks.get(&id).is_none_or(|marks| marks.forgotten_ms.is_none() && !marks.is_damaged());
        let Expired { floors, objects } = self.expired(&left, stays, |at| is_over(at, grace.forgotten_ms), from_ms)?;
        pruned.segments = objects.iter().filter(|(_, is_segment, _)| *is_segment).count() as u64;
        pruned.bytes += objects.iter().map(|(_, _, size)| size).sum::<u64>();
        names.extend(objects.into_iter().map(|(name, ..)| name));
        let manifests = going.iter().filter(|id| ids.contains(id));
        let manifests = manifests.map(|id| self.name(&Object::Manifest(*id))).collect::<Result<Vec<_>, _>>()?;
        pruned.snapshots = going.iter().filter(|id| ids.contains(id)).map(ToString::to_string).collect();
        // Last, so that what was cut off goes on at the next prune.
        let mut said: Vec<Name> = Vec::new();
        for prefix in ["note/", "tomb/", "verify/", "restored/", "damaged/", "aged/"] {
            for (name, object, _) in self.objects(prefix)? {
                let of = match object {
                    Object::Note(id, _)
                    | Object::Tombstone(id, _)
                    | Object::Verified(id, _)
                    | Object::Restored(id, _)
                    | Object::Damaged(id, _)
                    | Object::Aged(id, _) => id,
                    _ => continue,
                };
                if going.contains(&of) {
                    said.push(name);
                }
            }
        }
        pruned.objects = (manifests.len() + names.len() + said.len()) as u64;
        if dry_run {
            return Ok(pruned);
        }
        // First, so that nobody looks for what is gone.
        for floor in &floors {
            fault!("snapshot-floor");
            self.say(floor, b"{}")?;
        }
        for names in [manifests, names, said] {
            for names in names.chunks(LIST_MAX as usize) {
                fault!("snapshot-prune");
                self.store().delete(names).map_err(|error| stored("cannot remove objects of snapshots", &error))?;
            }
        }
        Ok(pruned)
    }
}

/// Says of snapshots that need not stay that they are to go; how many.
pub(super) fn forget(repo: &Repo<'_>, wish: &keep::Wish, dry_run: bool) -> Result<usize, Failure> {
    let all = repo.all()?.snapshots;
    let standing: Vec<Kept> = all.iter().filter(|(_, marks)| marks.forgotten_ms.is_none()).map(kept).collect();
    let sorted = keep::sort_out(&standing, wish, crate::clock::unix_ms()).map_err(|error| {
        Failure::new(Kind::Config, error.to_string()).hint("say under `[snapshot.keep]` which are to stay")
    })?;
    let going: Vec<SnapshotId> = sorted.into_iter().filter(|(_, why)| why.is_empty()).map(|(id, _)| id).collect();
    if !dry_run {
        going.iter().try_for_each(|id| repo.forget(*id))?;
    }
    Ok(going.len())
}

/// What there is to know for keeping one or not.
#[must_use]
pub fn kept((manifest, marks): &(Manifest, Marks)) -> Kept {
    Kept {
        id: manifest.id,
        created_ms: manifest.created_ms,
        parent: manifest.parent,
        tags: marks.note.tags.iter().cloned().collect(),
        pinned: marks.note.pinned,
        verified: marks.whole_ms().is_some(),
    }
}
