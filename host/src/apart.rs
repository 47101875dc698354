//! Work that waits for disks or calls components, away from the threads on which tasks run.

use crate::bill::Bill;
use crate::failure::{Failure, Kind};

/// How far work steps back that can wait, as with `nice`: as far as it goes. It still gets a little of a busy processor.
const NICENESS: i32 = 19;

/// For how many nanoseconds such work keeps a processor that somebody else wants by now: the fewest there are. A commit of the
/// application's waits for a lock that a thread holds which waits for a processor.
const SLICE: u64 = 100_000;

/// Runs this on a thread of its own, on the bill that is open here.
///
/// Components have a runtime of their own, which must not be started on one of another's threads.
///
/// # Errors
/// When no thread can be started, or the work ends in a panic.
pub(crate) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let (reply, answer) = tokio::sync::oneshot::channel();
    let bill = Bill::open();
    std::thread::Builder::new()
        .name("apart".to_owned())
        .spawn(move || drop(reply.send(Bill::share(bill, work))))
        .map_err(|error| Failure::caused(Kind::General, "cannot start a thread", &error))?;
    answer.await.map_err(|_| Failure::new(Kind::General, "a thread ended in a panic"))
}

/// The same for long work that nobody should be held up by: whoever else wants a processor goes first.
///
/// # Errors
/// The same.
pub(crate) async fn behind<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    apart(move || {
        step_back();
        work()
    })
    .await
}

/// Has this thread alone, and those that it starts, go behind all others. Where the system does not do it, it goes on as ever.
fn step_back() {
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let wanted = libc::sched_attr {
        // What the system knew first.
        size: 48,
        sched_policy: libc::SCHED_OTHER.cast_unsigned(),
        sched_flags: 0,
        sched_nice: NICENESS,
        sched_priority: 0,
        // It means something for this policy since Linux 6.12.
        sched_runtime: SLICE,
        sched_deadline: 0,
        sched_period: 0,
    };
    #[expect(unsafe_code, reason = "nobody wraps this call")]
    // SAFETY: the system reads `size` bytes, which are all that this has and stay until it has read them.
    unsafe {
        libc::syscall(libc::SYS_sched_setattr, 0, &raw const wanted, 0);
    }
}
