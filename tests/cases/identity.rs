//! Identity of rows: keys that move, UNIQUE values that change hands.

use antiphon_harness::{pair, settle};

/// Moving rows to other keys must not leave the old rows behind on peers.
#[test]
fn c20_key_move_deletes_old_rows_on_peers() {
    let (mut a, mut b) = pair("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    for id in 1..=100 {
        a.sql(&format!("INSERT INTO t VALUES ({id}, 'v{id}')"));
    }
    settle(&mut [&mut a, &mut b]);
    a.sql("UPDATE t SET id = id + 1000");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.one("SELECT count(*) FROM t"), "100");
    assert_eq!(b.one("SELECT min(id) FROM t"), "1001");
}
