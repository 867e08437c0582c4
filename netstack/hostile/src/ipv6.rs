//! IPv6: N6, N22, N23.

use std::net::Ipv6Addr;

use crate::frames::{
    self, DNS6, ECHO, ETHERNET, FAR6, GATEWAY6, GUEST_MAC, GUEST6, STACK_MAC, TCP, UDP,
};
use crate::{Case, Noise, Step, frames_of};

/// The container's own link-local address.
pub(crate) const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x64);
const ICMPV6: u8 = 58;
/// Where the destination is in a packet.
const HEADER: usize = 40;

/// An IPv6 packet of the container.
#[derive(Debug, Clone)]
pub struct Ip6 {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub next_header: u8,
    pub hop_limit: u8,
    pub payload: Vec<u8>,
}

impl Ip6 {
    pub fn new(destination: Ipv6Addr, next_header: u8, payload: Vec<u8>) -> Self {
        Self {
            source: GUEST6,
            destination,
            next_header,
            hop_limit: 64,
            payload,
        }
    }

    /// A datagram.
    pub fn udp(port: u16, to: Ipv6Addr, at: u16, data: &[u8]) -> Self {
        let mut payload = port.to_be_bytes().to_vec();
        payload.extend(at.to_be_bytes());
        payload.extend(u16::try_from(8 + data.len()).unwrap().to_be_bytes());
        payload.extend([0, 0]);
        payload.extend(data);
        Self::new(to, UDP, payload).mended()
    }

    /// An ICMPv6 message that has not been passed on.
    pub fn icmp(to: Ipv6Addr, kind: u8, rest: &[u8]) -> Self {
        let mut payload = vec![kind, 0, 0, 0];
        payload.extend(rest);
        let packet = Self {
            hop_limit: 255,
            ..Self::new(to, ICMPV6, payload)
        };
        packet.mended()
    }

    /// With the checksum of its transport made anew, where it has one.
    #[must_use]
    pub fn mended(mut self) -> Self {
        let at = match self.next_header {
            UDP => 6,
            TCP => 16,
            ICMPV6 => 2,
            _ => return self,
        };
        if self.payload.len() < at + 2 {
            return self;
        }
        self.payload[at..at + 2].fill(0);
        let mut pseudo = [self.source.octets(), self.destination.octets()].concat();
        let len = u32::try_from(self.payload.len()).unwrap();
        pseudo.extend(len.to_be_bytes());
        pseudo.extend([0, 0, 0, self.next_header]);
        let sum = frames::checksum(&[&pseudo, &self.payload]);
        let sum = if sum == 0 { 0xffff } else { sum };
        self.payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        self
    }

    pub fn packet(&self) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(u16::try_from(self.payload.len()).unwrap().to_be_bytes());
        packet.extend([self.next_header, self.hop_limit]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(&self.payload);
        packet
    }

    pub fn frame(&self) -> Vec<u8> {
        let mut frame = frames::ethernet(0x86dd, &self.packet());
        if self.destination.is_multicast() {
            let [.., a, b, c, d] = self.destination.octets();
            frame[..6].copy_from_slice(&[0x33, 0x33, a, b, c, d]);
        }
        frame
    }
}

/// A payload length that is not that of the packet.
pub(crate) fn n06() -> Case {
    let mut out = Vec::new();
    let mut noise = Noise::new(6);
    for to in [GATEWAY6, DNS6, FAR6] {
        for packet in [
            Ip6::icmp(to, 128, &[0, 1, 0, 1, b'x', b'y', b'z']),
            Ip6::icmp(to, 129, &[0, 1, 0, 1]),
            Ip6::udp(1234, to, ECHO, b"payload"),
            Ip6::new(to, TCP, noise.bytes(20)),
            Ip6::new(to, 59, Vec::new()),
        ] {
            let len = u16::try_from(packet.payload.len()).unwrap();
            for claimed in [0, 1, 4, 7, 8, len, len + 1, len + 100, 1500, 65_535] {
                let mut frame = packet.frame();
                frame[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&claimed.to_be_bytes());
                out.push(frame.clone());
                // It says that it is IPv4.
                frame[12..14].copy_from_slice(&[8, 0]);
                out.push(frame);
            }
        }
    }
    for first in 0..=u8::MAX {
        let mut frame = Ip6::udp(1234, FAR6, ECHO, b"x").frame();
        frame[ETHERNET] = first;
        out.push(frame);
    }
    for protocol in [0, 6, 17, 43, 44, 50, 51, 58, 59, 60, 135, 139, 253] {
        for _ in 0..20 {
            out.push(Ip6::new(FAR6, protocol, noise.bytes(72)).frame());
        }
    }
    Case {
        number: 6,
        name: "IPv6 payload lengths",
        steps: frames_of(out),
    }
}

