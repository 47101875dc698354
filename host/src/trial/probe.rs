//! The same questions asked in other ways: a component that only computes answers them alike.
//!
//! Whatever an answer could depend on besides the question is varied: the instance, what it was asked before, the batch
//! around the question, and the numbers by which nodes and tables go on this node.

use super::cases::{shown_clash, shown_hash};
use super::dice::Dice;
use super::draw::{Field, packed};
use super::notation::{Brief, ShownVerdict, exact, exact_row};
use antiphon_core::hash::{Hash, PluginError};
use antiphon_core::resolve::{Clash, Resolve, Verdict};
use antiphon_core::schema::{Column, Table};
use antiphon_plugin::{Hasher, Resolver};
use std::fmt::Write as _;

/// Most questions in a call: what a node asks at once.
const BATCH: usize = 512;

/// A component that is asked.
pub trait Ask {
    /// A question.
    type Question: Clone;
    /// An answer.
    type Answer: Clone + PartialEq;

    /// From now on a new instance is asked, which knows these nodes and tables.
    ///
    /// # Errors
    /// When the component refuses them.
    fn begin(&mut self, field: &Field) -> Result<(), PluginError>;

    /// Asks all of these at once.
    ///
    /// # Errors
    /// When it has no answer.
    fn ask(&mut self, questions: &[Self::Question]) -> Result<Vec<Self::Answer>, PluginError>;

    /// The same question where nodes and tables go by other numbers.
    fn renumbered(question: &Self::Question, numbers: &Numbers) -> Self::Question;

    /// The question as a person reads it, in lines.
    fn shown(question: &Self::Question, field: &Field) -> Vec<String>;

    /// The answer as a person reads it.
    fn shown_answer(answer: &Self::Answer) -> String;

    /// Appends questions and answers bit for bit, for digests.
    fn write(questions: &[Self::Question], answers: &[Self::Answer]) -> [String; 2];
}

/// Other numbers for nodes and tables: by the old one, the new one.
#[derive(Clone, Debug)]
pub struct Numbers {
    nodes: Vec<u32>,
    tables: Vec<u32>,
}

impl Numbers {
    fn of(numbers: &[u32], old: u32) -> u32 {
        numbers.get(old as usize).copied().unwrap_or(old)
    }
}

impl Ask for Resolver {
    type Question = Clash;
    type Answer = Verdict;

    fn begin(&mut self, field: &Field) -> Result<(), PluginError> {
        self.configure(&field.nodes, &field.tables).map(drop)
    }

    fn ask(&mut self, questions: &[Clash]) -> Result<Vec<Verdict>, PluginError> {
        self.resolve(questions)
    }

    fn renumbered(question: &Clash, numbers: &Numbers) -> Clash {
        let mut question = question.clone();
        question.table = Numbers::of(&numbers.tables, question.table);
        for side in [&mut question.current, &mut question.incoming] {
            side.stamp.node = Numbers::of(&numbers.nodes, side.stamp.node);
        }
        question
    }

    fn shown(question: &Clash, field: &Field) -> Vec<String> {
        let table = field.tables.get(question.table as usize).map_or("?", |table| table.name.as_str());
        let mut lines = vec![format!("table     {table}")];
        lines.extend(shown_clash(question, &field.nodes));
        lines
    }

    fn shown_answer(answer: &Verdict) -> String {
        match answer {
            Verdict::Merge(row) => format!("merge {}", Brief(row)),
            answer => ShownVerdict(answer).to_string(),
        }
    }

    fn write(questions: &[Clash], answers: &[Verdict]) -> [String; 2] {
        let mut asked = String::new();
        for clash in questions {
            // Writing to a String can't fail.
            let _ = write!(asked, "{} {:?}", clash.table, clash.cause);
            for side in [&clash.current, &clash.incoming] {
                let _ = write!(asked, " {:?}", side.stamp);
            }
            let rows = [Some(&clash.key), clash.base.as_ref(), clash.current.row.as_ref(), clash.incoming.row.as_ref()];
            for row in rows {
                asked.push('|');
                if let Some(row) = row {
                    exact_row(&mut asked, row);
                }
            }
            asked.push('\n');
        }
        [asked, exact(answers)]
    }
}

/// A key of a table, in canonical bytes.
pub type Key = (u32, Vec<u8>);

impl Ask for Hasher {
    type Question = Key;
    type Answer = u64;

    fn begin(&mut self, field: &Field) -> Result<(), PluginError> {
        self.configure(&field.tables)
    }

