//! A node: an application's connection, and a host without threads beside it.

use antiphon::db::{Applied, Database, Db, Filter, Find, Found, Make, Options, Policies, Standing};
use antiphon::flaw::testing::on_fault;
use antiphon::log::{Log, Memory, Placed};
use antiphon::publish::{self, Publisher};
use antiphon::subscribe::{self, Subscriber};
use antiphon_core::codec::{self, Encoder};
use antiphon_core::entry::{Body, Changes, Chunk, Decision, Entry, Genesis, OnFailure, Origin, Policy};
use antiphon_core::hash::{Hash, PackedKeys, PluginError};
use antiphon_core::resolve::{Clash, LastWriteWins, Needs, Resolve, Verdict};
use antiphon_core::schema::Table;
use antiphon_core::value::Row;
use futures::executor::block_on;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Any pure function of a key will do for tests that are not about hashing.
#[derive(Default)]
struct Spread(Vec<String>);

impl Hash for Spread {
    fn configure(&mut self, tables: &[Table]) -> Result<(), PluginError> {
        self.0 = tables.iter().map(|table| table.name.to_ascii_lowercase()).collect();
        Ok(())
    }

    fn hash(&mut self, table: u32, keys: &PackedKeys) -> Result<Vec<u64>, PluginError> {
        let name =
            self.0[table as usize].bytes().fold(7, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let hash =
            |key: &[u8]| key.iter().fold(name, |sum, byte| sum.wrapping_mul(1_099_511_628_211) ^ u64::from(*byte));
        let mut hashes: Vec<u64> = keys.iter().map(hash).collect();
        match MISHAP.get() {
            Some(Mishap::HashFails) => return Err(PluginError("it trapped".to_owned())),
            Some(Mishap::HashTooFew) => drop(hashes.pop()),
            _ => {}
        }
        Ok(hashes)
    }
}

/// What goes wrong in a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    HashFails,
    HashTooFew,
    ResolveFails,
    ResolveTooFew,
}

thread_local! {
    static MISHAP: Cell<Option<Mishap>> = const { Cell::new(None) };
}

/// From now on this goes wrong in every component of this thread's nodes; or nothing.
pub fn mishap(mishap: Option<Mishap>) {
    MISHAP.set(mishap);
}

/// The later word wins, unless something goes wrong.
struct Resolver;

impl Resolve for Resolver {
    fn configure(&mut self, nodes: &[String], tables: &[Table]) -> Result<Needs, PluginError> {
        LastWriteWins.configure(nodes, tables)
    }

    fn resolve(&mut self, batch: &[Clash]) -> Result<Vec<Verdict>, PluginError> {
        let mut verdicts = LastWriteWins.resolve(batch)?;
        match MISHAP.get() {
            Some(Mishap::ResolveFails) => return Err(PluginError("it trapped".to_owned())),
            Some(Mishap::ResolveTooFew) => drop(verdicts.pop()),
            _ => {}
        }
        Ok(verdicts)
    }
}

/// How a node is set up.
#[derive(Clone)]
pub struct Setup {
    pub node: u64,
    pub shards: u32,
    pub changes_max: usize,
    pub atomic_max: usize,
    pub filter: Filter,
    pub publish: bool,
    pub replicate: bool,
    /// Names and makers of policies for tables that match a glob; all others follow the order of the log.
    pub policies: Vec<(&'static str, &'static str, Make)>,
    /// What becomes of a clash that one of them fails at.
    pub on_failure: OnFailure,
    /// Names and makers of resolvers that the node has besides, for policies that come later.
    pub resolvers: Vec<(&'static str, Make)>,
    /// Where the databases lie; in memory if nowhere.
    pub folder: Option<PathBuf>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            node: 1,
            shards: 1,
            changes_max: 10_000,
            atomic_max: 100_000,
            filter: Filter::default(),
            publish: true,
            replicate: true,
            policies: Vec::new(),
            on_failure: OnFailure::Stop,
            resolvers: Vec::new(),
            folder: None,
        }
    }
}

/// The default policy's name.
const PLAIN: &str = "last-write-wins";

