//! Which policy decides clashes of which table.

use super::catalog::Tracked;
use super::foresight::Heir;
use super::ruling::{PLAIN, deciding, is_plain};
use super::samples::Asked;
use super::trial::{Alone, Trial, withhold};
use super::unit::Unit;
use super::{Database, Error, overlay::Image};
use crate::replay::Plugin;
use antiphon_core::entry::{OnFailure, Policy as Agreed};
use antiphon_core::hash::PluginError;
use antiphon_core::resolve::{Clash, LastWriteWins, Needs, Resolve, Side, Stamp, Verdict};
use antiphon_core::schema::Table;
use antiphon_core::value::Row;
use std::borrow::Cow;
use std::sync::Arc;

/// Makes one more resolver of a kind.
pub type Make = Arc<dyn Fn() -> Result<Box<dyn Resolve>, PluginError> + Send + Sync>;

/// The resolver that a policy names.
#[derive(Clone)]
pub struct Found {
    /// What people call it.
    pub name: String,
    /// The component that it is.
    pub plugin: Plugin,
    /// Makes one.
    pub make: Make,
}

impl Found {
    /// One that is no component of anybody's.
    #[must_use]
    pub fn native(name: &str, make: Make) -> Self {
        Self { name: name.to_owned(), plugin: Plugin { name: name.to_owned(), ..Plugin::default() }, make }
    }
}

/// Finds the resolver that a policy of the log names; or says why this node does not have it, and what to do.
pub type Find = Arc<dyn Fn(&Agreed) -> Result<Found, String> + Send + Sync>;

/// A resolver, the tables it decides over, and what it was told.
pub(crate) struct Policy {
    /// The resolver, its settings, and what becomes of a clash that it fails at; no pattern.
    agreed: Agreed,
    name: String,
    plugin: Plugin,
    /// Why there is none, if so.
    resolver: Result<Box<dyn Resolve>, String>,
    needs: Needs,
    /// Tables as it sees them: which, and which of their columns.
    views: Vec<(usize, Vec<usize>)>,
    nodes: Vec<u64>,
}

/// What holds for a table in one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// Who decides clashes over its rows.
    pub(super) policy: usize,
    /// He has to know what was there before: rows have stamps.
    pub(super) resolved: bool,
    /// The position at which that began, or ended. What was before it left no stamps.
    pub(super) since: u64,
}

/// All policies of a node: those it is configured for, and those of the log that it has come upon.
pub struct Policies {
    find: Find,
    own: Vec<Agreed>,
    loaded: Vec<Policy>,
}

impl Default for Policies {
    fn default() -> Self {
        let find: Find = Arc::new(|agreed| {
            let make: Make = Arc::new(|| Ok(Box::new(LastWriteWins)));
            is_plain(agreed).then_some(Found::native(PLAIN, make)).ok_or_else(|| "there is none".to_owned())
        });
        Self::new(find, vec![Agreed { resolver: PLAIN.to_owned(), ..Agreed::default() }])
    }
}

impl Policies {
    /// Where resolvers are found, and the policies that this node is configured for: the last one is for all tables.
    #[must_use]
    pub fn new(find: Find, own: Vec<Agreed>) -> Self {
        Self { find, own, loaded: Vec::new() }
    }

    /// The same policies once more, knowing nothing yet.
    pub(super) fn again(&self) -> Self {
        Self::new(Arc::clone(&self.find), self.own.clone())
    }

