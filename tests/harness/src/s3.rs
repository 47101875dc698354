//! A server that speaks S3, of a test's own, in this process: it checks signatures, and keeps objects in a folder.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::dto;
use s3s::host::SingleDomain;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Request, S3Response, S3Result};
use s3s_fs::FileSystem;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::broker::free_port;
use crate::planted;

/// What is special about a server.
#[derive(Clone, Debug, Default)]
pub struct S3Ways {
    /// Its certificate and the key of that; without them it speaks plain HTTP.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// It takes no notice of `If-None-Match`.
    pub overwrites: bool,
    /// It goes by this name, and has a name below it for each bucket.
    pub name: Option<&'static str>,
}

/// A server with one bucket, `bucket`. It ends with this object; what it stored ends with its folder.
pub struct S3Server {
    folder: tempfile::TempDir,
    port: u16,
    ways: S3Ways,
    connections: Arc<AtomicU64>,
    classes: Arc<Mutex<BTreeMap<String, String>>>,
    runtime: Option<Runtime>,
}

impl S3Server {
    /// The name of the key it knows.
    pub const KEY: &'static str = "AKTESTKEY";
    /// The key itself.
    pub const SECRET: &'static str = "canary-04-secret-of-s3";

    /// Starts a server.
    pub fn start() -> Self {
        Self::with(S3Ways::default())
    }

    /// Starts one with something special about it.
    pub fn with(ways: S3Ways) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bucket")).unwrap();
        let connections = Arc::default();
        let classes = Arc::default();
        let mut server = Self { folder, port: free_port(), ways, connections, classes, runtime: None };
        server.resume();
        server
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        let scheme = if self.ways.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// The port it listens on, the same after each start.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the objects of its bucket lie.
    pub fn bucket(&self) -> PathBuf {
        self.folder.path().join("bucket")
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// The class of storage that each object was put with, of those that were put with one.
    pub fn classes(&self) -> BTreeMap<String, String> {
        self.classes.lock().unwrap().clone()
    }

    /// Ends it at once, with all that it is at.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Starts it again, where it was.
    pub fn resume(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut builder = S3ServiceBuilder::new(Bucket {
            files: FileSystem::new(self.folder.path()).unwrap(),
            folder: self.folder.path().to_owned(),
            overwrites: self.ways.overwrites,
            classes: Arc::clone(&self.classes),
            one_at_a_time: tokio::sync::Mutex::default(),
        });
        builder.set_auth(SimpleAuth::from_single(Self::KEY, Self::SECRET));
        if let Some(name) = self.ways.name {
            builder.set_host(SingleDomain::new(&format!("{name}:{}", self.port)).unwrap());
        }
        let service = builder.build();
        let tls = self.ways.certificate.as_ref().map(acceptor);
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        // One that was killed may take a moment to leave its port.
        let mut listener = None;
        crate::eventually("the port is free", || {
            listener = runtime.block_on(TcpListener::bind(address)).ok();
            listener.is_some()
        });
        let listener = listener.unwrap();
        runtime.spawn(listen(listener, service, tls, Arc::clone(&self.connections)));
        self.runtime = Some(runtime);
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.kill();
        planted::settle(planted::search(&self.bucket(), &[]));
    }
}

/// What accepts connections with this certificate.
pub(crate) fn acceptor((certificate, key): &(PathBuf, PathBuf)) -> TlsAcceptor {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = CertificateDer::pem_file_iter(certificate).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()))
}

async fn listen(listener: TcpListener, service: S3Service, tls: Option<TlsAcceptor>, connections: Arc<AtomicU64>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        connections.fetch_add(1, Ordering::Relaxed);
        let (service, tls) = (service.clone(), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => serve(stream, service).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, service).await;
                    }
                }
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, service: S3Service) {
    // How a connection ends is its client's business.
    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

/// Objects in a folder. It looks whether there is one and then writes, and servers do both at once: so who asks for that
/// has to wait for the others.
struct Bucket {
    files: FileSystem,
    folder: PathBuf,
    overwrites: bool,
    classes: Arc<Mutex<BTreeMap<String, String>>>,
    one_at_a_time: tokio::sync::Mutex<()>,
}

impl Bucket {
    fn has_room(&self, bytes: u64) -> bool {
        let disk = rustix::fs::statvfs(&self.folder).unwrap();
        disk.f_bavail * disk.f_frsize >= bytes
    }

    /// A folder of it is no object, and neither is what would be in an object.
    fn no_folder(&self, bucket: &str, key: &str) -> S3Result<()> {
        let path = self.folder.join(bucket).join(key);
        let found = std::fs::metadata(path);
        let not_there = match found {
            Ok(found) => found.is_dir(),
            Err(error) => error.kind() == std::io::ErrorKind::NotADirectory,
        };
        if not_there { Err(s3s::s3_error!(NoSuchKey)) } else { Ok(()) }
    }
}

/// As MinIO says it; this server says of it that something failed.
fn no_room() -> s3s::S3Error {
    let mut error = s3s::S3Error::new(s3s::S3ErrorCode::Custom("XMinioStorageFull".into()));
    error.set_status_code(http::StatusCode::INSUFFICIENT_STORAGE);
    error
}

#[async_trait::async_trait]
impl S3 for Bucket {
    async fn put_object(
        &self,
        mut request: S3Request<dto::PutObjectInput>,
    ) -> S3Result<S3Response<dto::PutObjectOutput>> {
        // It would make one.
        if !self.folder.join(&request.input.bucket).is_dir() {
            return Err(s3s::s3_error!(NoSuchBucket));
        }
        if self.overwrites {
            request.input.if_none_match = None;
        }
        let _turn = match request.input.if_none_match {
            Some(_) => Some(self.one_at_a_time.lock().await),
            None => None,
        };
        let size = request.input.content_length.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        let (key, class) = (request.input.key.clone(), request.input.storage_class.take());
        let put = self.files.put_object(request).await;
        if put.is_ok() {
            let mut classes = self.classes.lock().unwrap();
            match class {
                Some(class) => classes.insert(key, class.as_str().to_owned()),
                None => classes.remove(&key),
            };
        }
        put.map_err(|error| if self.has_room(size) { error } else { no_room() })
    }

    async fn get_object(&self, request: S3Request<dto::GetObjectInput>) -> S3Result<S3Response<dto::GetObjectOutput>> {
        self.no_folder(&request.input.bucket, &request.input.key)?;
        self.files.get_object(request).await
    }

    async fn head_object(
        &self,
        request: S3Request<dto::HeadObjectInput>,
    ) -> S3Result<S3Response<dto::HeadObjectOutput>> {
        self.no_folder(&request.input.bucket, &request.input.key)?;
        self.files.head_object(request).await
    }

    async fn delete_object(
        &self,
        request: S3Request<dto::DeleteObjectInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectOutput>> {
        self.files.delete_object(request).await
    }

    async fn delete_objects(
        &self,
        request: S3Request<dto::DeleteObjectsInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectsOutput>> {
        self.files.delete_objects(request).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<dto::ListObjectsV2Input>,
    ) -> S3Result<S3Response<dto::ListObjectsV2Output>> {
        self.files.list_objects_v2(request).await
    }
}
