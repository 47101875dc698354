//! `plugin new` and `plugin build`: what is written, what is found, and what is said when a tool is missing.
//!
//! The tools themselves are tried by `tests/examples.sh`; here stands something in their place.

use std::os::unix::fs::PermissionsExt as _;

use insta::assert_snapshot;

use super::Dir;

impl Dir {
    /// A program of this name, first on the path.
    fn tool(self, name: &str, script: &str) -> Self {
        let dir = self.file(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
        let path = dir.folder.path().join("bin").join(name);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        dir
    }

    /// With `bin` and what every system has on the path.
    fn with_tools(mut self) -> Self {
        let path = format!("{}:/usr/bin:/bin", self.folder.path().join("bin").display());
        self.variables.push(("PATH", path.leak()));
        self
    }
}

#[test]
fn new_writes_a_folder_and_nothing_over_it() {
    let dir = Dir::new();
    assert_snapshot!(dir.words("plugin new my-policy --kind resolver --lang python"), @r#"
    exit 0
    --- stdout
    wrote `my-policy`: a resolver in Python, as `merged-tags` in the examples
    next: `cd my-policy`, `antiphon plugin build`; its README.md says how to go on
    "#);
    assert!(dir.read("my-policy/resolver.py").starts_with("\"\"\"`my-policy`: sets in JSON are merged."));
    assert!(dir.read("my-policy/README.md").contains("\nantiphon plugin pin my-policy\n"));
    assert!(dir.read("my-policy/wit/conflict.wit").contains("world resolver"));
    std::fs::write(dir.folder.path().join("my-policy/resolver.py"), "mine").unwrap();
    assert_snapshot!(dir.words("plugin new my-policy --kind hasher --lang rust"), @r#"
    exit 1
    --- stderr
    error: `my-policy` is there already

    hint: choose another name; nothing is ever written over
    "#);
    assert_eq!(dir.read("my-policy/resolver.py"), "mine");
    assert!(!dir.folder.path().join("my-policy/Cargo.toml").exists());
}

#[test]
fn new_refuses_a_name_that_is_none() {
    assert_snapshot!(Dir::new().words("plugin new ../My_Policy --kind resolver --lang rust"), @r#"
    exit 2
    --- stderr
    error: `../My_Policy` can't be the name of a component

    hint: a name is lower-case letters, digits and hyphens, and begins with a letter: `my-policy`
    "#);
}

/// What a node needs for it is a configuration that is understood.
#[test]
fn the_configuration_of_each_is_good() {
    for kind in ["resolver", "hasher"] {
        for lang in ["rust", "python", "javascript"] {
            let dir = Dir::new().with("ANTIPHON_DB_PATH", "app.db");
            dir.words(&format!("plugin new mine --kind {kind} --lang {lang}"));
            let file = format!("mine/{}", "antiphon.toml");
            let text = dir.read(&file).replace("\nsource = ", "\nsha256 = \"\"\nsource = ");
            std::fs::write(dir.folder.path().join(&file), text).unwrap();
            std::fs::write(dir.folder.path().join("mine/mine.wasm"), "no component, and nobody looks").unwrap();
            let said = dir.words(&format!("config show {file}"));
            assert!(said.starts_with("exit 0\n"), "{kind} {lang}: {said}");
            assert!(said.contains("file:"), "{said}");
        }
    }
}

#[test]
fn a_missing_tool_is_named_with_the_ways_to_get_it() {
    let dir = Dir::new().with_tools().tool("rustc", "echo /nowhere");
    for lang in ["rust", "python", "javascript"] {
        dir.words(&format!("plugin new {lang} --kind hasher --lang {lang}"));
    }
    // Whatever this machine has in /usr/bin.
    let path = dir.folder.path().join("bin").to_str().unwrap().to_owned().leak();
    let dir = dir.with("PATH", path);
    assert_snapshot!(dir.words("plugin build rust"), @r#"
    exit 66
    --- stderr
    error: cargo is missing

    hint: install Rust with rustup, which brings it: https://rustup.rs
    "#);
    let dir = dir.tool("cargo", "echo never");
    assert_snapshot!(dir.words("plugin build rust"), @r#"
    exit 66
    --- stderr
    error: Rust's standard library for wasm32-wasip2 is missing

    hint: `antiphon plugin build --install` fetches it, as `rustup target add wasm32-wasip2` does
    "#);
    assert_snapshot!(dir.words("plugin build rust --install"), @r#"
    exit 66
    --- stderr
    error: rustup is missing

    hint: install Rust with rustup (https://rustup.rs), or wasm32-wasip2 as your Rust came
    "#);
    assert_snapshot!(dir.words("plugin build python"), @r#"
    exit 66
    --- stderr
    error: componentize-py is missing

    hint: `antiphon plugin build --install` puts it into `.antiphon/tools`; or install it, as with `pipx install componentize-py==0.25.1`
    "#);
    assert_snapshot!(dir.words("plugin build python --install"), @r#"
    exit 66
    --- stderr
    error: python3 is missing

    hint: install Python 3.10 or later; on Debian: apt-get install python3 python3-venv
    "#);
    assert_snapshot!(dir.words("plugin build javascript"), @r#"
    exit 66
    --- stderr
    error: jco is missing

    hint: `antiphon plugin build --install` puts it into `.antiphon/tools`; or install it with `npm install`
    "#);
    assert_snapshot!(dir.words("plugin build javascript --install"), @r#"
    exit 66
    --- stderr
    error: npm is missing

    hint: install Node.js 20 or later, which brings it; on Debian: apt-get install nodejs npm
    "#);
}

#[test]
fn build_says_what_it_made_and_what_to_write_down() {
    let dir = Dir::new().with_tools().with("SECRET", "s3cr3t").tool(
        "componentize-py",
        "env >> said; echo \"$@\" >> said; echo made it; for to; do :; done; printf component > \"$to\"",
    );
    dir.words("plugin new mine --kind storage --lang python");
    assert_snapshot!(dir.words("plugin build mine"), @r#"
    exit 0
    --- stdout
    [plugin.mine]
    source = "file:mine.wasm"
    sha256 = "6985ca1f4daa5a584a28eae043a239cb96689af1337ea13afb63e00c2bf512fa"
    --- stderr
    componentize-py: build `mine`
    made it

    wrote `mine/mine.wasm`: 9 bytes
    what nodes need to know of it:
    "#);
    assert_eq!(dir.read("mine/mine.wasm"), "component");
    let said = dir.read("mine/said");
    assert!(
        said.contains(
            "--wit-path wit --world storage-net componentize storage --output [DIR]/mine/.mine.wasm"
                .replace("[DIR]", dir.folder.path().canonicalize().unwrap().to_str().unwrap())
                .as_str()
        ),
        "{said}"
    );
    assert!(!said.contains("s3cr3t"), "the environment gets in: {said}");
    assert!(dir.words("plugin build mine --world storage-http --json").contains("\"bytes\":9,\"sha256\":"));
    assert!(dir.read("mine/said").contains("--world storage-http "));
}

#[test]
fn a_tool_that_fails_leaves_what_was_there() {
    let dir = Dir::new().with_tools().tool("jco", "echo 'line 7: no' >&2; printf half > .mine.wasm; exit 3");
    dir.words("plugin new mine --kind resolver --lang javascript");
    std::fs::write(dir.folder.path().join("mine/mine.wasm"), "before").unwrap();
    assert_snapshot!(dir.words("plugin build mine"), @r#"
    exit 1
    --- stderr
    jco: build `mine`
    line 7: no
    error: could not build `mine`: `jco` failed with exit status: 3

    hint: what it said stands above
    "#);
    assert_eq!(dir.read("mine/mine.wasm"), "before");
    assert!(!dir.folder.path().join("mine/.mine.wasm").exists());
}

#[test]
fn build_says_what_a_folder_lacks() {
    let dir = Dir::new()
        .file("none/x", "")
        .file("two/Cargo.toml", "")
        .file("two/package.json", "{}")
        .file("nameless/package.json", "{}")
        .file("broken/pyproject.toml", "[project")
        .file("sourceless/package.json", r#"{ "name": "x" }"#)
        .file("crate/Cargo.toml", "[package]\nname = \"x\"");
    assert_snapshot!(dir.words("plugin build none"), @r#"
    exit 66
    --- stderr
    error: there is no component in `[DIR]/none`

    hint: run it in a folder with a Cargo.toml, a pyproject.toml or a package.json; `antiphon plugin new` writes one
    "#);
    assert_snapshot!(dir.words("plugin build two"), @r#"
    exit 1
    --- stderr
    error: this folder is of two languages

    hint: leave one of Cargo.toml, pyproject.toml and package.json in it
    "#);
    assert_snapshot!(dir.words("plugin build nameless"), @r#"
    exit 65
    --- stderr
    error: cannot read `package.json`: it has no name, or one that is no plain word
    "#);
    assert_snapshot!(dir.words("plugin build broken"), @r#"
    exit 65
    --- stderr
    error: cannot read `pyproject.toml`: line 1: unclosed table, expected `]`
    "#);
    assert_snapshot!(dir.words("plugin build sourceless"), @r#"
    exit 66
    --- stderr
    error: it can't be seen what this component is asked

    hint: its source is called `resolver.js`, `hasher.js` or `storage.js`, and there is one of these
    "#);
    assert_snapshot!(dir.words("plugin build crate --world hasher"), @r#"
    exit 2
    --- stderr
    error: a component in Rust says its world in its source

    hint: change `world` in `wit_bindgen::generate!`
    "#);
    assert_snapshot!(dir.words("plugin build nowhere"), @r#"
    exit 66
    --- stderr
    error: cannot open `nowhere`: No such file or directory (os error 2)
    "#);
}
