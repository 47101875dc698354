//! What is no component, and what a configuration can't say of one, is refused in words.

use antiphon_harness::resolver_guest;

use super::components::{KEEP, component, mine, site};
use super::place;

/// Whatever is named as a component and is none, a start says what it is and what to do, and nothing has happened yet.
#[test]
fn what_is_no_resolver_is_refused_in_words() {
    let place = place();
    let good = resolver_guest(KEEP);
    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let (from, to) = (from.as_bytes(), to.as_bytes());
        let mut bytes = good.clone();
        let mut at = 0;
        while let Some(found) = bytes[at..].windows(from.len()).position(|window| window == from) {
            at += found;
            bytes[at..at + to.len()].copy_from_slice(to);
        }
        bytes
    };
    let module = b"\0asm\x01\0\0\0".to_vec();
    let hasher = antiphon_bundle::find(antiphon_bundle::World::Hasher, "fnv").unwrap().bytes.to_vec();
    let mut all = String::new();
    for (name, bytes) in [
        ("missing", None),
        ("folder", None),
        ("loop", None),
        ("empty", Some(Vec::new())),
        ("text", Some(b"fn main() {}\n".to_vec())),
        ("other", Some(b"\x7fELF\x02\x01\x01\0".to_vec())),
        ("module", Some(module)),
        ("cut", Some(good[..good.len() / 2].to_vec())),
        ("hasher", Some(hasher)),
        ("newer", Some(replaced("@0.1.0", "@0.9.0"))),
        ("older", Some(replaced("@0.1.0", "@0.0.1"))),
        ("extended", Some(replaced("not-null", "not-nill"))),
        ("unknown", Some(replaced("antiphon:plugin/types@", "antiphon:plugin/treat@"))),
    ] {
        let file = format!("{name}.wasm");
        if name == "folder" {
            std::fs::create_dir(place.path(&file)).unwrap();
        }
        if name == "loop" {
            std::os::unix::fs::symlink(place.path(&file), place.path(&file)).unwrap();
        }
        let sha256 = bytes.map_or_else(|| "0".repeat(64), |bytes| component(&place, &file, &bytes));
        let config = mine(&format!("sha256 = \"{sha256}\"\n")).replace("mine.wasm", &file);
        let mut site = site(&place, name, &config);
        let ended = site.refused();
        let said = ended.stderr.replace(&sha256, "[sha256]").replace(place.path("").to_str().unwrap(), "[folder]/");
        all.push_str(&format!("{name}, {:?}\n{said}\n", ended.code.unwrap()));
        assert_eq!(site.schema().len(), 1, "{name} left something behind");
    }
    insta::assert_snapshot!(all, @r"
    missing, 66
    error: cannot read the component of `[plugin.mine]`, `missing.wasm`: No such file or directory (os error 2)

    hint: see that `source` under `[plugin.mine]` names it; a path is relative to the configuration

    folder, 66
    error: cannot read the component of `[plugin.mine]`, `folder.wasm`: it is not a file

    hint: see that `source` under `[plugin.mine]` names it; a path is relative to the configuration

    loop, 66
    error: cannot read the component of `[plugin.mine]`, `loop.wasm`: Too many levels of symbolic links (os error 40)

    hint: see that `source` under `[plugin.mine]` names it; a path is relative to the configuration

    empty, 64
    error: cannot load plugin `mine` (file:empty.wasm, sha256 [sha256]): it is empty

    hint: Copy the file again and compare its sha256.

    text, 64
    error: cannot load plugin `mine` (file:text.wasm, sha256 [sha256]): it is a text, not a WebAssembly component

    hint: Compile it to a component first, and name the `.wasm` file that this gives.

    other, 64
    error: cannot load plugin `mine` (file:other.wasm, sha256 [sha256]): it is no WebAssembly: it begins with [7f, 45, 4c, 46, 02, 01, 01, 00]

    hint: Copy the file again and compare its sha256.

    module, 64
    error: cannot load plugin `mine` (file:module.wasm, sha256 [sha256]): it is a core WebAssembly module, not a component

    hint: Build it for `wasm32-wasip2`, or make a component of it with `wasm-tools component new`.

    cut, 64
    error: cannot load plugin `mine` (file:cut.wasm, sha256 [sha256]): it ends in the middle: the file is truncated

    hint: Copy the file again and compare its sha256.

    hasher, 64
    error: cannot load plugin `mine` (file:hasher.wasm, sha256 [sha256]): it is no resolver: it exports `antiphon:plugin/metadata@0.1.0`, `antiphon:plugin/rowhash@0.1.0`, and a resolver exports `antiphon:plugin/metadata@0.1.0`, `antiphon:plugin/conflict@0.1.0`

    hint: See that the plugin is named under the setting that it is made for.

    newer, 64
    error: cannot load plugin `mine` (file:newer.wasm, sha256 [sha256]): it exports `antiphon:plugin/metadata@0.9.0`, and this Antiphon knows `antiphon:plugin/metadata@0.1.0`

    hint: Use a later release of Antiphon, or an earlier build of the plugin.

    older, 64
    error: cannot load plugin `mine` (file:older.wasm, sha256 [sha256]): it exports `antiphon:plugin/metadata@0.0.1`, and this Antiphon knows `antiphon:plugin/metadata@0.1.0`

    hint: Build the plugin again with this release's `wit` folder.

    extended, 64
    error: cannot load plugin `mine` (file:extended.wasm, sha256 [sha256]): what it exports is not as `antiphon:plugin@0.1.0` has it: expected record field named not-null, found not-nill

    hint: Build the plugin again with this release's `wit` folder, or use the release that it was made for.

    unknown, 64
    error: cannot load plugin `mine` (file:unknown.wasm, sha256 [sha256]): it imports `antiphon:plugin/treat@0.1.0`, which is not to be had here

    hint: `wasm-tools component wit FILE` shows what it imports.
    ");
}

