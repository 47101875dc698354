//! The snapshots of one cluster in a store: which there are, and what stands in their manifests.

use super::stored;
use crate::failure::{Failure, Kind};
use antiphon_core::snapshot::id::SnapshotId;
use antiphon_core::snapshot::layout::{Object, Part};
use antiphon_core::snapshot::manifest::{self, Manifest};
use antiphon_core::store::{LIST_MAX, Name, Put, Store};
use std::collections::{BTreeMap, BTreeSet};

/// The snapshots of one cluster.
#[derive(Clone, Copy)]
pub struct Repo<'s> {
    store: &'s dyn Store,
    cluster: &'s str,
}

impl<'s> Repo<'s> {
    /// Those of this cluster, by its name in hexadecimal digits.
    #[must_use]
    pub fn new(store: &'s dyn Store, cluster: &'s str) -> Self {
        Self { store, cluster }
    }

    /// The clusters that have snapshots in a store.
    ///
    /// # Errors
    /// When it can't be listed.
    pub fn clusters(store: &dyn Store) -> Result<BTreeSet<String>, Failure> {
        let mut clusters = BTreeSet::new();
        let mut after: Option<Name> = None;
        loop {
            let page =
                store.list("", after.as_ref(), LIST_MAX).map_err(|error| stored("cannot list snapshots", &error))?;
            for object in &page {
                let Some((cluster, rest)) = object.name.as_str().split_once('/') else { continue };
                if matches!(Object::named(rest), Some(Object::Manifest(_))) {
                    clusters.insert(cluster.to_owned());
                }
            }
            if page.len() < LIST_MAX as usize {
                return Ok(clusters);
            }
            after = page.last().map(|object| object.name.clone());
        }
    }

    /// The cluster, in hexadecimal digits.
    #[must_use]
    pub fn cluster(&self) -> &'s str {
        self.cluster
    }

    /// The store.
    pub(super) fn store(&self) -> &'s dyn Store {
        self.store
    }

    /// The name of an object in the store.
    pub(super) fn name(&self, object: &Object) -> Result<Name, Failure> {
        Name::new(format!("{}/{}", self.cluster, object.name()))
            .map_err(|error| Failure::caused(Kind::General, "cannot name an object of a snapshot", &error))
    }

    /// All objects whose names begin so, below the folder of the cluster.
    pub(super) fn objects(&self, prefix: &str) -> Result<Vec<(Name, Object, u64)>, Failure> {
        let folder = format!("{}/", self.cluster);
        let prefix = format!("{folder}{prefix}");
        let mut objects = Vec::new();
        let mut after: Option<Name> = None;
        loop {
            let page = self
                .store
                .list(&prefix, after.as_ref(), LIST_MAX)
                .map_err(|error| stored("cannot list snapshots", &error))?;
            for found in &page {
                let object = found.name.as_str().strip_prefix(&folder).and_then(Object::named);
                objects.extend(object.map(|object| (found.name.clone(), object, found.size)));
            }
            if page.len() < LIST_MAX as usize {
                return Ok(objects);
            }
            after = page.last().map(|found| found.name.clone());
        }
    }

    /// The names of all snapshots, the newest first.
    ///
    /// # Errors
    /// When the store can't be listed.
    pub fn ids(&self) -> Result<Vec<SnapshotId>, Failure> {
        let objects = self.objects("snap/")?;
        let mut ids: Vec<SnapshotId> = objects
            .into_iter()
            .filter_map(|(_, object, _)| if let Object::Manifest(id) = object { Some(id) } else { None })
            .collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        Ok(ids)
    }

    /// What stands in a snapshot's manifest.
    ///
    /// # Errors
    /// When it can't be read, or is not whole: then there is no such snapshot.
    pub fn manifest(&self, id: SnapshotId) -> Result<Manifest, Failure> {
        let attempted = || format!("failed to download snapshot {id}");
        let name = self.name(&Object::Manifest(id))?;
        let bytes = self.store.get(&name, None).map_err(|error| stored(attempted(), &error))?;
        let manifest = Manifest::from_bytes(&bytes).map_err(|error| unreadable(&error).context(attempted()))?;
        if manifest.id != id || manifest.cluster != self.cluster {
            return Err(Failure::new(
                Kind::Data,
                format!("{}: its manifest is that of {} of cluster {}", attempted(), manifest.id, manifest.cluster),
            )
            .hint("somebody copied or renamed objects in the store; use another snapshot: `antiphon snapshot list`"));
        }
        Ok(manifest)
    }

    /// The numbers of the objects that a part of a snapshot lies in.
    pub(super) fn numbers(&self, id: SnapshotId, of: Part) -> Result<Vec<u32>, Failure> {
        let objects = self.objects(&format!("base/{id}/"))?.into_iter();
        let mut numbers: Vec<u32> = objects
            .filter_map(|(_, object, _)| match object {
                Object::Payload { part, number, .. } if part == of => Some(number),
                _ => None,
            })
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The sizes of all that a snapshot consists of, as the store says them.
    pub(super) fn sizes(&self, id: SnapshotId) -> Result<BTreeMap<Name, u64>, Failure> {
        let objects = self.objects(&format!("base/{id}/"))?;
        Ok(objects.into_iter().map(|(name, _, size)| (name, size)).collect())
    }

    /// Bytes in the store that a snapshot consists of.
    ///
    /// # Errors
    /// When the store can't be listed.
    pub fn stored_bytes(&self, id: SnapshotId) -> Result<u64, Failure> {
        Ok(self.sizes(id)?.values().sum())
    }

    /// Objects that belong to no snapshot, and their sizes; those of one that is still being made are among them.
    ///
    /// # Errors
    /// When the store can't be listed.
    pub fn orphans(&self) -> Result<Vec<(Name, u64)>, Failure> {
        let ids: BTreeSet<SnapshotId> = self.ids()?.into_iter().collect();
        let of_none = |object: &Object| matches!(object, Object::Payload { snapshot, .. } if !ids.contains(snapshot));
        let objects = self.objects("base/")?.into_iter().filter(|(_, object, _)| of_none(object));
        Ok(objects.map(|(name, _, size)| (name, size)).collect())
    }

    /// Makes a snapshot real: everything else of it is there.
    pub(super) fn commit(&self, manifest: &Manifest) -> Result<(), Failure> {
        let name = self.name(&Object::Manifest(manifest.id))?;
        fault!("snapshot-commit");
        crate::storage::put(self.store, &name, &manifest.to_bytes(), Put::Replace)
            .map_err(|error| stored("cannot store the snapshot's manifest", &error))?;
        fault!("snapshot-committed");
        Ok(())
    }
}

impl std::fmt::Debug for Repo<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repo").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// What is no manifest, as the end of what was to be done with it.
pub(super) fn unreadable(error: &manifest::Error) -> Failure {
    let failure = Failure::new(Kind::Data, error.to_string());
    match error {
        manifest::Error::Newer(_) => failure.hint("use the version of this program that wrote it, or a later one"),
        _ => failure
            .hint("an object in the store was damaged or cut off; use another snapshot: `antiphon snapshot list`"),
    }
}
