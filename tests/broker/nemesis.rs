//! F18: faults of all kinds, drawn by a seed, several at once and one after the other, while applications write.
//!
//! Each is undone after a moment, so that the next one finds whatever the one before has left. `F18_SEED` draws again
//! what a run has printed; when each falls, between which writes, is the machine's. With `PREVIOUS`, a program of the
//! build before, nodes are of that build now and then.

use crate::admin::Admin;
use crate::load::Random;
use crate::scenario::{Scenario, is_full, seconds};
use crate::world::World;
use antiphon_harness::{Clock, Flow, Place, Proxy, Resource, S3Server, Signal, Site, eventually, resolver_guest};
use async_nats::ConnectOptions;
use nkeys::KeyPair;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// Seconds that a clock is wrong by.
const AHEAD: [i64; 6] = [10, -10, 3_600, -3_600, 86_400, -86_400];
/// Columns that are added at most: the table's rows grow by each.
const COLUMNS_MAX: usize = 20;
/// A table whose resolver takes what comes, or traps, spins, takes all memory there is, or answers what makes no sense.
const FUSSED_OVER: &str = "CREATE TABLE fussed_over (id INTEGER PRIMARY KEY, v)";
const FUSSY: &str = "(local $n i64)
    (local.set $n (i64.rem_s (call $number (local.get $clash) (i32.const 1)) (i64.const 5)))
    (if (i64.eq (local.get $n) (i64.const 1)) (then unreachable))
    (if (i64.eq (local.get $n) (i64.const 2)) (then (loop $on (br $on))))
    (if (i64.eq (local.get $n) (i64.const 3)) (then
      (loop $more (br_if $more (i32.ge_s (memory.grow (i32.const 64)) (i32.const 0))))
      unreachable))
    (if (i64.eq (local.get $n) (i64.const 4)) (then (return (i32.const 99))))
    (i32.const 1)";
/// How often each node writes there in one act.
const WRITES: u64 = 5;

/// What goes wrong, of which node or server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// F01.
    HostKilled(usize),
    /// F02.
    ServerKilled(usize),
    /// F03.
    HostStands(usize),
    ServerStands(usize),
    /// F05.
    NoFileMore(usize),
    FilesStaySmall(usize),
    /// F06.
    NoMemoryMore(usize),
    /// F07.
    CutOff(usize),
    HalfOpen(usize),
    NothingSent(usize),
    NothingHeard(usize),
    Late(usize),
    Slow(usize),
    CutOnce(usize),
    /// F08.
    EntryAgain,
    /// F09.
    ObjectDamaged,
    /// F10.
    StoreAway,
    StoreStands,
    StoreSlow,
    StoreKilled,
    /// F11.
    ClockJumps(usize, i64),
    /// F12.
    LongTransaction(usize),
    Vacuum(usize),
    Checkpoints(usize),
    Reindexed(usize),
    ColumnAdded,
    /// F13.
    FileMoved(usize),
    /// F14.
    Starved(usize),
    /// F15.
    ResolverFails,
    /// F16.
    LoginReplaced,
    /// F17.
    BuildBefore(usize),
}

/// Of what there is one, and no two acts at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// A node's processes: nobody stands still with the lock that another waits for.
    Site(usize),
    Sites,
    Servers,
    Way(usize),
    Store,
    Clock(usize),
}

impl Act {
    /// How many kinds there are.
    const KINDS: u64 = 31;

    fn drawn(random: &mut Random, nodes: usize, servers: usize) -> Self {
        let node = random.below(nodes as u64) as usize;
        let server = random.below(servers as u64) as usize;
        let ahead = AHEAD[random.below(AHEAD.len() as u64) as usize];
        match random.below(Self::KINDS) {
            0 => Self::HostKilled(node),
            1 => Self::ServerKilled(server),
            2 => Self::HostStands(node),
            3 => Self::ServerStands(server),
            4 => Self::NoFileMore(node),
            5 => Self::FilesStaySmall(node),
            6 => Self::CutOff(node),
            7 => Self::HalfOpen(node),
            8 => Self::NothingSent(node),
            9 => Self::NothingHeard(node),
            10 => Self::Late(node),
            11 => Self::Slow(node),
            12 => Self::CutOnce(node),
            13 => Self::StoreAway,
            14 => Self::StoreStands,
            15 => Self::StoreSlow,
            16 => Self::StoreKilled,
            17 => Self::ClockJumps(node, ahead),
            18 => Self::LongTransaction(node),
            19 => Self::Vacuum(node),
            20 => Self::Checkpoints(node),
            21 => Self::Reindexed(node),
            22 => Self::ColumnAdded,
            23 => Self::Starved(node),
            24 => Self::NoMemoryMore(node),
            25 => Self::EntryAgain,
            26 => Self::ObjectDamaged,
            27 => Self::FileMoved(node),
            28 => Self::ResolverFails,
            29 => Self::BuildBefore(node),
            _ => Self::LoginReplaced,
        }
    }

