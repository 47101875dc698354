//! Guests written as text, each with one thing wrong with it.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const WIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit");

/// What every guest needs: memory, an allocator that never frees, a name. Results of calls that are fine are at 128:
/// zeros, which is `ok` of nothing at all.
const COMMON: &str = r#"
    (memory (export "memory") 2)
    (global $top (mut i32) (i32.const 65536))
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      ;; first of all
      (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
      (global.set $top (i32.add (local.get $at) (local.get 3)))
      (loop $more
        (if (i32.gt_u (global.get $top) (i32.mul (memory.size) (i32.const 65536)))
          (then (drop (memory.grow (i32.const 16))) (br $more))))
      (local.get $at))
    (data (i32.const 0) "\40\00\00\00\05\00\00\00" "\48\00\00\00\01\00\00\00" "\50\00\00\00\01\00\00\00"
      "\50\00\00\00\00\00\00\00" "\01\00\00\00")
    (data (i32.const 64) "guest")
    (data (i32.const 72) "1")
    (data (i32.const 80) "x")
    (func (export "antiphon:plugin/metadata@0.1.0#describe") (result i32) (i32.const 0))
"#;

/// A hasher whose `configure` sets `$configured` and whose `hash` is this. Its parameters are the table's number,
/// then pointer and length of keys and of ends; it gives a pointer to the result. `more` goes into the module.
pub(crate) fn hasher(hash: &str, more: &str) -> Vec<u8> {
    module_as("hasher", &hasher_text(hash, "", more))
}

/// A hasher that imports these functions of WASI, as core imports.
pub(crate) fn hasher_with_wasi(hash: &str, imports: &str) -> Vec<u8> {
    hasher_importing(hash, imports, "")
}

/// The same, with `more` in the module.
pub(crate) fn hasher_importing(hash: &str, imports: &str, more: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve.push_dir(WIT).unwrap();
    for wit in WASI {
        resolve.push_str("wasi.wit", wit).unwrap();
    }
    let world = "package test:test;
        world hasher-with-wasi {
          include antiphon:plugin/hasher@0.1.0;
          import wasi:clocks/monotonic-clock@0.2.0;
          import wasi:random/random@0.2.0;
          import wasi:io/poll@0.2.0;
          import wasi:io/streams@0.2.0;
          import wasi:cli/stdin@0.2.0;
          import wasi:cli/stdout@0.2.0;
          import wasi:cli/environment@0.2.0;
          import wasi:cli/exit@0.2.0;
          import wasi:sockets/tcp-create-socket@0.2.0;
          import wasi:filesystem/preopens@0.2.0;
        }";
    let package = resolve.push_str("test.wit", world).unwrap();
    component(&mut resolve, package, "hasher-with-wasi", &hasher_text(hash, imports, more))
}

/// As much of WASI as guests here make use of.
const WASI: [&str; 6] = [
    "package wasi:io@0.2.0;
     interface error { resource error; }
     interface poll { resource pollable { block: func(); } poll: func(in: list<borrow<pollable>>) -> list<u32>; }
     interface streams {
       use error.{error};
       use poll.{pollable};
       variant stream-error { last-operation-failed(error), closed }
       resource input-stream {
         blocking-read: func(len: u64) -> result<list<u8>, stream-error>;
         subscribe: func() -> pollable;
       }
       resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
     }",
    "package wasi:clocks@0.2.0; interface monotonic-clock {
       use wasi:io/poll@0.2.0.{pollable};
       now: func() -> u64;
       subscribe-duration: func(when: u64) -> pollable;
     }",
    "package wasi:random@0.2.0; interface random {
       get-random-bytes: func(len: u64) -> list<u8>;
       get-random-u64: func() -> u64;
     }",
    "package wasi:cli@0.2.0;
     interface stdin { use wasi:io/streams@0.2.0.{input-stream}; get-stdin: func() -> input-stream; }
     interface stdout { use wasi:io/streams@0.2.0.{output-stream}; get-stdout: func() -> output-stream; }
     interface environment { get-environment: func() -> list<tuple<string, string>>; }
     interface exit { exit: func(status: result); }",
    "package wasi:sockets@0.2.0;
     interface network {
       enum error-code {
         unknown, access-denied, not-supported, invalid-argument, out-of-memory, timeout, concurrency-conflict,
         not-in-progress, would-block, invalid-state, new-socket-limit, address-not-bindable, address-in-use,
         remote-unreachable, connection-refused, connection-reset, connection-aborted, datagram-too-large,
         name-unresolvable, temporary-resolver-failure, permanent-resolver-failure,
       }
       enum ip-address-family { ipv4, ipv6 }
     }
     interface tcp { resource tcp-socket; }
     interface tcp-create-socket {
       use network.{error-code, ip-address-family};
       use tcp.{tcp-socket};
       create-tcp-socket: func(address-family: ip-address-family) -> result<tcp-socket, error-code>;
     }",
    "package wasi:filesystem@0.2.0;
     interface types { resource descriptor; }
     interface preopens {
       use types.{descriptor};
       get-directories: func() -> list<tuple<descriptor, string>>;
     }",
];

