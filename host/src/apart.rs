//! Work that waits for disks or calls components, away from the threads on which tasks run.

use crate::failure::{Failure, Kind};

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
