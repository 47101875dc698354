//! Components of world `resolver`, as [`Resolve`].

use antiphon_core::hash::PluginError;
use antiphon_core::key::KeyEncoder;
use antiphon_core::resolve::{Clash, Failed, Needs, Resolve, Verdict};
use antiphon_core::schema::{Column, Table};
use antiphon_core::value::{Row, Value};
use wasmtime::Store;
use wasmtime::component::InstancePre;

use crate::bindings::resolver::{Resolver as Guest, ResolverPre};
use crate::error::{Attempt, Error, OtherTypes, Reason};
use crate::inert::State;
use crate::plugin::{Described, Plugin, World};
use crate::{Info, Settings, convert};

/// What a resolver exports, without version.
pub(crate) const EXPORTS: [&str; 2] = ["antiphon:plugin/metadata", "antiphon:plugin/conflict"];

/// A resolver that is a component.
pub struct Resolver {
    plugin: Plugin<ResolverPre<State>>,
    settings: Settings,
    known: Option<Known>,
    needs: Needs,
    /// How many clashes to ask about at once, where it has to be sparing.
    several: usize,
}

/// What a resolver is configured with, kept for its next instance.
struct Known {
    nodes: Vec<String>,
    tables: Vec<Table>,
}

impl World for ResolverPre<State> {
    type Guest = Guest;
    const NAME: &'static str = "resolver";
    const EXPORTS: [&'static str; 2] = EXPORTS;

    fn new(linked: InstancePre<State>) -> wasmtime::Result<Self> {
        Self::new(linked)
    }

    fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Guest> {
        let instance = self.instance_pre().instantiate(&mut *store)?;
        Guest::new(store, &instance).map_err(|err| OtherTypes(err.root_cause().to_string()).into())
    }

    fn describe(guest: &Guest, store: &mut Store<State>) -> wasmtime::Result<Described> {
        let info = guest.antiphon_plugin_metadata().call_describe(store)?;
        Ok(Described {
            name: info.name,
            version: info.version,
            description: info.description,
            settings_schema: info.settings_schema,
            laws: info.laws,
        })
    }
}

impl Resolver {
    pub(crate) fn new(plugin: Plugin<ResolverPre<State>>, settings: Settings) -> Self {
        Self { plugin, settings, known: None, needs: Needs::default(), several: 1 }
    }

    /// What it says of itself.
    #[must_use]
    pub fn info(&self) -> &Info {
        self.plugin.info()
    }

    /// What nodes have to agree on: `name@laws` if it is official, `sha256:…` if not.
    #[must_use]
    pub fn identity(&self) -> &str {
        self.plugin.identity()
    }

    /// Fuel that the last call used.
    #[must_use]
    pub fn fuel_used(&self) -> u64 {
        self.plugin.fuel_used()
    }

    /// The most bytes of memory that an instance of it had.
    #[must_use]
    pub fn memory_peak(&self) -> usize {
        self.plugin.memory_peak()
    }

    /// The same component once more, with these settings and not configured. It is not compiled again.
    #[must_use]
    pub fn again(&self, settings: &[(String, String)]) -> Self {
        Self::new(self.plugin.again(), settings.to_vec())
    }

    /// Makes an instance that is never asked, and drops it with the one that was at work: what a start costs.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn try_instance(&mut self) -> Result<(), Error> {
        self.plugin.try_instance()
    }

    /// Sees to it that an instance is at work and knows nodes and tables.
    fn wake(&mut self, attempt: Attempt) -> Result<(), Error> {
        if self.plugin.is_live() {
            return Ok(());
        }
        let Some(known) = &self.known else { return Err(self.plugin.error(attempt, Reason::NotConfigured)) };
        self.plugin.instantiate(attempt)?;
        let columns: usize = known.tables.iter().map(|table| table.columns.len()).sum();
        let fuel = self.plugin.limits().fuel(known.nodes.len() + known.tables.len() + columns, 0);
        let (settings, nodes, tables) = (&self.settings, &known.nodes, convert::tables(&known.tables));
        let configured = self.plugin.call(attempt, fuel, |guest, store| {
            guest.antiphon_plugin_conflict().call_configure(store, settings, nodes, &tables)
        })?;
        match configured {
            Ok(needs) => {
                self.needs = convert::needs(needs);
                Ok(())
            }
            Err(why) => {
                self.plugin.drop_instance();
                Err(self.plugin.error(attempt, Reason::said(&why)))
            }
        }
    }

