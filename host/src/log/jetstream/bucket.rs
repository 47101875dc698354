//! Beside the streams: members, leases and claims, in a bucket of keys and values.

use super::Settings;
use super::read::{LastOf, direct};
use super::stream::unreachable;
use crate::log::{Announced, Claim, Error, Lease, Member};
use antiphon_core::entry::Origin;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::CreateKeyValueErrorKind;
use async_nats::jetstream::kv::{Config, CreateErrorKind, Store, UpdateErrorKind};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

/// How often a claim is renewed, and how long one may stand still before its process is taken for gone.
const RENEWAL: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_millis(4500);

/// Where in the world the process runs that speaks for an origin.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claimed {
    place: String,
}

#[derive(Debug)]
pub(super) struct Bucket {
    context: Context,
    settings: Arc<Settings>,
    store: OnceCell<Store>,
    /// Another process has taken what this one had claimed.
    lost: Arc<AtomicBool>,
}

/// Renews a claim for as long as it lives.
struct Renewal(JoinHandle<()>);

impl Drop for Renewal {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Bucket {
    pub(super) fn new(context: Context, settings: Arc<Settings>) -> Self {
        Self { context, settings, store: OnceCell::new(), lost: Arc::default() }
    }

    /// Nothing more may be said in the name of an origin that another process speaks for.
    pub(super) fn is_ours(&self) -> Result<(), Error> {
        if self.lost.load(Ordering::Relaxed) {
            return Err(Error::Broken(
                "another process goes on under this node's name, from a copy of its file; one of the two has to be \
                 stopped, and the copy made a node of its own: remove the directory beside it whose name ends in `.antiphon`"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    async fn store(&self) -> Result<&Store, Error> {
        let made = self.store.get_or_try_init(|| async {
            let name = self.settings.names.bucket();
            if let Ok(store) = self.context.get_key_value(&name).await {
                return Ok(store);
            }
            let config = Config {
                bucket: name,
                description: "members and leases of Antiphon".to_owned(),
                history: 1,
                num_replicas: self.settings.replicas,
                ..Config::default()
            };
            self.context.create_key_value(config).await.map_err(|error| match error.kind() {
                CreateKeyValueErrorKind::InvalidStoreName => Error::Broken(error.to_string()),
                _ => unreachable(&error),
            })
        });
        made.await
    }

    pub(super) async fn announce(&self, member: &Member) -> Result<(), Error> {
        let said = serde_json::to_vec(member).map_err(|error| Error::Broken(error.to_string()))?;
        let key = format!("member.{}.{}", member.node, member.incarnation);
        self.store().await?.put(key, said.into()).await.map_err(|error| unreachable(&error))?;
        Ok(())
    }

    pub(super) async fn members(&self) -> Result<Vec<Announced>, Error> {
        let name = self.settings.names.bucket();
        let all = format!("$KV.{name}.member.>");
        let wanted = LastOf { multi_last: [&all] };
        let messages = direct(&self.context.client(), &format!("KV_{name}"), &wanted).await?.unwrap_or_default();
        let mut members: Vec<Announced> = messages
            .into_iter()
            .filter_map(|message| {
                let Origin { node, incarnation } = super::Names::origin(message.subject.as_str())?;
                // Words that this build can't read come from another one, and still tell who and when.
                let said: Member = serde_json::from_slice(&message.payload).unwrap_or_default();
                let time = u64::try_from(message.time.unix_timestamp_nanos()).unwrap_or(0);
                Some(Announced { member: Member { node, incarnation, ..said }, time })
            })
            .collect();
        members.sort_by_key(|announced| (announced.member.node, announced.member.incarnation));
        Ok(members)
    }

    /// What stands under a key: its value and revision.
    async fn standing(&self, key: &str) -> Result<Option<(Vec<u8>, u64)>, Error> {
        let entry = self.store().await?.entry(key).await.map_err(|error| unreachable(&error))?;
        Ok(entry.map(|entry| (entry.value.to_vec(), entry.revision)))
    }

    /// Changes a key if this revision stands there, 0 if nothing ever did; gives the new one, or nothing.
    async fn change(&self, key: &str, value: Vec<u8>, over: u64) -> Result<Option<u64>, Error> {
        let store = self.store().await?;
        if over == 0 {
            return match store.create(key, value.into()).await {
                Ok(revision) => Ok(Some(revision)),
                Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(None),
                Err(error) => Err(unreachable(&error)),
            };
        }
        match store.update(key, value.into(), over).await {
            Ok(revision) => Ok(Some(revision)),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
            Err(error) => Err(unreachable(&error)),
        }
    }

    pub(super) async fn lease(&self, name: &str) -> Result<Lease, Error> {
        let standing = self.standing(&lease_key(name)).await?;
        Ok(standing.map_or_else(Lease::default, |(value, revision)| {
            let lease: Lease = serde_json::from_slice(&value).unwrap_or_default();
            Lease { term: revision, ..lease }
        }))
    }

    pub(super) async fn set_lease(&self, name: &str, lease: Lease, over: u64) -> Result<(bool, Lease), Error> {
        let value = serde_json::to_vec(&lease).map_err(|error| Error::Broken(error.to_string()))?;
        match self.change(&lease_key(name), value, over).await? {
            Some(revision) => Ok((true, Lease { term: revision, ..lease })),
            None => Ok((false, self.lease(name).await?)),
        }
    }

    /// Claims an origin. One that another place has is waited for as long as a process may be silent.
    pub(super) async fn claim(&self, origin: Origin) -> Result<Option<Claim>, Error> {
        let key = format!("claim.{}.{}", origin.node, origin.incarnation);
        let ours = Claimed { place: self.settings.place.clone() };
        let value = serde_json::to_vec(&ours).map_err(|error| Error::Broken(error.to_string()))?;
        let mut standing = self.standing(&key).await?;
        if let Some((other, revision)) = &standing
            && serde_json::from_slice::<Claimed>(other).ok().as_ref() != Some(&ours)
        {
            let revision = *revision;
            tracing::info!(node = origin.node, "another process had this node's name; waiting whether it still has");
            tokio::time::sleep(SILENCE).await;
            standing = self.standing(&key).await?;
            if standing.as_ref().is_some_and(|(_, now)| *now != revision) {
                return Ok(None);
            }
        }
        let over = standing.map_or(0, |(_, revision)| revision);
        let Some(revision) = self.change(&key, value.clone(), over).await? else { return Ok(None) };
        let renewal = renew(self.store().await?.clone(), key, value, revision, self.lost.clone());
        Ok(Some(Claim::held(Renewal(tokio::spawn(renewal)))))
    }
}

fn lease_key(name: &str) -> String {
    format!("lease.{name}")
}

/// Says again and again that the process lives; ends when another has taken its name.
async fn renew(store: Store, key: String, value: Vec<u8>, mut revision: u64, lost: Arc<AtomicBool>) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        match store.update(&key, value.clone().into(), revision).await {
            Ok(next) => revision = next,
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                // An update whose answer was lost is ours as well.
                match store.entry(&key).await {
                    Ok(Some(entry)) if entry.value == value => revision = entry.revision,
                    Ok(_) => {
                        lost.store(true, Ordering::Relaxed);
                        return;
                    }
                    Err(_) => {}
                }
            }
            Err(error) => tracing::debug!(error = %error, "cannot renew the claim"),
        }
    }
}
