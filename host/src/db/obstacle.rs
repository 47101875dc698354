//! What stands in the way of an entry: of which kind, for those who must tell one from another, and in words for the
//! person who can clear it away.

use crate::log::Shard;
use crate::words::shortened;
use std::fmt;

/// So long its words may be: names in them are whatever somebody wrote to the log.
const WORDS_MAX: usize = 4000;

/// Why the next entry can't be applied here before something changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    kind: ObstacleKind,
    words: String,
}

/// What kind of thing has to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObstacleKind {
    /// There is no such table here.
    Table(String),
    /// A table has no such column here.
    Column {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// Nodes have still to agree over which shards a table spreads. It ends by itself.
    Route,
    /// Policies hold here whose decision the first shard has not come to. It ends by itself.
    Undecided,
    /// A table's policy has to know rows of the log that this node does not have at hand. They are being built from the
    /// log, unless they can't be.
    Uncovered {
        /// They can't be.
        stuck: bool,
    },
    /// A policy names a component that this node does not have.
    Component,
    /// The entry is another cluster's.
    Cluster,
    /// Anything else.
    Other,
}

impl Obstacle {
    /// An obstacle of a kind, in words.
    pub(super) fn new(kind: ObstacleKind, words: impl Into<String>) -> Self {
        Self { kind, words: shortened(words.into(), WORDS_MAX) }
    }

    /// The same, of this entry.
    pub(super) fn at(self, shard: Shard, seq: u64) -> Self {
        Self { words: format!("entry {seq} of shard {shard}: {}", self.words), ..self }
    }

    /// What kind it is of.
    #[must_use]
    pub fn kind(&self) -> &ObstacleKind {
        &self.kind
    }
}

/// One that nobody has to tell from others.
impl From<String> for Obstacle {
    fn from(words: String) -> Self {
        Self::new(ObstacleKind::Other, words)
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}
