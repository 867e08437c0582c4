//! IPv4 headers, ports and checksums: N14, N32, N33.

use std::net::SocketAddrV4;

use crate::frames::{
    self, ACK, DNS, ECHO, FAR, FAR6, FIN, GATEWAY, GUEST, ICMP, Ip, RST, SYN, Segment, TCP, UDP,
};
use crate::ipv6::Ip6;
use crate::link::valid;
use crate::{Case, Step, frames_of};

/// Port 0 on either side, and on both.
pub(crate) fn n14() -> Case {
    let mut out = Vec::new();
    for (from, at) in [(0, 80), (80, 0), (0, 0), (0, 53)] {
        for to in [FAR, GATEWAY, DNS] {
            let to = SocketAddrV4::new(to, at);
            for flags in [SYN, ACK, SYN | ACK, FIN | ACK, RST] {
                out.push(Segment::new(from, to, flags, 1, 1).frame());
            }
            out.push(frames::udp(from, to, b"x"));
        }
        out.push(Ip6::udp(from, FAR6, at, b"x").frame());
        let mut segment = Segment::syn(from, SocketAddrV4::new(FAR, at)).segment();
        segment[16..18].fill(0);
        out.push(Ip6::new(FAR6, TCP, segment).mended().frame());
    }
    Case {
        number: 14,
        name: "port 0",
        steps: frames_of(out),
    }
}

/// Fields of the IPv4 header that are rarely used, and headers that are none.
pub(crate) fn n32() -> Case {
    let to = SocketAddrV4::new(FAR, ECHO);
    let mut out = Vec::new();
    for protocol in [UDP, TCP, ICMP] {
        let payload = match protocol {
            UDP => frames::udp_segment(GUEST, 1234, to, b"x"),
            TCP => Segment::new(1234, to, RST, 1, 0).segment(),
            _ => frames::icmp_message(8, 0, [0, 1, 0, 1], b"x"),
        };
        let base = Ip::new(FAR, protocol, payload);
        for ttl in [0, 1, 2, 255] {
            out.push(
                Ip {
                    ttl,
                    ..base.clone()
                }
                .frame(),
            );
        }
        for tos in [1, 2, 3, 0xff] {
            out.push(
                Ip {
                    tos,
                    ..base.clone()
                }
                .frame(),
            );
        }
        // The reserved bit, DF with a fragment, all of them.
        for fragment in [0x8000, 0xc000, 0x6000, 0x4001, 0xffff, 0xe000] {
            out.push(
                Ip {
                    fragment,
                    ..base.clone()
                }
                .frame(),
            );
        }
        for options in [
            // Loose and strict source routes, by the host's loopback.
            vec![131, 7, 4, 127, 0, 0, 1, 0],
            vec![137, 7, 4, 127, 0, 0, 1, 0],
            vec![7, 0, 0, 0],
            vec![68, 40, 5, 0],
            vec![148, 4, 0, 0],
            vec![1; 40],
            vec![0; 40],
            vec![0xff; 40],
            vec![131, 255, 4, 0],
        ] {
            out.push(
                Ip {
                    options,
                    ..base.clone()
                }
                .frame(),
            );
        }
        for first in 0..=u8::MAX {
            let mut packet = base.packet();
            packet[0] = first;
            let header = (usize::from(first & 15) * 4).clamp(20, packet.len());
            frames::fill_header_checksum(&mut packet[..header]);
            out.push(frames::ethernet(0x0800, &packet));
        }
        for total in [0, 1, 19, 20, 21, 27, 28, 100, 65_535_u16] {
            let mut packet = base.packet();
            packet[2..4].copy_from_slice(&total.to_be_bytes());
            frames::fill_header_checksum(&mut packet[..20]);
            out.push(frames::ethernet(0x0800, &packet));
        }
    }
    for (port, flags) in (2000..).zip([SYN | 0xc0, SYN | 0x40, SYN | 0x80, SYN]) {
        let syn = Segment {
            flags,
            ..Segment::syn(port, to)
        };
        let mut bytes = syn.segment();
        if flags == SYN {
            // Reserved bits (RFC 9293).
            bytes[12] |= 0x0f;
            frames::fill_checksum(&mut bytes, GUEST, FAR, TCP);
        }
        let packet = Ip {
            options: vec![1; 8],
            ..Ip::new(FAR, TCP, bytes)
        };
        out.push(packet.frame());
        out.push(Segment::new(port, to, RST, 1001, 0).frame());
    }
    Case {
        number: 32,
        name: "odd IPv4 headers",
        steps: frames_of(out),
    }
}

/// Checksums that are wrong, and a virtio header that says anything at all.
pub(crate) fn n33() -> Case {
    let to = SocketAddrV4::new(FAR, ECHO);
    let mut steps = Vec::new();
    for (protocol, mut segment, at) in [
        (TCP, Segment::syn(1234, to).segment(), 16),
        (UDP, frames::udp_segment(GUEST, 1234, to, b"x"), 6),
        (ICMP, frames::icmp_message(8, 0, [0; 4], b"x"), 2),
    ] {
        for bit in 0..16 {
            let (byte, bit) = (bit / 8, 1 << (bit % 8));
            segment[at + byte] ^= bit;
            steps.push(Step::Frame(Ip::new(FAR, protocol, segment.clone()).frame()));
            segment[at + byte] ^= bit;
            let mut frame = Ip::new(FAR, protocol, segment.clone()).frame();
            frame[14 + 10 + byte] ^= bit;
            steps.push(Step::Frame(frame));
        }
    }
    for packet in [
        Ip6::udp(1234, FAR6, ECHO, b"x"),
        Ip6::icmp(FAR6, 128, &[0, 1, 0, 1]),
    ] {
        for bit in 0..16 {
            let mut bad = packet.clone();
            let at = if bad.next_header == UDP { 6 } else { 2 };
            bad.payload[at + bit / 8] ^= 1 << (bit % 8);
            steps.push(Step::Frame(bad.frame()));
        }
    }
    let long = frames::udp(1234, to, &[7; 9000]);
    let all = valid().into_iter().chain([long]);
    let edges = [0_u16, 1, 0x7fff, 0xffff];
    for frame in all {
        for flags in [0_u8, 1, 2, 3, 0xff] {
            for gso in [0_u8, 1, 3, 4, 5, 0x80, 0x81, 0x85, 0xff] {
                for size in edges {
                    for other in edges {
                        let mut header = [0; 10];
                        header[0] = flags;
                        header[1] = gso;
                        header[2..4].copy_from_slice(&other.to_ne_bytes());
                        header[4..6].copy_from_slice(&size.to_ne_bytes());
                        header[6..8].copy_from_slice(&other.to_ne_bytes());
                        header[8..].copy_from_slice(&other.to_ne_bytes());
                        steps.push(Step::Virtio(header, frame.clone()));
                    }
                }
            }
        }
    }
    Case {
        number: 33,
        name: "wrong checksums and virtio headers",
        steps,
    }
}