/// Neighbour discovery: options of every length, claims, what only routers say.
pub(crate) fn n22() -> Case {
    let mut out = Vec::new();
    let sources = [GUEST6, LINK_LOCAL, Ipv6Addr::UNSPECIFIED, GATEWAY6, FAR6];
    let groups: [Ipv6Addr; 4] = [
        "ff02::1".parse().unwrap(),
        "ff02::2".parse().unwrap(),
        "ff02::1:ff00:2".parse().unwrap(),
        GATEWAY6,
    ];
    // Router solicitation and advertisement, neighbour solicitation and
    // advertisement, redirect: bytes before their options.
    for (kind, fixed) in [(133, 4), (134, 12), (135, 20), (136, 20), (137, 36)] {
        let mut head = vec![0; fixed];
        if fixed >= 20 {
            head[4..20].copy_from_slice(&GATEWAY6.octets());
        }
        let mut bodies = Vec::new();
        for option in [1, 2, 3, 5, 24, 25, 31, 0, 255] {
            for len in [0, 1, 2, 3, 4, 31, 32, 255] {
                let mut body = head.clone();
                body.extend([option, len]);
                body.extend(GUEST_MAC);
                bodies.push(body);
            }
        }
        bodies.extend((0..=fixed).map(|len| head[..len].to_vec()));
        for body in &bodies {
            out.push(Ip6::icmp(groups[0], kind, body).frame());
        }
        for source in sources {
            for to in groups {
                for hop_limit in [255, 254] {
                    let message = Ip6 {
                        source,
                        hop_limit,
                        ..Ip6::icmp(to, kind, &head)
                    };
                    out.push(message.mended().frame());
                }
            }
        }
        // In a fragment of its own (RFC 6980).
        let whole = Ip6::icmp(groups[2], kind, &head);
        let mut payload = vec![ICMPV6, 0, 0, 0, 0, 0, 0, kind];
        payload.extend(&whole.payload);
        let fragment = Ip6 {
            next_header: 44,
            payload,
            ..whole
        };
        out.push(fragment.frame());
    }
    // A router of the container's own: prefix, MTU 0, DNS.
    let mut advertisement = vec![64, 0xc0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
    advertisement.extend([3, 4, 64, 0xc0, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0, 0]);
    advertisement.extend(FAR6.octets());
    advertisement.extend([5, 1, 0, 0, 0, 0, 0, 0]);
    let message = Ip6 {
        source: LINK_LOCAL,
        ..Ip6::icmp(groups[0], 134, &advertisement)
    };
    out.push(message.mended().frame());
    // Ten thousand neighbours.
    for n in 0..10_000_u16 {
        let mut source = GUEST6.octets();
        source[12..14].copy_from_slice(&n.to_be_bytes());
        let mut rest = vec![0; 4];
        rest.extend(DNS6.octets());
        rest.extend([1, 1]);
        rest.extend(GUEST_MAC);
        let message = Ip6 {
            source: source.into(),
            ..Ip6::icmp(groups[2], 135, &rest)
        };
        let mut frame = message.mended().frame();
        frame[6..8].copy_from_slice(&[2, 9]);
        out.push(frame);
        if n >= 100 && n % 100 != 0 {
            // From the container's own MAC: what is learnt is the last.
            let at = out.len() - 1;
            out[at][6..12].copy_from_slice(&GUEST_MAC);
        }
    }
    // The container has the last word.
    let mut rest = vec![0; 4];
    rest.extend(GATEWAY6.octets());
    out.push(Ip6::icmp(groups[2], 135, &rest).frame());
    let mut for_all = Ip6::icmp(groups[0], 133, &[0; 4]).frame();
    for_all[..6].copy_from_slice(&STACK_MAC);
    out.push(for_all);
    Case {
        number: 22,
        name: "neighbour discovery",
        steps: frames_of(out),
    }
}

/// Chains of extension headers.
pub(crate) fn n23() -> Case {
    let mut out = Vec::new();
    let datagram = Ip6::udp(1234, FAR6, ECHO, b"x").payload;
    let pad = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    for kind in [0, 43, 44, 51, 60, 135, 139, 140] {
        for count in 0..=64 {
            let mut payload = Vec::new();
            for n in 0..count {
                payload.extend(pad(if n + 1 < count { kind } else { UDP }));
            }
            payload.extend(&datagram);
            let first = if count == 0 { UDP } else { kind };
            out.push(Ip6::new(FAR6, first, payload).frame());
        }
        // As long as it says, longer than it says, longer than the packet.
        for len in [0, 1, 2, 31, 254, 255] {
            let mut payload = pad(UDP).to_vec();
            payload[1] = len;
            payload.extend(&datagram);
            out.push(Ip6::new(FAR6, kind, payload).frame());
        }
        for len in 0..8 {
            out.push(Ip6::new(FAR6, kind, pad(UDP)[..len].to_vec()).frame());
        }
    }
    // One of each in an order that nobody uses; options first, last, and twice.
    for chain in [
        &[0, 0][..],
        &[60, 0],
        &[43, 60, 0],
        &[0, 60, 43, 60],
        &[0, 43, 44, 60],
    ] {
        let mut payload = Vec::new();
        for (n, _) in chain.iter().enumerate() {
            payload.extend(pad(*chain.get(n + 1).unwrap_or(&UDP)));
        }
        payload.extend(&datagram);
        out.push(Ip6::new(FAR6, chain[0], payload).frame());
    }
    // Route headers: each type, segments left or not.
    for kind in [0, 1, 2, 3, 4, 255] {
        for left in [0, 1, 255] {
            let mut payload = vec![UDP, 2, kind, left, 0, 0, 0, 0];
            payload.extend(GATEWAY6.octets());
            payload.extend(&datagram);
            out.push(Ip6::new(FAR6, 43, payload).frame());
        }
    }
    // Options of every kind, a jumbogram among them (RFC 2675).
    for option in 0..=u8::MAX {
        for len in [0, 4, 5, 255] {
            let mut payload = vec![UDP, 0, option, len, 0, 1, 0, 0];
            payload.extend(&datagram);
            out.push(Ip6::new(FAR6, 0, payload).frame());
        }
    }
    let mut jumbo = Ip6::new(
        FAR6,
        0,
        [&[UDP, 0, 0xc2, 4, 0, 1, 0, 0][..], &datagram].concat(),
    )
    .frame();
    jumbo[ETHERNET + 4..ETHERNET + 6].fill(0);
    out.push(jumbo);
    // Atomic fragments (RFC 6946), alone and in each other; with extension headers.
    for depth in 1..5 {
        let mut payload = Vec::new();
        for n in 0..depth {
            payload.extend([if n + 1 < depth { 44 } else { UDP }, 0, 0, 0, 0, 0, 0, 7]);
        }
        payload.extend(&datagram);
        out.push(Ip6::new(FAR6, 44, payload).frame());
    }
    debug_assert!(out.iter().all(|frame| frame.len() >= ETHERNET + HEADER));
    Case {
        number: 23,
        name: "IPv6 extension headers",
        steps: out.into_iter().map(Step::Frame).collect(),
    }
}
