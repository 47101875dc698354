//! Storages that mean harm, or know no better: each fails in words, in time, within its memory, and alone.

use std::time::{Duration, Instant};

use antiphon::storage;
use antiphon_core::store::{ErrorKind, LIST_MAX, Put, Store as _, StoreError};
use antiphon_harness::{nested, storage_guest};
use antiphon_plugin::{Grants, Limits, Origin, Pace, Reason, Source, Storage};

use super::{HOST, name};

/// How long a call may take here.
const CALL: Duration = Duration::from_millis(400);

const SPIN: &str = "(loop $l (br $l)) (unreachable)";

fn load(bytes: &[u8], grants: Grants, settings: &[(String, String)]) -> Result<Storage, antiphon_plugin::Error> {
    let source = Source { name: "mine".into(), origin: Origin::Custom("file:mine.wasm".into()), bytes: bytes.into() };
    let pace = Pace { call: CALL, ..Pace::default() };
    HOST.storage(&source, settings, grants, Limits { memory_bytes: 128 << 20, ..Limits::default() }, pace)
}

/// A storage of which each of these functions does that.
fn doing(bodies: &[(&str, &str)], more: &str) -> Storage {
    load(&storage_guest(bodies, &[], "", more), Grants::default(), &[]).unwrap()
}

/// What an error says, of whom it is known.
fn why(error: &StoreError) -> &str {
    error.message.split_once("): ").map_or(&*error.message, |(_, why)| why)
}

/// It is no worse for what it did: the next call has a new instance.
fn goes_on(store: &Storage) {
    store.delete(&[name("a")]).unwrap();
}

#[test]
fn one_that_does_nothing_wrong_is_believed_as_far_as_that_goes() {
    let store = doing(&[], "");
    store.check().unwrap();
    store.put(&name("a"), b"x", Put::Replace).unwrap();
    assert_eq!(store.get(&name("a"), None).unwrap(), b"");
    assert!(store.list("", None, LIST_MAX).unwrap().is_empty());
    assert_eq!((store.info().name.as_str(), store.instances()), ("guest", 1));
}

#[test]
fn t01_one_that_spins_is_ended_wherever_it_does() {
    for what in ["check", "put", "get", "stat", "list"] {
        let store = doing(&[(what, SPIN)], "");
        let begun = Instant::now();
        let error = match what {
            "check" => store.check().unwrap_err(),
            "put" => store.put(&name("a"), b"x", Put::Replace).unwrap_err(),
            "get" => store.get(&name("a"), Some(antiphon_core::store::Part { offset: 0, length: 1 })).unwrap_err(),
            "stat" => store.stat(&name("a")).unwrap_err(),
            _ => store.list("", None, 1).unwrap_err(),
        };
        assert_eq!((error.kind, why(&error)), (ErrorKind::Temporary, "it was not done after 400ms"), "{what}");
        assert!(begun.elapsed() >= CALL);
        assert_eq!(store.instances(), 0);
        goes_on(&store);
    }
}

#[test]
fn t01_one_that_spins_before_it_is_asked_anything() {
    let Err(error) = load(&storage_guest(&[("describe", SPIN)], &[], "", ""), Grants::default(), &[]) else {
        panic!("it was loaded")
    };
    assert_eq!(*error.reason(), Reason::TimeOut(CALL));
    let store = doing(&[("open", SPIN)], "");
    assert_eq!(why(&store.check().unwrap_err()), "it was not done after 400ms");
}

/// While one spins, another storage of the same host answers.
#[test]
fn t01_others_go_on_meanwhile() {
    let (bad, good) = (doing(&[("check", SPIN)], ""), doing(&[], ""));
    std::thread::scope(|scope| {
        let spinning: Vec<_> = (0..4).map(|_| scope.spawn(|| bad.check().unwrap_err())).collect();
        while bad.instances() == 0 {
            std::thread::yield_now();
        }
        good.check().unwrap();
        assert!(spinning.into_iter().all(|spins| spins.join().unwrap().kind == ErrorKind::Temporary));
    });
}

