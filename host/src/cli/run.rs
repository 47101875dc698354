//! `antiphon run`: replicate a database until told to stop.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::shown::shell;
use super::{Dev, Node};
use crate::alerts::Alerts;
use crate::anew::Leave;
use crate::config::{Config, Loaded, Overrides};
use crate::custom::Pins;
use crate::failure::{Failure, Kind};
use crate::health::Limits;
use crate::join::Entered;
use crate::node::{self, Carrier, Opened};
use crate::vitals::Lookout;
use crate::web::Web;

/// Replicate a database until told to stop
///
/// Without a configuration file the log is kept beside the database, and all tables are replicated.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    node: Node,
    #[command(flatten)]
    dev: Dev,
    /// Directory of the embedded log; nodes that name the same one replicate with each other
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Number of this node, different on every node; 0 or none: from the configuration, else made once at random
    #[arg(long, value_name = "N")]
    node_id: Option<u64>,
    /// Start a NATS server, which others of its cluster reach at this `host:port`
    #[arg(long, value_name = "ADDR")]
    cluster_addr: Option<String>,
    /// Addresses of those others, as `nats://host:4248`, joined by commas
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    cluster_peers: Vec<String>,
}

impl Run {
    pub(super) fn run(self) -> Result<(), Failure> {
        let pins = self.dev.pins();
        let loaded = self.node.load_with(Overrides {
            node_id: self.node_id,
            log_path: self.log,
            cluster_addr: self.cluster_addr,
            cluster_peers: self.cluster_peers,
            ..Overrides::default()
        })?;
        crate::telemetry::start(&loaded.config.logging)?;
        // Before components are compiled and kept, be it beside a database that is none.
        crate::unread::file(&loaded.config.db_path)?;
        let runtime = super::runtime()?;
        let _full = files_end_by_error(&runtime)?;
        let stop = CancellationToken::new();
        let watch = runtime.block_on(Watch::begin(&loaded))?;
        let ended = replicate(&loaded, pins, &runtime, &stop, &watch);
        runtime.block_on(watch.end(ended.as_ref().err()));
        ended
    }
}

/// Replicates until told to stop, and after the loss of a log as often as a snapshot leads on.
fn replicate(
    loaded: &Loaded,
    pins: Pins,
    runtime: &Runtime,
    stop: &CancellationToken,
    watch: &Watch,
) -> Result<(), Failure> {
    let mut signals = None;
    let mut lost: Option<Failure> = None;
    loop {
        let mut parts = crate::components::parts_of(loaded, pins)?;
        parts.lookout.clone_from(&watch.lookout);
        if lost.is_some() {
            // It ran on this log a moment ago: no other can be meant.
            parts.leave = Leave::Ran;
        }
        let opened = super::wait(runtime, node::open(parts));
        let entered = opened.and_then(|opened| {
            let said = Said::of(&opened, &loaded.config);
            super::wait(runtime, opened.enter()).map(|(node, entered)| (said, node, entered))
        });
        let (said, node, entered) = match (entered, lost.take()) {
            (Ok((.., entered)), Some(lost)) if !matches!(entered, Entered::Rescued | Entered::BeganAgain) => {
                return Err(lost);
            }
            // What ended it says more than why it could not start again.
            (Err(_), Some(lost)) => return Err(lost),
            (entered, _) => entered?,
        };
        // Before anything is said: whoever waits for our words may send a signal the moment they come.
        if signals.is_none() {
            signals = Some(runtime.spawn(Signals::watch(runtime)?.stop(stop.clone())));
        }
        said.say(entered, node.number(), &watch.web)?;
        match runtime.block_on(node.run(stop.child_token())) {
            // As after another start: if a snapshot leads on, it goes on from there.
            Err(failure) if failure.is_of_a_lost_log() && loaded.config.snapshot.enabled && !stop.is_cancelled() => {
                tracing::warn!(%failure, "starting again, to look for a snapshot");
                lost = Some(failure);
            }
            ended => return ended,
        }
    }
}

/// Whoever looks at the node, and whoever is told how it is: from before it is opened until after it ended.
struct Watch {
    lookout: Option<Lookout>,
    web: Web,
    alerts: Alerts,
}

impl Watch {
    async fn begin(loaded: &Loaded) -> Result<Self, Failure> {
        let config = &loaded.config;
        let limits = Limits::of(&config.health_check, loaded.sources.file.as_deref(), &config.db_path);
        let lookout = Lookout::new(limits);
        let web = Web::start(config, &lookout).await?;
        let path = config.db_path.canonicalize().unwrap_or_else(|_| config.db_path.clone());
        let alerts = Alerts::start(config, &lookout, node::state_directory(&path))?;
        // If nobody asks, nobody looks.
        let is_wanted = web.health.is_some() || web.metrics.is_some() || alerts.are_wanted();
        Ok(Self { lookout: is_wanted.then_some(lookout), web, alerts })
    }

