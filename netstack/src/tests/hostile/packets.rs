//! Effects of N5, N6, N10, N24, N25, N32 and N33.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use hostile::Step;
use smoltcp::time::Duration;

use super::super::frames::{
    self, ACK, DNS, GATEWAY, GUEST, ICMP, Ip, SYN, Seen, Segment, TCP, UDP,
};
use super::super::guest::remote;
use super::super::shim::Rng;
use super::super::world::{World, links, pattern};
use super::no_service;

#[test]
fn every_prefix_of_every_valid_frame() {
    for link in links() {
        let mut w = World::new(link);
        for frame in hostile::valid() {
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
fn n05_every_length_of_every_ethertype() {
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
fn n06_no_ipv6() {
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

/// The same with IPv6 and over every link: what opens a socket of the host is the
/// container's own address alone, and what it reaches is the far end.
#[test]
fn n10_only_the_container_opens_sockets() {
    for link in links() {
        let mut w = World::new(link);
        for step in hostile::case(10).unwrap().steps {
            let Step::Frame(frame) = step else { continue };
            let sockets = w.host.open.len();
            w.send(&frame);
            let new = w.host.open.len() > sockets;
            let (v4, v6) = (frame[12..14] == [8, 0], frame[12..14] == [0x86, 0xdd]);
            let own = v4 && frame[26..30] == GUEST.octets()
                || v6 && frame[22..38] == frames::GUEST6.octets();
            assert!(own || !new, "{frame:?}");
        }
        let tcp = w.host.connects.iter().copied();
        let udp = w.host.datagrams.iter().map(|sent| sent.1);
        let aims: BTreeSet<SocketAddr> = tcp.chain(udp).collect();
        let far = [
            SocketAddr::from((frames::FAR, 80)),
            SocketAddr::from((frames::FAR6, 80)),
        ];
        assert_eq!(aims, far.into());
        let pinged: BTreeSet<_> = w.host.echoes.iter().map(|sent| sent.1).collect();
        assert_eq!(pinged, far.map(|at| at.ip()).into());
        w.take();
        w.assert_works();
    }
}

#[test]
fn n24_tags_and_lengths() {
    let mut w = World::plain();
    for frame in hostile::valid() {
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
    super::super::tcp_data::exchange(&mut w, pair, &up, &down, Duration::from_secs(5));
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
        let header = (usize::from(first & 15) * 4).clamp(20, packet.len());
        frames::fill_header_checksum(&mut packet[..header]);
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
