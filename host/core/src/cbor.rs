//! The bounded reader and the writer of the wire's encoding.
//!
//! Plain CBOR (RFC 8949), definite lengths only. The reader trusts no length it has not compared with the
//! bytes at hand, so what it allocates is bounded by what it was given. `ciborium` is the reference in tests.

use crate::value::Value;

/// Marks TEXT that is not UTF-8: its bytes follow as a byte string.
pub const TAG_RAW_TEXT: u64 = 20_824;

const UINT: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const TAG: u8 = 6;
const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const NULL: u8 = 0xf6;
const DOUBLE: u8 = 0xfb;

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end before the value does.
    #[error("it ends in the middle of a value")]
    Truncated,
    /// Something else stands where a value of one kind belongs.
    #[error("byte {at} is 0x{found:02x} where {expected} belongs")]
    Unexpected {
        /// What belongs there.
        expected: &'static str,
        /// What was found.
        found: u8,
        /// Where.
        at: usize,
    },
    /// A length or number is larger than the bytes at hand or the limits allow.
    #[error("a length of {0} is out of bounds")]
    OutOfBounds(u64),
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    NotUtf8,
    /// There are bytes after the end.
    #[error("{0} bytes follow its end")]
    Trailing(usize),
}

fn head(out: &mut Vec<u8>, major: u8, number: u64) {
    let major = major << 5;
    if number < 24 {
        out.push(major | number.to_le_bytes()[0]);
    } else if let Ok(number) = u8::try_from(number) {
        out.extend([major | 24, number]);
    } else if let Ok(number) = u16::try_from(number) {
        out.push(major | 25);
        out.extend(number.to_be_bytes());
    } else if let Ok(number) = u32::try_from(number) {
        out.push(major | 26);
        out.extend(number.to_be_bytes());
    } else {
        out.push(major | 27);
        out.extend(number.to_be_bytes());
    }
}

/// Writes an unsigned number.
pub fn write_uint(out: &mut Vec<u8>, number: u64) {
    head(out, UINT, number);
}

/// Writes a signed number.
pub fn write_int(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        head(out, NEGATIVE, !number.cast_unsigned());
    } else {
        head(out, UINT, number.cast_unsigned());
    }
}

/// Writes a double, always in nine bytes: a REAL stays a REAL.
pub fn write_real(out: &mut Vec<u8>, number: f64) {
    out.push(DOUBLE);
    out.extend(number.to_bits().to_be_bytes());
}

/// Writes a text.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    head(out, TEXT, text.len() as u64);
    out.extend(text.as_bytes());
}

/// Writes a byte string.
pub fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    head(out, BYTES, bytes.len() as u64);
    out.extend(bytes);
}

/// Writes the head of an array of `len` items; the items follow.
pub fn write_array(out: &mut Vec<u8>, len: usize) {
    head(out, ARRAY, len as u64);
}

/// Writes a boolean.
pub fn write_bool(out: &mut Vec<u8>, yes: bool) {
    out.push(if yes { TRUE } else { FALSE });
}

/// Writes TEXT as SQLite holds it: a text if it is UTF-8, tagged bytes if not.
pub fn write_sqlite_text(out: &mut Vec<u8>, text: &[u8]) {
    if let Ok(text) = std::str::from_utf8(text) {
        write_text(out, text);
    } else {
        head(out, TAG, TAG_RAW_TEXT);
        write_bytes(out, text);
    }
}

/// Writes a value with its storage class.
pub fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(NULL),
        Value::Integer(number) => write_int(out, *number),
        Value::Real(number) => write_real(out, *number),
        Value::Text(text) => write_sqlite_text(out, text),
        Value::Blob(bytes) => write_bytes(out, bytes),
    }
}

