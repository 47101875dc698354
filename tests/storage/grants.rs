//! What is granted over HTTP, and what is not: of what is not, nothing leaves, and the grant that is missing is named.

use antiphon_core::store::{ErrorKind, Put, Store as _, StoreError};
use antiphon_harness::{Answer, Asked, Faulty, mounts_apart, storage_guest};
use antiphon_plugin::{Grants, Limits, Origin, Pace, Socket, Source, sha256};

use super::{HOST, configured, name, official, refused};

/// A component of somebody's own, which is granted these lines; it speaks S3 with `endpoint`.
fn custom(endpoint: &str, grants: &str) -> StoreError {
    let bytes = official("s3").bytes;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.wasm");
    std::fs::write(&file, &bytes).unwrap();
    let lines = format!(
        "[snapshot]\nstore = 'plugin:mine'\n[plugin.mine]\nsource = 'file:{}'\nsha256 = '{}'\n[plugin.mine.settings]\n\
         endpoint = '{endpoint}'\nbucket = 'bucket'\naccess_key = 'AKKEY'\nsecret = 'hunter2-secret'\n\
         [plugin.mine.grants]\n{grants}\n",
        file.display(),
        sha256(&bytes)
    );
    configured(&lines).component.put(&name("a"), b"x", Put::Replace).unwrap_err()
}

fn short(lines: &str) -> StoreError {
    configured(&format!("[snapshot]\nstore = 's3'\n[snapshot.s3]\nbucket = 'bucket'\n{lines}"))
        .component
        .put(&name("a"), b"x", Put::Replace)
        .unwrap_err()
}

fn hint(error: &StoreError) -> &str {
    assert_eq!(error.kind, ErrorKind::Permanent, "{error}");
    error.hint.as_deref().unwrap_or_default()
}

fn fine() -> Faulty {
    Faulty::start(|_| Answer::of(200, ""))
}

#[test]
fn t12_another_host_or_port_is_not_spoken_with() {
    let (granted, other) = (fine(), fine());
    let error = custom(&other.url(), &format!("http = ['{}']\nprivate_networks = true", granted.url()));
    assert!(
        error.message.contains(&format!("`{}` is not among the servers it may speak with", other.url())),
        "{error}"
    );
    assert!(
        hint(&error).contains(&format!("add `{}` to `http` under `[plugin.mine.grants]`", other.url())),
        "{error:?}"
    );
    // The same host by another name, and by another scheme.
    for endpoint in [format!("http://localhost:{}", granted.port()), format!("https://127.0.0.1:{}", granted.port())] {
        let error = custom(&endpoint, &format!("http = ['{}']\nprivate_networks = true", granted.url()));
        assert!(hint(&error).contains(&endpoint), "{error:?}");
    }
    assert!(granted.asked().is_empty() && other.asked().is_empty());
}

#[test]
fn t12_without_a_grant_it_is_not_even_loaded() {
    let bytes = official("s3").bytes;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.wasm");
    std::fs::write(&file, &bytes).unwrap();
    let (file, sha256) = (file.display(), sha256(&bytes));
    let lines =
        format!("[snapshot]\nstore = 'plugin:mine'\n[plugin.mine]\nsource = 'file:{file}'\nsha256 = '{sha256}'\n");
    let Err(failure) = refused(&lines) else { panic!("it was loaded") };
    let said = format!("{:?}", failure);
    assert!(said.contains("plugin.mine.grants.http"), "{said}");
}

#[test]
fn t12_a_name_that_leads_to_this_machine_is_not_followed() {
    let server = fine();
    let endpoint = format!("http://localhost:{}", server.port());
    let error = custom(&endpoint, &format!("http = ['{endpoint}']"));
    assert!(error.message.contains("an address of this machine, and only public ones are granted"), "{error}");
    assert!(hint(&error).contains("`private_networks = true` under `[plugin.mine.grants]`"), "{error:?}");
    // Nor is an address, even if it is granted: who grants it says so.
    let error = custom(&server.url(), &format!("http = ['{}']", server.url()));
    assert!(hint(&error).contains("private_networks"), "{error:?}");
    assert!(server.asked().is_empty());
    // With that it is spoken with: the answer of a fine server is no trouble.
    let grants = format!("http = ['{endpoint}']\nprivate_networks = true");
    let reached = std::panic::catch_unwind(|| custom(&endpoint, &grants));
    assert!(reached.is_err() && !server.asked().is_empty());
}

