//! The one small object that makes a snapshot real.
//!
//! It is written last, and its last line is the BLAKE3 hash of all lines before. A snapshot exists if its manifest is
//! whole; a maker that dies earlier leaves objects that nobody looks at. So nothing depends on the order of a listing,
//! on a lock, or on a rename.

use super::due::Kind;
use super::frame::Method;
use super::id::SnapshotId;
use super::layout::Part;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The newest form of manifests that this version knows.
pub const FORMAT: u32 = 1;
/// More than this is no manifest of ours.
pub const BYTES_MAX: usize = 1 << 20;

/// Everything there is to know of a snapshot without reading its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its form.
    pub format: u32,
    /// Its name.
    #[serde(with = "as_text")]
    pub id: SnapshotId,
    /// The cluster whose rows these are.
    pub cluster: String,
    /// `full` or `incremental`.
    #[serde(with = "kind")]
    pub kind: Kind,
    /// The one that it goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "as_optional_text")]
    pub parent: Option<SnapshotId>,
    /// When its maker's clock said what, in milliseconds since 1970.
    pub created_ms: u64,
    /// Who made it.
    pub node: u64,
    /// The maker's version.
    pub version: String,
    /// How often the lease had changed hands when it was made.
    pub term: u64,
    /// What made it due.
    pub trigger: String,
    /// How long it took.
    pub took_ms: u64,
    /// Where it stands, shard by shard.
    pub positions: BTreeMap<u32, Position>,
    /// The tables that are replicated.
    pub tables: Vec<Table>,
    /// Tables of its maker's alone. They are in the image; no other node takes their rows.
    pub left_out: Vec<String>,
    /// Which tables its maker replicates, by patterns; empty: all there are.
    #[serde(default)]
    pub scope: String,
    /// The first entry of the cluster's log, in hexadecimal digits: by the time that somebody asks, the log may begin
    /// later.
    #[serde(default)]
    pub genesis: String,
    /// The image, for a full one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// The index of all objects that it consists of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Stored>,
}

/// Where a snapshot stands in a shard: everything up to here is in it, and nothing after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Which log it is.
    pub epoch: u64,
    /// The last entry.
    pub seq: u64,
    /// When that came into the log, in nanoseconds since 1970.
    pub time: u64,
    /// Its checksum: a log with another entry there is another log.
    pub checksum: u64,
}

/// A table of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// How many rows it has.
    pub rows: u64,
    /// The digest of its columns and keys.
    pub schema: u64,
}

/// The database file of a full snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its size.
    pub bytes: u64,
    /// The BLAKE3 hash of all of it.
    pub blake3: String,
    /// How it is compressed.
    pub method: Method,
    /// And at which level.
    pub level: i32,
    /// The SQLite that wrote it.
    pub sqlite: String,
}

/// An object as it stands in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its size.
    pub bytes: u64,
    /// The BLAKE3 hash of all of it.
    pub blake3: String,
}

/// All objects of a snapshot, in their order: the object that a manifest calls its index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Bytes of a file in each object but its last.
    pub stride: u64,
    /// Those of the image.
    pub image: Vec<Stored>,
    /// Those of what the host knows of it.
    pub state: Vec<Stored>,
}

impl Index {
    /// The objects of a part.
    #[must_use]
    pub fn of(&self, part: Part) -> &[Stored] {
        match part {
            Part::Image => &self.image,
            Part::State => &self.state,
            Part::Index => &[],
        }
    }
}

/// Why bytes are no manifest that counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It was cut off or changed.
    #[error("snapshot checksum mismatch: expected {expected}, got {got}")]
    Hash {
        /// What its last line says.
        expected: String,
        /// What the lines before it come to.
        got: String,
    },
    /// It has no last line, or is too large.
    #[error("it is not a manifest")]
    NotOne,
    /// A later version wrote it.
    #[error("it is of format {0}, and this version knows {FORMAT}; use a newer one")]
    Newer(u32),
    /// It can't be read.
    #[error("it cannot be read: {0}")]
    Unread(String),
}

impl Stored {
    /// What is to be stored.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, blake3: blake3::hash(bytes).to_hex().to_string() }
    }

    /// Whether these bytes are the ones that were stored.
    ///
    /// # Errors
    /// With both hashes, if not.
    pub fn check(&self, bytes: &[u8]) -> Result<(), Error> {
        let got = Self::of(bytes);
        if got == *self { Ok(()) } else { Err(Error::Hash { expected: self.blake3.clone(), got: got.blake3 }) }
    }
}

