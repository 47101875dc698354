//! Values, rows, stamps and verdicts as case files write them.
//!
//! A row is its values joined by ` | `. A value is `NULL`, `1`, `1.0` (also `inf` and `-inf`), `'text'` with a quote
//! doubled, `x'00ff'` for a blob, and `t'00ff'` for a text by its bytes, which need not be UTF-8. What is printed can be
//! read again.

use antiphon_core::resolve::Verdict;
use antiphon_core::value::{Row, Value};
use std::fmt::{self, Write as _};

/// A row, as its notation.
#[derive(Debug)]
pub struct Shown<'a>(pub &'a [Value]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, value) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(" | ")?;
            }
            show(f, value)?;
        }
        Ok(())
    }
}

/// The same for the eye alone: long values are cut.
#[derive(Debug)]
pub struct Brief<'a>(pub &'a [Value]);

/// Most characters of a text, and most bytes of a blob, that are shown.
const SHORT: usize = 40;

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, value) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(" | ")?;
            }
            match value {
                Value::Text(bytes) if bytes.len() > SHORT => {
                    // A cut may go through a character, which must not make another kind of text of it.
                    let cut =
                        String::from_utf8_lossy(bytes).char_indices().nth(SHORT).map_or(bytes.len(), |(at, _)| at);
                    show(f, &Value::Text(bytes.iter().copied().take(cut).collect()))?;
                    write!(f, "… ({} bytes)", bytes.len())?;
                }
                Value::Blob(bytes) if bytes.len() > SHORT => {
                    show(f, &Value::Blob(bytes.iter().copied().take(SHORT).collect()))?;
                    write!(f, "… ({} bytes)", bytes.len())?;
                }
                value => show(f, value)?,
            }
        }
        Ok(())
    }
}

fn show(f: &mut fmt::Formatter<'_>, value: &Value) -> fmt::Result {
    match value {
        Value::Null => f.write_str("NULL"),
        Value::Integer(number) => write!(f, "{number}"),
        Value::Real(number) => write!(f, "{number:?}"),
        Value::Blob(bytes) => hex(f, 'x', bytes),
        Value::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if text.chars().all(is_plain) => write!(f, "'{}'", text.replace('\'', "''")),
            _ => hex(f, 't', bytes),
        },
    }
}

/// Neither a control character nor one that turns the direction of what follows.
fn is_plain(char: char) -> bool {
    !(char.is_control() || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
}

fn hex(f: &mut fmt::Formatter<'_>, prefix: char, bytes: &[u8]) -> fmt::Result {
    write!(f, "{prefix}'")?;
    for byte in bytes {
        write!(f, "{byte:02x}")?;
    }
    f.write_str("'")
}

/// A verdict, as its notation.
#[derive(Debug)]
pub struct ShownVerdict<'a>(pub &'a Verdict);

impl fmt::Display for ShownVerdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Verdict::Keep => f.write_str("keep"),
            Verdict::Take => f.write_str("take"),
            Verdict::Remove => f.write_str("remove"),
            Verdict::Merge(row) => write!(f, "merge {}", Shown(row)),
        }
    }
}

/// Reads a verdict.
///
/// # Errors
/// What is wrong with it.
pub fn verdict(text: &str) -> Result<Verdict, String> {
    match text.split_once(' ') {
        Some(("merge", merged)) => Ok(Verdict::Merge(row(merged)?)),
        _ => match text {
            "keep" => Ok(Verdict::Keep),
            "take" => Ok(Verdict::Take),
            "remove" => Ok(Verdict::Remove),
            _ => Err(format!("`{text}` is no verdict: write `keep`, `take`, `remove` or `merge ROW`")),
        },
    }
}

/// Reads a row.
///
/// # Errors
/// What is wrong with it.
pub fn row(text: &str) -> Result<Row, String> {
    let mut row = Row::new();
    let mut rest = text;
    loop {
        let (value, after) = value(rest)?;
        row.push(value);
        if after.is_empty() {
            return Ok(row);
        }
        rest = after.strip_prefix(" | ").ok_or_else(|| format!("` | ` belongs between values, found `{after}`"))?;
    }
}