impl Setup {
    fn policies(&self) -> Policies {
        let named = self.policies.iter().map(|(_, name, make)| (*name, Arc::clone(make)));
        let known: Vec<(&str, Make)> = named.chain(self.resolvers.iter().cloned()).collect();
        let find: Find = Arc::new(move |agreed| {
            if agreed.resolver == PLAIN {
                return Ok(Found::native(PLAIN, Arc::new(|| Ok(Box::new(Resolver)))));
            }
            let found = known.iter().find(|(name, _)| *name == agreed.resolver);
            let (name, make) = found.ok_or_else(|| format!("this node lacks the resolver `{}`", agreed.resolver))?;
            Ok(Found::native(name, Arc::clone(make)))
        });
        Policies::new(find, self.genesis().all_policies())
    }

    /// What this node would agree to.
    fn genesis(&self) -> Genesis {
        let own = self
            .policies
            .iter()
            .map(|(tables, name, _)| Policy { on_failure: self.on_failure, ..agreed(tables, name) });
        Genesis {
            shards: self.shards,
            hasher: "test".into(),
            resolver: PLAIN.into(),
            policies: own.collect(),
            wire: 1,
            ..Genesis::default()
        }
    }
}

/// A policy by its tables and its resolver's name.
pub fn agreed(tables: &str, name: &str) -> Policy {
    Policy { pattern: tables.to_owned(), resolver: name.to_owned(), ..Policy::default() }
}

/// Policies for these tables, as nodes decide on them; the order of the log decides over all others.
pub fn decision(version: u64, policies: &[(&str, &str)]) -> Decision {
    let own = policies.iter().map(|(tables, name)| agreed(tables, name));
    Decision { version, policies: own.chain([agreed("", PLAIN)]).collect() }
}

/// A policy for `Setup::policies`: its tables, its name, and the twin that decides.
pub fn policy<R: Resolve + Clone + Sync + 'static>(
    tables: &'static str,
    name: &'static str,
    twin: R,
) -> (&'static str, &'static str, Make) {
    (tables, name, Arc::new(move || Ok(Box::new(twin.clone()))))
}

/// A node of a test cluster.
pub struct Node {
    pub app: Connection,
    pub db: Db,
    pub publisher: Publisher,
    pub subscribers: Vec<Subscriber>,
    pub log: Arc<Memory>,
    setup: Setup,
    path: PathBuf,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Opens the application's side of a database in memory that several connections share.
fn app(path: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_URI;
    let conn = Connection::open_with_flags(path, flags).unwrap();
    conn.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    antiphon::clock::testing::tell(&conn).unwrap();
    conn
}

impl Node {
    /// A node with these tables, belonging to no cluster yet.
    pub fn new(log: &Arc<Memory>, setup: Setup, ddl: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = match &setup.folder {
            Some(folder) => folder.join(format!("node-{number}.db")),
            None => PathBuf::from(format!("file:/node-{number}?vfs=memdb")),
        };
        let app = app(&path);
        app.execute_batch(ddl).unwrap();
        Self::over(log, setup, app, path)
    }

    /// A node over a database that is there, and a connection of the application's to it.
    pub fn over(log: &Arc<Memory>, setup: Setup, app: Connection, path: PathBuf) -> Self {
        let db = Self::open(&path, &setup);
        let mut node = Self {
            app,
            publisher: Publisher::new(db.clone(), log.clone()),
            subscribers: Vec::new(),
            db,
            log: log.clone(),
            setup,
            path,
        };
        node.revive();
        node
    }

    fn open(path: &Path, setup: &Setup) -> Db {
        let options = Options {
            path: path.to_owned(),
            node: setup.node,
            filter: setup.filter.clone(),
            changes_max: setup.changes_max,
            atomic_max: setup.atomic_max,
            compress: false,
            publish: setup.publish,
            replicate: setup.replicate,
            replays: None,
        };
        Db::inline(Database::open(options, Box::new(Spread::default()), setup.policies()).unwrap())
    }

