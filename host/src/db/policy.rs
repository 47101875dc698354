//! Which policy decides clashes of which table.

use super::catalog::Tracked;
use super::trial::{Alone, Trial};
use super::unit::Unit;
use super::{Database, Error, overlay::Image};
use crate::replay::Plugin;
use antiphon_core::entry::OnFailure;
use antiphon_core::hash::PluginError;
use antiphon_core::resolve::{Clash, LastWriteWins, Needs, Resolve, Side, Stamp, Verdict};
use antiphon_core::schema::Table;
use antiphon_core::value::Row;
use globset::{Glob, GlobMatcher};
use std::borrow::Cow;
use std::sync::Arc;

/// Makes one more resolver of a kind.
pub type Make = Arc<dyn Fn() -> Result<Box<dyn Resolve>, PluginError> + Send + Sync>;

/// A resolver, the tables it decides over, and what it was told.
pub struct Policy {
    name: String,
    tables: Option<GlobMatcher>,
    /// What is later in the log wins: nothing has to be kept to know that.
    plain: bool,
    on_failure: OnFailure,
    plugin: Plugin,
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
        Ok(Self::with(name, order, tables.map(Glob::compile_matcher), make()?, make))
    }

    fn with(name: &str, order: Order, tables: Option<GlobMatcher>, resolver: Box<dyn Resolve>, make: Make) -> Self {
        Self {
            name: name.to_owned(),
            tables,
            plain: order == Order::Log,
            on_failure: OnFailure::Stop,
            plugin: Plugin { name: name.to_owned(), ..Plugin::default() },
            make,
            resolver,
            needs: Needs::default(),
            views: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// The same policy, which does this about clashes that its resolver fails at.
    #[must_use]
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.on_failure = on_failure;
        self
    }

    /// The same policy, whose resolver is this component.
    #[must_use]
    pub fn plugged(mut self, plugin: Plugin) -> Self {
        self.plugin = plugin;
        self
    }

    /// The component that its resolver is.
    pub(crate) fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// What its resolver wants to see.
    pub(crate) fn needs(&self) -> Needs {
        self.needs
    }

    /// Whether a clash that it fails at leaves the row that stands.
    pub(super) fn parks(&self) -> bool {
        self.on_failure != OnFailure::Stop
    }

    pub(super) fn resolver(&mut self) -> &mut dyn Resolve {
        &mut *self.resolver
    }
}

/// All policies of a node. The first that matches a table decides over it.
pub struct Policies(Vec<Policy>);

/// What the default policy is called.
const PLAIN: &str = "last-write-wins";

