//! Whole clusters that fold what a resolver decided: after every history all nodes must hold the same rows.
//!
//! The fold is the real one, over databases and a log in memory. A history is drawn from a seed: applications write
//! the same few rows on several nodes, nodes send and read now and then, and now and then one starts anew and makes a
//! fresh instance of the resolver. Then all send and read until there is nothing left, and rows are compared.

use super::dice::Dice;
use super::draw;
use super::notation::{Brief, exact_row};
use super::tables;
use crate::db::{self, Bound, Database, Db, Filter, Find, Found, Make, Options, Policies, Standing};
use crate::log::{Log, Memory};
use crate::publish::{self, Publisher};
use crate::subscribe::{self, Subscriber};
use antiphon_core::entry::Genesis;
use antiphon_core::hash::fnv::Fnv;
use antiphon_core::schema::{Table, quote};
use antiphon_core::value::{Row, Value};
use futures::executor::block_on;
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What the resolver under trial is called.
const TRIED: &str = "under trial";

fn genesis(shards: u32) -> Genesis {
    Genesis {
        shards,
        hasher: "fnv".to_owned(),
        resolver: TRIED.to_owned(),
        wire: u32::from(antiphon_core::codec::VERSION),
        ..Genesis::default()
    }
}

/// What happens in a cluster, in order.
#[derive(Clone, Debug)]
pub struct History {
    /// The statements that create the tables.
    pub statements: Vec<String>,
    tables: Vec<Table>,
    nodes: u64,
    shards: u32,
    /// What happens.
    pub steps: Vec<Step>,
}

/// One thing that happens, on one node.
#[derive(Clone, Debug)]
pub struct Step {
    node: u64,
    deed: Deed,
}

#[derive(Clone, Debug)]
enum Deed {
    /// The application writes a row, whatever was there.
    Put { table: usize, row: Row },
    /// The application changes a column.
    Set { table: usize, key: Row, column: usize, value: Value },
    /// The application deletes a row.
    Delete { table: usize, key: Row },
    /// The node sends what was written.
    Send,
    /// The node reads the log to its end.
    Read,
    /// The host starts anew.
    Restart,
}

impl History {
    /// The history of a seed. `settings` are the resolver's; see [`tables::statements`].
    ///
    /// # Errors
    /// When tables can't be made of the settings.
    pub fn draw(seed: u64, settings: &[(String, String)]) -> Result<Self, String> {
        let mut dice = Dice::new(seed);
        let mut statements = tables::statements(settings);
        dice.shuffle(&mut statements);
        statements.truncate(2);
        if dice.once_in(3) {
            statements.push(tables::unique_statement(settings));
        }
        Self::over(statements, &mut dice)
    }

    /// A history over the user's own tables.
    ///
    /// # Errors
    /// When they can't be replicated.
    pub fn of_tables(seed: u64, statements: Vec<String>) -> Result<Self, String> {
        Self::over(statements, &mut Dice::new(seed))
    }

    fn over(statements: Vec<String>, dice: &mut Dice) -> Result<Self, String> {
        let tables = tables::of_sql(&statements)?;
        let nodes = 2 + dice.below(2);
        let shards = if dice.once_in(2) { 1 } else { 2 };
        // Few keys, so that nodes write the same rows.
        let keys: Vec<Vec<Row>> = tables.iter().map(|table| few_keys(dice, table)).collect();
        let steps = (0..20 + dice.below(40)).map(|_| {
            let node = 1 + dice.below(nodes);
            Step { node, deed: Deed::draw(dice, &tables, &keys) }
        });
        let steps = steps.collect();
        Ok(Self { statements, tables, nodes, shards, steps })
    }

    /// Lets it happen.
    ///
    /// # Errors
    /// What went wrong: rows that differ, or a node that stopped.
    pub fn run(&self, make: &Make) -> Result<Folded, Failed> {
        let mut cluster = Cluster::found(self, make)?;
        for step in &self.steps {
            cluster.take(self, step)?;
        }
        cluster.settle()?;
        cluster.compare(self)
    }

