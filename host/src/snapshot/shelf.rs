//! The store that a running node has open: opened when it is first needed, and another after a reload.

use super::habits::Habits;
use crate::config::Config;
use crate::custom::Pins;
use crate::failure::Failure;
use crate::storage::{self, Opened};
use antiphon_plugin::PluginHost;
use std::sync::{Arc, Mutex, PoisonError};

/// The store, or what it is opened with.
#[derive(Clone)]
pub struct Shelf(Arc<Mutex<Inner>>);

struct Inner {
    host: PluginHost,
    config: Config,
    pins: Pins,
    opened: Option<Arc<Opened>>,
    /// How often another one was taken up.
    renewals: u64,
}

impl Shelf {
    /// That of a configuration.
    #[must_use]
    pub fn new(host: PluginHost, config: Config, pins: Pins) -> Self {
        Self(Arc::new(Mutex::new(Inner { host, config, pins, opened: None, renewals: 0 })))
    }

    /// The store, and what goes with it.
    ///
    /// # Errors
    /// When it can't be opened.
    pub(super) fn open(&self) -> Result<(Arc<Opened>, Habits), Failure> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let habits = Habits::of(&inner.config);
        if let Some(opened) = &inner.opened {
            return Ok((Arc::clone(opened), habits));
        }
        let opened = Arc::new(storage::open(&inner.config, &inner.host, None, inner.pins)?);
        inner.opened = Some(Arc::clone(&opened));
        Ok((opened, habits))
    }

    /// The same store with the class of storage that old snapshots get. Nobody keeps it open: it is of use now and then.
    ///
    /// # Errors
    /// When it can't be opened.
    pub(super) fn open_cold(&self) -> Result<Opened, Failure> {
        let (host, mut config, pins) = {
            let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            (inner.host.clone(), inner.config.clone(), inner.pins)
        };
        let s3 = &mut config.snapshot.s3;
        s3.storage_class.clone_from(&s3.archive_class);
        storage::open(&config, &host, None, pins)
    }

    /// What is done about snapshots without being asked.
    pub(super) fn habits(&self) -> Habits {
        Habits::of(&self.0.lock().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// The configuration.
    pub(super) fn config(&self) -> Config {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).config.clone()
    }

    /// How often another store was taken up: nothing that was known of the one before is true of it.
    pub(super) fn renewals(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).renewals
    }

    /// Takes up another configuration. What is under way goes on with the store it has.
    ///
    /// # Errors
    /// When its store can't be opened; nothing has changed then.
    pub fn renew(&self, config: &Config) -> Result<(), Failure> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = storage::open(config, &inner.host, None, inner.pins)?;
        inner.config = config.clone();
        inner.renewals += 1;
        inner.opened = Some(Arc::new(opened));
        Ok(())
    }
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shelf")
    }
}
