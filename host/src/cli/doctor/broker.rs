//! The NATS servers that carry the log: who can read on the way, and whether what they acknowledge is safe.

use super::{Failed, Found, Patient};
use crate::log::{Durability, durability};
use crate::node::Carrier;

/// Plain text without a login, beyond this machine.
pub(super) fn transport(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    let Carrier::Nats(_) = &patient.log else { return Ok(()) };
    let Some(look) = patient.log.look()? else { return Ok(()) };
    if let Some(words) = look.transport() {
        found.warning(
            None,
            words,
            "rows are read and changed by whoever is on the way, and no node can tell",
            "`tls { … }` and users in the server's configuration; `ca_file`, a login and `require_tls = true` under `[nats]`",
        );
    }
    Ok(())
}

/// An acknowledgement that is no promise.
pub(super) fn durability(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    let Carrier::Nats(nats) = &patient.log else { return Ok(()) };
    // A server of one's own is configured to sync.
    if nats.managed.is_some() && nats.monitors.is_empty() {
        return Ok(());
    }
    let answer = super::super::runtime()?.block_on(durability::ask(&nats.monitors));
    let why = "what a server acknowledges counts as sent; if a power cut takes it there, nodes go back to a snapshot and send it \
               again, or stop where none fits";
    match &answer {
        Durability::Synced => {}
        Durability::Late { .. } => {
            let remedy = format!("add the line `{}` to the server's configuration, and start it again", durability::REMEDY);
            found.warning(None, answer.to_string(), why, remedy);
        }
        Durability::Unasked => found.note(
            None,
            answer.to_string(),
            why,
            "name the pages: `nats_monitor = [\"http://host:8222\"]` under `[nats]`, one a server, which have `http_port: 8222` in \
             their configuration",
        ),
        Durability::Unknown { .. } => found.warning(
            None,
            answer.to_string(),
            why,
            "give the server `http_port: 8222`, reachable from here, and name it right under `nats_monitor`",
        ),
    }
    if nats.replicas == 1 && nats.managed.is_none() {
        found.note(
            None,
            "each stream has one copy, on one server",
            "if that server's disk is lost, so is the log",
            "with three servers or more: `replicas = 3` under `[replication_log]`, and `update_existing = true` once",
        );
    }
    Ok(())
}
