//! A node's database, made from a snapshot before it has its name.

use super::Parts;
use crate::db::{self, Database};
use crate::failure::{Failure, Kind};
use crate::life::Life;
use crate::place::Place;
use crate::snapshot::{Arrived, cluster_of, genesis_of};
use std::path::Path;

/// Makes a database of what was restored that is a node of its cluster, where it was restored to; gives what is to be noted
/// beside it.
///
/// # Errors
/// When it does not fit together, or SQLite refuses.
pub(crate) fn furnish(parts: Parts, arrived: &Arrived, state: &Path) -> Result<Life, Failure> {
    let cannot = |error: db::Error| Failure::caused(Kind::Data, "a snapshot can't be put together", &error);
    let image = &arrived.image;
    let logged = arrived.state.as_ref().ok_or_else(|| Failure::new(Kind::General, "the state was not fetched"))?;
    db::assemble(image, logged).map_err(cannot)?;
    let options = parts.options(image, state);
    let mut db = Database::open(options, parts.hasher, parts.policies).map_err(cannot)?;
    let shards = u32::try_from(arrived.positions.len()).unwrap_or(u32::MAX);
    let cluster = cluster_of(&arrived.base)?;
    // A log that was cut does not say it any more.
    let genesis = genesis_of(&arrived.base, cluster).map(|(frame, _)| frame);
    db.begin_as_it_is(cluster, shards, genesis.as_deref()).map_err(cannot)?;
    Ok(Life::of(&Place::find(image)?, db.origin().incarnation, db.reached()))
}
