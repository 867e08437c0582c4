//! Ethernet, ARP and what is not for us.

use std::net::Ipv4Addr;

use smoltcp::time::Duration;

use super::frames::{self, BROADCAST_MAC, DNS, GATEWAY, GUEST, GUEST_MAC, Ip, STACK_MAC, Seen};
use super::guest::remote;
use super::host::Outcome;
use super::world::{World, links, odd_protocol};

const OTHER_MAC: [u8; 6] = [2, 9, 9, 9, 9, 9];

fn arp_reply(address: Ipv4Addr, to_mac: [u8; 6], to: Ipv4Addr) -> Seen {
    Seen::ArpReply {
        mac: STACK_MAC,
        address,
        to_mac,
        to,
    }
}

#[test]
fn arp_answers_for_our_addresses() {
    for link in links() {
        let mut w = World::new(link);
        for address in [GATEWAY, DNS] {
            w.send(&frames::arp(1, GUEST_MAC, GUEST, address));
            assert_eq!(w.take(), [arp_reply(address, GUEST_MAC, GUEST)]);
        }
        // RFC 5227: a probe of another's address is none of ours.
        for address in [
            GUEST,
            Ipv4Addr::new(10, 0, 2, 77),
            Ipv4Addr::new(10, 0, 2, 255),
            *remote(1, 0).ip(),
            Ipv4Addr::UNSPECIFIED,
        ] {
            w.send(&frames::arp(1, GUEST_MAC, GUEST, address));
            w.send(&frames::arp(1, GUEST_MAC, Ipv4Addr::UNSPECIFIED, address));
        }
        assert_eq!(w.take(), []);
        w.assert_works();
    }
}

/// N21: the container claims our addresses, announces itself, or is many.
#[test]
fn n21_arp_claims() {
    let mut w = World::plain();
    for address in [GATEWAY, DNS] {
        w.send(&frames::arp(1, GUEST_MAC, address, address));
        w.send(&frames::arp(2, GUEST_MAC, address, GUEST));
    }
    w.send(&frames::arp(1, BROADCAST_MAC, GUEST, GATEWAY));
    w.send(&frames::arp(3, GUEST_MAC, GUEST, GATEWAY));
    assert_eq!(w.take(), []);
    w.assert_works();
    // Others than the container teach us nothing.
    w.send(&frames::udp(1234, remote(1, 7), b"x"));
    for i in 0..10_000_u16 {
        let [a, b] = i.to_be_bytes();
        w.send(&frames::arp(
            1,
            [2, 1, 1, 1, a, b],
            Ipv4Addr::new(10, 1, a, b),
            DNS,
        ));
    }
    w.take();
    let flow = w.host.datagrams.last().unwrap().0;
    w.stack
        .datagram(w.now, flow, remote(1, 7).into(), b"y", 0, &mut w.host);
    let frame = w.host.frames.pop_back().unwrap();
    assert_eq!(frame[..6], GUEST_MAC);
    w.assert_works();
}

/// Answers follow the container's hardware address, whatever frame tells it.
#[test]
fn answers_go_to_the_last_source() {
    let mut w = World::plain();
    for mac in [GUEST_MAC, OTHER_MAC] {
        let mut frame = frames::echo(GATEWAY, 1, 1, b"x");
        frame[6..12].copy_from_slice(&mac);
        w.stack.input(w.now, &frame, &mut w.host);
        assert_eq!(w.host.frames.pop_back().unwrap()[..6], mac);
    }
    // Neither a group address nor our own can be the container's.
    for mac in [BROADCAST_MAC, [1, 0, 0x5e, 0, 0, 1], STACK_MAC] {
        let mut frame = frames::echo(GATEWAY, 1, 1, b"x");
        frame[6..12].copy_from_slice(&mac);
        w.stack.input(w.now, &frame, &mut w.host);
        assert_eq!(w.host.frames.pop_back().unwrap()[..6], OTHER_MAC);
    }
}

#[test]
fn frames_for_others_are_dropped() {
    let mut w = World::plain();
    let mut frame = frames::echo(GATEWAY, 1, 1, b"x");
    frame[..6].copy_from_slice(&OTHER_MAC);
    w.send(&frame);
    assert_eq!(w.take(), []);
    assert_eq!(w.stack.stats().dropped, 1);
}

