//! What a node serves over HTTP: its health, the page for people, and metrics. All of it is only read; nothing can be
//! changed from here, so nobody has to log in, and nobody else is let in unless the user opens the way.
//!
//! | module | noun |
//! |---|---|
//! | `server` | listening, and how many may come at once |
//! | `answers` | which path has what |
//! | `callers` | by which name it was asked for: other people's pages can't look in through a browser |
//! | `events` | the page's news, as they come |

mod answers;
mod callers;
mod events;
mod server;

use crate::config::Config;
use crate::failure::{Failure, Kind};
use crate::metrics;
use crate::vitals::Lookout;
use answers::Answers;
use callers::Names;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info_span};

/// What is served, as long as this lives.
#[derive(Debug)]
pub struct Web {
    /// Where health and page are, if they are served.
    pub health: Option<String>,
    /// Where the page is, if it is.
    pub page: Option<String>,
    /// Where metrics are, if they are.
    pub metrics: Option<String>,
    stop: CancellationToken,
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Web {
    /// Begins to serve what the configuration asks for. In an async runtime.
    ///
    /// # Errors
    /// When an address can't be had.
    pub async fn start(config: &Config, lookout: &Lookout) -> Result<Self, Failure> {
        let stop = CancellationToken::new();
        let mut web = Self { health: None, page: None, metrics: None, stop: stop.clone() };
        let (health, prometheus) = (&config.health_check, &config.prometheus);
        let prefix = prometheus.enable.then(|| metrics::prefix(&prometheus.namespace, &prometheus.subsystem));
        let together = health.enable && prometheus.enable && health.bind == prometheus.bind;
        let nothing = Answers {
            lookout: lookout.clone(),
            started: std::time::Instant::now(),
            health_path: None,
            detailed: health.detailed,
            page: false,
            names: Names::default(),
            prefix: None,
            metrics_anywhere: false,
        };
        if health.enable {
            let (listener, at) = listen("health_check", &health.bind).await?;
            let page = health.page && health.path != "/";
            web.health = Some(format!("http://{at}{}", health.path));
            web.page = page.then(|| format!("http://{at}/"));
            let names = Names::of(&health.bind, &health.hosts);
            let prefix = prefix.clone().filter(|_| together);
            web.metrics = prefix.is_some().then(|| format!("http://{at}/metrics"));
            let health_path = Some(health.path.clone());
            let answers = Answers { health_path, page, names, prefix, ..nothing.clone() };
            tokio::spawn(server::serve(listener, Arc::new(answers), stop.clone()).instrument(info_span!("web")));
        }
        if prometheus.enable && !together {
            let (listener, at) = listen("prometheus", &prometheus.bind).await?;
            web.metrics = Some(format!("http://{at}/metrics"));
            let answers = Answers { prefix, metrics_anywhere: true, ..nothing };
            tokio::spawn(server::serve(listener, Arc::new(answers), stop).instrument(info_span!("web")));
        }
        Ok(web)
    }
}

async fn listen(section: &str, bind: &str) -> Result<(TcpListener, SocketAddr), Failure> {
    let refused = |error: std::io::Error| {
        let kind = if error.kind() == std::io::ErrorKind::AddrInUse { Kind::Busy } else { Kind::Config };
        Failure::caused(kind, format!("cannot listen at `{section}.bind`, which is `{bind}`"), &error)
            .hint(format!("name another address with `bind` under `[{section}]`; port 0 is any that is free"))
    };
    let listener = TcpListener::bind(bind).await.map_err(refused)?;
    let at = listener.local_addr().map_err(refused)?;
    if !at.ip().is_loopback() {
        tracing::warn!(
            address = %at,
            setting = format!("{section}.bind"),
            "other machines can look in here without a password; `127.0.0.1` keeps it to this one"
        );
    }
    Ok((listener, at))
}
