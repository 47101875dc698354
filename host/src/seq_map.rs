//! A file that tells other tools how far each shard was applied: a CBOR map from the stream's name to its position.
//!
//! It is written aside after each commit and then renamed, so whoever reads it reads a whole one. The host never reads
//! it: the truth stands in the database, with the rows.

use crate::log::Shard;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The file, and what stands in it.
#[derive(Clone, Debug)]
pub struct SeqMap(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// What streams are called, up to the shard's number.
    prefix: String,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    positions: BTreeMap<String, u64>,
    said: bool,
}

impl SeqMap {
    /// A map at this path, for streams named `<prefix>-<shard>`.
    #[must_use]
    pub fn new(path: PathBuf, prefix: String) -> Self {
        Self(Arc::new(Inner { path, prefix, written: Mutex::default() }))
    }

    /// Writes how far shards were applied. A file that can't be written is worth one warning and no more.
    pub fn note(&self, positions: impl IntoIterator<Item = (Shard, u64)>) {
        let Inner { path, prefix, written } = &*self.0;
        let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
        written.positions.extend(positions.into_iter().map(|(shard, seq)| (format!("{prefix}-{shard}"), seq)));
        match write(path, &written.positions) {
            Ok(()) => written.said = false,
            Err(error) => {
                if !std::mem::replace(&mut written.said, true) {
                    tracing::warn!(file = %path.display(), %error, "cannot write `seq_map_path`; only other tools miss it");
                }
            }
        }
    }
}

fn write(path: &Path, positions: &BTreeMap<String, u64>) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    ciborium::into_writer(positions, &mut bytes).map_err(std::io::Error::other)?;
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
    file.write_all(&bytes)?;
    std::fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> BTreeMap<String, u64> {
        ciborium::from_reader(std::fs::read(path).unwrap().as_slice()).unwrap()
    }

    #[test]
    fn each_note_replaces_a_whole_map() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seq-map.cbor");
        let map = SeqMap::new(path.clone(), "changes".to_owned());
        map.note([(1, 42)]);
        assert_eq!(std::fs::read(&path).unwrap(), b"\xa1\x69changes-1\x18\x2a");
        map.note([(2, 7)]);
        map.note([(1, 43)]);
        assert_eq!(read(&path), BTreeMap::from([("changes-1".to_owned(), 43), ("changes-2".to_owned(), 7)]));
        // Damaged or gone, it is written anew.
        std::fs::write(&path, b"garbage").unwrap();
        map.note([(1, 44)]);
        assert_eq!(read(&path).len(), 2);
        std::fs::remove_file(&path).unwrap();
        map.note([(1, 45)]);
        assert_eq!(read(&path).get("changes-1"), Some(&45));
    }

    #[test]
    fn a_folder_that_is_gone_is_nobodys_end() {
        let map = SeqMap::new(PathBuf::from("/nowhere/at/all"), "changes".to_owned());
        map.note([(1, 1)]);
    }
}
