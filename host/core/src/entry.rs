//! One entry of the log: what a node says to all nodes.

use crate::value::{Row, Value};

/// Which cluster an entry belongs to: drawn by the founder, carried by every entry.
pub type ClusterId = [u8; 16];

/// Who wrote an entry: a node, in one of its lives. A copied database goes on as another incarnation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The node's number.
    pub node: u64,
    /// Which life of the node.
    pub incarnation: u64,
}

impl Origin {
    /// The name in which an origin appends entries without a number: the log fences those with one by its own.
    #[must_use]
    pub fn voice(self) -> Self {
        Self { incarnation: !self.incarnation, ..self }
    }

    /// Whether it is such a name. Incarnations are drawn below 2^63.
    #[must_use]
    pub fn is_voice(self) -> bool {
        self.incarnation > u64::MAX >> 1
    }
}

/// An entry of one shard's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Who wrote it.
    pub origin: Origin,
    /// 1, 2, 3… per shard and origin; 0 for what no outbox holds: see [`Body::is_unnumbered`].
    pub number: u64,
    /// The writer's hybrid logical time.
    pub clock: u64,
    /// What it says.
    pub body: Body,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The first entry of the first shard: what all nodes have agreed to.
    Genesis(Genesis),
    /// The founder's existing rows are in the log up to here.
    Founded,
    /// How the rows of a table spread over shards; the first one about a table holds for ever.
    Route(Route),
    /// What stands at or before this position counts as forgotten, by all nodes from here on: stamps and tombstones.
    Floor(u64),
    /// Policies that are to follow those of now; in the first shard, the first one of a version holds for ever.
    Decided(Decision),
    /// From here on these decided policies hold in this shard.
    InForce(InForce),
    /// Rows written and rows gone.
    Changes(Changes),
    /// A shard that had lost all it held begins again here.
    Anew(Anew),
}

impl Body {
    /// Whether no outbox holds such an entry, and it has no number: to read it twice changes nothing.
    #[must_use]
    pub fn is_unnumbered(&self) -> bool {
        matches!(self, Self::Genesis(_) | Self::Decided(_) | Self::InForce(_) | Self::Anew(_))
    }
}

/// Where whoever begins a shard again stood in what it held before. Nothing of that is in the log any more: who has not
/// come here by the rows of a snapshot can't read on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Anew {
    /// The position,
    pub seq: u64,
    /// when the log had taken the entry there,
    pub time: u64,
    /// and its checksum.
    pub checksum: u64,
}

/// What every node of a cluster agrees to. A node that differs is refused, but for policies, which may change later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Genesis {
    /// Shards the log is cut into.
    pub shards: u32,
    /// Identity of the hash component.
    pub hasher: String,
    /// Its settings, by name.
    pub hasher_settings: Settings,
    /// Identity of the resolver component of tables without a policy of their own.
    pub resolver: String,
    /// Its settings, by name.
    pub resolver_settings: Settings,
    /// What becomes of a clash that it fails at.
    pub on_failure: OnFailure,
    /// Tables with a policy of their own; the first whose pattern matches holds.
    pub policies: Vec<Policy>,
    /// Lowest wire version needed to read this log.
    pub wire: u32,
}

/// What a component is told: names and values.
pub type Settings = Vec<(String, String)>;

/// Who decides clashes of some tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Which tables: a glob over their names.
    pub pattern: String,
    /// Identity of the resolver component.
    pub resolver: String,
    /// Its settings, by name.
    pub settings: Settings,
    /// What becomes of a clash that it fails at.
    pub on_failure: OnFailure,
}

/// What becomes of a clash that its resolver gives no verdict on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// The shard stops before the entry.
    #[default]
    Stop,
    /// What stands stays, and a record says so; for that, nodes must agree on when a resolver has failed.
    Park(Bounds),
}

/// What a resolver may use up over one clash. Where running out of it is an answer, it is the same on all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Fuel of a call, whatever it is about.
    pub fuel_base: u64,
    /// Fuel on top for each clash, table or column.
    pub fuel_per_item: u64,
    /// Fuel on top for each byte handed over.
    pub fuel_per_byte: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes handed back.
    pub returned: u64,
    /// How the engine counts; raised when the same call can use up another amount of any of these.
    pub meter: u32,
}

