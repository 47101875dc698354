//! Components that have others in them.

const COMPONENT: u8 = 4;
const INSTANCE: u8 = 5;

/// Components so deep, one in the other.
pub fn nested(depth: usize) -> Vec<u8> {
    let empty = wat::parse_str("(component)").unwrap();
    // From the inside, the length of each: from the outside, what stands before it.
    let mut before = Vec::new();
    let mut len = empty.len();
    for _ in 0..depth {
        let mut head = vec![COMPONENT];
        push_size(&mut head, len);
        len += empty.len() + head.len();
        before.push(head);
    }
    let mut bytes = empty.clone();
    for head in before.iter().rev() {
        bytes.extend(head);
        bytes.extend(&empty);
    }
    bytes
}

/// A component that has another in it besides, and an instance of that.
pub fn around(outer: &[u8], inner: &[u8]) -> Vec<u8> {
    let mut bytes = outer.to_vec();
    let index = sections(&bytes).filter(|&id| id == COMPONENT).count();
    push_section(&mut bytes, COMPONENT, inner);
    // One instance, made of that component, with nothing to import.
    push_section(&mut bytes, INSTANCE, &[1, 0, u8::try_from(index).unwrap(), 0]);
    bytes
}

/// The same, of a component that has this in it.
pub fn around_text(outer: &[u8], inside: &str) -> Vec<u8> {
    around(outer, &wat::parse_str(format!("(component {inside})")).unwrap())
}

/// A core module called `$m`, and so many instances of it.
pub fn instances(module: &str, count: usize) -> String {
    format!("{module}{}", "(core instance (instantiate $m))".repeat(count))
}

/// What the sections of a component are.
fn sections(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = &bytes[8..];
    std::iter::from_fn(move || {
        let (&id, after) = rest.split_first()?;
        let digits = after.iter().position(|byte| byte < &0x80).unwrap() + 1;
        let size = after[..digits].iter().rev().fold(0, |sum, byte| sum << 7 | usize::from(byte & 0x7f));
        rest = &after[digits + size..];
        Some(id)
    })
}

fn push_section(bytes: &mut Vec<u8>, id: u8, content: &[u8]) {
    bytes.push(id);
    push_size(bytes, content.len());
    bytes.extend(content);
}

fn push_size(bytes: &mut Vec<u8>, mut size: usize) {
    loop {
        let [low, ..] = size.to_le_bytes();
        size >>= 7;
        if size == 0 {
            return bytes.push(low & 0x7f);
        }
        bytes.push(low | 0x80);
    }
}
