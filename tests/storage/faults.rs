//! `s3` and `webdav` with servers that speak HTTP badly: each failure has its kind and its words, and an end.

use std::time::{Duration, Instant};

use antiphon::storage::conformance::noise;
use antiphon::storage::{self, Retry, Steady};
use antiphon_core::store::{ErrorKind, LIST_MAX, Part, Put, Store as _, StoreError};
use antiphon_harness::{Answer, Asked, Faulty, Manner};
use antiphon_plugin::{Grants, Limits, Pace, Storage, Web, WebServer};

use super::{HOST, name, official};

const KINDS: [&str; 2] = ["s3", "webdav"];

/// How long a server may be silent here.
const SILENCE: Duration = Duration::from_millis(700);

/// The component, with this server and what more it is told.
fn told(kind: &str, url: &str, more: &[(&str, &str)]) -> Storage {
    patient(kind, url, more, SILENCE)
}

/// The same, with a server that may be silent for so long.
fn patient(kind: &str, url: &str, more: &[(&str, &str)], silence: Duration) -> Storage {
    let mut settings = match kind {
        "s3" => vec![("endpoint", url), ("bucket", "bucket")],
        _ => vec![("url", url)],
    };
    settings.extend(more);
    let settings: Vec<_> = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let servers = vec![WebServer::parse(url).unwrap().as_named()];
    let grants = Grants { web: Some(Web { servers, ..Web::default() }), ..Grants::default() };
    let pace = Pace { silence, ..Pace::default() };
    HOST.storage(&official(kind), &settings, grants, Limits { memory_bytes: 128 << 20, ..Limits::default() }, pace)
        .unwrap()
}

fn store(kind: &str, url: &str) -> Storage {
    let login = match kind {
        "s3" => [("access_key", "AKKEY"), ("secret", "hunter2-secret")],
        _ => [("login", "bob"), ("secret", "hunter2-secret")],
    };
    told(kind, url, &login)
}

/// A store whose server answers everything like this.
fn always(kind: &str, answer: Answer) -> (Faulty, Storage) {
    let server = Faulty::start(move |_| answer.clone());
    let store = store(kind, &server.url());
    (server, store)
}

fn no_crash(error: &StoreError) {
    for word in ["panicked", "crashed", "stack", "ran out of fuel", "hunter2"] {
        assert!(!error.message.contains(word), "{error}");
    }
}

#[test]
fn f10_a_status_has_a_kind() {
    for kind in KINDS {
        for (status, expected) in [
            (500, ErrorKind::Temporary),
            (502, ErrorKind::Temporary),
            (503, ErrorKind::Temporary),
            (429, ErrorKind::Temporary),
            (507, ErrorKind::Temporary),
            (401, ErrorKind::Denied),
            (403, ErrorKind::Denied),
            (418, ErrorKind::Permanent),
        ] {
            let (server, store) = always(kind, Answer::of(status, "no").header("retry-after", "7"));
            for error in [
                store.put(&name("a/b"), b"x", Put::Replace).unwrap_err(),
                store.get(&name("a/b"), None).unwrap_err(),
                store.list("a/", None, LIST_MAX).unwrap_err(),
                store.stat(&name("a/b")).unwrap_err(),
                store.delete(&[name("a/b")]).unwrap_err(),
                store.check().unwrap_err(),
            ] {
                assert_eq!(error.kind, expected, "{kind} {status}: {error}");
                assert!(error.message.contains(&server.url()), "{error}");
                assert_eq!(error.retry_after, Some(Duration::from_secs(7)), "{kind} {status}: {error}");
                no_crash(&error);
            }
        }
        let (_server, store) = always(kind, Answer::of(404, ""));
        assert_eq!(store.get(&name("a"), None).unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(store.stat(&name("a")).unwrap_err().kind, ErrorKind::NotFound);
        store.delete(&[name("a")]).unwrap();
        // What is not there is not the object, where one is put.
        if kind == "webdav" {
            let error = store.put(&name("a/b"), b"x", Put::Replace).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Permanent, "{error}");
            assert!(error.message.ends_with("; see `url`"), "{error}");
        }
    }
}

