//! Files of known hosts: whether a server's key is the one it should have.
//!
//! Nothing is ever accepted because it is new. Who is refused is told the key's fingerprint, and the line that makes the
//! server known once somebody has compared it.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use antiphon_core::store::{ErrorKind, StoreError};
use data_encoding::BASE64;
use ring::hmac;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey, PublicKeyOrCertificate};

use super::place::Place;

/// What of a file is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What a line says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// It is the host's.
    Own,
    /// It vouches for keys of the host.
    Authority,
    /// It is nobody's any more.
    Revoked,
}

/// A line of a file.
struct Line {
    file: usize,
    number: usize,
    mark: Mark,
    hosts: String,
    kind: String,
    key: Vec<u8>,
}

/// All that is known.
pub(super) struct Known {
    files: Vec<PathBuf>,
    lines: Vec<Line>,
}

/// What the files say of a key.
enum Word<'a> {
    Known,
    Unknown,
    /// The host has another key of this kind.
    Other(&'a Line),
}

impl Known {
    /// Reads the files. One that is not there knows nobody.
    pub(super) fn read(place: &Place) -> Result<Self, StoreError> {
        let mut known = Self { files: place.known_hosts.clone(), lines: Vec::new() };
        for (file, path) in place.known_hosts.iter().enumerate() {
            let mut bytes = Vec::new();
            let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
            match read {
                Ok(_) => known.add(file, &String::from_utf8_lossy(&bytes)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    let why = format!("cannot read the known hosts in `{}`: {error}", path.display());
                    return Err(StoreError::new(ErrorKind::Denied, why));
                }
            }
        }
        Ok(known)
    }

    fn add(&mut self, file: usize, text: &str) {
        let lines = text.lines().enumerate().filter_map(|(at, text)| line(file, at + 1, text));
        self.lines.extend(lines);
    }

