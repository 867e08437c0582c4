//! UDP and what speaks it: N2, N3, N4, N11, N13, N15, N30.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::frames::{
    self, BROADCAST_MAC, DNS, DNS6, ECHO, FAR, FAR6, GATEWAY, GUEST, GUEST_MAC, Ip, Segment, UDP,
    fill_checksum,
};
use crate::ipv6::{Ip6, LINK_LOCAL};
use crate::{Case, Step, frames_of};

/// A message of a DHCP client (RFC 2131) with these options.
pub fn dhcp(options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[28..34].copy_from_slice(&GUEST_MAC);
    message.extend_from_slice(&[99, 130, 83, 99]);
    message.extend_from_slice(options);
    message
}

const DISCOVER: &[u8] = &[53, 1, 1, 61, 7, 1, 2, 0, 0, 0, 0, 0x64, 55, 3, 1, 3, 6, 255];
const REQUEST: &[u8] = &[53, 1, 3, 50, 4, 10, 0, 2, 100, 54, 4, 10, 0, 2, 2, 255];
/// A SOLICIT of DHCPv6 (RFC 8415): client id, IA_NA, elapsed time, option request.
const SOLICIT: &[u8] = &[
    1, 1, 2, 3, 0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 0x64, 0, 3, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 8, 0, 2, 0, 0, 0, 6, 0, 2, 0, 23,
];

/// A DHCP message by every way it may come.
fn dhcp_frames(message: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let ways = [
        (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST),
        (GUEST, Ipv4Addr::BROADCAST),
        (GUEST, GATEWAY),
        (Ipv4Addr::UNSPECIFIED, GATEWAY),
    ];
    ways.map(|(source, to)| {
        let payload = frames::udp_segment(source, 68, SocketAddrV4::new(to, 67), message);
        let packet = Ip {
            source,
            ..Ip::new(to, UDP, payload)
        };
        let mut frame = packet.frame();
        if to.is_broadcast() {
            frame[..6].copy_from_slice(&BROADCAST_MAC);
        }
        frame
    })
    .into_iter()
}

/// Every beginning of every message of DHCP and DHCPv6.
pub(crate) fn n02() -> Case {
    let mut steps = Vec::new();
    for options in [DISCOVER, REQUEST] {
        let whole = dhcp(options);
        for len in 0..=whole.len() {
            steps.extend(dhcp_frames(&whole[..len]).map(Step::Frame));
        }
    }
    let servers = "ff02::1:2".parse().unwrap();
    for kind in 0..=13 {
        let mut whole = SOLICIT.to_vec();
        whole[0] = kind;
        for len in 0..=whole.len() {
            let message = Ip6 {
                source: LINK_LOCAL,
                ..Ip6::udp(546, servers, 547, &whole[..len])
            };
            steps.push(Step::Frame(message.mended().frame()));
        }
    }
    Case {
        number: 2,
        name: "short messages of DHCP",
        steps,
    }
}

/// A length in the UDP header that is not that of the packet.
pub(crate) fn n03() -> Case {
    let to = SocketAddrV4::new(FAR, ECHO);
    let good = frames::udp_segment(GUEST, 1234, to, b"payload");
    let len = u16::try_from(good.len()).unwrap();
    let mut steps = Vec::new();
    for claimed in [0, 1, 7, 8, len - 1, len + 1, 65_535] {
        for checksum in [false, true] {
            let mut bad = good.clone();
            bad[4..6].copy_from_slice(&claimed.to_be_bytes());
            bad[6..8].fill(0);
            if checksum {
                fill_checksum(&mut bad, GUEST, FAR, UDP);
            }
            steps.push(Step::Frame(Ip::new(FAR, UDP, bad).frame()));
            let mut six = Ip6::udp(1234, FAR6, ECHO, b"payload");
            six.payload[4..6].copy_from_slice(&claimed.to_be_bytes());
            six.payload[6..8].fill(0);
            if checksum {
                six = six.mended();
            }
            steps.push(Step::Frame(six.frame()));
        }
    }
    Case {
        number: 3,
        name: "UDP lengths",
        steps,
    }
}

/// TFTP, which is not served.
pub(crate) fn n04() -> Case {
    let mut steps = Vec::new();
    let request = b"\0\x01../../../../etc/passwd\0octet\0";
    for to in [GATEWAY, DNS] {
        for len in (0..4).chain([request.len()]) {
            let to = SocketAddrV4::new(to, 69);
            steps.push(Step::Frame(frames::udp(1234, to, &request[..len])));
        }
    }
    Case {
        number: 4,
        name: "TFTP",
        steps,
    }
}

/// Datagrams without payload, which come back.
pub(crate) fn n11() -> Case {
    let to = SocketAddrV4::new(FAR, ECHO);
    let both = (1000..1100).flat_map(|port| {
        [
            frames::udp(port, to, b""),
            Ip6::udp(port, FAR6, ECHO, b"").frame(),
        ]
    });
    Case {
        number: 11,
        name: "empty datagrams",
        steps: frames_of(both),
    }
}

