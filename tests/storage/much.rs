//! Megabytes through each backend, by the program itself: 64 in objects of 8 MiB, and 2,048 with `FULL`.
//!
//! `antiphon storage bench` compares every object with what it put, and removes it.

use antiphon_harness::{Broker, DavServer, Place, S3Server, Sshd};

/// What the host itself may have, besides its instances, with four objects on their way.
const HOST_BYTES_MAX: u64 = 150 << 20;

/// Carries it, and looks how much memory that took.
fn carried(lines: &str) {
    let place = Place::new(antiphon_harness::program!());
    place.file("antiphon.toml", &format!("db_path = 'app.db'\n{lines}"));
    let objects = if std::env::var_os("FULL").is_some() { "256" } else { "8" };
    // Whoever is asked for the first time compiles a component, once and for all.
    assert_eq!(place.run(["storage", "check", "--config", "antiphon.toml"]).code, Some(0));
    let asked = ["storage", "bench", "--config", "antiphon.toml", "--size", "8 MiB", "--count", objects, "--json"];
    // However long that takes.
    let said = place.command(asked).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let said: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    eprintln!("{said}");
    assert!(said["guest_memory_bytes"].as_u64().unwrap() < 128 << 20, "{said}");
    assert!(said["host_memory_bytes"].as_u64().unwrap() < HOST_BYTES_MAX, "{said}");
}

#[test]
fn to_a_folder() {
    carried("[snapshot]\nstore = 'file'\n[snapshot.file]\npath = 'objects'");
}

#[test]
fn to_nats() {
    let broker = Broker::start();
    carried(&format!("[snapshot]\nstore = 'nats'\n[nats]\nurls = ['{}']", broker.url()));
}

#[test]
fn to_s3() {
    let server = S3Server::start();
    let (url, key, secret) = (server.url(), S3Server::KEY, S3Server::SECRET);
    let login = format!("endpoint = '{url}'\nbucket = 'bucket'\naccess_key = '{key}'\nsecret = '{secret}'");
    carried(&format!("[snapshot]\nstore = 's3'\n[snapshot.s3]\n{login}"));
}

#[test]
fn to_webdav() {
    let server = DavServer::start();
    let (login, secret) = (DavServer::LOGIN, DavServer::SECRET);
    let url = format!("{}?dir=/much&login={login}&secret={secret}", server.url());
    carried(&format!("[snapshot]\nstore = 'webdav'\n[snapshot.webdav]\nurl = '{url}'"));
}

#[test]
fn to_an_sftp_server() {
    let (sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    let (url, key, known) = (sshd.url(folder.path()), sshd.own_key(), sshd.known_hosts());
    let login = format!("url = '{url}'\nkey_file = {key:?}\nknown_hosts = {known:?}");
    carried(&format!("[snapshot]\nstore = 'sftp'\n[snapshot.sftp]\n{login}"));
}
