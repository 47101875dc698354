//! Components of world `hasher`, as [`Hash`].

use antiphon_core::hash::{Hash, PackedKeys, PluginError};
use antiphon_core::schema::Table;
use wasmtime::Store;
use wasmtime::component::InstancePre;

use crate::bindings::hasher::{Hasher as Guest, HasherPre};
use crate::error::{Attempt, Error, OtherTypes, Reason};
use crate::inert::State;
use crate::plugin::{Described, Plugin, World};
use crate::{Info, Settings, convert};

/// What a hasher exports, without version.
pub(crate) const EXPORTS: [&str; 2] = ["antiphon:plugin/metadata", "antiphon:plugin/rowhash"];

/// A hasher that is a component.
pub struct Hasher {
    plugin: Plugin<HasherPre<State>>,
    settings: Settings,
    tables: Option<Vec<Table>>,
}

impl World for HasherPre<State> {
    type Guest = Guest;
    const NAME: &'static str = "hasher";
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

impl Hasher {
    pub(crate) fn new(plugin: Plugin<HasherPre<State>>, settings: Settings) -> Self {
        Self { plugin, settings, tables: None }
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
        Self { plugin: self.plugin.again(), settings: settings.to_vec(), tables: None }
    }

    /// Makes an instance that is never asked, and drops it with the one that was at work: what a start costs.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn try_instance(&mut self) -> Result<(), Error> {
        self.plugin.try_instance()
    }

    /// Sees to it that an instance is at work and knows the tables.
    fn wake(&mut self, attempt: Attempt) -> Result<(), Error> {
        if self.plugin.is_live() {
            return Ok(());
        }
        let Some(tables) = &self.tables else { return Err(self.plugin.error(attempt, Reason::NotConfigured)) };
        self.plugin.instantiate(attempt)?;
        let columns: usize = tables.iter().map(|table| table.columns.len()).sum();
        let fuel = self.plugin.limits().fuel(tables.len() + columns, 0);
        let (settings, tables) = (&self.settings, convert::tables(tables));
        let configured = self.plugin.call(attempt, fuel, |guest, store| {
            guest.antiphon_plugin_rowhash().call_configure(store, settings, &tables)
        })?;
        configured.map_err(|why| {
            self.plugin.drop_instance();
            self.plugin.error(attempt, Reason::said(&why))
        })
    }

    fn ask(&mut self, table: u32, keys: &PackedKeys) -> Result<Vec<u64>, Error> {
        self.wake(Attempt::Hash)?;
        let fuel = self.plugin.limits().fuel(keys.len(), keys.bytes.len());
        let answer = self.plugin.call(Attempt::Hash, fuel, |guest, store| {
            guest.antiphon_plugin_rowhash().call_hash(store, table, &keys.bytes, &keys.ends)
        })?;
        self.plugin.retire_if_worn();
        let hashes = answer.map_err(|why| self.plugin.error(Attempt::Hash, Reason::said(&why)))?;
        if hashes.len() != keys.len() {
            self.plugin.drop_instance();
            let why = format!("{} hashes for {} keys", hashes.len(), keys.len());
            return Err(self.plugin.error(Attempt::Hash, Reason::Answer(why)));
        }
        Ok(hashes)
    }
}

impl Hash for Hasher {
    fn configure(&mut self, tables: &[Table]) -> Result<(), PluginError> {
        // A new instance for a new schema: what an old one remembers of old tables is of no use.
        self.plugin.drop_instance();
        self.tables = Some(tables.to_vec());
        let woken = self.wake(Attempt::Configure);
        if woken.is_err() {
            self.tables = None;
        }
        Ok(woken?)
    }

    fn hash(&mut self, table: u32, keys: &PackedKeys) -> Result<Vec<u64>, PluginError> {
        Ok(self.ask(table, keys)?)
    }
}
