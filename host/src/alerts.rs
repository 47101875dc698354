//! Who is told when something is wrong: a webhook, a command, or both.
//!
//! Each is told what is wrong as of now and has not been told yet, and later that it is over. Nothing is queued: while a
//! webhook can't be reached it is tried again with what is true by then. What was told is kept beside the database, so that
//! a start tells nothing twice, and what ended meanwhile is taken back. A process that dies before it has noted what it
//! told tells it again.

mod told;
mod way;

use crate::config::Config;
use crate::failure::{Failure, Kind};
use crate::health::Reason;
use crate::metrics::table::Id;
use crate::vitals::{Lookout, Phase, Vitals};
use antiphon_plugin::{Certificates, Post};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use told::{ENDED, Told};
use tracing::{Instrument as _, info_span};
use way::Way;

/// A node that starts is given this long.
const STARTING: Duration = Duration::from_secs(60);
/// The first pause after a failure, and the longest.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How often it is looked at whether it is time.
const LOOK: Duration = Duration::from_secs(1);
/// How long a process that ends waits for its last words to arrive.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// All who are told.
#[derive(Debug)]
pub struct Alerts {
    ways: Vec<Way>,
    lookout: Lookout,
    state: PathBuf,
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// Whether it is an address that can be told something, in words that don't hold it: it may be a secret.
///
/// # Errors
/// When it is none.
pub fn check_webhook(address: &str) -> Result<(), Failure> {
    Post::new(address, None, Certificates::default())
        .map(drop)
        .map_err(|why| Failure::config(format!("cannot use `alerts.webhook`: {why}")))
}

impl Alerts {
    /// Begins to tell those whom the configuration names. In an async runtime.
    ///
    /// # Errors
    /// When a secret or a certificate is not where it is said to be.
    pub fn start(config: &Config, lookout: &Lookout, state: PathBuf) -> Result<Self, Failure> {
        let alerts = &config.alerts;
        let mut ways = Vec::new();
        let secret = |key: &str, secret: &crate::config::Secret| crate::config::expand(key, secret.reveal());
        let webhook = secret("alerts.webhook", &alerts.webhook)?;
        if !webhook.is_empty() {
            let token = Some(secret("alerts.token", &alerts.token)?).filter(|token| !token.is_empty());
            let certificates = match alerts.ca_file.as_os_str().is_empty() {
                true => Certificates::default(),
                false => Certificates::read(&alerts.ca_file).map_err(|why| {
                    Failure::new(Kind::Missing, format!("cannot use `{}`: {why}", alerts.ca_file.display()))
                        .hint("`ca_file` under `[alerts]` is a file of certificates as PEM")
                })?,
            };
            let post = Post::new(&webhook, token.as_deref(), certificates)
                .map_err(|why| Failure::config(format!("cannot use `alerts.webhook`: {why}")))?;
            ways.push(Way::Webhook(post));
        }
        if !alerts.command.is_empty() {
            ways.push(Way::Command(alerts.command.clone()));
        }
        let stop = CancellationToken::new();
        let tasks = ways.iter().map(|way| {
            let told = Told::read(&state, way.name());
            let telling = Telling { way: way.clone(), lookout: lookout.clone(), told, state: state.clone() };
            tokio::spawn(telling.run(stop.clone()).instrument(info_span!("alerts")))
        });
        let tasks = tasks.collect();
        Ok(Self { ways, lookout: lookout.clone(), state, stop, tasks })
    }

    /// Whether anybody is to be told.
    #[must_use]
    pub fn are_wanted(&self) -> bool {
        !self.ways.is_empty()
    }

    /// Nobody is told any more; with why the node ended, if nobody asked it to.
    pub async fn end(self, failure: Option<&Failure>) {
        self.stop.cancel();
        for task in self.tasks {
            let _ = task.await;
        }
        let Some(failure) = failure else { return };
        let vitals = self.lookout.vitals();
        let reason = Reason {
            name: ENDED.to_owned(),
            what: format!("this node ended: {failure}"),
            since: Some(crate::clock::utc(crate::clock::unix_ms())),
            remedy: "its log says what to do; start it again: `antiphon run`".to_owned(),
        };
        for way in self.ways {
            let mut told = Told::read(&self.state, way.name());
            let words = message(&vitals, "condition", "firing", Some(&reason));
            match tokio::time::timeout(LAST_WORDS, way.tell(words)).await {
                Ok(Ok(())) => {
                    told.reasons.insert(reason.name.clone(), reason.clone());
                    told.write(&self.state, way.name());
                }
                Ok(Err(why)) => tracing::warn!(way = way.shown(), why, "nobody could be told that this node ended"),
                Err(_) => tracing::warn!(way = way.shown(), "nobody could be told in time that this node ended"),
            }
        }
    }
}

/// One who is told.
struct Telling {
    way: Way,
    lookout: Lookout,
    told: Told,
    state: PathBuf,
}

impl Telling {
    async fn run(mut self, stop: CancellationToken) {
        let (begun, mut news) = (Instant::now(), self.lookout.follow());
        let (mut pause, mut not_before) = (RETRY_MIN, Instant::now());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = news.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            let vitals = news.borrow_and_update().clone();
            let settles = vitals.phase == Phase::Starting && begun.elapsed() < STARTING;
            if settles || vitals.phase == Phase::Stopping || Instant::now() < not_before {
                continue;
            }
            let told = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                told = self.catch_up(&vitals) => told,
            };
            match told {
                Ok(()) => pause = RETRY_MIN,
                Err(why) => {
                    tracing::warn!(way = self.way.shown(), why, "an alert reached nobody, will try again");
                    if let Some(metrics) = self.lookout.metrics() {
                        metrics.count(Id::AlertErrors, 1);
                    }
                    not_before = Instant::now() + pause;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Tells all that was not told yet.
    async fn catch_up(&mut self, vitals: &Vitals) -> Result<(), String> {
        let grace = self.lookout.limits().log_grace.as_secs_f64();
        let long = grace + STARTING.as_secs_f64();
        let settled = vitals.uptime_seconds > long || vitals.caught_up && vitals.uptime_seconds > grace;
        for (words, after) in self.told.news(vitals, settled) {
            self.way.tell(words).await?;
            self.told = after;
            self.told.write(&self.state, self.way.name());
        }
        Ok(())
    }
}

/// What is told.
fn message(vitals: &Vitals, event: &str, state: &str, reason: Option<&Reason>) -> Value {
    let mut message = json!({
        "event": event,
        "state": state,
        "at": crate::clock::utc(crate::clock::unix_ms()),
        "node_id": vitals.status.node.unwrap_or(0),
        "cluster": vitals.status.cluster,
        "database": vitals.status.database,
        "status": vitals.health.word(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    if let Some(object) = message.as_object_mut() {
        match reason {
            Some(reason) => {
                object.insert("name".to_owned(), json!(reason.name));
                object.insert("what".to_owned(), json!(reason.what));
                object.insert("since".to_owned(), json!(reason.since));
                object.insert("remedy".to_owned(), json!(reason.remedy));
            }
            None => {
                object.insert("reasons".to_owned(), json!(vitals.health.reasons));
            }
        }
    }
    message
}
