//! Components that mean harm, by the threat they are: each fails alone, the same way every time, and at a bounded cost.
//!
//! What "alone" means is in `alone`. Threats without a guest of their own, such as bytes that are no component, stand in
//! `refused`; those that take a cluster stand with the other tests of real nodes.

use std::sync::{Arc, Mutex};

use antiphon_core::hash::Hash as _;
use antiphon_harness::nested;
use antiphon_plugin::{Hasher, Limits};

use super::alone::{Guest, after_a_thousand_traps, alone, fails_alone, hashing, resolving, status_kib};
use super::guests::{ALLOCATING, CONFIGURING, DESCRIBING};
use super::{HOST, custom, guests, packed};

const SPIN: &str = "(loop $l (br $l))";

// T01: an endless loop, wherever a guest is at work.

#[test]
fn t01_a_loop_while_hashing() {
    insta::assert_snapshot!(fails_alone(|| hashing("", SPIN, "")), @"it ran out of fuel after 200500200 instructions, fuel 200500200");
}

#[test]
fn t01_a_loop_while_resolving() {
    insta::assert_snapshot!(fails_alone(|| resolving(SPIN, "")), @"it ran out of fuel after 200501800 instructions, fuel 200501800");
}

#[test]
fn t01_a_loop_while_configured() {
    let guest = || Guest::Configuring(guests::hasher_doing(SPIN, CONFIGURING));
    insta::assert_snapshot!(fails_alone(guest), @"it ran out of fuel after 200000000 instructions, fuel 200000000");
}

#[test]
fn t01_a_loop_while_describing_itself() {
    let guest = || Guest::Loaded(guests::hasher_doing(SPIN, DESCRIBING));
    insta::assert_snapshot!(fails_alone(guest), @"it ran out of fuel after 200000000 instructions");
}

#[test]
fn t01_a_loop_at_its_start() {
    let start = "(func $start (loop $l (br $l))) (start $start)";
    insta::assert_snapshot!(fails_alone(|| Guest::Loaded(guests::hasher("(unreachable)", start))), @"it ran out of fuel after 200000000 instructions");
}

/// The host waits for memory to put the tables into.
#[test]
fn t01_a_loop_while_allocating() {
    let guest = || {
        Guest::Configuring(guests::hasher_doing("(if (i32.eqz (local.get 0)) (then (loop $l (br $l))))", ALLOCATING))
    };
    insta::assert_snapshot!(fails_alone(guest), @"it ran out of fuel after 200000000 instructions, fuel 200000000");
}

/// The answer is given, and nothing but tidying up is left to do.
#[test]
fn t01_a_loop_after_the_answer() {
    let post = r#"(global $armed (mut i32) (i32.const 0))
        (func (export "cabi_post_antiphon:plugin/rowhash@0.1.0#hash") (param i32)
          (if (global.get $armed) (then (loop $l (br $l)))))"#;
    insta::assert_snapshot!(fails_alone(|| hashing("", "(global.set $armed (i32.const 1))", post)), @"it ran out of fuel after 200500200 instructions, fuel 200500200");
}

// T02: instructions that do much at once.

#[test]
fn t02_huge_copies() {
    let copies = "(drop (memory.grow (i32.const 900)))
        (loop $l (memory.copy (i32.const 0) (i32.const 1) (i32.const 50000000)) (br $l))";
    insta::assert_snapshot!(fails_alone(|| hashing("", copies, "")), @"it ran out of fuel after 200500200 instructions, fuel 200500200");
}

#[test]
fn t02_huge_fills() {
    let fills = "(drop (memory.grow (i32.const 900)))
        (loop $l (memory.fill (i32.const 0) (i32.const 7) (i32.const 50000000)) (br $l))";
    insta::assert_snapshot!(fails_alone(|| hashing("", fills, "")), @"it ran out of fuel after 200500200 instructions, fuel 200500200");
}

