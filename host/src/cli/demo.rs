//! `antiphon demo`: two nodes in a temporary folder, for those who want to see before they read.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::run::shell;
use crate::config::{Config, Environment, Overrides, Sources};
use crate::failure::{Failure, Kind};
use crate::node;

/// Show replication at work: two nodes in a temporary folder
#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// Leave the folder and the nodes, and say how to go on by hand
    #[arg(long)]
    keep: bool,
}

/// Longest wait for rows to arrive; they take milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);
const SCHEMA: &str = "PRAGMA journal_mode = WAL;
    CREATE TABLE guests (id INTEGER PRIMARY KEY, name TEXT NOT NULL, seat TEXT)";

impl Demo {
    pub(super) fn run(self) -> Result<(), Failure> {
        let folder = tempfile::Builder::new()
            .prefix("antiphon-demo-")
            .tempdir()
            .map_err(|error| Failure::new(Kind::General, format!("cannot make a temporary folder: {error}")))?;
        let runtime = super::runtime()?;
        let mut out = std::io::stdout().lock();
        let log = folder.path().join("log");
        let [mut north, mut south] =
            [Site::new(folder.path(), "north", &log)?, Site::new(folder.path(), "south", &log)?];

        writeln!(out, "1. Two databases with one table, each with a host beside it.")?;
        north.start(&runtime)?;
        south.start(&runtime)?;

        writeln!(out, "\n2. A row written in the north, and one in the south:")?;
        north.sql("INSERT INTO guests VALUES (1, 'Ada', '4A')")?;
        south.sql("INSERT INTO guests VALUES (2, 'Grace', '4B')")?;
        let took = Instant::now();
        wait_for(|| Ok(north.guests()?.len() == 2 && south.guests()? == north.guests()?))?;
        for site in [&north, &south] {
            writeln!(out, "   {}: {}", site.name, site.guests()?.join("  "))?;
        }
        writeln!(out, "   both have both after {} ms", took.elapsed().as_millis())?;

        writeln!(out, "\n3. The south is cut off, and both give guest 1 another seat:")?;
        south.stop(&runtime)?;
        north.sql("UPDATE guests SET seat = '1A' WHERE id = 1")?;
        south.sql("UPDATE guests SET seat = '9F' WHERE id = 1")?;
        for site in [&north, &south] {
            writeln!(out, "   {}: {}", site.name, site.guests()?.join("  "))?;
        }
        south.start(&runtime)?;
        wait_for(|| {
            Ok(!north.clashes()?.is_empty() && !south.clashes()?.is_empty() && north.guests()? == south.guests()?)
        })?;
        writeln!(out, "   … and is back:")?;
        for site in [&north, &south] {
            writeln!(out, "   {}: {}", site.name, site.guests()?.join("  "))?;
        }
        for clash in north.clashes()? {
            writeln!(out, "   one clash, answered by the component {clash}")?;
        }
        writeln!(out, "   What was overruled is kept on both nodes, in \"__antiphon___conflict\".")?;

        if self.keep {
            let kept = folder.keep();
            writeln!(out, "\nBoth nodes run on. Write to either and read the other, in another terminal:")?;
            by_hand(&mut out, &[&north, &south])?;
            writeln!(out, "Ctrl-C ends them; the folder stays: {}", kept.display())?;
            drop(out);
            // A signal that can't be watched ends the demonstration at once.
            let _ = runtime.block_on(tokio::signal::ctrl_c());
            north.stop(&runtime)?;
            return south.stop(&runtime);
        }
        north.stop(&runtime)?;
        south.stop(&runtime)?;
        writeln!(out, "\nOn your own database:")?;
        writeln!(out, "   antiphon run app.db                                   # the first node")?;
        writeln!(
            out,
            "   antiphon run copy.db --log app.db.antiphon/log        # a second one, on an empty copy of the schema"
        )?;
        writeln!(out, "`antiphon demo --keep` leaves this one running, to play with.")?;
        Ok(())
    }
}

fn by_hand(out: &mut impl std::io::Write, sites: &[&Site]) -> std::io::Result<()> {
    for site in sites {
        writeln!(out, "   sqlite3 {}", shell(&site.database))?;
    }
    Ok(())
}

/// One database and its host.
struct Site {
    name: &'static str,
    database: PathBuf,
    config: Config,
    app: Connection,
    running: Option<(CancellationToken, JoinHandle<Result<(), Failure>>)>,
}

impl Site {
    fn new(folder: &Path, name: &'static str, log: &Path) -> Result<Self, Failure> {
        let database = folder.join(format!("{name}.db"));
        let app = Connection::open(&database).map_err(sql)?;
        app.busy_timeout(PATIENCE).map_err(sql)?;
        app.execute_batch(SCHEMA).map_err(sql)?;
        let config = Config::load(Sources {
            file: None,
            environment: Environment::default(),
            overrides: Overrides { db_path: Some(database.clone()), node_id: None, log_path: Some(log.to_owned()) },
        })?
        .config;
        Ok(Self { name, database, config, app, running: None })
    }

    fn start(&mut self, runtime: &Runtime) -> Result<(), Failure> {
        let opened = node::open(crate::components::parts(&self.config)?)?;
        let (node, _) = super::wait(runtime, opened.enter())?;
        let stop = CancellationToken::new();
        self.running = Some((stop.clone(), runtime.spawn(node.run(stop))));
        Ok(())
    }

    fn stop(&mut self, runtime: &Runtime) -> Result<(), Failure> {
        let Some((stop, task)) = self.running.take() else { return Ok(()) };
        stop.cancel();
        runtime.block_on(task).unwrap_or_else(|error| Err(Failure::new(Kind::General, error.to_string())))
    }

    fn sql(&self, text: &str) -> Result<(), Failure> {
        self.app.execute_batch(text).map_err(sql)
    }

    fn rows(&self, query: &str) -> Result<Vec<String>, Failure> {
        let mut statement = self.app.prepare(query).map_err(sql)?;
        let rows = statement.query_map([], |row| row.get(0)).map_err(sql)?;
        rows.collect::<rusqlite::Result<_>>().map_err(sql)
    }

    fn guests(&self) -> Result<Vec<String>, Failure> {
        self.rows("SELECT id || ' ' || name || ' in ' || seat FROM guests ORDER BY id")
    }

    /// Each clash as `resolver: verdict`.
    fn clashes(&self) -> Result<Vec<String>, Failure> {
        self.rows("SELECT '`' || resolver || '`: it answered `' || verdict || '`, so the change later in the log stands' FROM \"__antiphon___conflict\"")
    }
}

fn wait_for(mut done: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    while !done()? {
        if Instant::now() > deadline {
            return Err(Failure::new(Kind::General, format!("rows did not arrive within {} s", PATIENCE.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` takes")]
fn sql(error: rusqlite::Error) -> Failure {
    Failure::caused(Kind::General, "cannot run the demonstration's SQL", &error)
}
