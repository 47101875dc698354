//! HTTP towards the servers that were named, and no others.
//!
//! A guest follows redirects itself, so each hop is a request of its own and is compared again. A name is resolved here,
//! and what it resolves to is looked at before anybody is spoken to: a name that was granted leads to no address that was
//! not. What stands in the way is remembered, for a guest hears of it no more than a number.

mod address;
mod post;
mod silence;
mod wire;

use std::error::Error as _;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use antiphon_core::store::ErrorKind;
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

pub use post::Post;
use silence::{Answering, Sending};
use wire::{Connector, Unconnected};

/// How much of a body lies between a guest and a connection, either way.
const PIECE_BYTES: usize = 256 << 10;

/// How long a connection nobody uses is kept.
const IDLE: Duration = Duration::from_secs(30);

/// What a plugin may reach over HTTP.
#[derive(Clone, Default)]
pub struct Web {
    /// The servers.
    pub servers: Vec<WebServer>,
    /// Whether a name may lead to this machine, or to a network that is not everybody's.
    pub private_networks: bool,
    /// Who else may sign a server's certificate, besides those whom the system trusts.
    pub certificates: Certificates,
    /// What to write where if more is meant to be reached.
    pub advice: Advice,
}

/// What to write where if more is meant to be reached; `{}` stands for the server.
#[derive(Clone, Debug, Default)]
pub struct Advice {
    /// To reach another server.
    pub server: String,
    /// To reach a private address.
    pub private: String,
    /// To trust who signed a certificate.
    pub certificates: String,
}

/// Certificates that are trusted.
#[derive(Clone, Default)]
pub struct Certificates(Vec<CertificateDer<'static>>);

impl Certificates {
    /// Those in a PEM file.
    ///
    /// # Errors
    /// When it can't be read, or there are none in it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let found = found.map_err(|err| err.to_string())?;
        if found.is_empty() {
            return Err("there is no certificate in it".to_owned());
        }
        Ok(Self(found))
    }
}

/// A server: how it is spoken with, its host and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebServer {
    scheme: &'static str,
    host: String,
    port: u16,
    /// It was named by an address of this machine or of a private network, and so that is meant.
    private: bool,
}

impl WebServer {
    /// `https://host:port`, or without the port where it is the usual one. What follows a `/` is refused.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri = Uri::try_from(text).map_err(|err| format!("`{text}` is no address of a server: {err}"))?;
        if uri.path() != "/" && !uri.path().is_empty() || uri.query().is_some() {
            return Err(format!("`{text}` is more than a server: only `https://host:port` can be granted"));
        }
        Self::of(&uri).ok_or_else(|| format!("`{text}` is no server; write it as `https://host:port`"))
    }

    /// The server that an address leads to.
    #[must_use]
    pub fn of(uri: &Uri) -> Option<Self> {
        let (scheme, usual) = match uri.scheme_str()? {
            "https" => ("https", 443),
            "http" => ("http", 80),
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let port = match authority.as_str().strip_prefix(authority.host())? {
            "" => usual,
            port => port.strip_prefix(':')?.parse().ok()?,
        };
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        // An address can be written in many ways.
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match inner {
            Some(address) => format!("[{}]", address.parse::<std::net::Ipv6Addr>().ok()?),
            None => host,
        };
        Some(Self { scheme, host, port, private: false })
    }

    /// The same server; an address of this machine or a private network that it is named by is meant.
    #[must_use]
    pub fn as_named(mut self) -> Self {
        self.private = self.host == "localhost" || self.literal().is_some_and(address::may_be_named);
        self
    }

    /// The same server with another host before its own: `bucket.host`.
    #[must_use]
    pub fn below(&self, name: &str) -> Self {
        Self { host: format!("{}.{}", name.to_ascii_lowercase(), self.host), ..self.clone() }
    }

    /// Its address, if it is named by one.
    fn literal(&self) -> Option<std::net::IpAddr> {
        self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// Whether this is that server. A part of a granted host that is `*` is any one part.
    fn covers(&self, other: &Self) -> bool {
        let (mut granted, mut wanted) = (self.host.split('.'), other.host.split('.'));
        let same = loop {
            match (granted.next(), wanted.next()) {
                (None, None) => break true,
                (Some("*"), Some(_)) => {}
                (granted, wanted) if granted == wanted => {}
                _ => break false,
            }
        };
        same && self.scheme == other.scheme && self.port == other.port
    }
}

impl fmt::Display for WebServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        match (self.scheme, self.port) {
            ("https", 443) | ("http", 80) => Ok(()),
            _ => write!(f, ":{}", self.port),
        }
    }
}