    /// Its kind.
    fn name(self) -> String {
        let name = format!("{self:?}");
        name.split('(').next().unwrap().to_owned()
    }

    fn target(self) -> Target {
        match self {
            Self::HostKilled(node)
            | Self::HostStands(node)
            | Self::NoFileMore(node)
            | Self::FilesStaySmall(node)
            | Self::NoMemoryMore(node)
            | Self::LongTransaction(node)
            | Self::Vacuum(node)
            | Self::Checkpoints(node)
            | Self::Reindexed(node)
            | Self::FileMoved(node)
            | Self::Starved(node)
            | Self::BuildBefore(node) => Target::Site(node),
            Self::ColumnAdded | Self::ResolverFails => Target::Sites,
            Self::ServerKilled(_) | Self::ServerStands(_) | Self::EntryAgain | Self::LoginReplaced => Target::Servers,
            Self::CutOff(node)
            | Self::HalfOpen(node)
            | Self::NothingSent(node)
            | Self::NothingHeard(node)
            | Self::Late(node)
            | Self::Slow(node)
            | Self::CutOnce(node) => Target::Way(node),
            Self::StoreAway | Self::StoreStands | Self::StoreSlow | Self::StoreKilled | Self::ObjectDamaged => {
                Target::Store
            }
            Self::ClockJumps(node, _) => Target::Clock(node),
        }
    }

    fn goes_with(self, other: Self) -> bool {
        match (self.target(), other.target()) {
            (Target::Sites, Target::Site(_) | Target::Sites) | (Target::Site(_), Target::Sites) => false,
            (one, other) => one != other,
        }
    }
}

/// What an act has to be undone with, besides what it is.
enum Undone {
    ByItself,
    /// The application's own, whose transaction ends with it.
    Connection(Connection),
    /// Threads that take all the processor's time until this is set.
    Spinning(Arc<AtomicBool>),
    /// An object that is as it was again.
    Damage(Damage),
}

/// A cluster, and all that can go wrong with it.
struct Nemesis {
    scenario: Scenario,
    clocks: Vec<Clock>,
    store: S3Server,
    /// The nodes' way to the store.
    to_store: Proxy,
    /// The login that the server knows, where it knows any.
    login: Option<KeyPair>,
    /// The folder of all nodes, where another build is run.
    before: Option<Place>,
    columns: usize,
    fussed: u64,
}

impl Nemesis {
    fn new(random: &mut Random) -> Self {
        let nodes = 3 + random.below(3) as usize;
        let mut world = if random.below(2) == 0 { World::one() } else { World::three() };
        println!("{nodes} nodes at {} servers", world.servers.count());
        let store = S3Server::start();
        let to_store = Proxy::to(store.port());
        let login = (world.servers.count() == 1).then(KeyPair::new_user);
        let seed = login.as_ref().map(|login| {
            world.servers.server(0).reload(&users(&[login]));
            world.place.file("seed", &login.seed().unwrap())
        });
        let fussy = resolver_guest(FUSSY);
        std::fs::write(world.place.path("mine.wasm"), &fussy).unwrap();
        let more = format!(
            "[[conflict.table]]\nmatch = 'fussed_over'\nuse = 'mine'\n[plugin.mine]\nsource = 'file:mine.wasm'\n\
             sha256 = '{}'\non_failure = 'park'\nlimits = {{ fuel_base = 20000000 }}\n\
             [snapshot]\nstore = 's3'\ninterval = 5000\nincremental_interval = 2000\nleader_ttl = 2000\n\
             retention_count = 3\nprune_grace = 2000\narchive_interval = 500\n\
             [snapshot.s3]\nendpoint = 'http://127.0.0.1:{}'\nbucket = 'bucket'\naccess_key = '{}'\nsecret = '{}'",
            antiphon_plugin::sha256(&fussy),
            to_store.port(),
            S3Server::KEY,
            S3Server::SECRET
        );
        let ways: Vec<Vec<Proxy>> = (0..nodes).map(|_| world.proxies()).collect();
        let clocks: Vec<Clock> =
            NAMES[..nodes].iter().map(|name| Clock::new(&world.place, &format!("clock-{name}"))).collect();
        let site = |at: usize| {
            let urls: Vec<String> = ways[at].iter().map(Proxy::url).collect();
            let mut site = clocks[at].tells(world.site_with(NAMES[at], &urls, &more));
            site.sql(FUSSED_OVER);
            site.set("ANTIPHON_NATS__SEED_FILE", seed.as_ref().map(|seed| seed.to_str().unwrap()));
            site
        };
        let sites: Vec<Site> = (0..nodes).map(site).collect();
        let before = std::env::var("PREVIOUS").ok().map(|program| world.place.with_program(&program));
        let scenario = Scenario::begun(world, sites, ways);
        Self { scenario, clocks, store, to_store, login, before, columns: 0, fussed: 0 }
    }

