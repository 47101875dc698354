//! Components of the storage worlds, as [`Store`].
//!
//! An instance does one call at a time, so there is a pool of them, made when needed. A call runs on the thread that
//! makes it, and is ended by a clock: a guest that waits is ended where it waits, one that spins at the next tick.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use antiphon_core::store::{
    ErrorKind, LIST_MAX, Name, OBJECT_BYTES_MAX, Object, Part, Put, Store, StoreError, Traits, is_prefix,
};
use wasmtime::component::{InstancePre, ResourceAny};

use crate::bindings::objects;
use crate::bindings::storage::{StorageFile as Guest, StorageFilePre as Linked};
use crate::component::{check_exports, compile};
use crate::error::{Attempt, Error, Reason, Subject};
use crate::lent::{Grants, Lender, Lending, Lent, Trouble};
use crate::limits::Limits;
use crate::log::{GuestLog, printable};
use crate::plugin::{Described, believed};
use crate::usage::Usage;
use crate::{Info, Settings, Source, sha256};

/// What a storage exports, without version.
pub(crate) const EXPORTS: [&str; 2] = ["antiphon:plugin/metadata", "antiphon:plugin/storage"];

const MESSAGE_BYTES_MAX: usize = 1024;

/// How many bytes could go in the time that deleting one object may take.
const BYTES_A_DELETE: u64 = 64 << 10;

/// What an answer may hold besides an object.
const RETURNED_BYTES_MORE: usize = 1 << 20;

/// How much is done at once, and how long it may take.
#[derive(Clone, Debug)]
pub struct Pace {
    /// The most instances, and with that the most calls under way.
    pub instances: usize,
    /// How long a call may take, whatever it is about.
    pub call: Duration,
    /// How fast bytes must go at least: a call may take longer by as much.
    pub bytes_per_second_min: u64,
    /// After so long without a call an instance goes.
    pub idle: Duration,
    /// How long the other side of a connection may say and take nothing.
    pub silence: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            instances: 4,
            call: Duration::from_secs(30),
            bytes_per_second_min: 1 << 20,
            idle: Duration::from_secs(60),
            silence: Duration::from_secs(15),
        }
    }
}

impl Pace {
    fn time_for(&self, bytes: u64) -> Duration {
        let millis = bytes.saturating_mul(1000) / self.bytes_per_second_min.max(1);
        self.call.saturating_add(Duration::from_millis(millis))
    }
}

/// A storage that is a component. Cheap to clone; clones share the instances.
#[derive(Clone)]
pub struct Storage(Arc<Shared>);

struct Shared {
    lending: Arc<Lending>,
    lender: Lender,
    subject: Arc<Subject>,
    linked: Linked<Lent>,
    settings: Settings,
    limits: Limits,
    pace: Pace,
    log: GuestLog,
    info: Info,
    pool: Mutex<Pool>,
    freed: Condvar,
    usage: Arc<Usage>,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Live>,
    busy: usize,
    /// Somebody will come and look for instances that have had nothing to do.
    swept: bool,
    memory_peak: usize,
}

/// An instance, and its open session.
struct Live {
    store: wasmtime::Store<Lent>,
    guest: Guest,
    session: ResourceAny,
    used: Instant,
}

/// Leave to have one instance at work.
struct Turn<'a> {
    shared: &'a Shared,
    /// The instance: one that had nothing to do, and then the one to be kept for the next call.
    live: Option<Live>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // At once, for an instance is at work or idle, and never both.
        let mut pool = self.shared.pool();
        pool.idle.extend(self.live.take());
        pool.busy -= 1;
        drop(pool);
        self.shared.freed.notify_one();
    }
}

/// What the host knows of a failure of a guest's.
struct Told {
    /// The host's own words to it, with a hint.
    hinted: Option<(String, String)>,
    /// What stood in the way of its last request over HTTP.
    trouble: Option<Trouble>,
}

impl Told {
    fn of(store: &mut wasmtime::Store<Lent>) -> Self {
        Self { hinted: store.data_mut().hint(), trouble: store.data().take_trouble() }
    }
}

/// Why there is no answer.
enum Failed {
    /// The guest said so. What the host told it with that may help, and what the host itself knows of it.
    Said(objects::Error, Told),
    /// It did not answer as it should.
    Plugin(Reason),
}

