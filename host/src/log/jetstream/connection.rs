//! A connection to NATS servers that is never given up.

use super::durability::{self, Durability};
use super::login::Login;
use super::transport;
use crate::failure::Failure;
use async_nats::connection::State;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, Event, ServerAddr};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long a request waits for its answer, unless it says otherwise.
const REQUEST: Duration = Duration::from_secs(5);
/// How often it is looked whether there is a connection.
const LOOK: Duration = Duration::from_millis(20);
/// How often files of the login are looked at, and an outage.
const TEND: Duration = Duration::from_secs(1);
const PING: Duration = Duration::from_secs(5);

/// Tries that fail before it is said that no server can be reached, unless the user says otherwise.
const TRIES: u32 = 5;

/// A connection, and how often it was made.
#[derive(Clone, Debug)]
pub struct Connection {
    client: Client,
    way: Arc<Way>,
    _tending: Arc<Tending>,
    watching: Arc<Mutex<Option<Tending>>>,
}

/// The way to the servers.
struct Way {
    addresses: Vec<ServerAddr>,
    login: Login,
    made: AtomicU64,
    /// Tries that failed since there was a connection.
    failed: AtomicU32,
    /// So many of them are an outage.
    tries: AtomicU32,
    /// What is wrong with it: subject and words.
    degraded: Mutex<BTreeMap<String, String>>,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").finish_non_exhaustive()
    }
}

/// Looks after a connection for as long as it lives.
#[derive(Debug)]
struct Tending(JoinHandle<()>);

impl Drop for Tending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Connects; if no server can be reached it goes on trying, and what is asked meanwhile fails for now.
    ///
    /// # Errors
    /// When an address is none, or a file of the login can't be used.
    pub async fn open(urls: &[String], name: &str, mut login: Login, pause: Duration) -> Result<Self, Failure> {
        let addresses = urls
            .iter()
            .map(|url| url.parse::<ServerAddr>().map_err(|_| Failure::config("an address under `nats.urls` is none")))
            .collect::<Result<Vec<_>, _>>()?;
        login.check()?;
        if !login.is_given() {
            said_by(&addresses, &mut login);
        }
        let way = Arc::new(Way {
            addresses,
            login,
            made: AtomicU64::new(0),
            failed: AtomicU32::new(0),
            tries: AtomicU32::new(TRIES),
            degraded: Mutex::default(),
        });
        let (counted, told) = (way.clone(), way.clone());
        let options = way
            .login
            .options()
            .name(name)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .request_timeout(Some(REQUEST))
            .ping_interval(PING)
            .reconnect_delay_callback(move |tries| {
                let tries = u32::try_from(tries).unwrap_or(u32::MAX);
                counted.failed.store(tries.saturating_sub(1), Ordering::Relaxed);
                // The first try comes at once, later ones with a spread, so that nodes do not all come together.
                if tries <= 1 { Duration::from_millis(50) } else { spread(pause) }
            })
            .event_callback(move |event| {
                let way = told.clone();
                async move {
                    match event {
                        Event::Connected => {
                            way.failed.store(0, Ordering::Relaxed);
                            way.made.fetch_add(1, Ordering::Relaxed);
                            tracing::info!("connected to NATS");
                        }
                        Event::Disconnected => tracing::warn!("connection to NATS lost, trying again"),
                        Event::ServerError(error) => tracing::warn!(%error, "the NATS server refuses"),
                        event => tracing::debug!(%event, "NATS"),
                    }
                }
            });
        let addresses = way.addresses.clone();
        let client = options
            .connect(addresses)
            .await
            .map_err(|error| Failure::config(format!("cannot connect to NATS: {error}")))?;
        let tending = Tending(tokio::spawn(tend(client.clone(), way.clone())));
        Ok(Self { client, way, _tending: Arc::new(tending), watching: Arc::default() })
    }

    /// Returns when a server was reached. That it can't be is said after so many tries, and again whenever it is so.
    pub async fn wait(&self, tries: u32) {
        self.way.tries.store(tries.max(1), Ordering::Relaxed);
        while self.client.connection_state() != State::Connected {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Looks from time to time whether the servers sync what they acknowledge, as their pages say.
    pub fn watch(&self, pages: Vec<String>) {
        let way = self.way.clone();
        let watching = tokio::spawn(async move {
            loop {
                let found = durability::ask(&pages).await;
                let late = matches!(found, Durability::Late { .. }).then(|| found.to_string());
                if way.set(durability::SUBJECT, late.clone())
                    && let Some(words) = late
                {
                    tracing::warn!("{words}");
                }
                tokio::time::sleep(durability::INTERVAL).await;
            }
        });
        *self.watching.lock().unwrap_or_else(PoisonError::into_inner) = Some(Tending(watching));
    }

    /// What is wrong with the way as it is now, if there is a connection.
    #[must_use]
    pub fn transport(&self) -> Option<String> {
        transport::fault(&self.client.try_server_info()?, &self.way.addresses, &self.way.login)
    }

    /// Why no server can be reached, if that is so.
    pub async fn refusal(&self) -> Option<String> {
        self.way.refusal().await
    }

    /// What is not as it should be with the way to the servers: subject and words.
    #[must_use]
    pub fn degraded(&self) -> BTreeMap<String, String> {
        self.way.degraded().clone()
    }

    /// Waits until a server was reached, at most for so long; says whether one was.
    pub(crate) async fn within(&self, time: Duration) -> bool {
        let mut waited = Duration::ZERO;
        while self.client.connection_state() != State::Connected {
            if waited >= time {
                return false;
            }
            tokio::time::sleep(LOOK).await;
            waited += LOOK;
        }
        true
    }

    pub(crate) fn context(&self) -> Context {
        jetstream::new(self.client.clone())
    }

    /// How often it was made anew; whatever is read after another one has to be looked at again.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.way.made.load(Ordering::Relaxed)
    }
}