#[test]
fn f10_tries_have_an_end() {
    let (server, store) = always("s3", Answer::of(503, "").header("retry-after", "0"));
    let retry = Retry { tries: 3, first: Duration::from_millis(1), most: Duration::from_millis(10) };
    let error = Steady::new(store, retry, 0).put(&name("a"), b"x", Put::Replace).unwrap_err();
    assert!(error.message.ends_with("tried 3 times"), "{error}");
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn t03_a_server_that_says_nothing_more_is_left() {
    for kind in KINDS {
        for manner in [Manner::Hangs(0), Manner::Hangs(100)] {
            let (_server, store) = always(kind, Answer::of(200, vec![7; 1000]).sent(manner));
            let begun = Instant::now();
            let error = store.get(&name("a"), None).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Temporary, "{error}");
            assert!(error.message.contains("it was silent for 700ms"), "{error}");
            assert!(begun.elapsed() >= SILENCE);
        }
        // One that listens and never answers.
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let store = store(kind, &format!("http://{}", listener.local_addr().unwrap()));
        let error = store.put(&name("a"), &noise(1, 8 << 20), Put::Replace).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Temporary, "{error}");
        assert!(error.message.contains("it was silent for 700ms"), "{error}");
    }
}

/// What counts is how long nothing moves, and not how long it takes.
#[test]
fn f10_slow_is_not_silent() {
    for kind in KINDS {
        let body = noise(3, 1000);
        let slowly = Answer::of(200, body.clone()).sent(Manner::Slowly(50, Duration::from_millis(100)));
        let (_server, store) = always(kind, slowly);
        let begun = Instant::now();
        assert_eq!(store.get(&name("a"), None).unwrap(), body);
        assert!(begun.elapsed() > SILENCE);
    }
    // Longer than the buffers in between take to be emptied, and shorter than the whole takes.
    let silence = Duration::from_secs(4);
    let server = Faulty::reading(Duration::from_millis(60), |_| Answer::of(200, ""));
    let store = patient("s3", &server.url(), &[], silence);
    let (begun, body) = (Instant::now(), noise(4, 32 << 20));
    store.put(&name("large"), &body, Put::Replace).unwrap();
    assert!(begun.elapsed() > silence, "{:?}", begun.elapsed());
    assert!(server.asked()[0].body == body);
}

#[test]
fn f10_what_is_cut_off_is_no_object() {
    for kind in KINDS {
        for manner in [Manner::Cut(0), Manner::Cut(999), Manner::Nothing] {
            let (_server, store) = always(kind, Answer::of(200, vec![7; 1000]).sent(manner));
            let error = store.get(&name("a"), None).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Temporary, "{kind} {manner:?}: {error}");
        }
        // Nobody is there at all.
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let error = store(kind, &format!("http://{free}")).check().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Temporary, "{error}");
        assert!(error.message.contains("refused"), "{error}");
    }
}

#[test]
fn t16_an_answer_without_end_is_cut() {
    for kind in KINDS {
        let (_server, store) = always(kind, Answer::of(200, vec![7; 1 << 20]).sent(Manner::Endless));
        let error = store.get(&name("a"), None).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Permanent, "{error}");
        assert!(error.message.contains("more than"), "{error}");
        assert!(store.memory_peak() <= 128 << 20);
        // A server that knows no parts gives the whole, and only the part is taken.
        let (_server, store) = always(kind, Answer::of(200, "0123456789"));
        assert_eq!(store.get(&name("a"), Some(Part { offset: 3, length: 4 })).unwrap(), b"3456");
    }
}

/// Whatever a server calls its content, it is the content that is compared.
#[test]
fn t15_a_wrong_etag_changes_nothing_and_wrong_bytes_are_found() {
    let reply = |asked: &Asked| match asked.method.as_str() {
        "GET" => Answer::of(200, "right").header("etag", "\"0123456789abcdef0123456789abcdef\""),
        "PUT" => Answer::of(201, "").header("etag", "\"ffffffffffffffffffffffffffffffff\""),
        _ => Answer::of(201, ""),
    };
    for kind in KINDS {
        let server = Faulty::start(reply);
        let store = store(kind, &server.url());
        storage::put(&store, &name("a"), b"right", Put::Replace).unwrap();
        let error = storage::put(&store, &name("a"), b"wrong", Put::Replace).unwrap_err();
        assert!(error.message.contains("is not what was put there"), "{error}");
    }
}