impl Storage {
    pub(crate) fn load(
        lending: Arc<Lending>,
        source: &Source<'_>,
        settings: Settings,
        grants: Grants,
        limits: Limits,
        pace: Pace,
    ) -> Result<Self, Error> {
        let lender = Lender::new(grants, pace.silence);
        Self::with(lending, source, settings, lender, limits, pace)
    }

    /// What a storage says of itself.
    pub(crate) fn describe(lending: Arc<Lending>, source: &Source<'_>, limits: Limits) -> Result<Info, Error> {
        let storage = Self::with(lending, source, Settings::new(), Lender::of_nothing(), limits, Pace::default())?;
        Ok(storage.0.info.clone())
    }

    fn with(
        lending: Arc<Lending>,
        source: &Source<'_>,
        settings: Settings,
        lender: Lender,
        mut limits: Limits,
        pace: Pace,
    ) -> Result<Self, Error> {
        let subject =
            Subject { name: source.name.clone(), origin: source.origin.to_string(), sha256: sha256(&source.bytes) };
        let subject = Arc::new(subject);
        let refused = |reason| Error::new(&subject, Attempt::Load, reason);
        limits.returned_bytes = usize::try_from(OBJECT_BYTES_MAX).unwrap_or(usize::MAX) + RETURNED_BYTES_MORE;
        limits.watchdog = pace.call;
        let linked = link(&lending, &lender, source, &subject, &limits).map_err(refused)?;
        let linked = Linked::new(linked).map_err(|err| refused(Reason::OtherTypes(err.root_cause().to_string())))?;
        let mut shared = Shared {
            lender,
            linked,
            settings,
            limits,
            pace,
            log: GuestLog::new(&source.name),
            info: Info::default(),
            pool: Mutex::default(),
            freed: Condvar::new(),
            usage: lending.runtime.usage(&subject.name, "storage", subject.origin.clone(), &subject.sha256),
            subject: Arc::clone(&subject),
            lending,
        };
        let described = shared.describe().map_err(refused)?;
        shared.info = believed(described, &subject.sha256).map_err(|why| refused(Reason::Answer(why)))?;
        Ok(Self(Arc::new(shared)))
    }

    /// What it says of itself.
    #[must_use]
    pub fn info(&self) -> &Info {
        &self.0.info
    }

    /// The most bytes of memory that an instance of it had.
    #[must_use]
    pub fn memory_peak(&self) -> usize {
        self.0.pool().memory_peak
    }