    /// A shorter history that goes wrong in the same way, as far as one is found in time.
    #[must_use]
    pub fn shrink(&self, make: &Make, failed: &Failed, until: Instant, tick: &mut dyn FnMut()) -> Self {
        let mut best = self.clone();
        let mut size = best.steps.len().div_ceil(2);
        while size > 0 && Instant::now() < until {
            let mut from = 0;
            let before = best.steps.len();
            while from < best.steps.len() && Instant::now() < until {
                let mut shorter = best.clone();
                shorter.steps.drain(from..(from + size).min(best.steps.len()));
                tick();
                if shorter.run(make).is_err_and(|other| other.kind == failed.kind) {
                    best = shorter;
                } else {
                    from += size;
                }
            }
            if size > 1 || best.steps.len() == before {
                size /= 2;
            }
        }
        best
    }

    /// What happens, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.statements.clone();
        lines.extend(self.steps.iter().map(|step| format!("node {}: {}", step.node, step.deed.words(&self.tables))));
        lines.push("all nodes send and read until nothing is left".to_owned());
        lines
    }
}

fn few_keys(dice: &mut Dice, table: &Table) -> Vec<Row> {
    let key = |dice: &mut Dice| {
        let columns = table.key_columns().into_iter().filter_map(|at| table.columns.get(at));
        columns.map(|column| draw::value(dice, table, column)).collect()
    };
    (0..3).map(|_| key(dice)).collect()
}

impl Deed {
    fn draw(dice: &mut Dice, tables: &[Table], keys: &[Vec<Row>]) -> Self {
        let at = dice.place(tables.len());
        let (Some(table), Some(keys)) = (tables.get(at), keys.get(at)) else { return Self::Send };
        let key = dice.of(keys);
        let others: Vec<usize> =
            table.columns.iter().enumerate().filter(|(_, column)| column.pk_position == 0).map(|(at, _)| at).collect();
        match dice.below(16) {
            0..=3 => Self::Send,
            4..=6 => Self::Read,
            7 => Self::Restart,
            8 | 9 => Self::Delete { table: at, key },
            10..=12 if !others.is_empty() => {
                let column = dice.of(&others);
                let value = table.columns.get(column).map(|column| own_value(dice, table, column)).unwrap_or_default();
                Self::Set { table: at, key, column, value }
            }
            _ => {
                let mut row: Row = table.columns.iter().map(|column| own_value(dice, table, column)).collect();
                for (at, value) in table.key_columns().into_iter().zip(key) {
                    if let Some(place) = row.get_mut(at) {
                        *place = value;
                    }
                }
                Self::Put { table: at, row }
            }
        }
    }

    fn words(&self, tables: &[Table]) -> String {
        let name = |table: &usize| tables.get(*table).map_or("?", |table| table.name.as_str());
        match self {
            Self::Put { table, row } => format!("writes {} into {}", Brief(row), name(table)),
            Self::Set { table, key, column, value } => {
                let column = tables.get(*table).and_then(|table| table.columns.get(*column));
                let column = column.map_or("?", |column| column.name.as_str());
                let value = std::slice::from_ref(value);
                format!("sets {column} = {} in {} where the key is {}", Brief(value), name(table), Brief(key))
            }
            Self::Delete { table, key } => format!("deletes {} from {}", Brief(key), name(table)),
            Self::Send => "sends".to_owned(),
            Self::Read => "reads".to_owned(),
            Self::Restart => "starts anew".to_owned(),
        }
    }
}

/// A value that an application writes: few of them where they must meet in a UNIQUE index.
fn own_value(dice: &mut Dice, table: &Table, column: &antiphon_core::schema::Column) -> Value {
    let unique = |at: usize| table.columns.get(at).is_some_and(|of| of.name == column.name);
    if table.uniques.iter().any(|index| index.columns.iter().any(|(at, _)| unique(*at))) {
        return dice.of(&["a", "b", "c"]).into();
    }
    draw::value(dice, table, column)
}

/// What a history came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Folded {
    /// Clashes that were recorded on the first node.
    pub clashes: u64,
}

