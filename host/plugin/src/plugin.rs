//! The life of a plugin's instances: made when needed, replaced when worn, dropped the moment one fails.

use std::sync::Arc;
use std::time::Instant;

use wasmtime::Store;
use wasmtime::component::InstancePre;

use crate::component;
use crate::engine::{Runtime, ticks};
use crate::error::{Attempt, Error, Reason, Spent, Subject};
use crate::inert::{self, State};
use crate::limits::Limits;
use crate::log::{GuestLog, printable};
use crate::usage::Usage;
use crate::{Info, Origin, Source};

/// What differs between the worlds.
pub(crate) trait World: Sized {
    /// An instance's exports.
    type Guest;
    /// What a plugin of this world is called.
    const NAME: &'static str;
    /// What it exports, without version.
    const EXPORTS: [&'static str; 2];
    fn new(linked: InstancePre<State>) -> wasmtime::Result<Self>;
    fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Self::Guest>;
    fn describe(guest: &Self::Guest, store: &mut Store<State>) -> wasmtime::Result<Described>;
}

/// What a plugin said of itself; not yet believed.
pub(crate) struct Described {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) description: String,
    pub(crate) settings_schema: String,
    pub(crate) laws: u32,
}

/// A component of world `W`, and the instance of it that is at work, if one is.
pub(crate) struct Plugin<W: World> {
    runtime: Arc<Runtime>,
    subject: Arc<Subject>,
    world: W,
    limits: Limits,
    log: GuestLog,
    info: Info,
    identity: String,
    live: Option<Live<W::Guest>>,
    fuel_used: u64,
    memory_peak: usize,
    usage: Arc<Usage>,
}

struct Live<G> {
    store: Store<State>,
    guest: G,
    calls: u64,
}

impl<W: World> Plugin<W> {
    /// Compiles and links the component, and asks an instance what it is.
    pub(crate) fn load(
        runtime: &Arc<Runtime>,
        source: &Source<'_>,
        sha256: String,
        limits: Limits,
    ) -> Result<Self, Error> {
        let subject = Subject { name: source.name.clone(), origin: source.origin.to_string(), sha256 };
        let subject = Arc::new(subject);
        let usage = runtime.usage(&subject.name, W::NAME, subject.origin.clone(), &subject.sha256);
        let refused = |reason| Error::new(&subject, Attempt::Load, reason);
        let sha256 = &subject.sha256;
        let foreign = source.foreign();
        let linked = component::prepare(runtime, &source.bytes, sha256, &limits, W::NAME, &W::EXPORTS, foreign);
        let world = W::new(linked.map_err(refused)?)
            .map_err(|err| refused(Reason::OtherTypes(err.root_cause().to_string())))?;
        let mut plugin = Self {
            runtime: Arc::clone(runtime),
            log: GuestLog::new(&source.name),
            info: Info::default(),
            identity: String::new(),
            live: None,
            fuel_used: 0,
            memory_peak: 0,
            usage,
            subject: Arc::clone(&subject),
            world,
            limits,
        };
        plugin.instantiate(Attempt::Load)?;
        let fuel = plugin.limits.fuel_base;
        let described = plugin.call(Attempt::Load, fuel, |guest, store| W::describe(guest, store))?;
        plugin.info = believed(described, &subject.sha256).map_err(|why| refused(Reason::Answer(why)))?;
        plugin.identity = match source.origin {
            // Builds differ in bytes and not in answers as long as the laws are the same.
            Origin::Official => format!("{}@{}", plugin.info.name, plugin.info.laws),
            Origin::Custom(_) => format!("sha256:{}", plugin.info.sha256),
        };
        // It has served: one that knows no settings and no tables is not to be asked.
        plugin.drop_instance();
        Ok(plugin)
    }

    pub(crate) fn info(&self) -> &Info {
        &self.info
    }

    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Fuel that the last call used.
    pub(crate) fn fuel_used(&self) -> u64 {
        self.fuel_used
    }

    /// The most bytes of memory that an instance of it had.
    pub(crate) fn memory_peak(&self) -> usize {
        self.memory_peak
    }

    /// The same component once more, without an instance. It is not compiled again.
    pub(crate) fn again(&self) -> Self
    where
        W: Clone,
    {
        Self {
            runtime: Arc::clone(&self.runtime),
            subject: Arc::clone(&self.subject),
            world: self.world.clone(),
            limits: self.limits.clone(),
            log: self.log.clone(),
            info: self.info.clone(),
            identity: self.identity.clone(),
            live: None,
            fuel_used: 0,
            memory_peak: 0,
            usage: Arc::clone(&self.usage),
        }
    }