#[test]
fn t03_one_that_waits_is_ended_where_it_waits() {
    let import = r#"(import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $wait (param i64) (result i32)))
        (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))"#;
    let waits = "(call $block (call $wait (i64.const 1000000000000))) (i32.const 1216)";
    let bytes = storage_guest(&[("put", waits)], &["wasi:clocks/monotonic-clock@0.2.0"], import, "");
    let store = load(&bytes, Grants::default(), &[]).unwrap();
    let begun = Instant::now();
    let error = store.put(&name("a"), b"x", Put::Replace).unwrap_err();
    assert_eq!((error.kind, why(&error)), (ErrorKind::Temporary, "it was not done after 400ms"));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    goes_on(&store);
}

#[test]
fn t04_memory_has_an_end() {
    let store = doing(&[("put", "(loop $l (drop (memory.grow (i32.const 16))) (br $l)) (unreachable)")], "");
    let error = store.put(&name("a"), b"x", Put::Replace).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent);
    assert!(why(&error).contains("134217728"), "{error}");
    assert!(store.memory_peak() <= 128 << 20);
    goes_on(&store);
}

/// A storage in good order that has this in it besides.
fn around(inside: &str) -> Result<Storage, antiphon_plugin::Error> {
    load(&nested::around_text(&storage_guest(&[], &[], "", ""), inside), Grants::default(), &[])
}

#[test]
fn t04_memories_tables_and_instances_have_an_end() {
    let mut components = "(component $c0 (core module $m) (core instance (instantiate $m)))".to_owned();
    components.push_str(&"(instance (instantiate $c0))".repeat(1000));
    let bombs = [
        (nested::instances("(core module $m (memory 16))", 50), "memory count too high"),
        (nested::instances("(core module $m (table 90000 funcref))", 50), "table count too high"),
        (nested::instances("(core module $m)", 1000), "instance count too high"),
        (components, "instance count too high"),
        ("(core module $m (memory 65536)) (core instance (instantiate $m))".to_owned(), "134217728 bytes of memory"),
    ];
    for (bomb, says) in bombs {
        let Err(error) = around(&bomb) else { panic!("it was loaded") };
        assert!(error.reason().to_string().contains(says), "{}", error.reason());
    }
}

#[test]
fn t05_handles_have_an_end() {
    let import =
        r#"(import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $wait (param i64) (result i32)))"#;
    let leaks = "(loop $l (drop (call $wait (i64.const 1000000000000))) (br $l)) (unreachable)";
    let bytes = storage_guest(&[("check", leaks)], &["wasi:clocks/monotonic-clock@0.2.0"], import, "");
    let store = load(&bytes, Grants::default(), &[]).unwrap();
    let error = store.check().unwrap_err();
    // A slow machine may find it still at it when its time is up.
    assert!(error.kind == ErrorKind::Permanent || why(&error).starts_with("it was not done"), "{error}");
    assert_eq!(store.instances(), 0);
    goes_on(&store);
}

/// An answer of so many bytes, all zero, with as much memory.
fn answer_of(bytes: u32) -> String {
    format!(
        "(local.set $n (i32.mul (memory.grow (i32.const 800)) (i32.const 65536)))
         (i32.store (i32.const 1220) (local.get $n)) (i32.store (i32.const 1224) (i32.const {bytes})) (i32.const 1216)"
    )
}

#[test]
fn t06_no_answer_is_longer_than_an_object() {
    let store = doing(&[("get", &answer_of(34 << 20))], "");
    let error = store.get(&name("a"), None).unwrap_err();
    assert!(why(&error).starts_with("it returned more than"), "{error}");
    goes_on(&store);
    // What is longer than it can be is no answer either, and nothing is reserved for it.
    let store = doing(&[("get", &answer_of(0x7fff_ffff))], "");
    assert_eq!(store.get(&name("a"), None).unwrap_err().kind, ErrorKind::Permanent);
    goes_on(&store);
}

