//! One fault under load: what happens meanwhile is the scenario's; that all is well again soon is the same for each.

use crate::load::{Load, check};
use crate::world::{World, start};
use antiphon_harness::{Proxy, Site, eventually};
use std::time::{Duration, Instant};

/// From the healing on, everything is everywhere within this.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// Nodes that write, behind proxies of their own: three, where no more is said.
pub(crate) struct Scenario {
    pub(crate) world: World,
    pub(crate) sites: Vec<Site>,
    /// Each node's way to the servers.
    pub(crate) ways: Vec<Vec<Proxy>>,
    load: Load,
}

impl Scenario {
    /// Nodes at one server, under load.
    pub(crate) fn one() -> Self {
        Self::under_load(World::one())
    }

    /// Nodes at three servers, under load.
    pub(crate) fn three() -> Self {
        Self::under_load(World::three())
    }

    fn under_load(mut world: World) -> Self {
        let ways: Vec<Vec<Proxy>> = (0..3).map(|_| world.proxies()).collect();
        let sites = ["a", "b", "c"].iter().zip(&ways).map(|(name, way)| world.behind(name, way)).collect();
        Self::begun(world, sites, ways)
    }

    /// These nodes, under load.
    pub(crate) fn begun(world: World, mut sites: Vec<Site>, ways: Vec<Vec<Proxy>>) -> Self {
        sites[0].sql("INSERT INTO tally VALUES (1, 0)");
        sites.iter_mut().for_each(start);
        eventually("all have the counter", || sites.iter().all(|site| site.one("SELECT count(*) FROM tally") == "1"));
        let load = Load::beside(&sites);
        load.more(50);
        Self { world, sites, ways, load }
    }

    /// Waits until every application has committed some more: whatever the network does, it can.
    #[track_caller]
    pub(crate) fn write_on(&self) {
        self.load.more(50);
    }

    /// Time passes, and the applications write.
    pub(crate) fn pass(&self, time: Duration) {
        std::thread::sleep(time);
        self.write_on();
    }

    /// All is well now: the nodes must find that out by themselves, and soon.
    #[track_caller]
    pub(crate) fn healed(mut self) {
        let took = self.recover();
        assert!(took < BOUND, "it took {took:?} from the healing on");
        for site in &mut self.sites {
            assert!(site.is_running());
            site.term();
        }
    }

    /// The same, and they run on; gives how long it took.
    #[track_caller]
    pub(crate) fn recover(&mut self) -> Duration {
        let healed = Instant::now();
        self.load.more(50);
        let committed = std::mem::take(&mut self.load).end();
        check(&self.sites.iter().collect::<Vec<_>>(), &committed);
        let took = healed.elapsed();
        println!("recovered in {took:?}");
        took
    }
}

/// Seconds, where a long run is asked for, and a few of them where it is not.
pub(crate) fn seconds(short: u64, long: u64) -> Duration {
    Duration::from_secs(if is_full() { long } else { short })
}

/// Whether the long runs are asked for.
pub(crate) fn is_full() -> bool {
    std::env::var_os("FULL").is_some_and(|value| value != "0")
}