#[test]
fn t02_huge_fills_of_a_table() {
    let fills = "(loop $l (table.fill $t (i32.const 0) (ref.null func) (i32.const 90000)) (br $l))";
    insta::assert_snapshot!(fails_alone(|| hashing("", fills, "(table $t 90000 funcref)")), @"it ran out of fuel after 200500200 instructions, fuel 200500200");
}

// T03: waiting in the host, where neither fuel nor epoch ends it.

#[test]
fn t03_waiting_for_a_clock() {
    let import = r#"(import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $wait (param i64) (result i32)))
        (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))"#;
    let waits = "(call $block (call $wait (i64.const 1000000000000)))";
    insta::assert_snapshot!(fails_alone(|| hashing(import, waits, "")), @"it crashed with `a plugin that only computes can't wait` in `hash`, fuel 41");
}

/// There is nothing to be read and nobody who would ever write it: what looks like waiting is an answer at once.
#[test]
fn t03_waiting_for_input() {
    let import = r#"(import "wasi:cli/stdin@0.2.0" "get-stdin" (func $stdin (result i32)))
        (import "wasi:io/streams@0.2.0" "[method]input-stream.blocking-read" (func $read (param i32 i64 i32)))
        (import "wasi:io/streams@0.2.0" "[method]input-stream.subscribe" (func $subscribe (param i32) (result i32)))
        (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))"#;
    let reads = "(local.set $n (call $stdin))
        (call $block (call $subscribe (local.get $n)))
        (loop $l (call $read (local.get $n) (i64.const 1000000) (i32.const 1024)) (br $l))";
    insta::assert_snapshot!(fails_alone(|| hashing(import, reads, "")), @"it ran out of fuel after 200500200 instructions, fuel 200500200");
}

#[test]
fn t03_waiting_for_nothing() {
    let import = r#"(import "wasi:io/poll@0.2.0" "poll" (func $poll (param i32 i32 i32)))"#;
    insta::assert_snapshot!(fails_alone(|| hashing(import, "(call $poll (i32.const 0) (i32.const 0) (i32.const 1024))", "")), @"it crashed with `a plugin that only computes can't wait` in `<wasm function 0>`, called by `hash`, fuel 49");
}

/// Each call is quick, and there are millions of them: what the host does is part of the fuel.
#[test]
fn t03_calling_the_host_without_end() {
    let import = r#"(import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))"#;
    insta::assert_snapshot!(fails_alone(|| hashing(import, "(loop $l (drop (call $now)) (br $l))", "")), @"it ran out of fuel after 200500200 instructions, fuel 200500200");
}

#[test]
fn t03_randomness_without_end() {
    let import = r#"(import "wasi:random/random@0.2.0" "get-random-bytes" (func $random (param i64 i32)))"#;
    let draws = "(local.set $m (global.get $top))
        (loop $l (global.set $top (local.get $m)) (call $random (i64.const 4096) (i32.const 1024)) (br $l))";
    insta::assert_snapshot!(fails_alone(|| hashing(import, draws, "")), @"it ran out of fuel after 200500200 instructions, fuel 200500200");
}

// T04: memory, and all that there can be many of.

#[test]
fn t04_memory_that_grows() {
    let grows = "(loop $l (drop (memory.grow (i32.const 1))) (br $l))";
    insta::assert_snapshot!(fails_alone(|| hashing("", grows, "")), @"it wanted more than its 67108864 bytes of memory, fuel 36");
}

/// Memory costs nothing until it is touched.
#[test]
fn t04_memory_that_is_filled() {
    let fills = "(loop $l
        (local.set $n (memory.grow (i32.const 16)))
        (memory.fill (i32.mul (local.get $n) (i32.const 65536)) (i32.const 7) (i32.const 1000000))
        (br $l))";
    insta::assert_snapshot!(fails_alone(|| hashing("", fills, "")), @"it wanted more than its 67108864 bytes of memory, fuel 36");
}

