//! `antiphon repair`: what changed where nobody saw it becomes this node's change.

use std::io::Write as _;
use std::path::PathBuf;

use super::shown::{count, name};
use super::{Dev, Node};
use crate::failure::Failure;
use crate::node;

/// Compare a database with the log, and send what differs
///
/// For a file that was changed while no trigger saw it: triggers were dropped, another program wrote with triggers off,
/// rows were brought back from elsewhere. Missing triggers are put back, the rows are compared with what the log says,
/// and each that differs becomes this node's change, deletions included. This database's rows win: look first with
/// `--dry-run`, and if the log's rows are the right ones, use `antiphon cleanup` and `antiphon join --discard-local`.
///
/// The node must not be running; the application may.
#[derive(Debug, clap::Args)]
pub(super) struct Repair {
    #[command(flatten)]
    node: Node,
    #[command(flatten)]
    dev: Dev,
    /// Directory of the embedded log
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Only this table; may be given several times
    #[arg(long, value_name = "TABLE")]
    table: Vec<String>,
    /// Say what differs, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Repair {
    pub(super) fn run(self) -> Result<(), Failure> {
        let loaded = self.node.load(self.log, None)?;
        // A log that is not there is not made: it could not say anything.
        drop(super::look::database(&loaded.config.db_path)?);
        drop(super::look::log(&crate::components::carrier(&loaded.config)?)?);
        crate::telemetry::start(&loaded.config.logging)?;
        let runtime = super::runtime()?;
        let mut opened = super::wait(&runtime, node::open(crate::components::parts(&loaded.config, self.dev.pins())?))?;
        let repaired = super::wait(&runtime, opened.repair(&self.table, self.dry_run))?;
        let mut out = std::io::stdout().lock();
        let will = if self.dry_run { "would be" } else { "will be" };
        let mut marked = 0;
        for table in &repaired {
            marked += table.marked();
            if table.marked() == 0 && table.on_their_way == 0 {
                writeln!(out, "table {}: as the log says", name(&table.table))?;
                continue;
            }
            write!(
                out,
                "table {}: {} {will} sent: {} inserted, {} updated, {} deleted",
                name(&table.table),
                count(table.marked(), "row", "rows"),
                table.only_here,
                table.changed,
                table.only_logged
            )?;
            match table.on_their_way {
                0 => writeln!(out)?,
                more => writeln!(out, "; {more} on their way already")?,
            }
        }
        for refused in opened.db.refused() {
            writeln!(out, "left out {}: {}", name(&refused.table), refused.reason)?;
        }
        let mut talk = std::io::stderr().lock();
        let said = match (marked, self.dry_run) {
            (0, _) => "nothing to repair",
            (_, true) => "nothing was changed; without `--dry-run` this becomes this node's change",
            (_, false) => "marked; they are sent when the node runs: `antiphon run`, as you did before",
        };
        Ok(writeln!(talk, "{said}")?)
    }
}
