//! The storage examples, put through what the interface promises. No host runs them yet, so this one does.
//!
//! `tests/examples.sh` builds them and names the files in `STORAGES`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test that can't go on ends there")]

use std::path::Path;

use tempfile::TempDir;
use wasmtime::component::{Component, HasSelf, Linker, ResourceAny, ResourceTable};
use wasmtime::{Config, Engine, OptLevel, Store};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView};

mod bindings {
    wasmtime::component::bindgen!({ path: "../../wit", world: "storage-file" });
}

use bindings::StorageFile;
use bindings::antiphon::plugin::log;
use bindings::antiphon::plugin::objects::{Error, Kind, Object};

/// What the host lends: one folder, and its log.
struct Host {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl log::Host for Host {
    fn write(&mut self, _: log::Level, message: String) {
        panic!("nothing here is worth a line: {message}");
    }
}

/// An instance, and an open session of it.
struct Storage {
    store: Store<Host>,
    guest: StorageFile,
    session: ResourceAny,
    folder: TempDir,
}

impl Storage {
    fn start(engine: &Engine, component: &Component) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let wasi =
            WasiCtx::builder().inherit_stderr().preopened_dir(folder.path(), "/", FsPerms::ReadWrite).unwrap().build();
        let mut store = Store::new(engine, Host { wasi, table: ResourceTable::new() });
        let mut linker = Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_sync(&mut linker).unwrap();
        log::add_to_linker::<Host, HasSelf<Host>>(&mut linker, |host| host).unwrap();
        let guest = StorageFile::instantiate(&mut store, component, &linker).unwrap();
        let session = guest.antiphon_plugin_storage().session();
        let wrong = session.call_open(&mut store, &vec![("colour".into(), "red".into())]).unwrap().unwrap_err();
        assert_eq!(wrong.kind, Kind::Permanent);
        assert!(wrong.message.contains("colour"), "{wrong:?}");
        let session = session.call_open(&mut store, &Vec::new()).unwrap().unwrap();
        Self { store, guest, session, folder }
    }

    fn put(&mut self, key: &str, body: &[u8], if_absent: bool) -> Result<(), Error> {
        let session = self.guest.antiphon_plugin_storage().session();
        session.call_put(&mut self.store, self.session, key, body, if_absent).unwrap()
    }

    fn get(&mut self, key: &str, offset: u64, length: Option<u64>) -> Result<Vec<u8>, Error> {
        let session = self.guest.antiphon_plugin_storage().session();
        session.call_get(&mut self.store, self.session, key, offset, length).unwrap()
    }

    fn stat(&mut self, key: &str) -> Result<Object, Error> {
        let session = self.guest.antiphon_plugin_storage().session();
        session.call_stat(&mut self.store, self.session, key).unwrap()
    }

    fn keys(&mut self, prefix: &str, after: Option<&str>, limit: u32) -> Vec<String> {
        let session = self.guest.antiphon_plugin_storage().session();
        let objects = session.call_list_keys(&mut self.store, self.session, prefix, after, limit).unwrap().unwrap();
        objects.into_iter().map(|object| object.key).collect()
    }

    fn delete(&mut self, keys: &[&str]) {
        let session = self.guest.antiphon_plugin_storage().session();
        let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
        session.call_delete(&mut self.store, self.session, &keys).unwrap().unwrap();
    }

    /// What stands in the lent folder, with its folders.
    fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, root: &Path, files: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, root, files);
                } else {
                    files.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        let mut files = Vec::new();
        walk(self.folder.path(), self.folder.path(), &mut files);
        files.sort();
        files
    }
}

fn check(storage: &mut Storage) {
    let session = storage.guest.antiphon_plugin_storage().session();
    session.call_check(&mut storage.store, storage.session).unwrap().unwrap();
    let traits = session.call_traits(&mut storage.store, storage.session).unwrap();
    assert!(traits.put_if_absent && traits.ranged_get && traits.atomic_put && traits.max_object >= 8 << 20);
    assert_eq!(storage.keys("", None, 10), [""; 0]);

    // Written, read, written over; of two that want to be the first, the second fails and changes nothing.
    let large: Vec<u8> = (0..8_u32 << 20).map(|at| at.to_le_bytes()[usize::from(at % 3 == 0)]).collect();
    storage.put("shards/1/large", &large, false).unwrap();
    assert_eq!(storage.get("shards/1/large", 0, None).unwrap(), large);
    storage.put("shards/1/manifest.cbor", b"first", true).unwrap();
    assert_eq!(storage.put("shards/1/manifest.cbor", b"second", true).unwrap_err().kind, Kind::Exists);
    assert_eq!(storage.get("shards/1/manifest.cbor", 0, None).unwrap(), b"first");
    storage.put("shards/1/manifest.cbor", b"third", false).unwrap();
    assert_eq!(storage.get("shards/1/manifest.cbor", 1, Some(3)).unwrap(), b"hir");
    assert_eq!(storage.get("shards/1/manifest.cbor", 3, Some(100)).unwrap(), b"rd");
    assert_eq!(storage.get("shards/1/manifest.cbor", 5, None).unwrap(), b"");
    storage.put("empty", b"", true).unwrap();
    assert_eq!(storage.get("empty", 0, None).unwrap(), b"");

    let object = storage.stat("shards/1/large").unwrap();
    assert_eq!((object.key.as_str(), object.size), ("shards/1/large", 8 << 20));
    assert_eq!(storage.stat("shards/2").unwrap_err().kind, Kind::NotFound);
    assert_eq!(storage.get("nothing", 0, None).unwrap_err().kind, Kind::NotFound);

    // By their bytes: `-` and `.` come before `/`, capitals before others.
    for key in ["shards/1-x", "shards/1.x", "B", "a"] {
        storage.put(key, key.as_bytes(), true).unwrap();
    }
    let all = ["B", "a", "empty", "shards/1-x", "shards/1.x", "shards/1/large", "shards/1/manifest.cbor"];
    assert_eq!(storage.keys("", None, 100), all);
    assert_eq!(storage.keys("", None, 2), all[..2]);
    assert_eq!(storage.keys("", Some("a"), 2), all[2..4]);
    assert_eq!(storage.keys("shards/1", Some("shards/1.x"), 100), all[5..]);
    assert_eq!(storage.keys("shards/1/l", None, 100), all[5..6]);
    assert_eq!(storage.keys("none", None, 100), [""; 0]);

    storage.delete(&["B", "never", "shards/1/large"]);
    storage.delete(&[]);
    let left = ["a", "empty", "shards/1-x", "shards/1.x", "shards/1/manifest.cbor"];
    assert_eq!(storage.keys("", None, 100), left);
    let files = storage.files();
    assert!(files.is_empty() || files == left, "nothing else is left behind: {files:?}");
}

#[test]
#[ignore = "tests/examples.sh builds what it needs, and runs it"]
fn every_storage_keeps_what_the_interface_promises() {
    let storages = std::env::var("STORAGES").unwrap();
    let storages: Vec<_> = storages.split_whitespace().collect();
    assert_eq!(storages.len(), 3, "one a language");
    // Python's and JavaScript's runtimes are large, and run for a moment only.
    let engine = Engine::new(Config::new().cranelift_opt_level(OptLevel::None)).unwrap();
    for storage in storages {
        let component = Component::from_file(&engine, storage).unwrap_or_else(|error| panic!("{storage}: {error:?}"));
        check(&mut Storage::start(&engine, &component));
    }
}