#[test]
fn t04_memory_that_is_large_from_the_start() {
    let bytes = || guests::hasher_memory("65536");
    insta::assert_snapshot!(fails_alone(|| Guest::Loaded(bytes())), @"it wanted more than its 67108864 bytes of memory");
}

#[test]
fn t04_a_table_that_grows() {
    let grows = "(loop $l (drop (table.grow $t (ref.null func) (i32.const 1000))) (br $l))";
    insta::assert_snapshot!(fails_alone(|| hashing("", grows, "(table $t 1 funcref)")), @"it crashed with `a table of 100001 elements is more than allowed` in `hash`, fuel 36");
}

#[test]
fn t04_many_memories() {
    insta::assert_snapshot!(fails_alone(|| bomb(&nested::instances("(core module $m (memory 16))", 50))), @"it crashed with `resource limit exceeded: memory count too high at 5`");
}

#[test]
fn t04_many_tables() {
    insta::assert_snapshot!(fails_alone(|| bomb(&nested::instances("(core module $m (table 90000 funcref))", 50))), @"it crashed with `resource limit exceeded: table count too high at 9`");
}

#[test]
fn t04_many_instances() {
    insta::assert_snapshot!(fails_alone(|| bomb(&nested::instances("(core module $m)", 1000))), @"it crashed with `resource limit exceeded: instance count too high at 65`");
}

/// A thousand instances of a component with an instance in it.
#[test]
fn t04_many_components() {
    let mut nested = "(component $c0 (core module $m) (core instance (instantiate $m)))".to_owned();
    nested.push_str(&(0..1000).map(|_| "(instance (instantiate $c0))").collect::<String>());
    insta::assert_snapshot!(fails_alone(|| bomb(&nested)), @"it crashed with `resource limit exceeded: instance count too high at 65`");
}

/// Reading it takes no stack as deep as it is; deeper ones are for the limits of compiling.
#[test]
fn t04_t18_components_in_components() {
    let bytes = nested::around(&well(), &nested::nested(1_000));
    let kib = alone(|| {
        let before = status_kib("VmRSS");
        HOST.hasher(&custom(&bytes), &[], Limits::default()).unwrap().configure(&[]).unwrap();
        (status_kib("VmHWM") - before).to_string()
    });
    assert!(kib.parse::<u64>().unwrap() < 64 << 10, "{kib} KiB");
}

// T05: handles.

#[test]
fn t05_handles_without_end() {
    let import = r#"(import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))"#;
    insta::assert_snapshot!(fails_alone(|| hashing(import, "(loop $l (drop (call $stdout)) (br $l))", "")), @"it crashed with `resource table has no free keys` in `hash`, fuel 10012040");
}

/// A socket would be one of the host's own; there is none to be had.
#[test]
fn t05_sockets_without_end() {
    let import =
        r#"(import "wasi:sockets/tcp-create-socket@0.2.0" "create-tcp-socket" (func $socket (param i32 i32)))"#;
    let opens = "(loop $l (call $socket (i32.const 0) (i32.const 1024)) (br $l))";
    insta::assert_snapshot!(fails_alone(|| hashing(import, opens, "")), @"it ran out of fuel after 200500200 instructions, fuel 200500200");
}

// T06: answers too large.

const TWO_GIB: &str = "(i32.store (i32.const 260) (i32.const 0)) (i32.store (i32.const 264) (i32.const 268435456))";

#[test]
fn t06_a_list_of_two_gib() {
    insta::assert_snapshot!(fails_alone(|| hashing("", &format!("{TWO_GIB} (return (i32.const 256))"), "")), @"it crashed with `list pointer/length out of bounds of memory`, fuel 46");
}

#[test]
fn t06_a_list_as_large_as_its_memory() {
    let huge = "(drop (memory.grow (i32.const 900))) (i32.store (i32.const 260) (i32.const 0))
        (i32.store (i32.const 264) (i32.const 7000000)) (return (i32.const 256))";
    insta::assert_snapshot!(fails_alone(|| hashing("", huge, "")), @"it returned more than 16777216 bytes at once, fuel 48");
}

