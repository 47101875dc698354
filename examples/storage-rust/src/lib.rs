//! `shelf-store`: keeps objects on a small server, over a connection of its own.
//!
//! The configuration grants the server by name and port, and the host lets it connect there and nowhere else. What is said
//! on that connection stands in `server.rs`.

mod bindings {
    // What the host and this component say to each other is described in `wit/`; this makes Rust of it.
    wit_bindgen::generate!({ path: "wit", world: "storage-net" });
    use super::Plugin;
    export!(Plugin);
}

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use bindings::antiphon::plugin::objects::{Error, Kind, Object};
use bindings::antiphon::plugin::types::Settings;
use bindings::exports::antiphon::plugin::metadata::{self, Info};
use bindings::exports::antiphon::plugin::storage::{self, Traits};

const OBJECT_BYTES_MAX: u64 = 32 << 20;

struct Plugin;

impl metadata::Guest for Plugin {
    fn describe() -> Info {
        Info {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            description: env!("CARGO_PKG_DESCRIPTION").into(),
            settings_schema: r#"{
  "type": "object",
  "properties": { "server": { "type": "string", "description": "where the server is, as host:port" } },
  "required": ["server"],
  "additionalProperties": false
}"#
            .into(),
            laws: 1,
        }
    }
}

impl storage::Guest for Plugin {
    type Session = Session;
}

/// An open storage: where the server is, and the connection while it lasts.
struct Session {
    server: String,
    connection: RefCell<Option<BufReader<TcpStream>>>,
}

impl Session {
    /// Asks the server something. A connection on which that failed is not used again.
    fn ask<R>(
        &self,
        what: &str,
        work: impl FnOnce(&mut BufReader<TcpStream>) -> io::Result<Result<R, Kind>>,
    ) -> Result<R, Error> {
        let mut place = self.connection.borrow_mut();
        let attempt = || {
            let mut connection = match place.take() {
                Some(connection) => connection,
                None => connect(&self.server)?,
            };
            let answer = work(&mut connection)?;
            *place = Some(connection);
            Ok(answer)
        };
        match attempt() {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Kind::Exists)) => Err(error(Kind::Exists, format!("cannot {what}: there is one already"))),
            Ok(Err(kind)) => Err(error(kind, format!("cannot {what}: there is no such object"))),
            // It may work later, on another connection: the host tries again.
            Err(why) => Err(temporary(what, &why)),
        }
    }
}

fn connect(server: &str) -> io::Result<BufReader<TcpStream>> {
    Ok(BufReader::new(TcpStream::connect(server)?))
}

/// Sends a request, and reads the line of its answer: none if there is no such object.
fn send(connection: &mut BufReader<TcpStream>, request: &str, body: &[u8]) -> io::Result<Option<String>> {
    // In one piece: the system holds back a small second one until the first was acknowledged.
    connection.get_mut().write_all(&[request.as_bytes(), body].concat())?;
    let mut line = String::new();
    connection.take(2048).read_line(&mut line)?;
    match line.trim_end() {
        "missing" => Ok(None),
        line => Ok(Some(line.to_owned())),
    }
}

/// The numbers of an answer that begins with `ok`.
fn numbers<const COUNT: usize>(line: &str) -> io::Result<[u64; COUNT]> {
    let mut words = line.split(' ');
    let wrong = || io::Error::other(format!("the server answers `{line}`"));
    if words.next() != Some("ok") {
        return Err(wrong());
    }
    let numbers: Option<Vec<u64>> = words.map(|word| word.parse().ok()).collect();
    numbers.and_then(|numbers| numbers.try_into().ok()).ok_or_else(wrong)
}

impl storage::GuestSession for Session {
    fn open(settings: Settings) -> Result<storage::Session, Error> {
        let mut server = None;
        for (name, value) in settings {
            match name.as_str() {
                "server" => server = Some(value),
                _ => {
                    let why = format!("there is no setting `{name}`; there is only `server`");
                    return Err(error(Kind::Permanent, why));
                }
            }
        }
        let server = server.ok_or_else(|| error(Kind::Permanent, "`server` is not set".to_owned()))?;
        Ok(storage::Session::new(Self { server, connection: RefCell::default() }))
    }