/// What went wrong.
#[derive(Clone, Debug)]
pub struct Failed {
    /// What kind of failure it is: a shorter history that fails in another way explains nothing.
    kind: Kind,
    /// What happened.
    pub why: String,
    /// Rows by node, where they differ.
    pub rows: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Differs,
    Stopped,
    Restless,
    Broken,
}

impl Failed {
    fn new(kind: Kind, why: String) -> Self {
        Self { kind, why, rows: Vec::new() }
    }

    fn broken(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::stopped(Kind::Broken, "the cluster can't be set up", error)
    }

    fn stopped(kind: Kind, what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut why = what.to_owned();
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            // Some errors say their cause themselves.
            if !why.ends_with(&text) {
                why.push_str(": ");
                why.push_str(&text);
            }
            next = error.source();
        }
        Self::new(kind, why)
    }
}

impl Failed {
    /// Whether there was no cluster in the first place: then no history explains anything.
    #[must_use]
    pub fn before_all(&self) -> bool {
        self.kind == Kind::Broken
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

struct Cluster {
    log: Arc<Memory>,
    members: Vec<Member>,
    shards: u32,
}

/// A node, and its application's connection.
struct Member {
    node: u64,
    app: Connection,
    path: PathBuf,
    make: Make,
    db: Db,
    publisher: Publisher,
    subscribers: Vec<Subscriber>,
}

/// Databases in memory are known by name in the whole process.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Rounds after which a cluster that still has something to say is given up.
const ROUNDS_MAX: usize = 64;
/// Steps of one node after which it is.
const STEPS_MAX: usize = 10_000;

impl Cluster {
    fn found(history: &History, make: &Make) -> Result<Self, Failed> {
        let log = Arc::new(Memory::new());
        let mut members = Vec::new();
        for node in 1..=history.nodes {
            members.push(Member::new(&log, node, history, make)?);
        }
        Ok(Self { log, members, shards: history.shards })
    }

    fn take(&mut self, history: &History, step: &Step) -> Result<(), Failed> {
        let (log, shards) = (Arc::clone(&self.log), self.shards);
        let Some(member) = self.members.iter_mut().find(|member| member.node == step.node) else { return Ok(()) };
        match &step.deed {
            Deed::Send => member.send(),
            // What keeps it from reading on may be about to go.
            Deed::Read => member.read().map(drop),
            Deed::Restart => {
                member.db =
                    Member::open(&member.path, member.node, &member.make).map_err(|error| Failed::broken(&error))?;
                member.revive(&log, shards)
            }
            write => {
                // What a constraint forbids is the application's own affair.
                let _ = member.write(&history.tables, write);
                Ok(())
            }
        }
    }

    /// All send and read until nobody has anything left.
    fn settle(&mut self) -> Result<(), Failed> {
        let mut at_rest = 0;
        for _ in 0..ROUNDS_MAX {
            let before = self.reach()?;
            let mut blocked = None;
            for member in &mut self.members {
                member.send()?;
                blocked = blocked.or(member.read()?);
            }
            at_rest = if self.reach()? == before { at_rest + 1 } else { 0 };
            // A node that waits for another does so in the round after.
            match blocked {
                None if at_rest > 0 => return Ok(()),
                Some(why) if at_rest > 1 => return Err(Failed::new(Kind::Stopped, why)),
                _ => {}
            }
        }
        Err(Failed::new(
            Kind::Restless,
            "the nodes never come to rest: each answer makes for another change".to_owned(),
        ))
    }

    /// How far the log reaches and the nodes have read.
    fn reach(&self) -> Result<Vec<u64>, Failed> {
        let mut reach = Vec::new();
        for shard in 1..=self.shards {
            reach.push(block_on(self.log.bounds(shard)).map_err(|error| Failed::broken(&error))?.last);
            for member in &self.members {
                let position = block_on(member.db.call(move |db| Ok(db.position(shard).seq)));
                reach.push(position.map_err(|error| Failed::broken(&error))?);
            }
        }
        Ok(reach)
    }

    fn compare(&self, history: &History) -> Result<Folded, Failed> {
        let mut held = Vec::new();
        for member in &self.members {
            held.push((member.node, member.rows(&history.tables).map_err(|error| Failed::broken(&error))?));
        }
        let Some(((_, first), others)) = held.split_first() else { return Ok(Folded::default()) };
        if others.iter().all(|(_, rows)| rows == first) {
            let count = "SELECT count(*) FROM __antiphon___conflict";
            let clashes: i64 = self
                .members
                .first()
                .and_then(|member| member.app.query_row(count, [], |row| row.get(0)).ok())
                .unwrap_or(0);
            return Ok(Folded { clashes: clashes.unsigned_abs() });
        }
        // Only rows that some node lacks say anything.
        let all: BTreeMap<&String, &String> = held.iter().flat_map(|(_, rows)| rows).collect();
        let mut rows = Vec::new();
        for (exact, shown) in all {
            let have: Vec<u64> =
                held.iter().filter(|(_, rows)| rows.contains_key(exact)).map(|(node, _)| *node).collect();
            if have.len() < held.len() {
                let nodes: Vec<String> = have.iter().map(ToString::to_string).collect();
                rows.push(format!("only on node {}: {shown}", nodes.join(" and ")));
            }
        }
        let why = "the nodes have read the same log and hold different rows".to_owned();
        Err(Failed { kind: Kind::Differs, why, rows })
    }
}

impl Member {
    fn new(log: &Arc<Memory>, node: u64, history: &History, make: &Make) -> Result<Self, Failed> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("file:/antiphon-trial-{number}?vfs=memdb"));
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_URI;
        let app = Connection::open_with_flags(&path, flags).map_err(|error| Failed::broken(&error))?;
        for sql in &history.statements {
            app.execute_batch(sql).map_err(|error| Failed::broken(&error))?;
        }
        let db = Self::open(&path, node, make).map_err(|error| Failed::broken(&error))?;
        let mut member = Self {
            node,
            app,
            path,
            make: Arc::clone(make),
            publisher: Publisher::new(db.clone(), log.clone()),
            subscribers: Vec::new(),
            db,
        };
        member.revive(log, history.shards)?;
        member.enter(log, history.shards)?;
        Ok(member)
    }