    /// Makes an instance and drops it.
    pub(crate) fn try_instance(&mut self) -> Result<(), Error> {
        self.instantiate(Attempt::Load)?;
        self.drop_instance();
        Ok(())
    }

    pub(crate) fn error(&self, attempt: Attempt, reason: Reason) -> Error {
        Error::new(&self.subject, attempt, reason)
    }

    /// Whether an instance is at work; if not, [`Self::instantiate`] makes one, which knows nothing yet.
    pub(crate) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Drops the instance, with all it remembers.
    pub(crate) fn drop_instance(&mut self) {
        self.live = None;
    }

    pub(crate) fn instantiate(&mut self, attempt: Attempt) -> Result<(), Error> {
        let fuel = self.limits.fuel_base;
        let state = State::new(&self.limits, self.log.clone());
        let mut store = Store::new(&self.runtime.engine, state);
        store.limiter(|state| &mut state.meter);
        let returned_bytes = self.limits.returned_bytes;
        store.call_hook(move |store, hook| inert::account(store, hook, returned_bytes));
        store.set_max_component_handles(1_000);
        self.arm(&mut store, attempt, fuel)?;
        match self.world.instantiate(&mut store) {
            Ok(guest) => {
                self.live = Some(Live { store, guest, calls: 0 });
                Ok(())
            }
            Err(err) => {
                let reason = Reason::of(&err, &store.data().meter, &self.limits, fuel);
                Err(self.error(attempt, reason).after(self.spent(&store, fuel)))
            }
        }
    }

    fn spent(&self, store: &Store<State>, fuel: u64) -> Spent {
        let state = store.data();
        Spent {
            fuel: fuel - store.get_fuel().unwrap_or(0).min(fuel),
            fuel_max: fuel,
            memory_bytes: state.meter.memory_bytes(),
            memory_bytes_max: self.limits.memory_bytes,
            words: state.words.last_lines(),
        }
    }

    /// The error of an instance that is at work, which gave an answer that can't be used.
    pub(crate) fn error_of_live(&self, attempt: Attempt, reason: Reason, fuel: u64) -> Error {
        self.usage.note_failure();
        let error = self.error(attempt, reason);
        match &self.live {
            Some(live) => error.after(self.spent(&live.store, fuel)),
            None => error,
        }
    }

    fn arm(&self, store: &mut Store<State>, attempt: Attempt, fuel: u64) -> Result<(), Error> {
        store.set_epoch_deadline(ticks(self.limits.watchdog));
        store.set_fuel(fuel).map_err(|err| self.error(attempt, Reason::Engine(err.to_string())))
    }

    /// Calls into the instance. If that fails for any reason the instance is gone: after a trap, nothing in it can be
    /// relied upon.
    pub(crate) fn call<R>(
        &mut self,
        attempt: Attempt,
        fuel: u64,
        call: impl FnOnce(&W::Guest, &mut Store<State>) -> wasmtime::Result<R>,
    ) -> Result<R, Error> {
        let mut live = self.live.take().ok_or_else(|| self.error(attempt, Reason::NotConfigured))?;
        self.arm(&mut live.store, attempt, fuel)?;
        let begun = Instant::now();
        let answer = call(&live.guest, &mut live.store);
        self.fuel_used = fuel - live.store.get_fuel().unwrap_or(0).min(fuel);
        self.memory_peak = self.memory_peak.max(live.store.data().meter.memory_bytes());
        self.usage.note(begun, self.fuel_used, self.memory_peak, answer.is_err());
        match answer {
            Ok(answer) => {
                live.calls += 1;
                self.live = Some(live);
                Ok(answer)
            }
            Err(err) => {
                let reason = Reason::of(&err, &live.store.data().meter, &self.limits, fuel);
                Err(self.error(attempt, reason).after(self.spent(&live.store, fuel)))
            }
        }
    }

    /// Drops the instance if it has done its time: what a guest leaks, it leaks into one instance.
    pub(crate) fn retire_if_worn(&mut self) {
        let worn = |live: &Live<_>| live.calls >= self.limits.calls || live.store.data().meter.nearly_full();
        if self.live.as_ref().is_some_and(worn) {
            self.live = None;
        }
    }
}

const NAME_BYTES_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 1024;

pub(crate) fn believed(described: Described, sha256: &str) -> Result<Info, String> {
    let Described { name, version, description, settings_schema, laws } = described;
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(word) {
        let name = printable(&name, NAME_BYTES_MAX);
        return Err(format!("it calls itself `{name}`, and a name is lower-case letters, digits and hyphens"));
    }
    Ok(Info {
        name,
        version: printable(&version, NAME_BYTES_MAX),
        description: printable(&description, TEXT_BYTES_MAX),
        settings_schema,
        laws,
        sha256: sha256.to_owned(),
    })
}
