//! A connection to a server that was granted: its name resolved, its address looked at, its certificate compared.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Web, WebServer, address};

/// How long a server may take to be there.
const CONNECT: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unconnected {
    /// Where the name leads is not granted.
    #[error("{0}")]
    Refused(String),
    /// The name leads nowhere.
    #[error("its name can't be resolved: {0}")]
    Name(io::Error),
    /// Nobody is there.
    #[error("{0}")]
    Address(io::Error),
    /// It took too long.
    #[error("there is no connection after {0:?}")]
    Late(Duration),
    /// It is not who it should be, or speaks otherwise.
    #[error("{why}")]
    Secrecy {
        /// In words.
        why: String,
        /// Nobody who is trusted signed its certificate.
        unknown_issuer: bool,
    },
    /// It hung up.
    #[error("the connection was cut: {0}")]
    Cut(io::Error),
}

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector(Arc<Shared>);

struct Shared {
    web: Arc<Web>,
    tls: OnceCell<TlsConnector>,
}

impl Connector {
    pub(super) fn new(web: Arc<Web>) -> Self {
        Self(Arc::new(Shared { web, tls: OnceCell::new() }))
    }
}

impl Shared {
    async fn connect(&self, uri: Uri) -> Result<Wire, Unconnected> {
        let connect = async {
            let no_server = || Unconnected::Refused(format!("`{uri}` is no server"));
            let server = WebServer::of(&uri).ok_or_else(no_server)?;
            let stream = self.reach(&server).await?;
            // Small requests are not held back for larger ones.
            stream.set_nodelay(true).map_err(Unconnected::Address)?;
            if server.scheme == "http" {
                return Ok(Wire(TokioIo::new(Box::pin(stream))));
            }
            let secret = self.tls().await?;
            let name = ServerName::try_from(server.host.trim_start_matches('[').trim_end_matches(']').to_owned());
            let name = name.map_err(|err| Unconnected::Secrecy { why: err.to_string(), unknown_issuer: false })?;
            let stream = secret.connect(name, stream).await.map_err(untrusted)?;
            Ok(Wire(TokioIo::new(Box::pin(stream))))
        };
        timeout(CONNECT, connect).await.unwrap_or(Err(Unconnected::Late(CONNECT)))
    }

    /// Connects to the first address of a server that may be spoken with and answers.
    async fn reach(&self, server: &WebServer) -> Result<TcpStream, Unconnected> {
        let mut granted = self.web.servers.iter().filter(|granted| granted.covers(server));
        let named = granted.any(|granted| granted.private);
        let refused = |at: SocketAddr| {
            address::private(at.ip())
                .filter(|_| !(self.web.private_networks || named && address::may_be_named(at.ip())))
        };
        let found: Vec<SocketAddr> = match server.literal() {
            Some(address) => vec![SocketAddr::new(address, server.port)],
            None => lookup_host((server.host.as_str(), server.port)).await.map_err(Unconnected::Name)?.collect(),
        };
        let mut last = None;
        for at in found {
            if let Some(what) = refused(at) {
                let why = format!("`{}` is at {}, {what}, and only public ones are granted", server.host, at.ip());
                last.get_or_insert(Unconnected::Refused(why));
                continue;
            }
            match TcpStream::connect(at).await {
                Ok(stream) => return Ok(stream),
                Err(err) => last = Some(Unconnected::Address(err)),
            }
        }
        let nowhere = || Unconnected::Name(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
        Err(last.unwrap_or_else(nowhere))
    }

    /// What certificates are compared with. The system's are read when they are first needed.
    async fn tls(&self) -> Result<&TlsConnector, Unconnected> {
        let made = self.tls.get_or_try_init(|| async {
            let own = self.web.certificates.0.clone();
            let made = tokio::task::spawn_blocking(move || {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                for certificate in own {
                    roots.add(certificate).map_err(|err| format!("cannot use a certificate of `ca_file`: {err}"))?;
                }
                if roots.is_empty() {
                    return Err("this system has no certificates to compare with; install `ca-certificates`".to_owned());
                }
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
                let mut config =
                    config.map_err(|err| err.to_string())?.with_root_certificates(roots).with_no_client_auth();
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                Ok(TlsConnector::from(Arc::new(config)))
            });
            made.await.unwrap_or_else(|err| Err(err.to_string()))
        });
        made.await.map_err(|why| Unconnected::Secrecy { why, unknown_issuer: false })
    }
}

/// What a failed handshake came of.
fn untrusted(err: io::Error) -> Unconnected {
    let found = err.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match found {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Unconnected::Secrecy {
            why: "its certificate is signed by nobody who is trusted".to_owned(),
            unknown_issuer: true,
        },
        Some(rustls::Error::InvalidMessage(_)) => {
            Unconnected::Secrecy { why: "it does not speak TLS there".to_owned(), unknown_issuer: false }
        }
        Some(err) => Unconnected::Secrecy { why: err.to_string(), unknown_issuer: false },
        None => Unconnected::Cut(err),
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = Wire;
    type Error = Unconnected;
    type Future = Pin<Box<dyn Future<Output = Result<Wire, Unconnected>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unconnected>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let shared = Arc::clone(&self.0);
        Box::pin(async move { shared.connect(uri).await })
    }
}

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

/// A connection, with or without TLS.
pub(super) struct Wire(TokioIo<Pin<Box<dyn Stream>>>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}
