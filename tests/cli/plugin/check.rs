//! `antiphon plugin check`: resolvers that would let nodes come apart are found.

use antiphon_harness::resolver_guest_with;
use insta::assert_snapshot;

use super::mine;
use crate::Dir;

#[test]
fn official_components_are_well() {
    let dir = Dir::new();
    for component in antiphon_bundle::ALL {
        let settings = match component.name {
            "counter" => "--settings columns=n,x,amount",
            "node-priority" => "--settings order=2,1",
            _ => "",
        };
        let checked = dir.words(&format!("plugin check {} --questions 500 {settings}", component.name));
        assert!(checked.starts_with("exit 0\n") && checked.ends_with("\nall is well\n"), "{checked}");
        if component.world == antiphon_bundle::World::Resolver {
            let tested = dir.words(&format!("plugin test {} --histories 8 {settings}", component.name));
            assert!(tested.starts_with("exit 0\n") && tested.contains("all nodes hold the same rows"), "{tested}");
        }
    }
}

#[test]
fn a_check_draws_the_same_from_the_same_seed() {
    let dir = mine();
    let text = dir.masked("plugin check mine.wasm --seed 7 --questions 500");
    assert_snapshot!(text, @r"
    exit 0
    --- stdout
    `mine` (file:mine.wasm)
    ok    form       a component of [size]; 64.0 MiB are allowed
    ok    world      resolver, antiphon:plugin@0.1.0
    ok    imports    1 satisfied
                       satisfied    antiphon:plugin/types@0.1.0
    ok    load       it is `mine` 1, laws 1
    ok    configure  it takes its settings and 7 tables
    ok    answers    to 500 clashes
    ok    the same   in another fresh instance
    ok    the same   in another order
    ok    the same   one at a time
    ok    the same   in batches of other sizes
    ok    the same   after it has served others
    ok    the same   with other numbers for nodes and tables
    ok    limits     the last batch took 74226 fuel; memory 1.1 MiB of 64.0 MiB

    questions  sha256 [sha256]
    answers    sha256 [sha256]
    the same on every machine with `--seed 7`

    all is well
    ");
    assert_eq!(dir.words("plugin check mine.wasm --seed 7"), dir.words("plugin check mine.wasm --seed 7"));
    let digests = |seed: &str| dir.words(&format!("plugin check mine.wasm --seed {seed}"));
    assert_ne!(digests("7"), digests("8"));
}

/// What `check` says of a resolver written as text.
fn checked(verdict: &str, more: &str) -> String {
    let dir = Dir::new().bytes("mine.wasm", &resolver_guest_with(verdict, more));
    let text = dir.masked("plugin check mine.wasm --seed 1");
    let failed = text.lines().skip_while(|line| !line.starts_with("FAIL"));
    let failed: Vec<&str> = failed.take_while(|line| !line.is_empty()).collect();
    format!("{}\n{}", text.lines().next().unwrap(), failed.join("\n"))
}

#[test]
fn t10_a_resolver_that_keeps_state_is_found() {
    let count = "(global.set $n (i32.add (global.get $n) (i32.const 1))) (i32.and (global.get $n) (i32.const 1))";
    let text = checked(count, "(global $n (mut i32) (i32.const 0))");
    assert!(text.starts_with("exit 3\n"), "{text}");
    assert!(text.contains("an answer depends on what else is asked"), "{text}");
}

#[test]
fn t10_a_resolver_that_goes_by_the_order_of_a_batch_is_found() {
    // Whether the clash before this one lay right before it in memory.
    let place = "(local $follows i32)
        (local.set $follows (i32.eq (local.get $clash) (i32.add (global.get $last) (i32.const 112))))
        (global.set $last (local.get $clash))
        (local.get $follows)";
    let text = checked(place, "(global $last (mut i32) (i32.const 0))");
    assert_snapshot!(text, @r"
    exit 3
    FAIL  the same   not in another order: an answer depends on what else is asked
                       table     by_number
                       base      -534904783426661026 | -2262517385565684571 | t'6e756c00696e73696465' | 'été'
                       current   -534904783426661026 | 1216750802008901446 | t'6e756c00696e73696465' | '1'   (1767225600006 of 1)
                       incoming  -534904783426661026 | -7625973610476762694 | 1e300 | -9223372036854775808   (1767225600004 of 30)
                       first     keep
                       then      take
                       so with 8 of 2000 clashes
    FAIL  the same   not one at a time: an answer depends on what else is asked
                       table     strict_two
                       base      'key 69391' | 1e300 | 2 | 0 | 1.0 | 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'… (4013 bytes)
                       current   none   (1767225600003 of 1)
                       incoming  none   (1767225600001 of 30)
                       first     take
                       then      keep
                       so with 1996 of 2000 clashes
    FAIL  the same   not in batches of other sizes: an answer depends on what else is asked
                       table     by_number
                       base      none
                       current   -5689746676983205034 | NULL | -3.75 | 'it''s'   (1767225600004 of 30)
                       incoming  -5689746676983205034 | NULL | -3.75 | 'it''s'   (1767225600003 of 1)
                       first     take
                       then      keep
                       so with 47 of 2000 clashes
    ok    the same   after it has served others
    ok    the same   with other numbers for nodes and tables
    ok    limits     the last batch took 70963 fuel; memory 4.1 MiB of 64.0 MiB
    ");
}

#[test]
fn t10_a_resolver_that_goes_by_the_numbers_of_tables_is_found() {
    assert_snapshot!(checked("(i32.and (i32.load (local.get $clash)) (i32.const 1))", ""), @r"
    exit 3
    FAIL  the same   not with other numbers for nodes and tables: an answer depends on numbers that differ from node to node, and not on the names
                       table     by_number
                       base      -534904783426661026 | -2262517385565684571 | t'6e756c00696e73696465' | 'été'
                       current   -534904783426661026 | 1216750802008901446 | t'6e756c00696e73696465' | '1'   (1767225600006 of 1)
                       incoming  -534904783426661026 | -7625973610476762694 | 1e300 | -9223372036854775808   (1767225600004 of 30)
                       first     keep
                       then      take
                       so with 2000 of 2000 clashes
    ok    limits     the last batch took 68643 fuel; memory 4.1 MiB of 64.0 MiB
    ");
}

#[test]
fn t11_a_resolver_that_changes_its_mind_is_found() {
    // No instance is asked so much but the one that serves on.
    let bomb = "(global.set $n (i32.add (global.get $n) (i32.const 1))) (i32.gt_u (global.get $n) (i32.const 3000))";
    assert_snapshot!(checked(bomb, "(global $n (mut i32) (i32.const 0))"), @r"
    exit 3
    FAIL  the same   not after it has served others: an answer depends on what was asked before
                       table     by_bytes
                       base      x'f0' | NULL | NULL | 1e300 | 'a'
                       current   x'f0' | x'' | -6871137321086019114 | 0.1 | 'a'   (1767225600007 of 30)
                       incoming  x'f0' | NULL | NULL | 2.5 | ''   (1767225600004 of 30)
                       first     keep
                       then      take
                       so with 1000 of 2000 clashes
    ok    the same   with other numbers for nodes and tables
    ok    limits     the last batch took 70035 fuel; memory 4.1 MiB of 64.0 MiB
    ");
}

#[test]
fn a_resolver_that_fails_is_shown_with_what_it_fails_at() {
    let picky =
        "(if (i32.eq (call $kind (local.get $clash) (i32.const 1)) (i32.const 2)) (then unreachable)) (i32.const 1)";
    assert_snapshot!(checked(picky, ""), @r"
    exit 3
    FAIL  answers    cannot resolve clashes with plugin `mine` (file:mine.wasm, sha256 [sha256]): it panicked in `decide`, called by `resolve`
                       table     by_bytes
                       base      x'8d7bf3d7fd506763' | x'880545e9f6' | -7444912782845518387 | inf | -9223372036854775808
                       current   x'8d7bf3d7fd506763' | x'880545e9f6' | -7444912782845518387 | inf | t'6c696e650a627265616b'   (1767225600006 of 2)
                       incoming  x'8d7bf3d7fd506763' | 2.5 | NULL | -0.0 | -9223372036854775808   (1767225600007 of 30)
    ");
}
