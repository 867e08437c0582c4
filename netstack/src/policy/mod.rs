//! What the container may reach: one pure function for every protocol.
//!
//! # Theory of operation
//!
//! Each new flow is put to [`Policy::decide`] with the destination that the
//! container wrote into its packet; the answer is where on the host side it
//! goes, or why not. Each name that it asks for is put to [`Policy::decide_name`].
//! Only what the container itself begins is judged: the DNS forwarder's upstreams
//! and published ports are the owner's choice (a cloud's resolver may well be a
//! link-local address), and what is sent back belongs to the flow that it answers.
//!
//! The order in which a flow is judged; the first that says something counts:
//!
//! 1. Our own addresses: the DNS forwarder's, the gateway's.
//! 2. What is **denied by itself**: the host's loopback, every address that the host
//!    itself owns, 169.254.0.0/16 and the IPv6 addresses of cloud metadata services
//!    (RFC 3927), 0.0.0.0/8, multicast, broadcast and reserved addresses (RFC 6890),
//!    and the unused rest of the container's own network. Options open some of it;
//!    no rule does, whatever it names: what the host owns differs from host to host,
//!    and an answer to a name must not open it (DNS rebinding).
//! 3. **Rules that deny**, in any order.
//! 4. **Rules that allow**, in any order. One about a name allows the addresses that
//!    the container has been told for that name ([`pins`]).
//! 5. The default.
//!
//! IPv6 addresses that stand for IPv4 ones (mapped, translated by NAT64) are judged
//! as these; a rule that denies them as they are written counts, too.
//!
//! [`enforce`] does what is decided here: it asks, tells what was refused, and ends
//! flows when the rules change.

mod enforce;
mod name;
pub(crate) mod pins;
mod rule;
mod rules;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::Ipv6Config;
use crate::flow::Protocol;

pub use enforce::{Attempt, Refusal};
pub(crate) use enforce::{Egress, QueryVerdict};
pub use name::Name;
pub use rule::{InvalidRule, Rule};
pub use rules::{Action, Rules};

/// What is opened beyond the default, and what is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The gateway's address stands for 127.0.0.1 of the host.
    pub allow_host_loopback: bool,
    /// The host's own addresses are reachable.
    pub allow_host_addresses: bool,
    /// 169.254.0.0/16 and the addresses of metadata services are reachable.
    pub allow_link_local: bool,
    /// The rules about all else.
    pub rules: Rules,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// The rule at this place of those that deny.
    Rule(usize),
    /// No rule allows it, and the default is to deny.
    NoRule,
    /// A query that cannot be judged: of another operation, with other than one
    /// question, or with records that no query needs.
    OddQuery,
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
    /// Decides about one flow. `names` are those that the container has been told the
    /// address of ([`judged_as`]); `is_local` says whether the host owns an address.
    pub(crate) fn decide<'n>(
        &self,
        own: &Addresses,
        protocol: Protocol,
        to: SocketAddr,
        names: impl Iterator<Item = &'n Name>,
        is_local: impl FnMut(IpAddr) -> bool,
    ) -> Verdict {
        match self.decide_by_itself(own, protocol, to, is_local) {
            Verdict::Host(at) => match self.rules.judge(protocol, to, names) {
                Some(reason) => Verdict::Denied(reason),
                None => Verdict::Host(at),
            },
            decided => decided,
        }
    }

    /// Decides about a name that is asked for; why it is refused.
    pub(crate) fn decide_name(&self, name: &Name) -> Option<Reason> {
        self.rules.judge_name(name)
    }

    /// What is decided before any rule.
    fn decide_by_itself(
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

/// The address that rules are about when a packet is for this one.
pub(crate) fn judged_as(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped().or_else(|| translated(v6)) {
            Some(v4) => v4.into(),
            None => address,
        },
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
mod tests;
