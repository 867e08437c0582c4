//! Whose address it is: N10, N21, N31.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use crate::frames::{
    self, ACK, BROADCAST_MAC, DNS, FAR, FAR6, GATEWAY, GATEWAY6, GUEST, GUEST_MAC, GUEST6, ICMP,
    Ip, Segment, TCP, UDP,
};
use crate::ipv6::{Ip6, LINK_LOCAL};
use crate::{Case, frames_of};

/// Each source with each destination.
pub(crate) fn n10() -> Case {
    let addresses: [Ipv4Addr; 14] = [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.0.1",
        "10.0.2.2",
        "10.0.2.3",
        "10.0.2.100",
        "10.0.2.101",
        "10.0.2.255",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "169.254.169.254",
        "198.18.1.1",
    ]
    .map(|address| address.parse().unwrap());
    let mut out = Vec::new();
    for source in addresses {
        for (port, to) in (1000..).zip(addresses) {
            for (at, flags) in [(80, frames::SYN), (81, ACK)] {
                let segment = Segment::new(port, SocketAddrV4::new(to, at), flags, 1, 1);
                out.push(Segment { source, ..segment }.frame());
            }
            let with_source = |protocol, payload| Ip {
                source,
                ..Ip::new(to, protocol, payload)
            };
            let datagram = frames::udp_segment(source, port, SocketAddrV4::new(to, 80), b"x");
            out.push(with_source(UDP, datagram.clone()).frame());
            out.push(with_source(ICMP, frames::icmp_message(8, 0, [0; 4], b"x")).frame());
            let mut piece = with_source(UDP, datagram);
            piece.fragment = 0x2000;
            out.push(piece.frame());
        }
    }
    let addresses: [Ipv6Addr; 12] = [
        "::",
        "::1",
        "fd00::2",
        "fd00::3",
        "fd00::64",
        "fe80::64",
        "ff02::1",
        "ff0e::1",
        "::ffff:127.0.0.1",
        "::ffff:198.18.1.1",
        "fd00:ec2::254",
        "2001:db8:1::1",
    ]
    .map(|address| address.parse().unwrap());
    for source in addresses {
        for to in addresses {
            let udp = Ip6::udp(1000, to, 80, b"x");
            let echo = Ip6::icmp(to, 128, &[0, 1, 0, 1]);
            let mut segment = Segment::syn(1000, SocketAddrV4::new(FAR, 80)).segment();
            segment[16..18].fill(0);
            for packet in [udp, echo, Ip6::new(to, TCP, segment)] {
                out.push(Ip6 { source, ..packet }.mended().frame());
            }
            out.push(
                Ip6 {
                    source,
                    ..Ip6::new(to, 44, vec![UDP, 0, 0, 1, 0, 0, 0, 1])
                }
                .frame(),
            );
        }
    }
    Case {
        number: 10,
        name: "each source with each destination",
        steps: frames_of(out),
    }
}

/// The container claims our addresses, announces itself, and is many.
pub(crate) fn n21() -> Case {
    let mut out = Vec::new();
    for operation in [0, 1, 2, 3, 8, 0xffff] {
        for sender in [
            GATEWAY,
            DNS,
            GUEST,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::BROADCAST,
            FAR,
        ] {
            for target in [GATEWAY, DNS, GUEST, Ipv4Addr::UNSPECIFIED] {
                out.push(frames::arp(operation, GUEST_MAC, sender, target));
            }
            out.push(frames::arp(operation, BROADCAST_MAC, sender, GATEWAY));
        }
    }
    // Kinds and lengths of addresses that are not those of Ethernet and IPv4.
    for at in 0..6 {
        for value in [0, 1, 5, 7, 16, 255] {
            let mut frame = frames::arp(1, GUEST_MAC, GUEST, GATEWAY);
            frame[frames::ETHERNET + at] = value;
            out.push(frame);
        }
    }
    out.extend((0..10_000_u16).map(|n| {
        let [a, b] = n.to_be_bytes();
        frames::arp(1, [2, 1, 1, 1, a, b], Ipv4Addr::new(10, 1, a, b), DNS)
    }));
    Case {
        number: 21,
        name: "ARP for others, and from ten thousand",
        steps: frames_of(out),
    }
}

/// Packets for many.
pub(crate) fn n31() -> Case {
    let mut out = Vec::new();
    for to in [
        "224.0.0.1",
        "224.0.0.22",
        "224.0.0.251",
        "239.255.255.250",
        "255.255.255.255",
        "10.0.2.255",
    ] {
        let to: Ipv4Addr = to.parse().unwrap();
        for mac in [frames::STACK_MAC, BROADCAST_MAC, [1, 0, 0x5e, 0, 0, 1]] {
            let mut frames = [
                frames::udp(1234, SocketAddrV4::new(to, 1900), b"x"),
                frames::echo(to, 1, 1, b"x"),
                Ip::new(to, 2, vec![0x11, 0, 0, 0, 224, 0, 0, 1]).frame(),
                Segment::syn(1, SocketAddrV4::new(to, 80)).frame(),
            ];
            for frame in &mut frames {
                frame[..6].copy_from_slice(&mac);
            }
            out.extend(frames);
        }
    }
    // What is for one, in a frame for all.
    let mut frame = frames::udp(1234, SocketAddrV4::new(DNS, 9), b"x");
    frame[..6].copy_from_slice(&BROADCAST_MAC);
    out.push(frame);
    for to in [
        "ff02::1", "ff02::2", "ff02::16", "ff02::fb", "ff05::2", "ff0e::1",
    ] {
        let to: Ipv6Addr = to.parse().unwrap();
        for source in [GUEST6, LINK_LOCAL, Ipv6Addr::UNSPECIFIED] {
            for packet in [
                Ip6::udp(1234, to, 5353, b"x"),
                Ip6::icmp(to, 128, &[0, 1, 0, 1]),
                Ip6::icmp(to, 143, &[0, 0, 0, 0]),
                Ip6::new(to, 99, vec![0; 8]),
            ] {
                out.push(Ip6 { source, ..packet }.mended().frame());
            }
        }
    }
    // Unicast in a group's frame, and the other way round.
    for to in [GATEWAY6, FAR6] {
        let mut frame = Ip6::udp(1234, to, 9, b"x").frame();
        frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
        out.push(frame);
    }
    Case {
        number: 31,
        name: "broadcast and multicast",
        steps: frames_of(out),
    }
}
