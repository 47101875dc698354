//! Whether HarmonyLite still runs on a database: a process of its name has the file open.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::failure::{Failure, Kind};
use crate::place::Place;

const NAME: &str = "harmonylite";

/// Refuses to go on while one does. Whose open files this user may not see is not found.
pub(super) fn refuse(place: &Place, shown: &str) -> Result<(), Failure> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Ok(()) };
    let found = processes.filter_map(|entry| {
        let entry = entry.ok()?;
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        (is_named(&entry.path()) && has_open(&entry.path(), place.file())).then_some(id)
    });
    let Some(id) = found.into_iter().next() else { return Ok(()) };
    Err(Failure::new(Kind::Busy, format!("HarmonyLite still runs on `{shown}`, as process {id}"))
        .hint("stop it, on every node, and see that nothing starts it again; then try again"))
}

/// By the name it was started under: a package may call its file otherwise.
fn is_named(process: &Path) -> bool {
    let started = std::fs::read(process.join("cmdline")).unwrap_or_default();
    let started = started.split(|&byte| byte == 0).next().unwrap_or_default();
    let file = std::fs::read_link(process.join("exe")).unwrap_or_default();
    let named = |path: &str| path.rsplit('/').next().is_some_and(|name| name.to_ascii_lowercase().contains(NAME));
    named(&String::from_utf8_lossy(started)) || named(&file.to_string_lossy())
}

fn has_open(process: &Path, file: (u64, u64)) -> bool {
    let Ok(open) = std::fs::read_dir(process.join("fd")) else { return false };
    open.flatten().any(|open| std::fs::metadata(open.path()).is_ok_and(|found| (found.dev(), found.ino()) == file))
}
