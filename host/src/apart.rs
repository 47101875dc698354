//! Work that waits for disks or calls components, away from the threads on which tasks run.

use crate::failure::{Failure, Kind};

/// How far work steps back that can wait, as with `nice`.
const NICENESS: i32 = 10;

/// Runs this on a thread of its own.
///
/// Components have a runtime of their own, which must not be started on one of another's threads.
///
/// # Errors
/// When no thread can be started, or the work ends in a panic.
pub(crate) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let (reply, answer) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("apart".to_owned())
        .spawn(move || drop(reply.send(work())))
        .map_err(|error| Failure::caused(Kind::General, "cannot start a thread", &error))?;
    answer.await.map_err(|_| Failure::new(Kind::General, "a thread ended in a panic"))
}

/// The same for long work that nobody should be held up by: whoever else wants a processor goes first.
///
/// # Errors
/// The same.
pub(crate) async fn behind<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    apart(move || {
        // Of this thread alone, and of those that it starts. Who may not do it goes on as ever.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        work()
    })
    .await
}