#[test]
fn t06_a_huge_reason() {
    let huge = "(drop (memory.grow (i32.const 900))) (i32.store (i32.const 256) (i32.const 1))
        (i32.store (i32.const 260) (i32.const 0)) (i32.store (i32.const 264) (i32.const 50000000)) (return (i32.const 256))";
    insta::assert_snapshot!(fails_alone(|| hashing("", huge, "")), @"it returned more than 16777216 bytes at once, fuel 51");
}

#[test]
fn t06_a_huge_name() {
    let name = "(drop (memory.grow (i32.const 900)))
        (i32.store (i32.const 0) (i32.const 0)) (i32.store (i32.const 4) (i32.const 50000000))";
    insta::assert_snapshot!(fails_alone(|| Guest::Loaded(guests::hasher_doing(name, DESCRIBING))), @"it returned more than 16777216 bytes at once");
}

/// A hundred thousand rows of a million values each, all of them the same few bytes of the guest.
#[test]
fn t06_lists_within_lists() {
    let verdicts = "(drop (memory.grow (i32.const 900)))
        (local.set $n (i32.const 100000))
        (loop $l
          (local.set $n (i32.sub (local.get $n) (i32.const 1)))
          (local.set $m (i32.add (i32.const 20000000) (i32.mul (local.get $n) (i32.const 12))))
          (i32.store8 (local.get $m) (i32.const 2))
          (i32.store offset=4 (local.get $m) (i32.const 1048576))
          (i32.store offset=8 (local.get $m) (i32.const 1000000))
          (br_if $l (local.get $n)))
        (i32.store (i32.const 260) (i32.const 20000000)) (i32.store (i32.const 264) (i32.const 100000))
        (return (i32.const 256))";
    insta::assert_snapshot!(fails_alone(|| resolving(verdicts, "")), @"it returned more than 16777216 bytes at once, fuel 2100050");
}

// T07: the stack.

#[test]
fn t07_recursion() {
    let more = "(func $deeper (param i32) (result i32) (i32.add (call $deeper (local.get 0)) (i32.const 1)))";
    insta::assert_snapshot!(fails_alone(|| hashing("", "(drop (call $deeper (i32.const 0)))", more)), @"its stack overflowed in `deeper`, called by `deeper`, called by `deeper`, called by `deeper`, called by `deeper`, fuel 32786");
}

/// Through a table, with a frame of kilobytes each.
#[test]
fn t07_recursion_in_large_steps() {
    let locals: String = (0..2000).map(|n| format!("(local $l{n} i64)")).collect();
    let sets: String = (0..2000).map(|n| format!("(local.set $l{n} (i64.load (i32.const {})))", n * 8)).collect();
    let sums: String =
        (0..2000).map(|n| format!("(drop (i64.add (local.get $l{n}) (i64.load (i32.const 0))))")).collect();
    let more = format!(
        "(type $f (func)) (table $t 1 1 funcref) (elem (table $t) (i32.const 0) func $large)
         (func $large {locals} {sets} (call_indirect $t (type $f) (i32.const 0)) {sums})"
    );
    insta::assert_snapshot!(fails_alone(|| hashing("", "(call $large)", &more)), @"its stack overflowed in `large`, called by `large`, called by `large`, called by `large`, called by `large`, fuel 65522785");
}

// T08: traps.

