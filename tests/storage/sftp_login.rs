//! Who a server is, and who we are there: its key, and our ways to log in.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use antiphon_core::store::{ErrorKind, Store as _, StoreError};
use antiphon_harness::{SshAgent, Sshd, is_root, planted};

use super::sftp::store_of;

/// A store with this key and these known hosts, asked whether it is well.
fn check_with(sshd: &Sshd, key: &Path, known: &Path, more: &str) -> Result<(), StoreError> {
    let folder = tempfile::tempdir().unwrap();
    let url = sshd.url(folder.path());
    store_of(&format!("url = '{url}'\nkey_file = {key:?}\nknown_hosts = {known:?}\n{more}")).component.check()
}

/// The same with a file of known hosts that has this text.
fn known_as(sshd: &Sshd, text: &str) -> Result<(), StoreError> {
    let known = sshd.write("known", text);
    check_with(sshd, &sshd.own_key(), &known, "")
}

fn refused(answer: Result<(), StoreError>) -> (String, String) {
    let error = answer.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    (error.message, error.hint.unwrap_or_default())
}

/// The fingerprint as the server's owner reads it.
fn fingerprint(sshd: &Sshd, file: &str) -> String {
    sshd.keygen(&["-l", "-f", file]).split_whitespace().nth(1).unwrap().to_owned()
}

/// The refusal has all that it takes to compare the key, and the very line that makes the server known.
#[test]
fn x13_a_server_that_is_not_known_is_refused() {
    let sshd = Sshd::start();
    let (why, hint) = refused(known_as(&sshd, ""));
    assert!(why.contains(&fingerprint(&sshd, "host.pub")), "{why}");
    let line = hint.rsplit_once("known`: ").unwrap().1;
    assert_eq!(line, sshd.known_line().trim());
    known_as(&sshd, line).unwrap();
    // A file that is not there knows nobody.
    let (why, _) = refused(check_with(&sshd, &sshd.own_key(), &sshd.path("nowhere"), ""));
    assert!(why.contains("is not known"), "{why}");
}

#[test]
fn x13_a_server_whose_key_changed_is_refused() {
    let sshd = Sshd::start();
    sshd.make_key("other", "ed25519", "");
    let other = std::fs::read_to_string(sshd.path("other.pub")).unwrap();
    let (why, hint) = refused(known_as(&sshd, &format!("# a remark\n[127.0.0.1]:{} {other}", sshd.port())));
    assert!(why.contains("is not the one in line 2") && why.contains(&fingerprint(&sshd, "host.pub")), "{why}");
    assert!(hint.contains(sshd.known_line().trim()), "{hint}");
    // A server may have several keys, and one of them is enough.
    known_as(&sshd, &format!("[127.0.0.1]:{} {other}{}", sshd.port(), sshd.known_line())).unwrap();
}

#[test]
fn x13_servers_are_known_in_every_form() {
    let sshd = Sshd::start();
    let (port, key) = (sshd.port(), sshd.host_key());
    for hosts in ["127.0.0.1", "example.org,127.0.0.1", "127.0.0.*", "*,!10.0.0.1", &format!("[127.0.0.1]:{port}")] {
        known_as(&sshd, &format!("{hosts} {key}\n")).unwrap();
    }
    for hosts in ["example.org", "[127.0.0.1]:1", "*,!127.0.0.1,!*127*"] {
        let (why, _) = refused(known_as(&sshd, &format!("{hosts} {key}\n")));
        assert!(why.contains("is not known"), "{hosts}: {why}");
    }
    // Hashed, as OpenSSH does it.
    let known = sshd.write("hashed", &sshd.known_line());
    sshd.keygen(&["-H", "-f", "hashed"]);
    let text = std::fs::read_to_string(&known).unwrap();
    assert!(text.starts_with("|1|") && !text.contains("127.0.0.1"), "{text}");
    check_with(&sshd, &sshd.own_key(), &known, "").unwrap();
}

#[test]
fn x13_a_key_that_was_revoked_is_refused() {
    let sshd = Sshd::start();
    let key = sshd.host_key();
    let (why, _) = refused(known_as(&sshd, &format!("{}@revoked * {key}\n", sshd.known_line())));
    assert!(why.contains("is revoked by line 2"), "{why}");
    let (why, _) = refused(known_as(&sshd, &format!("{}@revoked 127.0.0.1 {key}\n", sshd.known_line())));
    assert!(why.contains("is revoked by line 2"), "{why}");
    // That of another host is another's.
    known_as(&sshd, &format!("{}@revoked example.org {key}\n", sshd.known_line())).unwrap();
}

