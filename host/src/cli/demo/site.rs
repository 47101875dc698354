//! One database of the demonstration, its application and its host.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, Row};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Environment, Overrides, Sources};
use crate::failure::{Failure, Kind};
use crate::node;

/// Longest wait for rows to arrive; they take milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);
const SCHEMA: &str = "PRAGMA journal_mode = WAL;
    CREATE TABLE stock (item TEXT PRIMARY KEY, quantity INTEGER NOT NULL)";

/// One database and its host.
pub(super) struct Site {
    pub(super) name: &'static str,
    pub(super) database: PathBuf,
    config: Config,
    app: Connection,
    running: Option<(CancellationToken, JoinHandle<Result<(), Failure>>)>,
}

impl Site {
    /// A database in `folder`, and a configuration beside it that ends with `policy`.
    pub(super) fn new(folder: &Path, name: &'static str, policy: &str) -> Result<Self, Failure> {
        let database = folder.join(format!("{name}.db"));
        let file = folder.join(format!("{name}.toml"));
        let settings = format!("db_path = \"{name}.db\"\n\n[log]\npath = \"log\"\n\n{policy}");
        std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, settings)).map_err(|error| {
            Failure::new(Kind::General, format!("cannot write the configuration `{}`: {error}", file.display()))
        })?;
        let app = Connection::open(&database).map_err(sql)?;
        app.busy_timeout(PATIENCE).map_err(sql)?;
        app.execute_batch(SCHEMA).map_err(sql)?;
        // What the user's environment says is about a node of the user's.
        let sources =
            Sources { file: Some(file), environment: Environment::default(), overrides: Overrides::default() };
        Ok(Self { name, database, config: Config::load(sources)?.config, app, running: None })
    }

    pub(super) fn start(&mut self, runtime: &Runtime) -> Result<(), Failure> {
        let opened = super::super::wait(
            runtime,
            node::open(crate::components::parts(&self.config, crate::custom::Pins::Required)?),
        )?;
        let (node, _) = super::super::wait(runtime, opened.enter())?;
        let stop = CancellationToken::new();
        self.running = Some((stop.clone(), runtime.spawn(node.run(stop))));
        Ok(())
    }

    pub(super) fn stop(&mut self, runtime: &Runtime) -> Result<(), Failure> {
        let Some((stop, task)) = self.running.take() else { return Ok(()) };
        stop.cancel();
        runtime.block_on(task).unwrap_or_else(|error| Err(Failure::new(Kind::General, error.to_string())))
    }

    /// What the application does.
    pub(super) fn sql(&self, text: &str) -> Result<(), Failure> {
        self.app.execute_batch(text).map_err(sql)
    }

    fn rows<T>(&self, query: &str, read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>, Failure> {
        let mut statement = self.app.prepare(query).map_err(sql)?;
        let rows = statement.query_map([], read).map_err(sql)?;
        rows.collect::<rusqlite::Result<_>>().map_err(sql)
    }

    /// The rows, in words.
    pub(super) fn stock(&self) -> Result<Vec<String>, Failure> {
        self.rows("SELECT quantity || ' ' || item FROM stock ORDER BY item", |row| row.get(0))
    }

    /// Each clash: who was asked, and the answer.
    pub(super) fn clashes(&self) -> Result<Vec<(String, String)>, Failure> {
        self.rows("SELECT resolver, verdict FROM \"__antiphon___conflict\"", |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// Whether all that was written here has come back from the log.
    pub(super) fn has_sent(&self) -> Result<bool, Failure> {
        const WAITING: &str = "SELECT (SELECT count(*) FROM \"__antiphon__stock_change_log\")
            + (SELECT count(*) FROM \"__antiphon___global_change_log\" WHERE state = 0)";
        Ok(self.rows(WAITING, |row| row.get::<_, i64>(0))? == [0])
    }
}

pub(super) fn wait_for(mut done: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
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
