//! Compiled components are kept, and never believed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use antiphon_bundle::World;
use antiphon_core::hash::Hash as _;
use antiphon_plugin::{HostOptions, Limits, PluginHost};

use super::{official, packed, table};

/// Where the body of a file begins: after magic, key, length and hash.
pub(crate) const BODY_AT: usize = 8 + 32 + 8 + 32;

/// A cache's folder, inside a temporary one.
pub(crate) struct Folder {
    outer: tempfile::TempDir,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self { outer: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.outer.path().join("compiled")
    }

    /// A new host, as after a restart.
    pub(crate) fn host(&self) -> PluginHost {
        PluginHost::new(&HostOptions { cache_dir: Some(self.path()), compiler: None }).unwrap()
    }

    /// The one file with a compiled component.
    pub(crate) fn compiled(&self) -> PathBuf {
        let files = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|ext| ext == "compiled")).collect();
        assert_eq!(files.len(), 1);
        files.remove(0)
    }

    /// Restarts, and sees to it that the plugin works.
    fn restart(&self) {
        let mut fnv = self.host().hasher(&official(World::Hasher, "fnv"), &[], Limits::default()).unwrap();
        fnv.configure(&[table("Books", &[("id", "INTEGER")])]).unwrap();
        assert_eq!(fnv.hash(0, &packed(&[&[8]])).unwrap(), [106_709_661_037_676_149]);
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap())
}

#[test]
fn a_second_start_finds_what_the_first_compiled() {
    let folder = Folder::new();
    folder.restart();
    let (path, before) = (folder.compiled(), fs::read(folder.compiled()).unwrap());
    let written = inode(&path);
    folder.restart();
    assert_eq!(inode(&path), written, "it was written again");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(mode(&folder.path()), 0o700);
    assert_eq!(mode(&folder.path().join("secret")), 0o600);
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn a_damaged_file_is_compiled_again() {
    let folder = Folder::new();
    folder.restart();
    let path = folder.compiled();
    let whole = fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut longer = whole.clone();
    longer.push(0);
    let damages = [
        ("magic", flipped(0)),
        ("version", flipped(7)),
        ("key", flipped(8)),
        ("length", flipped(40)),
        ("hash", flipped(48)),
        ("first byte of the body", flipped(BODY_AT)),
        ("middle of the body", flipped(whole.len() / 2)),
        ("last byte", flipped(whole.len() - 1)),
        ("empty", Vec::new()),
        ("only a head", whole[..BODY_AT].to_vec()),
        ("cut", whole[..whole.len() - 1].to_vec()),
        ("longer", longer),
        ("bare machine code", whole[BODY_AT..].to_vec()),
    ];
    for (what, bytes) in damages {
        fs::write(&path, bytes).unwrap();
        folder.restart();
        assert!(fs::read(&path).unwrap() == whole, "{what}: it was not replaced");
    }
}

#[test]
fn a_file_of_another_component_is_not_taken() {
    let folder = Folder::new();
    folder.restart();
    let fnv = folder.compiled();
    let other = Folder::new();
    fs::create_dir(other.path()).unwrap();
    fs::copy(folder.path().join("secret"), other.path().join("secret")).unwrap();
    other.host().resolver(&official(World::Resolver, "last-write-wins"), &[], Limits::default()).unwrap();
    // Written by us, hashed with our secret, and still not what its name says.
    fs::copy(other.compiled(), &fnv).unwrap();
    folder.restart();
}

#[test]
fn another_secret_makes_all_files_void() {
    let folder = Folder::new();
    folder.restart();
    let (path, secret) = (folder.compiled(), folder.path().join("secret"));
    let before = fs::read(&path).unwrap();

    fs::write(&secret, [7; 32]).unwrap();
    folder.restart();
    assert!(fs::read(&path).unwrap() != before, "a file was believed that another secret vouches for");

    for damage in [&b"short"[..], &[], &[1; 33]] {
        fs::write(&secret, damage).unwrap();
        folder.restart();
        assert_eq!(fs::read(&secret).unwrap().len(), 32);
    }

    let known = fs::read(&secret).unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
    folder.restart();
    assert!(fs::read(&secret).unwrap() != known, "a secret was kept that others could read");
    assert_eq!(mode(&secret), 0o600);
}

#[test]
fn a_folder_open_to_others_is_closed() {
    let folder = Folder::new();
    fs::create_dir(folder.path()).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    folder.restart();
    assert_eq!(mode(&folder.path()), 0o700);
}

#[test]
fn a_folder_that_cannot_be_had_costs_a_compilation_and_no_more() {
    let folder = Folder::new();
    fs::write(folder.path(), "a file").unwrap();
    folder.restart();
    fs::remove_file(folder.path()).unwrap();
    std::os::unix::fs::symlink("/nowhere", folder.path()).unwrap();
    folder.restart();

    let folder = Folder::new();
    folder.restart();
    let path = folder.compiled();
    fs::remove_file(&path).unwrap();
    // A folder in the file's place can be neither read nor replaced.
    fs::create_dir(&path).unwrap();
    folder.restart();
}
