//! Compiles the workspace of plugins to WebAssembly, so that the program carries them.
//!
//! The same source gives the same bytes wherever it is checked out: nothing of the caller's environment
//! gets in, and no path of this machine gets out.

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const TARGET: &str = "wasm32-wasip2";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            say("error", &err.to_string());
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let bundle = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let plugins = bundle.parent().ok_or("the bundle has no folder above it")?;
    let checkout = plugins.parent().ok_or("the plugins have no folder above them")?;
    watch(plugins, &checkout.join("wit"))?;
    ensure_target()?;

    let target_dir = target_dir(&out);
    let status = clean(Command::new(variable("CARGO")?))
        .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        .current_dir(plugins)
        .env("CARGO_ENCODED_RUSTFLAGS", remaps(checkout)?.join("\x1f"))
        .status()?;
    if !status.success() {
        return Err("the plugins do not compile".into());
    }

    for entry in fs::read_dir(target_dir.join(TARGET).join("release"))? {
        let path = entry?.path();
        if let (Some("wasm"), Some(name)) = (path.extension().and_then(|ext| ext.to_str()), path.file_name()) {
            fs::copy(&path, out.join(name))?;
        }
    }
    Ok(())
}

fn variable(name: &str) -> Result<OsString, String> {
    std::env::var_os(name).ok_or_else(|| format!("`{name}` is not set: this is to be run by cargo"))
}

/// Tells cargo, which reads what a build script prints.
fn say(key: &str, value: &str) {
    println!("cargo::{key}={value}");
}

/// Names all that the bytes depend on, so that nothing else makes cargo run this again.
fn watch(plugins: &Path, wit: &Path) -> Result<(), Box<dyn Error>> {
    let mut paths = vec![plugins.join("Cargo.toml"), plugins.join("Cargo.lock"), wit.to_path_buf()];
    for entry in fs::read_dir(plugins)? {
        let path = entry?.path();
        if path.join("src").is_dir() && !path.ends_with("bundle") {
            paths.extend([path.join("src"), path.join("Cargo.toml")]);
        }
    }
    for path in paths {
        say("rerun-if-changed", path.to_str().ok_or("the path of the checkout is not UTF-8")?);
    }
    Ok(())
}

/// One folder for every profile and tool, so that plugins are compiled once and not again for clippy.
fn target_dir(out: &Path) -> PathBuf {
    // OUT_DIR is target/PROFILE/build/PACKAGE-HASH/out. Should that ever change, it serves itself.
    let mut above = out.ancestors().skip(2);
    let is_build = above.next().is_some_and(|folder| folder.ends_with("build"));
    above.nth(1).filter(|_| is_build).unwrap_or(out).join("plugins")
}

/// The command without what cargo and its caller put into the environment for the host's own build.
fn clean(mut command: Command) -> Command {
    // Where crates are fetched from is the user's business and no part of the result.
    let kept = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = text.starts_with("CARGO") || (text.starts_with("RUST") && !text.starts_with("RUSTUP_"));
        if ours && !kept.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

/// Flags that replace this machine's paths by ones that are the same everywhere.
fn remaps(checkout: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let version = rustc(&["-vV"])?;
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: ")).unwrap_or("unknown");
    let sysroot = PathBuf::from(rustc(&["--print", "sysroot"])?.trim_end());
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .ok_or("neither CARGO_HOME nor HOME is set")?;
    // With the component rust-src installed, std's own paths are local ones; without, they are these.
    let std_source = sysroot.join("lib/rustlib/src/rust");
    // Of two that match, rustc takes the later: a checkout inside CARGO_HOME is a checkout first.
    let pairs = [
        (cargo_home, "/cargo".to_owned()),
        (sysroot, "/sysroot".to_owned()),
        (std_source, format!("/rustc/{commit}")),
        (checkout.to_path_buf(), "/antiphon".to_owned()),
    ];
    pairs
        .iter()
        .map(|(from, to)| {
            let from = from.to_str().ok_or("a path of this machine is not UTF-8")?;
            Ok(format!("--remap-path-prefix={from}={to}"))
        })
        .collect()
}

fn rustc(args: &[&str]) -> Result<String, Box<dyn Error>> {
    let output = Command::new(variable("RUSTC")?).args(args).output()?;
    Ok(String::from_utf8(output.stdout)?)
}

/// Sees to it that the standard library is there for the target.
fn ensure_target() -> Result<(), Box<dyn Error>> {
    let libdir = rustc(&["--print", "target-libdir", "--target", TARGET])?;
    if Path::new(libdir.trim_end()).is_dir() {
        return Ok(());
    }
    let added = Command::new("rustup").args(["target", "add", TARGET]).status();
    match added {
        Ok(status) if status.success() => Ok(()),
        _ => Err(format!("the compiler lacks a target that the plugins need; run `rustup target add {TARGET}`").into()),
    }
}
