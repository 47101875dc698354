//! Resolvers written as text, for suites that run the whole program.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const WIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit");

/// A resolver named `mine` that gives each clash the verdict this text leaves on the stack: 0 keep, 1 take, 3 remove.
///
/// The text may use `$clash`, and the functions `$kind` and `$number`, which give the kind (0 null, 1 integer, 2 real,
/// 3 text) and the integer of a column of the incoming row.
pub fn resolver_guest(verdict: &str) -> Vec<u8> {
    resolver_guest_with(verdict, "")
}

/// The same, with more in the module: functions, data, a custom name.
pub fn resolver_guest_with(verdict: &str, more: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
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
    (data (i32.const 0) "\40\00\00\00\04\00\00\00" "\48\00\00\00\01\00\00\00" "\50\00\00\00\01\00\00\00"
      "\50\00\00\00\00\00\00\00" "\01\00\00\00")
    (data (i32.const 64) "mine")
    (data (i32.const 72) "1")
    (data (i32.const 80) "x")
    (func (export "antiphon:plugin/metadata@0.1.0#describe") (result i32) (i32.const 0))
    ;; It wants to see the row that stands.
    (data (i32.const 128) "\00\00\00\00\01\00\00\00")
    (func (export "antiphon:plugin/conflict@0.1.0#configure") (param i32 i32 i32 i32 i32 i32) (result i32)
      (i32.const 128))
    ;; A clash is 112 bytes, its incoming row's values lie where byte 100 says, and a value is 16.
    (func $value (param $clash i32) (param $column i32) (result i32)
      (i32.add (i32.load (i32.add (local.get $clash) (i32.const 100))) (i32.mul (local.get $column) (i32.const 16))))
    (func $kind (param $clash i32) (param $column i32) (result i32)
      (if (result i32) (i32.load8_u (i32.add (local.get $clash) (i32.const 96)))
        (then (i32.load8_u (call $value (local.get $clash) (local.get $column))))
        (else (i32.const 0))))
    (func $number (param $clash i32) (param $column i32) (result i64)
      (if (result i64) (i32.eq (call $kind (local.get $clash) (local.get $column)) (i32.const 1))
        (then (i64.load (i32.add (call $value (local.get $clash) (local.get $column)) (i32.const 8))))
        (else (i64.const 0))))
    {more}
    (func $decide (param $clash i32) (result i32) {verdict})
    (func $resolve (export "antiphon:plugin/conflict@0.1.0#resolve") (param $clashes i32) (param $count i32) (result i32)
      (local $out i32) (local $at i32)
      (local.set $out
        (call $take (i32.const 0) (i32.const 0) (i32.const 4) (i32.mul (local.get $count) (i32.const 12))))
      (block $done (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $count)))
        (i32.store8
          (i32.add (local.get $out) (i32.mul (local.get $at) (i32.const 12)))
          (call $decide (i32.add (local.get $clashes) (i32.mul (local.get $at) (i32.const 112)))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
      (i32.store8 (i32.const 256) (i32.const 0))
      (i32.store (i32.const 260) (local.get $out))
      (i32.store (i32.const 264) (local.get $count))
      (i32.const 256)))"#
    );
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(WIT).unwrap();
    let world = resolve.select_world(&[package], Some("resolver")).unwrap();
    let mut module = wat::parse_str(text).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}
