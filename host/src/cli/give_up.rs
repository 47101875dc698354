//! `antiphon give-up`: a node is gone for good, and with it changes that the log lost.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::shown::{Fields, Json, JsonRow, SHORT, count, name};
use super::{Node, look};
use crate::db::{GivenUp, Stray, Verdict, give_up};
use crate::failure::{Failure, Kind};
use crate::log;

/// Give up on nodes that are gone for good, and whose last changes the log lost
///
/// A log that loses its end is given it again by the nodes that wrote it. Until a node has done so, the others keep the
/// rows that they had of it, and what they wrote upon them waits; `antiphon status` says so. If that node never comes
/// back, this makes those rows this node's own changes, and has nothing wait for it any more. A row that was changed
/// since stays as it is now. Run it on every node whose status names that node, while those nodes run.
#[derive(Debug, clap::Args)]
pub(super) struct GiveUp {
    #[command(flatten)]
    node: Node,
    /// The number of a node that is gone; may be given several times
    #[arg(long = "node", value_name = "NUMBER", required = true)]
    gone: Vec<u64>,
    /// Directory of the embedded log
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Write also rows of which nobody can tell whether they were changed since
    #[arg(long)]
    doubtful: bool,
    /// Print the rows and what would become of them, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// One JSON object a row
    #[arg(long)]
    json: bool,
}

/// How long other nodes are waited for that are to send something again, and how often it is looked.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

/// A row, for scripts.
#[derive(Serialize)]
struct Shown<'a> {
    table: &'a str,
    key: Vec<Json<'a>>,
    row: Option<JsonRow<'a>>,
    becomes: &'static str,
    reason: Option<&'a str>,
}

impl GiveUp {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.node.load(self.log, None)?.config;
        let path = &config.db_path;
        let log = look::log(&crate::components::carrier(&config)?)?;
        let begun = Instant::now();
        while let Some(behind) = behind(path, &log)? {
            if begun.elapsed() > PATIENCE {
                return Err(behind);
            }
            std::thread::sleep(PAUSE);
        }
        drop(log);
        let wrong = |error| Failure::caused(Kind::Config, "a pattern under `[capture]` is no glob", &error);
        let filter = config.capture.filter().map_err(wrong)?;
        let nodes = self.gone.iter().copied().collect();
        let work = || {
            give_up(path, &filter, &nodes, self.doubtful, self.dry_run).map_err(|error| {
                let kind = if error.is_transient() { Kind::Busy } else { Kind::General };
                Failure::caused(kind, "cannot give up on the node; nothing has changed", &error)
            })
        };
        let mut given_up = work()?;
        let begun = Instant::now();
        while !given_up.others.is_empty() && !self.dry_run && begun.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
            given_up = work()?;
        }
        let gone = self.gone.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        refused(&given_up, &gone)?;
        let mut out = std::io::stdout().lock();
        for row in &given_up.rows {
            if self.json {
                writeln!(out, "{}", serde_json::to_string(&shown(row)).map_err(std::io::Error::from)?)?;
            } else {
                writeln!(out, "{}", line(row, self.dry_run))?;
            }
        }
        out.flush()?;
        let written = given_up.rows.iter().filter(|row| row.verdict == Verdict::Written).count() as u64;
        let left = given_up.rows.len() as u64 - written;
        let (changes, rows) = (count(given_up.changes, "change", "changes"), count(written, "row", "rows"));
        let mut talk = std::io::stderr().lock();
        if self.dry_run {
            writeln!(talk, "{changes} of node {gone} would be given up on, and {rows} sent as this node's own")?;
        } else {
            writeln!(talk, "gave up on {changes} of node {gone}; {rows} are sent as this node's own when it runs")?;
        }
        if left > 0 {
            writeln!(talk, "{} left as they are now; the list says why", count(left, "row is", "rows are"))?;
        }
        Ok(())
    }
}

/// What is still to be read of the log, if anything: until then rows are older than they were when the log lost its end.
fn behind(path: &Path, log: &log::Look) -> Result<Option<Failure>, Failure> {
    let state = look::database(path)?.node().map_err(|error| look::unread(path, &error))?;
    for (shard, position) in state.ok_or_else(|| look::never_ran(path))?.positions {
        let last = log.bounds(shard).map_err(|error| look::unread_log(&error))?.last;
        if position < last {
            let said =
                format!("entries up to {last} of shard {shard} are to be read first; this node is at {position}");
            let behind = Failure::new(Kind::Busy, said);
            return Ok(Some(behind.hint("let it run until `antiphon status` says that it is in step")));
        }
    }
    Ok(None)
}

/// Why nothing was done, if so.
fn refused(given_up: &GivenUp, gone: &str) -> Result<(), Failure> {
    if given_up.changes == 0 {
        return Err(Failure::new(Kind::Refused, format!("nothing that node {gone} wrote is missing in the log"))
            .hint("`antiphon status` names the nodes that are to send something again"));
    }
    if !given_up.others.is_empty() {
        let others = given_up.others.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        return Err(Failure::new(Kind::Busy, format!("node {others} is to send changes again, too"))
            .hint("only then it is clear which rows are left: let this node and that one run, and do this again")
            .hint("what that one made upon changes of the node that is gone it sends once this was done there as well")
            .hint("if it is gone for good, too, name it with another `--node`"));
    }
    match &given_up.obstacle {
        Some(why) => Err(Failure::new(Kind::Refused, format!("cannot give up on node {gone}: {why}"))),
        None => Ok(()),
    }
}

fn becomes(verdict: &Verdict, dry_run: bool) -> String {
    match verdict {
        Verdict::Written if dry_run => "would be sent".to_owned(),
        Verdict::Written => "is sent".to_owned(),
        Verdict::Changed => "was changed since, which stays".to_owned(),
        Verdict::Doubtful => "may have been changed since; `--doubtful` sends it".to_owned(),
        Verdict::Refused(why) => format!("is not taken: {why}"),
    }
}

fn line(row: &Stray, dry_run: bool) -> String {
    let what = match &row.row {
        Some(values) => Fields { columns: &row.columns, values, most: SHORT }.to_string(),
        None => {
            let key = row.key.iter().map(|value| super::shown::Literal { value, most: SHORT }.to_string());
            format!("{} deleted", key.collect::<Vec<_>>().join(", "))
        }
    };
    format!("{}: {what}: {}", name(&row.table), name(&becomes(&row.verdict, dry_run)))
}

fn shown(row: &Stray) -> Shown<'_> {
    let (becomes, reason) = match &row.verdict {
        Verdict::Written => ("sent", None),
        Verdict::Changed => ("changed", None),
        Verdict::Doubtful => ("doubtful", None),
        Verdict::Refused(why) => ("refused", Some(why.as_str())),
    };
    Shown {
        table: &row.table,
        key: row.key.iter().map(Json).collect(),
        row: row.row.as_ref().map(|values| JsonRow { columns: &row.columns, values }),
        becomes,
        reason,
    }
}