/// A listing of S3 with these contents.
fn contents(inner: &str) -> String {
    format!("<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>{inner}</ListBucketResult>")
}

fn member(href: &str, more: &str) -> String {
    format!(
        "<D:response><D:href>{href}</D:href><D:propstat><D:prop>{more}</D:prop><D:status>HTTP/1.1 200 OK</D:status>\
         </D:propstat></D:response>"
    )
}

#[test]
fn x14_hostile_listings_are_refused_or_bounded() {
    let object = |key: &str| {
        format!("<Contents><Key>{key}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>")
    };
    let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">]>";
    let hostile = |around: &dyn Fn(&str) -> String, one: &dyn Fn(&str) -> String| {
        vec![
            String::new(),
            "<".to_owned(),
            "not XML at all".to_owned(),
            format!("{bomb}{}", around(&one("&b;"))),
            around(&one("&unknown;")),
            around(&"<a>".repeat(200_000)),
            around(&format!("<a {}/>", "x='1' ".repeat(100_000))),
            around(&one("../../etc/passwd")),
            around(&one("a/\u{1b}[31m")),
            around(&one("\u{0}")),
            around(&one(&"x".repeat(1 << 20))),
            around(&one("a/b").repeat(40_000)),
            around(&one("ä")).replace('>', "> "),
            around(&one("a/b")).replace("<Size>", &format!("<ETag>{}</ETag><Size>", "e".repeat(100_000))),
        ]
    };
    let dav = |inner: &str| format!("<D:multistatus xmlns:D=\"DAV:\">{inner}</D:multistatus>");
    let dav_member = |href: &str| member(href, "<D:getcontentlength>99999999999999999999999</D:getcontentlength>");
    let cases = [
        ("s3", 200, hostile(&|inner| contents(inner), &|key| object(key))),
        ("webdav", 207, hostile(&|inner| dav(inner), &|href| dav_member(href))),
    ];
    for (kind, status, listings) in cases {
        for (number, listing) in listings.into_iter().enumerate() {
            let shown = format!("listing {number}");
            let answer = Answer::of(status, listing).header("etag", &format!("\"{}\"", "e".repeat(70_000)));
            let (_server, store) = always(kind, answer.header("x-amz-meta-a", &"m".repeat(70_000)));
            match store.list("a/", None, LIST_MAX) {
                Ok(found) => assert!(found.len() <= 1, "{kind} {shown}: {found:?}"),
                Err(error) => {
                    eprintln!("{kind} {shown}: {error}");
                    no_crash(&error);
                }
            }
            // And an object of which far too much is told.
            if let Err(error) = store.stat(&name("a/b")) {
                no_crash(&error);
            }
            assert!(store.memory_peak() <= 128 << 20);
            assert_eq!(store.instances(), 1, "{kind} {shown}: it was not well afterwards");
        }
    }
}

/// A listing that goes on for ever, page by page, with nothing on the pages.
#[test]
fn t16_pages_have_an_end() {
    let page = "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>true</IsTruncated>\
                <NextContinuationToken>more</NextContinuationToken></ListBucketResult>";
    let (server, store) = always("s3", Answer::of(200, page));
    let error = store.list("", None, LIST_MAX).unwrap_err();
    assert!(error.message.contains("no end"), "{error}");
    assert!(server.asked().len() <= 256);
    // A folder that holds itself.
    let all = Faulty::start(|asked: &Asked| {
        let folder = "<D:resourcetype><D:collection/></D:resourcetype>";
        let inner = member(&asked.path, folder) + &member(&format!("{}a/", asked.path), folder);
        Answer::of(207, format!("<D:multistatus xmlns:D=\"DAV:\">{inner}</D:multistatus>"))
    });
    assert!(store_of(&all).list("", None, LIST_MAX).unwrap().is_empty());
    assert!(all.asked().len() <= 400);
}

fn store_of(server: &Faulty) -> Storage {
    store("webdav", &server.url())
}