/// What stood in the way of a request, as the host knows it.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) kind: ErrorKind,
    pub(crate) why: String,
    pub(crate) hint: Option<String>,
    /// Nobody was asked: it is not granted.
    pub(crate) refused: bool,
}

/// The last trouble of an instance, if nothing went well after it.
#[derive(Clone, Default)]
pub(crate) struct Troubles(Arc<Mutex<Option<Trouble>>>);

impl Troubles {
    fn note(&self, trouble: Option<Trouble>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub(crate) fn take(&self) -> Option<Trouble> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The connections of all instances of one plugin.
pub(crate) struct Connections {
    web: Arc<Web>,
    client: Client<Connector, Sending>,
    silence: Duration,
}

impl Connections {
    /// `silence`: how long the other side may say and take nothing.
    pub(crate) fn new(web: Web, silence: Duration) -> Self {
        let web = Arc::new(web);
        let connector = Connector::new(Arc::clone(&web));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .set_host(false)
            .http1_max_buf_size(PIECE_BYTES)
            .build(connector);
        Self { web, client, silence }
    }

    async fn send(&self, request: Request<WasiBody>, troubles: &Troubles) -> Result<Response<WasiBody>, Error> {
        let Some(server) = WebServer::of(request.uri()) else {
            troubles.note(Some(self.web.not_granted(&request.uri().to_string())));
            return Err(Error::HttpRequestDenied);
        };
        if !self.web.servers.iter().any(|granted| granted.covers(&server)) {
            troubles.note(Some(self.web.not_granted(&server.to_string())));
            return Err(Error::HttpRequestDenied);
        }
        let (sending, sent) = Sending::new(request, self.silence);
        let answer = tokio::select! {
            answer = self.client.request(sending) => answer,
            () = sent.is_silent() => {
                troubles.note(Some(Trouble::passing(format!("it was silent for {:?}", self.silence))));
                return Err(Error::ConnectionReadTimeout);
            }
        };
        match answer {
            Ok(response) => {
                troubles.note(None);
                Ok(response.map(|body| Answering::new(body, self.silence, troubles.clone()).boxed_unsync()))
            }
            Err(err) => {
                let (trouble, error) = self.web.explained(&err, &server);
                troubles.note(Some(trouble));
                Err(error)
            }
        }
    }
}

impl Trouble {
    /// It may be gone later.
    fn passing(why: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Temporary, why: why.into(), hint: None, refused: false }
    }

    fn lasting(why: impl Into<String>, hint: String) -> Self {
        let hint = Some(hint).filter(|hint| !hint.is_empty());
        Self { kind: ErrorKind::Permanent, why: why.into(), hint, refused: false }
    }
}

impl Web {
    fn not_granted(&self, server: &str) -> Trouble {
        let granted: Vec<String> = self.servers.iter().map(|server| format!("`{server}`")).collect();
        let granted = if granted.is_empty() { "none".to_owned() } else { granted.join(", ") };
        let why = format!("`{server}` is not among the servers it may speak with, which are {granted}");
        Trouble { refused: true, ..Trouble::lasting(why, self.advice.server.replace("{}", server)) }
    }

    /// What became of a request, and what the guest is told of it.
    fn explained(&self, err: &hyper_util::client::legacy::Error, server: &WebServer) -> (Trouble, Error) {
        let mut cause = err.source();
        while let Some(found) = cause {
            if let Some(unconnected) = found.downcast_ref::<Unconnected>() {
                return self.unconnected(unconnected, server);
            }
            if found.source().is_none() {
                return (Trouble::passing(format!("the connection was cut: {found}")), Error::ConnectionTerminated);
            }
            cause = found.source();
        }
        (Trouble::passing(format!("the connection was cut: {err}")), Error::ConnectionTerminated)
    }

