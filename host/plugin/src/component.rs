//! Bytes -> a component of the world that is wanted, or a clear word on why not.

use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre};

use crate::bindings::VERSION;
use crate::cache::Cache;
use crate::engine::Runtime;
use crate::error::Reason;
use crate::inert::{self, State};
use crate::limits::Limits;

const WASM_MAGIC: &[u8] = b"\0asm";
/// What follows the magic of a core module; a component has another number and layer there.
const CORE_VERSION: &[u8] = &[1, 0, 0, 0];

/// Compiles `bytes` and links them, if they are a component of `world`, which exports `interfaces`. `foreign` is the name
/// of one that somebody wrote.
pub(crate) fn prepare(
    runtime: &Runtime,
    bytes: &[u8],
    sha256: &str,
    limits: &Limits,
    world: &'static str,
    interfaces: &[&str],
    foreign: Option<&str>,
) -> Result<InstancePre<State>, Reason> {
    let component = compile(runtime, bytes, sha256, limits, foreign)?;
    check_exports(&runtime.engine, &component, world, interfaces)?;
    check_imports(&runtime.engine, &component, world)?;
    link(runtime, &component)
}

/// Compiles `bytes`, if they are a component.
pub(crate) fn compile(
    runtime: &Runtime,
    bytes: &[u8],
    sha256: &str,
    limits: &Limits,
    foreign: Option<&str>,
) -> Result<Component, Reason> {
    check_form(bytes, limits)?;
    if let Some(component) = runtime.known(sha256) {
        return Ok(component);
    }
    let component = compile_anew(runtime, bytes, sha256, limits, foreign)?;
    runtime.know(sha256, &component);
    Ok(component)
}

/// Gives a component that only computes its imports.
pub(crate) fn link(runtime: &Runtime, component: &Component) -> Result<InstancePre<State>, Reason> {
    runtime.linker.instantiate_pre(component).map_err(|err| Reason::Unlinkable(chain(&err)))
}

/// Compiles what came with the program here, and what somebody wrote in a process of its own, if there is a way to.
fn compile_anew(
    runtime: &Runtime,
    bytes: &[u8],
    sha256: &str,
    limits: &Limits,
    foreign: Option<&str>,
) -> Result<Component, Reason> {
    let engine = &runtime.engine;
    let (Some(name), Some(compiler)) = (foreign, &runtime.compiler) else {
        let compiled = match &runtime.cache {
            Some(cache) => cache.compile(engine, bytes, sha256),
            None => Component::from_binary(engine, bytes),
        };
        return compiled.map_err(|err| Reason::uncompilable(&chain(&err)));
    };
    let lost = || Reason::Engine("the process that compiles left nothing that can be believed".to_owned());
    if let Some(cache) = &runtime.cache {
        if let Some(component) = cache.find(engine, sha256) {
            return Ok(component);
        }
        match compiler.compile(name, cache.folder(), bytes, limits) {
            // The folder may be full, or not to be written to; then the code is kept for this start alone.
            Err(Reason::Engine(why)) => tracing::warn!(plugin = name, why, "cannot keep a compiled plugin"),
            compiled => {
                compiled?;
                return cache.find(engine, sha256).ok_or_else(lost);
            }
        }
    }
    let folder = tempfile::tempdir().map_err(|err| Reason::Engine(format!("no folder to compile in: {err}")))?;
    let cache = Cache::open(folder.path()).ok_or_else(lost)?;
    compiler.compile(name, folder.path(), bytes, limits)?;
    cache.find(engine, sha256).ok_or_else(lost)
}

/// What the bytes are, as far as their beginning tells.
fn check_form(bytes: &[u8], limits: &Limits) -> Result<(), Reason> {
    if bytes.is_empty() {
        return Err(Reason::Empty);
    }
    if bytes.len() > limits.component_bytes {
        return Err(Reason::TooLarge { size: bytes.len(), size_max: limits.component_bytes });
    }
    if Engine::detect_precompiled(bytes).is_some() {
        return Err(Reason::Precompiled);
    }
    match bytes.strip_prefix(WASM_MAGIC) {
        Some(rest) if rest.starts_with(CORE_VERSION) => Err(Reason::CoreModule),
        Some(_) => Ok(()),
        None if WASM_MAGIC.starts_with(bytes) => Err(Reason::Truncated),
        None if is_text(bytes) => Err(Reason::Text),
        None => Err(Reason::Foreign(bytes.iter().copied().take(8).collect())),
    }
}

fn is_text(bytes: &[u8]) -> bool {
    let start = bytes.get(..512).unwrap_or(bytes);
    // A cut may go through a character: only its first bytes are wrong then, at the very end.
    let valid = match std::str::from_utf8(start) {
        Ok(_) => true,
        Err(err) => err.error_len().is_none(),
    };
    valid && !start.iter().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace())
}

pub(crate) fn chain(err: &wasmtime::Error) -> String {
    err.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Whether the component exports what the world does, in a version known here.
pub(crate) fn check_exports(
    engine: &Engine,
    component: &Component,
    world: &'static str,
    interfaces: &[&str],
) -> Result<(), Reason> {
    let kind = component.component_type();
    let exports: Vec<String> = kind.exports(engine).map(|(name, _)| name.to_owned()).collect();
    for interface in interfaces {
        let versions = exports.iter().filter_map(|export| export.strip_prefix(interface)?.strip_prefix('@'));
        let versions: Vec<&str> = versions.collect();
        if versions.iter().any(|version| line(version) == line(VERSION)) {
            continue;
        }
        return Err(match versions.first() {
            Some(found) => Reason::OtherVersion {
                found: format!("{interface}@{found}"),
                known: format!("{interface}@{VERSION}"),
                newer: line(found) > line(VERSION),
            },
            None => {
                let needed = interfaces.iter().map(|interface| format!("{interface}@{VERSION}")).collect();
                Reason::OtherWorld { world, exports, needed }
            }
        });
    }
    Ok(())
}

/// The part of a version within which all versions fit each other: 1 of 1.2.3, 0.1 of 0.1.2.
fn line(version: &str) -> [u64; 3] {
    let mut numbers = version.split(['.', '-', '+']).map(|number| number.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    match [next(), next(), next()] {
        [0, 0, patch] => [0, 0, patch],
        [0, minor, _] => [0, minor, 0],
        [major, ..] => [major, 0, 0],
    }
}

/// Whether there is nothing among the imports that a plugin which only computes can't have.
fn check_imports(engine: &Engine, component: &Component, world: &'static str) -> Result<(), Reason> {
    component.component_type().imports(engine).try_for_each(|(import, _)| check_import(import, world))
}

/// Whether a plugin that only computes can have an import.
pub(crate) fn check_import(import: &str, world: &'static str) -> Result<(), Reason> {
    if import.starts_with("wasi:http/") {
        return Err(Reason::Network { world, import: import.to_owned() });
    }
    if !inert::is_linked(import) {
        return Err(Reason::UnknownImport(import.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_one_line_fit_each_other() {
        assert_eq!(line("0.1.0"), line("0.1.7"));
        assert_ne!(line("0.1.0"), line("0.2.0"));
        assert_ne!(line("0.0.1"), line("0.0.2"));
        assert_eq!(line("1.0.0"), line("1.9.3"));
        assert!(line("1.0.0") > line("0.9.0"));
    }
}
