//! Components whose bytes are pinned: what was not approved does not run.

use antiphon_harness::{eventually, resolver_guest, storage_guest};

use super::components::{KEEP, component, mine, site};
use super::place;

/// Without its digest a component does not run, and what to write is said; while it is worked on, a flag lifts that.
#[test]
fn without_a_digest_it_runs_only_while_it_is_worked_on() {
    let place = place();
    let sha256 = component(&place, "mine.wasm", &resolver_guest(KEEP));
    let line = format!("add this line under `[plugin.mine]`: `sha256 = \"{sha256}\"`");
    let mut a = site(&place, "a", &mine(""));
    place.run(["config", "check", "a.toml"]).expect(64, &[&line]);
    a.refused().expect(64, &["`plugin.mine.sha256` is not set", &line, "antiphon plugin pin mine", "--dev"]);
    let mut a = a.arguments(["run", "--config", "a.toml", "--dev"]);
    a.start();
    let said = a.said();
    assert_eq!(said.matches("runs without a digest").count(), 1, "{said}");
    assert!(said.contains(&format!("sha256 = \"{sha256}\"")), "{said}");
    a.term();
    let mut a = a.arguments(["run", "--config", "a.toml"]).with("ANTIPHON_DEV", "1");
    a.start();
    a.term();
    a.set("ANTIPHON_DEV", Some("0"));
    a.refused().expect(64, &[&line]);
}

/// One byte other than what was approved, and nothing runs; both digests are said. A flag does not lift that.
#[test]
fn t20_other_bytes_than_were_approved_do_not_run() {
    let place = place();
    let approved = antiphon_plugin::sha256(&resolver_guest(KEEP));
    let found = component(&place, "mine.wasm", &resolver_guest("(i32.const 1)"));
    let config = mine(&format!("sha256 = \"{approved}\"\n"));
    let mut a = site(&place, "a", &config);
    let words = ["`file:mine.wasm` is not the component that was approved", &approved, &found];
    a.refused().expect(64, &words);
    let mut a = a.arguments(["run", "--config", "a.toml", "--dev"]);
    a.refused().expect(64, &words);
    component(&place, "mine.wasm", &resolver_guest(KEEP));
    a.start();
}

/// A node whose component has other bytes would decide otherwise, so it is not let in. One that has the right bytes goes
/// by what the log tells them, and says so.
#[test]
fn t20_a_node_with_another_component_is_refused() {
    let place = place();
    let first = component(&place, "mine.wasm", &resolver_guest(KEEP));
    let second = component(&place, "other.wasm", &resolver_guest("(i32.const 1)"));
    let mut a = site(&place, "a", &mine(&format!("sha256 = \"{first}\"\n")));
    a.start();
    let other = mine(&format!("sha256 = \"{second}\"\n")).replace("mine.wasm", "other.wasm");
    let words = [
        "this node can't decide as its cluster does".to_owned(),
        format!("it decides by the component `sha256:{first}`, which this node's configuration does not have"),
        format!("add `[plugin.NAME]` with `source = \"file:PATH\"` and `sha256 = \"{first}\"`"),
        "take the file itself from another node".to_owned(),
    ];
    assert_ne!(first, second);
    site(&place, "b", &other).refused().expect(64, &words.each_ref().map(String::as_str));
    let told = mine(&format!("sha256 = \"{first}\"\nsettings = {{ a = \"b\" }}\n"));
    let mut c = site(&place, "c", &told);
    c.start();
    eventually("it says what differs", || c.said().contains("for `t` (a = b)"));
    assert!(c.said().contains("the log's policies hold; `antiphon policy apply`"), "{}", c.said());
    // What one's own file is called is nobody else's affair.
    let renamed = mine(&format!("sha256 = \"{first}\"\n")).replace("mine", "yours");
    std::fs::copy(place.path("mine.wasm"), place.path("yours.wasm")).unwrap();
    site(&place, "d", &renamed).start();
}

/// A storage is approved as any other component is: with other bytes nothing of it runs.
#[test]
fn t20_a_storage_of_other_bytes_does_not_run() {
    let place = place();
    let approved = component(&place, "mine.wasm", &storage_guest(&[], &[], "", ""));
    let config = "[snapshot]\nstore = \"plugin:mine\"\n[plugin.mine]\nsource = \"file:mine.wasm\"\n".to_owned();
    let mut a = site(&place, "a", &format!("{config}sha256 = \"{approved}\"\n"));
    assert_eq!(place.run(["storage", "ls", "--config", "a.toml"]).code, Some(0));
    let found = component(&place, "mine.wasm", &storage_guest(&[("list", "(unreachable)")], &[], "", ""));
    let words = ["`file:mine.wasm` is not the component that was approved", &approved, &found];
    place.run(["storage", "ls", "--config", "a.toml"]).expect(64, &words);
    place.run(["snapshot", "list", "--config", "a.toml"]).expect(64, &words);
    place.run(["snapshot", "restore", "--output", "b.db", "--config", "a.toml"]).expect(64, &words);
    // Changes go on without.
    a.start();
}