/// Where clouds tell their secrets to whoever asks.
#[test]
fn t12_metadata_addresses_are_refused_even_if_named() {
    for endpoint in ["http://169.254.169.254", "http://[fe80::1]", "http://[::ffff:169.254.169.254]:80"] {
        let error = short(&format!("endpoint = '{endpoint}'"));
        assert!(error.message.contains("and only public ones are granted"), "{error}");
        assert!(hint(&error).contains("`private_networks = true` under `[snapshot.s3]`"), "{error:?}");
    }
}

/// Whoever writes an address grants it by that, and grants nothing else: no secret follows a redirect elsewhere.
#[test]
fn f10_t12_a_redirect_to_another_host_is_not_followed() {
    let other = fine();
    let to = format!("{}/elsewhere", other.url());
    let leads = Faulty::start(move |_| Answer::of(307, "").header("location", &to));
    let error = short(&format!("endpoint = '{}'\naccess_key = 'AKKEY'\nsecret = 'hunter2-secret'", leads.url()));
    assert!(error.message.contains(&format!("`{}` is not among the servers", other.url())), "{error}");
    assert!(hint(&error).contains(&format!("`endpoint = \"{}\"`", other.url())), "{error:?}");
    let opened = configured(&format!(
        "[snapshot]\nstore = 'webdav'\n[snapshot.webdav]\nurl = '{}?login=bob&secret=hunter2'",
        leads.url()
    ));
    let error = opened.component.get(&name("a"), None).unwrap_err();
    assert!(hint(&error).contains(&other.url()), "{error:?}");
    assert!(other.asked().is_empty(), "{:?}", other.asked());
    assert!(!leads.asked().is_empty());
}

#[test]
fn f10_a_redirect_on_the_same_host_is_followed() {
    let server = Faulty::start(|asked: &Asked| match asked.path.contains("/there/") {
        true => Answer::of(200, asked.header("authorization").split(' ').next().unwrap()),
        false => Answer::of(308, "").header("location", "/there/a"),
    });
    let lines = format!("[snapshot]\nstore = 'webdav'\n[snapshot.webdav]\nurl = '{}?login=a&secret=b'", server.url());
    assert_eq!(configured(&lines).component.get(&name("a"), None).unwrap(), b"Basic");
    // One that leads round in a circle has an end.
    let circle = Faulty::start(|_| Answer::of(302, "").header("location", "/x/y"));
    let lines = format!("[snapshot]\nstore = 'webdav'\n[snapshot.webdav]\nurl = '{}'", circle.url());
    let error = configured(&lines).component.get(&name("a"), None).unwrap_err();
    assert!(error.message.contains("round in a circle"), "{error}");
}

/// A bucket that is named in the host is at another host, which whoever asks for that grants by it.
#[test]
fn t12_a_bucket_in_the_host_is_granted_with_it() {
    let error = short("endpoint = 'http://s3.invalid'\nforce_path_style = false");
    assert_eq!(error.kind, ErrorKind::Temporary, "{error}");
    assert!(error.message.contains("http://bucket.s3.invalid: its name is not known"), "{error}");
}

#[test]
fn grants_and_addresses_that_make_no_sense_are_named() {
    for (lines, words) in [
        ("[snapshot]\nstore = 's3'\n[snapshot.s3]\nendpoint = 'http://x'", "`snapshot.s3.bucket` is not set"),
        (
            "[snapshot]\nstore = 's3'\n[snapshot.s3]\nbucket = 'b'\nendpoint = 'http://x/bucket'",
            "cannot use `snapshot.s3.endpoint`",
        ),
        (
            "[snapshot]\nstore = 's3'\n[snapshot.s3]\nbucket = 'b'\nca_file = '/nowhere.pem'",
            "cannot use `snapshot.s3.ca_file`: cannot read `/nowhere.pem`",
        ),
        ("[snapshot]\nstore = 'webdav'", "`snapshot.webdav.url` is not set"),
    ] {
        let Err(failure) = refused(lines) else { panic!("{lines}") };
        assert!(failure.to_string().contains(words), "{failure}");
    }
}

/// Names that lead where their grants don't, as whoever answers for them may have it.
const NAMES: [(&str, &str, &str); 7] = [
    ("169.254.169.254", "metadata.test", "a link-local address"),
    ("fe80::1", "metadata-six.test", "a link-local address"),
    ("10.1.2.3", "private.test", "an address of a private network"),
    ("192.168.7.7", "neighbour.test", "an address of a private network"),
    ("fd00:ec2::254", "private-six.test", "an address of a private network"),
    ("127.0.0.1", "here.test", "an address of this machine"),
    ("::1", "here-six.test", "an address of this machine"),
];