#[test]
fn t16_no_part_is_longer_than_was_asked_for() {
    let store = doing(&[("get", &answer_of(1001))], "");
    let error = store.get(&name("a"), Some(antiphon_core::store::Part { offset: 0, length: 1000 })).unwrap_err();
    assert_eq!(why(&error), "its answer makes no sense: 1001 bytes where 1000 at most were asked for");
}

/// One object, 48 bytes, whose name is the text at 2048.
fn listing_of(names: &[&str]) -> (String, String) {
    let mut data = String::new();
    let mut stores = String::new();
    for (index, name) in names.iter().enumerate() {
        let (text, record) = (2048 + index * 600, 8192 + index * 48);
        let escaped: String = name.bytes().map(|byte| format!("\\{byte:02x}")).collect();
        data.push_str(&format!("(data (i32.const {text}) \"{escaped}\")\n"));
        stores.push_str(&format!(
            "(i32.store (i32.const {record}) (i32.const {text})) (i32.store (i32.const {}) (i32.const {}))\n",
            record + 4,
            name.len()
        ));
    }
    let body = format!(
        "{stores} (i32.store (i32.const 1220) (i32.const 8192)) (i32.store (i32.const 1224) (i32.const {})) (i32.const 1216)",
        names.len()
    );
    (body, data)
}

#[test]
fn t13_names_that_lead_elsewhere_do_not_get_in() {
    let long = "x".repeat(401);
    for bad in
        ["../etc/passwd", "/etc/passwd", "a//b", "a/../b", "a\0b", "a\\b", "%2e%2e/x", "é", "", "a\u{1b}[31m", &long]
    {
        let (body, data) = listing_of(&[bad]);
        let store = doing(&[("list", &body)], &data);
        let error = store.list("", None, LIST_MAX).unwrap_err();
        assert!(why(&error).starts_with("its answer makes no sense"), "{bad}: {error}");
        assert!(!error.message.contains(['\u{1b}', '\0']), "{error:?}");
    }
}

#[test]
fn t15_a_listing_holds_what_was_asked_for_in_order() {
    let cases: [(&[&str], &str, Option<&str>, u32); 5] = [
        (&["b", "a"], "", None, 9),
        (&["a", "a"], "", None, 9),
        (&["a", "b"], "b", None, 9),
        (&["a", "b"], "", Some("a"), 9),
        (&["a", "b", "c"], "", None, 2),
    ];
    for (names, prefix, after, limit) in cases {
        let (body, data) = listing_of(names);
        let store = doing(&[("list", &body)], &data);
        let after = after.map(name);
        let error = store.list(prefix, after.as_ref(), limit).unwrap_err();
        assert!(why(&error).starts_with("its answer makes no sense"), "{names:?}: {error}");
    }
    let (body, data) = listing_of(&["a", "a-b", "a.b", "a/b", "b"]);
    assert_eq!(doing(&[("list", &body)], &data).list("", None, 9).unwrap().len(), 5);
}

/// It says that it stored an object, and gives back other bytes, or fewer, or none.
#[test]
fn t15_a_liar_is_found_out() {
    for bytes in [0, 4, 5] {
        let store = doing(&[("get", &answer_of(bytes))], "");
        let error = storage::put(&store, &name("a"), b"four", Put::Replace).unwrap_err();
        assert!(error.message.contains("is not what was put there"), "{bytes}: {error}");
    }
    // Bytes that are as they were put are fine.
    let store = doing(&[("get", &answer_of(4))], "");
    storage::put(&store, &name("a"), &[0; 4], Put::Replace).unwrap();
}

#[test]
fn t15_what_is_known_of_an_object_is_of_that_object() {
    let store = doing(&[], "");
    assert!(why(&store.stat(&name("a")).unwrap_err()).starts_with("its answer makes no sense"));
}

/// A failure with so many bytes from 2048 on as its message.
fn failing(kind: u8, bytes: u32) -> String {
    format!(
        "(i32.store8 (i32.const 1216) (i32.const 1)) (i32.store8 (i32.const 1220) (i32.const {kind}))
         (i32.store (i32.const 1224) (i32.const 2048)) (i32.store (i32.const 1228) (i32.const {bytes})) (i32.const 1216)"
    )
}

