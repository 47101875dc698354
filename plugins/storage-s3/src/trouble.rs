//! What S3's error codes mean to those who run this: what is wrong, and what to do.

use http_client::{Kind, Seen, by_name, clock_skew};

use crate::place::Place;

/// The region that a bucket says it is in, where it was looked for in another.
pub(crate) fn region(seen: &Seen) -> Option<String> {
    if !matches!(seen.status, 301 | 307 | 400) {
        return None;
    }
    let named = seen.header("x-amz-bucket-region").or_else(|| seen.element("Region"))?;
    let plain = named.len() <= 40 && named.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (plain && !named.is_empty()).then(|| named.to_owned())
}

/// What an answer means, if it is one that only S3 gives.
pub(crate) fn told(place: &Place, seen: &Seen) -> Option<(Kind, String)> {
    let bucket = &place.bucket;
    let code = seen.element("Code").unwrap_or_default();
    let skewed = || clock_skew(seen).unwrap_or_else(|| "this machine's clock is wrong; set it right".to_owned());
    let (kind, why) = match code {
        "NoSuchBucket" => {
            (Kind::Permanent, format!("has no bucket `{bucket}`; make it there, or write its right name to `bucket`"))
        }
        "RequestTimeTooSkewed" => (Kind::Permanent, format!("does not take the time of the request: {}", skewed())),
        "InvalidAccessKeyId" | "NotSignedUp" => (Kind::Denied, "does not know this `access_key`".to_owned()),
        "SignatureDoesNotMatch" => (Kind::Denied, "says that `secret` does not belong to this `access_key`".to_owned()),
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
            (Kind::Denied, "does not take this `session_token`; it may have run out".to_owned())
        }
        "AccessDenied" | "AllAccessDisabled" if place.is_anonymous() => {
            (Kind::Denied, format!("lets nobody do that to the bucket `{bucket}` without `access_key` and `secret`"))
        }
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => match clock_skew(seen) {
            Some(skewed) => (Kind::Denied, format!("does not allow that, and {skewed}")),
            None => (
                Kind::Denied,
                format!("does not allow this `access_key` to do that in the bucket `{bucket}`; see its policy"),
            ),
        },
        "InvalidStorageClass" => (Kind::Permanent, "does not know this `storage_class`".to_owned()),
        "InvalidObjectState" => {
            (Kind::Permanent, "has moved the object to an archive; have it restored from there first".to_owned())
        }
        "QuotaExceeded" | "XMinioStorageFull" => (Kind::Temporary, format!("has no room left for `{bucket}`")),
        "ConditionalRequestConflict" | "OperationAborted" => {
            (Kind::Temporary, "is busy with the same object for somebody else".to_owned())
        }
        "SlowDown" | "RequestTimeout" | "InternalError" | "ServiceUnavailable" | "TooManyRequests" => return None,
        "NotImplemented" => (Kind::Unsupported, "can't do that".to_owned()),
        _ => match (seen.status, clock_skew(seen)) {
            (403, Some(skewed)) => (Kind::Denied, format!("does not allow that, and {skewed}")),
            (301 | 307 | 400, _) if region(seen).is_some() => {
                (Kind::Permanent, format!("has the bucket `{bucket}` in another region; write it to `region`"))
            }
            // Of what it has no code for, the status says what there is to say.
            _ => return None,
        },
    };
    Some((kind, format!("{why} ({})", by_name(seen))))
}
