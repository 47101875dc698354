//! All that is kept of a cluster, copied from one store into another: a backup of the backups.
//!
//! Names stand for one content for ever, so what is there already is not copied again. Manifests come last: a copy that
//! is cut off leaves no snapshot that points at nothing.

use super::stored;
use crate::failure::Failure;
use antiphon_core::snapshot::layout::Object;
use antiphon_core::store::{ErrorKind, LIST_MAX, Name, Put, Store};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// What was copied, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Objects that were not there yet.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were there already.
    pub there: u64,
    /// Objects that went while they were copied, as those of a snapshot do that is pruned.
    pub gone: u64,
}

/// Copies what `from` has of a cluster and `to` lacks, several objects at once.
///
/// # Errors
/// When one of the stores refuses. What was copied till then stays, and the next copy goes on from there.
pub fn copy(
    from: &dyn Store,
    to: &dyn Store,
    cluster: &str,
    parallel: usize,
    dry_run: bool,
) -> Result<Copied, Failure> {
    let folder = format!("{cluster}/");
    let there = all(to, &folder)?;
    let here = all(from, &folder)?;
    let is_there = |name: &Name, size: u64| there.get(name) == Some(&size);
    let mut copied = Copied::default();
    let mut waves: [Vec<Name>; 2] = [Vec::new(), Vec::new()];
    for (name, size) in &here {
        let object = name.as_str().strip_prefix(&folder).and_then(Object::named);
        // What somebody else keeps there is not ours, and the class that objects lie in there is not that of their copies.
        let Some(object) = object.filter(|object| !matches!(object, Object::Aged(..))) else { continue };
        if is_there(name, *size) {
            copied.there += 1;
            continue;
        }
        copied.objects += 1;
        copied.bytes += *size;
        let [first, last] = &mut waves;
        if matches!(object, Object::Manifest(_)) { last.push(name.clone()) } else { first.push(name.clone()) }
    }
    if dry_run {
        return Ok(copied);
    }
    for names in &waves {
        fault!("repo-copying");
        copied.gone += each(from, to, names, parallel)?;
    }
    copied.objects -= copied.gone;
    Ok(copied)
}

/// Copies these; gives how many of them were gone.
fn each(from: &dyn Store, to: &dyn Store, names: &[Name], parallel: usize) -> Result<u64, Failure> {
    let next = AtomicUsize::new(0);
    let gone = Mutex::new(0);
    let failed: Mutex<Option<Failure>> = Mutex::new(None);
    let run = || {
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                return;
            }
            match one(from, to, name) {
                Ok(true) => {}
                Ok(false) => *gone.lock().unwrap_or_else(PoisonError::into_inner) += 1,
                Err(failure) => {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..parallel.min(names.len()) {
            scope.spawn(run);
        }
        run();
    });
    let gone = gone.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(gone), Err)
}

/// Copies one; `false` if it is gone.
fn one(from: &dyn Store, to: &dyn Store, name: &Name) -> Result<bool, Failure> {
    let body = match from.get(name, None) {
        Err(error) if error.kind == ErrorKind::NotFound => return Ok(false),
        body => body.map_err(|error| stored(format!("cannot read `{name}`"), &error))?,
    };
    // What was wrong when it was read is found by the hashes in it, by whoever reads the copy.
    crate::storage::put(to, name, &body, Put::Replace)
        .map_err(|error| stored(format!("cannot store a copy of `{name}`"), &error))?;
    Ok(true)
}

/// The sizes of all objects in a folder.
fn all(store: &dyn Store, folder: &str) -> Result<BTreeMap<Name, u64>, Failure> {
    let mut found = BTreeMap::new();
    let mut after: Option<Name> = None;
    loop {
        let page = store.list(folder, after.as_ref(), LIST_MAX);
        let page = page.map_err(|error| stored("cannot list snapshots", &error))?;
        let is_last = page.len() < LIST_MAX as usize;
        after = page.last().map(|object| object.name.clone());
        found.extend(page.into_iter().map(|object| (object.name, object.size)));
        if is_last {
            return Ok(found);
        }
    }
}
