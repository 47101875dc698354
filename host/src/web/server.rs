//! Listening. Whoever comes gets little time to say what they want, and when too many come the oldest goes: so a thousand
//! that say nothing can't keep away the one that asks, and the files the process may open are left to the database.

use super::answers::{Answers, answer};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// How long a request's first lines may take; a connection without one is closed after it as well.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Bytes of them.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// After an error of the system's, as when no more files can be opened.
const PAUSE: Duration = Duration::from_millis(200);

/// Answers whoever comes, until told to stop.
pub(super) async fn serve(listener: TcpListener, answers: Arc<Answers>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        open.retain(|connection| !connection.is_finished());
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "cannot take a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if open.len() >= CONNECTIONS_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let answers = Arc::clone(&answers);
        let connection = connections.spawn(async move {
            let service = service_fn(move |request| {
                let answers = Arc::clone(&answers);
                async move { Ok::<_, std::convert::Infallible>(answer(&answers, &request)) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES_MAX);
            // What goes wrong here is the other side's doing, and its loss.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
        open.push_back(connection);
    }
}
