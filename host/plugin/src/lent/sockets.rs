//! Addresses that a plugin may connect to: those of the names that were granted.
//!
//! The names are looked up here, each time an instance is made. A plugin may look up these names, hears of no other, and
//! connects to nothing but what they stood for; so nobody can lead it elsewhere, not even whoever answers for the name.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use wasmtime::component::{Linker, Resource};
use wasmtime::{Result, StoreContextMut};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{Host as _, ResolveAddressStream};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, Host as _, Network};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSocketsView as _};

use super::Lent;
use crate::error::Reason;

/// How long looking up a name may take.
const LOOK_UP: Duration = Duration::from_secs(5);

const LOOK_UPS: &str = "wasi:sockets/ip-name-lookup@0.2.12";

/// A server that a plugin may connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its name, or its address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// The first address that was refused, for whoever has to grant it.
pub(super) type Refused = Arc<Mutex<Option<SocketAddr>>>;

/// What the names stand for, while an instance lives.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach {
    found: Vec<(String, SocketAddr)>,
}

impl Reach {
    /// Looks up what was granted.
    pub(super) async fn of(sockets: &[Socket], private_networks: bool) -> Result<Self, Reason> {
        let mut found = Vec::new();
        for Socket { host, port } in sockets {
            let looked_up = timeout(LOOK_UP, tokio::net::lookup_host((host.as_str(), *port))).await;
            // A name that stands for nothing at the moment may stand for something later; the plugin hears of it.
            let Ok(Ok(addresses)) = looked_up else {
                tracing::debug!(host, "a name that a plugin may reach can't be looked up");
                continue;
            };
            for address in addresses {
                if !private_networks && is_private(address.ip()) {
                    return Err(Reason::Unlendable {
                        what: format!("a connection to `{host}:{port}`"),
                        why: format!(
                            "it is {}, an address of a private network or of this machine, and `private_networks` among \
                             its grants is not true",
                            address.ip()
                        ),
                    });
                }
                found.push((host.clone(), address));
            }
        }
        Ok(Self { found })
    }

    /// Lets a plugin connect to that, and to nothing else.
    pub(super) fn lend(&self, wasi: &mut WasiCtxBuilder, refused: &Refused) {
        let allowed: Vec<SocketAddr> = self.found.iter().map(|(_, address)| *address).collect();
        let refused = Arc::clone(refused);
        wasi.allow_tcp(true).allow_ip_name_lookup(true);
        wasi.socket_addr_check(move |address, used| {
            let fine = match used {
                // Whoever connects has an address of its own first.
                SocketAddrUse::TcpBind => address.port() == 0,
                SocketAddrUse::TcpConnect => allowed.contains(&address),
                _ => false,
            };
            if !fine {
                refused.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(address);
            }
            Box::pin(async move { fine })
        });
    }

    /// The address that a name stands for, if it is one that was granted. An address stands for itself.
    fn address(&self, name: &str) -> Option<IpAddr> {
        let found = self.found.iter().find(|(host, _)| host.eq_ignore_ascii_case(name));
        found.map(|(_, address)| address.ip()).or_else(|| name.parse().ok())
    }
}

/// Has names looked up among those that were granted, and never anywhere else.
pub(super) fn link(linker: &mut Linker<Lent>) -> Result<()> {
    linker.allow_shadowing(true);
    linker.instance(LOOK_UPS)?.func_wrap("resolve-addresses", look_up)?;
    linker.allow_shadowing(false);
    Ok(())
}

type Found = std::result::Result<Resource<ResolveAddressStream>, ErrorCode>;

fn look_up(mut store: StoreContextMut<'_, Lent>, (network, name): (Resource<Network>, String)) -> Result<(Found,)> {
    let lent = store.data_mut();
    let Some(address) = lent.reach.address(&name) else { return Ok((Err(ErrorCode::NameUnresolvable),)) };
    let mut sockets = lent.sockets();
    // An address is taken as it is: nobody is asked.
    match sockets.resolve_addresses(network, address.to_string()) {
        Ok(stream) => Ok((Ok(stream),)),
        Err(error) => Ok((Err(sockets.convert_error_code(error)?),)),
    }
}

/// Whether an address leads to this machine, or to a network that not everybody can reach.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_loopback()
                || address.is_private()
                || address.is_link_local()
                || address.is_unspecified()
                || address.is_broadcast()
                || address.is_multicast()
                || first == 0
                // Between providers and their customers.
                || (first == 100 && (64..128).contains(&second))
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unique_local()
                || address.is_unicast_link_local()
                || embedded(address).is_some_and(|inner| is_private(inner.into()))
        }
    }
}

/// The address of the older kind that some gateways find in one of the newer.
fn embedded(address: Ipv6Addr) -> Option<std::net::Ipv4Addr> {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        std::net::Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t12_private_addresses_are_known_as_such() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "100.64.0.1",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(is_private(address.parse().unwrap()), "{address}");
        }
        for address in ["1.1.1.1", "93.184.216.34", "100.63.0.1", "172.32.0.1", "2606:4700::1111", "64:ff9b::101:101"] {
            assert!(!is_private(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn t12_names_that_were_not_granted_stand_for_nothing() {
        let reach = Reach { found: vec![("Store.example.org".to_owned(), ([203, 0, 113, 9], 7).into())] };
        assert_eq!(reach.address("store.example.ORG"), Some([203, 0, 113, 9].into()));
        assert_eq!(reach.address("203.0.113.9"), Some([203, 0, 113, 9].into()));
        assert_eq!(reach.address("secret.attacker.example"), None);
        assert_eq!(reach.address(""), None);
    }
}