/// A line of shell that has the system look these names up in a table of the test's own.
fn names() -> String {
    let lines: String = NAMES.iter().map(|(address, name, _)| format!("{address} {name}\\n")).collect();
    // One that leads to somebody who is public, and to this machine after that.
    let lines = format!("127.0.0.1 localhost\\n{lines}192.0.2.1 both.test\\n127.0.0.1 both.test\\n");
    format!("printf '{lines}' > \"$1/hosts\" && mount --bind \"$1/hosts\" /etc/hosts")
}

/// What a name was granted for is what everybody can reach; where it leads elsewhere, nobody is spoken to.
#[test]
fn t12_names_that_lead_to_private_addresses_are_refused() {
    let Some(_) = mounts_apart(&names()) else { return };
    let server = fine();
    for (address, host, what) in NAMES {
        let endpoint = format!("http://{host}:{}", server.port());
        let said = format!("`{host}` is at {address}, {what}, and only public ones are granted");
        let error = custom(&endpoint, &format!("http = ['{endpoint}']"));
        assert!(error.message.contains(&said), "{error}");
        assert!(hint(&error).contains("`private_networks = true` under `[plugin.mine.grants]`"), "{error:?}");
        let error = short(&format!("endpoint = '{endpoint}'"));
        assert!(error.message.contains(&said), "{error}");
        assert!(hint(&error).contains("`private_networks = true` under `[snapshot.s3]`"), "{error:?}");
        let lines = format!("[snapshot]\nstore = 'webdav'\n[snapshot.webdav]\nurl = '{endpoint}'");
        let error = configured(&lines).component.get(&name("a"), None).unwrap_err();
        assert!(error.message.contains(&said), "{error}");
        assert!(hint(&error).contains("`private_networks = true` under `[snapshot.webdav]`"), "{error:?}");
    }
    // Of a name with several addresses none but public ones are tried.
    let endpoint = format!("http://both.test:{}", server.port());
    custom(&endpoint, &format!("http = ['{endpoint}']"));
    assert!(server.asked().is_empty(), "{:?}", server.asked());
    // Who grants private networks means that.
    let endpoint = format!("http://here.test:{}", server.port());
    let lines = format!("[snapshot]\nstore = 'webdav'\n[snapshot.webdav]\nurl = '{endpoint}'\nprivate_networks = true");
    configured(&lines).component.get(&name("a"), None).unwrap();
    assert!(!server.asked().is_empty());
}

/// The same for one with sockets of its own: its names are looked up before it runs.
#[test]
fn t12_sockets_to_names_that_lead_to_private_addresses_are_refused() {
    let Some(_) = mounts_apart(&names()) else { return };
    for (address, host, _) in NAMES {
        let sockets = vec![Socket { host: host.to_owned(), port: 80 }];
        let grants = Grants { sockets, ..Grants::default() };
        let source =
            Source { name: "mine".into(), origin: Origin::Official, bytes: storage_guest(&[], &[], "", "").into() };
        let loaded = HOST.storage(&source, &[], grants.clone(), Limits::default(), Pace::default());
        let Err(error) = loaded else { panic!("it was loaded") };
        let said = error.reason().to_string();
        assert!(said.contains(&format!("a connection to `{host}:80`")), "{said}");
        assert!(said.contains(&format!("it is {address}")), "{said}");
        assert!(said.contains("`private_networks` among its grants is not true"), "{said}");
        let grants = Grants { private_networks: true, ..grants };
        HOST.storage(&source, &[], grants, Limits::default(), Pace::default()).unwrap().check().unwrap();
    }
}

/// An answer that leads to another host is one more way to it, and so is one that leads to another port.
#[test]
fn f10_t12_a_redirect_leads_to_no_other_name_or_port() {
    let Some(_) = mounts_apart(&names()) else { return };
    let other = fine();
    for (_, host, _) in NAMES {
        let to = format!("http://{host}:{}", other.port());
        let location = format!("{to}/elsewhere");
        let leads = Faulty::start(move |_| Answer::of(307, "").header("location", &location));
        // What is granted is the name of the one that leads there, and even private networks.
        let endpoint = format!("http://here.test:{}", leads.port());
        let grants = format!("http = ['{endpoint}']\nprivate_networks = true");
        let error = custom(&endpoint, &grants);
        assert!(error.message.contains(&format!("`{to}` is not among the servers it may speak with")), "{error}");
        assert!(hint(&error).contains(&format!("add `{to}` to `http` under `[plugin.mine.grants]`")), "{error:?}");
        assert!(!leads.asked().is_empty());
    }
    assert!(other.asked().is_empty(), "{:?}", other.asked());
}