    /// Bytes of memory of all instances that have nothing to do at the moment, taken together.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.0.pool().idle.iter().map(|live| live.store.data().meter.memory_bytes()).sum()
    }

    /// How many instances there are.
    #[must_use]
    pub fn instances(&self) -> usize {
        let pool = self.0.pool();
        pool.idle.len() + pool.busy
    }

    /// Asks an instance, which has so many bytes to move.
    fn ask<R>(
        &self,
        attempt: &'static str,
        bytes: u64,
        work: impl AsyncFnOnce(
            &Guest,
            &mut wasmtime::Store<Lent>,
            ResourceAny,
        ) -> wasmtime::Result<Result<R, objects::Error>>
        + Send,
    ) -> Result<R, StoreError>
    where
        R: Send,
    {
        let shared = &self.0;
        let mut turn = shared.turn();
        let begun = Instant::now();
        let place = &mut turn.live;
        let time = shared.pace.time_for(bytes);
        let answer = shared.lender.on_its_thread(|| {
            let asked = async {
                let mut live = match place.take() {
                    Some(live) => live,
                    None => shared.open().await?,
                };
                let answer = work(&live.guest, &mut live.store, live.session).await;
                shared.note(&live.store);
                // What trapped is gone with all it had: nothing in it can be relied upon.
                let answer = answer.map_err(|err| Failed::Plugin(shared.why(&err, &live.store)))?;
                let told = Told::of(&mut live.store);
                live.used = Instant::now();
                // Not one that is worn.
                *place = Some(live).filter(|live| !live.store.data().meter.nearly_full());
                answer.map_err(|said| Failed::Said(said, told))
            };
            // The future holds the instance: what is cut off is dropped.
            shared.lending.block_on(async {
                match tokio::time::timeout(time, Box::pin(asked)).await {
                    Ok(answer) => answer,
                    Err(_) => Err(Failed::Plugin(Reason::TimeOut(time))),
                }
            })
        });
        drop(turn);
        self.sweep_later();
        let answer = match answer {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(Failed::Said(said, told))) => Err(shared.said(&said, told)),
            Some(Err(Failed::Plugin(reason))) => Err(shared.broken(attempt, reason)),
            None => Err(shared.broken(attempt, Reason::NotConfigured)),
        };
        // That there is no such object is an answer like any other.
        let is_answer = |error: &StoreError| matches!(error.kind, ErrorKind::NotFound | ErrorKind::Exists);
        let failed = answer.as_ref().is_err_and(|error| !is_answer(error));
        shared.usage.note(begun, 0, self.memory_peak(), failed);
        answer
    }

    /// Has instances looked for later that had nothing to do for long.
    fn sweep_later(&self) {
        let shared = &self.0;
        let mut pool = shared.pool();
        if !pool.swept && !pool.idle.is_empty() {
            pool.swept = true;
            let weak = Arc::downgrade(shared);
            let pause = shared.pace.idle;
            shared.lending.spawn(async move {
                loop {
                    tokio::time::sleep(pause).await;
                    let Some(shared) = weak.upgrade() else { return };
                    if shared.sweep() {
                        return;
                    }
                }
            });
        }
    }

    fn nonsense(&self, attempt: &'static str, why: String) -> StoreError {
        self.0.broken(attempt, Reason::Answer(why))
    }

    /// An object as the guest says it is, if it can be one.
    fn object(&self, attempt: &'static str, object: objects::Object) -> Result<Object, StoreError> {
        let name = Name::new(object.key).map_err(|err| self.nonsense(attempt, err.to_string()))?;
        let etag = object.etag.map(|etag| printable(&etag, MESSAGE_BYTES_MAX));
        Ok(Object { name, size: object.size, modified_ms: object.modified_ms, etag })
    }
}

/// Compiles a component, and links it with what it is lent.
fn link(
    lending: &Lending,
    lender: &Lender,
    source: &Source<'_>,
    subject: &Subject,
    limits: &Limits,
) -> Result<InstancePre<Lent>, Reason> {
    let engine = &lending.runtime.engine;
    let component = compile(&lending.runtime, &source.bytes, &subject.sha256, limits, source.foreign())?;
    check_exports(engine, &component, "storage", &EXPORTS)?;
    lender.link(engine, &component, &source.name)
}