    fn is_possible(&self, act: Act) -> bool {
        match act {
            Act::LoginReplaced => self.login.is_some(),
            Act::BuildBefore(_) => self.before.is_some(),
            Act::ColumnAdded => self.columns < COLUMNS_MAX,
            _ => true,
        }
    }

    fn begin(&mut self, act: Act, pause: Duration) -> Undone {
        let Scenario { world, sites, ways, .. } = &mut self.scenario;
        match act {
            Act::HostKilled(node) => sites[node].kill9(),
            Act::ServerKilled(server) => world.servers.server(server).kill(),
            Act::HostStands(node) => sites[node].signal(Signal::STOP),
            Act::ServerStands(server) => world.servers.server(server).signal(Signal::STOP),
            Act::NoFileMore(node) => sites[node].limit(Resource::Nofile, Some(3)),
            Act::NoMemoryMore(node) => sites[node].leave_memory(1 << 20),
            Act::FilesStaySmall(node) => sites[node].limit(Resource::Fsize, Some(64 << 10)),
            Act::CutOff(node) => ways[node].iter().for_each(Proxy::close),
            Act::HalfOpen(node) => ways[node].iter().for_each(|way| way.flows(Flow::Stands, Flow::Stands)),
            Act::NothingSent(node) => ways[node].iter().for_each(|way| way.flows(Flow::Loses, Flow::Passes)),
            Act::NothingHeard(node) => ways[node].iter().for_each(|way| way.flows(Flow::Passes, Flow::Loses)),
            Act::Late(node) => ways[node].iter().for_each(|way| way.delay(pause / 30)),
            Act::Slow(node) => ways[node].iter().for_each(|way| way.throttle(Some(20_000))),
            Act::CutOnce(node) => ways[node].iter().for_each(Proxy::cut),
            Act::EntryAgain => {
                let login = self.login.as_ref().map(|login| login.seed().unwrap());
                let admin = Admin::with(world, login.map_or_else(ConnectOptions::new, ConnectOptions::with_nkey));
                eventually("an entry comes again", || admin.say_again().is_ok());
            }
            Act::ObjectDamaged => {
                let number = pause.as_millis() as usize;
                let damage = some_object(&self.store.bucket(), number).and_then(|object| Damage::done(object, number));
                return damage.map_or(Undone::ByItself, Undone::Damage);
            }
            Act::StoreAway => self.to_store.close(),
            Act::StoreStands => self.to_store.flows(Flow::Stands, Flow::Stands),
            Act::StoreSlow => self.to_store.throttle(Some(5_000)),
            Act::StoreKilled => self.store.kill(),
            Act::ClockJumps(node, ahead) => self.clocks[node].set(ahead),
            Act::LongTransaction(node) => {
                let conn = sites[node].connect();
                conn.execute_batch("BEGIN IMMEDIATE; UPDATE shared SET v = v || '' WHERE id = 0").unwrap();
                return Undone::Connection(conn);
            }
            Act::Vacuum(node) => sites[node].sql("VACUUM"),
            Act::Checkpoints(node) => {
                let conn = sites[node].connect();
                for kind in ["TRUNCATE", "RESTART", "FULL", "PASSIVE"].iter().cycle().take(40) {
                    conn.query_row(&format!("PRAGMA wal_checkpoint({kind})"), [], |_| Ok(())).unwrap();
                }
            }
            Act::Reindexed(node) => {
                sites[node].sql("CREATE INDEX by_note ON item (note); ANALYZE; REINDEX; DROP INDEX by_note");
            }
            Act::ColumnAdded => {
                self.columns += 1;
                let column = format!("more_{}", self.columns);
                for (node, site) in sites.iter().enumerate() {
                    site.sql(&format!("ALTER TABLE item ADD COLUMN {column} TEXT DEFAULT 'none'"));
                    // Of its own alone: an update of what another deletes meanwhile would bring it back.
                    let own = format!("id IN (SELECT id FROM item WHERE id LIKE '{}-%' LIMIT 5)", node + 1);
                    site.sql(&format!("UPDATE item SET {column} = 'of {node}' WHERE {own}"));
                    std::thread::sleep(pause / 10);
                }
            }
            Act::FileMoved(node) => std::fs::rename(&sites[node].database, away(&sites[node])).unwrap(),
            Act::Starved(node) => {
                schedule(&sites[node], "--idle");
                let over = Arc::new(AtomicBool::new(false));
                for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
                    let over = Arc::clone(&over);
                    std::thread::spawn(move || {
                        while !over.load(Ordering::Relaxed) {
                            std::hint::spin_loop();
                        }
                    });
                }
                return Undone::Spinning(over);
            }
            Act::ResolverFails => {
                for _ in 0..WRITES {
                    self.fussed += 1;
                    let write = format!("REPLACE INTO fussed_over VALUES ({}, ", self.fussed % 3);
                    // All write the same: whoever is later in the log, it fails in one way.
                    sites.iter().for_each(|site| site.sql(&format!("{write}{})", self.fussed)));
                }
            }
            Act::BuildBefore(node) => {
                sites[node].kill9();
                sites[node].runs_from(self.before.as_ref().unwrap());
                sites[node].spawn();
            }
            Act::LoginReplaced => {
                let (old, new) = (self.login.take().unwrap(), KeyPair::new_user());
                world.servers.server(0).reload(&users(&[&old, &new]));
                world.place.file("seed", &new.seed().unwrap());
                self.login = Some(new);
            }
        }
        Undone::ByItself
    }

    fn end(&mut self, act: Act, undone: Undone) {
        let Scenario { world, sites, ways, .. } = &mut self.scenario;
        match undone {
            Undone::Connection(conn) => conn.execute_batch("COMMIT").unwrap(),
            Undone::Spinning(over) => over.store(true, Ordering::Relaxed),
            Undone::Damage(damage) => damage.undone(),
            Undone::ByItself => {}
        }
        match act {
            Act::HostKilled(node) => sites[node].spawn(),
            Act::HostStands(node) => sites[node].signal(Signal::CONT),
            Act::NoFileMore(node) => sites[node].limit(Resource::Nofile, None),
            // Rust ends a process that is refused memory for a growing piece of its own.
            Act::NoMemoryMore(node) if !sites[node].is_running() => {
                assert_eq!(sites[node].wait().signal(), Some(Signal::ABORT.as_raw()), "{}", sites[node].said());
                sites[node].spawn();
            }
            Act::NoMemoryMore(node) => sites[node].limit(Resource::As, None),
            Act::FilesStaySmall(node) => sites[node].limit(Resource::Fsize, None),
            Act::Starved(node) => schedule(&sites[node], "--other"),
            Act::BuildBefore(node) => {
                sites[node].kill9();
                sites[node].runs_from(&world.place);
                sites[node].spawn();
            }
            Act::FileMoved(node) => {
                let ended = sites[node].wait();
                assert_eq!(ended.code(), Some(66), "{}", sites[node].said());
                std::fs::rename(away(&sites[node]), &sites[node].database).unwrap();
                sites[node].spawn();
            }
            Act::ServerKilled(_) => world.servers.resume(),
            Act::ServerStands(server) => world.servers.server(server).signal(Signal::CONT),
            Act::LoginReplaced => world.servers.server(0).reload(&users(&[self.login.as_ref().unwrap()])),
            Act::StoreKilled => self.store.resume(),
            Act::ClockJumps(node, _) => self.clocks[node].set(0),
            _ => match act.target() {
                Target::Way(node) => ways[node].iter().for_each(Proxy::heal),
                Target::Store => self.to_store.heal(),
                _ => {}
            },
        }
    }

    /// Up to three at once, for a while.
    fn round(&mut self, random: &mut Random, drawn: &mut BTreeMap<String, u32>) {
        let (nodes, servers) = (self.scenario.sites.len(), self.scenario.world.servers.count());
        let pause = Duration::from_millis(200 + random.below(2_500));
        let mut acts: Vec<Act> = Vec::new();
        for _ in 0..=random.below(3) {
            let act = Act::drawn(random, nodes, servers);
            if self.is_possible(act) && acts.iter().all(|other| act.goes_with(*other)) {
                acts.push(act);
                *drawn.entry(act.name()).or_default() += 1;
            }
        }
        println!("{acts:?} for {pause:?}");
        let begun: Vec<(Act, Undone)> = acts.into_iter().map(|act| (act, self.begin(act, pause))).collect();
        std::thread::sleep(pause);
        for (act, undone) in begun.into_iter().rev() {
            self.end(act, undone);
        }
        for site in &mut self.scenario.sites {
            assert!(site.is_running(), "a host has ended");
        }
    }
}

