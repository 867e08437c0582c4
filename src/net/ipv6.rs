//! Whether a container has IPv6, and which network.
//!
//! # Theory of operation
//!
//! The container has IPv6 when the host has: an address of global scope (a unique
//! local one is of that scope, too) on an interface other than `lo`. Its network is
//! the first of fd00::/64, fd00:0:0:1::/64, ... that nothing of the host's is in: an
//! address that meant something on the host could not be reached any more.

use std::net::Ipv6Addr;
use std::{fs, io};

use crate::config::{BuiltinNetwork, Ipv6Mode};
use crate::error::Error;

/// proc(5): addresses and routes of the current network namespace.
const ADDRESSES: &str = "/proc/net/if_inet6";
const ROUTES: &str = "/proc/net/ipv6_route";
/// Least MTU of a link with IPv6 (RFC 8200, 5).
const MIN_MTU: u16 = 1280;
/// Scope of an address of a host at large, in [`ADDRESSES`].
const SCOPE_GLOBAL: u8 = 0;

/// Fills in the IPv6 network, or leaves it out. Changes nothing on the host.
///
/// # Errors
/// IPv6 was asked for and cannot be had.
pub fn choose(network: &mut BuiltinNetwork) -> Result<(), Error> {
    let wanted = match network.ipv6 {
        Ipv6Mode::Off => false,
        Ipv6Mode::On => true,
        Ipv6Mode::Auto => network.mtu >= MIN_MTU && has_ipv6(&read(ADDRESSES)?),
    };
    if !wanted {
        network.network6 = None;
        return Ok(());
    }
    if network.mtu < MIN_MTU {
        return Err(Error::Usage(format!(
            "--net: enable_ipv6=true needs an MTU of at least {MIN_MTU}, not {}",
            network.mtu
        )));
    }
    if network.network6.is_none() {
        network.network6 = Some(unused(&read(ROUTES)?));
    }
    Ok(())
}

/// Whether the host has IPv6, as a container is to have it.
///
/// # Errors
/// Its addresses cannot be read.
pub fn host_has() -> Result<bool, Error> {
    Ok(has_ipv6(&read(ADDRESSES)?))
}

/// The text of a file; empty when there is none, as where the kernel has no IPv6.
fn read(path: &str) -> Result<String, Error> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|error| Error::host("read the host's IPv6 addresses", error)),
    }
}

/// Whether a line of [`ADDRESSES`] (address, index, prefix length, scope, flags,
/// name) is of an address that others can reach.
fn has_ipv6(addresses: &str) -> bool {
    addresses.lines().any(|line| {
        let mut words = line.split_ascii_whitespace().skip(3);
        let scope = words
            .next()
            .and_then(|scope| u8::from_str_radix(scope, 16).ok());
        scope == Some(SCOPE_GLOBAL) && words.nth(1).is_some_and(|name| name != "lo")
    })
}

/// The first network that no line of [`ROUTES`] (destination, prefix length, ...)
/// touches; the default route touches none.
fn unused(routes: &str) -> Ipv6Addr {
    let taken: Vec<(u128, u32)> = routes
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let destination = u128::from_str_radix(words.next()?, 16).ok()?;
            let length = u32::from_str_radix(words.next()?, 16).ok()?;
            (length > 0).then_some((destination, length))
        })
        .collect();
    let network = |n: u16| Ipv6Addr::new(0xfd00, 0, 0, n, 0, 0, 0, 0);
    let free = |candidate: &Ipv6Addr| {
        taken.iter().all(|(destination, length)| {
            let shift = 128 - (*length).min(64);
            u128::from(*candidate) >> shift != destination >> shift
        })
    };
    (0..=u16::MAX)
        .map(network)
        .find(free)
        .unwrap_or(network(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_has() {
        let lo = "00000000000000000000000000000001 01 80 10 80       lo\n";
        let link = "fe80000000000000505500fffe000001 02 40 20 80     eth0\n";
        let global = "20010db8000000000000000000000001 02 40 00 80     eth0\n";
        assert!(!has_ipv6(""));
        assert!(!has_ipv6(&[lo, link].concat()));
        assert!(has_ipv6(&[lo, link, global].concat()));
        assert!(!has_ipv6(&global.replace("eth0", "lo")));
    }

    #[test]
    fn nothing_of_the_hosts() {
        let route = |destination: &str, length: u8| {
            let hex = u128::from(destination.parse::<Ipv6Addr>().unwrap());
            format!(
                "{hex:032x} {length:02x} {:032x} 00 {:032x} 0 0 0 1 eth0\n",
                0, 0
            )
        };
        let chosen = |routes: &[String]| unused(&routes.concat()).to_string();
        assert_eq!(chosen(&[]), "fd00::");
        assert_eq!(chosen(&[route("::", 0), route("fe80::", 64)]), "fd00::");
        assert_eq!(chosen(&[route("fd00::", 64)]), "fd00:0:0:1::");
        assert_eq!(chosen(&[route("fd00::7", 128)]), "fd00:0:0:1::");
        assert_eq!(
            chosen(&[route("fd00::", 63), route("fd00:0:0:3::", 64)]),
            "fd00:0:0:2::"
        );
    }
}