impl Shared {
    fn pool(&self) -> std::sync::MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more may be at work, and takes one that has nothing to do, if there is any. What was idle for
    /// long may have lost its connection.
    fn turn(&self) -> Turn<'_> {
        let most = self.pace.instances.max(1);
        let pool = self.freed.wait_while(self.pool(), |pool| pool.busy >= most);
        let mut pool = pool.unwrap_or_else(PoisonError::into_inner);
        pool.busy += 1;
        pool.idle.retain(|live| live.used.elapsed() < self.pace.idle);
        Turn { shared: self, live: pool.idle.pop() }
    }

    /// Drops instances that were idle for long; says whether none is left.
    fn sweep(&self) -> bool {
        let mut pool = self.pool();
        pool.idle.retain(|live| live.used.elapsed() < self.pace.idle);
        let none = pool.idle.is_empty();
        pool.swept = !none;
        none
    }

    fn note(&self, store: &wasmtime::Store<Lent>) {
        let bytes = store.data().meter.memory_bytes();
        let mut pool = self.pool();
        pool.memory_peak = pool.memory_peak.max(bytes);
    }

    fn why(&self, err: &wasmtime::Error, store: &wasmtime::Store<Lent>) -> Reason {
        Reason::of(err, &store.data().meter, &self.limits, 0)
    }

    async fn instantiate(&self) -> Result<(wasmtime::Store<Lent>, Guest), Reason> {
        let lent = self.lender.lend(&self.limits, self.log.clone()).await?;
        let mut store = wasmtime::Store::new(&self.lending.runtime.engine, lent);
        store.limiter(|lent| &mut lent.meter);
        store.set_hostcall_fuel(self.limits.returned_bytes);
        store.set_max_component_handles(1_000);
        // What ends a call is time.
        store.set_fuel(u64::MAX).map_err(|err| Reason::Engine(err.to_string()))?;
        // At each tick a guest that spins lets the clock of its call have a look.
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        match self.linked.instantiate_async(&mut store).await {
            Ok(guest) => Ok((store, guest)),
            Err(err) => Err(self.why(&err, &store)),
        }
    }

    /// A new instance with an open session.
    async fn open(&self) -> Result<Live, Failed> {
        let (mut store, guest) = self.instantiate().await.map_err(Failed::Plugin)?;
        let opened = guest.antiphon_plugin_storage().session().call_open(&mut store, &self.settings).await;
        self.note(&store);
        match opened {
            Ok(Ok(session)) => Ok(Live { store, guest, session, used: Instant::now() }),
            Ok(Err(said)) => Err(Failed::Said(said, Told::of(&mut store))),
            Err(err) => Err(Failed::Plugin(self.why(&err, &store))),
        }
    }

    fn describe(&self) -> Result<Described, Reason> {
        let asked = async {
            let (mut store, guest) = self.instantiate().await?;
            let info = guest.antiphon_plugin_metadata().call_describe(&mut store).await;
            let info = info.map_err(|err| self.why(&err, &store))?;
            Ok(Described {
                name: info.name,
                version: info.version,
                description: info.description,
                settings_schema: info.settings_schema,
                laws: info.laws,
            })
        };
        let time = self.pace.call;
        let described = self.lending.block_on(async {
            match tokio::time::timeout(time, Box::pin(asked)).await {
                Ok(described) => described,
                Err(_) => Err(Reason::TimeOut(time)),
            }
        });
        described.unwrap_or(Err(Reason::NotConfigured))
    }

    /// What a guest said went wrong, fit to be shown.
    fn said(&self, said: &objects::Error, told: Told) -> StoreError {
        let kind = match said.kind {
            objects::Kind::NotFound => ErrorKind::NotFound,
            objects::Kind::Exists => ErrorKind::Exists,
            objects::Kind::Denied => ErrorKind::Denied,
            objects::Kind::Unsupported => ErrorKind::Unsupported,
            objects::Kind::Temporary => ErrorKind::Temporary,
            objects::Kind::Permanent => ErrorKind::Permanent,
        };
        let Told { hinted, trouble } = told;
        // What it may not reach it may not reach later either, whatever it makes of that.
        let kind =
            if hinted.as_ref().is_some_and(|(message, _)| message.is_empty()) { ErrorKind::Denied } else { kind };
        let shown = |text: &str| printable(&self.lender.secrets.hidden(text), MESSAGE_BYTES_MAX);
        let message = shown(&said.message);
        let retry_after = said.retry_after_ms.map(|millis| Duration::from_millis(millis.into()));
        let uncertain = matches!(kind, ErrorKind::Temporary | ErrorKind::Permanent);
        match trouble.filter(|trouble| uncertain || trouble.refused) {
            // A guest hears only the beginning of what the host knows.
            Some(Trouble { kind, why, hint, .. }) => {
                StoreError { retry_after, hint, ..StoreError::new(kind, format!("{message}: {}", shown(&why))) }
            }
            None => {
                // The host's own hint, if it is the host's own failure that the guest passes on.
                let hint = hinted.filter(|(message, _)| said.message.contains(message)).map(|(_, hint)| hint);
                StoreError { retry_after, hint, ..StoreError::new(kind, message) }
            }
        }
    }

    /// A plugin that did not do as it should.
    fn broken(&self, attempt: &'static str, reason: Reason) -> StoreError {
        // Time may be short today; whatever else a plugin does wrong it will do again.
        let kind = match reason {
            Reason::TimeOut(_) => ErrorKind::Temporary,
            _ => ErrorKind::Permanent,
        };
        let error = Error::new(&self.subject, Attempt::Store(attempt), reason);
        let message = format!("{error}: {}", error.reason());
        StoreError { hint: error.hint(), ..StoreError::new(kind, self.lender.secrets.hidden(&message)) }
    }
}

const PUT: &str = "put an object with";
const GET: &str = "get an object with";
const STAT: &str = "look for an object with";
const LIST: &str = "list objects with";
const DELETE: &str = "delete objects with";
const CHECK: &str = "check";
const TRAITS: &str = "ask for the traits of";

