//! What the container may reach: one pure function for every protocol.
//!
//! # Theory of operation
//!
//! Each new flow is put to [`Policy::decide`] with the destination that the
//! container wrote into its packet; the answer is where on the host side it
//! goes, or why not. Only the container's own packets are judged: the DNS
//! forwarder's upstreams are the owner's choice (a cloud's resolver may well be
//! a link-local address).
//!
//! Denied by default: the host's loopback, every address that the host itself
//! owns, 169.254.0.0/16 and the IPv6 addresses of cloud metadata services (RFC
//! 3927), 0.0.0.0/8, multicast, broadcast and reserved addresses (RFC 6890), and
//! the unused rest of the container's own network. IPv6 addresses that stand for
//! IPv4 ones (mapped, translated by NAT64) are judged as these.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::Ipv6Config;

use crate::flow::Protocol;

/// What is opened beyond the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// The gateway's address stands for 127.0.0.1 of the host.
    pub allow_host_loopback: bool,
    /// The host's own addresses are reachable.
    pub allow_host_addresses: bool,
    /// 169.254.0.0/16 and the addresses of metadata services are reachable.
    pub allow_link_local: bool,
}

/// Where a flow goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// To this host-side address.
    Host(SocketAddr),
    /// To the DNS forwarder.
    Dns,
    /// To one of our own addresses, where nothing answers that protocol and port.
    Closed,
    /// Nowhere.
    Denied(Reason),
}

/// Why a destination is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The host's loopback (through the gateway, 127.0.0.0/8 or ::1).
    HostLoopback,
    /// An address that the host owns.
    HostAddress,
    /// 169.254.0.0/16, fe80::/10, metadata services.
    LinkLocal,
    /// Multicast, broadcast, 0.0.0.0/8, 240.0.0.0/4, ::, mapped addresses, port 0.
    NotUnicast,
    /// The container's own network, but neither gateway nor DNS.
    NoSuchNeighbor,
}

/// The addresses that mean something to us, as [`Policy::decide`] needs them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) gateway: Ipv4Addr,
    pub(crate) dns: Ipv4Addr,
    pub(crate) network: u32,
    pub(crate) mask: u32,
    pub(crate) ipv6: Option<Ipv6Config>,
}

impl Addresses {
    /// Whether `address` belongs to the container's own network.
    pub(crate) fn is_inside(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => u32::from(address) & self.mask == self.network,
            IpAddr::V6(address) => self.ipv6.is_some_and(|own| own.has(address)),
        }
    }

    /// The gateway of the version of `address`.
    pub(crate) fn gateway_for(&self, address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V4(_) => Some(self.gateway.into()),
            IpAddr::V6(_) => self.ipv6.map(|own| own.gateway.into()),
        }
    }

    /// The DNS forwarder of the version of `address`.
    pub(crate) fn dns_for(&self, address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V4(_) => Some(self.dns.into()),
            IpAddr::V6(_) => self.ipv6.map(|own| own.dns.into()),
        }
    }
}

/// Metadata services: Amazon's and Google's.
const METADATA: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

