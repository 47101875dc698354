//! Objects as files on the server.
//!
//! An object is written beside its place under a name with a `~`, which no object's name has, synced if the server can,
//! and then moved there. So it is seen whole or not at all, where the server has a rename that replaces.

use std::hash::{BuildHasher as _, RandomState};

use crate::client::{Answer, Client, Flight, Handle};
use crate::fault::{Fault, code};
use crate::packet::{Attributes, Packet, Sort, flags, kind};

/// The largest object.
pub(crate) const OBJECT_BYTES_MAX: u64 = 32 << 20;

/// How often a folder may be removed, empty, between being made and being written to.
const TRIES: u32 = 8;

const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// The folder that a path is in.
pub(crate) fn above(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((above, _)) => above,
        None => ".",
    }
}

/// A name in a folder that nothing else has.
pub(crate) fn beside(folder: &str) -> String {
    // Each of these has a seed of its own, from the host's randomness.
    let (one, two) = (RandomState::new().hash_one(0), RandomState::new().hash_one(1));
    format!("{}/~{one:016x}{two:016x}", folder.trim_end_matches('/'))
}

/// What stands under a name itself: a link is a link.
pub(crate) fn look(client: &mut Client, path: &str) -> Result<Attributes, Fault> {
    client.attributes(kind::LSTAT, |packet| packet.text(path))
}

/// The object under a name: its size, and when it was written.
pub(crate) fn stat(client: &mut Client, path: &str) -> Result<(u64, Option<u64>), Fault> {
    let known = look(client, path)?;
    match (known.sort(), known.size) {
        (Sort::File | Sort::Unsaid, Some(size)) => Ok((size, known.modified.map(|seconds| u64::from(seconds) * 1000))),
        (Sort::File | Sort::Unsaid, None) => Err(Fault::nonsense("a file without a size")),
        _ => Err(Fault::status(code::NO_SUCH_FILE, b"")),
    }
}

/// Makes a folder, and those above it.
pub(crate) fn make(client: &mut Client, folder: &str) -> Result<(), Fault> {
    match client.tell(kind::MKDIR, |packet| packet.text(folder).mode(FOLDER_MODE)) {
        Err(fault) if fault.is(code::NO_SUCH_FILE) && above(folder) != folder => {
            make(client, above(folder))?;
            match client.tell(kind::MKDIR, |packet| packet.text(folder).mode(FOLDER_MODE)) {
                Err(fault) if !fault.ends_it() => is_there(client, folder, fault),
                made => made,
            }
        }
        Err(fault) if !fault.ends_it() => is_there(client, folder, fault),
        made => made,
    }
}

/// That it could not be made is fine if it is there. What a link leads to counts.
fn is_there(client: &mut Client, folder: &str, fault: Fault) -> Result<(), Fault> {
    match client.attributes(kind::STAT, |packet| packet.text(folder)) {
        Ok(found) if matches!(found.sort(), Sort::Folder | Sort::Unsaid) => Ok(()),
        Err(other) if other.ends_it() => Err(other),
        _ => Err(fault),
    }
}

/// Puts an object, whole.
pub(crate) fn put(client: &mut Client, path: &str, body: &[u8], if_absent: bool) -> Result<(), Fault> {
    if if_absent {
        // What is there need not be sent first.
        match look(client, path) {
            Ok(_) => return Err(Fault::status(code::EXISTS, b"")),
            Err(fault) if fault.ends_it() => return Err(fault),
            Err(_) => {}
        }
    }
    let folder = above(path);
    let mut tries = 0;
    loop {
        let aside = beside(folder);
        let put = write(client, &aside, body).and_then(|()| {
            let placed = if if_absent { place(client, &aside, path) } else { replace(client, &aside, path) };
            if let Err(fault) = &placed
                && !fault.ends_it()
            {
                let _ = remove(client, &aside);
            }
            placed
        });
        match put {
            // There is no such folder, or who removed the last object of it removed it.
            Err(fault) if fault.is(code::NO_SUCH_FILE) && tries < TRIES => {
                tries += 1;
                make(client, folder)?;
            }
            put => return put,
        }
    }
}

