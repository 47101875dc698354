//! From an answer to the kind of failure it is, in words.

use std::time::{SystemTime, UNIX_EPOCH};

use opendal_core::raw::Timestamp;
use wasip2::http::types::ErrorCode;

use crate::client::{Client, Seen};
use crate::exchange::Broken;
use crate::{Error, Kind};

/// How far clocks may be apart; S3 takes no request that is off by more.
const SKEW_SECONDS_MAX: i64 = 600;

/// Why there was no answer, and whether waiting can't mend that.
pub(crate) fn words(broken: &Broken) -> (String, bool) {
    let code = match broken {
        Broken::Cut => return ("the connection was cut".to_owned(), false),
        Broken::Endless(most) => return (format!("the answer has more than the {most} bytes that it may have"), true),
        Broken::Request(why) => return ((*why).to_owned(), true),
        Broken::Code(code) => code,
    };
    let (text, lasting) = match code {
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => ("it is not granted", true),
        ErrorCode::TlsCertificateError | ErrorCode::TlsProtocolError | ErrorCode::TlsAlertReceived(_) => {
            ("there is no secure connection", true)
        }
        ErrorCode::HttpRequestUriInvalid | ErrorCode::HttpRequestUriTooLong => ("the address makes no sense", true),
        ErrorCode::DnsError(_) | ErrorCode::DestinationNotFound => ("its name is not known", false),
        ErrorCode::ConnectionRefused => ("nobody listens there", false),
        ErrorCode::ConnectionTimeout | ErrorCode::DnsTimeout => ("it can't be reached", false),
        ErrorCode::ConnectionReadTimeout | ErrorCode::HttpResponseTimeout => ("it says nothing more", false),
        ErrorCode::ConnectionTerminated | ErrorCode::HttpResponseIncomplete => ("the connection was cut", false),
        other => return (format!("{other:?}"), false),
    };
    (text.to_owned(), lasting)
}

/// What a failed request came to. `told` has the first word on an answer: what is special to a protocol.
pub fn failed(
    client: &Client,
    what: &str,
    error: &opendal_core::Error,
    told: impl FnOnce(&Seen) -> Option<(Kind, String)>,
) -> Error {
    let Some(seen) = client.seen() else {
        // All was answered well, and made no sense: cut off, it may be whole the next time.
        let message = format!("cannot {what}: {}", error.message());
        let kind = if error.is_temporary() { Kind::Temporary } else { Kind::Permanent };
        return Error { kind, message, retry_after_ms: None };
    };
    let origin = &seen.origin;
    if let Some(broken) = &seen.broken {
        let kind = if seen.lasting { Kind::Permanent } else { Kind::Temporary };
        return Error { kind, message: format!("cannot {what}: {origin}: {broken}"), retry_after_ms: None };
    }
    let (kind, why) = told(&seen).unwrap_or_else(|| by_status(&seen));
    Error { kind, message: format!("cannot {what}: {origin} {why}"), retry_after_ms: retry_after(&seen) }
}

/// What a status says, whatever it is about.
fn by_status(seen: &Seen) -> (Kind, String) {
    let status = seen.status;
    let (kind, why) = match status {
        401 => (Kind::Denied, "does not know these credentials"),
        403 => (Kind::Denied, "does not allow that with these credentials"),
        404 | 410 => (Kind::NotFound, "has no such object"),
        408 | 423 | 425 | 429 => (Kind::Temporary, "asks to be tried again later"),
        507 => (Kind::Temporary, "has no room left"),
        405 | 501 => (Kind::Unsupported, "can't do that"),
        413 => (Kind::Permanent, "takes no object of that size"),
        500.. => (Kind::Temporary, "has trouble of its own"),
        300..=399 => (Kind::Permanent, "leads elsewhere, and not to be followed"),
        _ => (Kind::Permanent, "refuses that"),
    };
    (kind, format!("{why} ({})", by_name(seen)))
}

/// The status, and the name that the other side gives the failure.
pub fn by_name(seen: &Seen) -> String {
    let plain = |code: &&str| code.len() <= 60 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match seen.element("Code").filter(plain) {
        Some(code) if !code.is_empty() => format!("status {}, {code}", seen.status),
        _ => format!("status {}", seen.status),
    }
}

/// When to come again, if that was said.
fn retry_after(seen: &Seen) -> Option<u32> {
    let said = seen.header("retry-after")?.trim();
    let after = match said.parse::<u64>() {
        Ok(after) => after,
        Err(_) => u64::try_from(seconds(said)? - now()).unwrap_or(0),
    };
    u32::try_from(after.saturating_mul(1000)).ok()
}

/// By how much this machine's clock is off, in words, if the answer has the other side's.
pub fn clock_skew(seen: &Seen) -> Option<String> {
    let apart = now() - seconds(seen.header("date")?)?;
    let minutes = apart.abs() / 60;
    let way = if apart > 0 { "ahead of" } else { "behind" };
    (apart.abs() > SKEW_SECONDS_MAX)
        .then(|| format!("this machine's clock is {minutes} minutes {way} the server's; set it right"))
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|now| i64::try_from(now.as_secs()).ok()).unwrap_or(0)
}

/// Seconds since 1970 of a date as HTTP writes it.
pub fn seconds(date: &str) -> Option<i64> {
    Some(Timestamp::parse_rfc2822(date).ok()?.into_inner().as_second())
}
