//! Whether the servers write what they acknowledge to their disks first. Only their monitoring pages tell.

use serde::Deserialize;
use std::fmt;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What the fault goes by.
pub(super) const SUBJECT: &str = "durability";
/// How often servers are asked again: one that was started anew may be configured otherwise.
pub(super) const INTERVAL: Duration = Duration::from_secs(60);
/// The line that a server's configuration needs.
pub(crate) const REMEDY: &str = "jetstream { sync_interval: always }";

/// How long a page may take, and how large it may be.
const PATIENCE: Duration = Duration::from_secs(3);
const PAGE_MAX: u64 = 4 << 20;
/// Where NATS servers have their pages.
const PORT: u16 = 8222;

/// What the pages say, together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Every server that was asked syncs before it acknowledges.
    Synced,
    /// No page was named.
    Unasked,
    /// This one could not be asked.
    Unknown {
        /// Which.
        page: String,
        /// Why.
        why: String,
    },
    /// This one acknowledges first.
    Late {
        /// Which.
        page: String,
        /// Seconds until it syncs.
        seconds: u64,
    },
}

/// What follows "the NATS server at …".
impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Synced => write!(f, "every NATS server syncs what it acknowledges"),
            Self::Unasked => {
                write!(
                    f,
                    "it is not known whether the NATS servers sync what they acknowledge: `nats_monitor` names no page of theirs"
                )
            }
            Self::Unknown { page, why } => {
                write!(f, "it is not known whether the NATS server at {page} syncs what it acknowledges: {why}")
            }
            Self::Late { page, seconds } => write!(
                f,
                "the NATS server at {page} acknowledges first and syncs every {seconds} seconds: a power cut can take what \
                 nodes count as sent; write `{REMEDY}` in its configuration"
            ),
        }
    }
}

#[derive(Deserialize)]
struct Varz {
    jetstream: Option<JetStreamPart>,
}

#[derive(Deserialize)]
struct JetStreamPart {
    config: Option<Synced>,
}

#[derive(Deserialize)]
struct Synced {
    #[serde(default)]
    sync_always: bool,
    #[serde(default)]
    sync_interval: u64,
}

/// Asks every page; the worst answer holds.
pub(crate) async fn ask(pages: &[String]) -> Durability {
    if pages.is_empty() {
        return Durability::Unasked;
    }
    let mut worst = Durability::Synced;
    for page in pages {
        let shown = || page.rsplit_once('@').map_or(page.as_str(), |(_, host)| host).to_owned();
        match of(page).await {
            Ok(None) => {}
            Ok(Some(seconds)) => return Durability::Late { page: shown(), seconds },
            Err(why) => worst = Durability::Unknown { page: shown(), why },
        }
    }
    worst
}

/// How late a server syncs, if not at once.
async fn of(page: &str) -> Result<Option<u64>, String> {
    let fetched = tokio::time::timeout(PATIENCE, fetch(page)).await;
    let body = fetched.map_err(|_| "it does not answer".to_owned())??;
    let varz: Varz = serde_json::from_slice(&body).map_err(|error| format!("its page can't be read: {error}"))?;
    let config = varz.jetstream.and_then(|part| part.config).ok_or("it has no JetStream")?;
    Ok((!config.sync_always).then(|| Duration::from_nanos(config.sync_interval).as_secs()))
}

/// The page `/varz`. In the old protocol the answer comes in one piece, and its end is the connection's.
async fn fetch(page: &str) -> Result<Vec<u8>, String> {
    let said = |error: &dyn fmt::Display| error.to_string();
    let rest = page.strip_prefix("http://").ok_or("only `http://` is spoken with a monitoring page")?;
    let host = rest.split('/').next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = if has_port { host.to_owned() } else { format!("{host}:{PORT}") };
    let mut stream = TcpStream::connect(&address).await.map_err(|error| said(&error))?;
    let request = format!("GET /varz HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| said(&error))?;
    let mut answer = Vec::new();
    stream.take(PAGE_MAX).read_to_end(&mut answer).await.map_err(|error| said(&error))?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("its answer is no page")?;
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).into_owned();
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        return Err(format!("its page answers {status}"));
    }
    Ok(answer.split_off(end + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(answer: &'static str) -> Durability {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let page = format!("http://{}", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /varz HTTP/1.0\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let found = ask(&[page]).await;
        served.await.unwrap();
        found
    }

    #[tokio::test]
    async fn what_a_page_says_is_understood() {
        let always =
            "HTTP/1.0 200 OK\r\n\r\n{\"jetstream\":{\"config\":{\"sync_interval\":120000000000,\"sync_always\":true}}}";
        assert_eq!(asked(always).await, Durability::Synced);
        let late = "HTTP/1.1 200 OK\r\nA: b\r\n\r\n{\"jetstream\":{\"config\":{\"sync_interval\":120000000000}}}";
        assert!(matches!(asked(late).await, Durability::Late { seconds: 120, .. }));
        for unknown in ["HTTP/1.0 200 OK\r\n\r\n{\"jetstream\":{}}", "HTTP/1.0 404 Not Found\r\n\r\n", "220 smtp", ""] {
            assert!(matches!(asked(unknown).await, Durability::Unknown { .. }), "{unknown}");
        }
        assert_eq!(ask(&[]).await, Durability::Unasked);
        assert!(matches!(ask(&["https://127.0.0.1:1".to_owned()]).await, Durability::Unknown { .. }));
    }
}
