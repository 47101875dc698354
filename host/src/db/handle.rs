//! The handle that tasks share: a thread that owns the database, or the database itself.

use super::{Database, Error};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Calls that may wait for the thread; further callers wait for room.
const QUEUE_MAX: usize = 16;

type Call = Box<dyn FnOnce(&mut Database) + Send>;

/// A database that several tasks call, one at a time.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

enum Inner {
    Thread { calls: Mutex<Option<mpsc::Sender<Call>>>, thread: Mutex<Option<JoinHandle<()>>> },
    Inline(Box<Mutex<Database>>),
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").finish_non_exhaustive()
    }
}

impl Db {
    /// Gives the database a thread of its own: SQLite waits for locks and disks, and tasks must not.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn spawn(database: Database) -> std::io::Result<Self> {
        let (calls, mut queue) = mpsc::channel::<Call>(QUEUE_MAX);
        let mut database = database;
        let thread = std::thread::Builder::new().name("database".to_owned()).spawn(move || {
            while let Some(call) = queue.blocking_recv() {
                std::thread::sleep(database.turns.pause());
                call(&mut database);
            }
        })?;
        Ok(Self(Arc::new(Inner::Thread { calls: Mutex::new(Some(calls)), thread: Mutex::new(Some(thread)) })))
    }

    /// Runs every call on the spot: no thread, so that a test decides what happens when.
    #[must_use]
    pub fn inline(database: Database) -> Self {
        Self(Arc::new(Inner::Inline(Box::new(Mutex::new(database)))))
    }

    /// Runs `work` on the database and gives its answer.
    ///
    /// # Errors
    /// Those of `work`, and [`Error::Closed`].
    pub async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Database) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        match &*self.0 {
            Inner::Inline(database) => {
                let mut database = database.lock().unwrap_or_else(PoisonError::into_inner);
                database.refresh()?;
                work(&mut database)
            }
            Inner::Thread { calls, .. } => {
                let (reply, answer) = oneshot::channel();
                let span = tracing::Span::current();
                let call: Call = Box::new(move |database| {
                    // A caller that was cancelled no longer waits; its work is done all the same, whole.
                    let _ = reply.send(span.in_scope(|| database.refresh().and_then(|()| work(database))));
                });
                let calls = calls.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Error::Closed)?;
                calls.send(call).await.map_err(|_| Error::Closed)?;
                answer.await.map_err(|_| Error::Closed)?
            }
        }
    }

    /// Ends the thread after the calls it has, and closes the database.
    pub fn close(&self) {
        if let Inner::Thread { calls, thread } = &*self.0 {
            calls.lock().unwrap_or_else(PoisonError::into_inner).take();
            let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(thread) = thread
                && thread.join().is_err()
            {
                tracing::error!("the database thread ended in a panic");
            }
        }
    }
}