    /// The host dies and starts again: whatever it had in memory is gone. The application notices nothing.
    pub fn crash(&mut self) {
        self.publisher = Publisher::new(self.db.clone(), self.log.clone());
        self.subscribers.clear();
        self.db = Self::open(&self.path, &self.setup);
        self.revive();
    }

    fn revive(&mut self) {
        let log: Arc<dyn Log> = self.log.clone();
        self.publisher = Publisher::new(self.db.clone(), log.clone());
        self.subscribers =
            (1..=self.setup.shards).map(|shard| Subscriber::new(self.db.clone(), log.clone(), shard)).collect();
        let origin = self.with(|db| db.origin());
        for shard in 1..=self.setup.shards {
            let last = block_on(log.last_number(shard, origin)).unwrap();
            self.with(move |db| db.number_above(shard, last));
        }
    }

    /// Other tables are replicated from the next start on.
    pub fn set_filter(&mut self, filter: Filter) {
        self.setup.filter = filter;
    }

    /// The node has other resolvers besides from the next start on.
    pub fn set_resolvers(&mut self, resolvers: Vec<(&'static str, Make)>) {
        self.setup.resolvers = resolvers;
    }

    /// Another connection of the application's.
    pub fn connect(&self) -> Connection {
        app(&self.path)
    }

    /// Runs SQL as the application.
    pub fn sql(&self, sql: &str) {
        self.app.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The first value of a query, as text.
    pub fn one(&self, sql: &str) -> String {
        self.app.query_row(sql, [], |row| Ok(text(row.get_ref(0)?))).unwrap()
    }

    /// Every row of a query, values joined by `|`.
    pub fn rows(&self, sql: &str) -> Vec<String> {
        rows(&self.app, sql)
    }

    /// Every row of every table of the application's, with storage classes and bytes: what two nodes must agree on.
    pub fn dump(&self) -> Vec<String> {
        dump(&self.app)
    }

    /// Seals and sends until there is nothing left to.
    pub fn publish(&mut self) {
        while block_on(self.publisher.step()).unwrap() == publish::Progress::More {}
    }

    /// Applies until there is nothing left to; gives why not all of it could be.
    pub fn apply(&mut self) -> Option<String> {
        let mut blocked = None;
        for subscriber in &mut self.subscribers {
            loop {
                match block_on(subscriber.step()).unwrap() {
                    subscribe::Progress::More => {}
                    subscribe::Progress::Idle(_) => break,
                    subscribe::Progress::Blocked(reason) => {
                        blocked = Some(reason.to_string());
                        break;
                    }
                }
            }
        }
        blocked
    }

    /// Applies as far as it goes; gives what stands in the way, whether that is waited for or an error.
    pub fn try_apply(&mut self) -> Option<String> {
        for subscriber in &mut self.subscribers {
            loop {
                match block_on(subscriber.step()) {
                    Ok(subscribe::Progress::More) => {}
                    Ok(subscribe::Progress::Idle(_)) => break,
                    Ok(subscribe::Progress::Blocked(reason)) => return Some(reason.to_string()),
                    Err(error) => return Some(chain(&error)),
                }
            }
        }
        None
    }

    /// Seals one piece and sends it; says whether more is left.
    pub fn publish_step(&mut self) -> bool {
        block_on(self.publisher.step()).unwrap() == publish::Progress::More
    }

    /// Seals all there is, and sends nothing of it.
    pub fn seal(&self) {
        while self.with(|db| db.seal().unwrap()) {}
    }

    /// Applies the next `count` entries of a shard, or fewer if there are not so many; gives what came of it.
    pub fn apply_next(&self, shard: u32, count: usize) -> Applied {
        let position = self.with(move |db| db.position(shard).seq);
        let mut entries = block_on(self.log.read(shard, position, usize::MAX)).unwrap();
        entries.truncate(count);
        self.apply_placed(shard, entries)
    }

    /// Hands entries to the database as if the log had them in these places.
    pub fn apply_placed(&self, shard: u32, entries: Vec<Placed>) -> Applied {
        self.with(move |db| db.apply(shard, &entries).unwrap())
    }

    /// Publishes and applies once, either of which may end in a fault point; says whether it did.
    pub fn try_round(&mut self) -> bool {
        loop {
            match block_on(self.publisher.step()) {
                Ok(publish::Progress::More) => {}
                Ok(publish::Progress::Idle) => break,
                Err(_) => return true,
            }
        }
        for subscriber in &mut self.subscribers {
            loop {
                match block_on(subscriber.step()) {
                    Ok(subscribe::Progress::More) => {}
                    Ok(subscribe::Progress::Idle(_)) => break,
                    Ok(subscribe::Progress::Blocked(reason)) => panic!("{reason}"),
                    Err(_) => return true,
                }
            }
        }
        false
    }

    /// Runs `work` while the process would die at the `nth` fault point named `point` that it passes.
    pub fn dying_at<T>(&mut self, point: &'static str, nth: u64, work: impl FnOnce(&mut Self) -> T) -> T {
        let mut passed = 0;
        on_fault(move |at| {
            passed += u64::from(at == point);
            at == point && passed == nth
        });
        let done = work(self);
        on_fault(|_| false);
        done
    }

    /// Conflict records: table, cause, winner.
    pub fn conflicts(&self) -> Vec<String> {
        self.rows("SELECT tbl, cause, winner_node FROM __antiphon___conflict ORDER BY id")
    }

    /// Runs `work` on the host's side of the database.
    pub fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut Database) -> T + Send + 'static) -> T {
        block_on(self.db.call(|db| Ok(work(db)))).unwrap()
    }

