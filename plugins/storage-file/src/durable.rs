//! Files that outlast a power cut.
//!
//! They are written and read by the system's own calls, in pieces of 1 MiB. The standard library has a stream in between,
//! in smaller pieces, and of a stream only that it failed is known: a full disk would be any error.

use std::io;
use std::path::Path;

use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{DescriptorFlags, DescriptorType, ErrorCode, OpenFlags, PathFlags};

/// So much at once: the host has one buffer for it after the other, and each fits what a processor keeps at hand.
const PIECE: usize = 1 << 20;

/// Writes a file that is not there yet, and syncs it.
pub(crate) fn write(path: &Path, body: &[u8]) -> io::Result<()> {
    let lent = get_directories();
    let (root, _) = lent.first().ok_or_else(|| io::Error::other("no folder is lent"))?;
    let path = path.to_str().ok_or(io::ErrorKind::InvalidFilename)?.trim_start_matches('/');
    let new = OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
    let file = root.open_at(PathFlags::empty(), path, new, DescriptorFlags::WRITE).map_err(error)?;
    let mut at = 0;
    while at < body.len() {
        let rest = body.get(at..body.len().min(at + PIECE)).unwrap_or_default();
        let written = file.write(rest, at as u64).map_err(error)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        at += usize::try_from(written).unwrap_or(usize::MAX);
    }
    file.sync().map_err(error)
}

/// Reads a part of a file.
pub(crate) fn read(path: &Path, offset: u64, length: Option<u64>) -> io::Result<Vec<u8>> {
    let lent = get_directories();
    let (root, _) = lent.first().ok_or_else(|| io::Error::other("no folder is lent"))?;
    let path = path.to_str().ok_or(io::ErrorKind::InvalidFilename)?.trim_start_matches('/');
    // Opening a pipe would wait for whoever writes to it.
    let found = root.stat_at(PathFlags::SYMLINK_FOLLOW, path).map_err(error)?;
    if found.type_ != DescriptorType::RegularFile {
        return Err(io::ErrorKind::NotFound.into());
    }
    let file =
        root.open_at(PathFlags::SYMLINK_FOLLOW, path, OpenFlags::empty(), DescriptorFlags::READ).map_err(error)?;
    // Another may have the name by now.
    let known = file.stat().map_err(error)?;
    let left = known.size.saturating_sub(offset);
    let wanted = usize::try_from(length.unwrap_or(left).min(left)).unwrap_or(usize::MAX);
    let mut body = Vec::new();
    body.try_reserve_exact(wanted).map_err(|_| io::ErrorKind::OutOfMemory)?;
    while body.len() < wanted {
        let piece = (wanted - body.len()).min(PIECE) as u64;
        let (bytes, ended) = file.read(piece, offset + body.len() as u64).map_err(error)?;
        body.extend_from_slice(&bytes);
        if ended && bytes.is_empty() {
            break;
        }
    }
    body.truncate(wanted);
    Ok(body)
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