impl Policy {
    /// Decides about one flow. `is_local` says whether the host owns an address.
    pub(crate) fn decide(
        &self,
        own: &Addresses,
        protocol: Protocol,
        to: SocketAddr,
        mut is_local: impl FnMut(IpAddr) -> bool,
    ) -> Verdict {
        let (address, port) = (to.ip(), to.port());
        if port == 0 && protocol != Protocol::Echo {
            return Verdict::Denied(Reason::NotUnicast);
        }
        if Some(address) == own.dns_for(address) {
            return match (protocol, port) {
                (Protocol::Tcp | Protocol::Udp, 53) => Verdict::Dns,
                _ => Verdict::Closed,
            };
        }
        if Some(address) == own.gateway_for(address) {
            let loopback = match address {
                IpAddr::V4(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::from(Ipv6Addr::LOCALHOST),
            };
            return if protocol == Protocol::Echo {
                Verdict::Closed
            } else if self.allow_host_loopback {
                Verdict::Host(SocketAddr::new(loopback, port))
            } else {
                Verdict::Denied(Reason::HostLoopback)
            };
        }
        if own.is_inside(address) {
            return Verdict::Denied(Reason::NoSuchNeighbor);
        }
        let reason = match address {
            IpAddr::V4(address) => self.refuses_v4(address),
            IpAddr::V6(address) => self.refuses_v6(address),
        };
        if let Some(reason) = reason {
            return Verdict::Denied(reason);
        }
        if !self.allow_host_addresses {
            let embedded = match address {
                IpAddr::V6(address) => translated(address).map(IpAddr::V4),
                IpAddr::V4(_) => None,
            };
            if is_local(address) || embedded.is_some_and(&mut is_local) {
                return Verdict::Denied(Reason::HostAddress);
            }
        }
        Verdict::Host(to)
    }

    fn refuses_v4(&self, address: Ipv4Addr) -> Option<Reason> {
        let first = address.octets()[0];
        if address.is_loopback() {
            Some(Reason::HostLoopback)
        } else if first == 0 || first >= 224 {
            Some(Reason::NotUnicast)
        } else if address.is_link_local() && !self.allow_link_local {
            Some(Reason::LinkLocal)
        } else {
            None
        }
    }

    fn refuses_v6(&self, address: Ipv6Addr) -> Option<Reason> {
        if address.is_loopback() {
            Some(Reason::HostLoopback)
        } else if address.is_unspecified()
            || address.is_multicast()
            || address.to_ipv4_mapped().is_some()
            || address.segments()[..6] == [0; 6]
        {
            Some(Reason::NotUnicast)
        } else if address.is_unicast_link_local()
            || METADATA.contains(&address) && !self.allow_link_local
        {
            Some(Reason::LinkLocal)
        } else {
            translated(address).and_then(|embedded| self.refuses_v4(embedded))
        }
    }
}

/// The IPv4 address that a NAT64 would send a packet for `address` to: under the
/// well-known prefix (RFC 6052, 2.1).
fn translated(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = address.segments() else {
        return None;
    };
    Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: Addresses = Addresses {
        gateway: Ipv4Addr::new(10, 0, 2, 2),
        dns: Ipv4Addr::new(10, 0, 2, 3),
        network: 0x0a00_0200,
        mask: 0xffff_ff00,
        ipv6: Some(Ipv6Config {
            container: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x64),
            gateway: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
            dns: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3),
        }),
    };

    fn decide(policy: Policy, protocol: Protocol, to: &str, local: bool) -> Verdict {
        policy.decide(&OWN, protocol, to.parse().unwrap(), |_| local)
    }

    #[test]
    fn default_reach() {
        let p = Policy::default();
        let denied = [
            ("10.0.2.2:80", Reason::HostLoopback),
            ("127.0.0.1:80", Reason::HostLoopback),
            ("127.8.9.1:80", Reason::HostLoopback),
            ("169.254.169.254:80", Reason::LinkLocal),
            ("0.0.0.0:80", Reason::NotUnicast),
            ("0.1.2.3:80", Reason::NotUnicast),
            ("224.0.0.1:80", Reason::NotUnicast),
            ("255.255.255.255:80", Reason::NotUnicast),
            ("240.1.1.1:80", Reason::NotUnicast),
            ("192.0.2.1:0", Reason::NotUnicast),
            ("10.0.2.77:80", Reason::NoSuchNeighbor),
            ("10.0.2.255:80", Reason::NoSuchNeighbor),
            ("[fd00::2]:80", Reason::HostLoopback),
            ("[::1]:80", Reason::HostLoopback),
            ("[::]:80", Reason::NotUnicast),
            ("[::127.0.0.1]:80", Reason::NotUnicast),
            ("[::ffff:127.0.0.1]:80", Reason::NotUnicast),
            ("[::ffff:198.51.100.1]:80", Reason::NotUnicast),
            ("[ff02::1]:80", Reason::NotUnicast),
            ("[fe80::1]:80", Reason::LinkLocal),
            ("[febf::1]:80", Reason::LinkLocal),
            ("[fd00:ec2::254]:80", Reason::LinkLocal),
            ("[fd20:ce::254]:80", Reason::LinkLocal),
            ("[64:ff9b::127.0.0.1]:80", Reason::HostLoopback),
            ("[64:ff9b::169.254.169.254]:80", Reason::LinkLocal),
            ("[fd00::77]:80", Reason::NoSuchNeighbor),
            ("[2001:db8::1]:0", Reason::NotUnicast),
        ];
        for (to, reason) in denied {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                assert_eq!(
                    decide(p, protocol, to, false),
                    Verdict::Denied(reason),
                    "{to}"
                );
            }
        }
        assert_eq!(
            decide(p, Protocol::Tcp, "192.0.2.1:80", true),
            Verdict::Denied(Reason::HostAddress)
        );
        assert_eq!(
            decide(p, Protocol::Tcp, "192.0.2.1:80", false),
            Verdict::Host("192.0.2.1:80".parse().unwrap())
        );
        assert_eq!(
            decide(p, Protocol::Tcp, "[2001:db8::1]:80", true),
            Verdict::Denied(Reason::HostAddress)
        );
        for to in [
            "[2001:db8::1]:80",
            "[64:ff9b::198.51.100.1]:80",
            "[fd00:0:0:1::2]:80",
        ] {
            assert_eq!(
                decide(p, Protocol::Tcp, to, false),
                Verdict::Host(to.parse().unwrap())
            );
        }
        assert_eq!(decide(p, Protocol::Udp, "10.0.2.3:53", false), Verdict::Dns);
        assert_eq!(
            decide(p, Protocol::Udp, "[fd00::3]:53", false),
            Verdict::Dns
        );
        assert_eq!(decide(p, Protocol::Tcp, "10.0.2.3:53", false), Verdict::Dns);
        assert_eq!(
            decide(p, Protocol::Tcp, "10.0.2.3:54", false),
            Verdict::Closed
        );
    }

    #[test]
    fn each_option_opens_only_its_own() {
        let loopback = Policy {
            allow_host_loopback: true,
            ..Policy::default()
        };
        assert_eq!(
            decide(loopback, Protocol::Tcp, "10.0.2.2:80", false),
            Verdict::Host("127.0.0.1:80".parse().unwrap())
        );
        assert_eq!(
            decide(loopback, Protocol::Tcp, "[fd00::2]:80", false),
            Verdict::Host("[::1]:80".parse().unwrap())
        );
        assert_eq!(
            decide(loopback, Protocol::Tcp, "127.0.0.1:80", false),
            Verdict::Denied(Reason::HostLoopback)
        );
        assert_eq!(
            decide(loopback, Protocol::Tcp, "192.0.2.1:80", true),
            Verdict::Denied(Reason::HostAddress)
        );
        let link_local = Policy {
            allow_link_local: true,
            ..Policy::default()
        };
        assert_eq!(
            decide(link_local, Protocol::Tcp, "169.254.169.254:80", false),
            Verdict::Host("169.254.169.254:80".parse().unwrap())
        );
        assert_eq!(
            decide(link_local, Protocol::Tcp, "169.254.169.254:80", true),
            Verdict::Denied(Reason::HostAddress)
        );
    }

    proptest! {
        /// Whatever the destination, a host socket is never aimed at loopback or a local
        /// address by default.
        #[test]
        fn never_at_the_host(
            address in prop_oneof![
                any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from(bits))),
                any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from(bits))),
                any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).to_ipv6_mapped().into()),
                any::<u32>().prop_map(|bits| {
                    IpAddr::from(Ipv6Addr::from(0x64_ff9b_u128 << 96 | u128::from(bits)))
                }),
            ],
            port: u16,
            local: bool,
        ) {
            let to = SocketAddr::new(address, port);
            let verdict = Policy::default().decide(&OWN, Protocol::Tcp, to, |_| local);
            if let Verdict::Host(at) = verdict {
                prop_assert_eq!(at, to);
                prop_assert!(!local && !at.ip().to_canonical().is_loopback() && port != 0);
            }
        }
    }
}
