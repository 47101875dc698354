//! Objects on a WebDAV server, with a real one: Apache's.

use antiphon::storage::Opened;
use antiphon_core::store::{ErrorKind, LIST_MAX, Put, Store as _};
use antiphon_harness::{Authority, DavServer};

use super::{configured, conforms, name, survives};

/// The store of a configuration with this address.
fn store(url: &str, more: &str) -> Opened {
    configured(&format!("[snapshot]\nstore = 'webdav'\n[snapshot.webdav]\nurl = '{url}'\n{more}"))
}

#[test]
fn the_suite() {
    let server = DavServer::start();
    // Folders are made, those of `dir` too.
    let opened = store(&server.address("/back%20ups/ä/"), "");
    assert_eq!((opened.name.as_str(), &*opened.place), ("webdav", &*format!("{}/back ups/ä/", server.url())));
    conforms(&opened.store);
    assert!(opened.component.memory_peak() < 128 << 20, "{}", opened.component.memory_peak());
    assert!(server.files().join("back ups/ä").is_dir());
}

#[test]
fn the_suite_over_tls_with_an_authority_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    let server = DavServer::with(Some(&authority.issue("server", "IP:127.0.0.1")));
    let ca = format!("ca_file = '{}'", authority.certificate().display());
    conforms(&store(&server.address(""), &ca).store);
    let error = store(&server.address(""), "").component.check().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent, "{error}");
    assert!(error.hint.as_deref().unwrap_or_default().contains("`ca_file = \"PATH\"`"), "{error:?}");
}

/// To delete a folder is to delete all in it. Whoever asks for that by a name that is a folder deletes nothing.
#[test]
fn t13_a_name_that_is_a_folder_deletes_nothing() {
    let server = DavServer::start();
    let opened = store(&server.address("/x"), "");
    opened.store.put(&name("a/b/c"), b"x", Put::Replace).unwrap();
    opened.store.delete(&[name("a")]).unwrap();
    opened.store.delete(&[name("a"), name("a/b"), name("a/b/c/d")]).unwrap();
    assert_eq!(opened.store.get(&name("a/b/c"), None).unwrap(), b"x");
    assert_eq!(opened.store.get(&name("a/b"), None).unwrap_err().kind, ErrorKind::NotFound);
}

#[test]
fn x07_a_login_that_is_wrong_is_refused_and_not_shown() {
    let server = DavServer::start();
    let wrong = server.address("/").replace("canary-06-p%40ss-of-webdav", "wrong-hunter2");
    let error = store(&wrong, "").component.check().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    assert!(error.message.contains("does not know this login; see `login` and `secret`"), "{error}");
    assert!(!error.message.contains("hunter2"), "{error}");
}

#[test]
fn what_was_acknowledged_survives_a_server_that_ends_in_the_middle() {
    let mut server = DavServer::start();
    let opened = store(&server.address("/"), "");
    survives(&opened.store, || {
        server.kill();
        server.resume();
    });
}

/// What was cut off lies beside, is no object, and goes in a day.
#[test]
fn what_was_cut_off_is_no_object_and_goes() {
    let server = DavServer::start();
    let opened = store(&server.address("/"), "");
    opened.store.put(&name("a/b"), b"x", Put::Replace).unwrap();
    let beside = |letter: &str| server.files().join("a").join(format!("~{}", letter.repeat(32)));
    let (old, new) = (beside("0"), beside("1"));
    std::fs::write(&old, "half").unwrap();
    std::fs::write(&new, "half").unwrap();
    let file = std::fs::File::options().write(true).open(&old).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 86_400)).unwrap();
    let listed = opened.store.list("", None, LIST_MAX).unwrap();
    assert_eq!(listed.iter().map(|object| object.name.as_str()).collect::<Vec<_>>(), ["a/b"]);
    opened.store.check().unwrap();
    assert!(!old.exists() && new.exists());
}