    /// Asks about as many clashes at once as may be.
    fn ask(&mut self, batch: &[Clash]) -> Result<Vec<Verdict>, Error> {
        if !self.plugin.limits().sparing {
            let weight = batch.iter().map(|clash| weight(clash, self.needs)).sum();
            let fuel = self.plugin.limits().fuel(batch.len(), weight);
            return self.ask_within(batch, fuel);
        }
        let mut verdicts = Vec::with_capacity(batch.len());
        let mut rest = batch;
        while !rest.is_empty() {
            let (some, others) = rest.split_at(self.several.min(rest.len()).max(1));
            let least = some.iter().map(|clash| self.fuel_alone(clash)).min().unwrap_or_default();
            match self.ask_within(some, least / 2) {
                Ok(some) => verdicts.extend(some),
                Err(error) => {
                    self.several = 1;
                    return Err(error);
                }
            }
            // As many as would take a quarter of that: then most batches fit, whatever the guest is made of.
            let each = (self.plugin.fuel_used() / some.len() as u64).max(1);
            self.several = usize::try_from(least / 8 / each).unwrap_or(usize::MAX).max(1);
            rest = others;
        }
        Ok(verdicts)
    }

    /// The fuel of a clash that is asked about alone.
    fn fuel_alone(&self, clash: &Clash) -> u64 {
        self.plugin.limits().fuel(1, weight(clash, self.needs))
    }

    fn ask_within(&mut self, batch: &[Clash], fuel: u64) -> Result<Vec<Verdict>, Error> {
        self.wake(Attempt::Resolve)?;
        let needs = self.needs;
        let clashes: Vec<_> = batch.iter().map(|clash| convert::clash(clash, needs)).collect();
        let answer = self.plugin.call(Attempt::Resolve, fuel, |guest, store| {
            guest.antiphon_plugin_conflict().call_resolve(store, &clashes)
        })?;
        let unusable = |plugin: &mut Plugin<_>, reason| {
            let error = plugin.error_of_live(Attempt::Resolve, reason, fuel);
            // It is broken, and what else it got wrong is not known.
            plugin.drop_instance();
            error
        };
        let verdicts = answer.map_err(|why| unusable(&mut self.plugin, Reason::said(&why)))?;
        let verdicts: Vec<Verdict> = verdicts.into_iter().map(convert::verdict).collect();
        let tables = self.known.as_ref().map_or(&[][..], |known| &known.tables);
        check_verdicts(tables, batch, &verdicts).map_err(|why| unusable(&mut self.plugin, Reason::Answer(why)))?;
        self.plugin.retire_if_worn();
        Ok(verdicts)
    }

    /// Asks a new instance, which knows this table and these nodes alone.
    fn ask_alone(&mut self, nodes: &[String], table: &Table, clash: &Clash) -> Result<Verdict, Error> {
        self.plugin.drop_instance();
        self.known = Some(Known { nodes: nodes.to_vec(), tables: vec![table.clone()] });
        // Until it is configured it has not said what it wants to see, and fuel goes by that.
        self.wake(Attempt::Configure)?;
        let fuel = self.fuel_alone(clash);
        let verdict = self.ask_within(std::slice::from_ref(clash), fuel);
        self.plugin.drop_instance();
        self.known = None;
        verdict.map(|mut verdicts| verdicts.remove(0))
    }
}

