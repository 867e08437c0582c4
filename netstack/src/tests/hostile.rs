//! The cases of the security anchors (N1 to N34) as far as IPv4 goes: what once
//! broke other stacks. N12 is in `liveness`, N13 in `dns`, N17 in `tcp_close`
//! (TCP), `udp` and `icmp`, N18, N21 and N31 in `link`, N28 in `liveness` and
//! `tcp_data`. Each ends with exchanges that work.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use smoltcp::time::Duration;

use super::dns;
use super::frames::{
    self, ACK, BROADCAST_MAC, DNS, FIN, GATEWAY, GUEST, ICMP, Ip, PSH, SYN, Seen, Segment, TCP, UDP,
};
use super::guest::remote;
use super::shim::Rng;
use super::world::{World, config, links, pattern};

/// One valid frame of each kind.
fn valid_frames() -> Vec<Vec<u8>> {
    let to = remote(1, 80);
    let mut syn = Segment::syn(900, to);
    syn.options = vec![
        2, 4, 5, 0xb4, 4, 2, 3, 3, 7, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0,
    ];
    vec![
        syn.frame(),
        Segment::new(901, to, ACK | PSH, 1, 1)
            .with(b"payload")
            .frame(),
        frames::udp(902, remote(1, 7), b"payload"),
        frames::udp(903, SocketAddrV4::new(DNS, 53), &[0x12; 30]),
        frames::echo(GATEWAY, 1, 1, b"payload"),
        frames::echo(*remote(1, 0).ip(), 1, 1, b"payload"),
        frames::arp(1, frames::GUEST_MAC, GUEST, GATEWAY),
    ]
}

/// A DHCPDISCOVER (RFC 2131) as clients send it.
fn dhcp(options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[28..34].copy_from_slice(&frames::GUEST_MAC);
    message.extend_from_slice(&[99, 130, 83, 99]);
    message.extend_from_slice(options);
    message
}

pub(super) fn no_service(w: &mut World) {
    assert!(w.host.connects.is_empty() && w.host.datagrams.is_empty());
    assert_eq!(w.stack.flow_count(), 0);
    w.assert_works();
}

#[test]
fn every_prefix_of_every_valid_frame() {
    for link in links() {
        let mut w = World::new(link);
        for frame in valid_frames() {
            for header in [0, 1, 2] {
                let mut bytes = if link.vnet_header {
                    let mut header_bytes = vec![0; 10];
                    header_bytes[0] = header;
                    header_bytes
                } else {
                    Vec::new()
                };
                bytes.extend_from_slice(&frame);
                for len in 0..bytes.len() {
                    w.send_raw(&bytes[..len]);
                }
            }
        }
        assert_eq!(w.take(), [], "nothing answers half a frame");
        no_service(&mut w);
    }
}