/// All policies of a cluster, in one of their versions; those of the genesis are version 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// 1, 2, 3…
    pub version: u64,
    /// The first whose pattern matches a table holds. The last one is for all other tables, and has no pattern.
    pub policies: Vec<Policy>,
}

/// Decided policies hold in a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// They.
    pub decision: Decision,
    /// Where whoever says so had stopped, for the policy before gave no verdict; all others have stopped there as well.
    pub halted: Option<Halted>,
}

/// A shard stops before an entry, for its resolver gives no verdict on a clash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Halted {
    /// The entry.
    pub seq: u64,
    /// The clash's table.
    pub table: String,
}

impl From<Decision> for InForce {
    fn from(decision: Decision) -> Self {
        Self { decision, halted: None }
    }
}

impl Genesis {
    /// All policies, as [`Decision::policies`] has them.
    #[must_use]
    pub fn all_policies(&self) -> Vec<Policy> {
        let default = Policy {
            pattern: String::new(),
            resolver: self.resolver.clone(),
            settings: self.resolver_settings.clone(),
            on_failure: self.on_failure,
        };
        self.policies.iter().cloned().chain([default]).collect()
    }
}

/// Where a table's rows go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The table.
    pub table: String,
    /// All of its rows go to one shard, because a UNIQUE index needs one order for them all.
    pub whole: bool,
}

/// What one seal took of one shard: whole commits only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Further pieces of the same unit follow; receivers apply them together.
    pub more: bool,
    /// Position in this shard up to which the origin had seen the log.
    pub seen: u64,
    /// The changes, table by table.
    pub chunks: Vec<Chunk>,
}

/// The changes of one table. Each key stands in it once, either written or gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// The table's name at the origin.
    pub table: String,
    /// Names of the columns that rows carry.
    pub columns: Vec<String>,
    /// Positions of the primary key's columns in `columns`, in key order.
    pub key: Vec<usize>,
    /// UNIQUE indexes the origin holds the table to, besides the primary key: positions in `columns`, with collations.
    pub uniques: Vec<Vec<(usize, String)>>,
    /// Rows as they stood at the seal.
    pub written: Rows,
    /// Keys of rows that were gone at the seal.
    pub gone: Rows,
    /// Changes whose origin had seen less than [`Changes::seen`]: index (written first, then gone) and position.
    pub seen: Vec<(usize, u64)>,
    /// For tables with a policy of their own, what each change was made upon: one a change, or none at all.
    pub made: Vec<Made>,
}

/// What a change was made upon, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// The row as the origin had it before; `None` = it had none.
    pub base: Option<Row>,
    /// Hybrid logical time of the change.
    pub clock: u64,
}

impl Chunk {
    /// How many changes it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.written.len() + self.gone.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Rows of equal width in one piece of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    width: usize,
    values: Vec<Value>,
}

impl Rows {
    /// No rows yet, each to be `width` wide.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Self { width, values: Vec::new() }
    }

    /// Rows out of their values, one row after the other.
    ///
    /// # Panics
    /// If the values are not whole rows.
    #[must_use]
    pub fn from_values(width: usize, values: Vec<Value>) -> Self {
        assert!(values.is_empty() || (width > 0 && values.len().is_multiple_of(width)), "values are not whole rows");
        Self { width, values }
    }

    /// Appends a value; `width` of them make a row.
    pub fn push_value(&mut self, value: Value) {
        self.values.push(value);
    }

    /// Appends a row.
    ///
    /// # Panics
    /// If it is not as wide as the others.
    pub fn push(&mut self, row: Row) {
        assert_eq!(row.len(), self.width, "a row of another width");
        self.values.extend(row);
    }

    /// Values a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Each row.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[Value]> {
        self.values.chunks_exact(self.width.max(1))
    }

    /// One row.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<&[Value]> {
        self.values.get(row * self.width..(row + 1) * self.width)
    }

    /// The values of one column, from the first row to the last.
    pub fn column(&self, column: usize) -> impl Iterator<Item = &Value> {
        self.values.iter().skip(column).step_by(self.width.max(1))
    }

    /// All values, row after row.
    #[must_use]
    pub fn into_values(self) -> Vec<Value> {
        self.values
    }
}