    fn traits(&self) -> Traits {
        Traits { max_object: OBJECT_BYTES_MAX, put_if_absent: true, ranged_get: true, atomic_put: true }
    }

    fn check(&self) -> Result<(), Error> {
        self.put("check".to_owned(), Vec::new(), false)?;
        self.delete(vec!["check".to_owned()])
    }

    fn put(&self, key: String, body: Vec<u8>, if_absent: bool) -> Result<(), Error> {
        let how = if if_absent { "absent" } else { "replace" };
        self.ask(&format!("put `{key}`"), |connection| {
            match send(connection, &format!("put {key} {} {how}\n", body.len()), &body)?.as_deref() {
                Some("exists") => Ok(Err(Kind::Exists)),
                line => numbers::<0>(line.unwrap_or_default()).map(|_| Ok(())),
            }
        })
    }

    fn get(&self, key: String, offset: u64, length: Option<u64>) -> Result<Vec<u8>, Error> {
        let length = length.map_or_else(|| "-".to_owned(), |length| length.to_string());
        self.ask(&format!("get `{key}`"), |connection| {
            let Some(line) = send(connection, &format!("get {key} {offset} {length}\n"), b"")? else {
                return Ok(Err(Kind::NotFound));
            };
            let [length] = numbers(&line)?;
            if length > OBJECT_BYTES_MAX {
                return Err(io::Error::other(format!("the server has {length} bytes of it")));
            }
            let mut body = vec![0; length as usize];
            connection.read_exact(&mut body)?;
            Ok(Ok(body))
        })
    }

    fn stat(&self, key: String) -> Result<Object, Error> {
        self.ask(&format!("stat `{key}`"), |connection| {
            let Some(line) = send(connection, &format!("stat {key}\n"), b"")? else {
                return Ok(Err(Kind::NotFound));
            };
            let [size, modified] = numbers(&line)?;
            Ok(Ok(Object { key: key.clone(), size, modified_ms: Some(modified), etag: None }))
        })
    }

    fn list_keys(&self, prefix: String, after: Option<String>, limit: u32) -> Result<Vec<Object>, Error> {
        let after = after.unwrap_or_default();
        self.ask(&format!("list `{prefix}`"), |connection| {
            let line = send(connection, &format!("list {limit} ={prefix} ={after}\n"), b"")?.unwrap_or_default();
            let [count] = numbers(&line)?;
            let mut objects = Vec::new();
            for _ in 0..count.min(limit.into()) {
                let mut line = String::new();
                connection.take(2048).read_line(&mut line)?;
                let mut words = line.trim_end().split(' ');
                let wrong = || io::Error::other("the server lists what is no object");
                let mut number = || words.next().and_then(|word| word.parse().ok()).ok_or_else(wrong);
                let (size, modified) = (number()?, number()?);
                let key = words.next().ok_or_else(wrong)?.to_owned();
                objects.push(Object { key, size, modified_ms: Some(modified), etag: None });
            }
            Ok(Ok(objects))
        })
    }

    fn delete(&self, keys: Vec<String>) -> Result<(), Error> {
        keys.iter().try_for_each(|key| {
            self.ask(&format!("delete `{key}`"), |connection| {
                let line = send(connection, &format!("delete {key}\n"), b"")?;
                numbers::<0>(&line.unwrap_or_default()).map(|_| Ok(()))
            })
        })
    }
}

/// The kind decides whether the host tries again.
fn temporary(what: &str, why: &io::Error) -> Error {
    error(Kind::Temporary, format!("cannot {what}: {why}"))
}

fn error(kind: Kind, message: String) -> Error {
    Error { kind, message, retry_after_ms: None }
}
