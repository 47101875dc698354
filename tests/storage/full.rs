//! No room: it is said with what to do, nothing half is left, what was there is there, and with room all goes on.

use std::path::Path;

use antiphon::storage::{Opened, failure};
use antiphon_core::store::{ErrorKind, LIST_MAX, Name, Put, Store as _};
use antiphon_harness::{Broker, DavServer, S3Server, Sshd, mounts_apart};
use async_nats::ConnectOptions;
use async_nats::jetstream::Context;
use async_nats::jetstream::object_store::Config;

use super::{configured, name};

/// A disk of so much, for one test.
const SMALL_DISK: &str = "mount -t tmpfs -o size=4m none \"$1\"";

/// What fits with a small one beside it, and not twice.
const LARGE: usize = 2_500_000;

/// What a server may keep about what it did not take.
const KNOWN_BYTES_MAX: u64 = 1000;

/// Fills it. `used`: how much is taken where objects are kept.
fn fills(opened: &Opened, used: impl Fn() -> u64) {
    let store = &opened.component;
    let names = |all: &[&str]| all.iter().map(|text| name(text)).collect::<Vec<Name>>();
    let listed =
        || -> Vec<Name> { store.list("", None, LIST_MAX).unwrap().into_iter().map(|object| object.name).collect() };
    store.put(&name("small"), &[1; 100_000], Put::Replace).unwrap();
    store.put(&name("ballast"), &[2; LARGE], Put::Replace).unwrap();
    let before = used();
    // An object that can't be replaced is as it was.
    for (what, put) in [("large", Put::Replace), ("large", Put::IfAbsent), ("small", Put::Replace)] {
        let error = store.put(&name(what), &[3; LARGE], put).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Temporary, "{error}");
        assert!(["space", "room"].iter().any(|word| error.message.contains(word)), "{error}");
        assert!(failure(&error).hints().iter().any(|hint| hint.contains("room")), "{error:?}");
        assert_eq!(listed(), names(&["ballast", "small"]));
    }
    assert_eq!(store.get(&name("small"), None).unwrap(), [1; 100_000]);
    assert_eq!(store.get(&name("ballast"), None).unwrap(), [2; LARGE]);
    let left = used().saturating_sub(before);
    assert!(left < KNOWN_BYTES_MAX, "{left} bytes are left of what there was no room for");
    // What is smaller fits still, and when something goes the large one does.
    store.put(&name("other"), &[4; 200_000], Put::IfAbsent).unwrap();
    store.delete(&[name("ballast"), name("other")]).unwrap();
    store.put(&name("large"), &[5; LARGE], Put::IfAbsent).unwrap();
    assert_eq!(store.get(&name("large"), None).unwrap(), [5; LARGE]);
    assert_eq!(listed(), names(&["large", "small"]));
}

/// Bytes of all files in a folder.
fn within(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| match entry.metadata().unwrap() {
            found if found.is_dir() => within(&entry.path()),
            found => found.len(),
        })
        .sum()
}

#[test]
fn of_a_folder() {
    let Some(folder) = mounts_apart(SMALL_DISK) else { return };
    let objects = folder.join("objects");
    let opened = configured(&format!("[snapshot]\nstore = 'file'\n[snapshot.file]\npath = {objects:?}"));
    fills(&opened, || within(&objects));
}

#[test]
fn of_s3() {
    let Some(_) = mounts_apart(SMALL_DISK) else { return };
    let server = S3Server::start();
    let (url, key, secret) = (server.url(), S3Server::KEY, S3Server::SECRET);
    let login = format!("endpoint = '{url}'\nbucket = 'bucket'\naccess_key = '{key}'\nsecret = '{secret}'");
    let opened = configured(&format!("[snapshot]\nstore = 's3'\n[snapshot.s3]\n{login}"));
    fills(&opened, || within(server.bucket().parent().unwrap()));
}

#[test]
fn of_webdav() {
    let Some(_) = mounts_apart(SMALL_DISK) else { return };
    let server = DavServer::start();
    let opened =
        configured(&format!("[snapshot]\nstore = 'webdav'\n[snapshot.webdav]\nurl = '{}'", server.address("/")));
    fills(&opened, || within(&server.files()));
}

#[test]
fn of_an_sftp_server() {
    let Some(folder) = mounts_apart(SMALL_DISK) else { return };
    let sshd = Sshd::start();
    let (url, key, known) = (sshd.url(&folder.join("objects")), sshd.own_key(), sshd.known_hosts());
    let login = format!("url = '{url}'\nkey_file = {key:?}\nknown_hosts = {known:?}");
    let opened = configured(&format!("[snapshot]\nstore = 'sftp'\n[snapshot.sftp]\n{login}"));
    fills(&opened, || within(&folder.join("objects")));
}

/// Does something in JetStream, as a client with this login.
fn by_hand<T>(broker: &Broker, login: Option<(&str, &str)>, work: impl AsyncFnOnce(Context) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = ConnectOptions::new();
        let options = match login {
            Some((user, password)) => options.user_and_password(user.to_owned(), password.to_owned()),
            None => options,
        };
        work(async_nats::jetstream::new(options.connect(broker.url()).await.unwrap())).await
    })
}

/// Bytes in the stream of this bucket.
async fn stored(context: Context, bucket: &str) -> u64 {
    let stream = context.get_stream(format!("OBJ_{bucket}")).await.unwrap();
    stream.cached_info().state.bytes
}

/// A bucket that may have so much and no more.
#[test]
fn of_a_bucket_of_nats() {
    let broker = Broker::start();
    let config = Config { bucket: "small".to_owned(), max_bytes: 4 << 20, ..Config::default() };
    by_hand(&broker, None, async |context| context.create_object_store(config).await.map(drop)).unwrap();
    let opened = configured(&format!("[nats]\nurls = ['{}']\n[snapshot.nats]\nbucket = 'small'", broker.url()));
    fills(&opened, || by_hand(&broker, None, async |context| stored(context, "small").await));
}

/// An account that may have so much and no more.
#[test]
fn of_an_account_of_nats() {
    let user = "users: [{ user: bob, password: right-one }]";
    let broker = Broker::with(&format!("accounts {{ SMALL: {{ jetstream: {{ max_file: 4194304 }}, {user} }} }}"));
    let login = "user_name = 'bob'\nuser_password = 'right-one'";
    let opened = configured(&format!("[nats]\nurls = ['{}']\n{login}\n[snapshot.nats]\nbucket = 'own'", broker.url()));
    let login = Some(("bob", "right-one"));
    fills(&opened, || by_hand(&broker, login, async |context| stored(context, "own").await));
}
