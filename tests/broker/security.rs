//! TLS, logins, and what goes over the wire without them.

use crate::site::{configure, count, degraded, place, replicates, site, start};
use antiphon_harness::{Authority, Broker, Place, Site, eventually, settled};
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

/// A server's lines for TLS, which asks for certificates of this authority.
fn tls((certificate, key): &(PathBuf, PathBuf), authority: &Path) -> String {
    format!("tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {authority:?}, verify: true, timeout: 5 }}")
}

/// A node's lines for TLS.
fn with_tls(broker: &Broker, (certificate, key): &(PathBuf, PathBuf), authority: &Path) -> String {
    format!(
        "urls = ['{}']\nrequire_tls = true\nca_file = {authority:?}\ncert_file = {certificate:?}\nkey_file = {key:?}",
        broker.url()
    )
}

/// X10, F16: certificates of an authority of one's own on both sides; when all of them are replaced at once, nodes go
/// on with the new ones and never in plain text.
#[test]
fn x10_f16_certificates_are_checked_and_replaced_while_nodes_run() {
    let place = place();
    let folder = place.path("tls");
    let (one, other) = (Authority::new(&folder, "one"), Authority::new(&folder, "other"));
    let copy = |from: &Path, to: &str| std::fs::copy(from, folder.join(to)).unwrap();
    let put = |authority: &Authority, generation: &str| {
        let server = authority.issue(&format!("server-{generation}"), "IP:127.0.0.1,DNS:localhost");
        let node = authority.issue(&format!("node-{generation}"), "DNS:node");
        copy(&server.0, "server.pem");
        copy(&server.1, "server.key");
        copy(&node.0, "node.pem");
        copy(&node.1, "node.key");
        copy(&authority.certificate(), "ca.pem");
    };
    put(&one, "old");
    let files = |name: &str| (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    let mut broker = Broker::with(&tls(&files("server"), &folder.join("ca.pem")));
    let nats = with_tls(&broker, &files("node"), &folder.join("ca.pem"));
    let (mut a, mut b) = (site(&place, "a", "", &nats), site(&place, "b", "", &nats));
    start(&mut a);
    start(&mut b);
    replicates(&a, &b, 1);

    // A node that trusts another authority sees who is there, and says so.
    let stranger = other.issue("stranger", "DNS:node");
    let mut c = site(&place, "c", "", &with_tls(&broker, &stranger, &other.certificate()));
    c.spawn();
    c.wait_for_words("no NATS server can be reached; waiting");
    assert!(c.said().contains("certificate"), "{}", c.said());

    put(&other, "new");
    a.sql("INSERT INTO t VALUES (2, 'while certificates change')");
    broker.kill();
    broker.resume();
    a.wait_for_words("connected to NATS");
    eventually("all goes on", || count(&b) == "2");
    replicates(&b, &a, 3);
    settled(&[&a, &b]);
    // What was refused before is let in: only its own certificate was wrong.
    eventually("the third joins", || count(&c) == "3");
}

/// F16: a login that is replaced in its file is used at once, and not at the next start.
#[test]
fn f16_a_replaced_seed_is_used_at_the_next_connection() {
    let place = place();
    let (old, new) = (KeyPair::new_user(), KeyPair::new_user());
    let seed = place.file("seed", &old.seed().unwrap());
    let users =
        format!("authorization {{ users: [ {{ nkey: {} }}, {{ nkey: {} }} ] }}", old.public_key(), new.public_key());
    let broker = Broker::with(&users);
    let nats = format!("urls = ['{}']\nseed_file = {seed:?}", broker.url());
    let mut a = site(&place, "a", "", &nats);
    start(&mut a);
    place.file("seed", &format!("{}\n", new.seed().unwrap()));
    a.wait_for_words("files of the login or of TLS were replaced; connecting anew with them");
    a.sql("INSERT INTO t VALUES (1, 'x')");
    eventually("it is sent", || a.is_quiet());
}

/// X10: a server that speaks no TLS, one whose certificate is another host's: neither is spoken with.
#[test]
fn x10_without_the_right_certificate_nothing_is_said() {
    let place = place();
    let folder = place.path("tls");
    let authority = Authority::new(&folder, "one");
    let node = authority.issue("node", "DNS:node");
    let elsewhere = authority.issue("elsewhere", "DNS:other.example");
    let plain = Broker::start();
    let wrong = Broker::with(&tls(&elsewhere, &authority.certificate()));
    for (name, broker) in [("plain", &plain), ("wrong", &wrong)] {
        let mut a = site(&place, name, "", &with_tls(broker, &node, &authority.certificate()));
        a.sql("INSERT INTO t VALUES (1, 'secret')");
        a.spawn();
        a.wait_for_words("no NATS server can be reached; waiting");
        assert!(!a.said().contains("connected to NATS"), "{}", a.said());
        assert!(a.is_running());
    }
    let stored = Path::new(&plain.store()).join("jetstream/$G/streams/harmonylite-changes-1");
    assert!(!stored.exists(), "a stream was made in plain text");
}

/// A claim that `nsc` would make, signed by its issuer.
fn jwt(issuer: &KeyPair, subject: &KeyPair, name: &str, kind: &str) -> String {
    let limits = "{\"subs\":-1,\"data\":-1,\"payload\":-1,\"imports\":-1,\"exports\":-1,\"wildcards\":true,\"conn\":-1,\
                  \"leaf\":-1,\"mem_storage\":-1,\"disk_storage\":-1,\"streams\":-1,\"consumer\":-1}";
    let nats = match kind {
        "account" => format!("{{\"limits\":{limits},\"type\":\"account\",\"version\":2}}"),
        // The servers' own account stores nothing.
        "system" => "{\"limits\":{\"subs\":-1,\"data\":-1,\"payload\":-1,\"conn\":-1,\"leaf\":-1},\"type\":\"account\",\"version\":2}".to_owned(),
        "user" => {
            "{\"pub\":{},\"sub\":{},\"subs\":-1,\"data\":-1,\"payload\":-1,\"type\":\"user\",\"version\":2}".to_owned()
        }
        kind => format!("{{\"type\":\"{kind}\",\"version\":2}}"),
    };
    let claims = format!(
        "{{\"jti\":\"{name}\",\"iat\":1700000000,\"iss\":\"{}\",\"name\":\"{name}\",\"sub\":\"{}\",\"nats\":{nats}}}",
        issuer.public_key(),
        subject.public_key()
    );
    let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let body = format!("{}.{}", encode("{\"typ\":\"JWT\",\"alg\":\"ed25519-nkey\"}"), encode(&claims));
    let signature = BASE64URL_NOPAD.encode(&issuer.sign(body.as_bytes()).unwrap());
    format!("{body}.{signature}")
}

/// Every way to log in works, a wrong login does not, and no secret is ever written down.
#[test]
fn every_login_works_and_no_secret_is_written_down() {
    let place = place();
    let keys = KeyPair::new_user();
    let seed = keys.seed().unwrap();
    let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let system = KeyPair::new_account();
    let creds = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n\
         ------END USER NKEY SEED------\n",
        jwt(&account, &user, "node", "user"),
        user.seed().unwrap()
    );
    let operated = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{}: {}\n{}: {}\n}}",
        jwt(&operator, &operator, "operator", "operator"),
        system.public_key(),
        system.public_key(),
        jwt(&operator, &system, "SYS", "system"),
        account.public_key(),
        jwt(&operator, &account, "account", "account")
    );
    place.file("password", "hunter2-in-a-file\n");
    let seed_file = place.file("seed", &seed);
    let creds_file = place.file("creds", &creds);
    let files = [place.path("password"), seed_file.clone(), creds_file.clone()];
    for file in &files {
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let named = "authorization { user: bob, password: \"hunter2-in-a-file\" }";
    let password = |of: &str| format!("user_name = 'bob'\nuser_password = '{of}'");
    let in_file = password(&format!("${{file:{}}}", place.path("password").display()));
    let logins: [(&str, String, String, bool); 6] = [
        ("by-file", named.to_owned(), in_file, true),
        ("by-environment", named.to_owned(), password("${env:BOBS}"), true),
        ("by-address", "authorization { user: \"b@b\", password: hunter2-in-a-url }".to_owned(), String::new(), true),
        (
            "by-seed",
            format!("authorization {{ users: [ {{ nkey: {} }} ] }}", keys.public_key()),
            format!("seed_file = {seed_file:?}"),
            true,
        ),
        ("by-creds", operated, format!("creds_file = {creds_file:?}"), true),
        ("wrong", named.to_owned(), password("hunter2-that-is-wrong"), false),
    ];
    for (name, server, node, works) in logins {
        let broker = Broker::with(&server);
        let url = match name {
            "by-address" => broker.url().replace("nats://", "nats://b%40b:hunter2-in-a-url@"),
            _ => broker.url(),
        };
        let mut a = site(&place, name, "", &format!("urls = ['{url}']\n{node}"));
        a.set("BOBS", Some("hunter2-in-a-file"));
        a.set("ANTIPHON_LOGGING__VERBOSE", Some("true"));
        a.sql("INSERT INTO t VALUES (1, 'x')");
        if works {
            start(&mut a);
            eventually("it is sent", || a.is_quiet());
        } else {
            a.spawn();
            a.wait_for_words("no NATS server can be reached; waiting");
            assert!(a.said().to_lowercase().contains("authorization violation"), "{}", a.said());
        }
        let shown = place.run(["config", "show", "--config", &format!("{name}.toml")]);
        let status = place.run(["status", "--config", &format!("{name}.toml")]);
        let doctor = place.run(["doctor", "--config", &format!("{name}.toml")]);
        let report = std::fs::read_to_string(a.state().join("status.json")).unwrap_or_default();
        let all = [a.said(), shown.stdout, status.stdout, status.stderr, doctor.stdout, doctor.stderr, report].concat();
        for secret in ["hunter2", seed.as_str(), &user.seed().unwrap()] {
            assert!(!all.contains(secret), "{name}: a secret is written down:\n{all}");
        }
    }
}

