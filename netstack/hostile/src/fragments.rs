//! Fragments and long packets: N7, N8, N20, N29.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::frames::{self, ACK, ECHO, FAR, FAR6, GATEWAY, GUEST, ICMP, Ip, Segment, TCP, UDP};
use crate::ipv6::Ip6;
use crate::{Case, Noise, Step, frames_of};

const MORE: u16 = 0x2000;

/// One fragment for [`FAR`]; `at` in units of 8 bytes.
pub fn fragment(ident: u16, protocol: u8, at: u16, more: bool, data: &[u8]) -> Vec<u8> {
    to(FAR, ident, protocol, at, more, data)
}

fn to(to: Ipv4Addr, ident: u16, protocol: u8, at: u16, more: bool, data: &[u8]) -> Vec<u8> {
    Ip {
        ident,
        fragment: at | if more { MORE } else { 0 },
        ..Ip::new(to, protocol, data.to_vec())
    }
    .frame()
}

/// A datagram to [`ECHO`] in fragments of `size` bytes.
pub fn fragments(ident: u16, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let segment = frames::udp_segment(GUEST, 1234, SocketAddrV4::new(FAR, ECHO), payload);
    let count = segment.len().div_ceil(size);
    let pieces = segment.chunks(size).enumerate();
    pieces
        .map(|(n, data)| {
            let at = u16::try_from(n * size / 8).unwrap();
            fragment(ident, UDP, at, n + 1 < count, data)
        })
        .collect()
}

/// A fragment of an IPv6 packet; `at` in units of 8 bytes.
fn fragment6(ident: u32, protocol: u8, at: u16, more: bool, data: &[u8]) -> Vec<u8> {
    let mut payload = vec![protocol, 0];
    payload.extend(((at << 3) | u16::from(more)).to_be_bytes());
    payload.extend(ident.to_be_bytes());
    payload.extend(data);
    Ip6::new(FAR6, 44, payload).frame()
}

/// Fragments that overlap, repeat, come in no order, are tiny or empty, go beyond the
/// longest packet, contradict each other, or are alone.
pub(crate) fn n07() -> Case {
    let data = Noise::new(7).bytes(1400);
    let mut out = Vec::new();
    for protocol in [UDP, TCP, ICMP, 58, 0] {
        for (ident, at) in (0..).zip([0_u16, 1, 87, 174, 8191]) {
            for len in [0, 1, 8, 440, 1400] {
                let data = &data[..len];
                // One id for all protocols; the last comes first, twice; an overlap;
                // another that claims to be the last.
                for (at, more, data) in [
                    (at, at == 0, data),
                    (at, at == 0, data),
                    (at.saturating_sub(1), true, data),
                    (at.max(1), false, &data[..len / 2]),
                ] {
                    out.push(fragment(ident, protocol, at, more, data));
                    out.push(fragment6(ident.into(), protocol, at, more, data));
                }
            }
        }
    }
    // The single frame that has ended another stack.
    out.push(fragment(9, UDP, 87, false, &data[..440]));
    // All orders of three pieces, with one of them twice or an overlap at each place.
    let whole = fragments(0, &data, 480);
    for (n, order) in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ]
    .into_iter()
    .enumerate()
    {
        for twice in 0..3 {
            let ident = 100 + u16::try_from(n * 3 + twice).unwrap();
            for (place, piece) in order.into_iter().enumerate() {
                let mut frame = whole[piece].clone();
                frame[18..20].copy_from_slice(&ident.to_be_bytes());
                mend(&mut frame);
                out.push(frame.clone());
                if place == twice {
                    out.push(frame);
                    out.push(fragment(ident, UDP, 59, true, &data[..16]));
                }
            }
        }
    }
    // Every byte apart, the last one first; to the gateway; with the reserved bit.
    out.extend(
        (0..40)
            .rev()
            .map(|at| fragment(200, UDP, at, at < 39, &data[..8])),
    );
    out.extend((0..3).map(|at| to(GATEWAY, 201, ICMP, at, at < 2, &data[..8])));
    // More datagrams than anybody keeps, none of them ever whole.
    out.extend((0..2000).map(|ident| fragment(1000 + ident, UDP, 1, true, &data)));
    Case {
        number: 7,
        name: "overlapping, repeated, tiny and endless fragments",
        steps: frames_of(out),
    }
}

/// Makes the checksum of an IPv4 header again.
fn mend(frame: &mut [u8]) {
    let header = &mut frame[14..34];
    header[10..12].fill(0);
    let sum = frames::checksum(&[header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Fragments as long as packets can be, and sums beyond that.
pub(crate) fn n08() -> Case {
    let data = Noise::new(8).bytes(65_496);
    let mut out = Vec::new();
    for at in [0, 1, 8187, 8191] {
        for more in [true, false] {
            if at != 0 || more {
                out.push(fragment(1, UDP, at, more, &data));
            }
        }
    }
    for (ident, len) in (2..).zip([40, 48, 1480, 65_496]) {
        out.push(fragment(ident, UDP, 0, true, &data));
        out.push(fragment(ident, UDP, 8187, false, &data[..len]));
        out.push(fragment6(ident.into(), UDP, 0, true, &data[..65_000]));
        out.push(fragment6(
            ident.into(),
            UDP,
            8125,
            false,
            &data[..len.min(65_000)],
        ));
    }
    Case {
        number: 8,
        name: "huge fragments",
        steps: frames_of(out),
    }
}

/// One datagram that is never whole, and 1,000 that are.
pub(crate) fn n20() -> Case {
    let data = Noise::new(20).bytes(4000);
    let mut out = vec![fragments(0, &data, 1480).remove(0)];
    for ident in 1..=1000 {
        out.extend(fragments(ident, &data, 1480));
    }
    Case {
        number: 20,
        name: "one incomplete datagram among complete ones",
        steps: frames_of(out),
    }
}

/// Frames as long as they can be, whatever the link's MTU.
pub(crate) fn n29() -> Case {
    let data = Noise::new(29).bytes(65_507);
    let far = SocketAddrV4::new(FAR, ECHO);
    let mut steps = Vec::new();
    for len in [1472, 1473, 9000, 65_000, 65_492, 65_493, 65_507] {
        steps.push(Step::Frame(frames::udp(1234, far, &data[..len])));
        steps.push(Step::Frame(frames::echo(GATEWAY, 1, 1, &data[..len])));
        let len = len.min(65_495);
        steps.push(Step::Frame(
            Ip6::udp(1234, FAR6, ECHO, &data[..len]).frame(),
        ));
    }
    steps.push(Step::Open(Segment::syn(1150, far)));
    let whole = Segment::new(1150, far, ACK, 1001, 0).with(&data[..60_000]);
    steps.push(Step::On(whole));
    let end = Segment::new(1150, far, frames::RST | ACK, 61_001, 0);
    steps.push(Step::On(end));
    Case {
        number: 29,
        name: "frames longer than the link",
        steps,
    }
}
