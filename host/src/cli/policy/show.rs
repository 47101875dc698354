//! `antiphon policy show`: what the log says of policies, and what this configuration would say.

use std::collections::BTreeMap;
use std::io::Write as _;

use super::{Found, Source};
use crate::failure::{Failure, Kind};
use crate::policies;
use antiphon_core::entry::{OnFailure, Policy};
use serde::Serialize;

/// Say who decides clashes: in the log, shard by shard, and in this configuration
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Show {
    #[command(flatten)]
    source: Source,
    /// For scripts: one JSON object
    #[arg(long)]
    json: bool,
}

/// The names of its fields are those of `antiphon policy show --json`.
#[derive(Serialize)]
struct Shown {
    version: u64,
    policies: Vec<ShownPolicy>,
    in_force: BTreeMap<String, u64>,
    configured: Vec<ShownPolicy>,
    equal: bool,
}

#[derive(Serialize)]
struct ShownPolicy {
    /// None: all other tables.
    tables: Option<String>,
    resolver: String,
    settings: BTreeMap<String, String>,
    on_failure: &'static str,
}

impl ShownPolicy {
    fn of(policy: &Policy) -> Self {
        Self {
            tables: (!policy.pattern.is_empty()).then(|| policy.pattern.clone()),
            resolver: policy.resolver.clone(),
            settings: policy.settings.iter().cloned().collect(),
            on_failure: if policy.on_failure == OnFailure::Stop { "stop" } else { "park" },
        }
    }
}

impl Show {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Found { now, own, .. } = super::super::wait(&super::super::runtime()?, self.source.find())?;
        let decided = &now.decided;
        let mut out = std::io::stdout().lock();
        if self.json {
            let shown = Shown {
                version: decided.version,
                policies: decided.policies.iter().map(ShownPolicy::of).collect(),
                in_force: now.in_force.iter().map(|(shard, version)| (shard.to_string(), *version)).collect(),
                configured: own.iter().map(ShownPolicy::of).collect(),
                equal: decided.policies == own,
            };
            let text = serde_json::to_string_pretty(&shown)
                .map_err(|error| Failure::caused(Kind::General, "cannot print the policies", &error))?;
            return Ok(writeln!(out, "{text}")?);
        }
        writeln!(out, "the log, version {}", decided.version)?;
        for policy in &decided.policies {
            writeln!(out, "  {}", policies::said(policy))?;
        }
        for (shard, version) in now.in_force.iter().filter(|(_, version)| **version < decided.version) {
            writeln!(out, "  shard {shard} still goes by version {version}")?;
        }
        if decided.policies == own {
            return Ok(writeln!(out, "this configuration says the same")?);
        }
        writeln!(out, "this configuration")?;
        for policy in &own {
            writeln!(out, "  {}", policies::said(policy))?;
        }
        let mut talk = std::io::stderr().lock();
        Ok(writeln!(talk, "the log's hold; `antiphon policy apply` proposes this configuration's to all nodes")?)
    }
}
