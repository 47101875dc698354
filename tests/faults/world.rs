//! Two nodes and an embedded log in real files, and what must be true of them once the disk is sound again.

use antiphon::anew::Leave;
use antiphon::db::{Database, Db, Filter, Options, Policies, Standing};
use antiphon::join;
use antiphon::life::Provenance;
use antiphon::log::{Local, Log};
use antiphon::place::Place;
use antiphon::publish::{self, Publisher};
use antiphon::rescuer::Rescuer;
use antiphon::snapshot::Rescue;
use antiphon::subscribe::{self, Subscriber};
use antiphon_core::entry::Genesis;
use antiphon_core::hash::fnv::Fnv;
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Rows carry the number of the node that wrote them, in thousands. `tally` counts them in the same transaction,
/// and the application's trigger counts them a second time.
const DDL: &str = "
    CREATE TABLE note (id INTEGER PRIMARY KEY, text);
    CREATE TABLE tally (node INTEGER PRIMARY KEY, notes, touched DEFAULT 0);
    CREATE TABLE item (id INTEGER PRIMARY KEY, u UNIQUE, v);
    CREATE TRIGGER note_inserted AFTER INSERT ON note
        BEGIN UPDATE tally SET touched = touched + 1 WHERE node = NEW.id / 1000; END;";

/// Steps in which a node must have done all it can.
const STEPS_MAX: usize = 200;
/// Rounds in which two nodes must come to rest.
const ROUNDS_MAX: usize = 12;
/// How long a join waits for the founder, when the founder can't.
const JOIN_PATIENCE: Duration = Duration::from_millis(30);

/// A host: everything of it is in memory but for its files.
struct Host {
    db: Db,
    log: Arc<Local>,
    publisher: Publisher,
    subscriber: Subscriber,
}

/// A node: the application, and the host as long as it lives.
struct Node {
    number: u32,
    path: PathBuf,
    changes_max: usize,
    app: Option<Connection>,
    host: Option<Host>,
    /// Rows that the application was told are committed, and those of which it was told otherwise.
    committed: BTreeSet<i64>,
    refused: BTreeSet<i64>,
    next: i64,
}

/// How a host's step ended.
pub(crate) type Said = Result<(), String>;

pub(crate) struct World {
    folder: PathBuf,
    runtime: Runtime,
    nodes: Vec<Node>,
    /// What hosts said when they failed.
    pub(crate) errors: Vec<String>,
}

fn genesis() -> Genesis {
    Genesis {
        shards: 1,
        hasher: "fnv".into(),
        hasher_settings: Vec::new(),
        resolver: "last-write-wins".into(),
        wire: 1,
        ..Genesis::default()
    }
}

fn app(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open(path)?;
    conn.busy_timeout(Duration::from_millis(200))?;
    Ok(conn)
}

impl World {
    /// Two databases with the same tables, beneath `folder`; neither belongs to a cluster.
    pub(crate) fn create(folder: &Path, journal: &str) -> Self {
        let world = Self::open(folder);
        for node in &world.nodes {
            let conn = node.app.as_ref().unwrap();
            conn.pragma_update(None, "journal_mode", journal).unwrap();
            conn.execute_batch(DDL).unwrap();
            conn.execute_batch("INSERT INTO tally (node, notes) VALUES (1, 0), (2, 0)").unwrap();
        }
        world
    }

    /// The same beneath another folder, as it was copied there.
    pub(crate) fn open(folder: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
        let nodes = [1, 2].map(|number| {
            let path = folder.join(format!("{number}.db"));
            Node {
                number,
                app: Some(app(&path).unwrap()),
                path,
                changes_max: 10_000,
                host: None,
                committed: BTreeSet::new(),
                refused: BTreeSet::new(),
                next: 0,
            }
        });
        Self { folder: folder.to_owned(), runtime: runtime.unwrap(), nodes: nodes.into(), errors: Vec::new() }
    }

