//! The tools of the languages: found, fetched if asked for, and run.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::note;
use super::project::{Entry, Project};
use crate::failure::{Failure, Kind};
use crate::template::Language;

/// What Rust compiles for.
const TARGET: &str = "wasm32-wasip2";
/// The versions that this program was tried with; the examples name the same ones.
const COMPONENTIZE_PY: &str = "0.25.1";
const JCO: &str = "1.17.9";

/// A tool that can be run.
#[derive(Debug)]
pub(super) struct Tool {
    program: PathBuf,
}

/// The tool for a project.
pub(super) fn find(project: &Project, install: bool) -> Result<Tool, Failure> {
    let program = match project.language {
        Language::Rust => cargo(project, install)?,
        Language::Python => componentize_py(project, install)?,
        Language::JavaScript => jco(project, install)?,
    };
    Ok(Tool { program })
}

fn cargo(project: &Project, install: bool) -> Result<PathBuf, Failure> {
    let cargo = on_path("cargo")
        .ok_or_else(|| missing("cargo", "install Rust with rustup, which brings it: https://rustup.rs"))?;
    let rustc = env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    let library = output(command(&rustc, &project.folder).args(["--print", "target-libdir", "--target", TARGET]))?;
    if Path::new(library.trim_end()).is_dir() {
        return Ok(cargo);
    }
    if !install {
        return Err(missing(
            &format!("Rust's standard library for {TARGET}"),
            &format!("`antiphon plugin build --install` fetches it, as `rustup target add {TARGET}` does"),
        ));
    }
    let rustup = on_path("rustup").ok_or_else(|| {
        missing("rustup", &format!("install Rust with rustup (https://rustup.rs), or {TARGET} as your Rust came"))
    })?;
    run(command(&rustup, &project.folder).args(["target", "add", TARGET]), "fetch Rust's standard library")?;
    Ok(cargo)
}

fn componentize_py(project: &Project, install: bool) -> Result<PathBuf, Failure> {
    let wanted = format!("componentize-py=={COMPONENTIZE_PY}");
    if !install {
        let ours = tools(&project.folder).map(|tools| tools.join("python/bin/componentize-py"));
        return ours.filter(|program| program.is_file()).or_else(|| on_path("componentize-py")).ok_or_else(|| {
            missing(
                "componentize-py",
                &format!(
                    "`antiphon plugin build --install` puts it into `.antiphon/tools`; or install it, as with `pipx install {wanted}`"
                ),
            )
        });
    }
    let venv = make_tools(&project.folder)?.join("python");
    let program = venv.join("bin/componentize-py");
    if is_there(&program, COMPONENTIZE_PY, &project.folder) {
        return Ok(program);
    }
    // A `python3` that a shell puts in front may be too old, or lack what a Debian package brings.
    let python = on_path("python3").ok_or_else(|| {
        missing("python3", "install Python 3.10 or later; on Debian: apt-get install python3 python3-venv")
    })?;
    run(command(&python, &project.folder).args(["-m", "venv"]).arg(&venv), "make a place for componentize-py")
        .map_err(|failure| failure.hint("on Debian: apt-get install python3-venv"))?;
    let mut pip = command(&venv.join("bin/python"), &project.folder);
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--quiet", &wanted]);
    run(&mut pip, "fetch componentize-py")?;
    Ok(program)
}

fn jco(project: &Project, install: bool) -> Result<PathBuf, Failure> {
    let wanted = format!("@bytecodealliance/jco@{JCO}");
    if !install {
        let of_project = project.folder.join("node_modules/.bin/jco");
        let ours = tools(&project.folder).map(|tools| tools.join("javascript/node_modules/.bin/jco"));
        return [Some(of_project), ours]
            .into_iter()
            .flatten()
            .find(|program| program.is_file())
            .or_else(|| on_path("jco"))
            .ok_or_else(|| {
                missing(
                    "jco",
                    "`antiphon plugin build --install` puts it into `.antiphon/tools`; or install it with `npm install`",
                )
            });
    }
    let folder = make_tools(&project.folder)?.join("javascript");
    let program = folder.join("node_modules/.bin/jco");
    if is_there(&program, JCO, &project.folder) {
        return Ok(program);
    }
    fs::create_dir_all(&folder)
        .map_err(|error| Failure::caused(Kind::General, format!("cannot make `{}`", folder.display()), &error))?;
    let npm = on_path("npm").ok_or_else(|| {
        missing("npm", "install Node.js 20 or later, which brings it; on Debian: apt-get install nodejs npm")
    })?;
    let mut npm = command(&npm, &project.folder);
    npm.args(["install", "--no-fund", "--no-audit", "--loglevel=error", "--prefix"]).arg(&folder).arg(wanted);
    run(&mut npm, "fetch jco")?;
    Ok(program)
}