impl Manifest {
    /// Whether it holds all rows.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.kind == Kind::Full
    }

    /// As it stands in the store.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Numbers, texts and maps with text for keys: there is nothing in it that JSON can't say.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        let hash = blake3::hash(text.as_bytes()).to_hex();
        text.push_str(&hash);
        text.push('\n');
        text.into_bytes()
    }

    /// What stands in a store under a manifest's name.
    ///
    /// # Errors
    /// When it is not whole, or of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        /// All that every form has.
        #[derive(Deserialize)]
        struct Form {
            format: u32,
        }
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= BYTES_MAX).ok_or(Error::NotOne)?;
        let lines = text.strip_suffix('\n').ok_or(Error::NotOne)?;
        let (_, expected) = lines.rsplit_once('\n').ok_or(Error::NotOne)?;
        let said = text.get(..lines.len() - expected.len()).ok_or(Error::NotOne)?;
        let got = blake3::hash(said.as_bytes()).to_hex().to_string();
        if got != expected {
            return Err(Error::Hash { expected: expected.chars().take(64).collect(), got });
        }
        let unread = |error: serde_json::Error| Error::Unread(error.to_string());
        let form: Form = serde_json::from_str(said).map_err(unread)?;
        if form.format > FORMAT {
            return Err(Error::Newer(form.format));
        }
        serde_json::from_str(said).map_err(unread)
    }
}

mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(id: &super::SnapshotId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<super::SnapshotId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

mod as_optional_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::ref_option, reason = "serde hands over the field")]
    pub(super) fn serialize<S: Serializer>(id: &Option<super::SnapshotId>, serializer: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => serializer.collect_str(id),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<super::SnapshotId>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

mod kind {
    use super::Kind;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over the field")]
    pub(super) fn serialize<S: Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(kind.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
        let name = String::deserialize(deserializer)?;
        let kind = [Kind::Full, Kind::Incremental].into_iter().find(|kind| kind.name() == name);
        kind.ok_or_else(|| D::Error::custom(format!("there is no kind `{name}`")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            id: SnapshotId::new(1_700_000_000_000, 7),
            cluster: "c0ffee".to_owned(),
            kind: Kind::Full,
            parent: None,
            created_ms: 1_700_000_000_000,
            node: 12,
            version: "0.1.0".to_owned(),
            term: 3,
            trigger: "interval".to_owned(),
            took_ms: 1_234,
            positions: BTreeMap::from([(1, Position { epoch: 9, seq: 100, time: 5, checksum: u64::MAX })]),
            tables: vec![Table { name: "gu\"ests\n".to_owned(), rows: 3, schema: 8 }],
            left_out: vec!["notes".to_owned()],
            scope: String::new(),
            genesis: "0a".to_owned(),
            image: Some(Image {
                bytes: 4_096,
                blake3: "00".to_owned(),
                method: Method::Zstd,
                level: 3,
                sqlite: "3.50".to_owned(),
            }),
            index: Some(Stored::of(b"index")),
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let with_parent =
            Manifest { kind: Kind::Incremental, parent: Some(SnapshotId::new(1, 1)), image: None, ..manifest() };
        for manifest in [manifest(), with_parent] {
            assert_eq!(Manifest::from_bytes(&manifest.to_bytes()), Ok(manifest));
        }
    }

    #[test]
    fn a_torn_or_changed_manifest_does_not_count() {
        let bytes = manifest().to_bytes();
        for length in 0..bytes.len() {
            assert!(Manifest::from_bytes(&bytes[..length]).is_err(), "cut at {length}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Manifest::from_bytes(&damaged).is_err(), "damaged at {at}");
        }
    }

    #[test]
    fn one_of_a_later_version_says_so() {
        let later = Manifest { format: FORMAT + 1, ..manifest() };
        assert_eq!(Manifest::from_bytes(&later.to_bytes()), Err(Error::Newer(FORMAT + 1)));
    }

    #[test]
    fn an_object_is_told_by_its_hash() {
        let stored = Stored::of(b"some bytes");
        assert_eq!(stored.check(b"some bytes"), Ok(()));
        let told = stored.check(b"some bytez").unwrap_err().to_string();
        assert!(told.starts_with("snapshot checksum mismatch: expected "), "{told}");
    }
}