#[test]
fn t14_what_it_says_is_one_short_line() {
    let store =
        doing(&[("put", &failing(4, 30))], r#"(data (i32.const 2048) "no\0d\0a\1b[31mred\1b[0m\00 and so on!!")"#);
    let error = store.put(&name("a"), b"x", Put::Replace).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Temporary);
    assert!(error.message.chars().all(|c| !c.is_control()), "{error:?}");
    // A long one is cut.
    let store = doing(&[("put", &failing(5, 60_000))], "");
    assert!(store.put(&name("a"), b"x", Put::Replace).unwrap_err().message.len() < 1100);
    // One that is no text is no answer.
    let store = doing(&[("put", &failing(5, 2))], r#"(data (i32.const 2048) "\ff\fe")"#);
    assert_eq!(store.put(&name("a"), b"x", Put::Replace).unwrap_err().kind, ErrorKind::Permanent);
    goes_on(&store);
}

/// It repeats the value of the first setting that it was told.
#[test]
fn x07_a_secret_that_it_repeats_is_not_shown() {
    let repeats = "(i32.store8 (i32.const 1216) (i32.const 1)) (i32.store8 (i32.const 1220) (i32.const 5))
        (i32.store (i32.const 1224) (i32.load offset=8 (local.get 0)))
        (i32.store (i32.const 1228) (i32.load offset=12 (local.get 0))) (i32.const 1216)";
    let settings = [("secret_key".to_owned(), "hunter2hunter2".to_owned())];
    let grants = Grants { secrets: vec!["hunter2hunter2".to_owned()], ..Grants::default() };
    let store = load(&storage_guest(&[("open", repeats)], &[], "", ""), grants, &settings).unwrap();
    assert_eq!(store.check().unwrap_err().message, "***");
}

#[test]
fn t12_what_is_not_granted_is_named() {
    let http = storage_guest(
        &[],
        &["wasi:http/outgoing-handler@0.2.0"],
        r#"(import "wasi:http/outgoing-handler@0.2.0" "handle" (func))"#,
        "",
    );
    let Err(error) = load(&http, Grants::default(), &[]) else { panic!("it was loaded") };
    insta::assert_snapshot!(error.reason(), @"it imports `wasi:http/outgoing-handler@0.2.0`, and `plugin.mine.grants.http` grants it nothing of that");
    let bucket = r#"(import "antiphon:plugin/nats-bucket@0.1.0" "max-object" (func (result i64)))"#;
    let bucket = storage_guest(&[], &["antiphon:plugin/nats-bucket@0.1.0"], bucket, "");
    let Err(error) = load(&bucket, Grants::default(), &[]) else { panic!("it was loaded") };
    assert!(error.reason().to_string().contains("nats-bucket"), "{}", error.reason());
}

#[test]
fn t19_what_is_no_storage_is_refused_in_words() {
    let resolver = antiphon_harness::resolver_guest("(i32.const 0)");
    let Err(error) = load(&resolver, Grants::default(), &[]) else { panic!("it was loaded") };
    assert!(error.reason().to_string().starts_with("it is no storage: it exports"), "{}", error.reason());
    assert!(load(b"\0asm\x01\0\0\0", Grants::default(), &[]).is_err());
    assert!(load(b"", Grants::default(), &[]).is_err());
}

/// A thousand that crash leave nothing behind.
#[test]
fn crashes_leave_no_instance() {
    let store = doing(&[("put", "(unreachable)")], "");
    for _ in 0..1000 {
        let error = store.put(&name("a"), b"x", Put::Replace).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Permanent);
    }
    assert_eq!(store.instances(), 0);
    goes_on(&store);
}

/// No more instances than there may be, however many ask.
#[test]
fn the_pool_is_bounded() {
    let store = doing(&[], "");
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    (0..20)
                        .map(|_| {
                            store.check().unwrap();
                            store.instances()
                        })
                        .max()
                })
            })
            .collect();
        for asked in asking {
            assert!(asked.join().unwrap() <= Some(4));
        }
    });
}
