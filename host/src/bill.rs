//! What a job costs: processor time, stored bytes and room on the disk go on the bill of whatever they are spent for,
//! whichever thread spends them.
//!
//! A bill is open for a task, for the threads that it does work on by [`crate::apart`], and for those that these start by
//! [`Bill::share`]. Where none is open, nothing is counted: a command has nobody to tell.

use crate::metrics::table::Id;
use crate::metrics::{Metrics, figure};
use rustix::time::{ClockId, clock_gettime};
use std::pin::pin;
use std::time::Duration;

tokio::task_local! {
    static OPEN: Bill;
}

/// The bill of one kind of job.
#[derive(Clone, Debug)]
pub(crate) struct Bill {
    metrics: Metrics,
    job: &'static str,
}

impl Bill {
    /// One that is told in the metrics, under this name.
    pub(crate) fn new(metrics: &Metrics, job: &'static str) -> Self {
        Self { metrics: metrics.clone(), job }
    }

    /// The one that is open here, if any is.
    pub(crate) fn open() -> Option<Self> {
        OPEN.try_with(Self::clone).ok()
    }

    /// Does a job on this bill.
    pub(crate) async fn pay<T>(self, job: impl Future<Output = T>) -> T {
        let mut job = pin!(job);
        let own = self.clone();
        // It may be polled on another thread each time, and what waits costs nothing.
        OPEN.scope(self, std::future::poll_fn(|context| own.worked(|| job.as_mut().poll(context)))).await
    }

    /// Does work of a job's on a thread of its own, on the bill that was open where that thread was started.
    pub(crate) fn share<T>(bill: Option<Self>, work: impl FnOnce() -> T) -> T {
        match bill {
            Some(bill) => OPEN.sync_scope(bill.clone(), || bill.worked(work)),
            None => work(),
        }
    }

    fn worked<T>(&self, work: impl FnOnce() -> T) -> T {
        let begun = had();
        let done = work();
        self.metrics.add(Id::SnapshotJobCpu, &[self.job], had().saturating_sub(begun).as_secs_f64());
        done
    }
}

/// For how long this thread has had a processor.
fn had() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// So many bytes were stored, for whatever job this is done.
pub(crate) fn stored(bytes: usize) {
    // Where no bill is open, there is nobody to tell.
    let _ = OPEN.try_with(|bill| bill.metrics.add(Id::SnapshotJobStored, &[bill.job], figure(bytes as u64)));
}

/// So many bytes on the disk are all that it takes.
pub(crate) fn scratch(bytes: u64) {
    let _ = OPEN.try_with(|bill| bill.metrics.set(Id::SnapshotJobScratch, &[bill.job], figure(bytes)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apart::apart;

    /// Keeps a processor busy for this long, by the clock of this very thread.
    fn work(millis: u64) {
        let begun = had();
        while had() - begun < Duration::from_millis(millis) {
            std::hint::spin_loop();
        }
    }

    /// What stands on a job's bill: seconds, bytes that were stored, and bytes on the disk.
    fn bills(metrics: &Metrics, job: &str) -> [f64; 3] {
        let text = metrics.text("", 1).unwrap();
        let of = |name: &str| {
            let line = format!("{name}{{job=\"{job}\",node_id=\"1\"}} ");
            text.lines().find_map(|found| found.strip_prefix(&line)).map_or(0.0, |value| value.parse().unwrap())
        };
        ["cpu_seconds", "stored_bytes", "scratch_bytes"].map(|figure| of(&format!("snapshot_job_{figure}")))
    }

    #[tokio::test]
    async fn a_job_pays_for_its_threads_and_for_nothing_else() {
        let metrics = Metrics::default();
        let job = async {
            work(10);
            tokio::task::yield_now().await;
            apart(|| {
                work(20);
                stored(7);
                scratch(9);
                let bill = Bill::open();
                std::thread::scope(|scope| {
                    scope.spawn(|| Bill::share(bill.clone(), || (work(30), stored(5))));
                });
            })
            .await
            .unwrap();
            // What it waits for costs nothing.
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        Bill::new(&metrics, "one").pay(job).await;
        Bill::new(&metrics, "other").pay(async { work(40) }).await;
        work(300);
        stored(1_000);
        let ([one, stored, scratch], [other, ..]) = (bills(&metrics, "one"), bills(&metrics, "other"));
        assert!((0.06..0.2).contains(&one), "{one}");
        assert!((0.04..0.2).contains(&other), "{other}");
        assert_eq!([stored, scratch].map(f64::to_bits), [12_f64, 9.0].map(f64::to_bits));
    }
}