/// What the configuration says of a component and can't mean.
#[test]
fn what_a_configuration_cannot_say_of_a_component() {
    let place = place();
    let sha256 = component(&place, "mine.wasm", &resolver_guest(KEEP));
    let mut all = String::new();
    for (number, rest) in [
        "sha265 = \"00\"",
        "sha256 = \"00\"",
        "fuel = 7",
        "[plugin.mine.limits]\nmemmory = \"1 MiB\"",
        "[plugin.mine.limits]\nmemory = \"1 KiB\"",
        "[plugin.mine.limits]\nmemory = \"many\"",
        "on_failure = \"ignore\"",
        "settings = 3",
    ]
    .into_iter()
    .enumerate()
    {
        let pin = if rest.starts_with("sha") { String::new() } else { format!("sha256 = \"{sha256}\"\n") };
        let mut site = site(&place, &format!("n{number}"), &mine(&format!("{pin}{rest}\n")));
        let ended = site.refused();
        all.push_str(&format!("{rest}, {:?}\n{}\n", ended.code.unwrap(), ended.stderr.replace(&sha256, "[sha256]")));
    }
    insta::assert_snapshot!(all, @r#"
    sha265 = "00", 64
    error: unknown key `plugin.mine.sha265` in `n0.toml`; did you mean `sha256`?

    hint: see every key with `antiphon config example`

    sha256 = "00", 64
    error: configuration `n1.toml`: `plugin.mine.sha256` must be 64 hexadecimal digits

    hint: `antiphon plugin pin mine` writes the right ones

    fuel = 7, 64
    error: unknown key `plugin.mine.fuel` in `n2.toml`

    hint: see every key with `antiphon config example`

    [plugin.mine.limits]
    memmory = "1 MiB", 64
    error: unknown key `plugin.mine.limits.memmory` in `n3.toml`; did you mean `memory`?

    hint: see every key with `antiphon config example`

    [plugin.mine.limits]
    memory = "1 KiB", 64
    error: configuration `n4.toml`: `plugin.mine.limits.memory` must be from 64 KiB to 4 GiB, found 1 KiB

    [plugin.mine.limits]
    memory = "many", 64
    error: `plugin.mine.limits.memory` in `n5.toml` must be an amount of bytes, as `"64 MiB"`, found the text `many`

    on_failure = "ignore", 64
    error: configuration `n6.toml`: `plugin.mine.on_failure` must be one of `stop`, `park`, found `ignore`

    settings = 3, 64
    error: `plugin.mine.settings` in `n7.toml` must be a table, found the number 3
    "#);
}
