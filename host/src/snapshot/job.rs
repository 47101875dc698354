//! A snapshot that is ready to be stored, as it lies on the disk: what a node that was stopped or killed meanwhile goes on
//! with, for what it had stored by then is stored.

use super::unwritten;
use crate::failure::Failure;
use antiphon_core::snapshot::manifest::Manifest;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Its folder in the host's own directory.
const FOLDER: &str = "snapshot-job";
/// What is said of it there; written last.
const SAID: &str = "job.json";
/// An older one is made anew: what it had stored is an orphan by and by.
const AGE_MAX_MS: u64 = 6 * 3_600_000;

/// A snapshot that is ready to be stored.
#[derive(Debug)]
pub(super) struct Job {
    folder: PathBuf,
    /// What it says of itself, but for what is known only when it is stored.
    pub(super) manifest: Manifest,
    /// It was left by an earlier process.
    pub(super) is_left: bool,
}

#[derive(Serialize, Deserialize)]
struct Said {
    manifest: Manifest,
    /// Hashes of both files: what a disk that lost its power kept of them may be anything.
    image: String,
    state: String,
}

impl Job {
    /// Takes over what was made in another folder of the same disk.
    pub(super) fn keep(own: &Path, manifest: Manifest, image: &Path, state: &Path) -> Result<Self, Failure> {
        let folder = own.join(FOLDER);
        remove(&folder)?;
        DirBuilder::new().mode(0o700).create(&folder).map_err(|error| unwritten(&folder, &error))?;
        let job = Self { folder, manifest, is_left: false };
        for (from, to) in [(image, job.image()), (state, job.state())] {
            std::fs::rename(from, &to).map_err(|error| unwritten(&to, &error))?;
        }
        let said = Said { manifest: job.manifest.clone(), image: hash(&job.image())?, state: hash(&job.state())? };
        let path = job.folder.join(SAID);
        let text = serde_json::to_vec(&said).unwrap_or_default();
        let write = || -> std::io::Result<()> {
            let aside = path.with_extension("new");
            let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&aside)?;
            // Not synced: what a power cut leaves of it is told by its hashes, or is no JSON.
            file.write_all(&text)?;
            std::fs::rename(&aside, &path)
        };
        write().map_err(|error| unwritten(&path, &error))?;
        fault!("snapshot-kept");
        Ok(job)
    }

    /// The one that an earlier process left, if it is young and whole.
    pub(super) fn left(own: &Path) -> Option<Self> {
        let folder = own.join(FOLDER);
        let said = std::fs::read(folder.join(SAID)).ok();
        let said = said.and_then(|text| serde_json::from_slice::<Said>(&text).ok());
        let found = said.and_then(|Said { manifest, image, state }| {
            let age = crate::clock::unix_ms().saturating_sub(manifest.created_ms);
            let job = Self { folder: folder.clone(), manifest, is_left: true };
            let is_whole = age < AGE_MAX_MS
                && hash(&job.image()).is_ok_and(|found| found == image)
                && hash(&job.state()).is_ok_and(|found| found == state);
            is_whole.then_some(job)
        });
        if found.is_none()
            && let Err(failure) = remove(&folder)
        {
            tracing::warn!(%failure, "a snapshot that was being made is left as it is");
        }
        found
    }

    /// Rows.
    pub(super) fn image(&self) -> PathBuf {
        self.folder.join("image.db")
    }

    /// What goes with them.
    pub(super) fn state(&self) -> PathBuf {
        self.folder.join("state.db")
    }

    /// It is stored, or will never be.
    pub(super) fn end(&self) {
        if let Err(failure) = remove(&self.folder) {
            tracing::warn!(%failure, "what a snapshot was made from is left on the disk");
        }
    }
}

fn remove(folder: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unwritten(folder, &error)),
        _ => Ok(()),
    }
}

fn hash(path: &Path) -> Result<String, Failure> {
    let mut hasher = blake3::Hasher::new();
    let copied = File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut hasher));
    copied.map_err(|error| unwritten(path, &error))?;
    Ok(hasher.finalize().to_hex().to_string())
}