/// Where a database is while it is not where it belongs.
fn away(site: &Site) -> PathBuf {
    site.database.with_extension("away")
}

/// Some object below this folder, which one by the number. `None` if there is none.
fn some_object(folder: &Path, number: usize) -> Option<PathBuf> {
    let (mut folders, mut objects) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        // Whatever goes meanwhile is not damaged.
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder { &mut folders } else { &mut objects }.push(entry.path());
        }
    }
    objects.sort();
    (!objects.is_empty()).then(|| objects.swap_remove(number % objects.len()))
}

/// A byte of an object that is another one for a while.
struct Damage {
    object: PathBuf,
    at: usize,
    damaged: Vec<u8>,
}

impl Damage {
    fn done(object: PathBuf, number: usize) -> Option<Self> {
        let mut damaged = std::fs::read(&object).ok().filter(|bytes| !bytes.is_empty())?;
        let at = number % damaged.len();
        damaged[at] ^= 1;
        put(&object, &damaged[at..=at], at);
        Some(Self { object, at, damaged })
    }

    /// Only what is there as it was left: objects go, and others come.
    fn undone(self) {
        let Self { object, at, mut damaged } = self;
        if std::fs::read(&object).is_ok_and(|bytes| bytes == damaged) {
            damaged[at] ^= 1;
            put(&object, &damaged[at..=at], at);
        }
    }
}

