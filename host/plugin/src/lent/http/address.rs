//! Addresses that are not everybody's: this machine, its neighbours, and services that tell secrets to whoever asks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is, if it is not everybody's.
pub(super) fn private(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => private_v4(address),
        IpAddr::V6(address) => match inner_v4(address) {
            Some(inner) => private_v4(inner),
            None => private_v6(address),
        },
    }
}

/// Whether somebody who writes this address down means it. The link-local ones, where clouds tell their secrets, nobody
/// keeps objects at.
pub(super) fn may_be_named(address: IpAddr) -> bool {
    matches!(private(address), Some(THIS | NEIGHBOURS))
}

const THIS: &str = "an address of this machine";
const NEIGHBOURS: &str = "an address of a private network";
const LINK: &str = "a link-local address";
const NOWHERE: &str = "an address of nobody in particular";

fn private_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [first, second, third, _] = address.octets();
    if address.is_loopback() || first == 0 {
        Some(THIS)
    } else if address.is_link_local() {
        Some(LINK)
    } else if address.is_private() || (first == 100 && second & 0xc0 == 64) || (first == 198 && second & 0xfe == 18) {
        Some(NEIGHBOURS)
    } else if address.is_multicast() || first >= 240 || (first == 192 && second == 0 && third == 0) {
        Some(NOWHERE)
    } else {
        None
    }
}

fn private_v6(address: Ipv6Addr) -> Option<&'static str> {
    let [first, ..] = address.segments();
    if address.is_loopback() || address.is_unspecified() {
        Some(THIS)
    } else if first & 0xffc0 == 0xfe80 {
        Some(LINK)
    } else if first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfec0 {
        // The metadata service of AWS has fd00:ec2::254, which is one of these.
        Some(NEIGHBOURS)
    } else if address.is_multicast() {
        Some(NOWHERE)
    } else {
        None
    }
}

/// The address of the older kind within one of the newer: mapped, compatible, translated or tunnelled.
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) => Some(of(g, h)),
        (0, 0, 0, 0, 0, 0) if g != 0 => Some(of(g, h)),
        (0x2002, high, low, ..) => Some(of(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t12_private_addresses_are_known() {
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "100.64.0.1",
            "169.254.169.254",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "::127.0.0.1",
        ] {
            assert!(private(text.parse().unwrap()).is_some(), "{text}");
        }
        for text in
            ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2001:db8::1", "2606:4700::1111", "::ffff:8.8.8.8"]
        {
            assert!(private(text.parse().unwrap()).is_none(), "{text}");
        }
    }
}