/// Writes a file that is not there yet.
pub(crate) fn write(client: &mut Client, path: &str, body: &[u8]) -> Result<(), Fault> {
    let flags = flags::WRITE | flags::CREATE | flags::EXCLUSIVE;
    let file = client.handle(kind::OPEN, |packet| packet.text(path).number(flags).mode(FILE_MODE))?;
    let mut writing = Writing { file: &file, rest: body, at: 0, piece: client.write_bytes };
    let written = client.fly(&mut writing);
    let written = written.and_then(|()| {
        if client.extensions.fsync {
            client.tell(kind::EXTENDED, |packet| packet.text("fsync@openssh.com").bytes(&file.0))?;
        }
        Ok(())
    });
    match written {
        Err(fault) if fault.ends_it() => Err(fault),
        // Some servers write only now.
        Ok(()) => client.close(&file),
        Err(fault) => {
            let _ = client.close(&file);
            let fault = why_unwritten(client, path, body.len() as u64, fault);
            let _ = remove(client, path);
            Err(fault)
        }
    }
}

/// A full disk is only a failure to most servers, and some can be asked.
fn why_unwritten(client: &mut Client, path: &str, bytes: u64, fault: Fault) -> Fault {
    if !fault.is(code::FAILURE) || !client.extensions.statvfs {
        return fault;
    }
    let asked = client.ask(
        kind::EXTENDED,
        |packet| packet.text("statvfs@openssh.com").text(above(path)),
        |answer| {
            let mut rest = answer.of(kind::EXTENDED_REPLY)?;
            let (_, unit, _, _, free) = (rest.long()?, rest.long()?, rest.long()?, rest.long()?, rest.long()?);
            Ok(unit.saturating_mul(free))
        },
    );
    match asked {
        Ok(free) if free < bytes => Fault::status(code::NO_SPACE, format!("{free} bytes are free").as_bytes()),
        _ => fault,
    }
}

/// Moves a file to a name that nothing has. Of two at once one does.
fn place(client: &mut Client, aside: &str, path: &str) -> Result<(), Fault> {
    let mut placed = Err(Fault::status(code::UNSUPPORTED, b""));
    if client.extensions.hardlink {
        // A link fails if the name is taken.
        placed = client.tell(kind::EXTENDED, |packet| packet.text("hardlink@openssh.com").text(aside).text(path));
        if placed.is_ok() {
            return remove(client, aside);
        }
    }
    // Some disks have no links; a rename of this version fails as well if the name is taken.
    if placed.as_ref().is_err_and(|fault| fault.is(code::UNSUPPORTED) || fault.is(code::FAILURE)) {
        placed = match look(client, path) {
            Ok(_) => Err(Fault::status(code::EXISTS, b"")),
            Err(fault) if fault.ends_it() => Err(fault),
            Err(_) => client.tell(kind::RENAME, |packet| packet.text(aside).text(path)),
        };
    }
    match placed {
        // It does not say that it is because of this.
        Err(fault) if fault.is(code::FAILURE) && look(client, path).is_ok() => Err(Fault::status(code::EXISTS, b"")),
        placed => placed,
    }
}

/// Moves a file to a name, whatever has it.
fn replace(client: &mut Client, aside: &str, path: &str) -> Result<(), Fault> {
    if client.extensions.posix_rename {
        return client.tell(kind::EXTENDED, |packet| packet.text("posix-rename@openssh.com").text(aside).text(path));
    }
    let mut tries = 0;
    loop {
        match client.tell(kind::RENAME, |packet| packet.text(aside).text(path)) {
            // For a moment there is neither of the two.
            Err(fault) if (fault.is(code::FAILURE) || fault.is(code::EXISTS)) && tries < TRIES => {
                tries += 1;
                match remove(client, path) {
                    Err(other) if other.ends_it() => return Err(other),
                    Err(other) if !other.is(code::NO_SUCH_FILE) => return Err(fault),
                    _ => {}
                }
            }
            renamed => return renamed,
        }
    }
}

pub(crate) fn remove(client: &mut Client, path: &str) -> Result<(), Fault> {
    client.tell(kind::REMOVE, |packet| packet.text(path))
}

/// Reads a part of an object.
pub(crate) fn get(client: &mut Client, path: &str, offset: u64, length: Option<u64>) -> Result<Vec<u8>, Fault> {
    let file = client.handle(kind::OPEN, |packet| packet.text(path).number(flags::READ).number(0))?;
    let read = read(client, &file, offset, length);
    if read.as_ref().is_err_and(Fault::ends_it) {
        return read;
    }
    // All of it is here, whatever becomes of the handle.
    match client.close(&file) {
        Err(fault) if fault.ends_it() => Err(fault),
        _ => read,
    }
}

