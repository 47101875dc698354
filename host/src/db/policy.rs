//! Which policy decides clashes of which table.

use super::catalog::Tracked;
use super::{Database, Error, overlay::Image};
use antiphon_core::hash::PluginError;
use antiphon_core::resolve::{Clash, LastWriteWins, Needs, Resolve, Verdict};
use antiphon_core::schema::Table;
use antiphon_core::value::Row;
use globset::{Glob, GlobMatcher};
use std::sync::Arc;

/// Makes one more resolver of a kind.
pub type Make = Arc<dyn Fn() -> Result<Box<dyn Resolve>, PluginError> + Send + Sync>;

/// A resolver, the tables it decides over, and what it was told.
pub struct Policy {
    name: String,
    tables: Option<GlobMatcher>,
    /// What is later in the log wins: nothing has to be kept to know that.
    plain: bool,
    make: Make,
    resolver: Box<dyn Resolve>,
    needs: Needs,
    /// Tables as it sees them: which, and which of their columns.
    views: Vec<(usize, Vec<usize>)>,
    nodes: Vec<u64>,
}

/// What decides over rows that nodes changed without knowing of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The order of the log: what is later wins, and nothing has to be kept to know that.
    Log,
    /// The resolver, which is asked about each clash.
    Resolver,
}

impl Policy {
    /// A policy by the resolver's name, for tables that match, or for all that no other policy decides over.
    ///
    /// # Errors
    /// When the resolver can't be made.
    pub fn new(name: &str, order: Order, tables: Option<&Glob>, make: Make) -> Result<Self, PluginError> {
        Ok(Self {
            name: name.to_owned(),
            tables: tables.map(Glob::compile_matcher),
            plain: order == Order::Log,
            resolver: make()?,
            make,
            needs: Needs::default(),
            views: Vec::new(),
            nodes: Vec::new(),
        })
    }
}

/// All policies of a node. The first that matches a table decides over it.
pub struct Policies(Vec<Policy>);

/// What the default policy is called.
const PLAIN: &str = "last-write-wins";

impl Default for Policies {
    fn default() -> Self {
        let make: Make = Arc::new(|| Ok(Box::new(LastWriteWins)));
        Self(vec![Policy {
            name: PLAIN.to_owned(),
            tables: None,
            plain: true,
            make,
            resolver: Box::new(LastWriteWins),
            needs: Needs::default(),
            views: Vec::new(),
            nodes: Vec::new(),
        }])
    }
}

impl Policies {
    /// Policies in the order in which they are looked through; the last one is for all tables.
    #[must_use]
    pub fn new(policies: Vec<Policy>) -> Self {
        Self(policies)
    }

    /// The same policies once more, knowing nothing yet.
    ///
    /// # Errors
    /// When a resolver can't be made.
    pub(super) fn again(&self) -> Result<Self, PluginError> {
        let again = |policy: &Policy| {
            Ok(Policy {
                name: policy.name.clone(),
                tables: policy.tables.clone(),
                plain: policy.plain,
                make: Arc::clone(&policy.make),
                resolver: (policy.make)()?,
                needs: Needs::default(),
                views: Vec::new(),
                nodes: Vec::new(),
            })
        };
        self.0.iter().map(again).collect::<Result<_, _>>().map(Self)
    }

    /// Which policy decides over a table, and whether it has to know what was there before.
    pub(super) fn of(&self, table: &str) -> (usize, bool) {
        let decides = |policy: &Policy| policy.tables.as_ref().is_none_or(|tables| tables.is_match(table));
        let index = self.0.iter().position(decides).unwrap_or(0);
        (index, self.0.get(index).is_some_and(|policy| !policy.plain))
    }
}

impl Database {
    /// Tells each resolver its tables, with all columns they have here.
    pub(super) fn configure_policies(&mut self) -> Result<(), Error> {
        let nodes = self.ledger.nodes();
        let Self { policies, tables, .. } = self;
        for (index, policy) in policies.0.iter_mut().enumerate() {
            policy.views = tables
                .iter()
                .enumerate()
                .filter(|(_, tracked)| tracked.policy == index)
                .map(|(at, tracked)| (at, (0..tracked.table.columns.len()).collect()))
                .collect();
            policy.nodes.clone_from(&nodes);
            policy.configure(tables)?;
        }
        Ok(())
    }