#[test]
fn t08_every_kind_of_trap() {
    let kinds = [
        ("unreachable", "(unreachable)"),
        ("load", "(drop (i32.load (i32.const -4)))"),
        ("store", "(i64.store (i32.const 0x7ffffff0) (i64.const 0))"),
        ("division", "(drop (i32.rem_s (i32.const 1) (i32.const 0)))"),
        ("overflow", "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))"),
        ("conversion", "(drop (i32.trunc_f64_s (f64.const nan)))"),
        ("table", "(drop (table.get $t (i32.const 9)))"),
        ("null", "(call_indirect $t (type $f) (i32.const 0))"),
        ("signature", "(call_indirect $t (type $f) (i32.const 1))"),
    ];
    let more = "(type $f (func)) (type $g (func (param i32)))
        (func $other (type $g)) (table $t 2 2 funcref) (elem (table $t) (i32.const 1) func $other)";
    let all = kinds.map(|(kind, text)| {
        let Guest::Hashing(bytes) = hashing("", text, more) else { unreachable!() };
        format!("{kind}: {}", said(&bytes))
    });
    insta::assert_snapshot!(all.join("\n"), @r"
    unreachable: it panicked in `hash`
    load: it crashed with `out of bounds memory access` in `hash`
    store: it crashed with `out of bounds memory access` in `hash`
    division: it crashed with `integer divide by zero` in `hash`
    overflow: it crashed with `integer overflow` in `hash`
    conversion: it crashed with `invalid conversion to integer` in `hash`
    table: it crashed with `undefined element: out of bounds table access` in `hash`
    null: it crashed with `uninitialized element` in `hash`
    signature: it crashed with `indirect call type mismatch` in `hash`
    ");
}

/// The guest says that the program is to end.
#[test]
fn t08_exit() {
    let import = r#"(import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))"#;
    insta::assert_snapshot!(fails_alone(|| hashing(import, "(call $exit (i32.const 0))", "")), @"it crashed with `Exited with i32 exit status 0` in `hash`, fuel 10041");
}

#[test]
fn t08_a_thousand_traps_leave_nothing_behind() {
    let guest = "(memory.fill (i32.const 0) (i32.const 7) (i32.const 131072)) (unreachable)";
    let left_kib: u64 = alone(|| after_a_thousand_traps(hashing("", guest, "")).to_string()).parse().unwrap();
    assert!(left_kib < 8 << 10, "{left_kib} KiB");
}

// T10: what an answer must not depend on.

/// What a new instance of such a hasher gives for two calls.
fn twice(number: &str, imports: &str, more: &str) -> [u64; 2] {
    let text = format!(
        "(i64.store (i32.const 512) {number})
         (i32.store (i32.const 260) (i32.const 512)) (i32.store (i32.const 264) (i32.const 1)) (i32.const 256)"
    );
    let bytes = guests::hasher_importing(&text, imports, more);
    let mut hasher = loaded(&bytes);
    [(); 2].map(|()| hasher.hash(0, &packed(&[&[1]])).unwrap()[0])
}

fn loaded(bytes: &[u8]) -> Hasher {
    let mut hasher = HOST.hasher(&custom(bytes), &[], Limits::default()).unwrap();
    hasher.configure(&[]).unwrap();
    hasher
}

/// Why asking about table 1 fails.
fn said(bytes: &[u8]) -> String {
    let error = loaded(bytes).hash(1, &packed(&[&[1]])).unwrap_err().to_string();
    error.split_once("): ").unwrap().1.to_owned()
}

/// Processors differ in the sign and payload of what is not a number.
#[test]
fn t10_the_bits_of_a_nan() {
    const CANONICAL: u64 = 0x7ff8_0000_0000_0000;
    let negative = "(f64.sub (f64.const inf) (f64.const inf))";
    let payload = "(f64.add (f64.reinterpret_i64 (i64.const 0xfff4deadbeef0001)) (f64.const 1))";
    let of_zero = "(f64.div (f64.const 0) (f64.neg (f64.const 0)))";
    let root = "(f64.sqrt (f64.const -1))";
    for number in [negative, payload, of_zero, root] {
        assert_eq!(twice(&format!("(i64.reinterpret_f64 {number})"), "", ""), [CANONICAL; 2], "{number}");
    }
    let single = "(i64.extend_i32_u (i32.reinterpret_f32 (f32.demote_f64 (f64.reinterpret_i64 (i64.const 0xfff4deadbeef0001)))))";
    assert_eq!(twice(single, "", ""), [0x7fc0_0000; 2]);
    let lanes = "(i64x2.extract_lane 1 (f64x2.add (v128.const i64x2 1 0xfff4deadbeef0001) (v128.const f64x2 1 1)))";
    assert_eq!(twice(lanes, "", ""), [CANONICAL; 2]);
}

/// Where processors may choose, here none does.
#[test]
fn t10_relaxed_vectors() {
    let fused = "(i64x2.extract_lane 0 (f64x2.relaxed_madd
        (v128.const f64x2 0x1.0000000000001p0 1) (v128.const f64x2 0x1.0000000000001p0 1) (v128.const f64x2 -1 1)))";
    // As with two roundings: (1 + 2^-52)^2 - 1 is 2^-51, and 2^-104 more if rounded once.
    assert_eq!(twice(fused, "", ""), [0x3cc0_0000_0000_0000; 2]);
    let swizzle = "(i64x2.extract_lane 0 (i8x16.relaxed_swizzle (v128.const i64x2 0x0807060504030201 -1)
        (v128.const i8x16 0 17 129 255 1 2 3 4 0 0 0 0 0 0 0 0)))";
    assert_eq!(twice(swizzle, "", ""), [0x0504_0302_0000_0001; 2]);
}