    /// Takes for committed what the tables hold: what was done before the copy was made.
    pub(crate) fn take_stock(&mut self) {
        for node in &mut self.nodes {
            let conn = node.app.as_ref().unwrap();
            let mut statement = conn.prepare("SELECT id FROM note WHERE id / 1000 = ?1").unwrap();
            let ids = statement.query_map([node.number], |row| row.get(0)).unwrap();
            node.committed = ids.collect::<Result<_, _>>().unwrap();
            node.next = 100;
        }
    }

    pub(crate) fn changes_max(&mut self, node: usize, changes: usize) {
        self.nodes[node].changes_max = changes;
        self.crash(node);
    }

    /// The application writes rows of its own in one transaction, or is told that it did not.
    pub(crate) fn write(&mut self, node: usize, rows: i64) {
        let node = &mut self.nodes[node];
        let first = i64::from(node.number) * 1000 + node.next;
        node.next += rows;
        let ids: BTreeSet<i64> = (first..first + rows).collect();
        let mut sql = String::from("BEGIN IMMEDIATE;");
        for id in &ids {
            sql += &format!("INSERT INTO note VALUES ({id}, 'note {id}');");
        }
        sql += &format!("UPDATE tally SET notes = notes + {rows} WHERE node = {};COMMIT", node.number);
        let done = node.sql(&sql);
        if done { &mut node.committed } else { &mut node.refused }.extend(ids);
    }

    /// The application does anything else; says whether SQLite took it.
    pub(crate) fn sql(&mut self, node: usize, sql: &str) -> bool {
        self.nodes[node].sql(sql)
    }

    /// The host dies, and starts again if it can. The application notices nothing.
    pub(crate) fn crash(&mut self, node: usize) {
        self.nodes[node].host = None;
        self.start(node);
    }

    /// Everything dies: hosts and applications.
    pub(crate) fn crash_all(&mut self) {
        for node in &mut self.nodes {
            node.host = None;
            node.app = None;
        }
    }

    fn start(&mut self, node: usize) -> bool {
        if self.nodes[node].host.is_none() {
            match self.try_start(node) {
                Ok(host) => self.nodes[node].host = Some(host),
                Err(error) => self.errors.push(error),
            }
        }
        self.nodes[node].host.is_some()
    }

    fn try_start(&self, node: usize) -> Result<Host, String> {
        let node = &self.nodes[node];
        antiphon::db::check(&node.path).map_err(|error| format!("check: {}", chain(&error)))?;
        let db = Db::inline(node.open().map_err(|error| format!("open: {}", chain(&error)))?);
        let _inside = self.runtime.enter();
        let log = Local::open(&self.folder.join("log")).map_err(|error| format!("open the log: {}", chain(&error)))?;
        let log = Arc::new(log);
        let shared: Arc<dyn Log> = log.clone();
        Ok(Host {
            publisher: Publisher::new(db.clone(), shared.clone()),
            subscriber: Subscriber::new(db.clone(), shared, 1),
            db,
            log,
        })
    }

    /// Founds the cluster or joins it, as a start does.
    pub(crate) fn enter(&mut self, node: usize) -> bool {
        if !self.start(node) {
            return false;
        }
        let scratch = self.folder.join(format!("scratch-{node}"));
        let _ = std::fs::remove_dir_all(&scratch);
        std::fs::create_dir(&scratch).unwrap();
        let Some(host) = &self.nodes[node].host else { return false };
        let log = host.log.clone();
        // The database belongs to the host only once it is a member.
        self.nodes[node].host = None;
        let opened = self.nodes[node].open();
        let entered = opened.map_err(|error| format!("open: {}", chain(&error))).and_then(|mut db| {
            self.runtime.block_on(async {
                let file = scratch.join("log.db");
                let agreed = genesis();
                let place = Place::find(db.path()).map_err(|failure| format!("enter: {failure}"))?;
                let mut rescuer = Rescuer::new(Rescue::new(None, &scratch), &place, &scratch, Leave::default());
                let entering = join::enter(&mut db, &*log, &agreed, &file, Provenance::Same, &mut rescuer);
                match tokio::time::timeout(JOIN_PATIENCE, entering).await {
                    Ok(entered) => entered.map_err(|failure| format!("enter: {failure}")),
                    Err(_) => Err("enter: the founder has not sent its rows".to_owned()),
                }
            })
        });
        match entered {
            Ok(_) => self.start(node),
            Err(error) => {
                self.errors.push(error);
                false
            }
        }
    }

