//! Guests that spin, grow, crash and lie: each is stopped, and the next call works.

use std::time::{Duration, Instant};

use antiphon_core::hash::Hash as _;
use antiphon_core::resolve::{Cause, Clash, Resolve as _, Side};
use antiphon_core::schema::{Column, Table};
use antiphon_core::value::Value;
use antiphon_plugin::{Hasher, Limits, Resolver};

use super::{HOST, custom, guests, packed, table};

/// Gives how often this instance was called, plus 100 once it is configured, for the one key it is asked about.
const COUNT: &str = r"
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (i64.store (i32.const 512) (i64.extend_i32_u (i32.add (global.get $calls) (global.get $configured))))
    (i32.store (i32.const 260) (i32.const 512))
    (i32.store (i32.const 264) (i32.const 1))
    (i32.const 256)";

fn hasher(hash: &str, limits: Limits) -> Hasher {
    let bytes = guests::hasher(hash, "");
    let mut hasher = HOST.hasher(&custom(&bytes), &[], limits).unwrap();
    hasher.configure(&[table("t", &[("id", "INTEGER")])]).unwrap();
    hasher
}

/// Why hashing one key fails.
fn fails(hasher: &mut Hasher) -> String {
    let err = hasher.hash(1, &packed(&[&[1]])).unwrap_err().to_string();
    assert!(err.starts_with("cannot hash keys with plugin `mine` (file:mine.wasm, sha256 "), "{err}");
    err.split_once("): ").unwrap().1.to_owned()
}

fn works(hasher: &mut Hasher) -> u64 {
    hasher.hash(0, &packed(&[&[1]])).unwrap()[0]
}

#[test]
fn an_endless_loop_runs_out_of_fuel() {
    let mut endless = hasher("(loop $l (br $l)) (unreachable)", Limits::default());
    let start = Instant::now();
    let first = fails(&mut endless);
    insta::assert_snapshot!(first, @"it ran out of fuel after 200500200 instructions");
    assert_eq!(endless.fuel_used(), 200_500_200);
    assert_eq!(fails(&mut endless), first);
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}

/// The number of turns a loop can make on so much fuel is the same each time: found by trying, in new instances.
#[test]
fn fuel_ends_a_call_at_the_same_instruction() {
    let turns = |fuel: u64| {
        let count = |turns: u32| {
            let text = format!(
                "(local $n i32) (local.set $n (i32.const {turns}))
                 (loop $l (local.set $n (i32.sub (local.get $n) (i32.const 1))) (br_if $l (local.get $n))) {COUNT}"
            );
            let limits = Limits { fuel_base: fuel, fuel_per_item: 0, fuel_per_byte: 0, ..Limits::default() };
            let mut counted = hasher(&text, limits);
            counted.hash(0, &packed(&[&[1]])).map(|_| counted.fuel_used())
        };
        let most = (1..2000).collect::<Vec<_>>().partition_point(|&turns| count(turns).is_ok());
        (most, count(1000).unwrap())
    };
    let (most, used) = turns(10_000);
    assert!((1000..1999).contains(&most), "{most}");
    assert_eq!(turns(10_000), (most, used));
}

