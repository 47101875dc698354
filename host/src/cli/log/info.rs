//! `antiphon log info`: how far the log reaches, and who wrote it.

use std::io::{self, Write};

use antiphon_core::codec;
use antiphon_core::entry::{Body, Genesis, Origin};
use serde::Serialize;

use super::super::look;
use super::super::shown::{bytes, count, name, utc};
use super::Source;
use crate::failure::Failure;
use crate::join;
use crate::log::{self, Extent, Placed, Shard};
use crate::node::Carrier;

/// Say how far each shard reaches, what the cluster agreed to, and who wrote
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Info {
    #[command(flatten)]
    source: Source,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Info {
    pub(super) fn run(self) -> Result<(), Failure> {
        let found = self.source.find()?;
        let log = found.look()?;
        let unread = |error: log::Error| look::unread_log(&error);
        let shards = log.shards().map_err(unread)?;
        let extents: Vec<(Shard, Extent)> = shards
            .into_iter()
            .map(|shard| Ok((shard, log.extent(shard).map_err(unread)?)))
            .collect::<Result<_, Failure>>()?;
        let origins = log.origins().map_err(unread)?;
        let genesis = genesis(&log)?;
        let mut out = io::stdout().lock();
        if self.json {
            return super::super::json_line(&mut out, &shown(&found.carrier, genesis.as_ref(), &extents, &origins));
        }
        writeln!(out, "log      {}", found.carrier)?;
        match &genesis {
            None => writeln!(out, "cluster  unknown: the log does not hold its first entry")?,
            Some((cluster, by, genesis)) => {
                writeln!(out, "cluster  {cluster}, founded by node {}", by.node)?;
                writeln!(
                    out,
                    "agreed   {}, keys hashed by {}{}, clashes resolved by {}, wire version {}",
                    count(genesis.shards.into(), "shard", "shards"),
                    genesis.hasher,
                    join::said_settings(&genesis.hasher_settings),
                    genesis.resolver,
                    genesis.wire
                )?;
                for policy in &genesis.policies {
                    writeln!(out, "policy   tables `{}`: {}", name(&policy.pattern), policy.resolver)?;
                }
            }
        }
        if extents.is_empty() {
            writeln!(out, "empty    no entry yet")?;
        }
        for (shard, extent) in &extents {
            let Extent { bounds, entries, bytes: size, times } = extent;
            write!(
                out,
                "shard {shard:<3}{} to {}: {}, {}",
                bounds.first,
                bounds.last,
                count(*entries, "entry", "entries"),
                bytes(*size)
            )?;
            match times {
                Some((first, last)) => writeln!(out, ", {} to {}", utc(first / 1_000_000), utc(last / 1_000_000))?,
                None => writeln!(out)?,
            }
        }
        for (shard, origin, number) in &origins {
            writeln!(
                out,
                "origin   node {}, incarnation {}: {} in shard {shard}",
                origin.node,
                origin.incarnation,
                count(*number, "batch", "batches")
            )?;
        }
        Ok(())
    }
}

/// What the first entry says, if it is there.
fn genesis(log: &log::Look) -> Result<Option<(String, Origin, Genesis)>, Failure> {
    let mut found = None;
    log.each(1, 1, |placed: Placed| {
        if placed.seq == 1
            && let Ok(entry) = codec::decode(&placed.frame)
            && let Body::Genesis(genesis) = entry.body
        {
            found = Some((hex(&entry.cluster), entry.origin, genesis));
        }
        Ok::<_, log::Error>(false)
    })
    .map_err(|error| look::unread_log(&error))?;
    Ok(found)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Serialize)]
struct Shown {
    log: String,
    cluster: Option<String>,
    genesis: Option<ShownGenesis>,
    shards: Vec<ShownShard>,
    origins: Vec<ShownOrigin>,
}

#[derive(Serialize)]
struct ShownGenesis {
    founder: u64,
    shards: u32,
    hasher: String,
    hasher_settings: std::collections::BTreeMap<String, String>,
    resolver: String,
    policies: Vec<ShownPolicy>,
    wire: u32,
}

#[derive(Serialize)]
struct ShownPolicy {
    tables: String,
    resolver: String,
    settings: std::collections::BTreeMap<String, String>,
}

#[derive(Serialize)]
struct ShownShard {
    shard: Shard,
    first: u64,
    last: u64,
    entries: u64,
    bytes: u64,
    first_time: Option<String>,
    last_time: Option<String>,
}

#[derive(Serialize)]
struct ShownOrigin {
    shard: Shard,
    node: u64,
    incarnation: u64,
    batches: u64,
}

fn shown(
    carrier: &Carrier,
    genesis: Option<&(String, Origin, Genesis)>,
    extents: &[(Shard, Extent)],
    origins: &[(Shard, Origin, u64)],
) -> Shown {
    let time = |ns: u64| utc(ns / 1_000_000);
    Shown {
        log: carrier.to_string(),
        cluster: genesis.map(|(cluster, ..)| cluster.clone()),
        genesis: genesis.map(|(_, by, genesis)| ShownGenesis {
            founder: by.node,
            shards: genesis.shards,
            hasher: genesis.hasher.clone(),
            hasher_settings: genesis.hasher_settings.iter().cloned().collect(),
            resolver: genesis.resolver.clone(),
            policies: genesis
                .policies
                .iter()
                .map(|policy| ShownPolicy {
                    tables: policy.pattern.clone(),
                    resolver: policy.resolver.clone(),
                    settings: policy.settings.iter().cloned().collect(),
                })
                .collect(),
            wire: genesis.wire,
        }),
        shards: extents
            .iter()
            .map(|(shard, extent)| ShownShard {
                shard: *shard,
                first: extent.bounds.first,
                last: extent.bounds.last,
                entries: extent.entries,
                bytes: extent.bytes,
                first_time: extent.times.map(|(first, _)| time(first)),
                last_time: extent.times.map(|(_, last)| time(last)),
            })
            .collect(),
        origins: origins
            .iter()
            .map(|(shard, origin, number)| ShownOrigin {
                shard: *shard,
                node: origin.node,
                incarnation: origin.incarnation,
                batches: *number,
            })
            .collect(),
    }
}