    /// What this node is configured for.
    pub(super) fn own(&self) -> &[Agreed] {
        &self.own
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Policy> {
        self.loaded.get_mut(index)
    }

    /// The number of a policy's resolver; loads it if it was not needed before.
    pub(super) fn index(&mut self, agreed: &Agreed) -> usize {
        let agreed = Agreed { pattern: String::new(), ..agreed.clone() };
        if let Some(known) = self.loaded.iter().position(|policy| policy.agreed == agreed) {
            return known;
        }
        let name = agreed.resolver.split('@').next().unwrap_or_default().to_owned();
        let mut policy = Policy {
            agreed,
            name,
            plugin: Plugin::default(),
            resolver: Err(String::new()),
            needs: Needs::default(),
            views: Vec::new(),
            nodes: Vec::new(),
        };
        policy.load(&self.find);
        self.loaded.push(policy);
        self.loaded.len() - 1
    }

    /// Why one of these can't decide anything here, if so. What was missing is looked for again.
    pub(super) fn missing(&mut self, policies: &[Agreed]) -> Option<String> {
        policies.iter().find_map(|agreed| {
            let index = self.index(agreed);
            let policy = self.loaded.get_mut(index)?;
            if policy.resolver.is_err() {
                policy.load(&self.find);
            }
            policy.resolver.as_ref().err().cloned()
        })
    }

    /// Looks again for resolvers that were missing; says whether one was found.
    pub(super) fn find_missing(&mut self) -> bool {
        let mut found = false;
        for policy in self.loaded.iter_mut().filter(|policy| policy.resolver.is_err()) {
            policy.load(&self.find);
            found |= policy.resolver.is_ok();
        }
        found
    }

    /// Why a table's resolver can't decide, if so.
    pub(super) fn is_missing(&self, policy: usize) -> Option<&str> {
        self.loaded.get(policy)?.resolver.as_ref().err().map(String::as_str)
    }
}

impl Database {
    /// What holds for a table in each shard.
    pub(super) fn rules(&mut self, table: &str) -> Vec<Rule> {
        let Self { policies, rulings, .. } = self;
        let own = policies.own.clone();
        let shards = self.cluster.map_or(1, |cluster| cluster.shards);
        (1..=shards)
            .map(|shard| {
                let (mut since, mut resolved) = (0, None);
                let mut last = deciding(&own, table);
                for (seq, policies) in rulings.history(shard) {
                    last = deciding(policies, table);
                    let now = last.is_some_and(|policy| !is_plain(policy));
                    if resolved.is_some_and(|before| before != now) && !crate::flaw!(PolicyWithoutFloor) {
                        since = seq;
                    }
                    resolved = Some(now);
                }
                let agreed = last.cloned().unwrap_or_default();
                Rule { policy: policies.index(&agreed), resolved: !is_plain(&agreed), since }
            })
            .collect()
    }

    /// Whether a table's rows are noted as they were before they change: some policy of it asks for that, or will.
    pub(super) fn notes_rows(&self, table: &str) -> bool {
        let asks = |policies: &[Agreed]| deciding(policies, table).is_some_and(|policy| !is_plain(policy));
        if self.rulings.newest().is_none() {
            return asks(self.policies.own());
        }
        self.rulings.held_or_coming(self.shards()).any(asks)
    }

    /// Makes all resolvers anew, with what they may use up by now. What a shard had stopped for is tried again.
    ///
    /// # Errors
    /// When one does not take its tables.
    pub fn renew_policies(&mut self) -> Result<(), Error> {
        let Policies { find, loaded, .. } = &mut self.policies;
        loaded.iter_mut().for_each(|policy| policy.renew(find));
        self.trials.clear();
        self.configure_policies()
    }

    /// Tells each resolver its tables, with all columns they have here.
    pub(super) fn configure_policies(&mut self) -> Result<(), Error> {
        let nodes = self.ledger.nodes();
        let Self { policies, tables, .. } = self;
        for (index, policy) in policies.loaded.iter_mut().enumerate() {
            policy.views = tables
                .iter()
                .enumerate()
                .filter(|(_, tracked)| tracked.rules.iter().any(|rule| rule.policy == index))
                .map(|(at, tracked)| (at, (0..tracked.table.columns.len()).collect()))
                .collect();
            policy.nodes.clone_from(&nodes);
            policy.configure(tables)?;
        }
        Ok(())
    }

    /// The resolver's name of a table's policy.
    pub(super) fn policy_name(&self, policy: usize) -> &str {
        self.policies.loaded.get(policy).map_or(PLAIN, |policy| &policy.name)
    }