    /// The lines that speak of a host.
    fn of<'a>(&'a self, host: &'a str, mark: Mark) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(move |line| line.mark == mark && speaks_of(&line.hosts, host))
    }

    /// Whether somebody vouches for keys of this server.
    pub(super) fn has_authority(&self, place: &Place) -> bool {
        self.of(&place.known_as(), Mark::Authority).next().is_some()
    }

    /// The kinds of keys to ask the server for: first those that it is known by.
    pub(super) fn order(&self, place: &Place, usual: &[Algorithm]) -> Vec<Algorithm> {
        let name = place.known_as();
        let is_known = |algorithm: &Algorithm| {
            let kind = match algorithm {
                Algorithm::Rsa { .. } => "ssh-rsa",
                other => other.as_str(),
            };
            self.of(&name, Mark::Own).chain(self.of(&place.host, Mark::Own)).any(|line| line.kind == kind)
        };
        // SHA-1 is no proof of anything any more.
        let safe = usual.iter().filter(|algorithm| !matches!(algorithm, Algorithm::Rsa { hash: None }));
        let (mut first, others): (Vec<_>, Vec<_>) = safe.cloned().partition(is_known);
        first.extend(others);
        first
    }

    fn ask(&self, host: &str, key: &[u8], kind: &str) -> Word<'_> {
        let mut other = None;
        for line in self.lines.iter().filter(|line| line.mark == Mark::Own && speaks_of(&line.hosts, host)) {
            if line.key == key {
                return Word::Known;
            }
            if line.kind == kind {
                other = Some(line);
            }
        }
        other.map_or(Word::Unknown, Word::Other)
    }

    /// Refuses a key that is nobody's any more. A line without a port is for all ports.
    fn refuse_revoked(&self, place: &Place, key: &KeyData) -> Result<(), StoreError> {
        let key = encoded(key)?;
        let name = place.known_as();
        let line = self
            .lines
            .iter()
            .filter(|line| line.mark == Mark::Revoked)
            .find(|line| line.key == key && (speaks_of(&line.hosts, &name) || speaks_of(&line.hosts, &place.host)));
        let Some(line) = line else { return Ok(()) };
        let why = format!(
            "the key of the SSH server `{}` is revoked by line {} of `{}`",
            place.address(),
            line.number,
            self.file(line)
        );
        Err(StoreError::new(ErrorKind::Denied, why)
            .hint("somebody who has a copy of the key may be in between; ask its owner"))
    }

    /// Whether this is the server's key, at a time in seconds since 1970.
    pub(super) fn judge(&self, place: &Place, shown: &PublicKeyOrCertificate, now: u64) -> Result<(), StoreError> {
        match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                self.refuse_revoked(place, key.key_data())?;
                self.judge_key(place, key.key_data(), None)
            }
            PublicKeyOrCertificate::Certificate(certificate) => {
                self.refuse_revoked(place, certificate.signature_key())?;
                self.refuse_revoked(place, certificate.public_key())?;
                match self.vouched(place, certificate, now) {
                    Ok(()) => Ok(()),
                    // The key in it may be known by itself.
                    Err(why) => self.judge_key(place, certificate.public_key(), Some(why)),
                }
            }
        }
    }

    /// Whether an authority for this host vouches for it, or why not.
    fn vouched(&self, place: &Place, certificate: &Certificate, now: u64) -> Result<(), String> {
        let authority = encoded(certificate.signature_key()).map_err(|error| error.message)?;
        if !self.of(&place.known_as(), Mark::Authority).any(|line| line.key == authority) {
            return Err("its certificate is by an authority that is not known for it".to_owned());
        }
        certificate.verify_signature().map_err(|_| "the signature of its certificate is wrong".to_owned())?;
        if certificate.cert_type() != CertType::Host {
            return Err("its certificate is one of a user".to_owned());
        }
        if now < certificate.valid_after() || now >= certificate.valid_before() {
            return Err("its certificate is not valid at this time".to_owned());
        }
        if !certificate.valid_principals().iter().any(|name| matches(name, &place.host)) {
            return Err(format!("its certificate is not for `{}`", place.host));
        }
        if !certificate.critical_options().is_empty() {
            return Err("its certificate makes conditions that are not understood".to_owned());
        }
        Ok(())
    }

    fn judge_key(&self, place: &Place, key: &KeyData, besides: Option<String>) -> Result<(), StoreError> {
        let bytes = encoded(key)?;
        let kind = kind_of(&bytes);
        let name = place.known_as();
        let mut word = self.ask(&name, &bytes, &kind);
        if matches!(word, Word::Unknown) && name != place.host {
            // A line without a port is for all ports, if there is none with this one.
            match self.ask(&place.host, &bytes, &kind) {
                Word::Other(_) => {}
                found => word = found,
            }
        }
        let fingerprint = PublicKey::from(key.clone()).fingerprint(HashAlg::Sha256);
        let line_to_add = format!("{name} {kind} {}", BASE64.encode(&bytes));
        match word {
            Word::Known => Ok(()),
            Word::Other(line) => {
                let mut why = format!(
                    "the key of the SSH server `{}` is not the one in line {} of `{}`: it shows {kind} {fingerprint}",
                    place.address(),
                    line.number,
                    self.file(line)
                );
                if let Some(besides) = besides {
                    let _ = write!(why, "; {besides}");
                }
                Err(StoreError::new(ErrorKind::Denied, why).hint(format!(
                    "somebody may be in between. If its owner says that it has a new key with that fingerprint, replace the \
                     line by: {line_to_add}"
                )))
            }
            Word::Unknown => {
                let mut why =
                    format!("the SSH server `{}` is not known: it shows {kind} {fingerprint}", place.address());
                if let Some(besides) = besides {
                    let _ = write!(why, "; {besides}");
                }
                let file = self.files.first().map_or_else(String::new, |file| format!(" to `{}`", file.display()));
                Err(StoreError::new(ErrorKind::Denied, why).hint(format!(
                    "compare the fingerprint with what the server's owner says (there, `ssh-keygen -lf \
                     /etc/ssh/ssh_host_*_key.pub` prints it). If it is the same, add this line{file}: {line_to_add}"
                )))
            }
        }
    }

    fn file(&self, line: &Line) -> std::path::Display<'_> {
        self.files.get(line.file).map_or(Path::new(""), PathBuf::as_path).display()
    }
}

fn encoded(key: &KeyData) -> Result<Vec<u8>, StoreError> {
    let unreadable = |_| StoreError::new(ErrorKind::Denied, "the server's key is none that can be written down");
    PublicKey::from(key.clone()).to_bytes().map_err(unreadable)
}

