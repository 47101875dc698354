//! Who wins a clash.

use crate::hash::PluginError;
use crate::schema::Table;
use crate::value::Row;

/// What a resolver wants to see of each clash. What it does not ask for is neither read nor sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The row as it stands.
    pub current: bool,
    /// The row the incoming change was made upon.
    pub base: bool,
    /// Who wrote either side, and when.
    pub stamps: bool,
}

/// Who wrote a row, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Index into the list of nodes given to [`Resolve::configure`].
    pub node: u32,
    /// Hybrid logical time.
    pub clock: u64,
    /// Position in the log.
    pub seq: u64,
}

/// One of the two rows of a clash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Who wrote it.
    pub stamp: Stamp,
    /// The row; `None` = the row is gone (or was not asked for).
    pub row: Option<Row>,
}

/// Why two rows clash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Two nodes changed the row with the same key, neither having seen the other's change.
    SameKey,
    /// Two rows with different keys hold the same value of a UNIQUE index.
    UniqueIndex,
}

/// One clash for a resolver to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// Index into the list of tables given to [`Resolve::configure`].
    pub table: u32,
    /// The primary key's values, in key order.
    pub key: Row,
    /// Why they clash.
    pub cause: Cause,
    /// The row the incoming change was made upon, if asked for.
    pub base: Option<Row>,
    /// What stands.
    pub current: Side,
    /// What came.
    pub incoming: Side,
}

/// A resolver's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What stands stays.
    Keep,
    /// What came replaces it.
    Take,
    /// This row, made from both, replaces it; its key is that of the clash.
    Merge(Row),
    /// The row goes.
    Remove,
}

/// A resolver gave no verdict on a clash that it was asked about alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failed {
    /// Why, in one line.
    pub why: String,
    /// Any node finds the same: the resolver ran into it by itself, and not because of the machine it is on.
    pub is_verdict: bool,
    /// What else is known, by name: for the person who looks for the fault.
    pub details: Vec<(String, String)>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Decides clashes. A resolver is pure: every node asks its own and must hear the same.
pub trait Resolve: Send {
    /// Tells the resolver the nodes and tables that clashes will name by number; says what it wants to see.
    ///
    /// # Errors
    /// When the resolver refuses these tables or its settings.
    fn configure(&mut self, nodes: &[String], tables: &[Table]) -> Result<Needs, PluginError>;

    /// One verdict a clash, in their order.
    ///
    /// # Errors
    /// When the resolver failed; no verdict may be assumed then.
    fn resolve(&mut self, batch: &[Clash]) -> Result<Vec<Verdict>, PluginError>;

    /// The verdict of a resolver that was never asked anything else, and knows this table and these nodes alone: what
    /// comes of it is the same on every node, failure included. It has to be configured again afterwards.
    ///
    /// # Errors
    /// When it gives none.
    fn resolve_alone(&mut self, nodes: &[String], table: &Table, clash: &Clash) -> Result<Verdict, Failed> {
        let failed = |why: String, is_verdict| Failed { why, is_verdict, ..Failed::default() };
        self.configure(nodes, std::slice::from_ref(table)).map_err(|error| failed(error.to_string(), false))?;
        let verdicts = self.resolve(std::slice::from_ref(clash)).map_err(|error| failed(error.to_string(), true))?;
        match <[Verdict; 1]>::try_from(verdicts) {
            Ok([verdict]) => Ok(verdict),
            Err(verdicts) => Err(failed(format!("{} verdicts for one clash", verdicts.len()), true)),
        }
    }
}

/// The native twin of the component `last-write-wins`: what comes later in the log wins.
#[derive(Clone, Copy, Debug, Default)]
pub struct LastWriteWins;

impl Resolve for LastWriteWins {
    fn configure(&mut self, _: &[String], _: &[Table]) -> Result<Needs, PluginError> {
        Ok(Needs::default())
    }

    fn resolve(&mut self, batch: &[Clash]) -> Result<Vec<Verdict>, PluginError> {
        Ok(batch.iter().map(|_| Verdict::Take).collect())
    }
}