/// A way to a broker that tells the client another address of its own than it has: as a server elsewhere would.
fn elsewhere(broker: &Broker) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let port = broker.port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", port)).unwrap());
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
            std::thread::spawn(move || {
                let mut first = vec![0; 65536];
                let read = server.read(&mut first).unwrap_or(0);
                let info = String::from_utf8_lossy(&first[..read]).replace("\"127.0.0.1\"", "\"192.0.2.7\"");
                let _ = client.write_all(info.as_bytes());
                let _ = std::io::copy(&mut server, &mut client);
            });
        }
    });
    url
}

/// X10: plain text without a login to another machine is obeyed, said once, and shown.
#[test]
fn x10_plain_text_to_another_machine_is_said_once_and_shown() {
    let (place, broker) = (place(), Broker::start());
    let words = "goes to another machine in plain text and without a login";
    let mut near = site(&place, "near", "", &format!("urls = ['{}']", broker.url()));
    let mut far = site(&place, "far", "", &format!("urls = ['{}']", elsewhere(&broker)));
    start(&mut near);
    start(&mut far);
    eventually("it is shown", || degraded(&place, "far", "transport").contains(words));
    replicates(&far, &near, 1);
    assert_eq!(far.said().matches(words).count(), 1, "{}", far.said());
    assert_eq!((degraded(&place, "near", "transport"), near.said().contains(words)), (String::new(), false));
    let doctor = place.run(["doctor", "--config", "far.toml"]);
    assert!(doctor.stdout.contains(words), "{}{}", doctor.stdout, doctor.stderr);
    let text = place.run(["status", "--config", "far.toml"]).stdout;
    assert!(text.contains("  degraded   transport: "), "{text}");
}