/// Reads what the writers above wrote, from bytes that nobody vouches for.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Ends the reading: nothing may be left.
    ///
    /// # Errors
    /// [`Malformed::Trailing`] if there is.
    pub fn finish(self) -> Result<(), Malformed> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(Malformed::Trailing(left)),
        }
    }

    fn peek(&self) -> Result<u8, Malformed> {
        self.bytes.get(self.at).copied().ok_or(Malformed::Truncated)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(len).ok_or(Malformed::OutOfBounds(len as u64))?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::Truncated)
    }

    fn unexpected(&self, expected: &'static str, found: u8) -> Malformed {
        Malformed::Unexpected { expected, found, at: self.at }
    }

    /// Reads a head; gives its major type and number.
    fn head(&mut self, expected: &'static str) -> Result<(u8, u64), Malformed> {
        let first = self.peek()?;
        let number = match first & 31 {
            small @ 0..=23 => {
                self.at += 1;
                u64::from(small)
            }
            24 => {
                self.at += 1;
                u64::from(u8::from_be_bytes(self.fixed()?))
            }
            25 => {
                self.at += 1;
                u64::from(u16::from_be_bytes(self.fixed()?))
            }
            26 => {
                self.at += 1;
                u64::from(u32::from_be_bytes(self.fixed()?))
            }
            27 => {
                self.at += 1;
                u64::from_be_bytes(self.fixed()?)
            }
            _ => return Err(self.unexpected(expected, first)),
        };
        Ok((first >> 5, number))
    }

    fn expect(&mut self, major: u8, expected: &'static str) -> Result<u64, Malformed> {
        let first = self.peek()?;
        if first >> 5 != major {
            return Err(self.unexpected(expected, first));
        }
        Ok(self.head(expected)?.1)
    }

    fn length(&mut self, major: u8, expected: &'static str) -> Result<usize, Malformed> {
        let length = self.expect(major, expected)?;
        // An item takes a byte at least, so no honest length exceeds what is left.
        match usize::try_from(length) {
            Ok(length) if length <= self.remaining() => Ok(length),
            _ => Err(Malformed::OutOfBounds(length)),
        }
    }

    /// Reads an unsigned number.
    ///
    /// # Errors
    /// When something else stands there.
    pub fn uint(&mut self) -> Result<u64, Malformed> {
        self.expect(UINT, "an unsigned number")
    }

    /// Reads an unsigned number that fits 32 bits.
    ///
    /// # Errors
    /// When something else stands there.
    pub fn uint32(&mut self) -> Result<u32, Malformed> {
        let number = self.uint()?;
        u32::try_from(number).map_err(|_| Malformed::OutOfBounds(number))
    }

    /// Reads a number below `bound`, to be used as an index.
    ///
    /// # Errors
    /// When something else stands there, or it is not below.
    pub fn index(&mut self, bound: usize) -> Result<usize, Malformed> {
        let number = self.uint()?;
        usize::try_from(number).ok().filter(|&index| index < bound).ok_or(Malformed::OutOfBounds(number))
    }

    /// Reads the head of an array and gives its length.
    ///
    /// # Errors
    /// When something else stands there.
    pub fn array(&mut self) -> Result<usize, Malformed> {
        self.length(ARRAY, "an array")
    }

    /// Reads the head of an array of just `len` items.
    ///
    /// # Errors
    /// When something else stands there.
    pub fn array_of(&mut self, len: usize) -> Result<(), Malformed> {
        let found = self.array()?;
        if found == len { Ok(()) } else { Err(Malformed::OutOfBounds(found as u64)) }
    }

    /// Reads a byte string.
    ///
    /// # Errors
    /// When something else stands there.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.length(BYTES, "a byte string")?;
        self.take(length)
    }

    /// Reads a byte string of just `N` bytes.
    ///
    /// # Errors
    /// When something else stands there.
    pub fn bytes_of<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.bytes()?;
        bytes.try_into().map_err(|_| Malformed::OutOfBounds(bytes.len() as u64))
    }

    /// Reads a text.
    ///
    /// # Errors
    /// When something else stands there.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.length(TEXT, "a text")?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Malformed::NotUtf8)
    }

    /// Reads a boolean.
    ///
    /// # Errors
    /// When something else stands there.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        let yes = match self.peek()? {
            FALSE => false,
            TRUE => true,
            other => return Err(self.unexpected("a boolean", other)),
        };
        self.at += 1;
        Ok(yes)
    }

    /// Reads a value with its storage class.
    ///
    /// # Errors
    /// When no value stands there.
    pub fn value(&mut self) -> Result<Value, Malformed> {
        let first = self.peek()?;
        match first >> 5 {
            UINT => {
                let number = self.uint()?;
                i64::try_from(number).map(Value::Integer).map_err(|_| Malformed::OutOfBounds(number))
            }
            NEGATIVE => {
                let number = self.expect(NEGATIVE, "a number")?;
                let number = i64::try_from(number).map_err(|_| Malformed::OutOfBounds(number))?;
                Ok(Value::Integer(!number))
            }
            BYTES => Ok(Value::Blob(self.bytes()?.to_vec())),
            TEXT => Ok(Value::Text(self.text()?.as_bytes().to_vec())),
            TAG => match self.expect(TAG, "a value")? {
                TAG_RAW_TEXT => Ok(Value::Text(self.bytes()?.to_vec())),
                other => Err(Malformed::OutOfBounds(other)),
            },
            _ if first == NULL => {
                self.at += 1;
                Ok(Value::Null)
            }
            _ if first == DOUBLE => {
                self.at += 1;
                Ok(Value::Real(f64::from_bits(u64::from_be_bytes(self.fixed()?))))
            }
            _ => Err(self.unexpected("a value", first)),
        }
    }

    /// Steps over one value without keeping it.
    ///
    /// # Errors
    /// When no value stands there.
    pub fn skip_value(&mut self) -> Result<(), Malformed> {
        let first = self.peek()?;
        match first >> 5 {
            UINT | NEGATIVE => self.head("a number").map(|_| ()),
            BYTES => self.bytes().map(|_| ()),
            TEXT => {
                let length = self.length(TEXT, "a text")?;
                self.take(length).map(|_| ())
            }
            TAG => {
                self.head("a value")?;
                self.bytes().map(|_| ())
            }
            _ if first == NULL => self.take(1).map(|_| ()),
            _ if first == DOUBLE => self.take(9).map(|_| ()),
            _ => Err(self.unexpected("a value", first)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests_support {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            any::<u64>().prop_map(|bits| Value::Real(f64::from_bits(bits))),
            any::<String>().prop_map(|text| Value::Text(text.into_bytes())),
            any::<Vec<u8>>().prop_map(Value::Text),
            any::<Vec<u8>>().prop_map(Value::Blob),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::tests_support::any_value;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_survives_the_wire(value in any_value()) {
            let mut out = Vec::new();
            write_value(&mut out, &value);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.value(), Ok(value));
            prop_assert_eq!(reader.finish(), Ok(()));
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.skip_value(), Ok(()));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn ciborium_reads_what_is_written(value in any_value()) {
            let mut out = Vec::new();
            write_value(&mut out, &value);
            let read: ciborium::Value = ciborium::from_reader(out.as_slice()).unwrap();
            let expected = match value {
                Value::Null => ciborium::Value::Null,
                Value::Integer(number) => ciborium::Value::Integer(number.into()),
                Value::Real(number) => {
                    prop_assert_eq!(read.as_float().map(f64::to_bits), Some(number.to_bits()));
                    return Ok(());
                }
                Value::Blob(bytes) => ciborium::Value::Bytes(bytes),
                Value::Text(text) => match String::from_utf8(text) {
                    Ok(text) => ciborium::Value::Text(text),
                    Err(raw) => ciborium::Value::Tag(TAG_RAW_TEXT, Box::new(ciborium::Value::Bytes(raw.into_bytes()))),
                },
            };
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
            let mut reader = Reader::new(&bytes);
            while reader.remaining() > 0 && reader.value().is_ok() {}
        }
    }

    #[test]
    fn a_length_beyond_the_bytes_is_refused_before_anything_is_allocated() {
        let mut reader = Reader::new(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert!(matches!(reader.array(), Err(Malformed::OutOfBounds(_))));
        let mut reader = Reader::new(&[0x5a, 0xff, 0xff, 0xff, 0xff, 1]);
        assert!(matches!(reader.bytes(), Err(Malformed::OutOfBounds(_))));
    }
}
