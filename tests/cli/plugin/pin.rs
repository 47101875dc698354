//! `antiphon plugin pin`: the digest of a component goes into the configuration.

use std::os::unix::fs::PermissionsExt as _;

use antiphon_harness::resolver_guest;
use insta::assert_snapshot;

use super::{TAKE, mine};
use crate::Dir;

#[test]
fn a_pin_is_written_and_nothing_else_changes() {
    let config = "# ours\ndb_path = 'app.db' # the file\n\n[plugin.mine]\nsource = \"file:mine.wasm\" # built here\n\n\
                  [plugin.mine.settings]\na = 1\n";
    let dir = mine().file("deep/antiphon.toml", config);
    std::fs::rename(dir.folder.path().join("mine.wasm"), dir.folder.path().join("deep/mine.wasm")).unwrap();
    let path = dir.folder.path().join("deep/antiphon.toml");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("deep/antiphon.toml", dir.folder.path().join("antiphon.toml")).unwrap();

    // Through a link that stays one, to a file whose folder `source` is relative to: that of the link as it was named.
    assert_snapshot!(dir.masked("plugin pin mine --config deep/antiphon.toml"), @r"
    exit 0
    --- stdout
    `plugin.mine.sha256` in `deep/antiphon.toml`
      is   [sha256]
    ");
    let digest = antiphon_plugin::sha256(&resolver_guest(TAKE));
    let source = "source = \"file:mine.wasm\" # built here\n";
    let expected = config.replace(source, &format!("{source}sha256 = \"{digest}\"\n"));
    assert_eq!(dir.read("deep/antiphon.toml"), expected);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(std::fs::read_dir(dir.folder.path().join("deep")).unwrap().count(), 2, "nothing is left aside");

    assert_snapshot!(dir.masked("plugin pin mine --config deep/antiphon.toml"), @r"
    exit 0
    --- stdout
    `plugin.mine` is pinned already: [sha256]
    ");
    std::fs::write(dir.folder.path().join("deep/mine.wasm"), resolver_guest("(i32.const 0)")).unwrap();
    let checked = dir.masked("plugin check mine --config deep/antiphon.toml");
    assert!(checked.contains("FAIL  pin "), "{checked}");
    assert_snapshot!(dir.masked("plugin pin mine --config deep/antiphon.toml"), @r"
    exit 0
    --- stdout
    `plugin.mine.sha256` in `deep/antiphon.toml`
      was  [sha256]
      is   [sha256]
    ");
    let checked = dir.masked("plugin check mine --config deep/antiphon.toml --questions 10");
    assert!(checked.starts_with("exit 0\n") && checked.contains("ok    pin "), "{checked}");

    std::fs::write(dir.folder.path().join("mine.wasm"), resolver_guest(TAKE)).unwrap();
    let linked = dir.masked("plugin pin mine");
    assert!(linked.starts_with("exit 0\n"), "{linked}");
    assert!(std::fs::symlink_metadata(dir.folder.path().join("antiphon.toml")).unwrap().is_symlink());
    assert_eq!(dir.read("deep/antiphon.toml"), expected);
}

#[test]
fn what_can_not_be_used_is_not_pinned() {
    let config = "[plugin.text]\nsource = 'file:antiphon.toml'\n[plugin.gone]\nsource = 'file:gone.wasm'\n\
                  [plugin.sum]\nsource = 'builtin:counter'\n";
    let dir = Dir::new().file("antiphon.toml", config);
    assert_snapshot!(dir.masked("plugin pin text"), @r"
    exit 65
    --- stderr
    error: cannot load plugin `text` (file:antiphon.toml, sha256 [sha256]): it is a text, not a WebAssembly component

    hint: Compile it to a component first, and name the `.wasm` file that this gives.
    ");
    assert_snapshot!(dir.masked("plugin pin gone"), @r"
    exit 66
    --- stderr
    error: cannot read the component `gone.wasm`: No such file or directory (os error 2)

    hint: name a `.wasm` file, or an official component: `antiphon plugin list` names them
    ");
    assert_snapshot!(dir.masked("plugin pin sum"), @r"
    exit 64
    --- stderr
    error: `plugin.sum` is `builtin:counter`, which comes with the program

    hint: only a component of your own is pinned
    ");
    assert_snapshot!(dir.masked("plugin pin none"), @r"
    exit 64
    --- stderr
    error: there is no `[plugin.none]` in `antiphon.toml`

    hint: it has `gone`, `sum`, `text`
    ");
    assert_eq!(dir.read("antiphon.toml"), config);
    assert_snapshot!(Dir::new().masked("plugin pin none"), @r"
    exit 64
    --- stderr
    error: cannot read the configuration `antiphon.toml`: No such file or directory (os error 2)

    hint: write one with `antiphon init app.db`, where `app.db` is the application's database
    ");
}