/// Memory that was never written is zero, whoever had it before.
#[test]
fn t10_memory_that_was_never_written() {
    let dirty =
        "(drop (memory.grow (i32.const 64))) (memory.fill (i32.const 1000) (i32.const 255) (i32.const 4000000))";
    let Guest::Hashing(bytes) = hashing("", &format!("{dirty} (unreachable)"), "") else { unreachable!() };
    let mut hasher = loaded(&bytes);
    for _ in 0..10 {
        hasher.hash(1, &packed(&[&[1]])).unwrap_err();
        let sum = "(call $sum)";
        let more = "(func $sum (result i64) (local $at i32) (local $sum i64)
            (drop (memory.grow (i32.const 64)))
            (local.set $at (i32.const 131072))
            (loop $l
              (local.set $sum (i64.add (local.get $sum) (i64.load (local.get $at))))
              (local.set $at (i32.add (local.get $at) (i32.const 8)))
              (br_if $l (i32.lt_u (local.get $at) (i32.const 4000000))))
            (local.get $sum))";
        assert_eq!(twice(sum, "", more), [0; 2]);
    }
}

/// No variable, no folder, no socket: two nodes look alike from inside.
#[test]
fn t10_nothing_of_the_machine() {
    let list = |package: &str, name: &str| {
        let import = format!(r#"(import "{package}" "{name}" (func $list (param i32)))"#);
        twice(
            "(call $length)",
            &import,
            "(func $length (result i64) (call $list (i32.const 1024)) (i64.load32_u (i32.const 1028)))",
        )
    };
    assert_eq!(list("wasi:cli/environment@0.2.0", "get-environment"), [0; 2]);
    assert_eq!(list("wasi:filesystem/preopens@0.2.0", "get-directories"), [0; 2]);
}

/// Features whose answers are not the same everywhere are no part of what is run.
#[test]
fn t10_features_that_are_off() {
    let refused = |module: &str| {
        let bytes = wat::parse_str(format!("(component (core module {module}))")).unwrap();
        let Err(err) = HOST.hasher(&custom(&bytes), &[], Limits::default()) else { panic!("it was taken") };
        err.reason().to_string()
    };
    let all = [
        refused("(memory i64 1)"),
        refused("(memory 1 1 shared)"),
        refused("(type (struct (field i32)))"),
        refused("(tag)"),
        refused("(type $f (func)) (type (cont $f))"),
    ];
    insta::assert_snapshot!(all.join("\n"), @r"
    it is no valid component: failed to parse WebAssembly module: memory64 must be enabled for 64-bit memories (at offset 0x15)
    it is no valid component: failed to parse WebAssembly module: threads must be enabled for shared memories (at offset 0x15)
    it is no valid component: failed to parse WebAssembly module: struct indexed types not supported without the gc feature (at offset 0x15)
    it is no valid component: failed to parse WebAssembly module: exceptions proposal not enabled (at offset 0x1a)
    it is no valid component: failed to parse WebAssembly module: cannot define continuation types when stack switching is disabled (at offset 0x18)
    ");
}

// T14: floods of words.

const LOG: &str = r#"(import "antiphon:plugin/log@0.1.0" "write" (func $write (param i32 i32 i32)))"#;

#[test]
fn t14_a_flood_of_log_lines() {
    let floods = "(loop $l (call $write (i32.const 4) (i32.const 0) (i32.const 1000)) (br $l))";
    insta::assert_snapshot!(fails_alone(|| hashing(LOG, floods, "")), @"it ran out of fuel after 200500200 instructions, fuel 200500200");
}

/// A gibibyte of words that a terminal would obey: next to nothing of it comes through, and all of that is plain.
#[test]
fn t14_a_gibibyte_of_words() {
    let words = r#"(data (i32.const 2048) "\1b[2J\r\nERROR forged line \e2\80\aegnorw\00")"#;
    let floods = "(local.set $n (i32.const 65536))
        (drop (memory.grow (i32.const 8)))
        (loop $fill
          (memory.copy (local.get $n) (i32.const 2048) (i32.const 35))
          (local.set $n (i32.add (local.get $n) (i32.const 35)))
          (br_if $fill (i32.lt_u (local.get $n) (i32.const 327680))))
        (loop $l (call $write (i32.const 3) (i32.const 65536) (i32.const 245000)) (br $l))";
    let Guest::Hashing(bytes) = hashing(LOG, floods, words) else { unreachable!() };
    let heard = Heard::default();
    tracing::subscriber::with_default(heard.clone(), || {
        let mut hasher = loaded(&bytes);
        // Each turn says 80 MiB before its fuel is gone.
        for _ in 0..14 {
            hasher.hash(1, &packed(&[&[1]])).unwrap_err();
        }
    });
    let heard = heard.0.lock().unwrap();
    let bytes: usize = heard.iter().map(String::len).sum();
    assert!((40 << 10..1 << 20).contains(&bytes), "{bytes} bytes were written");
    for line in heard.iter() {
        assert!(line.len() < 2_000 && !line.chars().any(char::is_control) && !line.contains('\u{202e}'), "{line}");
    }
    assert!(heard.iter().any(|line| line.contains(r"\u{1b}[2J\r\nERROR forged line")), "{}", heard[0]);
}

/// Hears what is written to the log.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Heard {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
                self.0.push_str(&format!(" {}={value}", field.name()));
            }

            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!(" {}={value:?}", field.name()));
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// More at once than the log takes.
#[test]
fn t14_a_line_of_megabytes() {
    let floods = "(drop (memory.grow (i32.const 160)))
        (memory.fill (i32.const 65536) (i32.const 0x1b) (i32.const 10000000))
        (loop $l (call $write (i32.const 4) (i32.const 65536) (i32.const 10000000)) (br $l))";
    insta::assert_snapshot!(fails_alone(|| hashing(LOG, floods, "")), @"it returned more than 262144 bytes at once, fuel 10000055");
}

#[test]
fn t14_a_flood_of_output() {
    let import = r#"(import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
        (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
          (func $write (param i32 i32 i32 i32)))"#;
    let floods = "(local.set $n (call $stdout))
        (loop $l (call $write (local.get $n) (i32.const 1024) (i32.const 4096) (i32.const 512)) (br $l))";
    insta::assert_snapshot!(fails_alone(|| hashing(import, floods, "")), @"it ran out of fuel after 200500200 instructions, fuel 200500200");
}

/// A hasher in good order, with this in the component around it.
fn bomb(inside: &str) -> Guest {
    Guest::Loaded(nested::around_text(&well(), inside))
}

/// A hasher in good order.
fn well() -> Vec<u8> {
    guests::hasher("(i32.const 128)", "")
}