    /// Joins the cluster of the log, or founds it: what a start does, for a node without rows or a first node.
    pub fn enter(&mut self) {
        if self.with(|db| db.standing().unwrap()) != Standing::Apart {
            return;
        }
        let genesis = self.setup.genesis();
        let first = genesis.clone();
        let frame = self.with(move |db| db.genesis([9; 16], first).unwrap());
        let founder = block_on(self.log.begin(1, &frame)).unwrap();
        assert!(founder || self.with(|db| db.is_empty().unwrap()), "a node with rows joins by comparing");
        self.with(move |db| db.enter([9; 16], &genesis, founder).unwrap());
    }

    /// Proposes policies, as whoever runs `antiphon policy apply` does.
    pub fn propose(&self, decision: Decision) {
        let (frame, voice) = self.with(move |db| (db.unnumbered(Body::Decided(decision)).unwrap(), db.voice()));
        let last = block_on(self.log.last_number(1, voice)).unwrap();
        block_on(self.log.append(1, voice, last + 1, &[frame])).unwrap();
    }

    /// Entries in the log, decoded.
    pub fn log_entries(&self, shard: u32) -> Vec<Body> {
        let entries = block_on(self.log.read(shard, 0, usize::MAX)).unwrap();
        entries.iter().map(|placed| codec::decode(&placed.frame).unwrap().body).collect()
    }