impl Store for Storage {
    fn traits(&self) -> Result<Traits, StoreError> {
        let traits = self.ask(TRAITS, 0, async |guest, store, session| {
            guest.antiphon_plugin_storage().session().call_traits(store, session).await.map(Ok)
        })?;
        Ok(Traits {
            max_object: traits.max_object.min(OBJECT_BYTES_MAX),
            put_if_absent: traits.put_if_absent,
            ranged_get: traits.ranged_get,
            atomic_put: traits.atomic_put,
        })
    }

    fn check(&self) -> Result<(), StoreError> {
        self.ask(CHECK, 0, async |guest, store, session| {
            guest.antiphon_plugin_storage().session().call_check(store, session).await
        })
    }

    fn put(&self, name: &Name, body: &[u8], put: Put) -> Result<(), StoreError> {
        let size = body.len() as u64;
        if size > OBJECT_BYTES_MAX {
            let why = format!("cannot put `{name}`: its {size} bytes are more than the {OBJECT_BYTES_MAX} allowed");
            return Err(StoreError::new(ErrorKind::Unsupported, why));
        }
        self.ask(PUT, size, async |guest, store, session| {
            let if_absent = put == Put::IfAbsent;
            let session_of = guest.antiphon_plugin_storage().session();
            session_of.call_put(store, session, name.as_str(), body, if_absent).await
        })
    }

    fn get(&self, name: &Name, part: Option<Part>) -> Result<Vec<u8>, StoreError> {
        let (offset, length) = part.map_or((0, None), |part| (part.offset, Some(part.length)));
        let most = length.unwrap_or(OBJECT_BYTES_MAX).min(OBJECT_BYTES_MAX);
        let body = self.ask(GET, most, async |guest, store, session| {
            let session_of = guest.antiphon_plugin_storage().session();
            session_of.call_get(store, session, name.as_str(), offset, length).await
        })?;
        if body.len() as u64 > most {
            return Err(self.nonsense(GET, format!("{} bytes where {most} at most were asked for", body.len())));
        }
        Ok(body)
    }

    fn stat(&self, name: &Name) -> Result<Object, StoreError> {
        let object = self.ask(STAT, 0, async |guest, store, session| {
            guest.antiphon_plugin_storage().session().call_stat(store, session, name.as_str()).await
        })?;
        let object = self.object(STAT, object)?;
        if object.name != *name {
            return Err(self.nonsense(STAT, format!("`{}` where `{name}` was asked for", object.name)));
        }
        Ok(object)
    }

    fn list(&self, prefix: &str, after: Option<&Name>, limit: u32) -> Result<Vec<Object>, StoreError> {
        if !is_prefix(prefix) {
            return Err(StoreError::new(ErrorKind::Permanent, "cannot list: no name begins like that"));
        }
        let limit = limit.min(LIST_MAX);
        let objects = self.ask(LIST, 0, async |guest, store, session| {
            let after = after.map(Name::as_str);
            let session_of = guest.antiphon_plugin_storage().session();
            session_of.call_list_keys(store, session, prefix, after, limit).await
        })?;
        if objects.len() > limit as usize {
            return Err(self.nonsense(LIST, format!("{} objects where {limit} at most were asked for", objects.len())));
        }
        let mut listed: Vec<Object> = Vec::with_capacity(objects.len());
        for object in objects {
            let object = self.object(LIST, object)?;
            let before = listed.last().map(|last| &last.name).or(after);
            if !object.name.as_str().starts_with(prefix) || before.is_some_and(|before| *before >= object.name) {
                return Err(self.nonsense(LIST, format!("`{}` was not asked for, or not there", object.name)));
            }
            listed.push(object);
        }
        Ok(listed)
    }

    fn delete(&self, names: &[Name]) -> Result<(), StoreError> {
        let names: Vec<String> = names.iter().map(|name| name.as_str().to_owned()).collect();
        // Each may be a request of its own.
        self.ask(DELETE, names.len() as u64 * BYTES_A_DELETE, async |guest, store, session| {
            guest.antiphon_plugin_storage().session().call_delete(store, session, &names).await
        })
    }
}