    fn unconnected(&self, unconnected: &Unconnected, server: &WebServer) -> (Trouble, Error) {
        let why = unconnected.to_string();
        match unconnected {
            Unconnected::Refused(_) => {
                let hint = self.advice.private.replace("{}", &server.to_string());
                let trouble = Trouble { refused: true, ..Trouble::lasting(why, hint) };
                (trouble, Error::DestinationIpProhibited)
            }
            Unconnected::Name(_) => (Trouble::passing(why), Error::DnsError { rcode: None, info_code: None }),
            Unconnected::Address(_) => (Trouble::passing(why), Error::ConnectionRefused),
            Unconnected::Late(_) => (Trouble::passing(why), Error::ConnectionTimeout),
            Unconnected::Secrecy { unknown_issuer, .. } => {
                let hint = if *unknown_issuer { self.advice.certificates.clone() } else { String::new() };
                (Trouble::lasting(why, hint), Error::TlsCertificateError)
            }
            // It hung up in the middle, as one does that is being started.
            Unconnected::Cut(_) => (Trouble::passing(why), Error::ConnectionTerminated),
        }
    }
}

/// Sends the requests of one instance.
pub(crate) struct Sender {
    connections: Option<Arc<Connections>>,
    pub(crate) troubles: Troubles,
}

impl Sender {
    pub(crate) fn new(connections: Option<Arc<Connections>>) -> Self {
        Self { connections, troubles: Troubles::default() }
    }
}

impl WasiHttpHooks for Sender {
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        PIECE_BYTES
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Finished), Error>> + Send> {
        let (connections, troubles) = (self.connections.clone(), self.troubles.clone());
        Box::new(async move {
            let connections = connections.ok_or(Error::HttpRequestDenied)?;
            let response = connections.send(request, &troubles).await?;
            Ok((response, Box::new(async { Ok(()) }) as Finished))
        })
    }
}

/// When an exchange is over; the pool of connections knows that itself.
type Finished = Box<dyn Future<Output = Result<(), Error>> + Send>;

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> WebServer {
        WebServer::parse(text).unwrap()
    }

    #[test]
    fn t12_scheme_host_and_port_are_compared() {
        let granted = server("https://S3.example.org");
        let covers =
            |text: &str| WebServer::of(&Uri::try_from(text).unwrap()).is_some_and(|wanted| granted.covers(&wanted));
        for text in ["https://s3.example.org/a/b?c", "https://s3.example.org:443/", "https://S3.EXAMPLE.ORG./x"] {
            assert!(covers(text), "{text}");
        }
        for text in [
            "http://s3.example.org/",
            "https://s3.example.org:444/",
            "https://s3.example.org.evil.net/",
            "https://evil.s3.example.org/",
            "https://example.org/",
            "https://s3.example.org@evil.net/",
            "https://user@s3.example.org/",
        ] {
            assert!(!covers(text), "{text}");
        }
    }

    #[test]
    fn t12_a_star_is_one_part_of_a_host() {
        let granted = server("https://s3.*.amazonaws.com");
        assert!(granted.covers(&server("https://s3.eu-west-1.amazonaws.com")));
        for text in ["https://s3.amazonaws.com", "https://s3.a.b.amazonaws.com", "https://s3.evil.net", "https://s3"] {
            assert!(!granted.covers(&server(text)), "{text}");
        }
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for text in [
            "",
            "s3.example.org",
            "ftp://x",
            "https://",
            "https://a/b",
            "https://a?b",
            "https://u:p@a",
            "https://a:99999",
        ] {
            assert!(WebServer::parse(text).is_err(), "{text}");
        }
        assert_eq!(server("http://[::1]:9000").to_string(), "http://[::1]:9000");
        assert_eq!(server("https://a:443").to_string(), "https://a");
        assert_eq!(server("http://[::ffff:a9fe:a9fe]"), server("http://[::FFFF:169.254.169.254]:80"));
    }

    #[test]
    fn t12_a_private_address_is_meant_where_it_is_named() {
        for (text, private) in [
            ("http://127.0.0.1:9000", true),
            ("http://localhost:9000", true),
            ("http://[::1]:9000", true),
            ("http://192.168.1.5", true),
            ("http://[fd00::1]", true),
            ("http://169.254.169.254", false),
            ("http://[::ffff:169.254.169.254]", false),
            ("http://minio:9000", false),
        ] {
            assert_eq!(server(text).as_named().private, private, "{text}");
        }
    }
}