/// A server whose key an authority vouches for, with these arguments for the certificate.
fn certified(args: &[&str]) -> Sshd {
    let folder = tempfile::tempdir().unwrap();
    let mut sshd = Sshd::with(&format!("Subsystem sftp internal-sftp\nInclude {}/*", folder.path().display()));
    sshd.make_key("authority", "ed25519", "");
    let usual = ["-q", "-s", "authority", "-I", "server", "-h"];
    sshd.keygen(&[&usual[..], args, &["host.pub"]].concat());
    let line = format!("HostCertificate {}\n", sshd.path("host-cert.pub").display());
    std::fs::write(folder.path().join("certificate"), line).unwrap();
    sshd.kill();
    sshd.resume();
    sshd
}

fn authority(sshd: &Sshd, hosts: &str) -> String {
    format!("@cert-authority {hosts} {}", std::fs::read_to_string(sshd.path("authority.pub")).unwrap())
}

#[test]
fn x13_a_server_that_an_authority_vouches_for() {
    let sshd = certified(&["-n", "127.0.0.1,example.org", "-V", "-1h:+1h"]);
    let here = format!("[127.0.0.1]:{}", sshd.port());
    known_as(&sshd, &authority(&sshd, &here)).unwrap();
    known_as(&sshd, &authority(&sshd, "*")).unwrap();
    // It vouches for other hosts alone.
    let (why, hint) = refused(known_as(&sshd, &authority(&sshd, "example.org")));
    assert!(why.contains("is not known"), "{why}");
    assert!(hint.ends_with(sshd.known_line().trim()), "{hint}");
    // Another vouches for this one.
    sshd.make_key("other", "ed25519", "");
    let other = std::fs::read_to_string(sshd.path("other.pub")).unwrap();
    let (why, _) = refused(known_as(&sshd, &format!("@cert-authority * {other}")));
    assert!(why.contains("by an authority that is not known"), "{why}");
    // The key in the certificate may be known by itself.
    known_as(&sshd, &format!("@cert-authority * {other}{}", sshd.known_line())).unwrap();
    // The authority itself, or the key that it vouched for, is nobody's any more.
    for revoked in ["authority.pub", "host.pub"] {
        let key = std::fs::read_to_string(sshd.path(revoked)).unwrap();
        let (why, _) = refused(known_as(&sshd, &format!("{}@revoked * {key}", authority(&sshd, "*"))));
        assert!(why.contains("is revoked by line 2"), "{why}");
    }
}

#[test]
fn x13_a_certificate_that_does_not_hold() {
    for (args, wanted) in [
        (["-n", "example.org", "-V", "-1h:+1h"], "is not for `127.0.0.1`"),
        (["-n", "127.0.0.1", "-V", "-2h:-1h"], "is not valid at this time"),
        (["-n", "127.0.0.1", "-V", "+1h:+2h"], "is not valid at this time"),
    ] {
        let sshd = certified(&args);
        let (why, _) = refused(known_as(&sshd, &authority(&sshd, "*")));
        assert!(why.contains(wanted), "{why}");
    }
}

#[test]
fn keys_of_every_kind_log_in() {
    let sshd = Sshd::start();
    let kinds = ["ed25519", "rsa", "ecdsa"].map(|kind| (kind, sshd.make_key(&format!("own-{kind}"), kind, "")));
    let keys: Vec<&Path> = kinds.iter().map(|(_, key)| key.as_path()).collect();
    sshd.authorize(&keys);
    for key in keys {
        check_with(&sshd, key, &sshd.known_hosts(), "").unwrap();
    }
}

#[test]
fn a_key_that_is_protected_takes_its_passphrase() {
    let sshd = Sshd::start();
    for kind in ["ed25519", "rsa", "ecdsa"] {
        let key = sshd.make_key(&format!("protected-{kind}"), kind, "open sesame");
        sshd.authorize(&[&key]);
        let known = sshd.known_hosts();
        let (why, hint) = refused(check_with(&sshd, &key, &known, ""));
        assert!(why.contains("passphrase, and none is set") && hint.contains("passphrase ="), "{why} {hint}");
        let (why, _) = refused(check_with(&sshd, &key, &known, "passphrase = 'closed sesame'"));
        assert!(why.contains("is not that of the private key") && !why.contains("closed"), "{why}");
        check_with(&sshd, &key, &known, "passphrase = 'open sesame'").unwrap();
        let file = sshd.write("passphrase", "open sesame\n");
        check_with(&sshd, &key, &known, &format!("passphrase = '${{file:{}}}'", file.display())).unwrap();
    }
}

#[test]
fn a_key_that_the_server_does_not_know_is_named() {
    let sshd = Sshd::start();
    let stranger = sshd.make_key("stranger", "ed25519", "");
    let (why, hint) = refused(check_with(&sshd, &stranger, &sshd.known_hosts(), ""));
    let print = fingerprint(&sshd, "stranger.pub");
    assert!(why.contains("does not let") && why.contains(&print), "{why}");
    assert!(hint.contains("publickey"), "{hint}");
    let (why, _) = refused(check_with(&sshd, &sshd.path("nowhere"), &sshd.known_hosts(), ""));
    assert!(why.contains("cannot read the private key"), "{why}");
    let (why, _) = refused(check_with(&sshd, &sshd.path("host.pub"), &sshd.known_hosts(), ""));
    assert!(why.contains("holds no private key"), "{why}");
}