impl Tool {
    /// Makes the component and puts it at `to`.
    pub(super) fn build(&self, project: &Project, to: &Path) -> Result<(), Failure> {
        let mut command = command(&self.program, &project.folder);
        let attempt = format!("build `{}`", project.name);
        match (&project.entry, project.language) {
            (Some(Entry { stem, world }), Language::Python) => {
                command.args(["--wit-path", "wit", "--world", world, "componentize", stem, "--output"]).arg(to);
                run(&mut command, &attempt)
            }
            (Some(Entry { stem, world }), _) => {
                command.arg("componentize").arg(format!("{stem}.js")).args(["--wit", "wit", "--world-name", world]);
                // What a plugin can't have anyway. Standard error stays: an error that nobody catches is told there.
                command.args(["--disable", "clocks", "fetch-event", "http", "random", "--out"]).arg(to);
                run(&mut command, &attempt)
            }
            (None, _) => {
                let target = project.folder.join("target");
                command.args(["build", "--release", "--target", TARGET, "--target-dir"]).arg(&target);
                command.env("CARGO_ENCODED_RUSTFLAGS", remaps(project)?.join("\x1f"));
                run(&mut command, &attempt)?;
                let made = target.join(TARGET).join("release").join(format!("{}.wasm", project.name.replace('-', "_")));
                fs::copy(&made, to).map(drop).map_err(|error| {
                    Failure::caused(Kind::General, format!("cannot read `{}`", made.display()), &error)
                        .hint("`crate-type = [\"cdylib\"]` under `[lib]` makes a component of a crate")
                })
            }
        }
    }
}

/// Flags that replace this machine's paths by ones that are the same everywhere: the same source gives the same bytes.
fn remaps(project: &Project) -> Result<Vec<String>, Failure> {
    let rustc = env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    let rustc = |arg: &[&str]| output(command(&rustc, &project.folder).args(arg));
    let sysroot = rustc(&["--print", "sysroot"])?;
    let version = rustc(&["-vV"])?;
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: ")).unwrap_or("unknown");
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .unwrap_or_default();
    let sysroot = Path::new(sysroot.trim_end());
    // Of two that match, rustc takes the later.
    let pairs = [
        (home.as_path(), "/cargo".to_owned()),
        (sysroot, "/sysroot".to_owned()),
        (&sysroot.join("lib/rustlib/src/rust"), format!("/rustc/{commit}")),
        (&project.folder, format!("/{}", project.name)),
    ];
    Ok(pairs.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())).collect())
}

/// `.antiphon/tools` of this folder, or of the nearest one above that has one.
fn tools(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().map(|folder| folder.join(".antiphon/tools")).find(|tools| tools.is_dir())
}

fn make_tools(folder: &Path) -> Result<PathBuf, Failure> {
    let tools = tools(folder).unwrap_or_else(|| folder.join(".antiphon/tools"));
    fs::create_dir_all(&tools)
        .map_err(|error| Failure::caused(Kind::General, format!("cannot make `{}`", tools.display()), &error))?;
    Ok(tools)
}

/// Whether this version of a tool was fetched before.
fn is_there(program: &Path, version: &str, folder: &Path) -> bool {
    let said = command(program, folder).arg("--version").output();
    said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).split_whitespace().last() == Some(version))
}

/// A program of this name, as a shell would find it.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// What of the environment decides where things are, or how they are fetched. Nothing else gets in, so that what is
/// made doesn't depend on who makes it.
const KEPT: &[&str] =
    &["PATH", "HOME", "USER", "TMPDIR", "RUSTC", "all_proxy", "http_proxy", "https_proxy", "no_proxy"];
const KEPT_PREFIXES: &[&str] = &[
    "ALL_PROXY",
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTR",
    "CARGO_SOURCE_",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "NO_PROXY",
    "NPM_CONFIG_",
    "PIP_",
    "PYENV_",
    "REQUESTS_CA_BUNDLE",
    "RUSTUP_",
    "SSL_CERT_",
    "npm_config_",
];

/// A command in a folder, in a clean environment.
fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env_clear().stdin(Stdio::null());
    let kept = |name: &OsStr| {
        name.to_str()
            .is_some_and(|name| KEPT.contains(&name) || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
    };
    command.envs(env::vars_os().filter(|(name, _)| kept(name)));
    command.env("LC_ALL", "C.UTF-8").env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONHASHSEED", "0");
    command
}

/// Runs a command; what it says goes to stderr, for stdout is ours.
fn run(command: &mut Command, attempt: &str) -> Result<(), Failure> {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().display().to_string();
    note(&format!("{program}: {attempt}"))?;
    let status = command
        .stdout(io::stderr())
        .status()
        .map_err(|error| Failure::caused(Kind::General, format!("cannot run `{program}`"), &error))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(Kind::General, format!("could not {attempt}: `{program}` failed with {status}"))
        .hint("what it said stands above"))
}

/// What a command prints.
fn output(command: &mut Command) -> Result<String, Failure> {
    let program = command.get_program().display().to_string();
    let failed = |why: String| {
        Failure::new(Kind::General, format!("cannot run `{program}`: {why}"))
            .hint("install Rust with rustup: https://rustup.rs")
    };
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim_end().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn missing(what: &str, hint: &str) -> Failure {
    Failure::new(Kind::Missing, format!("{what} is missing")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{ALL, Language};

    /// Whoever installs the tool by the example's own manifest gets the version that was tried.
    #[test]
    fn the_examples_name_the_versions_that_are_fetched() {
        for template in ALL {
            let pinned = match template.language {
                Language::Rust => continue,
                Language::Python => format!("\"componentize-py=={COMPONENTIZE_PY}\""),
                Language::JavaScript => format!("\"@bytecodealliance/jco\": \"{JCO}\""),
            };
            assert!(template.files("x").any(|(_, text)| text.contains(&pinned)), "{}", template.folder);
        }
    }
}
