//! IPv6 neighbour discovery (RFC 4861): we are the router of the container's link.
//!
//! # Theory of operation
//!
//! Solicitations for the gateway, the DNS forwarder and the router's link-local
//! address are answered; the container's own advertisements teach us nothing, as
//! its MAC is learnt from every frame. A router solicitation is answered with what
//! a host needs to configure itself: the prefix (RFC 4862), the MTU, the DNS
//! forwarder (RFC 8106), and that DHCPv6 has the same to say (RFC 8415). The
//! runtime configures the container without it, so nothing is announced
//! periodically.

use std::net::Ipv6Addr;

use smoltcp::wire::IpProtocol;

use crate::checksum::Sum;
use crate::host::Host;
use crate::ip::{self, Packet};
use crate::link::{Link, TxOffload};
use crate::policy::Addresses;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
/// Hop limit that shows that no router has passed a message on (RFC 4861, 3.1).
const HOP_LIMIT: u8 = 255;
/// All nodes of the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Longest router lifetime, seconds (RFC 8319).
const ROUTER_LIFETIME: u16 = u16::MAX;
/// As long as there is the link.
const INFINITE: [u8; 4] = [0xff; 4];
/// Longest message that we send, bytes.
const MAX_MESSAGE: usize = 16 + 8 + 8 + 32 + 24;

// Options.
const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;
const PREFIX_INFORMATION: u8 = 3;
const MTU: u8 = 5;
const RECURSIVE_DNS: u8 = 25;

/// The link-local address of the router with this MAC (RFC 4291, appendix A).
pub(crate) fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let word = |high, low| u16::from_be_bytes([high, low]);
    let interface = [word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f)];
    let [w, x, y, z] = interface;
    Ipv6Addr::new(0xfe80, 0, 0, 0, w, x, y, z)
}

/// Whether an ICMPv6 message is for this module.
pub(crate) fn is_ours(kind: u8) -> bool {
    (ROUTER_SOLICITATION..=REDIRECT).contains(&kind)
}

/// Whether a packet is a message of neighbour discovery.
pub(crate) fn is_message(packet: &Packet<'_>) -> bool {
    packet.protocol == IpProtocol::Icmpv6 && packet.payload.first().copied().is_some_and(is_ours)
}

/// A message of neighbour discovery from the container, its checksum verified.
pub(crate) fn input(own: &Addresses, link: &mut Link, packet: &Packet<'_>, host: &mut impl Host) {
    let (Some(v6), std::net::IpAddr::V6(source)) = (own.ipv6, packet.source) else {
        return;
    };
    let [kind, 0, _, _, body @ ..] = packet.payload else {
        return;
    };
    if packet.hop_limit != HOP_LIMIT {
        return;
    }
    let router = link_local(link.mac().0);
    match *kind {
        ROUTER_SOLICITATION if body.len() >= 4 => {
            let to = if source.is_unspecified() {
                ALL_NODES
            } else {
                source
            };
            let mut message = Message::new(ROUTER_ADVERTISEMENT);
            // Hop limit 64; other configuration by DHCPv6; reachable and
            // retransmission times as the host likes.
            message.put(&[64, 0x40]);
            message.put(&ROUTER_LIFETIME.to_be_bytes());
            message.put(&[0; 8]);
            message.link_address(SOURCE_LINK_ADDRESS, link);
            message.put(&[MTU, 1, 0, 0]);
            message.put(&u32::from(link.config.mtu).to_be_bytes());
            // On link, and for addresses of the host's own making.
            message.put(&[PREFIX_INFORMATION, 4, 64, 0xc0]);
            message.put(&INFINITE);
            message.put(&INFINITE);
            message.put(&[0; 4]);
            let [prefix @ .., _, _, _, _, _, _, _, _] = v6.gateway.octets();
            message.put(&prefix);
            message.put(&[0; 8]);
            message.put(&[RECURSIVE_DNS, 3, 0, 0]);
            message.put(&INFINITE);
            message.put(&v6.dns.octets());
            message.send(router, to, link, host);
        }
        NEIGHBOR_SOLICITATION => {
            let Some((target, _)) = body.get(4..).and_then(<[u8]>::split_first_chunk::<16>) else {
                return;
            };
            let target = Ipv6Addr::from(*target);
            if ![router, v6.gateway, v6.dns].contains(&target) {
                return;
            }
            // Somebody else tries our address (RFC 4862, 5.4): all are told that it is taken.
            let (to, solicited) = if source.is_unspecified() {
                (ALL_NODES, 0)
            } else {
                (source, 0x40)
            };
            let mut message = Message::new(NEIGHBOR_ADVERTISEMENT);
            // Router, (solicited,) override.
            message.put(&[0x80 | solicited | 0x20, 0, 0, 0]);
            message.put(&target.octets());
            message.link_address(TARGET_LINK_ADDRESS, link);
            message.send(target, to, link, host);
        }
        _ => {}
    }
}

/// A message under construction.
struct Message {
    bytes: [u8; ip::v6::HEADER_LEN + MAX_MESSAGE],
    len: usize,
}

impl Message {
    fn new(kind: u8) -> Self {
        let mut message = Self {
            bytes: [0; ip::v6::HEADER_LEN + MAX_MESSAGE],
            len: ip::v6::HEADER_LEN,
        };
        message.put(&[kind, 0, 0, 0]);
        message
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    fn link_address(&mut self, option: u8, link: &Link) {
        self.put(&[option, 1]);
        self.put(&link.mac().0);
    }

    fn send(mut self, from: Ipv6Addr, to: Ipv6Addr, link: &mut Link, host: &mut impl Host) {
        const START: usize = ip::v6::HEADER_LEN;
        let (len, protocol) = (self.len, IpProtocol::Icmpv6);
        ip::v6::emit(&mut self.bytes, len, from, to, protocol, HOP_LIMIT);
        let mut sum = Sum::pseudo_header(from.into(), to.into(), protocol.into(), len - START);
        let (head, message) = self.bytes.split_at_mut(START);
        let Some(message) = message.get_mut(..len - START) else {
            return;
        };
        sum.add(message);
        message[2..4].copy_from_slice(&sum.finish().to_be_bytes());
        link.transmit(host, TxOffload::Complete, head, [message, &[]]);
    }
}
