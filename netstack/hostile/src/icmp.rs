//! ICMP errors of the container: N25.

use std::net::SocketAddrV4;

use crate::frames::{
    self, ACK, ECHO, FAR, FAR6, GATEWAY, GATEWAY6, GUEST, GUEST6, ICMP, Ip, RST, Segment, UDP,
};
use crate::ipv6::Ip6;
use crate::{Case, Step};

/// Errors about an open connection and other flows, whose quotes are short, forged, or
/// of somebody else.
pub(crate) fn n25() -> Case {
    let live = 1400;
    let far = SocketAddrV4::new(FAR, ECHO);
    let mut steps = vec![
        Step::Open(Segment::syn(live, far)),
        Step::Frame(frames::udp(1401, far, b"x")),
        Step::Frame(Ip6::udp(1401, FAR6, ECHO, b"x").frame()),
    ];
    // As if the far end had sent them.
    let quoted = |port: u16| {
        let segment = Segment {
            source: FAR,
            ..Segment::new(ECHO, SocketAddrV4::new(GUEST, port), ACK, 1, 1)
        };
        Ip {
            source: FAR,
            ..Ip::new(GUEST, frames::TCP, segment.segment())
        }
        .packet()
    };
    let datagram = frames::udp_segment(FAR, ECHO, SocketAddrV4::new(GUEST, 1402), b"x");
    let datagram = Ip {
        source: FAR,
        ..Ip::new(GUEST, UDP, datagram)
    };
    let mut reversed = quoted(live);
    reversed[12..20].rotate_left(4);
    let mut cut = quoted(live);
    cut[0] = 0x4f;
    let quotes = [
        quoted(live),
        // Another flow, which is not there.
        quoted(live + 5),
        datagram.packet(),
        reversed,
        cut,
    ];
    for (kind, codes) in [(3, 16), (4, 1), (5, 4), (11, 3), (12, 3)] {
        for code in 0..codes {
            for mtu in [0_u16, 1, 67, 68, 1280] {
                for quote in &quotes {
                    for len in [0, 8, 19, 20, 27, 28, quote.len()] {
                        let [a, b] = mtu.to_be_bytes();
                        let quote = &quote[..len.min(quote.len())];
                        let message = frames::icmp_message(kind, code, [0, 0, a, b], quote);
                        let to = if len % 2 == 0 { FAR } else { GATEWAY };
                        steps.push(Step::Frame(Ip::new(to, ICMP, message).frame()));
                    }
                }
            }
        }
    }
    // The same of IPv6.
    let quote = Ip6 {
        source: FAR6,
        destination: GUEST6,
        ..Ip6::udp(ECHO, GUEST6, 1402, b"x")
    };
    let quote = quote.packet();
    for kind in 1..=4 {
        for code in 0..8 {
            for mtu in [0_u32, 1, 1279, 1280, u32::MAX] {
                for len in [0, 8, 39, 40, 44, 47, 48, quote.len()] {
                    let rest = [&mtu.to_be_bytes()[..], &quote[..len]].concat();
                    let to = if len % 2 == 0 { FAR6 } else { GATEWAY6 };
                    let mut message = Ip6::icmp(to, kind, &rest);
                    message.payload[1] = code;
                    steps.push(Step::Frame(message.mended().frame()));
                }
            }
        }
    }
    let still = Segment::new(live, far, ACK, 1001, 0).with(b"still here");
    steps.push(Step::On(still));
    steps.push(Step::On(Segment::new(live, far, RST | ACK, 1011, 0)));
    Case {
        number: 25,
        name: "forged ICMP errors",
        steps,
    }
}
