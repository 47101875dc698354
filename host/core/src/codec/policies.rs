//! Policies as bytes, in an entry and by themselves.

use crate::cbor::{self, Malformed, Reader};
use crate::entry::{Bounds, OnFailure, Policy, Settings};

/// Policies as bytes, for a table of our own.
#[must_use]
pub fn encode_policies(policies: &[Policy]) -> Vec<u8> {
    let mut out = Vec::new();
    write_policies(&mut out, policies);
    out
}

/// Reads what [`encode_policies`] wrote.
///
/// # Errors
/// When the bytes are no policies.
pub fn decode_policies(bytes: &[u8]) -> Result<Vec<Policy>, Malformed> {
    let mut reader = Reader::new(bytes);
    let policies = read_policies(&mut reader)?;
    reader.finish()?;
    Ok(policies)
}

pub(super) fn write_policies(out: &mut Vec<u8>, policies: &[Policy]) {
    cbor::write_array(out, policies.len());
    for policy in policies {
        write_policy(out, policy);
    }
}

fn write_policy(out: &mut Vec<u8>, policy: &Policy) {
    cbor::write_array(out, 4);
    cbor::write_text(out, &policy.pattern);
    cbor::write_text(out, &policy.resolver);
    write_settings(out, &policy.settings);
    write_on_failure(out, policy.on_failure);
}

pub(super) fn write_settings(out: &mut Vec<u8>, settings: &Settings) {
    cbor::write_array(out, settings.len());
    for (name, value) in settings {
        cbor::write_array(out, 2);
        cbor::write_text(out, name);
        cbor::write_text(out, value);
    }
}

/// Nothing for stopping, the bounds for parking.
pub(super) fn write_on_failure(out: &mut Vec<u8>, on_failure: OnFailure) {
    let OnFailure::Park(bounds) = on_failure else { return cbor::write_array(out, 0) };
    let Bounds { fuel_base, fuel_per_item, fuel_per_byte, memory, returned, meter } = bounds;
    let numbers = [fuel_base, fuel_per_item, fuel_per_byte, memory, returned, u64::from(meter)];
    cbor::write_array(out, numbers.len());
    for number in numbers {
        cbor::write_uint(out, number);
    }
}

pub(super) fn read_policies(reader: &mut Reader<'_>) -> Result<Vec<Policy>, Malformed> {
    (0..reader.array()?).map(|_| read_policy(reader)).collect()
}

fn read_policy(reader: &mut Reader<'_>) -> Result<Policy, Malformed> {
    reader.array_of(4)?;
    Ok(Policy {
        pattern: reader.text()?.to_owned(),
        resolver: reader.text()?.to_owned(),
        settings: read_settings(reader)?,
        on_failure: read_on_failure(reader)?,
    })
}

pub(super) fn read_settings(reader: &mut Reader<'_>) -> Result<Settings, Malformed> {
    let count = reader.array()?;
    let setting = |_| {
        reader.array_of(2)?;
        Ok((reader.text()?.to_owned(), reader.text()?.to_owned()))
    };
    (0..count).map(setting).collect()
}

pub(super) fn read_on_failure(reader: &mut Reader<'_>) -> Result<OnFailure, Malformed> {
    match reader.array()? {
        0 => Ok(OnFailure::Stop),
        6 => Ok(OnFailure::Park(Bounds {
            fuel_base: reader.uint()?,
            fuel_per_item: reader.uint()?,
            fuel_per_byte: reader.uint()?,
            memory: reader.uint()?,
            returned: reader.uint()?,
            meter: reader.uint32()?,
        })),
        other => Err(Malformed::OutOfBounds(other as u64)),
    }
}