    async fn end(self, failure: Option<&Failure>) {
        self.alerts.end(failure).await;
    }
}

/// A file that may grow no further, by this user's limits, is a full disk like any other: an error at the write, which
/// is waited for. Unless somebody listens, the system ends the process instead.
fn files_end_by_error(runtime: &Runtime) -> Result<Signal, Failure> {
    let _context = runtime.enter();
    watch(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))
}

fn watch(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(Kind::General, format!("cannot watch for signals: {error}")))
}

/// SIGTERM and SIGINT. From the moment this exists neither ends the process by itself.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn watch(runtime: &Runtime) -> Result<Self, Failure> {
        let _context = runtime.enter();
        Ok(Self { terminate: watch(SignalKind::terminate())?, interrupt: watch(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// The first signal ends the batch in hand and stops; a second one leaves at once.
    async fn stop(mut self, stop: CancellationToken) {
        self.next().await;
        tracing::info!("stopping after the batch in hand; once more to leave at once");
        stop.cancel();
        self.next().await;
        std::process::exit(130);
    }
}

/// What the user wants to know at a start, gathered before the database goes to its thread.
struct Said {
    database: PathBuf,
    sends: bool,
    receives: bool,
    tables: Vec<String>,
    refused: Vec<String>,
    carrier: Carrier,
}

impl Said {
    fn of(opened: &Opened, config: &Config) -> Self {
        Self {
            database: config.db_path.clone(),
            sends: config.publish,
            receives: config.replicate,
            tables: opened.db.table_names().map(super::shown::name).collect(),
            refused: opened
                .db
                .refused()
                .iter()
                .map(|refused| format!("`{}`: {}", super::shown::name(&refused.table), refused.reason))
                .collect(),
            carrier: opened.carrier().clone(),
        }
    }

    fn say(&self, entered: Entered, node: u64, web: &Web) -> Result<(), Failure> {
        let mut words = Vec::new();
        self.write(&mut words, entered, node, web)?;
        // At once: whoever reads along sees no half of a line.
        Ok(std::io::stderr().write_all(&words)?)
    }

    fn write(&self, out: &mut Vec<u8>, entered: Entered, node: u64, web: &Web) -> std::io::Result<()> {
        writeln!(out, "replicating {} as node {}", self.database.display(), node)?;
        match self.tables.as_slice() {
            [] => writeln!(out, "  tables   none yet; they are taken up when the application makes them")?,
            tables => writeln!(out, "  tables   {}", tables.join(", "))?,
        }
        for refused in &self.refused {
            writeln!(out, "  left out {refused}")?;
        }
        let cluster = match entered {
            Entered::Resumed => "went on where it stood",
            Entered::Founded => "founded; the rows there are become its first changes",
            Entered::JoinedEmpty => "joined; all rows come from the log",
            Entered::JoinedEqual => "joined; the rows were the cluster's already",
            Entered::Copied => "went on as a node of its own, for the file is a copy of another's or was moved",
            Entered::CaughtUp => "took the cluster's rows, for others' changes had been passed over",
            Entered::JoinedFromSnapshot => "joined; the rows come from a snapshot, and from the log what came after it",
            Entered::BeganAgain => {
                "began its log again, which had lost all it held, with what is here; the others follow by a snapshot"
            }
            Entered::Rescued => {
                "went on from a snapshot, for the log does not go on where it stood; its own changes are sent again"
            }
        };
        writeln!(out, "  cluster  {cluster}")?;
        if !self.sends {
            writeln!(
                out,
                "  publish  off: what is written here is not sent, and the next change of the same row replaces it"
            )?;
        }
        if !self.receives {
            writeln!(out, "  replicate off: what others write is passed over")?;
        }
        writeln!(out, "  log      {}", self.carrier)?;
        for (name, at) in [("page", &web.page), ("health", &web.health), ("metrics", &web.metrics)] {
            if let Some(at) = at {
                writeln!(out, "  {name:<8} {at}")?;
            }
        }
        let Carrier::Embedded(directory) = &self.carrier else { return Ok(()) };
        let log = absolute(directory);
        writeln!(
            out,
            "\na second node on this machine, on an empty copy of the schema (or a copy of the file made before its first start):"
        )?;
        writeln!(out, "  antiphon run OTHER.db --log {}\n", shell(&log))?;
        Ok(())
    }
}

fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
