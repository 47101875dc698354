//! X07: secrets are planted in every place that takes one, nodes and commands work and fail with them at the highest level
//! of log lines, and then all that was said, served, listed and written is searched.

use super::site::{TABLE, place, start};
use antiphon_harness::health::at;
use antiphon_harness::http::{Receiver, get, news};
use antiphon_harness::{Answer, Broker, DavServer, Faulty, Place, S3Server, Site, Sshd, eventually, planted};
use nkeys::KeyPair;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Something that nobody may see: what it is, and how it would look.
type Planted = (&'static str, String);

/// All that came to light, by where it was found.
#[derive(Default)]
struct Found(Vec<(String, Vec<u8>)>);

impl Found {
    fn add(&mut self, place: impl Into<String>, text: impl Into<Vec<u8>>) {
        self.0.push((place.into(), text.into()));
    }

    /// A command's words, whether it could do what it was asked or not.
    fn command(&mut self, place: &Place, arguments: &[&str]) {
        let ended = place.run(arguments);
        let name = arguments.join(" ");
        assert!(!ended.stderr.contains("panicked"), "{name}: {}", ended.stderr);
        self.add(format!("stdout of {name}"), ended.stdout);
        self.add(format!("stderr of {name}"), ended.stderr);
    }

    /// How every process of this machine was started.
    fn processes(&mut self) {
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            if let Ok(started) = std::fs::read(process.path().join("cmdline")) {
                self.add(format!("{}/cmdline", process.path().display()), started);
            }
        }
    }

    /// Every file below a folder, but those in which the secrets were planted.
    fn files(&mut self, folder: &Path, planted: &[PathBuf]) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                self.files(&path, planted);
            } else if !planted.contains(&path) {
                // A file that is gone by now holds nothing.
                self.add(path.display().to_string(), std::fs::read(&path).unwrap_or_default());
            }
        }
    }

    /// All that a node serves.
    fn served(&mut self, site: &Site) {
        let said = site.said();
        // One that waits for its log serves nothing yet.
        for what in ["page", "metrics"].into_iter().filter(|what| said.contains(&format!("\n  {what} "))) {
            let at = at(site, what);
            if what == "page" {
                self.add("news of a node", news(at));
            }
            for path in ["/", "/health", "/livez", "/readyz", "/metrics", "/nothing"] {
                self.add(format!("{path} of a node"), get(at, path).body);
            }
        }
    }

    /// None of the secrets is in any of it.
    fn search(&self, planted: &[Planted]) {
        assert!(self.0.len() > 100, "only {} places were searched", self.0.len());
        let mut hits = Vec::new();
        for (place, bytes) in &self.0 {
            for (name, secret) in planted {
                let needle = secret.as_bytes();
                if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
                    let around = &bytes[at.saturating_sub(200)..(at + needle.len() + 20).min(bytes.len())];
                    hits.push(format!("{name} in {place}: …{}…", String::from_utf8_lossy(around)));
                }
            }
        }
        assert!(hits.is_empty(), "{} hits:\n{}", hits.len(), hits.join("\n"));
    }
}

fn secret(place: &Place, name: &str, text: &str) -> PathBuf {
    let file = place.file(&format!("secrets/{name}"), text);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file
}

/// What users ask of a node and of what is around it.
const COMMANDS: &[&[&str]] = &[
    &["snapshot", "create"],
    &["snapshot", "list", "--json"],
    &["snapshot", "verify", "--level", "restore"],
    &["snapshot", "restore", "--output"],
    &["storage", "check"],
    &["storage", "ls"],
    &["status"],
    &["status", "--json"],
    &["doctor"],
    &["doctor", "--json"],
    &["config", "show"],
    &["config", "check"],
    &["log", "info"],
    &["schema", "status"],
    &["plugin", "list"],
    &["plugin", "inspect", "mine"],
    &["repo", "stats"],
    &["schedule"],
];