/// Writes into a file, if it is still there.
fn put(file: &Path, bytes: &[u8], at: usize) {
    if let Ok(file) = std::fs::OpenOptions::new().write(true).open(file) {
        file.write_all_at(bytes, at as u64).unwrap();
    }
}

/// What a server is told of who may come.
fn users(logins: &[&KeyPair]) -> String {
    let users = logins.iter().map(|login| format!("{{ nkey: {} }}", login.public_key())).collect::<Vec<_>>();
    format!("authorization {{ users: [ {} ] }}", users.join(", "))
}

/// Has all threads of a host run as the system's `chrt` says. One that has ended meanwhile needs none of it.
fn schedule(site: &Site, how: &str) {
    for task in std::fs::read_dir(format!("/proc/{}/task", site.pid())).unwrap() {
        let task = task.unwrap().file_name().into_string().unwrap();
        Command::new("chrt").args([how, "--pid", "0", &task]).output().unwrap();
    }
}

fn seed() -> u64 {
    match std::env::var("F18_SEED") {
        Ok(seed) => seed.parse().unwrap_or_else(|_| panic!("F18_SEED is a number, and not `{seed}`")),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 % 1_000_000,
    }
}

#[test]
fn f18_faults_of_all_kinds_at_random() {
    let seed = seed();
    println!("F18_SEED={seed}");
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut nemesis = Nemesis::new(&mut random);
    let mut drawn = BTreeMap::new();
    let begun = Instant::now();
    while begun.elapsed() < seconds(25, 600) {
        nemesis.round(&mut random, &mut drawn);
        // Whatever it was, the applications can write.
        nemesis.scenario.write_on();
    }
    println!("{drawn:?}");
    if is_full() {
        let impossible = usize::from(nemesis.login.is_none()) + usize::from(nemesis.before.is_none());
        assert_eq!(drawn.len(), Act::KINDS as usize - impossible, "some kind never came: {drawn:?}");
    }
    // How soon is asked where there are three nodes and one fault: five at three servers are much for a small machine.
    nemesis.scenario.recover();
    if is_full() {
        let parked = "SELECT count(*) > 0 FROM \"__antiphon___conflict\" WHERE resolver = 'mine' AND verdict = 'park'";
        let sites = &nemesis.scenario.sites;
        assert!(sites.iter().any(|site| site.one(parked) == "1"), "the resolver never failed");
    }
    let place = nemesis.scenario.world.place.clone();
    let snapshot = |arguments: &[&str]| place.run([&["snapshot"], arguments, &["--config", "a.toml"]].concat());
    eventually("a snapshot is made", || snapshot(&["create"]).code == Some(0));
    for site in &mut nemesis.scenario.sites {
        site.term();
    }
    // Nobody prunes any more: what there is can be read.
    let verified = snapshot(&["verify", "--all", "--level", "restore"]);
    assert_eq!(verified.code, Some(0), "{}{}", verified.stdout, verified.stderr);
}