/// A question for an address.
fn query(id: u16, name: &[u8]) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.push(u8::try_from(name.len()).unwrap());
    message.extend(name);
    message.extend([4, b't', b'e', b's', b't', 0, 0, 1, 0, 1]);
    message
}

/// The DNS forwarder by other ports and protocols, asked what is no question, and asked
/// ten thousand times.
pub(crate) fn n13() -> Case {
    let good = query(7, b"host");
    let at = SocketAddrV4::new(DNS, 53);
    let mut steps = Vec::new();
    for port in (1..=u16::MAX).filter(|port| *port != 53) {
        let to = SocketAddrV4::new(DNS, port);
        steps.push(Step::Frame(frames::udp(1234, to, &good)));
    }
    for port in [1, 22, 54, 80, 443, 853, 5353, 65_535] {
        let syn = Segment::syn(1235, SocketAddrV4::new(DNS, port));
        steps.push(Step::Frame(syn.frame()));
    }
    // Every beginning of a question, every byte of it changed, and worse.
    for len in 0..good.len() {
        steps.push(Step::Frame(frames::udp(1236, at, &good[..len])));
        for bits in [1, 0x80, 0xc0, 0xff] {
            let mut odd = good.clone();
            odd[len] ^= bits;
            steps.push(Step::Frame(frames::udp(1236, at, &odd)));
        }
    }
    let mut pointers = good[..12].to_vec();
    pointers.extend([0xc0, 12, 0, 1, 0, 1]);
    let mut long = good[..12].to_vec();
    long.extend([&[63][..], &[b'x'; 63]].concat().repeat(20));
    for message in [pointers, long, vec![0xff; 1400]] {
        steps.push(Step::Frame(frames::udp(1236, at, &message)));
    }
    for id in 0..10_000 {
        let port = 2000 + id % 5000;
        steps.push(Step::Frame(frames::udp(port, at, &query(id, b"host"))));
    }
    // The same for the forwarder's other address.
    for port in [52, 53, 54] {
        steps.push(Step::Frame(Ip6::udp(1237, DNS6, port, &good).frame()));
    }
    Case {
        number: 13,
        name: "the DNS forwarder's other ports, odd questions, many questions",
        steps,
    }
}

/// Options of DHCP of every kind, anywhere, of any length.
pub(crate) fn n15() -> Case {
    let mut messages = Vec::new();
    for code in 0..=u8::MAX {
        for len in [0, 1, 255] {
            messages.push(dhcp(&[53, 1, 1, 0, code, len, 255]));
            messages.push(dhcp(&[code, len, 53, 1, 1, 255]));
        }
        messages.push(dhcp(&[53, 1, 1, code]));
        // Message types.
        messages.push(dhcp(&[53, 1, code, 255]));
    }
    for options in [
        &[][..],
        &[255],
        &[0, 0, 0],
        &[53],
        &[53, 0, 255],
        &[255, 53, 1, 1],
        &[255, 9, 53, 1, 1],
        // Overload: what follows is in the fields of names.
        &[53, 1, 1, 52, 1, 1, 255],
        &[53, 1, 1, 52, 1, 2, 255],
        &[53, 1, 1, 52, 1, 3, 255],
        &[52, 1, 3, 255],
    ] {
        messages.push(dhcp(options));
        let mut filled = dhcp(options);
        // `sname` and `file` with options of their own that have no end.
        filled[44..236].fill(53);
        messages.push(filled);
    }
    // Operation, hardware type, its length, hops, the relay's address, the cookie.
    for (at, values) in [
        (0, &[0, 2, 255][..]),
        (1, &[0, 6, 255]),
        (2, &[0, 5, 7, 16, 17, 255]),
        (3, &[1, 16, 255]),
        (24, &[10, 255]),
        (236, &[0, 98]),
        (239, &[0, 98]),
    ] {
        for &value in values {
            let mut message = dhcp(DISCOVER);
            message[at] = value;
            messages.push(message);
        }
    }
    let frames = messages
        .iter()
        .flat_map(|message| dhcp_frames(message).take(2));
    Case {
        number: 15,
        name: "DHCP options and fields",
        steps: frames_of(frames),
    }
}

/// One datagram to each port.
pub(crate) fn n30() -> Case {
    let to = (1..=u16::MAX).map(|port| SocketAddrV4::new(FAR, port));
    let mut steps = frames_of(to.map(|to| frames::udp(1000, to, b"x")));
    // And from so many ports, each of which needs a socket.
    let to = SocketAddrV4::new(FAR, ECHO);
    steps.extend(frames_of(
        (2000..20_000).map(|port| frames::udp(port, to, b"x")),
    ));
    Case {
        number: 30,
        name: "UDP to and from many ports",
        steps,
    }
}
