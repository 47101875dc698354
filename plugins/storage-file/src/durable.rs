//! Files that outlast a power cut.
//!
//! They are written by the system's own call, a whole object at once. The standard library writes to a stream, in pieces,
//! and of a stream only that it failed is known: a full disk would be any error.

use std::io;
use std::path::Path;

use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{DescriptorFlags, ErrorCode, OpenFlags, PathFlags};

/// Writes a file that is not there yet, and syncs it.
pub(crate) fn write(path: &Path, body: &[u8]) -> io::Result<()> {
    let lent = get_directories();
    let (root, _) = lent.first().ok_or_else(|| io::Error::other("no folder is lent"))?;
    let path = path.to_str().ok_or(io::ErrorKind::InvalidFilename)?.trim_start_matches('/');
    let new = OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
    let file = root.open_at(PathFlags::empty(), path, new, DescriptorFlags::WRITE).map_err(error)?;
    let mut at = 0;
    while at < body.len() {
        let rest = body.get(at..).unwrap_or_default();
        let written = file.write(rest, at as u64).map_err(error)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        at += usize::try_from(written).unwrap_or(usize::MAX);
    }
    file.sync().map_err(error)
}

fn error(code: ErrorCode) -> io::Error {
    let kind = match code {
        ErrorCode::NoEntry => io::ErrorKind::NotFound,
        ErrorCode::Exist => io::ErrorKind::AlreadyExists,
        ErrorCode::Access | ErrorCode::NotPermitted => io::ErrorKind::PermissionDenied,
        ErrorCode::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
        ErrorCode::InsufficientSpace => io::ErrorKind::StorageFull,
        ErrorCode::Quota => io::ErrorKind::QuotaExceeded,
        ErrorCode::NotDirectory => io::ErrorKind::NotADirectory,
        ErrorCode::Busy => io::ErrorKind::ResourceBusy,
        ErrorCode::Interrupted => io::ErrorKind::Interrupted,
        other => return io::Error::other(other.message().to_owned()),
    };
    kind.into()
}
