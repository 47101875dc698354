//! A stretch of a file, compressed and told by its hash.
//!
//! A file is cut into frames of a fixed size, each for itself: so many threads can work at once, one that is damaged is
//! found without the others, and none is larger in memory than it was in the file. In front of each stand its method,
//! both its lengths, and the BLAKE3 hash of what it holds when it is unpacked.

use serde::{Deserialize, Serialize};
use std::io::{Read as _, Write as _};

/// Bytes of the file in one frame.
pub const FRAME_BYTES: usize = 1 << 20;
/// Bytes in front of a frame: method, length in the file, length as it stands here, hash.
const HEAD_BYTES: usize = 1 + 4 + 4 + 32;

/// How frames are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// As it is.
    None,
    /// zstd.
    #[default]
    Zstd,
    /// gzip.
    Gzip,
    /// brotli.
    Brotli,
    /// lz4.
    Lz4,
}

impl Method {
    /// All of them, by the numbers that they have in frames.
    pub const ALL: [Self; 5] = [Self::None, Self::Zstd, Self::Gzip, Self::Brotli, Self::Lz4];

    /// As users write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Brotli => "brotli",
            Self::Lz4 => "lz4",
        }
    }

    /// The levels it knows, and the one it has if nobody says; none for a method without levels.
    #[must_use]
    pub fn levels(self) -> Option<(std::ops::RangeInclusive<i32>, i32)> {
        match self {
            Self::Zstd => Some((1..=22, 3)),
            Self::Gzip => Some((1..=9, 6)),
            Self::Brotli => Some((0..=11, 4)),
            Self::None | Self::Lz4 => None,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Zstd => 1,
            Self::Gzip => 2,
            Self::Brotli => 3,
            Self::Lz4 => 4,
        }
    }
}

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// The method.
    pub method: Method,
    /// Its level, where it has some.
    pub level: i32,
    /// Files smaller than this stay as they are.
    pub smallest: usize,
}

impl Default for Packing {
    fn default() -> Self {
        Self { method: Method::Zstd, level: 3, smallest: 1 << 10 }
    }
}

/// Why a frame can't be unpacked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It ends too early, or says of itself what can't be.
    #[error("a frame is damaged: {0}")]
    Damaged(&'static str),
    /// It holds something else than it was made from.
    #[error("snapshot checksum mismatch: expected {expected}, got {got}")]
    Hash {
        /// The hash in front of it.
        expected: String,
        /// The hash of what it holds.
        got: String,
    },
    /// It can't be compressed.
    #[error("cannot compress: {0}")]
    Packing(String),
}

/// Packs a stretch of a file, [`FRAME_BYTES`] at most, and adds it to an object.
///
/// # Errors
/// When the method refuses.
pub fn pack(raw: &[u8], packing: &Packing, out: &mut Vec<u8>) -> Result<(), Error> {
    let packed = if raw.len() < packing.smallest { None } else { compress(raw, packing)? };
    // What does not become smaller stays as it is.
    let packed = packed.filter(|packed| packed.len() < raw.len());
    let (method, body) = packed.as_deref().map_or((Method::None, raw), |packed| (packing.method, packed));
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| Error::Packing("it is too long".to_owned()));
    out.push(method.number());
    out.extend(length(raw)?.to_le_bytes());
    out.extend(length(body)?.to_le_bytes());
    out.extend(blake3::hash(raw).as_bytes());
    out.extend(body);
    Ok(())
}

/// Unpacks the frames of an object one by one.
///
/// # Errors
/// At the first that is not as it was made, or when `take` fails.
pub fn unpack<E: From<Error>>(mut object: &[u8], mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    while !object.is_empty() {
        let (raw, rest) = first(object)?;
        take(&raw)?;
        object = rest;
    }
    Ok(())
}

/// The first frame's content, and what comes after it.
fn first(object: &[u8]) -> Result<(Vec<u8>, &[u8]), Error> {
    let (head, rest) = object.split_at_checked(HEAD_BYTES).ok_or(Error::Damaged("its head is cut off"))?;
    let mut fields = head;
    let mut field = |bytes: usize| {
        let (field, rest) = fields.split_at_checked(bytes).ok_or(Error::Damaged("its head is cut off"))?;
        fields = rest;
        Ok::<_, Error>(field)
    };
    let number = field(1)?.first().copied().unwrap_or(u8::MAX);
    let mut length = || {
        let bytes = field(4)?.try_into().map_err(|_| Error::Damaged("its head is cut off"))?;
        usize::try_from(u32::from_le_bytes(bytes)).map_err(|_| Error::Damaged("it is too long"))
    };
    let (raw_len, packed_len) = (length()?, length()?);
    let hash = field(32)?;
    let method = Method::ALL.into_iter().find(|method| method.number() == number);
    let method = method.ok_or(Error::Damaged("its method is unknown"))?;
    // Before anything is made room for: these numbers may be anybody's.
    if raw_len > FRAME_BYTES || packed_len > rest.len() {
        return Err(Error::Damaged("it is longer than it can be"));
    }
    let (packed, rest) = rest.split_at_checked(packed_len).ok_or(Error::Damaged("it is cut off"))?;
    let raw = decompress(packed, method, raw_len)?;
    let got = blake3::hash(&raw);
    if got.as_bytes() != hash {
        let expected: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        return Err(Error::Hash { expected, got: got.to_hex().to_string() });
    }
    Ok((raw, rest))
}