#[test]
fn a_bucket_in_another_region_is_asked_there() {
    let server = Faulty::start(|asked: &Asked| {
        if asked.header("authorization").contains("/eu-moon-1/s3/") {
            return Answer::of(200, "there");
        }
        let why = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-moon-1</Region></Error>";
        Answer::of(400, why)
    });
    let store = store("s3", &server.url());
    assert_eq!(store.get(&name("a"), None).unwrap(), b"there");
    assert_eq!(store.get(&name("a"), None).unwrap(), b"there");
    // It is remembered: asked once in the wrong one, and then in the right one.
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn codes_of_s3_are_told_in_words() {
    for (status, code, kind, words) in [
        (403, "RequestTimeTooSkewed", ErrorKind::Permanent, "this machine's clock is"),
        (403, "AccessDenied", ErrorKind::Denied, "minutes ahead of the server's"),
        (404, "NoSuchBucket", ErrorKind::Permanent, "has no bucket `bucket`"),
        (403, "ExpiredToken", ErrorKind::Denied, "`session_token`"),
        (400, "InvalidStorageClass", ErrorKind::Permanent, "`storage_class`"),
        (503, "SlowDown", ErrorKind::Temporary, "status 503"),
        (409, "ConditionalRequestConflict", ErrorKind::Temporary, "busy"),
        (501, "NotImplemented", ErrorKind::Unsupported, "can't do that"),
    ] {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>");
        let answer = Answer::of(status, body).header("date", "Mon, 01 Jan 2024 00:00:00 GMT");
        let (_server, store) = always("s3", answer);
        let error = store.put(&name("a"), b"x", Put::Replace).unwrap_err();
        assert_eq!(error.kind, kind, "{code}: {error}");
        assert!(error.message.contains(words), "{code}: {error}");
    }
}

/// What was set is what is sent.
#[test]
fn credentials_and_classes_are_sent_as_set() {
    let server = Faulty::start(|_| Answer::of(200, ""));
    let put = |kind: &str, more: &[(&str, &str)]| {
        let store = told(kind, &server.url(), more);
        store.put(&name("a"), b"x", Put::Replace).unwrap();
        server.asked().into_iter().rfind(|asked| asked.method == "PUT").unwrap()
    };
    let asked = put(
        "s3",
        &[
            ("access_key", "AK"),
            ("secret", "s"),
            ("session_token", "tok"),
            ("storage_class", "STANDARD_IA"),
            ("path", "in"),
        ],
    );
    assert_eq!(asked.path.split('?').next(), Some("/bucket/in/a"));
    assert_eq!((asked.header("x-amz-security-token"), asked.header("x-amz-storage-class")), ("tok", "STANDARD_IA"));
    assert_eq!((asked.body.as_slice(), asked.header("content-length")), (&b"x"[..], "1"));
    assert!(asked.header("authorization").starts_with("AWS4-HMAC-SHA256 Credential=AK/"));
    assert_eq!(put("s3", &[("access_key", "AK"), ("secret", "s"), ("anonymous", "true")]).header("authorization"), "");
    assert_eq!(put("webdav", &[("token", "tok")]).header("authorization"), "Bearer tok");
    assert_eq!(put("webdav", &[("login", "a"), ("secret", "b")]).header("authorization"), "Basic YTpi");
    let moved = server.asked().into_iter().rfind(|asked| asked.method == "MOVE").unwrap();
    assert_eq!((moved.header("destination"), moved.header("overwrite")), (&*format!("{}/a", server.url()), "T"));
}

#[test]
fn settings_that_make_no_sense_are_named() {
    for (kind, more, words) in [
        ("s3", ("acess_key", "x"), "there is no setting `acess_key`"),
        ("s3", ("access_key", "x"), "`secret` is not set"),
        ("s3", ("anonymous", "yes"), "`anonymous` is `true` or `false`"),
        ("webdav", ("user", "x"), "there is no setting `user`"),
        ("webdav", ("dir", "a/../b"), "leads out of itself"),
    ] {
        let error = told(kind, "http://127.0.0.1:1", &[more]).check().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Permanent);
        assert!(error.message.contains(words), "{error}");
    }
}
