//! The client: bounded answers, redirects followed, and the last answer remembered for those who tell why it failed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use opendal_core::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, Result};

use crate::exchange::{self, Broken, Head};
use crate::failure::words;

/// How often an answer may lead elsewhere.
const REDIRECTS_MAX: usize = 5;
/// How much of an answer that says why something failed is looked at.
const REASON_BYTES_MAX: usize = 64 << 10;

/// The longest text in a listing: a key has 1 KiB at most. opendal ends with a panic at 64 KiB.
const PIECE_BYTES_MAX: usize = 8 << 10;

/// An answer that was no success.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Its status; 0: there was no answer.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// What its body begins with.
    pub body: String,
    /// Where it came from, as `https://host:port`.
    pub origin: String,
    /// Why there was no answer.
    pub broken: Option<String>,
    /// That can't be mended by waiting.
    pub lasting: bool,
}

impl Seen {
    /// A header, if it is a text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What stands between the first tags of that name in the body: errors of S3 and WebDAV are a few plain elements.
    pub fn element(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.body.split_once(&format!("<{name}>"))?;
        rest.split_once("</").map(|(text, _)| text)
    }
}

/// What is remembered of one call.
#[derive(Default)]
struct Call {
    last: Option<Seen>,
    requests: usize,
    requests_max: usize,
    bytes_max: usize,
}

/// Sends requests. Clones share what they remember.
#[derive(Clone, Default)]
pub struct Client(Arc<Mutex<Call>>);

impl Client {
    fn call(&self) -> MutexGuard<'_, Call> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call of so many requests at most, each with an answer of so many bytes, and forgets the last one.
    pub fn begin(&self, requests_max: usize, bytes_max: usize) {
        *self.call() = Call { last: None, requests: 0, requests_max, bytes_max };
    }

    /// The last answer, if it was no success.
    pub fn seen(&self) -> Option<Seen> {
        self.call().last.clone()
    }

    /// Sends a request and reads the whole answer.
    pub fn send(&self, request: Request<Buffer>) -> Result<Response<Bytes>> {
        let mut request = request;
        for _ in 0..REDIRECTS_MAX {
            {
                let mut call = self.call();
                call.requests += 1;
                if call.requests > call.requests_max {
                    return Err(Error::new(ErrorKind::Unexpected, "the answers of the server have no end"));
                }
            }
            let origin = origin(request.uri());
            let head = exchange::send(&request).map_err(|broken| self.broken(&origin, &broken))?;
            if let Some(next) = followed(&request, &head) {
                redirect(&mut request, next);
                continue;
            }
            return self.answer(&request, head, origin);
        }
        Err(Error::new(ErrorKind::Unexpected, "the server sends requests round in a circle"))
    }

    fn answer(&self, request: &Request<Buffer>, head: Head, origin: String) -> Result<Response<Bytes>> {
        let (status, headers) = (head.status, head.headers.clone());
        let body = if (200..300).contains(&status) {
            let bytes_max = {
                let mut call = self.call();
                call.last = None;
                call.bytes_max
            };
            let read = head.read(bytes_max).map_err(|broken| self.broken(&origin, &broken))?;
            let lists = request.method() == Method::GET
                && request.uri().query().is_some_and(|query| query.contains("list-type="));
            if lists && read.split(|byte| matches!(byte, b'<' | b'>')).any(|piece| piece.len() > PIECE_BYTES_MAX) {
                return Err(Error::new(
                    ErrorKind::Unexpected,
                    "the listing makes no sense: a text in it is far too long",
                ));
            }
            asked_for(request, status, Bytes::from(read))
        } else {
            let body = head.beginning(REASON_BYTES_MAX);
            let text = String::from_utf8_lossy(&body).into_owned();
            let seen = Seen { status, headers: headers.clone(), body: text, origin, ..Seen::default() };
            self.call().last = Some(seen);
            Bytes::from(body)
        };
        let mut response = Response::builder()
            .status(status)
            .body(body)
            .map_err(|error| Error::new(ErrorKind::Unexpected, "the answer is no HTTP").set_source(error))?;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// There was no answer.
    fn broken(&self, origin: &str, broken: &Broken) -> Error {
        let (text, lasting) = words(broken);
        let seen = Seen { origin: origin.to_owned(), broken: Some(text.clone()), lasting, ..Seen::default() };
        self.call().last = Some(seen);
        Error::new(ErrorKind::Unexpected, text)
    }
}

impl HttpTransport for Client {
    async fn fetch(&self, request: Request<Buffer>) -> Result<Response<HttpBody>> {
        let (parts, body) = self.send(request)?.into_parts();
        let mut body = (!body.is_empty()).then(|| Buffer::from(body));
        let once = std::iter::from_fn(move || body.take().map(Ok));
        Ok(Response::from_parts(parts, HttpBody::new(Pieces(once), None)))
    }
}

/// Pieces that are there already, as a stream.
struct Pieces<I>(I);

impl<I: Iterator + Unpin> futures_core::Stream for Pieces<I> {
    type Item = I::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}

/// `https://host:port`, or without the port if it is the usual one.
fn origin(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    format!("{}://{authority}", uri.scheme_str().unwrap_or("https"))
}

/// Where an answer leads, if it is to be gone there.
fn followed(request: &Request<Buffer>, head: &Head) -> Option<Uri> {
    let leads = match head.status {
        307 | 308 => true,
        // What is to be asked there is a question.
        301 | 302 | 303 => matches!(*request.method(), Method::GET | Method::HEAD),
        _ => false,
    };
    let location = head.headers.get(header::LOCATION).filter(|_| leads)?.to_str().ok()?;
    let next = if location.starts_with('/') {
        let here = request.uri();
        Uri::builder()
            .scheme(here.scheme()?.clone())
            .authority(here.authority()?.clone())
            .path_and_query(location)
            .build()
            .ok()
    } else {
        Uri::try_from(location).ok()
    };
    let next = next.filter(|next| next.scheme().is_some() && next.authority().is_some())?;
    // To the same name with a `/`: it is a folder, and no object.
    let folder = next.path().strip_suffix('/') == Some(request.uri().path());
    (!folder).then_some(next)
}

/// Sends it there; what proves who we are is for the server that was named, and no other.
fn redirect(request: &mut Request<Buffer>, next: Uri) {
    if origin(request.uri()) != origin(&next) {
        let secret = |name: &str| name == "authorization" || name == "cookie" || name.starts_with("x-amz-");
        let names: Vec<_> = request.headers().keys().filter(|name| secret(name.as_str())).cloned().collect();
        for name in names {
            request.headers_mut().remove(name);
        }
    }
    *request.uri_mut() = next;
}

/// The part that was asked for: a server may not know parts, and give the whole.
fn asked_for(request: &Request<Buffer>, status: u16, body: Bytes) -> Bytes {
    let range = request.headers().get(header::RANGE).filter(|_| status == 200);
    let Some((first, last)) = range.and_then(range_of) else { return body };
    let first = first.min(body.len());
    let end = last.map_or(body.len(), |last| last.saturating_add(1)).clamp(first, body.len());
    body.slice(first..end)
}

fn range_of(range: &HeaderValue) -> Option<(usize, Option<usize>)> {
    let (first, last) = range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()))
}