    /// Seals all there is.
    pub(crate) fn seal(&mut self, node: usize) -> bool {
        self.each_step(node, |host, runtime| {
            let more = runtime.block_on(host.db.call(Database::seal)).map_err(|error| chain(&error))?;
            Ok(more)
        })
    }

    /// Seals and sends until there is nothing left to; ends at the first failure.
    pub(crate) fn publish(&mut self, node: usize) -> bool {
        self.each_step(node, |host, runtime| {
            let done = runtime.block_on(host.publisher.step()).map_err(|error| said_of_publish(&error))?;
            Ok(done == publish::Progress::More)
        })
    }

    /// Applies until there is nothing left to; ends at the first failure.
    pub(crate) fn apply(&mut self, node: usize) -> bool {
        self.each_step(node, |host, runtime| {
            match runtime.block_on(host.subscriber.step()).map_err(|error| said_of_apply(&error))? {
                subscribe::Progress::More => Ok(true),
                subscribe::Progress::Idle(_) => Ok(false),
                subscribe::Progress::Blocked(reason) => Err(format!("WRONG: blocked: {reason}")),
            }
        })
    }

    fn each_step(&mut self, node: usize, mut step: impl FnMut(&mut Host, &Runtime) -> Result<bool, String>) -> bool {
        if !self.start(node) {
            return false;
        }
        let Some(host) = &mut self.nodes[node].host else { return false };
        // As in the program: who could not become a member ends, and is started again.
        match self.runtime.block_on(host.db.call(|db| db.standing())) {
            Ok(Standing::Member { .. }) => {}
            other => {
                self.errors.push(format!("no member: {other:?}"));
                return false;
            }
        }
        for _ in 0..STEPS_MAX {
            match step(host, &self.runtime) {
                Ok(true) => {}
                Ok(false) => return true,
                Err(error) => {
                    self.errors.push(error);
                    return false;
                }
            }
        }
        self.errors.push(format!("WRONG: node {} never stops", node + 1));
        false
    }

    /// Nothing fails any more: all goes on by itself, and ends equal, with nothing lost and nothing invented.
    pub(crate) fn settle(&mut self, members: bool) -> Said {
        self.wrong_words()?;
        self.errors.clear();
        for node in 0..self.nodes.len() {
            if members && !self.enter_patiently(node) {
                return Err(format!("node {} does not enter: {:?}", node + 1, self.errors));
            }
        }
        for _ in 0..ROUNDS_MAX {
            for node in 0..self.nodes.len() {
                if !(self.publish(node) && self.apply(node)) {
                    return Err(format!("node {} fails on a sound disk: {:?}", node + 1, self.errors));
                }
            }
            if (0..self.nodes.len()).all(|node| self.is_at_rest(node)) {
                return self.check();
            }
        }
        Err("the nodes do not come to rest".to_owned())
    }

    /// A node that is no member yet may need its founder to send first.
    pub(crate) fn enter_patiently(&mut self, node: usize) -> bool {
        if !self.start(node) {
            return false;
        }
        let Some(host) = &self.nodes[node].host else { return false };
        let standing = self.runtime.block_on(host.db.call(|db| db.standing()));
        if standing.is_ok_and(|standing| standing != Standing::Apart) {
            return true;
        }
        for _ in 0..ROUNDS_MAX {
            self.errors.clear();
            if self.enter(node) {
                return true;
            }
            self.publish(0);
            self.apply(0);
            self.publish(0);
        }
        false
    }

