//! Components of the user's own, in real processes.

use antiphon_harness::{Place, Site, eventually, resolver_guest, settled};

use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";

/// What stands stays.
const KEEP: &str = "(i32.const 0)";

/// Writes a component; gives its sha256.
fn component(place: &Place, name: &str, bytes: &[u8]) -> String {
    std::fs::write(place.path(name), bytes).unwrap();
    antiphon_plugin::sha256(bytes)
}

/// A site with a configuration that ends with this.
fn site(place: &Place, name: &str, more: &str) -> Site {
    let text = format!("db_path = \"{name}.db\"\n[log]\npath = \"log\"\n{more}");
    place.file(&format!("{name}.toml"), &text);
    place.site(name, TABLE).arguments(["run", "--config", &format!("{name}.toml")])
}

/// The tables of `t` are decided by `[plugin.mine]`, which goes on like this.
fn mine(rest: &str) -> String {
    format!("[[conflict.table]]\nmatch = \"t\"\nuse = \"mine\"\n[plugin.mine]\nsource = \"file:mine.wasm\"\n{rest}")
}

/// Both write the same row without knowing of each other; `first` comes first in the log.
fn clash(first: &mut Site, second: &mut Site, sql: [&str; 2]) {
    second.term();
    first.sql(sql[0]);
    eventually("it is in the log", || first.is_quiet());
    second.sql(sql[1]);
    second.start();
}

/// A resolver that somebody wrote decides, on every node.
#[test]
fn a_resolver_of_ones_own_decides() {
    let place = place();
    let sha256 = component(&place, "mine.wasm", &resolver_guest(KEEP));
    let config = mine(&format!("sha256 = \"{sha256}\"\n"));
    let (mut a, mut b) = (site(&place, "a", &config), site(&place, "b", &config));
    a.start();
    b.start();
    a.sql("INSERT INTO t VALUES (1, 'x')");
    eventually("the row is everywhere", || b.one("SELECT count(*) FROM t") == "1");
    clash(&mut a, &mut b, ["UPDATE t SET v = 'first'", "UPDATE t SET v = 'second'"]);
    eventually("the clash is recorded", || b.one("SELECT count(*) FROM __antiphon___conflict") == "1");
    settled(&[&a, &b]);
    assert_eq!(a.one("SELECT v FROM t"), "first", "the later one won: nobody asked the resolver");
    assert_eq!(b.one("SELECT resolver, verdict FROM __antiphon___conflict"), "mine|keep");
}

/// As the policy of all tables it decides over those that nobody named; and a component may call itself what it likes.
#[test]
fn a_resolver_of_ones_own_is_the_default() {
    for name in ["mine", "last-write-wins"] {
        let folder = place();
        let sha256 = component(&folder, "mine.wasm", &resolver_guest(KEEP));
        let config = format!(
            "[conflict]\ndefault = \"{name}\"\n[plugin.{name}]\nsource = \"file:mine.wasm\"\nsha256 = \"{sha256}\"\n"
        );
        let (mut a, mut b) = (site(&folder, "a", &config), site(&folder, "b", &config));
        a.start();
        b.start();
        a.sql("INSERT INTO t VALUES (1, 'x')");
        eventually("the row is everywhere", || b.one("SELECT count(*) FROM t") == "1");
        clash(&mut a, &mut b, ["UPDATE t SET v = 'first'", "UPDATE t SET v = 'second'"]);
        eventually("the clash is recorded", || b.one("SELECT count(*) FROM __antiphon___conflict") == "1");
        settled(&[&a, &b]);
        assert_eq!(a.one("SELECT v FROM t"), "first", "{name}");
    }
}

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

/// A node whose component has other bytes would decide otherwise, so it is not let in; nor is one whose settings differ.
#[test]
fn t20_a_node_with_another_component_is_refused() {
    let place = place();
    let first = component(&place, "mine.wasm", &resolver_guest(KEEP));
    let second = component(&place, "other.wasm", &resolver_guest("(i32.const 1)"));
    let mut a = site(&place, "a", &mine(&format!("sha256 = \"{first}\"\n")));
    a.start();
    let other = mine(&format!("sha256 = \"{second}\"\n")).replace("mine.wasm", "other.wasm");
    let words = [
        format!("its policies for single tables are `sha256:{first}` for `t`"),
        format!("this node's are `sha256:{second}` for `t`"),
        "take the file itself from another node".to_owned(),
    ];
    site(&place, "b", &other).refused().expect(64, &words.each_ref().map(String::as_str));
    let told = mine(&format!("sha256 = \"{first}\"\nsettings = {{ a = \"b\" }}\n"));
    site(&place, "c", &told).refused().expect(64, &["for `t` (a = b)"]);
    // What one's own file is called is nobody else's affair.
    let renamed = mine(&format!("sha256 = \"{first}\"\n")).replace("mine", "yours");
    std::fs::copy(place.path("mine.wasm"), place.path("yours.wasm")).unwrap();
    site(&place, "d", &renamed).start();
}
