//! One request and its answer, on the bindings of `wasi:http`.

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use opendal_core::Buffer;
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    Scheme,
};
use wasip2::io::poll::poll;
use wasip2::io::streams::{InputStream, StreamError};

/// How much is read at once at most.
const PIECE_BYTES: u64 = 1 << 20;

/// How much of an answer's headers is looked at. opendal ends with a panic where what is known of an object has 64 KiB.
const HEADERS_BYTES_MAX: usize = 32 << 10;

/// Why there is no answer, or not all of one.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The host says so.
    Code(ErrorCode),
    /// The answer ended too early, or was cut off.
    Cut,
    /// The answer is larger than it may be.
    Endless(usize),
    /// The request can't be sent as it is.
    Request(&'static str),
}

/// An answer, as far as its head.
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    response: IncomingResponse,
}

/// Sends a request and waits for the head of the answer.
pub(crate) fn send(request: &Request<Buffer>) -> Result<Head, Broken> {
    let body = request.body();
    let outgoing = outgoing(request)?;
    if body.is_empty() {
        // Its stream is never opened: there is nothing to wait for but the answer.
        let empty = outgoing.body().map_err(|()| Broken::Request("its body is gone"))?;
        let answer = handle(outgoing, None).map_err(Broken::Code)?;
        OutgoingBody::finish(empty, None).map_err(Broken::Code)?;
        return head(&answer);
    }
    let sent = outgoing.body().map_err(|()| Broken::Request("its body is gone"))?;
    let answer = handle(outgoing, None).map_err(Broken::Code)?;
    match write(sent, body, &answer) {
        Ok(()) => head(&answer),
        // An answer that came early says more than that nobody listened to the rest.
        Err(broken) => match head(&answer) {
            Err(Broken::Cut) => Err(broken),
            answered => answered,
        },
    }
}

fn outgoing(request: &Request<Buffer>) -> Result<OutgoingRequest, Broken> {
    let fields = Fields::new();
    let unfit = |_| Broken::Request("one of its headers is not allowed");
    for (name, value) in request.headers() {
        // The host says where it goes, and what a signature covers is the same.
        if name != http::header::HOST && name != http::header::CONTENT_LENGTH {
            fields.append(name.as_str(), value.as_bytes()).map_err(unfit)?;
        }
    }
    // Without it the body would be sent in chunks, and not all servers take those.
    if !matches!(*request.method(), http::Method::GET | http::Method::HEAD) {
        fields.append("content-length", request.body().len().to_string().as_bytes()).map_err(unfit)?;
    }
    let outgoing = OutgoingRequest::new(fields);
    let uri = request.uri();
    let scheme = match uri.scheme_str() {
        Some("https") => Scheme::Https,
        Some("http") => Scheme::Http,
        _ => return Err(Broken::Request("its address is neither `http://` nor `https://`")),
    };
    let method = match request.method().as_str() {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "PUT" => Method::Put,
        "POST" => Method::Post,
        "DELETE" => Method::Delete,
        other => Method::Other(other.to_owned()),
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let set = outgoing
        .set_method(&method)
        .and_then(|()| outgoing.set_scheme(Some(&scheme)))
        .and_then(|()| outgoing.set_authority(uri.authority().map(http::uri::Authority::as_str)))
        .and_then(|()| outgoing.set_path_with_query(Some(path)));
    set.map_err(|()| Broken::Request("its address makes no sense"))?;
    Ok(outgoing)
}

/// Writes the body, as long as nobody answers.
fn write(sent: OutgoingBody, body: &Buffer, answer: &FutureIncomingResponse) -> Result<(), Broken> {
    let stream = sent.write().map_err(|()| Broken::Request("its body is gone"))?;
    let (ready, answered) = (stream.subscribe(), answer.subscribe());
    let cut = |_: StreamError| Broken::Cut;
    for piece in body.clone() {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            // An answer before the end is a refusal.
            if poll(&[&ready, &answered]).contains(&1) {
                return Err(Broken::Cut);
            }
            let room = usize::try_from(stream.check_write().map_err(cut)?).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at(room.min(rest.len()));
            stream.write(now).map_err(cut)?;
            rest = later;
        }
    }
    stream.flush().map_err(cut)?;
    ready.block();
    stream.check_write().map_err(cut)?;
    drop((ready, answered));
    drop(stream);
    OutgoingBody::finish(sent, None).map_err(Broken::Code)
}

fn head(answer: &FutureIncomingResponse) -> Result<Head, Broken> {
    answer.subscribe().block();
    let response = match answer.get() {
        Some(Ok(response)) => response.map_err(Broken::Code)?,
        _ => return Err(Broken::Cut),
    };
    let (mut headers, mut bytes) = (HeaderMap::new(), 0);
    for (name, value) in response.headers().entries() {
        bytes += name.len() + value.len();
        if bytes > HEADERS_BYTES_MAX {
            break;
        }
        // What is no header is left out.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    Ok(Head { status: response.status(), headers, response })
}

impl Head {
    /// Reads all of the answer. One of more bytes than these is no answer.
    pub(crate) fn read(self, bytes_max: usize) -> Result<Vec<u8>, Broken> {
        let (mut bytes, more) = self.begin(bytes_max)?;
        if more || bytes.len() > bytes_max {
            return Err(Broken::Endless(bytes_max));
        }
        bytes.shrink_to_fit();
        Ok(bytes)
    }

    /// Reads what the answer begins with, and no more than that.
    pub(crate) fn beginning(self, bytes_max: usize) -> Vec<u8> {
        self.begin(bytes_max).map(|(bytes, _)| bytes).unwrap_or_default()
    }

    fn begin(self, bytes_max: usize) -> Result<(Vec<u8>, bool), Broken> {
        let announced =
            self.headers.get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let body = self.response.consume().map_err(|()| Broken::Cut)?;
        // As much as is announced, and no more than there may be.
        let mut bytes = Vec::with_capacity(announced.unwrap_or(0).min(bytes_max));
        let more = {
            let stream = body.stream().map_err(|()| Broken::Cut)?;
            read(&stream, &mut bytes, bytes_max)?
        };
        drop(IncomingBody::finish(body));
        Ok((bytes, more))
    }
}

/// Reads to the end, or until there are more bytes than there may be; says whether there are.
fn read(stream: &InputStream, bytes: &mut Vec<u8>, bytes_max: usize) -> Result<bool, Broken> {
    loop {
        match stream.blocking_read(PIECE_BYTES) {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(StreamError::Closed) => return Ok(false),
            Err(StreamError::LastOperationFailed(error)) => {
                let code = wasip2::http::types::http_error_code(&error);
                return Err(code.map_or(Broken::Cut, Broken::Code));
            }
        }
        if bytes.len() > bytes_max {
            bytes.truncate(bytes_max);
            return Ok(true);
        }
    }
}