    /// One call is about one table.
    fn ask(&mut self, questions: &[Key]) -> Result<Vec<u64>, PluginError> {
        let mut answers = vec![0; questions.len()];
        let tables: std::collections::BTreeSet<u32> = questions.iter().map(|(table, _)| *table).collect();
        for table in tables {
            let of_table = || questions.iter().enumerate().filter(|(_, (of, _))| *of == table);
            let keys: Vec<&Vec<u8>> = of_table().map(|(_, (_, key))| key).collect();
            let hashes = self.hash(table, &packed(&keys))?;
            for ((at, _), hash) in of_table().zip(hashes) {
                if let Some(answer) = answers.get_mut(at) {
                    *answer = hash;
                }
            }
        }
        Ok(answers)
    }

    fn renumbered((table, key): &Key, numbers: &Numbers) -> Key {
        (Numbers::of(&numbers.tables, *table), key.clone())
    }

    fn shown((table, key): &Key, field: &Field) -> Vec<String> {
        let table = field.tables.get(*table as usize).map_or("?", |table| table.name.as_str());
        let mut bytes = String::new();
        for byte in key {
            let _ = write!(bytes, "{byte:02x}");
        }
        vec![format!("table     {table}"), format!("key       {bytes} (canonical bytes)")]
    }

    fn shown_answer(answer: &u64) -> String {
        shown_hash(*answer)
    }

    fn write(questions: &[Key], answers: &[u64]) -> [String; 2] {
        let mut asked = String::new();
        let mut answered = String::new();
        for ((table, key), hash) in questions.iter().zip(answers) {
            let _ = writeln!(asked, "{table} {key:02x?}");
            let _ = writeln!(answered, "{hash:016x}");
        }
        [asked, answered]
    }
}

/// What was varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In another fresh instance.
    Again,
    /// In another order.
    Order,
    /// One at a time.
    Singly,
    /// In batches of other sizes.
    Batches,
    /// By an instance that has served before.
    Served,
    /// Where nodes and tables go by other numbers, as on another node.
    Numbers,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Again, Self::Order, Self::Singly, Self::Batches, Self::Served, Self::Numbers];

    /// The way in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Again => "in another fresh instance",
            Self::Order => "in another order",
            Self::Singly => "one at a time",
            Self::Batches => "in batches of other sizes",
            Self::Served => "after it has served others",
            Self::Numbers => "with other numbers for nodes and tables",
        }
    }

    /// What a difference means.
    #[must_use]
    pub fn means(self) -> &'static str {
        match self {
            Self::Again => "its answers differ from run to run",
            Self::Order | Self::Singly | Self::Batches => "an answer depends on what else is asked",
            Self::Served => "an answer depends on what was asked before",
            Self::Numbers => "an answer depends on numbers that differ from node to node, and not on the names",
        }
    }
}

/// One question with two answers.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The question, in lines.
    pub question: Vec<String>,
    /// The answer of a fresh instance.
    pub first: String,
    /// The answer the other way.
    pub then: String,
    /// How many questions had two answers.
    pub count: usize,
}

/// What came of asking.
#[derive(Clone, Debug)]
pub struct Probed {
    /// How many questions.
    pub asked: usize,
    /// The sha256 of the questions, and of the answers: the same on every machine.
    pub digests: [String; 2],
    /// By each way: no difference, a difference, or the reason why there was no answer.
    pub ways: Vec<(Way, Result<Option<Difference>, String>)>,
}

/// Why the questions can't be put to the component at all.
#[derive(Clone, Debug)]
pub enum Unasked {
    /// It refuses settings or tables.
    Refused(String),
    /// It fails over a question, in lines, or over so many that no single one can be blamed.
    Failed {
        /// Why.
        why: String,
        /// The question, if a single one is to blame.
        question: Vec<String>,
    },
}

/// Asks the same questions in every way. `tick` is told of every call.
///
/// # Errors
/// When there is no answer to compare with.
pub fn probe<A: Ask>(
    asked: &mut A,
    field: &Field,
    questions: &[A::Question],
    dice: &mut Dice,
    tick: &mut dyn FnMut(),
) -> Result<Probed, Unasked> {
    asked.begin(field).map_err(|error| Unasked::Refused(error.to_string()))?;
    let reference = match in_batches(asked, questions, |_| BATCH, tick) {
        Ok(reference) => reference,
        Err(error) => return Err(blame(asked, field, questions, &error, tick)),
    };
    let [questions_text, answers_text] = A::write(questions, &reference);
    let digests = [questions_text, answers_text].map(|text| antiphon_plugin::sha256(text.as_bytes()));
    let mut ways = Vec::new();
    for way in Way::ALL {
        let answers = other_way(asked, way, field, questions, dice, tick);
        let compared = answers.map(|answers| compare::<A>(field, questions, &reference, &answers));
        ways.push((way, compared.map_err(|error| error.to_string())));
    }
    Ok(Probed { asked: questions.len(), digests, ways })
}

