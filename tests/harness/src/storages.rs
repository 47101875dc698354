//! Storages written as text, each with one thing wrong with it.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const WIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit");

/// As much of WASI as the guests here make use of.
const WASI: [&str; 3] = [
    "package wasi:io@0.2.0; interface poll { resource pollable { block: func(); } }",
    "package wasi:clocks@0.2.0; interface monotonic-clock {
       use wasi:io/poll@0.2.0.{pollable};
       subscribe-duration: func(when: u64) -> pollable;
     }",
    "package wasi:http@0.2.0; interface outgoing-handler { handle: func(); }",
];

/// The functions of a storage: what it is called here, its name, its parameters, and what it does unless told otherwise.
/// An answer is at 1024: zeros, which is success, and of nothing at all.
const FUNCTIONS: [(&str, &str, &str, &str); 9] = [
    ("describe", "antiphon:plugin/metadata@0.1.0#describe", "(result i32)", "(i32.const 0)"),
    (
        "open",
        "antiphon:plugin/storage@0.1.0#[static]session.open",
        "(param i32 i32) (result i32)",
        "(i32.store (i32.const 1156) (call $session (i32.const 7))) (i32.const 1152)",
    ),
    (
        "traits",
        "antiphon:plugin/storage@0.1.0#[method]session.traits",
        "(param i32) (result i32)",
        "(i64.store (i32.const 1024) (i64.const 33554432)) (i32.const 1024)",
    ),
    ("check", "antiphon:plugin/storage@0.1.0#[method]session.check", "(param i32) (result i32)", "(i32.const 1152)"),
    (
        "put",
        "antiphon:plugin/storage@0.1.0#[method]session.put",
        "(param i32 i32 i32 i32 i32 i32) (result i32)",
        "(i32.const 1216)",
    ),
    (
        "get",
        "antiphon:plugin/storage@0.1.0#[method]session.get",
        "(param i32 i32 i32 i64 i32 i64) (result i32)",
        "(i32.const 1216)",
    ),
    (
        "stat",
        "antiphon:plugin/storage@0.1.0#[method]session.stat",
        "(param i32 i32 i32) (result i32)",
        "(i32.const 1216)",
    ),
    (
        "list",
        "antiphon:plugin/storage@0.1.0#[method]session.list-keys",
        "(param i32 i32 i32 i32 i32 i32 i32) (result i32)",
        "(i32.const 1216)",
    ),
    (
        "delete",
        "antiphon:plugin/storage@0.1.0#[method]session.delete",
        "(param i32 i32 i32) (result i32)",
        "(i32.const 1216)",
    ),
];

/// A storage of which each function named in `bodies` does that. `imports` are the interfaces it imports besides, and
/// `more` goes into the module: core imports first.
pub fn storage_guest(bodies: &[(&str, &str)], imports: &[&str], core_imports: &str, more: &str) -> Vec<u8> {
    let mut functions = String::new();
    for (what, name, signature, usual) in FUNCTIONS {
        let body = bodies.iter().find(|(found, _)| *found == what).map_or(usual, |(_, body)| body);
        functions.push_str(&format!("(func (export \"{name}\") {signature} (local $n i32) {body})\n"));
    }
    for (found, _) in bodies {
        assert!(FUNCTIONS.iter().any(|(what, ..)| what == found), "there is no function {found}");
    }
    let text = format!(
        r#"(module
    (import "[export]antiphon:plugin/storage@0.1.0" "[resource-new]session" (func $session (param i32) (result i32)))
    {core_imports}
    (memory (export "memory") 2)
    (global $top (mut i32) (i32.const 65536))
    (func $take (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
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
    {more}
    {functions})"#
    );
    let mut resolve = Resolve::default();
    resolve.push_dir(WIT).unwrap();
    for wit in WASI {
        resolve.push_str("wasi.wit", wit).unwrap();
    }
    let imports: String = imports.iter().map(|import| format!("import {import};")).collect();
    let world = format!("package test:test; world hostile {{ include antiphon:plugin/storage-file@0.1.0; {imports} }}");
    let package = resolve.push_str("test.wit", &world).unwrap();
    let world = resolve.select_world(&[package], Some("hostile")).unwrap();
    let mut module = wat::parse_str(text).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}
