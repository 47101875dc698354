//! Bodies that are carried as long as the other side moves: what counts is how long it is silent, not how much there is.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::{Error, WasiBody};

use super::{Trouble, Troubles};

/// When the other side last took something, and whether it is the guest who is waited for.
#[derive(Clone, Copy)]
struct Moved {
    at: Instant,
    guest: bool,
}

/// A body on its way out.
pub(super) struct Sending {
    body: WasiBody,
    moved: Arc<Mutex<Moved>>,
}

/// What is known of a body on its way out.
pub(super) struct Sent {
    moved: Arc<Mutex<Moved>>,
    silence: Duration,
}

impl Sending {
    pub(super) fn new(request: Request<WasiBody>, silence: Duration) -> (Request<Self>, Sent) {
        let moved = Arc::new(Mutex::new(Moved { at: Instant::now(), guest: false }));
        let sent = Sent { moved: Arc::clone(&moved), silence };
        (request.map(|body| Self { body, moved }), sent)
    }
}

impl Sent {
    /// Done when the other side has been silent for too long.
    pub(super) async fn is_silent(&self) {
        loop {
            let moved = *self.moved.lock().unwrap_or_else(PoisonError::into_inner);
            let until = if moved.guest { Instant::now() } else { moved.at } + self.silence;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        // Whoever asks for more has room for it.
        let moved = Moved { at: Instant::now(), guest: polled.is_pending() };
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = moved;
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body on its way in.
pub(super) struct Answering {
    body: Incoming,
    silence: Duration,
    /// Goes while somebody waits.
    clock: Option<Pin<Box<Sleep>>>,
    troubles: Troubles,
}

impl Answering {
    pub(super) fn new(body: Incoming, silence: Duration, troubles: Troubles) -> Self {
        Self { body, silence, clock: None, troubles }
    }
}

impl Body for Answering {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Err(err))) => {
                let why = std::error::Error::source(&err).map_or_else(|| err.to_string(), ToString::to_string);
                this.troubles.note(Some(Trouble::passing(format!("the answer was cut off: {why}"))));
                Poll::Ready(Some(Err(Error::HttpResponseIncomplete)))
            }
            Poll::Ready(read) => {
                this.clock = None;
                Poll::Ready(read.map(|frame| frame.map_err(Error::from)))
            }
            Poll::Pending => {
                let clock = this.clock.get_or_insert_with(|| Box::pin(tokio::time::sleep(this.silence)));
                ready!(clock.as_mut().poll(cx));
                this.troubles.note(Some(Trouble::passing(format!("it was silent for {:?}", this.silence))));
                Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