/// What kind of key these bytes are: they begin with its name.
fn kind_of(key: &[u8]) -> String {
    let length = key.first_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length));
    let name = usize::try_from(length).ok().and_then(|length| key.get(4..4 + length.min(64)));
    name.map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default()
}

/// A line that says something. Others are left alone, as other programs leave them.
fn line(file: usize, number: usize, text: &str) -> Option<Line> {
    let mut words = text.split_ascii_whitespace();
    let mut word = words.next().filter(|word| !word.starts_with('#'))?;
    let mark = match word {
        "@cert-authority" => Mark::Authority,
        "@revoked" => Mark::Revoked,
        _ if word.starts_with('@') => return None,
        _ => Mark::Own,
    };
    if mark != Mark::Own {
        word = words.next()?;
    }
    let hosts = word.to_owned();
    words.next()?;
    let key = BASE64.decode(words.next()?.as_bytes()).ok()?;
    // The key itself says what kind it is.
    Some(Line { file, number, mark, hosts, kind: kind_of(&key), key })
}

/// Whether the hosts of a line are, or may be, this one.
fn speaks_of(hosts: &str, host: &str) -> bool {
    if let Some(hashed) = hosts.strip_prefix("|1|") {
        return is_hashed(hashed, host).unwrap_or(false);
    }
    let mut speaks = false;
    for pattern in hosts.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if matches(pattern, host) => return false,
            Some(_) => {}
            None => speaks |= matches(pattern, host),
        }
    }
    speaks
}

fn is_hashed(hashed: &str, host: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let salt = BASE64.decode(salt.as_bytes()).ok()?;
    let hash = BASE64.decode(hash.as_bytes()).ok()?;
    // As the files have it; it hides names from who reads them, and nothing else depends on it.
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
    Some(hmac::verify(&key, host.as_bytes(), &hash).is_ok())
}

/// Whether a name fits a pattern with `*` and `?`; how they are written does not matter.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut in_name) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(sign) = name.get(in_name) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, in_name));
                at += 1;
            }
            Some(found) if *found == b'?' || found.eq_ignore_ascii_case(sign) => {
                at += 1;
                in_name += 1;
            }
            _ => {
                // The last `*` stands for one more sign.
                let Some((star_at, from)) = star else { return false };
                star = Some((star_at, from + 1));
                at = star_at + 1;
                in_name = from + 1;
            }
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|sign| *sign == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_as_known_hosts_have_them() {
        for (hosts, host, speaks) in [
            ("host", "host", true),
            ("HOST", "host", true),
            ("host", "hosts", false),
            ("a,host,b", "host", true),
            ("[host]:2222", "[host]:2222", true),
            ("[host]:2222", "host", false),
            ("*.example.org", "a.b.example.org", true),
            ("*.example.org,!b.example.org", "b.example.org", false),
            ("!b.example.org,*.example.org", "a.example.org", true),
            ("h?st", "host", true),
            ("h?st", "hst", false),
            ("*", "anything", true),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "aXbX", false),
            ("", "host", false),
            ("|1|", "host", false),
            ("|1|!!|!!", "host", false),
        ] {
            assert_eq!(speaks_of(hosts, host), speaks, "{hosts} {host}");
        }
    }

    #[test]
    fn hosts_may_be_hashed() {
        // What `ssh-keygen -H` makes of `example.org`.
        let salt = [7; 20];
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt), b"example.org");
        let hosts = format!("|1|{}|{}", BASE64.encode(&salt), BASE64.encode(tag.as_ref()));
        assert!(speaks_of(&hosts, "example.org"));
        assert!(!speaks_of(&hosts, "example.com"));
    }

    #[test]
    fn lines_that_say_nothing_are_left_alone() {
        for text in [
            "",
            "# host ssh-rsa AAAA",
            "host",
            "host ssh-rsa",
            "host ssh-rsa !!!",
            "@new host ssh-rsa AAAA",
            "@revoked",
        ] {
            assert!(line(0, 1, text).is_none(), "{text}");
        }
        let found = line(
            0,
            3,
            "@revoked *  ssh-ed25519\tAAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ x y",
        );
        assert!(found.is_some_and(|line| line.mark == Mark::Revoked && line.kind == "ssh-ed25519" && line.number == 3));
    }
}
