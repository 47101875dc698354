//! Requests and answers, many of them on their way at once.

use crate::bindings::antiphon::plugin::ssh_channel::Channel;
use crate::fault::{Fault, code};
use crate::packet::{Attributes, PACKET_BYTES_MAX, Packet, Rest, kind};

/// How many requests wait for their answers at most.
const IN_FLIGHT_MAX: usize = 64;
/// So many bytes are collected before they are sent.
const SEND_BYTES: usize = 256 << 10;
/// The most bytes that one request reads or writes. Every server takes as many as the first.
const PIECE_BYTES: u64 = 32 << 10;
const PIECE_BYTES_MAX: u64 = 128 << 10;

/// What a server can do besides.
#[derive(Default)]
pub(crate) struct Extensions {
    pub(crate) posix_rename: bool,
    pub(crate) hardlink: bool,
    pub(crate) fsync: bool,
    pub(crate) statvfs: bool,
    limits: bool,
}

/// An answer.
pub(crate) struct Answer<'a> {
    pub(crate) kind: u8,
    pub(crate) rest: Rest<'a>,
}

impl<'a> Answer<'a> {
    /// What an answer of this kind holds.
    pub(crate) fn of(mut self, wanted: u8) -> Result<Rest<'a>, Fault> {
        if self.kind == wanted {
            return Ok(self.rest);
        }
        if self.kind != kind::STATUS {
            return Err(Fault::nonsense(format!("an answer of kind {} where {wanted} was asked for", self.kind)));
        }
        let code = self.rest.number()?;
        if code == code::OK {
            return Err(Fault::nonsense(format!("a mere yes where an answer of kind {wanted} was asked for")));
        }
        // Old servers say no more than that.
        Err(Fault::status(code, self.rest.bytes().unwrap_or_default()))
    }

    /// Whether the server did it.
    pub(crate) fn done(mut self) -> Result<(), Fault> {
        if self.kind != kind::STATUS {
            return Err(Fault::nonsense(format!("an answer of kind {} where none was asked for", self.kind)));
        }
        match self.rest.number()? {
            code::OK => Ok(()),
            code => Err(Fault::status(code, self.rest.bytes().unwrap_or_default())),
        }
    }
}

/// Work of many requests.
pub(crate) trait Flight {
    /// What is remembered of a request until its answer comes.
    type Tag;

    /// Writes the next request, which has this number. None: there is none at the moment, and nothing was written.
    fn request(&mut self, number: u32, out: &mut Vec<u8>) -> Option<Self::Tag>;

    /// Takes an answer.
    fn answer(&mut self, tag: Self::Tag, answer: Answer<'_>) -> Result<(), Fault>;
}

/// A conversation with a server.
pub(crate) struct Client {
    channel: Channel,
    /// What is to be sent.
    out: Vec<u8>,
    /// What came, of which so many bytes were taken.
    came: Vec<u8>,
    taken: usize,
    last: u32,
    pub(crate) extensions: Extensions,
    /// The most bytes of one read, and of one write.
    pub(crate) read_bytes: usize,
    pub(crate) write_bytes: usize,
}

/// A handle of an open file or folder.
#[derive(Clone)]
pub(crate) struct Handle(pub(crate) Vec<u8>);

impl Client {
    /// Opens a channel, and agrees on the version.
    pub(crate) fn open() -> Result<Self, Fault> {
        let channel = Channel::open().map_err(Fault::Broken)?;
        let piece = usize::try_from(PIECE_BYTES).unwrap_or_default();
        let mut client = Self {
            channel,
            out: Vec::new(),
            came: Vec::new(),
            taken: 0,
            last: 0,
            extensions: Extensions::default(),
            read_bytes: piece,
            write_bytes: piece,
        };
        Packet::begin(&mut client.out, kind::INIT).number(3).end();
        client.flush()?;
        let (begin, end) = client.receive()?;
        let mut rest = Rest(client.came.get(begin..end).unwrap_or_default());
        if rest.byte()? != kind::VERSION {
            return Err(Fault::nonsense("it does not begin with its version"));
        }
        let version = rest.number()?;
        if version < 3 {
            return Err(Fault::nonsense(format!("its version is {version}, and 3 is needed")));
        }
        let mut extensions = Extensions::default();
        while !rest.is_empty() {
            let (name, version) = (rest.bytes()?, rest.bytes()?);
            match (name, version) {
                (b"posix-rename@openssh.com", b"1") => extensions.posix_rename = true,
                (b"hardlink@openssh.com", b"1") => extensions.hardlink = true,
                (b"fsync@openssh.com", b"1") => extensions.fsync = true,
                (b"statvfs@openssh.com", b"2") => extensions.statvfs = true,
                (b"limits@openssh.com", b"1") => extensions.limits = true,
                _ => {}
            }
        }
        client.extensions = extensions;
        client.learn_limits()?;
        Ok(client)
    }

