//! `antiphon demo`: nodes in a temporary folder, for those who want to see before they read.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use tokio::runtime::Runtime;

use super::shown::shell;
use crate::failure::{Failure, Kind};
use site::{Site, wait_for};

mod site;

/// Show replication at work: two nodes, and one clash under two policies
#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// Leave the folder and the nodes, and say how to go on by hand
    #[arg(long)]
    keep: bool,
}

const LATEST: &str = "[[conflict.table]]
match = \"stock\"
use = \"last-write-wins\"
";
const ADDED: &str = "[[conflict.table]]
match = \"stock\"
use = \"counter\"
settings = { columns = \"quantity\" }
";

impl Demo {
    pub(super) fn run(self) -> Result<(), Failure> {
        let folder = tempfile::Builder::new()
            .prefix("antiphon-demo-")
            .tempdir()
            .map_err(|error| Failure::new(Kind::General, format!("cannot make a temporary folder: {error}")))?;
        let runtime = super::runtime()?;
        let mut out = std::io::stdout().lock();

        writeln!(out, "1. Two databases with one table, each with a host beside it.")?;
        let mut first = Pair::start(&runtime, &folder.path().join("first"), LATEST)?;
        writeln!(out, "\n2. The north adds pears, the south figs:")?;
        let took = first.meet()?;
        first.show(&mut out)?;
        writeln!(out, "   both have both after {took} ms")?;

        writeln!(out, "\n3. Who wins is chosen for each table, in the configuration of both:")?;
        quote(&mut out, LATEST)?;
        writeln!(out, "   The south is cut off. The north sells 3 apples, and the south gets 5:")?;
        first.clash(&runtime, &mut out)?;
        first.stop(&runtime)?;

        writeln!(out, "\n4. The same again, and nothing is different but these lines:")?;
        quote(&mut out, ADDED)?;
        let mut second = Pair::start(&runtime, &folder.path().join("second"), ADDED)?;
        second.meet()?;
        writeln!(out, "   The south is cut off. The north sells 3 apples, and the south gets 5:")?;
        second.clash(&runtime, &mut out)?;
        writeln!(out, "\nWhat was overruled or merged is kept on all nodes: `antiphon conflicts list` shows it.")?;

        if self.keep {
            let kept = folder.keep();
            writeln!(out, "The last two nodes run on. Write to either and read the other, in another terminal:")?;
            for site in second.sites() {
                writeln!(out, "   sqlite3 {}", shell(&site.database))?;
            }
            writeln!(out, "Ctrl-C ends them; the folder stays: {}", kept.display())?;
            drop(out);
            // A signal that can't be watched ends the demonstration at once.
            let _ = runtime.block_on(tokio::signal::ctrl_c());
            return second.stop(&runtime);
        }
        second.stop(&runtime)?;
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

/// The lines of a configuration, as they stand in the file.
fn quote(out: &mut impl Write, lines: &str) -> std::io::Result<()> {
    lines.lines().try_for_each(|line| writeln!(out, "      {line}"))
}

/// Two nodes of one cluster.
struct Pair {
    north: Site,
    south: Site,
}

impl Pair {
    fn start(runtime: &Runtime, folder: &Path, policy: &str) -> Result<Self, Failure> {
        let mut pair = Self { north: Site::new(folder, "north", policy)?, south: Site::new(folder, "south", policy)? };
        pair.north.start(runtime)?;
        pair.south.start(runtime)?;
        Ok(pair)
    }

    fn stop(&mut self, runtime: &Runtime) -> Result<(), Failure> {
        self.north.stop(runtime)?;
        self.south.stop(runtime)
    }

    fn sites(&self) -> [&Site; 2] {
        [&self.north, &self.south]
    }

    /// A row on each side, and how many milliseconds until both have all.
    fn meet(&self) -> Result<u128, Failure> {
        self.north.sql("INSERT INTO stock VALUES ('apples', 10), ('pears', 4)")?;
        self.south.sql("INSERT INTO stock VALUES ('figs', 6)")?;
        let took = Instant::now();
        wait_for(|| Ok(self.north.stock()?.len() == 3 && self.south.stock()? == self.north.stock()?))?;
        Ok(took.elapsed().as_millis())
    }

    /// One row changed on both sides unseen, and what becomes of it.
    fn clash(&mut self, runtime: &Runtime, out: &mut impl Write) -> Result<(), Failure> {
        self.south.stop(runtime)?;
        self.north.sql("UPDATE stock SET quantity = quantity - 3 WHERE item = 'apples'")?;
        self.south.sql("UPDATE stock SET quantity = quantity + 5 WHERE item = 'apples'")?;
        // So that the order of the log, and with it what is shown, is the same each time.
        wait_for(|| self.north.has_sent())?;
        self.show(out)?;
        self.south.start(runtime)?;
        let (north, south) = (&self.north, &self.south);
        wait_for(|| {
            let met = !north.clashes()?.is_empty() && !south.clashes()?.is_empty();
            Ok(met && south.has_sent()? && north.stock()? == south.stock()?)
        })?;
        writeln!(out, "   … and is back:")?;
        self.show(out)?;
        for (resolver, verdict) in self.north.clashes()? {
            let so = match verdict.as_str() {
                "take" => "the later in the log stands",
                "keep" => "the earlier in the log stays",
                _ => "both changes are in the row",
            };
            writeln!(out, "   one clash, put to the component `{resolver}`; it answered `{verdict}`: {so}")?;
        }
        Ok(())
    }

    fn show(&self, out: &mut impl Write) -> Result<(), Failure> {
        for site in self.sites() {
            writeln!(out, "   {}: {}", site.name, site.stock()?.join(", "))?;
        }
        Ok(())
    }
}
