//! A node that comes in while its log answers badly.

use crate::world::{World, start};
use antiphon::components;
use antiphon::config::{Config, Environment, Overrides, Sources};
use antiphon::custom::Pins;
use antiphon::log::{Announced, Appended, Bounds, Claim, Error, Lease, Log, Member, Placed, Shard};
use antiphon::node;
use antiphon_core::entry::Origin;
use antiphon_harness::eventually;
use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A log that does not answer the first question after a node's last number.
#[derive(Debug)]
struct Forgetful {
    log: Arc<dyn Log>,
    has_forgotten: AtomicBool,
}

#[async_trait]
impl Log for Forgetful {
    async fn append(&self, shard: Shard, origin: Origin, first: u64, frames: &[Vec<u8>]) -> Result<Appended, Error> {
        self.log.append(shard, origin, first, frames).await
    }

    async fn begin(&self, shard: Shard, frame: &[u8]) -> Result<bool, Error> {
        self.log.begin(shard, frame).await
    }

    async fn begin_again(
        &self,
        shard: Shard,
        at: u64,
        frame: &[u8],
        numbers: &[(Origin, u64)],
    ) -> Result<Option<u64>, Error> {
        self.log.begin_again(shard, at, frame, numbers).await
    }

    async fn clear(&self, shard: Shard) -> Result<(), Error> {
        self.log.clear(shard).await
    }

    async fn read(&self, shard: Shard, after: u64, bytes_max: usize) -> Result<Vec<Placed>, Error> {
        self.log.read(shard, after, bytes_max).await
    }

    async fn bounds(&self, shard: Shard) -> Result<Bounds, Error> {
        self.log.bounds(shard).await
    }

    async fn truncate(&self, shard: Shard, up_to: u64) -> Result<(), Error> {
        self.log.truncate(shard, up_to).await
    }

    async fn last_number(&self, shard: Shard, origin: Origin) -> Result<u64, Error> {
        if self.has_forgotten.swap(true, Ordering::Relaxed) {
            return self.log.last_number(shard, origin).await;
        }
        Err(Error::Unreachable("timed out".to_owned()))
    }

    async fn claim(&self, origin: Origin) -> Result<Option<Claim>, Error> {
        self.log.claim(origin).await
    }

    async fn changed(&self, shard: Shard, after: u64) {
        self.log.changed(shard, after).await;
    }

    async fn announce(&self, member: &Member) -> Result<(), Error> {
        self.log.announce(member).await
    }

    async fn members(&self) -> Result<Vec<Announced>, Error> {
        self.log.members().await
    }

    async fn lease(&self, name: &str) -> Result<Lease, Error> {
        self.log.lease(name).await
    }

    async fn set_lease(&self, name: &str, lease: Lease, over: u64) -> Result<(bool, Lease), Error> {
        self.log.set_lease(name, lease, over).await
    }
}

/// The first start of a node has made it a member when the log stops answering: it asks again, and does not take its own
/// file for another's copy.
#[test]
fn a_first_start_asks_again() {
    let world = World::one();
    let mut founder = world.site("founder");
    start(&mut founder);
    founder.sql("INSERT INTO t (id) VALUES (1)");
    eventually("the founder is done", || founder.is_quiet());
    let site = world.site("late");
    let overrides = Overrides { db_path: Some(site.database.clone()), ..Overrides::default() };
    let file = Some(world.place.path("late.toml"));
    let sources = Sources { file, environment: Environment::default(), overrides };
    let config = Config::load(sources).unwrap().config;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let parts = components::parts(&config, Pins::Required).unwrap();
        let mut opened = node::open(parts).await.unwrap();
        opened.log = Arc::new(Forgetful { log: opened.log.clone(), has_forgotten: AtomicBool::new(false) });
        let (_, entered) = opened.enter().await.unwrap();
        assert_eq!(entered, antiphon::join::Entered::Resumed);
    });
}