    fn open(path: &Path, node: u64, make: &Make) -> Result<Db, db::Error> {
        let options = Options {
            path: path.to_owned(),
            node,
            filter: Filter::default(),
            changes_max: 1000,
            atomic_max: 100_000,
            compress: false,
            publish: true,
            replicate: true,
            replays: None,
        };
        // One that can't be made is no resolver that a node waits for.
        drop(make()?);
        let make = Arc::clone(make);
        let find: Find = Arc::new(move |_| Ok(Found::native(TRIED, Arc::clone(&make))));
        let policies = Policies::new(find, genesis(1).all_policies());
        Ok(Db::inline(Database::open(options, Box::new(Fnv::default()), policies)?))
    }

    fn revive(&mut self, log: &Arc<Memory>, shards: u32) -> Result<(), Failed> {
        self.publisher = Publisher::new(self.db.clone(), log.clone());
        self.subscribers = (1..=shards).map(|shard| Subscriber::new(self.db.clone(), log.clone(), shard)).collect();
        let broken = |error: db::Error| Failed::broken(&error);
        let origin = block_on(self.db.call(|db| Ok(db.origin()))).map_err(broken)?;
        for shard in 1..=shards {
            let last = block_on(log.last_number(shard, origin)).map_err(|error| Failed::broken(&error))?;
            block_on(self.db.call(move |db| {
                db.number_above(shard, last);
                Ok(())
            }))
            .map_err(broken)?;
        }
        Ok(())
    }

    fn enter(&self, log: &Memory, shards: u32) -> Result<(), Failed> {
        const CLUSTER: [u8; 16] = [7; 16];

        let broken = |error: db::Error| Failed::broken(&error);
        if block_on(self.db.call(|db| db.standing())).map_err(broken)? != Standing::Apart {
            return Ok(());
        }
        let genesis = genesis(shards);
        let first = genesis.clone();
        let frame = block_on(self.db.call(move |db| db.genesis(CLUSTER, first))).map_err(broken)?;
        let founder = block_on(log.begin(1, &frame)).map_err(|error| Failed::broken(&error))?;
        block_on(self.db.call(move |db| db.enter(CLUSTER, &genesis, founder))).map_err(broken)
    }