#[test]
fn n2_short_dhcp_messages() {
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
fn n3_udp_lengths() {
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
fn n4_no_tftp() {
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
fn n5_every_length_of_every_ethertype() {
    for link in [links()[0], links()[2]] {
        let mut w = World::new(link);
        let mut rng = Rng(5);
        for ethertype in [
            0x806, 0x800, 0x86dd, 0x8100, 0x88a8, 0x88f8, 0, 0x5dc, 0xffff, 0x1234,
        ] {
            for len in 0..=60 {
                for fill in 0..4 {
                    let payload: Vec<u8> = (0..60)
                        .map(|_| {
                            if fill == 0 {
                                0
                            } else {
                                rng.next().to_le_bytes()[0]
                            }
                        })
                        .collect();
                    let frame = frames::ethernet(ethertype, &payload);
                    let mut bytes = vec![0; if link.vnet_header { 10 } else { 0 }];
                    bytes.extend_from_slice(&frame[..len.min(frame.len())]);
                    w.send_raw(&bytes);
                }
            }
        }
        assert_eq!(w.take(), []);
        no_service(&mut w);
    }
}

/// N6, N22, N23: there is no IPv6, whatever is in it.
#[test]
fn n6_no_ipv6() {
    let mut w = World::plain();
    let mut rng = Rng(6);
    for next_header in [0, 6, 17, 43, 44, 51, 58, 60] {
        for claimed in [0_u16, 8, 40, 65_535] {
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend_from_slice(&claimed.to_be_bytes());
            packet.extend_from_slice(&[next_header, 64]);
            packet.extend((0..72).map(|_| rng.next().to_le_bytes()[0]));
            w.send(&frames::ethernet(0x86dd, &packet));
            // An IPv6 packet that says that it is IPv4.
            w.send(&frames::ethernet(0x0800, &packet));
        }
    }
    assert_eq!(w.take(), []);
    no_service(&mut w);
}

/// Fragments of `data`, 8 bytes a unit; `at` in units.
fn fragment(ident: u16, protocol: u8, at: u16, more: bool, data: &[u8]) -> Vec<u8> {
    Ip {
        ident,
        fragment: at | if more { 0x2000 } else { 0 },
        ..Ip::new(*remote(1, 0).ip(), protocol, data.to_vec())
    }
    .frame()
}

#[test]
fn n7_odd_fragments() {
    let mut w = World::plain();
    let data = pattern(7, 1400);
    for protocol in [UDP, TCP, ICMP, 0] {
        for (i, at) in [0, 1, 87, 174, 8191].into_iter().enumerate() {
            for len in [0, 1, 8, 440, 1400] {
                let ident = u16::try_from(i).unwrap();
                // The last first, twice, overlapping, and two that claim to be the last.
                w.send(&fragment(ident, protocol, at, at == 0, &data[..len]));
                w.send(&fragment(ident, protocol, at, at == 0, &data[..len]));
                w.send(&fragment(
                    ident,
                    protocol,
                    at.saturating_sub(1),
                    true,
                    &data[..len],
                ));
                w.send(&fragment(
                    ident,
                    protocol,
                    at.max(1),
                    false,
                    &data[..len / 2],
                ));
            }
        }
    }
    // The single frame that ends slirp4netns 1.2.0.
    w.send(&fragment(9, UDP, 87, false, &data[..440]));
    // Pieces of protocols that we know made no valid packet; those of the one that we
    // do not know, one that is whole.
    for seen in w.take() {
        assert!(
            matches!(seen, Seen::Unreachable { code: 2, .. }),
            "{seen:?}"
        );
    }
    assert!(w.stack.stats().fragments_dropped > 0);
    assert!(w.host.open.is_empty() && w.host.datagrams.is_empty());
    fragments_are_served(&mut w);
    w.assert_works();
}

#[test]
fn n8_huge_fragments() {
    let mut w = World::new(links()[1]);
    let data = pattern(8, 65_496);
    for at in [0, 1, 8187, 8191] {
        for more in [true, false] {
            if at != 0 || more {
                w.send(&fragment(1, UDP, at, more, &data));
            }
        }
    }
    assert_eq!(w.take(), []);
    assert!(w.host.open.is_empty());
    // Sums of 65,536 to 131,072.
    for len in [40, 48, 1480, 65_496] {
        w.send(&fragment(2, UDP, 0, true, &data));
        w.send(&fragment(2, UDP, 8187, false, &data[..len]));
    }
    assert_eq!(w.take(), []);
    assert!(w.host.open.is_empty());
    fragments_are_served(&mut w);
    w.assert_works();
}

/// A datagram of the container in fragments of `size` bytes.
fn fragments(ident: u16, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let segment = frames::udp_segment(GUEST, 1234, remote(1, 7), payload);
    let count = segment.len().div_ceil(size);
    let pieces = segment.chunks(size).enumerate();
    pieces
        .map(|(n, data)| {
            let at = u16::try_from(n * size / 8).unwrap();
            fragment(ident, UDP, at, n + 1 < count, data)
        })
        .collect()
}

/// Datagrams in fragments reach the host, and its answers the container.
fn fragments_are_served(w: &mut World) {
    let before = w.host.datagrams.len();
    for (n, (len, size)) in [(3000, 1480), (8000, 8), (60_000, 1480), (65_507, 65_504)]
        .into_iter()
        .enumerate()
    {
        let data = pattern(77, len);
        let mut frames = fragments(60_000 + u16::try_from(n).unwrap(), &data, size);
        frames.rotate_left(n % 2);
        for frame in frames {
            w.send(&frame);
        }
        let (flow, to, sent) = w.host.datagrams[before + n].clone();
        assert_eq!(sent, data);
        assert!(!w.host.fields.dont_fragment);
        w.datagram(flow, to, &data, 0);
        let answer = Seen::Udp {
            from: remote(1, 7),
            to: SocketAddrV4::new(GUEST, 1234),
            payload: data,
        };
        assert_eq!(w.take(), [answer]);
    }
}

/// One datagram that is never complete, and 1,000 that are.
#[test]
fn n20_an_incomplete_datagram_is_in_nobodys_way() {
    let mut w = World::plain();
    let data = pattern(20, 4000);
    w.send(&fragments(0, &data, 1480)[0]);
    for ident in 1..=1000 {
        for frame in fragments(ident, &data, 1480) {
            w.send(&frame);
        }
    }
    assert_eq!(w.host.datagrams.len(), 1000);
    assert!(w.host.datagrams.iter().all(|sent| sent.2 == data));
    let stats = w.stack.stats();
    assert_eq!((stats.fragments_in, stats.reassembled), (3001, 1000));
    assert_eq!(w.take(), []);
    w.run(Duration::from_secs(31));
    assert_eq!(w.stack.stats().fragments_dropped, 1);
    match &w.take()[..] {
        [
            Seen::TimeExceeded {
                from: GATEWAY,
                code: 1,
                quote,
            },
        ] => {
            assert_eq!(quote[9], UDP);
        }
        other => panic!("{other:?}"),
    }
    w.assert_empties(Duration::from_secs(200));
}

/// A connection whose segments are fragmented works, in order with those that are not.
#[test]
fn fragments_of_a_connection() {
    let mut w = World::plain();
    let to = remote(1, 80);
    let (flow, isn) = w.open_by_hand(&Segment::syn(1234, to));
    let data = pattern(5, 3000);
    for (n, chunk) in data.chunks(1000).enumerate() {
        let seq = 1001 + u32::try_from(n * 1000).unwrap();
        let segment = Segment::new(1234, to, ACK, seq, isn + 1).with(chunk);
        if n == 1 {
            let bytes = segment.segment();
            w.send(&fragment(3, TCP, 65, false, &bytes[520..]));
            w.send(&fragment(3, TCP, 0, true, &bytes[..520]));
        } else {
            w.send(&segment.frame());
        }
    }
    assert_eq!(w.far_received(flow), data);
    w.assert_works();
}

#[test]
fn n10_sources_and_destinations() {
    let addresses: [Ipv4Addr; 13] = [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.0.1",
        "10.0.2.2",
        "10.0.2.3",
        "10.0.2.100",
        "10.0.2.255",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "169.254.169.254",
        "198.51.100.1",
    ]
    .map(|address| address.parse().unwrap());
    let allowed = *remote(1, 0).ip();
    for source in addresses {
        let mut w = World::plain();
        for (i, to) in addresses.into_iter().enumerate() {
            let port = 1000 + u16::try_from(i).unwrap();
            for segment in [
                Segment {
                    source,
                    ..Segment::syn(port, SocketAddrV4::new(to, 80))
                },
                Segment {
                    source,
                    ..Segment::new(port, SocketAddrV4::new(to, 81), ACK, 1, 1)
                },
            ] {
                w.send(&segment.frame());
            }
            let with_source = |protocol, payload| Ip {
                source,
                ..Ip::new(to, protocol, payload)
            };
            let datagram = frames::udp_segment(source, port, SocketAddrV4::new(to, 80), b"x");
            w.send(&with_source(UDP, datagram.clone()).frame());
            w.send(&with_source(ICMP, frames::icmp_message(8, 0, [0; 4], b"x")).frame());
            let mut piece = with_source(UDP, datagram);
            piece.fragment = 0x2000;
            w.send(&piece.frame());
        }
        let aims: Vec<SocketAddr> = w
            .host
            .connects
            .iter()
            .copied()
            .chain(w.host.datagrams.iter().map(|(_, to, _)| *to))
            .collect();
        if source == GUEST {
            assert_eq!(aims, [SocketAddr::from((allowed, 80)); 2]);
            assert_eq!(w.host.echoes.len(), 1);
        } else {
            assert_eq!(aims, []);
            assert_eq!(w.host.echoes.len(), 0);
            assert_eq!(w.take(), []);
        }
        w.assert_works();
    }
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

/// N20: one fragment that is never completed holds up nothing.
#[test]
fn n20_incomplete_fragment() {
    let mut w = World::plain();
    w.send(&fragment(1, UDP, 0, true, &[0; 1400]));
    for i in 0..1000 {
        let before = w.host.datagrams.len();
        w.send(&frames::udp(1234, remote(1, 7), &[1; 1000]));
        assert_eq!(w.host.datagrams.len(), before + 1, "{i}");
    }
    w.assert_works();
}

#[test]
fn n24_tags_and_lengths() {
    let mut w = World::plain();
    for frame in valid_frames() {
        for tag in [0x8100_u16, 0x88a8] {
            let mut tagged = frame[..12].to_vec();
            tagged.extend_from_slice(&tag.to_be_bytes());
            tagged.extend_from_slice(&[0, 5]);
            tagged.extend_from_slice(&frame[12..]);
            w.send(&tagged);
        }
        let mut length = frame[..12].to_vec();
        length.extend_from_slice(&u16::try_from(frame.len() - 14).unwrap().to_be_bytes());
        length.extend_from_slice(&frame[14..]);
        w.send(&length);
    }
    assert_eq!(w.take(), []);
    no_service(&mut w);
}

/// N25: ICMP errors of the container about its own flows change nothing.
#[test]
fn n25_icmp_errors_from_the_container() {
    let mut w = World::plain();
    let pair = w.connect(remote(1, 80));
    let inner = Segment::new(
        80,
        SocketAddrV4::new(GUEST, w.guest.port(pair.guest)),
        ACK,
        1,
        1,
    );
    let mut inner = inner.frame()[14..].to_vec();
    inner[12..16].copy_from_slice(&remote(1, 0).ip().octets());
    for kind in [3, 4, 5, 11, 12] {
        for code in 0..6 {
            for mtu in [0_u16, 1, 67, 68, 1280] {
                for len in [0, 8, 20, 28, inner.len()] {
                    let [a, b] = mtu.to_be_bytes();
                    let message = frames::icmp_message(kind, code, [0, 0, a, b], &inner[..len]);
                    for to in [*remote(1, 0).ip(), GATEWAY] {
                        w.send(&Ip::new(to, ICMP, message.clone()).frame());
                    }
                }
            }
        }
    }
    assert_eq!(w.take(), []);
    let (up, down) = (pattern(1, 20_000), pattern(2, 20_000));
    super::tcp_data::exchange(&mut w, pair, &up, &down, Duration::from_secs(5));
    w.assert_works();
}

#[test]
fn n29_frames_longer_than_the_link() {
    let mut w = World::plain();
    let to = remote(1, 7);
    let data = pattern(29, 65_000);
    w.send(&frames::udp(1234, to, &data));
    assert_eq!(w.host.datagrams[0].2, data);
    w.send(&frames::echo(GATEWAY, 1, 1, &data));
    let answer = Seen::EchoReply {
        from: GATEWAY,
        ident: 1,
        seq: 1,
        payload: data.clone(),
    };
    assert_eq!(w.take(), [answer], "in fragments");
    let (flow, isn) = w.open_by_hand(&Segment::syn(1235, remote(1, 80)));
    w.send(
        &Segment::new(1235, remote(1, 80), ACK, 1001, isn + 1)
            .with(&data[..60_000])
            .frame(),
    );
    assert_eq!(w.far_received(flow), &data[..60_000]);
    w.assert_works();
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

#[test]
fn n32_odd_ip_headers() {
    let mut w = World::plain();
    let to = remote(1, 7);
    let base = Ip::new(*to.ip(), UDP, frames::udp_segment(GUEST, 1234, to, b"x"));
    let lsrr = vec![131, 7, 4, 127, 0, 0, 1, 0];
    let odd = [
        Ip {
            ttl: 1,
            ..base.clone()
        },
        Ip {
            tos: 0xff,
            ..base.clone()
        },
        Ip {
            ident: 0xffff,
            ..base.clone()
        },
        Ip {
            fragment: 0x8000,
            ..base.clone()
        },
        Ip {
            options: lsrr,
            ..base.clone()
        },
        Ip {
            options: vec![1; 40],
            ..base.clone()
        },
        Ip {
            options: vec![0xff; 40],
            ..base.clone()
        },
        Ip {
            options: vec![7, 0, 0, 0],
            ..base.clone()
        },
    ];
    for packet in odd {
        w.send(&packet.frame());
        if packet.ttl <= 1 {
            let quote = packet.packet();
            let expected = Seen::TimeExceeded {
                from: GATEWAY,
                code: 0,
                quote,
            };
            assert_eq!(w.take(), [expected]);
        }
        if let Some((_, at, payload)) = w.host.datagrams.pop() {
            assert_eq!((at, payload.as_slice()), (to.into(), b"x".as_slice()));
        }
    }
    // DF and a fragment at once; a header of less than 20 bytes; other versions.
    w.send(
        &Ip {
            fragment: 0x6000,
            ..base.clone()
        }
        .frame(),
    );
    for first in (0..=u8::MAX).filter(|first| *first != 0x45) {
        let mut packet = base.packet();
        packet[0] = first;
        packet[10..12].fill(0);
        let header = usize::from(first & 15) * 4;
        let sum = frames::checksum(&[&packet[..header.clamp(20, packet.len())]]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        w.send(&frames::ethernet(0x0800, &packet));
    }
    assert_eq!(w.host.datagrams, []);
    // ECN and CWR in a SYN (RFC 3168), reserved bits, and SYN with options in the IP header.
    for (i, flags) in [SYN | 0xc0, SYN].into_iter().enumerate() {
        let port = 2000 + u16::try_from(i).unwrap();
        let mut syn = Segment::syn(port, remote(1, 80));
        syn.flags = flags;
        let packet = Ip {
            options: vec![1; 8],
            ..Ip::new(*syn.to.ip(), TCP, syn.segment())
        };
        w.send(&packet.frame());
        w.run(Duration::from_millis(2));
        let answer: Vec<_> = w
            .take()
            .into_iter()
            .filter(|seen| matches!(seen, Seen::Tcp(_)))
            .collect();
        assert!(matches!(&answer[..], [Seen::Tcp(tcp)] if tcp.flags == SYN | ACK));
    }
    w.assert_works();
}

#[test]
fn n33_wrong_checksums() {
    let mut w = World::plain();
    let to = remote(1, 80);
    for (protocol, mut segment, at) in [
        (TCP, Segment::syn(1234, to).segment(), 16),
        (UDP, frames::udp_segment(GUEST, 1234, to, b"x"), 6),
        (ICMP, frames::icmp_message(8, 0, [0; 4], b"x"), 2),
    ] {
        for bit in 0..8 {
            segment[at] ^= 1 << bit;
            w.send(&Ip::new(*to.ip(), protocol, segment.clone()).frame());
            segment[at] ^= 1 << bit;
            let mut frame = Ip::new(*to.ip(), protocol, segment.clone()).frame();
            frame[14 + 10] ^= 1 << bit;
            w.send(&frame);
        }
    }
    assert_eq!(w.take(), []);
    assert_eq!(w.stack.stats().dropped, 48);
    no_service(&mut w);
}

/// N33: the virtio header says anything at all.
#[test]
fn n33_virtio_header_fields() {
    let mut w = World::new(links()[2]);
    let to = remote(1, 80);
    let frames = [
        frames::udp(1234, remote(1, 7), &[7; 60_000]),
        frames::udp(1235, SocketAddrV4::new(DNS, 53), &[7; 100]),
        Segment::new(1236, to, ACK, 1, 1).with(&[7; 5000]).frame(),
        Segment::syn(1237, to).frame(),
        frames::echo(GATEWAY, 1, 1, b"x"),
        frames::arp(1, frames::GUEST_MAC, GUEST, GATEWAY),
    ];
    let edges = [0_u16, 1, 0x7fff, 0xffff];
    for frame in &frames {
        for flags in [0_u8, 1, 2, 3, 0xff] {
            for gso in [0_u8, 1, 3, 4, 5, 0x80, 0x81, 0x85, 0xff] {
                for size in edges {
                    for other in edges {
                        let mut bytes = vec![flags, gso];
                        bytes.extend_from_slice(&other.to_ne_bytes());
                        bytes.extend_from_slice(&size.to_ne_bytes());
                        bytes.extend_from_slice(&other.to_ne_bytes());
                        bytes.extend_from_slice(&other.to_ne_bytes());
                        bytes.extend_from_slice(frame);
                        let before = w.host.datagrams.len();
                        w.send_raw(&bytes);
                        let sent = w.host.datagrams.len() - before;
                        // UDP_MAX_SEGMENTS of Linux
                        assert!(sent <= 128, "{sent} datagrams of one frame");
                        w.host.datagrams.clear();
                        w.take();
                    }
                }
            }
        }
    }
    w.run(Duration::from_secs(200));
    w.take();
    w.assert_works();
}