/// The template of permissions, filled in for these nodes, with a password for each.
fn permitted(nodes: &[u64]) -> String {
    let template = include_str!("../../examples/nats/permissions.conf");
    let (head, rest) = template.split_once("    # A node, number 1.\n").unwrap();
    let (node, tail) = rest.split_once("    # End of the node.\n").unwrap();
    let filled = nodes
        .iter()
        .map(|number| node.replace(".1.", &format!(".{number}.")).replace("node-1", &format!("node-{number}")));
    format!("{head}{}{tail}", filled.collect::<String>())
}

fn member(place: &Place, broker: &Broker, number: u64) -> Site {
    let name = format!("n{number}");
    let nats =
        format!("urls = ['{}']\nuser_name = 'node-{number}'\nuser_password = 'change-me-node-{number}'", broker.url());
    configure(place, &place.site(&name, crate::site::TABLE), &name, &format!("node_id = {number}"), &nats)
}

/// X11, X01: with the permissions of the template nodes do all they need, and nothing in another's name or to the streams.
#[tokio::test]
async fn x11_nodes_work_with_the_least_permissions() {
    let place = place();
    let broker = Broker::with(&permitted(&[1, 2]));
    let (mut a, mut b) = (member(&place, &broker, 1), member(&place, &broker, 2));
    start(&mut a);
    start(&mut b);
    replicates(&a, &b, 1);
    replicates(&b, &a, 2);
    a.sql("INSERT INTO t VALUES (3, randomblob(3000000))");
    eventually("large rows, too", || count(&b) == "3");
    b.term();
    start(&mut b);
    replicates(&a, &b, 4);
    settled(&[&a, &b]);
    let status = crate::site::status(&place, "n1");
    assert_eq!(status["members"].as_array().map(Vec::len), Some(2), "{status}");
    assert!(!a.said().contains("refuses") && !b.said().contains("refuses"), "{}{}", a.said(), b.said());

    // The same login, in other hands.
    let client = async_nats::ConnectOptions::with_user_and_password("node-2".to_owned(), "change-me-node-2".to_owned())
        .connect(broker.url())
        .await
        .unwrap();
    let incarnation = a.one("SELECT value FROM __antiphon___meta WHERE name = 'incarnation'").parse::<i64>().unwrap();
    let entries = || a.one("SELECT seq FROM __antiphon___position");
    let before = entries();
    for subject in [
        format!("harmonylite-change-log-1.1.{}", incarnation.cast_unsigned()),
        "harmonylite-change-log-1.666.1".to_owned(),
        "$KV.harmonylite-changes-kv.claim.1.1".to_owned(),
        "$JS.API.STREAM.DELETE.harmonylite-changes-1".to_owned(),
        "$JS.API.STREAM.PURGE.harmonylite-changes-1".to_owned(),
        "$JS.API.STREAM.MSG.DELETE.harmonylite-changes-1".to_owned(),
        "$JS.API.STREAM.UPDATE.harmonylite-changes-1".to_owned(),
        "$JS.API.STREAM.DELETE.KV_harmonylite-changes-kv".to_owned(),
    ] {
        let request = client.request(subject.clone(), "{}".into());
        let answered = tokio::time::timeout(std::time::Duration::from_millis(500), request).await;
        assert!(!matches!(answered, Ok(Ok(_))), "{subject}: {answered:?}");
    }
    assert_eq!(entries(), before);
    replicates(&a, &b, 5);
    replicates(&b, &a, 6);
    settled(&[&a, &b]);
}
