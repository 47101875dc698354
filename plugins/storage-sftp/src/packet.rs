//! The packets of SFTP, version 3: what they are made of, and no more of one believed than it holds.

use crate::fault::Fault;

/// The longest packet that is taken. An answer to a read has the bytes and little more; a listing may be long.
pub(crate) const PACKET_BYTES_MAX: usize = 512 << 10;

/// What a packet is.
pub(crate) mod kind {
    pub(crate) const INIT: u8 = 1;
    pub(crate) const VERSION: u8 = 2;
    pub(crate) const OPEN: u8 = 3;
    pub(crate) const CLOSE: u8 = 4;
    pub(crate) const READ: u8 = 5;
    pub(crate) const WRITE: u8 = 6;
    pub(crate) const LSTAT: u8 = 7;
    pub(crate) const FSTAT: u8 = 8;
    pub(crate) const OPENDIR: u8 = 11;
    pub(crate) const READDIR: u8 = 12;
    pub(crate) const REMOVE: u8 = 13;
    pub(crate) const MKDIR: u8 = 14;
    pub(crate) const RMDIR: u8 = 15;
    pub(crate) const STAT: u8 = 17;
    pub(crate) const RENAME: u8 = 18;
    pub(crate) const STATUS: u8 = 101;
    pub(crate) const HANDLE: u8 = 102;
    pub(crate) const DATA: u8 = 103;
    pub(crate) const NAME: u8 = 104;
    pub(crate) const ATTRS: u8 = 105;
    pub(crate) const EXTENDED: u8 = 200;
    pub(crate) const EXTENDED_REPLY: u8 = 201;
}

/// How a file is opened.
pub(crate) mod flags {
    pub(crate) const READ: u32 = 1;
    pub(crate) const WRITE: u32 = 2;
    pub(crate) const CREATE: u32 = 8;
    pub(crate) const EXCLUSIVE: u32 = 32;
}

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;

/// A packet that is being written, behind others.
pub(crate) struct Packet<'a> {
    out: &'a mut Vec<u8>,
    begin: usize,
}

impl<'a> Packet<'a> {
    pub(crate) fn begin(out: &'a mut Vec<u8>, kind: u8) -> Self {
        let begin = out.len();
        out.extend([0, 0, 0, 0, kind]);
        Self { out, begin }
    }

    pub(crate) fn number(self, number: u32) -> Self {
        self.out.extend(number.to_be_bytes());
        self
    }

    pub(crate) fn long(self, number: u64) -> Self {
        self.out.extend(number.to_be_bytes());
        self
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        let packet = self.number(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        packet.out.extend_from_slice(bytes);
        packet
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// The mode of a file that is made, and nothing else of it.
    pub(crate) fn mode(self, mode: u32) -> Self {
        self.number(PERMISSIONS).number(mode)
    }

    /// Says how long it is.
    pub(crate) fn end(self) {
        let length = u32::try_from(self.out.len() - self.begin - 4).unwrap_or(u32::MAX);
        if let Some(place) = self.out.get_mut(self.begin..self.begin + 4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }
}

/// What is left of a packet that came.
pub(crate) struct Rest<'a>(pub(crate) &'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or_else(|| Fault::nonsense("a packet ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    pub(crate) fn number(&mut self) -> Result<u32, Fault> {
        Ok(self.take(4)?.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    pub(crate) fn long(&mut self) -> Result<u64, Fault> {
        Ok(self.take(8)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.number()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn attributes(&mut self) -> Result<Attributes, Fault> {
        let said = self.number()?;
        let mut found = Attributes::default();
        if said & SIZE != 0 {
            found.size = Some(self.long()?);
        }
        if said & OWNER != 0 {
            self.take(8)?;
        }
        if said & PERMISSIONS != 0 {
            found.permissions = Some(self.number()?);
        }
        if said & TIMES != 0 {
            self.take(4)?;
            found.modified = Some(self.number()?);
        }
        if said & EXTENDED != 0 {
            // As many as it likes, as long as the packet holds them.
            for _ in 0..self.number()? {
                self.bytes()?;
                self.bytes()?;
            }
        }
        Ok(found)
    }
}

/// What a server says of a file.
#[derive(Clone, Copy, Default)]
pub(crate) struct Attributes {
    pub(crate) size: Option<u64>,
    pub(crate) permissions: Option<u32>,
    /// In seconds since 1970.
    pub(crate) modified: Option<u32>,
}

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    File,
    Folder,
    /// A link, a device, or whatever else.
    Other,
    /// The server does not say.
    Unsaid,
}

impl Attributes {
    pub(crate) fn sort(&self) -> Sort {
        match self.permissions.map(|mode| mode & 0o170_000) {
            Some(0o100_000) => Sort::File,
            Some(0o040_000) => Sort::Folder,
            Some(0) | None => Sort::Unsaid,
            Some(_) => Sort::Other,
        }
    }
}