fn other_way<A: Ask>(
    asked: &mut A,
    way: Way,
    field: &Field,
    questions: &[A::Question],
    dice: &mut Dice,
    tick: &mut dyn FnMut(),
) -> Result<Vec<A::Answer>, PluginError> {
    // The instance that has served is the one of the way before.
    if way != Way::Served && way != Way::Numbers {
        asked.begin(field)?;
    }
    match way {
        Way::Again => in_batches(asked, questions, |_| BATCH, tick),
        Way::Order => {
            let mut order: Vec<usize> = (0..questions.len()).collect();
            dice.shuffle(&mut order);
            let shuffled: Vec<_> = order.iter().filter_map(|&at| questions.get(at).cloned()).collect();
            let answers = in_batches(asked, &shuffled, |_| BATCH, tick)?;
            let mut answers: Vec<_> = order.into_iter().zip(answers).collect();
            answers.sort_by_key(|(at, _)| *at);
            Ok(answers.into_iter().map(|(_, answer)| answer).collect())
        }
        Way::Singly => in_batches(asked, questions, |_| 1, tick),
        Way::Batches => in_batches(asked, questions, |dice| 1 + dice.place(97), tick),
        Way::Served => in_batches(asked, questions, |_| BATCH, tick),
        Way::Numbers => {
            let (field, numbers) = renumber(field);
            asked.begin(&field)?;
            let questions: Vec<_> = questions.iter().map(|question| A::renumbered(question, &numbers)).collect();
            in_batches(asked, &questions, |_| BATCH, tick)
        }
    }
}

fn in_batches<A: Ask>(
    asked: &mut A,
    questions: &[A::Question],
    size: impl Fn(&mut Dice) -> usize,
    tick: &mut dyn FnMut(),
) -> Result<Vec<A::Answer>, PluginError> {
    let mut dice = Dice::new(questions.len() as u64);
    let mut answers = Vec::with_capacity(questions.len());
    let mut rest = questions;
    while !rest.is_empty() {
        let (batch, after) = rest.split_at(size(&mut dice).clamp(1, rest.len()));
        let answered = asked.ask(batch)?;
        // Those of components are checked; a difference in number would compare others than were meant.
        if answered.len() != batch.len() {
            return Err(PluginError(format!("{} answers to {} questions", answered.len(), batch.len())));
        }
        answers.extend(answered);
        rest = after;
        tick();
    }
    Ok(answers)
}

fn compare<A: Ask>(
    field: &Field,
    questions: &[A::Question],
    reference: &[A::Answer],
    answers: &[A::Answer],
) -> Option<Difference> {
    let mut differing = questions.iter().zip(reference.iter().zip(answers)).filter(|(_, (first, then))| first != then);
    let (question, (first, then)) = differing.next()?;
    Some(Difference {
        question: A::shown(question, field),
        first: A::shown_answer(first),
        then: A::shown_answer(then),
        count: 1 + differing.count(),
    })
}

/// Which question alone makes it fail, if one does: found by halves.
fn blame<A: Ask>(
    asked: &mut A,
    field: &Field,
    questions: &[A::Question],
    error: &PluginError,
    tick: &mut dyn FnMut(),
) -> Unasked {
    let mut fails = |questions: &[A::Question]| {
        asked.begin(field).ok()?;
        in_batches(asked, questions, |_| BATCH, tick).err()
    };
    let mut suspects = questions;
    while suspects.len() > 1 {
        let (first, second) = suspects.split_at(suspects.len() / 2);
        suspects = if fails(first).is_some() { first } else { second };
    }
    match (suspects.first(), fails(suspects)) {
        (Some(question), Some(alone)) => {
            Unasked::Failed { why: alone.to_string(), question: A::shown(question, field) }
        }
        _ => Unasked::Failed { why: error.to_string(), question: Vec::new() },
    }
}

/// The same nodes and tables among others, in the order in which a node knows them.
fn renumber(field: &Field) -> (Field, Numbers) {
    let column = |name: &str, pk_position| Column {
        name: name.to_owned(),
        decl_type: "INTEGER".to_owned(),
        pk_position,
        collation: "BINARY".to_owned(),
        not_null: pk_position > 0,
    };
    let more =
        Table { name: "a_table_more".to_owned(), columns: vec![column("id", 1), column("n", 0)], ..Table::default() };
    let mut nodes = field.nodes.clone();
    nodes.extend(["0".to_owned(), "17".to_owned()]);
    nodes.sort_by_key(|name| name.parse::<u64>().unwrap_or(u64::MAX));
    nodes.dedup();
    let place = |name: &String| nodes.iter().position(|other| other == name).unwrap_or(0);
    let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    let numbers = Numbers {
        nodes: field.nodes.iter().map(|name| number(place(name))).collect(),
        tables: (0..field.tables.len()).map(|at| number(at + 1)).collect(),
    };
    let tables = std::iter::once(more).chain(field.tables.iter().cloned()).collect();
    (Field { nodes, tables }, numbers)
}
