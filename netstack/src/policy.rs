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
//! owns, 169.254.0.0/16 (cloud metadata services; RFC 3927), 0.0.0.0/8,
//! multicast, broadcast and reserved addresses (RFC 6890), and the unused rest
//! of the container's own network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::flow::Protocol;

/// What is opened beyond the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// The gateway's address stands for 127.0.0.1 of the host.
    pub allow_host_loopback: bool,
    /// The host's own addresses are reachable.
    pub allow_host_addresses: bool,
    /// 169.254.0.0/16 is reachable.
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
    /// The host's loopback (through the gateway or 127.0.0.0/8).
    HostLoopback,
    /// An address that the host owns.
    HostAddress,
    /// 169.254.0.0/16
    LinkLocal,
    /// Multicast, broadcast, 0.0.0.0/8, 240.0.0.0/4, port 0.
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
}

impl Policy {
    /// Decides about one flow. `is_local` says whether the host owns an address.
    pub(crate) fn decide(
        &self,
        own: &Addresses,
        protocol: Protocol,
        to: SocketAddr,
        is_local: impl FnOnce(IpAddr) -> bool,
    ) -> Verdict {
        let IpAddr::V4(address) = to.ip() else {
            return Verdict::Denied(Reason::NotUnicast);
        };
        let port = to.port();
        if port == 0 && protocol != Protocol::Echo {
            return Verdict::Denied(Reason::NotUnicast);
        }
        if address == own.dns {
            return match (protocol, port) {
                (Protocol::Tcp | Protocol::Udp, 53) => Verdict::Dns,
                _ => Verdict::Closed,
            };
        }
        if address == own.gateway {
            return if protocol == Protocol::Echo {
                Verdict::Closed
            } else if self.allow_host_loopback {
                Verdict::Host(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            } else {
                Verdict::Denied(Reason::HostLoopback)
            };
        }
        if address.is_loopback() {
            return Verdict::Denied(Reason::HostLoopback);
        }
        if address.octets()[0] == 0 || address.octets()[0] >= 224 {
            return Verdict::Denied(Reason::NotUnicast);
        }
        if u32::from(address) & own.mask == own.network {
            return Verdict::Denied(Reason::NoSuchNeighbor);
        }
        if address.is_link_local() && !self.allow_link_local {
            return Verdict::Denied(Reason::LinkLocal);
        }
        if !self.allow_host_addresses && is_local(IpAddr::V4(address)) {
            return Verdict::Denied(Reason::HostAddress);
        }
        Verdict::Host(to)
    }
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
        assert_eq!(decide(p, Protocol::Udp, "10.0.2.3:53", false), Verdict::Dns);
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
        fn never_at_the_host(address: u32, port: u16, local: bool) {
            let to = SocketAddr::from((Ipv4Addr::from(address), port));
            let verdict = Policy::default().decide(&OWN, Protocol::Tcp, to, |_| local);
            if let Verdict::Host(at) = verdict {
                prop_assert_eq!(at, to);
                prop_assert!(!local && !at.ip().is_loopback() && port != 0);
            }
        }
    }
}
