//! The storage `sftp`: objects are files in one folder of an SFTP server.
//!
//! The host has dialled, compared the server's key and logged in; here SFTP is spoken over the channel that it lends. When
//! the channel breaks, the next call has a new one.

mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "storage-ssh" });
    use super::Plugin;
    export!(Plugin);
}
mod client;
mod fault;
mod listing;
mod object;
mod packet;

use std::cell::RefCell;

use bindings::antiphon::plugin::objects::{Error, Kind, Object};
use bindings::antiphon::plugin::types::Settings;
use bindings::exports::antiphon::plugin::metadata::{self, Info};
use bindings::exports::antiphon::plugin::storage::{self, Traits};
use client::Client;
use fault::{Fault, code};
use packet::kind;

/// After so many seconds nobody writes a file any more that lies beside its place.
const LEFT_BEHIND: u32 = 3600;

struct Plugin;

impl metadata::Guest for Plugin {
    fn describe() -> Info {
        Info {
            name: "sftp".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            description: "objects as files on an SFTP server".into(),
            settings_schema: r#"{
  "type": "object",
  "properties": {
    "url": { "type": "string", "description": "sftp://user:password@host:port/folder" },
    "password": { "type": "string", "description": "the password, if it is not in the url" },
    "key_file": { "type": "string", "description": "file of a private key" },
    "passphrase": { "type": "string", "description": "what opens the private key" },
    "agent": { "type": "string", "default": "false", "description": "ask the agent at SSH_AUTH_SOCK for keys" },
    "known_hosts": { "type": "string", "description": "file of the servers' keys that are known" }
  },
  "required": ["url"],
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

/// A folder on the server, and the way there while it is open.
struct Session {
    folder: String,
    client: RefCell<Option<Client>>,
    traits: Traits,
}

fn permanent(message: impl Into<String>) -> Error {
    Error { kind: Kind::Permanent, message: message.into(), retry_after_ms: None }
}

fn temporary(message: impl Into<String>) -> Error {
    Error { kind: Kind::Temporary, message: message.into(), retry_after_ms: None }
}

impl Session {
    /// Does something with the server.
    fn with<R>(&self, work: impl FnOnce(&mut Client) -> Result<R, Fault>) -> Result<R, Fault> {
        let mut open = self.client.borrow_mut();
        let mut client = match open.take() {
            Some(client) => client,
            None => Client::open()?,
        };
        let done = work(&mut client);
        // On a channel that broke, or is at odds, nothing can be asked any more.
        if !done.as_ref().is_err_and(Fault::ends_it) {
            *open = Some(client);
        }
        done
    }

    fn path(&self, key: &str) -> String {
        listing::join(&self.folder, key)
    }
}

fn quoted(key: &str) -> String {
    format!("`{key}`")
}

impl storage::GuestSession for Session {
    fn open(settings: Settings) -> Result<storage::Session, Error> {
        let mut folder = None;
        for (name, value) in settings {
            match name.as_str() {
                // The host takes what it needs to log in, and leaves this.
                "folder" => folder = Some(value),
                _ => {
                    let known = "`url`, `password`, `key_file`, `passphrase`, `agent` and `known_hosts`";
                    return Err(permanent(format!("there is no setting `{name}`; there are {known}")));
                }
            }
        }
        let folder = folder.ok_or_else(|| permanent("no folder is named"))?;
        let client = Client::open().map_err(|fault| fault.told("speak SFTP with", "the server"))?;
        let traits = Traits {
            max_object: object::OBJECT_BYTES_MAX,
            // A rename that fails if the name is taken is part of the protocol, and not all servers know that.
            put_if_absent: client.extensions.hardlink,
            ranged_get: true,
            atomic_put: client.extensions.posix_rename,
        };
        Ok(storage::Session::new(Self { folder, client: RefCell::new(Some(client)), traits }))
    }

    fn traits(&self) -> Traits {
        self.traits
    }

    fn check(&self) -> Result<(), Error> {
        let folder = format!("the folder `{}`", self.folder);
        self.with(|client| object::make(client, &self.folder)).map_err(|fault| fault.told("make", &folder))?;
        let tried = self.with(|client| {
            let aside = object::beside(&self.folder);
            object::write(client, &aside, b"check")?;
            // The server's own time, by which it dates what it holds.
            let now = object::look(client, &aside)?.modified;
            object::remove(client, &aside)?;
            Ok(now)
        });
        let now = tried.map_err(|fault| fault.told("write to", &folder))?;
        if let Some(before) = now.and_then(|now| now.checked_sub(LEFT_BEHIND)) {
            let swept = self.with(|client| listing::sweep(client, &self.folder, before, 0));
            swept.map_err(|fault| fault.told("look through", &folder))?;
        }
        Ok(())
    }

    fn put(&self, key: String, body: Vec<u8>, if_absent: bool) -> Result<(), Error> {
        self.with(|client| object::put(client, &self.path(&key), &body, if_absent))
            .map_err(|fault| fault.told("put", &quoted(&key)))
    }

    fn get(&self, key: String, offset: u64, length: Option<u64>) -> Result<Vec<u8>, Error> {
        self.with(|client| object::get(client, &self.path(&key), offset, length))
            .map_err(|fault| fault.told("get", &quoted(&key)))
    }

    fn stat(&self, key: String) -> Result<Object, Error> {
        let known = self.with(|client| object::stat(client, &self.path(&key)));
        let (size, modified_ms) = known.map_err(|fault| fault.told("stat", &quoted(&key)))?;
        Ok(Object { key, size, modified_ms, etag: None })
    }

    fn list_keys(&self, prefix: String, after: Option<String>, limit: u32) -> Result<Vec<Object>, Error> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.with(|client| listing::list(client, &self.folder, &prefix, after.as_deref(), limit))
            .map_err(|fault| fault.told("list", &quoted(&prefix)))
    }

    fn delete(&self, keys: Vec<String>) -> Result<(), Error> {
        let paths: Vec<String> = keys.iter().map(|key| self.path(key)).collect();
        let which = if let [key] = keys.as_slice() { quoted(key) } else { format!("{} objects", keys.len()) };
        let deleted = self.with(|client| {
            let mut removing = object::Removing { paths: paths.iter(), removed: Vec::new() };
            client.fly(&mut removing)?;
            let mut folders: Vec<&str> = removing.removed.into_iter().map(object::above).collect();
            folders.sort_unstable();
            folders.dedup();
            folders.iter().rev().try_for_each(|folder| self.prune(client, folder))
        });
        deleted.map_err(|fault| fault.told("delete", &which))
    }
}

impl Session {
    /// Removes a folder and those above it, as far as they are empty.
    fn prune(&self, client: &mut Client, folder: &str) -> Result<(), Fault> {
        let root = self.folder.trim_end_matches('/');
        let mut folder = folder;
        while folder.len() > root.len() + 1 && folder.starts_with(root) {
            match client.tell(kind::RMDIR, |packet| packet.text(folder)) {
                Ok(()) => {}
                // Somebody else removed it.
                Err(fault) if fault.is(code::NO_SUCH_FILE) => {}
                Err(fault) if fault.ends_it() => return Err(fault),
                Err(_) => return Ok(()),
            }
            folder = object::above(folder);
        }
        Ok(())
    }
}
