//! `antiphon adopt`: a database moves from HarmonyLite to Antiphon.

mod running;

use std::io::Write as _;

use serde::Serialize;

use super::shown::{count, name};
use super::{Dev, Node, json_line};
use crate::db::{self, Adopted, Adoption, Database};
use crate::failure::{Failure, Kind};
use crate::lock::Lock;
use crate::node;
use crate::place::Place;

/// Take a database over from HarmonyLite
///
/// Its configuration is read as it is. What it had still to send becomes changes of this node, and then its triggers and
/// tables go: all of it in one transaction, or none. Stop HarmonyLite before, on every node; the application may go on.
/// After it, `antiphon run` with the same configuration goes on from there. Doing it twice does no harm.
#[derive(Debug, clap::Args)]
pub(super) struct Adopt {
    #[command(flatten)]
    node: Node,
    #[command(flatten)]
    dev: Dev,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Give up changes that can't become this node's; without it nothing is done if there are any
    #[arg(long)]
    forget_unsent: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// What was done, or would be, as scripts read it.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    done: bool,
    unsent: Vec<Unsent<'a>>,
    captured: &'a [String],
    removed: Vec<Object<'a>>,
}

#[derive(Debug, Serialize)]
struct Unsent<'a> {
    table: &'a str,
    changes: u64,
    rows: u64,
    obstacle: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Object<'a> {
    kind: &'a str,
    name: &'a str,
}

impl Adopt {
    pub(super) fn run(self) -> Result<(), Failure> {
        let loaded = self.node.load(None, None)?;
        let shown = loaded.config.db_path.display().to_string();
        let place = Place::find(&loaded.config.db_path)?;
        let path = place.path().to_owned();
        db::check(&path).map_err(|error| node::damaged(&shown, &error))?;
        running::refuse(&place, &shown)?;
        let parts = crate::components::parts(&loaded.config, self.dev.pins())?;
        let state = node::state_directory(&path);
        // A node of ours that runs would not know whose marks it finds.
        let lock = if self.dry_run { None } else { Some(Lock::take(&place, &state, &shown)?) };
        let adoption = match (self.dry_run, self.forget_unsent) {
            (true, _) => Adoption::Planned,
            (false, false) => Adoption::Whole,
            (false, true) => Adoption::Forgetful,
        };
        let adopted = Database::adopt_harmonylite(parts.options(&path, &state), parts.hasher, parts.policies, adoption)
            .map_err(|error| unadopted(&shown, &error))?;
        drop(lock);
        if adopted.objects.is_empty() && !adopted.is_ours {
            return Err(Failure::new(Kind::Refused, format!("`{shown}` was never replicated by HarmonyLite"))
                .hint("a database that was not needs nothing of this: `antiphon run`"));
        }
        if self.json {
            json_line(&mut std::io::stdout().lock(), &Shown::of(&adopted))?;
        } else {
            tell(&adopted)?;
        }
        let forgotten: u64 = adopted.unsent.iter().filter(|of| of.obstacle.is_some()).map(|of| of.changes).sum();
        if !adopted.done && !self.dry_run && forgotten > 0 {
            return Err(Failure::new(
                Kind::Refused,
                format!("nothing was done: {} would be forgotten", count(forgotten, "change", "changes")),
            )
            .hint("let HarmonyLite run until it has sent them, or take away what is said to be in the way")
            .hint("`--forget-unsent` gives them up"));
        }
        let mut talk = std::io::stderr().lock();
        let objects = count(adopted.objects.len() as u64, "object", "objects");
        match (adopted.objects.is_empty(), adopted.done) {
            (true, _) => writeln!(talk, "nothing of HarmonyLite is left in {shown}; go on with `antiphon run`")?,
            (_, true) => writeln!(talk, "{objects} removed from {shown}; go on with `antiphon run`")?,
            (_, false) => writeln!(talk, "{objects} would be removed from {shown}; nothing was changed")?,
        }
        Ok(())
    }
}

fn tell(adopted: &Adopted) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for unsent in &adopted.unsent {
        let changes = count(unsent.changes, "unsent change", "unsent changes");
        let table = name(&unsent.table);
        match &unsent.obstacle {
            Some(obstacle) => writeln!(out, "forget   {changes} of table {table}: {obstacle}")?,
            None => writeln!(out, "publish  {} of table {table}, with {changes}", count(unsent.rows, "row", "rows"))?,
        }
    }
    for table in &adopted.captured {
        writeln!(out, "capture  table {}", name(table))?;
    }
    for (kind, object) in &adopted.objects {
        writeln!(out, "remove   {kind} {}", name(object))?;
    }
    Ok(())
}

impl<'a> Shown<'a> {
    fn of(adopted: &'a Adopted) -> Self {
        let unsent = adopted.unsent.iter().map(|of| Unsent {
            table: &of.table,
            changes: of.changes,
            rows: of.rows,
            obstacle: of.obstacle.as_deref(),
        });
        Self {
            done: adopted.done,
            unsent: unsent.collect(),
            captured: &adopted.captured,
            removed: adopted.objects.iter().map(|(kind, name)| Object { kind, name }).collect(),
        }
    }
}

fn unadopted(shown: &str, error: &db::Error) -> Failure {
    let text = format!("cannot take over `{shown}`, which is as it was");
    if error.is_transient() {
        return Failure::caused(Kind::Busy, text, error)
            .hint("try again when the application has ended its transaction, and the disk has room");
    }
    Failure::caused(Kind::General, text, error).hint("see that this user may write to the file and its folder")
}
