//! What storages do, without their components: by the system itself, or the client or library that theirs are measured by.

use crate::report::timed;
use crate::storages::AT_ONCE;
use antiphon_core::store::Name;
use antiphon_harness::{DavServer, S3Server, Sshd};
use async_nats::jetstream::object_store::{Config as Bucket, ObjectMetadata};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opendal_core::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, HttpTransporter, OperationContext, Operator};
use opendal_service_s3::S3;
use opendal_service_webdav::Webdav;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Runtime;

pub fn name(number: usize) -> Name {
    Name::new(format!("objects/{number}")).unwrap()
}

/// Does this for all numbers, so many at once; gives how long it took, and what each came to.
pub fn at_once<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> (Duration, Vec<T>) {
    let work = &work;
    timed(|| {
        std::thread::scope(|scope| {
            let turns = |turn: usize| (turn..count).step_by(AT_ONCE);
            let threads: Vec<_> = (0..AT_ONCE)
                .map(|turn| scope.spawn(move || turns(turn).map(|number| (number, work(number))).collect::<Vec<_>>()))
                .collect();
            let mut done: Vec<(usize, T)> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            done.sort_by_key(|(number, _)| *number);
            done.into_iter().map(|(_, done)| done).collect()
        })
    })
}

/// Has the system forget what it keeps of the files in a folder: who restores has them from the disk.
pub fn forget(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            forget(&path);
        } else {
            rustix::fs::fadvise(File::open(path).unwrap(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
    }
}

/// What the component does, without it: aside, synced, renamed, and the folder synced.
pub fn files(folder: &Path, bodies: &[Vec<u8>]) -> (Duration, Duration) {
    let (put, _) = at_once(bodies.len(), |number| {
        let (aside, place) = (folder.join(format!("~{number}")), folder.join(number.to_string()));
        let mut file = File::create(&aside).unwrap();
        file.write_all(&bodies[number]).unwrap();
        file.sync_all().unwrap();
        fs::rename(&aside, place).unwrap();
        File::open(folder).unwrap().sync_all().unwrap();
    });
    forget(folder);
    let (got, found) = at_once(bodies.len(), |number| fs::read(folder.join(number.to_string())).unwrap());
    assert!(found == bodies);
    (put, got)
}

/// The client of NATS, with pieces of the size that the host cuts.
pub fn nats(runtime: &Runtime, url: &str, bodies: &[Vec<u8>]) -> (Duration, Duration) {
    runtime.block_on(async {
        let context = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
        let config = Bucket { bucket: "native".to_owned(), ..Bucket::default() };
        let store = match context.get_object_store("native").await {
            Ok(store) => store,
            Err(_) => context.create_object_store(config).await.unwrap(),
        };
        let store = &store;
        let begun = std::time::Instant::now();
        let put = futures::stream::iter(bodies.iter().enumerate()).map(async |(number, body)| {
            let name = name(number).as_str().to_owned();
            let meta = ObjectMetadata { name, chunk_size: Some(512 << 10), ..ObjectMetadata::default() };
            store.put(meta, &mut body.as_slice()).await.unwrap();
        });
        put.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
        let put = begun.elapsed();
        let begun = std::time::Instant::now();
        let got = futures::stream::iter(0..bodies.len()).map(async |number| {
            let mut body = Vec::with_capacity(bodies[number].len());
            store.get(name(number).as_str()).await.unwrap().read_to_end(&mut body).await.unwrap();
            body
        });
        let found: Vec<Vec<u8>> = got.buffered(AT_ONCE).collect().await;
        let got = begun.elapsed();
        assert!(found == bodies);
        (put, got)
    })
}

/// The library's bucket.
pub fn s3(url: &str) -> Operator {
    let builder = S3::default().endpoint(url).bucket("bucket").region("us-east-1");
    let builder = builder.access_key_id(S3Server::KEY).secret_access_key(S3Server::SECRET);
    over_http(Operator::new(builder.disable_config_load().disable_ec2_metadata()).unwrap())
}

/// The library's folder.
pub fn webdav(url: &str) -> Operator {
    over_http(
        Operator::new(Webdav::default().endpoint(url).username(DavServer::LOGIN).password(DavServer::SECRET)).unwrap(),
    )
}

fn over_http(operator: Operator) -> Operator {
    let transport = HttpTransporter::new(Native(Client::builder(TokioExecutor::new()).build_http()));
    operator.with_context(OperationContext::new().with_http_transport(transport))
}

/// The library itself.
pub fn http(runtime: &Runtime, operator: &Operator, bodies: &[Vec<u8>]) -> (Duration, Duration) {
    let path = |number: usize| format!("native/{}", name(number).as_str());
    let put = |number: usize| runtime.block_on(operator.write(&path(number), bodies[number].clone())).unwrap();
    // The folder is made by one: of two that make it at once Apache refuses one, and the library gives up over that.
    put(0);
    let (putting, _) = at_once(bodies.len(), put);
    let (getting, found) =
        at_once(bodies.len(), |number| Vec::from(runtime.block_on(operator.read(&path(number))).unwrap().to_bytes()));
    assert!(found == bodies);
    (putting, getting)
}

/// A client that keeps connections, as the program's does.
struct Native(Client<HttpConnector, Full<Bytes>>);

impl HttpTransport for Native {
    async fn fetch(&self, request: Request<Buffer>) -> opendal_core::Result<Response<HttpBody>> {
        let broken = |error: &dyn std::fmt::Display| Error::new(ErrorKind::Unexpected, error.to_string());
        let request = request.map(|body| Full::new(body.to_bytes()));
        let (parts, body) = self.0.request(request).await.map_err(|error| broken(&error))?.into_parts();
        let body = body.collect().await.map_err(|error| broken(&error))?.to_bytes();
        let once = futures::stream::iter([Ok(Buffer::from(body))]);
        Ok(Response::from_parts(parts, HttpBody::new(once, None)))
    }
}

/// OpenSSH's own client, with as much on its way, and synced as the component does it. Each of them connects once.
pub fn sftp(sshd: &Sshd, folder: &Path, bodies: &[Vec<u8>]) -> (Duration, Duration) {
    let (here, there) = (folder.join("here"), folder.join("there"));
    fs::create_dir_all(&here).unwrap();
    fs::create_dir_all(&there).unwrap();
    for (number, body) in bodies.iter().enumerate() {
        fs::write(here.join(number.to_string()), body).unwrap();
    }
    let one = |turn: usize, line: &dyn Fn(usize) -> String| {
        let batch = folder.join(format!("batch-{turn}"));
        let lines = (turn..bodies.len()).step_by(AT_ONCE).map(|number| line(number) + "\n");
        fs::write(&batch, lines.collect::<String>()).unwrap();
        let mut command = Command::new("sftp");
        command.args(["-q", "-R", "64", "-B", "131072", "-P", &sshd.port().to_string(), "-i"]).arg(sshd.own_key());
        command.arg("-o").arg(format!("UserKnownHostsFile={}", sshd.known_hosts().display()));
        command.arg("-b").arg(&batch).arg(format!("{}@127.0.0.1", Sshd::user()));
        let ended = command.output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    };
    let run = |line: &(dyn Fn(usize) -> String + Sync)| at_once(AT_ONCE, |turn| one(turn, line)).0;
    let (from, to) = (here.display(), there.display());
    // Connecting is not what is compared.
    let connected = run(&|_| "pwd".to_owned());
    let put = run(&|number| format!("put -f {from}/{number} {to}/~{number}\nrename {to}/~{number} {to}/{number}"));
    let got = run(&|number| format!("get {to}/{number} {from}/{number}"));
    for (number, body) in bodies.iter().enumerate() {
        assert!(fs::read(here.join(number.to_string())).unwrap() == *body);
    }
    (put.saturating_sub(connected), got.saturating_sub(connected))
}
