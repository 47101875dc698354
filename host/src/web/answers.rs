//! Which path has what.

use super::callers::Names;
use super::events;
use crate::metrics;
use crate::vitals::{Lookout, Phase, Vitals};
use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use serde_json::json;
use std::convert::Infallible;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// The page: one file, with all it needs in it.
const PAGE: &str = include_str!("page.html");
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// As Prometheus wants it.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// At most so many look at the page at once.
const VIEWERS_MAX: usize = 16;
/// A process that replicates and has not looked at itself for so long hangs: a new one would not.
const HANGS_AFTER: Duration = Duration::from_secs(300);

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What one address answers.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    pub(super) lookout: Lookout,
    /// When the process began.
    pub(super) started: Instant,
    /// Where health is, if it is here.
    pub(super) health_path: Option<String>,
    /// With the particulars.
    pub(super) detailed: bool,
    /// The page is here.
    pub(super) page: bool,
    /// By which names the page may be asked for.
    pub(super) names: Names,
    /// How names of metrics begin, if metrics are here.
    pub(super) prefix: Option<String>,
    /// At any path, as HarmonyLite has them.
    pub(super) metrics_anywhere: bool,
}

/// The answer to a request. Its body, if it has one, is not read.
pub(super) fn answer<B>(answers: &Answers, request: &Request<B>) -> Response<Body> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "it can only be looked at: GET or HEAD\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let path = request.uri().path();
    if let Some(prefix) = answers.prefix.as_deref().filter(|_| answers.metrics_anywhere || path == "/metrics") {
        return metrics_text(&answers.lookout, prefix);
    }
    let Some(health_path) = &answers.health_path else { return text(StatusCode::NOT_FOUND, "nothing is here\n") };
    if path == health_path {
        return health(answers);
    }
    match path {
        "/livez" => live(&answers.lookout),
        "/readyz" => ready(&answers.lookout, answers.detailed),
        "/" | "/events" if answers.page => {
            let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            if !answers.names.hold(host) {
                let words = "the page is not served by this name; if it is meant, add it to `hosts` under \
                             `[health_check]`\n";
                return text(StatusCode::MISDIRECTED_REQUEST, words);
            }
            if path == "/" { page() } else { news(&answers.lookout) }
        }
        _ => text(StatusCode::NOT_FOUND, format!("nothing is here; see {health_path}, /livez and /readyz\n")),
    }
}

fn respond(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}

fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed_unsync()
}

fn text(status: StatusCode, words: impl Into<Bytes>) -> Response<Body> {
    respond(status, TEXT, whole(words))
}

/// 200 or 503.
fn by(well: bool) -> StatusCode {
    if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn health(answers: &Answers) -> Response<Body> {
    let vitals = answers.lookout.vitals();
    let status = by(vitals.health.healthy);
    if !answers.detailed {
        return text(status, "");
    }
    let seconds = answers.started.elapsed().as_secs();
    let body = format!("{}\n", particulars(&vitals, seconds));
    respond(status, JSON, whole(body))
}

/// The keys that HarmonyLite's users know, and the reasons.
fn particulars(vitals: &Vitals, uptime_seconds: u64) -> serde_json::Value {
    json!({
        "status": vitals.health.word(),
        "node_id": vitals.status.node.unwrap_or(0),
        "uptime_seconds": uptime_seconds,
        "db_connected": vitals.db_connected,
        "nats_connected": vitals.log_connected,
        "cdc_installed": vitals.captured,
        "tables_tracked": vitals.status.tables.len(),
        "last_replicated_event_timestamp": time(vitals.last_replicated_ms),
        "last_published_event_timestamp": time(vitals.last_published_ms),
        "version": env!("CARGO_PKG_VERSION"),
        "reasons": vitals.health.reasons,
    })
}

/// A time that never was is the one that HarmonyLite prints.
fn time(unix_ms: u64) -> String {
    if unix_ms == 0 { "0001-01-01T00:00:00Z".to_owned() } else { crate::clock::utc(unix_ms) }
}

fn live(lookout: &Lookout) -> Response<Body> {
    let hangs = lookout.vitals().phase == Phase::Running && lookout.shown_ago() > HANGS_AFTER;
    text(by(!hangs), if hangs { "it has not looked at itself for 5 minutes\n" } else { "alive\n" })
}

fn ready(lookout: &Lookout, detailed: bool) -> Response<Body> {
    let vitals = lookout.vitals();
    let ready = vitals.health.is_ready(&vitals);
    let mut words = if ready { "ready\n" } else { "not ready\n" }.to_owned();
    if !ready && detailed {
        if vitals.phase == Phase::Running && !vitals.caught_up {
            words.push_str("it has not read all that the log had when it started\n");
        }
        for reason in &vitals.health.reasons {
            words.push_str(&format!("{}; {}\n", reason.what, reason.remedy));
        }
    }
    text(by(ready), words)
}

fn metrics_text(lookout: &Lookout, prefix: &str) -> Response<Body> {
    let vitals = lookout.vitals();
    // A node that starts has nothing to tell but that it is not well.
    let figures = lookout.metrics().unwrap_or_default();
    metrics::show(&figures, &vitals);
    match figures.text(prefix, vitals.status.node.unwrap_or(0)) {
        Ok(figures) => respond(StatusCode::OK, METRICS, whole(figures)),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics can't be written: {error}\n")),
    }
}

fn page() -> Response<Body> {
    let mut response = respond(StatusCode::OK, "text/html; charset=utf-8", whole(PAGE));
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("content-security-policy", &POLICY);
    set("referrer-policy", "no-referrer");
    set("x-frame-options", "DENY");
    set("cross-origin-opener-policy", "same-origin");
    set("cross-origin-resource-policy", "same-origin");
    response
}

/// Only the page's own script and style run, known by their hashes; it talks to nobody but this node.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash_between("<script>", "</script>"),
        hash_between("<style>", "</style>")
    )
});