impl Default for Policies {
    fn default() -> Self {
        let make: Make = Arc::new(|| Ok(Box::new(LastWriteWins)));
        Self(vec![Policy::with(PLAIN, Order::Log, None, Box::new(LastWriteWins), make)])
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
            let order = if policy.plain { Order::Log } else { Order::Resolver };
            let (tables, make) = (policy.tables.clone(), Arc::clone(&policy.make));
            let again = Policy::with(&policy.name, order, tables, (policy.make)()?, make);
            Ok(again.on_failure(policy.on_failure).plugged(policy.plugin.clone()))
        };
        self.0.iter().map(again).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Policy> {
        self.0.get_mut(index)
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
        unit: &Unit,
        index: usize,
        columns: &[usize],
        nodes: &[u64],
        clashes: impl FnOnce(&Seen<'_>) -> Vec<Clash>,
    ) -> Result<Vec<Decision>, Error> {
        let Self { policies, tables, trials, .. } = self;
        let Some((at, policy)) =
            tables.get(index).and_then(|tracked| Some((tracked.policy, policies.0.get_mut(tracked.policy)?)))
        else {
            return Err(Error::Inconsistent("a table without a policy".to_owned()));
        };
        let view = policy.see(index, columns, nodes, tables)?;
        let clashes = clashes(&Seen { table: view, columns, nodes: &policy.nodes, needs: policy.needs });
        let mut decisions = Vec::with_capacity(clashes.len());
        for batch in clashes.chunks(CLASHES_MAX) {
            let trial = trials.get(&unit.shard).filter(|trial| trial.is_of(unit.seq));
            let known: Vec<Option<Decision>> = trial.map_or_else(Vec::new, |trial| {
                let decision = |clash| policy.alone(clash, tables).and_then(|alone| trial.decision(&alone));
                batch.iter().map(decision).collect()
            });
            let is_known = |at: usize| matches!(known.get(at), Some(Some(_)));
            let open: Cow<'_, [Clash]> = if (0..batch.len()).any(is_known) {
                batch.iter().enumerate().filter(|(at, _)| !is_known(*at)).map(|(_, clash)| clash.clone()).collect()
            } else {
                batch.into()
            };
            let mut answers = match policy.ask(&open) {
                Ok(answers) => answers.into_iter(),
                Err(error) if policy.plain => return Err(error.into()),
                Err(error) => {
                    tracing::debug!(%error, clashes = open.len(), "a resolver fails; its clashes are tried one by one");
                    let alone = open.iter().map(|clash| policy.alone(clash, tables)).collect::<Option<Vec<_>>>();
                    let alone = alone.ok_or_else(|| Error::Inconsistent("a clash of no table".to_owned()))?;
                    let trial = trials.entry(unit.shard).or_insert_with(|| Trial::of(unit.seq));
                    if !trial.is_of(unit.seq) {
                        *trial = Trial::of(unit.seq);
                    }
                    trial.wait(at, alone);
                    return Err(Error::Undecided);
                }
            };
            let mut known = known.into_iter();
            for _ in batch {
                let decision = known.next().flatten();
                decisions.extend(decision.or_else(|| answers.next().map(Decision::Verdict)));
            }
        }
        Ok(decisions)
    }
}

/// What becomes of a clash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// What its resolver says.
    Verdict(Verdict),
    /// Its resolver says nothing, for this reason, and what stands stays.
    Parked(String),
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
    /// One verdict a clash.
    fn ask(&mut self, batch: &[Clash]) -> Result<Vec<Verdict>, PluginError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let answers = self.resolver.resolve(batch)?;
        if answers.len() != batch.len() {
            return Err(PluginError(format!("{} answers to {} clashes", answers.len(), batch.len())));
        }
        Ok(answers)
    }

    /// A clash without anything that another node may not know of.
    fn alone(&self, clash: &Clash, tables: &[Tracked]) -> Option<Alone> {
        let table = self.view(self.views.get(clash.table as usize)?, tables)?;
        let mut clash = Clash { table: 0, ..clash.clone() };
        // Where nothing is known of who wrote a row, the stamp is all zeros and names nobody.
        let of = |side: &Side| (side.stamp != Stamp::default()).then(|| self.nodes.get(side.stamp.node as usize));
        let mut nodes: Vec<u64> =
            [of(&clash.current), of(&clash.incoming)].into_iter().flatten().flatten().copied().collect();
        nodes.sort_unstable();
        nodes.dedup();
        for side in [&mut clash.current, &mut clash.incoming] {
            let number = self.nodes.get(side.stamp.node as usize).and_then(|node| nodes.binary_search(node).ok());
            if side.stamp != Stamp::default() {
                side.stamp.node = u32::try_from(number?).ok()?;
            }
        }
        Some(Alone { nodes: nodes.iter().map(u64::to_string).collect(), table, clash })
    }

    /// A table as the resolver sees it.
    fn view(&self, (index, columns): &(usize, Vec<usize>), tables: &[Tracked]) -> Option<Table> {
        let table = tables.get(*index).map(|tracked| &tracked.table)?;
        let columns = columns.iter().filter_map(|&column| table.columns.get(column).cloned()).collect();
        Some(Table { columns, uniques: Vec::new(), ..table.clone() })
    }

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
        let tables: Vec<Table> = self.views.iter().filter_map(|view| self.view(view, tables)).collect();
        let nodes: Vec<String> = self.nodes.iter().map(u64::to_string).collect();
        self.needs = self.resolver.configure(&nodes, &tables)?;
        Ok(())
    }
}
