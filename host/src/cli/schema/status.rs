//! `antiphon schema status`: who has which version of which table, and what waits for that.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;

use serde::Serialize;

use super::super::shown::name;
use super::super::{Node, json_line, look};
use crate::failure::{Failure, Kind};
use crate::log::Announced;

/// Say which nodes have which version of each table, and which of them wait for a table or a column
///
/// Two nodes have the same version of a table if its columns and its key are the same. It goes by what each node said last of
/// itself, every few seconds; with exit code 3 they differ, or a node waits.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Status {
    #[command(flatten)]
    node: Node,
    /// Directory of the embedded log
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Serialize)]
struct Shown {
    tables: Vec<Table>,
    waiting: Vec<Waiting>,
}

#[derive(Debug, Serialize)]
struct Table {
    table: String,
    /// Nodes by the version they have.
    versions: BTreeMap<String, Vec<u64>>,
    /// Nodes that do not have it.
    missing: Vec<u64>,
}

#[derive(Debug, Serialize)]
struct Waiting {
    node: u64,
    part: String,
    reason: String,
}

impl Status {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.node.load(self.log, None)?.config;
        let log = look::log(&crate::components::carrier(&config)?)?;
        let members = log.members().map_err(|error| look::unread_log(&error))?;
        let shown = shown(&members, crate::clock::unix_ns());
        let differs = shown.tables.iter().any(|table| table.versions.len() > 1 || !table.missing.is_empty());
        let mut out = io::stdout().lock();
        if self.json {
            json_line(&mut out, &shown)?;
        } else {
            for Table { table, versions, missing } in &shown.tables {
                let nodes = |nodes: &[u64]| nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
                if let (true, Some((version, of))) = (versions.len() == 1 && missing.is_empty(), versions.iter().next())
                {
                    writeln!(out, "{}  {version} on all {} nodes", name(table), of.len())?;
                    continue;
                }
                writeln!(out, "{}  DIFFERS", name(table))?;
                for (version, of) in versions {
                    writeln!(out, "  {version} on {}", nodes(of))?;
                }
                if !missing.is_empty() {
                    writeln!(out, "  not on {}", nodes(missing))?;
                }
            }
            for Waiting { node, part, reason } in &shown.waiting {
                writeln!(out, "node {node}, {part} waits: {reason}")?;
            }
            out.flush()?;
        }
        if !differs && shown.waiting.is_empty() {
            return Ok(());
        }
        Err(Failure::new(Kind::Unwell, "the tables of the nodes differ, or a node waits")
            .hint("bring the schema up to date on the nodes that lack something; they go on by themselves"))
    }
}

/// What those say who are here: each node's newest life.
fn shown(members: &[Announced], now_ns: u64) -> Shown {
    let mut newest: BTreeMap<u64, &Announced> = BTreeMap::new();
    for announced in members.iter().filter(|announced| announced.is_there(now_ns)) {
        let of = newest.entry(announced.member.node).or_insert(announced);
        if announced.time > of.time {
            *of = announced;
        }
    }
    let mut versions: BTreeMap<&str, BTreeMap<String, Vec<u64>>> = BTreeMap::new();
    for (node, announced) in &newest {
        for (table, version) in &announced.member.schemas {
            versions.entry(table).or_default().entry(format!("{version:016x}")).or_default().push(*node);
        }
    }
    let tables = versions.into_iter().map(|(table, versions)| {
        let has = |node: &u64| versions.values().flatten().any(|of| of == node);
        let missing = newest.keys().filter(|node| !has(node)).copied().collect();
        Table { table: table.to_owned(), versions, missing }
    });
    let waiting = newest.iter().flat_map(|(node, announced)| {
        let waits = announced.member.waits.iter();
        waits.map(|(part, reason)| Waiting { node: *node, part: part.clone(), reason: reason.clone() })
    });
    Shown { tables: tables.collect(), waiting: waiting.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Member;

    fn announced(node: u64, time: u64, tables: &[(&str, u64)], left: bool) -> Announced {
        let schemas = tables.iter().map(|(table, version)| ((*table).to_owned(), *version)).collect();
        Announced { member: Member { node, schemas, left, ..Member::default() }, time }
    }

    #[test]
    fn versions_are_those_of_who_is_here() {
        let second = 1_000_000_000;
        let now = 100 * second;
        let members = [
            announced(1, now, &[("t", 7), ("u", 1)], false),
            announced(2, now, &[("t", 8)], false),
            // An earlier life, one that left, and one that is away.
            announced(2, now - second, &[("t", 1)], false),
            announced(3, now, &[("t", 2)], true),
            announced(4, now - 50 * second, &[("t", 3)], false),
        ];
        let shown = shown(&members, now);
        let [t, u] = shown.tables.as_slice() else { panic!("{shown:?}") };
        assert_eq!(t.versions.values().flatten().copied().collect::<Vec<_>>(), [1, 2]);
        assert_eq!((t.versions.len(), t.missing.len()), (2, 0));
        assert_eq!((u.versions.len(), u.missing.as_slice()), (1, &[2][..]));
    }
}