/// The command line's own words, with these variables. A folder for what it compiles is shared with nobody.
fn command(sshd: &Sshd, lines: &str, socket: Option<&Path>) -> Output {
    let known = sshd.known_hosts();
    let file = sshd.write(
        "antiphon.toml",
        &format!("db_path = 'app.db'\n[snapshot]\nstore = 'sftp'\n[snapshot.sftp]\nknown_hosts = {known:?}\n{lines}"),
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
    command.args(["storage", "check", "--config"]).arg(file).env_clear();
    command.env("XDG_CACHE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("program"));
    if let Some(socket) = socket {
        command.env("SSH_AUTH_SOCK", socket);
    }
    let output = command.output().unwrap();
    planted::look("storage check", "commands", said(&output));
    output
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_keys_of_an_agent_log_in() {
    let (sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    let lines = format!("url = '{}'\nagent = true", sshd.url(folder.path()));
    for kind in ["ed25519", "rsa", "ecdsa"] {
        let (stranger, key) =
            (sshd.make_key(&format!("no-{kind}"), kind, ""), sshd.make_key(&format!("yes-{kind}"), kind, ""));
        sshd.authorize(&[&key]);
        // The server knows only the second one.
        let agent = SshAgent::with(&[&stranger, &key]);
        let output = command(&sshd, &lines, Some(&agent.socket()));
        assert!(output.status.success(), "{}", said(&output));
        let agent = SshAgent::with(&[&stranger]);
        let output = command(&sshd, &lines, Some(&agent.socket()));
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
        assert!(said(&output).contains("the agent's key SHA256:"), "{}", said(&output));
    }
    let agent = SshAgent::with(&[]);
    let output = command(&sshd, &lines, Some(&agent.socket()));
    assert!(said(&output).contains("has no key"), "{}", said(&output));
    let output = command(&sshd, &lines, Some(&folder.path().join("nobody")));
    assert!(said(&output).contains("cannot ask the SSH agent"), "{}", said(&output));
    let output = command(&sshd, &lines, None);
    assert!(said(&output).contains("`SSH_AUTH_SOCK`"), "{}", said(&output));
}

/// As HarmonyLite's configuration has it: user and password in the address.
#[test]
fn x07_a_password_logs_in_and_is_shown_nowhere() {
    if !is_root() {
        eprintln!("a server with users of its own takes root, and nothing is shown here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for more in ["", "AuthenticationMethods password"] {
        let sshd = Sshd::with_password("right p@ss/word", more);
        let url = |password: &str| format!("sftp://bob{password}@127.0.0.1:{}{}", sshd.port(), folder.path().display());
        let lines = format!("url = '{}'", url(":right%20p%40ss%2Fword"));
        let output = command(&sshd, &lines, None);
        assert!(output.status.success(), "{}\n{}", said(&output), sshd.said());
        assert!(!said(&output).contains("right"), "{}", said(&output));
        let lines = format!("url = '{}'\npassword = 'right p@ss/word'", url(""));
        assert!(command(&sshd, &lines, None).status.success());
        let lines = format!("url = '{}'", url(":wrong-one"));
        let output = command(&sshd, &lines, None);
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
        let words = said(&output);
        assert!(words.contains("`bob`") && words.contains("password") && !words.contains("wrong-one"), "{words}");
    }
}

/// What is wrong, and what to do, for everything that may be.
#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut sshd = Sshd::with("Subsystem sftp internal-sftp -R");
    let key = format!("key_file = {:?}", sshd.own_key());
    let lines = format!("url = '{}'\n{key}", sshd.url(folder.path()));
    let output = command(&sshd, &lines, None);
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    assert!(said(&output).contains("cannot write to the folder"), "{}", said(&output));
    let lines = format!("url = '{}'\n{key}", sshd.url(&folder.path().join("new")));
    let output = command(&sshd, &lines, None);
    assert!(said(&output).contains("cannot make the folder"), "{}", said(&output));
    let output = command(&sshd, &format!("url = '{}'", sshd.url(folder.path())), None);
    assert!(said(&output).contains("how to log in") && said(&output).contains("key_file"), "{}", said(&output));
    sshd.kill();
    let output = command(&sshd, &lines, None);
    assert_eq!(output.status.code(), Some(75), "{}", said(&output));
    assert!(
        said(&output).contains("cannot reach the SSH server at") && said(&output).contains("hint:"),
        "{}",
        said(&output)
    );
    let sshd = Sshd::with("");
    let lines = format!("url = '{}'\nkey_file = {:?}", sshd.url(folder.path()), sshd.own_key());
    let output = command(&sshd, &lines, None);
    assert!(said(&output).contains("has no SFTP") && said(&output).contains("Subsystem"), "{}", said(&output));
}