    /// Puts clashes to a table's resolver; rows hold the columns that both sides know.
    pub(super) fn decide(
        &mut self,
        unit: &Unit,
        index: usize,
        columns: &[usize],
        nodes: &[u64],
        clashes: impl FnOnce(&Seen<'_>) -> Vec<Clash>,
    ) -> Result<Vec<Answer>, Error> {
        let name = self.tables.get(index).map(|tracked| tracked.table.name.clone()).unwrap_or_default();
        // They may need to see more.
        let has_heirs = !self.heirs(unit.shard, unit.seq, &name).is_empty();
        let Self { policies, tables, trials, samples, .. } = self;
        let ruled = tables.get(index).map(|tracked| tracked.rule(unit.shard).policy);
        let Some((at, policy)) = ruled.and_then(|at| Some((at, policies.loaded.get_mut(at)?))) else {
            return Err(Error::Inconsistent("a table without a policy".to_owned()));
        };
        let view = policy.see(index, columns, nodes, tables)?;
        let needs = Needs { base: policy.needs.base || has_heirs, ..policy.needs };
        let clashes = clashes(&Seen { table: view, columns, nodes: &policy.nodes, needs });
        let mut answers = Vec::with_capacity(clashes.len());
        for batch in clashes.chunks(CLASHES_MAX) {
            let trial = trials.get(&unit.shard).filter(|trial| trial.is_of(unit.seq));
            let known: Vec<Option<Answer>> = trial.map_or_else(Vec::new, |trial| {
                let answer = |clash| policy.alone(clash, tables).and_then(|alone| trial.answer(&alone));
                batch.iter().map(answer).collect()
            });
            let is_known = |at: usize| matches!(known.get(at), Some(Some(_)));
            let open: Cow<'_, [Clash]> = if (0..batch.len()).any(is_known) {
                batch.iter().enumerate().filter(|(at, _)| !is_known(*at)).map(|(_, clash)| clash.clone()).collect()
            } else {
                batch.into()
            };
            let mut verdicts = match policy.ask(&open) {
                Ok(verdicts) => verdicts.into_iter(),
                Err(error) if is_plain(&policy.agreed) => return Err(error.into()),
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
                let answer = known.next().flatten();
                answers.extend(answer.or_else(|| Some(Decision::Verdict(verdicts.next()?).into())));
            }
        }
        if let Some(table) = policy.views.get(view as usize).and_then(|view| policy.view(view, tables)) {
            let Unit { shard, seq, .. } = *unit;
            let asked = Asked { shard, seq, table: &table, policy: &policy.name, nodes: &policy.nodes };
            samples.take(&asked, &clashes, &answers);
        }
        if answers.iter().any(|answer: &Answer| answer.heir.is_some()) {
            self.note_inherited(unit.shard, unit.seq)?;
        }
        Ok(answers)
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

/// What becomes of it, and which policy says so if it is not the one that held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) decision: Decision,
    pub(super) heir: Option<Heir>,
}

impl From<Decision> for Answer {
    fn from(decision: Decision) -> Self {
        Self { decision, heir: None }
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
    /// Looks for its resolver.
    fn load(&mut self, find: &Find) {
        self.resolver = find(&self.agreed).and_then(|found| {
            (self.name, self.plugin) = (found.name, found.plugin);
            (found.make)().map_err(|error| error.to_string())
        });
    }

    /// Looks for its resolver again, and keeps the one it has if there is none to be had.
    fn renew(&mut self, find: &Find) {
        if let Ok(found) = find(&self.agreed)
            && let Ok(resolver) = (found.make)()
        {
            (self.name, self.plugin, self.resolver) = (found.name, found.plugin, Ok(resolver));
        }
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
        self.agreed.on_failure != OnFailure::Stop
    }

    pub(super) fn resolver(&mut self) -> Result<&mut dyn Resolve, PluginError> {
        match &mut self.resolver {
            Ok(resolver) => Ok(&mut **resolver),
            Err(why) => Err(PluginError(why.clone())),
        }
    }

    /// One verdict a clash.
    fn ask(&mut self, batch: &[Clash]) -> Result<Vec<Verdict>, PluginError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let withheld = |clash: &Clash| {
            let mut clash = clash.clone();
            withhold(&mut clash, self.needs);
            clash
        };
        let batch: Cow<'_, [Clash]> = if !self.needs.base && batch.iter().any(|clash| clash.base.is_some()) {
            batch.iter().map(withheld).collect()
        } else {
            batch.into()
        };
        let answers = self.resolver()?.resolve(&batch)?;
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
        if let Ok(resolver) = &mut self.resolver {
            self.needs = resolver.configure(&nodes, &tables)?;
        }
        Ok(())
    }
}