    /// The resolver's name of a table's policy.
    pub(super) fn policy_name(&self, policy: usize) -> &str {
        self.policies.0.get(policy).map_or(PLAIN, |policy| &policy.name)
    }

    /// Puts clashes to a table's resolver; rows hold the columns that both sides know.
    pub(super) fn decide(
        &mut self,
        index: usize,
        columns: &[usize],
        nodes: &[u64],
        clashes: impl FnOnce(&Seen<'_>) -> Vec<Clash>,
    ) -> Result<Vec<Verdict>, Error> {
        let Self { policies, tables, .. } = self;
        let Some(policy) = tables.get(index).and_then(|tracked| policies.0.get_mut(tracked.policy)) else {
            return Err(Error::Inconsistent("a table without a policy".to_owned()));
        };
        let view = policy.see(index, columns, nodes, tables)?;
        let clashes = clashes(&Seen { table: view, columns, nodes: &policy.nodes, needs: policy.needs });
        let mut verdicts = Vec::with_capacity(clashes.len());
        for batch in clashes.chunks(CLASHES_MAX) {
            let answers = policy.resolver.resolve(batch)?;
            if answers.len() != batch.len() {
                return Err(PluginError(format!("{} answers to {} clashes", answers.len(), batch.len())).into());
            }
            verdicts.extend(answers);
        }
        Ok(verdicts)
    }
}

/// Clashes put to a resolver in one call.
pub(super) const CLASHES_MAX: usize = 512;

/// How a resolver names what it is shown.
pub(super) struct Seen<'a> {
    pub(super) table: u32,
    pub(super) needs: Needs,
    columns: &'a [usize],
    nodes: &'a [u64],
}

impl Seen<'_> {
    /// A row as the resolver sees it.
    pub(super) fn row(&self, image: &Image) -> Row {
        let value = |&column: &usize| image.get(column).cloned().flatten().unwrap_or_default();
        self.columns.iter().map(value).collect()
    }

    /// The number of a node.
    pub(super) fn node(&self, node: u64) -> u32 {
        let at = self.nodes.iter().position(|known| *known == node).unwrap_or(usize::MAX);
        u32::try_from(at).unwrap_or(u32::MAX)
    }
}

impl Policy {
    /// Sees to it that the resolver knows these columns of a table, and these nodes; gives the table's number.
    fn see(&mut self, index: usize, columns: &[usize], nodes: &[u64], tables: &[Tracked]) -> Result<u32, Error> {
        let known = self.views.iter().position(|(table, known)| *table == index && known == columns);
        let view = known.unwrap_or_else(|| {
            self.views.push((index, columns.to_vec()));
            self.views.len() - 1
        });
        let unknown = nodes.iter().any(|node| !self.nodes.contains(node));
        if unknown {
            self.nodes.extend(nodes);
            self.nodes.sort_unstable();
            self.nodes.dedup();
        }
        if known.is_none() || unknown {
            self.configure(tables)?;
        }
        u32::try_from(view).map_err(|_| Error::Inconsistent("more tables than numbers".to_owned()))
    }

    fn configure(&mut self, tables: &[Tracked]) -> Result<(), PluginError> {
        let view = |(index, columns): &(usize, Vec<usize>)| {
            let table = tables.get(*index).map(|tracked| &tracked.table)?;
            let columns = columns.iter().filter_map(|&column| table.columns.get(column).cloned()).collect();
            Some(Table { columns, uniques: Vec::new(), ..table.clone() })
        };
        let tables: Vec<Table> = self.views.iter().filter_map(view).collect();
        let nodes: Vec<String> = self.nodes.iter().map(u64::to_string).collect();
        self.needs = self.resolver.configure(&nodes, &tables)?;
        Ok(())
    }
}