#[test]
fn other_sources_are_dropped() {
    let mut w = World::plain();
    for source in [
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::LOCALHOST,
        GATEWAY,
        DNS,
        Ipv4Addr::new(10, 0, 2, 101),
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(224, 0, 0, 1),
    ] {
        w.send(&super::world::syn_from(source, remote(1, 80)));
        let segment = frames::udp_segment(source, 1, remote(1, 7), b"x");
        let packet = Ip {
            source,
            ..Ip::new(*remote(1, 7).ip(), frames::UDP, segment)
        };
        w.send(&packet.frame());
    }
    assert_eq!(w.take(), []);
    assert_eq!(w.stack.stats().dropped, 14);
    assert_eq!(w.stack.flow_count(), 0);
    w.assert_works();
}

#[test]
fn other_protocols_are_unreachable() {
    let mut w = World::plain();
    for protocol in (0..=u8::MAX).filter(|p| !matches!(p, 1 | 6 | 17)) {
        w.send(&odd_protocol(*remote(1, 0).ip(), protocol));
        assert!(
            matches!(w.take()[..], [Seen::Unreachable { code: 2, .. }]),
            "{protocol}"
        );
    }
    w.assert_works();
}

/// RFC 1122, 3.2.2: no ICMP error is sent about a packet for many.
#[test]
fn n31_no_errors_about_multicast_and_broadcast() {
    let mut w = World::plain();
    for to in [
        Ipv4Addr::new(224, 0, 0, 22),
        Ipv4Addr::new(224, 0, 0, 251),
        Ipv4Addr::new(239, 255, 255, 250),
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(10, 0, 2, 255),
    ] {
        w.send(&frames::udp(
            1234,
            std::net::SocketAddrV4::new(to, 1900),
            b"x",
        ));
        w.send(&frames::echo(to, 1, 1, b"x"));
        w.send(&odd_protocol(to, 2));
        w.send(&frames::Segment::syn(1, std::net::SocketAddrV4::new(to, 80)).frame());
        assert_eq!(w.take(), [], "{to}");
    }
    // Nor about what came as a link-layer broadcast.
    let mut frame = frames::udp(1234, std::net::SocketAddrV4::new(DNS, 9), b"x");
    frame[..6].fill(0xff);
    w.send(&frame);
    assert_eq!(w.take(), []);
    assert_eq!(w.host.open.len(), 0);
    w.assert_works();
}

/// The gateway takes the virtio header with a checksum left undone, and one
/// that says the checksum is there and good.
#[test]
fn virtio_header_up() {
    let mut w = World::new(links()[2]);
    let frame = frames::udp(1234, remote(1, 7), b"payload");
    let mut bytes = vec![0; 10];
    bytes.extend_from_slice(&frame);
    // Present, and right.
    w.send_raw(&bytes);
    assert_eq!(w.host.datagrams.len(), 1);
    // Present, and wrong.
    let at = 10 + 34 + 6;
    bytes[at] ^= 0xff;
    w.send_raw(&bytes);
    assert_eq!(w.host.datagrams.len(), 1);
    // Not there yet: VIRTIO_NET_HDR_F_NEEDS_CSUM; known to be good: F_DATA_VALID.
    for flag in [1, 2] {
        bytes[0] = flag;
        w.send_raw(&bytes);
    }
    assert_eq!(w.host.datagrams.len(), 3);
    w.assert_works();
}

/// Frames that the link loses are as good as lost on any link.
#[test]
fn n18_frames_are_lost() {
    for link in links() {
        let mut w = World::new(link);
        w.weather.lose = 10;
        let pair = w.connect(remote(1, 80));
        let (up, down) = (
            super::world::pattern(1, 100_000),
            super::world::pattern(2, 100_000),
        );
        super::tcp_data::exchange(&mut w, pair, &up, &down, Duration::from_secs(600));
        w.weather.lose = 0;
        w.assert_works();
    }
}

/// Frames of an hour ago do not confuse a stack that is idle.
#[test]
fn nothing_to_do() {
    let mut w = World::plain();
    assert_eq!(w.stack.next_deadline(), None);
    w.host.default_outcome = Outcome::Never;
    w.run(Duration::from_secs(3600));
    assert_eq!(w.stack.next_deadline(), None);
    assert_eq!(w.stack.stats().frames_out, 0);
}