/// The hash of what stands between these in the page, as a policy names it.
fn hash_between(begin: &str, end: &str) -> String {
    let inner = PAGE.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).map_or("", |(inner, _)| inner);
    let hash = HEXLOWER.decode(antiphon_plugin::sha256(inner.as_bytes()).as_bytes()).unwrap_or_default();
    format!("sha256-{}", BASE64.encode(&hash))
}

fn news(lookout: &Lookout) -> Response<Body> {
    if lookout.viewers() >= VIEWERS_MAX {
        return text(StatusCode::SERVICE_UNAVAILABLE, "too many look at the page already\n");
    }
    respond(StatusCode::OK, "text/event-stream", StreamBody::new(events::stream(lookout)).boxed_unsync())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HealthCheck;
    use crate::health::Limits;

    fn answers() -> Answers {
        let lookout = Lookout::new(Limits::of(&HealthCheck::default(), None, std::path::Path::new("app.db")));
        Answers {
            lookout,
            started: Instant::now(),
            health_path: Some("/health".to_owned()),
            detailed: true,
            page: true,
            names: Names::default(),
            prefix: None,
            metrics_anywhere: false,
        }
    }

    fn ask(answers: &Answers, method: Method, path: &str, host: &str) -> Response<Body> {
        let request = Request::builder().method(method).uri(path).header(HOST, host).body(()).unwrap();
        answer(answers, &request)
    }

    fn body(response: Response<Body>) -> String {
        let bytes = futures::executor::block_on(response.into_body().collect()).unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_node_that_starts_is_alive_and_neither_well_nor_ready() {
        let answers = answers();
        let status = |path: &str| ask(&answers, Method::GET, path, "localhost").status().as_u16();
        assert_eq!([status("/health"), status("/livez"), status("/readyz"), status("/x")], [503, 200, 503, 404]);
        let found: serde_json::Value = serde_json::from_str(&body(ask(&answers, Method::GET, "/health", "x"))).unwrap();
        assert_eq!(found["status"], "unhealthy");
        assert_eq!(found["reasons"][0]["name"], "starting");
        assert_eq!(found["last_published_event_timestamp"], "0001-01-01T00:00:00Z");
    }

    #[test]
    fn particulars_are_told_if_they_are_asked_for() {
        let answers = Answers { detailed: false, ..answers() };
        let response = ask(&answers, Method::GET, "/health", "x");
        assert_eq!((response.status().as_u16(), body(response).as_str()), (503, ""));
    }

    #[test]
    fn x09_it_can_only_be_looked_at_and_by_its_own_name() {
        let answers = answers();
        assert_eq!(ask(&answers, Method::POST, "/health", "localhost").status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(ask(&answers, Method::GET, "/", "evil.example").status(), StatusCode::MISDIRECTED_REQUEST);
        assert_eq!(ask(&answers, Method::GET, "/events", "evil.example").status(), StatusCode::MISDIRECTED_REQUEST);
        assert_eq!(ask(&answers, Method::GET, "/", "127.0.0.1:1").status(), StatusCode::OK);
    }

    /// Nothing in the page comes from elsewhere, and nothing runs in it but what the policy names.
    #[test]
    fn the_page_needs_nobody_else() {
        for end in ["<style>", "</style>", "<script>", "</script>"] {
            assert_eq!(PAGE.matches(end).count(), 1, "{end}");
        }
        for foreign in ["http://", "https://", "src=", "@import", "url(", "style=\"", "onclick", "innerHTML", "eval("] {
            let found = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!found.contains(foreign), "{foreign} is in the page");
        }
        assert!(POLICY.contains("script-src 'sha256-") && !POLICY.contains("unsafe"));
    }
}
