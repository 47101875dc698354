//! A connection to NATS servers that is never given up.

use crate::failure::{Failure, Kind};
use async_nats::connection::State;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a request waits for its answer, unless it says otherwise.
const REQUEST: Duration = Duration::from_secs(5);
/// How often it is looked whether there is a connection.
const LOOK: Duration = Duration::from_millis(20);
const PING: Duration = Duration::from_secs(5);

/// How to log in, and how the server is known.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// Name and password.
    pub user: Option<(String, String)>,
    /// A file with the NKey seed.
    pub seed_file: Option<PathBuf>,
    /// A file with a JWT and its seed.
    pub creds_file: Option<PathBuf>,
    /// Certificates that servers are checked against.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Refuse to speak without TLS.
    pub require_tls: bool,
}

/// A connection, and how often it was made.
#[derive(Clone, Debug)]
pub struct Connection {
    client: Client,
    made: Arc<AtomicU64>,
}

impl Connection {
    /// Connects; if no server can be reached it goes on trying, and what is asked meanwhile fails for now.
    ///
    /// # Errors
    /// When an address is none, or a file of the login can't be used.
    pub async fn open(urls: &[String], name: &str, login: Login, pause: Duration) -> Result<Self, Failure> {
        let addresses = urls
            .iter()
            .map(|url| url.parse::<ServerAddr>().map_err(|error| refused("an address under `[nats]` is none", &error)))
            .collect::<Result<Vec<_>, _>>()?;
        let made = Arc::new(AtomicU64::new(0));
        let counter = made.clone();
        let mut options = ConnectOptions::new()
            .name(name)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .request_timeout(Some(REQUEST))
            .ping_interval(PING)
            .reconnect_delay_callback(move |tries| {
                // The first try comes at once, later ones with a spread, so that nodes do not all come together.
                let tries = u32::try_from(tries).unwrap_or(u32::MAX);
                if tries <= 1 { Duration::from_millis(50) } else { spread(pause) }
            })
            .event_callback(move |event| {
                let counter = counter.clone();
                async move {
                    match event {
                        Event::Connected => {
                            counter.fetch_add(1, Ordering::Relaxed);
                            tracing::info!("connected to NATS");
                        }
                        Event::Disconnected => tracing::warn!("connection to NATS lost, trying again"),
                        event => tracing::debug!(%event, "NATS"),
                    }
                }
            });
        if let Some((user, password)) = login.user {
            options = options.user_and_password(user, password);
        }
        if let Some(file) = login.seed_file {
            let text = format!("cannot use `seed_file` `{}`", file.display());
            let seed = std::fs::read_to_string(file).map_err(|error| refused(&text, &error))?;
            options = options.nkey(seed.trim().to_owned());
        }
        if let Some(file) = login.creds_file {
            let text = format!("cannot use `creds_file` `{}`", file.display());
            options = options.credentials_file(file).await.map_err(|error| refused(&text, &error))?;
        }
        if let Some(file) = login.ca_file {
            options = options.add_root_certificates(file);
        }
        if let Some((certificate, key)) = login.certificate {
            options = options.add_client_certificate(certificate, key);
        }
        let options = options.require_tls(login.require_tls);
        let client = options.connect(addresses).await.map_err(|error| refused("cannot connect to NATS", &error))?;
        Ok(Self { client, made })
    }

    /// Returns when a server was reached; says so when that takes long.
    pub async fn wait(&self, shown: &str, tries: u32, pause: Duration) {
        let mut waited = 0;
        while self.client.connection_state() != State::Connected {
            tokio::time::sleep(LOOK).await;
            waited += 1;
            if LOOK.saturating_mul(waited) == pause.max(LOOK).saturating_mul(tries.max(1)) {
                tracing::warn!(
                    servers = shown,
                    "no NATS server can be reached; waiting, and what is written meanwhile is kept"
                );
            }
        }
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
        self.made.load(Ordering::Relaxed)
    }
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

fn refused(text: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(Kind::Config, format!("{text}: {error}"))
}
