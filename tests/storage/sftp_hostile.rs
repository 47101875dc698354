//! SFTP servers that mean harm, or know no better: each fails in words, in time, and reaches nothing.
//!
//! SSH is a real server's. What speaks for SFTP is a file that is sent whatever is asked; the numbers of requests are
//! known, for they are counted from 1.

use std::time::{Duration, Instant};

use antiphon_core::store::{ErrorKind, LIST_MAX, Put, Store as _, StoreError};
use antiphon_harness::Sshd;
use antiphon_plugin::Storage;

use super::name;
use super::sftp::store_of;

fn packet(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body: Vec<u8> = parts.concat();
    let length = u32::try_from(body.len() + 1).unwrap().to_be_bytes();
    [&length[..], &[kind], &body].concat()
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn number(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn version() -> Vec<u8> {
    packet(2, &[&number(3)])
}

fn handle(id: u32) -> Vec<u8> {
    packet(102, &[&number(id), &text(b"h")])
}

fn status(id: u32, code: u32) -> Vec<u8> {
    packet(101, &[&number(id), &number(code), &text(b"words"), &text(b"")])
}

/// A file's attributes: its size and mode.
fn attributes(size: u64, mode: u32) -> Vec<u8> {
    [&number(5)[..], &size.to_be_bytes(), &number(mode)].concat()
}

fn names(id: u32, names: &[&[u8]]) -> Vec<u8> {
    let mut listed = Vec::new();
    for name in names {
        listed.extend([text(name), text(b"long"), attributes(7, 0o100_600)].concat());
    }
    packet(104, &[&number(id), &number(u32::try_from(names.len()).unwrap()), &listed])
}

/// A server that says this, and then nothing more, for as long as it is listened to.
struct Hostile {
    sshd: Sshd,
    _folder: tempfile::TempDir,
}

impl Hostile {
    fn saying(parts: &[Vec<u8>]) -> Self {
        Self::running("cat", &parts.concat())
    }

    fn running(program: &str, said: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("said");
        std::fs::write(&file, said).unwrap();
        let sshd = Sshd::with(&format!("Subsystem sftp {program} {} && exec sleep 60", file.display()));
        Self { sshd, _folder: folder }
    }

    fn store(&self) -> Storage {
        let url = self.sshd.url("/objects".as_ref());
        let (key, known) = (self.sshd.own_key(), self.sshd.known_hosts());
        store_of(&format!("url = '{url}'\nkey_file = {key:?}\nknown_hosts = {known:?}")).component
    }
}

fn nonsense<R: std::fmt::Debug>(answer: Result<R, StoreError>, wanted: &str) {
    let error = answer.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent, "{error}");
    assert!(error.message.contains("is not SFTP") && error.message.contains(wanted), "{error}");
}

#[test]
fn what_does_not_begin_as_sftp_does() {
    for (said, wanted) in [
        (b"Welcome to this server!\r\n".to_vec(), "a packet of"),
        (vec![0; 64], "a packet of 0 bytes"),
        (vec![0xff; 64], "a packet of 4294967295 bytes"),
        (packet(2, &[&number(2)]), "its version is 2"),
        (packet(2, &[&[0]]), "ends too early"),
        (packet(101, &[&number(3)]), "does not begin with its version"),
        (packet(2, &[&number(3), &text(b"posix-rename@openssh.com")]), "ends too early"),
        (packet(2, &[&number(3), &number(u32::MAX)]), "ends too early"),
    ] {
        let server = Hostile::saying(&[said]);
        nonsense(server.store().check(), wanted);
    }
}

#[test]
fn answers_that_make_no_sense() {
    let opened = [version(), handle(1)].concat();
    let known = packet(105, &[&number(2), &attributes(100, 0o100_600)]);
    let huge = packet(105, &[&number(2), &attributes(u64::MAX, 0o100_600)]);
    let extended = packet(105, &[&number(2), &number(0x8000_0000), &number(u32::MAX)]);
    let data = |id: u32, bytes: usize| packet(103, &[&number(id), &text(&vec![0; bytes])]);
    for (said, wanted) in [
        (vec![version(), handle(9)], "an answer to what was not asked"),
        (vec![version(), status(1, 0)], "a mere yes"),
        (vec![version(), names(1, &[b"a"])], "an answer of kind 104"),
        (vec![version(), packet(102, &[&number(1), &number(u32::MAX)])], "ends too early"),
        (vec![version(), packet(102, &[])], "ends too early"),
        (vec![opened.clone(), huge], "no object has more"),
        (vec![opened.clone(), extended], "ends too early"),
        (vec![opened.clone(), packet(105, &[&number(2), &number(4), &number(0o100_600)])], "without a size"),
        (vec![opened.clone(), known.clone(), data(3, 101)], "101 bytes where up to 100"),
        (vec![opened.clone(), known.clone(), data(3, 0)], "0 bytes where up to 100"),
        (vec![opened.clone(), known.clone(), data(4, 100)], "an answer to what was not asked"),
        (vec![opened.clone(), known.clone(), data(3, 400 << 10)], "bytes where up to 100"),
        (vec![opened.clone(), known.clone(), number(u32::MAX).to_vec()], "a packet of 4294967295 bytes"),
    ] {
        let server = Hostile::saying(&said);
        nonsense(server.store().get(&name("a"), None), wanted);
    }
    // One that is cut short is one that may work later.
    let server = Hostile::saying(&[opened, known, status(3, 1)]);
    assert_eq!(server.store().get(&name("a"), None).unwrap_err().kind, ErrorKind::Temporary);
}

/// Names that lead elsewhere, or are none, are no objects; no second folder is ever asked for because of them.
#[test]
fn t13_names_that_a_server_makes_up() {
    let bad: [&[u8]; 12] = [
        b".",
        b"..",
        b"../x",
        b"/etc/passwd",
        b"a/b",
        b"a\0b",
        b"",
        b"\xff\xfe",
        b"a b",
        b"~x",
        b"a\nb",
        "ａ".as_bytes(),
    ];
    let first = names(2, &bad);
    let second = names(3, &[b"good", b"good", &[b'x'; 401]]);
    let ends = (4..12).flat_map(|id| status(id, 1)).collect();
    let server = Hostile::saying(&[version(), handle(1), first, second, ends]);
    let listed = server.store().list("", None, LIST_MAX).unwrap();
    let listed: Vec<_> = listed.into_iter().map(|object| (object.name.as_str().to_owned(), object.size)).collect();
    assert_eq!(listed, [("good".to_owned(), 7)]);
}

#[test]
fn t16_a_listing_without_end() {
    let many: Vec<Vec<u8>> = (0..400).map(|at| format!("{at:0200}").into_bytes()).collect();
    let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    let parts = (2..800).map(|id| names(id, &many));
    let server = Hostile::saying(&[vec![version(), handle(1)], parts.collect()].concat());
    let store = server.store();
    let begun = Instant::now();
    nonsense(store.list("", None, LIST_MAX), "a folder without end");
    assert!(begun.elapsed() < Duration::from_secs(25) && store.memory_peak() < 128 << 20);
    // A count that its packet does not hold.
    let counted = packet(104, &[&number(2), &number(u32::MAX)]);
    let server = Hostile::saying(&[version(), handle(1), counted]);
    nonsense(server.store().list("", None, LIST_MAX), "ends too early");
}

#[test]
fn t03_one_that_says_nothing_more() {
    let server = Hostile::saying(&[version(), handle(1)]);
    let begun = Instant::now();
    let error = server.store().get(&name("a"), None).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Temporary, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(29), "{:?}", begun.elapsed());
}

/// What comes unasked for, without end, fills nothing: it is refused at its first packet.
#[test]
fn t16_one_that_never_stops() {
    let server = Hostile::running("cat - /dev/zero <", &version());
    nonsense(server.store().put(&name("a"), &[0; 1 << 20], Put::Replace), "a packet of 0 bytes");
}
