//! Effects of N2, N3, N4, N11, N13, N14, N15 and N30.

use std::net::{Ipv4Addr, SocketAddrV4};

use hostile::dhcp;
use smoltcp::time::Duration;

use super::super::dns;
use super::super::frames::{
    self, ACK, BROADCAST_MAC, DNS, FIN, GATEWAY, GUEST, Ip, SYN, Segment, UDP,
};
use super::super::guest::remote;
use super::super::world::{World, config, links};
use super::no_service;

#[test]
fn n02_short_dhcp_messages() {
    let mut w = World::plain();
    let whole = dhcp(&[53, 1, 1, 255]);
    for to in [Ipv4Addr::BROADCAST, GATEWAY] {
        let to = SocketAddrV4::new(to, 67);
        for source in [Ipv4Addr::UNSPECIFIED, GUEST] {
            for len in 0..=whole.len() {
                let segment = frames::udp_segment(source, 68, to, &whole[..len]);
                let packet = Ip {
                    source,
                    ..Ip::new(*to.ip(), UDP, segment)
                };
                w.send(&packet.frame());
                let mut frame = packet.frame();
                frame[..6].copy_from_slice(&BROADCAST_MAC);
                w.send(&frame);
            }
        }
    }
    no_service(&mut w);
}

#[test]
fn n03_udp_lengths() {
    let mut w = World::plain();
    let to = remote(1, 7);
    let good = frames::udp_segment(GUEST, 1234, to, b"payload");
    let len = u16::try_from(good.len()).unwrap();
    for claimed in [0, 1, 7, len + 1, 65_535] {
        for checksum in [true, false] {
            let mut bad = good.clone();
            bad[4..6].copy_from_slice(&claimed.to_be_bytes());
            bad[6..8].fill(0);
            if checksum {
                frames::fill_checksum(&mut bad, GUEST, *to.ip(), UDP);
            }
            w.send(&Ip::new(*to.ip(), UDP, bad).frame());
        }
    }
    assert_eq!(w.take(), []);
    assert_eq!(w.host.datagrams, []);
    // Shorter than the IP payload is allowed: the rest is padding.
    for claimed in [8, len - 1] {
        let mut short = good.clone();
        short[4..6].copy_from_slice(&claimed.to_be_bytes());
        short[6..8].fill(0);
        w.send(&Ip::new(*to.ip(), UDP, short).frame());
        let (_, _, payload) = w.host.datagrams.pop().unwrap();
        assert_eq!(payload, b"payload"[..usize::from(claimed) - 8]);
    }
    w.assert_works();
}

#[test]
fn n04_no_tftp() {
    let mut w = World::plain();
    for len in 0..4 {
        w.send(&frames::udp(
            1234,
            SocketAddrV4::new(GATEWAY, 69),
            &b"\0\x01x"[..len.min(3)],
        ));
    }
    assert_eq!(w.take().len(), 4, "forbidden, like any port");
    no_service(&mut w);
}

#[test]
fn n11_empty_datagrams() {
    let mut w = World::plain();
    let to = remote(1, 7);
    for _ in 0..10 {
        w.send(&frames::udp(1234, to, b""));
        let (flow, _, payload) = w.host.datagrams.pop().unwrap();
        assert_eq!(payload, b"");
        w.datagram(flow, to.into(), b"", 0);
        w.datagram(flow, to.into(), b"", 1200);
        assert_eq!(w.take().len(), 2);
    }
    assert!(w.stack.next_deadline().unwrap() > w.now + Duration::from_secs(10));
    w.assert_works();
}

/// N13: queries without number do not starve others.
#[test]
fn n13_ten_thousand_queries_a_second() {
    let mut w = World::plain();
    let at = SocketAddrV4::new(DNS, 53);
    let question = dns::query(1, "a.example", dns::A);
    let answer = dns::answer(&question, 0, b"a");
    for second in 0..2_u16 {
        for i in 0..10_000_u16 {
            let port = 1 + (second * 10_000 + i) % 20_000;
            w.send(&frames::udp(port, at, &question));
            // Answered a hundred queries later.
            if let Some(n) = w.host.datagrams.len().checked_sub(100) {
                let (flow, to, _) = w.host.datagrams[n].clone();
                w.datagram(flow, to, &answer, 0);
            }
            if i % 100 == 0 {
                w.run(Duration::from_millis(10));
                assert!(w.stack.flow_count() <= 2 * 110);
            }
        }
        w.assert_works();
    }
}

#[test]
fn n14_port_zero() {
    let mut w = World::plain();
    for (from, to) in [(0, 80), (80, 0), (0, 0)] {
        for flags in [SYN, ACK, SYN | ACK, FIN | ACK] {
            w.send(&Segment::new(from, remote(1, to), flags, 1, 1).frame());
        }
        w.send(&frames::udp(from, remote(1, to), b"x"));
        w.send(&frames::udp(from, SocketAddrV4::new(DNS, 0), b"x"));
        w.run(Duration::from_millis(5));
    }
    assert!(w.host.datagrams.is_empty());
    w.take();
    w.run(Duration::from_secs(150));
    assert_eq!(w.stack.flow_count(), 0);
    w.assert_works();
}

#[test]
fn n15_dhcp_options() {
    let mut w = World::plain();
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
    for code in 0..=u8::MAX {
        for len in [0, 1, 255] {
            let message = dhcp(&[53, 1, 1, 0, code, len, 255]);
            w.send(&frames::udp(68, to, &message));
        }
    }
    no_service(&mut w);
}

#[test]
fn n30_a_datagram_to_every_port() {
    let mut c = config(links()[0]);
    c.limits.max_flows = 4096;
    let mut w = World::with(c);
    for port in 1..=u16::MAX {
        w.send(&frames::udp(1234, remote(9, port), b"x"));
        assert!(w.stack.flow_count() <= 4096 + 1, "and their socket");
    }
    assert_eq!(w.host.open.len(), 1, "one socket for all of them");
    for port in 2000..10_000 {
        w.send(&frames::udp(port, remote(9, 9), b"x"));
        assert!(w.host.open.len() <= 4096);
    }
    w.take();
    w.run(Duration::from_secs(31));
    assert_eq!(w.stack.flow_count(), 0);
    w.assert_works();
}