impl Resolve for Resolver {
    fn configure(&mut self, nodes: &[String], tables: &[Table]) -> Result<Needs, PluginError> {
        // A new instance for a new schema: what an old one remembers of old tables is of no use.
        self.plugin.drop_instance();
        self.known = Some(Known { nodes: nodes.to_vec(), tables: tables.to_vec() });
        match self.wake(Attempt::Configure) {
            Ok(()) => Ok(self.needs),
            Err(err) => {
                self.known = None;
                Err(err.into())
            }
        }
    }

    fn resolve(&mut self, batch: &[Clash]) -> Result<Vec<Verdict>, PluginError> {
        Ok(self.ask(batch)?)
    }

    fn resolve_alone(&mut self, nodes: &[String], table: &Table, clash: &Clash) -> Result<Verdict, Failed> {
        self.ask_alone(nodes, table, clash).map_err(|error| Failed {
            why: error.reason().to_string(),
            // What befalls it while it is configured is not about the clash.
            is_verdict: error.reason().is_verdict() && error.is_about_clashes(),
            details: error.details(),
            hint: error.hint(),
        })
    }
}

/// Bytes of what a resolver is sent. Counted only over what it asked for, or fuel would differ between nodes.
fn weight(clash: &Clash, needs: Needs) -> usize {
    let row = |row: Option<&Row>, sent: bool| {
        row.filter(|_| sent).map_or(0, |row| row.iter().map(Value::weight).sum::<usize>())
    };
    row(Some(&clash.key), true)
        + row(clash.base.as_ref(), needs.base)
        + row(clash.current.row.as_ref(), needs.current)
        + row(clash.incoming.row.as_ref(), true)
}

/// Whether the verdicts can be carried out.
fn check_verdicts(tables: &[Table], batch: &[Clash], verdicts: &[Verdict]) -> Result<(), String> {
    if verdicts.len() != batch.len() {
        return Err(format!("{} verdicts for {} clashes", verdicts.len(), batch.len()));
    }
    for (index, (clash, verdict)) in batch.iter().zip(verdicts).enumerate() {
        if let Verdict::Merge(row) = verdict {
            let table = tables.get(clash.table as usize).ok_or_else(|| format!("there is no table {}", clash.table))?;
            check_merged(table, &clash.key, row)
                .map_err(|why| format!("the row it merged for clash {index} of table `{}` {why}", table.name))?;
        }
    }
    Ok(())
}

fn check_merged(table: &Table, key: &Row, row: &Row) -> Result<(), String> {
    if row.len() != table.columns.len() {
        return Err(format!("has {} values for {} columns", row.len(), table.columns.len()));
    }
    for (column, value) in table.columns.iter().zip(row) {
        check_value(table, column, value).map_err(|why| format!("{why} in column `{}`", column.name))?;
    }
    let encoder = KeyEncoder::new(table);
    let (mut wanted, mut found) = (Vec::new(), Vec::new());
    encoder.write(&mut wanted, key.iter());
    encoder.write(&mut found, table.key_columns().into_iter().filter_map(|position| row.get(position)));
    if wanted != found {
        return Err("has another key".to_owned());
    }
    Ok(())
}

fn check_value(table: &Table, column: &Column, value: &Value) -> Result<(), String> {
    if let Value::Real(number) = value
        && number.is_nan()
    {
        // SQLite would keep NULL in its place.
        return Err("has a NaN".to_owned());
    }
    if matches!(value, Value::Null) {
        return if column.not_null { Err("has NULL".to_owned()) } else { Ok(()) };
    }
    let wanted = match column.decl_type.to_ascii_uppercase().as_str() {
        "INT" | "INTEGER" => "integer",
        "REAL" => "real",
        "TEXT" => "text",
        "BLOB" => "blob",
        _ => return Ok(()),
    };
    if table.strict && value.type_name() != wanted {
        return Err(format!("has {} where {wanted} belongs", value.type_name()));
    }
    Ok(())
}
