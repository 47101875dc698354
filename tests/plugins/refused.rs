//! Bytes that are no plugin, or not the one that is wanted: each a word on why, and on what to do.

use antiphon_bundle::World;
use antiphon_plugin::{Limits, Reason};

use super::{HOST, custom, guests, official};

/// What a person reads when these bytes are named as a hasher.
fn refused(bytes: &[u8]) -> String {
    let Err(err) = HOST.hasher(&custom(bytes), &[], Limits::default()) else { panic!("it was taken") };
    let text = format!("{err}: {}", err.reason());
    let text = text.replace(&antiphon_plugin::sha256(bytes), "[sha256]");
    err.hint().map_or_else(|| text.clone(), |hint| format!("{text}\n{hint}"))
}

fn a_hasher() -> Vec<u8> {
    guests::hasher("(i32.const 128)", "")
}

#[test]
fn empty() {
    insta::assert_snapshot!(refused(b""), @r"
    cannot load plugin `mine` (file:mine.wasm, sha256 [sha256]): it is empty
    Copy the file again and compare its sha256.
    ");
}

#[test]
fn text() {
    insta::assert_snapshot!(refused(b"fn main() {}\n"), @r"
    cannot load plugin `mine` (file:mine.wasm, sha256 [sha256]): it is a text, not a WebAssembly component
    Compile it to a component first, and name the `.wasm` file that this gives.
    ");
    insta::assert_snapshot!(refused("é".repeat(600).as_bytes()).lines().next().unwrap(), @"cannot load plugin `mine` (file:mine.wasm, sha256 [sha256]): it is a text, not a WebAssembly component");
}

#[test]
fn something_else() {
    insta::assert_snapshot!(refused(b"\x89PNG\r\n\x1a\nabcdef"), @r"
    cannot load plugin `mine` (file:mine.wasm, sha256 [sha256]): it is no WebAssembly: it begins with [89, 50, 4e, 47, 0d, 0a, 1a, 0a]
    Copy the file again and compare its sha256.
    ");
}

#[test]
fn core_module() {
    insta::assert_snapshot!(refused(&wat::parse_str("(module)").unwrap()), @r"
    cannot load plugin `mine` (file:mine.wasm, sha256 [sha256]): it is a core WebAssembly module, not a component
    Build it for `wasm32-wasip2`, or make a component of it with `wasm-tools component new`.
    ");
}

#[test]
fn t17_compiled_ahead() {
    insta::assert_snapshot!(refused(&compiled()), @r"
    cannot load plugin `mine` (file:mine.wasm, sha256 [sha256]): it is machine code compiled ahead (`.cwasm`), which can do anything and is never loaded
    Name the component that it was compiled from.
    ");
}

/// A component compiled by the engine, taken from a cache and freed from what the cache puts around it.
fn compiled() -> Vec<u8> {
    let folder = super::cache::Folder::new();
    folder.host().hasher(&custom(&a_hasher()), &[], Limits::default()).unwrap();
    std::fs::read(folder.compiled()).unwrap()[super::cache::BODY_AT..].to_vec()
}

#[test]
fn truncated() {
    let whole = a_hasher();
    let text = refused(&whole[..whole.len() / 2]);
    insta::assert_snapshot!(text, @r"
    cannot load plugin `mine` (file:mine.wasm, sha256 [sha256]): it ends in the middle: the file is truncated
    Copy the file again and compare its sha256.
    ");
    // Wherever it is cut, it is refused, and never by a crash.
    for len in (1..whole.len()).step_by(37) {
        refused(&whole[..len]);
    }
}

#[test]
fn any_byte_changed_is_refused_or_harmless() {
    let whole = a_hasher();
    for at in (0..whole.len()).step_by(29) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x15;
        let _ = HOST.hasher(&custom(&bytes), &[], Limits::default());
    }
}

#[test]
fn too_large() {
    let limits = Limits { component_bytes: 100, ..Limits::default() };
    let Err(err) = HOST.hasher(&custom(&a_hasher()), &[], limits) else { panic!("it was taken") };
    assert!(matches!(err.reason(), Reason::TooLarge { size_max: 100, .. }), "{}", err.reason());
}

#[test]
fn another_world() {
    let Err(err) = HOST.hasher(&official(World::Resolver, "last-write-wins"), &[], Limits::default()) else {
        panic!("it was taken")
    };
    insta::assert_snapshot!(err.reason(), @"it is no hasher: it exports `antiphon:plugin/metadata@0.1.0`, `antiphon:plugin/conflict@0.1.0`, and a hasher exports `antiphon:plugin/metadata@0.1.0`, `antiphon:plugin/rowhash@0.1.0`");
    let Err(err) = HOST.resolver(&official(World::Hasher, "fnv"), &[], Limits::default()) else {
        panic!("it was taken")
    };
    insta::assert_snapshot!(err.reason(), @"it is no resolver: it exports `antiphon:plugin/metadata@0.1.0`, `antiphon:plugin/rowhash@0.1.0`, and a resolver exports `antiphon:plugin/metadata@0.1.0`, `antiphon:plugin/conflict@0.1.0`");
    let nothing = wat::parse_str("(component)").unwrap();
    insta::assert_snapshot!(refused(&nothing), @r"
    cannot load plugin `mine` (file:mine.wasm, sha256 [sha256]): it is no hasher: it exports nothing, and a hasher exports `antiphon:plugin/metadata@0.1.0`, `antiphon:plugin/rowhash@0.1.0`
    See that the plugin is named under the setting that it is made for.
    ");
}

fn of_version(version: &str) -> Vec<u8> {
    let wit = format!(
        "package antiphon:plugin@{version}; interface metadata {{ describe: func(); }} interface rowhash {{ hash: func(); }}
         world hasher {{ export metadata; export rowhash; }}"
    );
    let text = format!(
        r#"(module (func (export "antiphon:plugin/metadata@{version}#describe"))
                   (func (export "antiphon:plugin/rowhash@{version}#hash")))"#
    );
    guests::module_as_wit(&wit, "hasher", &text)
}

#[test]
fn another_version() {
    insta::assert_snapshot!(refused(&of_version("0.2.0")), @r"
    cannot load plugin `mine` (file:mine.wasm, sha256 [sha256]): it exports `antiphon:plugin/metadata@0.2.0`, and this Antiphon knows `antiphon:plugin/metadata@0.1.0`
    Use a later release of Antiphon, or an earlier build of the plugin.
    ");
    insta::assert_snapshot!(refused(&of_version("0.0.9")), @r"
    cannot load plugin `mine` (file:mine.wasm, sha256 [sha256]): it exports `antiphon:plugin/metadata@0.0.9`, and this Antiphon knows `antiphon:plugin/metadata@0.1.0`
    Build the plugin again with this release's `wit` folder.
    ");
    // The right version, and another interface under its name.
    insta::assert_snapshot!(refused(&of_version("0.1.0")), @r"
    cannot load plugin `mine` (file:mine.wasm, sha256 [sha256]): what it exports is not as `antiphon:plugin@0.1.0` has it: instance export `antiphon:plugin/rowhash@0.1.0` does not have export `configure`
    Build the plugin again with this release's `wit` folder, or use the release that it was made for.
    ");
}

/// A hasher in all that it exports, with one import of this WIT package besides.
fn importing(package: &str, import: &str, interface: &str) -> Vec<u8> {
    let (name, version) = package.split_once('@').unwrap();
    let text = format!(
        r#"(component
          (import "{name}/{import}@{version}" (instance (export "f" (func))))
          (component $empty)
          (instance $none (instantiate $empty))
          (export "antiphon:plugin/metadata@0.1.0" (instance $none))
          (export "antiphon:plugin/{interface}@0.1.0" (instance $none)))"#
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn t19_imports_that_are_not_to_be_had() {
    insta::assert_snapshot!(refused(&importing("wasi:http@0.2.0", "outgoing-handler", "rowhash")), @r"
    cannot load plugin `mine` (file:mine.wasm, sha256 [sha256]): it imports `wasi:http/outgoing-handler@0.2.0`, and a hasher only computes: it can't have the network
    `wasm-tools component wit FILE` shows what it imports.
    ");
    insta::assert_snapshot!(refused(&importing("acme:dynamite@1.0.0", "fuse", "rowhash")), @r"
    cannot load plugin `mine` (file:mine.wasm, sha256 [sha256]): it imports `acme:dynamite/fuse@1.0.0`, which is not to be had here
    `wasm-tools component wit FILE` shows what it imports.
    ");
    insta::assert_snapshot!(refused(&importing("antiphon:plugin@0.1.0", "nats-bucket", "rowhash")), @r"
    cannot load plugin `mine` (file:mine.wasm, sha256 [sha256]): it imports `antiphon:plugin/nats-bucket@0.1.0`, which is not to be had here
    `wasm-tools component wit FILE` shows what it imports.
    ");
    insta::assert_snapshot!(refused(&importing("wasi:cli@0.3.0", "environment", "rowhash")), @"cannot load plugin `mine` (file:mine.wasm, sha256 [sha256]): an import does not fit: component imports instance `wasi:cli/environment@0.3.0`, but a matching implementation was not found in the linker: instance export `f` has the wrong type: function implementation is missing");
}