impl Way {
    fn degraded(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.degraded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a fault, or that there is none; says whether that is new.
    fn set(&self, subject: &str, words: Option<String>) -> bool {
        let mut degraded = self.degraded();
        match words {
            Some(words) => degraded.insert(subject.to_owned(), words).is_none(),
            None => degraded.remove(subject).is_some(),
        }
    }

    /// One try in plain sight: why no server can be reached.
    async fn refusal(&self) -> Option<String> {
        let refused = self.login.options().connect(self.addresses.clone()).await.err()?;
        Some(chain(&refused))
    }
}

/// An error and its causes, each said once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !said.contains(&words) {
            said = format!("{said}: {words}");
        }
        next = cause.source();
    }
    said
}

/// Looks after a connection: says why there is none, makes it anew when files of the login were replaced.
async fn tend(client: Client, way: Arc<Way>) {
    const CONNECTION: &str = "connection";
    let mut stamps = way.login.stamps();
    let mut judged = 0;
    loop {
        tokio::time::sleep(TEND).await;
        if client.connection_state() == State::Connected {
            if way.set(CONNECTION, None) {
                tracing::info!("a NATS server is reached again");
            }
            let made = way.made.load(Ordering::Relaxed);
            if judged != made
                && let Some(info) = client.try_server_info()
            {
                judged = made;
                let words = transport::fault(&info, &way.addresses, &way.login);
                if let Some(words) = &words
                    && way.set(transport::SUBJECT, Some(words.clone()))
                {
                    tracing::warn!("{words}");
                } else if words.is_none() {
                    way.set(transport::SUBJECT, None);
                }
            }
        } else if way.failed.load(Ordering::Relaxed) >= way.tries.load(Ordering::Relaxed)
            && let Some(why) = way.refusal().await
        {
            let hosts: Vec<String> =
                way.addresses.iter().map(|address| format!("{}:{}", address.host(), address.port())).collect();
            let hosts = hosts.join(", ");
            if way.set(CONNECTION, Some(format!("no NATS server can be reached at {hosts}: {why}; it goes on trying")))
            {
                tracing::warn!(
                    servers = hosts,
                    why,
                    "no NATS server can be reached; waiting, and what is written meanwhile is kept"
                );
            }
        }
        let now = way.login.stamps();
        if now != stamps {
            stamps = now;
            if client.connection_state() == State::Connected {
                tracing::info!("files of the login or of TLS were replaced; connecting anew with them");
                if let Err(error) = client.force_reconnect().await {
                    tracing::debug!(%error, "cannot connect anew");
                }
            }
        }
    }
}

/// A name and a password, or a token, in an address: the client itself looks at neither.
fn said_by(addresses: &[ServerAddr], login: &mut Login) {
    let Some(address) = addresses.iter().find(|address| address.has_user_pass()) else { return };
    let name = unescaped(address.username().unwrap_or_default());
    match address.password() {
        Some(password) => login.user = Some((name, unescaped(password))),
        None => login.token = Some(name),
    }
}

/// `%40` is `@`.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let coded = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match coded.filter(|_| first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Half of a pause at least, and up to one and a half.
fn spread(pause: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness it is the pause itself.
    if getrandom::fill(&mut random).is_err() {
        return pause;
    }
    pause / 2 + pause * u32::from(u16::from_le_bytes(random)) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(url: &str) -> Login {
        let mut login = Login::default();
        said_by(&["nats://plain:4222".parse().unwrap(), url.parse().unwrap()], &mut login);
        login
    }

    #[test]
    fn an_address_may_say_who_we_are() {
        assert_eq!(login("nats://bob:p%40ss%25@h:4222").user, Some(("bob".to_owned(), "p@ss%".to_owned())));
        assert_eq!(login("nats://t0ken@h:4222").token, Some("t0ken".to_owned()));
        assert!(!login("nats://h:4222").is_given());
    }
}
