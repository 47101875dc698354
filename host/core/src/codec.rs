//! An entry as bytes: magic, version, CBOR, zstd, checksum.
//!
//! ```text
//! 4  "ANTI"
//! 1  version
//! 1  flags: 1 = the body is a zstd frame
//! 4  length of the body before compression, little-endian
//! …  body: CBOR, columns of a table one after the other
//! 8  xxh3-64 of everything before, little-endian
//! ```
//! Nothing is decoded before the checksum holds, and nothing is allocated beyond the declared length.

mod chunks;
mod policies;

pub use policies::{decode_policies, encode_policies};

use crate::cbor::{self, Malformed, Reader};
use crate::entry::{Anew, Body, Changes, Decision, Entry, Genesis, Halted, InForce, Origin, Route};
use crate::value::Value;
use chunks::{read_chunk, write_chunk};
use policies::{read_on_failure, read_policies, read_settings, write_on_failure, write_policies, write_settings};
use xxhash_rust::xxh3::xxh3_64;

/// The version this build writes, and the only one it reads.
pub const VERSION: u8 = 1;

/// Most bytes a body may have before compression: a row of 128 MiB, and room for its neighbours.
pub const BODY_BYTES_MAX: usize = 160 << 20;

const MAGIC: &[u8; 4] = b"ANTI";
const HEADER: usize = 10;
const TRAILER: usize = 8;
const FLAG_ZSTD: u8 = 1;
/// Bodies below this gain nothing from compression.
const COMPRESS_MIN: usize = 128;
/// Why bytes are no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are something else altogether.
    #[error("it is not an entry of Antiphon")]
    Foreign,
    /// A newer version wrote it.
    #[error("it is of wire version {0}, and this build reads version {VERSION}")]
    Version(u8),
    /// The bytes were damaged on their way.
    #[error("its checksum does not hold")]
    Checksum,
    /// The body is larger than any allowed.
    #[error("its body of {0} bytes is over the limit of {BODY_BYTES_MAX}")]
    TooLarge(usize),
    /// The body does not decompress.
    #[error("its body does not decompress")]
    Compression,
    /// The body is not what an entry consists of.
    #[error("its body is malformed: {0}")]
    Malformed(#[from] Malformed),
}

/// Writes entries. Keeps its compressor, which costs more to make than to use.
pub struct Encoder {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    body: Vec<u8>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("compresses", &self.compressor.is_some()).finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder that compresses at `level`, or not at all.
    #[must_use]
    pub fn new(level: Option<i32>) -> Self {
        Self { compressor: level.and_then(|level| zstd::bulk::Compressor::new(level).ok()), body: Vec::new() }
    }

    /// The entry as bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when the entry is beyond what a receiver would accept.
    pub fn encode(&mut self, entry: &Entry) -> Result<Vec<u8>, Error> {
        self.body.clear();
        write_entry(&mut self.body, entry);
        let length = self.body.len();
        let declared =
            u32::try_from(length).ok().filter(|_| length <= BODY_BYTES_MAX).ok_or(Error::TooLarge(length))?;
        let packed = match &mut self.compressor {
            Some(compressor) if length >= COMPRESS_MIN => compressor.compress(&self.body).ok(),
            _ => None,
        };
        let packed = packed.filter(|packed| packed.len() < length);
        let body = packed.as_deref().unwrap_or(&self.body);
        let mut frame = Vec::with_capacity(HEADER + body.len() + TRAILER);
        frame.extend(MAGIC);
        frame.push(VERSION);
        frame.push(if packed.is_some() { FLAG_ZSTD } else { 0 });
        frame.extend(declared.to_le_bytes());
        frame.extend(body);
        let checksum = xxh3_64(&frame);
        frame.extend(checksum.to_le_bytes());
        Ok(frame)
    }
}

