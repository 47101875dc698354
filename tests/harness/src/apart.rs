//! A test that runs where only it sees what it mounts, or which addresses it has.

use rustix::process::geteuid;
use std::path::PathBuf;
use std::process::Command;

/// Runs this test once more where this line of shell holds, and nowhere else: mounts that nobody else sees. A folder of
/// its own is `$1` in that line, is for what is made for a while, and is given in there. Outside nothing is given.
#[track_caller]
pub fn mounts_apart(prepare: &str) -> Option<PathBuf> {
    apart("--mount", prepare)
}

/// The same with a network of its own, in which only its processes are: loopback, and this address besides.
#[track_caller]
pub fn network_apart(address: &str) -> Option<PathBuf> {
    // Not everybody looks for programs where that one is.
    apart(
        "--net",
        &format!("export PATH=$PATH:/usr/sbin:/sbin && ip link set lo up && ip addr add {address}/32 dev lo"),
    )
}

#[track_caller]
fn apart(space: &str, prepare: &str) -> Option<PathBuf> {
    const INSIDE: &str = "ANTIPHON_TEST_APART";
    if let Some(folder) = std::env::var_os(INSIDE) {
        return Some(folder.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let test = std::thread::current().name().unwrap().to_owned();
    let run = format!("{prepare} && exec \"$2\" \"$3\" --exact --nocapture");
    // Root may do this, and has to stay the one that servers start as; everybody else needs a space of users for it.
    let as_whom: &[&str] = if is_root() { &[] } else { &["--user", "--map-current-user", "--keep-caps"] };
    let mut command = Command::new("unshare");
    command.args(as_whom).args([space, "sh", "-c", &run, "sh"]).arg(folder.path());
    command.arg(std::env::current_exe().unwrap()).arg(test);
    let ended = command.env(INSIDE, folder.path()).env("TMPDIR", folder.path()).output().unwrap();
    let said = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    // Where neither is allowed it fails: what isn't tried is not shown.
    assert!(ended.status.success(), "{}\n{}", said(&ended.stdout), said(&ended.stderr));
    assert!(said(&ended.stdout).contains("1 passed"), "{}", said(&ended.stdout));
    None
}

pub fn is_root() -> bool {
    geteuid().is_root()
}