    fn write(&self, tables: &[Table], deed: &Deed) -> rusqlite::Result<usize> {
        let (Deed::Put { table, .. } | Deed::Set { table, .. } | Deed::Delete { table, .. }) = deed else {
            return Ok(0);
        };
        let Some(table) = tables.get(*table) else { return Ok(0) };
        let name = quote(&table.name);
        let is_key: Vec<String> = table
            .key_columns()
            .into_iter()
            .filter_map(|at| table.columns.get(at))
            .map(|column| format!("{} IS ?", quote(&column.name)))
            .collect();
        let is_key = is_key.join(" AND ");
        let (sql, values): (String, Vec<&Value>) = match deed {
            Deed::Put { row, .. } => {
                let columns: Vec<String> = table.columns.iter().map(|column| quote(&column.name)).collect();
                let places = vec!["?"; columns.len()].join(", ");
                let sql = format!("INSERT OR REPLACE INTO {name} ({}) VALUES ({places})", columns.join(", "));
                (sql, row.iter().collect())
            }
            Deed::Set { key, column, value, .. } => {
                let column = table.columns.get(*column).map(|column| quote(&column.name)).unwrap_or_default();
                let sql = format!("UPDATE {name} SET {column} = ? WHERE {is_key}");
                (sql, std::iter::once(value).chain(key).collect())
            }
            Deed::Delete { key, .. } => (format!("DELETE FROM {name} WHERE {is_key}"), key.iter().collect()),
            _ => return Ok(0),
        };
        self.app.prepare_cached(&sql)?.execute(rusqlite::params_from_iter(values.into_iter().map(Bound)))
    }

    fn send(&mut self) -> Result<(), Failed> {
        let what = format!("node {} can't send", self.node);
        for _ in 0..STEPS_MAX {
            let progress = block_on(self.publisher.step());
            if progress.map_err(|error| Failed::stopped(Kind::Stopped, &what, &error))? == publish::Progress::Idle {
                return Ok(());
            }
        }
        Err(Failed::new(Kind::Restless, format!("node {} sends for ever", self.node)))
    }

    /// Reads as far as it can; says why not to the end.
    fn read(&mut self) -> Result<Option<String>, Failed> {
        let mut blocked = None;
        let what = format!("node {} can't read on", self.node);
        for subscriber in &mut self.subscribers {
            let mut steps = 0;
            loop {
                let progress = block_on(subscriber.step());
                match progress.map_err(|error| Failed::stopped(Kind::Stopped, &what, &error))? {
                    subscribe::Progress::Idle(_) => break,
                    subscribe::Progress::Blocked(why) => {
                        blocked = Some(format!("{what}: {why}"));
                        break;
                    }
                    subscribe::Progress::More => steps += 1,
                }
                if steps > STEPS_MAX {
                    return Err(Failed::new(Kind::Restless, format!("node {} reads for ever", self.node)));
                }
            }
        }
        Ok(blocked)
    }

    /// Every row of the application's tables: bit for bit, and as a person reads it.
    fn rows(&self, tables: &[Table]) -> rusqlite::Result<BTreeMap<String, String>> {
        let mut all = BTreeMap::new();
        for table in tables {
            let columns: Vec<String> = table.columns.iter().map(|column| quote(&column.name)).collect();
            let mut statement =
                self.app.prepare(&format!("SELECT {} FROM {}", columns.join(", "), quote(&table.name)))?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let values: Row =
                    (0..columns.len()).map(|at| row.get_ref(at).map(db::owned)).collect::<rusqlite::Result<_>>()?;
                let mut exact = table.name.clone();
                exact_row(&mut exact, &values);
                all.insert(exact, format!("{}: {}", table.name, Brief(&values)));
            }
        }
        Ok(all)
    }
}
