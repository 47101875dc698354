//! As much of CBOR as canonical keys need: where an item ends, and integers.

/// Splits the first item off `bytes`.
pub fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(item_len(bytes)?)
}

fn item_len(bytes: &[u8]) -> Option<usize> {
    let first = *bytes.first()?;
    // Half of all keys are integers below 24.
    if first < 24 {
        return Some(1);
    }
    let (number, head) = head(bytes)?;
    match first >> 5 {
        0 | 1 => Some(head),
        2 | 3 => head.checked_add(usize::try_from(number).ok()?),
        // A tag; what it marks is a byte string, never another tag.
        6 => {
            let rest = bytes.get(head..)?;
            if rest.first()? >> 5 != 2 {
                return None;
            }
            head.checked_add(item_len(rest)?)
        }
        // A simple value takes its one byte, a double eight more.
        7 => Some(head),
        _ => None,
    }
}

/// The number in an item's head, and the head's length.
fn head(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    match first & 31 {
        small @ 0..24 => Some((small.into(), 1)),
        24 => Some(((*bytes.get(1)?).into(), 2)),
        25 => Some((u16::from_be_bytes(*bytes.get(1..)?.first_chunk()?).into(), 3)),
        26 => Some((u32::from_be_bytes(*bytes.get(1..)?.first_chunk()?).into(), 5)),
        27 => Some((u64::from_be_bytes(*bytes.get(1..)?.first_chunk()?), 9)),
        _ => None,
    }
}

/// The integer this item is, if it is one.
pub fn integer(item: &[u8]) -> Option<i64> {
    let major = item.first()? >> 5;
    let number = i64::try_from(head(item)?.0).ok()?;
    match major {
        0 => Some(number),
        1 => Some(!number),
        _ => None,
    }
}

/// The text this item is, if it is one.
pub fn text(item: &[u8]) -> Option<&[u8]> {
    let is_text = item.first()? >> 5 == 3;
    item.get(head(item)?.1..).filter(|_| is_text)
}

/// The head of an item: its major type and number, in the shortest form.
pub fn write_head(major: u8, number: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    let wide = number.to_be_bytes();
    match number {
        0..24 => out.push(major | wide[7]),
        24..=0xff => out.extend([major | 24, wide[7]]),
        0x100..=0xffff => out.extend([major | 25, wide[6], wide[7]]),
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend(&wide[4..]);
        }
        _ => {
            out.push(major | 27);
            out.extend(wide);
        }
    }
}

/// An integer.
pub fn write_integer(number: i64, out: &mut Vec<u8>) {
    if number < 0 {
        write_head(1, !number.cast_unsigned(), out);
    } else {
        write_head(0, number.cast_unsigned(), out);
    }
}

/// A text.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    write_head(3, text.len() as u64, out);
    out.extend(text.as_bytes());
}
