//! Objects in a bucket of S3, with real servers.

use antiphon::storage::conformance::Extent;
use antiphon::storage::{Opened, failure};
use antiphon_core::store::{ErrorKind, LIST_MAX, Put, Store as _};
use antiphon_harness::{Authority, S3Server, S3Ways, mounts_apart};

use super::{configured, conforms_within, name, survives};

/// The server of the tests keeps what it knows of an object in a file whose name is made of the key's, and longer.
const EXTENT: Extent = Extent { object_bytes: 32 << 20, listed: 2500, threads: 16, name_bytes: 130 };

/// The store of a configuration with these lines under `[snapshot.s3]`.
fn store(lines: &str) -> Opened {
    configured(&format!("[snapshot]\nstore = 's3'\n[snapshot.s3]\n{lines}"))
}

/// Where a server is, and its key.
fn login(server: &S3Server) -> String {
    let (url, key, secret) = (server.url(), S3Server::KEY, S3Server::SECRET);
    format!("endpoint = '{url}'\nbucket = 'bucket'\naccess_key = '{key}'\nsecret = '{secret}'\n")
}

#[test]
fn the_suite() {
    let server = S3Server::start();
    let opened = store(&format!("{}path = '/in/here/'", login(&server)));
    assert_eq!((opened.name.as_str(), &*opened.place), ("s3", &*format!("bucket `bucket/in/here`, {}", server.url())));
    conforms_within(&opened.store, EXTENT);
    assert!(opened.component.memory_peak() < 128 << 20, "{}", opened.component.memory_peak());
    // Connections are kept: thousands of requests came over a few.
    assert!(server.connections() < 300, "{} connections", server.connections());
}

/// With `use_ssl` and no scheme, a certificate of an authority of one's own, and a `[plugin.NAME]`.
#[test]
fn the_suite_over_tls_with_an_authority_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    let server = S3Server::with(S3Ways {
        certificate: Some(authority.issue("server", "IP:127.0.0.1,DNS:localhost")),
        ..S3Ways::default()
    });
    let (ca, port) = (authority.certificate(), server.port());
    let settings = |more: &str| {
        format!(
            "[snapshot]\nstore = 'plugin:away'\n[plugin.away]\nsource = 'builtin:s3'\n[plugin.away.settings]\n\
             endpoint = 'localhost:{port}'\nuse_ssl = true\nbucket = 'bucket'\naccess_key = '{}'\nsecret_key = '{}'\n{more}",
            S3Server::KEY,
            S3Server::SECRET
        )
    };
    let opened = configured(&settings(&format!("ca_file = '{}'", ca.display())));
    assert_eq!(opened.name, "away");
    conforms_within(&opened.store, EXTENT);
    // Who is trusted by nobody is not spoken with, and what to do is said.
    let error = configured(&settings("")).component.check().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent, "{error}");
    assert!(error.message.contains("its certificate is signed by nobody who is trusted"), "{error}");
    assert!(error.hint.as_deref().unwrap_or_default().contains("`ca_file = \"PATH\"`"), "{error:?}");
    // And a certificate for another name is none for this one.
    let elsewhere = S3Server::with(S3Ways {
        certificate: Some(authority.issue("elsewhere", "DNS:elsewhere.example.org")),
        ..S3Ways::default()
    });
    let lines = format!("{}ca_file = '{}'", login(&elsewhere), ca.display());
    let error = store(&lines).component.check().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent, "{error}");
    assert!(error.message.contains("not valid for name"), "{error}");
}

