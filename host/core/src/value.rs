//! A value of SQLite, kept exactly as SQLite keeps it.

use std::fmt;

/// One value, with its storage class. No value is ever rewritten on its way from one file to another.
#[derive(Clone, Default)]
pub enum Value {
    /// NULL.
    #[default]
    Null,
    /// INTEGER.
    Integer(i64),
    /// REAL, bit for bit.
    Real(f64),
    /// TEXT as the bytes SQLite holds, which need not be UTF-8 and may contain NUL.
    Text(Vec<u8>),
    /// BLOB.
    Blob(Vec<u8>),
}

/// The values of one row, in the order of the columns they go with.
pub type Row = Vec<Value>;

impl Value {
    /// Bytes this value takes in memory or on the wire, roughly: what limits are counted in.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Null => 1,
            Self::Integer(_) | Self::Real(_) => 9,
            Self::Text(bytes) | Self::Blob(bytes) => bytes.len() + 5,
        }
    }

    /// The name SQLite's `typeof` gives.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Integer(_) => "integer",
            Self::Real(_) => "real",
            Self::Text(_) => "text",
            Self::Blob(_) => "blob",
        }
    }
}

// REAL is compared by its bits: -0.0 and 0.0 are two values to a checker of replication, and NaN equals itself.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Real(a), Self::Real(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Self::Text(b)) | (Self::Blob(a), Self::Blob(b)) => a == b,
            _ => false,
        }
    }
}
impl Eq for Value {}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As a person would write it in SQL.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Real(number) => write!(f, "{number:?}"),
            Self::Text(bytes) => write!(f, "'{}'", String::from_utf8_lossy(bytes).replace('\'', "''")),
            Self::Blob(bytes) => {
                f.write_str("x'")?;
                for byte in bytes {
                    write!(f, "{byte:02x}")?;
                }
                f.write_str("'")
            }
        }
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.as_bytes().to_vec())
    }
}