    /// What the changes in the first shard say they were made upon, after its first entries; sorted.
    pub fn bases(&self, after: usize) -> Vec<Option<Row>> {
        let entries = self.log_entries(1).into_iter().skip(after);
        let chunks =
            entries.flat_map(|body| if let Body::Changes(changes) = body { changes.chunks } else { Vec::new() });
        let mut bases: Vec<_> = chunks.flat_map(|chunk| chunk.made).map(|made| made.base).collect();
        bases.sort_by_key(|base| format!("{base:?}"));
        bases
    }
}

/// A frame of changes by a node that no test runs, of the cluster that [`Node::enter`] founds.
pub fn foreign(number: u64, chunks: Vec<Chunk>) -> Vec<u8> {
    foreign_entry(number, Body::Changes(Changes { more: false, seen: 0, chunks }))
}

fn foreign_entry(number: u64, body: Body) -> Vec<u8> {
    let origin = Origin { node: 99, incarnation: 1 };
    let entry = Entry { cluster: [9; 16], origin, number, clock: 1, body };
    Encoder::new(None).encode(&entry).unwrap()
}

/// Appends such a frame to a log.
pub fn append_foreign(log: &Memory, shard: u32, number: u64, chunks: Vec<Chunk>) {
    let frame = foreign(number, chunks);
    block_on(log.append(shard, Origin { node: 99, incarnation: 1 }, number, &[frame])).unwrap();
}

/// Appends what such a node says of the floor.
pub fn append_floor(log: &Memory, shard: u32, number: u64, floor: u64) {
    let frame = foreign_entry(number, Body::Floor(floor));
    block_on(log.append(shard, Origin { node: 99, incarnation: 1 }, number, &[frame])).unwrap();
}

/// Numbers that look random and are the same at every run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`.
    pub fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// Every row of a query, values joined by `|`.
#[track_caller]
pub(crate) fn rows(conn: &Connection, sql: &str) -> Vec<String> {
    let mut statement = conn.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let width = statement.column_count();
    let rows = statement.query_map([], |row| {
        Ok((0..width).map(|column| text(row.get_ref(column).unwrap())).collect::<Vec<_>>().join("|"))
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

/// Every row of every table of the application's, with storage classes and bytes.
pub fn dump(conn: &Connection) -> Vec<String> {
    let tables = rows(
        conn,
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_\\_antiphon\\_\\_%' ESCAPE '\\' ORDER BY name",
    );
    let mut dump = Vec::new();
    for table in tables {
        let mut statement = conn.prepare(&format!("SELECT * FROM \"{}\"", table.replace('"', "\"\""))).unwrap();
        let width = statement.column_count();
        let rows = statement.query_map([], |row| {
            Ok((0..width).map(|column| exact(row.get_ref(column).unwrap())).collect::<Vec<_>>().join("|"))
        });
        let mut rows: Vec<String> = rows.unwrap().map(|row| format!("{table}: {}", row.unwrap())).collect();
        rows.sort();
        dump.extend(rows);
    }
    dump
}

fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}"),
        ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        ValueRef::Blob(bytes) => format!("x'{}'", hex(bytes)),
    }
}

fn exact(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "n".to_owned(),
        ValueRef::Integer(number) => format!("i{number}"),
        ValueRef::Real(number) => format!("r{:016x}", number.to_bits()),
        ValueRef::Text(bytes) => format!("t{}", hex(bytes)),
        ValueRef::Blob(bytes) => format!("b{}", hex(bytes)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes every node a member: the first founds.
pub fn found(nodes: &mut [&mut Node]) {
    for node in nodes.iter_mut() {
        node.enter();
    }
    settle(nodes);
}

/// Everybody seals, sends and applies until nothing moves any more; then all must be equal.
pub fn settle(nodes: &mut [&mut Node]) {
    for _ in 0..8 {
        for node in nodes.iter_mut() {
            node.publish();
        }
        for node in nodes.iter_mut() {
            let blocked = node.apply();
            assert_eq!(blocked, None);
        }
    }
    for node in nodes.iter() {
        assert_eq!(node.with(|db| db.pending_len()), 0, "keys are pending at rest");
    }
    let first = nodes[0].dump();
    for node in nodes.iter().skip(1) {
        assert_eq!(node.dump(), first, "tables differ");
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Two members of a new cluster with these tables.
pub fn pair(ddl: &str) -> (Node, Node) {
    pair_with(&Setup::default(), ddl)
}

/// Two members of a new cluster, set up like this but for their numbers.
pub fn pair_with(setup: &Setup, ddl: &str) -> (Node, Node) {
    let log = Arc::new(Memory::new());
    let [mut a, mut b] = [1, 2].map(|node| Node::new(&log, Setup { node, ..setup.clone() }, ddl));
    found(&mut [&mut a, &mut b]);
    (a, b)
}

/// Three members of a new cluster with these tables.
pub fn trio(ddl: &str) -> (Node, Node, Node) {
    trio_with(&Setup::default(), ddl)
}

/// Three members of a new cluster, set up like this but for their numbers.
pub fn trio_with(setup: &Setup, ddl: &str) -> (Node, Node, Node) {
    let log = Arc::new(Memory::new());
    let mut nodes = [1, 2, 3].map(|node| Node::new(&log, Setup { node, ..setup.clone() }, ddl));
    let [a, b, c] = &mut nodes;
    found(&mut [a, b, c]);
    let [a, b, c] = nodes;
    (a, b, c)
}