fn compress(raw: &[u8], packing: &Packing) -> Result<Option<Vec<u8>>, Error> {
    let level = packing.method.levels().map_or(0, |(levels, _)| packing.level.clamp(*levels.start(), *levels.end()));
    let failed = |error: std::io::Error| Error::Packing(error.to_string());
    Ok(match packing.method {
        Method::None => None,
        Method::Zstd => Some(zstd::bulk::compress(raw, level).map_err(failed)?),
        Method::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level.unsigned_abs()));
            encoder.write_all(raw).map_err(failed)?;
            Some(encoder.finish().map_err(failed)?)
        }
        Method::Brotli => {
            let mut packed = Vec::new();
            let parameters = brotli::enc::BrotliEncoderParams { quality: level, ..Default::default() };
            brotli::BrotliCompress(&mut &*raw, &mut packed, &parameters).map_err(failed)?;
            Some(packed)
        }
        Method::Lz4 => Some(lz4_flex::block::compress(raw)),
    })
}

/// Unpacks to exactly this length, and never makes more room than that.
fn decompress(packed: &[u8], method: Method, length: usize) -> Result<Vec<u8>, Error> {
    let broken = Error::Damaged("it can't be unpacked");
    let limit = u64::try_from(length).unwrap_or(u64::MAX).saturating_add(1);
    let mut raw = Vec::with_capacity(length);
    match method {
        Method::None => raw.extend(packed),
        Method::Zstd => raw = zstd::bulk::decompress(packed, length).map_err(|_| broken.clone())?,
        Method::Gzip => {
            flate2::read::GzDecoder::new(packed).take(limit).read_to_end(&mut raw).map_err(|_| broken.clone())?;
        }
        Method::Brotli => {
            brotli::Decompressor::new(packed, 4096).take(limit).read_to_end(&mut raw).map_err(|_| broken.clone())?;
        }
        Method::Lz4 => raw = lz4_flex::block::decompress(packed, length).map_err(|_| broken.clone())?,
    }
    if raw.len() == length { Ok(raw) } else { Err(broken) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packing(method: Method) -> Packing {
        Packing { method, level: method.levels().map_or(0, |(_, usual)| usual), smallest: 0 }
    }

    fn unpacked(object: &[u8]) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        unpack(object, |raw| {
            all.extend(raw);
            Ok::<_, Error>(())
        })?;
        Ok(all)
    }

    #[test]
    fn what_was_packed_comes_out() {
        let text = b"all rows, and all rows again; ".repeat(5_000);
        for method in Method::ALL {
            let mut object = Vec::new();
            for raw in [text.as_slice(), b"", b"x"] {
                pack(raw, &packing(method), &mut object).unwrap();
            }
            assert_eq!(unpacked(&object).unwrap(), [text.as_slice(), b"x"].concat(), "{}", method.name());
            assert_eq!(object.len() < text.len() / 2, method != Method::None, "{}", method.name());
        }
    }

    #[test]
    fn what_is_small_stays_as_it_is() {
        let mut object = Vec::new();
        pack(&[b'a'; 1_000], &Packing::default(), &mut object).unwrap();
        assert_eq!(object.len(), HEAD_BYTES + 1_000);
    }

    #[test]
    fn every_byte_counts() {
        for method in Method::ALL {
            let mut object = Vec::new();
            pack(&b"0123456789".repeat(20), &packing(method), &mut object).unwrap();
            let whole = unpacked(&object).unwrap();
            for at in 0..object.len() {
                let mut damaged = object.clone();
                damaged[at] ^= 1;
                // A bit of a compressed stream may mean nothing; then what comes out is right all the same.
                if let Ok(out) = unpacked(&damaged) {
                    assert_eq!(out, whole, "{} at {at}", method.name());
                }
                let cut = unpacked(&object[..at]);
                assert!(if at == 0 { cut == Ok(Vec::new()) } else { cut.is_err() }, "{} cut at {at}", method.name());
            }
        }
    }

    #[test]
    fn a_mismatch_names_both_hashes() {
        let mut object = Vec::new();
        pack(b"some bytes", &packing(Method::None), &mut object).unwrap();
        *object.last_mut().unwrap() ^= 1;
        let told = unpacked(&object).unwrap_err().to_string();
        assert!(told.starts_with("snapshot checksum mismatch: expected "), "{told}");
    }

    proptest! {
        #[test]
        fn nothing_that_comes_in_does_harm(object in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = unpacked(&object);
        }
    }
}
