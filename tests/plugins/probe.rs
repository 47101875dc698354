//! What a component answers by besides the question, found by asking in other ways.

use antiphon::trial::dice::Dice;
use antiphon::trial::draw::Field;
use antiphon::trial::probe::{Key, Probed, Unasked, Way, probe};
use antiphon::trial::tables;
use antiphon_bundle::World;
use antiphon_plugin::{Hasher, Limits};

use super::{HOST, custom, fnv, guests, official};

fn field() -> Field {
    Field {
        nodes: vec!["1".into(), "2".into(), "30".into()],
        tables: tables::of_sql(&tables::statements(&[])).unwrap(),
    }
}

fn keys(field: &Field) -> Vec<Key> {
    let keys = field.keys(&mut Dice::new(1), 700);
    (0..).zip(keys).flat_map(|(table, keys)| keys.into_iter().map(move |key| (table, key))).collect()
}

fn probed(hasher: &mut Hasher) -> Result<Probed, Unasked> {
    let field = field();
    probe(hasher, &field, &keys(&field), &mut Dice::new(2), &mut || {})
}

/// A hasher that gives each key of a batch what this text leaves on the stack; `$at` is the key's place in the batch.
fn hashing(each: &str, more: &str) -> Hasher {
    // Parameters: the table, pointer and length of keys, pointer and length of ends. A list of numbers follows its
    // head: ok, pointer, length.
    let hash = format!(
        r#"(local $at i32) (local $out i32)
           (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
           (local.set $out (i32.const 4096))
           (block $done (loop $next
             (br_if $done (i32.ge_u (local.get $at) (local.get 4)))
             (i64.store (i32.add (local.get $out) (i32.shl (local.get $at) (i32.const 3))) {each})
             (local.set $at (i32.add (local.get $at) (i32.const 1)))
             (br $next)))
           (i32.store (i32.const 256) (i32.const 0))
           (i32.store (i32.const 260) (local.get $out))
           (i32.store (i32.const 264) (local.get 4))
           (i32.const 256)"#
    );
    HOST.hasher(&custom(&guests::hasher(&hash, more)), &[], Limits::default()).unwrap()
}

/// The ways in which its answers differ.
fn differing(hasher: &mut Hasher) -> Vec<Way> {
    let ways = probed(hasher).unwrap().ways.into_iter();
    ways.filter(|(_, compared)| compared.as_ref().unwrap().is_some()).map(|(way, _)| way).collect()
}

#[test]
fn t10_what_only_computes_answers_alike() {
    assert_eq!(differing(&mut fnv()), []);
    let mut again = HOST.hasher(&official(World::Hasher, "fnv"), &[], Limits::default()).unwrap();
    assert_eq!(probed(&mut again).unwrap().digests, probed(&mut fnv()).unwrap().digests);
}

#[test]
fn t10_an_answer_by_what_was_asked_before_is_found() {
    let count = "(global.set $asked (i64.add (global.get $asked) (i64.const 1)))";
    let each = format!("(block (result i64) {count} (global.get $asked))");
    let mut hasher = hashing(&each, "(global $asked (mut i64) (i64.const 0))");
    assert!(differing(&mut hasher).contains(&Way::Served));
}

#[test]
fn t10_an_answer_by_the_place_in_the_batch_is_found() {
    let mut hasher = hashing("(i64.extend_i32_u (local.get $at))", "");
    let ways = differing(&mut hasher);
    assert!(ways.contains(&Way::Order) && ways.contains(&Way::Singly) && ways.contains(&Way::Batches), "{ways:?}");
    assert!(!ways.contains(&Way::Again), "{ways:?}");
}

/// Tables go by other numbers on a node that has more of them.
#[test]
fn t10_an_answer_by_the_number_of_a_table_is_found() {
    let mut hasher = hashing("(i64.extend_i32_u (local.get 0))", "");
    assert_eq!(differing(&mut hasher), [Way::Numbers]);
}

/// One that behaves for a while: an instance that has served long answers otherwise.
#[test]
fn t11_an_answer_that_changes_after_many_calls_is_found() {
    // Each way asks a fresh instance, and none but the one that serves on is asked so often.
    let singly = keys(&field()).len();
    let bomb = format!("(i64.extend_i32_u (i32.gt_u (global.get $calls) (i32.const {})))", singly * 9 / 10);
    let ways = differing(&mut hashing(&bomb, ""));
    assert_eq!(ways, [Way::Singly]);
}

#[test]
fn a_question_that_it_fails_at_is_named() {
    // The empty key stands for a whole table; this one does not know it.
    let end = "(i32.load (i32.add (local.get 3) (i32.shl (local.get $at) (i32.const 2))))";
    let start = "(if (result i32) (local.get $at)
        (then (i32.load (i32.sub (i32.add (local.get 3) (i32.shl (local.get $at) (i32.const 2))) (i32.const 4))))
        (else (i32.const 0)))";
    let fails = format!("(if (result i64) (i32.eq {end} {start}) (then unreachable) (else (i64.const 1)))");
    match probed(&mut hashing(&fails, "")) {
        Err(Unasked::Failed { why, question }) => {
            assert!(why.contains("panicked"), "{why}");
            assert_eq!(question.last().unwrap(), "key        (canonical bytes)");
        }
        other => panic!("{other:?}"),
    }
}