#[test]
fn a_watchdog_ends_what_fuel_does_not() {
    let limits = Limits { fuel_base: u64::MAX / 2, watchdog: Duration::from_millis(300), ..Limits::default() };
    let start = Instant::now();
    assert_eq!(fails(&mut hasher("(loop $l (br $l)) (unreachable)", limits)), "it gave no answer within 300ms");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// A copy of megabytes is one instruction; were it counted as one, fuel would mean nothing.
#[test]
fn large_copies_use_fuel_too() {
    let copies = "(drop (memory.grow (i32.const 900)))
        (loop $l (memory.copy (i32.const 0) (i32.const 1) (i32.const 50000000)) (br $l)) (unreachable)";
    let start = Instant::now();
    assert!(fails(&mut hasher(copies, Limits::default())).starts_with("it ran out of fuel"));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn growing_past_the_cap_is_a_trap() {
    let mut bomb = hasher("(loop $l (drop (memory.grow (i32.const 1))) (br $l)) (unreachable)", Limits::default());
    insta::assert_snapshot!(fails(&mut bomb), @"it wanted more than its 67108864 bytes of memory");
    let limits = Limits { memory_bytes: 64 << 10, ..Limits::default() };
    let bytes = guests::hasher("(unreachable)", "");
    let Err(err) = HOST.hasher(&custom(&bytes), &[], limits) else { panic!("it was taken") };
    insta::assert_snapshot!(err.reason(), @"it wanted more than its 65536 bytes of memory");
}

#[test]
fn a_table_past_the_cap_is_a_trap() {
    let grown = "(drop (table.grow $t (ref.null func) (i32.const 1000000))) (unreachable)";
    let bytes = guests::hasher(grown, "(table $t 1 funcref)");
    let mut hasher = HOST.hasher(&custom(&bytes), &[], Limits::default()).unwrap();
    hasher.configure(&[]).unwrap();
    assert!(fails(&mut hasher).contains("1000001 elements is more than allowed"));
}

#[test]
fn deep_recursion_is_a_trap_with_names() {
    let text = "(call $deeper (i32.const 0))";
    let more = "(func $deeper (param i32) (result i32) (i32.add (call $deeper (local.get 0)) (i32.const 1)))";
    let mut hasher = HOST.hasher(&custom(&guests::hasher(text, more)), &[], Limits::default()).unwrap();
    hasher.configure(&[]).unwrap();
    insta::assert_snapshot!(fails(&mut hasher), @"its stack overflowed in `deeper`, called by `deeper`, called by `deeper`, called by `deeper`, called by `deeper`");
}

#[test]
fn a_trap_poisons_the_instance_and_not_the_plugin() {
    let text = format!("(if (local.get 0) (then (unreachable))) {COUNT}");
    let mut hasher = hasher(&text, Limits::default());
    assert_eq!((works(&mut hasher), works(&mut hasher)), (101, 102));
    insta::assert_snapshot!(fails(&mut hasher), @"it panicked in `hash`");
    assert_eq!(works(&mut hasher), 101, "the instance that trapped was asked again, or a new one not configured");
    for _ in 0..1000 {
        fails(&mut hasher);
    }
    assert_eq!(works(&mut hasher), 101);
}

#[test]
fn a_crash_is_told_apart_from_a_panic() {
    insta::assert_snapshot!(fails(&mut hasher("(i32.load (i32.const -1))", Limits::default())), @"it crashed with `out of bounds memory access` in `hash`");
    insta::assert_snapshot!(fails(&mut hasher("(i32.div_u (i32.const 1) (i32.const 0))", Limits::default())), @"it crashed with `integer divide by zero` in `hash`");
}

#[test]
fn an_instance_is_replaced_after_its_calls() {
    // Its configuration is one of them.
    let mut hasher = hasher(COUNT, Limits { calls: 3, ..Limits::default() });
    let counts: Vec<u64> = (0..5).map(|_| works(&mut hasher)).collect();
    assert_eq!(counts, [101, 102, 101, 102, 101]);
}

#[test]
fn an_instance_is_replaced_when_its_memory_is_nearly_full() {
    let leak = format!("(drop (memory.grow (i32.const 300))) {COUNT}");
    let mut hasher = hasher(&leak, Limits::default());
    let counts: Vec<u64> = (0..6).map(|_| works(&mut hasher)).collect();
    assert_eq!(counts, [101, 102, 103, 101, 102, 103]);
}

#[test]
fn new_tables_mean_a_new_instance() {
    let mut hasher = hasher(COUNT, Limits::default());
    assert_eq!((works(&mut hasher), works(&mut hasher)), (101, 102));
    hasher.configure(&[]).unwrap();
    assert_eq!(works(&mut hasher), 101);
}

#[test]
fn as_many_hashes_as_keys() {
    let mut hasher = hasher(COUNT, Limits::default());
    let err = hasher.hash(0, &packed(&[&[1], &[2]])).unwrap_err().to_string();
    assert!(err.ends_with("its answer makes no sense: 1 hashes for 2 keys"), "{err}");
    assert_eq!(works(&mut hasher), 101, "an instance that lied was asked again");
}

#[test]
fn an_answer_is_bounded() {
    let huge = "(drop (memory.grow (i32.const 400)))
        (i32.store (i32.const 260) (i32.const 0)) (i32.store (i32.const 264) (i32.const 3000000)) (i32.const 256)";
    insta::assert_snapshot!(fails(&mut hasher(huge, Limits::default())), @"it returned more than 16777216 bytes at once");
    let outside =
        "(i32.store (i32.const 260) (i32.const 0)) (i32.store (i32.const 264) (i32.const -1)) (i32.const 256)";
    fails(&mut hasher(outside, Limits::default()));
}

#[test]
fn an_error_is_passed_on_in_one_harmless_line() {
    let text = r#"(i32.store8 (i32.const 256) (i32.const 1))
        (i32.store (i32.const 260) (i32.const 600)) (i32.store (i32.const 264) (i32.const 9)) (i32.const 256)"#;
    let bytes = guests::hasher(text, r#"(data (i32.const 600) "a\1b[31m\nb\00")"#);
    let mut hasher = HOST.hasher(&custom(&bytes), &[], Limits::default()).unwrap();
    hasher.configure(&[]).unwrap();
    insta::assert_snapshot!(fails(&mut hasher), @r"it says: a\u{1b}[31m\nb\u{0}");
}

#[test]
fn nothing_is_asked_of_a_hasher_that_knows_no_tables() {
    let mut hasher = HOST.hasher(&custom(&guests::hasher(COUNT, "")), &[], Limits::default()).unwrap();
    assert_eq!(fails(&mut hasher), "it is not configured");
}

/// Gives the 64 bits that this gives, for the one key it is asked about.
fn giving(number: &str, imports: &str) -> Hasher {
    let text = format!(
        "(i64.store (i32.const 512) {number})
         (i32.store (i32.const 260) (i32.const 512)) (i32.store (i32.const 264) (i32.const 1)) (i32.const 256)"
    );
    let bytes = guests::hasher_with_wasi(&text, imports);
    let mut hasher = HOST.hasher(&custom(&bytes), &[], Limits::default()).unwrap();
    hasher.configure(&[]).unwrap();
    hasher
}

/// What differs between nodes or moments must not reach an answer.
#[test]
fn clocks_stand_still_and_randomness_repeats() {
    let import = r#"(import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))"#;
    let mut clock = giving("(call $now)", import);
    let before = works(&mut clock);
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(works(&mut clock), before);

    let import = r#"(import "wasi:random/random@0.2.0" "get-random-u64" (func $random (result i64)))"#;
    let mut random = giving("(call $random)", import);
    let (first, second) = (works(&mut random), works(&mut random));
    assert_ne!(first, second);
    let mut random = giving("(call $random)", import);
    assert_eq!((works(&mut random), works(&mut random)), (first, second));
}

/// A guest asleep in the host would see neither fuel nor epoch.
#[test]
fn waiting_is_a_trap() {
    let import = r#"(import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration"
        (func $wait (param i64) (result i32)))"#;
    let mut waiting = giving("(i64.extend_i32_u (call $wait (i64.const 1)))", import);
    insta::assert_snapshot!(fails(&mut waiting), @"it crashed with `a plugin that only computes can't wait` in `hash`");
}

/// However much a guest says, it costs no more than the call it is said in.
#[test]
fn a_guest_may_talk() {
    let import = r#"(import "antiphon:plugin/log@0.1.0" "write" (func $write (param i32 i32 i32)))"#;
    let talk = "(local $n i32) (local.set $n (i32.const 10000))
        (loop $l (call $write (i32.const 4) (i32.const 0) (i32.const 1000))
          (local.set $n (i32.sub (local.get $n) (i32.const 1))) (br_if $l (local.get $n)))";
    let bytes = guests::hasher_with_wasi(&format!("{talk} {COUNT}"), import);
    let mut hasher = HOST.hasher(&custom(&bytes), &[], Limits::default()).unwrap();
    hasher.configure(&[]).unwrap();
    assert_eq!(works(&mut hasher), 101);
}

/// The identity of a user's own plugin is its bytes, whatever it calls itself.
#[test]
fn a_custom_plugin_is_known_by_its_bytes() {
    let bytes = guests::hasher(COUNT, "");
    let hasher = HOST.hasher(&custom(&bytes), &[], Limits::default()).unwrap();
    assert_eq!(hasher.identity(), format!("sha256:{}", antiphon_plugin::sha256(&bytes)));
}

/// A resolver that gives `count` verdicts, all of them the one at 300.
fn resolver(count: u32, verdict: &str, data: &str) -> Resolver {
    let text = format!(
        "{verdict}
         (i32.store (i32.const 260) (i32.const 300)) (i32.store (i32.const 264) (i32.const {count})) (i32.const 256)"
    );
    let mut resolver = HOST.resolver(&custom(&guests::resolver(&text, data)), &[], Limits::default()).unwrap();
    let column = |name: &str, decl_type: &str, pk_position, not_null| Column {
        name: name.into(),
        decl_type: decl_type.into(),
        pk_position,
        collation: "BINARY".into(),
        not_null,
    };
    let columns = vec![column("id", "INTEGER", 1, true), column("v", "TEXT", 0, false)];
    resolver.configure(&[], &[Table { name: "t".into(), columns, strict: true, ..Table::default() }]).unwrap();
    resolver
}

/// One value as it lies in memory.
fn laid_out(case: u8, payload: [u8; 8]) -> String {
    let bytes = [[case, 0, 0, 0, 0, 0, 0, 0], payload].concat();
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

/// What comes of a row made for the clash over key 7.
fn merged(values: &[String]) -> String {
    let verdict = format!(
        "(i32.store8 (i32.const 300) (i32.const 2))
         (i32.store (i32.const 304) (i32.const 1024)) (i32.store (i32.const 308) (i32.const {}))",
        values.len()
    );
    let data = format!(r#"(data (i32.const 1024) "{}")"#, values.concat());
    let clash = Clash {
        table: 0,
        key: vec![7.into()],
        cause: Cause::SameKey,
        base: None,
        current: Side::default(),
        incoming: Side::default(),
    };
    match resolver(1, &verdict, &data).resolve(&[clash]) {
        Ok(verdicts) => format!("{verdicts:?}"),
        Err(err) => err.to_string().split_once("): ").unwrap().1.to_owned(),
    }
}

#[test]
fn a_merged_row_is_one_of_its_table() {
    let null = || laid_out(0, [0; 8]);
    let integer = |number: i64| laid_out(1, number.to_le_bytes());
    let real = |number: f64| laid_out(2, number.to_le_bytes());
    insta::assert_snapshot!(merged(&[integer(7), null()]), @"[Merge([7, NULL])]");
    insta::assert_snapshot!(merged(&[integer(8), null()]), @"its answer makes no sense: the row it merged for clash 0 of table `t` has another key");
    insta::assert_snapshot!(merged(&[integer(7)]), @"its answer makes no sense: the row it merged for clash 0 of table `t` has 1 values for 2 columns");
    insta::assert_snapshot!(merged(&[integer(7), null(), null()]), @"its answer makes no sense: the row it merged for clash 0 of table `t` has 3 values for 2 columns");
    insta::assert_snapshot!(merged(&[null(), null()]), @"its answer makes no sense: the row it merged for clash 0 of table `t` has NULL in column `id`");
    insta::assert_snapshot!(merged(&[integer(7), integer(1)]), @"its answer makes no sense: the row it merged for clash 0 of table `t` has integer where text belongs in column `v`");
    insta::assert_snapshot!(merged(&[integer(7), real(f64::NAN)]), @"its answer makes no sense: the row it merged for clash 0 of table `t` has a NaN in column `v`");
    insta::assert_snapshot!(merged(&[real(7.0), null()]), @"its answer makes no sense: the row it merged for clash 0 of table `t` has real where integer belongs in column `id`");
    insta::assert_snapshot!(merged(&[laid_out(9, [0; 8]), null()]), @"it crashed with `unexpected discriminant: 9`");
}

#[test]
fn as_many_verdicts_as_clashes() {
    let err = resolver(3, "", "").resolve(&[]).unwrap_err().to_string();
    assert!(err.ends_with("its answer makes no sense: 3 verdicts for 0 clashes"), "{err}");
    assert_eq!(resolver(0, "", "").resolve(&[]).unwrap(), []);
}

/// A value that a resolver did not ask for must not reach it: what one node happens to know, another may not.
#[test]
fn only_what_was_asked_for_is_sent() {
    let row = Some(vec![7.into(), Value::Text(vec![b'x'; 1 << 20])]);
    let clash = |base: Option<Vec<Value>>, current: Side| Clash {
        table: 0,
        key: vec![7.into()],
        cause: Cause::SameKey,
        base,
        current,
        incoming: Side::default(),
    };
    let mut resolver = resolver(1, "", "");
    resolver.resolve(&[clash(None, Side::default())]).unwrap();
    let without = resolver.fuel_used();
    resolver.resolve(&[clash(row.clone(), Side { row, ..Side::default() })]).unwrap();
    assert_eq!(resolver.fuel_used(), without, "more was sent, or fuel counted over what was not");
}
