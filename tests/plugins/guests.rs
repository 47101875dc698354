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

/// A hasher that imports these functions of WASI, as core imports and as the WIT that they are in.
pub(crate) fn hasher_with_wasi(hash: &str, imports: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve.push_dir(WIT).unwrap();
    for wit in [
        "package wasi:io@0.2.0; interface poll { resource pollable; }",
        "package wasi:clocks@0.2.0; interface monotonic-clock {
           use wasi:io/poll@0.2.0.{pollable};
           now: func() -> u64;
           subscribe-duration: func(when: u64) -> pollable;
         }",
        "package wasi:random@0.2.0; interface random { get-random-u64: func() -> u64; }",
    ] {
        resolve.push_str("wasi.wit", wit).unwrap();
    }
    let world = "package test:test;
        world hasher-with-wasi {
          include antiphon:plugin/hasher@0.1.0;
          import wasi:clocks/monotonic-clock@0.2.0;
          import wasi:random/random@0.2.0;
        }";
    let package = resolve.push_str("test.wit", world).unwrap();
    component(&mut resolve, package, "hasher-with-wasi", &hasher_text(hash, imports, ""))
}

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

/// A resolver that needs nothing and whose `resolve` is this: pointer and length of clashes to pointer to the result.
pub(crate) fn resolver(resolve: &str, more: &str) -> Vec<u8> {
    module_as(
        "resolver",
        &format!(
            r#"(module {COMMON} {more}
            (func (export "antiphon:plugin/conflict@0.1.0#configure") (param i32 i32 i32 i32 i32 i32) (result i32)
              (i32.const 128))
            (func (export "antiphon:plugin/conflict@0.1.0#resolve") (param i32 i32) (result i32)
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
