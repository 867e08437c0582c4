//! Ethernet: N5, N24.

use std::net::SocketAddrV4;

use crate::frames::{
    self, ACK, DNS, ECHO, FAR, FAR6, GATEWAY, GATEWAY6, GUEST, GUEST_MAC, PSH, Segment,
};
use crate::ipv6::Ip6;
use crate::{Case, Noise, frames_of};

/// One valid frame of each kind.
pub fn valid() -> Vec<Vec<u8>> {
    let to = SocketAddrV4::new(FAR, ECHO);
    let mut syn = Segment::syn(900, to);
    syn.options = vec![
        2, 4, 5, 0xb4, 4, 2, 3, 3, 7, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0,
    ];
    let mut target = vec![0; 4];
    target.extend(GATEWAY6.octets());
    vec![
        syn.frame(),
        Segment::new(901, to, ACK | PSH, 1, 1)
            .with(b"payload")
            .frame(),
        frames::udp(902, to, b"payload"),
        frames::udp(903, SocketAddrV4::new(DNS, 53), &[0x12; 30]),
        frames::echo(GATEWAY, 1, 1, b"payload"),
        frames::echo(FAR, 1, 1, b"payload"),
        frames::arp(1, GUEST_MAC, GUEST, GATEWAY),
        Ip6::udp(904, FAR6, ECHO, b"payload").frame(),
        Ip6::icmp(GATEWAY6, 128, &[0, 1, 0, 1, b'x']).frame(),
        Ip6::icmp(GATEWAY6, 135, &target).frame(),
    ]
}

/// Every length of every type, and every beginning of every valid frame.
pub(crate) fn n05() -> Case {
    let mut out = Vec::new();
    let mut noise = Noise::new(5);
    for ethertype in [
        0x806, 0x800, 0x86dd, 0x8100, 0x88a8, 0x88f8, 0, 0x5dc, 0xffff, 0x1234,
    ] {
        for len in 0..=60 {
            for filling in 0..4 {
                let payload = match filling {
                    0 => vec![0; 60],
                    1 => vec![0xff; 60],
                    _ => noise.bytes(60),
                };
                let mut frame = frames::ethernet(ethertype, &payload);
                frame.truncate(len);
                out.push(frame);
            }
        }
    }
    for frame in valid() {
        out.extend((0..frame.len()).map(|len| frame[..len].to_vec()));
    }
    Case {
        number: 5,
        name: "short frames of every type",
        steps: frames_of(out),
    }
}

/// VLAN tags, one or two, and lengths in the place of types (IEEE 802.3).
pub(crate) fn n24() -> Case {
    let mut out = Vec::new();
    for frame in valid() {
        for tag in [0x8100_u16, 0x88a8] {
            for count in 1..4 {
                let mut tagged = frame[..12].to_vec();
                for _ in 0..count {
                    tagged.extend(tag.to_be_bytes());
                    tagged.extend([0, 5]);
                }
                out.push([&tagged[..], &frame[12..]].concat());
                // Nothing behind the tags.
                out.push(tagged);
            }
        }
        for length in [
            0,
            3,
            46,
            u16::try_from(frame.len() - 14).unwrap(),
            1500,
            1535,
        ] {
            let mut framed = frame[..12].to_vec();
            framed.extend(length.to_be_bytes());
            // LLC and SNAP, as for IP (RFC 1042).
            out.push([&framed[..], &[0xaa, 0xaa, 3, 0, 0, 0], &frame[12..]].concat());
            out.push([&framed[..], &frame[14..]].concat());
        }
    }
    Case {
        number: 24,
        name: "VLAN tags and lengths",
        steps: frames_of(out),
    }
}
