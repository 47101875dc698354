//! The page's news: the last minutes at first, and then each look as it is made. Who reads slowly misses some, and nothing
//! is kept for them.

use crate::vitals::{Lookout, Viewer, Vitals};
use bytes::Bytes;
use hyper::body::Frame;
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// After so long without news it is said that there are none: else nobody knows whether the other side is still there.
const SILENCE: Duration = Duration::from_secs(15);

struct Stream {
    /// What is to be said first.
    first: Option<Bytes>,
    news: watch::Receiver<Arc<Vitals>>,
    /// As long as this lives, looks are made more often.
    _viewer: Viewer,
}

/// One event, as browsers read it.
fn event(name: &str, content: &impl Serialize) -> Bytes {
    // Numbers, texts and maps with text for keys: there is nothing in it that JSON can't say.
    let json = serde_json::to_string(content).unwrap_or_default();
    Bytes::from(format!("event: {name}\ndata: {json}\n\n"))
}

/// News without end.
pub(super) fn stream(
    lookout: &Lookout,
) -> impl futures::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + use<> {
    let mut news = lookout.follow();
    news.mark_changed();
    let first = Some(event("history", &lookout.history()));
    let stream = Stream { first, news, _viewer: lookout.view() };
    futures::stream::unfold(stream, |mut stream| async move {
        if let Some(first) = stream.first.take() {
            return Some((Ok(Frame::data(first)), stream));
        }
        let said = match tokio::time::timeout(SILENCE, stream.news.changed()).await {
            Ok(Ok(())) => {
                let vitals = stream.news.borrow_and_update().clone();
                event("vitals", &*vitals)
            }
            Ok(Err(_)) => return None,
            Err(_) => Bytes::from_static(b": nothing new\n\n"),
        };
        Some((Ok(Frame::data(said)), stream))
    })
}
