//! A store that tries again what may work later, and goes no faster than it may.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use antiphon_core::store::{ErrorKind, Name, Object, Part, Put, Store, StoreError, Traits};

use super::{Moved, spread};

/// How often, and after which pauses.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// How often something is tried in all.
    pub tries: u32,
    /// The first pause; each later one is twice as long.
    pub first: Duration,
    /// The longest pause. Who asks to be left alone for longer is asked again later all the same, by somebody else.
    pub most: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { tries: 5, first: Duration::from_millis(200), most: Duration::from_secs(30) }
    }
}

/// Waits; a test has its own.
type Rest = Box<dyn Fn(Duration) + Send + Sync>;

/// A store, tried again.
pub struct Steady<S> {
    store: S,
    retry: Retry,
    rest: Rest,
    /// Bytes a second; 0 = as many as there are.
    bandwidth: u64,
    /// When what was moved so far may have been moved.
    due: Mutex<Option<Instant>>,
    moved: Arc<Moved>,
}

impl<S: Store> Steady<S> {
    /// The store, tried again. `bandwidth`: the most bytes a second, up and down together; 0: no bound.
    pub fn new(store: S, retry: Retry, bandwidth: u64) -> Self {
        Self {
            store,
            retry,
            rest: Box::new(std::thread::sleep),
            bandwidth,
            due: Mutex::default(),
            moved: Arc::default(),
        }
    }

    /// How much went in and out.
    pub fn moved(&self) -> Arc<Moved> {
        Arc::clone(&self.moved)
    }

    /// The store itself.
    pub fn inner(&self) -> &S {
        &self.store
    }

    fn again<R>(&self, mut work: impl FnMut(u32) -> Result<R, StoreError>) -> Result<R, StoreError> {
        let mut pause = self.retry.first;
        let mut tried = 0;
        loop {
            let error = match work(tried) {
                Err(error) if error.kind == ErrorKind::Temporary => error,
                done => return done,
            };
            tried += 1;
            if tried >= self.retry.tries.max(1) {
                let message = match tried {
                    1 => error.message.clone(),
                    tried => format!("{}; tried {tried} times", error.message),
                };
                return Err(StoreError { message, ..error });
            }
            let asked = error.retry_after.unwrap_or_default();
            let wait = spread(pause.max(asked).min(self.retry.most));
            tracing::debug!(error = %error, wait_ms = wait.as_millis(), "storage failed, trying again");
            (self.rest)(wait);
            pause = pause.saturating_mul(2);
        }
    }

    /// Waits until so many bytes more may be moved.
    fn hold_back(&self, bytes: u64) {
        if self.bandwidth == 0 || bytes == 0 {
            return;
        }
        let takes = Duration::from_secs_f64(bytes as f64 / self.bandwidth as f64);
        let now = Instant::now();
        let begins = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let begins = due.map_or(now, |due| due.max(now));
            *due = Some(begins + takes);
            begins
        };
        if begins > now {
            (self.rest)(begins - now);
        }
    }
}

impl<S: Store> Store for Steady<S> {
    fn traits(&self) -> Result<Traits, StoreError> {
        self.again(|_| self.store.traits())
    }

    fn check(&self) -> Result<(), StoreError> {
        self.again(|_| self.store.check())
    }

    fn put(&self, name: &Name, body: &[u8], put: Put) -> Result<(), StoreError> {
        self.again(|tried| {
            self.hold_back(body.len() as u64);
            match self.store.put(name, body, put) {
                // What failed for now may have been stored all the same, and then it is ours.
                Err(error) if error.kind == ErrorKind::Exists && tried > 0 => match self.store.get(name, None) {
                    Ok(found) if found == body => Ok(()),
                    _ => Err(error),
                },
                done => done,
            }
        })?;
        self.moved.add(body.len() as u64);
        Ok(())
    }

    fn get(&self, name: &Name, part: Option<Part>) -> Result<Vec<u8>, StoreError> {
        let body = self.again(|_| self.store.get(name, part))?;
        self.hold_back(body.len() as u64);
        self.moved.add(body.len() as u64);
        Ok(body)
    }

    fn stat(&self, name: &Name) -> Result<Object, StoreError> {
        self.again(|_| self.store.stat(name))
    }

    fn list(&self, prefix: &str, after: Option<&Name>, limit: u32) -> Result<Vec<Object>, StoreError> {
        self.again(|_| self.store.list(prefix, after, limit))
    }