/// The same that does something else first: where `before` marks it, in [`COMMON`] or what follows.
pub(crate) fn hasher_doing(what: &str, where_: &str) -> Vec<u8> {
    let text = hasher_text("(i32.const 128)", "", "");
    assert!(text.contains(where_), "there is no {where_}");
    module_as("hasher", &text.replace(where_, &format!("{where_} {what}")))
}

/// Where a guest is when it allocates, describes itself and is configured.
pub(crate) const ALLOCATING: &str = ";; first of all\n";
pub(crate) const DESCRIBING: &str = "#describe\") (result i32)";
pub(crate) const CONFIGURING: &str = "#configure\") (param i32 i32 i32 i32) (result i32)";

fn hasher_text(hash: &str, imports: &str, more: &str) -> String {
    format!(
        r#"(module {imports} {COMMON} {more}
            (global $configured (mut i32) (i32.const 0))
            (global $calls (mut i32) (i32.const 0))
            (func (export "antiphon:plugin/rowhash@0.1.0#configure") (param i32 i32 i32 i32) (result i32)
              (global.set $configured (i32.const 100))
              (i32.const 128))
            (func $hash (export "antiphon:plugin/rowhash@0.1.0#hash") (param i32 i32 i32 i32 i32) (result i32)
              {hash}))"#
    )
}

/// A hasher whose memory has so many pages from the start.
pub(crate) fn hasher_memory(pages: &str) -> Vec<u8> {
    let text = hasher_text("(i32.const 128)", "", "");
    module_as("hasher", &text.replace("\"memory\") 2", &format!("\"memory\") {pages}")))
}

/// A resolver that needs nothing and whose `resolve` is this: pointer and length of clashes to pointer to the result.
pub(crate) fn resolver(resolve: &str, more: &str) -> Vec<u8> {
    module_as(
        "resolver",
        &format!(
            r#"(module {COMMON} {more}
            (func (export "antiphon:plugin/conflict@0.1.0#configure") (param i32 i32 i32 i32 i32 i32) (result i32)
              (i32.const 128))
            (func (export "antiphon:plugin/conflict@0.1.0#resolve") (param i32 i32) (result i32)
        (local $n i32) (local $m i32)
              {resolve}))"#
        ),
    )
}

/// A core module in text as a component of one of the project's worlds.
pub(crate) fn module_as(world: &str, text: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(WIT).unwrap();
    component(&mut resolve, package, world, text)
}

/// A core module in text as a component of a world in this WIT.
pub(crate) fn module_as_wit(wit: &str, world: &str, text: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("test.wit", wit).unwrap();
    component(&mut resolve, package, world, text)
}

fn component(resolve: &mut Resolve, package: wit_parser::PackageId, world: &str, text: &str) -> Vec<u8> {
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut module = wat::parse_str(text).unwrap();
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}
