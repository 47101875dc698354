//! Which policy a table has in a history, and the twin that decides in its place.

use crate::random::Random;
use crate::schema::{STOCK, TABLES};
use antiphon::db::Make;
use antiphon_core::entry::Policy;
use antiphon_core::resolve::Resolve;
use antiphon_harness::{ColumnMerge, Counter, FirstWriteWins, Fussy, NewestWins, NodePriority};
use std::sync::Arc;

/// A table's policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rule {
    #[default]
    Plain,
    First,
    Newest,
    Merge,
    /// A merge that fails at some clashes; these are parked.
    Fussy,
    Count,
    Priority,
}

/// One for each of [`TABLES`].
pub(crate) type Rules = [Rule; TABLES.len()];

impl Rule {
    pub(crate) const ALL: [Self; 7] =
        [Self::Plain, Self::First, Self::Newest, Self::Merge, Self::Fussy, Self::Count, Self::Priority];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "last-write-wins",
            Self::First => "first-write-wins",
            Self::Newest => "newest-wins",
            Self::Merge => "column-merge",
            Self::Fussy => "fussy",
            Self::Count => "counter",
            Self::Priority => "node-priority",
        }
    }

    /// The rule of this name.
    pub(crate) fn of(name: &str) -> Self {
        *Self::ALL.iter().find(|rule| rule.name() == name).expect("a policy that nobody has")
    }

    /// A twin of the component.
    pub(crate) fn twin(self) -> Box<dyn Resolve> {
        match self {
            Self::Plain => Box::new(antiphon_core::resolve::LastWriteWins),
            Self::First => Box::new(FirstWriteWins),
            Self::Newest => Box::new(NewestWins::default()),
            Self::Merge => Box::new(ColumnMerge),
            Self::Fussy => Box::new(Fussy),
            Self::Count => Box::new(Counter::new(&["n"])),
            Self::Priority => Box::new(NodePriority::new(&["2", "3"])),
        }
    }

    pub(crate) fn make(self) -> Make {
        Arc::new(move || Ok(self.twin()))
    }
}

/// What these policies say of each table.
pub(crate) fn rules_of(policies: &[Policy]) -> Rules {
    let deciding = |table: &str| policies.iter().find(|policy| policy.pattern == table || policy.pattern.is_empty());
    std::array::from_fn(|table| deciding(TABLES[table].name).map_or(Rule::Plain, |policy| Rule::of(&policy.resolver)))
}

/// What is proposed in the middle of a history: some tables get another policy, or lose theirs.
pub(crate) fn other(random: &mut Random, mut rules: Rules) -> Rules {
    for (table, rule) in rules.iter_mut().enumerate() {
        if random.chance(55) {
            continue;
        }
        *rule = random.weighted(&[
            (35, Rule::Plain),
            (15, Rule::First),
            (12, Rule::Newest),
            (15, Rule::Merge),
            (10, Rule::Fussy),
            (if table == STOCK { 40 } else { 0 }, Rule::Count),
            (8, Rule::Priority),
        ]);
    }
    rules
}

/// Half of the histories know only the order of the log; in the others each table draws its policy.
pub(crate) fn rules(seed: u64) -> Rules {
    // Of its own, so that the histories of old keep their seeds.
    let mut random = Random::new(seed ^ 0x5eed_0f7a_b1e5);
    let mut rules = Rules::default();
    if random.chance(50) {
        return rules;
    }
    for rule in &mut rules {
        *rule = random.weighted(&[
            (30, Rule::Plain),
            (15, Rule::First),
            (15, Rule::Newest),
            (20, Rule::Merge),
            (10, Rule::Fussy),
            (10, Rule::Priority),
        ]);
    }
    rules[STOCK] = random.weighted(&[(70, Rule::Count), (20, Rule::Merge), (10, Rule::Newest)]);
    rules
}