fn read(client: &mut Client, file: &Handle, offset: u64, length: Option<u64>) -> Result<Vec<u8>, Fault> {
    // Of the file that is open: another may have its name by now.
    let known = client.attributes(kind::FSTAT, |packet| packet.bytes(&file.0))?;
    if !matches!(known.sort(), Sort::File | Sort::Unsaid) {
        return Err(Fault::status(code::NO_SUCH_FILE, b""));
    }
    let size = known.size.ok_or_else(|| Fault::nonsense("a file without a size"))?;
    let left = size.saturating_sub(offset);
    let wanted = length.unwrap_or(left).min(left);
    if wanted > OBJECT_BYTES_MAX {
        return Err(Fault::nonsense(format!("a file of {size} bytes, and no object has more than {OBJECT_BYTES_MAX}")));
    }
    let wanted = usize::try_from(wanted).unwrap_or_default();
    let body = vec![0; wanted];
    let mut reading = Reading { file, offset, body, next: 0, piece: client.read_bytes, again: Vec::new() };
    client.fly(&mut reading)?;
    Ok(reading.body)
}

/// A file that is being written.
struct Writing<'a> {
    file: &'a Handle,
    rest: &'a [u8],
    at: u64,
    piece: usize,
}

impl Flight for Writing<'_> {
    type Tag = ();

    fn request(&mut self, number: u32, out: &mut Vec<u8>) -> Option<()> {
        let (piece, rest) = self.rest.split_at(self.rest.len().min(self.piece));
        if piece.is_empty() {
            return None;
        }
        Packet::begin(out, kind::WRITE).number(number).bytes(&self.file.0).long(self.at).bytes(piece).end();
        self.at += piece.len() as u64;
        self.rest = rest;
        Some(())
    }

    fn answer(&mut self, (): (), answer: Answer<'_>) -> Result<(), Fault> {
        answer.done()
    }
}

/// A file that is being read.
struct Reading<'a> {
    file: &'a Handle,
    offset: u64,
    body: Vec<u8>,
    next: usize,
    piece: usize,
    /// What a short answer left out: where it begins and ends.
    again: Vec<(usize, usize)>,
}

impl Flight for Reading<'_> {
    type Tag = (usize, usize);

    fn request(&mut self, number: u32, out: &mut Vec<u8>) -> Option<(usize, usize)> {
        let (begin, end) = self.again.pop().or_else(|| {
            let begin = self.next;
            self.next = self.body.len().min(begin.saturating_add(self.piece));
            (begin < self.next).then_some((begin, self.next))
        })?;
        let length = u32::try_from(end - begin).unwrap_or(u32::MAX);
        let at = self.offset.saturating_add(begin as u64);
        Packet::begin(out, kind::READ).number(number).bytes(&self.file.0).long(at).number(length).end();
        Some((begin, end))
    }

    fn answer(&mut self, (begin, end): (usize, usize), answer: Answer<'_>) -> Result<(), Fault> {
        let mut rest = match answer.of(kind::DATA) {
            Err(fault) if fault.is(code::EOF) => return Err(Fault::status(code::FAILURE, b"the file got shorter")),
            rest => rest?,
        };
        let bytes = rest.bytes()?;
        let place = self.body.get_mut(begin..end).and_then(|place| place.get_mut(..bytes.len()));
        let place = place.filter(|place| !place.is_empty()).ok_or_else(|| {
            Fault::nonsense(format!("{} bytes where up to {} were asked for", bytes.len(), end - begin))
        })?;
        place.copy_from_slice(bytes);
        if begin + bytes.len() < end {
            self.again.push((begin + bytes.len(), end));
        }
        Ok(())
    }
}

/// Files that are being removed.
pub(crate) struct Removing<'a> {
    pub(crate) paths: std::slice::Iter<'a, String>,
    /// Those that were there.
    pub(crate) removed: Vec<&'a str>,
}

impl<'a> Flight for Removing<'a> {
    type Tag = &'a str;

    fn request(&mut self, number: u32, out: &mut Vec<u8>) -> Option<&'a str> {
        let path = self.paths.next()?;
        Packet::begin(out, kind::REMOVE).number(number).text(path).end();
        Some(path)
    }

    fn answer(&mut self, path: &'a str, answer: Answer<'_>) -> Result<(), Fault> {
        match answer.done() {
            Ok(()) => self.removed.push(path),
            Err(fault) if fault.is(code::NO_SUCH_FILE) => {}
            Err(fault) => return Err(fault),
        }
        Ok(())
    }
}