/// Reads the first value, and gives what follows it.
fn value(text: &str) -> Result<(Value, &str), String> {
    for (prefix, make) in [("x'", Value::Blob as fn(Vec<u8>) -> Value), ("t'", Value::Text)] {
        if let Some(rest) = text.strip_prefix(prefix) {
            let (digits, rest) = rest.split_once('\'').ok_or_else(|| format!("`{text}` has no closing quote"))?;
            return Ok((make(bytes(digits)?), rest));
        }
    }
    if let Some(rest) = text.strip_prefix('\'') {
        return quoted(rest).ok_or_else(|| format!("`{text}` has no closing quote"));
    }
    let (word, rest) = text.find(" | ").map_or((text, ""), |at| text.split_at(at));
    let number = || word.parse().map(Value::Integer).or_else(|_| word.parse().map(Value::Real)).ok();
    let value = if word == "NULL" { Some(Value::Null) } else { number() };
    let value = value.ok_or_else(|| {
        format!("`{word}` is no value: write NULL, 1, 1.0, 'text', x'00' for a blob or t'ff' for a text by its bytes")
    })?;
    Ok((value, rest))
}

/// A text up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(Value, &str)> {
    let mut content = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('\'')?;
        content.push_str(part);
        let Some(doubled) = after.strip_prefix('\'') else { return Some((Value::Text(content.into_bytes()), after)) };
        content.push('\'');
        rest = doubled;
    }
}

fn bytes(digits: &str) -> Result<Vec<u8>, String> {
    let wrong = || format!("`{digits}` is no sequence of bytes: write two hexadecimal digits for each");
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return Err(wrong());
    }
    let pair = |at: usize| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..digits.len()).step_by(2).map(pair).collect::<Option<_>>().ok_or_else(wrong)
}

/// Every answer in a line of its own, bit for bit: what digests are taken of.
#[must_use]
pub fn exact(verdicts: &[Verdict]) -> String {
    let mut text = String::new();
    for verdict in verdicts {
        match verdict {
            Verdict::Keep => text.push_str("keep"),
            Verdict::Take => text.push_str("take"),
            Verdict::Remove => text.push_str("remove"),
            Verdict::Merge(row) => {
                text.push_str("merge");
                exact_row(&mut text, row);
            }
        }
        text.push('\n');
    }
    text
}

/// Every value of a row, bit for bit.
pub(super) fn exact_row(text: &mut String, row: &[Value]) {
    for value in row {
        // Writing to a String can't fail.
        let _ = match value {
            Value::Null => write!(text, " null"),
            Value::Integer(number) => write!(text, " integer {number}"),
            Value::Real(number) => write!(text, " real {:016x}", number.to_bits()),
            Value::Text(bytes) => write!(text, " text {bytes:02x?}"),
            Value::Blob(bytes) => write!(text, " blob {bytes:02x?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_again() {
        let whole = vec![
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Real(-0.0),
            Value::Real(f64::INFINITY),
            Value::Real(9_223_372_036_854_775_808.0),
            Value::from("it's | 'x'"),
            Value::from(""),
            Value::from("\u{1b}[31m"),
            Value::Text(vec![0xff]),
            Value::Blob(Vec::new()),
            Value::Blob(vec![0, 255]),
        ];
        let text = Shown(&whole).to_string();
        assert_eq!(row(&text).unwrap(), whole, "{text}");
        assert!(text.chars().all(is_plain), "{text}");
        let merged = Verdict::Merge(whole);
        assert_eq!(verdict(&ShownVerdict(&merged).to_string()).unwrap(), merged);
    }

    #[test]
    fn long_values_are_cut_for_the_eye() {
        let long = [Value::from("é".repeat(100).as_str()), Value::Blob(vec![7; 41]), Value::from("short")];
        let (text, blob) = ("é".repeat(SHORT), "07".repeat(SHORT));
        assert_eq!(Brief(&long).to_string(), format!("'{text}'… (200 bytes) | x'{blob}'… (41 bytes) | 'short'"));
    }

    #[test]
    fn what_is_no_row_is_said_to_be_none() {
        for wrong in ["", "x", "1|2", "'a", "'a'b", "x'0'", "x'0g'", "x'é'", "1 | ", "null"] {
            assert!(row(wrong).is_err(), "{wrong}");
        }
        assert!(verdict("merge").is_err());
        assert!(verdict("Keep").is_err());
    }
}
