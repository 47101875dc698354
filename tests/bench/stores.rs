//! Storages over HTTP: the component against the same library natively, with the same server and the same content.

use crate::report::{Report, timed};
use antiphon::storage::conformance::noise;
use antiphon_bundle::World;
use antiphon_core::store::{Name, Put};
use antiphon_harness::{DavServer, S3Server};
use antiphon_plugin::{Grants, HostOptions, Limits, Origin, Pace, PluginHost, Source, Storage, Web, WebServer};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opendal_core::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, HttpTransporter, OperationContext, Operator};
use opendal_service_s3::S3;
use opendal_service_webdav::Webdav;
use std::time::Duration;
use tokio::runtime::Runtime;

const OBJECT: usize = 8 << 20;
const OBJECTS: usize = 32;
const AT_ONCE: usize = 4;
/// The best of so many is what counts: other work of the machine only ever takes away.
const ROUNDS: usize = 3;

/// What is measured: objects put and fetched by their number.
trait Carrier: Sync {
    fn put(&self, number: usize, body: &[u8]);
    fn get(&self, number: usize) -> Vec<u8>;
}

pub fn run(report: &mut Report, _: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = S3Server::start();
    let (url, key, secret) = (server.url(), S3Server::KEY, S3Server::SECRET);
    let settings = [("endpoint", &*url), ("bucket", "bucket"), ("access_key", key), ("secret", secret)];
    let builder = S3::default().endpoint(&url).bucket("bucket").region("us-east-1");
    let builder = builder.access_key_id(key).secret_access_key(secret).disable_config_load().disable_ec2_metadata();
    compare(report, "s3", &url, &settings, &runtime, Operator::new(builder).unwrap());

    let server = DavServer::start();
    let (url, login, secret) = (server.url(), DavServer::LOGIN, DavServer::SECRET);
    let settings = [("url", &*url), ("login", login), ("secret", secret)];
    let builder = Webdav::default().endpoint(&url).username(login).password(secret);
    compare(report, "webdav", &url, &settings, &runtime, Operator::new(builder).unwrap());
}

fn compare(
    report: &mut Report,
    kind: &str,
    url: &str,
    settings: &[(&str, &str)],
    runtime: &Runtime,
    operator: Operator,
) {
    let transport = HttpTransporter::new(Native(Client::builder(TokioExecutor::new()).build_http()));
    let operator = operator.with_context(OperationContext::new().with_http_transport(transport));
    let native = Natively { runtime, operator };
    let component = component(kind, url, settings);
    let bodies: Vec<Vec<u8>> = (0..OBJECTS).map(|number| noise(number as u64, OBJECT)).collect();
    // The folder is made by one: of two that make it at once Apache refuses one, and the library gives up over that.
    native.put(0, &bodies[0]);
    Carrier::put(&component, 0, &bodies[0]);
    let mut best = [Duration::MAX; 4];
    for _ in 0..ROUNDS {
        let [native_put, native_get, own_put, own_get] = &mut best;
        for (carrier, put, get) in
            [(&native as &dyn Carrier, native_put, native_get), (&component as &dyn Carrier, own_put, own_get)]
        {
            *put = (*put).min(each(|number| carrier.put(number, &bodies[number])));
            *get = (*get).min(each(|number| assert!(carrier.get(number) == bodies[number], "{kind}: {number}")));
        }
    }
    let rate = |took: Duration| (OBJECTS * OBJECT) as f64 / f64::from(1 << 20) / took.as_secs_f64();
    for (what, native, own) in [("put", best[0], best[2]), ("get", best[1], best[3])] {
        let ratio = rate(own) / rate(native);
        let value = format!("{:.0} of {:.0} MiB/s = {:.0}%", rate(own), rate(native), ratio * 100.0);
        report.mark(&format!("{kind}: {what} through the component"), &value, "80% of native", ratio >= 0.8);
    }
    let peak = component.memory_peak();
    let value = format!("{:.1} MiB", peak as f64 / f64::from(1 << 20));
    report.mark(&format!("{kind}: memory of an instance"), &value, "under 128 MiB", peak < 128 << 20);
}

/// Does this for all objects, several at once; gives how long it took.
fn each(work: impl Fn(usize) + Sync) -> Duration {
    let work = &work;
    timed(|| {
        std::thread::scope(|scope| {
            for thread in 0..AT_ONCE {
                scope.spawn(move || (thread..OBJECTS).step_by(AT_ONCE).for_each(work));
            }
        });
    })
    .0
}

fn component(kind: &str, url: &str, settings: &[(&str, &str)]) -> Storage {
    let folder = tempfile::tempdir().unwrap();
    let options = HostOptions { cache_dir: Some(folder.path().join("compiled")), ..HostOptions::default() };
    let host = PluginHost::new(&options).unwrap();
    let bytes = antiphon_bundle::find(World::Storage, kind).unwrap().bytes;
    let source = Source { name: kind.to_owned(), origin: Origin::Official, bytes: bytes.into() };
    let settings: Vec<_> = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let servers = vec![WebServer::parse(url).unwrap().as_named()];
    let grants = Grants { web: Some(Web { servers, ..Web::default() }), ..Grants::default() };
    let limits = Limits { memory_bytes: 128 << 20, ..Limits::default() };
    host.storage(&source, &settings, grants, limits, Pace::default()).unwrap()
}

fn name(number: usize) -> Name {
    Name::new(format!("objects/{number}")).unwrap()
}

impl Carrier for Storage {
    fn put(&self, number: usize, body: &[u8]) {
        antiphon_core::store::Store::put(self, &name(number), body, Put::Replace).unwrap();
    }

    fn get(&self, number: usize) -> Vec<u8> {
        antiphon_core::store::Store::get(self, &name(number), None).unwrap()
    }
}

/// The library itself.
struct Natively<'a> {
    runtime: &'a Runtime,
    operator: Operator,
}

impl Carrier for Natively<'_> {
    fn put(&self, number: usize, body: &[u8]) {
        self.runtime.block_on(self.operator.write(name(number).as_str(), body.to_vec())).unwrap();
    }

    fn get(&self, number: usize) -> Vec<u8> {
        let read = self.runtime.block_on(self.operator.read(name(number).as_str())).unwrap();
        Vec::from(read.to_bytes())
    }
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