/// All of it, with a node's own environment; `works` if it must.
fn run_all(found: &mut Found, sites: &[(&str, &Site)], works: bool) {
    for (name, site) in sites {
        let (config, output) = (format!("{name}.toml"), format!("{name}-{works}.db"));
        // What has to wait for the log, or tries a storage again and again, is left out when these are away.
        let at_once = [&["storage", "check"][..], &["status", "--json"], &["doctor"]];
        for command in COMMANDS.iter().filter(|command| works || at_once.contains(command)) {
            let mut arguments = command.to_vec();
            if arguments.last() == Some(&"--output") {
                arguments.push(&output);
            }
            arguments.extend(["--config", &config]);
            let ended = antiphon_harness::finish(&mut site.command(&arguments));
            assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
            if works && arguments.contains(&"create") {
                assert_eq!(ended.code, Some(0), "{name}: {}{}", ended.stdout, ended.stderr);
            }
            found.add(format!("{name}: {arguments:?}"), ended.stdout + &ended.stderr);
        }
        found.served(site);
    }
}

#[test]
fn x07_twelve_planted_secrets_are_nowhere_to_be_found() {
    let place = place();
    let (mut s3, mut dav) = (S3Server::start(), DavServer::start());
    let mut sshd = Sshd::with("Subsystem sftp internal-sftp");
    let key = sshd.make_key("protected", "ed25519", planted::named("ANTIPHON_SNAPSHOT__SFTP__PASSPHRASE"));
    sshd.authorize(&[&key]);
    let (user, other) = (KeyPair::new_user(), KeyPair::new_user());
    let (seed, creds_seed) = (user.seed().unwrap(), other.seed().unwrap());
    let [nats, address, token, session, bearer, sftp, passphrase, hook_token, hook_bearer, plugin] = [
        "PASSWORD_OF_NATS",
        "LOGIN_IN_AN_ADDRESS",
        "TOKEN_OF_NATS",
        "ANTIPHON_SNAPSHOT__S3__SESSION_TOKEN",
        "BEARER_OF_WEBDAV",
        "ANTIPHON_SNAPSHOT__SFTP__PASSWORD",
        "ANTIPHON_SNAPSHOT__SFTP__PASSPHRASE",
        "TOKEN_OF_A_WEBHOOK",
        "BEARER_OF_A_WEBHOOK",
        "SECRET_OF_A_PLUGIN",
    ]
    .map(planted::named);
    let mut secrets: Vec<Planted> = planted::all().map(|(name, value)| (name, value.to_owned())).collect();
    secrets.extend([
        ("an NKey seed", seed.clone()),
        ("the seed of a file of credentials", creds_seed.clone()),
        ("the password of WebDAV, in an address", DavServer::SECRET.replace('@', "%40")),
        ("what was written where no secret belongs", "canary-misplaced".into()),
    ]);
    let nats_password = secret(&place, "nats", &format!("{nats}\n"));
    let session_file = secret(&place, "session", session);
    let seed_file = secret(&place, "seed", &seed);
    let creds = secret(
        &place,
        "creds",
        &format!(
            "-----BEGIN NATS USER JWT-----\neyJ0eXAiOiJKV1QifQ.e30.c2ln\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{creds_seed}\n------END USER NKEY SEED------\n"
        ),
    );
    let users = format!(
        "authorization {{ users: [ {{ user: ada, password: \"{nats}\" }}, {{ user: bob, password: \"{address}\" }}, {{ nkey: {} }} ] }}",
        user.public_key()
    );
    let mut broker = Broker::with(&users);
    let by_token = Broker::with(&format!("authorization {{ token: \"{token}\" }}"));
    let hook = Receiver::new();
    hook.fail(3);

    // Each node has all of them in its configuration, and uses some.
    let mut configurations = vec![nats_password.clone(), session_file.clone(), seed_file.clone(), creds.clone()];
    let mut configure = |name: &str, nats: &str, store: &str| {
        let text = format!(
            "db_path = '{name}.db'\n[logging]\nlevel = 'trace'\nformat = '{}'\n\
             [health_check]\nenable = true\nbind = '127.0.0.1:0'\nlog_grace = 1000\n[prometheus]\nenable = true\nbind = '127.0.0.1:0'\n\
             [alerts]\nwebhook = '{}'\ntoken = '{hook_bearer}'\n\
             [nats]\nreconnect_wait_seconds = 1\n{nats}\n\
             [plugin.mine]\nsource = 'builtin:fnv'\nsettings = {{ api_secret = '{plugin}' }}\n\
             [snapshot]\nstore = '{store}'\nleader_ttl = 1500\n\
             [snapshot.s3]\nendpoint = '127.0.0.1:{}'\nbucket = 'bucket'\npath = '{name}'\naccess_key = '{}'\nsecret = '${{env:THE_S3_SECRET}}'\n\
             [snapshot.webdav]\nurl = '{}'\n\
             [snapshot.sftp]\nurl = 'sftp://{}:{sftp}@127.0.0.1:{}{}'\nkey_file = {key:?}\n\
             passphrase = '{passphrase}'\nknown_hosts = {:?}\n",
            if name == "a" { "json" } else { "console" },
            hook.address("/hook"),
            s3.port(),
            S3Server::KEY,
            dav.address(&format!("/{name}")),
            Sshd::user(),
            sshd.port(),
            place.path("on-sftp").display(),
            sshd.known_hosts(),
        );
        configurations.push(place.file(&format!("{name}.toml"), &text));
        let site = place.site(name, TABLE).arguments(["run", "--config", &format!("{name}.toml")]);
        site.with("THE_S3_SECRET", S3Server::SECRET)
    };
    std::fs::create_dir(place.path("on-sftp")).unwrap();
    let by_file = format!(
        "urls = ['{}']\nuser_name = 'ada'\nuser_password = '${{file:{}}}'",
        broker.url(),
        nats_password.display()
    );
    let mut a = configure("a", &by_file, "s3");
    let in_url = broker.url().replace("nats://", &format!("nats://bob:{address}@"));
    let mut b = configure("b", "", "webdav").with("ANTIPHON_NATS__URLS", format!("['{in_url}']"));
    let mut c = configure("c", &format!("urls = ['{}']\nseed_file = {seed_file:?}", broker.url()), "sftp");
    let token_url = by_token.url().replace("nats://", &format!("nats://{token}@"));
    let mut d = configure("d", &format!("urls = ['{token_url}']"), "file");
    let mut wrong = configure("wrong", &format!("urls = ['{}']\ncreds_file = {creds:?}", broker.url()), "s3");
    wrong.set("ANTIPHON_SNAPSHOT__S3__SESSION_TOKEN", Some(format!("${{file:{}}}", session_file.display())));
    wrong.set("ANTIPHON_SNAPSHOT__WEBDAV__TOKEN", Some(bearer));

    // They work,
    let mut found = Found::default();
    for site in [&mut a, &mut b, &mut c, &mut d] {
        start(site);
    }
    a.sql("INSERT INTO t VALUES (1, 'x')");
    eventually("a row is everywhere", || [&b, &c].iter().all(|site| site.one("SELECT count(*) FROM t") == "1"));
    wrong.spawn();
    wrong.wait_for_words("no NATS server can be reached; waiting");
    let stranger = Faulty::start(|_| Answer::of(403, "no"));
    let by_password =
        rustix::process::getuid().is_root().then(|| Sshd::with_password(sftp, "AuthenticationMethods password"));
    let mut logins = vec![
        (
            "session",
            format!(
                "store = 's3'\n[snapshot.s3]\nendpoint = '127.0.0.1:{}'\nbucket = 'bucket'\naccess_key = '{}'\n\
                 secret = '{}'\nsession_token = '${{file:{}}}'",
                stranger.port(),
                S3Server::KEY,
                S3Server::SECRET,
                session_file.display()
            ),
        ),
        ("bearer", format!("store = 'webdav'\n[snapshot.webdav]\nurl = '{}/dav'\ntoken = '{bearer}'", stranger.url())),
    ];
    logins.extend(by_password.as_ref().map(|sshd| {
        let address = format!("127.0.0.1:{}{}", sshd.port(), place.path("on-sftp").display());
        let url = format!("sftp://bob:{sftp}@{address}");
        ("password", format!("store = 'sftp'\n[snapshot.sftp]\nurl = '{url}'\nknown_hosts = {:?}", sshd.known_hosts()))
    }));
    for (name, lines) in &logins {
        let file = format!("{name}.toml");
        configurations.push(place.file(&file, &format!("db_path = 'a.db'\n[snapshot]\n{lines}\n")));
        let works = *name == "password";
        for command in [["storage", "check"], ["storage", "ls"]] {
            let ended = place.run(command.into_iter().chain(["--config", &file]));
            assert_eq!(ended.code == Some(0), works, "{name}: {}{}", ended.stdout, ended.stderr);
            found.add(format!("{name}: {command:?}"), ended.stdout + &ended.stderr);
        }
    }
    let told = |header: &str, secret: &str| stranger.asked().iter().any(|asked| asked.header(header) == secret);
    assert!(told("x-amz-security-token", session), "{:?}", stranger.asked());
    assert!(told("authorization", &format!("Bearer {bearer}")), "{:?}", stranger.asked());
    found.processes();
    run_all(&mut found, &[("a", &a), ("b", &b), ("c", &c), ("d", &d)], true);

    // they fail, each in its way,
    s3.kill();
    dav.kill();
    sshd.kill();
    broker.reload("authorization { user: nobody, password: another }");
    // Who is connected may stay so, and must not.
    broker.kill();
    broker.resume();
    a.sql("INSERT INTO t VALUES (2, 'while nobody may log in')");
    for site in [&mut a, &mut b, &mut c] {
        site.wait_for_words("uthorization");
    }
    found.processes();
    run_all(&mut found, &[("a", &a), ("b", &b), ("c", &c), ("d", &d), ("wrong", &wrong)], false);
    let misplaced = [
        "[snapshot.s3]\nsecret = ['canary-misplaced']",
        "[nats]\nuser_pasword = 'canary-misplaced'",
        "[nats]\nuser_password = { canary-misplaced = 1 }\nurls = 'nats://x:canary-misplaced@h'",
        "[snapshot.sftp]\nurl = 'sftp://x:canary-misplaced@'",
        "[alerts]\nwebhook = 'canary-misplaced is no address'",
        "[nats]\nuser_password = 'canary-misplaced",
    ];
    for (at, lines) in misplaced.iter().enumerate() {
        let name = format!("misplaced-{at}.toml");
        configurations.push(place.file(&name, &format!("db_path = 'a.db'\n{lines}\n")));
        found.command(&place, &["config", "check", "--config", &name]);
        found.command(&place, &["storage", "check", "--config", &name]);
        found.command(&place, &["run", "--config", &name]);
    }
    broker.reload(&users);
    eventually("it goes on", || c.one("SELECT count(*) FROM t") == "2");
    eventually("the webhook had its failures", || hook.has_failed());
    eventually("the webhook was told", || {
        hook.heads().iter().any(|head| {
            let head = head.to_ascii_lowercase();
            head.starts_with(&format!("post /hook?token={hook_token} "))
                && head.contains(&format!("bearer {hook_bearer}"))
        })
    });

    // and nothing of it is anywhere.
    for told in hook.bodies() {
        found.add("what the webhook was told", told.to_string());
    }
    for mut site in [a, b, c, d] {
        site.term();
    }
    drop(wrong);
    found.files(&place.path(""), &configurations);
    found.files(&s3.bucket(), &[]);
    found.files(&dav.files(), &[]);
    found.search(&secrets);
}