/// The checksum a frame carries: with the log's time stamp it names one placement of one entry.
#[must_use]
pub fn checksum(frame: &[u8]) -> u64 {
    frame.last_chunk::<TRAILER>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// How many bytes a frame says that its body has when it is read, however small it is packed; 0 if it is no frame.
#[must_use]
pub fn body_bytes(frame: &[u8]) -> usize {
    match frame.first_chunk::<HEADER>() {
        Some([a, b, c, d, _, _, length @ ..]) if [*a, *b, *c, *d] == *MAGIC => u32::from_le_bytes(*length) as usize,
        _ => 0,
    }
}

/// Reads an entry that [`Encoder::encode`] wrote.
///
/// # Errors
/// Whatever is wrong with the bytes; nothing of them is used then.
pub fn decode(frame: &[u8]) -> Result<Entry, Error> {
    let (signed, trailer) = frame.split_last_chunk::<TRAILER>().ok_or(Error::Foreign)?;
    let (header, packed) = signed.split_first_chunk::<HEADER>().ok_or(Error::Foreign)?;
    let [a, b, c, d, version, flags, length @ ..] = header;
    if [*a, *b, *c, *d] != *MAGIC {
        return Err(Error::Foreign);
    }
    if *version != VERSION {
        return Err(Error::Version(*version));
    }
    if xxh3_64(signed) != u64::from_le_bytes(*trailer) {
        return Err(Error::Checksum);
    }
    let length = u32::from_le_bytes(*length) as usize;
    if length > BODY_BYTES_MAX {
        return Err(Error::TooLarge(length));
    }
    if flags & FLAG_ZSTD == 0 {
        return read_entry(packed);
    }
    // The declared length bounds what decompression may write: a bomb ends at its own claim.
    let body = zstd::bulk::decompress(packed, length).map_err(|_| Error::Compression)?;
    if body.len() == length { read_entry(&body) } else { Err(Error::Compression) }
}

const GENESIS: u64 = 0;
const FOUNDED: u64 = 1;
const ROUTE: u64 = 2;
const CHANGES: u64 = 3;
const FLOOR: u64 = 4;
const DECIDED: u64 = 5;
const IN_FORCE: u64 = 6;
const ANEW: u64 = 7;

fn write_entry(out: &mut Vec<u8>, entry: &Entry) {
    cbor::write_array(out, 7);
    cbor::write_bytes(out, &entry.cluster);
    cbor::write_uint(out, entry.origin.node);
    cbor::write_uint(out, entry.origin.incarnation);
    cbor::write_uint(out, entry.number);
    cbor::write_uint(out, entry.clock);
    match &entry.body {
        Body::Genesis(genesis) => {
            cbor::write_uint(out, GENESIS);
            cbor::write_array(out, 8);
            cbor::write_uint(out, u64::from(genesis.shards));
            cbor::write_text(out, &genesis.hasher);
            write_settings(out, &genesis.hasher_settings);
            cbor::write_text(out, &genesis.resolver);
            write_settings(out, &genesis.resolver_settings);
            write_on_failure(out, genesis.on_failure);
            cbor::write_uint(out, u64::from(genesis.wire));
            write_policies(out, &genesis.policies);
        }
        Body::Founded => {
            cbor::write_uint(out, FOUNDED);
            cbor::write_array(out, 0);
        }
        Body::Route(route) => {
            cbor::write_uint(out, ROUTE);
            cbor::write_array(out, 2);
            cbor::write_text(out, &route.table);
            cbor::write_bool(out, route.whole);
        }
        Body::Floor(floor) => {
            cbor::write_uint(out, FLOOR);
            cbor::write_uint(out, *floor);
        }
        Body::Anew(Anew { seq, time, checksum }) => {
            cbor::write_uint(out, ANEW);
            cbor::write_array(out, 3);
            for number in [seq, time, checksum] {
                cbor::write_uint(out, *number);
            }
        }
        Body::Decided(decided) => {
            cbor::write_uint(out, DECIDED);
            write_decided(out, decided);
        }
        Body::InForce(InForce { decision, halted }) => {
            cbor::write_uint(out, IN_FORCE);
            cbor::write_array(out, 2);
            write_decided(out, decision);
            match halted {
                Some(halted) => {
                    cbor::write_array(out, 2);
                    cbor::write_uint(out, halted.seq);
                    cbor::write_text(out, &halted.table);
                }
                None => cbor::write_array(out, 0),
            }
        }
        Body::Changes(changes) => {
            cbor::write_uint(out, CHANGES);
            cbor::write_array(out, 3);
            cbor::write_bool(out, changes.more);
            cbor::write_uint(out, changes.seen);
            cbor::write_array(out, changes.chunks.len());
            for chunk in &changes.chunks {
                write_chunk(out, chunk);
            }
        }
    }
}

fn write_decided(out: &mut Vec<u8>, decided: &Decision) {
    cbor::write_array(out, 2);
    cbor::write_uint(out, decided.version);
    write_policies(out, &decided.policies);
}

fn read_entry(body: &[u8]) -> Result<Entry, Error> {
    let mut reader = Reader::new(body);
    let reader = &mut reader;
    reader.array_of(7)?;
    let cluster = reader.bytes_of()?;
    let origin = Origin { node: reader.uint()?, incarnation: reader.uint()? };
    let (number, clock) = (reader.uint()?, reader.uint()?);
    let body = match reader.uint()? {
        GENESIS => {
            reader.array_of(8)?;
            Body::Genesis(Genesis {
                shards: reader.uint32()?,
                hasher: reader.text()?.to_owned(),
                hasher_settings: read_settings(reader)?,
                resolver: reader.text()?.to_owned(),
                resolver_settings: read_settings(reader)?,
                on_failure: read_on_failure(reader)?,
                wire: reader.uint32()?,
                policies: read_policies(reader)?,
            })
        }
        FOUNDED => {
            reader.array_of(0)?;
            Body::Founded
        }
        ROUTE => {
            reader.array_of(2)?;
            Body::Route(Route { table: reader.text()?.to_owned(), whole: reader.bool()? })
        }
        FLOOR => Body::Floor(reader.uint()?),
        ANEW => {
            reader.array_of(3)?;
            Body::Anew(Anew { seq: reader.uint()?, time: reader.uint()?, checksum: reader.uint()? })
        }
        DECIDED => Body::Decided(read_decided(reader)?),
        IN_FORCE => {
            reader.array_of(2)?;
            let decision = read_decided(reader)?;
            let halted = match reader.array()? {
                0 => None,
                2 => Some(Halted { seq: reader.uint()?, table: reader.text()?.to_owned() }),
                other => return Err(Malformed::OutOfBounds(other as u64).into()),
            };
            Body::InForce(InForce { decision, halted })
        }
        CHANGES => {
            reader.array_of(3)?;
            let (more, seen) = (reader.bool()?, reader.uint()?);
            let chunks = (0..reader.array()?).map(|_| read_chunk(reader)).collect::<Result<_, _>>()?;
            Body::Changes(Changes { more, seen, chunks })
        }
        other => return Err(Malformed::OutOfBounds(other).into()),
    };
    match reader.remaining() {
        0 => Ok(Entry { cluster, origin, number, clock, body }),
        left => Err(Malformed::Trailing(left).into()),
    }
}

fn read_decided(reader: &mut Reader<'_>) -> Result<Decision, Malformed> {
    reader.array_of(2)?;
    Ok(Decision { version: reader.uint()?, policies: read_policies(reader)? })
}

/// A short number that stands for bytes: no secret, and the same on every machine.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// One row as bytes, for tables of our own: shadows and conflict records.
#[must_use]
pub fn encode_row(row: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    cbor::write_array(&mut out, row.len());
    for value in row {
        cbor::write_value(&mut out, value);
    }
    out
}

/// Reads what [`encode_row`] wrote.
///
/// # Errors
/// When the bytes are no row.
pub fn decode_row(bytes: &[u8]) -> Result<Vec<Value>, Malformed> {
    let mut reader = Reader::new(bytes);
    let row = (0..reader.array()?).map(|_| reader.value()).collect::<Result<_, _>>()?;
    reader.finish()?;
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Bounds, Chunk, Made, OnFailure, Policy, Rows};
    use proptest::prelude::*;

    fn any_rows(width: usize) -> impl Strategy<Value = Rows> {
        let value = cbor::tests_support::any_value();
        prop::collection::vec(prop::collection::vec(value, width), 0..20).prop_map(move |rows| {
            let mut all = Rows::new(width);
            rows.into_iter().for_each(|row| all.push(row));
            all
        })
    }

    fn any_chunk() -> impl Strategy<Value = Chunk> {
        (any::<String>(), 1usize..5).prop_flat_map(|(table, width)| {
            (any_rows(width), any_rows(1), any::<bool>(), any::<u32>()).prop_map(
                move |(written, gone, resolved, clock)| {
                    let count = if resolved { written.len() + gone.len() } else { 0 };
                    let made = |change: usize| Made {
                        base: written.get(change / 2).filter(|_| change.is_multiple_of(2)).map(<[Value]>::to_vec),
                        clock: u64::from(clock) + change as u64 % 3,
                    };
                    Chunk {
                        table: table.clone(),
                        columns: (0..width).map(|n| format!("c{n}")).collect(),
                        key: vec![width - 1],
                        uniques: vec![vec![(0, "NOCASE".to_owned())]],
                        seen: if written.is_empty() { vec![] } else { vec![(0, 7)] },
                        made: (0..count).map(made).collect(),
                        written,
                        gone,
                    }
                },
            )
        })
    }

    fn entry(body: Body) -> Entry {
        Entry { cluster: [7; 16], origin: Origin { node: u64::MAX, incarnation: 3 }, number: 1, clock: 9, body }
    }

    proptest! {
        #[test]
        fn an_entry_survives_its_bytes(
            chunks in prop::collection::vec(any_chunk(), 0..4), more: bool, seen: u64, compress: bool,
        ) {
            let entry = entry(Body::Changes(Changes { more, seen, chunks }));
            let frame = Encoder::new(compress.then_some(3)).encode(&entry).unwrap();
            prop_assert_eq!(decode(&frame), Ok(entry));
        }

        #[test]
        fn damaged_bytes_are_refused(chunk in any_chunk(), at: prop::sample::Index, flip in 1u8..) {
            let entry = entry(Body::Changes(Changes { chunks: vec![chunk], ..Changes::default() }));
            let mut frame = Encoder::new(Some(3)).encode(&entry).unwrap();
            let at = at.index(frame.len());
            frame[at] ^= flip;
            prop_assert!(decode(&frame).is_err());
        }

        #[test]
        fn x02_any_body_is_read_or_refused(body in any::<Vec<u8>>()) {
            let _ = read_entry(&body);
        }

        #[test]
        fn x02_a_body_with_one_byte_changed_is_read_or_refused(chunk in any_chunk(), at: prop::sample::Index, byte: u8) {
            let mut body = Vec::new();
            write_entry(&mut body, &entry(Body::Changes(Changes { chunks: vec![chunk], ..Changes::default() })));
            let at = at.index(body.len());
            body[at] = byte;
            let _ = read_entry(&body);
        }
    }

    #[test]
    fn every_other_body_survives_too() {
        for body in [
            Body::Founded,
            Body::Floor(u64::MAX),
            Body::Anew(Anew { seq: 1, time: u64::MAX, checksum: 3 }),
            Body::Genesis(Genesis {
                shards: 4,
                hasher: "xxh3@1".into(),
                hasher_settings: vec![("columns".into(), "tenant".into()), ("seed".into(), "7".into())],
                resolver: "sha256:00".into(),
                resolver_settings: vec![("a".into(), "b".into())],
                on_failure: OnFailure::Stop,
                policies: vec![Policy {
                    pattern: "stock_*".into(),
                    resolver: "counter@1".into(),
                    settings: vec![("columns".into(), "quantity".into())],
                    on_failure: OnFailure::Park(Bounds {
                        fuel_base: u64::MAX,
                        fuel_per_item: 2,
                        fuel_per_byte: 3,
                        memory: 4,
                        returned: 5,
                        meter: 6,
                    }),
                }],
                wire: 1,
            }),
            Body::Route(Route { table: "a\"b".into(), whole: true }),
            Body::Decided(Decision { version: 1, policies: vec![Policy::default()] }),
            Body::InForce(Decision { version: u64::MAX, policies: Vec::new() }.into()),
            Body::InForce(InForce {
                decision: Decision::default(),
                halted: Some(Halted { seq: 7, table: "a\"b".into() }),
            }),
        ] {
            let entry = entry(body);
            assert_eq!(decode(&Encoder::new(None).encode(&entry).unwrap()), Ok(entry));
        }
    }

    /// X16: how much a frame is once it is read, is known before it is read.
    #[test]
    fn x16_a_frame_says_how_large_it_is() {
        let origin = Origin { node: 1, incarnation: 1 };
        let body = Body::Route(Route { table: "t".repeat(1 << 20), whole: true });
        let frame =
            Encoder::new(Some(3)).encode(&Entry { cluster: [7; 16], origin, number: 1, clock: 1, body }).unwrap();
        assert!(frame.len() < 4096 && body_bytes(&frame) > 1 << 20, "{} and {}", frame.len(), body_bytes(&frame));
        assert_eq!((body_bytes(b""), body_bytes(b"garbage of some length")), (0, 0));
    }

    #[test]
    fn x03_a_bomb_ends_at_its_own_claim() {
        let zeros = vec![0u8; 64 << 20];
        let packed = zstd::bulk::compress(&zeros, 3).unwrap();
        let mut frame = MAGIC.to_vec();
        frame.extend([VERSION, FLAG_ZSTD]);
        frame.extend(1000u32.to_le_bytes());
        frame.extend(packed);
        let sum = xxh3_64(&frame);
        frame.extend(sum.to_le_bytes());
        assert_eq!(decode(&frame), Err(Error::Compression));
    }

    /// Claims beyond the limit are refused unread, and one within it costs a moment.
    #[test]
    fn x03_ten_gigabytes_in_few_bytes_are_refused_at_once() {
        // A block header that says: this byte, 128 KiB of it.
        let mut packed = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
        for _ in 0..(10usize << 30) / (128 << 10) {
            packed.extend([0x02, 0x00, 0x10, 0x00]);
        }
        for claim in [1000, 1 << 20, u32::MAX] {
            let mut frame = MAGIC.to_vec();
            frame.extend([VERSION, FLAG_ZSTD]);
            frame.extend(claim.to_le_bytes());
            frame.extend(&packed);
            let sum = xxh3_64(&frame);
            frame.extend(sum.to_le_bytes());
            let begun = std::time::Instant::now();
            let expected = if claim == u32::MAX { Error::TooLarge(claim as usize) } else { Error::Compression };
            assert_eq!(decode(&frame), Err(expected));
            assert!(begun.elapsed() < std::time::Duration::from_millis(250), "{claim}: {:?}", begun.elapsed());
        }
    }

    /// What follows an entry, lengths that are not said, numbers where texts belong: none of it is an entry.
    #[test]
    fn x02_what_is_not_of_the_form_is_refused() {
        let mut body = Vec::new();
        write_entry(&mut body, &entry(Body::Founded));
        assert!(read_entry(&body).is_ok());
        assert!(read_entry(&[body.as_slice(), &[0]].concat()).is_err(), "trailing bytes");
        let mut endless = body.clone();
        endless[0] = 0x9f;
        endless.push(0xff);
        assert!(read_entry(&endless).is_err(), "an array of no length");
        let mut deep = vec![0x87];
        deep.extend(std::iter::repeat_n(0x81, 1_000_000));
        assert!(read_entry(&deep).is_err(), "arrays in arrays");
        assert!(read_entry(&[0xa1, 0x00, 0x00]).is_err(), "a map");
        assert!(read_entry(&[0xc1, 0x87]).is_err(), "a tag");
    }

    #[test]
    fn foreign_bytes_and_newer_versions_are_told_apart() {
        assert_eq!(decode(b"<html>502 Bad Gateway</html>"), Err(Error::Foreign));
        let mut frame = Encoder::new(None).encode(&entry(Body::Founded)).unwrap();
        frame[4] = 9;
        assert_eq!(decode(&frame), Err(Error::Version(9)));
    }

    #[test]
    fn a_row_survives_its_bytes() {
        let row = vec![Value::Null, Value::Integer(i64::MIN), Value::Text(vec![0xff, 0]), Value::Real(-0.0)];
        assert_eq!(decode_row(&encode_row(&row)), Ok(row));
    }
}