/// Each bucket has a name of its own below the server's; the region that was set is what is signed.
#[test]
fn the_suite_with_the_bucket_in_the_name_of_the_host() {
    let hosts = "127.0.0.1 localhost s3.test bucket.s3.test";
    let Some(_) = mounts_apart(&format!("echo '{hosts}' > \"$1/hosts\" && mount --bind \"$1/hosts\" /etc/hosts"))
    else {
        return;
    };
    let server = S3Server::with(S3Ways { name: Some("s3.test"), ..S3Ways::default() });
    let login = login(&server).replace("127.0.0.1", "s3.test");
    let lines = format!("{login}force_path_style = false\nprivate_networks = true\nregion = 'eu-moon-1'");
    conforms_within(&store(&lines).store, EXTENT);
    // By a path it is the same bucket.
    let (virtual_host, path) = (store(&lines), store(&lines.replace("force_path_style = false\n", "")));
    virtual_host.store.put(&name("a"), b"x", Put::Replace).unwrap();
    assert_eq!(path.store.get(&name("a"), None).unwrap(), b"x");
}

/// A server that takes no notice of the condition is found out, and what is promised is what is kept.
#[test]
fn a_server_that_overwrites_is_found_out() {
    let good = store(&login(&S3Server::start()));
    // It is gone already: nothing can be promised.
    assert!(!good.component.traits().unwrap().put_if_absent);
    let server = S3Server::start();
    assert!(store(&login(&server)).component.traits().unwrap().put_if_absent);
    let server = S3Server::with(S3Ways { overwrites: true, ..S3Ways::default() });
    let opened = store(&login(&server));
    assert!(!opened.component.traits().unwrap().put_if_absent);
    opened.store.put(&name("a"), b"first", Put::IfAbsent).unwrap();
    let error = opened.store.put(&name("a"), b"second", Put::IfAbsent).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Exists, "{error}");
    assert_eq!(opened.store.get(&name("a"), None).unwrap(), b"first");
    // Nothing is left of the trial.
    let left: Vec<_> = std::fs::read_dir(server.bucket()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["a"]);
}

#[test]
fn x07_wrong_credentials_are_told_apart_and_not_shown() {
    let server = S3Server::start();
    let right = login(&server);
    for (from, to, why) in [
        (S3Server::SECRET, "wrong-secret-hunter2", "says that `secret` does not belong to this `access_key`"),
        (S3Server::KEY, "AKWRONGKEY", "`access_key`"),
    ] {
        let error = store(&right.replace(from, to)).component.check().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied, "{error}");
        assert!(error.message.contains(why) && error.message.contains(&server.url()), "{error}");
        assert!(!error.message.contains(to), "{error}");
    }
    let anonymous = format!("{right}anonymous = true");
    let error = store(&anonymous).component.check().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    assert!(error.message.contains("without `access_key` and `secret`"), "{error}");
}

#[test]
fn a_bucket_that_is_missing_is_named() {
    let server = S3Server::start();
    let error = store(&login(&server).replace("'bucket'", "'no-such'")).component.check().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent, "{error}");
    assert!(error.message.contains("has no bucket `no-such`; make it there"), "{error}");
    assert!(failure(&error).to_string().contains("no-such"));
}

#[test]
fn what_was_acknowledged_survives_a_server_that_ends_in_the_middle() {
    let mut server = S3Server::start();
    let opened = store(&login(&server));
    survives(&opened.store, || {
        server.kill();
        server.resume();
    });
}

/// What others keep in the bucket is not in the way.
#[test]
fn x06_two_prefixes_of_a_bucket_are_apart() {
    let server = S3Server::start();
    let (one, other) =
        (store(&format!("{}path = 'one'", login(&server))), store(&format!("{}path = 'other'", login(&server))));
    one.store.put(&name("a"), b"one", Put::Replace).unwrap();
    assert_eq!(other.store.get(&name("a"), None).unwrap_err().kind, ErrorKind::NotFound);
    assert!(other.store.list("", None, LIST_MAX).unwrap().is_empty());
    // Keys that are no names of ours.
    for foreign in ["hello world.txt", "~aside", "ümlaut"] {
        std::fs::write(server.bucket().join("one").join(foreign), "x").unwrap();
    }
    let listed = one.store.list("", None, LIST_MAX).unwrap();
    assert_eq!(listed.iter().map(|object| object.name.as_str()).collect::<Vec<_>>(), ["a"]);
}