    fn delete(&self, names: &[Name]) -> Result<(), StoreError> {
        self.again(|_| self.store.delete(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Holds one object, and fails as often as it is told.
    #[derive(Default)]
    struct Flaky {
        failures: AtomicU32,
        calls: AtomicU32,
        retry_after: Option<Duration>,
        kind: Option<ErrorKind>,
        /// It stores what it then fails at.
        stores: bool,
        held: Mutex<Option<Vec<u8>>>,
    }

    impl Flaky {
        fn fails(&self) -> Result<(), StoreError> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            if self.failures.load(Ordering::Relaxed) == 0 {
                return Ok(());
            }
            self.failures.fetch_sub(1, Ordering::Relaxed);
            let kind = self.kind.unwrap_or(ErrorKind::Temporary);
            Err(StoreError { retry_after: self.retry_after, ..StoreError::new(kind, "503") })
        }
    }

    impl Store for Flaky {
        fn traits(&self) -> Result<Traits, StoreError> {
            unreachable!()
        }

        fn check(&self) -> Result<(), StoreError> {
            self.fails()
        }

        fn put(&self, _: &Name, body: &[u8], _: Put) -> Result<(), StoreError> {
            let failed = self.fails();
            let mut held = self.held.lock().unwrap();
            if failed.is_err() && !self.stores {
                return failed;
            }
            if held.is_some() {
                return Err(StoreError::new(ErrorKind::Exists, "it is there"));
            }
            *held = Some(body.to_vec());
            failed
        }

        fn get(&self, _: &Name, _: Option<Part>) -> Result<Vec<u8>, StoreError> {
            self.fails()?;
            Ok(self.held.lock().unwrap().clone().unwrap_or_default())
        }

        fn stat(&self, _: &Name) -> Result<Object, StoreError> {
            unreachable!()
        }

        fn list(&self, _: &str, _: Option<&Name>, _: u32) -> Result<Vec<Object>, StoreError> {
            unreachable!()
        }

        fn delete(&self, _: &[Name]) -> Result<(), StoreError> {
            unreachable!()
        }
    }

    type Rests = Arc<Mutex<Vec<Duration>>>;

    fn made(store: Flaky, bandwidth: u64) -> (Steady<Flaky>, Rests) {
        let rests = Rests::default();
        let noted = rests.clone();
        let mut steady = Steady::new(store, Retry::default(), bandwidth);
        steady.rest = Box::new(move |pause| noted.lock().unwrap().push(pause));
        (steady, rests)
    }

    fn name() -> Name {
        Name::new("a").unwrap()
    }

    #[test]
    fn what_may_work_later_is_tried_again_after_longer_and_longer_pauses() {
        let (steady, rests) = made(Flaky { failures: 3.into(), ..Flaky::default() }, 0);
        steady.check().unwrap();
        let rests = rests.lock().unwrap();
        assert_eq!(rests.len(), 3);
        for (rest, pause) in rests.iter().zip([200, 400, 800]) {
            let pause = Duration::from_millis(pause);
            assert!((pause..=pause * 3 / 2).contains(rest), "{rest:?}");
        }
    }

    #[test]
    fn f10_it_is_not_tried_for_ever() {
        let (steady, rests) = made(Flaky { failures: 1000.into(), ..Flaky::default() }, 0);
        let error = steady.check().unwrap_err();
        assert_eq!(error.to_string(), "503; tried 5 times");
        assert_eq!((steady.store.calls.load(Ordering::Relaxed), rests.lock().unwrap().len()), (5, 4));
    }

    #[test]
    fn f10_who_asks_for_a_pause_has_it() {
        let asked = Duration::from_secs(7);
        let (steady, rests) = made(Flaky { failures: 1.into(), retry_after: Some(asked), ..Flaky::default() }, 0);
        steady.check().unwrap();
        assert!(rests.lock().unwrap()[0] >= asked);
        // But not an hour: the thread is somebody's.
        let (steady, rests) = made(Flaky { failures: 1.into(), retry_after: Some(asked * 999), ..Flaky::default() }, 0);
        steady.check().unwrap();
        assert!(rests.lock().unwrap()[0] <= Duration::from_secs(45));
    }

    #[test]
    fn what_will_not_work_is_not_tried_again() {
        for kind in [ErrorKind::Denied, ErrorKind::NotFound, ErrorKind::Permanent, ErrorKind::Unsupported] {
            let (steady, rests) = made(Flaky { failures: 1.into(), kind: Some(kind), ..Flaky::default() }, 0);
            assert_eq!(steady.check().unwrap_err().kind, kind);
            assert!(rests.lock().unwrap().is_empty());
        }
    }

    /// The first try was stored and its answer lost: the second finds the object there, and it is the caller's own.
    #[test]
    fn an_object_that_a_lost_answer_stored_is_ours() {
        let (steady, _) = made(Flaky { failures: 1.into(), stores: true, ..Flaky::default() }, 0);
        steady.put(&name(), b"mine", Put::IfAbsent).unwrap();
        // Another's is not.
        assert_eq!(steady.put(&name(), b"mine", Put::IfAbsent).unwrap_err().kind, ErrorKind::Exists);
        let (steady, _) = made(Flaky { failures: 1.into(), ..Flaky::default() }, 0);
        *steady.store.held.lock().unwrap() = Some(b"theirs".to_vec());
        assert_eq!(steady.put(&name(), b"mine", Put::IfAbsent).unwrap_err().kind, ErrorKind::Exists);
    }

    #[test]
    fn no_more_is_moved_than_may_be() {
        let (steady, rests) = made(Flaky::default(), 1 << 20);
        // Each is a second's worth, and the first need not wait.
        let body = vec![0; 1 << 20];
        for turn in 0..3 {
            *steady.store.held.lock().unwrap() = None;
            steady.put(&name(), &body, Put::Replace).unwrap();
            assert_eq!(rests.lock().unwrap().len(), turn);
        }
        let total: Duration = rests.lock().unwrap().iter().sum();
        assert!(total > Duration::from_millis(2900), "{total:?}");
    }
}