    fn learn_limits(&mut self) -> Result<(), Fault> {
        if !self.extensions.limits {
            return Ok(());
        }
        let asked = self.ask(
            kind::EXTENDED,
            |packet| packet.text("limits@openssh.com"),
            |answer| {
                let mut rest = answer.of(kind::EXTENDED_REPLY)?;
                rest.long()?;
                Ok((rest.long()?, rest.long()?))
            },
        );
        let (read, write) = match asked {
            Err(fault) if !fault.ends_it() => return Ok(()),
            asked => asked?,
        };
        // Nothing is no limit, and less than the usual is none either.
        let within = |said: u64| usize::try_from(said.clamp(PIECE_BYTES, PIECE_BYTES_MAX)).unwrap_or_default();
        (self.read_bytes, self.write_bytes) = (within(read), within(write));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Fault> {
        if self.out.is_empty() {
            return Ok(());
        }
        let sent = self.channel.write(&self.out).map_err(Fault::Broken);
        self.out.clear();
        sent
    }

    /// Waits for a packet, and says where it lies in what came.
    fn receive(&mut self) -> Result<(usize, usize), Fault> {
        loop {
            let waiting = self.came.get(self.taken..).unwrap_or_default();
            if let Some(length) = waiting.first_chunk::<4>() {
                let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                if length == 0 || length > PACKET_BYTES_MAX {
                    return Err(Fault::nonsense(format!("a packet of {length} bytes")));
                }
                if waiting.len() >= 4 + length {
                    let begin = self.taken + 4;
                    self.taken = begin + length;
                    return Ok((begin, self.taken));
                }
            }
            let more = self.channel.read(u32::try_from(SEND_BYTES).unwrap_or(u32::MAX)).map_err(Fault::Broken)?;
            if more.is_empty() {
                return Err(Fault::Broken(crate::temporary(
                    "lost the connection to the server: it closed the channel",
                )));
            }
            if waiting.is_empty() {
                self.came = more;
            } else {
                self.came.drain(..self.taken);
                self.came.extend_from_slice(&more);
            }
            self.taken = 0;
        }
    }

    /// One request, and its answer.
    pub(crate) fn ask<R>(
        &mut self,
        kind: u8,
        request: impl FnOnce(Packet<'_>) -> Packet<'_>,
        read: impl FnOnce(Answer<'_>) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        self.last = self.last.wrapping_add(1);
        request(Packet::begin(&mut self.out, kind).number(self.last)).end();
        self.flush()?;
        let (begin, end) = self.receive()?;
        let mut rest = Rest(self.came.get(begin..end).unwrap_or_default());
        let kind = rest.byte()?;
        if rest.number()? != self.last {
            return Err(Fault::nonsense("an answer to what was not asked"));
        }
        read(Answer { kind, rest })
    }

    /// Many requests. The first that fails ends it, once all answers are in.
    pub(crate) fn fly<F: Flight>(&mut self, flight: &mut F) -> Result<(), Fault> {
        let mut waiting: Vec<(u32, F::Tag)> = Vec::with_capacity(IN_FLIGHT_MAX);
        let mut failed = None;
        loop {
            while failed.is_none() && waiting.len() < IN_FLIGHT_MAX {
                let id = self.last.wrapping_add(1);
                let Some(tag) = flight.request(id, &mut self.out) else { break };
                self.last = id;
                waiting.push((id, tag));
                if self.out.len() >= SEND_BYTES {
                    self.flush()?;
                }
            }
            self.flush()?;
            if waiting.is_empty() {
                return failed.map_or(Ok(()), Err);
            }
            // Half of them, so that the next ones go in one piece, and the server is never without.
            let enough = if failed.is_some() { 0 } else { waiting.len() / 2 };
            while waiting.len() > enough {
                let (begin, end) = self.receive()?;
                let mut rest = Rest(self.came.get(begin..end).unwrap_or_default());
                let (kind, id) = (rest.byte()?, rest.number()?);
                let at = waiting.iter().position(|(asked, _)| *asked == id);
                let (_, tag) = at
                    .map(|at| waiting.swap_remove(at))
                    .ok_or_else(|| Fault::nonsense("an answer to what was not asked"))?;
                match flight.answer(tag, Answer { kind, rest }) {
                    Err(fault) if fault.ends_it() => return Err(fault),
                    Err(fault) => failed = failed.or(Some(fault)),
                    Ok(()) => {}
                }
            }
        }
    }

    /// A request that is answered with yes or no.
    pub(crate) fn tell(&mut self, kind: u8, request: impl FnOnce(Packet<'_>) -> Packet<'_>) -> Result<(), Fault> {
        self.ask(kind, request, |answer| answer.done())
    }

    /// A request that opens something.
    pub(crate) fn handle(&mut self, kind: u8, request: impl FnOnce(Packet<'_>) -> Packet<'_>) -> Result<Handle, Fault> {
        self.ask(kind, request, |answer| Ok(Handle(answer.of(kind::HANDLE)?.bytes()?.to_vec())))
    }

    /// A request for what is known of a file.
    pub(crate) fn attributes(
        &mut self,
        kind: u8,
        request: impl FnOnce(Packet<'_>) -> Packet<'_>,
    ) -> Result<Attributes, Fault> {
        self.ask(kind, request, |answer| answer.of(kind::ATTRS)?.attributes())
    }

    pub(crate) fn close(&mut self, handle: &Handle) -> Result<(), Fault> {
        self.tell(kind::CLOSE, |packet| packet.bytes(&handle.0))
    }
}
