//! Components compiled before, so that a start takes milliseconds.
//!
//! Machine code read from a file can do anything, so a file counts only if a key that nobody else can read vouches
//! for all of it. Whatever is wrong with a file, or with the folder, costs a compilation and nothing more.

use std::fs::{self, DirBuilder, Permissions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use wasmtime::Engine;
use wasmtime::component::Component;

/// The first bytes of a file, and the version of its form: magic, key, length, hash, body.
const MAGIC: &[u8; 8] = b"ANTICC\x00\x01";
const HASH_BYTES: usize = blake3::OUT_LEN;
const SECRET_FILE: &str = "secret";

/// A folder of compiled components.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    secret: [u8; HASH_BYTES],
}

impl Cache {
    /// The cache in `folder`; none if the folder can't be had for us alone.
    pub(crate) fn open(folder: &Path) -> Option<Self> {
        let opened = own_folder(folder).and_then(|()| secret(&folder.join(SECRET_FILE)));
        match opened {
            Ok(secret) => Some(Self { folder: folder.to_path_buf(), secret }),
            Err(err) => {
                tracing::warn!(folder = %folder.display(), error = %err, "compiled plugins are not kept");
                None
            }
        }
    }

    /// The component whose bytes have this sha256, if it was compiled before.
    pub(crate) fn find(&self, engine: &Engine, sha256: &str) -> Option<Component> {
        let key = key(engine, sha256);
        let path = self.path(&key);
        match self.load(engine, &path, &key) {
            Ok(component) => Some(component),
            Err(Unusable::Missing) => None,
            Err(Unusable::Damaged(why)) => {
                tracing::warn!(file = %path.display(), why, "a compiled plugin is damaged, compiling it again");
                // If it can't be removed, the new one replaces it.
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// Keeps the code of the component whose bytes have this sha256: what the engine made of them, and nothing else.
    pub(crate) fn keep(&self, engine: &Engine, sha256: &str, code: &[u8]) -> io::Result<()> {
        let key = key(engine, sha256);
        self.store(&self.path(&key), &key, code)
    }

    /// The component that `bytes` are, compiled before or now. `sha256` is that of `bytes`.
    pub(crate) fn compile(&self, engine: &Engine, bytes: &[u8], sha256: &str) -> wasmtime::Result<Component> {
        if let Some(component) = self.find(engine, sha256) {
            return Ok(component);
        }
        let component = Component::from_binary(engine, bytes)?;
        let stored = component.serialize().map_err(|err| err.to_string());
        if let Err(err) = stored.and_then(|code| self.keep(engine, sha256, &code).map_err(|err| err.to_string())) {
            tracing::warn!(folder = %self.folder.display(), error = err, "cannot keep a compiled plugin");
        }
        Ok(component)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, key: &blake3::Hash) -> PathBuf {
        self.folder.join(format!("{}.compiled", key.to_hex()))
    }

    fn load(&self, engine: &Engine, path: &Path, key: &blake3::Hash) -> Result<Component, Unusable> {
        let file = fs::read(path).map_err(|err| match err.kind() {
            io::ErrorKind::NotFound => Unusable::Missing,
            _ => Unusable::Damaged("it cannot be read"),
        })?;
        let body = self.checked(&file, key).ok_or(Unusable::Damaged("its hash is another"))?;
        deserialize(engine, &body).map_err(|_| Unusable::Damaged("the engine refuses it"))
    }

    /// The body of a file, if all of it is as it was written, and for this key.
    fn checked<'a>(&self, file: &'a [u8], key: &blake3::Hash) -> Option<Vouched<'a>> {
        let rest = file.strip_prefix(MAGIC)?.strip_prefix(key.as_bytes())?;
        let (len, rest) = rest.split_first_chunk()?;
        let (hash, body) = rest.split_first_chunk::<HASH_BYTES>()?;
        let whole = u64::from_le_bytes(*len) == body.len() as u64;
        // `blake3::Hash` compares in constant time.
        (whole && self.hash(key, body) == blake3::Hash::from_bytes(*hash)).then_some(Vouched(body))
    }

    fn hash(&self, key: &blake3::Hash, body: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(key.as_bytes()).update(body).finalize()
    }

    /// Written aside, synced and renamed: a file is there whole or not at all.
    fn store(&self, path: &Path, key: &blake3::Hash, body: &[u8]) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(&self.folder)?;
        file.write_all(MAGIC)?;
        file.write_all(key.as_bytes())?;
        file.write_all(&(body.len() as u64).to_le_bytes())?;
        file.write_all(self.hash(key, body).as_bytes())?;
        file.write_all(body)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }
}

enum Unusable {
    Missing,
    Damaged(&'static str),
}

/// Bytes that this machine wrote: their keyed hash was compared. Only [`Cache::checked`] makes one.
struct Vouched<'a>(&'a [u8]);

#[expect(unsafe_code, reason = "reading what was compiled before is what a cache is for")]
fn deserialize(engine: &Engine, body: &Vouched<'_>) -> wasmtime::Result<Component> {
    // SAFETY: the bytes must come from `Component::serialize` and be unchanged since. A `Vouched` was hashed with
    // a secret that only we can read, in a folder that is ours, and only what `serialize` gave is ever hashed with
    // it. The bytes are in our memory, not mapped from the file, so nobody changes them after the comparison.
    unsafe { Component::deserialize(engine, body.0) }
}

/// What a compiled component depends on.
fn key(engine: &Engine, sha256: &str) -> blake3::Hash {
    // Std's hasher may change with its version: that costs a compilation.
    let mut compatibility = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut compatibility);
    let mut key = blake3::Hasher::new();
    key.update(MAGIC).update(sha256.as_bytes()).update(&compatibility.finish().to_le_bytes());
    key.update(std::env::consts::ARCH.as_bytes()).update(b"-").update(std::env::consts::OS.as_bytes());
    key.finalize()
}

/// Sees to it that the folder is there, is ours, and nobody else has a way in.
fn own_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("the folder is not ours"));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// This machine's secret, made if there is none that will do. With a new one, all that was compiled before is void.
fn secret(path: &Path) -> io::Result<[u8; HASH_BYTES]> {
    if let Some(secret) = read_secret(path)? {
        return Ok(secret);
    }
    let mut secret = [0; HASH_BYTES];
    getrandom::fill(&mut secret).map_err(|err| io::Error::other(err.to_string()))?;
    // A temporary file is readable by its owner only, from its first moment.
    let folder = path.parent().ok_or_else(|| io::Error::other("the secret has no folder"))?;
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(&secret)?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(secret),
        // Another process was first; its secret is as good.
        Err(err) if err.error.kind() == io::ErrorKind::AlreadyExists => {
            read_secret(path)?.ok_or_else(|| io::Error::other("the secret keeps changing"))
        }
        Err(err) => Err(err.error),
    }
}

/// The secret in a file that only we can read; a file that is anything else is removed.
fn read_secret(path: &Path) -> io::Result<Option<[u8; HASH_BYTES]>> {
    let found = match fs::symlink_metadata(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    let private = found.mode() & 0o077 == 0 && found.uid() == rustix::process::geteuid().as_raw();
    if found.is_file()
        && private
        && let Ok(secret) = fs::read(path)?.try_into()
    {
        return Ok(Some(secret));
    }
    fs::remove_file(path)?;
    Ok(None)
}
