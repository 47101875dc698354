//! A look at a database from outside: no lock on writers, no file made, nothing left behind.

use rusqlite::{Connection, OpenFlags};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

/// How long a look waits for a database that is locked even for readers.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens a database that is only read.
///
/// Opening one in WAL mode that nobody has open makes its `-wal` and `-shm`, which a reader can't remove; they would
/// be ours, and the application might not be allowed to write them. Taken as immutable, it is just read.
///
/// # Errors
/// When there is none, or it can't be read.
pub fn look(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = if wal_mode_at_rest(path) {
        Connection::open_with_flags(immutable(path), flags | OpenFlags::SQLITE_OPEN_URI)?
    } else {
        Connection::open_with_flags(path, flags)?
    };
    db.busy_timeout(BUSY_TIMEOUT)?;
    Ok(db)
}

/// The file says WAL, and there is no `-wal` beside it.
pub(super) fn wal_mode_at_rest(path: &Path) -> bool {
    let mut header = [0; 20];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    let mut wal = OsString::from(path);
    wal.push("-wal");
    read.is_ok() && header.ends_with(&[2, 2]) && !Path::new(&wal).exists()
}

/// The path as SQLite's address of a file that nobody changes.
fn immutable(path: &Path) -> String {
    let mut address = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            address.push(byte.into());
        } else {
            let _ = write!(address, "%{byte:02x}");
        }
    }
    // Two slashes would begin a host; an empty host in front says that they begin the path.
    if let Some(rest) = address.strip_prefix("file://") {
        address = format!("file:////{rest}");
    }
    address.push_str("?immutable=1");
    address
}
