//! `antiphon snapshot tag`, `pin` and `unpin`: what a user says of a snapshot.

use super::{Source, snapshot};
use crate::failure::Failure;
use crate::snapshot::Note;
use antiphon_core::snapshot::id::SnapshotId;

/// Give a snapshot tags; `--remove` takes them away
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Tag {
    /// Its name
    #[arg(value_name = "ID", value_parser = snapshot)]
    id: SnapshotId,
    /// The tags
    #[arg(value_name = "TAG", required = true, value_parser = tag)]
    tags: Vec<String>,
    /// Take these away
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    source: Source,
}

/// Keep a snapshot, whatever is said of which are to stay
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Pin {
    /// Its name
    #[arg(value_name = "ID", value_parser = snapshot)]
    id: SnapshotId,
    #[command(flatten)]
    source: Source,
}

/// Keep a snapshot only as long as any other
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Unpin {
    /// Its name
    #[arg(value_name = "ID", value_parser = snapshot)]
    id: SnapshotId,
    #[command(flatten)]
    source: Source,
}

fn tag(text: &str) -> Result<String, String> {
    let fine =
        !text.is_empty() && text.len() <= 100 && !text.contains(|sign: char| sign.is_whitespace() || sign == ',');
    if fine { Ok(text.to_owned()) } else { Err("a tag is one word of at most 100 bytes, without a comma".to_owned()) }
}

impl Tag {
    pub(super) fn run(self) -> Result<(), Failure> {
        change(self.source, self.id, |note| {
            for tag in self.tags {
                if self.remove {
                    note.tags.remove(&tag);
                } else {
                    note.tags.insert(tag);
                }
            }
        })
    }
}

impl Pin {
    pub(super) fn run(self) -> Result<(), Failure> {
        change(self.source, self.id, |note| note.pinned = true)
    }
}

impl Unpin {
    pub(super) fn run(self) -> Result<(), Failure> {
        change(self.source, self.id, |note| note.pinned = false)
    }
}

fn change(source: Source, id: SnapshotId, change: impl FnOnce(&mut Note)) -> Result<(), Failure> {
    let found = source.open()?;
    // Nothing is said of what is not there.
    found.manifest(Some(id))?;
    let repo = found.repo();
    let mut note = repo.marks()?.remove(&id).unwrap_or_default().note;
    let before = note.clone();
    change(&mut note);
    if note == before { Ok(()) } else { repo.annotate(id, &note) }
}