    fn is_at_rest(&self, node: usize) -> bool {
        let Some(host) = &self.nodes[node].host else { return false };
        self.runtime.block_on(async {
            let last = host.log.bounds(1).await.unwrap().last;
            let done = host
                .db
                .call(move |db| {
                    Ok(db.position(1).seq == last && db.pending_len() == 0 && db.unsent_count()? == (0, false))
                })
                .await;
            done.unwrap()
        })
    }

    /// Words that no fault of a disk excuses.
    fn wrong_words(&self) -> Said {
        match self.errors.iter().find(|error| error.starts_with("WRONG")) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn check(&mut self) -> Said {
        let mut dumps = Vec::new();
        for node in &mut self.nodes {
            let conn = node.app().map_err(|error| error.to_string())?;
            let integrity: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            if integrity != "ok" {
                return Err(format!("node {}: {integrity}", node.number));
            }
            dumps.push(antiphon_harness::dump(conn));
        }
        if dumps[0] != dumps[1] {
            return Err(format!("the nodes differ: {:?} and {:?}", dumps[0], dumps[1]));
        }
        let conn = self.nodes[0].app.as_ref().unwrap();
        for node in &self.nodes {
            let sql = "SELECT id FROM note WHERE id / 1000 = ?1";
            let mut statement = conn.prepare(sql).unwrap();
            let ids = statement.query_map([node.number], |row| row.get(0)).unwrap();
            let ids: BTreeSet<i64> = ids.collect::<Result<_, _>>().unwrap();
            if let Some(lost) = node.committed.iter().find(|id| !ids.contains(id)) {
                return Err(format!("row {lost} was committed, and is lost"));
            }
            if let Some(id) = ids.iter().find(|id| !node.committed.contains(id) && !node.refused.contains(id)) {
                return Err(format!("row {id} was written by nobody"));
            }
            let counted: (i64, i64) = conn
                .query_row("SELECT notes, touched FROM tally WHERE node = ?1", [node.number], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .unwrap();
            let count = i64::try_from(ids.len()).unwrap();
            if counted != (count, count) {
                return Err(format!("node {} has {count} rows, and counted {counted:?}", node.number));
            }
        }
        let log = Connection::open(self.folder.join("log/log.db")).unwrap();
        let integrity: String = log.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        if integrity == "ok" { Ok(()) } else { Err(format!("the log: {integrity}")) }
    }
}

impl Node {
    fn open(&self) -> Result<Database, antiphon::db::Error> {
        let options = Options {
            path: self.path.clone(),
            node: u64::from(self.number),
            filter: Filter::default(),
            changes_max: self.changes_max,
            atomic_max: 100_000,
            compress: false,
            publish: true,
            replicate: true,
            replays: None,
        };
        Database::open(options, Box::new(Fnv::default()), Policies::default())
    }

    fn app(&mut self) -> rusqlite::Result<&Connection> {
        if self.app.is_none() {
            self.app = Some(app(&self.path)?);
        }
        self.app.as_ref().ok_or(rusqlite::Error::InvalidQuery)
    }

    fn sql(&mut self, sql: &str) -> bool {
        let Ok(conn) = self.app() else { return false };
        if conn.execute_batch(sql).is_ok() {
            return true;
        }
        if !conn.is_autocommit() && conn.execute_batch("ROLLBACK").is_err() {
            self.app = None;
        }
        false
    }
}

/// The error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said += &format!(": {error}");
        cause = error.source();
    }
    said
}

/// The log lost nothing, and must not be said to have.
fn said_of_publish(error: &publish::Error) -> String {
    match error {
        publish::Error::Db(antiphon::db::Error::Inconsistent(what)) => format!("WRONG: inconsistent: {what}"),
        publish::Error::Db(_) | publish::Error::Log(_) => chain(error),
        _ => format!("WRONG: {}", chain(error)),
    }
}

fn said_of_apply(error: &subscribe::Error) -> String {
    match error {
        subscribe::Error::Db(antiphon::db::Error::Inconsistent(what)) => format!("WRONG: inconsistent: {what}"),
        subscribe::Error::Broken { .. } => format!("WRONG: {}", chain(error)),
        _ => chain(error),
    }
}
