//! A point in time as users name it, and what is needed to get there.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::{Found, PARALLEL};
use crate::cli::shown::moment;
use crate::components;
use crate::db::Fold;
use crate::failure::{Failure, Kind};
use crate::log::{self, Look};
use crate::snapshot::Travel;
use crate::words::hex;
use antiphon_core::codec;
use antiphon_core::snapshot::manifest::Manifest;
use antiphon_core::snapshot::reach::Target;

/// Places in the log: `1:200,2:180`, or one number where there is one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Seqs(Vec<(Option<u32>, u64)>);

impl FromStr for Seqs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "give places in the log as in 1:200,2:180, or one number where there is one shard".to_owned();
        let place = |text: &str| match text.split_once(':') {
            Some((shard, seq)) => Ok((
                Some(shard.parse().ok().filter(|shard| *shard > 0).ok_or_else(wrong)?),
                seq.parse().map_err(|_| wrong())?,
            )),
            None => Ok((None, text.parse().map_err(|_| wrong())?)),
        };
        let places = text.split(',').map(place).collect::<Result<Vec<_>, String>>()?;
        let shards: std::collections::BTreeSet<_> = places.iter().map(|(shard, _)| shard.unwrap_or(1)).collect();
        if shards.len() != places.len() || (places.len() > 1 && places.iter().any(|(shard, _)| shard.is_none())) {
            return Err(wrong());
        }
        Ok(Self(places))
    }
}

impl Seqs {
    /// What they mean among so many shards.
    pub(super) fn among(&self, shards: usize, argument: &str) -> Result<BTreeMap<u32, u64>, Failure> {
        let Self(places) = self;
        let mut seqs = BTreeMap::new();
        for (shard, seq) in places {
            let shard = match shard {
                Some(shard) => *shard,
                None if shards == 1 => 1,
                None => {
                    return Err(Failure::usage(format!("there are {shards} shards, and one number is given"))
                        .hint(format!("say which one, or several: `{argument} 1:200,2:180`")));
                }
            };
            seqs.insert(shard, *seq);
        }
        Ok(seqs)
    }
}

/// A point: by place or by time.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(multiple = false)]
pub(in crate::cli) struct Point {
    /// Up to this place in the log: `1:200,2:180` by shard, or one number where there is one shard
    #[arg(long, value_name = "S:N")]
    to_seq: Option<Seqs>,
    /// Up to this time: 2026-11-21T12:05:41Z, "2026-11-21 12:05" (UTC), or an age as "2h ago"
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to_time: Option<u64>,
}

impl Point {
    /// A time, or places in the log.
    pub(in crate::cli) fn of(text: &str) -> Result<Self, String> {
        match (text.parse(), moment(text)) {
            (Ok(seqs), _) => Ok(Self { to_seq: Some(seqs), to_time: None }),
            (_, Ok(millis)) => Ok(Self { to_seq: None, to_time: Some(millis) }),
            (Err(seqs), Err(time)) => Err(format!("{time}; or {seqs}")),
        }
    }

    /// Whether none is named.
    pub(in crate::cli) fn is_none(&self) -> bool {
        self.to_seq.is_none() && self.to_time.is_none()
    }

    /// What it means among so many shards.
    pub(in crate::cli) fn target(&self, shards: usize) -> Result<Target, Failure> {
        let Some(seqs) = &self.to_seq else {
            return Ok(self.to_time.map_or(Target::Newest, Target::Time));
        };
        seqs.among(shards, "--to-seq").map(Target::Seq)
    }
}

impl Found {
    /// How many shards there are, by the newest snapshot.
    pub(in crate::cli) fn shards(&self) -> Result<usize, Failure> {
        Ok(self.manifest(None)?.positions.len())
    }

    /// The log itself, if it can be reached from here and is this cluster's.
    pub(in crate::cli) fn look(&self) -> Option<Look> {
        let looked = components::carrier(&self.config).map(|carrier| carrier.look());
        let look = match looked {
            Ok(Ok(look)) => look?,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the log can't be read; what is archived has to do");
                return None;
            }
            Err(failure) => {
                tracing::warn!(%failure, "the log can't be read; what is archived has to do");
                return None;
            }
        };
        let mut is_its = false;
        let read = look.bounds(1).and_then(|bounds| {
            look.each(1, bounds.first, |placed| {
                is_its = codec::decode(&placed.frame).is_ok_and(|entry| hex(entry.cluster) == self.cluster);
                Ok::<_, log::Error>(false)
            })
        });
        (read.is_ok() && is_its).then_some(look)
    }

    /// What L is built on with.
    pub(in crate::cli) fn fold(&self, manifest: &Manifest) -> Result<Fold, Failure> {
        let parts = components::parts(&self.config, self.pins)?;
        if parts.filter.words() != manifest.scope {
            let of = if manifest.scope.is_empty() { "all tables" } else { manifest.scope.as_str() };
            return Err(Failure::new(
                Kind::Config,
                format!("snapshot {} is of {of}, and this configuration replicates other tables", manifest.id),
            )
            .hint("name the configuration of the node that made it: `--config FILE`"));
        }
        Ok(Fold {
            filter: parts.filter,
            policies: parts.policies,
            changes_max: parts.changes_max,
            atomic_max: parts.atomic_max,
        })
    }

    /// Ways to points in time, through the log as well if it is at hand.
    pub(in crate::cli) fn travel<'a>(&'a self, look: Option<&'a Look>) -> Travel<'a> {
        Travel::new(self.repo(), look, PARALLEL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_number_or_one_a_shard() {
        let target = |text: &str, shards| Point { to_seq: Some(text.parse().unwrap()), to_time: None }.target(shards);
        assert_eq!(target("7", 1), Ok(Target::Seq(BTreeMap::from([(1, 7)]))));
        assert_eq!(target("2:7,1:9", 3), Ok(Target::Seq(BTreeMap::from([(1, 9), (2, 7)]))));
        assert_eq!(target("7", 2).unwrap_err().kind(), Kind::Usage);
        for wrong in ["", "x", "1:", ":2", "0:1", "1:2,1:3", "1,2", "1:2,3", "-1", "1:2,"] {
            assert!(wrong.parse::<Seqs>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_point_is_a_place_or_a_time() {
        assert!(Point::of("12").unwrap().to_seq.is_some());
        assert!(Point::of("1:12").unwrap().to_seq.is_some());
        assert_eq!(Point::of("2026-03-01 10:00").unwrap().to_time, Some(1_772_359_200_000));
        assert!(Point::of("2h ago").unwrap().to_time.is_some());
        assert!(Point::of("once").is_err());
    }
}
